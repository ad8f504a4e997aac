//! Neighbour discovery (RFC 4861): who has which IPv6 address, and who is a router.
//!
//! In: ICMPv6 messages whose checksum is right. Out: those that pass the checks of §6.1.2, §7.1.1 and §7.1.2, as
//! values; and frames that ask and answer. Multicast listeners are reported to nobody: the links are point to point or
//! flood what they do not know.

use std::net::Ipv6Addr;

use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, NdiscNeighborFlags};

use super::emit::Addressing;
use super::icmp::emit_icmp;
use super::ipv6::{Lower, multicast_mac, solicited_node};
use super::parse::Packet;
use crate::tcp::Rule;

/// A neighbour asks for an address, or says that it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborMessage {
    /// Ethernet address that the frame came from.
    pub source_mac: [u8; 6],
    /// Who speaks; unspecified for one that asks whether its own address is taken already (RFC 4862 §5.4).
    pub source: Ipv6Addr,
    /// The address that this is about.
    pub target: Ipv6Addr,
    /// The Ethernet address that the message tells: of the source if it asks, of the target if it says.
    pub link_address: Option<[u8; 6]>,
    /// What it says; `None` if it asks.
    pub advertisement: Option<Advertisement>,
}

/// How a neighbour says that it has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// In answer to a question.
    pub is_solicited: bool,
    /// It holds whatever was known before.
    pub is_override: bool,
}

/// A network whose hosts are reached without a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnLink {
    /// Its first address.
    pub prefix: Ipv6Addr,
    /// Length of the prefix, at most 128.
    pub bits: u8,
    /// For how long that holds, in seconds; `u32::MAX` for ever.
    pub valid_s: u32,
}

/// A router says that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouterAdvertisement<'a> {
    /// Its link-local address.
    pub router: Ipv6Addr,
    /// Its Ethernet address, if it tells it.
    pub link_address: Option<[u8; 6]>,
    /// For how long it forwards what is sent to it, in seconds; 0 for not any more.
    pub lifetime_s: u16,
    options: &'a [u8],
}

impl RouterAdvertisement<'_> {
    /// The networks that it says are on the link.
    pub fn on_link(&self) -> impl Iterator<Item = OnLink> {
        options_of(self.options).filter(|&(kind, _)| kind == PREFIX).filter_map(|(_, body)| read_prefix(body))
    }
}

/// What crosses no router has come with this hop limit (§3.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Where the options of a message begin.
const NEIGHBOR_BYTES: usize = 24;
const ROUTER_BYTES: usize = 16;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const PREFIX: u8 = 3;

/// Reads a message of neighbour discovery whose checksum is right.
pub(super) fn parse_ndp<'a>(bytes: &'a [u8], lower: &Lower) -> Result<Packet<'a>, Rule> {
    let view = Icmpv6Packet::new_unchecked(bytes);
    let message = view.msg_type();
    let options_at = if message == Icmpv6Message::RouterAdvert { ROUTER_BYTES } else { NEIGHBOR_BYTES };
    let options = bytes.get(options_at..).ok_or(Rule::NeighborIgnored)?;
    if lower.hop_limit != HOP_LIMIT || view.msg_code() != 0 || !are_whole(options) {
        return Err(Rule::NeighborIgnored);
    }
    if message == Icmpv6Message::RouterAdvert {
        return parse_router(&view, options, lower).map(Packet::Router);
    }
    let target = view.target_addr();
    let (wanted, advertisement) = if message == Icmpv6Message::NeighborSolicit {
        (SOURCE_LINK_ADDRESS, None)
    } else {
        let flags = view.neighbor_flags();
        let is_solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
        let is_override = flags.contains(NdiscNeighborFlags::OVERRIDE);
        (TARGET_LINK_ADDRESS, Some(Advertisement { is_solicited, is_override }))
    };
    let link_address = link_address(options, wanted);
    let is_sound = match advertisement {
        // One without an address of its own asks the group of the target, and has no link address to tell.
        None if lower.source.is_unspecified() => lower.destination == solicited_node(target) && link_address.is_none(),
        None => true,
        Some(advertisement) => {
            let is_answer_to_many = lower.destination.is_multicast() && advertisement.is_solicited;
            !is_answer_to_many && !lower.source.is_unspecified()
        }
    };
    if target.is_multicast() || !is_sound {
        return Err(Rule::NeighborIgnored);
    }
    let (source_mac, source) = (lower.source_mac, lower.source);
    Ok(Packet::Neighbor(NeighborMessage { source_mac, source, target, link_address, advertisement }))
}

fn parse_router<'a>(
    view: &Icmpv6Packet<&[u8]>,
    options: &'a [u8],
    lower: &Lower,
) -> Result<RouterAdvertisement<'a>, Rule> {
    if !lower.source.is_unicast_link_local() {
        return Err(Rule::NeighborIgnored);
    }
    Ok(RouterAdvertisement {
        router: lower.source,
        link_address: link_address(options, SOURCE_LINK_ADDRESS),
        lifetime_s: view.router_lifetime().secs() as u16,
        options,
    })
}

/// A prefix information option (§4.6.2) that says that its network is on the link (§6.3.4).
fn read_prefix(body: &[u8]) -> Option<OnLink> {
    const ON_LINK: u8 = 0x80;
    let body = body.first_chunk::<30>()?;
    let (bits, flags) = (body[0], body[1]);
    let valid_s = u32::from_be_bytes([body[2], body[3], body[4], body[5]]);
    let prefix = Ipv6Addr::from(*body.last_chunk::<16>()?);
    let is_taken = flags & ON_LINK != 0 && bits <= 128 && !prefix.is_unicast_link_local() && !prefix.is_multicast();
    is_taken.then_some(OnLink { prefix, bits, valid_s })
}

/// Whether each option ends within the message and none has the length 0 (§4.6).
fn are_whole(mut options: &[u8]) -> bool {
    while let Some(&[_, length]) = options.first_chunk::<2>() {
        match options.get(usize::from(length) * 8..) {
            Some(rest) if length > 0 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// The options, which are whole: their types, and their bodies without type and length.
fn options_of(mut options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let &[kind, length] = options.first_chunk::<2>()?;
        let (option, rest) = options.split_at_checked(usize::from(length) * 8)?;
        options = rest;
        Some((kind, option.get(2..)?))
    })
}

fn link_address(options: &[u8], wanted: u8) -> Option<[u8; 6]> {
    let (_, body) = options_of(options).find(|&(kind, _)| kind == wanted)?;
    let mac = *body.first_chunk::<6>()?;
    // A multicast address is nobody's.
    (mac[0] & 1 == 0).then_some(mac)
}

/// Appends a question for the Ethernet address of `target`, from one of our addresses (§7.2.2).
pub fn emit_solicitation(out: &mut Vec<u8>, source_mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) {
    let ends = ends(source_mac, source, solicited_node(target));
    emit_icmp(out, &ends, |out| {
        out.extend_from_slice(&[Icmpv6Message::NeighborSolicit.into(), 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&target.octets());
        put_link_address(out, SOURCE_LINK_ADDRESS, source_mac);
    });
}

/// Appends the answer to `question`, whose target is one of our addresses (§7.2.4).
pub fn emit_advertisement(out: &mut Vec<u8>, source_mac: [u8; 6], question: &NeighborMessage) {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let is_from_nobody = question.source.is_unspecified();
    let mut ends = ends(source_mac, question.target, if is_from_nobody { ALL_NODES } else { question.source });
    if !is_from_nobody {
        ends.destination_mac = question.link_address.unwrap_or(question.source_mac);
    }
    let flags = if is_from_nobody { OVERRIDE } else { SOLICITED | OVERRIDE };
    emit_icmp(out, &ends, |out| {
        out.extend_from_slice(&[Icmpv6Message::NeighborAdvert.into(), 0, 0, 0, flags, 0, 0, 0]);
        out.extend_from_slice(&question.target.octets());
        put_link_address(out, TARGET_LINK_ADDRESS, source_mac);
    });
}

/// Appends a question for routers (§6.3.7).
pub fn emit_router_solicitation(out: &mut Vec<u8>, source_mac: [u8; 6], source: Ipv6Addr) {
    emit_icmp(out, &ends(source_mac, source, ALL_ROUTERS), |out| {
        out.extend_from_slice(&[Icmpv6Message::RouterSolicit.into(), 0, 0, 0, 0, 0, 0, 0]);
        put_link_address(out, SOURCE_LINK_ADDRESS, source_mac);
    });
}

fn put_link_address(out: &mut Vec<u8>, kind: u8, mac: [u8; 6]) {
    out.extend_from_slice(&[kind, 1]);
    out.extend_from_slice(&mac);
}

/// Both ends of a message, to a group unless the caller says otherwise.
fn ends(source_mac: [u8; 6], source: Ipv6Addr, destination: Ipv6Addr) -> Addressing {
    Addressing::without_ports(source_mac, multicast_mac(destination), source.into(), destination.into(), HOP_LIMIT)
}
