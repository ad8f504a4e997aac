//! The shard against a hand-made client.

use std::net::Ipv4Addr;

use super::*;
use crate::flows::Capacity;
use crate::service::{Echo, Hold, Names};
use crate::tcp::{CloseReason, Control, Outgoing, SeqNum};
use crate::wire::{Addressing, Packet, emit_tcp, parse};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

struct Client {
    port: u16,
    seq: SeqNum,
    ack: SeqNum,
}

impl Client {
    fn frame(&self, control: Control, bytes: &[u8]) -> Vec<u8> {
        let config = Config::new(OURS, 24, &[7000]);
        let ends = Addressing {
            source_mac: CLIENT_MAC,
            destination_mac: config.mac,
            local: Ipv4Addr::new(10, 0, 0, 9).to_bits(),
            remote: OURS.to_bits(),
            local_port: self.port,
            remote_port: 7000,
            ttl: 64,
            dscp: 0,
        };
        let mut outgoing = Outgoing::bare(self.seq, self.ack, control, 8_000);
        outgoing.payload_bytes = bytes.len() as u32;
        let mut frame = Vec::new();
        emit_tcp(&mut frame, &ends, &outgoing, |out| out.extend_from_slice(bytes));
        frame
    }
}

fn shard<S: Service>(service: S) -> Shard<S> {
    let storage = Storage::in_memory_logged(Capacity::for_connections(1_000)).unwrap();
    Shard::new(Config::new(OURS, 24, &[7000]), storage, service, [1; 32], Time(0)).unwrap()
}

fn sent<S: Service>(shard: &mut Shard<S>) -> Vec<(crate::tcp::Segment, Vec<u8>)> {
    let mut sent = Vec::new();
    shard.transmit(|frame| {
        let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
        sent.push((packet.segment, packet.payload.to_vec()));
        true
    });
    sent
}

fn notices<S: Service>(shard: &mut Shard<S>) -> Vec<Notice> {
    let mut notices = Vec::new();
    shard.drain_notices(|notice| notices.push(notice));
    notices
}

/// Opens a connection and returns its client and id.
fn open<S: Service>(shard: &mut Shard<S>, port: u16) -> (Client, FlowId) {
    let mut client = Client { port, seq: SeqNum(u32::MAX - 2), ack: SeqNum(0) };
    shard.receive(Time(0), &[&client.frame(Control::SYN, b"")]);
    let (syn_ack, _) = sent(shard)[0];
    assert!(syn_ack.control.has(Control::SYN.with(Control::ACK)));
    client.seq = syn_ack.ack;
    client.ack = syn_ack.seq.plus(1);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"")]);
    let [Notice::Opened { flow, .. }] = notices(shard)[..] else { panic!("the connection is open") };
    (client, flow)
}

#[test]
fn an_idle_connection_holds_nothing_but_its_flow() {
    let mut shard = shard(Hold);
    open(&mut shard, 1);
    let stats = shard.stats();
    assert_eq!((stats.flows, stats.established), (1, 1));
    assert_eq!((stats.actives, stats.spans, stats.blocks), (0, 0, 0));
}

#[test]
fn a_push_is_delivered_when_it_is_acknowledged() {
    let mut shard = shard(Hold);
    let (mut client, flow) = open(&mut shard, 1);
    shard.push(Time(0), &[Push::new(flow, Ticket(5), b"hello")]);
    let pushed = sent(&mut shard);
    assert_eq!(pushed[0].1, b"hello");
    assert_eq!(notices(&mut shard), [Notice::Queued { flow, ticket: Ticket(5) }]);
    client.ack = client.ack.plus(4);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"")]);
    assert_eq!(notices(&mut shard), [], "not all of it is acknowledged");
    client.ack = client.ack.plus(1);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"")]);
    assert_eq!(notices(&mut shard), [Notice::Delivered { flow, ticket: Ticket(5) }]);
    assert_eq!(shard.stats().blocks, 0);
}

#[test]
fn a_peer_that_sends_byte_by_byte_takes_no_more_than_its_window_stands_for() {
    let mut shard = shard(Hold);
    let (mut client, flow) = open(&mut shard, 1);
    shard.pause(Time(0), flow).unwrap();
    for _ in 0..3_000 {
        shard.receive(Time(0), &[&client.frame(Control::ACK, b"x")]);
        let acknowledged = sent(&mut shard).last().map_or(client.seq, |(segment, _)| segment.ack);
        client.seq = acknowledged.later_of(client.seq.plus(u32::from(shard.stats().spans < 1_024)));
    }
    assert_eq!(shard.stats().spans, 1_024);
    assert!(shard.rule_count(Rule::PayloadNoRoom) > 1_000, "the rest is not acknowledged");
    shard.resume(Time(0), flow).unwrap();
    assert_eq!((shard.stats().spans, shard.stats().blocks), (0, 0));
}

#[test]
fn next_hops_that_nobody_uses_are_used_again() {
    let mut shard = shard(Hold);
    for round in 0..3_000_u32 {
        let client = Client { port: 7, seq: SeqNum(1), ack: SeqNum(0) };
        let mut syn = client.frame(Control::SYN, b"");
        syn[8..12].copy_from_slice(&round.to_be_bytes());
        shard.receive(Time(0), &[&syn]);
        let rst = Client { port: 7, seq: SeqNum(2), ack: SeqNum(0) }.frame(Control::RST, b"");
        shard.receive(Time(0), &[&rst]);
        shard.transmit(|_| true);
    }
    assert_eq!(shard.rule_count(Rule::ListenAcceptsSyn), 3_000);
}

#[test]
fn what_is_echoed_survives_the_shard() {
    let mut shard = shard(Echo);
    let (client, flow) = open(&mut shard, 1);
    shard.receive(Time(0), &[&client.frame(Control::ACK.with(Control::PSH), b"again")]);
    sent(&mut shard);
    let storage = shard.into_storage();
    let mut shard = Shard::new(Config::new(OURS, 24, &[7000]), storage, Echo, [9; 32], Time::from_ms(2_000)).unwrap();
    assert_eq!(shard.resumption().connections, 1);
    shard.tick(Time::from_ms(2_010));
    let resent = sent(&mut shard);
    assert_eq!(resent[0].1, b"again", "the retransmission timer went on");
    assert_eq!(shard.flow(Time(0), flow).unwrap().unacked_bytes, 5);
}

#[test]
fn a_stale_id_is_gone_and_never_another_connection() {
    let mut shard = shard(Hold);
    let (_, flow) = open(&mut shard, 1);
    shard.close(Time(0), flow, CloseHow::Reset).unwrap();
    assert!(sent(&mut shard)[0].0.control.has(Control::RST));
    assert_eq!(notices(&mut shard), [Notice::Closed { flow, reason: CloseReason::Aborted }]);
    let (_, other) = open(&mut shard, 2);
    assert_eq!(flow.slot(), other.slot());
    assert_eq!(shard.close(Time(0), flow, CloseHow::Fin), Err(PushError::Gone));
    assert_eq!(shard.close(Time(0), FlowId::new(0, 9, 0), CloseHow::Fin), Err(PushError::Unknown));
    assert_eq!(shard.close(Time(0), FlowId::new(1, 0, 0), CloseHow::Fin), Err(PushError::Unknown));
}

fn restarted<S: Service>(shard: Shard<S>, service: S, now: Time) -> Shard<S> {
    Shard::new(Config::new(OURS, 24, &[7000]), shard.into_storage(), service, [9; 32], now).unwrap()
}

#[test]
fn a_name_is_known_until_its_connection_ends_and_across_a_restart() {
    let mut shard = shard(Names::default());
    let (mut client, flow) = open(&mut shard, 1);
    for piece in [&b"al"[..], b"ice\nrest"] {
        shard.receive(Time(0), &[&client.frame(Control::ACK, piece)]);
        client.seq = client.seq.plus(piece.len() as u32);
    }
    assert_eq!(shard.named(b"alice"), [flow]);
    assert_eq!(shard.name_of(flow), Some(&b"alice"[..]));
    let mut shard = restarted(shard, Names::default(), Time(0));
    assert_eq!(shard.named(b"alice"), [flow]);
    shard.receive(Time(0), &[&client.frame(Control::RST, b"")]);
    assert_eq!(shard.named(b"alice"), []);
    assert_eq!(shard.name_of(flow), None);
}

#[test]
fn a_first_line_that_is_no_name_resets_the_connection() {
    let mut shard = shard(Names::default());
    let (client, flow) = open(&mut shard, 1);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"\x07\n")]);
    assert!(sent(&mut shard)[0].0.control.has(Control::RST));
    assert_eq!(notices(&mut shard), [Notice::Closed { flow, reason: CloseReason::Aborted }]);
    assert_eq!(shard.stats().flows, 0);
}

#[test]
fn a_repeated_key_is_answered_with_the_first_ticket_across_a_restart() {
    let mut shard = shard(Hold);
    let (_, flow) = open(&mut shard, 1);
    let push = |ticket| Push { key: Some([4; 16]), ..Push::new(flow, Ticket(ticket), b"once") };
    shard.push(Time(0), &[push(5), push(6)]);
    assert_eq!(notices(&mut shard), vec![Notice::Queued { flow, ticket: Ticket(5) }; 2]);
    assert_eq!(sent(&mut shard).len(), 1);
    let mut shard = restarted(shard, Hold, Time(0));
    shard.push(Time(0), &[push(7)]);
    assert_eq!(notices(&mut shard), [Notice::Queued { flow, ticket: Ticket(5) }]);
}

/// Delivers what the shard sends to clients that acknowledge it, until it is silent. Adds up the payload by port.
fn exchange(shard: &mut Shard<Hold>, clients: &mut [Client], got: &mut [Vec<u8>], now: Time) {
    loop {
        let mut frames = Vec::new();
        shard.transmit(|frame| {
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
            let index = usize::from(packet.local_port) - 1;
            let client = &mut clients[index];
            if packet.segment.seq == client.ack {
                got[index].extend_from_slice(packet.payload);
                client.ack = client.ack.plus(packet.segment.payload_bytes);
            }
            frames.push(client.frame(Control::ACK, b""));
            true
        });
        if frames.is_empty() {
            return;
        }
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        shard.receive(now, &frames);
    }
}

#[test]
fn a_broadcast_killed_anywhere_reaches_everybody_exactly_once() {
    struct Killed;
    for kill_at in 0..60 {
        let mut shard = shard(Hold);
        let mut clients: Vec<Client> = (1..=300).map(|port| open(&mut shard, port).0).collect();
        let mut got = vec![Vec::new(); clients.len()];
        let bytes: Vec<u8> = (0..3_000u32).map(|i| i as u8).collect();
        let everybody = Broadcast { ticket: Ticket(8), bytes: &bytes, pace_per_s: 0, prefix: b"", expires_in_s: 0 };
        let job = shard.broadcast(Time(0), &everybody).unwrap();
        let mut passes = 0;
        shard.set_interrupt(Some(Box::new(move |_| {
            passes += 1;
            if passes == kill_at {
                std::panic::resume_unwind(Box::new(Killed));
            }
        })));
        let mut now = Time::from_ms(10);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while shard.job(job).is_some_and(|view| view.state == JobState::Running) {
                shard.tick(now);
                exchange(&mut shard, &mut clients, &mut got, now);
            }
        }));
        if ran.is_err() {
            shard = restarted(shard, Hold, now);
        }
        while shard.stats().actives > 0 || shard.job(job).unwrap().state == JobState::Running {
            now = now.plus_ms(50);
            shard.tick(now);
            exchange(&mut shard, &mut clients, &mut got, now);
        }
        assert!(got.iter().all(|got| *got == bytes), "killed at pass {kill_at}");
        let view = shard.job(job).unwrap();
        assert_eq!((view.pushed, view.delivered, view.refused), (300, 300, 0), "killed at pass {kill_at}");
        assert_eq!(shard.stats().blocks, 0, "the payload goes when the last of its pushes is delivered");
    }
}

#[test]
fn a_cancelled_broadcast_goes_no_further() {
    let mut shard = shard(Hold);
    let mut clients: Vec<Client> = (1..=3).map(|port| open(&mut shard, port).0).collect();
    let slowly = Broadcast { ticket: Ticket(8), bytes: b"news", pace_per_s: 1, prefix: b"", expires_in_s: 0 };
    let job = shard.broadcast(Time(0), &slowly).unwrap();
    shard.tick(Time::from_ms(1));
    assert!(shard.cancel_job(Time::from_ms(2), job));
    assert!(!shard.cancel_job(Time::from_ms(3), job));
    let mut got = vec![Vec::new(); 3];
    exchange(&mut shard, &mut clients, &mut got, Time::from_ms(4));
    shard.tick(Time::from_ms(60_000));
    assert_eq!(got, [b"news".to_vec(), vec![], vec![]]);
    assert_eq!(shard.job(job).unwrap().state, JobState::Cancelled);
}

#[test]
fn an_ended_connection_leaves_the_index() {
    let mut shard = shard(Hold);
    for port in 1..100 {
        let (_, flow) = open(&mut shard, port);
        assert_eq!(shard.batch.tables.index.len(), 1);
        shard.close(Time(0), flow, CloseHow::Reset).unwrap();
        sent(&mut shard);
        notices(&mut shard);
        assert_eq!(shard.batch.tables.index.len(), 0);
    }
}

#[test]
fn a_trace_names_what_decided_each_frame() {
    let mut shard = shard(Echo);
    shard.set_tracing(true);
    let traced = |shard: &mut Shard<Echo>| {
        let mut traced = Vec::new();
        shard.drain_trace(|it| {
            traced.push(match it {
                Traced::Received(rules) => format!("in {rules}"),
                Traced::Sent(rules) => format!("out {rules}"),
            });
        });
        traced
    };
    let (client, _) = open(&mut shard, 1);
    let opening = ["in ListenAcceptsSyn", "in HandshakeCompleted", "out ListenAcceptsSyn"];
    assert_eq!(traced(&mut shard), opening);

    let stray = Client { port: 2, seq: SeqNum(0), ack: SeqNum(7) };
    let data = client.frame(Control::ACK, b"echo");
    shard.receive(Time(0), &[&data[..30], &stray.frame(Control::ACK, b""), &data]);
    let (garbage, stray) = ("in FrameMalformed", "in ListenRejectsAck");
    let echo = "AckRepeats PayloadAccepted PushQueued";
    let outcome = traced(&mut shard);
    assert_eq!(outcome[..3], [garbage, stray, &format!("in {echo}")]);
    assert_eq!(outcome[3..], ["out ListenRejectsAck", &format!("out {echo}")]);
    shard.tick(Time::from_ms(5_000));
    assert_eq!(traced(&mut shard), ["out RetransmissionTimeout"]);
    shard.set_tracing(false);
    shard.receive(Time(0), &[&data]);
    assert!(traced(&mut shard).is_empty());
}

/// A shard with addresses in two networks, and a connection to the client's address that it has asked for.
fn with_two_addresses() -> Shard<Hold> {
    let storage = Storage::in_memory_logged(Capacity::for_connections(1_000)).unwrap();
    let mut config = Config::new(OURS, 24, &[7000]);
    config.addresses.push((Ipv4Addr::new(10, 0, 7, 1), 24));
    Shard::new(config, storage, Hold, [1; 32], Time(0)).unwrap()
}

fn connect(shard: &mut Shard<Hold>, local: Option<Ipv4Addr>, remote: [u8; 4]) -> Result<Ipv4Addr, ConnectError> {
    let remote = std::net::SocketAddrV4::new(Ipv4Addr::from(remote), 9);
    let id = shard.connect(Time(0), local, 0, remote)?;
    Ok(*shard.flow(Time(0), id).expect("the connection is being opened").local.ip())
}

#[test]
fn a_connection_is_opened_from_the_address_that_is_named() {
    let mut shard = with_two_addresses();
    let second = Ipv4Addr::new(10, 0, 7, 1);
    assert_eq!(connect(&mut shard, Some(second), [10, 0, 0, 9]), Ok(second));
    assert_eq!(connect(&mut shard, Some(OURS), [10, 0, 7, 9]), Ok(OURS));
    assert_eq!(connect(&mut shard, Some(Ipv4Addr::new(10, 0, 0, 2)), [10, 0, 0, 9]), Err(ConnectError::Local));
}

#[test]
fn a_connection_is_opened_from_the_nearest_address() {
    let mut shard = with_two_addresses();
    assert_eq!(connect(&mut shard, None, [10, 0, 0, 9]), Ok(OURS));
    assert_eq!(connect(&mut shard, None, [10, 0, 7, 9]), Ok(Ipv4Addr::new(10, 0, 7, 1)));
    assert_eq!(connect(&mut shard, None, [192, 168, 7, 9]), Ok(OURS), "the first where none is near");
}

#[test]
fn a_connection_keeps_the_address_that_it_was_opened_to() {
    let mut shard = with_two_addresses();
    let second = Ipv4Addr::new(10, 0, 7, 1).to_bits();
    let from = |seq: u32, ack, control, payload_bytes| {
        let ends = Addressing {
            source_mac: CLIENT_MAC,
            destination_mac: Config::new(OURS, 24, &[7000]).mac,
            local: Ipv4Addr::new(10, 0, 0, 9).to_bits(),
            remote: second,
            local_port: 1,
            remote_port: 7000,
            ttl: 64,
            dscp: 0,
        };
        let outgoing = Outgoing { payload_bytes, ..Outgoing::bare(SeqNum(seq), ack, control, 8_000) };
        let mut frame = Vec::new();
        emit_tcp(&mut frame, &ends, &outgoing, |out| out.resize(out.len() + payload_bytes as usize, 7));
        frame
    };
    let mut answers = Vec::new();
    let mut send = |shard: &mut Shard<Hold>, now, frame: &[u8]| {
        shard.receive(now, &[frame]);
        shard.tick(now);
        shard.transmit(|frame| {
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
            answers.push(packet.segment);
            assert_eq!(packet.remote, second, "{:?}", packet.segment);
            true
        });
        answers.last().map_or(SeqNum(0), |segment| segment.seq.plus(1))
    };
    let ack = send(&mut shard, Time(0), &from(100, SeqNum(0), Control::SYN, 0));
    send(&mut shard, Time(0), &from(101, ack, Control::ACK, 5));
    let [Notice::Opened { flow, local, .. }] = notices(&mut shard)[..] else { panic!("the connection is open") };
    assert_eq!(local.ip().to_bits(), second);
    shard.push(Time(0), &[Push::new(flow, Ticket(1), b"more")]);
    send(&mut shard, Time::from_ms(300), &from(106, ack, Control::ACK, 0));
    send(&mut shard, Time::from_ms(700), &from(106, ack, Control::SYN, 0));
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

/// Whether a shard starts with a configuration that `change` has changed.
fn starts_with(change: impl FnOnce(&mut Config)) -> Result<(), StartError> {
    let storage = Storage::in_memory_logged(Capacity::for_connections(10)).unwrap();
    let mut config = Config::new(OURS, 24, &[7000]);
    change(&mut config);
    Shard::new(config, storage, Hold, [1; 32], Time(0)).map(|_| ())
}

#[test]
fn an_ack_cannot_be_configured_to_wait_for_half_a_second() {
    assert!(starts_with(|config| config.delayed_ack_ms = 499).is_ok());
    let refused = starts_with(|config| config.delayed_ack_ms = 500);
    assert!(matches!(refused, Err(StartError::Config(what)) if what.contains("MUST-40")));
}

#[test]
fn no_configuration_gives_up_for_one_lost_keepalive_probe() {
    assert!(starts_with(|config| config.keepalive_probes = 2).is_ok());
    for probes in [0, 1, 64, 255] {
        let refused = starts_with(|config| config.keepalive_probes = probes);
        assert!(matches!(refused, Err(StartError::Config(what)) if what.contains("MUST-29")), "{probes}");
    }
}

#[test]
fn sequence_numbers_of_different_ends_tell_nothing_of_each_other() {
    let numbers = |secret: [u8; 32]| {
        let storage = Storage::in_memory_logged(Capacity::for_connections(10)).unwrap();
        let shard = Shard::new(Config::new(OURS, 24, &[7000]), storage, Hold, secret, Time(0)).unwrap();
        let tables = &shard.batch.tables;
        let number = |remote_port| {
            let key = crate::flows::FlowKey { remote: 9, remote_port, local_port: 7000, local_index: 0 };
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
