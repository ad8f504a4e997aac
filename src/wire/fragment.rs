//! Fragments of packets (RFC 791 §3.2, RFC 8200 §4.5): read, put together to a whole packet again, and cut.
//!
//! ```text
//! IPv4   identification 16 | 0 DF MF, offset 13 in units of 8 bytes          in the header
//! IPv6   next header 8 | 0 | offset 13, 0, M | identification 32             in a header of its own
//! ```
//!
//! Only TCP and ICMP right behind the IP header, or behind IPv6's fragment header, are taken.

use std::net::{IpAddr, Ipv4Addr};

use super::checksum::Sum;
use super::emit::{Addressing, LowerHeaders};
use super::field::{ethernet, ipv4, ipv6, protocol, tcp, u16_at, u32_at};
use super::parse::ECN_BITS;
use crate::tcp::Rule;

/// A fragment of a packet with TCP or ICMP in it.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    /// Which packet it is of.
    pub id: FragmentId,
    /// Ethernet address that the frame came from.
    pub source_mac: [u8; 6],
    /// The ECN field of its IP header.
    pub ecn: u8,
    /// Where its bytes belong, behind the headers that all fragments have.
    pub offset: u16,
    /// Whether none follow.
    pub is_last: bool,
    /// Its bytes; the end of them is at most 65,535 from the beginning of the packet.
    pub bytes: &'a [u8],
}

/// Which packet a fragment is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentId {
    /// Who sent it.
    pub remote: IpAddr,
    /// Whom to.
    pub local: IpAddr,
    /// TCP or ICMP.
    pub protocol: u8,
    /// How the sender tells its packets apart.
    pub number: u32,
}

const FRAGMENT_HEADER_BYTES: usize = 8;
/// Every fragment but the last has a multiple of so many bytes.
const UNIT_BYTES: usize = 8;
/// The largest payload of an IPv4 packet with a plain header.
const PAYLOAD_BYTES_MAX: usize = 65_535 - ipv4::BYTES;

/// Reads a fragment whose addresses were checked; `bytes` are those behind its IPv4 header.
pub(super) fn parse_ipv4_fragment<'a>(
    header: &[u8; ipv4::BYTES],
    bytes: &'a [u8],
    source_mac: [u8; 6],
) -> Result<Fragment<'a>, Rule> {
    let address = |at| IpAddr::V4(Ipv4Addr::from_bits(u32_at(header, at)));
    let id = FragmentId {
        remote: address(ipv4::SOURCE),
        local: address(ipv4::DESTINATION),
        protocol: header[ipv4::PROTOCOL],
        number: u16_at(header, ipv4::IDENTIFICATION).into(),
    };
    if id.protocol != protocol::TCP && id.protocol != protocol::ICMPV4 {
        return Err(Rule::FrameNotForUs);
    }
    let place = u16_at(header, ipv4::FRAGMENT);
    let (offset, is_last) = ((place & ipv4::FRAGMENT_OFFSET) << 3, place & ipv4::MORE_FRAGMENTS == 0);
    check(Fragment { id, source_mac, ecn: header[ipv4::TRAFFIC_CLASS] & ECN_BITS, offset, is_last, bytes })
}

/// Reads a fragment header of IPv6, with the bytes behind it, of a packet whose addresses were checked. Its sender is
/// not told what is wrong with it, which RFC 8200 §4.5 only recommends.
pub(super) fn parse_ipv6_fragment<'a>(
    header_and_rest: &'a [u8],
    (remote, local): (IpAddr, IpAddr),
    source_mac: [u8; 6],
    ecn: u8,
) -> Result<Fragment<'a>, Rule> {
    let (header, bytes) = header_and_rest.split_first_chunk::<FRAGMENT_HEADER_BYTES>().ok_or(Rule::FrameMalformed)?;
    let [protocol, _, offset_high, offset_low, number @ ..] = *header;
    let offset_and_more = u16::from_be_bytes([offset_high, offset_low]);
    let id = FragmentId { remote, local, protocol, number: u32::from_be_bytes(number) };
    if id.protocol != protocol::TCP && id.protocol != protocol::ICMPV6 {
        return Err(Rule::FrameNotForUs);
    }
    let (offset, is_last) = (offset_and_more & 0xfff8, offset_and_more & 1 == 0);
    check(Fragment { id, source_mac, ecn, offset, is_last, bytes })
}

/// What no honest sender makes: fragments of odd lengths, beyond the largest packet, or so small that the header of TCP
/// is not whole in the first (RFC 1858 §3, RFC 3128, RFC 7112 §5).
fn check(fragment: Fragment<'_>) -> Result<Fragment<'_>, Rule> {
    let Fragment { id, offset, is_last, bytes, .. } = fragment;
    let is_cut_between_units = !is_last && !bytes.len().is_multiple_of(UNIT_BYTES);
    if bytes.is_empty() || is_cut_between_units || usize::from(offset) + bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Rule::FrameMalformed);
    }
    let has_header = bytes.get(tcp::DATA_OFFSET).is_some_and(|words| usize::from(words >> 4) * 4 <= bytes.len())
        && bytes.len() >= tcp::BYTES;
    let is_tiny = if offset == 0 { !has_header } else { usize::from(offset) < tcp::BYTES };
    if id.protocol == protocol::TCP && is_tiny {
        return Err(Rule::FragmentTiny);
    }
    Ok(fragment)
}

/// Appends the frame as which a packet would have come at the Ethernet address `mac`, had it come whole. `fill` appends
/// `bytes` bytes.
pub fn emit_whole(
    out: &mut Vec<u8>,
    mac: [u8; 6],
    source_mac: [u8; 6],
    id: &FragmentId,
    ecn: u8,
    bytes: usize,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let ends = Addressing::without_ports(source_mac, mac, id.remote, id.local, 64);
    out.extend_from_slice(LowerHeaders::of(&ends, ecn, id.protocol, bytes).bytes());
    let headers_end = out.len();
    fill(out);
    assert!(out.len() - headers_end == bytes, "a packet is as long as its fragments together");
}

/// Appends the fragment of a whole frame of ours that begins so many bytes behind its IP header, in a packet of at most
/// `mtu` bytes. Returns where the next one begins; `None` after the last.
pub fn emit_fragment(out: &mut Vec<u8>, whole: &[u8], mtu: u16, number: u32, offset: usize) -> Option<usize> {
    let is_ipv4 = whole[ethernet::BYTES] >> 4 == 4;
    let ip_bytes = if is_ipv4 { ipv4::BYTES } else { ipv6::BYTES };
    let more_bytes = if is_ipv4 { 0 } else { FRAGMENT_HEADER_BYTES };
    let (headers, payload) = whole.split_at(ethernet::BYTES + ip_bytes);
    let room = usize::from(mtu).saturating_sub(ip_bytes + more_bytes) / UNIT_BYTES * UNIT_BYTES;
    let end = payload.len().min(offset + room.max(UNIT_BYTES));
    let is_last = end == payload.len();
    let start = out.len();
    out.extend_from_slice(headers);
    if is_ipv4 {
        emit_ipv4_fields(&mut out[start + ethernet::BYTES..], end - offset, number as u16, offset, is_last);
    } else {
        let header = &mut out[start + ethernet::BYTES..];
        let next_header = std::mem::replace(&mut header[ipv6::NEXT_HEADER], protocol::FRAGMENT);
        header[ipv6::PAYLOAD_BYTES..ipv6::NEXT_HEADER]
            .copy_from_slice(&((end - offset + FRAGMENT_HEADER_BYTES) as u16).to_be_bytes());
        let offset_and_more = offset as u16 | u16::from(!is_last);
        out.extend_from_slice(&[next_header, 0]);
        out.extend_from_slice(&offset_and_more.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&payload[offset..end]);
    (!is_last).then_some(end)
}

fn emit_ipv4_fields(header: &mut [u8], bytes: usize, number: u16, offset: usize, is_last: bool) {
    let place = (offset / UNIT_BYTES) as u16 | if is_last { 0 } else { ipv4::MORE_FRAGMENTS };
    header[ipv4::TOTAL_BYTES..ipv4::IDENTIFICATION].copy_from_slice(&((ipv4::BYTES + bytes) as u16).to_be_bytes());
    header[ipv4::IDENTIFICATION..ipv4::FRAGMENT].copy_from_slice(&number.to_be_bytes());
    header[ipv4::FRAGMENT..ipv4::FRAGMENT + 2].copy_from_slice(&place.to_be_bytes());
    header[ipv4::CHECKSUM..ipv4::SOURCE].fill(0);
    let checksum = Sum::default().add_bytes(header).finish();
    header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::{Echo, Packet, emit_echo_reply, parse};
    use super::*;

    /// An echo reply is cut, and what the peer puts together of it is the reply.
    #[test]
    fn what_is_cut_is_put_together_to_the_same() {
        for (local, remote) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let [local, remote] = [local, remote].map(|text| text.parse().expect("is an address"));
            for body_bytes in [4_usize, 1_000, 1_476, 1_480, 1_484, 3_000, 9_999, 60_000] {
                let body: Vec<u8> = (0..body_bytes).map(|at| (at / 7) as u8).collect();
                let echo = Echo { source_mac: [2; 6], remote, local, body: &body };
                let mut whole = Vec::new();
                emit_echo_reply(&mut whole, [4; 6], 64, &echo);
                let mut next = Some(0);
                let mut together = Vec::new();
                while let Some(offset) = next {
                    let mut frame = Vec::new();
                    next = emit_fragment(&mut frame, &whole, 1_500, 0x0102_0304, offset);
                    assert!(frame.len() <= 1_500 + ethernet::BYTES);
                    let view = frame[ethernet::BYTES..].to_vec();
                    let Fragment { offset: at, is_last, bytes, .. } = if remote.is_ipv4() {
                        assert_eq!(Sum::default().add_bytes(&view[..ipv4::BYTES]).finish(), 0);
                        let header = view.first_chunk().expect("a header");
                        let read = parse_ipv4_fragment(header, &view[ipv4::BYTES..], [4; 6]).expect("a good fragment");
                        assert_eq!((read.id.remote, read.id.local), (local, remote));
                        together.extend_from_slice(read.bytes);
                        Fragment { bytes: &[], ..read }
                    } else {
                        assert_eq!(usize::from(u16::from_be_bytes([view[4], view[5]])), view.len() - ipv6::BYTES);
                        let read = parse_ipv6_fragment(&view[ipv6::BYTES..], (local, remote), [4; 6], 0)
                            .expect("a good fragment");
                        together.extend_from_slice(read.bytes);
                        Fragment { bytes: &[], ..read }
                    };
                    assert_eq!((usize::from(at), is_last, bytes.len()), (offset, next.is_none(), 0));
                }
                let protocol = if remote.is_ipv4() { protocol::ICMPV4 } else { protocol::ICMPV6 };
                let id = FragmentId { remote: local, local: remote, protocol, number: 0 };
                let mut frame = Vec::new();
                emit_whole(&mut frame, [2; 6], [4; 6], &id, 0, together.len(), |out| out.extend_from_slice(&together));
                assert_eq!(frame, whole);
                // A reply is of no concern to us, but its checksum was looked at.
                assert!(matches!(parse(&frame, &[2; 6]), Err(Rule::IcmpIgnored)));
            }
        }
        assert!(!matches!(parse(&[], &[2; 6]), Ok(Packet::Fragment(_))));
    }
}
