//! Broadcasts: one payload on its way through the table of flows.
//!
//! The payload is stored once; each push names its blocks. A job's cursor is committed together with the pushes that it
//! has passed, so a broadcast that a killed process was in the middle of goes on and reaches nobody twice. It reaches
//! the connections that are open when the cursor passes their slot.

use super::batch::Batch;
use super::service::Service;
use super::types::{Broadcast, JobId, JobView, PushError, Ticket};
use super::{BATCH_MAX, Shard};
use crate::flows::{JOBS_MAX, Job, JobState, Label, Logged, PREFIX_BYTES_MAX};
use crate::tcp::{self, NO_SPAN, Rule, Time};
use bytemuck::Zeroable;

/// Batches of pushes in one tick: between them frames are received.
const BATCHES_PER_TICK: u32 = 4;
/// Slots that one batch looks at, whatever it finds.
const SLOTS_PER_BATCH: u32 = 4_096;
/// Bytes of frames that wait for the link, beyond which no job goes on.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long a job waits when there is no room.
const RETRY_MS: u64 = 5;

/// What is known of jobs beside their records, rebuilt at each start.
#[derive(Default)]
pub(super) struct Jobs {
    /// When each running one goes on.
    pub times: [Option<Time>; JOBS_MAX as usize],
    /// The tickets of their pushes; 0 for none.
    tickets: [u64; JOBS_MAX as usize],
    /// One past the last that ever had one.
    end: usize,
}

impl Jobs {
    /// When the next one goes on.
    pub fn next(&self) -> Option<Time> {
        self.times.iter().flatten().min().copied()
    }

    /// The pushes of a job have this ticket.
    pub fn set_ticket(&mut self, index: usize, ticket: u64) {
        self.tickets[index] = ticket;
        self.end = self.end.max(index + 1);
    }

    /// The job whose pushes have this ticket.
    fn of_ticket(&self, ticket: Ticket) -> Option<usize> {
        self.tickets[..self.end].iter().position(|&job| job == ticket.0 && job != 0)
    }
}

impl<S: Service> Shard<S> {
    /// Starts a broadcast. Errors: as for a push; `ShardFull` too where so many jobs run already.
    pub fn broadcast(&mut self, now: Time, broadcast: &Broadcast<'_>) -> Result<JobId, PushError> {
        self.in_batch(now, |shard| shard.batch.start_job(broadcast, None, Some(now)))
    }

    /// This shard's part of a broadcast over several shards, which pushes nothing before `release_job`, or a new start:
    /// so that one that another shard refuses can be taken back whole. `id` is what the first shard has answered.
    /// Errors: as for a broadcast.
    pub fn hold_job(&mut self, now: Time, broadcast: &Broadcast<'_>, id: Option<JobId>) -> Result<JobId, PushError> {
        self.in_batch(now, |shard| shard.batch.start_job(broadcast, id, None))
    }

    /// The latest broadcast that it knows of, and those that go on.
    pub fn jobs(&self) -> (Option<JobId>, Vec<JobId>) {
        let known = self.batch.jobs().filter(|(_, job)| job.state() != JobState::Free);
        let running = self.batch.jobs().filter(|(_, job)| job.state() == JobState::Running);
        (known.map(|(_, job)| JobId(job.id)).max(), running.map(|(_, job)| JobId(job.id)).collect())
    }

    /// Lets a broadcast go that was held.
    pub fn release_job(&mut self, now: Time, id: JobId) {
        if let Some((index, _)) = self.batch.running_job(id) {
            self.batch.tables.jobs.times[index as usize].get_or_insert(now);
        }
    }

    /// How a broadcast stands; `None` once it is forgotten for newer ones.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let (_, job) = self.batch.jobs().find(|(_, job)| job.id == id.0 && job.state() != JobState::Free)?;
        Some(JobView {
            id,
            state: job.state(),
            pushed: job.pushed,
            refused: job.refused,
            delivered: job.delivered,
            lost: job.lost,
            cursor: job.cursor,
            total_slots: self.batch.tables.storage.head().flows_end,
        })
    }

    /// Stops a broadcast where it is; what is queued stays queued. Returns whether it was going on.
    pub fn cancel_job(&mut self, now: Time, id: JobId) -> bool {
        self.in_batch(now, |shard| {
            let found = shard.batch.running_job(id);
            if let Some((index, mut job)) = found {
                shard.batch.end_job(index, &mut job, JobState::Cancelled);
            }
            found.is_some()
        })
    }

    /// Moves every job on that is due.
    pub(super) fn drive_jobs(&mut self, now: Time) {
        for index in 0..self.batch.tables.jobs.times.len() {
            for _ in 0..BATCHES_PER_TICK {
                let has_waiting = self.batch.gate.waiting_bytes() > WAITING_BYTES_MAX;
                if has_waiting || self.batch.tables.jobs.times[index].is_none_or(|due| due > now) {
                    break;
                }
                self.in_batch(now, |shard| shard.batch.drive_job(index as u32));
            }
        }
        self.has_untrimmed = true;
    }
}

impl Batch {
    fn start_job(
        &mut self,
        broadcast: &Broadcast<'_>,
        id: Option<JobId>,
        begins: Option<Time>,
    ) -> Result<JobId, PushError> {
        let bytes = broadcast.bytes;
        if bytes.is_empty() {
            return Err(PushError::Empty);
        }
        let is_too_large = bytes.len() > self.tables.config.send_queue_bytes as usize;
        if is_too_large || broadcast.prefix.len() > PREFIX_BYTES_MAX {
            return Err(PushError::TooLarge);
        }
        let newest = self.jobs().map(|(_, job)| job.id).max().unwrap_or(0);
        let is_usable = |job: &Job| job.state() != JobState::Running;
        let oldest = self.jobs().filter(|(_, job)| is_usable(job)).min_by_key(|(_, job)| job.id);
        let (index, _) = oldest.ok_or(PushError::ShardFull)?;
        let (head, tail) = self.tables.storage.payload.store_shared(bytes).ok_or(PushError::ShardFull)?;
        let mut job = Job::zeroed();
        job.id = id.map_or(newest + 1, |id| id.0);
        job.ticket = broadcast.ticket.0;
        job.pace_per_s = broadcast.pace_per_s;
        job.expires_s = self.expiry(broadcast.expires_in_s);
        (job.head, job.tail, job.bytes) = (head, tail, bytes.len() as u32);
        job.set_state(JobState::Running);
        job.set_prefix(broadcast.prefix);
        self.set_job(index, &job);
        self.tables.jobs.times[index as usize] = begins;
        self.tables.jobs.set_ticket(index as usize, job.ticket);
        Ok(JobId(job.id))
    }

    /// Pushes to the next flows of a job: as many as a batch takes, the pace allows and there is room for.
    fn drive_job(&mut self, index: u32) {
        let mut job = self.job(index);
        let end = self.tables.storage.head().flows_end;
        let most = if job.pace_per_s == 0 { BATCH_MAX } else { (job.pace_per_s as usize / 100).clamp(1, BATCH_MAX) };
        let mut pushed = 0;
        let mut is_full = false;
        let stop = end.min(job.cursor.saturating_add(SLOTS_PER_BATCH));
        while job.cursor < stop && pushed < most && !is_full {
            match self.push_job_to(job.cursor, &job) {
                Some(Ok(())) => pushed += 1,
                Some(Err(PushError::ShardFull)) => is_full = true,
                Some(Err(_)) => job.refused += 1,
                None => {}
            }
            job.cursor += u32::from(!is_full);
        }
        job.pushed += pushed as u32;
        if job.cursor >= end {
            self.end_job(index, &mut job, JobState::Done);
            return;
        }
        let pause_us = (pushed as u64 * 1_000_000).checked_div(u64::from(job.pace_per_s)).unwrap_or(0);
        let pause_us = if is_full { pause_us.max(RETRY_MS * 1_000) } else { pause_us };
        self.tables.jobs.times[index as usize] = Some(Time(self.now.0 + pause_us));
        self.set_job(index, &job);
    }

    /// Pushes to the flow in a slot; `None` where there is none that the job is for.
    fn push_job_to(&mut self, slot: u32, job: &Job) -> Option<Result<(), PushError>> {
        let flow = &self.tables.storage.flows.records()[slot as usize];
        let has_prefix = || self.tables.name_at(slot).is_some_and(|name| name.starts_with(job.prefix()));
        if !flow.is_live() || !tcp::is_open_for_push(flow) || !(job.prefix().is_empty() || has_prefix()) {
            return None;
        }
        // Some active blocks are left to everybody else.
        if self.tables.active_slots.free() <= self.tables.active_slots.capacity() / 8 {
            return Some(Err(PushError::ShardFull));
        }
        let position = self.touch(slot);
        let label = Label { ticket: job.ticket, expires_s: job.expires_s };
        let queued = self.queue(position, job.bytes as usize, label, |payload, active| {
            payload.append_shared_to_send(active, job.head, job.tail, label)
        });
        if queued.is_ok() {
            self.tables.count(Rule::PushQueued);
        }
        Some(queued)
    }

    fn end_job(&mut self, index: u32, job: &mut Job, state: JobState) {
        self.tables.storage.payload.release_queue(job.head, job.tail);
        job.head = NO_SPAN;
        job.set_state(state);
        self.tables.jobs.times[index as usize] = None;
        self.set_job(index, job);
    }

    /// Changes the counts of the broadcast job whose pushes have this ticket, if it is one's.
    pub fn count_for_job(&mut self, ticket: Ticket, count: impl FnOnce(&mut Job)) {
        let Some(index) = self.tables.jobs.of_ticket(ticket) else { return };
        let mut job = self.job(index as u32);
        count(&mut job);
        self.set_job(index as u32, &job);
    }

    fn job(&self, index: u32) -> Job {
        self.record_of(Logged::Jobs, index)
    }

    fn set_job(&mut self, index: u32, job: &Job) {
        self.set_record(Logged::Jobs, index, job);
    }

    fn running_job(&self, id: JobId) -> Option<(u32, Job)> {
        self.jobs().find(|(_, job)| job.id == id.0 && job.state() == JobState::Running)
    }

    fn jobs(&self) -> impl Iterator<Item = (u32, Job)> {
        (0..JOBS_MAX).map(|index| (index, self.job(index)))
    }
}
