//! The line to the worker: asks and pushes with their answers, awaited.
//!
//! Comes in: what a call wants. Goes out: the worker's answer, or a failure that says why there is none.
//!
//! Invariant: what is on the line is bounded. Calls beyond that wait here, in the control thread, not in the worker.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::shard::{FlowId, PushError, Ticket};

use super::super::ask::{Ask, Outcome, PushReply, Reply};
use super::super::pusher::{Asked, Shared};
use super::failure::Failure;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Shared>,
    asks: Semaphore,
    pushes: Semaphore,
}

/// What a push is told beside its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct PushTerms {
    /// The value of its `Idempotency-Key`.
    pub(super) key: Option<Box<[u8]>>,
    /// 0 for never.
    pub(super) expires_in_s: u32,
    /// Whether its end is awaited.
    pub(super) is_awaited: bool,
}

/// A push that is queued.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) ticket: Ticket,
    /// How it ended, if that was asked for.
    pub(super) ended: Option<oneshot::Receiver<Outcome>>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>) -> Line {
        let asks = Semaphore::new(shared.asks_max().min(ASKS_MAX));
        Line { shared, asks, pushes: Semaphore::new(PUSHES_MAX) }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Failure> {
        let _place = self.asks.acquire().await.map_err(|_| Failure::stopped())?;
        let (reply, answer) = Reply::new();
        self.shared.ask(ask(reply)).map_err(|_| Failure::stopped())?;
        answer.await.map_err(|_| Failure::stopped())
    }

    /// Pushes, and waits until that is committed. The error is what the stack says; `None`: the server stops.
    pub(super) async fn push(&self, flow: FlowId, bytes: &[u8], terms: PushTerms) -> Result<Queued, Option<PushError>> {
        let _place = self.pushes.acquire().await.map_err(|_| None)?;
        let (queued, answer) = Reply::new();
        let (ended, receiver) = match terms.is_awaited {
            true => Some(Reply::new()).unzip(),
            false => (None, None),
        };
        let asked =
            Asked { key: terms.key, expires_in_s: terms.expires_in_s, reply: Some(PushReply { queued, ended }) };
        self.shared.push(flow, bytes, asked).map_err(|error| match error {
            PushError::Gone => None,
            error => Some(error),
        })?;
        let ticket = answer.await.map_err(|_| None)?.map_err(Some)?;
        Ok(Queued { ticket, ended: receiver })
    }

    /// A ticket for a broadcast.
    pub(super) fn next_ticket(&self) -> Ticket {
        self.shared.next_ticket()
    }
}

/// Asks that wait for the worker at the same time.
const ASKS_MAX: usize = 256;

/// Pushes that do; the rest of the queue is for pushers of other threads.
const PUSHES_MAX: usize = 1_024;
