//! Route to the clients, so set that the kernel acknowledges at once and repeats nothing for seconds.

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

/// Smallest retransmission time-out; a batch of cases must be over sooner.
pub const RTO_MIN_MS: u32 = 3_000;
/// The bit of a metric that only counts when it is locked.
const RTO_MIN_LOCK: u32 = 1 << 13;

/// Takes the place of the route that the kernel made with the interface's address. Without a prefix it is the way to
/// everybody else, by `gateway`.
pub fn replace(interface: &str, (network, prefix): (IpAddr, u8), gateway: Option<IpAddr>, source: IpAddr) {
    let index = if_nametoindex(interface).expect("the interface is there");
    let mut route = RouteMessage::default();
    let family = if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    route.header.address_family = family;
    route.header.destination_prefix_length = prefix;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Kernel;
    route.header.scope = if gateway.is_none() { RouteScope::Link } else { RouteScope::Universe };
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![
        RouteAttribute::Destination(network.into()),
        RouteAttribute::PrefSource(source.into()),
        RouteAttribute::Oif(index),
        RouteAttribute::Metrics(vec![
            RouteMetric::Lock(RTO_MIN_LOCK),
            RouteMetric::RtoMin(RTO_MIN_MS),
            RouteMetric::QuickAck(1),
        ]),
    ];
    if network.is_ipv6() && gateway.is_none() {
        // The priority of what the kernel makes with an address.
        route.attributes.push(RouteAttribute::Priority(256));
    }
    route.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::NewRoute(route)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
    socket.bind_auto().expect("a netlink socket");
    socket.connect(&SocketAddr::new(0, 0)).expect("the kernel is there");
    socket.send(&bytes, 0).expect("the kernel listens");
    let (answer, _) = socket.recv_from_full().expect("the kernel answers");
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).expect("an answer");
    match answer.payload {
        NetlinkPayload::Error(error) => assert!(error.code.is_none(), "no route: {error}"),
        other => panic!("the kernel answered something else: {other:?}"),
    }
}
