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
use std::ops::Range;

use smoltcp::wire::{Ipv4Address, Ipv4Packet, TcpPacket};

use super::fault::Fault;
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

const IP: usize = 14;
const FIN: u8 = 1 << 0;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;
const ECE: u8 = 1 << 6;
const CWR: u8 = 1 << 7;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CONGESTION_EXPERIENCED: u8 = 3;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Where what lies in a frame that carries a TCP segment.
struct Layout {
    tcp: usize,
    options_end: usize,
    end: usize,
}

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
        let Some(layout) = layout(&frame) else { return Some(frame) };
        let treatment = match direction {
            Direction::ToNode => self.parameters.to_node.clone(),
            Direction::ToClient => self.parameters.to_client.clone(),
        };
        let flags = frame[layout.tcp + 13];
        let has_ecn = flags & (ECE | CWR) != 0 || frame[IP + 1] & 3 != 0;
        if has_ecn && treatment.ecn == EcnTreatment::Drops && !self.is_healed {
            statistics.count(Fault::EcnDropped);
            return None;
        }
        let mut is_changed = false;
        if has_ecn && treatment.ecn == EcnTreatment::Clears {
            statistics.count(Fault::EcnCleared);
            frame[IP + 1] &= !3;
            frame[layout.tcp + 13] &= !(ECE | CWR);
            is_changed = true;
        }
        if let EcnTreatment::Marks(one_of) = treatment.ecn
            && matches!(frame[IP + 1] & 3, ECT_0 | ECT_1)
            && !self.is_healed
        {
            is_changed |= self.markable_count.is_multiple_of(u64::from(one_of.max(1)));
            self.markable_count += 1;
            if is_changed {
                statistics.count(Fault::EcnMarked);
                frame[IP + 1] |= CONGESTION_EXPERIENCED;
            }
        }
        is_changed |= self.change_options(now_us, &treatment, &mut frame, &layout, statistics);
        if is_changed {
            write_checksums(&mut frame, &layout);
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

/// Where the TCP segment of a frame lies; `None` where there is none, or it is spoilt.
fn layout(frame: &[u8]) -> Option<Layout> {
    if frame.get(12..14)? != [0x08, 0x00] {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.get(IP..)?).ok()?;
    if !ip.verify_checksum() || u8::from(ip.next_header()) != 6 {
        return None;
    }
    let (tcp, end) = (IP + usize::from(ip.header_len()), IP + usize::from(ip.total_len()));
    let segment = TcpPacket::new_checked(frame.get(tcp..end)?).ok()?;
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let is_whole = segment.verify_checksum(&source.into(), &destination.into());
    is_whole.then(|| Layout { tcp, options_end: tcp + usize::from(segment.header_len()), end })
}

fn write_checksums(frame: &mut [u8], layout: &Layout) {
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[IP..]);
    ip.fill_checksum();
    let (source, destination): (Ipv4Address, Ipv4Address) = (ip.src_addr(), ip.dst_addr());
    let mut tcp = TcpPacket::new_unchecked(&mut frame[layout.tcp..layout.end]);
    tcp.fill_checksum(&source.into(), &destination.into());
}

/// Where which option stands, but for NOPs and what is broken.
fn places(options: &[u8]) -> Vec<(u8, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < options.len() && options[at] != END_OF_OPTIONS {
        let bytes = if options[at] == NO_OPERATION { 1 } else { options.get(at + 1).copied().unwrap_or(0).into() };
        if bytes == 0 || at + bytes > options.len() {
            break;
        }
        if options[at] != NO_OPERATION {
            found.push((options[at], at..at + bytes));
        }
        at += bytes;
    }
    found
}

/// Adds to the sequence number of a segment and to what it acknowledges, selectively too, with right checksums. Does
/// nothing to what carries no whole segment.
pub(super) fn shift_numbers(frame: &mut [u8], seq_by: u32, ack_by: u32) {
    let Some(layout) = layout(frame) else { return };
    let has_ack = frame[layout.tcp + 13] & ACK != 0;
    add(&mut frame[layout.tcp + 4..layout.tcp + 8], seq_by);
    if has_ack && ack_by != 0 {
        add(&mut frame[layout.tcp + 8..layout.tcp + 12], ack_by);
        let options = &mut frame[layout.tcp + 20..layout.options_end];
        for (_, place) in places(options).into_iter().filter(|&(kind, _)| kind == SACK) {
            options[place][2..].chunks_exact_mut(4).for_each(|edge| add(edge, ack_by));
        }
    }
    write_checksums(frame, &layout);
}

/// Makes a reset of a whole segment.
pub(super) fn make_reset(frame: &mut [u8]) {
    if let Some(layout) = layout(frame) {
        frame[layout.tcp + 13] |= RST;
        write_checksums(frame, &layout);
    }
}

fn add(number: &mut [u8], by: u32) {
    let before = u32::from_be_bytes([number[0], number[1], number[2], number[3]]);
    number.copy_from_slice(&before.wrapping_add(by).to_be_bytes());
}

/// The port that the segment of a frame comes from, whole or not.
pub(super) fn source_port(frame: &[u8]) -> Option<u16> {
    port(frame, 0)
}

/// The port that the segment of a frame goes to, whole or not.
pub(super) fn destination_port(frame: &[u8]) -> Option<u16> {
    port(frame, 2)
}

fn port(frame: &[u8], offset: usize) -> Option<u16> {
    let is_ip = frame.get(12..14)? == [0x08, 0x00];
    let at = IP + usize::from(frame.get(IP)? & 0x0f) * 4 + offset;
    is_ip.then(|| frame.get(at..at + 2)).flatten().map(|port| u16::from_be_bytes([port[0], port[1]]))
}

/// The client's port and sequence number in a SYN that opens a connection.
pub(super) fn opening_syn(frame: &[u8]) -> Option<(u16, u32)> {
    let tcp = layout(frame)?.tcp;
    let is_opening = frame[tcp + 13] & (SYN | ACK) == SYN;
    let seq = u32::from_be_bytes([frame[tcp + 4], frame[tcp + 5], frame[tcp + 6], frame[tcp + 7]]);
    is_opening.then(|| (u16::from_be_bytes([frame[tcp], frame[tcp + 1]]), seq))
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetFrame, IpProtocol, TcpSeqNumber};

    use super::*;

    const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

    /// A frame from port 9 with these flags, options and payload.
    fn frame(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; IP + 40 + options.len() + payload.len()];
        EthernetFrame::new_unchecked(&mut frame).set_ethertype(smoltcp::wire::EthernetProtocol::Ipv4);
        let bytes = (frame.len() - IP) as u16;
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[IP..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(bytes);
        ip.set_next_header(IpProtocol::Tcp);
        let mut tcp = TcpPacket::new_unchecked(&mut frame[IP + 20..]);
        tcp.set_src_port(9);
        tcp.set_dst_port(7);
        tcp.set_seq_number(TcpSeqNumber(100));
        tcp.set_ack_number(TcpSeqNumber(200));
        tcp.set_header_len(20 + options.len() as u8);
        frame[IP + 33] = flags;
        frame[IP + 40..IP + 40 + options.len()].copy_from_slice(options);
        frame[IP + 40 + options.len()..].copy_from_slice(payload);
        let end = frame.len();
        write_checksums(&mut frame, &Layout { tcp: IP + 20, options_end: IP + 40 + options.len(), end });
        frame
    }

    fn passed(treatment: Treatment, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, Statistics) {
        let parameters = MiddleboxParameters { to_node: treatment, to_client: Treatment::default() };
        let mut middlebox = Middlebox::new(&parameters);
        let mut statistics = Statistics::default();
        let passed =
            frames.iter().filter_map(|frame| middlebox.pass(0, Direction::ToNode, frame.clone(), &mut statistics));
        (passed.collect(), statistics)
    }

    #[test]
    fn options_that_are_stripped_become_nops_and_the_rest_stays() {
        let treatment = Treatment { strips: vec![4, 8], mss_max: Some(600), ..Treatment::default() };
        let (passed, statistics) = passed(treatment, &[frame(SYN, &SYN_OPTIONS, &[])]);
        let options = [2, 4, 2, 88, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7];
        assert_eq!(passed, [frame(SYN, &options, &[])]);
        assert_eq!(
            (statistics.faults[Fault::OptionsStripped as usize], statistics.faults[Fault::MssClamped as usize]),
            (1, 1)
        );
    }

    #[test]
    fn late_timestamps_are_stripped_from_what_is_no_syn() {
        let treatment = Treatment { no_timestamps_us: Some((0, 1)), ..Treatment::default() };
        let stamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
        let (passed, _) = passed(treatment, &[frame(SYN, &SYN_OPTIONS, &[]), frame(ACK, &stamps, b"x")]);
        assert_eq!(passed, [frame(SYN, &SYN_OPTIONS, &[]), frame(ACK, &[1; 12], b"x")]);
    }

    #[test]
    fn acks_are_thinned_and_data_passes() {
        let treatment = Treatment { passes_one_ack_of: 3, ..Treatment::default() };
        let (ack, data) = (frame(ACK, &[], &[]), frame(ACK, &[], b"data"));
        let all = [ack.clone(), data.clone(), ack.clone(), ack.clone(), ack.clone()];
        assert_eq!(passed(treatment, &all).0, [data, ack]);
    }

    #[test]
    fn a_later_ack_takes_the_place_of_one_that_waits() {
        let to_node = Treatment { ack_wait_us: 10, ..Treatment::default() };
        let mut middlebox = Middlebox::new(&MiddleboxParameters { to_node, to_client: Treatment::default() });
        let mut statistics = Statistics::default();
        for number in [1, 2] {
            let ack = frame(ACK, &[1; 4], &[]);
            let mut ack = ack.clone();
            shift_numbers(&mut ack, number, 0);
            assert_eq!(middlebox.pass(u64::from(number), Direction::ToNode, ack, &mut statistics), None);
        }
        assert_eq!((middlebox.next_release_us(), middlebox.release(10)), (Some(11), None));
        let mut last = frame(ACK, &[1; 4], &[]);
        shift_numbers(&mut last, 2, 0);
        assert_eq!(middlebox.release(11), Some((Direction::ToNode, last)));
        assert_eq!(middlebox.next_release_us(), None);
    }

    #[test]
    fn congestion_bits_are_cleared_or_cost_the_segment() {
        let mut marked = frame(SYN | ECE | CWR, &[], &[]);
        marked[IP + 1] = 3;
        let layout = Layout { tcp: IP + 20, options_end: IP + 40, end: IP + 40 };
        write_checksums(&mut marked, &layout);
        let treatment = |ecn| Treatment { ecn, ..Treatment::default() };
        assert_eq!(passed(treatment(EcnTreatment::Clears), &[marked.clone()]).0, [frame(SYN, &[], &[])]);
        assert!(passed(treatment(EcnTreatment::Drops), &[marked.clone()]).0.is_empty());
        assert_eq!(passed(treatment(EcnTreatment::Passes), &[marked.clone()]).0, [marked]);
    }

    #[test]
    fn one_of_so_many_is_marked_where_it_may_be() {
        let mut capable = frame(ACK, &[], b"data");
        capable[IP + 1] = ECT_0;
        let end = capable.len();
        write_checksums(&mut capable, &Layout { tcp: IP + 20, options_end: IP + 40, end });
        let treatment = Treatment { ecn: EcnTreatment::Marks(2), ..Treatment::default() };
        let all = [frame(ACK, &[], b"data"), capable.clone(), capable.clone(), capable];
        let marks: Vec<u8> = passed(treatment, &all).0.iter().map(|frame| frame[IP + 1]).collect();
        assert_eq!(marks, [0, CONGESTION_EXPERIENCED, ECT_0, CONGESTION_EXPERIENCED]);
    }

    #[test]
    fn numbers_are_shifted_selective_acknowledgments_too_but_never_in_what_is_spoilt() {
        let sack = [1, 1, 5, 10, 0, 0, 0, 5, 0, 0, 0, 9];
        let mut shifted = frame(ACK, &sack, b"x");
        shift_numbers(&mut shifted, 1, u32::MAX);
        let number = |at: usize| u32::from_be_bytes(shifted[at..at + 4].try_into().unwrap());
        assert_eq!([IP + 24, IP + 28, IP + 44, IP + 48].map(number), [101, 199, 4, 8]);
        assert!(layout(&shifted).is_some(), "its checksums are right");
        shifted[IP + 52] ^= 1;
        let spoilt = shifted.clone();
        shift_numbers(&mut shifted, 1, 1);
        assert_eq!(shifted, spoilt);
    }
}
