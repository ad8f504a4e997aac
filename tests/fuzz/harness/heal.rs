//! Heal: nothing is lost any more, and what was must get through.
//!
//! Each peer that is there becomes an honest receiver that has nothing of what is in flight: it acknowledges what it
//! hears from now on, with SACK blocks where both ends have agreed on them. What it said before that it had, it has
//! thrown away (RFC 2018 §8).

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
/// A connection that has something to send gets on in so many rounds: longer than the longest time-out between two
/// sendings, shorter than the user timeout that would end it.
const STUCK_ROUNDS_MAX: u32 = 20;
/// Beside timestamps.
const BLOCKS_MAX: usize = 3;

impl World {
    /// Demands that whatever was lost is found, and everything that is queued gets to peers that take it.
    pub fn heal(&mut self) {
        self.shard().service_mut().behaviour = Behaviour::Hold;
        self.heard = Some(Vec::new());
        let mut unacked = [0; PEERS];
        let mut stuck_rounds = [0; PEERS];
        for _ in 0..ROUNDS_MAX {
            let mut is_done = true;
            for peer in 0..PEERS as u8 {
                let at = usize::from(peer);
                let bytes = self.unacked_bytes(peer);
                is_done &= bytes == 0;
                stuck_rounds[at] = if bytes == 0 || bytes < unacked[at] { 0 } else { stuck_rounds[at] + 1 };
                unacked[at] = bytes;
                if stuck_rounds[at] > STUCK_ROUNDS_MAX {
                    self.fail(&format!("{bytes} bytes for peer {peer} do not get on"));
                }
                if bytes > 0 {
                    self.appear(peer);
                    self.say_heard(peer);
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

    /// A segment has come out.
    pub fn hear(&mut self, wire: usize, segment: &Segment<'_>) {
        if let Some(heard) = &mut self.heard {
            heard.push(Heard { wire, start: segment.seq, end: segment.end() });
        }
    }

    /// The peer acknowledges what it has heard.
    fn say_heard(&mut self, peer: u8) {
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
        self.acknowledge_blocks(peer, ack, &blocks, u16::MAX);
    }
}
