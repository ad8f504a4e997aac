//! Asks: what the control side wants to know of a shard or have done by it, each with the place for its answer.
//!
//! Comes in: asks, through a bounded queue that whoever drives the shard looks into once a pass. Goes out: answers,
//! through one-shot channels.
//!
//! Invariant: an answer never waits for whoever asked. It is left in the channel, and dropped where nobody is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::shard::{CloseHow, FlowId, FlowView, JobId, JobView, PushError, State, Ticket};

use super::figures::ShardFigures;
use super::seat::AfterDrain;

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
    Broadcast { broadcast: BroadcastAsk, reply: Reply<Result<JobId, PushError>> },
    /// The same, held until all shards have taken their part; `id` is what the first one has answered.
    HoldJob { broadcast: BroadcastAsk, id: Option<JobId>, reply: Reply<Result<JobId, PushError>> },
    /// It begins.
    ReleaseJob { job: JobId, reply: Reply<()> },
    /// How a broadcast stands.
    Job { job: JobId, reply: Reply<Option<JobView>> },
    /// The end of a broadcast; answered with how it stands then.
    CancelJob { job: JobId, reply: Reply<Option<JobView>> },
    /// The end of a connection.
    Close { flow: FlowId, how: CloseHow, reply: Reply<Result<(), PushError>> },
    /// Received bytes are to be kept from the service, or no longer.
    Pause { flow: FlowId, is_paused: bool, reply: Reply<Result<(), PushError>> },
    /// The end of all connections; answered with how many there are.
    Drain { rate_per_s: u32, bound: Duration, after: AfterDrain, reply: Reply<u32> },
    /// The figures.
    Figures { reply: Reply<Box<ShardFigures>> },
    /// The shard is to be driven by this worker; answered when it is.
    Move { worker: usize, reply: Reply<()> },
}

/// What a broadcast is told.
#[derive(Clone, Debug)]
pub(super) struct BroadcastAsk {
    pub(super) ticket: Ticket,
    pub(super) bytes: Arc<[u8]>,
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
