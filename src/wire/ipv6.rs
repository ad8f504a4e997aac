//! IPv6 headers (RFC 8200): which packets are taken, and the walk over extension headers.
//!
//! ```text
//! IPv6 | hop-by-hop options | destination options | routing | fragment | destination options | TCP or ICMPv6
//!        first or nowhere     each skipped where RFC 8200 allows it, at most eight together
//! ```
//!
//! Invariant: the walk is bounded by the number of headers and options, and each step moves on by at least eight bytes.

use std::net::Ipv6Addr;

use super::field::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMPV6, NO_NEXT_HEADER, ROUTING, TCP};
use super::field::{ipv6, u16_at};
use super::fragment::parse_ipv6_fragment;
use super::icmp::{Refused, parse_icmpv6};
use super::parse::{Addresses, ECN_BITS, Packet, ipv6_addresses, is_congested, parse_tcp};
use crate::tcp::Rule;

/// How many extension headers a packet may have, and how many options beside padding each (RFC 8504 §5.3).
const EXTENSIONS_MAX: usize = 8;
const OPTIONS_MAX: usize = 8;

/// Codes of a parameter problem (RFC 4443 §3.4).
const FIELD: u8 = 0;
const NEXT_HEADER: u8 = 1;
const OPTION: u8 = 2;

/// The headers below an ICMPv6 message.
pub(super) struct Lower {
    pub source_mac: [u8; 6],
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
}

/// Which Ethernet address a frame came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CameTo {
    Us,
    Group,
}

/// Why the walk over the headers ends before TCP or ICMPv6.
enum Stop {
    /// The packet is dropped.
    Drop(Rule),
    /// And its sender is told, as long as it was not sent to many.
    Tell { code: u8, pointer: usize },
    /// It is one of several fragments, whose header begins here.
    Fragment { at: usize },
    /// And its sender is told in any case.
    TellAlways { code: u8, pointer: usize },
}

/// Reads the payload of an Ethernet frame, which came to our own Ethernet address or to that of a group.
pub(super) fn parse_ipv6(bytes: &[u8], source_mac: [u8; 6], came_to: CameTo) -> Result<Packet<'_>, Rule> {
    let header = bytes.first_chunk::<{ ipv6::BYTES }>().ok_or(Rule::FrameMalformed)?;
    let total_bytes = ipv6::BYTES + usize::from(u16_at(header, ipv6::PAYLOAD_BYTES));
    if header[0] >> 4 != 6 || total_bytes > bytes.len() {
        return Err(Rule::FrameMalformed);
    }
    let packet = &bytes[..total_bytes];
    let both = header.last_chunk::<32>().ok_or(Rule::FrameMalformed)?;
    let (source, destination) = ipv6_addresses(both);
    let traffic_class = (u16_at(header, 0) >> 4) as u8;
    // Addresses that stand for IPv4 ones belong in no packet (RFC 4291 §2.5.5).
    if source.is_multicast() || source.is_loopback() || source.to_ipv4_mapped().is_some() || source == destination {
        return Err(Rule::SourceAddressInvalid);
    }
    let is_to_many = destination.is_multicast();
    if destination.to_ipv4_mapped().is_some() || (came_to == CameTo::Group && !is_to_many) {
        return Err(Rule::FrameNotForUs);
    }
    let lower = Lower { source_mac, source, destination, hop_limit: header[ipv6::HOP_LIMIT] };
    let refused = |code, pointer: usize| {
        if source.is_unspecified() || carries_error(packet) {
            return Err(Rule::Ipv6HeaderRefused);
        }
        let pointer = pointer as u32;
        Ok(Packet::Refused(Refused { source_mac, remote: source, local: destination, code, pointer, packet }))
    };
    let (protocol, next_header_at, at) = match upper_layer(packet) {
        Ok(found) => found,
        Err(Stop::Drop(rule)) => return Err(rule),
        Err(Stop::Fragment { .. }) if is_to_many => return Err(Rule::FrameNotForUs),
        Err(Stop::Fragment { .. }) if source.is_unspecified() => return Err(Rule::SourceAddressInvalid),
        Err(Stop::Fragment { at }) => {
            let ends = (source.into(), destination.into());
            return parse_ipv6_fragment(&packet[at..], ends, source_mac, traffic_class & ECN_BITS)
                .map(Packet::Fragment);
        }
        Err(Stop::Tell { .. }) if is_to_many => return Err(Rule::Ipv6HeaderRefused),
        Err(Stop::Tell { code, pointer } | Stop::TellAlways { code, pointer }) => return refused(code, pointer),
    };
    match protocol {
        ICMPV6 => parse_icmpv6(&packet[at..], &lower),
        // Only neighbour discovery speaks for nobody, and to many.
        _ if source.is_unspecified() => Err(Rule::SourceAddressInvalid),
        _ if is_to_many => Err(Rule::FrameNotForUs),
        TCP => {
            parse_tcp(&packet[at..], source_mac, Addresses::Ipv6(both), is_congested(traffic_class)).map(Packet::Tcp)
        }
        _ => refused(NEXT_HEADER, next_header_at),
    }
}

/// The first header that is none of the extensions: its number, where that stands, and where it begins.
fn upper_layer(packet: &[u8]) -> Result<(u8, usize, usize), Stop> {
    let (mut next_header_at, mut at) = (ipv6::NEXT_HEADER, ipv6::BYTES);
    for _ in 0..=EXTENSIONS_MAX {
        let next_header = packet[next_header_at];
        match next_header {
            HOP_BY_HOP if at != ipv6::BYTES => {
                return Err(Stop::Tell { code: NEXT_HEADER, pointer: next_header_at });
            }
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT => {}
            NO_NEXT_HEADER => return Err(Stop::Drop(Rule::FrameNotForUs)),
            _ => return Ok((next_header, next_header_at, at)),
        }
        let end = extension_end(packet, next_header, at).ok_or(Stop::Drop(Rule::FrameMalformed))?;
        let extension = &packet[at..end];
        match next_header {
            ROUTING => check_routing(extension, at)?,
            FRAGMENT => check_fragment(extension, at)?,
            _ => check_options(extension, at)?,
        }
        (next_header_at, at) = (at, end);
    }
    Err(Stop::Drop(Rule::Ipv6HeaderRefused))
}

/// Where the extension header that begins at `at` ends; `None` where the packet does not have all of it.
fn extension_end(packet: &[u8], kind: u8, at: usize) -> Option<usize> {
    let length = usize::from(*packet.get(at + 1)?);
    let end = if kind == FRAGMENT { at + 8 } else { at + 8 + 8 * length };
    (end <= packet.len()).then_some(end)
}

/// No kind of routing is known, the forbidden type 0 (RFC 5095 §3) included: without segments left the header is
/// skipped, with them the packet is refused (RFC 8200 §4.4).
fn check_routing(extension: &[u8], at: usize) -> Result<(), Stop> {
    if extension[3] == 0 { Ok(()) } else { Err(Stop::Tell { code: FIELD, pointer: at + 2 }) }
}

/// A packet whose only fragment is the whole of it is taken (RFC 6946 §4).
fn check_fragment(extension: &[u8], at: usize) -> Result<(), Stop> {
    let is_whole = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9 == 0;
    if is_whole { Ok(()) } else { Err(Stop::Fragment { at }) }
}

/// Options are skipped, or the packet refused, as the upper two bits of their type say (RFC 8200 §4.2).
fn check_options(extension: &[u8], extension_at: usize) -> Result<(), Stop> {
    const PAD_ONE: u8 = 0;
    const PAD: u8 = 1;
    let (mut at, mut count) = (2, 0);
    while at < extension.len() {
        let kind = extension[at];
        if kind == PAD_ONE {
            at += 1;
            continue;
        }
        let length = extension.get(at + 1).copied().ok_or(Stop::Drop(Rule::FrameMalformed))?;
        let end = at + 2 + usize::from(length);
        if end > extension.len() {
            return Err(Stop::Drop(Rule::FrameMalformed));
        }
        count += usize::from(kind != PAD);
        if count > OPTIONS_MAX {
            return Err(Stop::Drop(Rule::Ipv6HeaderRefused));
        }
        let pointer = extension_at + at;
        match kind >> 6 {
            0 => {}
            1 => return Err(Stop::Drop(Rule::Ipv6HeaderRefused)),
            2 => return Err(Stop::TellAlways { code: OPTION, pointer }),
            _ => return Err(Stop::Tell { code: OPTION, pointer }),
        }
        at = end;
    }
    Ok(())
}

/// Whether a packet carries an ICMPv6 error, as far as its headers can be followed: no error answers it (RFC 4443
/// §2.4 (e)).
fn carries_error(packet: &[u8]) -> bool {
    let (mut kind, mut at) = (packet[ipv6::NEXT_HEADER], ipv6::BYTES);
    for _ in 0..=EXTENSIONS_MAX {
        match kind {
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT => {}
            ICMPV6 => return packet.get(at).is_none_or(|message| message & 0x80 == 0),
            _ => return false,
        }
        let Some(end) = extension_end(packet, kind, at) else { return true };
        (kind, at) = (packet[at], end);
    }
    true
}

/// The multicast address by which a neighbour with this address is asked for (RFC 4291 §2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, middle, low] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(high), u16::from_be_bytes([middle, low]))
}

/// The Ethernet address of a multicast address (RFC 2464 §7).
pub(super) fn multicast_mac(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::super::{NeighborMessage, Packet, emit_advertisement, emit_solicitation, parse};
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn frames() -> Vec<Vec<u8>> {
        let [ours, peer] = ["fd00::1", "fd00::2"].map(|text| text.parse().expect("is an address"));
        let (mut solicitation, mut advertisement) = (Vec::new(), Vec::new());
        emit_solicitation(&mut solicitation, [2, 0, 0, 0, 0, 2], peer, ours);
        let source_mac = [2, 0, 0, 0, 0, 2];
        let question =
            NeighborMessage { source_mac: MAC, source: ours, target: peer, link_address: None, advertisement: None };
        emit_advertisement(&mut advertisement, source_mac, &question);
        let mut optioned = advertisement.clone();
        optioned.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
        optioned[14 + ipv6::NEXT_HEADER] = DESTINATION_OPTIONS;
        optioned[14 + 5] += 8;
        let mut routed = advertisement.clone();
        routed.splice(54..54, [58, 0, 0, 0, 0, 0, 0, 0]);
        routed[14 + ipv6::NEXT_HEADER] = ROUTING;
        routed[14 + 5] += 8;
        vec![solicitation, advertisement, optioned, routed]
    }

    #[test]
    fn what_is_said_to_neighbours_is_heard() {
        for (index, frame) in frames().iter().enumerate() {
            let Ok(Packet::Neighbor(message)) = parse(frame, &MAC) else { panic!("frame {index} is whole") };
            assert_eq!(message.link_address, Some([2, 0, 0, 0, 0, 2]));
            assert_eq!(message.advertisement.is_some(), index > 0);
        }
    }

    #[test]
    fn no_prefix_and_no_changed_byte_panics() {
        for frame in frames() {
            for length in 0..frame.len() {
                assert!(parse(&frame[..length], &MAC).is_err(), "{length} bytes of {}", frame.len());
            }
            for at in 12..frame.len() {
                for byte in [0, 1, 0x3b, 0x80, 0xc2, 0xff] {
                    let mut changed = frame.clone();
                    changed[at] = byte;
                    // Whatever it says now, it is a packet or a rule.
                    let _ = parse(&changed, &MAC);
                }
            }
        }
    }
}
