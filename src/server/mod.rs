//! Threads and real time around a shard: the worker, the pusher, the clock, a clean stop.
//!
//! A `Server` is one worker thread that drives one shard over one link. Comes in: a configuration, a storage, a link
//! and a service; pushes and closes from any thread. Goes out: frames, and notices through a bounded channel.
//!
//! Invariant: the worker waits for the link, for pushers and for the clock, and for nobody else. A reader of notices
//! that is slow loses notices, which are counted, and never holds a connection up.

mod capture;
mod clock;
mod drain;
mod pusher;
mod wake;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};

use crate::link::Link;
use crate::link::pcap::CaptureFile;
use crate::shard::{Config, Interrupt, Notice, Resumption, Service, Shard, StartError, Stats, Storage};

pub use clock::Clock;
pub use pusher::Pusher;

use capture::Recorder;
use pusher::Shared;
use wake::Wake;
use worker::Worker;

/// What a server is told beside its shard's configuration.
pub struct Options {
    /// How many pushes and closes may wait for the worker.
    pub requests_max: usize,
    /// How many bytes those pushes may carry together.
    pub waiting_bytes_max: usize,
    /// How many notices may wait for their reader. 0: nobody reads them, none are kept.
    pub notices_max: usize,
    /// Offered every commit point of the shard, for fault injection.
    pub interrupt: Option<Interrupt>,
    /// Gets every frame that is received or sent.
    pub capture: Option<CaptureFile>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            requests_max: 4_096,
            waiting_bytes_max: 64 << 20,
            notices_max: 65_536,
            interrupt: None,
            capture: None,
        }
    }
}

/// Why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The shard refused its storage or its configuration.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system had no secret, no descriptor or no thread.
    #[error("the system refused {0}: {1}")]
    System(&'static str, io::Error),
    /// The link is gone.
    #[error("the link failed: {0}")]
    Link(io::Error),
    /// A defect of holdline.
    #[error("the worker thread panicked; what it said stands above")]
    Panicked,
}

/// What a server leaves behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// The shard's figures at the end.
    pub stats: Stats,
    /// Notices that no reader took in time.
    pub notices_lost: u64,
    /// Frames that the link itself lost.
    pub frames_lost: u64,
    /// Frames that are missing in the capture.
    pub frames_uncaptured: u64,
    /// How often the worker went round; while nothing happens it does not.
    pub passes: u64,
}

/// A shard that runs in a thread of its own. Dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<Result<Summary, ServerError>>>,
    notices: Receiver<Notice>,
    finished: Receiver<()>,
    resumption: Resumption,
}

/// What the owner of a server wants of its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Stop,
    Drain { rate_per_s: u32, bound: Duration },
}

impl Server {
    /// Opens the shard on `storage` and starts its worker. The link's address and MTU replace those in `config`. From
    /// the return on, packets are answered.
    pub fn start(
        mut config: Config,
        mut storage: Storage,
        link: Box<dyn Link>,
        service: Box<dyn Service + Send>,
        options: Options,
    ) -> Result<Server, ServerError> {
        config.mac = link.mac();
        config.mtu = link.mtu();
        let push_bytes_max = usize::try_from(config.send_queue_bytes).unwrap_or(usize::MAX);
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| ServerError::System("a secret", io::Error::other(error.to_string())))?;
        let wake = Wake::new().map_err(|error| ServerError::System("an eventfd", error))?;
        let clock = Clock::start(&mut storage);
        // The shard counts the start that is being made.
        let start_number = storage.starts() + 1;
        let mut shard = Shard::new(config, storage, service, secret, clock.now())?;
        shard.set_interrupt(options.interrupt);
        let recorder = options.capture.map(Recorder::start).transpose();
        let recorder = recorder.map_err(|error| ServerError::System("a thread", error))?;
        let resumption = shard.resumption();

        let Options { requests_max, waiting_bytes_max, notices_max, .. } = options;
        let shared = Arc::new(Shared::new(wake, requests_max, waiting_bytes_max, push_bytes_max, start_number));
        let (notice_sender, notices) = bounded(notices_max);
        let (finish, finished) = bounded(0);
        let notice_sender = (notices_max > 0).then_some(notice_sender);
        let worker = Worker::new(shard, link, clock, Arc::clone(&shared), notice_sender, recorder);
        let worker = std::thread::Builder::new()
            .name("worker-0".to_owned())
            .spawn(move || {
                let _finish = finish;
                worker.run()
            })
            .map_err(|error| ServerError::System("a thread", error))?;
        Ok(Server { shared, worker: Some(worker), notices, finished, resumption })
    }

    /// What the start on the storage found.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// A way to push from any thread.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(Arc::clone(&self.shared))
    }

    /// What happens to connections and pushes, in the order in which it was committed.
    pub fn notices(&self) -> &Receiver<Notice> {
        &self.notices
    }

    /// How many notices no reader took in time.
    pub fn notices_lost(&self) -> u64 {
        self.shared.notices_lost.load(Ordering::Relaxed)
    }

    /// Disconnected when the worker has ended, be it drained, stopped or failed; nothing is ever sent.
    pub fn finished(&self) -> &Receiver<()> {
        &self.finished
    }

    /// Refuses new connections, sends a FIN to every other at `rate_per_s`, and ends the worker when none is left or
    /// after `bound`. Returns at once; see [`Server::finished`].
    pub fn drain(&self, rate_per_s: u32, bound: Duration) {
        self.order(Order::Drain { rate_per_s, bound });
    }

    /// Stops the worker after the batch that it is in and leaves every connection as it is.
    pub fn stop(mut self) -> Result<Summary, ServerError> {
        self.end()
    }

    fn order(&self, order: Order) {
        self.shared.orders.force_push(order);
        self.shared.wake.notify();
    }

    fn end(&mut self) -> Result<Summary, ServerError> {
        let Some(worker) = self.worker.take() else {
            return Ok(Summary::default());
        };
        self.order(Order::Stop);
        worker.join().unwrap_or(Err(ServerError::Panicked))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `stop`.
        let _ = self.end();
    }
}
