//! The node's side of a world: calling the shard, hearing its notices, carrying its frames, its deaths and restarts.
//!
//! Invariant: after every call that returns, all notices are heard before any frame is carried, so that what a killed
//! process takes along is only what belongs to the call in which it died.

use rand::RngExt;

use crate::shard::{CloseHow, CommitPoint, FlowId, Notice, Push, Shard, State, Stats, Ticket, Time};

use super::super::client;
use super::super::fault::Fault;
use super::super::frame::{self, Layout};
use super::super::host::Host;
use super::super::invariants;
use super::super::node::Called;
use super::super::pattern::{self, Stream};
use super::super::profile::{Operation, Workload};
use super::super::report::Breach;
use super::super::wiretap;
use super::{Action, Sabotage, World};

impl World {
    /// What the shard says it holds; nothing while it is down.
    pub(super) fn shard_stats(&self) -> Stats {
        self.node.shard().map(Shard::stats).unwrap_or_default()
    }

    /// What the node's clock shows.
    pub(super) fn node_time(&self) -> Time {
        self.clock.at(self.now_us)
    }

    /// When the shard is called for its next deadline.
    pub(super) fn shard_due_us(&self) -> Option<u64> {
        let deadline = self.node.shard().and_then(Shard::next_deadline)?;
        match self.tick_due {
            Some((planned, due_us)) if planned <= deadline => Some(due_us),
            _ => Some(self.clock.world_us(deadline)),
        }
    }

    /// The shard may be called late: draws by how much, once for each deadline.
    fn put_off_tick(&mut self) {
        let late_us_max = self.parameters.node.tick_late_us_max;
        if late_us_max == 0 || self.is_healed {
            return;
        }
        let Some(deadline) = self.node.shard().and_then(Shard::next_deadline) else { return };
        if self.tick_due.is_some_and(|(planned, _)| planned <= deadline) {
            return;
        }
        let due_us = self.clock.world_us(deadline).max(self.now_us) + self.random.random_range(0..=late_us_max);
        self.tick_due = Some((deadline, due_us));
        self.statistics.count(Fault::TickLate);
    }

    /// Hands over frames that were gathered, fires due timers, and goes on with a link that was full.
    pub(super) fn run_node(&mut self) -> Result<(), Breach> {
        if self.pause_end_us(self.now_us).is_some() {
            return Ok(());
        }
        let now = self.node_time();
        if self.link_free_us.is_some_and(|free_us| free_us <= self.now_us) {
            self.link_free_us = None;
            self.transmit()?;
        }
        if self.inbox_due_us.is_some_and(|due_us| due_us <= self.now_us) {
            self.inbox_due_us = None;
            let inbox = std::mem::take(&mut self.inbox);
            let frames: Vec<&[u8]> = inbox.iter().map(Vec::as_slice).collect();
            self.call(Operation::Receive, |shard| shard.receive(now, &frames))?;
        }
        if self.shard_due_us().is_some_and(|due_us| due_us <= self.now_us) {
            self.tick_due = None;
            self.call(Operation::Tick, |shard| shard.tick(now))?;
        }
        self.put_off_tick();
        Ok(())
    }

    /// Calls the shard, and then hears and carries what came out. `None` if the process died of it.
    fn call<R>(&mut self, operation: Operation, call: impl FnOnce(&mut Shard<Host>) -> R) -> Result<Option<R>, Breach> {
        let batches = self.shard_stats().batches;
        let (called, result) = self.node.call(operation, call)?;
        if let Called::Killed(point) = called {
            self.on_death(Some((operation, point)));
            self.hear_findings()?;
            return Ok(None);
        }
        let is_one_batch = self.shard_stats().batches <= batches + 1;
        self.hear_notices()?;
        self.hear_findings()?;
        self.transmit()?;
        self.check_invariants(is_one_batch)?;
        Ok(result)
    }

    /// Looks into the shard, and tells itself the lie that is to be told.
    fn check_invariants(&mut self, is_one_batch: bool) -> Result<(), Breach> {
        let now = self.node_time();
        let Some(shard) = self.node.shard() else { return Ok(()) };
        let (sabotage, lies) = (&mut self.sabotage, &mut self.statistics.lies);
        self.invariants.check(shard, now, is_one_batch, |inside| {
            let Some(Sabotage::Break(invariant)) = *sabotage else { return None };
            if !invariants::breaks(invariant, inside) {
                return None;
            }
            *sabotage = None;
            *lies += 1;
            Some(invariant)
        })
    }

    /// Pushes to these connections at once.
    pub(super) fn push(&mut self, pushes: &[(usize, usize)]) -> Result<(), Breach> {
        if pushes.is_empty() || !self.node.is_up() {
            return Ok(());
        }
        let mut payloads = Vec::new();
        for &(number, count) in pushes {
            let Some(flow) = self.ledgers[number].flow else { continue };
            self.ticket_count += 1;
            let ticket = FIRST_TICKET + self.ticket_count;
            let mut bytes = vec![0; count];
            pattern::fill(self.parameters.seed, Stream::Push(ticket), 0, &mut bytes);
            self.ledgers[number].push(ticket, count);
            payloads.push((flow, Ticket(ticket), bytes));
        }
        let batch: Vec<Push<'_>> =
            payloads.iter().map(|(flow, ticket, bytes)| Push::new(*flow, *ticket, bytes)).collect();
        let now = self.node_time();
        if self.call(Operation::Push, |shard| shard.push(now, &batch))?.is_some() {
            for &(number, _) in pushes {
                self.ledgers[number].on_push_returned()?;
            }
        }
        Ok(())
    }

    /// Closes a connection from the node's side.
    pub(super) fn close(&mut self, number: usize, how: CloseHow) -> Result<(), Breach> {
        let Some(flow) = self.ledgers[number].flow else { return Ok(()) };
        let before = self.ledgers[number].asked_to_close.replace(how);
        let now = self.node_time();
        let Some(closed) = self.call(Operation::Close, |shard| shard.close(now, flow, how))? else {
            if !self.is_death_committed {
                self.ledgers[number].asked_to_close = before;
                self.plan(self.now_us, Action::Close { number, how });
            }
            return Ok(());
        };
        self.trace.event(self.now_us, "close", &(number, how, closed));
        Ok(())
    }

    /// Offers the service again what it has not taken of a connection's bytes.
    pub(super) fn call_offer(&mut self, number: usize) -> Result<(), Breach> {
        let Some(flow) = self.ledgers[number].flow else { return Ok(()) };
        let now = self.node_time();
        let (client, seat) = self.seats[number];
        if !self.parameters.clients[client].connections[seat].is_paused {
            self.call(Operation::Offer, |shard| shard.offer(now, flow))?;
            return Ok(());
        }
        let is_up = self.call(Operation::Offer, |shard| shard.resume(now, flow))?.is_some();
        if is_up && !self.is_healed {
            self.call(Operation::Offer, |shard| shard.pause(now, flow))?;
        }
        Ok(())
    }

    /// What nobody would ever end by himself: the other end has gone, or does not know that it is over.
    pub(super) fn reset_the_rest(&mut self) -> Result<(), Breach> {
        for number in 0..self.ledgers.len() {
            if self.ledgers[number].is_abandoned() && self.node.is_up() {
                self.close(number, CloseHow::Reset)?;
            }
        }
        Ok(())
    }

    fn hear_findings(&mut self) -> Result<(), Breach> {
        let findings = std::rc::Rc::clone(&self.findings);
        let mut findings = findings.borrow_mut();
        if let Some(breach) = findings.breaches.pop() {
            return Err(breach);
        }
        let ended = findings.ended.drain(..);
        ended.into_iter().try_for_each(|(number, consumed)| {
            if self.lies(Sabotage::SwallowStreamEnd) {
                return Ok(());
            }
            self.ledgers[number].on_stream_ended(consumed)
        })
    }

    fn hear_notices(&mut self) -> Result<(), Breach> {
        self.note_vanished();
        let mut notices = Vec::new();
        self.node.call(Operation::Receive, |shard| shard.drain_notices(|notice| notices.push(notice)))?;
        for notice in notices {
            self.trace.event(self.now_us, "notice", &notice);
            match notice {
                Notice::Queued { .. } if self.lies(Sabotage::SwallowQueued) => {}
                Notice::Delivered { flow, .. } if self.is_hold(flow) && self.lies(Sabotage::SwallowReceipt) => {}
                Notice::Delivered { flow, .. } if self.is_hold(flow) && self.lies(Sabotage::RepeatReceipt) => {
                    self.on_notice(notice.clone())?;
                    self.on_notice(notice)?;
                }
                _ => self.on_notice(notice)?,
            }
        }
        Ok(())
    }

    fn is_hold(&self, flow: FlowId) -> bool {
        self.numbers.get(&flow).is_some_and(|&number| self.ledgers[number].workload == Workload::Hold)
    }

    fn on_notice(&mut self, notice: Notice) -> Result<(), Breach> {
        let flow = match notice {
            Notice::Opened { flow, local, remote } => {
                let number = self.owner_of(remote).filter(|_| local == client::server(remote));
                let number = number.ok_or(Breach::NoticeOfUnknownFlow { flow })?;
                self.numbers.insert(flow, number);
                return self.ledgers[number].on_id(flow);
            }
            Notice::Closed { flow, .. }
            | Notice::Queued { flow, .. }
            | Notice::Refused { flow, .. }
            | Notice::Delivered { flow, .. }
            | Notice::Undelivered { flow, .. }
            | Notice::Expired { flow, .. }
            | Notice::Received { flow, .. }
            | Notice::Urgent { flow, .. }
            | Notice::SoftError { flow, .. }
            | Notice::PeerClosed { flow } => flow,
        };
        let Some(&number) = self.numbers.get(&flow) else { return Err(Breach::NoticeOfUnknownFlow { flow }) };
        let is_hold = self.ledgers[number].workload == Workload::Hold;
        let ledger = &mut self.ledgers[number];
        match notice {
            Notice::Queued { ticket, .. } if is_hold => ledger.on_queued(ticket.0),
            Notice::Refused { ticket, error, .. } => {
                self.statistics.refusals += 1;
                ledger.on_refused(ticket.0, error)
            }
            Notice::Delivered { ticket, .. } if is_hold => {
                let held_bytes = self.wiretaps[number].delivered_bytes();
                self.statistics.receipts += 1;
                ledger.on_delivered(ticket.0, self.life, held_bytes)
            }
            Notice::PeerClosed { .. } => ledger.on_peer_closed(),
            Notice::Closed { reason, .. } => ledger.on_closed(reason),
            // What the echo service pushes is checked byte by byte; an undelivered push just has no receipt.
            Notice::Opened { .. } | Notice::Queued { .. } | Notice::Delivered { .. } => Ok(()),
            Notice::Undelivered { .. } | Notice::Expired { .. } | Notice::Received { .. } => Ok(()),
            Notice::Urgent { .. } | Notice::SoftError { .. } => Ok(()),
        }
    }

    /// Takes the shard's frames to the network, unless the link is full.
    fn transmit(&mut self) -> Result<(), Breach> {
        let Some(shard) = self.node.shard() else { return Ok(()) };
        if self.link_free_us.is_some() || !shard.has_frames() {
            return Ok(());
        }
        let full = self.parameters.node.link_full;
        let is_short = !self.is_healed && full > 0 && self.random.random_range(0..10_000) < full;
        let room = if is_short { self.random.random_range(0..4) } else { usize::MAX };
        let mut frames: Vec<Vec<u8>> = Vec::new();
        self.node.call(Operation::Receive, |shard| {
            shard.transmit(|frame| {
                let has_room = frames.len() < room;
                if has_room {
                    frames.push(frame.to_vec());
                }
                has_room
            });
        })?;
        if self.node.shard().is_some_and(Shard::has_frames) {
            self.statistics.count(Fault::LinkFull);
            self.link_free_us = Some(self.now_us + self.random.random_range(100..5_000));
        }
        for frame in &mut frames {
            self.trace.frame(self.now_us, "node", frame);
            let client = self.check_frame(frame)?;
            self.carry_from_node(client, frame);
        }
        Ok(())
    }

    /// Returns whose connection the frame belongs to.
    fn check_frame(&mut self, frame: &[u8]) -> Result<Option<usize>, Breach> {
        let mut spoilt = Vec::new();
        if frame.len() > 80 && self.sabotage.is_some() && Layout::of(frame).is_some() {
            spoilt.extend_from_slice(frame);
            if self.lies(Sabotage::SpoilSegment) {
                spoilt[70] ^= 4;
            } else if self.lies(Sabotage::SendReset) {
                frame::make_reset(&mut spoilt);
            }
        }
        let frame = if spoilt.is_empty() { frame } else { spoilt.as_slice() };
        let Some(segment) = wiretap::from_node(frame, self.parameters.node.mtu)? else { return Ok(None) };
        let number = self.number_of(segment.client);
        let number = number.ok_or(Breach::MalformedFrame { what: "it goes to a client that does not exist" })?;
        let ledger = &self.ledgers[number];
        let checked = match segment.is_reset() && ledger.is_held() && ledger.asked_to_close.is_none() {
            true => Err("a reset that nobody has asked for"),
            false => self.wiretaps[number].on_server(&segment, ledger.is_held()),
        };
        checked.map_err(|what| Breach::WrongSegment { connection: number, what })?;
        Ok(Some(self.seats[number].0))
    }

    /// The process has died: at a point of a commit, or between two calls.
    pub(super) fn on_death(&mut self, at: Option<(Operation, CommitPoint)>) {
        let point = at.map(|(_, point)| point);
        self.trace.event(self.now_us, "killed", &at);
        self.life += 1;
        self.invariants.forget();
        self.statistics.faults[Fault::Lost as usize] += self.inbox.len() as u64;
        self.inbox.clear();
        self.inbox_due_us = None;
        self.link_free_us = None;
        self.tick_due = None;
        self.is_kill_between = point.is_none();
        self.is_death_committed = match point {
            Some(CommitPoint::BeforeRecord | CommitPoint::WithinRecord) | None => false,
            Some(CommitPoint::BeforeApply | CommitPoint::WithinApply | CommitPoint::BeforeGate) => true,
        };
        match at {
            Some((operation, point)) => self.statistics.kills_at[operation as usize][point as usize] += 1,
            None => self.statistics.kills_between += 1,
        }
        if point.is_some() {
            for (ledger, wiretap) in self.ledgers.iter_mut().zip(&self.wiretaps) {
                ledger.on_killed_in_call(self.is_death_committed, wiretap.delivered_bytes());
            }
        }
        self.plan(self.now_us + self.downtime_us, Action::Restart);
    }

    /// The process starts again; every connection has to be there.
    pub(super) fn restart(&mut self) -> Result<(), Breach> {
        let (called, resumption) = self.node.start(self.node_time())?;
        self.trace.event(self.now_us, "restart", &resumption);
        self.statistics.records_discarded += u64::from(resumption.records_discarded);
        self.statistics.records_applied_again += u64::from(resumption.records_applied_again);
        if let Called::Killed(point) = called {
            self.on_death(Some((Operation::Resume, point)));
            return self.hear_findings();
        }
        let mut found = Vec::new();
        if let Some(shard) = self.node.shard() {
            shard.flows(self.node_time(), 0, |view| {
                found.push(view);
                true
            });
        }
        let mut is_there = vec![false; self.ledgers.len()];
        for view in found {
            if view.state == State::SynReceived {
                continue;
            }
            let number = self.numbers.get(&view.id).copied().or_else(|| self.owner_of(view.remote));
            let number = number.ok_or(Breach::NoticeOfUnknownFlow { flow: view.id })?;
            is_there[number] = !(self.ledgers[number].is_held() && self.lies(Sabotage::HideFlow));
            self.numbers.insert(view.id, number);
            self.ledgers[number].on_id(view.id)?;
        }
        for (ledger, is_there) in self.ledgers.iter_mut().zip(is_there) {
            if ledger.is_held() && !is_there {
                ledger.on_missing(self.is_kill_between)?;
            }
        }
        self.hear_notices()?;
        self.hear_findings()?;
        self.transmit()?;
        if let Some((index, repeats)) = self.kill_again {
            self.kill_again = Some((index, repeats - 1)).filter(|&(_, left)| left > 0);
            self.begin_kill(index);
        }
        Ok(())
    }
}

/// Tickets of ours begin here, far from those that a shard draws for what a service pushes.
const FIRST_TICKET: u64 = 1 << 62;
