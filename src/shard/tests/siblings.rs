//! Shards that are several: what is whose, and what all of them see.

use super::*;
use crate::wire::{ArpMessage, emit_arp, emit_fragment};

fn sibling(shard: u8, shards: u8) -> Shard<Hold> {
    shard_of(Config { shard, shards, ..config() }, Hold)
}

/// The packet of a frame in fragments for links that take so many bytes.
fn in_fragments(frame: &[u8], mtu: u16, number: u32) -> Vec<Vec<u8>> {
    let (mut parts, mut next) = (Vec::new(), Some(0));
    while let Some(offset) = next {
        let mut part = Vec::new();
        next = emit_fragment(&mut part, frame, mtu, number, offset);
        parts.push(part);
    }
    parts
}

#[test]
fn a_question_to_all_is_answered_by_one_and_heard_by_all() {
    let neighbor = Ipv4Addr::new(10, 0, 0, 77);
    let mut shards = [sibling(0, 2), sibling(1, 2)];
    for shard in &mut shards {
        shard.connect(Time(0), None, 0, (neighbor, 9)).unwrap();
        assert_eq!(frames(shard).len(), 1, "it asks for the neighbour");
    }
    let question =
        ArpMessage { is_request: true, sender_mac: CLIENT_MAC, sender: neighbor, target_mac: [0; 6], target: OURS };
    let mut frame = Vec::new();
    emit_arp(&mut frame, &question);
    assert_eq!(whose(&frame, &[9; 6], 2), Whose::All);
    let mut answers = 0;
    for shard in &mut shards {
        shard.receive(Time(0), &[&frame]);
        let sent = frames(shard);
        answers += sent.iter().filter(|frame| frame[12..14] == [8, 6]).count();
        let is_syn = |frame: &&Vec<u8>| matches!(parse(frame, &CLIENT_MAC), Ok(Packet::Tcp(_)));
        assert_eq!(sent.iter().filter(is_syn).count(), 1, "the SYN that waited leaves");
    }
    assert_eq!(answers, 1);
}

#[test]
fn what_is_opened_from_here_is_answered_here() {
    for number in 0..3 {
        let mut shard = sibling(number, 3);
        let mac = config().mac;
        for remote_port in 1..=40 {
            shard.connect(Time(0), None, 0, (CLIENT, remote_port)).unwrap();
        }
        shard.flows(Time(0), 0, |view| {
            let client = Client { port: view.remote.port(), seq: SeqNum(0), ack: SeqNum(0) };
            let mut frame = client.frame(Control::ACK, b"");
            frame[36..38].copy_from_slice(&view.local.port().to_be_bytes());
            assert_eq!(whose(&frame, &mac, 3), Whose::Of(number), "{view:?}");
            true
        });
        let elsewhere = (50_000..50_010).map(|port| shard.connect(Time(0), None, port, (CLIENT, 9)));
        assert!(elsewhere.into_iter().any(|result| result == Err(ConnectError::OtherShard)));
    }
}

#[test]
fn a_packet_in_fragments_goes_to_the_shard_of_its_ports() {
    let mut shards: Vec<Shard<Hold>> = (0..4).map(|number| sibling(number, 4)).collect();
    let mac = config().mac;
    let mut strays = 0;
    for port in 40_000..40_016 {
        let whole = Client { port, seq: SeqNum(1), ack: SeqNum(0) }.frame(Control::SYN, &[7; 300]);
        let Whose::Of(owner) = whose(&whole, &mac, 4) else { panic!("a segment is somebody's") };
        let mut gathered = Vec::new();
        for part in in_fragments(&whole, 200, port.into()) {
            let Whose::Of(gatherer) = whose(&part, &mac, 4) else { panic!("a fragment is somebody's") };
            gathered.push(gatherer);
            shards[usize::from(gatherer)].receive(Time(0), &[&part]);
        }
        gathered.dedup();
        assert_eq!(gathered.len(), 1, "one shard has them all");
        let mut found = Vec::new();
        shards[usize::from(gathered[0])].drain_strays(|shard, frame| found.push((shard, frame)));
        assert_eq!(found.is_empty(), gathered[0] == owner);
        for (shard, frame) in found {
            strays += 1;
            assert_eq!(shard, owner);
            shards[usize::from(shard)].receive(Time(0), &[&frame]);
        }
        assert_eq!(shards[usize::from(owner)].flows(Time(0), 0, |_| true), None);
        assert_eq!(frames(&mut shards[usize::from(owner)]).len(), 1, "a SYN-ACK");
    }
    assert!(strays > 0, "ports lead elsewhere than addresses");
}

#[test]
fn an_echo_and_its_fragments_are_one_shards() {
    let (mac, request) = (config().mac, echo_request(OURS, &[8; 3_000]));
    let Whose::Of(owner) = whose(&request, &mac, 8) else { panic!("an echo is somebody's") };
    let mut shard = sibling(owner, 8);
    for part in in_fragments(&request, 1_500, 7) {
        assert_eq!(whose(&part, &mac, 8), Whose::Of(owner));
        shard.receive(Time(0), &[&part]);
    }
    shard.drain_strays(|shard, _| panic!("shard {shard} has nothing to do with it"));
    assert_eq!(frames(&mut shard).len(), 3, "the answer, in fragments");
}

#[test]
fn a_state_keeps_its_number_of_shards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let capacity = Capacity { flows: 64, actives: 64, spans: 64, blocks: 64 };
    assert_eq!(Storage::shards_in(path), None);
    let storages = Storage::all_in_directory(path, 3, capacity).unwrap();
    for (shard, storage) in (0..3).zip(storages) {
        let config = Config { shard, shards: 3, ..config() };
        drop(Shard::new(config, storage, Hold, [1; 32], Time(0)).unwrap());
    }
    assert_eq!(Storage::shards_in(path), Some(3));
    for other in [1, 2, 4] {
        let error = Storage::all_in_directory(path, other, capacity).err().expect("it has another number").to_string();
        assert!(error.contains("made for 3 shards") && error.contains("--shards 3"), "{error}");
    }
    assert!(!path.join("shard-3").exists(), "nothing is made in passing");
    let more = Capacity { flows: 65, ..capacity };
    let error = Storage::all_in_directory(path, 3, more).err().expect("it has less room").to_string();
    assert!(error.contains("64 connections in each shard"), "{error}");
    let mut storages = Storage::all_in_directory(path, 3, capacity).unwrap();
    let config = Config { shard: 1, shards: 3, ..config() };
    let error =
        Shard::new(config, storages.remove(2), Hold, [1; 32], Time(0)).err().expect("it is another").to_string();
    assert!(error.contains("it is shard 2 of 3, not 1 of 3"), "{error}");
    drop(storages);
    std::fs::remove_dir_all(path.join("shard-1")).unwrap();
    let error = Storage::all_in_directory(path, 3, capacity).err().expect("a part is missing").to_string();
    assert!(error.contains("shard 1 is missing"), "{error}");
}
