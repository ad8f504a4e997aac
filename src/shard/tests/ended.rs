//! Connections that have ended, and what follows them.

use super::*;

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
fn what_ends_in_a_batch_opens_again_in_it() {
    let mut shard = shard(Hold);
    let (client, flow) = open(&mut shard, 1);
    let again = Client { port: 1, seq: SeqNum(7), ack: SeqNum(0) };
    shard.receive(Time(0), &[&client.frame(Control::RST, b""), &again.frame(Control::SYN, b"")]);
    assert_eq!(notices(&mut shard), [Notice::Closed { flow, reason: CloseReason::PeerReset }]);
    let [(syn_ack, _)] = sent(&mut shard)[..] else { panic!("the SYN is answered") };
    assert_eq!((syn_ack.control, syn_ack.ack), (Control::SYN.with(Control::ACK), SeqNum(8)));
}
