//! Heal: nothing is lost any more, and what was must get through.
//!
//! Each peer that is there becomes an honest receiver that has nothing of what is in flight: it acknowledges what it
//! hears from now on, with SACK blocks where both ends have agreed on them. What it said before that it had, it has
//! thrown away (RFC 2018 §8). And it sends what it has sent once more, from the first gap on.

use holdline::shard::FlowId;

use super::application::Behaviour;
use super::frame::Segment;
use super::operation::PEERS;
use super::peers::ends_of_peer;
use super::wire::is_after;
use super::world::World;

/// Whether everything becomes well before the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Healing {
    None,
    First,
}

/// A range that a peer has heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    wire: usize,
    start: u32,
    end: u32,
}

const ROUNDS_MAX: u32 = 200;
const ROUND_MS: u64 = 4_000;
/// A connection that has something to send gets on in so many rounds, be it by a probe that only shows what is lost:
/// longer than two of the longest time-outs, as the first may repeat what the peer has, and shorter than the user
/// timeout that would end it.
const STUCK_ROUNDS_MAX: u32 = 35;
/// What a peer sends again arrives at once, unless there is no room until others have got theirs.
const DEAF_ROUNDS_MAX: u32 = 30;
const PIECE_BYTES: u32 = 1_000;
/// More than that is not sent again.
const MISSING_BYTES_MAX: u32 = 50_000;
/// Beside timestamps.
const BLOCKS_MAX: usize = 3;

impl World {
    /// Demands that whatever was lost is found, and everything that is queued gets to peers that take it.
    pub fn heal(&mut self) {
        self.shard().service_mut().behaviour = Behaviour::Hold;
        self.heard = Some(Vec::new());
        self.resume_all();
        let mut unacked = [(0, 0); PEERS];
        let mut stuck_rounds = [0; PEERS];
        let mut missing = [0; PEERS];
        let mut deaf_rounds = [0; PEERS];
        for _ in 0..ROUNDS_MAX {
            let mut is_done = true;
            for peer in 0..PEERS as u8 {
                let at = usize::from(peer);
                let (bytes, heard) = (self.unacked_bytes(peer), self.heard_count(peer));
                is_done &= bytes == 0;
                let is_stuck = bytes > 0 && bytes >= unacked[at].0 && heard == unacked[at].1;
                stuck_rounds[at] = if is_stuck { stuck_rounds[at] + 1 } else { 0 };
                unacked[at] = (bytes, heard);
                if stuck_rounds[at] > STUCK_ROUNDS_MAX {
                    self.fail(&format!("{bytes} bytes for peer {peer} do not get on"));
                }
                let gap = self.missing_bytes(peer);
                deaf_rounds[at] = if gap == 0 || gap != missing[at] { 0 } else { deaf_rounds[at] + 1 };
                missing[at] = gap;
                if deaf_rounds[at] > DEAF_ROUNDS_MAX {
                    self.fail(&format!("{gap} bytes of peer {peer} do not get on"));
                }
                is_done &= gap == 0;
                if bytes > 0 || gap > 0 {
                    self.appear(peer);
                    self.say_heard(peer, gap.min(PIECE_BYTES));
                }
            }
            if is_done {
                return;
            }
            self.wait(self.now.plus_ms(ROUND_MS));
        }
    }

    /// How much is queued for a peer that is there and knows what was said.
    fn unacked_bytes(&mut self, peer: u8) -> u32 {
        let wire = self.wire_of(&ends_of_peer(peer));
        let is_blurred = self.wires[wire].is_blurred;
        let id = self.book_of(wire).filter(|book| !book.is_blurred && !is_blurred).map(|book| book.id);
        let now = self.now;
        id.and_then(|id| self.shard().flow(now, id)).map_or(0, |view| view.unacked_bytes)
    }

    /// What the peer has sent, at some time, and was not told to have arrived.
    fn missing_bytes(&mut self, peer: u8) -> u32 {
        let wire = self.wire_of(&ends_of_peer(peer));
        let is_blurred = self.wires[wire].is_blurred;
        // Behind its FIN there is nothing.
        let is_open = self.book_of(wire).is_some_and(|book| !book.is_blurred && !book.is_peer_closed);
        let missing = self.wires[wire].talk.map_or(0, |talk| talk.peer_nxt.wrapping_sub(talk.rcv_nxt));
        if is_open && !is_blurred && missing <= MISSING_BYTES_MAX { missing } else { 0 }
    }

    /// Every connection reads.
    fn resume_all(&mut self) {
        let ids: Vec<FlowId> = self.books.iter().map(|book| book.id).collect();
        for id in ids {
            if let Some(book) = self.books.iter_mut().find(|book| book.id == id) {
                book.is_paused = false;
            }
            self.perform(|shard, now| shard.resume(now, id));
        }
    }

    /// How many segments the peer has heard that told it something.
    fn heard_count(&mut self, peer: u8) -> usize {
        let wire = self.wire_of(&ends_of_peer(peer));
        self.heard.iter().flatten().filter(|heard| heard.wire == wire).count()
    }

    /// A segment has come out.
    pub fn hear(&mut self, wire: usize, segment: &Segment<'_>) {
        let Some(heard) = &mut self.heard else { return };
        let (start, end) = (segment.seq, segment.end());
        let has_it = |it: &Heard| it.wire == wire && !is_after(it.start, start) && !is_after(end, it.end);
        if !heard.iter().any(has_it) {
            heard.push(Heard { wire, start, end });
        }
    }

    /// The peer acknowledges what it has heard, and sends so much from the first gap on.
    fn say_heard(&mut self, peer: u8, bytes: u32) {
        let wire = self.wire_of(&ends_of_peer(peer));
        let Some(talk) = self.wires[wire].talk else { return };
        let mut ack = talk.snd_una;
        let heard = self.heard.iter().flatten().filter(|heard| heard.wire == wire && is_after(heard.end, heard.start));
        let next = |ack: u32| {
            heard.clone().find(|heard| !is_after(heard.start, ack) && is_after(heard.end, ack)).map(|heard| heard.end)
        };
        while let Some(end) = next(ack) {
            ack = end;
        }
        let beyond = heard.clone().rev().filter(|heard| talk.has_sack && is_after(heard.start, ack));
        let blocks: Vec<(u32, u32)> = beyond.map(|heard| (heard.start, heard.end)).take(BLOCKS_MAX).collect();
        self.say_blocks(peer, ack, &blocks, (bytes as u16, u16::MAX));
    }
}
