//! Fragments: kept until a packet is whole, within bounds (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! In: fragments for addresses of ours, whose form `wire` has checked. Out: whole packets, as the frames they would
//! have been, whose checksums are still to be verified. It is rebuilt state: what a death loses is sent again.
//!
//! ```text
//! 64 sets, which a keyed hash chooses, of 4 packets, of at most 64 fragments each; a mebibyte in all; 30 seconds
//! ```
//!
//! A set that is full gives up its oldest packet, and where the bytes are used up the packet at the hand, which goes
//! round the sets. As nobody knows which set is whose, a flood from however many addresses puts out others' packets at
//! random; some 250 packets of a flood must come between the fragments of an honest one, which follow each other at
//! once. The table has a fixed size and is given back when it is empty.
//!
//! Invariant: fragments that overlap, or that disagree on where the packet ends, refuse the packet and all that still
//! comes of it (RFC 5722 §4; the same for IPv4, RFC 1858 §5).

use super::batch::Batch;
use super::tables::Tables;
use crate::flows::FlowKey;
use crate::tcp::{Rule, Time};
use crate::wire::{self, Fragment, FragmentId};

const SETS: usize = 64;
const WAYS: usize = 4;
/// Fragments of one packet.
const PIECES_MAX: usize = 64;
/// Bytes of all fragments, and what each counts beside its own.
const BYTES_MAX: usize = 1 << 20;
const PIECE_COST_BYTES: usize = 64;
/// How long a packet may take to become whole (RFC 791 §3.2 has 15 s at least, RFC 8200 §4.5 has 60 s).
const LIFE_MS: u64 = 30_000;

/// Codepoints of the ECN field (RFC 3168 §5).
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

/// A packet that is not whole yet.
struct Parts {
    id: FragmentId,
    source_mac: [u8; 6],
    /// The ECN field that the packet has.
    ecn: u8,
    begun: Time,
    /// Where it ends, once the last fragment has told.
    end: Option<usize>,
    /// In order and without overlap; empty where it is refused.
    pieces: Vec<Piece>,
    is_refused: bool,
}

struct Piece {
    start: usize,
    bytes: Box<[u8]>,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Fragments {
    places: Vec<Option<Parts>>,
    /// What all pieces count.
    bytes: usize,
    hand: usize,
    /// Not later than when the next packet expires; `None` where there is none.
    next_expiry: Option<Time>,
}

/// What became of a fragment.
struct Outcome {
    rule: Rule,
    /// Packets that were given up for it.
    evicted: u32,
    /// The packet, if it is whole now.
    whole: Option<Parts>,
}

impl Fragments {
    /// When a packet expires next, or earlier.
    pub fn next_expiry(&self) -> Option<Time> {
        self.next_expiry
    }

    fn receive(&mut self, fragment: &Fragment<'_>, hash: u64, now: Time) -> Outcome {
        if self.places.is_empty() {
            self.places.resize_with(SETS * WAYS, || None);
        }
        let (place, mut evicted) = self.place_for(fragment, hash, now);
        let rule = self.add(place, fragment, &mut evicted);
        let is_whole = rule == Rule::FragmentCompletes;
        let whole = if is_whole { self.give_up(place) } else { None };
        Outcome { rule, evicted, whole }
    }

    /// The place of the packet that a fragment is of, and how many others were given up for it.
    fn place_for(&mut self, fragment: &Fragment<'_>, hash: u64, now: Time) -> (usize, u32) {
        let first = hash as usize % SETS * WAYS;
        let set = &self.places[first..first + WAYS];
        if let Some(way) = set.iter().position(|it| it.as_ref().is_some_and(|parts| parts.id == fragment.id)) {
            return (first + way, 0);
        }
        let oldest = (0..WAYS).min_by_key(|&way| set[way].as_ref().map(|parts| parts.begun));
        let place = first + oldest.unwrap_or(0);
        let evicted = u32::from(self.give_up(place).is_some());
        self.places[place] = Some(Parts {
            id: fragment.id,
            source_mac: fragment.source_mac,
            ecn: fragment.ecn,
            begun: now,
            end: None,
            pieces: Vec::new(),
            is_refused: false,
        });
        self.next_expiry = self.next_expiry.or(Some(now.plus_ms(LIFE_MS)));
        (place, evicted)
    }

    fn add(&mut self, place: usize, fragment: &Fragment<'_>, evicted: &mut u32) -> Rule {
        let Some(parts) = &mut self.places[place] else { return Rule::FragmentEvicted };
        let start = usize::from(fragment.offset);
        let at = parts.pieces.partition_point(|piece| piece.start < start);
        match parts.check(fragment, at) {
            Rule::FragmentHeld => {}
            rule @ Rule::FragmentRepeated => return rule,
            rule => {
                self.bytes -= cost_bytes(&parts.pieces);
                parts.pieces = Vec::new();
                parts.is_refused = true;
                return rule;
            }
        }
        parts.ecn = marks_together(parts.ecn, fragment.ecn).unwrap_or(NOT_ECT);
        if fragment.is_last {
            parts.end = Some(start + fragment.bytes.len());
        }
        parts.pieces.insert(at, Piece { start, bytes: fragment.bytes.into() });
        self.bytes += fragment.bytes.len() + PIECE_COST_BYTES;
        let held_bytes: usize = parts.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let is_whole = parts.end == Some(held_bytes);
        while self.bytes > BYTES_MAX {
            // One packet alone never has so many: the hand finds another before it is round.
            self.hand = (self.hand + 1) % self.places.len();
            if self.hand != place {
                *evicted += u32::from(self.give_up(self.hand).is_some());
            }
        }
        if is_whole { Rule::FragmentCompletes } else { Rule::FragmentHeld }
    }

    fn give_up(&mut self, place: usize) -> Option<Parts> {
        let parts = self.places[place].take()?;
        self.bytes -= cost_bytes(&parts.pieces);
        Some(parts)
    }

    /// Gives up what is too old. Returns how many packets that is.
    fn expire(&mut self, now: Time) -> u32 {
        let mut expired = 0;
        self.next_expiry = None;
        for place in 0..self.places.len() {
            let Some(ends) = self.places[place].as_ref().map(|parts| parts.begun.plus_ms(LIFE_MS)) else { continue };
            if ends <= now {
                expired += u32::from(self.give_up(place).is_some());
            } else {
                self.next_expiry = Some(self.next_expiry.map_or(ends, |next| next.min(ends)));
            }
        }
        if self.next_expiry.is_none() {
            self.places = Vec::new();
        }
        expired
    }
}

/// The ECN field of a packet whose fragments have these two: a mark on one is a mark on all, but on what is not for ECN
/// there can be none (RFC 3168 §5.3).
fn marks_together(one: u8, other: u8) -> Option<u8> {
    match (one, other) {
        (CE, NOT_ECT) | (NOT_ECT, CE) => None,
        (CE, _) | (_, CE) => Some(CE),
        (NOT_ECT, _) | (_, NOT_ECT) => Some(NOT_ECT),
        _ => Some(one),
    }
}

fn cost_bytes(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.bytes.len() + PIECE_COST_BYTES).sum()
}

impl Parts {
    /// Whether a fragment, which would become piece `at`, goes with the others.
    fn check(&self, fragment: &Fragment<'_>, at: usize) -> Rule {
        let start = usize::from(fragment.offset);
        let end = start + fragment.bytes.len();
        let is_beyond = match (self.end, fragment.is_last) {
            (Some(known), true) => end != known,
            (Some(known), false) => end >= known,
            (None, true) => self.pieces.last().is_some_and(|piece| piece.end() > start),
            (None, false) => false,
        };
        let (before, behind) = (at.checked_sub(1).map(|before| &self.pieces[before]), self.pieces.get(at));
        let is_same = behind.is_some_and(|piece| piece.start == start && *piece.bytes == *fragment.bytes);
        let is_over = before.is_some_and(|piece| piece.end() > start) || behind.is_some_and(|piece| piece.start < end);
        // The network may have doubled one (RFC 8200 §4.5).
        if !self.is_refused && is_same && (fragment.is_last == (self.end == Some(end))) {
            Rule::FragmentRepeated
        } else if self.is_refused || is_beyond || is_over {
            Rule::FragmentOverlaps
        } else if marks_together(self.ecn, fragment.ecn).is_none() {
            Rule::FragmentMarksDiffer
        } else if self.pieces.len() == PIECES_MAX {
            Rule::FragmentTooMany
        } else {
            Rule::FragmentHeld
        }
    }

    /// The packet as a frame that has come whole.
    fn frame(&self, mac: [u8; 6]) -> Vec<u8> {
        let bytes = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let mut frame = Vec::new();
        wire::emit_whole(&mut frame, mac, self.source_mac, &self.id, self.ecn, bytes, |out| {
            self.pieces.iter().for_each(|piece| out.extend_from_slice(&piece.bytes));
        });
        frame
    }
}

impl Tables {
    /// A hash that nobody outside can compute, of an address and a number.
    fn hash_of_packet(&self, id: &FragmentId) -> u64 {
        let [high, low] = [(id.number >> 16) as u16, id.number as u16];
        let local_index = self.local_index(id.local).unwrap_or(u8::MAX);
        self.hash(&FlowKey { remote: id.remote, remote_port: low, local_port: high, local_index })
    }

    /// The number of a packet that we send in fragments: which others we send to whom is nobody's business (RFC 7739).
    pub fn number_of_packet(&self, id: &FragmentId) -> u32 {
        (self.hash_of_packet(id) >> 32) as u32
    }
}

impl Batch {
    /// Keeps a fragment. Returns the frame that the packet would have been, if it is whole now.
    pub fn receive_fragment(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        if self.tables.is_no_peer(fragment.id.remote) {
            self.tables.count(Rule::SourceAddressInvalid);
            return None;
        }
        if !self.tables.is_ours(fragment.id.local) {
            self.tables.count(Rule::FrameNotForUs);
            return None;
        }
        let hash = self.tables.hash_of_packet(&fragment.id);
        let outcome = self.tables.fragments.receive(fragment, hash, self.now);
        for _ in 0..outcome.evicted {
            self.tables.count(Rule::FragmentEvicted);
        }
        self.tables.count(outcome.rule);
        outcome.whole.map(|parts| parts.frame(self.tables.config.mac))
    }

    /// Gives up packets that did not become whole in time.
    pub fn expire_fragments(&mut self) {
        for _ in 0..self.tables.fragments.expire(self.now) {
            self.tables.count(Rule::FragmentExpired);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn fragment(number: u32, offset: u16, bytes: &[u8], is_last: bool) -> Fragment<'_> {
        let (remote, local) = (Ipv4Addr::from_bits(number).into(), Ipv4Addr::new(10, 0, 0, 1).into());
        Fragment {
            id: FragmentId { remote, local, protocol: 6, number },
            source_mac: [2; 6],
            ecn: 0,
            offset,
            is_last,
            bytes,
        }
    }

    fn hash(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    }

    fn receive(fragments: &mut Fragments, it: &Fragment<'_>) -> Outcome {
        fragments.receive(it, hash(it.id.number), Time::from_ms(u64::from(it.id.number)))
    }

    #[test]
    fn any_order_gives_the_same_packet() {
        let body: Vec<u8> = (0..100_u8).collect();
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut fragments = Fragments::default();
            let mut whole = None;
            for at in order {
                let (start, end) = (at * 32, (at * 32 + 32).min(body.len()));
                let outcome = receive(&mut fragments, &fragment(1, start as u16, &body[start..end], at == 3));
                assert!(whole.is_none());
                whole = outcome.whole;
            }
            let frame = whole.expect("all has come").frame([4; 6]);
            assert_eq!(frame[34..], body);
            assert_eq!(fragments.bytes, 0);
        }
    }

    #[test]
    fn a_mark_on_one_is_a_mark_on_all_in_any_order() {
        for (marks, whole) in [
            ([0, 0, 0], Some(0)),
            ([2, 2, 2], Some(2)),
            ([1, 2, 1], Some(1)),
            ([2, 3, 2], Some(3)),
            ([3, 1, 2], Some(3)),
            ([0, 2, 1], Some(0)),
            ([2, 2, 3], Some(3)),
            ([0, 2, 3], None),
            ([2, 0, 3], None),
            ([3, 2, 0], None),
        ] {
            let mut fragments = Fragments::default();
            let came = [0, 1, 2].map(|at: usize| {
                let it = fragment(1, at as u16 * 32, &[7; 32], at == 2);
                receive(&mut fragments, &Fragment { ecn: marks[at], ..it }).whole
            });
            let fields: Vec<u8> = came.iter().flatten().map(|parts| parts.frame([4; 6])[15]).collect();
            assert_eq!(fields, whole.as_slice(), "{marks:?}");
        }
    }

    #[test]
    fn a_flood_is_held_within_the_bounds_and_leaves_honest_packets_their_chance() {
        let mut fragments = Fragments::default();
        let body = [7; 1_480];
        let (mut whole, mut evicted, mut now) = (0, 0, Time(0));
        let mut flood = |fragments: &mut Fragments, number: u32, now: Time| {
            evicted += fragments.receive(&fragment(number, 1_480, &body, false), hash(number), now).evicted;
            assert!(fragments.bytes <= BYTES_MAX && fragments.places.len() == SETS * WAYS);
        };
        for number in 0..2_000 {
            now = now.plus_ms(1);
            let honest = u32::MAX - number;
            let _ = fragments.receive(&fragment(honest, 0, &body, false), hash(honest), now);
            // Ten fragments of the flood between the two of an honest packet.
            for more in 0..10 {
                flood(&mut fragments, 10 * number + more, now);
            }
            let last = fragment(honest, 1_480, &body, true);
            whole += u32::from(fragments.receive(&last, hash(honest), now).whole.is_some());
        }
        assert!(evicted > 17_000 && whole >= 1_950, "{evicted} {whole}");
    }

    #[test]
    fn one_large_packet_does_not_put_itself_out() {
        let mut fragments = Fragments::default();
        let body = [7; 1_016];
        for piece in 0..63_u16 {
            assert_eq!(receive(&mut fragments, &fragment(9, piece * 1_016, &body, false)).rule, Rule::FragmentHeld);
        }
        let last = receive(&mut fragments, &fragment(9, 63 * 1_016, &body, true));
        assert_eq!(last.whole.map(|parts| parts.frame([4; 6]).len()), Some(34 + 64 * 1_016));
    }

    #[test]
    fn what_is_too_old_is_given_up_and_then_the_table() {
        let mut fragments = Fragments::default();
        let _ = receive(&mut fragments, &fragment(1_000, 1_480, &[1; 8], false));
        let _ = receive(&mut fragments, &fragment(2_000, 1_480, &[1; 8], false));
        assert_eq!(fragments.next_expiry(), Some(Time::from_ms(31_000)));
        assert_eq!(fragments.expire(Time::from_ms(31_000)), 1);
        assert_eq!(fragments.next_expiry(), Some(Time::from_ms(32_000)));
        assert_eq!(fragments.expire(Time::from_ms(32_000)), 1);
        assert!(fragments.next_expiry().is_none() && fragments.places.capacity() == 0 && fragments.bytes == 0);
    }
}
