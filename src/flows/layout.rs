//! How much a state has room for, and which of its lines are logged.
//!
//! Invariant: plain old data; what is written here today must be read by the next process.

use bytemuck::{Pod, Zeroable};

use super::arena::LINE_BYTES;

/// How many of each thing there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Capacity {
    /// Connections.
    pub flows: u32,
    /// Active blocks: connections that are doing something at the same time.
    pub actives: u32,
    /// Spans: pieces of queues.
    pub spans: u32,
    /// Payload blocks of 2 KB.
    pub blocks: u32,
}

impl Capacity {
    /// Repair blocks: a quarter of the active blocks can have one, the others wait for time-outs.
    pub fn repairs(&self) -> u32 {
        self.actives.div_ceil(4)
    }

    /// For so many connections of which all may be active at once, within 1 GB of queued payload.
    pub fn for_connections(connections: u32) -> Capacity {
        let actives = connections.clamp(1_024, 1 << 22);
        Capacity { flows: connections.max(1), actives, spans: 1 << 20, blocks: 1 << 19 }
    }
}

/// Most addresses of our own.
pub const LOCALS_MAX: usize = 64;
/// Most lines that one record can hold.
pub const RECORD_LINES_MAX: u32 = 20_480;

/// The arenas whose lines are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::FromRepr)]
#[repr(u32)]
pub enum Logged {
    /// Flows.
    Flows,
    /// Active blocks.
    Actives,
    /// Repair blocks.
    Repairs,
    /// What services attach to flows.
    Attachments,
    /// Idempotency keys.
    Keys,
    /// Broadcast jobs.
    Jobs,
}

/// One logged line: where it belongs and what it becomes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct LoggedLine {
    /// Which arena, as in `Logged`.
    pub arena: u32,
    /// Which line of it.
    pub line: u32,
    /// Its new content.
    pub image: [u32; LINE_BYTES / 4],
}

impl LoggedLine {
    /// Whether it is this line.
    pub fn is_at(&self, arena: Logged, line: u32) -> bool {
        self.line == line && self.arena == arena as u32
    }
}
