//! A middlebox on the way between a client and the node: it looks into segments, and means well.
//!
//! Frames of both directions come in; they come out changed, later or not at all. Options are overwritten by NOPs,
//! the MSS of SYNs is lowered, ACKs that later ones make needless are dropped, and so are segments with bits that it
//! does not know, or these bits are cleared. Where each direction is treated apart, one end learns what the other does
//! not.
//!
//! Invariant: only segments whose checksums are right are changed, and they leave with right ones; so nothing that was
//! spoilt on the way is made whole.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::frame::{ACK, CWR, ECE, FIN, Layout, NO_OPERATION, RST, SYN, places};
use super::profile::{EcnTreatment, MiddleboxParameters, Treatment};
use super::report::Statistics;

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Direction {
    ToNode,
    ToClient,
}

/// One client's middlebox.
pub(super) struct Middlebox {
    parameters: MiddleboxParameters,
    /// ACKs since the last one that passed, by direction and the client's port.
    dropped_acks: BTreeMap<(Direction, u16), u32>,
    /// ACKs that wait for a later one, and until when.
    waiting_acks: BTreeMap<(Direction, u16), (u64, Vec<u8>)>,
    /// Segments that might have been marked so far.
    markable_count: u64,
    is_healed: bool,
}

const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CONGESTION_EXPERIENCED: u8 = 3;
const MSS: u8 = 2;
const TIMESTAMPS: u8 = 8;

impl Middlebox {
    /// One that has seen nothing.
    pub(super) fn new(parameters: &MiddleboxParameters) -> Middlebox {
        let (dropped_acks, waiting_acks) = (BTreeMap::new(), BTreeMap::new());
        Middlebox { parameters: parameters.clone(), dropped_acks, waiting_acks, markable_count: 0, is_healed: false }
    }

    /// From now on it changes SYNs only: what they agree on has to stay as it is.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        for (until_us, _) in self.waiting_acks.values_mut() {
            *until_us = 0;
        }
    }

    /// When an ACK that waits goes on.
    pub(super) fn next_release_us(&self) -> Option<u64> {
        self.waiting_acks.values().map(|&(until_us, _)| until_us).min()
    }

    /// An ACK that has waited long enough.
    pub(super) fn release(&mut self, now_us: u64) -> Option<(Direction, Vec<u8>)> {
        let (&key, _) = self.waiting_acks.iter().find(|(_, (until_us, _))| *until_us <= now_us)?;
        self.waiting_acks.remove(&key).map(|(_, frame)| (key.0, frame))
    }

    /// What becomes of a frame; `None` where it does not go on, or not yet.
    pub(super) fn pass(
        &mut self,
        now_us: u64,
        direction: Direction,
        mut frame: Vec<u8>,
        statistics: &mut Statistics,
    ) -> Option<Vec<u8>> {
        let Some(layout) = Layout::of(&frame) else { return Some(frame) };
        let treatment = match direction {
            Direction::ToNode => self.parameters.to_node.clone(),
            Direction::ToClient => self.parameters.to_client.clone(),
        };
        let flags = frame[layout.tcp + 13];
        let has_ecn = flags & (ECE | CWR) != 0 || layout.ecn(&frame) != 0;
        if has_ecn && treatment.ecn == EcnTreatment::Drops && !self.is_healed {
            statistics.count(Fault::EcnDropped);
            return None;
        }
        let mut is_changed = false;
        if has_ecn && treatment.ecn == EcnTreatment::Clears {
            statistics.count(Fault::EcnCleared);
            layout.set_ecn(&mut frame, 0);
            frame[layout.tcp + 13] &= !(ECE | CWR);
            is_changed = true;
        }
        if let EcnTreatment::Marks(one_of) = treatment.ecn
            && matches!(layout.ecn(&frame), ECT_0 | ECT_1)
            && !self.is_healed
        {
            is_changed |= self.markable_count.is_multiple_of(u64::from(one_of.max(1)));
            self.markable_count += 1;
            if is_changed {
                statistics.count(Fault::EcnMarked);
                layout.set_ecn(&mut frame, CONGESTION_EXPERIENCED);
            }
        }
        is_changed |= self.change_options(now_us, &treatment, &mut frame, &layout, statistics);
        if is_changed {
            layout.write_checksums(&mut frame);
        }
        let is_pure_ack = layout.end == layout.options_end && flags & (SYN | FIN | RST | ACK) == ACK;
        let port_at = layout.tcp + if direction == Direction::ToNode { 0 } else { 2 };
        let port = u16::from_be_bytes([frame[port_at], frame[port_at + 1]]);
        if self.is_healed || !is_pure_ack {
            return Some(frame);
        }
        self.thin(now_us, (direction, port), &treatment, frame, statistics)
    }

    fn change_options(
        &self,
        now_us: u64,
        treatment: &Treatment,
        frame: &mut [u8],
        layout: &Layout,
        statistics: &mut Statistics,
    ) -> bool {
        let is_syn = frame[layout.tcp + 13] & SYN != 0;
        let is_late =
            treatment.no_timestamps_us.is_some_and(|(from_us, until_us)| (from_us..until_us).contains(&now_us));
        let options = &mut frame[layout.tcp + 20..layout.options_end];
        let (mut is_stripped, mut is_clamped) = (false, false);
        for (kind, place) in places(options) {
            let option = &mut options[place];
            let is_late_timestamp = kind == TIMESTAMPS && is_late && !is_syn && !self.is_healed;
            if treatment.strips.contains(&kind) || is_late_timestamp {
                option.fill(NO_OPERATION);
                is_stripped = true;
            } else if let (MSS, 4, Some(largest)) = (kind, option.len(), treatment.mss_max)
                && u16::from_be_bytes([option[2], option[3]]) > largest
            {
                option[2..].copy_from_slice(&largest.to_be_bytes());
                is_clamped = true;
            }
        }
        for (has_struck, fault) in [(is_stripped, Fault::OptionsStripped), (is_clamped, Fault::MssClamped)] {
            if has_struck {
                statistics.count(fault);
            }
        }
        is_stripped || is_clamped
    }

    fn thin(
        &mut self,
        now_us: u64,
        key: (Direction, u16),
        treatment: &Treatment,
        frame: Vec<u8>,
        statistics: &mut Statistics,
    ) -> Option<Vec<u8>> {
        let dropped = self.dropped_acks.entry(key).or_default();
        *dropped += 1;
        if *dropped < treatment.passes_one_ack_of {
            statistics.count(Fault::AckThinned);
            return None;
        }
        *dropped = 0;
        if treatment.ack_wait_us == 0 {
            return Some(frame);
        }
        let until_us = now_us + treatment.ack_wait_us;
        match self.waiting_acks.get_mut(&key) {
            Some((_, waiting)) => {
                statistics.count(Fault::AckCompressed);
                *waiting = frame;
            }
            None => {
                self.waiting_acks.insert(key, (until_us, frame));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{FAMILIES, SYN_OPTIONS, frame};
    use super::super::frame::{Family, IP, shift_numbers};
    use super::*;

    fn passed(treatment: Treatment, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, Statistics) {
        let parameters = MiddleboxParameters { to_node: treatment, to_client: Treatment::default() };
        let mut middlebox = Middlebox::new(&parameters);
        let mut statistics = Statistics::default();
        let passed =
            frames.iter().filter_map(|frame| middlebox.pass(0, Direction::ToNode, frame.clone(), &mut statistics));
        (passed.collect(), statistics)
    }

    /// A frame with these bits of congestion notification in its IP header, and right checksums.
    fn with_ecn(mut frame: Vec<u8>, bits: u8) -> Vec<u8> {
        let layout = Layout::of(&frame).expect("it is whole");
        layout.set_ecn(&mut frame, bits);
        layout.write_checksums(&mut frame);
        frame
    }

    #[test]
    fn options_that_are_stripped_become_nops_and_the_rest_stays() {
        for family in FAMILIES {
            let treatment = Treatment { strips: vec![4, 8], mss_max: Some(600), ..Treatment::default() };
            let (passed, statistics) = passed(treatment, &[frame(family, SYN, &SYN_OPTIONS, &[])]);
            let options = [2, 4, 2, 88, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7];
            assert_eq!(passed, [frame(family, SYN, &options, &[])]);
            let faults = [Fault::OptionsStripped, Fault::MssClamped].map(|fault| statistics.faults[fault as usize]);
            assert_eq!(faults, [1, 1]);
        }
    }

    #[test]
    fn late_timestamps_are_stripped_from_what_is_no_syn() {
        for family in FAMILIES {
            let treatment = Treatment { no_timestamps_us: Some((0, 1)), ..Treatment::default() };
            let stamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
            let syn = frame(family, SYN, &SYN_OPTIONS, &[]);
            let (passed, _) = passed(treatment, &[syn.clone(), frame(family, ACK, &stamps, b"x")]);
            assert_eq!(passed, [syn, frame(family, ACK, &[1; 12], b"x")]);
        }
    }

    #[test]
    fn acks_are_thinned_and_data_passes() {
        for family in FAMILIES {
            let treatment = Treatment { passes_one_ack_of: 3, ..Treatment::default() };
            let (ack, data) = (frame(family, ACK, &[], &[]), frame(family, ACK, &[], b"data"));
            let all = [ack.clone(), data.clone(), ack.clone(), ack.clone(), ack.clone()];
            assert_eq!(passed(treatment, &all).0, [data, ack]);
        }
    }

    #[test]
    fn a_later_ack_takes_the_place_of_one_that_waits() {
        let to_node = Treatment { ack_wait_us: 10, ..Treatment::default() };
        let mut middlebox = Middlebox::new(&MiddleboxParameters { to_node, to_client: Treatment::default() });
        let mut statistics = Statistics::default();
        for number in [1, 2] {
            let mut ack = frame(Family::Ipv4, ACK, &[1; 4], &[]);
            shift_numbers(&mut ack, number, 0);
            assert_eq!(middlebox.pass(u64::from(number), Direction::ToNode, ack, &mut statistics), None);
        }
        assert_eq!((middlebox.next_release_us(), middlebox.release(10)), (Some(11), None));
        let mut last = frame(Family::Ipv4, ACK, &[1; 4], &[]);
        shift_numbers(&mut last, 2, 0);
        assert_eq!(middlebox.release(11), Some((Direction::ToNode, last)));
        assert_eq!(middlebox.next_release_us(), None);
    }

    #[test]
    fn congestion_bits_are_cleared_or_cost_the_segment() {
        for family in FAMILIES {
            let marked = with_ecn(frame(family, SYN | ECE | CWR, &[], &[]), CONGESTION_EXPERIENCED);
            let treatment = |ecn| Treatment { ecn, ..Treatment::default() };
            let clean = frame(family, SYN, &[], &[]);
            assert_eq!(passed(treatment(EcnTreatment::Clears), std::slice::from_ref(&marked)).0, [clean]);
            assert!(passed(treatment(EcnTreatment::Drops), std::slice::from_ref(&marked)).0.is_empty());
            assert_eq!(passed(treatment(EcnTreatment::Passes), std::slice::from_ref(&marked)).0, [marked]);
        }
    }

    #[test]
    fn one_of_so_many_is_marked_where_it_may_be() {
        for (family, byte_shift) in FAMILIES.into_iter().zip([0, 4]) {
            let incapable = frame(family, ACK, &[], b"data");
            let capable = with_ecn(incapable.clone(), ECT_0);
            let treatment = Treatment { ecn: EcnTreatment::Marks(2), ..Treatment::default() };
            let all = [incapable, capable.clone(), capable.clone(), capable];
            let marks: Vec<u8> = passed(treatment, &all).0.iter().map(|frame| frame[IP + 1] >> byte_shift).collect();
            assert_eq!(marks, [0, CONGESTION_EXPERIENCED, ECT_0, CONGESTION_EXPERIENCED]);
        }
    }
}
