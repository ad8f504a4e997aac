//! The clients: what each sends, what it expects back, and what became of it.
//!
//! A client is a connection of the shard and twelve bytes here. What it sends in a round follows from its slot and the
//! number of the round, and when it was due to send it too, so neither is kept; how much of it has come back stands in
//! the connection's word.
//!
//! Invariant: a client has one message under way at most. One whose last message is not back when the next is due is
//! counted, and waits for the round after.

use std::ops::Range;
use std::time::Duration;

use holdline::server::Histogram;
use holdline::service::{Context, Service};
use holdline::shard::{CloseHow, CloseReason, FlowId, Time};

/// In place of a round: no message is under way.
const AT_REST: u32 = u32::MAX;
/// And there is no connection.
const GONE: u32 = u32::MAX - 1;
/// A message is made of words of so many bytes.
const WORD_BYTES: usize = 8;

/// When clients send, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first client sends first.
    pub begun: Time,
    /// From one message of a client to its next.
    pub every: Duration,
    /// How many clients take turns.
    pub clients: u32,
    /// Length of a message; 0 for none.
    pub bytes: usize,
}

impl Schedule {
    /// When the client in a slot sends its message of a round.
    pub fn due(&self, round: u32, slot: u32) -> Time {
        let every_us = self.every.as_micros() as u64;
        let turn_us = every_us * u64::from(slot) / u64::from(self.clients.max(1));
        Time(self.begun.0 + u64::from(round) * every_us + turn_us)
    }

    /// Appends a part of the message of a round.
    pub fn write(&self, round: u32, slot: u32, part: Range<usize>, out: &mut Vec<u8>) {
        let seed = u64::from(round) << 32 | u64::from(slot);
        for word in part.start / WORD_BYTES..part.end.div_ceil(WORD_BYTES) {
            // SplitMix64, the word-th number of it.
            let state = seed.wrapping_add((word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let start = word * WORD_BYTES;
            let inside = part.start.saturating_sub(start)..(part.end - start).min(WORD_BYTES);
            out.extend_from_slice(&(mixed ^ mixed >> 31).to_le_bytes()[inside]);
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Connections that were opened.
    pub opened: u32,
    /// Connections that were not, with the reason.
    pub failed: Vec<(CloseReason, u32)>,
    /// Connections that ended before they were told to, with the reason.
    pub ended: Vec<(CloseReason, u32)>,
    /// Connections that both ends have closed.
    pub closed: u32,
    /// Messages sent.
    pub sent: u64,
    /// Messages that came back whole.
    pub echoed: u64,
    /// Bytes that came back and were not those that were sent, or that nobody had sent.
    pub wrong_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Messages that were not sent, as the one before was not back.
    pub skipped: u64,
    /// Messages that were under way when their connection ended.
    pub lost: u64,
    /// From when a message was due until it was back.
    pub waits: Histogram,
}

/// See the module.
pub struct Clients {
    /// The connection of each client, for as long as there is one.
    flows: Vec<FlowId>,
    /// The round whose message is under way, or why there is none.
    rounds: Vec<u32>,
    pub schedule: Schedule,
    pub tally: Tally,
    /// The time of the call that the shard is in.
    pub now: Time,
    pub is_closing: bool,
    expected: Vec<u8>,
}

impl Clients {
    /// So many, none of them connected.
    pub fn new(schedule: Schedule) -> Clients {
        Clients {
            flows: vec![FlowId::new(0, 0, 0); schedule.clients as usize],
            rounds: vec![GONE; schedule.clients as usize],
            schedule,
            tally: Tally::default(),
            now: Time(0),
            is_closing: false,
            expected: Vec::new(),
        }
    }

    /// The connection of a client.
    pub fn flow(&self, slot: u32) -> Option<FlowId> {
        (self.rounds[slot as usize] != GONE).then(|| self.flows[slot as usize])
    }

    /// The client in a slot is to send its message of a round. Returns for which connection, if it may.
    pub fn begin(&mut self, round: u32, slot: u32) -> Option<FlowId> {
        let flow = self.flow(slot)?;
        if self.rounds[slot as usize] != AT_REST {
            self.tally.skipped += 1;
            return None;
        }
        self.rounds[slot as usize] = round;
        self.tally.sent += 1;
        Some(flow)
    }

    /// There was no room for it.
    pub fn take_back(&mut self, slot: u32) {
        self.rounds[slot as usize] = AT_REST;
        self.tally.sent -= 1;
        self.tally.skipped += 1;
    }

    /// How many messages are under way.
    pub fn under_way(&self) -> u64 {
        self.tally.sent - self.tally.echoed - self.tally.lost
    }

    /// Bytes have come, `before` of the message had come before. Returns how many of it have by now.
    fn take(&mut self, slot: u32, before: usize, bytes: &[u8]) -> usize {
        let round = self.rounds[slot as usize];
        if round >= GONE {
            // A server that speaks by itself is not wrong where nothing is expected.
            self.tally.wrong_bytes += if self.schedule.bytes == 0 { 0 } else { bytes.len() as u64 };
            return before;
        }
        let after = before + bytes.len();
        self.expected.clear();
        self.schedule.write(round, slot, before..after.min(self.schedule.bytes), &mut self.expected);
        let wrong = bytes.iter().zip(&self.expected).filter(|(came, sent)| came != sent).count();
        self.tally.wrong_bytes += (wrong + bytes.len() - self.expected.len()) as u64;
        if after < self.schedule.bytes {
            return after;
        }
        let due = self.schedule.due(round, slot);
        self.tally.waits.record(Duration::from_micros(self.now.0.saturating_sub(due.0)));
        self.tally.echoed += 1;
        self.rounds[slot as usize] = AT_REST;
        0
    }
}

impl Service for Clients {
    fn opened(&mut self, _context: &mut Context<'_>, flow: FlowId) {
        self.flows[flow.slot() as usize] = flow;
        self.rounds[flow.slot() as usize] = AT_REST;
        self.tally.opened += 1;
    }

    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        self.tally.received_bytes += bytes.len() as u64;
        let before = context.word(flow).unwrap_or(0);
        let after = self.take(flow.slot(), before as usize, bytes) as u64;
        if after != before {
            context.set_word(flow, after);
        }
        bytes.len()
    }

    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        if self.is_closing {
            self.tally.closed += 1;
        } else {
            // One that is gone is closed.
            let _ = context.close(flow, CloseHow::Fin);
        }
    }

    fn closed(&mut self, _context: &mut Context<'_>, flow: FlowId, reason: CloseReason) {
        let round = std::mem::replace(&mut self.rounds[flow.slot() as usize], GONE);
        self.tally.lost += u64::from(round < GONE);
        let was_open = round != GONE;
        if self.is_closing && was_open {
            return;
        }
        let reasons = if was_open { &mut self.tally.ended } else { &mut self.tally.failed };
        match reasons.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(bytes: usize) -> Clients {
        let every = Duration::from_secs(1);
        let mut clients = Clients::new(Schedule { begun: Time(500), every, clients: 4, bytes });
        for slot in 0..4 {
            clients.flows[slot as usize] = FlowId::new(0, 0, slot);
            clients.rounds[slot as usize] = AT_REST;
        }
        clients
    }

    #[test]
    fn turns_are_spread_over_the_interval() {
        let schedule = clients(8).schedule;
        assert_eq!(
            [schedule.due(0, 0), schedule.due(0, 3), schedule.due(2, 0)],
            [Time(500), Time(750_500), Time(2_000_500)]
        );
    }

    #[test]
    fn an_echo_in_pieces_is_counted_once_and_a_wrong_byte_is_seen() {
        let mut clients = clients(11);
        let mut message = Vec::new();
        clients.schedule.write(7, 2, 0..11, &mut message);
        for part in [0..0, 0..1, 3..9, 7..8, 8..11, 10..11] {
            let mut again = Vec::new();
            clients.schedule.write(7, 2, part.clone(), &mut again);
            assert_eq!(again, message[part]);
        }
        assert!(clients.begin(7, 2).is_some() && clients.begin(8, 2).is_none());
        assert_eq!((clients.tally.sent, clients.tally.skipped), (1, 1));
        let got = clients.take(2, 0, &message[..4]);
        assert_eq!((got, clients.tally.echoed), (4, 0));
        message[10] ^= 1;
        assert_eq!(clients.take(2, got, &message[4..]), 0);
        assert_eq!((clients.tally.echoed, clients.tally.wrong_bytes, clients.under_way()), (1, 1, 0));
        clients.take(2, 0, b"unasked");
        assert_eq!(clients.tally.wrong_bytes, 8);
    }
}
