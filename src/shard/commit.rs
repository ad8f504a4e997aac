//! Commit: record, apply, gate.
//!
//! ```text
//! head.begun = n   lines into the log   head.completed = n   lines into the arenas   head.applied = n   gate opens
//! -----------------------------------------|----------------------------------------------------------------------
//!   killed here: the record is discarded   |   killed here: the record is applied again, which changes nothing twice
//! ```
//!
//! A record is the after-image of every line that the batch changed. Without a log there is nobody to read it and the
//! lines go straight to the arenas.
//!
//! Invariant: nothing of a batch is let out before all of it is applied.

use std::sync::atomic::{Ordering, compiler_fence};

use super::batch::Batch;
use super::copies::Touched;
use super::repairs::Borrowed;
use super::tables::Tables;
use crate::flows::{Line, Logged, LoggedLine, RECORD_LINES_MAX, Storage, lines_of};
use crate::tcp::{Flow, Keepalive, Repair};

/// Where in the commit of a batch an interrupt is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::EnumIter, strum::EnumString, strum::IntoStaticStr)]
pub enum CommitPoint {
    /// Everything is stepped, nothing recorded.
    BeforeRecord,
    /// Half of the record is written.
    WithinRecord,
    /// The record is complete, nothing applied.
    BeforeApply,
    /// Half of the record is applied.
    WithinApply,
    /// All is applied, nothing let out.
    BeforeGate,
}

/// Called at each commit point; it may end the process, or unwind.
pub type Interrupt = Box<dyn FnMut(CommitPoint) + Send>;

impl Batch {
    /// Commits the open batch.
    pub fn commit(&mut self) {
        self.finish_flows();
        self.offer_interrupt(CommitPoint::BeforeRecord);
        self.tables.storage.head_mut().time_us = self.now.0;
        if self.tables.storage.log.is_some() {
            self.record();
        }
        self.offer_interrupt(CommitPoint::BeforeApply);
        self.apply();
        self.reclaim();
        self.offer_interrupt(CommitPoint::BeforeGate);
        self.gate.open_up_to(self.number);
    }

    fn offer_interrupt(&mut self, point: CommitPoint) {
        if let Some(interrupt) = &mut self.interrupt {
            interrupt(point);
        }
    }

    fn record(&mut self) {
        let storage = &mut self.tables.storage;
        storage.head_mut().begun = self.number;
        compiler_fence(Ordering::SeqCst);
        let mut count = 0;
        for position in 0..self.touched.len() {
            if position == self.touched.len() / 2 {
                self.offer_interrupt(CommitPoint::WithinRecord);
            }
            let storage = &mut self.tables.storage;
            let mut log = storage.log.take().expect("a record is made where there is a log");
            let touched = &self.touched[position];
            let repair = touched.repair.map(|borrowed| (borrowed, &self.repairs[borrowed.position]));
            for_each_changed_line(touched, repair, storage, |arena, line, image| {
                assert!(count < RECORD_LINES_MAX, "a batch touches fewer flows than fill the log");
                log.records_mut()[count as usize] =
                    LoggedLine { arena: arena as u32, line, image: bytemuck::cast(*image) };
                count += 1;
            });
            storage.log = Some(log);
        }
        let log = self.tables.storage.log.as_mut().expect("a record is made where there is a log").records_mut();
        let end = count as usize + self.changes.len();
        assert!(end <= RECORD_LINES_MAX as usize, "a batch changes fewer records than fill the log");
        log[count as usize..end].copy_from_slice(&self.changes);
        let head = self.tables.storage.head_mut();
        head.lines = end as u32;
        compiler_fence(Ordering::SeqCst);
        head.completed = self.number;
        compiler_fence(Ordering::SeqCst);
    }

    fn apply(&mut self) {
        for position in 0..self.touched.len() {
            if position == self.touched.len() / 2 {
                self.offer_interrupt(CommitPoint::WithinApply);
            }
            let Touched { slot, flow, active, active_index, is_active_new, repair, ts_offset: _ } =
                &self.touched[position];
            let storage = &mut self.tables.storage;
            let old = &mut storage.flows.records_mut()[*slot as usize];
            self.tables.has_kept_alive |= flow.keepalive() == Keepalive::On;
            let before = std::mem::replace(old, *flow);
            if before.state() != flow.state() || before.next_hop != flow.next_hop {
                self.tables.follow(&before, flow);
            }
            let storage = &mut self.tables.storage;
            if let Some(Borrowed { index, position, is_new: false }) = *repair {
                storage.repairs.records_mut()[index as usize] = self.repairs[position];
            }
            if let Some(index) = *active_index {
                if !is_active_new {
                    storage.actives.records_mut()[index as usize] = *active;
                }
                if let Some(deadline_ms) = active.next_deadline(self.now) {
                    self.tables.wheel.enter(index, deadline_ms);
                }
            }
        }
        self.tables.hops.in_batch.clear();
        for change in &self.changes {
            let arena = Logged::from_repr(change.arena).expect("the batch made this line");
            self.tables.storage.lines_mut(arena)[change.line as usize] = bytemuck::cast(change.image);
        }
        compiler_fence(Ordering::SeqCst);
        self.tables.storage.head_mut().applied = self.number;
    }

    /// Forgets the copies, and what the batch has given up may be used again.
    fn reclaim(&mut self) {
        self.freed_flows.drain(..).for_each(|slot| self.tables.flow_slots.give_back(slot));
        self.freed_actives.drain(..).for_each(|index| self.tables.active_slots.give_back(index));
        self.freed_repairs.drain(..).for_each(|index| self.tables.repair_slots.give_back(index));
        self.freed_peers.drain(..).for_each(|index| self.tables.peer_slots.give_back(index));
        self.tables.storage.payload.reclaim();
        self.touched.clear();
        self.repairs.clear();
        self.changes.clear();
    }
}

impl Tables {
    /// A record is committed in the place of another: the counts follow.
    fn follow(&mut self, before: &Flow, after: &Flow) {
        let count = &mut self.states[before.state() as usize];
        *count = count.saturating_sub(u32::from(before.is_live()));
        self.states[after.state() as usize] += u32::from(after.is_live());
        let hop_of = |flow: &Flow| flow.is_live().then_some(flow.next_hop);
        self.follow_hop(hop_of(before), hop_of(after));
    }
}

/// Calls `take` with each line of the committed state that the batch's copies differ from.
fn for_each_changed_line(
    touched: &Touched,
    repair: Option<(Borrowed, &Repair)>,
    storage: &Storage,
    mut take: impl FnMut(Logged, u32, &Line),
) {
    let mut compare = |arena, index: u32, images: &[Line]| {
        let first = index as usize * images.len();
        let lines = &storage.lines(arena)[first..first + images.len()];
        for (line, image) in (first..).zip(images).filter(|(line, image)| lines[line - first] != **image) {
            take(arena, line as u32, image);
        }
    };
    compare(Logged::Flows, touched.slot, lines_of(&touched.flow));
    // An active block that the batch has borrowed was written where it belongs: no committed flow names it yet.
    if let (Some(index), false) = (touched.active_index, touched.is_active_new) {
        compare(Logged::Actives, index, lines_of(&touched.active));
    }
    // And so was a repair block.
    if let Some((Borrowed { index, is_new: false, .. }, repair)) = repair {
        compare(Logged::Repairs, index, lines_of(repair));
    }
}

/// What a start found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LogEnd {
    /// Every record was applied.
    Clean,
    /// The last record was not complete; it is as if its batch had never been.
    Discarded,
    /// The last record was complete and is applied now.
    AppliedAgain,
}

/// Brings the arenas to the end of the last complete record. Errors say what is impossible in the log.
pub(super) fn recover(storage: &mut Storage) -> Result<LogEnd, String> {
    let head = *storage.head();
    if head.completed == head.applied {
        storage.head_mut().begun = head.applied;
        return Ok(if head.begun == head.applied { LogEnd::Clean } else { LogEnd::Discarded });
    }
    if head.completed != head.applied + 1 || head.begun != head.completed || head.lines > RECORD_LINES_MAX {
        return Err(format!("record {} is complete but {} was applied last", head.completed, head.applied));
    }
    for position in 0..head.lines as usize {
        let logged = storage.log.as_ref().ok_or("a record without a log")?.records()[position];
        let arena = Logged::from_repr(logged.arena).ok_or_else(|| format!("an arena of number {}", logged.arena))?;
        let line = storage.lines_mut(arena).get_mut(logged.line as usize);
        *line.ok_or_else(|| format!("a record of line {} in {arena:?}", logged.line))? = bytemuck::cast(logged.image);
    }
    compiler_fence(Ordering::SeqCst);
    storage.head_mut().applied = head.completed;
    Ok(LogEnd::AppliedAgain)
}
