//! Values as frames.
//!
//! Frames are appended to a buffer that is used again; payload is written in place by the caller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket as TcpView,
    TcpSeqNumber,
};

use super::checksum::{Sum, words_of};
use crate::tcp::{Control, Outgoing, Timestamps};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const TCP: u8 = 6;
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

/// Appends a frame with this segment. `fill` appends exactly `outgoing.payload_bytes` bytes.
pub fn emit_tcp(out: &mut Vec<u8>, ends: &Addressing, outgoing: &Outgoing, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let options_bytes = options_bytes(outgoing);
    let tcp_start = start + lower_bytes(ends);
    let headers_bytes = lower_bytes(ends) + TCP_BYTES + options_bytes;
    out.resize(start + headers_bytes, 0);
    fill(out);
    let payload_bytes = out.len() - start - headers_bytes;
    assert!(payload_bytes == outgoing.payload_bytes as usize, "a segment carries what its header says");
    let tcp_bytes = TCP_BYTES + options_bytes + payload_bytes;
    let traffic_class = ends.dscp << 2 | if outgoing.is_ecn_capable { ECT_0 } else { 0 };
    emit_lower(&mut out[start..tcp_start], ends, traffic_class, TCP, tcp_bytes);
    let tcp = &mut out[tcp_start..];
    let mut view = TcpView::new_unchecked(&mut *tcp);
    view.set_src_port(ends.local_port);
    view.set_dst_port(ends.remote_port);
    view.set_seq_number(TcpSeqNumber(outgoing.seq.0 as i32));
    if outgoing.control.has(Control::ACK) {
        view.set_ack_number(TcpSeqNumber(outgoing.ack.0 as i32));
    }
    view.set_header_len((TCP_BYTES + options_bytes) as u8);
    view.set_window_len(outgoing.window);
    tcp[13] = outgoing.control.0;
    tcp[18..20].copy_from_slice(&urgent_pointer(outgoing).to_be_bytes());
    emit_options(&mut tcp[TCP_BYTES..TCP_BYTES + options_bytes], outgoing);
    let checksum = tcp_checksum(ends, outgoing, &tcp[TCP_BYTES..], tcp_bytes, options_bytes);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum of a segment whose header is known by value; `rest` is what follows the fixed header.
fn tcp_checksum(ends: &Addressing, outgoing: &Outgoing, rest: &[u8], tcp_bytes: usize, options_bytes: usize) -> u16 {
    let is_acknowledging = outgoing.control.has(Control::ACK);
    let [seq_high, seq_low] = words_of(outgoing.seq.0);
    let [ack_high, ack_low] = words_of(if is_acknowledging { outgoing.ack.0 } else { 0 });
    let offset_and_control = ((TCP_BYTES + options_bytes) as u16 / 4) << 12 | u16::from(outgoing.control.0);
    let words = [seq_high, seq_low, ack_high, ack_low, ends.local_port, ends.remote_port, offset_and_control];
    let sum = Sum::default().add_pseudo_header(ends.local, ends.remote, TCP, tcp_bytes).add_words(&words);
    sum.add_words(&[outgoing.window, urgent_pointer(outgoing)]).add_bytes(rest).finish()
}

fn urgent_pointer(outgoing: &Outgoing) -> u16 {
    if outgoing.control.has(Control::URG) { outgoing.urgent } else { 0 }
}

/// Length of the headers below TCP or ICMP.
pub(super) fn lower_bytes(ends: &Addressing) -> usize {
    let ip_bytes = match ends.local {
        IpAddr::V4(_) => IPV4_BYTES,
        IpAddr::V6(_) => IPV6_BYTES,
    };
    ETHERNET_BYTES + ip_bytes
}

/// Writes the headers below TCP or ICMP, which have `lower_bytes(ends)` zero bytes.
pub(super) fn emit_lower(headers: &mut [u8], ends: &Addressing, traffic_class: u8, protocol: u8, payload_bytes: usize) {
    let mut view = EthernetFrame::new_unchecked(&mut *headers);
    view.set_dst_addr(EthernetAddress(ends.destination_mac));
    view.set_src_addr(EthernetAddress(ends.source_mac));
    match (ends.local, ends.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            view.set_ethertype(EthernetProtocol::Ipv4);
            let addresses = (local, remote);
            emit_ipv4(&mut headers[ETHERNET_BYTES..], ends, addresses, traffic_class, protocol, payload_bytes);
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            view.set_ethertype(EthernetProtocol::Ipv6);
            let addresses = (local, remote);
            emit_ipv6(&mut headers[ETHERNET_BYTES..], ends, addresses, traffic_class, protocol, payload_bytes);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("a connection has one family: its key is found by our address and a peer of the same packet")
        }
    }
}

/// DF is set, so the identification may stay 0 (RFC 6864 §4.1).
fn emit_ipv4(
    header: &mut [u8],
    ends: &Addressing,
    (local, remote): (Ipv4Addr, Ipv4Addr),
    traffic_class: u8,
    protocol: u8,
    payload_bytes: usize,
) {
    let mut view = Ipv4Packet::new_unchecked(&mut *header);
    view.set_version(4);
    view.set_header_len(IPV4_BYTES as u8);
    view.set_total_len((IPV4_BYTES + payload_bytes) as u16);
    view.set_dont_frag(true);
    view.set_dscp(traffic_class >> 2);
    view.set_ecn(traffic_class & 0x03);
    view.set_hop_limit(ends.ttl);
    view.set_next_header(IpProtocol::from(protocol));
    view.set_src_addr(local);
    view.set_dst_addr(remote);
    let [local_high, local_low] = words_of(local.to_bits());
    let [remote_high, remote_low] = words_of(remote.to_bits());
    let total_bytes = (IPV4_BYTES + payload_bytes) as u16;
    let ttl_and_protocol = u16::from(ends.ttl) << 8 | u16::from(protocol);
    let first = 0x4500 | u16::from(traffic_class);
    let words = [first, total_bytes, 0x4000, ttl_and_protocol, local_high, local_low, remote_high, remote_low];
    let checksum = Sum::default().add_words(&words).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The flow label is 0: packets of a connection are told by addresses and ports (RFC 6437 §3).
fn emit_ipv6(
    header: &mut [u8],
    ends: &Addressing,
    (local, remote): (Ipv6Addr, Ipv6Addr),
    traffic_class: u8,
    protocol: u8,
    payload_bytes: usize,
) {
    let mut view = Ipv6Packet::new_unchecked(&mut *header);
    view.set_version(6);
    view.set_traffic_class(traffic_class);
    view.set_payload_len(payload_bytes as u16);
    view.set_next_header(IpProtocol::from(protocol));
    view.set_hop_limit(ends.ttl);
    view.set_src_addr(local);
    view.set_dst_addr(remote);
}

fn options_bytes(outgoing: &Outgoing) -> usize {
    let mss_bytes = if outgoing.mss.is_some() { 4 } else { 0 };
    let shift_bytes = if outgoing.window_shift.is_some() { 4 } else { 0 };
    let timestamps_bytes = if outgoing.timestamps.is_some() { 12 } else { 0 };
    let permitted_bytes = if outgoing.sack_permitted { 4 } else { 0 };
    let sack_bytes = if outgoing.sack.is_empty() { 0 } else { 4 + 8 * outgoing.sack.len() };
    mss_bytes + shift_bytes + permitted_bytes + timestamps_bytes + sack_bytes
}

fn emit_options(mut options: &mut [u8], outgoing: &Outgoing) {
    if let Some(mss) = outgoing.mss {
        let [high, low] = mss.to_be_bytes();
        options[..4].copy_from_slice(&[2, 4, high, low]);
        options = &mut options[4..];
    }
    if outgoing.sack_permitted {
        options[..4].copy_from_slice(&[1, 1, 4, 2]);
        options = &mut options[4..];
    }
    if let Some(Timestamps { value, echo }) = outgoing.timestamps {
        options[..4].copy_from_slice(&[1, 1, 8, 10]);
        options[4..8].copy_from_slice(&value.to_be_bytes());
        options[8..12].copy_from_slice(&echo.to_be_bytes());
        options = &mut options[12..];
    }
    if let Some(shift) = outgoing.window_shift {
        options[..4].copy_from_slice(&[1, 3, 3, shift]);
        options = &mut options[4..];
    }
    if !outgoing.sack.is_empty() {
        options[..4].copy_from_slice(&[1, 1, 5, (2 + 8 * outgoing.sack.len()) as u8]);
        for (block, (start, end)) in options[4..].chunks_exact_mut(8).zip(outgoing.sack.iter()) {
            block[..4].copy_from_slice(&start.0.to_be_bytes());
            block[4..].copy_from_slice(&end.0.to_be_bytes());
        }
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
            for bit in 0..(frame.len() - ETHERNET_BYTES) * 8 {
                if ends.local.is_ipv6() && UNCOVERED_IPV6.iter().any(|range| range.contains(&bit)) {
                    continue;
                }
                let mut broken = frame.clone();
                broken[ETHERNET_BYTES + bit / 8] ^= 0x80 >> (bit % 8);
                let is_segment = matches!(parse(&broken, &[2, 0, 0, 0, 0, 2]), Ok(Packet::Tcp(_)));
                assert!(!is_segment, "bit {bit} to {}", ends.remote);
            }
        }
    }
}
