//! IPv6 beside IPv4: records of peers' addresses, several addresses at once, floods of neighbours.

use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::flows::{Address, NEXT_HOPS_MAX, StorageError};
use crate::shard::StartError;

const OURS_IPV6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)];

fn config_of_both() -> Config {
    let mut config = config();
    config.addresses.extend(OURS_IPV6.map(|address| (address.into(), 64)));
    config
}

fn with_both() -> Shard<Hold> {
    shard_of(config_of_both(), Hold)
}

fn peer(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(OURS_IPV6[0].to_bits() & !0xffff_ffff | u128::from(number) << 16 | 9).into()
}

/// Opens a connection and returns its id.
fn open(shard: &mut Shard<Hold>, from: (IpAddr, u16), to: IpAddr) -> FlowId {
    open_from(shard, CLIENT_MAC, from, (to, 7000))
}

fn peers_used(shard: &Shard<Hold>) -> u64 {
    shard.memory().iter().find(|arena| arena.name == "peers").expect("it is told").used
}

#[test]
fn one_peer_has_a_connection_to_each_address_from_the_same_port() {
    let mut shard = with_both();
    let first = open(&mut shard, (peer(1), 9), OURS_IPV6[0].into());
    let second = open(&mut shard, (peer(1), 9), OURS_IPV6[1].into());
    let third = open(&mut shard, ([10, 0, 0, 9].into(), 9), OURS.into());
    assert!(first != second && second != third);
    assert_eq!(peers_used(&shard), 2, "a connection over IPv4 has none");
}

#[test]
fn the_address_of_a_peer_is_kept_as_long_as_its_connection() {
    let mut shard = with_both();
    let ids: Vec<FlowId> =
        (0..100u16).map(|port| open(&mut shard, (peer(port.into()), port), OURS_IPV6[0].into())).collect();
    assert_eq!(peers_used(&shard), 100);
    for id in &ids[..50] {
        shard.close(Time(0), *id, CloseHow::Reset).unwrap();
    }
    assert_eq!(peers_used(&shard), 50);
    let mut shard = Shard::new(config_of_both(), shard.into_storage(), Hold, [9; 32], Time(0)).unwrap();
    assert_eq!((shard.resumption().connections, peers_used(&shard)), (50, 50));
    for (port, id) in (50..100u16).zip(&ids[50..]) {
        assert_eq!(shard.flow(Time(0), *id).unwrap().remote, (peer(port.into()), port).into());
        shard.close(Time(0), *id, CloseHow::Reset).unwrap();
    }
    assert_eq!(peers_used(&shard), 0);
}

#[test]
fn a_state_with_an_impossible_address_is_refused() {
    let spoilt = |spoil: fn(&mut Storage)| {
        let mut shard = with_both();
        open(&mut shard, (peer(1), 1), OURS_IPV6[0].into());
        open(&mut shard, (peer(2), 2), OURS_IPV6[0].into());
        let mut storage = shard.into_storage();
        spoil(&mut storage);
        let refused = Shard::new(config_of_both(), storage, Hold, [9; 32], Time(0)).err().expect("it is refused");
        matches!(refused, StartError::Storage(StorageError::Broken { .. }))
    };
    assert!(spoilt(|storage| storage.peers.records_mut()[0] = Address::NONE), "no address at all");
    assert!(spoilt(|storage| storage.peers.records_mut()[1] = IpAddr::from([10, 0, 0, 9]).into()), "one of IPv4");
    assert!(spoilt(|storage| storage.flows.records_mut()[0].remote_address = 1), "the record of another");
    assert!(spoilt(|storage| storage.flows.records_mut()[0].remote_address = u32::MAX), "beyond the end");
    assert!(spoilt(|storage| storage.head_mut().locals[1] = Address::NONE), "no address of our own");
}

#[test]
fn a_state_wants_its_addresses_again() {
    let mut shard = with_both();
    open(&mut shard, (peer(1), 1), OURS_IPV6[0].into());
    let refused = Shard::new(config(), shard.into_storage(), Hold, [9; 32], Time(0)).err().expect("it is refused");
    assert!(matches!(refused, StartError::Config(what) if what.contains("--address fd00::1")));
}

#[test]
fn a_flood_of_neighbours_takes_no_room_from_those_that_are_connected() {
    let mut shard = with_both();
    let kept = open(&mut shard, (peer(1), 1), OURS_IPV6[0].into());
    // SYNs from more Ethernet addresses than there is room for, each answered by a reset, so that none stays.
    for number in 0..3 * NEXT_HOPS_MAX {
        let [_, _, high, low] = number.to_be_bytes();
        let (from, mac) = ((peer(number + 2), 1), [2, 9, 9, 9, high, low]);
        for (control, seq) in [(Control::SYN, 1), (Control::RST, 2)] {
            let frame = segment(mac, from, (OURS_IPV6[0], 7000), control, (SeqNum(seq), SeqNum(0)), b"");
            shard.receive(Time(0), &[&frame]);
        }
        shard.transmit(|_| true);
    }
    assert_eq!(shard.rule_count(Rule::ListenAcceptsSyn), u64::from(3 * NEXT_HOPS_MAX) + 1);
    assert_eq!((shard.stats().flows, peers_used(&shard)), (1, 1));
    shard.push(Time(0), &[Push::new(kept, Ticket(1), b"still there")]);
    let mut is_sent = false;
    shard.transmit(|frame| {
        is_sent |= frame[..6] == CLIENT_MAC;
        true
    });
    assert!(is_sent, "to where it was");
}

#[test]
fn networks_that_routers_tell_of_are_bounded_and_end() {
    let mut shard = with_both();
    let tables = &mut shard.batch.tables;
    let router = |number: u16| {
        let mut bytes = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 48, 58, 255];
        bytes.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).octets());
        bytes.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend([134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0x80, 0, 0, 0, 60, 0, 0, 0, 0]);
        bytes.extend([0; 4]);
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 0).octets());
        let pseudo = [&bytes[22..54], &[0, 0, 0, 48, 0, 0, 0, 58]].concat();
        let sum = crate::wire::Sum::default().add_bytes(&pseudo).add_bytes(&bytes[54..]).finish();
        bytes[56..58].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    for number in 0..1_000 {
        let frame = router(number);
        let Ok(Packet::Router(advertisement)) = parse(&frame, &config().mac) else { panic!("it passes its checks") };
        assert!(tables.learn_router(&advertisement, Time(0)));
    }
    let known = |tables: &crate::shard::tables::Tables| {
        (0..1_000)
            .filter(|&number| tables.routers.is_on_link(Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 1)))
            .count()
    };
    assert_eq!(known(tables), 16);
    tables.tick_routers(Time::from_ms(59_999));
    assert_eq!(known(tables), 16);
    tables.tick_routers(Time::from_ms(60_000));
    assert_eq!(known(tables), 0);
}

#[test]
fn the_link_local_address_is_that_of_the_ethernet_address_or_the_one_given() {
    let mut config = config_of_both();
    config.mac = [0x02, 0x68, 0x6f, 0x6c, 0x64, 0x01];
    assert_eq!(config.link_local(), Some("fe80::68:6fff:fe6c:6401".parse().unwrap()));
    config.addresses.push(("fe80::9".parse().unwrap(), 64));
    assert_eq!(config.link_local(), Some("fe80::9".parse().unwrap()));
    assert_eq!(super::config().link_local(), None);
}

#[test]
fn a_configuration_of_ipv6_that_cannot_be_is_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config_of_both();
        change(&mut config);
        refusal(config)
    };
    assert!(refused(|config| config.addresses[1].1 = 129).contains("at most 128 bits"));
    assert!(refused(|config| config.mtu = 1_279).contains("IPv6 needs at least 1280"));
    for address in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        let address: IpAddr = address.parse().unwrap();
        let mut config = config_of_both();
        config.addresses[1].0 = address;
        let error = refusal(config);
        assert!(error.contains("cannot be the address of a server"), "{address}: {error}");
    }
    let two = |config: &mut Config| config.gateways = vec![OURS_IPV6[1].into(), "fd00::3".parse().unwrap()];
    assert!(refused(two).contains("one gateway for each family"));
    let other = |config: &mut Config| (config.addresses, config.gateways) = (vec![(OURS.into(), 24)], vec![peer(1)]);
    assert!(refused(other).contains("without an address of its family"));
}
