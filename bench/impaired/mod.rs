//! The impairing cable: what crosses it is lost, delayed, reordered and held to a rate, as its seed has it.
//!
//! In: two links, and what each direction does to frames. Out: frames from each end at the other, later or never, and
//! figures of all that was done to them. One thread runs it and sleeps until a frame comes or is due, to some 60 us.
//!
//! ```text
//!   end 0 --> rate, queue --> loss --> delay, lateness --> end 1       and the same back, with a seed of its own
//! ```
//!
//! Invariant: without impairment every frame arrives, once and in order. What is no IPv4, such as ARP, passes at once
//! and always: names are not what is measured.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdline::link::pcap::{CaptureFile, Direction, Packet};
use holdline::link::{Link, Received};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// What one direction does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// How many of a million frames are lost.
    pub lost_ppm: u32,
    /// How many of a million are held back, so that others overtake them.
    pub late_ppm: u32,
    /// For how long at most; each time is as likely.
    pub late_max: Duration,
    /// How long every frame takes.
    pub delay: Duration,
    /// Bits a second; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate; what is more is dropped.
    pub queue_bytes: u64,
}

/// What one direction has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Frames that came in.
    pub received: u64,
    /// Lost as the seed had it.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Held back.
    pub late: u64,
    /// Given to the other end.
    pub delivered: u64,
    /// Of those, how many came after one that had come in later.
    pub overtaken: u64,
    /// How much later than due the latest was delivered.
    pub latest_us: u64,
    /// How many were delivered more than a millisecond later than due.
    pub over_1_ms: u64,
}

/// One direction.
struct Way {
    impairment: Impairment,
    random: u64,
    free_at: Instant,
    flight: BinaryHeap<Reverse<Flying>>,
    delivered_until: u64,
    spare: Vec<Vec<u8>>,
    figures: Figures,
}

/// A frame under way. The order is that of leaving.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Instant,
    number: u64,
    frame: Vec<u8>,
}

/// See the module.
pub struct Cable {
    ends: [Box<dyn Link>; 2],
    ways: [Way; 2],
    capture: Option<CaptureFile>,
}

impl Cable {
    /// A cable between two ends; the first impairment is that of what the first end sends.
    pub fn new(ends: [Box<dyn Link>; 2], impairments: [Impairment; 2], seed: u64) -> Cable {
        let way = |index: usize| Way {
            impairment: impairments[index],
            random: mixed(seed.wrapping_mul(2).wrapping_add(index as u64)),
            free_at: Instant::now(),
            flight: BinaryHeap::new(),
            delivered_until: 0,
            spare: Vec::new(),
            figures: Figures::default(),
        };
        Cable { ends, ways: [way(0), way(1)], capture: None }
    }

    /// Writes all that the second end sends and is given to a file.
    pub fn record(&mut self, path: &Path) {
        self.capture = Some(CaptureFile::create(path, "server").expect("the capture can be made"));
    }

    /// Runs until it is told to stop; returns what each direction did.
    pub fn run(mut self, is_over: &AtomicBool) -> io::Result<[Figures; 2]> {
        // Without it the kernel lets a sleep be longer by 50 us.
        nix::sys::prctl::set_timerslack(1)?;
        while !is_over.load(Ordering::Relaxed) {
            for index in 0..2 {
                self.take_in(index)?;
                self.let_out(index)?;
            }
            self.sleep()?;
        }
        Ok(self.ways.map(|way| way.figures))
    }

    fn take_in(&mut self, index: usize) -> io::Result<()> {
        loop {
            let frames = self.ends[index].receive()?;
            let now = Instant::now();
            frames.iter().for_each(|frame| self.ways[index].take(now, frame));
            let is_last = frames.len() < Received::MAX;
            if let (Some(capture), 1) = (&mut self.capture, index) {
                note(capture, Direction::Sent, &frames)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn let_out(&mut self, index: usize) -> io::Result<()> {
        let now = Instant::now();
        while let Some(Reverse(next)) = self.ways[index].flight.peek()
            && next.due <= now
        {
            if !self.ends[1 - index].send(&next.frame)? {
                // The end is full: the frame is tried again when the loop comes round.
                break;
            }
            let Some(Reverse(flying)) = self.ways[index].flight.pop() else { break };
            if let (Some(capture), 0) = (&mut self.capture, index) {
                note(capture, Direction::Received, &[&flying.frame])?;
            }
            self.ways[index].count_delivery(now, flying);
        }
        self.ends[1 - index].flush()
    }

    fn sleep(&self) -> io::Result<()> {
        const LONGEST: Duration = Duration::from_millis(20);
        let now = Instant::now();
        let next = self.ways.iter().filter_map(|way| way.flight.peek()).map(|Reverse(flying)| flying.due).min();
        let pause = next.map_or(LONGEST, |due| due.saturating_duration_since(now).min(LONGEST));
        let descriptors = self.ends.each_ref().map(|end| end.descriptor());
        let mut waited: Vec<PollFd<'_>> =
            descriptors.iter().flatten().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
        match ppoll(&mut waited, Some(TimeSpec::from_duration(pause)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn note(capture: &mut CaptureFile, direction: Direction, frames: &[&[u8]]) -> io::Result<()> {
    let at_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    capture.write(frames.iter().map(|frame| Packet { at_ns, direction, frame, comment: "", lost_before: 0 }))
}

impl Way {
    fn take(&mut self, now: Instant, frame: &[u8]) {
        self.figures.received += 1;
        let number = self.figures.received;
        if frame.get(12..14) != Some(&[8, 0]) {
            return self.fly(now, number, frame);
        }
        // Drawn for each frame alike, so that a frame's fate follows from its number whatever the others' was.
        let (loss, lateness, how_late) = (self.draw(), self.draw(), self.draw());
        let mut due = now;
        if let Some(rate) = self.impairment.rate {
            let start = self.free_at.max(now);
            let waiting_bytes = (start - now).as_nanos() * u128::from(rate) / 8_000_000_000;
            if waiting_bytes > u128::from(self.impairment.queue_bytes) {
                self.figures.overflowed += 1;
                return;
            }
            let bits = frame.len() as u64 * 8;
            self.free_at = start + Duration::from_nanos(bits * 1_000_000_000 / rate);
            due = self.free_at;
        }
        if loss % MILLION < u64::from(self.impairment.lost_ppm) {
            self.figures.lost += 1;
            return;
        }
        due += self.impairment.delay;
        if lateness % MILLION < u64::from(self.impairment.late_ppm) {
            self.figures.late += 1;
            due += self.impairment.late_max.mul_f64((how_late % MILLION) as f64 / MILLION as f64);
        }
        self.fly(due, number, frame);
    }

    fn fly(&mut self, due: Instant, number: u64, frame: &[u8]) {
        let mut own = self.spare.pop().unwrap_or_default();
        own.clear();
        own.extend_from_slice(frame);
        self.flight.push(Reverse(Flying { due, number, frame: own }));
    }

    fn count_delivery(&mut self, now: Instant, flying: Flying) {
        let figures = &mut self.figures;
        let late = now.saturating_duration_since(flying.due);
        figures.delivered += 1;
        figures.overtaken += u64::from(flying.number < self.delivered_until);
        figures.latest_us = figures.latest_us.max(late.as_micros() as u64);
        figures.over_1_ms += u64::from(late > Duration::from_millis(1));
        self.delivered_until = self.delivered_until.max(flying.number);
        self.spare.push(flying.frame);
    }

    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.random)
    }
}

/// Spreads a number over 64 bits.
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

const MILLION: u64 = 1_000_000;
