//! Asks: what the control side wants to know from a worker or have done by it, each with the place for its answer.
//!
//! Comes in: asks, through a bounded queue that the worker looks into once a pass. Goes out: answers, through one-shot
//! channels.
//!
//! Invariant: an answer never waits for whoever asked. It is left in the channel, and dropped where nobody is there.

use tokio::sync::oneshot;

use crate::shard::{
    ArenaUse, CloseHow, CloseReason, FlowId, FlowView, JobId, JobView, PushError, Rule, State, Stats, Ticket,
};

use super::histogram::Histogram;

/// Where one answer goes.
#[derive(Debug)]
pub(super) struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// A place for an answer, and where to wait for it.
    pub(super) fn new() -> (Reply<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Answers.
    pub(super) fn send(self, answer: T) {
        // Whoever has gone away does not want it any more.
        let _ = self.0.send(answer);
    }

    /// Whether somebody still waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// How a push ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The peer's TCP has acknowledged its last byte.
    Delivered,
    /// It was dropped before its first byte was sent.
    Expired,
    /// The connection ended first.
    Undelivered {
        /// Bytes of it that were acknowledged.
        acked_bytes: u32,
    },
    /// The connection is gone, and how the push ended is not remembered.
    Forgotten,
}

/// What one asks.
#[derive(Debug)]
pub(super) enum Ask {
    /// How a connection looks.
    Flow { flow: FlowId, reply: Reply<Result<FlowAnswer, PushError>> },
    /// The connections from a slot on.
    Page { from_slot: u32, state: Option<State>, flows_max: usize, reply: Reply<Page> },
    /// The connections that have a name.
    Named { name: Box<[u8]>, reply: Reply<Vec<FlowId>> },
    /// A push to many.
    Broadcast { broadcast: BroadcastAsk, ticket: Ticket, reply: Reply<Result<JobId, PushError>> },
    /// How a broadcast stands.
    Job { job: JobId, reply: Reply<Option<JobView>> },
    /// The end of a broadcast; answered with how it stands then.
    CancelJob { job: JobId, reply: Reply<Option<JobView>> },
    /// The end of a connection.
    Close { flow: FlowId, how: CloseHow, reply: Reply<Result<(), PushError>> },
    /// Received bytes are to be kept from the service, or no longer.
    Pause { flow: FlowId, is_paused: bool, reply: Reply<Result<(), PushError>> },
    /// The end of all connections; answered with how many there are.
    Drain { rate_per_s: u32, reply: Reply<u32> },
    /// The figures.
    Figures { reply: Reply<Box<Figures>> },
}

/// What a broadcast is told.
#[derive(Debug)]
pub(super) struct BroadcastAsk {
    pub(super) bytes: Vec<u8>,
    pub(super) pace_per_s: u32,
    pub(super) prefix: Vec<u8>,
    pub(super) expires_in_s: u32,
}

/// What a push from the control side wants answered.
#[derive(Debug)]
pub(super) struct PushReply {
    /// Whether it is queued, and under which ticket.
    pub(super) queued: Reply<Result<Ticket, PushError>>,
    /// How it ended.
    pub(super) ended: Option<Reply<Outcome>>,
}

/// A connection and its name.
#[derive(Clone, Debug)]
pub(super) struct FlowAnswer {
    pub(super) view: FlowView,
    pub(super) name: Option<Box<[u8]>>,
}

/// Some connections, and the slot to go on from; `None` at the end of the table.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) flows: Vec<FlowAnswer>,
    pub(super) next_slot: Option<u32>,
}

/// Everything that a worker counts.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) stats: Stats,
    pub(super) states: Vec<(State, u32)>,
    pub(super) rules: Vec<(Rule, u64)>,
    pub(super) memory: Vec<ArenaUse>,
    pub(super) told: Counts,
    pub(super) is_draining: bool,
    pub(super) passes: u64,
    pub(super) frames_lost: u64,
    pub(super) notices_lost: u64,
    pub(super) step: Histogram,
    pub(super) delivery: Histogram,
}

impl Figures {
    /// How often a rule decided.
    pub(super) fn rule(&self, rule: Rule) -> u64 {
        self.rules.iter().find(|(known, _)| *known == rule).map_or(0, |(_, count)| *count)
    }
}

/// What became of connections and pushes since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) closed: [u64; CLOSE_REASONS.len()],
    pub(super) delivered: u64,
    pub(super) expired: u64,
    pub(super) undelivered: u64,
}

impl Counts {
    /// Where a reason is counted.
    pub(super) fn place_of(reason: CloseReason) -> usize {
        CLOSE_REASONS.iter().position(|(known, _)| *known == reason).unwrap_or(0)
    }
}

/// Reasons as readers see them.
pub(super) const CLOSE_REASONS: [(CloseReason, &str); 11] = [
    (CloseReason::BothClosed, "both-closed"),
    (CloseReason::PeerReset, "peer-reset"),
    (CloseReason::Aborted, "aborted"),
    (CloseReason::TimedOut, "timed-out"),
    (CloseReason::HandshakeFailed, "handshake-failed"),
    (CloseReason::PeerNeverClosed, "peer-never-closed"),
    (CloseReason::KeepaliveTimedOut, "keepalive-timed-out"),
    (CloseReason::IdleTimedOut, "idle-timed-out"),
    (CloseReason::DataAfterClose, "data-after-close"),
    (CloseReason::Refused, "refused"),
    (CloseReason::Unreachable, "unreachable"),
];
