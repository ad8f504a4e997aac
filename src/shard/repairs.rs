//! Repair blocks in the open batch: borrowed, given back, and filled with what came beyond a gap.
//!
//! A touched flow that has one has a copy of it in the batch, as it has of its active block.

use super::batch::Batch;
use super::copies::Touched;
use crate::tcp::{Active, Flow, Held, Repair, Rule, SeqNum};

/// A repair block that a touched flow has borrowed.
#[derive(Clone, Copy)]
pub(super) struct Borrowed {
    pub index: u32,
    /// Where in the batch its copy is.
    pub position: usize,
    /// Whether this batch borrowed it.
    pub is_new: bool,
}

impl Batch {
    pub fn copy_repair(&mut self, index: u32) -> Borrowed {
        self.repairs.push(self.tables.storage.repairs.records()[index as usize]);
        Borrowed { index, position: self.repairs.len() - 1, is_new: false }
    }

    /// Lets the flow have a repair block, if one is to be had, and an active block too.
    pub fn borrow_repair(&mut self, position: usize) {
        if self.touched[position].repair.is_some() || !self.borrow_active(position) {
            return;
        }
        let touched = &mut self.touched[position];
        let index = touched.active_index.expect("it was borrowed just now");
        let Some(repair_index) = self.tables.repair_slots.take_lowest() else { return };
        self.repairs.push(Repair::begin(index, &touched.flow, &touched.active, self.now));
        touched.active.set_repair(Some(repair_index));
        touched.repair = Some(Borrowed { index: repair_index, position: self.repairs.len() - 1, is_new: true });
    }

    /// The flow gives its repair block back.
    pub fn return_repair(&mut self, position: usize) {
        let touched = &mut self.touched[position];
        if let Some(borrowed) = touched.repair.take() {
            self.freed_repairs.push(borrowed.index);
            touched.active.set_repair(None);
            touched.active.end_gap();
            touched.active.resend_nxt = touched.active.resend_nxt.later_of(touched.active.snd_una);
        }
    }

    /// A touched flow, its active block, and its repair block if it has one.
    pub fn parts(&mut self, position: usize) -> (&mut Flow, &mut Active, Option<&mut Repair>) {
        let Touched { flow, active, repair, .. } = &mut self.touched[position];
        (flow, active, repair.map(|borrowed| &mut self.repairs[borrowed.position]))
    }

    /// Keeps what came beyond a gap, as far as there is room and it is not there already.
    pub fn hold(&mut self, position: usize, seq: SeqNum, bytes: &[u8], has_fin: bool) {
        let touched = &mut self.touched[position];
        let Some(borrowed) = touched.repair.filter(|_| touched.flow.is_live()) else { return };
        let repair = &mut self.repairs[borrowed.position];
        let payload = &mut self.tables.storage.payload;
        let end = seq.plus(bytes.len() as u32);
        if !bytes.is_empty() && repair.first_missing(seq, end).is_none() {
            repair.note_duplicate(&touched.flow, seq, end);
        }
        let mut next = seq;
        let mut is_held = false;
        while let Some((from, to)) = repair.first_missing(next, end) {
            let piece = &bytes[from.since(seq) as usize..to.since(seq) as usize];
            let tail_before = repair.tail_before(from);
            let stored = repair.has_room_for_piece().then(|| payload.store_held(piece, tail_before)).flatten();
            let Some((head, tail)) = stored else { break };
            if !repair.hold(Held { start: from, end: to, head, tail }, payload) {
                payload.release_queue(head, tail);
                break;
            }
            is_held = true;
            next = to;
        }
        if has_fin && repair.first_missing(seq, end).is_none() {
            repair.hold_fin(end);
        }
        if repair.is_holding() {
            touched.active.await_gap(self.now);
        }
        if is_held {
            self.tables.count(Rule::PayloadHeld);
        }
    }

    /// The peer has not filled the gap: what is held behind it is given up, and the block it is held by.
    pub fn give_up_held(&mut self, position: usize) {
        let touched = &mut self.touched[position];
        touched.active.end_gap();
        if let Some(borrowed) = touched.repair {
            self.repairs[borrowed.position].release_held(&mut self.tables.storage.payload);
        }
        self.tables.count(Rule::HeldGivenUp);
    }
}
