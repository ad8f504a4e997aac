//! A shard: the owner of connections, sans-I/O.
//!
//! In: frames, pushes, closes, the time. Out: frames and notices, after their batch is committed. It is driven by one
//! thread (`server`, `sim`, your own loop) and calls one [`Service`].
//!
//! ```text
//! receive / push / close / tick
//!    -> batch: copies of the flows it touches are stepped     (receive, tick, batch)
//!    -> commit: record, apply                                 (commit)
//!    -> gate: may this batch speak?                           (gate)
//! transmit / drain_notices
//! ```
//!
//! `tables` is what it keeps, `start` how it starts on a state that another process left.
//!
//! Invariant: it reads no clock and draws no random number; the same calls give the same bytes.

// What it is told and tells.
mod config;
mod service;
mod types;

// What it keeps between batches.
mod addresses;
mod destinations;
mod fragments;
mod hops;
mod keys;
mod lookup;
mod routers;
mod steer;
mod tables;
mod trace;

// The open batch: copies of what it changes.
mod batch;
mod copies;
mod places;
mod records;
mod repairs;

// What opens a batch, and what follows from it.
mod accept;
mod broadcast;
mod commands;
mod connect;
mod deliver;
mod echo;
mod neighbors;
mod path;
mod receive;
mod tick;

// The way out.
mod commit;
mod finish;
mod gate;

// The start, and a look from outside.
mod inspect;
mod start;

#[cfg(test)]
mod tests;

pub use commit::{CommitPoint, Interrupt};
pub use config::Config;
pub use connect::ConnectError;
pub(crate) use inspect::{Inside, Named};
pub use service::{Context, Service};
pub use steer::{SHARDS_MAX, Whose, whose};
pub use trace::{RuleSet, Traced};
pub use types::{
    ArenaUse, Broadcast, CloseHow, Effort, FlowView, JobId, JobView, Notice, Push, PushError, Resumption, Stats, Ticket,
};

// What its own functions speak of: whoever uses a shard needs nothing below it.
pub use crate::flows::{Ahead, Capacity, FlowId, JobState, Storage, StorageError};
pub use crate::tcp::{CloseReason, CongestionControl, Ecn, Keepalive, Rule, SoftError, State, Time, UserTimeout};

use batch::Batch;

/// Frames, pushes or expirations that one batch takes in.
const BATCH_MAX: usize = 64;

/// Why a shard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its storage cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its configuration cannot be.
    #[error("{0}")]
    Config(String),
}

/// See the module.
pub struct Shard<S> {
    batch: Batch,
    service: S,
    resumption: Resumption,
    /// Used again: acknowledged tickets, bytes offered to the service, expired active blocks.
    tickets: Vec<Ticket>,
    piece: Vec<u8>,
    due: Vec<u32>,
    /// Packets that came in fragments and belong to other shards.
    strays: Vec<(u8, Vec<u8>)>,
    arp_at: Time,
    trim_at: Time,
    /// Memory was used since the last trim.
    has_untrimmed: bool,
    effort: Effort,
}

impl<S: Service> Shard<S> {
    /// What the start found.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// The service, to be changed from outside of a batch.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// The connections that have this name; none where the service knows no names.
    pub fn named(&self, name: &[u8]) -> Vec<FlowId> {
        self.service.named(name)
    }

    /// The name of a connection, if it has one.
    pub fn name_of(&self, flow: FlowId) -> Option<&[u8]> {
        let tables = &self.batch.tables;
        tables.flow_of(flow).and_then(|_| tables.name_at(flow.slot()))
    }

    /// How much of each arena is used.
    pub fn memory(&self) -> [ArenaUse; 7] {
        self.batch.tables.memory()
    }

    /// What its arenas will touch next, to be brought in by another thread (see `server`'s populator). From now on it
    /// is wanted ahead of need.
    pub fn ahead(&mut self) -> Ahead {
        let tables = &mut self.batch.tables;
        let shards = usize::from(tables.config.shards);
        let index = tables.index.ahead(shards);
        tables.storage.ahead(shards, [index])
    }

    /// Whether frames wait for `transmit`.
    pub fn has_frames(&self) -> bool {
        self.batch.gate.has_frames()
    }

    /// How many bytes of frames wait for `transmit`. Whoever drives the shard takes no more in while they are many.
    pub fn waiting_bytes(&self) -> usize {
        self.batch.gate.waiting_bytes()
    }

    /// Hands out frames in order until `send` answers false; that frame and those behind it stay.
    pub fn transmit(&mut self, send: impl FnMut(&[u8]) -> bool) {
        self.batch.gate.take_frames(send);
    }

    /// Hands out notices in order.
    pub fn drain_notices(&mut self, take: impl FnMut(Notice)) {
        self.batch.gate.take_notices(take);
    }

    /// Hands out packets that came in fragments, which are steered by their addresses alone, and that belong to another
    /// shard now that their ports are known: each as the frame that it would have been, for that shard's `receive`.
    pub fn drain_strays(&mut self, mut take: impl FnMut(u8, Vec<u8>)) {
        self.strays.drain(..).for_each(|(shard, frame)| take(shard, frame));
    }

    /// From now on SYNs are answered by RST.
    pub fn refuse_new(&mut self) {
        self.batch.tables.is_draining = true;
    }

    /// A connection; `None` if it is gone.
    pub fn flow(&self, now: Time, id: FlowId) -> Option<FlowView> {
        self.batch.tables.view(id.slot(), now).filter(|view| view.id == id)
    }

    /// Whether an id was given out at some time, whatever became of its connection.
    pub fn was_given_out(&self, id: FlowId) -> bool {
        self.batch.tables.was_given_out(id)
    }

    /// Calls `take` with each connection from a slot on until it answers false. Returns the slot to go on from; `None`
    /// at the end of the table.
    pub fn flows(&self, now: Time, from_slot: u32, take: impl FnMut(FlowView) -> bool) -> Option<u32> {
        self.flows_within(now, from_slot, u32::MAX, take)
    }

    /// The same, of at most `slots_max` slots, free ones counted: a bound on the time it takes.
    pub fn flows_within(
        &self,
        now: Time,
        from_slot: u32,
        slots_max: u32,
        mut take: impl FnMut(FlowView) -> bool,
    ) -> Option<u32> {
        let end = self.batch.tables.storage.head().flows_end;
        let stop = end.min(from_slot.saturating_add(slots_max));
        let last = (from_slot..stop).find(|&slot| self.batch.tables.view(slot, now).is_some_and(|view| !take(view)));
        let next = last.map_or(stop, |slot| slot + 1);
        (next < end).then_some(next)
    }

    /// Connections in a state.
    pub fn in_state(&self, state: State) -> u32 {
        self.batch.tables.in_state(state)
    }

    /// The [`Push::key`] for what a client gave as the idempotency key of a push to this connection. It is the same as
    /// long as the state lives, and clients cannot choose values that collide.
    pub fn push_key(&self, flow: FlowId, value: &[u8]) -> [u8; 16] {
        self.batch.tables.push_key(flow, value)
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        self.batch.tables.stats()
    }

    /// What it has done beside answering.
    pub fn effort(&self) -> Effort {
        let index = &self.batch.tables.index;
        Effort {
            moved: index.moved(),
            released_bytes: self.effort.released_bytes + index.released_bytes(),
            ..self.effort
        }
    }

    /// How often a rule decided since the start.
    pub fn rule_count(&self, rule: Rule) -> u64 {
        self.batch.tables.rules[rule as usize]
    }

    /// From now on, or no longer, the rules of each frame are noted; whoever turns it on calls `drain_trace` after each
    /// batch. Turn it on before the first frame, so that nothing waits for `transmit` that was not noted.
    pub fn set_tracing(&mut self, is_on: bool) {
        self.batch.tables.trace = is_on.then(Box::default);
    }

    /// Hands out what was noted since the last call: one [`Traced`] for each frame received, in order, then one for
    /// each frame that was made meanwhile, in the order in which `transmit` hands them out.
    pub fn drain_trace(&mut self, take: impl FnMut(Traced)) {
        self.batch.tables.drain_trace(take);
    }

    /// Calls `interrupt` at each commit point from now on: for the injection of faults.
    pub fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        self.batch.interrupt = interrupt;
    }

    /// Gives up all that is rebuilt and returns the state as a killed process would leave it.
    pub fn into_storage(self) -> Storage {
        self.batch.tables.storage.used()
    }
}

impl<S> Shard<S> {
    /// Has something done in a batch, which is committed then.
    #[inline]
    fn in_batch<R>(&mut self, now: Time, act: impl FnOnce(&mut Shard<S>) -> R) -> R {
        self.batch.begin(now);
        let result = act(self);
        self.batch.commit();
        result
    }
}
