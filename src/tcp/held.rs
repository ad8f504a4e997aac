//! What the peer sent beyond a gap (RFC 9293 §3.10.7.4, SHLD-31), and how it is told of it (RFC 2018, RFC 2883).
//!
//! In: ranges that the caller has stored. Out: the range that is in order when a gap is filled, and the blocks of the
//! SACK option.
//!
//! Invariant: ranges are in order and do not touch; where there is no room for another, the newest is refused.

use super::queue::{chain, release_chain};
use super::repair::{HELD_MAX, Held, Repair};
use super::segment::{SACK_BLOCKS_MAX, SackBlocks};
use super::{Flow, NO_SPAN, SeqNum, Span, Spans};

/// How many pieces are held at most: a window of full segments has fewer.
const PIECES_MAX: u16 = 512;

impl Held {
    fn spans(&self, spans: &impl Spans) -> impl Iterator<Item = (u32, Span)> {
        chain(spans, self.head, self.tail)
    }
}

impl Repair {
    /// The ranges, in order.
    pub fn held(&self) -> &[Held] {
        &self.held[..usize::from(self.held_count)]
    }

    /// Whether anything waits for a gap to be filled.
    pub fn is_holding(&self) -> bool {
        self.held_count > 0 || self.has_fin == 1
    }

    /// The first part of `start..end` that is not held.
    pub fn first_missing(&self, start: SeqNum, end: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut from = start;
        for range in self.held() {
            if !range.end.after(from) {
                continue;
            }
            if range.start.after(from) {
                return from.before(end).then(|| (from, range.start.earlier_of(end)));
            }
            from = range.end;
        }
        from.before(end).then_some((from, end))
    }

    /// The span whose bytes end where a range begins; `NO_SPAN` where none do.
    pub fn tail_before(&self, start: SeqNum) -> u32 {
        self.held().iter().find(|range| range.end == start).map_or(NO_SPAN, |range| range.tail)
    }

    /// Whether another piece may be held: a peer that sends them byte by byte must not take a block for each.
    pub fn has_room_for_piece(&self) -> bool {
        self.held_spans < PIECES_MAX
    }

    /// How many spans hold what is held.
    pub fn held_spans(&self) -> u16 {
        self.held_spans
    }

    /// Holds a range that was missing. `false` where there is no room for it; then the caller gives its spans up.
    pub fn hold(&mut self, new: Held, spans: &mut impl Spans) -> bool {
        let count = usize::from(self.held_count);
        let added = new.spans(spans).count() as u16;
        let position = self.held().iter().position(|range| range.start.after(new.start)).unwrap_or(count);
        let joins_left = position > 0 && self.held[position - 1].end == new.start;
        let joins_right = position < count && self.held[position].start == new.end;
        match (joins_left, joins_right) {
            (true, true) => {
                let right = self.held[position];
                let left = &mut self.held[position - 1];
                spans.link(left.tail, new.head);
                spans.link(new.tail, right.head);
                (left.end, left.tail) = (right.end, right.tail);
                self.held.copy_within(position + 1..count, position);
                self.held_count -= 1;
            }
            (true, false) => {
                let left = &mut self.held[position - 1];
                spans.link(left.tail, new.head);
                (left.end, left.tail) = (new.end, new.tail);
            }
            (false, true) => {
                let right = &mut self.held[position];
                spans.link(new.tail, right.head);
                (right.start, right.head) = (new.start, new.head);
            }
            (false, false) if count == HELD_MAX => return false,
            (false, false) => {
                self.held.copy_within(position..count, position + 1);
                self.held[position] = new;
                self.held_count += 1;
            }
        }
        self.held_spans += added;
        self.latest = new.start;
        true
    }

    /// The range that begins at RCV.NXT, which is held no longer.
    pub fn take_in_order(&mut self, rcv_nxt: SeqNum, spans: &impl Spans) -> Option<Held> {
        let first = *self.held().first().filter(|range| range.start == rcv_nxt)?;
        self.held.copy_within(1..usize::from(self.held_count), 0);
        self.held_count -= 1;
        self.held_spans -= first.spans(spans).count() as u16;
        Some(first)
    }

    /// The peer's FIN came, at this number, beyond a gap.
    pub fn hold_fin(&mut self, seq: SeqNum) {
        // Of two that contradict each other the one that is reached first counts.
        if self.has_fin == 0 || seq.before(self.fin_seq) {
            (self.has_fin, self.fin_seq) = (1, seq);
        }
    }

    /// The peer sends data up to here: a FIN that was held before that is one no longer.
    pub(super) fn note_data(&mut self, end: SeqNum) {
        if end.after(self.fin_seq) {
            self.has_fin = 0;
        }
    }

    /// Whether the FIN that was held is at RCV.NXT; then it is held no longer.
    pub fn take_fin(&mut self, rcv_nxt: SeqNum) -> bool {
        let is_there = self.has_fin == 1 && self.fin_seq == rcv_nxt;
        if is_there {
            self.has_fin = 0;
        }
        is_there
    }

    /// This came twice, which a peer that reads SACK is told.
    pub fn note_duplicate(&mut self, flow: &Flow, start: SeqNum, end: SeqNum) {
        if flow.takes_sack() {
            (self.duplicate_start, self.duplicate_end) = (start, end);
        }
    }

    /// The blocks for an ACK: what came twice, said once (RFC 2883), the range that came last, then the others from the
    /// right.
    pub(super) fn sack_blocks(&mut self, flow: &Flow) -> SackBlocks {
        let (mut blocks, blocks_max) = (SackBlocks::default(), sack_blocks_max(flow));
        if self.duplicate_start != self.duplicate_end {
            blocks.push(self.duplicate_start, self.duplicate_end, blocks_max);
            self.duplicate_start = self.duplicate_end;
        }
        let is_latest = |range: &&Held| self.latest.within(range.start, range.end.since(range.start));
        for range in self.held().iter().filter(is_latest) {
            blocks.push(range.start, range.end, blocks_max);
        }
        for range in self.held().iter().rev().filter(|range| !is_latest(range)) {
            blocks.push(range.start, range.end, blocks_max);
        }
        blocks
    }

    /// How long the SACK option of the next segment is, in bytes.
    pub(super) fn sack_bytes(&self, flow: &Flow) -> u32 {
        let has_duplicate = self.duplicate_start != self.duplicate_end;
        let blocks = (usize::from(self.held_count) + usize::from(has_duplicate)).min(sack_blocks_max(flow)) as u32;
        if blocks == 0 { 0 } else { 4 + 8 * blocks }
    }

    /// Gives up what is held and was overtaken by RCV.NXT, in part or whole.
    pub fn release_overtaken(&mut self, rcv_nxt: SeqNum, spans: &mut impl Spans) {
        while let Some(range) = self.held().first().copied().filter(|range| range.start.before(rcv_nxt)) {
            self.held_spans -= release_chain(spans, range.head, range.tail) as u16;
            self.held.copy_within(1..usize::from(self.held_count), 0);
            self.held_count -= 1;
        }
        if self.fin_seq.before(rcv_nxt) {
            self.has_fin = 0;
        }
    }

    /// Gives up everything that is held.
    pub fn release_held(&mut self, spans: &mut impl Spans) {
        for range in &self.held[..usize::from(self.held_count)] {
            release_chain(spans, range.head, range.tail);
        }
        self.held_count = 0;
        self.held_spans = 0;
        self.has_fin = 0;
    }
}

/// How many blocks a SACK option has room for, beside timestamps; none for a peer that does not read them.
fn sack_blocks_max(flow: &Flow) -> usize {
    match (flow.takes_sack(), flow.has_timestamps()) {
        (false, _) => 0,
        (true, true) => 3,
        (true, false) => SACK_BLOCKS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[derive(Default)]
    struct Chains(Vec<(u32, u32)>);

    impl Spans for Chains {
        fn span(&self, index: u32) -> Span {
            let next = self.0.iter().rev().find(|link| link.0 == index).map_or(0, |link| link.1);
            Span { next, ..Span::zeroed() }
        }
        fn link(&mut self, index: u32, next: u32) {
            self.0.push((index, next));
        }
        fn release(&mut self, _index: u32) {}
    }

    fn range(start: u32, end: u32) -> Held {
        Held { start: SeqNum(start), end: SeqNum(end), head: start, tail: start }
    }

    fn ends(repair: &Repair) -> Vec<(u32, u32)> {
        repair.held().iter().map(|range| (range.start.0, range.end.0)).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let (mut repair, mut chains) = (Repair::empty(0), Chains::default());
        for (start, end) in [(300, 400), (100, 200), (500, 600), (400, 500), (200, 300)] {
            assert!(repair.hold(range(start, end), &mut chains));
        }
        assert_eq!(ends(&repair), [(100, 600)]);
        assert_eq!((repair.held()[0].head, repair.held()[0].tail), (100, 500));
        let spans: Vec<u32> = repair.held()[0].spans(&chains).map(|(index, _)| index).collect();
        assert_eq!(spans, [100, 200, 300, 400, 500]);
        assert_eq!((repair.take_in_order(SeqNum(99), &chains), repair.held_spans()), (None, 5));
        assert!(repair.take_in_order(SeqNum(100), &chains).is_some_and(|it| it.end == SeqNum(600)));
        assert!(repair.is_idle() && repair.held_spans() == 0);
    }

    #[test]
    fn what_is_missing_lies_between_what_is_held() {
        let (mut repair, mut chains) = (Repair::empty(0), Chains::default());
        assert!(repair.hold(range(100, 200), &mut chains) && repair.hold(range(300, 400), &mut chains));
        let missing = |start, end| repair.first_missing(SeqNum(start), SeqNum(end)).map(|it| (it.0.0, it.1.0));
        assert_eq!(missing(50, 90), Some((50, 90)));
        assert_eq!(missing(50, 350), Some((50, 100)));
        assert_eq!(missing(100, 350), Some((200, 300)));
        assert_eq!(missing(150, 200), None);
        assert_eq!(missing(350, 450), Some((400, 450)));
    }

    #[test]
    fn the_newest_is_refused() {
        let (mut repair, mut chains) = (Repair::empty(0), Chains::default());
        for at in 0..HELD_MAX as u32 {
            assert!(repair.hold(range(at * 100, at * 100 + 50), &mut chains));
        }
        assert!(!repair.hold(range(5_000, 5_001), &mut chains));
        assert!(repair.hold(range(50, 100), &mut chains), "but not what makes two of them one");
        assert_eq!(repair.held().len(), HELD_MAX - 1);
    }

    #[test]
    fn the_block_of_what_came_last_comes_first() {
        let (mut repair, mut chains) = (Repair::empty(0), Chains::default());
        for start in [100, 300, 500, 200] {
            assert!(repair.hold(range(start, start + 50), &mut chains));
        }
        let mut flow = Flow::free(0);
        flow.set_takes_sack(true);
        flow.begin_timestamps(0);
        let starts: Vec<u32> = repair.sack_blocks(&flow).iter().map(|(start, _)| start.0).collect();
        assert_eq!(starts, [200, 500, 300]);
    }
}
