//! Requirements of RFC 9293 that no script can show: what a caller or a configuration may ask for.

use std::net::IpAddr;

use super::*;

/// A shard with addresses in two networks, and a connection to the client's address that it has asked for.
fn with_two_addresses() -> Shard<Hold> {
    let mut config = config();
    config.addresses.push((Ipv4Addr::new(10, 0, 7, 1).into(), 24));
    shard_of(config, Hold)
}

fn connect(shard: &mut Shard<Hold>, local: Option<Ipv4Addr>, remote: [u8; 4]) -> Result<IpAddr, ConnectError> {
    let remote = std::net::SocketAddrV4::new(Ipv4Addr::from(remote), 9);
    let id = shard.connect(Time(0), local.map(IpAddr::V4), 0, remote)?;
    Ok(shard.flow(Time(0), id).expect("the connection is being opened").local.ip())
}

#[test]
fn a_connection_is_opened_from_the_address_that_is_named() {
    let mut shard = with_two_addresses();
    let second = Ipv4Addr::new(10, 0, 7, 1);
    assert_eq!(connect(&mut shard, Some(second), [10, 0, 0, 9]), Ok(second.into()));
    assert_eq!(connect(&mut shard, Some(OURS), [10, 0, 7, 9]), Ok(OURS.into()));
    assert_eq!(connect(&mut shard, Some(Ipv4Addr::new(10, 0, 0, 2)), [10, 0, 0, 9]), Err(ConnectError::Local));
}

#[test]
fn a_connection_is_opened_from_the_nearest_address() {
    let mut shard = with_two_addresses();
    assert_eq!(connect(&mut shard, None, [10, 0, 0, 9]), Ok(OURS.into()));
    assert_eq!(connect(&mut shard, None, [10, 0, 7, 9]), Ok(Ipv4Addr::new(10, 0, 7, 1).into()));
    assert_eq!(connect(&mut shard, None, [192, 168, 7, 9]), Ok(OURS.into()), "the first where none is near");
}

#[test]
fn a_connection_keeps_the_address_that_it_was_opened_to() {
    let mut shard = with_two_addresses();
    let second = IpAddr::from([10, 0, 7, 1]);
    let from = |seq: u32, ack, control, bytes: &[u8]| {
        segment(CLIENT_MAC, (CLIENT, 1), (second, 7000), control, (SeqNum(seq), ack), bytes)
    };
    let mut answers = Vec::new();
    let mut send = |shard: &mut Shard<Hold>, now, frame: &[u8]| {
        shard.receive(now, &[frame]);
        shard.tick(now);
        shard.transmit(|frame| {
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
            answers.push(crate::tcp::Segment { sack: &[], ..packet.segment });
            assert_eq!(packet.addresses.remote(), second, "{:?}", packet.segment);
            true
        });
        answers.last().map_or(SeqNum(0), |segment| segment.seq.plus(1))
    };
    let ack = send(&mut shard, Time(0), &from(100, SeqNum(0), Control::SYN, b""));
    send(&mut shard, Time(0), &from(101, ack, Control::ACK, b"hello"));
    let [Notice::Opened { flow, local, .. }] = notices(&mut shard)[..] else { panic!("the connection is open") };
    assert_eq!(local.ip(), second);
    shard.push(Time(0), &[Push::new(flow, Ticket(1), b"more")]);
    send(&mut shard, Time::from_ms(300), &from(106, ack, Control::ACK, b""));
    send(&mut shard, Time::from_ms(700), &from(106, ack, Control::SYN, b""));
    assert!(answers.len() >= 5, "SYN-ACK, ACK, data, data again and a challenge, not {answers:?}");
}

#[test]
fn nobody_is_connected_to_at_an_impossible_address() {
    let mut shard = with_two_addresses();
    let broadcasts = [[255, 255, 255, 255], [10, 0, 0, 255], [10, 0, 7, 255], [10, 0, 0, 0]];
    let others = [[224, 0, 0, 1], [239, 255, 255, 255], [127, 0, 0, 1], [0, 0, 0, 0], [10, 0, 0, 1], [10, 0, 7, 1]];
    for remote in broadcasts.into_iter().chain(others) {
        assert_eq!(connect(&mut shard, None, remote), Err(ConnectError::Remote), "{remote:?}");
    }
    assert_eq!((shard.stats().flows, shard.has_frames()), (0, false));
}

#[test]
fn an_ack_cannot_be_configured_to_wait_for_half_a_second() {
    assert_eq!(refusal(Config { delayed_ack_ms: 499, ..config() }), "");
    assert!(refusal(Config { delayed_ack_ms: 500, ..config() }).contains("MUST-40"));
}

#[test]
fn no_configuration_gives_up_for_one_lost_keepalive_probe() {
    assert_eq!(refusal(Config { keepalive_probes: 2, ..config() }), "");
    for keepalive_probes in [0, 1, 64, 255] {
        assert!(refusal(Config { keepalive_probes, ..config() }).contains("MUST-29"), "{keepalive_probes}");
    }
}

#[test]
fn sequence_numbers_of_different_ends_tell_nothing_of_each_other() {
    let numbers = |secret: [u8; 32]| {
        let storage = Storage::in_memory_logged(Capacity::for_connections(10)).unwrap();
        let shard = Shard::new(config(), storage, Hold, secret, Time(0)).unwrap();
        let tables = &shard.batch.tables;
        let number = |remote_port| {
            let key = crate::flows::FlowKey { remote: [9; 4].into(), remote_port, local_port: 7000, local_index: 0 };
            let number = tables.initial_sequence_number(&key, Time(0));
            let later = tables.initial_sequence_number(&key, Time::from_ms(1));
            assert_eq!(later.since(number), 250, "one in 4 us");
            number.0
        };
        (1..=2_000).map(number).collect::<Vec<u32>>()
    };
    let steps = |numbers: &[u32]| numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect::<Vec<u32>>();
    let (one, other) = (numbers([1; 32]), numbers([2; 32]));
    let mut seen = std::collections::HashSet::new();
    assert!(steps(&one).into_iter().chain(steps(&other)).all(|step| seen.insert(step)), "steps come again");
    // Each bit of a step is as often set as not: of 1999 coins 999 come up, give or take 22.
    for bit in 0..32 {
        let set = steps(&one).iter().filter(|&&step| step >> bit & 1 == 1).count();
        assert!((850..1_150).contains(&set), "bit {bit} is set in {set} of 1999 steps");
    }
}
