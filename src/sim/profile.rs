//! What a world is made of: every parameter, drawn from the seed before the world begins.
//!
//! A seed and a profile come in, [`Parameters`] go out; their `Display` is what is printed for a world that failed.
//! Probabilities are counted in ten-thousandths, times in microseconds of simulated time.
//!
//! Invariant: the same seed and profile give the same parameters, and nothing is drawn elsewhere that is not derived
//! from the seed written here.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use strum::IntoEnumIterator;

use strum::IntoStaticStr;

use crate::shard::CommitPoint;

/// Which kinds of trouble a world may draw.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, strum::Display, strum::EnumIter, strum::EnumString, IntoStaticStr,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Profile {
    /// Delay alone: nothing is lost and nothing dies.
    Calm,
    /// Frames are lost, doubled, reordered and corrupted; links are full and parted.
    Lossy,
    /// The shard is killed again and again; the network is good.
    Kills,
    /// As mixed, and connections have to do with fewer active blocks, spans and payload blocks than they ask for.
    Tight,
    /// Everything at once, each kind of trouble or not as drawn.
    #[default]
    Mixed,
}

impl Profile {
    fn is_mixed(self) -> bool {
        match self {
            Profile::Mixed | Profile::Tight => true,
            Profile::Calm | Profile::Lossy | Profile::Kills => false,
        }
    }
}

/// Everything that is drawn for a world.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The seed that all of it comes from.
    pub seed: u64,
    /// The profile it was drawn under.
    pub profile: Profile,
    /// When all faults end and everything has to finish, in microseconds.
    pub heal_at_us: u64,
    /// The network.
    pub network: NetworkParameters,
    /// The machine under test.
    pub node: NodeParameters,
    /// Its deaths, in order.
    pub kills: Vec<KillParameters>,
    /// Its clients.
    pub clients: Vec<ClientParameters>,
}

/// What the network does to frames. Probabilities in ten-thousandths, per frame.
#[derive(Clone, Debug)]
pub struct NetworkParameters {
    /// Shortest and longest delay of a frame, in microseconds.
    pub delay_us: (u64, u64),
    /// How often a frame is lost.
    pub loss: u32,
    /// How often a frame arrives twice.
    pub duplication: u32,
    /// How often a frame is held back, so that later ones overtake it.
    pub reordering: u32,
    /// How long it is held back at most, in microseconds.
    pub held_back_us_max: u64,
    /// How often one bit of a frame's IP packet is flipped.
    pub corruption: u32,
    /// Whether frames are padded to 60 bytes, as on a wire.
    pub is_padded: bool,
    /// When no frame gets through at all: from, until, in microseconds.
    pub partitions_us: Vec<(u64, u64)>,
}

/// How the machine under test is set up.
#[derive(Clone, Debug)]
pub struct NodeParameters {
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Largest receive window, in bytes.
    pub window_bytes: u32,
    /// Most bytes in a flow's send queue.
    pub send_queue_bytes: u32,
    /// How many active blocks, spans and payload blocks there are.
    pub capacity: (u32, u32, u32),
    /// Whether that is less than what everybody may ask for at once.
    pub is_tight: bool,
    /// Length of TIME-WAIT, in seconds.
    pub time_wait_s: u32,
    /// For how long arriving frames are gathered before the shard is called, in microseconds.
    pub gather_us: u64,
    /// How often the link is full after a few frames, in ten-thousandths of the calls.
    pub link_full: u32,
}

/// One death of the shard.
#[derive(Clone, Debug)]
pub struct KillParameters {
    /// Not before this time, in microseconds.
    pub from_us: u64,
    /// At the how-manieth offer of which commit point after that; without one, between two calls.
    pub at: Option<(CommitPoint, u32)>,
    /// How long the machine is down, in microseconds.
    pub downtime_us: u64,
}

/// One client machine.
#[derive(Clone, Debug)]
pub struct ClientParameters {
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// What its TCP draws its initial sequence numbers from.
    pub isn_seed: u64,
    /// When its cable is pulled, and when put back, if it ever is; in microseconds.
    pub unplugged_us: Option<(u64, Option<u64>)>,
    /// Its connections.
    pub connections: Vec<ConnectionParameters>,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// The client's bytes come back.
    Echo,
    /// The client's bytes are dropped, and pushes come from outside.
    Hold,
}

/// Who ends a connection, how, and not before when (in microseconds).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The client closes its direction after its last byte.
    ClientFin(u64),
    /// The client aborts.
    ClientReset(u64),
    /// The shard is told to close by FIN.
    ServerFin(u64),
    /// The shard is told to close by RST.
    ServerReset(u64),
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub struct ConnectionParameters {
    /// Echo or hold.
    pub workload: Workload,
    /// When the client connects, in microseconds.
    pub start_us: u64,
    /// Whether it takes the port of the client's connection before it, as soon as that has left it.
    pub is_successor: bool,
    /// How much the client sends, its first byte (which names the connection) included.
    pub send_bytes: u64,
    /// How much it writes at once, and how long it then waits (microseconds).
    pub write: (usize, u64),
    /// How much it reads at once, and how long it then waits (microseconds).
    pub read: (usize, u64),
    /// Receive and send buffer of its TCP, in bytes.
    pub buffers_bytes: (usize, usize),
    /// Whether its TCP gathers small writes (Nagle).
    pub is_nagle: bool,
    /// Whether its TCP delays acknowledgments.
    pub is_ack_delayed: bool,
    /// Whether its TCP offers timestamps.
    pub is_timestamped: bool,
    /// Interval of its keepalives, in milliseconds.
    pub keepalive_ms: Option<u64>,
    /// How many bytes the service takes of what the client holds until it is offered the rest, and how often it is
    /// (microseconds); without, it takes all at once.
    pub appetite: Option<(u64, u64)>,
    /// The pushes: when (microseconds) and how many bytes.
    pub pushes: Vec<(u64, usize)>,
    /// How it ends.
    pub ending: Ending,
}

impl Parameters {
    /// Draws a world.
    pub fn draw(seed: u64, profile: Profile) -> Parameters {
        let mut dice = Dice(Xoshiro256PlusPlus::seed_from_u64(seed));
        let heal_at_us = dice.scaled(1_000_000, 300_000_000);
        let is_lossy = profile == Profile::Lossy || (profile.is_mixed() && dice.chance(70));
        let is_tight = profile == Profile::Tight || (profile == Profile::Mixed && dice.chance(20));
        let is_deadly = profile == Profile::Kills || (profile.is_mixed() && dice.chance(70));
        Parameters {
            seed,
            profile,
            heal_at_us,
            network: draw_network(&mut dice, is_lossy, heal_at_us),
            node: draw_node(&mut dice, is_lossy, is_tight),
            kills: if is_deadly { draw_kills(&mut dice, heal_at_us) } else { Vec::new() },
            clients: draw_clients(&mut dice, is_lossy, is_tight, heal_at_us),
        }
    }

    /// How many connections all clients have together.
    pub fn connection_count(&self) -> usize {
        self.clients.iter().map(|client| client.connections.len()).sum()
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} profile {} heal_at_us {}", self.seed, self.profile, self.heal_at_us)?;
        writeln!(f, "{:?}", self.network)?;
        writeln!(f, "{:?}", self.node)?;
        for kill in &self.kills {
            writeln!(f, "{kill:?}")?;
        }
        let mut number = 0;
        for (index, client) in self.clients.iter().enumerate() {
            let ClientParameters { mtu, isn_seed, unplugged_us, connections } = client;
            writeln!(f, "client {index}: mtu {mtu} isn_seed {isn_seed} unplugged_us {unplugged_us:?}")?;
            for connection in connections {
                writeln!(f, "  connection {number}: {connection:?}")?;
                number += 1;
            }
        }
        Ok(())
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
    let mut rate = |percent, max| if is_lossy && dice.chance(percent) { dice.scaled(1, max) as u32 } else { 0 };
    NetworkParameters {
        loss: rate(80, 2_000),
        duplication: rate(60, 2_000),
        reordering: rate(60, 3_000),
        corruption: rate(60, 1_000),
        delay_us: (delay_us_min, delay_us_min + dice.scaled(1, delay_us_min)),
        held_back_us_max: dice.scaled(10, 400_000),
        is_padded: dice.chance(50),
        partitions_us,
    }
}

fn draw_node(dice: &mut Dice, is_lossy: bool, is_tight: bool) -> NodeParameters {
    let capacity = if is_tight {
        (dice.scaled(1, 16) as u32, dice.scaled(16, 1_024) as u32, dice.scaled(16, 512) as u32)
    } else {
        (64, 32_768, 8_192)
    };
    NodeParameters {
        capacity,
        is_tight,
        mtu: dice.within(576, 1500) as u16,
        window_bytes: dice.scaled(4_096, 262_144) as u32,
        send_queue_bytes: dice.scaled(4_096, 262_144) as u32,
        time_wait_s: dice.within(1, 60) as u32,
        gather_us: if dice.chance(50) { dice.scaled(1, 3_000) } else { 0 },
        link_full: if is_lossy && dice.chance(40) { dice.scaled(10, 3_000) as u32 } else { 0 },
    }
}

fn draw_kills(dice: &mut Dice, heal_at_us: u64) -> Vec<KillParameters> {
    let points: Vec<CommitPoint> = CommitPoint::iter().collect();
    let mut kills: Vec<KillParameters> = (0..dice.within(1, 8))
        .map(|_| KillParameters {
            from_us: dice.scaled(1, heal_at_us),
            at: dice.chance(85).then(|| (points[dice.below(points.len())], dice.scaled(1, 60) as u32)),
            downtime_us: dice.scaled(1_000, 8_000_000),
        })
        .collect();
    kills.sort_by_key(|kill| kill.from_us);
    kills
}

fn draw_clients(dice: &mut Dice, is_lossy: bool, is_tight: bool, heal_at_us: u64) -> Vec<ClientParameters> {
    (0..dice.within(1, 6))
        .map(|_| {
            let mtu = dice.within(576, 1500) as u16;
            let isn_seed = dice.within(0, u64::MAX);
            let unplugged_us = dice.chance(if is_lossy { 20 } else { 5 }).then(|| {
                let from_us = dice.within(0, heal_at_us);
                // Who is gone for good may hold what is scarce for as long as the user timeout.
                (from_us, (is_tight || dice.chance(60)).then(|| from_us + dice.scaled(1_000, 15_000_000)))
            });
            let connections = (0..dice.within(1, 3)).map(|_| draw_connection(dice, heal_at_us)).collect();
            ClientParameters { mtu, isn_seed, unplugged_us, connections }
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
        keepalive_ms: dice.chance(20).then(|| dice.scaled(100, 30_000)),
        appetite: (workload == Workload::Hold && dice.chance(40))
            .then(|| (dice.scaled(1, 20_000).max(send_bytes / 50), dice.scaled(1_000, 2_000_000))),
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
    fn only_calm_worlds_are_without_trouble() {
        for seed in 0..50 {
            let calm = Parameters::draw(seed, Profile::Calm);
            assert!(calm.kills.is_empty() && calm.network.loss == 0 && calm.network.corruption == 0);
            assert!(!Parameters::draw(seed, Profile::Kills).kills.is_empty());
        }
    }
}
