//! A shard: the unit that owns connections. Sans-I/O: frames, pushes and the time come in, frames and notices go out.
//! (skeleton)
mod config;
mod service;
pub use config::Config;
pub use service::{Context, Service};
use crate::flows::{FlowId, Storage, StorageError};
use crate::tcp::{CloseReason, Rule, State, Time};
use std::net::SocketAddrV4;

/// Names one push, so that its delivery can be told. Unique over the life of a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(pub u64);
impl Ticket { pub const NONE: Ticket = Ticket(0); }

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseHow { Fin, Reset }

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum PushError {
    #[error("no connection ever had this id")] Unknown,
    #[error("the connection is gone")] Gone,
    #[error("the push is larger than a flow's send queue")] TooLarge,
    #[error("this flow's send queue is full")] FlowFull,
    #[error("the shard has no room for more payload or active connections")] ShardFull,
}
pub struct Push<'a> { pub flow: FlowId, pub ticket: Ticket, pub bytes: &'a [u8] }

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Notice {
    Opened { flow: FlowId, local: SocketAddrV4, remote: SocketAddrV4 },
    /// A push was committed.
    Queued { flow: FlowId, ticket: Ticket },
    /// A push was refused.
    Refused { flow: FlowId, ticket: Ticket, error: PushError },
    /// peer's TCP acknowledged the last byte
    Delivered { flow: FlowId, ticket: Ticket },
    PeerClosed { flow: FlowId },
    Closed { flow: FlowId, reason: CloseReason },
}
/// Where in the commit of a batch an interrupt is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::EnumIter, strum::IntoStaticStr)]
pub enum CommitPoint { BeforeRecord, WithinRecord, BeforeApply, WithinApply, BeforeGate }

/// How a flow looks from outside
#[derive(Clone, Copy, Debug)]
pub struct FlowView { pub id: FlowId, pub local: SocketAddrV4, pub remote: SocketAddrV4, pub state: State, pub opened_s_ago: u32, pub idle_s: u32, pub srtt_us: Option<u32>, pub unacked_bytes: u32 }

/// What the start on a storage found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resumption { pub connections: u32, pub records_discarded: u32, pub records_applied_again: u32, pub fresh: bool }

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats { pub established: u32, pub half_open: u32, pub closing: u32, pub flows: u32, pub actives: u32, pub spans: u32, pub blocks: u32, pub batches: u64, pub frames_in: u64, pub frames_out: u64 }

pub struct Shard<S> { service: S }
#[derive(Debug, thiserror::Error)]
pub enum StartError { #[error(transparent)] Storage(#[from] StorageError), #[error("{0}")] Config(String) }

impl<S: Service> Shard<S> {
    /// `secret` is used only when the storage is fresh.
    pub fn new(config: Config, storage: Storage, service: S, secret: [u8; 32], start: Time) -> Result<Self, StartError> { todo!() }
    pub fn resumption(&self) -> Resumption { todo!() }
    /// Takes in frames: one batch for each 64.
    pub fn receive(&mut self, now: Time, frames: &[&[u8]]) { todo!() }
    /// each answered by a Notice (Queued or Refused)
    pub fn push(&mut self, now: Time, pushes: &[Push<'_>]) { todo!() }
    pub fn close(&mut self, now: Time, flow: FlowId, how: CloseHow) -> Result<(), PushError> { todo!() }
    /// Fires due timers and moves the clock hand.
    pub fn tick(&mut self, now: Time) { todo!() }
    /// When tick wants to be called next.
    pub fn next_deadline(&self) -> Option<Time> { todo!() }
    /// Hands out frames that passed the gate, in order, until `send` answers false (that frame is kept).
    pub fn transmit(&mut self, send: impl FnMut(&[u8]) -> bool) { todo!() }
    pub fn has_frames(&self) -> bool { todo!() }
    pub fn drain_notices(&mut self, take: impl FnMut(Notice)) { todo!() }
    /// No new connections from now on: SYNs are refused by RST
    pub fn refuse_new(&mut self) { todo!() }
    pub fn flow(&self, now: Time, id: FlowId) -> Option<FlowView> { todo!() }
    /// Live flows from `slot` on: calls `take` until it answers false; returns the slot to go on from.
    pub fn flows(&self, now: Time, from_slot: u32, take: impl FnMut(FlowView) -> bool) -> Option<u32> { todo!() }
    pub fn stats(&self) -> Stats { todo!() }
    pub fn rule_count(&self, rule: Rule) -> u64 { todo!() }
    /// Offered each commit point: for fault injection
    pub fn set_interrupt(&mut self, interrupt: Option<Box<dyn FnMut(CommitPoint) + Send>>) { todo!() }
    /// Gives up everything that can be rebuilt and returns the state as a killed process would leave it.
    pub fn into_storage(self) -> Storage { todo!() }
    pub fn service(&self) -> &S { &self.service }
    pub fn service_mut(&mut self) -> &mut S { &mut self.service }
}
pub(crate) struct Batch;
impl Batch {
 fn push_room(&mut self, flow: FlowId) -> usize { todo!() }
 fn push_from_service(&mut self, flow: FlowId, bytes: &[u8]) -> Result<Ticket, PushError> { todo!() }
 fn close(&mut self, flow: FlowId, how: CloseHow) -> Result<(), PushError> { todo!() }
 fn word(&mut self, flow: FlowId) -> Option<u64> { todo!() }
 fn set_word(&mut self, flow: FlowId, word: u64) { todo!() }
}
