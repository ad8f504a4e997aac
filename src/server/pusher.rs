//! The pusher: pushes from any thread to the worker that owns the flow.
//!
//! Comes in: a flow's id and bytes. Goes out: a ticket at once, and later one notice for it, `Queued` or `Refused`, and
//! `Delivered` when the peer's TCP has acknowledged the last byte. Requests keep their order: what one thread pushes to
//! a flow, and its close, arrive as they were called.
//!
//! Invariant: nothing here blocks, and what waits is bounded in number and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;

use crate::shard::{CloseHow, FlowId, PushError, Ticket};

use super::Order;
use super::ask::{Ask, PushReply};
use super::wake::Wake;

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
        self.shared.hand_over(Request::Close { flow, how })
    }
}

/// What a pusher asks of the worker.
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

/// What pushers, the control side, the server's handle and the worker share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) requests: ArrayQueue<Request>,
    pub(super) asks: ArrayQueue<Ask>,
    pub(super) orders: ArrayQueue<Order>,
    pub(super) wake: Wake,
    pub(super) has_stopped: AtomicBool,
    pub(super) notices_lost: AtomicU64,
    waiting_bytes: AtomicUsize,
    waiting_bytes_max: usize,
    push_bytes_max: usize,
    tickets: AtomicU64,
}

impl Shared {
    /// Room for `requests_max` requests of together `waiting_bytes_max` bytes; `start_number` tells this process's
    /// tickets from those of earlier ones.
    pub(super) fn new(
        wake: Wake,
        requests_max: usize,
        waiting_bytes_max: usize,
        push_bytes_max: usize,
        start_number: u64,
    ) -> Shared {
        Shared {
            requests: ArrayQueue::new(requests_max.max(1)),
            asks: ArrayQueue::new(ASKS_MAX),
            orders: ArrayQueue::new(ORDERS_MAX),
            wake,
            has_stopped: AtomicBool::new(false),
            notices_lost: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            waiting_bytes_max,
            push_bytes_max,
            tickets: AtomicU64::new(first_ticket(start_number)),
        }
    }

    /// Called by the worker for each push that it has taken out.
    pub(super) fn taken_out(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Longest push, in bytes.
    pub(super) fn push_bytes_max(&self) -> usize {
        self.push_bytes_max
    }

    /// How many asks may wait for the worker.
    pub(super) fn asks_max(&self) -> usize {
        self.asks.capacity()
    }

    /// A ticket that no push had before.
    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// See [`Pusher::push`].
    pub(super) fn push(&self, flow: FlowId, bytes: &[u8], asked: Asked) -> Result<Ticket, PushError> {
        if bytes.len() > self.push_bytes_max {
            return Err(PushError::TooLarge);
        }
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting_bytes + bytes.len() > self.waiting_bytes_max {
            self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            return Err(PushError::ShardFull);
        }
        let ticket = self.next_ticket();
        let handed_over = self.hand_over(Request::Push { flow, ticket, bytes: bytes.into(), asked });
        if handed_over.is_err() {
            self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        handed_over.map(|()| ticket)
    }

    /// Hands an ask to the worker; the error is [`PushError::ShardFull`] or [`PushError::Gone`], and the ask's reply is
    /// dropped with it.
    pub(super) fn ask(&self, ask: Ask) -> Result<(), PushError> {
        if self.has_stopped.load(Ordering::SeqCst) {
            return Err(PushError::Gone);
        }
        self.asks.push(ask).map_err(|_| PushError::ShardFull)?;
        self.wake.notify();
        self.drop_if_stopped();
        Ok(())
    }

    /// The worker takes nothing any more.
    pub(super) fn stop(&self) {
        self.has_stopped.store(true, Ordering::SeqCst);
        self.drop_if_stopped();
    }

    /// What no worker will take out is dropped, with the replies in it. Both sides look after they have written, so one
    /// of them sees what came in between.
    fn drop_if_stopped(&self) {
        fence(Ordering::SeqCst);
        if self.has_stopped.load(Ordering::SeqCst) {
            while self.asks.pop().is_some() {}
            while self.requests.pop().is_some() {}
        }
    }

    fn hand_over(&self, request: Request) -> Result<(), PushError> {
        if self.has_stopped.load(Ordering::SeqCst) {
            return Err(PushError::Gone);
        }
        self.requests.push(request).map_err(|_| PushError::ShardFull)?;
        self.wake.notify();
        self.drop_if_stopped();
        Ok(())
    }
}

/// A pusher's tickets: the top bit, 15 bits of the start number, 48 bits that count. A service's tickets have the top
/// bit clear, so the two never meet.
fn first_ticket(start_number: u64) -> u64 {
    1 << 63 | (start_number & 0x7fff) << 48
}

/// Asks that wait for the worker at the same time.
const ASKS_MAX: usize = 256;

/// More orders than anybody gives at once: stop, drain.
const ORDERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(requests_max: usize, waiting_bytes_max: usize) -> Arc<Shared> {
        Arc::new(Shared::new(Wake::new().expect("an eventfd"), requests_max, waiting_bytes_max, 1_000, 3))
    }

    #[test]
    fn pushers_cross_threads() {
        fn assert_kind<T: Clone + Send + Sync>() {}
        assert_kind::<Pusher>();
    }

    #[test]
    fn a_full_queue_refuses_and_gives_room_again() {
        let shared = shared(2, 10_000);
        let pusher = Pusher::new(Arc::clone(&shared));
        let flow = FlowId::new(0, 1, 2);
        assert!(pusher.push(flow, &[1; 10]).is_ok());
        assert!(pusher.close(flow, CloseHow::Fin).is_ok());
        assert_eq!(pusher.push(flow, &[1; 10]), Err(PushError::ShardFull));
        assert_eq!(shared.waiting_bytes.load(Ordering::Relaxed), 10);
        assert!(matches!(shared.requests.pop(), Some(Request::Push { .. })), "order is kept");
        shared.taken_out(10);
        assert!(pusher.push(flow, &[1; 10]).is_ok());
    }

    #[test]
    fn bytes_that_wait_are_bounded() {
        let pusher = Pusher::new(shared(100, 1_500));
        let flow = FlowId::new(0, 1, 2);
        assert_eq!(pusher.push(flow, &[0; 1_001]), Err(PushError::TooLarge));
        assert!(pusher.push(flow, &[0; 1_000]).is_ok());
        assert_eq!(pusher.push(flow, &[0; 1_000]), Err(PushError::ShardFull));
        assert!(pusher.push(flow, &[0; 500]).is_ok());
    }

    #[test]
    fn tickets_of_two_starts_differ() {
        let ticket = first_ticket(3);
        assert_eq!(ticket >> 63, 1);
        assert_eq!(ticket >> 48 & 0x7fff, 3);
        assert_ne!(first_ticket(3), first_ticket(4));
        let pusher = Pusher::new(shared(10, 10));
        let flow = FlowId::new(0, 1, 2);
        let first = pusher.push(flow, b"a").expect("room");
        let second = pusher.push(flow, b"a").expect("room");
        assert_eq!((first.0, second.0), (ticket, ticket + 1));
    }

    #[test]
    fn a_stopped_server_takes_nothing() {
        let shared = shared(2, 100);
        shared.has_stopped.store(true, Ordering::Relaxed);
        let pusher = Pusher::new(shared);
        assert_eq!(pusher.push(FlowId::new(0, 1, 2), b"a"), Err(PushError::Gone));
    }
}
