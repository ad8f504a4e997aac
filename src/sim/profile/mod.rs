//! What a world is made of: every parameter, drawn from the seed before the world begins.
//!
//! A seed and a profile come in, [`Parameters`] go out; their `Display` is what is printed for a world that failed.
//! Probabilities are counted in ten-thousandths, times in microseconds of simulated time.
//!
//! `draw` draws them.
//!
//! Invariant: the same seed and profile give the same parameters, and nothing is drawn elsewhere that is not derived
//! from the seed written here.

use std::fmt;

use strum::IntoStaticStr;

use crate::shard::CommitPoint;

mod draw;

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
    /// How often a frame to the node is lost, and one to a client.
    pub loss: (u32, u32),
    /// How often a row of frames to one machine begins to be lost.
    pub bursts: u32,
    /// How many frames are lost in such a row at most.
    pub burst_frames_max: u32,
    /// How often a frame arrives twice.
    pub duplication: u32,
    /// How often a frame is held back, so that later ones overtake it.
    pub reordering: u32,
    /// How long it is held back at most, in microseconds.
    pub held_back_us_max: u64,
    /// How often a frame waits until later ones to the same machine have overtaken it.
    pub overtaking: u32,
    /// For how many it waits at most.
    pub overtaking_frames_max: u32,
    /// How often one bit of a frame's IP packet is flipped.
    pub corruption: u32,
    /// Whether frames are padded to 60 bytes, as on a wire.
    pub is_padded: bool,
    /// When no frame gets through at all: from, until, in microseconds.
    pub partitions_us: Vec<(u64, u64)>,
    /// When only IP packets of so many bytes get through: from, until, in microseconds, and the bytes; over IPv6, 1,280
    /// do at least. Nobody is told: what is larger vanishes.
    pub narrow_us: Vec<(u64, u64, u16)>,
}

/// What a middlebox does each way.
#[derive(Clone, Debug)]
pub struct MiddleboxParameters {
    /// To what clients send.
    pub to_node: Treatment,
    /// To what the node sends.
    pub to_client: Treatment,
}

/// What a middlebox does to segments of one direction.
#[derive(Clone, Debug, Default)]
pub struct Treatment {
    /// The kinds of options that it takes out of all segments.
    pub strips: Vec<u8>,
    /// When it takes timestamps out of segments that are no SYN: from, until, in microseconds.
    pub no_timestamps_us: Option<(u64, u64)>,
    /// The largest MSS that it lets SYNs name, in bytes.
    pub mss_max: Option<u16>,
    /// Of so many ACKs without anything else one passes; of 0, all do.
    pub passes_one_ack_of: u32,
    /// How long an ACK without anything else waits for a later one that takes its place, in microseconds.
    pub ack_wait_us: u64,
    /// What becomes of the bits of congestion notification.
    pub ecn: EcnTreatment,
}

/// What a middlebox does about explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EcnTreatment {
    /// Nothing.
    #[default]
    Passes,
    /// It clears the bits in IP and TCP headers.
    Clears,
    /// It drops segments that have any.
    Drops,
    /// It is a queue that marks what may be marked, until all faults end: the first of so many.
    Marks(u32),
}

/// How the machine under test is set up.
#[derive(Clone, Debug)]
pub struct NodeParameters {
    /// Whether it has an address of IPv6 beside that of IPv4, and clients of either family.
    pub is_dual: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Largest receive window, in bytes.
    pub window_bytes: u32,
    /// Most bytes in a flow's send queue.
    pub send_queue_bytes: u32,
    /// For how many connections there is room.
    pub flows_max: u32,
    /// How many active blocks, spans and payload blocks there are. Of repair blocks there are a quarter as many as of
    /// active blocks.
    pub capacity: (u32, u32, u32),
    /// Whether that is less than what everybody may ask for at once.
    pub is_tight: bool,
    /// Silence after which a client is probed, in seconds; 0 for never.
    pub keepalive_s: u32,
    /// Length of TIME-WAIT, in seconds.
    pub time_wait_s: u32,
    /// For how long arriving frames are gathered before the shard is called, in microseconds.
    pub gather_us: u64,
    /// How often the link is full after a few frames, in ten-thousandths of the calls.
    pub link_full: u32,
    /// How many received frames wait for the shard at most.
    pub ring_frames: usize,
    /// What its clock shows when the world begins.
    pub clock_from: ClockFrom,
    /// When its clock stands still, to leap at the end: from, until, in microseconds.
    pub clock_stops_us: Vec<(u64, u64)>,
    /// When it does nothing at all: from, until, in microseconds.
    pub pauses_us: Vec<(u64, u64)>,
    /// By how much it is called later than it asked for at most, in microseconds.
    pub tick_late_us_max: u64,
}

/// What the node's clock shows when the world begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockFrom {
    /// So many microseconds.
    At(u64),
    /// Whatever makes the node's initial sequence number of this connection so many before the wrap, if the connection
    /// begins when it wants to.
    Wrap {
        /// The connection's number.
        connection: usize,
        /// How far before.
        before: u32,
    },
}

/// One death of the shard.
#[derive(Clone, Debug)]
pub struct KillParameters {
    /// Not before this time, in microseconds.
    pub from_us: u64,
    /// Where in a commit after that; without it, between two calls.
    pub at: Option<Strike>,
    /// How often it dies in the same way again, each time as soon as it has started.
    pub repeats: u32,
    /// How long the machine is down, in microseconds.
    pub downtime_us: u64,
}

/// Whose TCP a client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// smoltcp's.
    Smoltcp,
    /// Ours, by its active open.
    Own,
}

/// A place in a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strike {
    /// The commit point.
    pub point: CommitPoint,
    /// At the how-manieth offer of it.
    pub offers: u32,
    /// Counting only the calls for this.
    pub during: Option<Operation>,
}

/// What a shard is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::EnumCount, strum::EnumIter)]
pub enum Operation {
    /// Frames have come.
    Receive,
    /// Time has passed.
    Tick,
    /// Pushes.
    Push,
    /// A close, or an abort.
    Close,
    /// The service is offered bytes again.
    Offer,
    /// It starts, and tells the service of every connection.
    Resume,
}

/// One client machine.
#[derive(Clone, Debug)]
pub struct ClientParameters {
    /// Its TCP.
    pub stack: Stack,
    /// Whether it speaks IPv6, or else IPv4.
    pub is_ipv6: bool,
    /// Whether it asks for explicit congestion notification, where it can.
    pub is_asking_ecn: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// What its TCP draws its initial sequence numbers from.
    pub isn_seed: u64,
    /// When its cable is pulled, and when put back, if it ever is; in microseconds.
    pub unplugged_us: Option<(u64, Option<u64>)>,
    /// What stands between it and the network.
    pub middlebox: Option<MiddleboxParameters>,
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
    /// How far before the wrap its initial sequence number is, if it is to be there.
    pub isn_before_wrap: Option<u32>,
    /// Interval of its keepalives, in milliseconds.
    pub keepalive_ms: Option<u64>,
    /// How many bytes the service takes of what the client holds until it is offered the rest, and how often it is
    /// (microseconds); without, it takes all at once.
    pub appetite: Option<(u64, u64)>,
    /// Whether it is paused until then, so that it is not even asked.
    pub is_paused: bool,
    /// The pushes: when (microseconds) and how many bytes.
    pub pushes: Vec<(u64, usize)>,
    /// How it ends.
    pub ending: Ending,
}

impl ConnectionParameters {
    /// Whether the client closes its direction as soon as it has written all: where it holds, not before a time.
    pub(super) fn is_client_to_close(&self, now_us: u64) -> bool {
        match (self.ending, self.workload) {
            (Ending::ClientFin(_), Workload::Echo) => true,
            (Ending::ClientFin(at_us), Workload::Hold) => now_us >= at_us,
            (Ending::ClientReset(_) | Ending::ServerFin(_) | Ending::ServerReset(_), _) => false,
        }
    }
}

impl Parameters {
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
            let ClientParameters { stack, is_ipv6, is_asking_ecn, mtu, isn_seed, .. } = client;
            let ClientParameters { unplugged_us, middlebox, connections, .. } = client;
            write!(f, "client {index}: {stack:?} is_ipv6 {is_ipv6} is_asking_ecn {is_asking_ecn} mtu {mtu} ")?;
            writeln!(f, "isn_seed {isn_seed} unplugged_us {unplugged_us:?}")?;
            if let Some(middlebox) = middlebox {
                writeln!(f, "  {middlebox:?}")?;
            }
            for connection in connections {
                writeln!(f, "  connection {number}: {connection:?}")?;
                number += 1;
            }
        }
        Ok(())
    }
}
