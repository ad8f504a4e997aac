//! The shard against a hand-made client.

use std::net::Ipv4Addr;

use super::*;
use crate::flows::Capacity;
use crate::service::{Echo, Hold};
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
