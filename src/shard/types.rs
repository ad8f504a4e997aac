//! What goes into a shard and comes out of it, beside frames.

use std::net::SocketAddr;

use crate::flows::{FlowId, JobState};
use crate::tcp::{CloseReason, SoftError, State};

/// Names one push, so that its delivery can be told. Unique over the life of a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(pub u64);

impl Ticket {
    /// No receipt is wanted.
    pub const NONE: Ticket = Ticket(0);
}

/// How a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseHow {
    /// FIN, after everything that is queued. What the peer sends when it has acknowledged all of that is answered by
    /// RST.
    Fin,
    /// FIN, after everything that is queued; what the peer sends is still received.
    Half,
    /// RST, at once; what is queued is lost.
    Reset,
}

/// Why a push or close was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum PushError {
    /// The id was never given out.
    #[error("no connection ever had this id")]
    Unknown,
    /// The connection is closed or closing.
    #[error("the connection is gone")]
    Gone,
    /// No bytes at all.
    #[error("a push has at least one byte")]
    Empty,
    /// More bytes than a flow's send queue ever holds.
    #[error("the push is larger than a flow's send queue")]
    TooLarge,
    /// Too much waits in this flow's send queue already; try again when something was delivered.
    #[error("this flow's send queue is full")]
    FlowFull,
    /// No payload block, active block or place in the batch is free; try again later.
    #[error("the shard has no room for more payload or active connections")]
    ShardFull,
}

/// Names one broadcast for as long as the state lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// A payload for many connections.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast<'a> {
    /// By which name the delivery of each of its pushes is told.
    pub ticket: Ticket,
    /// At least one byte, at most what a flow's send queue holds.
    pub bytes: &'a [u8],
    /// Pushes a second; 0 for as fast as there is room.
    pub pace_per_s: u32,
    /// What the name of a connection must begin with, at most 64 bytes; empty for all connections.
    pub prefix: &'a [u8],
    /// Pushes that are not begun after so many seconds are dropped; 0 for never.
    pub expires_in_s: u32,
}

/// How a broadcast stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// Whether it goes on.
    pub state: JobState,
    /// Connections that it was pushed to.
    pub pushed: u32,
    /// Connections that refused it.
    pub refused: u32,
    /// Pushes that were delivered.
    pub delivered: u32,
    /// Pushes that were lost with their connection, or expired.
    pub lost: u32,
    /// How many slots of the table it has passed.
    pub cursor: u32,
    /// How many slots the table has.
    pub total_slots: u32,
}

/// Bytes for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// For whom.
    pub flow: FlowId,
    /// By which name its delivery is told; [`Ticket::NONE`] where it is not.
    pub ticket: Ticket,
    /// At least one byte.
    pub bytes: &'a [u8],
    /// A push with a key that was used before is not queued, but answered with the first one's ticket. The last 65,536
    /// keys are remembered.
    pub key: Option<[u8; 16]>,
    /// It is dropped if it is not begun after so many seconds; 0 for never.
    pub expires_in_s: u32,
    /// Its bytes are urgent (RFC 9293 §3.8.5); new applications should not ask for it (SHLD-13).
    pub is_urgent: bool,
}

impl<'a> Push<'a> {
    /// A push without a key that never expires.
    pub fn new(flow: FlowId, ticket: Ticket, bytes: &'a [u8]) -> Push<'a> {
        Push { flow, ticket, bytes, key: None, expires_in_s: 0, is_urgent: false }
    }
}

/// Something that happened, told after it was committed.
#[derive(Clone, PartialEq, Debug)]
pub enum Notice {
    /// A handshake was completed.
    Opened {
        /// The connection.
        flow: FlowId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// A push is in its flow's send queue.
    Queued {
        /// The connection.
        flow: FlowId,
        /// The push.
        ticket: Ticket,
    },
    /// A push was refused; nothing of it was queued.
    Refused {
        /// The connection.
        flow: FlowId,
        /// The push.
        ticket: Ticket,
        /// Why.
        error: PushError,
    },
    /// The peer's TCP has acknowledged the last byte of a push.
    Delivered {
        /// The connection.
        flow: FlowId,
        /// The push.
        ticket: Ticket,
    },
    /// A push expired before its first byte was sent; it is dropped.
    Expired {
        /// The connection.
        flow: FlowId,
        /// The push.
        ticket: Ticket,
    },
    /// The connection is over before the peer's TCP has acknowledged all of a push.
    Undelivered {
        /// The connection.
        flow: FlowId,
        /// The push.
        ticket: Ticket,
        /// How many of its bytes were acknowledged.
        acked_bytes: u32,
    },
    /// The service has consumed bytes.
    Received {
        /// The connection.
        flow: FlowId,
        /// Where they begin in the peer's stream, modulo 2^32.
        offset: u32,
        /// The bytes, as many as `Config::report_received_bytes` allows of each piece.
        bytes: Box<[u8]>,
    },
    /// The peer has urgent bytes.
    Urgent {
        /// The connection.
        flow: FlowId,
        /// How far they go: the position after the last of them in the peer's stream, modulo 2^32.
        end: u32,
    },
    /// Trouble that does not end the connection.
    SoftError {
        /// The connection.
        flow: FlowId,
        /// What it is.
        error: SoftError,
    },
    /// The peer has sent its FIN and everything before it was consumed.
    PeerClosed {
        /// The connection.
        flow: FlowId,
    },
    /// The connection is over.
    Closed {
        /// The connection that was.
        flow: FlowId,
        /// Why.
        reason: CloseReason,
    },
}

/// A connection as it looks from outside.
#[derive(Clone, Copy, Debug)]
pub struct FlowView {
    /// Its id.
    pub id: FlowId,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Its state.
    pub state: State,
    /// How long ago its SYN came, in seconds.
    pub opened_s_ago: u32,
    /// How long ago the peer was last heard, in seconds.
    pub idle_s: u32,
    /// Smoothed round-trip time, once known.
    pub srtt_us: Option<u32>,
    /// How many queued bytes the peer has not acknowledged.
    pub unacked_bytes: u32,
    /// Whether received bytes are kept from the service.
    pub is_paused: bool,
}

/// What a start found in its storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resumption {
    /// Whether it was empty.
    pub is_fresh: bool,
    /// Connections that go on.
    pub connections: u32,
    /// Records that were not complete and are discarded: 0 or 1.
    pub records_discarded: u32,
    /// Complete records that were applied again: 0 or 1.
    pub records_applied_again: u32,
}

/// Counts of what a shard holds and did since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Connections in all states, TIME-WAIT included.
    pub flows: u32,
    /// Connections in SYN-RECEIVED.
    pub half_open: u32,
    /// Connections in ESTABLISHED.
    pub established: u32,
    /// Connections in any later state.
    pub closing: u32,
    /// Active blocks in use.
    pub actives: u32,
    /// Repair blocks in use.
    pub repairs: u32,
    /// Spans in use.
    pub spans: u32,
    /// Payload blocks in use.
    pub blocks: u32,
    /// Records of addresses of peers over IPv6 in use.
    pub peers: u32,
    /// Batches committed over the life of the state.
    pub batches: u64,
    /// Frames taken in.
    pub frames_in: u64,
    /// Frames made.
    pub frames_out: u64,
}

/// What a shard has done since its start beside answering: where steps that took long spend their time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    /// Timers that came up.
    pub timers: u64,
    /// Slots that the clock hand has passed.
    pub swept: u64,
    /// Entries of the index that were moved as it grew or shrank.
    pub moved: u64,
    /// Bytes of memory that were given back.
    pub released_bytes: u64,
}

impl Effort {
    /// What was done since an earlier time.
    pub fn since(&self, earlier: &Effort) -> Effort {
        Effort {
            timers: self.timers - earlier.timers,
            swept: self.swept - earlier.swept,
            moved: self.moved - earlier.moved,
            released_bytes: self.released_bytes - earlier.released_bytes,
        }
    }
}

/// How much of an arena is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaUse {
    /// What it holds.
    pub name: &'static str,
    /// Records in use.
    pub used: u64,
    /// Records that there is room for.
    pub capacity: u64,
    /// Length of a record in bytes.
    pub record_bytes: u64,
}
