//! The form of frames: headers, lengths and checksums, and in whose name they speak.
//!
//! Beside segments the node may say, over IPv4, where it is (ARP), and over IPv6 the same, a question for neighbours or
//! routers (RFC 4861), and that it could not take a packet (RFC 4443 §3.4).
//!
//! Invariant: a frame of the node is one of these, or malformed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress, TcpPacket,
};

use super::super::client::{NODE_IPV4, NODE_IPV6, NODE_PORT};
use super::super::frame::IP;
use super::super::network::NODE_MAC;
use super::super::report::Breach;

/// A TCP segment on the wire, with its ends.
pub(in super::super) struct Segment<'a> {
    /// The client's end of the connection.
    pub(in super::super) client: SocketAddr,
    pub(super) tcp: TcpPacket<&'a [u8]>,
}

impl Segment<'_> {
    /// Whether it is a reset.
    pub(in super::super) fn is_reset(&self) -> bool {
        self.tcp.rst()
    }

    /// Whether it opens a connection, or answers one that does.
    pub(in super::super) fn is_syn(&self) -> bool {
        self.tcp.syn()
    }
}

/// Takes apart a frame that a client sends; `None` if it is no TCP segment to the node.
pub(in super::super) fn from_client(frame: &[u8]) -> Option<Segment<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let ip = packet(ethernet.ethertype(), ethernet.payload()).ok()?;
    let tcp = segment(&ip).ok()?;
    Some(Segment { client: SocketAddr::new(ip.source, tcp.src_port()), tcp })
}

/// Takes apart a frame that the node sends and checks its form. `None` if it is no segment, and may be.
pub(in super::super) fn from_node(frame: &[u8], mtu: u16) -> Result<Option<Segment<'_>>, Breach> {
    checked_from_node(frame, mtu).map_err(|what| Breach::MalformedFrame { what })
}

fn checked_from_node(frame: &[u8], mtu: u16) -> Result<Option<Segment<'_>>, &'static str> {
    let ethernet = EthernetFrame::new_checked(frame).map_err(|_| "it has no Ethernet header")?;
    if ethernet.src_addr().0 != NODE_MAC {
        return Err("its source is not the node");
    }
    if frame.len() > usize::from(mtu) + IP {
        return Err("it is longer than the MTU");
    }
    if ethernet.ethertype() == EthernetProtocol::Arp {
        return check_arp(ethernet.payload()).map(|()| None);
    }
    let ip = packet(ethernet.ethertype(), ethernet.payload())?;
    if ip.protocol == IpProtocol::Icmpv6 {
        return check_icmpv6(&ip, ethernet.dst_addr().0).map(|()| None);
    }
    let tcp = segment(&ip)?;
    let is_from_node = ip.source == IpAddr::from(NODE_IPV4) || ip.source == IpAddr::from(NODE_IPV6);
    if !is_from_node || tcp.src_port() != NODE_PORT {
        return Err("it comes from an address or port that nobody listens on");
    }
    Ok(Some(Segment { client: SocketAddr::new(ip.destination, tcp.dst_port()), tcp }))
}

/// An IP packet of either family.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    /// Time to live, or hop limit.
    hops: u8,
    payload: &'a [u8],
}

fn packet(ethertype: EthernetProtocol, bytes: &[u8]) -> Result<Packet<'_>, &'static str> {
    match ethertype {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(bytes).map_err(|_| "its IPv4 header is broken")?;
            Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).map_err(|_| "its IPv4 header is wrong")?;
            let payload = &bytes[usize::from(ip.header_len())..usize::from(ip.total_len())];
            let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
            Ok(Packet { source, destination, protocol: ip.next_header(), hops: ip.hop_limit(), payload })
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(bytes).map_err(|_| "its IPv6 header is broken")?;
            let header = Ipv6Repr::parse(&ip).map_err(|_| "its IPv6 header is wrong")?;
            let payload = &bytes[header.buffer_len()..ip.total_len()];
            let (source, destination) = (header.src_addr.into(), header.dst_addr.into());
            Ok(Packet { source, destination, protocol: header.next_header, hops: header.hop_limit, payload })
        }
        EthernetProtocol::Arp | EthernetProtocol::Unknown(_) => Err("it is neither ARP nor IP"),
    }
}

fn segment<'a>(ip: &Packet<'a>) -> Result<TcpPacket<&'a [u8]>, &'static str> {
    if ip.protocol != IpProtocol::Tcp {
        return Err("it carries something else than TCP");
    }
    let tcp = TcpPacket::new_checked(ip.payload).map_err(|_| "its TCP header is broken")?;
    if !tcp.verify_checksum(&ip.source.into(), &ip.destination.into()) {
        return Err("its TCP checksum is wrong");
    }
    Ok(tcp)
}

fn check_arp(bytes: &[u8]) -> Result<(), &'static str> {
    let arp = ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet));
    match arp.map_err(|_| "it is no ARP packet for Ethernet and IPv4")? {
        ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. }
            if source_hardware_addr.0 == NODE_MAC && source_protocol_addr == NODE_IPV4 =>
        {
            Ok(())
        }
        _ => Err("it is ARP in the name of somebody else"),
    }
}

/// The address by which the node speaks to all neighbours (RFC 4291 appendix A).
const NODE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What crosses no router has this hop limit (RFC 4861 §3.1).
const NEIGHBOR_HOPS: u8 = 255;

fn check_icmpv6(ip: &Packet<'_>, destination_mac: [u8; 6]) -> Result<(), &'static str> {
    const ERROR_PAYLOAD_BYTES_MAX: usize = 1_280 - 40;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        return Err("it is ICMPv6 over IPv4");
    };
    let [.., a, b, c, d] = destination.octets();
    if destination.is_multicast() && destination_mac != [0x33, 0x33, a, b, c, d] {
        return Err("it goes to a group by another Ethernet address than the group's");
    }
    if source != NODE_IPV6 && source != NODE_LINK_LOCAL {
        return Err("it comes from an address that the node does not have");
    }
    let is_of_node = |link: Option<RawHardwareAddress>| link.is_some_and(|link| link.as_bytes() == NODE_MAC);
    let message = Icmpv6Packet::new_checked(ip.payload).map_err(|_| "its ICMPv6 header is broken")?;
    let message = Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default());
    let is_right = match message.map_err(|_| "its ICMPv6 message is wrong")? {
        Icmpv6Repr::Ndisc(_) if ip.hops != NEIGHBOR_HOPS => false,
        // Who asks whether its own address is taken has none to be answered at: all are told.
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
            let is_solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            let is_to_whom = is_solicited != destination.is_multicast() && (is_solicited || destination == ALL_NODES);
            is_to_whom && source == target_addr && is_of_node(lladdr)
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr }) => {
            destination == group_of(target_addr) && is_of_node(lladdr)
        }
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr }) => {
            destination == ALL_ROUTERS && source == NODE_LINK_LOCAL && is_of_node(lladdr)
        }
        Icmpv6Repr::ParamProblem { header, .. } => {
            let is_of_ours = header.src_addr == destination && !destination.is_multicast();
            is_of_ours && ip.payload.len() <= ERROR_PAYLOAD_BYTES_MAX
        }
        _ => return Err("it is ICMPv6 that nobody has a reason for"),
    };
    if is_right { Ok(()) } else { Err("it is ICMPv6 that says something wrong") }
}

/// The group in which whoever has this address is asked for (RFC 4291 §2.7.1).
fn group_of(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, middle, low] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(high), u16::from_be_bytes([middle, low]))
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetAddress, EthernetRepr};

    use super::*;

    const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 1, 1);

    fn frame(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &Icmpv6Repr<'_>) -> Vec<u8> {
        let [.., a, b, c, d] = destination.octets();
        let to = if destination.is_multicast() { [0x33, 0x33, a, b, c, d] } else { [2, 0, 0, 0, 1, 0] };
        let mut frame = vec![0; 54 + message.buffer_len()];
        let (src_addr, dst_addr) = (EthernetAddress(NODE_MAC), EthernetAddress(to));
        EthernetRepr { src_addr, dst_addr, ethertype: EthernetProtocol::Ipv6 }
            .emit(&mut EthernetFrame::new_unchecked(&mut frame));
        let (src_addr, dst_addr, payload_len) = (source, destination, message.buffer_len());
        Ipv6Repr { src_addr, dst_addr, next_header: IpProtocol::Icmpv6, payload_len, hop_limit }
            .emit(&mut Ipv6Packet::new_unchecked(&mut frame[14..]));
        let capabilities = ChecksumCapabilities::default();
        message.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(&mut frame[54..]), &capabilities);
        frame
    }

    fn is_passed(frame: &[u8]) -> bool {
        matches!(from_node(frame, 1_500), Ok(None))
    }

    fn answer(flags: NdiscNeighborFlags, target_addr: Ipv6Addr, mac: [u8; 6]) -> Icmpv6Repr<'static> {
        let lladdr = Some(EthernetAddress(mac).into());
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr })
    }

    #[test]
    fn answers_to_neighbours_pass_in_the_name_of_the_node_alone() {
        let (solicited, free) = (NdiscNeighborFlags::SOLICITED, NdiscNeighborFlags::OVERRIDE);
        let right = frame(NODE_IPV6, CLIENT, 255, &answer(solicited, NODE_IPV6, NODE_MAC));
        assert!(is_passed(&right));
        assert!(is_passed(&frame(NODE_IPV6, ALL_NODES, 255, &answer(free, NODE_IPV6, NODE_MAC))));
        assert!(!is_passed(&frame(NODE_IPV6, ALL_NODES, 255, &answer(solicited, NODE_IPV6, NODE_MAC))));
        assert!(!is_passed(&frame(NODE_IPV6, CLIENT, 254, &answer(solicited, NODE_IPV6, NODE_MAC))), "a router's");
        assert!(!is_passed(&frame(NODE_IPV6, CLIENT, 255, &answer(solicited, CLIENT, NODE_MAC))), "another's address");
        assert!(!is_passed(&frame(NODE_IPV6, CLIENT, 255, &answer(solicited, NODE_IPV6, [2; 6]))), "another's place");
        for at in 54..right.len() {
            let mut spoilt = right.clone();
            spoilt[at] ^= 1;
            assert!(!is_passed(&spoilt), "byte {at}");
        }
    }

    #[test]
    fn questions_go_to_their_groups() {
        let lladdr = Some(EthernetAddress(NODE_MAC).into());
        let for_routers = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        assert!(is_passed(&frame(NODE_LINK_LOCAL, ALL_ROUTERS, 255, &for_routers)));
        assert!(!is_passed(&frame(NODE_LINK_LOCAL, ALL_NODES, 255, &for_routers)));
        let for_client = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: CLIENT, lladdr });
        let mut right = frame(NODE_IPV6, group_of(CLIENT), 255, &for_client);
        assert!(is_passed(&right));
        assert!(!is_passed(&frame(NODE_IPV6, group_of(NODE_IPV6), 255, &for_client)));
        right[5] ^= 1;
        assert!(!is_passed(&right), "it goes to another Ethernet address");
    }

    #[test]
    fn a_problem_is_told_to_whom_it_is_of() {
        let header = |src_addr, payload_len| Ipv6Repr {
            src_addr,
            dst_addr: NODE_IPV6,
            next_header: IpProtocol::Unknown(7),
            payload_len,
            hop_limit: 64,
        };
        let reason = smoltcp::wire::Icmpv6ParamProblem::UnrecognizedNxtHdr;
        let problem =
            |src_addr, data| Icmpv6Repr::ParamProblem { reason, pointer: 6, header: header(src_addr, 20), data };
        assert!(is_passed(&frame(NODE_IPV6, CLIENT, 64, &problem(CLIENT, &[0; 20]))));
        assert!(!is_passed(&frame(NODE_IPV6, CLIENT, 64, &problem(NODE_IPV6, &[0; 20]))));
        let echo = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: &[] };
        assert!(!is_passed(&frame(NODE_IPV6, CLIENT, 64, &echo)));
    }
}
