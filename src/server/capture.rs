//! Recorder: the frames of shards on their way into a capture file.
//!
//! Comes in, from each shard's worker: what it has received and sent, with the rules that the shard traced. Goes out,
//! in a thread of its own: packets in a capture file, each with its rules as the comment and the wall clock's time.
//!
//! Invariant: the worker never waits for a disk. What the writer cannot take in time, or the disk not at all, is
//! missing in the file; it is counted, said once, said again at the end, and noted in the file where it goes on.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::link::pcap::{CaptureFile, Direction, Packet};
use crate::shard::{RuleSet, Service, Shard, Traced};

use super::clock::{wall_clock, whole};

/// How many bytes may wait for the disk.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// How many bunches may.
const WAITING_BUNCHES_MAX: usize = 4_096;

/// Who writes, and the way there.
pub(super) struct Recording {
    bunches: Sender<Bunch>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Frames that shards which are gone have not brought there.
    lost: Arc<AtomicU64>,
    writer: JoinHandle<u64>,
}

/// A shard's end.
pub(super) struct Recorder {
    bunch: Bunch,
    /// What the shard has made and not handed out yet: the rules that caused it.
    causes: VecDeque<RuleSet>,
    bunches: Sender<Bunch>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Frames that did not reach the writer since the last that did.
    lost: u64,
    lost_at_end: Arc<AtomicU64>,
}

/// The frames of one pass.
#[derive(Default)]
struct Bunch {
    bytes: Vec<u8>,
    packets: Vec<Noted>,
    /// How many frames are missing before the first.
    lost_before: u64,
}

struct Noted {
    at_ns: u64,
    direction: Direction,
    /// Where it ends in the bytes.
    end: usize,
    rules: RuleSet,
}

impl Recording {
    /// Starts the writer. Fails where the system has no thread.
    pub fn start(file: CaptureFile) -> io::Result<Recording> {
        let (bunches, waiting) = bounded(WAITING_BUNCHES_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let taken_bytes = Arc::clone(&waiting_bytes);
        let writer = std::thread::Builder::new().name("capture".to_owned());
        let writer = writer.spawn(move || Writer { file, lost: 0, lost_in_all: 0 }.run(&waiting, &taken_bytes))?;
        Ok(Recording { bunches, waiting_bytes, lost: Arc::default(), writer })
    }

    /// An end for one more shard.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            bunch: Bunch::default(),
            causes: VecDeque::new(),
            bunches: self.bunches.clone(),
            waiting_bytes: Arc::clone(&self.waiting_bytes),
            lost: 0,
            lost_at_end: Arc::clone(&self.lost),
        }
    }

    /// Waits until all is written; every other end must be gone. Returns how many frames are missing in the file.
    pub fn finish(self) -> u64 {
        drop(self.bunches);
        let lost = self.lost.load(Ordering::Relaxed) + self.writer.join().unwrap_or(0);
        if lost > 0 {
            tracing::warn!("{lost} frames are missing in the capture");
        }
        lost
    }
}

impl Recorder {
    /// Notes what the shard has just received.
    pub fn received<'a, S: Service>(&mut self, shard: &mut Shard<S>, frames: impl Iterator<Item = &'a [u8]>) {
        let at_ns = whole(wall_clock().as_nanos());
        let first = self.bunch.packets.len();
        for frame in frames {
            self.bunch.add(at_ns, Direction::Received, frame, RuleSet::default());
        }
        let mut packets = self.bunch.packets[first..].iter_mut();
        let causes = &mut self.causes;
        shard.drain_trace(|traced| match traced {
            Traced::Received(rules) => packets.by_ref().take(1).for_each(|packet| packet.rules = rules),
            Traced::Sent(rules) => causes.push_back(rules),
        });
    }

    /// Takes the causes of what is about to be sent.
    pub fn expect<S: Service>(&mut self, shard: &mut Shard<S>) {
        let causes = &mut self.causes;
        shard.drain_trace(|traced| match traced {
            Traced::Received(_) => {}
            Traced::Sent(rules) => causes.push_back(rules),
        });
    }

    /// Notes the next frame that the shard has handed out.
    pub fn sent(&mut self, frame: &[u8]) {
        let rules = self.causes.pop_front().unwrap_or_default();
        self.bunch.add(whole(wall_clock().as_nanos()), Direction::Sent, frame, rules);
    }

    /// Hands the writer what was noted.
    pub fn hand_over(&mut self) {
        if self.bunch.packets.is_empty() {
            return;
        }
        let mut bunch = std::mem::take(&mut self.bunch);
        let (bytes, frames) = (bunch.bytes.len(), bunch.packets.len() as u64);
        bunch.lost_before = self.lost;
        let is_taken = self.waiting_bytes.load(Ordering::Relaxed) < WAITING_BYTES_MAX && {
            self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bunches.try_send(bunch).is_ok()
        };
        if is_taken {
            self.lost = 0;
            return;
        }
        if self.lost == 0 {
            tracing::warn!("the disk is slower than the link: frames are missing in the capture");
        }
        self.lost += frames;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_over();
        self.lost_at_end.fetch_add(self.lost, Ordering::Relaxed);
    }
}

impl Bunch {
    fn add(&mut self, at_ns: u64, direction: Direction, frame: &[u8], rules: RuleSet) {
        self.bytes.extend_from_slice(frame);
        self.packets.push(Noted { at_ns, direction, end: self.bytes.len(), rules });
    }
}

/// The writing thread's end.
struct Writer {
    file: CaptureFile,
    /// Frames that are missing since the last that was written.
    lost: u64,
    lost_in_all: u64,
}

impl Writer {
    /// Writes until the worker is gone. Returns how many frames are missing, those of which it was told included.
    fn run(mut self, bunches: &Receiver<Bunch>, waiting_bytes: &AtomicUsize) -> u64 {
        for bunch in bunches {
            self.write(&bunch);
            waiting_bytes.fetch_sub(bunch.bytes.len(), Ordering::Relaxed);
        }
        self.lost_in_all
    }

    fn write(&mut self, bunch: &Bunch) {
        self.lost += bunch.lost_before;
        self.lost_in_all += bunch.lost_before;
        let comments: Vec<String> = bunch.packets.iter().map(|packet| packet.rules.to_string()).collect();
        let starts = std::iter::once(0).chain(bunch.packets.iter().map(|packet| packet.end));
        let mut lost_before = self.lost;
        let packets = bunch.packets.iter().zip(&comments).zip(starts).map(|((packet, comment), start)| Packet {
            at_ns: packet.at_ns,
            direction: packet.direction,
            frame: &bunch.bytes[start..packet.end],
            comment,
            lost_before: std::mem::take(&mut lost_before),
        });
        match self.file.write(packets) {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if self.lost_in_all == bunch.lost_before {
                    tracing::warn!("the capture cannot be written: {error}; the server goes on and frames are missing");
                }
                self.lost += bunch.packets.len() as u64;
                self.lost_in_all += bunch.packets.len() as u64;
            }
        }
    }
}
