//! The storage of a shard: its arenas, its log and a head that says what they are.
//!
//! In memory it ends with the process. In a directory each arena is a sparse file that is mapped; the process may be
//! killed at any instruction, and the next one goes on from the files. What is taken of a state it did not write in
//! this layout is nothing: it is refused with the way out.
//!
//! ```text
//! DIR/shard-0/   head   flows   actives   spans   blocks   next-hops   log
//! ```
//!
//! Invariant: while a storage is open its directory is locked, so no second process writes to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};

use super::arena::Arena;
use super::layout::{Capacity, LOCALS_MAX, LoggedLine, NEXT_HOPS_MAX, NextHop, RECORD_LINES_MAX};
use super::payload::{Block, Payload};
use crate::tcp::{Active, Flow, Span, Time};

/// What a state says of itself.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    magic: [u8; 8],
    version: u32,
    layout: u32,
    capacity: Capacity,
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
    pub locals: [u32; LOCALS_MAX],
}

const MAGIC: [u8; 8] = *b"holdline";
const VERSION: u32 = 1;
/// The sizes that decide the layout, in one number.
const LAYOUT: u32 = (size_of::<Flow>() + 1_000 * size_of::<Active>()) as u32
    + (1_000_000 * size_of::<Span>() + size_of::<Head>() + 100_000_000 * size_of::<LoggedLine>() / 64) as u32;

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refused memory for an arena.
    #[error("cannot reserve memory for {what}: {source}; give fewer --max-connections")]
    Memory {
        /// Which arena.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {path}: {source}; --state wants a directory that this user may write to")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one, or give another --state")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It was not written by holdline.
    #[error("{path} is not a state of holdline; give another directory, or remove it if nothing in it is needed")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error(
        "{path} was written by another version of holdline (layout {found}, this one has {expected}); \
         drain it with that version, or remove it and lose its connections"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Version and layout found.
        found: String,
        /// Version and layout of this program.
        expected: String,
    },
    /// It was made for other limits.
    #[error(
        "{path} was made for {found} connections and {expected} were asked for; \
         start with --max-connections {found}, or remove it and lose its connections"
    )]
    Capacity {
        /// The directory.
        path: PathBuf,
        /// Connections it was made for.
        found: u32,
        /// Connections asked for.
        expected: u32,
    },
    /// A file is missing or has the wrong length.
    #[error(
        "{path} has {found} bytes instead of {expected}: it was truncated or is not whole; \
         restore it, or remove the state and lose its connections"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// Its length when it was made.
        expected: u64,
    },
    /// What it says cannot be.
    #[error("{path} contradicts itself ({what}); restore it, or remove it and lose its connections")]
    Broken {
        /// The directory, or "memory".
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The arenas of one shard.
pub struct Storage {
    /// One record.
    pub(crate) head: Arena<Head>,
    pub(crate) flows: Arena<Flow>,
    pub(crate) actives: Arena<Active>,
    pub(crate) payload: Payload,
    pub(crate) next_hops: Arena<NextHop>,
    /// Where there is a process to survive.
    pub(crate) log: Option<Arena<LoggedLine>>,
    pub(crate) path: PathBuf,
    /// Holds the directory's lock.
    _lock: Option<File>,
}

impl Storage {
    /// Memory that ends with the process, without a log.
    pub fn in_memory(capacity: Capacity) -> Result<Storage, StorageError> {
        Storage::anonymous(capacity, false)
    }

    /// Memory with a log as in a directory: it survives the shard that used it, as files survive a process.
    pub fn in_memory_logged(capacity: Capacity) -> Result<Storage, StorageError> {
        Storage::anonymous(capacity, true)
    }

    fn anonymous(capacity: Capacity, has_log: bool) -> Result<Storage, StorageError> {
        fn arena<T: Pod>(what: &'static str, count: u32, huge: bool) -> Result<Arena<T>, StorageError> {
            Arena::anonymous(count, huge).map_err(|source| StorageError::Memory { what, source })
        }
        let mut storage = Storage {
            head: arena("the head", 1, false)?,
            flows: arena("connections", capacity.flows, true)?,
            actives: arena("active blocks", capacity.actives, false)?,
            payload: Payload::new(
                arena("spans", capacity.spans, false)?,
                arena("payload", capacity.blocks, false)?,
                capacity.spans,
                capacity.blocks,
            ),
            next_hops: arena("next hops", NEXT_HOPS_MAX, false)?,
            log: if has_log { Some(arena("the log", RECORD_LINES_MAX, false)?) } else { None },
            path: PathBuf::from("memory"),
            _lock: None,
        };
        storage.head.records_mut()[0] = Head::new(capacity);
        Ok(storage)
    }

    /// The state of a shard in a directory, which is made if there is none. Errors say what is wrong with it.
    pub fn in_directory(directory: &Path, shard: u8, capacity: Capacity) -> Result<Storage, StorageError> {
        let path = directory.join(format!("shard-{shard}"));
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::File { path, source }
        };
        fs::create_dir_all(&path).map_err(refused(&path))?;
        let head_path = path.join("head");
        let mut head_file = open_file(&head_path).map_err(refused(&head_path))?;
        if head_file.try_lock().is_err() {
            return Err(StorageError::Locked { path });
        }
        let length = head_file.metadata().map_err(refused(&head_path))?.len();
        if length == 0 {
            make_files(&path, capacity)?;
            // The head comes last: without it there is no state.
            let mut bytes = bytemuck::bytes_of(&Head::new(capacity)).to_vec();
            bytes.resize(Arena::<Head>::file_bytes(1) as usize, 0);
            head_file.write_all(&bytes).map_err(refused(&head_path))?;
        } else {
            let mut bytes = [0; size_of::<Head>()];
            let is_whole = head_file.read_exact(&mut bytes).is_ok();
            check_head(&head_path, is_whole, &bytes, capacity)?;
        }
        let map = |name: &str| -> Result<File, StorageError> {
            let path = path.join(name);
            open_file(&path).map_err(refused(&path))
        };
        let (flows, actives) = (map("flows")?, map("actives")?);
        let (spans, blocks, next_hops, log) = (map("spans")?, map("blocks")?, map("next-hops")?, map("log")?);
        Ok(Storage {
            head: checked(&head_file, &head_path, 1)?,
            flows: checked(&flows, &path.join("flows"), capacity.flows)?,
            actives: checked(&actives, &path.join("actives"), capacity.actives)?,
            payload: Payload::new(
                checked(&spans, &path.join("spans"), capacity.spans)?,
                checked(&blocks, &path.join("blocks"), capacity.blocks)?,
                capacity.spans,
                capacity.blocks,
            ),
            next_hops: checked(&next_hops, &path.join("next-hops"), NEXT_HOPS_MAX)?,
            log: Some(checked(&log, &path.join("log"), RECORD_LINES_MAX)?),
            path,
            _lock: Some(head_file),
        })
    }

    /// Whether no shard was ever started on it.
    pub fn is_fresh(&self) -> bool {
        self.head().starts == 0
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

    pub(crate) fn head(&self) -> &Head {
        &self.head.records()[0]
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        &mut self.head.records_mut()[0]
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
    /// What there is room for.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn new(capacity: Capacity) -> Head {
        Head { magic: MAGIC, version: VERSION, layout: LAYOUT, capacity, ..Head::zeroed() }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn make_files(path: &Path, capacity: Capacity) -> Result<(), StorageError> {
    let files = [
        ("flows", Arena::<Flow>::file_bytes(capacity.flows)),
        ("actives", Arena::<Active>::file_bytes(capacity.actives)),
        ("spans", Arena::<Span>::file_bytes(capacity.spans)),
        ("blocks", Arena::<Block>::file_bytes(capacity.blocks)),
        ("next-hops", Arena::<NextHop>::file_bytes(NEXT_HOPS_MAX)),
        ("log", Arena::<LoggedLine>::file_bytes(RECORD_LINES_MAX)),
    ];
    for (name, bytes) in files {
        let path = path.join(name);
        let made = open_file(&path).and_then(|file| {
            // Emptied first: what an interrupted creation left must not show through.
            file.set_len(0)?;
            file.set_len(bytes)
        });
        made.map_err(|source| StorageError::File { path, source })?;
    }
    Ok(())
}

fn check_head(path: &Path, is_whole: bool, bytes: &[u8], capacity: Capacity) -> Result<(), StorageError> {
    let path = path.to_owned();
    let head: Head = bytemuck::pod_read_unaligned(bytes);
    if !is_whole || head.magic != MAGIC {
        return Err(StorageError::Foreign { path });
    }
    if (head.version, head.layout) != (VERSION, LAYOUT) {
        let found = format!("{}.{}", head.version, head.layout);
        return Err(StorageError::Version { path, found, expected: format!("{VERSION}.{LAYOUT}") });
    }
    if head.capacity != capacity {
        return Err(StorageError::Capacity { path, found: head.capacity.flows, expected: capacity.flows });
    }
    Ok(())
}

fn checked<T: Pod>(file: &File, path: &Path, count: u32) -> Result<Arena<T>, StorageError> {
    let refused = |source| StorageError::File { path: path.to_owned(), source };
    let found = file.metadata().map_err(refused)?.len();
    let expected = Arena::<T>::file_bytes(count);
    if found != expected {
        return Err(StorageError::Truncated { path: path.to_owned(), found, expected });
    }
    Arena::of_file(file, count).map_err(refused)
}
