//! Where connections live: arenas of plain records, ids, the index, the wheel and the clock hand.
//!
//! `storage` is what a state consists of; `arena` the memory under it; `payload` the queues' bytes; `slots`, `index`
//! and `wheel` are rebuilt from it at each start, `layout` says what else is written. Called by `shard`, which owns one
//! of each.
//!
//! Invariant: what belongs to a connection is plain data, named by index, never by pointer; what can be rebuilt lies
//! apart from it and is never logged.

mod ahead;
mod arena;
mod buckets;
mod hand;
mod id;
mod index;
mod key;
mod layout;
mod payload;
mod records;
mod refusal;
mod slots;
mod storage;
mod wheel;

pub use ahead::{Ahead, Area};
pub use arena::{Arena, Line, lines_of};
pub use hand::ClockHand;
pub use id::{FlowId, NotAFlowId};
pub use index::{Hashes, Index};
pub use key::{FlowKey, KeyHasher};
pub use layout::{Capacity, LOCALS_MAX, Logged, LoggedLine, RECORD_LINES_MAX};
pub use payload::{BLOCK_BYTES, Block, BrokenQueue, Label, Payload};
pub use records::{
    ATTACHMENT_BYTES_MAX, Address, Attachment, JOBS_MAX, Job, JobState, KEYS_MAX, KeyRecord, NEXT_HOPS_MAX, NextHop,
    PREFIX_BYTES_MAX, PushKeys,
};
pub use refusal::StorageError;
pub use slots::Slots;
pub use storage::{Head, Storage};
pub use wheel::Wheel;
