//! Veth pairs: two interfaces joined by a virtual cable, made by rtnetlink.
//!
//! `demo` and the tests lay one in their private network namespace, for want of a TAP or for the raw link's traffic.
//! Comes
//! in: two names. Goes out: two interfaces, both down and without addresses, which `interface` sets up. They vanish
//! with their namespace, or when one of them is deleted.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::interface::{InterfaceError, check_name};

/// Makes the pair; needs CAP_NET_ADMIN in the network namespace.
pub fn make_pair(name: &str, peer: &str) -> Result<(), InterfaceError> {
    check_name(name)?;
    check_name(peer)?;
    let answered = ask(RouteNetlinkMessage::NewLink(pair(name, peer)), NLM_F_CREATE | NLM_F_EXCL);
    answered.map_err(|source| InterfaceError::System { name: name.to_owned(), action: "make a veth pair", source })
}

fn pair(name: &str, peer: &str) -> LinkMessage {
    let mut other = LinkMessage::default();
    other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ]));
    link
}

/// Sends one request to the kernel and waits for its word, which comes at once.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        // An answer without a code is the acknowledgment.
        NetlinkPayload::Error(error) => error.code.map_or(Ok(()), |_| Err(error.to_io())),
        _ => Err(io::Error::other("the kernel answered something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_is_refused() {
        for (name, peer) in [("", "b"), ("a", "has space"), ("a-name-of-sixteen", "b"), ("a", "b/c")] {
            assert!(matches!(make_pair(name, peer), Err(InterfaceError::Name(_))), "{name:?} {peer:?}");
        }
    }
}
