//! Stage: a shard in memory that a recording is played into.
//!
//! In: a recording. Out: lines in the order of time: what went in, what our stack answered, what the recorded server
//! did. What the recorded server's application did is done again: with the service `recorded` its bytes are pushed and
//! its FIN and RST called for when the capture shows them, so that the client's acknowledgments mean what they meant.
//!
//! Invariant: the time is the capture's and the secret is fixed: the same capture gives the same lines.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use holdline::service::{Context, Service};
use holdline::shard::{
    Capacity, CloseHow, Config, FlowId, Notice, Push, Rule, RuleSet, Shard, StartError, Storage, Ticket, Time, Traced,
};
use holdline::tcp::Control;
use strum::IntoEnumIterator;

use super::packet::{self, View};
use super::recording::{Event, Recording, Sender};
use super::rewrite::{self, Changes, Side};

/// The Ethernet address by which routers of IPv6 are asked for.
const ALL_ROUTERS: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];
/// When a replay begins: not at 0, where clocks that look back would.
const START: Time = Time(1_000_000);
/// The longest silence that is kept; a longer one is cut to this, so that a strange clock costs no hours.
const SILENCE_US_MAX: u64 = 86_400_000_000;
/// How long the stack is listened to behind the last frame: time for a delayed ACK, not for a retransmission.
const LAST_WORDS_US: u64 = 500_000;
/// Timers that fire between two frames, at most.
const TICKS_MAX: usize = 10_000;
/// Bytes of one push.
const PUSH_BYTES_MAX: usize = 16_384;

/// Which way a line goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The recorded client, into our stack.
    In,
    /// Our stack.
    Out,
    /// The recorded server.
    Recorded,
}

/// One frame of the outcome.
pub struct Line {
    /// Since the first frame of the capture.
    pub at_us: u64,
    pub way: Way,
    pub conversation: Option<usize>,
    pub view: Option<View>,
    /// What sequence and acknowledgment numbers count from.
    pub bases: (u32, u32),
    /// What decided it, or caused it.
    pub rules: RuleSet,
    pub changes: Changes,
}

/// How a replay went.
pub struct Outcome {
    pub lines: Vec<Line>,
    /// How often each rule decided, where it did.
    pub rules: Vec<(Rule, u64)>,
}

/// What a replay shall do.
pub struct Options {
    pub address: IpAddr,
    pub ports: Vec<u16>,
    pub does_fix_checksums: bool,
}

/// Whether the recorded server's application is played as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Application {
    AsRecorded,
    ByService,
}

/// Takes everything and leaves closing to the recording.
pub struct Recorded;

impl Service for Recorded {
    fn received(&mut self, _context: &mut Context<'_>, _flow: FlowId, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn peer_closed(&mut self, _context: &mut Context<'_>, _flow: FlowId) {}
}

/// A conversation on the stage.
#[derive(Default)]
struct Part {
    flow: Option<FlowId>,
    ours: Side,
    /// How much of the recorded server's bytes may be pushed, and was.
    wanted: usize,
    pushed: usize,
    is_close_wanted: bool,
}

/// See the module.
pub struct Stage<'a> {
    shard: Shard<Box<dyn Service>>,
    options: &'a Options,
    application: Application,
    recording: &'a Recording,
    parts: Vec<Part>,
    flows: HashMap<FlowId, usize>,
    /// The conversation that is on for a client's end and a port of the server's.
    current: HashMap<(SocketAddr, u16), usize>,
    causes: VecDeque<RuleSet>,
    now: Time,
    lines: Vec<Line>,
}

impl<'a> Stage<'a> {
    /// A stage for one recording.
    pub fn new(
        recording: &'a Recording,
        options: &'a Options,
        application: Application,
        service: Box<dyn Service>,
    ) -> Result<Stage<'a>, StartError> {
        let connections = recording.conversations.len().clamp(1_000, 1_000_000) as u32;
        let storage = Storage::in_memory(Capacity::for_connections(connections))?;
        let address = rewrite::stage_address(options.address);
        // A network of one address: the recorded clients are all elsewhere, and none is a broadcast.
        let config = Config::new(address, if address.is_ipv4() { 32 } else { 128 }, &options.ports);
        let mut shard = Shard::new(config, storage, service, [0x5a; 32], START)?;
        shard.set_tracing(true);
        let parts = recording.conversations.iter().map(|_| Part::default()).collect();
        Ok(Stage {
            shard,
            options,
            application,
            recording,
            parts,
            flows: HashMap::new(),
            current: HashMap::new(),
            causes: VecDeque::new(),
            now: START,
            lines: Vec::new(),
        })
    }

    /// Plays everything.
    pub fn play(mut self) -> Outcome {
        let mut last_ns = self.recording.events.first().map_or(0, |event| event.at_ns);
        for event in &self.recording.events {
            let silence_us = (event.at_ns.saturating_sub(last_ns) / 1_000).min(SILENCE_US_MAX);
            // Clocks of captures may go back a little; time does not.
            last_ns += silence_us * 1_000;
            last_ns = if silence_us == SILENCE_US_MAX { event.at_ns } else { last_ns };
            self.pass_until(Time(self.now.0 + silence_us));
            match event.sender {
                Sender::Client => self.play_client(event),
                Sender::Server => self.play_server(event),
            }
            self.pump(event.conversation);
        }
        self.pass_until(Time(self.now.0 + LAST_WORDS_US));
        let rules = Rule::iter().map(|rule| (rule, self.shard.rule_count(rule))).filter(|(_, count)| *count > 0);
        Outcome { rules: rules.collect(), lines: self.lines }
    }

    /// Lets time pass, timer by timer.
    fn pass_until(&mut self, until: Time) {
        for _ in 0..TICKS_MAX {
            let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= until) else { break };
            self.now = self.now.max(deadline);
            self.shard.tick(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn note(&mut self, way: Way, conversation: Option<usize>, view: Option<View>, rules: RuleSet, changes: Changes) {
        let at_us = self.now.0 - START.0;
        let bases = conversation.map_or((0, 0), |index| self.bases(way, index));
        self.lines.push(Line { at_us, way, conversation, view, bases, rules, changes });
    }

    /// What the sequence and acknowledgment numbers of a line count from: each from its sender's initial one.
    fn bases(&self, way: Way, index: usize) -> (u32, u32) {
        let conversation = &self.recording.conversations[index];
        let recorded = conversation.server_isn.unwrap_or(0);
        let ours = self.parts[index].ours.isn.unwrap_or(recorded);
        match way {
            Way::In => (conversation.client_isn, ours),
            Way::Out => (ours, conversation.client_isn),
            Way::Recorded => (recorded, conversation.client_isn),
        }
    }

    fn play_client(&mut self, event: &Event) {
        let mut frame = event.frame.clone();
        rewrite::readdress(&mut frame, &event.view);
        let mut changes = Changes::default();
        let mut view = event.view;
        if let (View::Tcp(segment), Some(index)) = (event.view, event.conversation) {
            self.current.insert((rewrite::stage_end(segment.source), segment.destination.port()), index);
            let conversation = &self.recording.conversations[index];
            let ours = &self.parts[index].ours;
            changes = rewrite::rewrite(&mut frame, event.cut_bytes, &segment, conversation, ours, self.options);
            view = packet::view(&frame, 0).unwrap_or(view);
        }
        self.note(Way::In, event.conversation, Some(view), RuleSet::default(), changes);
        let line = self.lines.len() - 1;
        self.shard.receive(self.now, &[&frame]);
        self.take_trace(Some(line));
        self.collect();
    }

    fn play_server(&mut self, event: &Event) {
        self.note(Way::Recorded, event.conversation, Some(event.view), RuleSet::default(), Changes::default());
        let (View::Tcp(segment), Some(index)) = (event.view, event.conversation) else { return };
        if self.application == Application::ByService {
            return;
        }
        let conversation = &self.recording.conversations[index];
        let part = &mut self.parts[index];
        if let Some(end) = conversation.server_end(&segment) {
            part.wanted = part.wanted.max(end as usize);
            part.is_close_wanted |= segment.control.has(Control::FIN);
        }
        if segment.control.has(Control::RST)
            && let Some(flow) = part.flow
        {
            // Who has gone has been reset by what went before.
            let _ = self.shard.close(self.now, flow, CloseHow::Reset);
            self.collect();
        }
    }

    /// Pushes what the recorded server has sent by now, as far as there is room.
    fn pump(&mut self, conversation: Option<usize>) {
        let Some(index) = conversation else { return };
        let bytes = &self.recording.conversations[index].server_bytes;
        while let Some(flow) = self.parts[index].flow {
            let Part { wanted, pushed, .. } = self.parts[index];
            if pushed == wanted {
                break;
            }
            let piece = &bytes[pushed..wanted.min(pushed + PUSH_BYTES_MAX)];
            self.shard.push(self.now, &[Push::new(flow, Ticket::NONE, piece)]);
            if !self.collect() {
                return;
            }
            self.parts[index].pushed += piece.len();
        }
        let part = &mut self.parts[index];
        if let (true, true, Some(flow)) = (part.is_close_wanted, part.pushed == part.wanted, part.flow) {
            part.is_close_wanted = false;
            // A flow that is gone needs no FIN.
            let _ = self.shard.close(self.now, flow, CloseHow::Half);
            self.collect();
        }
    }

    fn take_trace(&mut self, line: Option<usize>) {
        let (causes, lines) = (&mut self.causes, &mut self.lines);
        self.shard.drain_trace(|traced| match traced {
            Traced::Received(rules) => {
                if let Some(line) = line {
                    lines[line].rules = rules;
                }
            }
            Traced::Sent(rules) => causes.push_back(rules),
        });
    }

    /// Takes what the shard lets out. Returns false where a push was refused.
    fn collect(&mut self) -> bool {
        self.take_trace(None);
        let mut frames = Vec::new();
        self.shard.transmit(|frame| {
            frames.push(frame.to_vec());
            true
        });
        for frame in frames {
            let rules = self.causes.pop_front().unwrap_or_default();
            if frame.starts_with(&ALL_ROUTERS) {
                // Whether there is a router says no recording.
                continue;
            }
            let view = packet::view(&frame, 0);
            let mut conversation = None;
            if let Some(View::Tcp(segment)) = view {
                conversation = self.current.get(&(segment.destination, segment.source.port())).copied();
                if let Some(index) = conversation {
                    self.parts[index].ours.learn(&segment);
                }
            }
            self.note(Way::Out, conversation, view, rules, Changes::default());
        }
        let mut is_taken = true;
        let (parts, flows, current) = (&mut self.parts, &mut self.flows, &self.current);
        self.shard.drain_notices(|notice| match notice {
            Notice::Opened { flow, local, remote } => {
                if let Some(&index) = current.get(&(remote, local.port())) {
                    parts[index].flow = Some(flow);
                    flows.insert(flow, index);
                }
            }
            Notice::Closed { flow, .. } => {
                if let Some(index) = flows.remove(&flow) {
                    parts[index].flow = None;
                }
            }
            Notice::Refused { .. } => is_taken = false,
            _ => {}
        });
        is_taken
    }
}
