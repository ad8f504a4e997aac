//! A seat: a shard with everything that goes with it wherever it is driven.
//!
//! Comes in: frames, from the link of the worker that drives it or left in its mailbox by others; requests, asks; the
//! clock. Goes out: frames to the worker's link, notices, answers. One pass takes in at most one batch of each kind.
//!
//! Invariant: a seat is in one worker's hands at a time, or on its way to the next one's; nothing of a shard stays
//! behind when it moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::link::{Link, Received};
use crate::shard::{Ahead, Notice, Push, Service, Shard, Stats, Time};

use super::ServerError;
use super::ask::Reply;
use super::capture::Recorder;
use super::clock::Clock;
use super::desk::{ASKS_AT_ONCE, Desk, Errand};
use super::drain::Drain;
use super::populator::Populator;
use super::pusher::Request;
use super::shared::{Mailbox, Shared};
use super::teller::Teller;

/// Bytes of frames that may wait for the link before no more frames are taken in.
pub(super) const WAITING_BYTES_MAX: usize = 32 << 20;

/// See the module.
pub(super) struct Seat {
    number: u8,
    memory: Option<Memory>,
    shard: Shard<Box<dyn Service + Send>>,
    shared: Arc<Shared>,
    notices: Option<Sender<Notice>>,
    desk: Desk,
    drain: Option<Drain>,
    after_drain: AfterDrain,
    recorder: Option<Recorder>,
    requests: Vec<Request>,
    frames: Vec<Box<[u8]>>,
    /// Where it is to go after this pass, and who wants to know that it is there.
    pub(super) moves: Option<(usize, Reply<()>)>,
}

/// What a shard's end of a drain leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AfterDrain {
    /// The server ends when all shards have drained.
    End,
    /// It goes on, and goes on to refuse new connections.
    Stay,
}

/// Who tells what happens in a shard, and where.
pub(super) struct Ears {
    pub(super) notices: Option<Sender<Notice>>,
    pub(super) teller: Option<Teller>,
    pub(super) recorder: Option<Recorder>,
}

/// Who brings in what a shard will touch next, and what that is.
pub(super) struct Memory {
    pub(super) populator: Arc<Populator>,
    pub(super) ahead: Ahead,
}

impl Seat {
    pub(super) fn new(
        number: u8,
        mut shard: Shard<Box<dyn Service + Send>>,
        memory: Option<Memory>,
        shared: Arc<Shared>,
        ears: Ears,
    ) -> Seat {
        let Ears { notices, teller, recorder } = ears;
        shard.set_tracing(recorder.is_some());
        Seat {
            number,
            memory,
            shard,
            shared,
            notices,
            desk: Desk::new(number, teller),
            drain: None,
            after_drain: AfterDrain::Stay,
            recorder,
            requests: Vec::with_capacity(BATCH_MAX),
            frames: Vec::new(),
            moves: None,
        }
    }

    /// The number of its shard.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The figures of its shard.
    pub(super) fn stats(&self) -> Stats {
        self.shard.stats()
    }

    /// How many bytes of frames wait for the link.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.shard.waiting_bytes()
    }

    fn mailbox(&self) -> &Mailbox {
        self.shared.mailbox(self.number)
    }

    /// Whether something was left for it.
    pub(super) fn has_mail(&self) -> bool {
        !self.mailbox().is_empty()
    }

    /// Takes in frames, at most a batch.
    pub(super) fn receive(&mut self, now: Time, frames: &[&[u8]]) {
        self.shard.receive(now, frames);
        if let Some(recorder) = &mut self.recorder {
            recorder.received(&mut self.shard, frames.iter().copied());
        }
        let shared = &self.shared;
        self.shard.drain_strays(|shard, frame| {
            shared.hand_over(shard, frame.into());
            shared.ring(shard);
        });
    }

    /// Does what waits for it, but for frames. Returns whether there was anything.
    pub(super) fn pass(&mut self, now: Time, worker: usize) -> bool {
        let has_requests = self.take_requests(now);
        let has_asks = self.take_asks(now, worker);
        let is_due = self.shard.next_deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.shard.tick(now);
        }
        if let Some(drain) = &mut self.drain
            && drain.pass(now, Instant::now(), &mut self.shard)
        {
            self.drain = None;
            if self.after_drain == AfterDrain::End {
                self.after_drain = AfterDrain::Stay;
                self.shared.note_drained();
            }
        }
        has_requests || has_asks || is_due
    }

    /// Takes in frames that other workers have received: a batch for each worker, as each may have left one since the
    /// last pass. They come before those of the link, as they are older where the shard has just moved.
    pub(super) fn take_handed_over(&mut self, now: Time) -> bool {
        let mut has_frames = false;
        for _ in 0..self.shared.workers() {
            if self.mailbox().frames.is_empty() || self.waiting_bytes() >= WAITING_BYTES_MAX {
                break;
            }
            has_frames = true;
            let mut frames = std::mem::take(&mut self.frames);
            let mailbox = self.mailbox();
            frames.extend(std::iter::from_fn(|| mailbox.frames.pop()).take(Received::MAX));
            let mut slices: [&[u8]; Received::MAX] = [&[]; Received::MAX];
            slices.iter_mut().zip(&frames).for_each(|(slice, frame)| *slice = frame);
            self.receive(now, &slices[..frames.len()]);
            frames.clear();
            self.frames = frames;
        }
        has_frames
    }

    /// Answers a few asks of the control side, no more after one that took long.
    fn take_asks(&mut self, now: Time, worker: usize) -> bool {
        let mut count = 0;
        while count < ASKS_AT_ONCE
            && let Some(ask) = self.shared.mailbox(self.number).asks.pop()
        {
            count += 1;
            let (errand, is_long) = self.desk.answer(now, ask, &mut self.shard, worker);
            match errand {
                Errand::None => {}
                Errand::Drain { rate_per_s, bound, after } => {
                    self.shard.refuse_new();
                    self.desk.note_draining();
                    self.drain = Some(Drain::new(rate_per_s, bound, Instant::now()));
                    self.after_drain = after;
                }
                Errand::Move { worker: to, reply } if to == worker => reply.send(()),
                Errand::Move { worker, reply } => self.moves = Some((worker, reply)),
            }
            if is_long {
                break;
            }
        }
        count > 0
    }

    /// Takes out up to a batch of requests. Pushes that follow each other go in together, a close stands where it was
    /// called.
    fn take_requests(&mut self, now: Time) -> bool {
        self.requests.clear();
        let (shared, mailbox) = (&self.shared, self.shared.mailbox(self.number));
        self.requests.extend(std::iter::from_fn(|| mailbox.requests.pop()).take(BATCH_MAX));
        let mut pushes = Vec::with_capacity(self.requests.len());
        for request in &mut self.requests {
            match request {
                Request::Push { flow, ticket, bytes, asked } => {
                    shared.taken_out(bytes.len());
                    let key = asked.key.take().map(|value| self.shard.push_key(*flow, &value));
                    self.desk.expect_answer(*flow, *ticket, key.is_some(), asked.reply.take());
                    pushes.push(Push {
                        flow: *flow,
                        ticket: *ticket,
                        bytes,
                        key,
                        expires_in_s: asked.expires_in_s,
                        is_urgent: false,
                    });
                }
                Request::Close { flow, how } => {
                    if !pushes.is_empty() {
                        self.shard.push(now, &pushes);
                        pushes.clear();
                    }
                    // Whoever closes a flow that is gone already has what was wanted.
                    let _ = self.shard.close(now, *flow, *how);
                }
            }
        }
        if !pushes.is_empty() {
            self.shard.push(now, &pushes);
        }
        !self.requests.is_empty()
    }

    /// Hands the link what it takes, and readers of notices what there is.
    pub(super) fn let_out(&mut self, now: Time, link: &mut dyn Link) -> Result<(), ServerError> {
        if let Some(memory) = &self.memory {
            memory.populator.nudge(&memory.ahead);
        }
        self.shard.look_up(now, |address| link.neighbor(address));
        let mut failure = None;
        let recorder = &mut self.recorder;
        if let Some(recorder) = recorder {
            recorder.expect(&mut self.shard);
        }
        self.shard.transmit(|frame| match link.send(frame) {
            Ok(is_sent) => {
                if let (Some(recorder), true) = (recorder.as_mut(), is_sent) {
                    recorder.sent(frame);
                }
                is_sent
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        if let Some(recorder) = recorder {
            recorder.hand_over();
        }
        let (notices, shared, desk) = (&self.notices, &self.shared, &mut self.desk);
        self.shard.drain_notices(|notice| {
            desk.on_notice(now, &notice);
            let is_lost = notices.as_ref().is_some_and(|notices| notices.try_send(notice).is_err());
            if is_lost {
                shared.notices_lost.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.desk.end_of_notices(now, &self.shard);
        failure.map_or(Ok(()), |error| Err(ServerError::Link(error)))
    }

    /// The time until the earliest of what the clock has to bring; `None`: nothing is due, ever.
    pub(super) fn timeout(&self, clock: &Clock) -> Option<Duration> {
        let deadline = self.shard.next_deadline().map(|deadline| clock.wait_until(deadline).max(NAP_MIN));
        let full_link = self.shard.has_frames().then_some(FULL_LINK_PAUSE);
        let drain = self.drain.as_ref().map(Drain::pause);
        [deadline, full_link, drain].into_iter().flatten().min()
    }
}

/// Requests that one pass takes in.
const BATCH_MAX: usize = 64;

/// A full link is tried again after this time: not every descriptor tells of room.
const FULL_LINK_PAUSE: Duration = Duration::from_millis(1);

/// The shortest sleep: timers are kept in milliseconds, so nothing is late by it.
const NAP_MIN: Duration = Duration::from_micros(100);
