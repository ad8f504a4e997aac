//! Traces: which rules decided each frame, for captures and replays.
//!
//! In, while tracing is on: every rule that is counted, and where the shard stands: at which received frame, at which
//! flow. Out: a [`Traced`] for each frame that came in, and for each that goes out the rules that caused it.
//!
//! Invariant: nothing is kept while tracing is off, and nothing of a trace decides anything.

use strum::{EnumCount, IntoEnumIterator};

use super::tables::Tables;
use crate::tcp::Rule;

/// A set of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleSet(u128);

const _: () = assert!(Rule::COUNT <= u128::BITS as usize, "a set has a bit for each rule");

impl RuleSet {
    /// Adds a rule.
    pub fn insert(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u32;
    }

    /// Both sets.
    #[must_use]
    pub fn with(self, other: RuleSet) -> RuleSet {
        RuleSet(self.0 | other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rules, in the order in which [`Rule`] lists them.
    pub fn iter(self) -> impl Iterator<Item = Rule> {
        Rule::iter().filter(move |&rule| self.0 >> rule as u32 & 1 == 1)
    }
}

impl std::fmt::Display for RuleSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.iter().map(<&str>::from).collect();
        formatter.write_str(&names.join(" "))
    }
}

/// The rules of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traced {
    /// What decided the next of the frames that were given to `receive`, what the service did meanwhile included.
    Received(RuleSet),
    /// What caused the next of the frames that `transmit` hands out: of the frame that it answers at once, or all that
    /// happened to its flow in the same batch.
    Sent(RuleSet),
}

/// What is traced since it was last asked for.
#[derive(Default)]
pub(super) struct Trace {
    received: Vec<RuleSet>,
    sent: Vec<RuleSet>,
    /// Of the open batch, by the position of the flow.
    flows: Vec<RuleSet>,
    /// Where the frames of the open batch begin in `received`.
    batch_start: usize,
    frame: Option<usize>,
    position: Option<usize>,
}

impl Trace {
    fn note(&mut self, rule: Rule) {
        if let Some(frame) = self.frame {
            self.received[frame].insert(rule);
        }
        if let Some(position) = self.position {
            self.flows[position].insert(rule);
        }
    }

    fn note_sent(&mut self, position: Option<usize>) {
        let of_frame = self.frame.map(|frame| self.received[frame]);
        let of_flow = position.and_then(|position| self.flows.get(position)).copied();
        self.sent.push(of_frame.or(of_flow).unwrap_or_default());
    }
}

impl Tables {
    /// Tells the trace of a decision.
    pub fn trace_rule(&mut self, rule: Rule) {
        if let Some(trace) = &mut self.trace {
            trace.note(rule);
        }
    }

    /// A batch begins.
    pub fn trace_batch(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.flows.clear();
            trace.batch_start = trace.received.len();
            (trace.frame, trace.position) = (None, None);
        }
    }

    /// What is counted next is of this frame of the batch; `None`: of no frame any more.
    pub fn trace_frame(&mut self, index: Option<usize>) {
        if let Some(trace) = &mut self.trace {
            trace.frame = index.map(|index| trace.batch_start + index);
            trace.position = None;
            let frames = trace.frame.map_or(0, |frame| frame + 1).max(trace.received.len());
            trace.received.resize(frames, RuleSet::default());
        }
    }

    /// What is counted next is of the flow at this position of the batch.
    pub fn trace_flow(&mut self, position: usize) {
        if let Some(trace) = &mut self.trace {
            trace.position = Some(position);
            let flows = trace.flows.len().max(position + 1);
            trace.flows.resize(flows, RuleSet::default());
        }
    }

    /// A frame was put into the gate, of the flow at this position of the batch if it is of one.
    pub fn trace_sent(&mut self, position: Option<usize>) {
        if let Some(trace) = &mut self.trace {
            trace.note_sent(position);
        }
    }

    /// Hands out what was traced.
    pub fn drain_trace(&mut self, mut take: impl FnMut(Traced)) {
        if let Some(trace) = &mut self.trace {
            trace.received.drain(..).for_each(|rules| take(Traced::Received(rules)));
            trace.sent.drain(..).for_each(|rules| take(Traced::Sent(rules)));
        }
    }
}
