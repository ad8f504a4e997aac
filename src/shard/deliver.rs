//! What a step means for the service: connections, bytes, receipts, ends.
//!
//! The service is called inside the open batch and may push, close or attach meanwhile. A connection that it aborts
//! ends when it returns, so that nothing ends under its feet.

use super::Shard;
use super::batch::Batch;
use super::copies::Touched;
use super::service::{Context, Service};
use super::types::{Notice, Ticket};
use crate::flows::FlowId;
use crate::tcp::{self, CloseReason, Flow, Payload, Rule, SeqNum, SoftError, State};

impl<S: Service> Shard<S> {
    /// Calls the service, then ends the connections that it aborted.
    pub(super) fn tell(&mut self, call: impl FnOnce(&mut S, &mut Context<'_>)) {
        call(&mut self.service, &mut Context { batch: &mut self.batch });
        self.end_aborted();
    }

    /// Ends the connections that were aborted in this batch.
    pub(super) fn end_aborted(&mut self) {
        while let Some(position) = self.batch.aborted.pop() {
            self.close_flow(position, CloseReason::Aborted);
        }
    }

    pub(super) fn open_flow(&mut self, position: usize) {
        let id = self.batch.id(position);
        let (local, remote) = self.batch.tables.ends_of(&self.batch.touched[position].flow);
        self.batch.put_notice(Notice::Opened { flow: id, local, remote });
        self.tell(|service, context| service.opened(context, id));
    }

    /// Releases what was acknowledged and tells of the pushes that end there.
    pub(super) fn release_acknowledged(&mut self, position: usize) {
        if !self.batch.is_live(position) {
            return;
        }
        let flow = self.batch.id(position);
        let mut tickets = std::mem::take(&mut self.tickets);
        let touched = &mut self.batch.touched[position];
        tcp::release_acknowledged(&mut touched.active, &mut self.batch.tables.storage.payload, |ticket| {
            tickets.push(Ticket(ticket));
        });
        for ticket in tickets.drain(..) {
            self.batch.count_for_job(ticket, |job| job.delivered += 1);
            self.batch.put_notice(Notice::Delivered { flow, ticket });
            if self.batch.is_live(position) {
                self.tell(|service, context| service.delivered(context, flow, ticket));
            }
        }
        self.tickets = tickets;
    }

    /// Offers in-order payload to the service, stores what it leaves, and takes the FIN behind it.
    pub(super) fn take_payload(&mut self, position: usize, payload: &[u8], has_fin: bool) {
        let now = self.batch.now;
        if !self.batch.is_live(position) {
            return;
        }
        let touched = &self.batch.touched[position];
        let mut consumed = 0;
        if !payload.is_empty() && touched.active.recv_bytes == 0 && !touched.flow.is_paused() {
            let id = self.batch.id(position);
            let offset = touched.flow.rcv_nxt.since(touched.flow.irs).wrapping_sub(1);
            consumed = self.offer_bytes(id, offset, payload);
            if !self.batch.is_live(position) {
                return;
            }
        }
        let taken = consumed + self.batch.store_received(position, &payload[consumed..]);
        let offer = self.batch.offer(position);
        let touched = &mut self.batch.touched[position];
        let payload = Payload { offered: payload.len() as u32, taken: taken as u32, has_fin };
        let rule = tcp::on_payload(&mut touched.flow, &mut touched.active, payload, offer, now);
        self.batch.tables.count(rule);
        if self.batch.touched[position].repair.is_some() {
            self.take_held(position);
            return;
        }
        if rule == Rule::FinAccepted && self.batch.touched[position].active.recv_bytes == 0 {
            self.tell_peer_closed(position);
        }
    }

    /// What was held beyond a gap and is in order now goes the way of what came in order.
    fn take_held(&mut self, position: usize) {
        let (now, offer) = (self.batch.now, self.batch.offer(position));
        let Batch { touched, repairs, tables, .. } = &mut self.batch;
        let Touched { flow, active, repair, .. } = &mut touched[position];
        let Some(borrowed) = *repair else { return };
        let repair = &mut repairs[borrowed.position];
        if flow.has_peer_fin() {
            // Whatever lies behind a FIN is not the peer's, or the peer contradicts itself.
            repair.release_held(&mut tables.storage.payload);
        } else {
            repair.release_overtaken(flow.rcv_nxt, &mut tables.storage.payload);
        }
        while let Some(range) = repair.take_in_order(flow.rcv_nxt, &tables.storage.payload) {
            tcp::append_chain_to_recv_queue(active, &mut tables.storage.payload, range.head, range.tail);
            let bytes = range.end.since(range.start);
            let payload = Payload { offered: bytes, taken: bytes, has_fin: false };
            tables.count(tcp::on_payload(flow, active, payload, offer, now));
            active.owe_ack();
        }
        if !flow.has_peer_fin() && repair.take_fin(flow.rcv_nxt) {
            let payload = Payload { offered: 0, taken: 0, has_fin: true };
            tables.count(tcp::on_payload(flow, active, payload, offer, now));
            repair.release_held(&mut tables.storage.payload);
        }
        active.end_gap();
        if repair.is_holding() {
            active.await_gap(now);
        }
        let (has_bytes, has_fin) = (active.recv_bytes > 0, flow.has_peer_fin());
        if has_bytes {
            self.offer_again(position);
        } else if has_fin {
            self.tell_peer_closed(position);
        }
    }

    /// Offers bytes that begin at `offset` of the peer's stream. Returns how many the service consumed.
    fn offer_bytes(&mut self, flow: FlowId, offset: u32, bytes: &[u8]) -> usize {
        let consumed = self.service.received(&mut Context { batch: &mut self.batch }, flow, bytes);
        assert!(consumed <= bytes.len(), "a service consumes no more than it was offered");
        let reported = consumed.min(self.batch.tables.config.report_received_bytes as usize);
        if reported > 0 {
            let bytes = bytes[..reported].into();
            self.batch.put_notice(Notice::Received { flow, offset, bytes });
        }
        // What was received is told before the end of a connection that the service has aborted meanwhile.
        self.end_aborted();
        consumed
    }

    /// Offers what waits in the receive queue once more.
    pub(super) fn offer_again(&mut self, position: usize) {
        let offer = self.batch.offer(position);
        let mut piece = std::mem::take(&mut self.piece);
        while self.batch.has_unconsumed(position) {
            let touched = &self.batch.touched[position];
            let (flow, active) = (&touched.flow, &touched.active);
            let payload = &self.batch.tables.storage.payload;
            let span = tcp::Spans::span(payload, active.recv_head);
            piece.clear();
            piece.extend_from_slice(payload.bytes(&span, active.recv_head_offset));
            let peer_fin = u32::from(flow.has_peer_fin());
            let offset = flow.rcv_nxt.since(flow.irs).wrapping_sub(1 + peer_fin + active.recv_bytes);
            let consumed = self.offer_bytes(self.batch.id(position), offset, &piece);
            if consumed == 0 || !self.batch.is_live(position) {
                break;
            }
            let touched = &mut self.batch.touched[position];
            tcp::consume_recv_queue(&mut touched.active, &mut self.batch.tables.storage.payload, consumed as u32);
            if touched.active.recv_bytes == 0 && touched.flow.has_peer_fin() {
                self.tell_peer_closed(position);
            }
        }
        self.piece = piece;
        let touched = &mut self.batch.touched[position];
        if touched.flow.is_live() && tcp::is_window_update_due(&touched.flow, &touched.active, offer) {
            touched.active.owe_ack();
        }
    }

    pub(super) fn tell_urgent(&mut self, position: usize, up: SeqNum) {
        if !self.batch.is_live(position) {
            return;
        }
        let flow = self.batch.id(position);
        let end = up.since(self.batch.touched[position].flow.irs).wrapping_sub(1);
        self.batch.tables.count(Rule::UrgentAnnounced);
        self.batch.put_notice(Notice::Urgent { flow, end });
        self.tell(|service, context| service.urgent(context, flow, end));
    }

    /// Tells of trouble, and has the way to the peer looked for again (MUST-20).
    pub(super) fn tell_soft_error(&mut self, position: usize, error: SoftError) {
        let id = self.batch.id(position);
        let flow = self.batch.touched[position].flow;
        if is_known(&flow) {
            self.batch.put_notice(Notice::SoftError { flow: id, error });
        }
        self.batch.doubt_next_hop(id, &flow);
    }

    fn tell_peer_closed(&mut self, position: usize) {
        let id = self.batch.id(position);
        self.batch.put_notice(Notice::PeerClosed { flow: id });
        self.tell(|service, context| service.peer_closed(context, id));
    }

    /// Ends a connection and tells whoever knows of it: of the pushes that it takes with it, and of the end.
    pub(super) fn close_flow(&mut self, position: usize, reason: CloseReason) {
        if !self.batch.is_live(position) {
            return;
        }
        let flow = self.batch.id(position);
        if is_known(&self.batch.touched[position].flow) {
            self.batch.tell_undelivered(position);
            self.batch.put_notice(Notice::Closed { flow, reason });
            // It counts as aborted from here on, so that an abort by the service sends no RST.
            self.batch.aborted.push(position);
            self.service.closed(&mut Context { batch: &mut self.batch }, flow, reason);
        }
        self.batch.aborted.retain(|&aborted| aborted != position);
        self.batch.end_flow(position);
        self.end_aborted();
    }
}

/// Whether the application knows of a connection: of one that a peer has begun not before it is open.
fn is_known(flow: &Flow) -> bool {
    flow.state() != State::SynReceived || flow.is_active_open()
}

impl Batch {
    /// Tells of the pushes that a connection takes with it.
    fn tell_undelivered(&mut self, position: usize) {
        let flow = self.id(position);
        let mut lost = Vec::new();
        let payload = &self.tables.storage.payload;
        tcp::for_each_pending_push(&self.touched[position].active, payload, |ticket, acked_bytes| {
            lost.push((Ticket(ticket), acked_bytes));
        });
        for (ticket, acked_bytes) in lost {
            self.count_for_job(ticket, |job| job.lost += 1);
            self.put_notice(Notice::Undelivered { flow, ticket, acked_bytes });
        }
    }
}
