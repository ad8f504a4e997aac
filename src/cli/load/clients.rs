//! The clients: what each sends, what it expects back, and what became of it.
//!
//! A client is a connection of the shard and twelve bytes here. What it sends in a round follows from its slot and the
//! number of the round, and when it was due to send it too, so neither is kept; how much of it has come back stands in
//! the connection's word.
//!
//! Invariant: a client has one message under way at most. One whose last message is not back when the next is due is
//! counted, and waits for the round after.

use std::time::Duration;

use holdline::server::Histogram;
use holdline::shard::{CloseHow, CloseReason, Context, FlowId, Service, Time};

/// No message is under way.
const AT_REST: u32 = u32::MAX;

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

    /// Appends the message of a round.
    pub fn write(&self, round: u32, slot: u32, out: &mut Vec<u8>) {
        let end = out.len() + self.bytes;
        let mut state = (u64::from(round) << 32 | u64::from(slot)).wrapping_add(1);
        while out.len() < end {
            // A step of SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let left = end - out.len();
            out.extend_from_slice(&(mixed ^ mixed >> 31).to_le_bytes()[..left.min(8)]);
        }
    }
}

/// One client: its connection, if it has one, and the round whose message is under way.
#[derive(Clone, Copy)]
struct Client {
    flow: Option<FlowId>,
    round: u32,
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
    clients: Vec<Client>,
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
            clients: vec![Client { flow: None, round: AT_REST }; schedule.clients as usize],
            schedule,
            tally: Tally::default(),
            now: Time(0),
            is_closing: false,
            expected: Vec::new(),
        }
    }

    /// The connection of a client.
    pub fn flow(&self, slot: u32) -> Option<FlowId> {
        self.clients[slot as usize].flow
    }

    /// The client in a slot is to send its message of a round. Returns for which connection, if it may.
    pub fn begin(&mut self, round: u32, slot: u32) -> Option<FlowId> {
        let client = &mut self.clients[slot as usize];
        let flow = client.flow?;
        if client.round != AT_REST {
            self.tally.skipped += 1;
            return None;
        }
        client.round = round;
        self.tally.sent += 1;
        Some(flow)
    }

    /// There was no room for it.
    pub fn take_back(&mut self, slot: u32) {
        self.clients[slot as usize].round = AT_REST;
        self.tally.sent -= 1;
        self.tally.skipped += 1;
    }

    /// How many messages are under way.
    pub fn under_way(&self) -> u64 {
        self.tally.sent - self.tally.echoed - self.tally.lost
    }

    fn take(&mut self, slot: u32, before: usize, bytes: &[u8]) -> usize {
        let client = self.clients[slot as usize];
        if client.round == AT_REST || self.schedule.bytes == 0 {
            // A server that speaks by itself is not wrong where nothing is expected.
            self.tally.wrong_bytes += if self.schedule.bytes == 0 { 0 } else { bytes.len() as u64 };
            return before;
        }
        self.expected.clear();
        self.schedule.write(client.round, slot, &mut self.expected);
        let expected = &self.expected[before.min(self.schedule.bytes)..];
        let wrong = bytes.iter().zip(expected).filter(|(came, sent)| came != sent).count();
        self.tally.wrong_bytes += (wrong + bytes.len().saturating_sub(expected.len())) as u64;
        if before + bytes.len() < self.schedule.bytes {
            return before + bytes.len();
        }
        let due = self.schedule.due(client.round, slot);
        self.tally.waits.record(Duration::from_micros(self.now.0.saturating_sub(due.0)));
        self.tally.echoed += 1;
        self.clients[slot as usize].round = AT_REST;
        0
    }
}

impl Service for Clients {
    fn opened(&mut self, _context: &mut Context<'_>, flow: FlowId) {
        self.clients[flow.slot() as usize] = Client { flow: Some(flow), round: AT_REST };
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
        let client = &mut self.clients[flow.slot() as usize];
        self.tally.lost += u64::from(client.round != AT_REST);
        client.round = AT_REST;
        let was_open = client.flow.take().is_some();
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
            clients.clients[slot as usize].flow = Some(FlowId::new(0, 0, slot));
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
        clients.schedule.write(7, 2, &mut message);
        assert_eq!(message.len(), 11);
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
