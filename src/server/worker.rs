//! The worker: the loop that drives shards with real time over one link.
//!
//! Comes in: frames of the link, what was left for its shards, shards that it is to drive, asks, the clock. Goes out:
//! frames; frames of other workers' shards, into their mailboxes; shards that move. A pass takes in what waits and lets
//! out what the shards have ready; when a pass found nothing, the worker sleeps, perhaps after it has looked again for
//! a little while.
//!
//! Invariant: an idle worker makes no system call until something happens.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::link::{Link, Received, wait_readable};
use crate::shard::{Time, Whose, whose};

use super::ServerError;
use super::clock::Clock;
use super::figures::WorkerFigures;
use super::histogram::Histogram;
use super::seat::{Seat, WAITING_BYTES_MAX};
use super::shared::{Post, Shared};

/// Everything that one worker thread owns.
pub(super) struct Worker {
    number: usize,
    seats: Vec<Box<Seat>>,
    /// The shards that it drives, as bits.
    here: u128,
    link: Box<dyn Link>,
    clock: Clock,
    shared: Arc<Shared>,
    spin: Duration,
    /// Since when there was nothing to do, while it is awake all the same.
    quiet_since: Option<Instant>,
    passes: u64,
    handed_over: u64,
    step: Histogram,
}

/// What a worker leaves behind.
pub(super) struct Remains {
    pub(super) seats: Vec<Box<Seat>>,
    pub(super) frames_lost: u64,
    pub(super) passes: u64,
}

impl Worker {
    /// `spin`: how long it looks again before it sleeps.
    pub(super) fn new(
        number: usize,
        seats: Vec<Box<Seat>>,
        link: Box<dyn Link>,
        clock: Clock,
        shared: Arc<Shared>,
        spin: Duration,
    ) -> Worker {
        let here = seats.iter().fold(0, |here, seat| here | 1 << seat.number());
        Worker {
            number,
            seats,
            here,
            link,
            clock,
            shared,
            spin,
            quiet_since: None,
            passes: 0,
            handed_over: 0,
            step: Histogram::default(),
        }
    }

    /// Runs until the server stops, or the link is gone.
    pub(super) fn run(mut self) -> Result<Remains, ServerError> {
        let outcome = self.run_until_told();
        let Worker { seats, link, passes, .. } = self;
        outcome.map(|()| Remains { seats, frames_lost: link.frames_lost(), passes })
    }

    fn run_until_told(&mut self) -> Result<(), ServerError> {
        while !self.shared.has_stopped() {
            self.take_post();
            let began = Instant::now();
            if self.pass()? {
                self.step.record(began.elapsed());
                self.quiet_since = None;
            } else if self.is_to_sleep(began) {
                self.sleep()?;
            }
        }
        Ok(())
    }

    fn post(&self) -> &Post {
        self.shared.post(self.number)
    }

    fn take_post(&mut self) {
        while let Some(reply) = self.post().figures_asked.pop() {
            reply.send(self.figures());
        }
        if self.shared.workers() == 1 {
            return;
        }
        while let Some(mut seat) = self.post().arrivals.pop() {
            if let Some((_, reply)) = seat.moves.take() {
                reply.send(());
            }
            self.here |= 1 << seat.number();
            self.seats.push(seat);
        }
    }

    fn figures(&self) -> WorkerFigures {
        WorkerFigures {
            worker: self.number,
            passes: self.passes,
            frames_lost: self.link.frames_lost(),
            link: self.link.counts(),
            handed_over: self.handed_over,
            step: self.step.clone(),
        }
    }

    /// Returns whether there was anything to do.
    fn pass(&mut self) -> Result<bool, ServerError> {
        self.passes += 1;
        let now = self.clock.now();
        let mut is_busy = false;
        if self.shared.hands_over() {
            self.seats.iter_mut().for_each(|seat| is_busy |= seat.take_handed_over(now));
        }
        is_busy |= self.receive(now)?;
        for seat in &mut self.seats {
            is_busy |= seat.pass(now, self.number);
            seat.let_out(now, &mut *self.link)?;
        }
        self.link.flush().map_err(ServerError::Link)?;
        self.give_away();
        Ok(is_busy)
    }

    /// Takes in what the link has. What a full link has not taken is bounded by taking no more in.
    fn receive(&mut self, now: Time) -> Result<bool, ServerError> {
        if self.seats.iter().map(|seat| seat.waiting_bytes()).sum::<usize>() >= WAITING_BYTES_MAX {
            return Ok(false);
        }
        let mac = self.link.mac();
        let frames = self.link.receive().map_err(ServerError::Link)?;
        if frames.is_empty() {
            return Ok(false);
        }
        if self.shared.shards() == 1 && !self.seats.is_empty() {
            self.seats[0].receive(now, &frames);
            return Ok(true);
        }
        let mut owners = [Whose::Nobody; Received::MAX];
        owners
            .iter_mut()
            .zip(frames.iter())
            .for_each(|(owner, frame)| *owner = whose(frame, &mac, self.shared.shards()));
        let mut nobodys = true;
        for seat in &mut self.seats {
            let mut mine: [&[u8]; Received::MAX] = [&[]; Received::MAX];
            let mut count = 0;
            for (frame, owner) in frames.iter().zip(&owners) {
                let is_mine = match owner {
                    Whose::Of(shard) => *shard == seat.number(),
                    Whose::All => true,
                    Whose::Nobody => nobodys,
                };
                if is_mine {
                    mine[count] = frame;
                    count += 1;
                }
            }
            nobodys = false;
            if count > 0 {
                seat.receive(now, &mine[..count]);
            }
        }
        self.handed_over += hand_over(&self.shared, self.here, &frames, &owners);
        Ok(true)
    }

    /// Lets go of the shards that are to be driven elsewhere.
    fn give_away(&mut self) {
        if self.shared.workers() == 1 {
            return;
        }
        while let Some(place) = self.seats.iter().position(|seat| seat.moves.is_some()) {
            let seat = self.seats.swap_remove(place);
            self.here &= !(1 << seat.number());
            let worker = seat.moves.as_ref().map_or(self.number, |(worker, _)| *worker);
            self.shared.give(seat, worker);
        }
    }

    /// Whether it has looked for long enough.
    fn is_to_sleep(&mut self, began: Instant) -> bool {
        if self.spin.is_zero() {
            return true;
        }
        let since = *self.quiet_since.get_or_insert(began);
        if began.duration_since(since) < self.spin {
            std::hint::spin_loop();
            return false;
        }
        true
    }

    /// Sleeps until there is something to do. Nothing that came in since the last pass is slept over: boxes are looked
    /// into after sleep was announced, and the link's descriptor stays readable while frames wait.
    fn sleep(&mut self) -> Result<(), ServerError> {
        let post = self.post();
        post.wake.fall_asleep();
        let has_post = !post.figures_asked.is_empty() || !post.arrivals.is_empty() || self.shared.has_stopped();
        let slept = if has_post || self.seats.iter().any(|seat| seat.has_mail()) {
            Ok(false)
        } else {
            wait(self.link.descriptor(), post.wake.descriptor(), self.timeout())
        };
        post.wake.wake_up();
        if matches!(slept, Ok(true)) {
            post.wake.hear();
        }
        self.quiet_since = None;
        slept.map(drop)
    }

    /// The time until the earliest of what the clock has to bring; `None`: nothing is due, ever.
    fn timeout(&self) -> Option<Duration> {
        let unpolled_link = self.link.descriptor().is_none().then_some(UNPOLLED_LINK_PAUSE);
        let seats = self.seats.iter().filter_map(|seat| seat.timeout(&self.clock));
        seats.chain(unpolled_link).chain(self.link.pause()).min()
    }
}

/// Leaves frames for the shards that are not `here`, and wakes whoever drives those. Returns how many there were.
fn hand_over(shared: &Shared, here: u128, frames: &[&[u8]], owners: &[Whose]) -> u64 {
    let (mut count, mut rung) = (0, 0_u128);
    let mut leave = |shard: u8, frame: &[u8]| {
        if here >> shard & 1 == 0 {
            shared.hand_over(shard, frame.into());
            rung |= 1 << shard;
            count += 1;
        }
    };
    for (frame, owner) in frames.iter().zip(owners) {
        match owner {
            Whose::Of(shard) => leave(*shard, frame),
            Whose::All => (0..shared.shards()).for_each(|shard| leave(shard, frame)),
            Whose::Nobody if here == 0 => leave(0, frame),
            Whose::Nobody => {}
        }
    }
    (0..shared.shards()).filter(|shard| rung >> shard & 1 == 1).for_each(|shard| shared.ring(shard));
    count
}

/// Polls the link and the bell. Returns whether the bell has rung.
fn wait(link: Option<BorrowedFd<'_>>, bell: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool, ServerError> {
    let waited = match link {
        Some(link) => wait_readable([bell, link], timeout).map(|[has_rung, _]| has_rung),
        None => wait_readable([bell], timeout).map(|[has_rung]| has_rung),
    };
    waited.map_err(|error| ServerError::System("to wait for the link", error))
}

/// How often a link without a descriptor is looked at.
const UNPOLLED_LINK_PAUSE: Duration = Duration::from_millis(1);
