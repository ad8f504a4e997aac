//! Joined segments: what the kernel cuts for us (TSO and GSO, virtio 1.2 §5.1.6).
//!
//! Comes in: the frames of a batch, one after the other. Goes out: a `virtio_net_hdr` and a frame to be written behind
//! it. Segments of one connection that follow each other, alike but for their sequence numbers, become one of up to
//! 64 KB that the kernel cuts again where it must: so a burst costs one system call, and between the ends of a veth
//! pair it is never cut at all.
//!
//! ```text
//!   seq 1000: headers | 1448 bytes     seq 2448: headers | 1448 bytes     seq 3896: headers | 700 bytes, PSH
//!   ->  headers, seq 1000, PSH | 3596 bytes, to be cut every 1448
//! ```
//!
//! Invariant: cut as the header says, a joined frame is the frames that went into it. The kernel numbers IPv4 packets
//! that it has cut, which says nothing of packets that may not be fragmented (RFC 6864 §4.1).

use std::io;

use super::offload::{HEADER_BYTES, NEEDS_CHECKSUM};
use crate::wire::Sum;
use crate::wire::field::protocol::TCP;
use crate::wire::field::{ethernet, ipv4, ipv6, tcp, u16_in, u32_in};

/// Frames that are being joined.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// What is joined so far; empty: nothing.
    frame: Vec<u8>,
    tcp_at: usize,
    payload_at: usize,
    /// Payload of every segment but the last, which may have less.
    segment_bytes: usize,
    segments: usize,
    /// Nothing may follow.
    is_closed: bool,
}

impl Joined {
    fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Forgets what is joined.
    pub fn clear(&mut self) {
        self.frame.clear();
    }

    /// Begins with a frame. `false`, and nothing is kept, where no other could follow it.
    pub fn begin(&mut self, frame: &[u8]) -> bool {
        let Some((tcp_at, payload_at)) = places(frame).filter(|_| self.is_empty()) else { return false };
        if frame[tcp_at + tcp::CONTROL] != ACK || payload_at == frame.len() {
            return false;
        }
        self.frame.extend_from_slice(frame);
        (self.tcp_at, self.payload_at) = (tcp_at, payload_at);
        (self.segment_bytes, self.segments, self.is_closed) = (frame.len() - payload_at, 1, false);
        true
    }

    /// Adds a frame. `false` where it does not follow what is there.
    pub fn append(&mut self, frame: &[u8]) -> bool {
        let (tcp_at, payload) = (self.tcp_at, self.payload_at);
        if self.is_empty() || self.is_closed || frame.len() <= payload || frame.len() - payload > self.segment_bytes {
            return false;
        }
        let next_seq = seq_of(&self.frame, tcp_at).wrapping_add((self.frame.len() - payload) as u32);
        let flags = frame[tcp_at + tcp::CONTROL];
        let has_room = self.frame.len() + frame.len() - payload - IP <= PACKET_BYTES_MAX;
        let is_next = has_room
            && flags & !PSH == ACK
            && places(frame) == Some((tcp_at, payload))
            && seq_of(frame, tcp_at) == next_seq
            && self.is_alike(frame);
        if !is_next {
            return false;
        }
        self.frame.extend_from_slice(&frame[payload..]);
        self.frame[tcp_at + tcp::CONTROL] |= flags;
        self.segments += 1;
        self.is_closed = flags != ACK || frame.len() - payload < self.segment_bytes;
        true
    }

    /// Has what is joined written, and forgets it unless the answer is that it cannot leave now.
    pub fn let_go(&mut self, write: impl FnOnce(&[u8; HEADER_BYTES], &[u8]) -> io::Result<bool>) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(true);
        }
        let (header, frame) = self.finish();
        let is_gone = write(&header, frame)?;
        if is_gone {
            self.clear();
        }
        Ok(is_gone)
    }

    /// Whether the headers are the same but for lengths, checksums, sequence number and flags.
    fn is_alike(&self, frame: &[u8]) -> bool {
        let (tcp_at, payload) = (self.tcp_at, self.payload_at);
        let lengths = if is_ipv4(frame) { [IPV4_LENGTH, IPV4_CHECKSUM] } else { [IPV6_LENGTH; 2] };
        let fixed = [
            0..lengths[0],
            lengths[0] + 2..lengths[1],
            lengths[1] + 2..tcp_at + tcp::SEQ,
            tcp_at + tcp::SEQ + 4..tcp_at + tcp::CONTROL,
            tcp_at + tcp::CONTROL + 1..tcp_at + tcp::CHECKSUM,
            tcp_at + tcp::CHECKSUM + 2..payload,
        ];
        fixed.into_iter().all(|range| self.frame.get(range.clone()) == frame.get(range))
    }

    /// What is joined, complete, and the header to be written in front of it. Nothing can be added any more.
    fn finish(&mut self) -> ([u8; HEADER_BYTES], &[u8]) {
        self.is_closed = true;
        if self.segments == 1 {
            return ([0; HEADER_BYTES], &self.frame);
        }
        let tcp_bytes = self.frame.len() - self.tcp_at;
        let is_ipv4 = is_ipv4(&self.frame);
        if is_ipv4 {
            let ip_bytes = (self.frame.len() - IP) as u16;
            self.frame[IPV4_LENGTH..IPV4_LENGTH + 2].copy_from_slice(&ip_bytes.to_be_bytes());
            self.frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].fill(0);
            let sum = Sum::default().add_bytes(&self.frame[IP..self.tcp_at]).finish();
            self.frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        } else {
            self.frame[IPV6_LENGTH..IPV6_LENGTH + 2].copy_from_slice(&(tcp_bytes as u16).to_be_bytes());
        }
        // Both addresses end where TCP begins.
        let addresses = if is_ipv4 { 8 } else { 32 };
        let pseudo = Sum::default()
            .add_words(&[u32::from(TCP) << 16 | tcp_bytes as u32])
            .add_bytes(&self.frame[self.tcp_at - addresses..self.tcp_at]);
        let checksum_at = self.tcp_at + tcp::CHECKSUM;
        self.frame[checksum_at..checksum_at + 2].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
        let mut header = [0; HEADER_BYTES];
        header[0] = NEEDS_CHECKSUM;
        header[1] = if is_ipv4 { GSO_TCPV4 } else { GSO_TCPV6 };
        for (at, number) in [(2, self.payload_at), (4, self.segment_bytes), (6, self.tcp_at), (8, tcp::CHECKSUM)] {
            header[at..at + 2].copy_from_slice(&(number as u16).to_ne_bytes());
        }
        (header, &self.frame)
    }
}

/// Where TCP and its payload begin in a frame that is one whole TCP segment over plain IP.
fn places(frame: &[u8]) -> Option<(usize, usize)> {
    let (tcp_at, end) = match u16_in(frame, ethernet::TYPE)? {
        ethernet::TYPE_IPV4 if *frame.get(IP)? == 0x45 && *frame.get(IP + ipv4::PROTOCOL)? == TCP => {
            // Neither a fragment nor one of many that are told apart by a number.
            let is_plain = u16_in(frame, IP + ipv4::FRAGMENT)? == ipv4::DONT_FRAGMENT
                && u16_in(frame, IP + ipv4::IDENTIFICATION)? == 0;
            is_plain.then_some((IP + ipv4::BYTES, IP + usize::from(u16_in(frame, IPV4_LENGTH)?)))?
        }
        ethernet::TYPE_IPV6 if *frame.get(IP + ipv6::NEXT_HEADER)? == TCP => {
            let tcp_at = IP + ipv6::BYTES;
            (tcp_at, tcp_at + usize::from(u16_in(frame, IPV6_LENGTH)?))
        }
        _ => return None,
    };
    let payload_at = tcp_at + usize::from(*frame.get(tcp_at + tcp::DATA_OFFSET)? >> 4) * 4;
    (payload_at >= tcp_at + tcp::BYTES && payload_at <= end && end == frame.len()).then_some((tcp_at, payload_at))
}

fn seq_of(frame: &[u8], tcp_at: usize) -> u32 {
    u32_in(frame, tcp_at + tcp::SEQ).expect("a TCP header is longer")
}

fn is_ipv4(frame: &[u8]) -> bool {
    u16_in(frame, ethernet::TYPE) == Some(ethernet::TYPE_IPV4)
}

/// Where the IP header begins.
const IP: usize = ethernet::BYTES;
const IPV4_LENGTH: usize = IP + ipv4::TOTAL_BYTES;
const IPV4_CHECKSUM: usize = IP + ipv4::CHECKSUM;
const IPV6_LENGTH: usize = IP + ipv6::PAYLOAD_BYTES;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// VIRTIO_NET_HDR_GSO_TCPV4 and _TCPV6.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// What the length of an IPv4 packet can say. An IPv6 packet has its header on top.
const PACKET_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a segment, by hand: this room may not use `tcp`, of whose values `wire` makes frames.
    fn segment(is_ipv4: bool, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let tcp_bytes = (32 + payload.len()) as u16;
        let addresses: Vec<u8> = if is_ipv4 { vec![10, 0, 0, 2, 10, 0, 0, 1] } else { (0..32).collect() };
        if is_ipv4 {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + tcp_bytes).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
            frame.extend(&addresses);
            let sum = Sum::default().add_bytes(&frame[14..34]).finish();
            frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(tcp_bytes.to_be_bytes());
            frame.extend([TCP, 64]);
            frame.extend(&addresses);
        }
        let tcp_at = frame.len();
        frame.extend([0x1b, 0x58, 0x9c, 0x40]);
        frame.extend(seq.to_be_bytes());
        frame.extend([0, 0, 0, 7, 8 << 4, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]);
        frame.extend(payload);
        let pseudo = Sum::default().add_words(&[u32::from(TCP) << 16 | u32::from(tcp_bytes)]).add_bytes(&addresses);
        let sum = pseudo.add_bytes(&frame[tcp_at..]).finish();
        frame[tcp_at + tcp::CHECKSUM..tcp_at + tcp::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Cuts a joined frame by its header, as a network card does.
    fn cut(header: [u8; HEADER_BYTES], frame: &[u8]) -> Vec<Vec<u8>> {
        let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        if header[0] == 0 {
            return vec![frame.to_vec()];
        }
        let (payload_at, tcp_at, is_ipv4) = (number(2), number(6), header[1] == GSO_TCPV4);
        assert_eq!((header[0], number(8)), (NEEDS_CHECKSUM, 16));
        // With the checksum completed the whole is a valid segment.
        let mut whole = frame.to_vec();
        assert_eq!(super::super::offload::complete(&header, &mut whole), Ok(()));
        assert!(places(&whole) == Some((tcp_at, payload_at)));
        let pseudo_bytes = if is_ipv4 { 8 } else { 32 };
        let words = [u32::from(TCP) << 16 | (whole.len() - tcp_at) as u32];
        assert_eq!(Sum::default().add_words(&words).add_bytes(&whole[tcp_at - pseudo_bytes..]).finish(), 0);
        let pieces: Vec<&[u8]> = frame[payload_at..].chunks(number(4)).collect();
        let (mut seq, last) = (seq_of(frame, tcp_at), pieces.len() - 1);
        let mut frames = Vec::new();
        for (index, piece) in pieces.into_iter().enumerate() {
            let flags = if index == last { frame[tcp_at + tcp::CONTROL] } else { ACK };
            frames.push(segment(is_ipv4, seq, flags, piece));
            seq = seq.wrapping_add(piece.len() as u32);
        }
        frames
    }

    /// What comes out for what goes in, and in how many writes.
    fn through(frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
        let (mut joined, mut out, mut writes) = (Joined::default(), Vec::new(), 0);
        for frame in frames {
            if joined.append(frame) {
                continue;
            }
            if !joined.is_empty() {
                let (header, whole) = joined.finish();
                out.extend(cut(header, whole));
                joined.clear();
                writes += 1;
            }
            if !joined.begin(frame) {
                out.push(frame.clone());
                writes += 1;
            }
        }
        if !joined.is_empty() {
            let (header, whole) = joined.finish();
            out.extend(cut(header, whole));
            writes += 1;
        }
        (out, writes)
    }

    fn payload(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes).map(|at| ((at + seed) * 151 + at / 7) as u8).collect()
    }

    #[test]
    fn a_burst_is_one_write_and_comes_out_as_it_went_in() {
        for is_ipv4 in [true, false] {
            for (segments, last_bytes) in [(2, 1), (3, 700), (7, 1_448), (44, 1_447)] {
                for start in [1_000_u32, u32::MAX - 2_000] {
                    let mut frames = Vec::new();
                    for index in 0..segments {
                        let is_last = index == segments - 1;
                        let bytes = if is_last { last_bytes } else { 1_448 };
                        let seq = start.wrapping_add(1_448 * index as u32);
                        let flags = if is_last { ACK | PSH } else { ACK };
                        frames.push(segment(is_ipv4, seq, flags, &payload(bytes, index)));
                    }
                    let (out, writes) = through(&frames);
                    assert!(out == frames, "{segments} segments, the last of {last_bytes} bytes, from {start}");
                    assert_eq!(writes, 1);
                }
            }
        }
    }

    #[test]
    fn what_does_not_follow_is_not_joined() {
        for is_ipv4 in [true, false] {
            let first = segment(is_ipv4, 1_000, ACK, &payload(100, 1));
            let next = segment(is_ipv4, 1_100, ACK, &payload(100, 2));
            let tcp_at = if is_ipv4 { 34 } else { 54 };
            assert_eq!(through(&[first.clone(), next.clone()]).1, 1);
            // Any change of a header but for checksums, which are made anew: other addresses, ports, numbers, options.
            for at in (0..tcp_at + 32).filter(|at| ![IPV4_CHECKSUM, IPV4_CHECKSUM + 1].contains(at) || !is_ipv4) {
                if (tcp_at + tcp::CHECKSUM..tcp_at + tcp::CHECKSUM + 2).contains(&at) {
                    continue;
                }
                let mut other = next.clone();
                other[at] ^= 0x41;
                let mut joined = Joined::default();
                assert!(joined.begin(&first) && !joined.append(&other), "byte {at}");
            }
            let longer = segment(is_ipv4, 1_100, ACK, &payload(101, 2));
            assert_eq!(through(&[first.clone(), longer]).1, 2, "more than the first one has");
            let pushed = segment(is_ipv4, 1_100, ACK | PSH, &payload(100, 2));
            let behind = segment(is_ipv4, 1_200, ACK, &payload(100, 3));
            assert_eq!(through(&[first.clone(), pushed, behind]).1, 2, "PSH ends it");
            let shorter = segment(is_ipv4, 1_100, ACK, &payload(99, 2));
            let behind = segment(is_ipv4, 1_199, ACK, &payload(99, 3));
            assert_eq!(through(&[first, shorter, behind]).1, 2, "and so does a shorter one");
        }
    }

    #[test]
    fn what_no_other_may_follow_goes_alone() {
        let mut joined = Joined::default();
        for flags in [ACK | PSH, ACK | 1, 2, 4, ACK | 0x40, ACK | 0x80, ACK | 0x20] {
            assert!(!joined.begin(&segment(true, 1, flags, &payload(10, 0))), "{flags:#x}");
        }
        assert!(!joined.begin(&segment(true, 1, ACK, &[])), "a pure acknowledgment");
        let whole = segment(true, 1, ACK, &payload(10, 0));
        for length in 0..whole.len() {
            assert!(!joined.begin(&whole[..length]), "cut at {length}");
        }
        let mut padded = whole.clone();
        padded.push(0);
        assert!(!joined.begin(&padded));
        assert!(joined.begin(&whole) && !joined.begin(&whole), "one at a time");
    }

    #[test]
    fn no_packet_becomes_longer_than_its_length_can_say() {
        for is_ipv4 in [true, false] {
            let frames: Vec<Vec<u8>> =
                (0..100).map(|index| segment(is_ipv4, 1_448 * index, ACK, &payload(1_448, index as usize))).collect();
            let (out, writes) = through(&frames);
            assert!(out == frames);
            assert_eq!(writes, 3);
        }
    }
}
