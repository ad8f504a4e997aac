//! Refusals: why a state cannot be used, and the way out.

use std::io;
use std::path::PathBuf;

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
    /// The same, of a state of several shards.
    #[error(
        "{path} was made for {found} connections in each shard and {expected} were asked for; start with the \
         --max-connections that it was made with, or remove it and lose its connections"
    )]
    ShardCapacity {
        /// The directory.
        path: PathBuf,
        /// Connections that each shard was made for.
        found: u32,
        /// Connections asked for.
        expected: u32,
    },
    /// It was made for another number of shards.
    #[error(
        "{path} was made for {found} shards and {expected} were asked for; start with --shards {found}, or remove the \
         state and lose its connections"
    )]
    Shards {
        /// The directory.
        path: PathBuf,
        /// How many it has.
        found: u32,
        /// How many were asked for.
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
