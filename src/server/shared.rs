//! What the threads of a server share: a mailbox for each shard, a post for each worker, and who drives which shard.
//!
//! ```text
//! pushers, control side --requests, asks-->  mailbox of a shard   --+ whoever drives the shard empties it
//! workers that got its frames ---frames--->  (moves nowhere)      --+
//!                 "look!" --> bell of the worker that drives the shard
//! ```
//!
//! Comes in: requests, asks and frames for a shard, shards and asks for a worker, each left by any thread. Goes out:
//! the same, taken out by the one worker that they are for.
//!
//! Invariant: every box is bounded, and no wake-up is lost while a shard moves. Whoever leaves something writes it
//! first and looks then who drives the shard; whoever gives a shard away names the next worker first, and that one
//! looks into the mailbox after it has got the shard.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;

use crate::shard::{FlowId, PushError, Ticket};

use super::ask::{Ask, Reply};
use super::figures::WorkerFigures;
use super::pusher::{Asked, Request};
use super::seat::Seat;
use super::wake::Wake;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// By the numbers of shards.
    mailboxes: Box<[Mailbox]>,
    /// By the numbers of workers.
    posts: Box<[Post]>,
    pub(super) notices_lost: AtomicU64,
    has_stopped: AtomicBool,
    /// Shards that are still to be drained before the server ends by that.
    undrained: AtomicUsize,
    waiting_bytes: AtomicUsize,
    bounds: Bounds,
    tickets: AtomicU64,
    /// Whether frames may have to be handed over at all.
    hands_over: bool,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Requests for one shard.
    pub(super) requests_max: usize,
    /// Bytes in all requests together.
    pub(super) waiting_bytes_max: usize,
    /// Bytes in one push.
    pub(super) push_bytes_max: usize,
}

/// What waits for a shard, whoever drives it.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) requests: ArrayQueue<Request>,
    pub(super) asks: ArrayQueue<Ask>,
    /// Frames that other workers have received.
    pub(super) frames: ArrayQueue<Box<[u8]>>,
    /// Frames that found no room there.
    pub(super) frames_refused: AtomicU64,
    /// Who drives the shard, or is about to.
    worker: AtomicUsize,
}

/// What waits for a worker.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) wake: Wake,
    /// Who wants its figures.
    pub(super) figures_asked: ArrayQueue<Reply<WorkerFigures>>,
    /// Shards that it is to drive from now on.
    pub(super) arrivals: ArrayQueue<Box<Seat>>,
}

impl Mailbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.asks.is_empty() && self.frames.is_empty()
    }
}

impl Shared {
    /// For so many shards, which the workers with these door bells share out; `start_number` tells this process's
    /// tickets from those of earlier ones.
    pub(super) fn new(wakes: Vec<Wake>, shards: u8, bounds: Bounds, start_number: u64) -> Shared {
        let workers = wakes.len();
        let hands_over = shards > 1 || workers > 1;
        let frames_max = if hands_over { HANDED_OVER_MAX } else { 1 };
        let mailbox = |shard| Mailbox {
            requests: ArrayQueue::new(bounds.requests_max.max(1)),
            asks: ArrayQueue::new(ASKS_MAX + ASKS_SPARE),
            frames: ArrayQueue::new(frames_max),
            frames_refused: AtomicU64::new(0),
            worker: AtomicUsize::new(usize::from(shard) % workers),
        };
        let post = |wake| Post {
            wake,
            figures_asked: ArrayQueue::new(ASKS_MAX + ASKS_SPARE),
            arrivals: ArrayQueue::new(usize::from(shards)),
        };
        Shared {
            mailboxes: (0..shards).map(mailbox).collect(),
            posts: wakes.into_iter().map(post).collect(),
            notices_lost: AtomicU64::new(0),
            has_stopped: AtomicBool::new(false),
            undrained: AtomicUsize::new(usize::from(shards)),
            waiting_bytes: AtomicUsize::new(0),
            bounds,
            tickets: AtomicU64::new(first_ticket(start_number)),
            hands_over,
        }
    }

    /// Whether frames may have to be handed over at all.
    pub(super) fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> u8 {
        self.mailboxes.len() as u8
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.posts.len()
    }

    /// What waits for a shard. The first shard's for one that does not exist: it knows none of its ids.
    pub(super) fn mailbox(&self, shard: u8) -> &Mailbox {
        self.mailboxes.get(usize::from(shard)).unwrap_or(&self.mailboxes[0])
    }

    /// What waits for a worker.
    pub(super) fn post(&self, worker: usize) -> &Post {
        &self.posts[worker]
    }

    /// Who drives a shard, or is about to.
    pub(super) fn worker_of(&self, shard: u8) -> usize {
        self.mailbox(shard).worker.load(Ordering::Relaxed)
    }

    /// Called after something was left in the mailbox of a shard.
    pub(super) fn ring(&self, shard: u8) {
        fence(Ordering::SeqCst);
        self.posts[self.worker_of(shard)].wake.notify();
    }

    /// Gives a shard away to another worker.
    pub(super) fn give(&self, seat: Box<Seat>, worker: usize) {
        self.mailbox(seat.number()).worker.store(worker, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let arrived = self.posts[worker].arrivals.push(seat);
        assert!(arrived.is_ok(), "a worker has a place for every shard");
        self.posts[worker].wake.notify();
    }

    /// Leaves a frame for another worker's shard, which is still to be rung for. Where there is no room it is lost, as
    /// on any network, and counted.
    pub(super) fn hand_over(&self, shard: u8, frame: Box<[u8]>) {
        let mailbox = self.mailbox(shard);
        if mailbox.frames.push(frame).is_err() {
            mailbox.frames_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Called by a worker for each push that it has taken out.
    pub(super) fn taken_out(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Longest push, in bytes.
    pub(super) fn push_bytes_max(&self) -> usize {
        self.bounds.push_bytes_max
    }

    /// A ticket that no push had before.
    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// See [`super::Pusher::push`].
    pub(super) fn push(&self, flow: FlowId, bytes: &[u8], asked: Asked) -> Result<Ticket, PushError> {
        if bytes.len() > self.bounds.push_bytes_max {
            return Err(PushError::TooLarge);
        }
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting_bytes + bytes.len() > self.bounds.waiting_bytes_max {
            self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            return Err(PushError::ShardFull);
        }
        let ticket = self.next_ticket();
        let requested = self.request(flow.shard(), Request::Push { flow, ticket, bytes: bytes.into(), asked });
        if requested.is_err() {
            self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        requested.map(|()| ticket)
    }

    /// Leaves a request for a shard.
    pub(super) fn request(&self, shard: u8, request: Request) -> Result<(), PushError> {
        self.leave(shard, &self.mailbox(shard).requests, request)
    }

    /// Leaves an ask for a shard; the error is [`PushError::ShardFull`] or [`PushError::Gone`], and the ask's reply is
    /// dropped with it.
    pub(super) fn ask(&self, shard: u8, ask: Ask) -> Result<(), PushError> {
        self.leave(shard, &self.mailbox(shard).asks, ask)
    }

    fn leave<T>(&self, shard: u8, queue: &ArrayQueue<T>, what: T) -> Result<(), PushError> {
        if self.has_stopped() {
            return Err(PushError::Gone);
        }
        queue.push(what).map_err(|_| PushError::ShardFull)?;
        self.ring(shard);
        self.drop_if_stopped();
        Ok(())
    }

    /// Asks a worker for its figures; the errors are those of an ask.
    pub(super) fn ask_figures(&self, worker: usize, reply: Reply<WorkerFigures>) -> Result<(), PushError> {
        if self.has_stopped() {
            return Err(PushError::Gone);
        }
        self.posts[worker].figures_asked.push(reply).map_err(|_| PushError::ShardFull)?;
        self.posts[worker].wake.notify();
        self.drop_if_stopped();
        Ok(())
    }

    /// A shard has drained, and that is to end the server: the last one stops it.
    pub(super) fn note_drained(&self) {
        if self.undrained.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.stop();
        }
    }

    /// Whether the workers end or have ended.
    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::SeqCst)
    }

    /// All workers are to end, and take nothing any more.
    pub(super) fn stop(&self) {
        self.has_stopped.store(true, Ordering::SeqCst);
        self.drop_if_stopped();
        self.posts.iter().for_each(|post| post.wake.notify());
    }

    /// What no worker will take out is dropped, with the replies in it. Both sides look after they have written, so one
    /// of them sees what came in between.
    fn drop_if_stopped(&self) {
        fence(Ordering::SeqCst);
        if self.has_stopped() {
            for mailbox in &self.mailboxes {
                while mailbox.asks.pop().is_some() {}
                while mailbox.requests.pop().is_some() {}
            }
            for post in &self.posts {
                while post.figures_asked.pop().is_some() {}
            }
        }
    }
}

/// A pusher's tickets: the top bit, 15 bits of the start number, 48 bits that count. A service's tickets have the top
/// bit clear, so the two never meet.
fn first_ticket(start_number: u64) -> u64 {
    1 << 63 | (start_number & 0x7fff) << 48
}

/// Asks of the control side that wait for one shard, or one worker, at the same time, and how many of the server's own
/// find room beside them.
pub(super) const ASKS_MAX: usize = 256;
const ASKS_SPARE: usize = 64;

/// Frames that other workers have received and that wait for one shard, at most.
pub const HANDED_OVER_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::pusher::Pusher;
    use super::*;
    use crate::shard::CloseHow;

    fn shared(requests_max: usize, waiting_bytes_max: usize) -> Arc<Shared> {
        let wakes = vec![Wake::new().expect("an eventfd")];
        let bounds = Bounds { requests_max, waiting_bytes_max, push_bytes_max: 1_000 };
        Arc::new(Shared::new(wakes, 1, bounds, 3))
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
        assert!(matches!(shared.mailbox(0).requests.pop(), Some(Request::Push { .. })), "order is kept");
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
        shared.stop();
        assert_eq!(Pusher::new(shared).push(FlowId::new(0, 1, 2), b"a"), Err(PushError::Gone));
    }

    #[test]
    fn frames_beyond_the_room_are_lost_and_counted() {
        let wakes = vec![Wake::new().expect("an eventfd"), Wake::new().expect("an eventfd")];
        let bounds = Bounds { requests_max: 1, waiting_bytes_max: 1, push_bytes_max: 1 };
        let shared = Shared::new(wakes, 4, bounds, 3);
        let workers: Vec<usize> = (0..4).map(|shard| shared.worker_of(shard)).collect();
        assert_eq!(workers, [0, 1, 0, 1]);
        (0..HANDED_OVER_MAX + 3).for_each(|number| shared.hand_over(2, vec![number as u8; 60].into()));
        let mailbox = shared.mailbox(2);
        assert_eq!((mailbox.frames.len(), mailbox.frames_refused.load(Ordering::Relaxed)), (HANDED_OVER_MAX, 3));
        assert!(shared.mailbox(1).is_empty());
    }
}
