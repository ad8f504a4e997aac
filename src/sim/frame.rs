//! Frames of both families: where what lies in them, and changes that middleboxes and clients' cables make.
//!
//! Invariant: only segments whose checksums are right are changed, and they leave with right ones; so nothing that was
//! spoilt on the way is made whole.

use std::ops::Range;

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

/// Length of an Ethernet header; behind it is the IP packet.
pub(super) const IP: usize = 14;
pub(super) const FIN: u8 = 1 << 0;
pub(super) const SYN: u8 = 1 << 1;
pub(super) const RST: u8 = 1 << 2;
pub(super) const ACK: u8 = 1 << 4;
pub(super) const ECE: u8 = 1 << 6;
pub(super) const CWR: u8 = 1 << 7;
pub(super) const NO_OPERATION: u8 = 1;
const END_OF_OPTIONS: u8 = 0;
const SACK: u8 = 5;
const IPV6_BYTES: usize = 40;
const ECN_BITS: u8 = 3;

/// Which IP a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// The family of the packet in a frame; `None` where there is none.
pub(super) fn family(frame: &[u8]) -> Option<Family> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(Family::Ipv4),
        [0x86, 0xdd] => Some(Family::Ipv6),
        _ => None,
    }
}

/// Where what lies in a frame that carries a TCP segment.
pub(super) struct Layout {
    pub(super) family: Family,
    pub(super) tcp: usize,
    pub(super) options_end: usize,
    pub(super) end: usize,
}

impl Layout {
    /// Where the TCP segment of a frame lies; `None` where there is none, or it is spoilt. Neither stack sends headers
    /// between.
    pub(super) fn of(frame: &[u8]) -> Option<Layout> {
        let family = family(frame)?;
        let packet = frame.get(IP..)?;
        let (tcp, end, protocol) = match family {
            Family::Ipv4 => {
                let ip = Ipv4Packet::new_checked(packet).ok().filter(Ipv4Packet::verify_checksum)?;
                (usize::from(ip.header_len()), usize::from(ip.total_len()), ip.next_header())
            }
            Family::Ipv6 => {
                let ip = Ipv6Packet::new_checked(packet).ok()?;
                (IPV6_BYTES, ip.total_len(), ip.next_header())
            }
        };
        let (tcp, end) = (IP + tcp, IP + end);
        let segment = TcpPacket::new_checked(frame.get(tcp..end)?).ok()?;
        let layout = Layout { family, tcp, options_end: tcp + usize::from(segment.header_len()), end };
        let (source, destination) = layout.addresses(frame);
        (protocol == IpProtocol::Tcp && segment.verify_checksum(&source, &destination)).then_some(layout)
    }

    /// The bits of congestion notification in the IP header (RFC 3168 §5).
    pub(super) fn ecn(&self, frame: &[u8]) -> u8 {
        match self.family {
            Family::Ipv4 => frame[IP + 1] & ECN_BITS,
            Family::Ipv6 => frame[IP + 1] >> 4 & ECN_BITS,
        }
    }

    /// Overwrites them; the checksum is another matter.
    pub(super) fn set_ecn(&self, frame: &mut [u8], bits: u8) {
        let shift = if self.family == Family::Ipv4 { 0 } else { 4 };
        frame[IP + 1] = frame[IP + 1] & !(ECN_BITS << shift) | bits << shift;
    }

    /// Makes the checksums right.
    pub(super) fn write_checksums(&self, frame: &mut [u8]) {
        if self.family == Family::Ipv4 {
            Ipv4Packet::new_unchecked(&mut frame[IP..]).fill_checksum();
        }
        let (source, destination) = self.addresses(frame);
        TcpPacket::new_unchecked(&mut frame[self.tcp..self.end]).fill_checksum(&source, &destination);
    }

    fn addresses(&self, frame: &[u8]) -> (IpAddress, IpAddress) {
        match self.family {
            Family::Ipv4 => {
                let ip = Ipv4Packet::new_unchecked(&frame[IP..]);
                (ip.src_addr().into(), ip.dst_addr().into())
            }
            Family::Ipv6 => {
                let ip = Ipv6Packet::new_unchecked(&frame[IP..]);
                (ip.src_addr().into(), ip.dst_addr().into())
            }
        }
    }
}

/// Where which option stands, but for NOPs and what is broken.
pub(super) fn places(options: &[u8]) -> Vec<(u8, Range<usize>)> {
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
    let Some(layout) = Layout::of(frame) else { return };
    let has_ack = frame[layout.tcp + 13] & ACK != 0;
    add(&mut frame[layout.tcp + 4..layout.tcp + 8], seq_by);
    if has_ack && ack_by != 0 {
        add(&mut frame[layout.tcp + 8..layout.tcp + 12], ack_by);
        let options = &mut frame[layout.tcp + 20..layout.options_end];
        for (_, place) in places(options).into_iter().filter(|&(kind, _)| kind == SACK) {
            options[place][2..].chunks_exact_mut(4).for_each(|edge| add(edge, ack_by));
        }
    }
    layout.write_checksums(frame);
}

/// Makes a reset of a whole segment.
pub(super) fn make_reset(frame: &mut [u8]) {
    if let Some(layout) = Layout::of(frame) {
        frame[layout.tcp + 13] |= RST;
        layout.write_checksums(frame);
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
    let header_bytes = match family(frame)? {
        Family::Ipv4 => usize::from(frame.get(IP)? & 0x0f) * 4,
        Family::Ipv6 => IPV6_BYTES,
    };
    let port = frame.get(IP + header_bytes + offset..)?.first_chunk()?;
    Some(u16::from_be_bytes(*port))
}

/// The client's port and sequence number in a SYN that opens a connection.
pub(super) fn opening_syn(frame: &[u8]) -> Option<(u16, u32)> {
    let tcp = Layout::of(frame)?.tcp;
    let is_opening = frame[tcp + 13] & (SYN | ACK) == SYN;
    let seq = u32::from_be_bytes([frame[tcp + 4], frame[tcp + 5], frame[tcp + 6], frame[tcp + 7]]);
    is_opening.then(|| (u16::from_be_bytes([frame[tcp], frame[tcp + 1]]), seq))
}

#[cfg(test)]
pub(super) mod tests {
    use smoltcp::wire::{EthernetFrame, EthernetProtocol, TcpSeqNumber};

    use super::*;

    pub(in super::super) const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
    pub(in super::super) const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

    /// A frame from port 9 with these flags, options and payload.
    pub(in super::super) fn frame(family: Family, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let segment_bytes = 20 + options.len() + payload.len();
        let (ethertype, header_bytes) = match family {
            Family::Ipv4 => (EthernetProtocol::Ipv4, 20),
            Family::Ipv6 => (EthernetProtocol::Ipv6, IPV6_BYTES),
        };
        let at = IP + header_bytes;
        let mut frame = vec![0; at + segment_bytes];
        EthernetFrame::new_unchecked(&mut frame).set_ethertype(ethertype);
        if family == Family::Ipv4 {
            let mut ip = Ipv4Packet::new_unchecked(&mut frame[IP..]);
            ip.set_version(4);
            ip.set_header_len(20);
            ip.set_total_len((header_bytes + segment_bytes) as u16);
            ip.set_next_header(IpProtocol::Tcp);
        } else {
            let mut ip = Ipv6Packet::new_unchecked(&mut frame[IP..]);
            ip.set_version(6);
            ip.set_payload_len(segment_bytes as u16);
            ip.set_next_header(IpProtocol::Tcp);
        }
        let mut tcp = TcpPacket::new_unchecked(&mut frame[at..]);
        tcp.set_src_port(9);
        tcp.set_dst_port(7);
        tcp.set_seq_number(TcpSeqNumber(100));
        tcp.set_ack_number(TcpSeqNumber(200));
        tcp.set_header_len(20 + options.len() as u8);
        let options_end = at + 20 + options.len();
        frame[at + 13] = flags;
        frame[at + 20..options_end].copy_from_slice(options);
        frame[options_end..].copy_from_slice(payload);
        let layout = Layout { family, tcp: at, options_end, end: frame.len() };
        layout.write_checksums(&mut frame);
        frame
    }

    #[test]
    fn numbers_are_shifted_selective_acknowledgments_too_but_never_in_what_is_spoilt() {
        for (family, at) in FAMILIES.into_iter().zip([IP + 20, IP + 40]) {
            let sack = [1, 1, 5, 10, 0, 0, 0, 5, 0, 0, 0, 9];
            let mut shifted = frame(family, ACK, &sack, b"x");
            shift_numbers(&mut shifted, 1, u32::MAX);
            let number = |at: usize| u32::from_be_bytes(shifted[at..at + 4].try_into().unwrap());
            assert_eq!([at + 4, at + 8, at + 24, at + 28].map(number), [101, 199, 4, 8]);
            assert!(Layout::of(&shifted).is_some(), "its checksums are right");
            shifted[at + 32] ^= 1;
            let spoilt = shifted.clone();
            shift_numbers(&mut shifted, 1, 1);
            assert_eq!(shifted, spoilt);
        }
    }

    #[test]
    fn ports_are_found_in_what_is_spoilt_too() {
        for family in FAMILIES {
            let mut spoilt = frame(family, SYN, &SYN_OPTIONS, &[]);
            assert_eq!(opening_syn(&spoilt), Some((9, 100)));
            *spoilt.last_mut().unwrap() ^= 1;
            assert_eq!((source_port(&spoilt), destination_port(&spoilt)), (Some(9), Some(7)));
            assert_eq!(opening_syn(&spoilt), None);
        }
    }
}
