//! Threads and real time around shards: workers, the pusher, the clock, a clean stop.
//!
//! A `Server` is as many worker threads as there are links, each of which drives some of the shards. Comes in: a
//! configuration, storages, links and services; pushes and closes from any thread. Goes out: frames, and notices
//! through a bounded channel.
//!
//! ```text
//! link 0 --> worker 0 drives shards 0 and 2 --+   a frame that came to the wrong worker
//! link 1 --> worker 1 drives shards 1 and 3 <-+   is left in the mailbox of its shard
//! ```
//!
//! `shared` is what the threads share, `seat` a shard with what goes along when it moves to another worker.
//!
//! Invariant: a worker waits for its link, for what is left for it and for the clock, and for nobody else. A reader of
//! notices that is slow loses notices, which are counted, and never holds a connection up.

mod ask;
mod capture;
mod clock;
mod control;
mod cores;
mod desk;
mod drain;
mod figures;
mod histogram;
mod populator;
mod pusher;
mod receipts;
mod seat;
mod shared;
mod start;
mod teller;
mod wake;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::Receiver;

use crate::link::Link;
use crate::link::pcap::CaptureFile;
use crate::shard::{Config, Interrupt, Notice, PushError, Resumption, Service, StartError, Stats, Storage};

pub use clock::Clock;
pub use control::ControlOptions;
pub use histogram::Histogram;
pub use populator::Populator;
pub use pusher::Pusher;
pub use shared::HANDED_OVER_MAX;

use ask::{Ask, Reply};
use capture::Recording;
use control::Control;
use figures::add_stats;
use seat::AfterDrain;
use shared::Shared;
use worker::Remains;

/// What a server is told beside its shards' configuration.
pub struct Options {
    /// How many pushes and closes may wait for a shard.
    pub requests_max: usize,
    /// How many bytes the pushes of all shards may carry together.
    pub waiting_bytes_max: usize,
    /// How many notices may wait for their reader. 0: nobody reads them, none are kept.
    pub notices_max: usize,
    /// Offered every commit point of every shard, for fault injection.
    pub interrupt: Option<Interrupt>,
    /// Gets every frame that is received or sent.
    pub capture: Option<CaptureFile>,
    /// Where the server is driven and watched from.
    pub control: ControlOptions,
    /// Whether a thread brings in memory before shards touch it.
    pub memory_ahead: MemoryAhead,
    /// How many events may wait for the control thread.
    pub events_max: usize,
    /// How long a worker that has nothing to do looks again before it sleeps.
    pub spin: Duration,
    /// The cores that workers are pinned to, in their order; empty: the system chooses.
    pub cores: Vec<usize>,
}

/// Memory that shards will touch next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryAhead {
    /// A thread brings some MB in ahead of need: no step waits for the system.
    #[default]
    BroughtIn,
    /// It stays as it is until it is touched, so that the process grows by what connections take: for whoever weighs
    /// them.
    Untouched,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            requests_max: 4_096,
            waiting_bytes_max: 64 << 20,
            notices_max: 65_536,
            interrupt: None,
            capture: None,
            control: ControlOptions::default(),
            memory_ahead: MemoryAhead::default(),
            events_max: 65_536,
            spin: Duration::ZERO,
            cores: Vec::new(),
        }
    }
}

/// Why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The shard refused its storage or its configuration.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The links are not queues of one interface.
    #[error("{0}")]
    Links(&'static str),
    /// A core that a worker cannot be pinned to.
    #[error("{0}")]
    Cores(String),
    /// The system had no secret, no descriptor or no thread.
    #[error("the system refused {0}: {1}")]
    System(&'static str, io::Error),
    /// A door of the control side cannot be opened.
    #[error("{0}")]
    Control(String),
    /// The link is gone.
    #[error("the link failed: {0}")]
    Link(io::Error),
    /// A defect of holdline.
    #[error("a worker thread panicked; what it said stands above")]
    Panicked,
}

/// What a server leaves behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// The figures of all shards at the end.
    pub stats: Stats,
    /// Notices that no reader took in time.
    pub notices_lost: u64,
    /// Frames that the links themselves lost.
    pub frames_lost: u64,
    /// Frames that are missing in the capture.
    pub frames_uncaptured: u64,
    /// How often the workers went round; while nothing happens they do not.
    pub passes: u64,
}

/// Why a shard does not move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such shard.
    #[error("there is no such shard")]
    NoShard,
    /// There is no such worker.
    #[error("there is no such worker")]
    NoWorker,
    /// The server has stopped, or so much is asked of the shard that this has to wait.
    #[error("the server is stopping, or too much is asked of the shard")]
    NotNow,
}

/// Shards that run in threads of their own. Dropping it stops them.
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<Remains, ServerError>>>,
    notices: Receiver<Notice>,
    finished: Receiver<()>,
    resumption: Resumption,
    control: Option<Control>,
    recording: Option<Recording>,
}

impl Server {
    /// Opens a shard on `storage` and starts a worker for it. The link's address and MTU replace those in `config`.
    /// From the return on, packets are answered.
    pub fn start(
        config: Config,
        storage: Storage,
        link: Box<dyn Link>,
        service: Box<dyn Service + Send>,
        options: Options,
    ) -> Result<Server, ServerError> {
        let mut service = Some(service);
        let only = || service.take().expect("one shard has one service");
        Server::start_all(config, vec![storage], vec![link], only, options)
    }

    /// Opens a shard on each storage and starts a worker for each link, which must be queues of one interface. At first
    /// the shards are dealt out to the workers in turns. What `config` bounds for the whole server is divided among the
    /// shards; their numbers it need not have. `service` makes one for each shard.
    pub fn start_all(
        config: Config,
        storages: Vec<Storage>,
        links: Vec<Box<dyn Link>>,
        service: impl FnMut() -> Box<dyn Service + Send>,
        options: Options,
    ) -> Result<Server, ServerError> {
        start::start(config, storages, links, service, options)
    }

    /// What the start on the storages found, all together.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// The TCP address that has `/metrics`, if one was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.control.as_ref().and_then(Control::metrics)
    }

    /// How long the passes of all workers took that had something to do; `None` once they have ended. Waits for them to
    /// answer.
    pub fn step_times(&self) -> Option<Histogram> {
        let mut all = Histogram::default();
        for worker in 0..self.shared.workers() {
            let (reply, answer) = Reply::new();
            self.shared.ask_figures(worker, reply).ok()?;
            all.add(&answer.blocking_recv().ok()?.step);
        }
        Some(all)
    }

    /// A way to push from any thread.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(Arc::clone(&self.shared))
    }

    /// What happens to connections and pushes; of each shard in the order in which it was committed.
    pub fn notices(&self) -> &Receiver<Notice> {
        &self.notices
    }

    /// How many notices no reader took in time.
    pub fn notices_lost(&self) -> u64 {
        self.shared.notices_lost.load(Ordering::Relaxed)
    }

    /// The worker that drives a shard, or is about to; `None` where there is no such shard.
    pub fn worker_of(&self, shard: u8) -> Option<usize> {
        (shard < self.shared.shards()).then(|| self.shared.worker_of(shard))
    }

    /// Has a shard driven by another worker from now on, with all of its connections, none of which notices. Waits
    /// until it is.
    pub fn move_shard(&self, shard: u8, worker: usize) -> Result<(), MoveError> {
        if shard >= self.shared.shards() {
            return Err(MoveError::NoShard);
        }
        if worker >= self.shared.workers() {
            return Err(MoveError::NoWorker);
        }
        let (reply, answer) = Reply::new();
        self.shared.ask(shard, Ask::Move { worker, reply }).map_err(|_| MoveError::NotNow)?;
        answer.blocking_recv().map_err(|_| MoveError::NotNow)
    }

    /// Disconnected when the workers have ended, be they drained, stopped or failed; nothing is ever sent.
    pub fn finished(&self) -> &Receiver<()> {
        &self.finished
    }

    /// Refuses new connections, sends a FIN to every other at `rate_per_s`, and ends the workers when none is left or
    /// after `bound`. Returns at once; see [`Server::finished`].
    pub fn drain(&self, rate_per_s: u32, bound: Duration) {
        for shard in 0..self.shared.shards() {
            let rate_per_s = share(rate_per_s, shard, self.shared.shards());
            // There is room as soon as the shard's worker has answered others.
            while self.shared.ask(shard, drain_ask(rate_per_s, bound)) == Err(PushError::ShardFull) {
                std::thread::yield_now();
            }
        }
    }

    /// Stops each worker after the batch that it is in and leaves every connection as it is.
    pub fn stop(mut self) -> Result<Summary, ServerError> {
        self.end()
    }

    fn end(&mut self) -> Result<Summary, ServerError> {
        self.shared.stop();
        let (mut summary, mut failure, mut seats) = (Summary::default(), None, Vec::new());
        for worker in self.workers.drain(..) {
            match worker.join().unwrap_or(Err(ServerError::Panicked)) {
                Ok(remains) => {
                    seats.extend(remains.seats);
                    summary.frames_lost += remains.frames_lost;
                    summary.passes += remains.passes;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // Those that were on their way from one worker to another.
        let posts = (0..self.shared.workers()).map(|worker| self.shared.post(worker));
        posts.for_each(|post| seats.extend(std::iter::from_fn(|| post.arrivals.pop())));
        seats.iter().for_each(|seat| add_stats(&mut summary.stats, &seat.stats()));
        drop(seats);
        // After the workers, so that readers are told what they did last.
        self.control = None;
        summary.frames_uncaptured = self.recording.take().map_or(0, Recording::finish);
        summary.notices_lost = self.notices_lost();
        failure.map_or(Ok(summary), Err)
    }
}

/// What one of several shards has of a rate for all of them; at least 1, where that is a bound.
fn share(rate_per_s: u32, shard: u8, shards: u8) -> u32 {
    let (shard, shards) = (u32::from(shard), u32::from(shards));
    let share = rate_per_s / shards + u32::from(shard < rate_per_s % shards);
    if rate_per_s == 0 { 0 } else { share.max(1) }
}

/// The end of all connections of a shard, which is to end the server.
fn drain_ask(rate_per_s: u32, bound: Duration) -> Ask {
    // Nobody waits to hear how many there are.
    let (reply, _) = Reply::new();
    Ask::Drain { rate_per_s, bound, after: AfterDrain::End, reply }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `stop`.
        let _ = self.end();
    }
}
