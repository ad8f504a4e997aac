//! IPv6 on the wire: packets with their extension headers, neighbour discovery, ICMPv6.
//!
//! They are built for what goes in, and taken apart when they come out.

use std::net::{IpAddr, Ipv6Addr};

use super::frame::{
    Ends, addresses, checksum, corrupt, ethernet, parse_echo, pseudo_header, resized, set_ecn, u16_at, u32_at,
};
use super::packet::{Fault, Neighbor, Packet};
use super::tcp::parse_tcp;
use super::together::Piece;

const IPV6_BYTES: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

/// A packet in its frame.
pub fn packet(protocol: u8, ecn: u8, body: &[u8], faults: &[Fault], ends: &Ends) -> Vec<u8> {
    let (from, to) = addresses(faults, ends);
    let mut protocol = protocol;
    let (mut hop_limit, mut payload_length, mut version) = (64, None, 6);
    let mut extensions: Vec<(u8, &[u8])> = Vec::new();
    let piece = Piece::of(faults, body.len());
    let body = piece.as_ref().map_or(body, |piece| &body[piece.start..piece.end]);
    let fragment = piece.map(|piece| {
        let offset = piece.start as u16 & 0xfff8 | u16::from(!piece.is_last);
        [offset.to_be_bytes(), [(piece.of >> 24) as u8, (piece.of >> 16) as u8], (piece.of as u16).to_be_bytes()]
            .concat()
    });
    for fault in faults {
        match fault {
            Fault::HopLimit(limit) => hop_limit = *limit,
            Fault::PayloadLength(bytes) => payload_length = Some(*bytes),
            Fault::Version(other) => version = *other,
            Fault::NextHeader(other) | Fault::Protocol(other) => protocol = *other,
            Fault::Extension(kind, bytes) => extensions.push((*kind, bytes)),
            Fault::Extensions(count) => extensions.extend(vec![(60, &[1, 4, 0, 0, 0, 0][..]); *count]),
            _ => {}
        }
    }
    extensions.extend(fragment.as_ref().map(|fragment| (44, &fragment[..])));
    let mut kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
    kinds.push(protocol);
    let mut payload = Vec::new();
    for ((_, bytes), next) in extensions.iter().zip(&kinds[1..]) {
        assert!((bytes.len() + 2).is_multiple_of(8), "an extension header has a multiple of eight bytes");
        payload.extend([*next, (bytes.len() / 8) as u8]);
        payload.extend(*bytes);
    }
    payload.extend(body);
    let payload_length = payload_length.unwrap_or(payload.len() as u16);
    let mut frame = ethernet(0x86dd, faults, ends);
    frame.extend([version << 4, ecn << 4, 0, 0]);
    frame.extend(payload_length.to_be_bytes());
    frame.extend([kinds[0], hop_limit]);
    frame.extend(octets(from));
    frame.extend(octets(to));
    frame.extend(payload);
    resized(frame, faults)
}

/// An ICMPv6 message in its frame.
pub fn icmp_frame(mut icmp: Vec<u8>, faults: &[Fault], ends: &Ends) -> Vec<u8> {
    let (from, to) = addresses(faults, ends);
    for fault in faults {
        if let Fault::IcmpCode(code) = fault {
            icmp[1] = *code;
        }
    }
    let sum = checksum(&[&pseudo_header(from, to, ICMPV6, icmp.len()), &icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    corrupt(&mut icmp, 3, faults);
    packet(ICMPV6, 0, &icmp, faults, ends)
}

/// Type and code of the ICMPv6 message that says what this one of IPv4 says.
pub fn icmp_type(kind: u8, code: u8) -> (u8, u8) {
    match (kind, code) {
        (0, _) => (129, code),
        (8, _) => (128, code),
        (3, 1) => (1, 3),
        (3, 2) => (1, 1),
        (3, 3) => (1, 4),
        (3, 4) => (2, 0),
        (3, _) => (1, 0),
        (11, _) => (3, code),
        (12, _) => (4, code),
        // What has no like in ICMPv6 is unknown to it.
        (other, _) => (other | 0x60, code),
    }
}

/// The question for an address, or its answer, as neighbours ask and answer.
pub fn plain_neighbor(is_question: bool, target: Ipv6Addr, faults: &[Fault], ends: &Ends) -> Vec<u8> {
    // IPv6 has no broadcast: a question for everybody goes to the group of its target.
    let faults = faults.iter().filter(|fault| **fault != Fault::ToMac([0xff; 6])).cloned().collect();
    let (is_solicited, is_override) = (!is_question, !is_question);
    let target = target.into();
    neighbor(
        &Neighbor { is_question, target, is_solicited, is_override, is_from_nobody: false, link: Some(2), faults },
        ends,
    )
}

/// A message of neighbour discovery in its frame.
pub fn neighbor(neighbor: &Neighbor, ends: &Ends) -> Vec<u8> {
    let target = octets(ends.on_wire(neighbor.target));
    let flags = u8::from(neighbor.is_solicited) << 6 | u8::from(neighbor.is_override) << 5;
    let mut icmp = vec![if neighbor.is_question { SOLICITATION } else { ADVERTISEMENT }, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target);
    if let Some(last) = neighbor.link {
        icmp.extend([if neighbor.is_question { SOURCE_LINK } else { TARGET_LINK }, 1, 2, 0, 0, 0, 0, last]);
    }
    put_options(&mut icmp, &neighbor.faults);
    let group = solicited_node(target.into());
    let mut faults = Vec::new();
    if neighbor.is_question {
        faults.extend([Fault::ToIp(group.into()), Fault::ToMac(group_mac(group))]);
    }
    if neighbor.is_from_nobody {
        faults.push(Fault::FromIp(Ipv6Addr::UNSPECIFIED.into()));
    }
    // What the script says comes last and holds.
    faults.push(Fault::HopLimit(255));
    faults.extend(neighbor.faults.iter().cloned());
    icmp_frame(icmp, &faults, ends)
}

/// A router's advertisement in its frame, to all nodes and from the link-local address of the client's machine.
pub fn router(
    lifetime_s: u16,
    network: Option<(IpAddr, u8, u32)>,
    has_link: bool,
    faults: &[Fault],
    ends: &Ends,
) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0];
    icmp.extend(lifetime_s.to_be_bytes());
    icmp.extend([0; 8]);
    if has_link {
        icmp.extend([SOURCE_LINK, 1]);
        icmp.extend(ends.client_mac);
    }
    if let Some((prefix, bits, valid_s)) = network {
        icmp.extend([3, 4, bits, 0xc0]);
        icmp.extend(valid_s.to_be_bytes());
        icmp.extend([0; 8]);
        icmp.extend(octets(prefix));
    }
    put_options(&mut icmp, faults);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut own = vec![
        Fault::FromIp(CLIENT_LINK_LOCAL.into()),
        Fault::ToIp(all_nodes.into()),
        Fault::ToMac(group_mac(all_nodes)),
        Fault::HopLimit(255),
    ];
    own.extend(faults.iter().cloned());
    icmp_frame(icmp, &own, ends)
}

fn put_options(icmp: &mut Vec<u8>, faults: &[Fault]) {
    for fault in faults {
        if let Fault::NdpOption(bytes) = fault {
            icmp.extend(bytes);
        }
    }
}

/// What came out in a frame with this Ethernet header.
pub fn parse(header: &[u8], body: &[u8], ends: &Ends) -> Result<(Packet, Vec<u8>, IpAddr), String> {
    let (ip, body) = body.split_at_checked(IPV6_BYTES).ok_or("a frame that ends within its IPv6 header")?;
    if ip[0] >> 4 != 6 || u32_at(ip, 0) & 0x000f_ffff != 0 {
        return Err(format!("an IPv6 header that begins with {:08x}", u32_at(ip, 0)));
    }
    if usize::from(u16_at(ip, 4)) != body.len() {
        return Err(format!("an IPv6 payload length of {} before {} bytes", u16_at(ip, 4), body.len()));
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("16 bytes"));
    let (from, to) = (address(8), address(24));
    let mac = if to.is_multicast() { group_mac(to) } else { ends.client_mac };
    if header[..6] != mac {
        return Err(format!("an IPv6 packet to {to} at {:02x?}", &header[..6]));
    }
    if from != ends.server && from != SERVER_LINK_LOCAL {
        return Err(format!("a packet from {from}"));
    }
    let (packet, payload) = match ip[6] {
        6 => {
            let (mut tcp, payload) = parse_tcp(body, from.into(), to.into())?;
            (tcp.dscp, tcp.ttl) = (Some((u16_at(ip, 0) >> 6) as u8 & 0x3f), Some(ip[7]));
            set_ecn(&mut tcp, ip[1] >> 4)?;
            (Packet::Tcp(tcp), payload)
        }
        ICMPV6 => parse_icmp(body, from, to, ip[7], ends)?,
        other => return Err(format!("a packet of protocol {other}")),
    };
    Ok((packet, payload, to.into()))
}

fn parse_icmp(
    body: &[u8],
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    ends: &Ends,
) -> Result<(Packet, Vec<u8>), String> {
    if body.len() < 8 || checksum(&[&pseudo_header(from.into(), to.into(), ICMPV6, body.len()), body]) != 0 {
        return Err("an ICMPv6 message that is too short or has a wrong checksum".into());
    }
    if (133..=137).contains(&body[0]) && (hop_limit != 255 || body[1] != 0) {
        return Err(format!("neighbour discovery with hop limit {hop_limit} and code {}", body[1]));
    }
    let own_link = |kind: u8| [&[kind, 1][..], &ends.server_mac].concat();
    let packet = match body[0] {
        133 if body[8..] == own_link(SOURCE_LINK) && to == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2) => {
            Packet::RouterQuestion
        }
        SOLICITATION | ADVERTISEMENT if body.len() == 32 => parse_neighbor(body, to, ends)?,
        4 if body.len() <= 1_280 - IPV6_BYTES && body.len() > 8 + IPV6_BYTES => {
            Packet::Problem { code: body[1], pointer: u32_at(body, 4) }
        }
        _ => return parse_echo(body, 129),
    };
    Ok((packet, Vec::new()))
}

fn parse_neighbor(body: &[u8], to: Ipv6Addr, ends: &Ends) -> Result<Packet, String> {
    let is_question = body[0] == SOLICITATION;
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(&body[8..24]).expect("16 bytes"));
    let link = if is_question { SOURCE_LINK } else { TARGET_LINK };
    if body[24..26] != [link, 1] || body[26..] != ends.server_mac {
        return Err(format!("neighbour discovery with the option {:02x?}", &body[24..]));
    }
    if is_question && to != solicited_node(target) {
        return Err(format!("a question for {target} to {to}"));
    }
    Ok(Packet::Neighbor(Neighbor {
        is_question,
        target: target.into(),
        is_solicited: body[4] & 0x40 != 0,
        is_override: body[4] & 0x20 != 0,
        is_from_nobody: false,
        link: Some(2),
        faults: Vec::new(),
    }))
}

/// The link-local addresses that the Ethernet addresses of a script give (RFC 4291 appendix A).
const SERVER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 1);
const CLIENT_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 2);

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => panic!("{address} belongs in no IPv6 packet"),
    }
}

/// RFC 4291 §2.7.1.
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | target.to_bits() & 0x00ff_ffff)
}

/// RFC 2464 §7.
fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}
