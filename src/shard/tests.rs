//! The shard against a hand-made client.

mod bounded;
mod broadcasts;
mod ended;
mod ipv6;
mod lossy;
mod requirements;
mod shared;
mod siblings;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::flows::Capacity;
use crate::service::{Echo, Hold, Names};
use crate::tcp::{CloseReason, Control, Outgoing, SeqNum};
use crate::wire::{Addressing, Echo as EchoPacket, Packet, emit_echo_reply, emit_tcp, parse};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn config() -> Config {
    Config::new(OURS, 24, &[7000])
}

/// A segment with a sequence number and an acknowledgment from one end, at an Ethernet address, to another: as a frame.
fn segment(
    mac: [u8; 6],
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    control: Control,
    (seq, ack): (SeqNum, SeqNum),
    bytes: &[u8],
) -> Vec<u8> {
    let (from, to) = (from.into(), to.into());
    let ends = Addressing {
        source_mac: mac,
        destination_mac: config().mac,
        local: from.ip(),
        remote: to.ip(),
        local_port: from.port(),
        remote_port: to.port(),
        ttl: 64,
        dscp: 0,
    };
    let outgoing = Outgoing { payload_bytes: bytes.len() as u32, ..Outgoing::bare(seq, ack, control, 8_000) };
    let mut frame = Vec::new();
    emit_tcp(&mut frame, &ends, &outgoing, |out| out.extend_from_slice(bytes));
    frame
}

fn echo_request(to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let reply = EchoPacket { source_mac: config().mac, remote: to.into(), local: CLIENT.into(), body };
    let mut request = Vec::new();
    emit_echo_reply(&mut request, CLIENT_MAC, 64, &reply);
    // A request is the reply with another type, and the checksum that goes with it.
    request[34] = 8;
    let sum = u16::from_be_bytes([request[36], request[37]]);
    let sum = if sum >= 0x0800 { sum - 0x0800 } else { sum.wrapping_sub(0x0801) };
    request[36..38].copy_from_slice(&sum.to_be_bytes());
    request
}

struct Client {
    port: u16,
    seq: SeqNum,
    ack: SeqNum,
}

impl Client {
    fn frame(&self, control: Control, bytes: &[u8]) -> Vec<u8> {
        segment(CLIENT_MAC, (CLIENT, self.port), (OURS, 7000), control, (self.seq, self.ack), bytes)
    }
}

fn shard<S: Service>(service: S) -> Shard<S> {
    shard_of(config(), service)
}

fn shard_of<S: Service>(config: Config, service: S) -> Shard<S> {
    let storage = Storage::in_memory_logged(Capacity::for_connections(1_000)).unwrap();
    Shard::new(config, storage, service, [1; 32], Time(0)).unwrap()
}

fn restarted<S: Service>(shard: Shard<S>, service: S, now: Time) -> Shard<S> {
    Shard::new(config(), shard.into_storage(), service, [9; 32], now).unwrap()
}

/// Why no shard starts with this configuration; empty where one does.
fn refusal(config: Config) -> String {
    let storage = Storage::in_memory(Capacity::for_connections(10)).unwrap();
    Shard::new(config, storage, Hold, [1; 32], Time(0)).err().map_or_else(String::new, |error| error.to_string())
}

/// What it sends, as frames.
fn frames(shard: &mut Shard<Hold>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    shard.transmit(|frame| {
        frames.push(frame.to_vec());
        true
    });
    frames
}

fn sent<S: Service>(shard: &mut Shard<S>) -> Vec<(crate::tcp::Segment<'static>, Vec<u8>)> {
    let mut sent = Vec::new();
    shard.transmit(|frame| {
        let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
        sent.push((crate::tcp::Segment { sack: &[], ..packet.segment }, packet.payload.to_vec()));
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

/// Opens a connection from a peer at an Ethernet address and returns its id.
fn open_from(shard: &mut Shard<Hold>, mac: [u8; 6], from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> FlowId {
    let (from, to) = (from.into(), to.into());
    let segment = |control, seq, ack| segment(mac, from, to, control, (SeqNum(seq), ack), b"");
    shard.receive(Time(0), &[&segment(Control::SYN, 100, SeqNum(0))]);
    let mut ack = SeqNum(0);
    shard.transmit(|frame| {
        if let Ok(Packet::Tcp(packet)) = parse(frame, &mac) {
            assert_eq!((packet.addresses.local(), packet.addresses.remote()), (from.ip(), to.ip()));
            ack = packet.segment.seq.plus(1);
        }
        true
    });
    shard.receive(Time(0), &[&segment(Control::ACK, 101, ack)]);
    let [Notice::Opened { flow, local, remote }] = notices(shard)[..] else { panic!("one connection is opened") };
    assert_eq!((local, remote), (to, from));
    flow
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
fn pieces_beyond_a_gap_take_no_block_each() {
    for is_backwards in [false, true] {
        let mut shard = shard(Hold);
        let (mut client, _) = open(&mut shard, 1);
        let start = client.seq.plus(10);
        for at in 0..2_000 {
            client.seq = start.plus(if is_backwards { 2_000 - at } else { at });
            shard.receive(Time(0), &[&client.frame(Control::ACK, b"x")]);
            sent(&mut shard);
        }
        let stats = shard.stats();
        assert!(stats.spans <= 512, "{} spans", stats.spans);
        assert!(is_backwards || stats.blocks <= 1, "{} blocks", stats.blocks);
    }
}

#[test]
fn what_came_twice_keeps_no_block_of_a_peer_without_sack() {
    let mut shard = shard(Hold);
    let (mut client, _) = open(&mut shard, 1);
    let start = client.seq;
    client.seq = start.plus(1);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"b")]);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"b")]);
    client.seq = start;
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"ab")]);
    shard.receive(Time(0), &[&client.frame(Control::ACK, b"ab")]);
    shard.tick(Time::from_ms(1_000));
    let stats = shard.stats();
    assert_eq!((stats.actives, stats.repairs, stats.spans, stats.blocks), (0, 0, 0, 0));
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
    let mut shard = restarted(shard, Echo, Time::from_ms(2_000));
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

#[test]
fn a_peer_has_its_time_for_each_probe_though_we_were_silent_ourselves() {
    let mut shard = shard_of(Config { keepalive_s: 60, keepalive_probes: 3, ..config() }, Hold);
    open(&mut shard, 40_000);
    let (mut spoken_s, mut is_over) = (Vec::new(), false);
    // An hour of silence, then a tick every second, but for another hour when all probes are sent.
    let mut second = 3_600;
    while !is_over {
        shard.tick(Time::from_ms(second * 1_000));
        for (segment, _) in sent(&mut shard) {
            spoken_s.push(second);
            is_over = segment.control.has(Control::RST);
        }
        second += if spoken_s.len() == 3 && spoken_s[2] == second { 3_600 } else { 1 };
    }
    let between_s: Vec<u64> = spoken_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let is_interval = |between_s: &u64| (56..=70).contains(between_s);
    assert!(between_s.len() == 4 && is_interval(&between_s[0]) && is_interval(&between_s[1]), "{between_s:?}");
    assert!(between_s[2] >= 3_600 && is_interval(&between_s[3]), "asked once more, and waited for: {between_s:?}");
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
