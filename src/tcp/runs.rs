//! The scoreboard: what became of each byte in flight (RFC 6675 §3, RFC 8985 §5).
//!
//! In: what was sent, acknowledged, selectively acknowledged, found lost. Out: what counts as in flight, what is to be
//! sent again. Bytes of the same fate that were sent about the same time share a run, so the list is as long as there
//! are holes, not segments.
//!
//! Invariant: where the list is full a change that would make it longer is left out, which makes us send again what
//! need not be, and never the other way round.

use super::SeqNum;
use super::repair::{FLYING, LOST, RUNS_MAX, Repair, Run, SACKED, Sending};

/// What an acknowledgment brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Delivery {
    /// Bytes that are known to have arrived and were not before.
    pub bytes: u32,
    /// Those among them that were sent last.
    pub latest: Option<Run>,
    /// The end of the leftmost of them that was sent once only.
    pub lowest_unresent: Option<SeqNum>,
    /// Whether some of them were sent more than once.
    pub has_resent: bool,
}

impl Delivery {
    fn add(&mut self, run: &Run, bytes: u32) {
        self.bytes += bytes;
        self.has_resent |= run.is_resent == 1;
        if run.is_resent == 0 && self.lowest_unresent.is_none_or(|lowest| run.end.before(lowest)) {
            self.lowest_unresent = Some(run.end);
        }
        if self.latest.is_none_or(|latest| run.sending().is_after(latest.sending())) {
            self.latest = Some(*run);
        }
    }
}

impl Sending {
    /// Whether this came after another (RFC 8985 §6.2 step 2).
    pub(super) fn is_after(self, other: Sending) -> bool {
        let later_us = self.at_us.wrapping_sub(other.at_us) as i32;
        later_us > 0 || later_us == 0 && self.end.after(other.end)
    }
}

impl Run {
    pub(super) fn sending(&self) -> Sending {
        Sending { at_us: self.sent_us, end: self.end }
    }

    /// When the first of it was sent.
    fn first_us(&self) -> u32 {
        self.sent_us.wrapping_sub(u32::from(self.spread_us))
    }

    /// The range `from..to` of this run, which begins at `start`: its bytes count as sent at an even pace.
    fn part(&self, start: SeqNum, from: SeqNum, to: SeqNum) -> Run {
        let bytes = u64::from(self.end.since(start).max(1));
        let share = |part: u32| (u64::from(self.spread_us) * u64::from(part) / bytes) as u32;
        let sent_us = self.sent_us.wrapping_sub(share(self.end.since(to)));
        Run { end: to, sent_us, spread_us: share(to.since(from)) as u16, ..*self }
    }

    /// This run and the next as one. Where they were not sent in this order all of it counts as sent late, so that it
    /// is found lost later and never too early.
    fn with_next(&self, next: &Run) -> Run {
        let is_in_order = next.sending().is_after(self.sending());
        let sent_us = if is_in_order { next.sent_us } else { self.sent_us };
        let spread_us = if is_in_order { sent_us.wrapping_sub(self.first_us()) } else { 0 };
        Run { sent_us, spread_us: spread_us.min(u32::from(u16::MAX)) as u16, ..*next }
    }
}

impl Repair {
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs[..usize::from(self.run_count)]
    }

    /// The runs of this fate, each with where it begins.
    fn runs_of(&self, snd_una: SeqNum, fate: u8) -> impl Iterator<Item = (SeqNum, &Run)> {
        self.runs()
            .iter()
            .scan(snd_una, |start, run| Some((std::mem::replace(start, run.end), run)))
            .filter(move |(_, run)| run.fate == fate)
    }

    /// How many bytes have this fate.
    pub(super) fn bytes_of(&self, snd_una: SeqNum, fate: u8) -> u32 {
        self.runs_of(snd_una, fate).map(|(start, run)| run.end.since(start)).sum()
    }

    /// Bytes that count as in flight (RFC 6675 §4, SetPipe).
    pub fn pipe(&self, snd_una: SeqNum) -> u32 {
        self.bytes_of(snd_una, FLYING)
    }

    /// Whether anything is in flight.
    pub(super) fn is_flying(&self) -> bool {
        self.runs().iter().any(|run| run.fate == FLYING)
    }

    /// The end of the last run that has arrived.
    pub(super) fn furthest_arrived(&self, snd_una: SeqNum) -> SeqNum {
        let sacked = self.runs().iter().rev().find(|run| run.fate == SACKED);
        sacked.map_or(snd_una, |run| run.end).later_of(snd_una)
    }

    /// The first range that is lost.
    pub(super) fn first_lost(&self, snd_una: SeqNum) -> Option<(SeqNum, SeqNum)> {
        self.runs_of(snd_una, LOST).next().map(|(start, run)| (start, run.end))
    }

    /// Everything from SND.UNA to `end` is in flight since `sent_us`: the list begins.
    pub(super) fn begin_runs(&mut self, snd_una: SeqNum, end: SeqNum, sent_us: u32) {
        self.run_count = 0;
        if end.after(snd_una) {
            self.append(end, sent_us);
        }
    }

    /// New bytes up to `end` are sent; they share a run that began at most `nearby_us` before.
    pub(super) fn on_sent(&mut self, end: SeqNum, sent_us: u32, nearby_us: u32) {
        if let Some(last) = self.last_run()
            && last.fate == FLYING
            && last.is_resent == 0
            && sent_us.wrapping_sub(last.first_us()) <= nearby_us.min(u32::from(u16::MAX))
        {
            *last = last.with_next(&Run { end, sent_us, ..*last });
        } else {
            self.append(end, sent_us);
        }
    }

    fn last_run(&mut self) -> Option<&mut Run> {
        usize::from(self.run_count).checked_sub(1).map(|last| &mut self.runs[last])
    }

    fn append(&mut self, end: SeqNum, sent_us: u32) {
        let run = Run { end, sent_us, fate: FLYING, is_resent: 0, spread_us: 0 };
        if self.make_room(1) {
            self.runs[usize::from(self.run_count)] = run;
            self.run_count += 1;
        } else if let Some(last) = self.last_run() {
            // The last run takes it in, whatever its fate: what was said of its bytes is forgotten.
            *last = run;
        }
    }

    /// Makes room for so many more runs, at the cost of knowing less exactly when some were sent.
    fn make_room(&mut self, more: usize) -> bool {
        while usize::from(self.run_count) + more > RUNS_MAX {
            if !self.shorten() {
                return false;
            }
        }
        true
    }

    /// Makes one run of two neighbours in flight, those that were sent closest together.
    fn shorten(&mut self) -> bool {
        let runs = self.runs();
        let are_alike =
            |pair: &[Run]| pair[0].fate == FLYING && pair[1].fate == FLYING && pair[0].is_resent == pair[1].is_resent;
        let distance = |pair: &[Run]| (pair[1].sent_us.wrapping_sub(pair[0].sent_us) as i32).unsigned_abs();
        let pairs = runs.windows(2).enumerate().filter(|(_, pair)| are_alike(pair));
        let Some((first, _)) = pairs.min_by_key(|(_, pair)| distance(pair)) else { return false };
        self.runs[first + 1] = self.runs[first].with_next(&self.runs[first + 1]);
        self.remove(first);
        true
    }

    fn remove(&mut self, position: usize) {
        let count = usize::from(self.run_count);
        self.runs.copy_within(position + 1..count, position);
        self.run_count -= 1;
    }

    /// Everything before `ack` is acknowledged; the list began at `snd_una`.
    pub(super) fn on_acknowledged(&mut self, snd_una: SeqNum, ack: SeqNum) -> Delivery {
        let mut delivery = Delivery::default();
        let mut start = snd_una;
        while self.run_count > 0 && start.before(ack) {
            let run = self.runs[0];
            let end = run.end.earlier_of(ack);
            if run.fate != SACKED {
                delivery.add(&run.part(start, start, end), end.since(start));
            }
            if end == run.end {
                self.remove(0);
            } else {
                self.runs[0] = run.part(start, end, run.end);
            }
            start = end;
        }
        delivery
    }

    /// The peer says that it has `from..to`, within what is in flight.
    pub(super) fn on_sacked(&mut self, snd_una: SeqNum, from: SeqNum, to: SeqNum, delivery: &mut Delivery) {
        let mut next = from;
        while next.before(to) {
            let has_room = self.make_room(2);
            let Some((position, start)) = self.position_of(snd_una, next) else { break };
            let run = self.runs[position];
            let end = run.end.earlier_of(to);
            // Where there is no room a neighbour that has arrived too may still grow.
            let grows_left = start == next && position > 0 && self.runs[position - 1].fate == SACKED;
            let can_split = has_room || start == next && end == run.end;
            if run.fate != SACKED && !can_split && grows_left {
                self.runs[position - 1].end = end;
                self.runs[position] = run.part(start, end, run.end);
                delivery.add(&run.part(start, next, end), end.since(next));
            } else if run.fate != SACKED && can_split {
                self.split(position, start, (next, end), |part| Run { fate: SACKED, ..part });
                delivery.add(&run.part(start, next, end), end.since(next));
            }
            next = end;
        }
        self.join();
    }

    /// The run that holds the byte `seq`, and where it begins.
    fn position_of(&self, snd_una: SeqNum, seq: SeqNum) -> Option<(usize, SeqNum)> {
        let position = self.runs().iter().position(|run| run.end.after(seq))?;
        Some((position, if position == 0 { snd_una } else { self.runs[position - 1].end }))
    }

    /// The range `from..to` of the run at `position`, which begins at `start`, becomes a run of its own and is changed.
    /// The list has room for the pieces.
    fn split(&mut self, position: usize, start: SeqNum, (from, to): (SeqNum, SeqNum), change: impl FnOnce(Run) -> Run) {
        let run = self.runs[position];
        let (is_before, is_behind) = (from.after(start), to.before(run.end));
        let more = usize::from(is_before) + usize::from(is_behind);
        let count = usize::from(self.run_count);
        self.runs.copy_within(position + 1..count, position + 1 + more);
        let pieces = [
            (is_before, run.part(start, start, from)),
            (true, change(run.part(start, from, to))),
            (is_behind, run.part(start, to, run.end)),
        ];
        for (at, (_, piece)) in (position..).zip(pieces.iter().filter(|(is_there, _)| *is_there)) {
            self.runs[at] = *piece;
        }
        self.run_count += more as u8;
    }

    /// Makes one run of neighbours that are both sacked or both lost, or in flight since the same moment.
    fn join(&mut self) {
        let mut position = 1;
        while position < usize::from(self.run_count) {
            let (one, other) = (self.runs[position - 1], self.runs[position]);
            let is_same = one.fate == other.fate
                && (one.fate != FLYING || (one.sent_us, one.is_resent) == (other.sent_us, other.is_resent))
                && (one.fate != LOST || one.is_resent == other.is_resent);
            if is_same {
                self.runs[position] = one.with_next(&other);
                self.remove(position - 1);
            } else {
                position += 1;
            }
        }
    }

    /// Each run of this fate is lost if `is_lost` says so of its sending. Returns how many bytes are.
    pub(super) fn find_lost(&mut self, snd_una: SeqNum, fate: u8, mut is_lost: impl FnMut(&Run) -> bool) -> u32 {
        let mut bytes = 0;
        let mut start = snd_una;
        for run in &mut self.runs[..usize::from(self.run_count)] {
            if run.fate == fate && is_lost(run) {
                run.fate = LOST;
                bytes += run.end.since(start);
            }
            start = run.end;
        }
        self.join();
        bytes
    }

    /// Everything that is not known to have arrived is lost (RFC 6675 §5.1). Where the first bytes were said to have
    /// arrived and are not acknowledged, the peer has thrown them away, and maybe more (RFC 2018 §8).
    pub(super) fn lose_all(&mut self) {
        let is_reneging = self.is_reneging();
        for run in &mut self.runs[..usize::from(self.run_count)] {
            run.fate = if run.fate == SACKED && !is_reneging { SACKED } else { LOST };
        }
        self.join();
    }

    /// An acknowledgment ends before what it would reach over, had the peer kept it: that and all else that it has said
    /// to hold is lost. Returns how many bytes are.
    pub(super) fn lose_thrown_away(&mut self, snd_una: SeqNum) -> u32 {
        if self.is_reneging() { self.find_lost(snd_una, SACKED, |_| true) } else { 0 }
    }

    fn is_reneging(&self) -> bool {
        self.runs().first().is_some_and(|run| run.fate == SACKED)
    }

    /// Everything from `from` on is to be sent again.
    pub(super) fn lose_from(&mut self, snd_una: SeqNum, from: SeqNum) {
        if let Some(end) = self.runs().last().map(|run| run.end) {
            self.lose_piece(snd_una, from.later_of(snd_una), end.since(from));
        }
    }

    /// The first segment is lost. Returns how many bytes that are, none where it was in flight no longer.
    pub(super) fn lose_first(&mut self, snd_una: SeqNum, mss: u32) -> u32 {
        self.lose_piece(snd_una, snd_una, mss)
    }

    /// The last segment is to be sent again.
    pub(super) fn lose_last(&mut self, snd_una: SeqNum, mss: u32) {
        if let Some(last) = self.runs().last().map(|run| run.end) {
            let from = if last.since(snd_una) > mss { last.minus(mss) } else { snd_una };
            self.lose_piece(snd_una, from, mss);
        }
    }

    fn lose_piece(&mut self, snd_una: SeqNum, from: SeqNum, bytes: u32) -> u32 {
        let has_room = self.make_room(2);
        let Some((position, start)) = self.position_of(snd_una, from) else { return 0 };
        let run = self.runs[position];
        if run.fate != FLYING {
            return 0;
        }
        let end = if has_room && run.end.since(from) > bytes { from.plus(bytes) } else { run.end };
        let from = if has_room { from } else { start };
        self.split(position, start, (from, end), |part| Run { fate: LOST, ..part });
        self.join();
        end.since(from)
    }

    /// What counted as lost and was not sent again counts as in flight again.
    pub(super) fn find_again(&mut self) {
        for run in &mut self.runs[..usize::from(self.run_count)] {
            run.fate = if run.fate == LOST { FLYING } else { run.fate };
        }
        self.join();
    }

    /// The first `bytes` from `from` on, which begin a lost run, are sent again.
    pub(super) fn on_resent(&mut self, snd_una: SeqNum, from: SeqNum, bytes: u32, sent_us: u32) {
        let has_room = self.make_room(1);
        let Some((position, start)) = self.position_of(snd_una, from) else { return };
        let run = self.runs[position];
        // Where there is no room for two fates all of it counts as sent again: what was not is found lost once more.
        let to = if has_room { from.plus(bytes).earlier_of(run.end) } else { run.end };
        self.split(position, start, (start, to), |part| Run {
            sent_us,
            spread_us: 0,
            fate: FLYING,
            is_resent: 1,
            ..part
        });
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SeqNum = SeqNum(u32::MAX - 2_999);

    fn at(offset: u32) -> SeqNum {
        START.plus(offset)
    }

    fn shown(repair: &Repair) -> Vec<(u32, u8)> {
        repair.runs().iter().map(|run| (run.end.since(START), run.fate)).collect()
    }

    #[test]
    fn a_hole_is_a_run_between_runs() {
        let mut repair = Repair::empty(0);
        repair.begin_runs(START, at(10_000), 100);
        let mut delivery = Delivery::default();
        repair.on_sacked(START, at(2_000), at(3_000), &mut delivery);
        repair.on_sacked(START, at(3_000), at(4_000), &mut delivery);
        repair.on_sacked(START, at(2_500), at(3_500), &mut delivery);
        assert_eq!(shown(&repair), [(2_000, FLYING), (4_000, SACKED), (10_000, FLYING)]);
        assert_eq!((delivery.bytes, repair.pipe(START)), (2_000, 8_000));
        assert_eq!(repair.find_lost(START, FLYING, |run| run.end == at(2_000)), 2_000);
        assert_eq!(repair.first_lost(START), Some((START, at(2_000))));
        repair.on_resent(START, START, 1_000, 200);
        assert_eq!(shown(&repair), [(1_000, FLYING), (2_000, LOST), (4_000, SACKED), (10_000, FLYING)]);
        let delivery = repair.on_acknowledged(START, at(1_500));
        assert_eq!((delivery.bytes, shown(&repair)[0]), (1_500, (2_000, LOST)));
        let delivery = repair.on_acknowledged(at(1_500), at(10_000));
        assert_eq!((delivery.bytes, repair.runs().len()), (500 + 6_000, 0), "what was sacked is not counted twice");
    }

    #[test]
    fn bytes_sent_about_the_same_time_share_a_run() {
        let mut repair = Repair::empty(0);
        repair.begin_runs(START, START, 0);
        repair.on_sent(at(100), 1_000, 50);
        repair.on_sent(at(200), 1_040, 50);
        repair.on_sent(at(300), 1_100, 50);
        let sent: Vec<u32> = repair.runs().iter().map(|run| run.sent_us).collect();
        assert_eq!(sent, [1_040, 1_100]);
    }

    /// A segment every 100 us: 25 share a run, and each is still known to have been sent about when it was.
    #[test]
    fn a_steady_stream_does_not_blur_when_it_was_sent() {
        let mut repair = Repair::empty(0);
        repair.begin_runs(START, START, 0);
        for segment in 1..=100_u32 {
            repair.on_sent(at(segment * 100), segment * 100, 2_500);
        }
        assert_eq!(repair.runs().len(), 4);
        let mut delivery = Delivery::default();
        repair.on_sacked(START, at(3_900), at(4_000), &mut delivery);
        let latest = delivery.latest.expect("something has arrived");
        assert!(latest.sent_us.abs_diff(4_000) <= 100, "{latest:?}");
        assert_eq!((latest.end, latest.is_resent), (at(4_000), 0));
        for segment in 1..=38_u32 {
            let delivery = repair.on_acknowledged(at(segment * 100 - 100), at(segment * 100));
            let latest = delivery.latest.expect("something has arrived");
            assert!(latest.sent_us.abs_diff(segment * 100) <= 200, "segment {segment}: {latest:?}");
        }
    }

    #[test]
    fn what_has_arrived_grows_in_a_full_list() {
        let mut repair = Repair::empty(0);
        repair.begin_runs(START, at(30_000), 0);
        for hole in 0..100_u32 {
            repair.on_sacked(START, at(hole * 200 + 100), at(hole * 200 + 200), &mut Delivery::default());
        }
        assert!(!repair.make_room(2), "the list is full");
        let last = repair.runs().iter().rposition(|run| run.fate == SACKED).expect("something has arrived");
        let from = repair.runs()[last].end;
        let mut delivery = Delivery::default();
        repair.on_sacked(START, from, from.plus(500), &mut delivery);
        assert_eq!((delivery.bytes, repair.runs()[last].end), (500, from.plus(500)));
    }

    /// Whatever is done in whatever order, the runs stay in order, cover what is in flight, and no byte counts as
    /// arrived that was not said to be.
    #[test]
    fn a_full_list_forgets_and_never_invents() {
        let mut random = 7_u64;
        let mut draw = |below: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u32 % below
        };
        for _ in 0..300 {
            let (mut repair, mut una, mut nxt) = (Repair::empty(0), START, START);
            let mut has = vec![false; 40_000];
            repair.begin_runs(una, nxt, 0);
            for step in 0..300_u32 {
                match draw(5) {
                    0 | 1 if nxt.since(START) < 38_000 => {
                        nxt = nxt.plus(1 + draw(400));
                        repair.on_sent(nxt, step * 10, draw(30));
                    }
                    2 if nxt.after(una) => {
                        let from = una.plus(draw(nxt.since(una)));
                        let to = from.plus(1 + draw(nxt.since(from).max(1)).min(300)).earlier_of(nxt);
                        has[from.since(START) as usize..to.since(START) as usize].fill(true);
                        repair.on_sacked(una, from, to, &mut Delivery::default());
                    }
                    3 => {
                        let which = draw(3);
                        repair.find_lost(una, FLYING, |run| run.end.0 % 3 == which);
                        if let Some((from, to)) = repair.first_lost(una) {
                            repair.on_resent(una, from, 1 + draw(to.since(from)), step * 10 + 5);
                        }
                    }
                    _ if nxt.after(una) && draw(4) == 0 => {
                        let ack = una.plus(1 + draw(nxt.since(una)));
                        repair.on_acknowledged(una, ack);
                        una = ack;
                    }
                    _ => {}
                }
                let mut start = una;
                for run in repair.runs() {
                    assert!(run.end.after(start), "a run is not empty and follows the one before");
                    if run.fate == SACKED {
                        let range = start.since(START) as usize..run.end.since(START) as usize;
                        assert!(has[range].iter().all(|has| *has), "only what was said to be there is sacked");
                    }
                    start = run.end;
                }
                assert_eq!(start, nxt, "the runs end where the flight ends");
            }
        }
    }
}
