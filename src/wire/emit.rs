//! Values as frames.
//!
//! Frames are appended to a buffer that is used again; payload is written in place by the caller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::field::{ethernet, ipv4, ipv6, protocol, tcp};
use crate::tcp::{Control, Outgoing, Timestamps};

/// What the data offset of a header can say, less the fixed header (RFC 9293 §3.1).
const OPTION_WORDS_MAX: usize = 10;
/// ECN-capable transport (RFC 3168 §5).
const ECT_0: u8 = 0x02;

/// Both ends of a frame that we send. Both addresses are of one family, which is that of the packet.
#[derive(Clone, Copy, Debug)]
pub struct Addressing {
    /// Our Ethernet address.
    pub source_mac: [u8; 6],
    /// Where the frame goes.
    pub destination_mac: [u8; 6],
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// Time to live, or hop limit (MUST-49).
    pub ttl: u8,
    /// Differentiated services codepoint, six bits (RFC 2474 §3).
    pub dscp: u8,
}

impl Addressing {
    /// Both ends of a packet that is no segment.
    pub(super) fn without_ports(
        source_mac: [u8; 6],
        destination_mac: [u8; 6],
        local: IpAddr,
        remote: IpAddr,
        ttl: u8,
    ) -> Addressing {
        Addressing { source_mac, destination_mac, local, remote, local_port: 0, remote_port: 0, ttl, dscp: 0 }
    }
}

/// Appends a frame with this segment. `fill` appends exactly `outgoing.payload_bytes` bytes.
#[inline]
pub fn emit_tcp(out: &mut Vec<u8>, ends: &Addressing, outgoing: &Outgoing, fill: impl FnOnce(&mut Vec<u8>)) {
    let options = OptionWords::of(outgoing);
    let header_bytes = tcp::BYTES + options.bytes();
    let tcp_bytes = header_bytes + outgoing.payload_bytes as usize;
    let traffic_class = ends.dscp << 2 | if outgoing.is_ecn_capable { ECT_0 } else { 0 };
    match LowerHeaders::of(ends, traffic_class, protocol::TCP, tcp_bytes) {
        LowerHeaders::Ipv4(headers) => out.extend_from_slice(&headers),
        LowerHeaders::Ipv6(headers) => out.extend_from_slice(&headers),
    }
    let start = out.len();
    let words = tcp_words(ends, outgoing, header_bytes);
    let mut header = [0; tcp::BYTES];
    put_words(&mut header, &words);
    out.extend_from_slice(&header);
    for word in options.words() {
        out.extend_from_slice(&word.to_be_bytes());
    }
    fill(out);
    let segment = &mut out[start..];
    assert!(segment.len() == tcp_bytes, "a segment carries what its header says");
    let sum = Sum::default().add_pseudo_header(ends.local, ends.remote, protocol::TCP, tcp_bytes);
    let sum = sum.add_words(&words).add_words(options.words()).add_bytes(&segment[header_bytes..]);
    segment[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum.finish().to_be_bytes());
}

/// The fixed header (RFC 9293 §3.1), its checksum 0.
#[inline]
fn tcp_words(ends: &Addressing, outgoing: &Outgoing, header_bytes: usize) -> [u32; 5] {
    let has = |bit| outgoing.control.has(bit);
    let data_offset = header_bytes as u32 / 4;
    [
        u32::from(ends.local_port) << 16 | u32::from(ends.remote_port),
        outgoing.seq.0,
        if has(Control::ACK) { outgoing.ack.0 } else { 0 },
        data_offset << 28 | u32::from(outgoing.control.0) << 16 | u32::from(outgoing.window),
        if has(Control::URG) { outgoing.urgent.into() } else { 0 },
    ]
}

/// Writes words in network order.
#[inline]
fn put_words(bytes: &mut [u8], words: &[u32]) {
    for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
}

/// The headers below TCP or ICMP.
pub(super) enum LowerHeaders {
    Ipv4([u8; ethernet::BYTES + ipv4::BYTES]),
    Ipv6([u8; ethernet::BYTES + ipv6::BYTES]),
}

impl LowerHeaders {
    /// Of a packet with so many bytes of that protocol.
    #[inline]
    pub fn of(ends: &Addressing, traffic_class: u8, protocol: u8, payload_bytes: usize) -> LowerHeaders {
        match (ends.local, ends.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let mut headers = [0; _];
                let (ethernet, ip) = headers.split_at_mut(ethernet::BYTES);
                put_ethernet(ethernet, ends, ethernet::TYPE_IPV4);
                put_ipv4(ip, ends.ttl, (local, remote), traffic_class, protocol, payload_bytes);
                LowerHeaders::Ipv4(headers)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let mut headers = [0; _];
                let (ethernet, ip) = headers.split_at_mut(ethernet::BYTES);
                put_ethernet(ethernet, ends, ethernet::TYPE_IPV6);
                put_ipv6(ip, ends.ttl, (local, remote), traffic_class, protocol, payload_bytes);
                LowerHeaders::Ipv6(headers)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!(
                "a connection has one family: its key is found by our address and a peer of the same packet"
            ),
        }
    }

    /// How long those of such a packet are.
    pub fn bytes_of(ends: &Addressing) -> usize {
        match ends.local {
            IpAddr::V4(_) => ethernet::BYTES + ipv4::BYTES,
            IpAddr::V6(_) => ethernet::BYTES + ipv6::BYTES,
        }
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            LowerHeaders::Ipv4(headers) => headers,
            LowerHeaders::Ipv6(headers) => headers,
        }
    }
}

#[inline]
fn put_ethernet(header: &mut [u8], ends: &Addressing, ether_type: u16) {
    header[..6].copy_from_slice(&ends.destination_mac);
    header[6..12].copy_from_slice(&ends.source_mac);
    header[ethernet::TYPE..].copy_from_slice(&ether_type.to_be_bytes());
}

/// DF is set, so the identification may stay 0 (RFC 6864 §4.1).
#[inline]
fn put_ipv4(
    header: &mut [u8],
    ttl: u8,
    (local, remote): (Ipv4Addr, Ipv4Addr),
    traffic_class: u8,
    protocol: u8,
    payload_bytes: usize,
) {
    const VERSION_AND_LENGTH: u32 = 0x45;
    let mut words = [
        VERSION_AND_LENGTH << 24 | u32::from(traffic_class) << 16 | (ipv4::BYTES + payload_bytes) as u32,
        u32::from(ipv4::DONT_FRAGMENT),
        u32::from(ttl) << 24 | u32::from(protocol) << 16,
        local.to_bits(),
        remote.to_bits(),
    ];
    words[2] |= u32::from(Sum::default().add_words(&words).finish());
    put_words(header, &words);
}

/// The flow label is 0: packets of a connection are told by addresses and ports (RFC 6437 §3).
#[inline]
fn put_ipv6(
    header: &mut [u8],
    ttl: u8,
    (local, remote): (Ipv6Addr, Ipv6Addr),
    traffic_class: u8,
    protocol: u8,
    payload_bytes: usize,
) {
    const VERSION: u32 = 6;
    let lengths = (payload_bytes as u32) << 16 | u32::from(protocol) << 8 | u32::from(ttl);
    put_words(header, &[VERSION << 28 | u32::from(traffic_class) << 20, lengths]);
    header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&local.octets());
    header[ipv6::DESTINATION..].copy_from_slice(&remote.octets());
}

/// The options of a segment in 32-bit words, of which each of ours, with its padding, has a whole number.
struct OptionWords {
    words: [u32; OPTION_WORDS_MAX],
    count: usize,
}

impl OptionWords {
    #[inline]
    fn of(outgoing: &Outgoing) -> OptionWords {
        const NO_OPERATIONS: u32 = 0x0101_0000;
        let mut options = OptionWords { words: [0; OPTION_WORDS_MAX], count: 0 };
        if let Some(mss) = outgoing.mss {
            options.push(0x0204_0000 | u32::from(mss));
        }
        if outgoing.sack_permitted {
            options.push(NO_OPERATIONS | 0x0402);
        }
        if let Some(Timestamps { value, echo }) = outgoing.timestamps {
            options.push(NO_OPERATIONS | 0x080a);
            options.push(value);
            options.push(echo);
        }
        if let Some(shift) = outgoing.window_shift {
            options.push(0x0103_0300 | u32::from(shift));
        }
        if !outgoing.sack.is_empty() {
            options.push(NO_OPERATIONS | 0x0500 | (2 + 8 * outgoing.sack.len() as u32));
            for (start, end) in outgoing.sack.iter() {
                options.push(start.0);
                options.push(end.0);
            }
        }
        options
    }

    #[inline]
    fn push(&mut self, word: u32) {
        self.words[self.count] = word;
        self.count += 1;
    }

    #[inline]
    fn words(&self) -> &[u32] {
        &self.words[..self.count]
    }

    #[inline]
    fn bytes(&self) -> usize {
        4 * self.count
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, parse};
    use super::*;
    use crate::tcp::SeqNum;

    fn both_families() -> [Addressing; 2] {
        let pairs = [["10.0.0.1", "10.0.0.2"], ["fd00::1", "2001:db8:ffff::fffe"]];
        pairs.map(|pair| {
            let [local, remote] = pair.map(|text| text.parse().expect("is an address"));
            Addressing {
                source_mac: [2, 0, 0, 0, 0, 1],
                destination_mac: [2, 0, 0, 0, 0, 2],
                local,
                remote,
                local_port: 7000,
                remote_port: 40_000,
                ttl: 64,
                dscp: 46,
            }
        })
    }

    #[test]
    fn what_is_emitted_is_parsed_to_the_same() {
        for (ends, payload_bytes) in
            both_families().iter().flat_map(|ends| [0usize, 1, 2, 7, 1448].map(|it| (ends, it)))
        {
            let payload: Vec<u8> = (0..payload_bytes).map(|i| i as u8).collect();
            let outgoing = Outgoing {
                payload_bytes: payload_bytes as u32,
                urgent: 5,
                mss: Some(1460),
                window_shift: Some(3),
                timestamps: Some(Timestamps { value: 0x0102_0304, echo: u32::MAX }),
                ..Outgoing::bare(SeqNum(u32::MAX), SeqNum(7), Control::SYN.with(Control::ACK).with(Control::URG), 513)
            };
            let mut frame = Vec::new();
            emit_tcp(&mut frame, ends, &outgoing, |out| out.extend_from_slice(&payload));
            let Ok(Packet::Tcp(packet)) = parse(&frame, &[2, 0, 0, 0, 0, 2]) else { panic!("is a TCP packet") };
            assert_eq!((packet.local_port, packet.remote_port), (40_000, 7000));
            assert_eq!((packet.addresses.local(), packet.addresses.remote()), (ends.remote, ends.local));
            assert_eq!((packet.segment.seq, packet.segment.ack), (outgoing.seq, outgoing.ack));
            assert_eq!(packet.segment.urgent, 5);
            assert_eq!(packet.segment.timestamps, outgoing.timestamps);
            assert_eq!((packet.segment.mss, packet.segment.window_shift), (Some(1460), Some(3)));
            assert_eq!((packet.segment.control, packet.segment.window), (outgoing.control, 513));
            assert_eq!(packet.payload, payload);
        }
    }

    /// What no checksum covers: of IPv6 the traffic class, the flow label and the hop limit.
    const UNCOVERED_IPV6: [std::ops::Range<usize>; 2] = [4..32, 56..64];

    #[test]
    fn a_flipped_bit_anywhere_in_the_packet_is_noticed() {
        for ends in both_families() {
            let mut frame = Vec::new();
            let outgoing = Outgoing { payload_bytes: 3, ..Outgoing::bare(SeqNum(1), SeqNum(2), Control::ACK, 9) };
            emit_tcp(&mut frame, &ends, &outgoing, |out| out.extend_from_slice(b"abc"));
            for bit in 0..(frame.len() - ethernet::BYTES) * 8 {
                if ends.local.is_ipv6() && UNCOVERED_IPV6.iter().any(|range| range.contains(&bit)) {
                    continue;
                }
                let mut broken = frame.clone();
                broken[ethernet::BYTES + bit / 8] ^= 0x80 >> (bit % 8);
                let is_segment = matches!(parse(&broken, &[2, 0, 0, 0, 0, 2]), Ok(Packet::Tcp(_)));
                assert!(!is_segment, "bit {bit} to {}", ends.remote);
            }
        }
    }
}
