//! What comes due for everybody at once is done in steps of a bounded size.

use super::*;

const CLIENTS: u16 = 500;
/// What one tick may send.
const BURST_MAX: usize = 2 * BATCH_MAX;

/// A shard with so many idle connections.
fn crowded(keepalive_s: u32) -> (Shard<Hold>, Vec<(Client, FlowId)>) {
    let mut shard = shard_of(Config { keepalive_s, ..config() }, Hold);
    let clients = (0..CLIENTS).map(|number| open(&mut shard, 1_024 + number)).collect();
    shard.drain_notices(drop);
    (shard, clients)
}

/// Ticks until `until_ms`, whenever the shard wants it. Returns how many frames went out, and how many most at once.
fn run(shard: &mut Shard<Hold>, until_ms: u64) -> (usize, usize) {
    let (mut all, mut most) = (0, 0);
    while let Some(due) = shard.next_deadline().filter(|due| due.ms() < until_ms) {
        shard.tick(due);
        let frames = sent(shard).len();
        (all, most) = (all + frames, most.max(frames));
    }
    (all, most)
}

#[test]
fn probes_for_everybody_go_out_in_bounded_bursts() {
    let (mut shard, _) = crowded(10);
    // All are silent beyond their time before the hand passes again.
    shard.tick(Time::from_ms(12_000));
    let first = sent(&mut shard).len();
    let (all, most) = run(&mut shard, 18_000);
    assert_eq!(first + all, usize::from(CLIENTS), "everybody is probed once");
    assert!(first <= BURST_MAX && most <= BURST_MAX, "{first} and then {most} at once");
}

#[test]
fn timers_of_everybody_fire_in_bounded_bursts() {
    let (mut shard, clients) = crowded(0);
    let pushes: Vec<Push<'_>> = clients.iter().map(|(_, id)| Push::new(*id, Ticket(1), b"push")).collect();
    shard.push(Time::from_ms(1), &pushes);
    assert_eq!(sent(&mut shard).len(), pushes.len());
    let (all, most) = run(&mut shard, 2_000);
    assert!(all >= pushes.len(), "everything is sent again");
    assert!(most <= BURST_MAX, "{most} at once");
}

#[test]
fn memory_goes_back_in_bounded_pieces() {
    let (mut shard, mut clients) = crowded(0);
    let pushes: Vec<Push<'_>> = clients.iter().map(|(_, id)| Push::new(*id, Ticket(1), b"push")).collect();
    shard.push(Time::from_ms(1), &pushes);
    shard.transmit(|_| true);
    for (client, _) in &mut clients {
        client.ack = client.ack.plus(4);
        shard.receive(Time::from_ms(2), &[&client.frame(Control::ACK, b"")]);
    }
    shard.drain_notices(drop);
    assert_eq!(shard.stats().blocks, 0);
    let mut pieces = Vec::new();
    while let Some(due) = shard.next_deadline().filter(|due| due.ms() < 30_000) {
        let before = shard.effort();
        shard.tick(due);
        pieces.push(shard.effort().since(&before).released_bytes);
    }
    let most = pieces.iter().max().unwrap();
    assert!(pieces.iter().sum::<u64>() > 900_000, "the blocks of all pushes go back");
    assert!(*most <= 1 << 20, "{most} bytes at once");
}
