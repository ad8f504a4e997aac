//! The line to shards and workers: asks and pushes with their answers, awaited.
//!
//! Comes in: what a call wants. Goes out: the answer, or those of all shards in their order, or a failure that says why
//! there is none.
//!
//! Invariant: what is on the line is bounded. Calls beyond that wait here, in the control thread, not in the worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Semaphore, oneshot};

use crate::shard::{FlowId, PushError, Ticket};

use super::super::ask::{Ask, Outcome, PushReply, Reply};
use super::super::figures::{Figures, Lost};
use super::super::pusher::Asked;
use super::super::shared::{ASKS_MAX, Shared};
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
        Line { shared, asks: Semaphore::new(ASKS_MAX), pushes: Semaphore::new(PUSHES_MAX) }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> u8 {
        self.shared.shards()
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Asks a shard, and waits for the answer. A shard that does not exist is asked in the first one's stead.
    pub(super) async fn ask<T>(&self, shard: u8, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Failure> {
        let _place = self.asks.acquire().await.map_err(|_| Failure::stopped())?;
        let (reply, answer) = Reply::new();
        self.shared.ask(shard, ask(reply)).map_err(|_| Failure::stopped())?;
        answer.await.map_err(|_| Failure::stopped())
    }

    /// Asks every shard, all at the same time, and waits for the answers.
    pub(super) async fn ask_all<T>(&self, mut ask: impl FnMut(u8, Reply<T>) -> Ask) -> Result<Vec<T>, Failure> {
        let _place = self.asks.acquire().await.map_err(|_| Failure::stopped())?;
        let mut answers = Vec::with_capacity(usize::from(self.shards()));
        for shard in 0..self.shards() {
            let (reply, answer) = Reply::new();
            self.shared.ask(shard, ask(shard, reply)).map_err(|_| Failure::stopped())?;
            answers.push(answer);
        }
        all(answers).await
    }

    /// The figures of all shards and workers.
    pub(super) async fn figures(&self) -> Result<Figures, Failure> {
        let shards = self.ask_all(|_, reply| Ask::Figures { reply }).await?;
        let _place = self.asks.acquire().await.map_err(|_| Failure::stopped())?;
        let mut answers = Vec::with_capacity(self.workers());
        for worker in 0..self.workers() {
            let (reply, answer) = Reply::new();
            self.shared.ask_figures(worker, reply).map_err(|_| Failure::stopped())?;
            answers.push(answer);
        }
        let shards = shards.into_iter().map(|figures| *figures).collect();
        let refused = |shard| self.shared.mailbox(shard).frames_refused.load(Ordering::Relaxed);
        let lost = Lost {
            notices: self.shared.notices_lost.load(Ordering::Relaxed),
            frames: (0..self.shards()).map(refused).sum(),
        };
        Figures::of(shards, all(answers).await?, lost).ok_or_else(Failure::stopped)
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

async fn all<T>(answers: Vec<oneshot::Receiver<T>>) -> Result<Vec<T>, Failure> {
    let mut all = Vec::with_capacity(answers.len());
    for answer in answers {
        all.push(answer.await.map_err(|_| Failure::stopped())?);
    }
    Ok(all)
}

/// Pushes that wait for a shard at the same time; the rest of the queue is for pushers of other threads.
const PUSHES_MAX: usize = 1_024;
