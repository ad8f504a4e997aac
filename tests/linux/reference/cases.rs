//! Cases: one connection for each state, segment and position, and what is malformed.

use super::conversation::{Case, Step};
use super::crafted::{ACK, Ack, FIN, PSH, RST, SYN, Segment, Seq, URG};
use super::malformed;
use super::stack::{PORT, PORT_CLOSED, PORT_SMALL};

/// The maximum segment size that the client offers.
pub const MSS_OPTION: &[u8] = &[2, 4, 5, 0xb4];
/// The same with window scaling.
pub const SCALED_OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7];

/// A state that a server's connection can be in, with the way there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Closed,
    Listen,
    SynReceived,
    Established,
    /// ESTABLISHED with window scaling.
    Scaled,
    /// ESTABLISHED with bytes of the server's in flight.
    Sending,
    /// ESTABLISHED with a receive window that is closed.
    Full,
    CloseWait,
    FinWait1,
    FinWait2,
    Closing,
    LastAck,
    TimeWait,
    /// The same where nobody is there to read any more.
    FinWait1Orphan,
    FinWait2Orphan,
    ClosingOrphan,
    LastAckOrphan,
}

pub const STARTS: &[Start] = &[
    Start::Closed,
    Start::Listen,
    Start::SynReceived,
    Start::Established,
    Start::Scaled,
    Start::Sending,
    Start::Full,
    Start::CloseWait,
    Start::FinWait1,
    Start::FinWait2,
    Start::Closing,
    Start::LastAck,
    Start::TimeWait,
    Start::FinWait1Orphan,
    Start::FinWait2Orphan,
    Start::ClosingOrphan,
    Start::LastAckOrphan,
];

pub fn syn(options: &[u8]) -> Step {
    Step::Send(Segment::new(SYN, Seq::Start(0), None).options(options))
}

pub fn ack() -> Step {
    Step::Send(Segment::new(ACK, Seq::Next(0), Some(Ack::Next(0))))
}

fn fin(ack: Ack) -> Step {
    Step::Send(Segment::new(FIN, Seq::Next(0), Some(ack)))
}

impl Start {
    pub fn server_port(self) -> u16 {
        match self {
            Start::Closed => PORT_CLOSED,
            Start::Full => PORT_SMALL,
            _ => PORT,
        }
    }

    /// The way there.
    pub fn steps(self) -> Vec<Step> {
        let opened = [syn(MSS_OPTION), ack()];
        let further = match self {
            Start::Closed | Start::Listen => return Vec::new(),
            Start::SynReceived => return vec![syn(MSS_OPTION)],
            Start::Scaled => return vec![syn(SCALED_OPTIONS), ack()],
            Start::Established => vec![],
            Start::Sending => vec![Step::Push(1_000)],
            Start::Full => vec![Step::Fill],
            Start::CloseWait => vec![fin(Ack::Next(0))],
            Start::FinWait1 => vec![Step::Close],
            Start::FinWait2 => vec![Step::Close, ack()],
            Start::Closing => vec![Step::Close, fin(Ack::Una(0))],
            Start::LastAck => vec![fin(Ack::Next(0)), Step::Close],
            Start::TimeWait => vec![Step::Close, ack(), fin(Ack::Next(0))],
            Start::FinWait1Orphan => vec![Step::CloseBoth],
            Start::FinWait2Orphan => vec![Step::CloseBoth, ack()],
            Start::ClosingOrphan => vec![Step::CloseBoth, fin(Ack::Una(0))],
            Start::LastAckOrphan => vec![fin(Ack::Next(0)), Step::CloseBoth],
        };
        [&opened[..], &further].concat()
    }

    /// The case that begins here and goes on with `segment`.
    pub fn case(self, index: usize, segment: Segment) -> Case {
        // At the wrap of the client's sequence numbers, at the change of their sign, and in between.
        let start = [0xffff_fff0, 0x7fff_fffa, 1_000_000][index % 3];
        let steps = [&self.steps()[..], &[Step::Send(segment)]].concat();
        Case { name: format!("{self:?}"), server_port: self.server_port(), start, steps }
    }
}

/// Kinds of segments: control bits beside ACK, payload bytes, whether they carry an acknowledgment.
pub const KINDS: &[(u8, u16, bool)] = &[
    (0, 0, true),
    (0, 10, true),
    (PSH | URG, 10, true),
    (FIN, 0, true),
    (FIN, 10, true),
    (RST, 0, true),
    (SYN, 0, true),
    (FIN | PSH | URG, 0, true),
    (RST, 0, false),
    (RST, 10, false),
    (SYN, 0, false),
    (SYN, 10, false),
    (SYN | FIN, 0, false),
    (SYN | RST, 0, false),
    (0, 0, false),
    (0, 10, false),
    (FIN, 0, false),
    (URG, 10, false),
    (FIN | PSH | URG, 0, false),
];

/// From far left of the window to far right of it, for a segment of this length.
fn positions(length: i32) -> Vec<Seq> {
    let mut positions = vec![
        Seq::Next(-2_000_000_000),
        Seq::Next(-100_000),
        Seq::Next(-1 - length),
        Seq::Next(-length.max(1)),
        Seq::Next(0),
        Seq::Next(1),
        Seq::Next(1_000),
        Seq::Edge(-length.max(1)),
        Seq::Edge(0),
        Seq::Edge(1),
        Seq::Edge(100_000),
    ];
    if length > 1 {
        positions.extend([Seq::Next(-1), Seq::Next(1 - length), Seq::Edge(-1), Seq::Edge(1 - length)]);
    }
    positions
}

/// From far too old to far too new.
const ACKS: &[Ack] =
    &[Ack::Una(-200_000), Ack::Una(-1), Ack::Una(0), Ack::Una(1), Ack::Next(0), Ack::Next(1), Ack::Next(1_000_000_000)];

fn segments(control: u8, payload_bytes: u16, has_ack: bool) -> Vec<Segment> {
    let plain = Segment::new(control, Seq::Next(0), None).payload(payload_bytes);
    let urgent = if plain.has(URG) { payload_bytes } else { 0 };
    let mut segments = Vec::new();
    for seq in positions(plain.length() as i32) {
        let placed = |ack| Segment { urgent, ..Segment::new(control, seq, ack).payload(payload_bytes) };
        match has_ack {
            true => segments.extend(ACKS.iter().map(|ack| placed(Some(*ack)))),
            false => segments.push(placed(None)),
        }
    }
    segments
}

/// Every state x kind x position x acknowledgment.
pub fn sound() -> Vec<Case> {
    let mut cases = Vec::new();
    for start in STARTS {
        for &(control, payload_bytes, has_ack) in KINDS {
            for segment in segments(control, payload_bytes, has_ack) {
                // Without a connection there is no window.
                let is_idle = matches!(start, Start::Closed | Start::Listen);
                if !is_idle || segment.seq == Seq::Next(0) {
                    cases.push(start.case(cases.len(), segment));
                }
            }
        }
    }
    cases
}

/// The states in which timestamps are looked at.
const STAMPED: &[Start] = &[
    Start::SynReceived,
    Start::Established,
    Start::Sending,
    Start::CloseWait,
    Start::FinWait1,
    Start::FinWait2,
    Start::Closing,
    Start::LastAck,
    Start::TimeWait,
];

/// Timestamps from too old to newer than the latest; none.
const STAMPS: &[Option<i32>] = &[None, Some(-0x4000_0000), Some(-10), Some(0), Some(1), Some(0x4000_0000)];

/// Connections that have agreed on timestamps: every state x kind x timestamp, at the places that matter.
pub fn stamped() -> Vec<Case> {
    let mut cases = Vec::new();
    for start in STAMPED {
        for &(control, payload_bytes, has_ack) in KINDS {
            for seq in [Seq::Next(-1), Seq::Next(0), Seq::Next(5), Seq::Edge(7)] {
                for stamp in STAMPS {
                    let ack = has_ack.then_some(Ack::Next(0));
                    let segment = Segment { stamp: *stamp, ..Segment::new(control, seq, ack).payload(payload_bytes) };
                    let mut case = start.case(cases.len(), segment);
                    case.name = format!("{start:?} with timestamps");
                    let last = case.steps.len() - 1;
                    case.steps[..last].iter_mut().for_each(Step::stamp);
                    cases.push(case);
                }
            }
        }
    }
    cases
}

/// Every state x what may be wrong with a packet, or unusual about it.
pub fn damaged() -> Vec<Case> {
    let mut cases = Vec::new();
    for start in STARTS {
        let next = Some(Ack::Next(0));
        let good = match start {
            Start::Listen => Segment::new(SYN, Seq::Start(0), None).options(MSS_OPTION),
            _ => Segment::new(PSH, Seq::Next(0), next).payload(12),
        };
        for segment in [good, Segment::new(RST, Seq::Next(0), None)] {
            for damage in malformed::damages() {
                let damaged = damage.into_iter().fold(segment.clone(), Segment::damaged);
                cases.push(start.case(cases.len(), damaged));
            }
        }
        for options in malformed::options() {
            let segment = Segment::new(PSH, Seq::Next(0), next).payload(12).options(&options);
            cases.push(start.case(cases.len(), segment));
        }
    }
    for options in malformed::options() {
        let data = Step::Send(Segment::new(PSH, Seq::Next(0), Some(Ack::Next(0))).payload(12));
        let steps = vec![syn(&options), ack(), data];
        cases.push(Case { name: "options of a SYN".to_owned(), server_port: PORT, start: 7, steps });
    }
    cases
}
