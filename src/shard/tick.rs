//! Time passes: expired timers and the clock hand.

use super::service::Service;
use super::{BATCH_MAX, Shard};
use crate::tcp::{self, CloseReason, Rule, State, Sweep, Time};

/// How often a next hop is asked for until it answers.
const ARP_INTERVAL_MS: u64 = 1_000;
/// How often memory that fell free is given back, and how soon the next piece of it.
const TRIM_INTERVAL_MS: u64 = 10_000;
const TRIM_AGAIN_MS: u64 = 1;
/// Timers that one tick fires at most, and flows at which the clock hand acts: no burst is larger, and between two
/// frames are received.
const FIRED_MAX: usize = 2 * BATCH_MAX;

impl<S: Service> Shard<S> {
    /// Fires what is due: timers, the clock hand, questions for next hops and routers. Call it at `next_deadline`, or
    /// at any other time.
    pub fn tick(&mut self, now: Time) {
        self.ask_for_hops(now);
        self.fire_timers(now);
        self.sweep(now);
        if self.batch.tables.fragments.next_expiry().is_some_and(|due| due <= now) {
            self.in_batch(now, |shard| shard.batch.expire_fragments());
        }
        if self.batch.tables.jobs.next().is_some_and(|due| due <= now) {
            self.drive_jobs(now);
        }
        if now >= self.trim_at && self.has_untrimmed {
            self.trim(now);
        }
    }

    /// When `tick` wants to be called next; `None` while there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Time> {
        let tables = &self.batch.tables;
        let hand = self.is_sweeping().then(|| tables.hand.next());
        let arp = tables.has_hops_to_ask().then_some(self.arp_at);
        let trim = self.has_untrimmed.then_some(self.trim_at);
        let fragments = tables.fragments.next_expiry();
        let timers = if self.due.is_empty() { tables.wheel.next() } else { Some(self.batch.now) };
        [timers, hand, arp, tables.routers.next(), fragments, trim, tables.jobs.next()].into_iter().flatten().min()
    }

    /// Whether any flow is in a state that ends by the clock hand.
    fn is_sweeping(&self) -> bool {
        let tables = &self.batch.tables;
        let is_kept_alive = tables.config.keepalive_s > 0 || tables.has_kept_alive;
        let is_timed = is_kept_alive || tables.config.idle_timeout_s > 0;
        let has_closing = tables.in_state(State::TimeWait) > 0 || tables.in_state(State::FinWait2) > 0;
        has_closing || tables.starved_rounds > 0 || (is_timed && tables.flow_slots.used() > 0)
    }

    fn ask_for_hops(&mut self, now: Time) {
        if self.batch.tables.routers.next().is_some_and(|due| due <= now) && self.batch.tables.tick_routers(now) {
            self.in_batch(now, |shard| shard.batch.ask_for_routers());
        }
        if now < self.arp_at || !self.batch.tables.has_hops_to_ask() {
            return;
        }
        self.arp_at = now.plus_ms(ARP_INTERVAL_MS);
        self.in_batch(now, |shard| {
            for address in shard.batch.tables.hops_to_ask() {
                shard.batch.ask_for_hop(address);
            }
            shard.batch.tables.look_up_doubted();
        });
    }

    fn fire_timers(&mut self, now: Time) {
        let mut due = std::mem::take(&mut self.due);
        if due.is_empty() {
            self.batch.tables.wheel.advance(now, &mut due);
        }
        let fired = due.len().min(FIRED_MAX);
        self.effort.timers += fired as u64;
        for chunk in due[..fired].chunks(BATCH_MAX) {
            self.in_batch(now, |shard| chunk.iter().for_each(|&index| shard.fire_timer(index, now)));
        }
        due.drain(..fired);
        self.due = due;
    }

    /// The wheel's entry of an active block has come up: the block may be free by now, or its deadline later.
    fn fire_timer(&mut self, index: u32, now: Time) {
        let tables = &mut self.batch.tables;
        if !tables.active_slots.is_taken(index) {
            return;
        }
        let slot = tables.storage.actives.records()[index as usize].flow;
        if tables.storage.flows.records()[slot as usize].active() != Some(index) {
            return;
        }
        let default_s = tables.config.user_timeout_s;
        let position = self.batch.touch(slot);
        let touched = &mut self.batch.touched[position];
        if touched.active.is_ack_due(now) && touched.active.hurry_ack() {
            self.batch.tables.count(Rule::DelayedAckSent);
        }
        if self.batch.touched[position].active.is_gap_due(now) {
            self.batch.give_up_held(position);
        }
        let touched = &mut self.batch.touched[position];
        if !touched.active.is_due(now) {
            // Touched all the same: the commit enters its later deadline.
            return;
        }
        if tcp::is_doubtful(&touched.flow, &touched.active) && self.batch.tables.is_half_full() {
            self.batch.tables.count(Rule::HandshakeCutShort);
            self.close_flow(position, CloseReason::HandshakeFailed);
            return;
        }
        let touched = &self.batch.touched[position];
        let user_timeout_s = touched.flow.user_timeout_s(default_s);
        let offer = self.batch.offer(position);
        let (flow, active, repair) = self.batch.parts(position);
        let (effects, probe) = tcp::on_timer(flow, active, repair, offer, user_timeout_s, now);
        self.batch.tables.count(effects.rule);
        self.batch.note_path(position, effects.path_mtu);
        if let Some(probe) = probe {
            self.batch.emit(position, probe);
        }
        if let Some(error) = effects.soft_error {
            self.tell_soft_error(position, error);
        }
        if let Some(reason) = effects.closed {
            self.close_flow(position, reason);
        }
    }

    fn sweep(&mut self, now: Time) {
        if !self.is_sweeping() {
            return;
        }
        let end = self.batch.tables.storage.head().flows_end;
        let passed = self.batch.tables.hand.advance(now, end);
        if passed.start == 0 && !passed.is_empty() {
            self.batch.tables.starved_rounds = self.batch.tables.starved_rounds.saturating_sub(1);
        }
        let mut slot = passed.start;
        let mut acted = 0;
        while slot < passed.end && acted < FIRED_MAX {
            acted += self.in_batch(now, |shard| {
                let mut found = 0;
                while slot < passed.end && found < BATCH_MAX {
                    found += usize::from(shard.sweep_slot(slot, now));
                    slot += 1;
                }
                found
            });
        }
        self.effort.swept += u64::from(slot - passed.start);
        if slot < passed.end {
            self.batch.tables.hand.stop_at(slot);
        }
    }

    /// Looks at a flow in passing. Returns whether there was something to do.
    fn sweep_slot(&mut self, slot: u32, now: Time) -> bool {
        let tables = &self.batch.tables;
        let flow = &tables.storage.flows.records()[slot as usize];
        let active = flow.active().map(|index| &tables.storage.actives.records()[index as usize]);
        let is_waiting = match active {
            None => flow.is_close_queued(),
            Some(active) => tables.starved_rounds > 0 && active.recv_bytes > 0,
        };
        let sweep = tcp::on_sweep(flow, active, &tables.config.timeouts(), slot, now);
        if !is_waiting && sweep == Sweep::Nothing {
            return false;
        }
        let position = self.batch.touch(slot);
        match sweep {
            Sweep::Nothing => self.offer_again(position),
            Sweep::Probes => {
                self.batch.tables.count(Rule::KeepaliveProbe);
                let timeouts = self.batch.tables.config.timeouts();
                let probe = tcp::keepalive_probe(&mut self.batch.touched[position].flow, &timeouts, now);
                self.batch.emit(position, probe);
            }
            Sweep::Ends(effects) => {
                self.batch.tables.count(effects.rule);
                self.batch.reply(position, effects.reply);
                self.close_flow(position, effects.closed.expect("what the clock hand ends has a reason"));
            }
        }
        true
    }

    fn trim(&mut self, now: Time) {
        let tables = &mut self.batch.tables;
        tables.destinations.trim(now.seconds());
        let released = tables.storage.payload.trim()
            + tables.storage.actives.trim(&tables.active_slots)
            + tables.storage.repairs.trim(&tables.repair_slots)
            + tables.storage.peers.trim(&tables.peer_slots);
        self.effort.released_bytes += released;
        self.has_untrimmed = released > 0 || tables.active_slots.used() > 0;
        self.trim_at = now.plus_ms(if released > 0 { TRIM_AGAIN_MS } else { TRIM_INTERVAL_MS });
    }
}
