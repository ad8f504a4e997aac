//! What is told of a world: the figures, the breach if there was one, and how to see it again.

use std::fmt;

use strum::{EnumCount, IntoEnumIterator};

use crate::shard::{CloseReason, CommitPoint, FlowId, PushError, Rule, Stats};

use super::fault::{Fault, Faults};
use super::invariants::Invariant;
use super::profile::{Operation, Parameters};

/// What must not happen in a world. Connections go by their number among the printed parameters.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of each variant says what it and its fields are")]
pub enum Breach {
    #[error("connection {connection}: byte {offset} that the service received is not the one that the client sent")]
    WrongBytesReceived { connection: usize, offset: u64 },
    #[error("connection {connection}: byte {offset} that the client received is not the one that was sent to it")]
    WrongBytesDelivered { connection: usize, offset: u64 },
    #[error("connection {connection}: the service was told of the end after {consumed} of {written} bytes")]
    StreamCutShort { connection: usize, consumed: u64, written: u64 },
    #[error("connection {connection}: it ended in order, but the service was not given all {written} bytes")]
    StreamUnread { connection: usize, written: u64 },
    #[error("connection {connection}: the client saw the end after {received} bytes, which is no complete stream")]
    EndTooEarly { connection: usize, received: u64 },
    #[error("connection {connection}: the client saw an end that nobody had asked for")]
    EndUnasked { connection: usize },
    #[error("connection {connection}: the client was reset without a reason")]
    ResetUnasked { connection: usize },
    #[error("connection {connection}: was there before the kill and is not there after the restart")]
    Lost { connection: usize },
    #[error("connection {connection}: had the id {before} and has the id {after}")]
    IdChanged { connection: usize, before: FlowId, after: FlowId },
    #[error("connection {connection}: told as closed ({reason}) without a reason")]
    ClosedUnasked { connection: usize, reason: CloseReason },
    #[error("flow {flow}: a notice that no connection here can be the cause of")]
    NoticeOfUnknownFlow { flow: FlowId },
    #[error("flow {flow}: its service word was {word:?} when it opened or resumed")]
    WordNotClean { flow: FlowId, word: Option<u64> },
    #[error("connection {connection}: its name was not there after a restart, or could not be set")]
    NameLost { connection: usize },
    #[error("flow {flow}: a stream that begins with {tag:#04x}, as no client's does")]
    UnknownStream { flow: FlowId, tag: u8 },
    #[error("flow {flow}: the service was told of the delivery of no ticket")]
    ReceiptWithoutTicket { flow: FlowId },
    #[error("connection {connection}: ticket {ticket} was told as delivered, which was never committed")]
    ReceiptUnknown { connection: usize, ticket: u64 },
    #[error(
        "connection {connection}: ticket {ticket} was told as delivered when the client had {held} of {needed} bytes"
    )]
    ReceiptTooEarly { connection: usize, ticket: u64, held: u64, needed: u64 },
    #[error("connection {connection}: ticket {ticket} was told as delivered twice in one life")]
    ReceiptTwice { connection: usize, ticket: u64 },
    #[error("connection {connection}: ticket {ticket} was acknowledged and never told as delivered")]
    ReceiptMissing { connection: usize, ticket: u64 },
    #[error("connection {connection}: ticket {ticket} was refused ({error}) without a reason")]
    RefusedWithoutReason { connection: usize, ticket: u64, error: PushError },
    #[error("connection {connection}: ticket {ticket} was answered neither by Queued nor by Refused, or twice")]
    PushNotAnsweredOnce { connection: usize, ticket: u64 },
    #[error("the node sent a frame that is not well formed: {what}")]
    MalformedFrame { what: &'static str },
    #[error("connection {connection}: the node sent {what}")]
    WrongSegment { connection: usize, what: &'static str },
    #[error("{invariant:?} does not hold: {seen}")]
    Broken { invariant: Invariant, seen: String },
    #[error("the shard panicked: {message}")]
    Panicked { message: String },
    #[error("the shard did not start again: {message}")]
    NotStarted { message: String },
    #[error("the world stood still at {at_us} us: somebody asked to be called again and again without effect")]
    Spinning { at_us: u64 },
    #[error("connections {connections:?} had not finished {waited_s} s after all faults had ended")]
    NotFinished { connections: Vec<usize>, waited_s: u64 },
    #[error("after everything had ended the shard still held {stats:?}")]
    Leaked { stats: Stats },
}

/// What was counted in a world.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// Connections that were established.
    pub connections: u64,
    /// Those of them over IPv6.
    pub connections_ipv6: u64,
    /// Bytes that applications on either side received.
    pub bytes: u64,
    /// Pushes that were committed.
    pub pushes: u64,
    /// Pushes that were told as delivered.
    pub receipts: u64,
    /// Pushes that were refused for a good reason.
    pub refusals: u64,
    /// Frames given to the network, and their bytes.
    pub frames: u64,
    /// Bytes of those frames.
    pub frame_bytes: u64,
    /// How often each fault struck, in the order of `Fault`.
    pub faults: Faults,
    /// Connections whose sequence numbers wrapped: the node's, the clients'.
    pub wraps: [u64; 2],
    /// Kills between two calls.
    pub kills_between: u64,
    /// Kills in calls for each `Operation`, at each `CommitPoint`.
    pub kills_at: [[u64; 5]; Operation::COUNT],
    /// How often each `Rule` decided, on both sides.
    pub rules: Rules,
    /// Records that a restart found incomplete and discarded.
    pub records_discarded: u64,
    /// Records that a restart found complete and applied again.
    pub records_applied_again: u64,
    /// Times smoltcp had to be helped out of a stall of its own.
    pub rescues: u64,
    /// Lies that were told to the checkers.
    pub lies: u64,
}

impl Statistics {
    /// All kills.
    pub fn kills(&self) -> u64 {
        self.kills_between + self.kills_at.iter().flatten().sum::<u64>()
    }

    /// The rules that have never decided.
    pub fn rules_not_reached(&self) -> Vec<Rule> {
        Rule::iter().filter(|&rule| self.rules.0[rule as usize] == 0).collect()
    }

    /// Rules have decided so often.
    pub(super) fn add_rules(&mut self, rules: &[u64; Rule::COUNT]) {
        self.rules.0.iter_mut().zip(rules).for_each(|(sum, count)| *sum += count);
    }

    /// A fault has struck.
    pub(super) fn count(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    fn add(&mut self, other: &Statistics) {
        let Statistics { simulated_us, connections, bytes, pushes, receipts, refusals, frames, .. } = other;
        let Statistics { frame_bytes, faults, kills_between, kills_at, records_discarded, .. } = other;
        let Statistics { records_applied_again, rescues, lies, wraps, rules, connections_ipv6, .. } = other;
        self.add_rules(&rules.0);
        let sums = [
            (&mut self.simulated_us, simulated_us),
            (&mut self.connections, connections),
            (&mut self.connections_ipv6, connections_ipv6),
            (&mut self.bytes, bytes),
            (&mut self.pushes, pushes),
            (&mut self.receipts, receipts),
            (&mut self.refusals, refusals),
            (&mut self.frames, frames),
            (&mut self.frame_bytes, frame_bytes),
            (&mut self.kills_between, kills_between),
            (&mut self.records_discarded, records_discarded),
            (&mut self.records_applied_again, records_applied_again),
            (&mut self.rescues, rescues),
            (&mut self.lies, lies),
        ];
        let lists =
            self.faults.iter_mut().zip(faults).chain(self.kills_at.iter_mut().flatten().zip(kills_at.iter().flatten()));
        let lists = lists.chain(self.wraps.iter_mut().zip(wraps));
        for (sum, count) in sums.into_iter().chain(lists) {
            *sum += count;
        }
    }
}

/// How often each `Rule` decided, in their order.
#[derive(Clone, Debug)]
pub struct Rules(pub [u64; Rule::COUNT]);

impl Default for Rules {
    fn default() -> Rules {
        Rules([0; Rule::COUNT])
    }
}

/// The end of a world.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was drawn.
    pub parameters: Parameters,
    /// What was counted.
    pub statistics: Statistics,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// What must not have happened, and at which simulated time in microseconds.
    pub breach: Option<(u64, Breach)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters { seed, profile, .. } = &self.parameters;
        match &self.breach {
            None => {
                writeln!(f, "seed {seed} profile {profile}: all is well, trace {:016x}", self.trace_hash)?;
                let mut totals = Totals::default();
                totals.add(self);
                write!(f, "{totals}")
            }
            Some((at_us, breach)) => {
                writeln!(
                    f,
                    "seed {seed} profile {profile}: at {}.{:06} s: {breach}",
                    at_us / 1_000_000,
                    at_us % 1_000_000
                )?;
                write!(f, "{}", self.parameters)?;
                writeln!(f, "to see it again: holdline sim --seed {seed} --profile {profile}")
            }
        }
    }
}

/// The sum over several worlds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many worlds.
    pub worlds: u64,
    /// The seeds of those with a breach.
    pub failed_seeds: Vec<u64>,
    /// Their figures, added up.
    pub statistics: Statistics,
}

impl Totals {
    /// Adds a world.
    pub fn add(&mut self, report: &Report) {
        self.worlds += 1;
        self.statistics.add(&report.statistics);
        if report.breach.is_some() {
            self.failed_seeds.push(report.parameters.seed);
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.statistics;
        writeln!(f, "worlds       {} ({} failed)", self.worlds, self.failed_seeds.len())?;
        writeln!(f, "simulated    {} s", s.simulated_us / 1_000_000)?;
        writeln!(f, "connections  {}, {} of them over IPv6", s.connections, s.connections_ipv6)?;
        writeln!(f, "bytes        {} received by applications", s.bytes)?;
        writeln!(f, "pushes       {} committed, {} told as delivered, {} refused", s.pushes, s.receipts, s.refusals)?;
        writeln!(f, "frames       {} of {} bytes", s.frames, s.frame_bytes)?;
        let told: Vec<String> = Fault::iter().zip(s.faults).map(|(fault, count)| format!("{count} {fault}")).collect();
        for (index, line) in told.chunks(6).enumerate() {
            writeln!(f, "{:12} {}", if index == 0 { "faults" } else { "" }, line.join(", "))?;
        }
        writeln!(f, "kills        {}: {} between calls", s.kills(), s.kills_between)?;
        for (operation, counts) in Operation::iter().zip(s.kills_at) {
            let told = CommitPoint::iter().zip(counts).map(|(point, count)| format!("{count} {}", <&str>::from(point)));
            writeln!(f, "{:12} in {operation}: {}", "", told.collect::<Vec<_>>().join(", "))?;
        }
        let missing: Vec<&str> = s.rules_not_reached().into_iter().map(Into::into).collect();
        writeln!(f, "rules        {} of {}, not {}", Rule::COUNT - missing.len(), Rule::COUNT, missing.join(" "))?;
        writeln!(f, "records      {} discarded, {} applied again", s.records_discarded, s.records_applied_again)?;
        writeln!(f, "wraps        {} of the node's numbers, {} of clients'", s.wraps[0], s.wraps[1])?;
        writeln!(f, "smoltcp      {} stalls of its own resolved", s.rescues)
    }
}
