//! Receipts: who waits for the end of which push, and how long deliveries take.
//!
//! Comes in: tickets that are queued, delivered, expired or lost with their connection. Goes out: the outcome to
//! whoever waits for it, also to one who repeats a push by its idempotency key and comes after the end.
//!
//! Invariant: bounded, and plain look-ups. What nobody waits for any more is swept out when the table is full.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::shard::{FlowId, Ticket, Time};

use super::ask::{Outcome, Reply};
use super::histogram::Histogram;

/// Who waits, and the outcomes of pushes that had a key.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    waiting: HashMap<Ticket, Vec<Reply<Outcome>>>,
    keyed: HashMap<Ticket, Option<Outcome>>,
    keyed_order: VecDeque<Ticket>,
    unsettled: Vec<(FlowId, Ticket, Reply<Outcome>)>,
}

impl Receipts {
    /// Answers when the push ends. Where there is no room the reply is dropped, which its receiver sees.
    pub(super) fn wait(&mut self, ticket: Ticket, reply: Reply<Outcome>) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|_, replies| {
                replies.retain(Reply::is_wanted);
                !replies.is_empty()
            });
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.entry(ticket).or_default().push(reply);
        }
    }

    /// The same for a push that was queued some time ago, maybe by another process.
    pub(super) fn wait_for_repeat(&mut self, flow: FlowId, ticket: Ticket, reply: Reply<Outcome>) {
        match self.keyed.get(&ticket) {
            Some(Some(outcome)) => reply.send(*outcome),
            Some(None) => self.wait(ticket, reply),
            None => self.unsettled.push((flow, ticket, reply)),
        }
    }

    /// A push with a key is queued; its outcome is to be remembered.
    pub(super) fn remember(&mut self, ticket: Ticket) {
        if self.keyed_order.len() >= KEYED_MAX
            && let Some(oldest) = self.keyed_order.pop_front()
        {
            self.keyed.remove(&oldest);
        }
        self.keyed.insert(ticket, None);
        self.keyed_order.push_back(ticket);
    }

    /// A push ended.
    pub(super) fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        if !self.keyed.is_empty()
            && let Some(remembered) = self.keyed.get_mut(&ticket)
        {
            *remembered = Some(outcome);
        }
        if self.waiting.is_empty() {
            return;
        }
        for reply in self.waiting.remove(&ticket).into_iter().flatten() {
            reply.send(outcome);
        }
    }

    /// Answers repeats whose push nobody here has seen, by what their connection says: `unacked_bytes` is `None` for
    /// one that is gone, and where nothing is unacknowledged, everything was delivered.
    pub(super) fn settle(&mut self, unacked_bytes: impl Fn(FlowId) -> Option<u32>) {
        for (flow, ticket, reply) in std::mem::take(&mut self.unsettled) {
            match unacked_bytes(flow) {
                None => reply.send(Outcome::Forgotten),
                Some(0) => reply.send(Outcome::Delivered),
                Some(_) => self.wait(ticket, reply),
            }
        }
    }
}

/// How long deliveries take, measured on some of the pushes that are under way: a place for each of the last few
/// thousand tickets, which one that waits for long keeps for a minute.
#[derive(Debug)]
pub(super) struct Stopwatch {
    started: Vec<(Ticket, Time)>,
    deliveries: Histogram,
}

impl Default for Stopwatch {
    fn default() -> Stopwatch {
        Stopwatch { started: vec![(Ticket::NONE, Time(0)); PLACES], deliveries: Histogram::default() }
    }
}

impl Stopwatch {
    /// A push is queued.
    pub(super) fn start(&mut self, ticket: Ticket, now: Time) {
        let place = &mut self.started[place_of(ticket)];
        if place.0 == Ticket::NONE || now.0.saturating_sub(place.1.0) > KEPT_US {
            *place = (ticket, now);
        }
    }

    /// A push is delivered.
    pub(super) fn stop(&mut self, ticket: Ticket, now: Time) {
        let place = &mut self.started[place_of(ticket)];
        if place.0 == ticket && ticket != Ticket::NONE {
            self.deliveries.record(Duration::from_micros(now.0.saturating_sub(place.1.0)));
            place.0 = Ticket::NONE;
        }
    }

    /// What was measured.
    pub(super) fn figures(&self) -> &Histogram {
        &self.deliveries
    }
}

fn place_of(ticket: Ticket) -> usize {
    ticket.0 as usize % PLACES
}

/// Pushes whose end somebody waits for.
const WAITING_MAX: usize = 4_096;

/// Pushes with a key whose outcome is remembered: as many as there are keys.
const KEYED_MAX: usize = 65_536;

/// Pushes that are measured at the same time.
const PLACES: usize = 4_096;

/// How long a push keeps its place, in microseconds.
const KEPT_US: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> FlowId {
        FlowId::new(0, 1, 2)
    }

    #[test]
    fn everybody_who_waits_is_told_once() {
        let mut receipts = Receipts::default();
        let (first, mut told_first) = Reply::new();
        let (second, mut told_second) = Reply::new();
        receipts.wait(Ticket(1), first);
        receipts.wait(Ticket(1), second);
        receipts.end(Ticket(2), Outcome::Delivered);
        assert!(told_first.try_recv().is_err());
        receipts.end(Ticket(1), Outcome::Undelivered { acked_bytes: 3 });
        for told in [&mut told_first, &mut told_second] {
            assert_eq!(told.try_recv(), Ok(Outcome::Undelivered { acked_bytes: 3 }));
        }
    }

    #[test]
    fn a_repeat_is_told_of_an_end_that_is_over() {
        let mut receipts = Receipts::default();
        receipts.remember(Ticket(1));
        let (early, mut told_early) = Reply::new();
        receipts.wait_for_repeat(flow(), Ticket(1), early);
        receipts.end(Ticket(1), Outcome::Expired);
        let (late, mut told_late) = Reply::new();
        receipts.wait_for_repeat(flow(), Ticket(1), late);
        assert_eq!((told_early.try_recv(), told_late.try_recv()), (Ok(Outcome::Expired), Ok(Outcome::Expired)));
    }

    #[test]
    fn a_repeat_of_another_process_is_settled_by_its_connection() {
        for (unacked, expected) in
            [(None, Some(Outcome::Forgotten)), (Some(0), Some(Outcome::Delivered)), (Some(4), None)]
        {
            let mut receipts = Receipts::default();
            let (reply, mut told) = Reply::new();
            receipts.wait_for_repeat(flow(), Ticket(1), reply);
            receipts.settle(|_| unacked);
            assert_eq!(told.try_recv().ok(), expected);
            receipts.end(Ticket(1), Outcome::Delivered);
            assert!(expected.is_some() || told.try_recv() == Ok(Outcome::Delivered));
        }
    }

    #[test]
    fn those_who_have_gone_make_room() {
        let mut receipts = Receipts::default();
        let mut kept = Vec::new();
        for ticket in 0..WAITING_MAX as u64 {
            let (reply, told) = Reply::new();
            receipts.wait(Ticket(ticket), reply);
            if ticket > 0 {
                kept.push(told);
            }
        }
        let (reply, mut told) = Reply::new();
        receipts.wait(Ticket(1 << 40), reply);
        receipts.end(Ticket(1 << 40), Outcome::Delivered);
        assert_eq!(told.try_recv(), Ok(Outcome::Delivered), "the one whose receiver is gone made room");
        let (reply, _told) = Reply::new();
        receipts.wait(Ticket(1 << 41), reply);
        let (reply, mut told) = Reply::new();
        receipts.wait(Ticket(1 << 42), reply);
        assert!(matches!(told.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)), "no room");
    }

    #[test]
    fn outcomes_of_old_keys_are_forgotten() {
        let mut receipts = Receipts::default();
        (0..=KEYED_MAX as u64).for_each(|ticket| receipts.remember(Ticket(ticket)));
        assert_eq!((receipts.keyed.len(), receipts.keyed_order.len()), (KEYED_MAX, KEYED_MAX));
    }

    #[test]
    fn a_delivery_is_measured_from_its_push() {
        let mut stopwatch = Stopwatch::default();
        stopwatch.start(Ticket(5), Time(1_000));
        stopwatch.start(Ticket(5 + PLACES as u64), Time(2_000));
        stopwatch.stop(Ticket(5 + PLACES as u64), Time(3_000));
        assert_eq!(stopwatch.figures().count(), 0, "its place was taken");
        stopwatch.stop(Ticket(5), Time(4_000));
        stopwatch.stop(Ticket(5), Time(5_000));
        assert_eq!((stopwatch.figures().count(), stopwatch.figures().sum()), (1, Duration::from_millis(3)));
    }
}
