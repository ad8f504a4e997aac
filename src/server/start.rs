//! How a server starts: shards on their storages, one worker for each link, the control side.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use crate::link::Link;
use crate::shard::{Ahead, Config, Interrupt, Resumption, SHARDS_MAX, Service, Shard, StartError, Storage, Time};

use super::capture::Recording;
use super::clock::Clock;
use super::control::Control;
use super::populator::Populator;
use super::seat::{Ears, Memory, Seat};
use super::shared::{Bounds, Shared};
use super::teller::{Teller, ToldQueue};
use super::wake::Wake;
use super::worker::{Remains, Worker};
use super::{MemoryAhead, Options, Server, ServerError, cores};

type AnyShard = Shard<Box<dyn Service + Send>>;

/// See [`Server::start_all`].
pub(super) fn start(
    mut config: Config,
    mut storages: Vec<Storage>,
    links: Vec<Box<dyn Link>>,
    service: impl FnMut() -> Box<dyn Service + Send>,
    options: Options,
) -> Result<Server, ServerError> {
    (config.mac, config.mtu) = ends_of(&links)?;
    cores::check(&options.cores, links.len())?;
    config.shards =
        u8::try_from(storages.len()).ok().filter(|shards| (1..=SHARDS_MAX).contains(shards)).ok_or_else(|| {
            StartError::Config(format!("a server has 1 to {SHARDS_MAX} shards, and not {}", storages.len()))
        })?;
    config.half_open_max = config.half_open_max.div_ceil(config.shards.into());
    let push_bytes_max = usize::try_from(config.send_queue_bytes).unwrap_or(usize::MAX);
    let clock = Clock::start(&mut storages);
    // The shards count the start that is being made.
    let start_number = storages.iter().map(Storage::starts).max().unwrap_or(0) + 1;
    let wakes = links.iter().map(|_| Wake::new()).collect::<io::Result<Vec<Wake>>>();
    let wakes = wakes.map_err(|error| ServerError::System("an eventfd", error))?;
    let mut shards = open(&config, storages, service, options.interrupt, clock.now())?;
    take_back_parts(&mut shards, clock.now());
    let resumption = resumption(&shards);
    let recording = options.capture.map(Recording::start).transpose();
    let recording = recording.map_err(|error| ServerError::System("a thread", error))?;

    let Options { requests_max, waiting_bytes_max, notices_max, control, memory_ahead, .. } = options;
    let Options { events_max, spin, cores, .. } = options;
    let bounds = Bounds { requests_max, waiting_bytes_max, push_bytes_max };
    let shared = Arc::new(Shared::new(wakes, config.shards, bounds, start_number));
    let told = control.is_wanted().then(|| ToldQueue::new(events_max));
    let control = match &told {
        Some(told) => Some(Control::start(&control, Arc::clone(&shared), Arc::clone(told), start_number)?),
        None => None,
    };
    let (notice_sender, notices) = bounded(notices_max);
    let memories = match memory_ahead {
        MemoryAhead::BroughtIn => memories(&mut shards).map_err(|error| ServerError::System("a thread", error))?,
        MemoryAhead::Untouched => shards.iter().map(|_| None).collect(),
    };
    let seat = |((number, shard), memory)| {
        let ears = Ears {
            notices: (notices_max > 0).then(|| notice_sender.clone()),
            teller: told.clone().map(Teller::new),
            recorder: recording.as_ref().map(Recording::recorder),
        };
        Box::new(Seat::new(number, shard, memory, Arc::clone(&shared), ears))
    };
    let seats: Vec<Box<Seat>> = (0..).zip(shards).zip(memories).map(seat).collect();
    let (finish, finished) = bounded(0);
    let mut server = Server { shared, workers: Vec::new(), notices, finished, resumption, control, recording };
    let crew = Crew { clock, spin, cores, finish };
    server.workers = crew.start(&server.shared, seats, links)?;
    Ok(server)
}

/// What each shard will touch next, and the one thread that brings it in.
fn memories(shards: &mut [AnyShard]) -> io::Result<Vec<Option<Memory>>> {
    let aheads: Vec<Ahead> = shards.iter_mut().map(Shard::ahead).collect();
    let populator = Arc::new(Populator::start(aheads.clone())?);
    let memory = |ahead| Some(Memory { populator: Arc::clone(&populator), ahead });
    Ok(aheads.into_iter().map(memory).collect())
}

/// The Ethernet address and the MTU that all links have.
fn ends_of(links: &[Box<dyn Link>]) -> Result<([u8; 6], u16), ServerError> {
    let mut ends = links.iter().map(|link| (link.mac(), link.mtu()));
    let first = ends.next().ok_or(ServerError::Links("a server needs at least one link"))?;
    if ends.any(|other| other != first) {
        return Err(ServerError::Links("the links of a server are queues of one interface: one address and one MTU"));
    }
    Ok(first)
}

/// Opens all shards.
fn open(
    config: &Config,
    storages: Vec<Storage>,
    mut service: impl FnMut() -> Box<dyn Service + Send>,
    interrupt: Option<Interrupt>,
    now: Time,
) -> Result<Vec<AnyShard>, ServerError> {
    let interrupt = interrupt.map(|interrupt| Arc::new(Mutex::new(interrupt)));
    let mut shards = Vec::with_capacity(storages.len());
    for (number, storage) in storages.into_iter().enumerate() {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| ServerError::System("a secret", io::Error::other(error.to_string())))?;
        let config = Config { shard: u8::try_from(number).unwrap_or(u8::MAX), ..config.clone() };
        let mut shard = Shard::new(config, storage, service(), secret, now)?;
        // Shards that run at the same time pass one after the other.
        shard.set_interrupt(interrupt.clone().map(|interrupt| -> Interrupt {
            Box::new(move |point| (*interrupt.lock().unwrap_or_else(PoisonError::into_inner))(point))
        }));
        shards.push(shard);
    }
    Ok(shards)
}

/// A process may have died while some shards had taken their part of a broadcast and others had not: nobody was told of
/// it or pushed to, and nobody will be. Their numbers are the same in all shards, and the others' are smaller still.
fn take_back_parts(shards: &mut [AnyShard], now: Time) {
    let newest_in_all = shards.iter().map(|shard| shard.jobs().0).min().flatten();
    for shard in shards {
        for part in shard.jobs().1.into_iter().filter(|&job| Some(job) > newest_in_all) {
            shard.cancel_job(now, part);
        }
    }
}

fn resumption(shards: &[AnyShard]) -> Resumption {
    let mut all = Resumption { is_fresh: true, ..Resumption::default() };
    for shard in shards {
        let Resumption { is_fresh, connections, records_discarded, records_applied_again } = shard.resumption();
        all.is_fresh &= is_fresh;
        all.connections += connections;
        all.records_discarded += records_discarded;
        all.records_applied_again += records_applied_again;
    }
    all
}

/// What every worker gets.
struct Crew {
    clock: Clock,
    spin: Duration,
    cores: Vec<usize>,
    finish: Sender<()>,
}

impl Crew {
    /// Deals the shards out and starts the threads.
    fn start(
        self,
        shared: &Arc<Shared>,
        seats: Vec<Box<Seat>>,
        links: Vec<Box<dyn Link>>,
    ) -> Result<Vec<JoinHandle<Result<Remains, ServerError>>>, ServerError> {
        let mut hands: Vec<Vec<Box<Seat>>> = links.iter().map(|_| Vec::new()).collect();
        for seat in seats {
            let worker = shared.worker_of(seat.number());
            hands[worker].push(seat);
        }
        let mut threads = Vec::with_capacity(links.len());
        for (number, (link, seats)) in links.into_iter().zip(hands).enumerate() {
            let worker = Worker::new(number, seats, link, self.clock, Arc::clone(shared), self.spin);
            let (finish, core) = (self.finish.clone(), self.cores.get(number).copied());
            let last_word = LastWord(Arc::clone(shared));
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _last = (last_word, finish);
                core.into_iter().for_each(cores::pin);
                worker.run()
            });
            threads.push(thread.map_err(|error| ServerError::System("a thread", error))?);
        }
        Ok(threads)
    }
}

/// A worker that ends, however it does, ends all others: the frames of its link are not taken in any more.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.stop();
    }
}
