//! The pusher: pushes from any thread to the shard that owns the flow.
//!
//! Comes in: a flow's id and bytes. Goes out: a ticket at once, and later one notice for it, `Queued` or `Refused`, and
//! `Delivered` when the peer's TCP has acknowledged the last byte. Requests keep their order: what one thread pushes to
//! a flow, and its close, arrive as they were called.
//!
//! Invariant: nothing here blocks, and what waits is bounded in number and in bytes.

use std::sync::Arc;

use crate::shard::{CloseHow, FlowId, PushError, Ticket};

use super::ask::PushReply;
use super::shared::Shared;

/// Pushes to connections of one server. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Pusher {
    shared: Arc<Shared>,
}

impl Pusher {
    pub(super) fn new(shared: Arc<Shared>) -> Pusher {
        Pusher { shared }
    }

    /// Hands over bytes to be pushed to `flow`, all of them or none, and returns the push's name. Whether the flow
    /// exists and has room is told by the notice. Errors here: [`PushError::TooLarge`] for more than a flow's send
    /// queue holds, [`PushError::ShardFull`] when the hand-over queue has no room (try again later), and
    /// [`PushError::Gone`] when the server has stopped.
    pub fn push(&self, flow: FlowId, bytes: &[u8]) -> Result<Ticket, PushError> {
        self.shared.push(flow, bytes, Asked::default())
    }

    /// Closes `flow` after what this thread has pushed to it. Errors as for [`Pusher::push`]; a flow that is gone when
    /// the request arrives is no error.
    pub fn close(&self, flow: FlowId, how: CloseHow) -> Result<(), PushError> {
        self.shared.request(flow.shard(), Request::Close { flow, how })
    }
}

/// What a pusher asks of a shard.
#[derive(Debug)]
pub(super) enum Request {
    Push { flow: FlowId, ticket: Ticket, bytes: Box<[u8]>, asked: Asked },
    Close { flow: FlowId, how: CloseHow },
}

/// What the control side asks of a push beside its bytes.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The value of its idempotency key.
    pub(super) key: Option<Box<[u8]>>,
    /// When it is dropped if it is not begun; 0 for never.
    pub(super) expires_in_s: u32,
    /// Where its fate is told.
    pub(super) reply: Option<PushReply>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushers_cross_threads() {
        fn assert_kind<T: Clone + Send + Sync>() {}
        assert_kind::<Pusher>();
    }
}
