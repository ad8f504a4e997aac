//! The worker: the loop that drives a shard with real time.
//!
//! Comes in: frames of the link, requests of pushers, asks of the control side, the clock. Goes out: frames, notices,
//! answers. One pass takes in what waits, at most one batch of each kind, and lets out what the shard has ready; when a
//! pass found nothing, the worker sleeps until the link, a pusher, an ask or the shard's next deadline wants it.
//!
//! Invariant: an idle worker makes no system call until something happens.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::link::Link;
use crate::shard::{Notice, Push, Service, Shard, Time};

use super::capture::Recorder;
use super::clock::Clock;
use super::desk::{ASKS_MAX, Desk, Errand, Surroundings};
use super::drain::Drain;
use super::pusher::{Request, Shared};
use super::teller::Teller;
use super::{Order, ServerError, Summary};

/// Bytes of frames that may wait for the link before no more frames are received.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Everything that one worker thread owns.
pub(super) struct Worker {
    shard: Shard<Box<dyn Service + Send>>,
    link: Box<dyn Link>,
    clock: Clock,
    shared: Arc<Shared>,
    notices: Option<Sender<Notice>>,
    requests: Vec<Request>,
    desk: Desk,
    drain: Option<Drain>,
    recorder: Option<Recorder>,
    after_drain: AfterDrain,
    passes: u64,
}

/// What a worker does when it has drained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterDrain {
    /// It ends.
    End,
    /// It goes on, and goes on to refuse new connections.
    Stay,
}

/// Whether a pass found something to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Busy,
    Quiet,
}

impl Worker {
    pub(super) fn new(
        mut shard: Shard<Box<dyn Service + Send>>,
        link: Box<dyn Link>,
        clock: Clock,
        shared: Arc<Shared>,
        notices: Option<Sender<Notice>>,
        recorder: Option<Recorder>,
        teller: Option<Teller>,
    ) -> Worker {
        shard.set_tracing(recorder.is_some());
        Worker {
            shard,
            link,
            clock,
            shared,
            notices,
            requests: Vec::with_capacity(BATCH_MAX),
            desk: Desk::new(teller),
            drain: None,
            recorder,
            after_drain: AfterDrain::End,
            passes: 0,
        }
    }

    /// Runs until it is told to stop, has drained, or the link is gone.
    pub(super) fn run(mut self) -> Result<Summary, ServerError> {
        let outcome = self.run_until_told();
        self.shared.stop();
        let frames_uncaptured = self.recorder.take().map_or(0, Recorder::finish);
        outcome.map(|()| Summary {
            stats: self.shard.stats(),
            notices_lost: self.shared.notices_lost.load(Ordering::Relaxed),
            frames_lost: self.link.frames_lost(),
            frames_uncaptured,
            passes: self.passes,
        })
    }

    fn run_until_told(&mut self) -> Result<(), ServerError> {
        loop {
            while let Some(order) = self.shared.orders.pop() {
                match order {
                    Order::Stop => return Ok(()),
                    Order::Drain { rate_per_s, bound } => self.begin_drain(rate_per_s, bound, AfterDrain::End),
                }
            }
            let began = Instant::now();
            let pass = self.pass()?;
            let now = self.clock.now();
            let has_drained = self.drain.as_mut().is_some_and(|drain| drain.pass(now, Instant::now(), &mut self.shard));
            if self.drain.is_some() {
                self.let_out(now)?;
            }
            if pass == Pass::Busy {
                self.desk.note_step(began.elapsed());
            }
            if has_drained && self.after_drain == AfterDrain::End {
                return Ok(());
            }
            if has_drained {
                self.drain = None;
            }
            if pass == Pass::Quiet {
                self.sleep()?;
            }
        }
    }

    fn begin_drain(&mut self, rate_per_s: u32, bound: Duration, after: AfterDrain) {
        self.shard.refuse_new();
        self.desk.note_draining();
        self.drain = Some(Drain::new(rate_per_s, bound, Instant::now()));
        self.after_drain = after;
    }

    fn pass(&mut self) -> Result<Pass, ServerError> {
        self.passes += 1;
        let now = self.clock.now();
        let mut has_frames = false;
        // What a full link has not taken is bounded by taking no more in.
        if self.shard.waiting_bytes() < WAITING_BYTES_MAX {
            let frames = self.link.receive().map_err(ServerError::Link)?;
            has_frames = !frames.is_empty();
            if has_frames {
                self.shard.receive(now, &frames);
            }
            if let (Some(recorder), true) = (&mut self.recorder, has_frames) {
                recorder.received(&mut self.shard, frames.iter().copied());
            }
        }
        let has_requests = self.take_requests(now);
        let has_asks = self.take_asks(now);
        let is_due = self.shard.next_deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.shard.tick(now);
        }
        self.let_out(now)?;
        let is_busy = has_requests || has_asks || is_due || has_frames;
        Ok(if is_busy { Pass::Busy } else { Pass::Quiet })
    }

    /// Answers a few asks of the control side, no more after one that took long.
    fn take_asks(&mut self, now: Time) -> bool {
        let mut count = 0;
        while count < ASKS_MAX
            && let Some(ask) = self.shared.asks.pop()
        {
            count += 1;
            let surroundings = Surroundings {
                passes: self.passes,
                frames_lost: self.link.frames_lost(),
                notices_lost: self.shared.notices_lost.load(Ordering::Relaxed),
            };
            let (errand, is_long) = self.desk.answer(now, ask, &mut self.shard, surroundings);
            if let Errand::Drain { rate_per_s } = errand {
                self.begin_drain(rate_per_s, Duration::MAX, AfterDrain::Stay);
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
        let shared = &self.shared;
        self.requests.extend(std::iter::from_fn(|| shared.requests.pop()).take(BATCH_MAX));
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
    fn let_out(&mut self, now: Time) -> Result<(), ServerError> {
        let mut failure = None;
        let (link, recorder) = (&mut self.link, &mut self.recorder);
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
        failure = failure.or(link.flush().err());
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

    /// Sleeps until there is something to do. Nothing that came in since the last pass is slept over: queues are looked
    /// into after sleep was announced, and the link's descriptor stays readable while frames wait.
    fn sleep(&self) -> Result<(), ServerError> {
        let shared = &self.shared;
        shared.wake.fall_asleep();
        let slept = if shared.requests.is_empty() && shared.asks.is_empty() && shared.orders.is_empty() {
            wait(self.link.descriptor(), shared.wake.descriptor(), self.timeout())
        } else {
            Ok(())
        };
        shared.wake.wake_up();
        slept
    }

    /// The time until the earliest of what the clock has to bring; `None`: nothing is due, ever.
    fn timeout(&self) -> Option<Duration> {
        let deadline = self.shard.next_deadline().map(|deadline| self.clock.wait_until(deadline).max(NAP_MIN));
        let full_link = self.shard.has_frames().then_some(FULL_LINK_PAUSE);
        let unpolled_link = self.link.descriptor().is_none().then_some(UNPOLLED_LINK_PAUSE);
        let drain = self.drain.as_ref().map(Drain::pause);
        [deadline, full_link, unpolled_link, drain].into_iter().flatten().min()
    }
}

/// Polls the link and the bell.
fn wait(link: Option<BorrowedFd<'_>>, bell: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), ServerError> {
    let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
    let timeout = timeout.map(TimeSpec::from_duration);
    let outcome = match link {
        Some(link) => ppoll(&mut [readable(bell), readable(link)], timeout, None),
        None => ppoll(&mut [readable(bell)], timeout, None),
    };
    match outcome {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(ServerError::System("to wait for the link", errno.into())),
    }
}

/// Requests that one pass takes in.
const BATCH_MAX: usize = 64;

/// A full link is tried again after this time: not every descriptor tells of room.
const FULL_LINK_PAUSE: Duration = Duration::from_millis(1);

/// How often a link without a descriptor is looked at.
const UNPOLLED_LINK_PAUSE: Duration = Duration::from_millis(1);

/// The shortest sleep: timers are kept in milliseconds, so nothing is late by it.
const NAP_MIN: Duration = Duration::from_micros(100);
