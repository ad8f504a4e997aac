//! Encapsulations: what stands before the IP packet on links that are no Ethernet.
//!
//! In: a packet and the link type of its capture (the numbers of tcpdump.org's registry). Out: an Ethernet frame, with
//! the addresses 0 where the link had none. VLAN tags are taken off.

use crate::wire::field::ethernet::{TYPE, TYPE_IPV4, TYPE_IPV6};
use crate::wire::field::u16_in;

/// A link type whose packets can be made Ethernet frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encapsulation {
    Ethernet,
    RawIp,
    /// "Any" interface of Linux, version 1.
    LinuxCooked,
    /// The same, version 2.
    LinuxCookedV2,
    /// BSD loopback: an address family of four bytes, in either byte order.
    Loopback,
}

/// What each link type's number stands for.
const LINK_TYPES: &[(u32, Encapsulation)] = &[
    (0, Encapsulation::Loopback),
    (1, Encapsulation::Ethernet),
    (12, Encapsulation::RawIp),
    (14, Encapsulation::RawIp),
    (101, Encapsulation::RawIp),
    (108, Encapsulation::Loopback),
    (113, Encapsulation::LinuxCooked),
    (228, Encapsulation::RawIp),
    (229, Encapsulation::RawIp),
    (276, Encapsulation::LinuxCookedV2),
];

/// Tags of IEEE 802.1Q and 802.1ad, and the one in use before that.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// What a packet without a sensible header is said to be: of no protocol.
const TYPE_NONE: u16 = 0;

impl Encapsulation {
    /// The encapsulation of a link type; `None` for one that is not known here.
    pub fn of(link_type: u32) -> Option<Encapsulation> {
        LINK_TYPES.iter().find(|(number, _)| *number == link_type).map(|(_, encapsulation)| *encapsulation)
    }

    /// The packet as an Ethernet frame. One that is shorter than its own header becomes an empty frame of no protocol.
    pub fn to_ethernet(self, packet: &[u8]) -> Vec<u8> {
        let (ethertype, payload) = match self {
            Encapsulation::Ethernet => return without_tags(packet),
            Encapsulation::RawIp => (of_version(packet), Some(packet)),
            Encapsulation::LinuxCooked => (word(packet, 14), packet.get(16..)),
            Encapsulation::LinuxCookedV2 => (word(packet, 0), packet.get(20..)),
            Encapsulation::Loopback => (of_family(packet), packet.get(4..)),
        };
        let mut frame = vec![0; TYPE];
        frame.extend_from_slice(&payload.map_or(TYPE_NONE, |_| ethertype).to_be_bytes());
        frame.extend_from_slice(payload.unwrap_or_default());
        frame
    }
}

fn without_tags(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    while frame.len() >= 18 && VLAN_TAGS.contains(&word(&frame, TYPE)) {
        frame.drain(TYPE..TYPE + 4);
    }
    frame
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16_in(packet, at).unwrap_or(TYPE_NONE)
}

fn of_version(packet: &[u8]) -> u16 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => TYPE_IPV4,
        Some(6) => TYPE_IPV6,
        _ => TYPE_NONE,
    }
}

/// The family is a small number in the byte order of the machine that captured it; that of IPv6 differs by system.
fn of_family(packet: &[u8]) -> u16 {
    let Some(&[a, b, c, d]) = packet.first_chunk::<4>() else { return TYPE_NONE };
    match u32::from_le_bytes([a, b, c, d]).min(u32::from_be_bytes([a, b, c, d])) {
        2 => TYPE_IPV4,
        10 | 24 | 28 | 30 => TYPE_IPV6,
        _ => TYPE_NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: &[u8] = &[0x45, 0, 0, 20];

    fn made(link_type: u32, packet: &[u8]) -> (u16, Vec<u8>) {
        let frame = Encapsulation::of(link_type).expect("a known link type").to_ethernet(packet);
        (word(&frame, 12), frame[14..].to_vec())
    }

    #[test]
    fn every_link_type_yields_the_same_packet() {
        let expected = (TYPE_IPV4, IP.to_vec());
        let ethernet = [&[1; 12], &[8, 0][..], IP].concat();
        let tagged = [&[1; 12], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0][..], IP].concat();
        let cooked = [&[0; 14], &[8, 0][..], IP].concat();
        let cooked_v2 = [&[8, 0][..], &[0; 18], IP].concat();
        for (link_type, packet) in [
            (1, ethernet.as_slice()),
            (1, &tagged),
            (101, IP),
            (228, IP),
            (113, &cooked),
            (276, &cooked_v2),
            (0, &[&[2, 0, 0, 0], IP].concat()),
            (108, &[&[0, 0, 0, 2], IP].concat()),
        ] {
            assert_eq!(made(link_type, packet), expected, "link type {link_type}");
        }
        assert_eq!(made(0, &[30, 0, 0, 0, 0x60]), (TYPE_IPV6, vec![0x60]));
        assert_eq!(Encapsulation::of(147), None);
    }

    #[test]
    fn packets_shorter_than_their_header_are_of_no_protocol() {
        for (link_type, _) in LINK_TYPES.iter().filter(|(number, _)| *number != 1) {
            assert_eq!(made(*link_type, &[]), (TYPE_NONE, Vec::new()), "link type {link_type}");
        }
        assert_eq!(made(113, &[8; 15]), (TYPE_NONE, Vec::new()));
        assert_eq!(Encapsulation::Ethernet.to_ethernet(&[1, 2, 3]), [1, 2, 3]);
    }
}
