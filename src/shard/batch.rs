//! The open batch: copies of what it changes, and what may be done to them.
//!
//! In: segments, pushes, closes, expired timers. They step the copies; the tables stay as they are until the batch is
//! committed (see `commit`). What is written to the tables before that is only what nothing committed names: payload in
//! free blocks, new active blocks and addresses of peers, the key of a free flow slot.
//!
//! Invariant: a slot, span or block that the batch gives up is not used again before the batch is applied.

use super::BATCH_MAX;
use super::commit::Interrupt;
use super::copies::{Copies, TOUCHED_MAX};
use super::gate::Gate;
use super::tables::Tables;
use super::types::PushError;
use crate::flows::{FlowId, LoggedLine};
use crate::tcp::{self, Active, Offer, Outgoing, Place, Repair, Reply, Time, Timestamps};
use crate::wire::{self, Addressing};

/// See the module.
pub(super) struct Batch {
    pub tables: Tables,
    pub gate: Gate,
    pub number: u64,
    pub now: Time,
    pub touched: Copies,
    pub repairs: Vec<Repair>,
    /// Lines of records beside flows and active blocks that the batch changes.
    pub changes: Vec<LoggedLine>,
    /// Flows that were aborted and are still to be ended.
    pub aborted: Vec<usize>,
    pub freed_flows: Vec<u32>,
    pub freed_actives: Vec<u32>,
    pub freed_repairs: Vec<u32>,
    pub freed_peers: Vec<u32>,
    /// SYNs accepted in this batch, on top of the committed half-open connections.
    pub half_open_new: u32,
    pub interrupt: Option<Interrupt>,
}

impl Batch {
    /// Over tables, with no batch open.
    pub fn new(tables: Tables) -> Batch {
        Batch {
            number: tables.storage.head().applied,
            tables,
            gate: Gate::default(),
            now: Time(0),
            touched: Copies::default(),
            repairs: Vec::new(),
            changes: Vec::new(),
            aborted: Vec::new(),
            freed_flows: Vec::new(),
            freed_actives: Vec::new(),
            freed_repairs: Vec::new(),
            freed_peers: Vec::new(),
            half_open_new: 0,
            interrupt: None,
        }
    }

    /// Opens a batch.
    pub fn begin(&mut self, now: Time) {
        assert!(self.touched.is_empty() && self.changes.is_empty(), "a batch is committed before the next is opened");
        self.number += 1;
        self.now = now;
        self.half_open_new = 0;
        self.tables.trace_batch();
    }

    /// The batch's copy of a flow. Panics beyond `TOUCHED_MAX`; see `has_room`.
    pub fn touch(&mut self, slot: u32) -> usize {
        let position = match self.touched.find(slot) {
            Some(position) => position,
            None => self.copy(slot),
        };
        self.tables.trace_flow(position);
        position
    }

    fn copy(&mut self, slot: u32) -> usize {
        let position = self.touched.add(slot);
        let touched = &mut self.touched[position];
        touched.flow = self.tables.storage.flows.records()[slot as usize];
        touched.active_index = touched.flow.active();
        match touched.active_index {
            Some(index) => touched.active = self.tables.storage.actives.records()[index as usize],
            None => touched.active = Active::quiet(slot, &touched.flow),
        }
        touched.offset_timestamps(&self.tables);
        if let Some(index) = touched.active_index.and(touched.active.repair()) {
            self.touched[position].repair = Some(self.copy_repair(index));
        }
        position
    }

    /// Whether one more flow may be touched for the service or a push; there is always room left for a
    /// batch of frames, each of which may end one connection and open another.
    pub fn has_room(&self) -> bool {
        self.touched.len() < TOUCHED_MAX - 2 * BATCH_MAX
    }

    /// Whether a touched flow is a connection, and not about to end.
    pub fn is_live(&self, position: usize) -> bool {
        self.touched[position].flow.is_live()
    }

    /// Whether received bytes of a touched flow may be offered to the service.
    pub fn has_unconsumed(&self, position: usize) -> bool {
        let touched = &self.touched[position];
        touched.flow.is_live() && touched.active.recv_bytes > 0 && !touched.flow.is_paused()
    }

    /// What we offer to the peer of a touched flow.
    pub fn offer(&self, position: usize) -> Offer {
        self.tables.offer(self.touched[position].flow.local_index())
    }

    /// Makes sure that the flow has an active block. Returns false where none is free.
    #[inline]
    pub fn borrow_active(&mut self, position: usize) -> bool {
        let touched = &mut self.touched[position];
        if touched.active_index.is_none() {
            touched.active_index = self.tables.active_slots.take_lowest();
            touched.is_active_new = touched.active_index.is_some();
        }
        touched.active_index.is_some()
    }

    /// The id of a touched flow.
    pub fn id(&self, position: usize) -> FlowId {
        let touched = &self.touched[position];
        self.tables.id_of(touched.slot, &touched.flow)
    }

    /// The position of the connection with this id, touched by now.
    pub fn position_of(&mut self, id: FlowId) -> Result<usize, PushError> {
        let end = self.tables.storage.head().flows_end;
        if id.shard() != self.tables.config.shard || id.slot() >= end {
            return Err(PushError::Unknown);
        }
        if !self.has_room() && self.touched.find(id.slot()).is_none() {
            return Err(PushError::ShardFull);
        }
        let position = self.touch(id.slot());
        let flow = &self.touched[position].flow;
        if flow.generation() == id.generation() && flow.is_live() {
            return Ok(position);
        }
        // Generations only grow; one that the slot has not reached was never given out.
        let is_past = id.generation() < flow.generation();
        Err(if is_past { PushError::Gone } else { PushError::Unknown })
    }

    /// Sends a segment of a touched flow.
    pub fn emit(&mut self, position: usize, mut outgoing: Outgoing) {
        let mut place = Place::head(&self.touched[position].active);
        self.emit_from(position, &mut outgoing, &mut place);
    }

    /// Sends one whose payload is found from a place of the send queue on.
    #[inline]
    pub fn emit_from(&mut self, position: usize, outgoing: &mut Outgoing, place: &mut Place) {
        let touched = &self.touched[position];
        let hop = self.tables.next_hop(touched.flow.next_hop);
        if hop.is_known == 0 {
            return;
        }
        let ends = Addressing {
            source_mac: self.tables.config.mac,
            destination_mac: hop.mac,
            local: self.tables.local(touched.flow.local_index()),
            remote: self.tables.remote(&touched.flow),
            local_port: touched.flow.local_port,
            remote_port: touched.flow.remote_port,
            ttl: self.tables.config.ttl,
            dscp: touched.flow.dscp(),
        };
        let payload = &self.tables.storage.payload;
        let value = self.now.wrapping_ms().wrapping_add(touched.ts_offset);
        outgoing.timestamps =
            touched.flow.has_timestamps().then_some(Timestamps { value, echo: touched.flow.ts_recent });
        self.gate.put_frame(self.number, |out| {
            wire::emit_tcp(out, &ends, outgoing, |out| {
                let (seq, bytes) = (outgoing.seq, outgoing.payload_bytes);
                tcp::gather(&touched.active, payload, place, seq, bytes, |block, offset, bytes| {
                    out.extend_from_slice(payload.piece(block, offset, bytes));
                });
            });
        });
        self.count_frame(Some(position));
    }

    /// Sends the control segment that effects ask for, on a touched flow.
    pub fn reply(&mut self, position: usize, reply: Reply) {
        let offer = self.offer(position);
        let outgoing = match reply {
            Reply::None => return,
            Reply::Ack => {
                let (flow, active, repair) = self.parts(position);
                tcp::immediate_ack(flow, active, repair, offer)
            }
            Reply::Reset { .. } | Reply::ResetAck { .. } => match reset_of(reply) {
                Some(outgoing) => outgoing,
                None => return,
            },
        };
        self.emit(position, outgoing);
    }
}

/// The RST that a reply asks for.
pub(super) fn reset_of(reply: Reply) -> Option<Outgoing> {
    use tcp::{Control, SeqNum};
    match reply {
        Reply::None | Reply::Ack => None,
        Reply::Reset { seq } => Some(Outgoing::bare(seq, SeqNum(0), Control::RST, 0)),
        Reply::ResetAck { ack } => Some(Outgoing::bare(SeqNum(0), ack, Control::RST.with(Control::ACK), 0)),
    }
}
