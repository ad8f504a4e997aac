//! The kernel's neighbours: where it sends, over an interface, what is for an address.
//!
//! Comes in: an address. Goes out: netlink requests for the route and for the neighbour that it leads to; one that the
//! kernel is not sure of is asked for by the kernel, with its own address and for its own table.
//!
//! Invariant: an entry that somebody has made by hand is never changed.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{ask, query};

/// The Ethernet address that what is for `address` goes to over the interface with this index, if the kernel is sure.
/// Where somebody else may have taken that up, it sees to it from now on, as after a packet to there. Needs
/// CAP_NET_ADMIN.
pub(super) fn find(interface: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let neighbor = gateway_to(interface, address)?.unwrap_or(address);
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbor);
    message.header.ifindex = interface;
    message.attributes = vec![NeighbourAttribute::Destination(neighbor.into())];
    // An error says that there is none.
    let found = query(RouteNetlinkMessage::GetNeighbour(message.clone())).ok();
    let known = match found {
        Some(RouteNetlinkMessage::NewNeighbour(known)) => known,
        _ => NeighbourMessage::default(),
    };
    let state = known.header.state;
    let has_been_sure = matches!(state, NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay);
    if has_been_sure {
        // It is asked at once, and while it does not answer the entry stays as it is.
        message.header.state = NeighbourState::Probe;
        ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_REPLACE)?;
    } else if matches!(state, NeighbourState::None | NeighbourState::Failed) {
        message.header.flags = NeighbourFlags::Use;
        ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)?;
    }
    let is_sure = matches!(state, NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp);
    let mac = known.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    Ok(mac.filter(|_| is_sure))
}

/// The router that the kernel's routes name for an address; `None` for a neighbour.
fn gateway_to(interface: u32, address: IpAddr) -> io::Result<Option<IpAddr>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(address.into()), RouteAttribute::Oif(interface)];
    let RouteNetlinkMessage::NewRoute(route) = query(RouteNetlinkMessage::GetRoute(message))? else { return Ok(None) };
    Ok(route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some((*gateway).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => Some((*gateway).into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some((*gateway).into()),
        _ => None,
    }))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
