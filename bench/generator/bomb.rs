//! A peer that makes as much of selective acknowledgments as it can.
//!
//! Its segments are as small as it may ask for, many are in flight, and every second of them is acknowledged, four at a
//! time and never in order.

use std::time::Instant;

use super::{BATCH, Bench, FIRST_SEQ};
use holdline::shard::{Notice, Push, Service, Ticket};
use holdline::tcp::{Control, Outgoing, SackBlocks, SeqNum};
use holdline::wire::emit_tcp;

const MSS: u16 = 64;
const BLOCKS: usize = 4;
/// Segments in flight when the attack begins.
const SEGMENTS_MIN: u32 = 1_500;
const ROUND_TRIP_MS: u64 = 20;
const ROUNDS_MAX: usize = 2_000;
const PUSH: [u8; 4_096] = [0x5a; 4_096];

/// What such a peer has in flight.
pub struct Bomb {
    una: SeqNum,
    pub segments: u32,
}

impl<S: Service> Bench<S> {
    /// Opens the last connection anew for it, and has it acknowledge honestly until enough is in flight.
    pub fn begin_bomb(&mut self) -> Bomb {
        let index = self.clients.len() - 1;
        self.queue(index, Control::RST, &[]);
        self.exchange();
        self.shard.drain_notices(|_| ());
        self.clients[index].seq = SeqNum(FIRST_SEQ);
        let syn = Outgoing {
            mss: Some(MSS),
            window_shift: Some(7),
            sack_permitted: true,
            ..Outgoing::bare(SeqNum(FIRST_SEQ), SeqNum(0), Control::SYN, u16::MAX)
        };
        self.queue_segment(index, &syn);
        self.exchange();
        self.clients[index].ack = self.read_sent()[0].1;
        self.clients[index].seq = SeqNum(FIRST_SEQ + 1);
        self.queue(index, Control::ACK, &[]);
        self.exchange();
        let client = &mut self.clients[index];
        self.shard.drain_notices(|notice| {
            if let Notice::Opened { flow, .. } = notice {
                client.flow = flow;
            }
        });
        let mut end = self.clients[index].ack;
        for _ in 0..ROUNDS_MAX {
            // The queue never runs empty: a connection that falls quiet begins anew.
            let pushes = [Push::new(self.clients[index].flow, Ticket(1), &PUSH); BATCH];
            self.shard.push(self.now, &pushes);
            self.finish(Instant::now());
            end = self.end_of_sent(end);
            let una = self.clients[index].ack;
            let segments = end.since(una) / u32::from(MSS);
            if segments >= SEGMENTS_MIN {
                return Bomb { una, segments };
            }
            self.now = self.now.plus_ms(ROUND_TRIP_MS);
            self.clients[index].ack = end;
            self.queue(index, Control::ACK, &[]);
            self.exchange();
            end = self.end_of_sent(end);
        }
        panic!("a peer that acknowledges everything is sent more and more");
    }

    /// The next batch of the attack. Returns the nanoseconds that it took.
    pub fn throw_bomb(&mut self, bomb: &Bomb, batch: u32) -> f64 {
        self.timed_ns = 0;
        let index = self.clients.len() - 1;
        for at in batch * BATCH as u32..(batch + 1) * BATCH as u32 {
            let mut sack = SackBlocks::default();
            for block in 0..BLOCKS as u32 {
                // A step that is odd and shares nothing with half of what is in flight visits all of that.
                let second = (at * BLOCKS as u32 + block).wrapping_mul(613) % (bomb.segments / 2);
                let start = bomb.una.plus((second * 2 + 1) * u32::from(MSS));
                sack.push(start, start.plus(MSS.into()), BLOCKS);
            }
            let ack = Outgoing::bare(self.clients[index].seq, bomb.una, Control::ACK, u16::MAX);
            self.queue_segment(index, &Outgoing { sack, ..ack });
        }
        self.exchange();
        self.shard.drain_notices(|_| ());
        self.timed_ns as f64
    }

    /// One past the last byte of what was sent to the last connection, or `end` where nothing was.
    fn end_of_sent(&mut self, end: SeqNum) -> SeqNum {
        self.shard.drain_notices(|_| ());
        self.read_sent().last().map_or(end, |&(_, end, _)| end)
    }

    fn queue_segment(&mut self, index: usize, outgoing: &Outgoing) {
        let ends = self.ends(index);
        emit_tcp(&mut self.bytes, &ends, outgoing, |_| ());
        self.ends.push(self.bytes.len());
    }
}
