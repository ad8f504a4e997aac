//! The way of notices from a worker to whoever keeps them as events.
//!
//! Comes in: notices, in the worker's thread. Goes out: the same in order, in the reader's thread, and where the queue
//! was full, how many are missing at that place. Answers to pushers are no events and are left out.
//!
//! Invariant: the worker never waits here. It writes into a bounded queue and rings at most once a pass.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use crate::shard::Notice;

/// One thing that the worker tells.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// It happened.
    Happened(Notice),
    /// So many notices found no room.
    Lost(u64),
}

/// The queue between the two threads.
#[derive(Debug)]
pub(super) struct ToldQueue {
    told: ArrayQueue<Told>,
    bell: Notify,
}

impl ToldQueue {
    /// Room for `notices_max`, rounded up to one.
    pub(super) fn new(notices_max: usize) -> Arc<ToldQueue> {
        Arc::new(ToldQueue { told: ArrayQueue::new(notices_max.max(1)), bell: Notify::new() })
    }

    /// The oldest that waits.
    pub(super) fn pop(&self) -> Option<Told> {
        self.told.pop()
    }

    /// Waits until something was told since the last call. A bell that rings while nobody waits is heard afterwards.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Teller {
    queue: Arc<ToldQueue>,
    lost: u64,
    is_flush_due: bool,
}

impl Teller {
    pub(super) fn new(queue: Arc<ToldQueue>) -> Teller {
        Teller { queue, lost: 0, is_flush_due: false }
    }

    /// Puts a notice into the queue, or counts it as lost.
    pub(super) fn tell(&mut self, notice: &Notice) {
        if matches!(notice, Notice::Queued { .. } | Notice::Refused { .. }) {
            return;
        }
        self.is_flush_due = true;
        if !self.says_what_is_lost() || self.queue.told.push(Told::Happened(notice.clone())).is_err() {
            self.lost += 1;
        }
    }

    /// Rings, if anything was told since the last call.
    pub(super) fn flush(&mut self) {
        if self.is_flush_due {
            self.is_flush_due = !self.says_what_is_lost();
            self.queue.bell.notify_one();
        }
    }

    fn says_what_is_lost(&mut self) -> bool {
        if self.lost > 0 && self.queue.told.push(Told::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        self.lost == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{FlowId, PushError, Ticket};

    fn opened(slot: u32) -> Notice {
        Notice::PeerClosed { flow: FlowId::new(0, 1, slot) }
    }

    #[test]
    fn what_is_lost_is_counted_at_its_place() {
        let queue = ToldQueue::new(2);
        let mut teller = Teller::new(Arc::clone(&queue));
        (0..5).for_each(|slot| teller.tell(&opened(slot)));
        for slot in 0..2 {
            assert!(matches!(queue.pop(), Some(Told::Happened(notice)) if notice == opened(slot)));
        }
        teller.tell(&opened(5));
        assert!(matches!(queue.pop(), Some(Told::Lost(3))));
        assert!(matches!(queue.pop(), Some(Told::Happened(notice)) if notice == opened(5)));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn answers_to_pushers_are_no_events() {
        let queue = ToldQueue::new(2);
        let mut teller = Teller::new(Arc::clone(&queue));
        let flow = FlowId::new(0, 1, 1);
        teller.tell(&Notice::Queued { flow, ticket: Ticket(1) });
        teller.tell(&Notice::Refused { flow, ticket: Ticket(1), error: PushError::Gone });
        assert!(queue.pop().is_none());
        teller.tell(&opened(1));
        assert!(queue.pop().is_some());
    }
}
