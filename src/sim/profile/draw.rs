//! The draws: a seed and a profile become parameters.
//!
//! Invariant: every draw comes from one generator, in one order; what a profile does without is not drawn.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use strum::IntoEnumIterator;

use super::{
    ClientParameters, ClockFrom, ConnectionParameters, EcnTreatment, Ending, KillParameters, MiddleboxParameters,
    NetworkParameters, NodeParameters, Operation, Parameters, Profile, Stack, Strike, Treatment, Workload,
};
use crate::shard::CommitPoint;

/// Smallest MTU of a link of IPv4 that is drawn, and the smallest that a link of IPv6 may have (RFC 8200 §5).
const MTU_MIN: u64 = 576;
const MTU_MIN_IPV6: u64 = 1_280;

impl Parameters {
    /// Draws a world.
    pub fn draw(seed: u64, profile: Profile) -> Parameters {
        let mut dice = Dice(Xoshiro256PlusPlus::seed_from_u64(seed));
        let heal_at_us = dice.scaled(1_000_000, 300_000_000);
        let is_lossy = profile == Profile::Lossy || (profile.is_mixed() && dice.chance(70));
        let is_tight = profile == Profile::Tight || (profile == Profile::Mixed && dice.chance(20));
        let is_deadly = profile == Profile::Kills || (profile.is_mixed() && dice.chance(70));
        let network = draw_network(&mut dice, is_lossy, heal_at_us);
        let node = draw_node(&mut dice, is_lossy, is_tight, heal_at_us);
        let kills = if is_deadly { draw_kills(&mut dice, heal_at_us) } else { Vec::new() };
        let clients = draw_clients(&mut dice, is_lossy, &node, heal_at_us);
        Parameters { seed, profile, heal_at_us, network, node, kills, clients }
    }
}

fn draw_network(dice: &mut Dice, is_lossy: bool, heal_at_us: u64) -> NetworkParameters {
    let delay_us_min = dice.scaled(20, 100_000);
    let mut partitions_us = Vec::new();
    if is_lossy && dice.chance(30) {
        for _ in 0..dice.within(1, 3) {
            let from_us = dice.within(0, heal_at_us);
            partitions_us.push((from_us, from_us + dice.scaled(10_000, 10_000_000)));
        }
    }
    let mut narrow_us = Vec::new();
    if is_lossy && dice.chance(30) {
        let from_us = dice.within(0, heal_at_us);
        narrow_us.push((from_us, from_us + dice.scaled(100_000, 60_000_000), dice.within(68, 1000) as u16));
    }
    let mut rate = |percent, max| if is_lossy && dice.chance(percent) { dice.scaled(1, max) as u32 } else { 0 };
    let loss = rate(80, 2_000);
    let (bursts, overtaking) = (rate(20, 200), rate(25, 1_000));
    NetworkParameters {
        duplication: rate(60, 2_000),
        reordering: rate(60, 3_000),
        corruption: rate(60, 1_000),
        loss: match dice.below(6) {
            0 => (loss, 0),
            1 => (0, loss),
            _ => (loss, loss),
        },
        bursts,
        burst_frames_max: dice.scaled(2, 64) as u32,
        overtaking,
        overtaking_frames_max: dice.scaled(1, 64) as u32,
        delay_us: (delay_us_min, delay_us_min + dice.scaled(1, delay_us_min)),
        held_back_us_max: dice.scaled(10, 400_000),
        is_padded: dice.chance(50),
        partitions_us,
        narrow_us,
    }
}

/// What stands between a client and the network. Timestamps are not stripped from SYN-ACKs alone: the node would be
/// sure of them and the client would not, and RFC 7323 §3.2 has the node drop whatever comes without.
fn draw_middlebox(dice: &mut Dice, heal_at_us: u64) -> MiddleboxParameters {
    const TIMESTAMPS: u8 = 8;
    const UNKNOWN_TO_SOME: [u8; 5] = [2, 3, 4, 5, TIMESTAMPS];
    let mut strips = Vec::new();
    if dice.chance(50) {
        let is_simple_minded = dice.chance(25);
        strips.extend(UNKNOWN_TO_SOME.iter().filter(|_| is_simple_minded || dice.chance(40)));
    }
    let (is_to_node, is_to_client) = match dice.below(4) {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    };
    // The node drops all of a connection's segments for as long: shorter than it has patience with a handshake.
    let no_timestamps_us = dice.chance(15).then(|| {
        let from_us = dice.within(0, heal_at_us);
        (from_us, from_us + dice.scaled(100_000, 60_000_000))
    });
    let treatment = Treatment {
        strips,
        no_timestamps_us,
        mss_max: dice.chance(30).then(|| dice.within(88, 1400) as u16),
        passes_one_ack_of: if dice.chance(30) { dice.within(2, 6) as u32 } else { 0 },
        ack_wait_us: if dice.chance(30) { dice.scaled(100, 100_000) } else { 0 },
        ecn: match dice.below(5) {
            0 => EcnTreatment::Clears,
            1 => EcnTreatment::Drops,
            2 | 3 => EcnTreatment::Marks(dice.scaled(1, 100) as u32),
            _ => EcnTreatment::Passes,
        },
    };
    let mut to_client = treatment.clone();
    to_client.strips.retain(|&kind| kind != TIMESTAMPS || is_to_node);
    MiddleboxParameters {
        to_node: if is_to_node { treatment } else { Treatment::default() },
        to_client: if is_to_client { to_client } else { Treatment::default() },
    }
}

fn draw_node(dice: &mut Dice, is_lossy: bool, is_tight: bool, heal_at_us: u64) -> NodeParameters {
    let capacity = if is_tight {
        (dice.scaled(1, 16) as u32, dice.scaled(16, 1_024) as u32, dice.scaled(16, 512) as u32)
    } else {
        (64, 32_768, 8_192)
    };
    // With some to spare for those in TIME-WAIT.
    let flows_max = if is_tight && dice.chance(30) { dice.scaled(1, 8) as u32 } else { 128 };
    // A client's RST may be lost, and nobody but a keepalive then finds out that the place may be had.
    let has_keepalive = flows_max < 128 || dice.chance(30);
    // A link of IPv6 takes larger packets at least, and the node has one link.
    let is_dual = dice.chance(67);
    NodeParameters {
        flows_max,
        capacity,
        is_tight,
        is_dual,
        mtu: dice.within(if is_dual { MTU_MIN_IPV6 } else { MTU_MIN }, 1500) as u16,
        window_bytes: dice.scaled(4_096, 262_144) as u32,
        send_queue_bytes: dice.scaled(4_096, 262_144) as u32,
        keepalive_s: if has_keepalive { dice.scaled(5, 20) as u32 } else { 0 },
        time_wait_s: dice.within(1, 60) as u32,
        gather_us: if dice.chance(50) { dice.scaled(1, 3_000) } else { 0 },
        link_full: if is_lossy && dice.chance(40) { dice.scaled(10, 3_000) as u32 } else { 0 },
        ring_frames: if is_lossy && dice.chance(30) { dice.scaled(4, 256) as usize } else { 1 << 16 },
        clock_from: draw_clock_from(dice, heal_at_us),
        clock_stops_us: draw_gaps(dice, is_lossy, heal_at_us),
        pauses_us: draw_gaps(dice, is_lossy, heal_at_us),
        tick_late_us_max: if is_lossy && dice.chance(25) { dice.scaled(10, 2_000_000) } else { 0 },
    }
}

/// Often where something wraps: the initial sequence number of a connection, or a count of 32 bits of some unit.
fn draw_clock_from(dice: &mut Dice, heal_at_us: u64) -> ClockFrom {
    let near =
        |dice: &mut Dice, unit_us: u64| ClockFrom::At((unit_us << 32).saturating_sub(dice.within(0, heal_at_us)));
    match dice.below(8) {
        0 | 1 => ClockFrom::Wrap { connection: dice.below(6), before: dice.scaled(1, 100_000) as u32 },
        2 => near(dice, 1),
        3 => near(dice, 1_000),
        4 => ClockFrom::At(dice.scaled(1, 10_000_000_000_000)),
        _ => ClockFrom::At(0),
    }
}

/// Times at which a machine or its clock stands still, in order and apart.
fn draw_gaps(dice: &mut Dice, is_lossy: bool, heal_at_us: u64) -> Vec<(u64, u64)> {
    let mut gaps_us = Vec::new();
    let mut from_us = 0;
    while is_lossy && gaps_us.len() < 3 && dice.chance(if gaps_us.is_empty() { 25 } else { 50 }) {
        from_us += dice.within(1, heal_at_us);
        let until_us = (from_us + dice.scaled(10_000, 100_000_000)).min(heal_at_us);
        if from_us >= until_us {
            break;
        }
        gaps_us.push((from_us, until_us));
        from_us = until_us;
    }
    gaps_us
}

fn draw_kills(dice: &mut Dice, heal_at_us: u64) -> Vec<KillParameters> {
    let points: Vec<CommitPoint> = CommitPoint::iter().collect();
    // Closes and starts are rarer than anything else.
    let rare = [Operation::Close, Operation::Resume].repeat(3);
    let operations: Vec<Operation> = Operation::iter().chain(rare).collect();
    let mut kills: Vec<KillParameters> = (0..dice.within(1, 8))
        .map(|_| KillParameters {
            from_us: dice.scaled(1, heal_at_us),
            at: dice.chance(85).then(|| {
                let during = dice.chance(60).then(|| operations[dice.below(operations.len())]);
                let is_rare = matches!(during, Some(Operation::Close | Operation::Resume));
                let offers = dice.scaled(1, if is_rare { 1 } else { 40 }) as u32;
                Strike { point: points[dice.below(points.len())], offers, during }
            }),
            repeats: if dice.chance(15) { dice.within(1, 4) as u32 } else { 0 },
            downtime_us: dice.scaled(1_000, 8_000_000),
        })
        .collect();
    kills.sort_by_key(|kill| kill.from_us);
    kills
}

fn draw_clients(dice: &mut Dice, is_lossy: bool, node: &NodeParameters, heal_at_us: u64) -> Vec<ClientParameters> {
    (0..dice.within(1, 6))
        .map(|_| {
            let stack = if dice.chance(40) { Stack::Own } else { Stack::Smoltcp };
            // Two of five in all worlds together.
            let is_ipv6 = node.is_dual && dice.chance(60);
            let mtu = dice.within(if is_ipv6 { MTU_MIN_IPV6 } else { MTU_MIN }, 1500) as u16;
            let isn_seed = dice.within(0, u64::MAX);
            let unplugged_us = dice.chance(if is_lossy { 20 } else { 5 }).then(|| {
                let from_us = dice.within(0, heal_at_us);
                // Who is gone for good may hold what is scarce for as long as the user timeout.
                (from_us, (node.is_tight || dice.chance(60)).then(|| from_us + dice.scaled(1_000, 15_000_000)))
            });
            let connections = (0..dice.within(1, 3)).map(|_| draw_connection(dice, heal_at_us)).collect();
            let middlebox = (is_lossy && dice.chance(35)).then(|| draw_middlebox(dice, heal_at_us));
            ClientParameters {
                stack,
                is_ipv6,
                is_asking_ecn: dice.chance(60),
                mtu,
                isn_seed,
                unplugged_us,
                middlebox,
                connections,
            }
        })
        .collect()
}

fn draw_connection(dice: &mut Dice, heal_at_us: u64) -> ConnectionParameters {
    let workload = if dice.chance(50) { Workload::Echo } else { Workload::Hold };
    let start_us = if dice.chance(30) { 0 } else { dice.within(0, heal_at_us / 2) };
    let ending_us = dice.within(start_us, heal_at_us);
    let receive_bytes = dice.scaled(1_024, 131_072) as usize;
    let mut pushes: Vec<(u64, usize)> = Vec::new();
    if workload == Workload::Hold {
        for _ in 0..dice.scaled(0, 40) {
            let at_us = match pushes.last() {
                Some(&(at_us, _)) if dice.chance(40) => at_us,
                _ => dice.within(start_us, heal_at_us),
            };
            pushes.push((at_us, dice.scaled(1, 16_384) as usize));
        }
    }
    pushes.sort_by_key(|&(at_us, _)| at_us);
    let send_bytes = 1 + dice.scaled(0, if workload == Workload::Echo { 200_000 } else { 50_000 });
    let read_bytes = dice.scaled(64, 131_072) as usize;
    ConnectionParameters {
        workload,
        start_us,
        is_successor: dice.chance(35),
        send_bytes,
        write: (
            dice.scaled(1, 65_536).max(send_bytes / 500) as usize,
            if dice.chance(40) { dice.scaled(1, 200_000) } else { 0 },
        ),
        // A slow reader empties its receive buffer within some 20 seconds all the same.
        read: (
            read_bytes,
            if dice.chance(30) {
                dice.scaled(1, (20_000_000 * read_bytes / receive_bytes.max(read_bytes)) as u64)
            } else {
                0
            },
        ),
        buffers_bytes: (receive_bytes, dice.scaled(1_024, 65_536) as usize),
        is_nagle: dice.chance(50),
        is_ack_delayed: dice.chance(70),
        is_timestamped: dice.chance(50),
        isn_before_wrap: dice.chance(25).then(|| dice.scaled(1, 100_000) as u32),
        keepalive_ms: dice.chance(20).then(|| dice.scaled(100, 30_000)),
        appetite: (workload == Workload::Hold && dice.chance(40))
            .then(|| (dice.scaled(1, 20_000).max(send_bytes / 50), dice.scaled(1_000, 2_000_000))),
        is_paused: dice.chance(30),
        pushes,
        ending: match dice.below(10) {
            0 => Ending::ClientReset(ending_us),
            1 | 2 => Ending::ServerFin(ending_us),
            3 => Ending::ServerReset(ending_us),
            _ => Ending::ClientFin(ending_us),
        },
    }
}

/// Random numbers as the draws above want them.
struct Dice(Xoshiro256PlusPlus);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    fn within(&mut self, min: u64, max: u64) -> u64 {
        self.0.random_range(min..=max)
    }

    /// Between `min` and `max`, each order of magnitude as likely as the next.
    fn scaled(&mut self, min: u64, max: u64) -> u64 {
        let doublings_max = (max / min.max(1)).max(1).ilog2();
        let doublings = self.0.random_range(0..=doublings_max + 1);
        let upper = (min.max(1) << doublings).min(max).max(min);
        self.0.random_range(min..=upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_world_twice() {
        for seed in 0..100 {
            let draw = || format!("{}", Parameters::draw(seed, Profile::Mixed));
            assert_eq!(draw(), draw());
        }
    }

    #[test]
    fn scaled_draws_stay_within_their_bounds() {
        let mut dice = Dice(Xoshiro256PlusPlus::seed_from_u64(1));
        for (min, max) in [(0, 40), (1, 1), (0, 0), (20, 100_000), (1_000, 1_001)] {
            for _ in 0..1_000 {
                let drawn = dice.scaled(min, max);
                assert!((min..=max).contains(&drawn), "{drawn} is not within {min}..={max}");
            }
        }
    }

    #[test]
    fn two_of_five_clients_speak_ipv6_and_beside_those_that_do_not() {
        let worlds: Vec<Parameters> = (0..500).map(|seed| Parameters::draw(seed, Profile::Mixed)).collect();
        let clients = || worlds.iter().flat_map(|world| &world.clients);
        let ipv6_count = clients().filter(|client| client.is_ipv6).count();
        assert!((35..45).contains(&(ipv6_count * 100 / clients().count())), "{ipv6_count} clients");
        let is_mixed = |world: &&Parameters| {
            let of_ipv6 = |client: &ClientParameters| client.is_ipv6;
            world.clients.iter().any(of_ipv6) && !world.clients.iter().all(of_ipv6)
        };
        assert!(worlds.iter().filter(is_mixed).count() > 150, "both families are in one world");
    }

    #[test]
    fn only_calm_worlds_are_without_trouble() {
        for seed in 0..50 {
            let calm = Parameters::draw(seed, Profile::Calm);
            assert!(calm.kills.is_empty() && calm.network.loss == (0, 0) && calm.network.corruption == 0);
            assert!(!Parameters::draw(seed, Profile::Kills).kills.is_empty());
        }
    }
}
