//! ICMP for both families (RFC 792, RFC 4443): echo, errors about our segments, and the one error that we send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet};

use super::checksum::Sum;
use super::emit::{Addressing, LowerHeaders};
use super::field::protocol::{ICMPV4, ICMPV6, TCP};
use super::field::{ipv4, ipv6, tcp, u16_in, u32_in};
use super::ipv6::Lower;
use super::ndp::parse_ndp;
use super::parse::Packet;
use crate::tcp::{Claim, Rule, SeqNum};

/// An ICMP echo request.
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a> {
    /// Ethernet address that the frame came from.
    pub source_mac: [u8; 6],
    /// Who asks.
    pub remote: IpAddr,
    /// Whom.
    pub local: IpAddr,
    /// The ICMP message behind its type, code and checksum: identifier, sequence number, data.
    pub body: &'a [u8],
}

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The destination cannot be reached, now.
    Unreachable,
    /// It does not take such segments, and will not (RFC 9293 §3.9.2.2).
    Refused,
    /// The packet is larger than a link on its way takes.
    TooBig(Claim),
    /// Time exceeded: in transit, or while its fragments were put together.
    TimeExceeded,
    /// Something in its header.
    Parameter,
}

/// An ICMP error message, with the segment that it quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// What it says.
    pub trouble: Trouble,
    /// Where the segment came from: our address.
    pub local: IpAddr,
    /// Where it went.
    pub remote: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// Its sequence number.
    pub seq: SeqNum,
}

/// An IPv6 packet with a header that we may not skip, whose sender is to be told (RFC 8200 §4).
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Ethernet address that the frame came from.
    pub source_mac: [u8; 6],
    /// Who sent it.
    pub remote: Ipv6Addr,
    /// Whom to; it may be a multicast address.
    pub local: Ipv6Addr,
    /// The code of the parameter problem: 0 for a field, 1 for a next header, 2 for an option.
    pub code: u8,
    /// Where in the packet the cause is.
    pub pointer: u32,
    /// The packet.
    pub packet: &'a [u8],
}

const ICMP_BYTES: usize = 8;
/// An error is no longer than a packet that every link takes (RFC 4443 §3.4).
const ERROR_BYTES_MAX: usize = 1_280;

/// Reads ICMP over IPv4.
pub(super) fn parse_icmpv4(
    bytes: &[u8],
    source_mac: [u8; 6],
    remote: Ipv4Addr,
    local: Ipv4Addr,
) -> Result<Packet<'_>, Rule> {
    let view = Icmpv4Packet::new_checked(bytes).map_err(|_| Rule::FrameMalformed)?;
    if Sum::default().add_bytes(bytes).finish() != 0 {
        return Err(Rule::IcmpIgnored);
    }
    match view.msg_type() {
        Icmpv4Message::EchoRequest if view.msg_code() == 0 => {
            Ok(Packet::Echo(Echo { source_mac, remote: remote.into(), local: local.into(), body: &bytes[4..] }))
        }
        Icmpv4Message::DstUnreachable | Icmpv4Message::TimeExceeded | Icmpv4Message::ParamProblem => {
            parse_icmpv4_error(bytes, local).map(Packet::Error).ok_or(Rule::IcmpIgnored)
        }
        _ => Err(Rule::IcmpIgnored),
    }
}

/// An ICMP error quotes the IPv4 header and at least eight bytes behind it (RFC 792): ports and sequence number.
fn parse_icmpv4_error(bytes: &[u8], to: Ipv4Addr) -> Option<IcmpError> {
    let quoted = bytes.get(ICMP_BYTES..)?;
    let header_bytes = usize::from(quoted.first()? & 0x0f) * 4;
    let is_tcp = quoted.first()? >> 4 == 4 && header_bytes >= ipv4::BYTES && *quoted.get(ipv4::PROTOCOL)? == TCP;
    let address = |at| u32_in(quoted, at).map(Ipv4Addr::from_bits);
    let (local, remote) = (address(ipv4::SOURCE)?, address(ipv4::DESTINATION)?);
    let claim = Claim { mtu: u16_in(bytes, 6)?, packet_bytes: u16_in(quoted, ipv4::TOTAL_BYTES)? };
    let trouble = match (Icmpv4Message::from(bytes[0]), bytes[1]) {
        (Icmpv4Message::DstUnreachable, 4) => Trouble::TooBig(claim),
        (Icmpv4Message::DstUnreachable, 2 | 3) => Trouble::Refused,
        (Icmpv4Message::DstUnreachable, _) => Trouble::Unreachable,
        (Icmpv4Message::TimeExceeded, _) => Trouble::TimeExceeded,
        _ => Trouble::Parameter,
    };
    (is_tcp && local == to).then(|| quoted_segment(trouble, local.into(), remote.into(), quoted, header_bytes))?
}

/// Reads ICMP over IPv6. `lower` are the headers that it came in.
pub(super) fn parse_icmpv6<'a>(bytes: &'a [u8], lower: &Lower) -> Result<Packet<'a>, Rule> {
    let sum = Sum::default().add_pseudo_header(lower.source.into(), lower.destination.into(), ICMPV6, bytes.len());
    if bytes.len() < ICMP_BYTES || sum.add_bytes(bytes).finish() != 0 {
        return Err(Rule::IcmpIgnored);
    }
    let view = Icmpv6Packet::new_checked(bytes).map_err(|_| Rule::IcmpIgnored)?;
    let is_to_one = !lower.destination.is_multicast();
    match view.msg_type() {
        Icmpv6Message::EchoRequest if view.msg_code() == 0 && is_to_one && !lower.source.is_unspecified() => {
            let (remote, local) = (lower.source.into(), lower.destination.into());
            Ok(Packet::Echo(Echo { source_mac: lower.source_mac, remote, local, body: &bytes[4..] }))
        }
        Icmpv6Message::DstUnreachable
        | Icmpv6Message::PktTooBig
        | Icmpv6Message::TimeExceeded
        | Icmpv6Message::ParamProblem => {
            parse_icmpv6_error(bytes, lower.destination).map(Packet::Error).ok_or(Rule::IcmpIgnored)
        }
        Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert | Icmpv6Message::RouterAdvert => {
            parse_ndp(bytes, lower)
        }
        _ => Err(Rule::IcmpIgnored),
    }
}

/// An ICMPv6 error quotes as much of the packet as fits (RFC 4443 §3.1); what we send has no extension headers.
fn parse_icmpv6_error(bytes: &[u8], to: Ipv6Addr) -> Option<IcmpError> {
    let quoted = bytes.get(ICMP_BYTES..)?;
    let header = quoted.first_chunk::<{ ipv6::BYTES }>()?;
    let address = |at: usize| header[at..].first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    let (local, remote) = (address(ipv6::SOURCE)?, address(ipv6::DESTINATION)?);
    let is_tcp = header[0] >> 4 == 6 && header[ipv6::NEXT_HEADER] == TCP;
    let claim = Claim {
        mtu: u32_in(bytes, 4)?.min(u32::from(u16::MAX)) as u16,
        packet_bytes: u16_in(header, ipv6::PAYLOAD_BYTES)?.saturating_add(ipv6::BYTES as u16),
    };
    let trouble = match (Icmpv6Message::from(bytes[0]), bytes[1]) {
        (Icmpv6Message::DstUnreachable, 1 | 4) => Trouble::Refused,
        (Icmpv6Message::DstUnreachable, _) => Trouble::Unreachable,
        (Icmpv6Message::PktTooBig, _) => Trouble::TooBig(claim),
        (Icmpv6Message::TimeExceeded, _) => Trouble::TimeExceeded,
        _ => Trouble::Parameter,
    };
    (is_tcp && local == to).then(|| quoted_segment(trouble, local.into(), remote.into(), quoted, ipv6::BYTES))?
}

fn quoted_segment(trouble: Trouble, local: IpAddr, remote: IpAddr, quoted: &[u8], at: usize) -> Option<IcmpError> {
    let local_port = u16_in(quoted, at + tcp::SOURCE_PORT)?;
    let remote_port = u16_in(quoted, at + tcp::DESTINATION_PORT)?;
    let seq = SeqNum(u32_in(quoted, at + tcp::SEQ)?);
    Some(IcmpError { trouble, local, remote, local_port, remote_port, seq })
}

/// Appends the answer to an echo request.
pub fn emit_echo_reply(out: &mut Vec<u8>, source_mac: [u8; 6], ttl: u8, echo: &Echo<'_>) {
    let ends = Addressing::without_ports(source_mac, echo.source_mac, echo.local, echo.remote, ttl);
    let kind = if echo.local.is_ipv4() { Icmpv4Message::EchoReply.into() } else { Icmpv6Message::EchoReply.into() };
    emit_icmp(out, &ends, |out| {
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(echo.body);
    });
}

/// Appends the parameter problem that answers a refused packet (RFC 4443 §3.4), from one of our addresses.
pub fn emit_parameter_problem(out: &mut Vec<u8>, source_mac: [u8; 6], local: Ipv6Addr, ttl: u8, refused: &Refused<'_>) {
    let ends = Addressing::without_ports(source_mac, refused.source_mac, local.into(), refused.remote.into(), ttl);
    let quoted_bytes = refused.packet.len().min(ERROR_BYTES_MAX - ipv6::BYTES - ICMP_BYTES);
    emit_icmp(out, &ends, |out| {
        out.extend_from_slice(&[Icmpv6Message::ParamProblem.into(), refused.code, 0, 0]);
        out.extend_from_slice(&refused.pointer.to_be_bytes());
        out.extend_from_slice(&refused.packet[..quoted_bytes]);
    });
}

/// Appends a frame with the message that `fill` appends, and puts in the checksum, which ICMPv6 computes over a pseudo
/// header too (RFC 4443 §2.3).
pub(super) fn emit_icmp(out: &mut Vec<u8>, ends: &Addressing, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let icmp_start = start + LowerHeaders::bytes_of(ends);
    out.resize(icmp_start, 0);
    fill(out);
    let icmp = &mut out[icmp_start..];
    let icmp_bytes = icmp.len();
    let (protocol, sum) = match ends.local {
        IpAddr::V4(_) => (ICMPV4, Sum::default()),
        IpAddr::V6(_) => (ICMPV6, Sum::default().add_pseudo_header(ends.local, ends.remote, ICMPV6, icmp_bytes)),
    };
    let checksum = sum.add_bytes(icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let lower = LowerHeaders::of(ends, ends.dscp << 2, protocol, icmp_bytes);
    out[start..icmp_start].copy_from_slice(lower.bytes());
}
