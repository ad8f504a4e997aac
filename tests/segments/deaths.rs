//! Deaths: a batch in which a process dies is there as a whole or not at all, and has not spoken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdline::flows::{Capacity, FlowId, Storage};
use holdline::shard::{CommitPoint, Config, Notice, Push, Shard, Ticket};
use holdline::tcp::Time;
use strum::IntoEnumIterator;

use super::application::Application;
use super::frame::{Ends, build, parse};
use super::packet::{Packet, Tcp};
use super::play::die_at;
use super::script::{Behaviour, Family};

const ENDS: Ends = Ends::new(Family::Ipv4, 80);
const PUSHED: &[u8] = b"to each of them";
const CLIENTS: u16 = 9;

type Dying = Shard<Application>;

fn started(storage: Storage, now: Time) -> Dying {
    let mut config = Config::new(ENDS.server, 24, &[ENDS.server_port]);
    config.mac = ENDS.server_mac;
    Shard::new(config, storage, Application::new(Behaviour::Keep), [7; 32], now).expect("the shard starts")
}

/// What comes out, each segment with its data.
fn sent(shard: &mut Dying) -> Vec<(Tcp, Vec<u8>)> {
    let mut sent = Vec::new();
    shard.transmit(|frame| {
        let (packet, payload, _) = parse(frame, &ENDS).expect("a good frame comes out");
        let Packet::Tcp(tcp) = packet else { panic!("{packet} came out") };
        sent.push((tcp, payload));
        true
    });
    sent
}

fn notices(shard: &mut Dying) -> Vec<Notice> {
    let mut notices = Vec::new();
    shard.drain_notices(|notice| notices.push(notice));
    notices
}

/// A shard with an open connection for each client, and their ids by port.
fn opened() -> (Dying, Vec<FlowId>) {
    let storage = Storage::in_memory_logged(Capacity::for_connections(100)).expect("memory");
    let mut shard = started(storage, Time(0));
    let mut ids = Vec::new();
    for port in 1..=CLIENTS {
        let syn = Tcp { port, syn: true, seq: Some(100), mss: Some(1460), ..Tcp::default() };
        shard.receive(Time(0), &[&build(&Packet::Tcp(syn), &ENDS, &[])]);
        let (syn_ack, _) = sent(&mut shard).pop().expect("a SYN is answered");
        let ack = syn_ack.seq.map(|seq| seq.wrapping_add(1));
        let ack = Tcp { port, seq: Some(101), ack, ..Tcp::default() };
        shard.receive(Time(0), &[&build(&Packet::Tcp(ack), &ENDS, &[])]);
        let [Notice::Opened { flow, .. }] = notices(&mut shard)[..] else { panic!("the handshake is complete") };
        ids.push(flow);
    }
    (shard, ids)
}

/// Pushes to all in one batch, in which the process dies at `point`; what it leaves.
fn die_while_pushing(mut shard: Dying, ids: &[FlowId], point: CommitPoint, now: Time) -> Storage {
    die_at(&mut shard, point);
    let pushes: Vec<Push> = ids.iter().map(|flow| Push::new(*flow, Ticket(1), PUSHED)).collect();
    let death = catch_unwind(AssertUnwindSafe(|| shard.push(now, &pushes)));
    assert!(death.is_err(), "the batch passes {point:?}");
    assert!(sent(&mut shard).is_empty() && notices(&mut shard).is_empty(), "a batch that died at {point:?} has spoken");
    shard.into_storage()
}

/// Whether a batch in which the process dies at this point is there afterwards.
fn is_kept(point: CommitPoint) -> bool {
    match point {
        CommitPoint::BeforeRecord | CommitPoint::WithinRecord => false,
        CommitPoint::BeforeApply | CommitPoint::WithinApply | CommitPoint::BeforeGate => true,
    }
}

#[test]
fn a_batch_is_there_as_a_whole_or_not_at_all() {
    for point in CommitPoint::iter() {
        let (shard, ids) = opened();
        let now = Time::from_ms(10);
        let shard = started(die_while_pushing(shard, &ids, point, now), now);
        let found = shard.resumption();
        let is_discarded = u32::from(point == CommitPoint::WithinRecord);
        let is_applied = u32::from([CommitPoint::BeforeApply, CommitPoint::WithinApply].contains(&point));
        assert_eq!((found.records_discarded, found.records_applied_again), (is_discarded, is_applied), "{point:?}");
        let expected = if is_kept(point) { PUSHED.len() as u32 } else { 0 };
        for id in ids {
            let view = shard.flow(now, id).expect("no connection is lost");
            assert_eq!(view.unacked_bytes, expected, "{point:?}: {id}");
        }
    }
}

#[test]
fn what_is_kept_is_sent_by_the_next_process() {
    for point in CommitPoint::iter() {
        let (shard, ids) = opened();
        let mut shard = started(die_while_pushing(shard, &ids, point, Time::from_ms(10)), Time::from_ms(20));
        let mut resent = Vec::new();
        for ms in 20..500 {
            shard.tick(Time::from_ms(ms));
            resent.extend(sent(&mut shard));
        }
        assert!(resent.iter().all(|(_, payload)| payload == PUSHED), "{point:?}: {resent:?}");
        let mut ports: Vec<u16> = resent.iter().map(|(tcp, _)| tcp.port).collect();
        ports.dedup();
        let expected: Vec<u16> = if is_kept(point) { (1..=CLIENTS).collect() } else { Vec::new() };
        assert_eq!(ports, expected, "{point:?}");
    }
}

#[test]
fn one_death_after_another_loses_nothing() {
    for point in CommitPoint::iter() {
        let (mut shard, ids) = opened();
        let rounds = 5u32;
        for round in 0..rounds {
            let now = Time::from_ms(10 + u64::from(round));
            shard = started(die_while_pushing(shard, &ids, point, now), now);
        }
        let expected = if is_kept(point) { rounds * PUSHED.len() as u32 } else { 0 };
        for id in &ids {
            let view = shard.flow(Time::from_ms(20), *id).expect("no connection is lost");
            assert_eq!(view.unacked_bytes, expected, "{point:?}");
        }
        shard.push(Time::from_ms(20), &[Push::new(ids[0], Ticket(7), PUSHED)]);
        assert_eq!(notices(&mut shard), [Notice::Queued { flow: ids[0], ticket: Ticket(7) }], "{point:?}");
    }
}
