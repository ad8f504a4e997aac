//! Frames: a packet of a script as bytes, and the bytes that come out as a packet again.
//!
//! Written for the tests alone, so that a mistake of the stack's own `wire` cannot hide itself. What comes out is
//! checked whole, whatever the script compares: lengths, checksums, addresses, the option list and its padding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ipv6;
use super::packet::{Fault, Packet, Tcp};
use super::script::Family;
use super::tcp::{parse_tcp, tcp_bytes};
use super::together::Piece;

/// The two ends of the wire.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub server_mac: [u8; 6],
    pub client_mac: [u8; 6],
    pub server: IpAddr,
    pub client: IpAddr,
    pub server_port: u16,
}

impl Ends {
    /// The ends that scripts speak of.
    pub const fn new(family: Family, server_port: u16) -> Ends {
        let (server, client) = match family {
            Family::Ipv4 => (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))),
            Family::Ipv6 | Family::Ipv4AsIpv6 => {
                const NETWORK: u128 = 0xfd00 << 112;
                (IpAddr::V6(Ipv6Addr::from_bits(NETWORK | 1)), IpAddr::V6(Ipv6Addr::from_bits(NETWORK | 2)))
            }
        };
        Ends { server_mac: [2, 0, 0, 0, 0, 1], client_mac: [2, 0, 0, 0, 0, 2], server, client, server_port }
    }

    /// An address of a script as it is on this wire: over IPv6 10.0.0.X is fd00::X, and what is elsewhere is elsewhere.
    pub fn on_wire(&self, address: IpAddr) -> IpAddr {
        let (IpAddr::V4(ipv4), IpAddr::V6(_)) = (address, self.server) else { return address };
        match ipv4.octets() {
            [10, 0, 0, host] => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into(),
            [127, ..] => Ipv6Addr::LOCALHOST.into(),
            [0, 0, 0, 0] => Ipv6Addr::UNSPECIFIED.into(),
            [224, .., group] => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, group.into()).into(),
            [a, b, c, d] => {
                let words = [[a, b], [c, d]].map(u16::from_be_bytes);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, words[0], words[1]).into()
            }
        }
    }

    /// Both ends seen from the other side.
    pub fn reversed(&self) -> Ends {
        let (server, client) = (self.client, self.server);
        Ends { server_mac: self.client_mac, client_mac: self.server_mac, server, client, ..*self }
    }
}

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;

/// The Internet checksum of `parts`, each of an even length but for the last (RFC 1071).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo header of what lies over IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1).
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, bytes: usize) -> Vec<u8> {
    let mut header = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend(from.octets());
            header.extend(to.octets());
        }
        mixed => panic!("a packet has one family, not {mixed:?}"),
    }
    header.extend([0, protocol]);
    header.extend((bytes as u16).to_be_bytes());
    header
}

/// The frame that carries `packet` from the client to the server. `payload` are the bytes of a segment's data.
pub fn build(packet: &Packet, ends: &Ends, payload: &[u8]) -> Vec<u8> {
    match packet {
        Packet::Tcp(tcp) => {
            let (from, to) = addresses(&tcp.faults, ends);
            ip(6, ecn_bits(tcp), &tcp_bytes(tcp, ends, payload, from, to), &tcp.faults, ends)
        }
        Packet::Arp { is_request, address, faults } => match ends.on_wire(*address) {
            IpAddr::V4(address) => arp_frame(*is_request, address, faults, ends),
            IpAddr::V6(address) => ipv6::plain_neighbor(*is_request, address, faults, ends),
        },
        Packet::Neighbor(neighbor) => ipv6::neighbor(neighbor, ends),
        Packet::Router { lifetime_s, network, has_link, faults } => {
            ipv6::router(*lifetime_s, *network, *has_link, faults, ends)
        }
        Packet::RouterQuestion | Packet::Problem { .. } => panic!("this comes out only"),
        Packet::Echo { is_request, id, sequence, bytes, faults } => {
            let mut icmp = vec![if *is_request { 8 } else { 0 }, 0, 0, 0];
            icmp.extend(id.to_be_bytes());
            icmp.extend(sequence.to_be_bytes());
            icmp.extend((0..*bytes).map(|at| at as u8));
            icmp_frame(icmp, faults, ends)
        }
        Packet::Icmp { kind, code, quotes, of_bytes, mtu, port, faults } => {
            let mut icmp = vec![*kind, *code, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(quoted(*quotes, *port, *of_bytes, ends));
            icmp_frame(icmp, faults, ends)
        }
        Packet::Bytes(bytes) => bytes.clone(),
    }
}

/// Where a packet comes from, and where it goes.
pub fn addresses(faults: &[Fault], ends: &Ends) -> (IpAddr, IpAddr) {
    let (mut from, mut to) = (ends.client, ends.server);
    for fault in faults {
        match fault {
            Fault::FromIp(address) => from = ends.on_wire(*address),
            Fault::ToIp(address) => to = ends.on_wire(*address),
            _ => {}
        }
    }
    (from, to)
}

/// An IP packet in its frame.
fn ip(protocol: u8, ecn: u8, body: &[u8], faults: &[Fault], ends: &Ends) -> Vec<u8> {
    match ends.server {
        IpAddr::V4(_) => ipv4(protocol, ecn, body, faults, ends),
        IpAddr::V6(_) => ipv6::packet(protocol, ecn, body, faults, ends),
    }
}

/// The two ECN bits of the IP header that carries this segment (RFC 3168 §5).
fn ecn_bits(tcp: &Tcp) -> u8 {
    match (tcp.ce, tcp.ect) {
        (true, _) => 0b11,
        (false, true) => 0b10,
        (false, false) => 0,
    }
}

/// What these two bits say of a segment that came out. Nobody has marked it yet, and ECT(1) means something else.
pub fn set_ecn(tcp: &mut Tcp, bits: u8) -> Result<(), String> {
    tcp.ect = match bits & 0b11 {
        0 => false,
        0b10 => true,
        other => return Err(format!("ECN bits of {other:02b}")),
    };
    Ok(())
}

/// An ICMP message, written as one of IPv4, in its frame.
fn icmp_frame(mut icmp: Vec<u8>, faults: &[Fault], ends: &Ends) -> Vec<u8> {
    if ends.server.is_ipv6() {
        (icmp[0], icmp[1]) = ipv6::icmp_type(icmp[0], icmp[1]);
        return ipv6::icmp_frame(icmp, faults, ends);
    }
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    corrupt(&mut icmp, 3, faults);
    ipv4(1, 0, &icmp, faults, ends)
}

/// Flips the bits that the faults say.
pub fn corrupt(bytes: &mut [u8], checksum_at: usize, faults: &[Fault]) {
    if faults.contains(&Fault::Checksum) {
        bytes[checksum_at] ^= 0x10;
    }
    if faults.contains(&Fault::Data) {
        *bytes.last_mut().expect("a packet has bytes") ^= 0x01;
    }
}

/// The header and the first eight bytes of a segment of ours, as an ICMP error quotes them (RFC 792).
fn quoted(seq: u32, port: u16, packet_bytes: u16, ends: &Ends) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(ends.server_port.to_be_bytes());
    tcp.extend(port.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    let lengths = [Fault::TotalLength(packet_bytes), Fault::PayloadLength(packet_bytes.saturating_sub(40))];
    ip(6, 0, &tcp, &lengths, &ends.reversed())[ETHERNET_BYTES..].to_vec()
}

fn ipv4(protocol: u8, ecn: u8, body: &[u8], faults: &[Fault], ends: &Ends) -> Vec<u8> {
    let (from, to) = addresses(faults, ends);
    let piece = Piece::of(faults, body.len());
    let body = piece.as_ref().map_or(body, |piece| &body[piece.start..piece.end]);
    let mut options = Vec::new();
    for fault in faults {
        if let Fault::Ipv4Options(bytes) = fault {
            options.clone_from(bytes);
            options.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    let total = (IPV4_BYTES + options.len() + body.len()) as u16;
    let mut header = vec![0x45 + (options.len() / 4) as u8, ecn];
    header.extend(total.to_be_bytes());
    let (number, fragment) = piece.map_or((0, 0x4000), |piece| {
        (piece.of as u16, (piece.start / 8) as u16 | if piece.is_last { 0 } else { 0x2000 })
    });
    header.extend(number.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(octets(from));
    header.extend(octets(to));
    header.extend(options);
    let mut frame = ethernet(0x0800, faults, ends);
    for fault in faults {
        match fault {
            Fault::HeaderLength(words) => header[0] = header[0] & 0xf0 | words & 0x0f,
            Fault::Version(version) => header[0] = version << 4 | header[0] & 0x0f,
            Fault::TotalLength(bytes) => header[2..4].copy_from_slice(&bytes.to_be_bytes()),
            Fault::Fragment(field) => header[6..8].copy_from_slice(&field.to_be_bytes()),
            Fault::Protocol(protocol) => header[9] = *protocol,
            _ => {}
        }
    }
    let mut sum = checksum(&[&header]);
    if faults.contains(&Fault::Ipv4Checksum) {
        sum ^= 0x0100;
    }
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(body);
    resized(frame, faults)
}

/// The frame, shorter or longer as the faults say.
pub fn resized(mut frame: Vec<u8>, faults: &[Fault]) -> Vec<u8> {
    for fault in faults {
        match fault {
            Fault::Truncate(bytes) => frame.truncate(frame.len().saturating_sub(*bytes)),
            Fault::Pad(bytes) => frame.resize(frame.len() + bytes, 0xee),
            _ => {}
        }
    }
    frame
}

/// The Ethernet header.
pub fn ethernet(ether_type: u16, faults: &[Fault], ends: &Ends) -> Vec<u8> {
    let (mut to, mut ether_type) = (ends.server_mac, ether_type);
    for fault in faults {
        match fault {
            Fault::ToMac(mac) => to = *mac,
            Fault::EtherType(other) => ether_type = *other,
            _ => {}
        }
    }
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(ends.client_mac);
    frame.extend(ether_type.to_be_bytes());
    frame
}

fn arp_frame(is_request: bool, address: Ipv4Addr, faults: &[Fault], ends: &Ends) -> Vec<u8> {
    let (from, to) = addresses(faults, ends);
    let mut frame = ethernet(0x0806, faults, ends);
    frame.extend([0, 1, 8, 0, 6, 4, 0, if is_request { 1 } else { 2 }]);
    frame.extend(ends.client_mac);
    frame.extend(octets(if is_request { from } else { address.into() }));
    frame.extend(if is_request { [0; 6] } else { ends.server_mac });
    frame.extend(octets(if is_request { address.into() } else { to }));
    resized(frame, faults)
}

fn octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("{address} belongs in no IPv4 packet"),
    }
}

/// What came out: a packet, its data, and the address it goes to. The error says what is wrong with the frame.
pub fn parse(frame: &[u8], ends: &Ends) -> Result<(Packet, Vec<u8>, IpAddr), String> {
    let (header, body) = frame.split_at_checked(ETHERNET_BYTES).ok_or("a frame without an Ethernet header")?;
    if header[6..12] != ends.server_mac {
        return Err("a frame that is not from our own Ethernet address".into());
    }
    match u16_at(header, 12) {
        0x0806 => parse_arp(header, body, ends),
        0x0800 if header[..6] == ends.client_mac => parse_ipv4(body, ends),
        0x86dd => ipv6::parse(header, body, ends),
        0x0800 => Err("an IPv4 packet to an Ethernet address that is not the client's".into()),
        other => Err(format!("a frame of type {other:04x}")),
    }
}

fn parse_arp(header: &[u8], body: &[u8], ends: &Ends) -> Result<(Packet, Vec<u8>, IpAddr), String> {
    if body.len() != 28 || body[..6] != [0, 1, 8, 0, 6, 4] || body[8..14] != ends.server_mac {
        return Err(format!("an ARP packet with a strange head: {body:02x?}"));
    }
    let (sender, target) = (ipv4_at(body, 14), ipv4_at(body, 24));
    let is_request = match u16_at(body, 6) {
        1 if header[..6] == [0xff; 6] && sender == ends.server => true,
        2 if header[..6] == ends.client_mac && body[18..24] == ends.client_mac => false,
        operation => return Err(format!("an ARP packet of operation {operation} with wrong addresses")),
    };
    let address = if is_request { target } else { sender };
    Ok((Packet::Arp { is_request, address, faults: Vec::new() }, Vec::new(), target))
}

fn parse_ipv4(packet: &[u8], ends: &Ends) -> Result<(Packet, Vec<u8>, IpAddr), String> {
    let (header, body) = packet.split_at_checked(IPV4_BYTES).ok_or("a frame that ends within its IPv4 header")?;
    if header[0] != 0x45 {
        return Err(format!("an IPv4 header that begins with {:02x}", header[0]));
    }
    if usize::from(u16_at(header, 2)) != packet.len() {
        return Err(format!("an IPv4 total length of {} in a packet of {}", u16_at(header, 2), packet.len()));
    }
    if checksum(&[header]) != 0 {
        return Err("a wrong IPv4 header checksum".into());
    }
    if u16_at(header, 6) != 0x4000 || header[8] < 2 {
        return Err(format!("an IPv4 header with fragment field {:04x} or TTL {}", u16_at(header, 6), header[8]));
    }
    let (from, to) = (ipv4_at(header, 12), ipv4_at(header, 16));
    if from != ends.server {
        return Err(format!("a packet from {from}"));
    }
    let (packet, payload) = match header[9] {
        1 => parse_icmp(body)?,
        6 => {
            let (mut tcp, payload) = parse_tcp(body, from, to)?;
            (tcp.dscp, tcp.ttl) = (Some(header[1] >> 2), Some(header[8]));
            set_ecn(&mut tcp, header[1])?;
            (Packet::Tcp(tcp), payload)
        }
        other => return Err(format!("a packet of protocol {other}")),
    };
    Ok((packet, payload, to))
}

fn parse_icmp(body: &[u8]) -> Result<(Packet, Vec<u8>), String> {
    if body.len() < 8 || checksum(&[body]) != 0 {
        return Err("an ICMP message that is too short or has a wrong checksum".into());
    }
    parse_echo(body, 0)
}

/// An echo reply, whose ICMP type is `kind`.
pub fn parse_echo(body: &[u8], kind: u8) -> Result<(Packet, Vec<u8>), String> {
    if body[0] != kind || body[1] != 0 {
        return Err(format!("an ICMP message of type {} code {}", body[0], body[1]));
    }
    if body[8..].iter().enumerate().any(|(at, byte)| *byte != at as u8) {
        return Err("an echo reply whose data is not that of the request".into());
    }
    let (id, sequence, bytes) = (u16_at(body, 4), u16_at(body, 6), (body.len() - 8) as u16);
    Ok((Packet::Echo { is_request: false, id, sequence, bytes, faults: Vec::new() }, Vec::new()))
}

/// A field of 16 bits.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A field of 32 bits.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn ipv4_at(bytes: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from(u32_at(bytes, at)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [Ends; 2] = [Ends::new(Family::Ipv4, 80), Ends::new(Family::Ipv6, 80)];

    fn segment() -> Tcp {
        Tcp {
            syn: true,
            seq: Some(7),
            ack: Some(9),
            window: Some(1000),
            mss: Some(1460),
            window_scale: Some(3),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            bytes: 5,
            ..Tcp::default()
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0x12]]), !0x1200);
    }

    #[test]
    fn what_is_built_is_parsed_back() {
        for ends in ENDS {
            let frame = build(&Packet::Tcp(segment()), &ends, b"hello");
            // Both ends seen from the other side, so that what was built can be parsed.
            let (packet, payload, to) = parse(&frame, &ends.reversed()).expect("a good frame");
            let Packet::Tcp(tcp) = packet else { panic!("a segment") };
            assert_eq!(payload, b"hello");
            assert_eq!(to, ends.server);
            // Seen from the other side the two ports change places.
            assert_eq!((tcp.port, tcp.server_port), (80, Some(40_000)));
            assert_eq!((tcp.dscp, tcp.ttl), (Some(0), Some(64)));
            assert_eq!(Tcp { port: 40_000, server_port: None, dscp: None, ttl: None, ..tcp }, segment());
        }
    }

    #[test]
    fn every_corruption_is_seen() {
        let of_both = [
            Fault::Checksum,
            Fault::Data,
            Fault::Truncate(1),
            Fault::Pad(1),
            Fault::DataOffset(4),
            Fault::EtherType(0x1234),
        ];
        let of_ipv4 = [
            Fault::Ipv4Checksum,
            Fault::HeaderLength(6),
            Fault::TotalLength(19),
            Fault::Version(6),
            Fault::Fragment(0x2000),
            Fault::Protocol(17),
        ];
        let of_ipv6 = [Fault::PayloadLength(3), Fault::NextHeader(17), Fault::Extension(60, vec![1, 4, 0, 0, 0, 0])];
        for (ends, own) in ENDS.iter().zip([&of_ipv4[..], &of_ipv6]) {
            for fault in of_both.iter().chain(own) {
                let tcp = Tcp { faults: vec![fault.clone()], ..segment() };
                assert!(parse(&build(&Packet::Tcp(tcp), ends, b"hello"), &ends.reversed()).is_err(), "{fault:?}");
            }
        }
    }
}
