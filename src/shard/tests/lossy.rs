//! Very many connections over a link that loses frames, in both directions.

use std::collections::VecDeque;

use super::*;

const CLIENTS: u32 = 16_000;
/// Frames that wait for either end; what comes then is lost, as in the ring of a veth.
const RING: usize = 256;
const PASS_US: u64 = 50;
/// Time-outs are a minute apart in the end, and somebody needs twenty of them.
const PATIENCE_S: u32 = 3_600;

/// One end of the link, with what is on its way to it.
struct End {
    shard: Shard<Hold>,
    ring: VecDeque<Vec<u8>>,
}

impl End {
    fn new(address: Ipv4Addr, mac: [u8; 6]) -> End {
        let config = Config { mac, user_timeout_s: PATIENCE_S, ..Config::new(address, 24, &[7000]) };
        let storage = Storage::in_memory(Capacity::for_connections(50_000)).unwrap();
        End { shard: Shard::new(config, storage, Hold, [mac[5]; 32], Time(0)).unwrap(), ring: VecDeque::new() }
    }

    /// Takes in a batch and what is due, and lets go what is ready.
    fn pass(&mut self, now: Time, to: &mut VecDeque<Vec<u8>>, mut is_lost: impl FnMut() -> bool) {
        let count = self.ring.len().min(BATCH_MAX);
        let frames: Vec<Vec<u8>> = self.ring.drain(..count).collect();
        self.shard.receive(now, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if self.shard.next_deadline().is_some_and(|due| due <= now) {
            self.shard.tick(now);
        }
        self.shard.transmit(|frame| {
            if to.len() < RING && !is_lost() {
                to.push_back(frame.to_vec());
            }
            true
        });
    }
}

/// Both ends, and when it is there.
struct Wire {
    server: End,
    clients: End,
    now: Time,
    state: u32,
    loses_one_of: u32,
}

impl Wire {
    /// Goes on until both ends are quiet, at most for so long.
    fn run(&mut self, most_s: u32, mut is_over: impl FnMut(&mut Wire) -> bool) {
        let end = self.now.plus_ms(u64::from(most_s) * 1_000);
        while self.now < end && !is_over(self) {
            let (state, one_of) = (&mut self.state, self.loses_one_of);
            let mut is_lost = || {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                one_of > 0 && (*state >> 8).is_multiple_of(one_of)
            };
            self.server.pass(self.now, &mut self.clients.ring, &mut is_lost);
            self.clients.pass(self.now, &mut self.server.ring, &mut is_lost);
            let next = Time(self.now.0 + PASS_US);
            let is_quiet = self.server.ring.is_empty() && self.clients.ring.is_empty();
            let due = [&self.server, &self.clients].into_iter().filter_map(|end| end.shard.next_deadline()).min();
            self.now = if is_quiet { due.unwrap_or(end).max(next) } else { next };
        }
    }
}

#[test]
fn a_broadcast_reaches_everybody_though_a_third_of_the_frames_is_lost() {
    let mut wire = Wire {
        server: End::new(OURS, [2, 0, 0, 0, 0, 1]),
        clients: End::new(CLIENT, CLIENT_MAC),
        now: Time::from_ms(1),
        state: 1,
        loses_one_of: 0,
    };
    let mut asked = 0;
    wire.run(100, |wire| {
        let half_open = wire.clients.shard.in_state(crate::tcp::State::SynSent);
        while asked < CLIENTS && half_open < 256 && asked < wire.clients.shard.stats().established + 256 {
            let port = 10_000 + asked as u16;
            wire.clients.shard.connect(wire.now, Some(CLIENT.into()), port, (OURS, 7000)).unwrap();
            asked += 1;
        }
        wire.server.shard.stats().established == CLIENTS
    });
    assert_eq!(wire.server.shard.stats().established, CLIENTS);
    wire.server.shard.drain_notices(drop);
    wire.clients.shard.drain_notices(drop);
    wire.loses_one_of = 3;
    for round in 1..=3 {
        let news = Broadcast { ticket: Ticket(round), bytes: &[7; 64], pace_per_s: 0, prefix: b"", expires_in_s: 0 };
        let job = wire.server.shard.broadcast(wire.now, &news).unwrap();
        let begun = wire.now;
        wire.run(PATIENCE_S, |wire| {
            wire.server.shard.drain_notices(drop);
            wire.clients.shard.drain_notices(drop);
            let view = wire.server.shard.job(job).unwrap();
            view.delivered + view.lost == CLIENTS
        });
        let view = wire.server.shard.job(job).unwrap();
        eprintln!("round {round}: {view:?} {} ms {:?}", wire.now.ms() - begun.ms(), wire.server.shard.stats());
        assert_eq!((view.pushed, view.delivered, view.lost), (CLIENTS, CLIENTS, 0), "round {round}");
    }
    wire.run(60, |_| false);
    let stats = wire.server.shard.stats();
    assert_eq!((stats.flows, stats.actives, stats.repairs, stats.spans, stats.blocks), (CLIENTS, 0, 0, 0, 0));
}
