//! Received frames as values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arp::{ArpMessage, parse_arp};
use super::checksum::Sum;
use super::field::tcp::option;
use super::field::{ethernet, ipv4, protocol, tcp, u16_at, u32_at};
use super::fragment::{Fragment, parse_ipv4_fragment};
use super::icmp::{Echo, IcmpError, Refused, parse_icmpv4};
use super::ipv6::{CameTo, parse_ipv6};
use super::ndp::{NeighborMessage, RouterAdvertisement};
use crate::tcp::{Control, Rule, Segment, SeqNum, Timestamps};

/// A frame that concerns us.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// A TCP segment.
    Tcp(TcpPacket<'a>),
    /// An ARP message.
    Arp(ArpMessage),
    /// An ICMP echo request.
    Echo(Echo<'a>),
    /// An ICMP error about a TCP segment of ours.
    Error(IcmpError),
    /// A neighbour asks for an address or says that it has one.
    Neighbor(NeighborMessage),
    /// A router says that it is there.
    Router(RouterAdvertisement<'a>),
    /// A part of a TCP segment or of an ICMP message.
    Fragment(Fragment<'a>),
    /// An IPv6 packet that we may not take and whose sender is to be told.
    Refused(Refused<'a>),
}

/// A TCP segment with its addresses, as the receiver sees them.
#[derive(Clone, Copy, Debug)]
pub struct TcpPacket<'a> {
    /// Ethernet address that the frame came from.
    pub source_mac: [u8; 6],
    /// The peer's address, and the one that the segment was sent to.
    pub addresses: Addresses<'a>,
    /// The peer's port.
    pub remote_port: u16,
    /// The port that the segment was sent to.
    pub local_port: u16,
    /// Header and options.
    pub segment: Segment<'a>,
    /// Payload; as long as the segment says.
    pub payload: &'a [u8],
}

/// Both addresses of a packet. Those of IPv6 stay in the frame: whoever looks at many packets moves them often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses<'a> {
    /// Of IPv4.
    Ipv4 {
        /// The peer's.
        remote: Ipv4Addr,
        /// Where it was sent to.
        local: Ipv4Addr,
    },
    /// Of IPv6, in this order.
    Ipv6(&'a [u8; 32]),
}

impl Addresses<'_> {
    /// The peer's.
    #[inline]
    pub fn remote(&self) -> IpAddr {
        match self {
            Addresses::Ipv4 { remote, .. } => IpAddr::V4(*remote),
            Addresses::Ipv6(both) => ipv6_addresses(both).0.into(),
        }
    }

    /// Where the packet was sent to.
    #[inline]
    pub fn local(&self) -> IpAddr {
        match self {
            Addresses::Ipv4 { local, .. } => IpAddr::V4(*local),
            Addresses::Ipv6(both) => ipv6_addresses(both).1.into(),
        }
    }
}

/// Two addresses that lie side by side.
#[inline]
pub(super) fn ipv6_addresses(both: &[u8; 32]) -> (Ipv6Addr, Ipv6Addr) {
    let halves = both.as_chunks::<16>().0;
    (Ipv6Addr::from(halves[0]), Ipv6Addr::from(halves[1]))
}

const BROADCAST: [u8; 6] = [0xff; 6];
/// These bits of the traffic class are not part of the codepoint.
pub(super) const ECN_BITS: u8 = 0x03;

/// Reads a frame that arrived at the Ethernet address `mac`. An error says why it is of no concern. Inlined, so that
/// what is read is written once, to where the caller wants it.
#[inline(always)]
pub fn parse<'a>(frame: &'a [u8], mac: &[u8; 6]) -> Result<Packet<'a>, Rule> {
    let (header, packet) = frame.split_first_chunk::<{ ethernet::BYTES }>().ok_or(Rule::FrameMalformed)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ether_type @ ..] = *header;
    let (destination, source_mac) = ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]);
    let is_ours = destination == *mac;
    match u16::from_be_bytes(ether_type) {
        ethernet::TYPE_IPV4 if is_ours => parse_ipv4(packet, source_mac),
        ethernet::TYPE_IPV6 if is_ours || destination[..2] == ethernet::IPV6_GROUP => {
            let came_to = if is_ours { CameTo::Us } else { CameTo::Group };
            parse_ipv6(packet, source_mac, came_to)
        }
        ethernet::TYPE_ARP if is_ours || destination == BROADCAST => parse_arp(packet).map(Packet::Arp),
        _ => Err(Rule::FrameNotForUs),
    }
}

#[inline(always)]
fn parse_ipv4(bytes: &[u8], source_mac: [u8; 6]) -> Result<Packet<'_>, Rule> {
    let header = bytes.first_chunk::<{ ipv4::BYTES }>().ok_or(Rule::FrameMalformed)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(header, ipv4::TOTAL_BYTES));
    let is_whole = (ipv4::BYTES..=total_bytes).contains(&header_bytes) && total_bytes <= bytes.len();
    if header[0] >> 4 != 4 || !is_whole {
        return Err(Rule::FrameMalformed);
    }
    let (with_options, payload) = bytes[..total_bytes].split_at(header_bytes);
    let options = &with_options[ipv4::BYTES..];
    if Sum::default().add_header(header).add_bytes(options).finish() != 0 {
        return Err(Rule::Ipv4Checksum);
    }
    if !options.is_empty() {
        check_ipv4_options(options)?;
    }
    let [source, local] = [ipv4::SOURCE, ipv4::DESTINATION].map(|at| Ipv4Addr::from_bits(u32_at(header, at)));
    // 0.0.0.0/8 is "this network", whose hosts are never seen by others (RFC 1122 §3.2.1.3).
    let is_this_network = source.octets()[0] == 0;
    let is_peer = !(source.is_multicast() || source.is_broadcast() || source.is_loopback() || is_this_network);
    if !is_peer || source == local {
        return Err(Rule::SourceAddressInvalid);
    }
    if u16_at(header, ipv4::FRAGMENT) & ipv4::FRAGMENT_BITS != 0 {
        return parse_ipv4_fragment(header, payload, source_mac).map(Packet::Fragment);
    }
    match header[ipv4::PROTOCOL] {
        protocol::TCP => {
            let addresses = Addresses::Ipv4 { remote: source, local };
            parse_tcp(payload, source_mac, addresses, is_congested(header[ipv4::TRAFFIC_CLASS])).map(Packet::Tcp)
        }
        protocol::ICMPV4 => parse_icmpv4(payload, source_mac, source, local),
        _ => Err(Rule::FrameNotForUs),
    }
}

/// Walks the options of an IPv4 header (RFC 791 §3.1). What they ask for is left undone (RFC 1122 §3.2.1.8), but a
/// packet with a source route comes by a way that its sender chose and is not taken (RFC 7126 §4.3 and §4.4).
fn check_ipv4_options(mut options: &[u8]) -> Result<(), Rule> {
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some(next) = next_option(&mut options) {
        let (kind, _) = next?;
        if kind == LOOSE_SOURCE_ROUTE || kind == STRICT_SOURCE_ROUTE {
            return Err(Rule::Ipv4SourceRoute);
        }
    }
    Ok(())
}

/// Takes the next option of an IPv4 or TCP header off: its kind and its value. `None` behind the last one; an error
/// where its length is impossible.
#[inline(always)]
fn next_option<'a>(options: &mut &'a [u8]) -> Option<Result<(u8, &'a [u8]), Rule>> {
    loop {
        let (&kind, rest) = options.split_first()?;
        if kind == option::END {
            return None;
        }
        if kind == option::NO_OPERATION {
            *options = rest;
            continue;
        }
        let length = rest.first().map_or(0, |&length| usize::from(length));
        if length < 2 || length > options.len() {
            return Some(Err(Rule::FrameMalformed));
        }
        let value = &options[2..length];
        *options = &options[length..];
        return Some(Ok((kind, value)));
    }
}

/// Whether a traffic class says that the packet was marked on its way (RFC 3168 §5).
pub(super) fn is_congested(traffic_class: u8) -> bool {
    traffic_class & ECN_BITS == ECN_BITS
}

/// Reads a TCP segment.
#[inline(always)]
pub(super) fn parse_tcp<'a>(
    bytes: &'a [u8],
    source_mac: [u8; 6],
    addresses: Addresses<'a>,
    is_congested: bool,
) -> Result<TcpPacket<'a>, Rule> {
    let header = bytes.first_chunk::<{ tcp::BYTES }>().ok_or(Rule::FrameMalformed)?;
    let header_bytes = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    if !(tcp::BYTES..=bytes.len()).contains(&header_bytes) {
        return Err(Rule::FrameMalformed);
    }
    let pseudo = Sum::default().add_words(&[u32::from(protocol::TCP) << 16 | bytes.len() as u32]);
    let pseudo = match addresses {
        Addresses::Ipv4 { remote, local } => pseudo.add_words(&[remote.to_bits(), local.to_bits()]),
        Addresses::Ipv6(both) => pseudo.add_header(both),
    };
    if pseudo.add_header(header).add_bytes(&bytes[tcp::BYTES..]).finish() != 0 {
        return Err(Rule::TcpChecksum);
    }
    let (with_options, payload) = bytes.split_at(header_bytes);
    let (seq, ack) = (SeqNum(u32_at(header, tcp::SEQ)), SeqNum(u32_at(header, tcp::ACK)));
    let bare = Segment::bare(seq, ack, Control(header[tcp::CONTROL]), u16_at(header, tcp::WINDOW));
    let urgent = u16_at(header, tcp::URGENT);
    let mut segment = Segment { is_congested, payload_bytes: payload.len() as u32, urgent, ..bare };
    if header_bytes > tcp::BYTES {
        read_options(&with_options[tcp::BYTES..], &mut segment);
    }
    let (remote_port, local_port) = (u16_at(header, tcp::SOURCE_PORT), u16_at(header, tcp::DESTINATION_PORT));
    Ok(TcpPacket { source_mac, addresses, remote_port, local_port, segment, payload })
}

/// Walks the options (RFC 9293 §3.2). Unknown ones are skipped by their length (MUST-6); one of impossible length ends
/// the walk and what was read before it stands (MUST-7).
fn read_options<'a>(mut options: &'a [u8], segment: &mut Segment<'a>) {
    let is_syn = segment.control.has(Control::SYN);
    while let Some(Ok(kind_and_value)) = next_option(&mut options) {
        match kind_and_value {
            (option::MSS, &[high, low]) if is_syn => segment.mss = Some(u16::from_be_bytes([high, low])),
            (option::WINDOW_SCALE, &[shift]) if is_syn => segment.window_shift = Some(shift),
            (option::SACK_PERMITTED, &[]) if is_syn => segment.sack_permitted = true,
            (option::TIMESTAMPS, &[v0, v1, v2, v3, e0, e1, e2, e3]) => {
                let (value, echo) = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([e0, e1, e2, e3]));
                segment.timestamps = Some(Timestamps { value, echo });
            }
            (option::SACK, blocks) if !is_syn => segment.sack = blocks,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(bytes: &[u8]) -> (Option<u16>, Option<u8>) {
        let mut segment = Segment::bare(SeqNum(0), SeqNum(0), Control::SYN, 0);
        read_options(bytes, &mut segment);
        (segment.mss, segment.window_shift)
    }

    #[test]
    fn options_are_read_wherever_they_stand() {
        assert_eq!(options_of(&[1, 2, 4, 5, 0xb4, 1, 3, 3, 7]), (Some(1460), Some(7)));
        assert_eq!(options_of(&[200, 4, 9, 9, 2, 4, 2, 0]), (Some(512), None), "an unknown option is skipped");
        assert_eq!(options_of(&[0, 2, 4, 5, 0xb4]), (None, None), "nothing counts behind the end");
    }

    #[test]
    fn an_impossible_length_ends_the_walk() {
        assert_eq!(options_of(&[2, 4, 5, 0xb4, 3, 0, 7]), (Some(1460), None));
        assert_eq!(options_of(&[2, 4, 5, 0xb4, 3, 1, 7]), (Some(1460), None));
        assert_eq!(options_of(&[3]), (None, None));
        assert_eq!(options_of(&[2, 40, 5, 0xb4]), (None, None));
        assert_eq!(options_of(&[2, 3, 5, 3, 3, 7]), (None, Some(7)), "an MSS of the wrong length says nothing");
    }

    #[test]
    fn no_prefix_of_anything_panics() {
        let mut frame = [0u8; 80];
        frame[12..14].copy_from_slice(&[8, 0]);
        for (version, protocol) in [(0x45, 6), (0x4f, 6), (0x45, 1), (0x40, 6), (0x65, 6)] {
            frame[14] = version;
            frame[17] = 66;
            frame[23] = protocol;
            for length in 0..frame.len() {
                assert!(parse(&frame[..length], &[0; 6]).is_err());
            }
        }
    }
}
