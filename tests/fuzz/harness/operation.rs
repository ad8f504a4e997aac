//! Operations: what may be done to a shard, read off bytes by a small grammar.
//!
//! ```text
//! input      = profile start end operation*
//! operation  = kind operand*          each a byte or two; whatever a byte is, it means something
//! ```

use holdline::shard::CommitPoint;

use super::application::Behaviour;
use super::frame::SACK_BLOCKS_MAX;
use super::input::Input;

/// How many peers there are.
pub const PEERS: usize = 8;

/// Where a sequence number is aimed: near which number of the connection, and how far beside it.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub near: u8,
    pub beside: i64,
}

/// A SACK block of what the stack has in flight.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// So many of its segments, behind so many others.
    Segments { skip: u8, count: u8 },
    /// So many eighths of it, behind so many others.
    Eighths { skip: u8, count: u8 },
    /// So many segments, so many to the left of what is acknowledged.
    Duplicate { back: u8, count: u8 },
    /// Something that cannot be.
    Wrong { kind: u8, beside: u8 },
}

/// A segment that is put together freely.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub peer: u8,
    /// It goes in with the next one, in one batch.
    pub is_held: bool,
    pub has_other_mac: bool,
    pub control: u8,
    /// It has ECE and CWR, and its payload was marked on its way.
    pub is_marked: bool,
    pub options: u8,
    pub seq: Aim,
    pub ack: Aim,
    pub bytes: u16,
    pub window: u16,
}

/// Which connection a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub peer: u8,
    /// 0 for the one that is open, others for ids that are over, or never were.
    pub kind: u8,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Any segment at all.
    Shoot(Shot),
    /// A peer connects: SYN, and the ACK that completes the handshake.
    Connect {
        peer: u8,
        options: u8,
        window: u16,
    },
    /// A peer sends what is next, and acknowledges everything.
    Say {
        peer: u8,
        bytes: u16,
        window: u16,
    },
    /// A peer acknowledges everything.
    Acknowledge {
        peer: u8,
        window: u16,
    },
    /// A peer acknowledges up to somewhere, and selectively what lies beyond a gap.
    Select {
        peer: u8,
        ack: Aim,
        /// How many blocks there are.
        count: u8,
        blocks: [Block; SACK_BLOCKS_MAX],
        window: u16,
    },
    /// A peer sends what lies beyond a gap.
    Skip {
        peer: u8,
        is_held: bool,
        has_fin: bool,
        /// It acknowledges everything, and not only what it has acknowledged before.
        has_ack: bool,
        gap_bytes: u16,
        bytes: u16,
        window: u16,
    },
    /// A peer closes.
    Finish {
        peer: u8,
    },
    /// A push; `key` 0 for none.
    Push {
        target: Target,
        bytes: u16,
        expires_in_s: u32,
        key: u8,
        is_urgent: bool,
    },
    /// Pushes to several in one batch, twice to the first.
    PushAll {
        bytes: u16,
    },
    /// A broadcast.
    Broadcast {
        bytes: u16,
        pace_per_s: u32,
        expires_in_s: u32,
        prefix: u8,
    },
    /// A broadcast is cancelled.
    Cancel {
        job: u8,
    },
    /// The clock moves, then the shard is ticked once.
    Jump {
        ms: u32,
    },
    /// The shard is ticked at each of its deadlines until then.
    Walk {
        ms: u32,
    },
    /// The stack connects to a peer: from the ports that the peer knows, or from any.
    Call {
        peer: u8,
        has_any_port: bool,
        is_silent: bool,
    },
    /// The peer that was called last answers, or calls itself.
    Answer {
        is_simultaneous: bool,
        options: u8,
    },
    /// FIN.
    Close(Target),
    /// FIN, and reading goes on.
    CloseHalf(Target),
    /// RST.
    Abort(Target),
    Pause(Target),
    Resume(Target),
    Offer(Target),
    /// The application changes its ways.
    Behave(Behaviour),
    /// The process is killed and the next one goes on.
    Die,
    /// The same within the next operation.
    DieWithin {
        point: CommitPoint,
        commit: u8,
    },
    /// New connections are refused from now on.
    Drain,
    /// An ICMP error about something that the stack has sent.
    Trouble {
        peer: u8,
        kind: u8,
        code: u8,
        /// What it says of the next link.
        mtu: u16,
        ack: Aim,
    },
    /// A frame that is no good segment.
    Junk {
        peer: u8,
        kind: u8,
        byte: u8,
    },
}

const LENGTHS: [u16; 16] = [0, 1, 2, 3, 8, 64, 100, 260, 535, 536, 1_000, 1_460, 2_047, 2_049, 4_000, 7_000];
const WINDOWS: [u16; 16] = [65_535, 0, 1, 2, 63, 64, 100, 500, 536, 1_000, 1_460, 2_920, 8_192, 20_000, 32_768, 65_534];
const MTUS: [u16; 16] =
    [0, 68, 551, 552, 576, 800, 1_000, 1_279, 1_280, 1_300, 1_320, 1_400, 1_499, 1_500, 9_000, 65_535];
const TIMES_MS: [u32; 16] =
    [0, 1, 4, 40, 200, 201, 500, 999, 1_000, 1_500, 3_000, 5_000, 10_000, 21_000, 61_000, 120_000];
const BESIDE: [i64; 16] =
    [0, 1, -1, 2, -2, 10, -10, 100, 536, -536, 1_460, -65_536, 1 << 20, 1 << 30, -(1 << 30), 1 << 31];
const SECONDS: [u32; 4] = [0, 1, 5, 60];
const BEHAVIOURS: [Behaviour; 14] = [
    Behaviour::Hold,
    Behaviour::Keep,
    Behaviour::Stall,
    Behaviour::Half,
    Behaviour::Answer,
    Behaviour::Pump,
    Behaviour::CloseOnData,
    Behaviour::AbortOnData,
    Behaviour::AbortOnOpen,
    Behaviour::Attach,
    Behaviour::Meddle,
    Behaviour::Tune,
    Behaviour::Shout,
    Behaviour::HalfClose,
];
const POINTS: [CommitPoint; 5] = [
    CommitPoint::BeforeRecord,
    CommitPoint::WithinRecord,
    CommitPoint::BeforeApply,
    CommitPoint::WithinApply,
    CommitPoint::BeforeGate,
];

impl Aim {
    fn read(input: &mut Input<'_>) -> Aim {
        let byte = input.byte();
        match byte & 7 {
            7 => Aim { near: 7, beside: i64::from(input.long()) },
            near => Aim { near, beside: BESIDE[usize::from(byte >> 4)] },
        }
    }
}

impl Target {
    fn read(input: &mut Input<'_>) -> Target {
        let byte = input.byte();
        let kind = if byte >> 4 >= 12 { byte >> 4 & 3 } else { 0 };
        Target { peer: byte & 7, kind }
    }
}

/// A length of payload, seldom a large one.
fn read_length(input: &mut Input<'_>) -> u16 {
    match input.byte() {
        byte @ 0..=127 => LENGTHS[usize::from(byte & 15)],
        byte => u16::from(byte & 127),
    }
}

impl Block {
    fn read(input: &mut Input<'_>) -> Block {
        let byte = input.byte();
        let (low, high) = (byte & 7, byte >> 3 & 7);
        match byte >> 6 {
            0 => Block::Segments { skip: low, count: high + 1 },
            1 => Block::Eighths { skip: low, count: high + 1 },
            2 => Block::Duplicate { back: low + 1, count: high + 1 },
            _ => Block::Wrong { kind: low, beside: high },
        }
    }
}

fn read_select(input: &mut Input<'_>) -> Operation {
    let byte = input.byte();
    let (count, ack) = (1 + (byte >> 3 & 3), Aim::read(input));
    let mut blocks = [Block::Segments { skip: 0, count: 0 }; SACK_BLOCKS_MAX];
    blocks[..usize::from(count)].fill_with(|| Block::read(input));
    Operation::Select { peer: byte & 7, ack, count, blocks, window: input.one_of(&WINDOWS) }
}

fn read_skip(input: &mut Input<'_>) -> Operation {
    let byte = input.byte();
    Operation::Skip {
        peer: byte & 7,
        is_held: byte & 0x80 != 0,
        has_fin: byte & 0x40 != 0,
        has_ack: byte & 0x20 == 0,
        gap_bytes: read_length(input),
        bytes: read_length(input),
        window: input.one_of(&WINDOWS),
    }
}

fn read_shot(input: &mut Input<'_>) -> Shot {
    let byte = input.byte();
    let flags = input.byte();
    Shot {
        peer: byte & 7,
        is_held: byte & 0x80 != 0,
        has_other_mac: byte & 0x40 != 0,
        control: flags & 0x3f,
        is_marked: byte & 0x08 != 0,
        options: flags >> 6 | (byte & 0x30) >> 2,
        seq: Aim::read(input),
        ack: Aim::read(input),
        bytes: read_length(input),
        window: input.one_of(&WINDOWS),
    }
}

impl Operation {
    /// The next operation; `None` at the end of the input.
    pub fn read(input: &mut Input<'_>) -> Option<Operation> {
        if input.is_empty() {
            return None;
        }
        let kind = input.byte();
        Some(match kind % 32 {
            0..=5 => Operation::Shoot(read_shot(input)),
            6 | 7 => {
                let byte = input.byte();
                Operation::Connect { peer: byte & 7, options: byte >> 3, window: input.one_of(&WINDOWS) }
            }
            8 | 9 => {
                Operation::Say { peer: input.byte() & 7, bytes: read_length(input), window: input.one_of(&WINDOWS) }
            }
            10 | 11 => Operation::Acknowledge { peer: input.byte() & 7, window: input.one_of(&WINDOWS) },
            12 => Operation::Finish { peer: input.byte() & 7 },
            13 | 14 => {
                let (target, bytes) = (Target::read(input), read_length(input));
                let byte = input.byte();
                let expires_in_s = SECONDS[usize::from(byte & 3)];
                let key = if byte & 0x80 == 0 { 0 } else { byte >> 2 & 7 };
                Operation::Push { target, bytes, expires_in_s, key, is_urgent: byte & 0x40 != 0 }
            }
            15 => Operation::PushAll { bytes: read_length(input) },
            16 => {
                let bytes = read_length(input);
                let byte = input.byte();
                let pace_per_s = [0, 1, 100, 10_000][usize::from(byte >> 2 & 3)];
                let expires_in_s = SECONDS[usize::from(byte & 3)];
                Operation::Broadcast { bytes, pace_per_s, expires_in_s, prefix: byte >> 4 }
            }
            17 => Operation::Cancel { job: input.byte() },
            18..=20 => Operation::Jump { ms: input.one_of(&TIMES_MS) },
            21 => Operation::Walk { ms: input.one_of(&TIMES_MS) },
            22 => Operation::Close(Target::read(input)),
            23 => Operation::Abort(Target::read(input)),
            24 => Operation::Pause(Target::read(input)),
            25 => Operation::Resume(Target::read(input)),
            26 => Operation::Offer(Target::read(input)),
            27 => Operation::Behave(input.one_of(&BEHAVIOURS)),
            28 => Operation::Die,
            29 => {
                let byte = input.byte();
                Operation::DieWithin { point: POINTS[usize::from(byte & 15) % POINTS.len()], commit: 1 + (byte >> 6) }
            }
            30 if kind < 64 => Operation::Drain,
            30 if kind < 128 => Operation::CloseHalf(Target::read(input)),
            30 if kind < 192 => read_select(input),
            30 => read_skip(input),
            31 if kind < 64 => {
                let byte = input.byte();
                Operation::Call { peer: byte & 7, has_any_port: byte & 8 != 0, is_silent: byte & 16 != 0 }
            }
            31 if kind < 128 => Operation::Answer { is_simultaneous: kind & 32 == 0, options: input.byte() },
            31 if kind < 192 => {
                let (peer, byte, code) = (input.byte() & 7, input.byte(), input.byte() & 15);
                let (kind, mtu) = ([3, 11, 12, 4][usize::from(byte & 3)], MTUS[usize::from(byte >> 2 & 15)]);
                Operation::Trouble { peer, kind, code, mtu, ack: Aim::read(input) }
            }
            _ => Operation::Junk { peer: input.byte() & 7, kind: input.byte(), byte: input.byte() },
        })
    }
}
