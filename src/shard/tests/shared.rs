//! Addresses that the kernel keeps: what is the kernel's of them, and where their peers are.

use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::shard::ConnectError;
use crate::wire::{ArpMessage, emit_arp, emit_solicitation};

const KEPT_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OWN_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const PEER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const ROUTER_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xfd], [2, 0, 0, 0, 0, 0xfe]];

/// One address of each family that the kernel keeps.
fn kept() -> Config {
    let shared: Vec<IpAddr> = vec![OURS.into(), KEPT_IPV6.into()];
    let mut config = Config { shared, ..config() };
    config.addresses.push((KEPT_IPV6.into(), 64));
    config
}

fn arp(target: Ipv4Addr) -> Vec<u8> {
    let question = ArpMessage { is_request: true, sender_mac: CLIENT_MAC, sender: CLIENT, target_mac: [0; 6], target };
    let mut frame = Vec::new();
    emit_arp(&mut frame, &question);
    frame
}

fn solicitation(target: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    emit_solicitation(&mut frame, CLIENT_MAC, PEER_IPV6, target);
    frame
}

#[test]
fn of_an_address_that_the_kernel_keeps_only_our_ports_are_answered() {
    let mut config = kept();
    config.addresses.extend([(OWN.into(), 24), (OWN_IPV6.into(), 64)]);
    let mut shard = shard_of(config, Hold);
    shard.tick(Time(0));
    frames(&mut shard);
    let mut answers = |frame: Vec<u8>| {
        shard.receive(Time(0), &[&frame]);
        frames(&mut shard).len()
    };
    assert_eq!([arp(OURS), arp(OWN)].map(&mut answers), [0, 1]);
    assert_eq!([solicitation(KEPT_IPV6), solicitation(OWN_IPV6)].map(&mut answers), [0, 1]);
    assert_eq!([OURS, OWN].map(|to| echo_request(to, &[0; 32])).map(&mut answers), [0, 1]);
    let families: [(IpAddr, IpAddr, IpAddr); 2] =
        [(CLIENT.into(), OURS.into(), OWN.into()), (PEER_IPV6.into(), KEPT_IPV6.into(), OWN_IPV6.into())];
    for (peer, kept, own) in families {
        let to = |address, port, control| {
            segment(CLIENT_MAC, (peer, 9), (address, port), control, (SeqNum(1), SeqNum(1)), b"")
        };
        let syn = |address, port| to(address, port, Control::SYN);
        assert_eq!([syn(kept, 22), syn(own, 22), syn(kept, 7000)].map(&mut answers), [0, 1, 1]);
        // Of a port of ours nobody else ends what does not exist.
        assert_eq!(answers(to(kept, 7000, Control::FIN.with(Control::ACK))), 1);
    }
    assert_eq!(shard.connect(Time(0), Some(OURS.into()), 0, (CLIENT, 9)), Err(ConnectError::Local));
}

#[test]
fn nobody_is_asked_for_from_an_address_of_the_kernels() {
    let mut config = kept();
    config.gateways.push(GATEWAY.into());
    assert!(!config.wants_routers());
    let mut shard = shard_of(config, Hold);
    let mut looked_up = Vec::new();
    for second in 0..20 {
        let now = Time::from_ms(second * 1_000);
        shard.tick(now);
        shard.look_up(now, |address| {
            looked_up.push(address);
            (second == 4).then_some(ROUTER_MACS[0])
        });
    }
    assert_eq!(looked_up, [IpAddr::from(GATEWAY); 5], "once a second, until it is known");
    assert!(!shard.has_frames());
}

/// Opens a connection from `remote`, whose frames come from a router.
fn open_behind(shard: &mut Shard<Hold>, remote: Ipv4Addr) -> FlowId {
    open_from(shard, ROUTER_MACS[0], (remote, 9), (OURS, 7000))
}

/// Lets a push to a connection from `remote`, behind a router, go unanswered: returns where it went, each time, and
/// what was looked up. `mac` is where the kernel's neighbour is at a second.
fn unanswered(
    config: Config,
    remote: Ipv4Addr,
    mac: impl Fn(u64) -> Option<[u8; 6]>,
) -> (Vec<[u8; 6]>, Vec<IpAddr>, Shard<Hold>) {
    let mut shard = shard_of(config, Hold);
    let flow = open_behind(&mut shard, remote);
    shard.push(Time(0), &[Push::new(flow, Ticket(1), b"?")]);
    let (mut went_to, mut looked_up) = (Vec::new(), Vec::new());
    for tenth in 0..400 {
        let now = Time::from_ms(tenth * 100);
        shard.tick(now);
        shard.look_up(now, |address| {
            looked_up.push(address);
            mac(tenth / 10)
        });
        went_to.extend(frames(&mut shard).iter().map(|frame| <[u8; 6]>::try_from(&frame[..6]).unwrap()));
    }
    (went_to, looked_up, shard)
}

#[test]
fn a_peer_that_does_not_answer_is_looked_up_and_followed() {
    // The kernel notices only after a while that its neighbour is another one now.
    let mac = |second| (second != 5).then_some(ROUTER_MACS[usize::from(second > 5)]);
    let (went_to, looked_up, shard) = unanswered(kept(), CLIENT, mac);
    assert!(went_to.starts_with(&[ROUTER_MACS[0]; 3]) && went_to.ends_with(&[ROUTER_MACS[1]; 2]), "{went_to:?}");
    assert!(looked_up.iter().all(|&address| address == CLIENT) && looked_up.len() > 4, "{looked_up:?}");
    assert!(looked_up.len() <= usize::from(crate::shard::lookup::LOOKS_MAX));
    assert_eq!(shard.stats().flows, 1);
}

#[test]
fn all_connections_behind_a_gateway_follow_it() {
    let mut config = kept();
    config.gateways.push(GATEWAY.into());
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let mac = |second| Some(ROUTER_MACS[usize::from(second > 5)]);
    let (went_to, looked_up, mut shard) = unanswered(config, far, mac);
    assert!(went_to.starts_with(&[ROUTER_MACS[0]; 3]) && went_to.ends_with(&[ROUTER_MACS[1]; 2]), "{went_to:?}");
    assert!(looked_up.iter().all(|&address| address == GATEWAY), "{looked_up:?}");
    let syn = Client { port: 10, seq: SeqNum(1), ack: SeqNum(0) }.frame(Control::SYN, b"");
    shard.receive(Time::from_ms(40_000), &[&syn]);
    assert_eq!(frames(&mut shard).last().unwrap()[..6], CLIENT_MAC, "a neighbour needs no gateway");
}

#[test]
fn a_silent_peer_is_not_looked_up_for_ever_and_many_take_no_more() {
    let (went_to, looked_up, _) = unanswered(kept(), CLIENT, |_| None);
    assert!(went_to.iter().all(|mac| *mac == ROUTER_MACS[0]));
    assert_eq!(looked_up.len(), usize::from(crate::shard::lookup::LOOKS_MAX));
    let mut shard = shard_of(kept(), Hold);
    let opened: Vec<FlowId> = (9..209).map(|last| open_behind(&mut shard, Ipv4Addr::new(10, 0, 0, last))).collect();
    let pushes: Vec<Push<'_>> = opened.iter().map(|flow| Push::new(*flow, Ticket(1), b"?")).collect();
    shard.push(Time(0), &pushes);
    let mut most = 0;
    for tenth in 0..40 {
        let now = Time::from_ms(tenth * 100);
        shard.tick(now);
        let mut looks = 0;
        shard.look_up(now, |_| {
            looks += 1;
            None
        });
        most = most.max(looks);
    }
    assert!((1..=64).contains(&most), "{most} at a time");
}

#[test]
fn what_is_shared_is_ours_as_well() {
    let refused = refusal(Config { shared: vec![OWN.into()], ..config() });
    assert!(refused.contains("10.0.0.2 cannot be shared"), "{refused}");
}
