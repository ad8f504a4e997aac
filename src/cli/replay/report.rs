//! The report of a replay: lines for people, and the same as JSON.
//!
//! Invariant: both are made of the same values, so that neither says more than the other.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use holdline::tcp::Control;
use holdline::wire::field::protocol::{ICMPV4, ICMPV6};
use serde::Serialize;

use super::packet::{Options, Segment, View};
use super::recording::{Conversation, Recording};
use super::rewrite::Changes;
use super::stage::{Line, Outcome, Way};

/// Everything about one capture.
#[derive(Serialize)]
pub struct Report {
    capture: String,
    conversations: Vec<ConversationReport>,
    /// ARP, ICMP, fragments.
    others: Vec<LineReport>,
    rules: Vec<RuleCount>,
    skipped_other_hosts: u64,
    skipped_other_ports: u64,
    skipped_not_ip: u64,
}

#[derive(Serialize)]
struct ConversationReport {
    client: String,
    server_port: u16,
    lines: Vec<LineReport>,
    ours: Ending,
    recorded: Ending,
    /// Bytes of the recorded server that the capture lacks; zeros were sent for them.
    lacking_bytes: u32,
    /// Where both sides did not come to the same.
    differences: Vec<String>,
}

/// What one side of a conversation came to. Numbers count from the initial ones.
#[derive(Serialize, Default, Clone, Copy, PartialEq, Eq)]
struct Ending {
    syn_acks: u32,
    resets: u32,
    has_fin: bool,
    /// The highest acknowledgment.
    acknowledged: u32,
    /// Behind the last byte that was sent.
    sent: u32,
}

#[derive(Serialize)]
struct LineReport {
    at_us: u64,
    way: Way,
    #[serde(flatten)]
    what: What,
    rules: Vec<&'static str>,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Segment(SegmentReport),
    Other(String),
}

#[derive(Serialize)]
struct SegmentReport {
    control: String,
    seq: u32,
    /// None where the segment acknowledges nothing.
    ack: Option<u32>,
    window: u16,
    payload_bytes: u32,
    options: Vec<String>,
}

#[derive(Serialize)]
struct RuleCount {
    rule: &'static str,
    count: u64,
}

impl Report {
    /// Puts together what a replay came to.
    pub fn new(path: &Path, recording: &Recording, outcome: &Outcome) -> Report {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let mut lines: Vec<Vec<&Line>> = recording.conversations.iter().map(|_| Vec::new()).collect();
        let mut others = Vec::new();
        for line in &outcome.lines {
            match line.conversation {
                Some(index) => lines[index].push(line),
                None => others.push(LineReport::new(line)),
            }
        }
        let conversations = recording.conversations.iter().zip(&lines);
        Report {
            capture: name.to_string_lossy().into_owned(),
            conversations: conversations.map(|(it, lines)| ConversationReport::new(it, lines)).collect(),
            others,
            rules: outcome.rules.iter().map(|(rule, count)| RuleCount { rule: rule.into(), count: *count }).collect(),
            skipped_other_hosts: recording.skipped.other_hosts,
            skipped_other_ports: recording.skipped.other_ports,
            skipped_not_ip: recording.skipped.not_ip,
        }
    }
}

impl ConversationReport {
    fn new(conversation: &Conversation, lines: &[&Line]) -> ConversationReport {
        let (ours, recorded) = (Ending::of(lines, Way::Out), Ending::of(lines, Way::Recorded));
        ConversationReport {
            client: conversation.client.to_string(),
            server_port: conversation.server_port,
            lines: lines.iter().map(|line| LineReport::new(line)).collect(),
            ours,
            recorded,
            lacking_bytes: conversation.lacking_bytes(),
            differences: ours.differences(&recorded),
        }
    }
}

impl Ending {
    fn of(lines: &[&Line], way: Way) -> Ending {
        let mut ending = Ending::default();
        for line in lines.iter().filter(|line| line.way == way) {
            let Some(View::Tcp(segment)) = line.view else { continue };
            ending.syn_acks += u32::from(segment.is_syn_ack());
            ending.has_fin |= segment.control.has(Control::FIN);
            if segment.control.has(Control::RST) {
                ending.resets += 1;
                continue;
            }
            let (seq_base, ack_base) = line.bases;
            if segment.control.has(Control::ACK) {
                ending.acknowledged = farther(ending.acknowledged, segment.ack.wrapping_sub(ack_base));
            }
            ending.sent = farther(ending.sent, segment.end().wrapping_sub(seq_base));
        }
        ending
    }

    fn differences(&self, recorded: &Ending) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, ours: u32, recorded: u32| {
            if ours != recorded {
                found.push(format!("{what}: ours {ours}, recorded {recorded}"));
            }
        };
        compare("SYN answered", u32::from(self.syn_acks > 0), u32::from(recorded.syn_acks > 0));
        compare("acknowledged", self.acknowledged, recorded.acknowledged);
        compare("sent", self.sent, recorded.sent);
        compare("FIN sent", u32::from(self.has_fin), u32::from(recorded.has_fin));
        compare("RSTs", self.resets, recorded.resets);
        found
    }
}

/// The one that lies farther from the begin, unless it lies behind it.
fn farther(known: u32, new: u32) -> u32 {
    if new < 1 << 31 { known.max(new) } else { known }
}

impl LineReport {
    fn new(line: &Line) -> LineReport {
        let what = match line.view {
            Some(View::Tcp(segment)) => What::Segment(SegmentReport::new(&segment, line.bases)),
            Some(View::Question(target)) => {
                let protocol = if target.is_ipv4() { "ARP" } else { "neighbour discovery" };
                What::Other(format!("{protocol} request for {target}"))
            }
            Some(View::Ip { protocol, is_fragment: true, .. }) => {
                What::Other(format!("fragment of protocol {protocol}"))
            }
            Some(View::Ip { protocol: ICMPV4 | ICMPV6, .. }) => What::Other("ICMP".to_owned()),
            Some(View::Ip { protocol, .. }) => What::Other(format!("broken packet of protocol {protocol}")),
            None => What::Other("answer".to_owned()),
        };
        let rules = line.rules.iter().map(<&str>::from).collect();
        LineReport { at_us: line.at_us, way: line.way, what, rules, notes: notes(&line.changes) }
    }
}

fn notes(changes: &Changes) -> Vec<String> {
    let mut notes = Vec::new();
    if changes.ack_cut_bytes > 0 {
        notes.push(format!("ack cut by {}", changes.ack_cut_bytes));
    }
    if changes.has_filled_bytes {
        notes.push("filled up".to_owned());
    }
    notes.extend(changes.checksum.map(str::to_owned));
    if changes.has_erased_options {
        notes.push("options taken out".to_owned());
    }
    notes
}

/// The control bits by name, in the order in which people say them.
const CONTROLS: &[(Control, &str)] = &[
    (Control::SYN, "SYN"),
    (Control::FIN, "FIN"),
    (Control::RST, "RST"),
    (Control::PSH, "PSH"),
    (Control::URG, "URG"),
    (Control::ACK, "ACK"),
];

impl SegmentReport {
    fn new(segment: &Segment, (seq_base, ack_base): (u32, u32)) -> SegmentReport {
        let names: Vec<&str> =
            CONTROLS.iter().filter(|(bit, _)| segment.control.has(*bit)).map(|(_, name)| *name).collect();
        // An RST to what acknowledged nothing has the number 0, which counts from nowhere.
        let is_from_nowhere = segment.control.has(Control::RST) && segment.seq == 0;
        SegmentReport {
            control: if names.is_empty() { "none".to_owned() } else { names.join(" ") },
            seq: if is_from_nowhere { 0 } else { segment.seq.wrapping_sub(seq_base) },
            ack: segment.control.has(Control::ACK).then(|| segment.ack.wrapping_sub(ack_base)),
            window: segment.window,
            payload_bytes: segment.payload_bytes,
            options: described(&segment.options, if segment.control.has(Control::ACK) { ack_base } else { 0 }),
        }
    }
}

fn described(options: &Options, ack_base: u32) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(options.mss.map(|mss| format!("mss {mss}")));
    found.extend(options.window_shift.map(|shift| format!("shift {shift}")));
    found.extend(options.has_sack_permitted.then(|| "sack permitted".to_owned()));
    found.extend(options.timestamps.map(|_| "timestamps".to_owned()));
    for (left, right) in options.sack.into_iter().flatten() {
        found.push(format!("sack {}..{}", left.wrapping_sub(ack_base), right.wrapping_sub(ack_base)));
    }
    found
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "capture {}", self.capture)?;
        for (number, conversation) in (1..).zip(&self.conversations) {
            writeln!(formatter, "conversation {number}: {conversation}")?;
        }
        if !self.others.is_empty() {
            writeln!(formatter, "outside of conversations")?;
        }
        self.others.iter().try_for_each(|line| writeln!(formatter, "{line}"))?;
        writeln!(formatter, "rules")?;
        self.rules.iter().try_for_each(|it| writeln!(formatter, "{:>8} {}", it.count, it.rule))?;
        let (hosts, ports, rest) = (self.skipped_other_hosts, self.skipped_other_ports, self.skipped_not_ip);
        if hosts + ports + rest > 0 {
            writeln!(formatter, "not played: {hosts} of other hosts, {ports} of other ports, {rest} not IP")?;
        }
        Ok(())
    }
}

impl Display for ConversationReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} with port {}", self.client, self.server_port)?;
        self.lines.iter().try_for_each(|line| writeln!(formatter, "{line}"))?;
        writeln!(formatter, "  ours:     {}", self.ours)?;
        writeln!(formatter, "  recorded: {}", self.recorded)?;
        if self.lacking_bytes > 0 {
            writeln!(formatter, "  the capture lacks {} bytes of the recorded server", self.lacking_bytes)?;
        }
        match self.differences.as_slice() {
            [] => write!(formatter, "  same end"),
            differences => write!(formatter, "  differs: {}", differences.join("; ")),
        }
    }
}

impl Display for Ending {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let fin = if self.has_fin { ", FIN" } else { "" };
        let (syn_acks, resets) = (self.syn_acks, self.resets);
        write!(formatter, "{syn_acks} SYN-ACK, acknowledged {}, sent {}{fin}", self.acknowledged, self.sent)?;
        if resets > 0 { write!(formatter, ", {resets} RST") } else { Ok(()) }
    }
}

impl Display for LineReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mark = match self.way {
            Way::In => ">>",
            Way::Out => "<<",
            Way::Recorded => "==",
        };
        write!(formatter, "{:>5}.{:06} {mark} ", self.at_us / 1_000_000, self.at_us % 1_000_000)?;
        match &self.what {
            What::Segment(segment) => write!(formatter, "{segment}")?,
            What::Other(what) => write!(formatter, "{what}")?,
        }
        if !self.notes.is_empty() {
            write!(formatter, " ({})", self.notes.join(", "))?;
        }
        if !self.rules.is_empty() {
            write!(formatter, "  {}", self.rules.join(" "))?;
        }
        Ok(())
    }
}

impl Display for SegmentReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} seq {}", self.control, self.seq)?;
        if self.payload_bytes > 0 {
            write!(formatter, "..{}", self.seq.wrapping_add(self.payload_bytes))?;
        }
        if let Some(ack) = self.ack {
            write!(formatter, " ack {ack}")?;
        }
        write!(formatter, " window {}", self.window)?;
        self.options.iter().try_for_each(|option| write!(formatter, " {option}"))
    }
}
