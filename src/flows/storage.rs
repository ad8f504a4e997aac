//! The storage of a shard: its arenas, its log and a head that says what they are.
//!
//! In memory it ends with the process. In a directory each arena is a sparse file that is mapped; the process may be
//! killed at any instruction, and the next one goes on from the files. What is taken of a state it did not write in
//! this layout is nothing: it is refused with the way out.
//!
//! ```text
//! DIR/shard-0/   head  flows  actives  repairs  peers  spans  blocks  next-hops  attachments  keys  jobs  log
//! DIR/shard-1/   the same, where the state has several shards; each head says how many
//! ```
//!
//! Invariant: while a storage is open its directory is locked, so no second process writes to it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::ahead::{Ahead, Area};
use super::arena::{Arena, Line};
use super::layout::{Capacity, LOCALS_MAX, Logged, LoggedLine, RECORD_LINES_MAX};
use super::payload::Payload;
use super::records::{Address, Attachment, JOBS_MAX, Job, KEYS_MAX, KeyRecord, NEXT_HOPS_MAX, NextHop};
use super::refusal::StorageError;
use crate::tcp::{Active, Flow, Repair, Span, Time};

/// What a state says of itself.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    magic: [u8; 8],
    version: u32,
    layout: u32,
    capacity: Capacity,
    /// Which shard this is, and of how many.
    shard: u32,
    shards: u32,
    /// When the state was made, in microseconds since 1970.
    pub made_at_us: u64,
    /// How often it was started.
    pub starts: u64,
    /// Secrets of the index and of initial sequence numbers.
    pub secret: [u8; 32],
    /// Number of the record that was last begun, completed, applied.
    pub begun: u64,
    /// See `begun`.
    pub completed: u64,
    /// See `begun`.
    pub applied: u64,
    /// The stack's time when the last record was begun.
    pub time_us: u64,
    /// How many lines that record has.
    pub lines: u32,
    /// No flow from this slot on was ever used.
    pub flows_end: u32,
    /// No next hop from this index on was ever used.
    pub next_hops_end: u32,
    /// How many of our addresses `locals` holds.
    pub locals_count: u32,
    /// Our addresses, by the index that flows name them by.
    pub locals: [Address; LOCALS_MAX],
}

/// How many bytes of each arena are wanted before they are touched: what some milliseconds of new connections, or of
/// pushes, take.
const FLOWS_AHEAD: usize = 4 << 20;
const ACTIVES_AHEAD: usize = 1 << 20;
const SPANS_AHEAD: usize = 1 << 20;
const BLOCKS_AHEAD: usize = 4 << 20;

const HEAD: &str = "head";
const FLOWS: &str = "flows";
const MAGIC: [u8; 8] = *b"holdline";
const VERSION: u32 = 9;
/// The sizes that decide the layout, in one number.
const LAYOUT: u32 = (size_of::<Flow>() + 1_000 * size_of::<Active>() + 10_000 * size_of::<Repair>()) as u32
    + (1_000_000 * size_of::<Span>() + size_of::<Head>() + 1_000_000 * size_of::<LoggedLine>()) as u32;

/// The arenas of one shard.
pub struct Storage {
    /// One record.
    pub(crate) head: Arena<Head>,
    pub(crate) flows: Arena<Flow>,
    pub(crate) actives: Arena<Active>,
    pub(crate) repairs: Arena<Repair>,
    /// The addresses of peers over IPv6. They are not logged: each is written while no committed flow names it.
    pub(crate) peers: Arena<Address>,
    pub(crate) payload: Payload,
    pub(crate) next_hops: Arena<NextHop>,
    pub(crate) attachments: Arena<Attachment>,
    pub(crate) keys: Arena<KeyRecord>,
    pub(crate) jobs: Arena<Job>,
    /// Where there is a process to survive.
    pub(crate) log: Option<Arena<LoggedLine>>,
    pub(crate) path: PathBuf,
    /// Holds the directory's lock.
    _lock: Option<File>,
}

/// Where arenas are to be.
enum Site<'a> {
    Memory,
    /// A directory, and whether its files are to be made.
    Directory(&'a Path, bool),
}

impl Site<'_> {
    fn arena<T: Pod>(&self, name: &'static str, count: u32) -> Result<Arena<T>, StorageError> {
        let Site::Directory(directory, is_new) = self else {
            let memory = Arena::anonymous(count, name == FLOWS);
            return memory.map_err(|source| StorageError::Memory { what: name, source });
        };
        let path = directory.join(name);
        let expected = Arena::<T>::file_bytes(count);
        let refused = |source| StorageError::File { path: path.clone(), source };
        let file = open_file(&path).map_err(refused)?;
        if *is_new {
            // Emptied first: what an interrupted creation left must not show through.
            file.set_len(0).and_then(|()| file.set_len(expected)).map_err(refused)?;
        }
        let found = file.metadata().map_err(refused)?.len();
        if found != expected {
            return Err(StorageError::Truncated { path, found, expected });
        }
        Arena::of_file(&file, count).map_err(refused)
    }
}

impl Storage {
    /// Memory that ends with the process, without a log.
    pub fn in_memory(capacity: Capacity) -> Result<Storage, StorageError> {
        Ok(Storage { log: None, ..Storage::in_memory_logged(capacity)? })
    }

    /// Memory with a log as in a directory: it survives the shard that used it, as files survive a process.
    pub fn in_memory_logged(capacity: Capacity) -> Result<Storage, StorageError> {
        let mut storage = Storage::at(&Site::Memory, capacity)?;
        storage.head.records_mut()[0] = Head::new(capacity, (0, 0));
        Ok(storage)
    }

    /// A state of one shard in a directory, which is made if there is none. Errors say what is wrong with it.
    pub fn in_directory(directory: &Path, capacity: Capacity) -> Result<Storage, StorageError> {
        Storage::of_shard(directory, (0, 1), capacity)
    }

    /// The same for a state of `shards` shards, of which each has this `capacity`, in their order.
    pub fn all_in_directory(directory: &Path, shards: u8, capacity: Capacity) -> Result<Vec<Storage>, StorageError> {
        let mut storages = vec![Storage::of_shard(directory, (0, shards), capacity)?];
        for shard in 1..shards {
            // All are made before the first is started.
            let is_missing = !shard_path(directory, shard).join(HEAD).exists();
            if is_missing && !storages[0].is_fresh() {
                let what = format!("shard {shard} is missing");
                return Err(StorageError::Broken { path: directory.to_owned(), what });
            }
            storages.push(Storage::of_shard(directory, (shard, shards), capacity)?);
        }
        Ok(storages)
    }

    /// How many shards the state in a directory has; `None` where there is none that can be read.
    pub fn shards_in(directory: &Path) -> Option<u8> {
        let mut bytes = [0; size_of::<Head>()];
        File::open(shard_path(directory, 0).join(HEAD)).ok()?.read_exact(&mut bytes).ok()?;
        let head: Head = bytemuck::pod_read_unaligned(&bytes);
        let is_ours = head.magic == MAGIC && (head.version, head.layout) == (VERSION, LAYOUT);
        u8::try_from(head.shards).ok().filter(|shards| is_ours && *shards > 0)
    }

    /// `place`: which shard, of how many.
    fn of_shard(directory: &Path, place: (u8, u8), capacity: Capacity) -> Result<Storage, StorageError> {
        let path = shard_path(directory, place.0);
        fs::create_dir_all(&path).map_err(|source| StorageError::File { path: path.clone(), source })?;
        let head_path = path.join(HEAD);
        let refused = |source| StorageError::File { path: head_path.clone(), source };
        let mut head = open_file(&head_path).map_err(refused)?;
        if head.try_lock().is_err() {
            return Err(StorageError::Locked { path });
        }
        let is_new = head.metadata().map_err(refused)?.len() == 0;
        if !is_new {
            let mut bytes = [0; size_of::<Head>()];
            let is_whole = head.read_exact(&mut bytes).is_ok();
            check_head(&head_path, is_whole, &bytes, place, capacity)?;
        }
        let storage = Storage::at(&Site::Directory(&path, is_new), capacity)?;
        if is_new {
            // The head comes last: without it there is no state.
            let mut bytes = bytemuck::bytes_of(&Head::new(capacity, place)).to_vec();
            bytes.resize(Arena::<Head>::file_bytes(1) as usize, 0);
            head.write_all(&bytes).map_err(refused)?;
        }
        let mapped_head = Site::Directory(&path, false).arena(HEAD, 1)?;
        Ok(Storage { head: mapped_head, path, _lock: Some(head), ..storage })
    }

    fn at(site: &Site<'_>, capacity: Capacity) -> Result<Storage, StorageError> {
        let (spans, blocks) = (site.arena("spans", capacity.spans)?, site.arena("blocks", capacity.blocks)?);
        Ok(Storage {
            head: Site::Memory.arena(HEAD, 1)?,
            flows: site.arena(FLOWS, capacity.flows)?,
            actives: site.arena("actives", capacity.actives)?,
            repairs: site.arena("repairs", capacity.repairs())?,
            peers: site.arena("peers", capacity.flows)?,
            payload: Payload::new(spans, blocks, capacity.spans, capacity.blocks)
                .map_err(|source| StorageError::Memory { what: "counts of blocks", source })?,
            next_hops: site.arena("next-hops", NEXT_HOPS_MAX)?,
            attachments: site.arena("attachments", capacity.flows)?,
            keys: site.arena("keys", KEYS_MAX)?,
            jobs: site.arena("jobs", JOBS_MAX)?,
            log: Some(site.arena("log", RECORD_LINES_MAX)?),
            path: PathBuf::from("memory"),
            _lock: None,
        })
    }

    /// The lines of an arena.
    pub(crate) fn lines(&self, arena: Logged) -> &[Line] {
        match arena {
            Logged::Flows => self.flows.lines(),
            Logged::Actives => self.actives.lines(),
            Logged::Repairs => self.repairs.lines(),
            Logged::Attachments => self.attachments.lines(),
            Logged::Keys => self.keys.lines(),
            Logged::Jobs => self.jobs.lines(),
        }
    }

    /// The lines of an arena, to be written.
    pub(crate) fn lines_mut(&mut self, arena: Logged) -> &mut [Line] {
        match arena {
            Logged::Flows => self.flows.lines_mut(),
            Logged::Actives => self.actives.lines_mut(),
            Logged::Repairs => self.repairs.lines_mut(),
            Logged::Attachments => self.attachments.lines_mut(),
            Logged::Keys => self.keys.lines_mut(),
            Logged::Jobs => self.jobs.lines_mut(),
        }
    }

    /// Whether no shard was ever started on it.
    pub fn is_fresh(&self) -> bool {
        self.head().starts == 0
    }

    /// A shard that says to be number `shard` of `shards` is about to start: memory takes its word, a state that was
    /// made for another place does not.
    pub(crate) fn enter_place(&mut self, shard: u8, shards: u8) -> Result<(), StorageError> {
        let place = (u32::from(shard), u32::from(shards));
        let head = self.head_mut();
        if head.shards == 0 {
            (head.shard, head.shards) = place;
        }
        if (head.shard, head.shards) == place {
            return Ok(());
        }
        let what = format!("it is shard {} of {}, not {shard} of {shards}", head.shard, head.shards);
        Err(self.broken(what))
    }

    /// What there is room for.
    pub fn capacity(&self) -> Capacity {
        self.head().capacity
    }

    /// The stack's time of the last batch; the clock must not go on from an earlier one.
    pub fn last_time(&self) -> Time {
        Time(self.head().time_us)
    }

    /// When the state was made, in microseconds since 1970; 0 until it is set.
    pub fn made_at_us(&self) -> u64 {
        self.head().made_at_us
    }

    /// Sets it.
    pub fn set_made_at_us(&mut self, made_at_us: u64) {
        self.head_mut().made_at_us = made_at_us;
    }

    /// How often the state was started, this time included once a shard has it.
    pub fn starts(&self) -> u64 {
        self.head().starts
    }

    /// Our ends of the connections in it, each once.
    pub fn ends_in_use(&self) -> BTreeSet<(IpAddr, u16)> {
        let head = self.head();
        let end = head.flows_end.min(head.capacity.flows) as usize;
        let live = self.flows.records()[..end].iter().filter(|flow| flow.is_live());
        let ends = live.map(|flow| (flow.local_index(), flow.local_port)).collect::<BTreeSet<_>>().into_iter();
        ends.filter_map(|(local, port)| Some((head.locals.get(usize::from(local))?.ip()?, port))).collect()
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head.records()[0]
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        &mut self.head.records_mut()[0]
    }

    /// What the arenas will touch next, beside those in `others`. From now on it is wanted ahead of need, by each of so
    /// many shards its share.
    pub(crate) fn ahead(&mut self, shards: usize, others: impl IntoIterator<Item = Arc<Area>>) -> Ahead {
        let share = |bytes: usize| bytes / shards;
        let mut areas = vec![self.flows.keep_ahead(share(FLOWS_AHEAD)), self.actives.keep_ahead(share(ACTIVES_AHEAD))];
        areas.extend(self.payload.keep_ahead(share(SPANS_AHEAD), share(BLOCKS_AHEAD)));
        areas.extend(others);
        Ahead { areas }
    }

    /// The shard that used it is gone; the next one finds it as a later process would.
    pub(crate) fn used(mut self) -> Storage {
        self.payload.forget();
        self
    }

    /// An error about this storage.
    pub(crate) fn broken(&self, what: impl Into<String>) -> StorageError {
        StorageError::Broken { path: self.path.clone(), what: what.into() }
    }
}

impl Head {
    fn new(capacity: Capacity, (shard, shards): (u8, u8)) -> Head {
        let (shard, shards) = (shard.into(), shards.into());
        Head { magic: MAGIC, version: VERSION, layout: LAYOUT, capacity, shard, shards, ..Head::zeroed() }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn shard_path(directory: &Path, shard: u8) -> PathBuf {
    directory.join(format!("shard-{shard}"))
}

fn check_head(
    path: &Path,
    is_whole: bool,
    bytes: &[u8],
    (shard, shards): (u8, u8),
    capacity: Capacity,
) -> Result<(), StorageError> {
    let path = path.to_owned();
    let head: Head = bytemuck::pod_read_unaligned(bytes);
    if !is_whole || head.magic != MAGIC {
        return Err(StorageError::Foreign { path });
    }
    if (head.version, head.layout) != (VERSION, LAYOUT) {
        let found = format!("{}.{}", head.version, head.layout);
        return Err(StorageError::Version { path, found, expected: format!("{VERSION}.{LAYOUT}") });
    }
    if head.shards != u32::from(shards) {
        return Err(StorageError::Shards { path, found: head.shards, expected: shards.into() });
    }
    if head.shard != u32::from(shard) {
        let what = format!("it is that of shard {}", head.shard);
        return Err(StorageError::Broken { path, what });
    }
    let (found, expected) = (head.capacity.flows, capacity.flows);
    if head.capacity != capacity && shards > 1 {
        return Err(StorageError::ShardCapacity { path, found, expected });
    }
    if head.capacity != capacity {
        return Err(StorageError::Capacity { path, found, expected });
    }
    Ok(())
}
