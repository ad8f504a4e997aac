//! Veth pairs: two interfaces joined by a virtual cable, made by rtnetlink.
//!
//! `demo` and the tests lay one in their private network namespace, for want of a TAP or for the raw link's traffic.
//! Comes
//! in: two names. Goes out: two interfaces, both down and without addresses, which `interface` sets up. They vanish
//! with their namespace, or when one of them is deleted.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::interface::{InterfaceError, check_name};
use super::netlink::ask;

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
