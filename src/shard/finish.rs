//! The end of a batch for its flows: each sends what it may, and gives back what it has no more need of.
//!
//! In: the batch's copies, stepped. Out: frames in the gate, and copies as they are to be committed.

use super::batch::Batch;
use super::repairs::Borrowed;
use super::types::{Notice, Ticket};
use crate::tcp::{self, Place, Reply, Rule};

impl Batch {
    /// Sends what each touched flow may send now, and gives back the active blocks of those that fell quiet.
    pub fn finish_flows(&mut self) {
        self.tables.trace_frame(None);
        for position in 0..self.touched.len() {
            self.tables.trace_flow(position);
            let touched = &mut self.touched[position];
            if !touched.flow.is_live() {
                continue;
            }
            let mut is_needed = touched.active.is_needed(&touched.flow);
            if !is_needed && !touched.active.is_ack_owed() {
                self.rest(position);
                continue;
            }
            if touched.active_index.is_none() && self.tables.active_slots.free() == 0 {
                touched.active.hurry_ack();
                is_needed = touched.active.is_needed(&touched.flow);
            }
            if is_needed && !self.borrow_active(position) {
                // Only a FIN can want a block that nobody has asked for: it waits for the clock hand.
                self.tables.await_clock_hand();
                if self.touched[position].active.is_ack_owed() {
                    self.reply(position, Reply::Ack);
                }
                continue;
            }
            if self.touched[position].active.may_expire() {
                self.drop_expired(position);
            }
            let touched = &self.touched[position];
            if touched.active.wants_repair(&touched.flow) {
                self.borrow_repair(position);
            }
            self.send_all(position);
            self.settle(position);
        }
    }

    /// Drops the pushes of a flow that are too old.
    fn drop_expired(&mut self, position: usize) {
        let flow = self.id(position);
        let mut dropped = Vec::new();
        let touched = &mut self.touched[position];
        let payload = &mut self.tables.storage.payload;
        tcp::drop_expired(&mut touched.active, touched.flow.snd_nxt, payload, self.now, |ticket| dropped.push(ticket));
        for ticket in dropped {
            self.tables.count(Rule::PushExpired);
            if ticket != Ticket::NONE.0 {
                self.count_for_job(Ticket(ticket), |job| job.lost += 1);
                self.put_notice(Notice::Expired { flow, ticket: Ticket(ticket) });
            }
        }
    }

    fn send_all(&mut self, position: usize) {
        let (offer, now) = (self.offer(position), self.now);
        let mut place = Place::head(&self.touched[position].active);
        loop {
            let (flow, active, repair) = self.parts(position);
            let Some(mut outgoing) = tcp::poll_segment(flow, active, repair, offer, now) else { return };
            self.emit_from(position, &mut outgoing, &mut place);
        }
    }

    #[inline]
    fn settle(&mut self, position: usize) {
        let touched = &self.touched[position];
        if let Some(borrowed) = touched.repair
            && self.repairs[borrowed.position].is_idle()
            && !touched.active.wants_repair(&touched.flow)
        {
            self.return_repair(position);
        }
        let touched = &mut self.touched[position];
        if touched.active.is_quiet(&touched.flow) {
            self.rest(position);
            return;
        }
        let index = touched.active_index.expect("whoever made the flow busy borrowed a block");
        if let Some(Borrowed { index, position, is_new: true }) = touched.repair {
            self.tables.storage.repairs.touch(index);
            self.tables.storage.repairs.records_mut()[index as usize] = self.repairs[position];
        }
        touched.flow.set_active(index);
        if touched.is_active_new {
            self.tables.storage.actives.touch(index);
            self.tables.storage.actives.records_mut()[index as usize] = touched.active;
        }
    }

    /// The flow is quiet: it gives back its active block and remembers what that knew of the path.
    #[inline]
    fn rest(&mut self, position: usize) {
        let touched = &mut self.touched[position];
        if let Some(index) = touched.active_index.take() {
            self.freed_actives.push(index);
            touched.is_active_new = false;
        }
        // Also of a connection that never borrowed one, as a cookie has opened it in this batch.
        let memory = touched.active.path_memory(&touched.flow);
        touched.flow.set_path_memory(memory);
    }
}
