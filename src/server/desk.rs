//! The desk: where a shard's worker answers the control side, and what is counted for it.
//!
//! Comes in: asks, notices. Goes out: answers; figures when they are asked for. Pushes are
//! answered in the order in which they were given to the shard, which tells their fates in that order.
//!
//! Invariant: a pass spends a bounded time here. It takes few asks, and no more after one that walks a table.

use std::collections::VecDeque;
use std::time::Duration;

use strum::IntoEnumIterator;

use crate::shard::{Broadcast, FlowId, JobState, Notice, PushError, Rule, Service, Shard, State, Ticket, Time};

use super::ask::{Ask, BroadcastAsk, FlowAnswer, Outcome, Page, PushReply, Reply};
use super::figures::{Counts, ShardFigures};
use super::receipts::{Receipts, Stopwatch};
use super::seat::AfterDrain;
use super::teller::Teller;

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    shard: u8,
    asked: VecDeque<Asked>,
    receipts: Receipts,
    stopwatch: Stopwatch,
    counts: Counts,
    teller: Option<Teller>,
    is_draining: bool,
}

/// A push that was given to the shard and is not answered yet.
#[derive(Debug)]
struct Asked {
    flow: FlowId,
    ticket: Ticket,
    is_keyed: bool,
    reply: Option<PushReply>,
}

/// What is to be done about an ask beside the shard.
#[derive(Debug)]
pub(super) enum Errand {
    None,
    Drain { rate_per_s: u32, bound: Duration, after: AfterDrain },
    Move { worker: usize, reply: Reply<()> },
}

impl Desk {
    pub(super) fn new(shard: u8, teller: Option<Teller>) -> Desk {
        Desk {
            shard,
            asked: VecDeque::new(),
            receipts: Receipts::default(),
            stopwatch: Stopwatch::default(),
            counts: Counts::default(),
            teller,
            is_draining: false,
        }
    }

    /// A push is about to be given to the shard.
    pub(super) fn expect_answer(&mut self, flow: FlowId, ticket: Ticket, is_keyed: bool, reply: Option<PushReply>) {
        self.asked.push_back(Asked { flow, ticket, is_keyed, reply });
    }

    /// New connections are refused from now on.
    pub(super) fn note_draining(&mut self) {
        self.is_draining = true;
    }

    /// Something happened.
    pub(super) fn on_notice(&mut self, now: Time, notice: &Notice) {
        match *notice {
            Notice::Opened { .. } => self.counts.opened += 1,
            Notice::Queued { flow, ticket } => self.on_queued(now, flow, ticket),
            Notice::Refused { flow, error, .. } => {
                if let Some(reply) = self.next_asked(flow).and_then(|asked| asked.reply) {
                    reply.queued.send(Err(error));
                }
            }
            Notice::Delivered { ticket, .. } => {
                self.counts.delivered += 1;
                self.stopwatch.stop(ticket, now);
                self.receipts.end(ticket, Outcome::Delivered);
            }
            Notice::Expired { ticket, .. } => {
                self.counts.expired += 1;
                self.receipts.end(ticket, Outcome::Expired);
            }
            Notice::Undelivered { ticket, acked_bytes, .. } => {
                self.counts.undelivered += 1;
                self.receipts.end(ticket, Outcome::Undelivered { acked_bytes });
            }
            Notice::Closed { reason, .. } => self.counts.closed[reason as usize] += 1,
            Notice::Received { .. } | Notice::PeerClosed { .. } | Notice::Urgent { .. } | Notice::SoftError { .. } => {}
        }
        if let Some(teller) = &mut self.teller {
            teller.tell(notice);
        }
    }

    fn next_asked(&mut self, flow: FlowId) -> Option<Asked> {
        debug_assert!(self.asked.front().is_none_or(|asked| asked.flow == flow), "pushes are answered in order");
        self.asked.pop_front()
    }

    fn on_queued(&mut self, now: Time, flow: FlowId, ticket: Ticket) {
        let Some(asked) = self.next_asked(flow) else { return };
        let is_repeat = asked.ticket != ticket;
        if !is_repeat {
            self.stopwatch.start(ticket, now);
            if asked.is_keyed {
                self.receipts.remember(ticket);
            }
        }
        let Some(reply) = asked.reply else { return };
        reply.queued.send(Ok(ticket));
        match reply.ended {
            Some(ended) if is_repeat => self.receipts.wait_for_repeat(flow, ticket, ended),
            Some(ended) => self.receipts.wait(ticket, ended),
            None => {}
        }
    }

    /// Called after the notices of a pass.
    pub(super) fn end_of_notices<S: Service>(&mut self, now: Time, shard: &Shard<S>) {
        self.receipts.settle(|flow| shard.flow(now, flow).map(|view| view.unacked_bytes));
        if let Some(teller) = &mut self.teller {
            teller.flush();
        }
    }

    /// Answers one ask. Returns what is still to be done about it, and whether it was a long one, after which the rest
    /// is left for the next pass.
    pub(super) fn answer<S: Service>(
        &mut self,
        now: Time,
        ask: Ask,
        shard: &mut Shard<S>,
        worker: usize,
    ) -> (Errand, bool) {
        let mut errand = Errand::None;
        let is_long = matches!(
            ask,
            Ask::Page { .. }
                | Ask::Broadcast { .. }
                | Ask::HoldJob { .. }
                | Ask::Figures { .. }
                | Ask::Named { .. }
                | Ask::Drain { .. }
                | Ask::Move { .. }
        );
        match ask {
            Ask::Flow { flow, reply } => reply.send(flow_answer(now, shard, flow)),
            Ask::Page { from_slot, state, flows_max, reply } => {
                answer_page(now, shard, from_slot, state, flows_max, reply);
            }
            Ask::Named { name, reply } => reply.send(shard.named(&name)),
            Ask::Broadcast { broadcast, reply } => reply.send(shard.broadcast(now, &broadcast.whole())),
            Ask::HoldJob { broadcast, id, reply } => reply.send(shard.hold_job(now, &broadcast.whole(), id)),
            Ask::ReleaseJob { job, reply } => {
                shard.release_job(now, job);
                reply.send(());
            }
            Ask::Job { job, reply } => reply.send(shard.job(job)),
            Ask::CancelJob { job, reply } => {
                if shard.job(job).is_some_and(|view| view.state == JobState::Running) {
                    shard.cancel_job(now, job);
                }
                reply.send(shard.job(job));
            }
            Ask::Close { flow, how, reply } => reply.send(shard.close(now, flow, how)),
            Ask::Pause { flow, is_paused: true, reply } => reply.send(shard.pause(now, flow)),
            Ask::Pause { flow, is_paused: false, reply } => reply.send(shard.resume(now, flow)),
            Ask::Drain { rate_per_s, bound, after, reply } => {
                errand = Errand::Drain { rate_per_s, bound, after };
                let stats = shard.stats();
                reply.send(stats.flows);
            }
            Ask::Figures { reply } => reply.send(Box::new(self.figures(shard, worker))),
            Ask::Move { worker, reply } => errand = Errand::Move { worker, reply },
        }
        (errand, is_long)
    }

    fn figures<S: Service>(&self, shard: &Shard<S>, worker: usize) -> ShardFigures {
        ShardFigures {
            shard: self.shard,
            worker,
            stats: shard.stats(),
            states: State::iter()
                .filter(|state| *state != State::Free)
                .map(|state| (state, shard.in_state(state)))
                .collect(),
            rules: Rule::iter().map(|rule| (rule, shard.rule_count(rule))).collect(),
            memory: shard.memory().to_vec(),
            told: self.counts,
            is_draining: self.is_draining,
            delivery: self.stopwatch.figures().clone(),
        }
    }
}

fn flow_answer<S: Service>(now: Time, shard: &Shard<S>, flow: FlowId) -> Result<FlowAnswer, PushError> {
    match shard.flow(now, flow) {
        Some(view) => Ok(FlowAnswer { view, name: shard.name_of(flow).map(Into::into) }),
        None if shard.was_given_out(flow) => Err(PushError::Gone),
        None => Err(PushError::Unknown),
    }
}

fn answer_page<S: Service>(
    now: Time,
    shard: &Shard<S>,
    from_slot: u32,
    state: Option<State>,
    flows_max: usize,
    reply: Reply<Page>,
) {
    let flows_max = flows_max.min(PAGE_FLOWS_MAX);
    let mut flows = Vec::with_capacity(flows_max);
    let next_slot = shard.flows_within(now, from_slot, PAGE_SLOTS_MAX, |view| {
        if state.is_none_or(|state| state == view.state) {
            flows.push(FlowAnswer { view, name: shard.name_of(view.id).map(Into::into) });
        }
        flows.len() < flows_max
    });
    reply.send(Page { flows, next_slot });
}

impl BroadcastAsk {
    fn whole(&self) -> Broadcast<'_> {
        let BroadcastAsk { ticket, bytes, pace_per_s, prefix, expires_in_s } = self;
        let (ticket, pace_per_s, expires_in_s) = (*ticket, *pace_per_s, *expires_in_s);
        Broadcast { ticket, bytes, pace_per_s, prefix, expires_in_s }
    }
}

/// Asks that one pass takes.
pub(super) const ASKS_AT_ONCE: usize = 16;

/// Connections that one page tells of.
pub(super) const PAGE_FLOWS_MAX: usize = 128;

/// Slots that one page looks at.
const PAGE_SLOTS_MAX: u32 = 512;
