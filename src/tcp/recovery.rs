//! Loss: found, repaired, and what it does to the congestion window (RFC 6675, RFC 8985, RFC 6937, RFC 3522).
//!
//! In: acknowledgments with their SACK blocks, and expired timers. Out: runs marked as lost, the window moved, and
//! which timer comes next. `send` sends what is lost first. A connection without a repair block never comes here:
//! there a loss is found by its time-out.
//!
//! ```text
//!              something is lost                     recovery_end is acknowledged
//!     OPEN ------------------------> RECOVERING -------------------------------> OPEN
//!       |      the time-out expires                  recovery_end is acknowledged
//!       |--------------------------> LOSS -------------------------------------> OPEN
//!       |     the peer echoes a mark                recovery_end is acknowledged
//!       '------------------------> REDUCING -----------------------------------> OPEN
//! ```
//!
//! What is lost while the window is being reduced for a mark is recovered, but reduces it no further.
//!
//! Invariant: the window is reduced at most once for what was sent before `recovery_end`.

use super::congestion::{CongestionControl, Opening};
use super::repair::{FLYING, Repair, SACKED};
use super::runs::Delivery;
use super::{Active, Flow, Segment, SeqNum, Time};

/// Nothing is lost as far as is known.
pub(super) const OPEN: u8 = 0;
/// What acknowledgments have shown to be lost is sent again.
pub(super) const RECOVERING: u8 = 1;
/// After a time-out.
pub(super) const LOSS: u8 = 2;
/// Nothing is lost, but something was marked on its way (RFC 3168 §6.1.2).
pub(super) const REDUCING: u8 = 3;

/// What the connection's timer stands for.
pub(super) const TIMER_RETRANSMISSION: u8 = 0;
/// Segments that are late, but not late enough to be lost (RFC 8985 §6.3).
pub(super) const TIMER_REORDERING: u8 = 1;
/// The end of what was sent may be lost without anything behind it to show it (RFC 8985 §7).
pub(super) const TIMER_PROBE: u8 = 2;

/// The end of what was sent is not being probed.
pub(super) const UNPROBED: u8 = 0;
/// One new segment may be sent to probe it, whatever is in flight.
pub(super) const PROBE_DUE: u8 = 1;
/// It was.
pub(super) const PROBED_NEW: u8 = 2;
/// The last segment was sent again.
pub(super) const PROBED_AGAIN: u8 = 3;

/// Segments that must have arrived behind one for it to be lost whatever the time (RFC 6675 §3).
const DUPLICATES_MIN: u32 = 3;
/// In place of a threshold to go back to.
const NOT_RESTORED: u32 = 0;
/// Recoveries after which reordering is forgotten (RFC 8985 §6.2).
const REORDERING_ROUNDS: u8 = 16;

/// What one acknowledgment says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// SND.UNA before it.
    pub snd_una: SeqNum,
    /// Whether it is the same as the last, says nothing new of the window and carries nothing (RFC 5681 §2).
    pub is_duplicate: bool,
    /// Whether it says that something was marked on its way (ECE), where that is agreed on.
    pub is_echo: bool,
    /// Bytes that were in flight before it.
    pub flight: u32,
    /// A round trip that it ends, in microseconds.
    pub round_trip_us: Option<u32>,
}

impl Repair {
    /// An acknowledgment has come; SND.UNA is `segment.ack` by now.
    pub(super) fn on_ack(
        &mut self,
        flow: &Flow,
        active: &mut Active,
        segment: &Segment,
        acknowledged: Acknowledged,
        control: CongestionControl,
        now: Time,
    ) {
        let una = active.snd_una;
        let mut delivery = self.on_acknowledged(acknowledged.snd_una, una);
        let has_sack = flow.takes_sack() && !segment.sack.is_empty();
        if has_sack {
            self.take_sack(flow, active, segment, &mut delivery);
        } else if acknowledged.is_duplicate && !flow.takes_sack() {
            active.duplicates = active.duplicates.saturating_add(1);
        }
        let is_spurious = self.is_spurious(segment, &delivery);
        if let Some(round_trip_us) = acknowledged.round_trip_us
            && (self.min_rtt_us == 0 || round_trip_us < self.min_rtt_us)
        {
            self.min_rtt_us = round_trip_us;
        }
        self.update_rack(active, &delivery, now);
        self.furthest = self.furthest_arrived(una);
        if !self.is_calm() && is_spurious {
            self.undo(active);
        }
        if una != acknowledged.snd_una {
            self.probe_end_acknowledged(flow, active, control);
        }
        if self.phase != OPEN && !una.before(self.recovery_end) {
            self.leave(active);
        }
        let mut lost = self.detect(flow, active, now) + self.detect_without_sack(flow, active, &acknowledged);
        if una != acknowledged.snd_una {
            lost += self.lose_thrown_away(una);
        }
        if lost > 0 && self.is_calm() {
            self.enter(flow, active, control, RECOVERING);
        }
        if acknowledged.is_echo {
            self.on_echo(flow, active, control);
        }
        self.move_window(flow, active, &acknowledged, &delivery, control, now);
        if una != acknowledged.snd_una {
            active.duplicates = 0;
        }
    }

    fn take_sack(&mut self, flow: &Flow, active: &Active, segment: &Segment, delivery: &mut Delivery) {
        let una = active.snd_una;
        let mut is_first = true;
        for (start, end) in segment.sack_blocks() {
            let is_duplicate = is_first && (end.at_or_before(una) || self.is_within_another(segment, start, end));
            is_first = false;
            if is_duplicate {
                self.on_duplicate_arrival(flow, active, end);
                continue;
            }
            // What cannot be is left out (RFC 2018 §5); what is acknowledged by now says nothing.
            let start = start.later_of(una);
            if start.before(end) && end.at_or_before(flow.snd_nxt) && end.since(start) <= flow.snd_nxt.since(una) {
                self.on_sacked(una, start, end, delivery);
            }
        }
    }

    /// The first block lies within the second: it tells of a duplicate (RFC 2883 §4).
    fn is_within_another(&self, segment: &Segment, start: SeqNum, end: SeqNum) -> bool {
        let second = segment.sack_blocks().nth(1);
        second.is_some_and(|(from, to)| from.at_or_before(start) && end.at_or_before(to))
    }

    /// Something up to `end` was sent again that had arrived: the path reorders more than we have waited for (RFC 8985
    /// §6.2 step 4).
    fn on_duplicate_arrival(&mut self, flow: &Flow, active: &Active, end: SeqNum) {
        if self.probe == PROBED_AGAIN && end == self.probe_end {
            // The probe was not needed: nothing was lost (RFC 8985 §7.4.2).
            self.probe = UNPROBED;
            return;
        }
        // What was remembered long ago, or never, lies outside of what is in flight and is no round.
        let end = self.reordering_round_end;
        if !(active.snd_una.before(end) && end.at_or_before(flow.snd_nxt)) {
            self.reordering_quarters = self.reordering_quarters.saturating_add(1);
            self.reordering_rounds = REORDERING_ROUNDS;
            self.has_reordering = 1;
            self.reordering_round_end = flow.snd_nxt;
        }
    }

    /// RFC 8985 §6.2, steps 1 to 3.
    fn update_rack(&mut self, active: &Active, delivery: &Delivery, now: Time) {
        if let Some(end) = delivery.lowest_unresent
            && end.before(self.furthest)
            && self.has_rack == 1
        {
            self.has_reordering = 1;
            self.reordering_rounds = REORDERING_ROUNDS;
        }
        let Some(latest) = delivery.latest else { return };
        let rtt_us = now.wrapping_us().wrapping_sub(latest.sent_us).max(1);
        let min_rtt_us = self.shortest_round_trip_us(active);
        if latest.is_resent == 1 && rtt_us < min_rtt_us {
            // Too soon to be the answer to what was sent again.
            return;
        }
        self.rack_rtt_us = rtt_us;
        if self.has_rack == 0 || latest.sending().is_after(self.rack) {
            (self.rack, self.has_rack) = (latest.sending(), 1);
        }
    }

    /// How late a segment may be (RFC 8985 §6.2 step 4).
    fn reordering_window_us(&self, flow: &Flow, active: &Active) -> u32 {
        if self.has_reordering == 0 {
            let sacked = self.bytes_of(active.snd_una, SACKED);
            if !self.is_calm() || sacked >= DUPLICATES_MIN * u32::from(flow.mss) {
                return 0;
            }
        }
        let quarter_us = self.shortest_round_trip_us(active) / 4;
        quarter_us.saturating_mul(u32::from(self.reordering_quarters.max(1))).min(active.srtt_us)
    }

    /// Marks what is lost (RFC 8985 §6.2 step 5). Returns how many bytes are, and leaves in `late_us` for how long to
    /// wait for those that are only late.
    pub(super) fn detect(&mut self, flow: &Flow, active: &Active, now: Time) -> u32 {
        self.late_us = 0;
        if self.has_rack == 0 || !flow.takes_sack() {
            return 0;
        }
        let limit_us = self.rack_rtt_us.saturating_add(self.reordering_window_us(flow, active));
        let rack = self.rack;
        let mut late_us = 0;
        let lost = self.find_lost(active.snd_una, FLYING, |run| {
            if !rack.is_after(run.sending()) {
                return false;
            }
            let left_us = limit_us.wrapping_sub(now.wrapping_us().wrapping_sub(run.sent_us)) as i32;
            late_us = if left_us > 0 { late_us.max(left_us as u32) } else { late_us };
            left_us <= 0
        });
        self.late_us = late_us;
        lost
    }

    /// A peer without SACK: the third duplicate says that the first segment is lost, and so does an acknowledgment of
    /// a part of what is being recovered (RFC 6582 §3.2).
    fn detect_without_sack(&mut self, flow: &Flow, active: &Active, acknowledged: &Acknowledged) -> u32 {
        if flow.takes_sack() {
            return 0;
        }
        let is_partial = self.phase == RECOVERING && active.snd_una != acknowledged.snd_una;
        if !is_partial && u32::from(active.duplicates) != DUPLICATES_MIN {
            return 0;
        }
        self.lose_first(active.snd_una, u32::from(flow.mss))
    }

    /// Loss was found: the window is reduced, once for all that is in flight.
    pub(super) fn enter(&mut self, flow: &Flow, active: &mut Active, control: CongestionControl, phase: u8) {
        if self.phase == OPEN {
            self.prior_cwnd = active.cwnd;
            self.prior_ssthresh = active.ssthresh;
            active.ssthresh = control.reduce(&mut self.cubic, active.cwnd, u32::from(flow.mss));
            active.note_reduced(flow);
        }
        if self.phase != REDUCING {
            self.prr_delivered = 0;
            self.prr_out = 0;
        }
        self.phase = phase;
        self.recovery_end = flow.snd_nxt;
        self.resent_ms = 0;
    }

    /// Something was marked on its way: as if it were lost, but for that nothing is sent again (RFC 3168 §6.1.2). The
    /// window was too large, so that what was taken for lost and was not does not restore it.
    fn on_echo(&mut self, flow: &Flow, active: &mut Active, control: CongestionControl) {
        if self.phase == OPEN && !active.is_reduced() {
            self.enter(flow, active, control, REDUCING);
        }
        self.prior_ssthresh = NOT_RESTORED;
    }

    /// Whether nothing is known to be lost.
    pub(super) fn is_calm(&self) -> bool {
        self.phase == OPEN || self.phase == REDUCING
    }

    /// Everything that was in flight when loss was found is acknowledged.
    fn leave(&mut self, active: &mut Active) {
        if self.phase == RECOVERING || self.phase == REDUCING {
            active.cwnd = active.ssthresh;
        }
        self.phase = OPEN;
        self.reordering_rounds = self.reordering_rounds.saturating_sub(1);
        if self.reordering_rounds == 0 {
            self.reordering_quarters = 1;
        }
    }

    /// Whether what was sent again had only been late: the acknowledgment was caused by the first sending (RFC 3522).
    fn is_spurious(&self, segment: &Segment, delivery: &Delivery) -> bool {
        let Some(timestamps) = segment.timestamps else { return false };
        self.resent_ms != 0 && delivery.has_resent && (timestamps.echo.wrapping_sub(self.resent_ms) as i32) < 0
    }

    fn undo(&mut self, active: &mut Active) {
        if self.prior_ssthresh == NOT_RESTORED {
            active.cwnd = active.ssthresh;
        } else {
            active.cwnd = active.cwnd.max(self.prior_cwnd);
            active.ssthresh = active.ssthresh.max(self.prior_ssthresh);
            active.forget_reduced();
        }
        self.phase = OPEN;
        self.find_again();
    }

    /// A probe was sent and something new is acknowledged: if the probe repeated what was lost, that was a loss
    /// (RFC 8985 §7.4.2).
    fn probe_end_acknowledged(&mut self, flow: &Flow, active: &mut Active, control: CongestionControl) {
        if self.probe == UNPROBED || active.snd_una.before(self.probe_end) {
            return;
        }
        if std::mem::replace(&mut self.probe, UNPROBED) == PROBED_AGAIN && self.phase == OPEN {
            active.ssthresh = control.reduce(&mut self.cubic, active.cwnd, u32::from(flow.mss));
            active.cwnd = active.ssthresh;
            active.note_reduced(flow);
        }
    }

    fn move_window(
        &mut self,
        flow: &Flow,
        active: &mut Active,
        acknowledged: &Acknowledged,
        delivery: &Delivery,
        control: CongestionControl,
        now: Time,
    ) {
        let mss = u32::from(flow.mss);
        // A peer without SACK shows by a duplicate that some segment has arrived.
        let shown = if acknowledged.is_duplicate && !flow.takes_sack() { mss } else { 0 };
        let delivered = delivery.bytes.max(shown);
        if self.phase == RECOVERING || self.phase == REDUCING {
            self.reduce_rate(active, delivered, mss, active.snd_una != acknowledged.snd_una);
            return;
        }
        let was_used = match active.cwnd < active.ssthresh {
            true => acknowledged.flight.saturating_mul(2) >= active.cwnd,
            false => acknowledged.flight + 2 * mss >= active.cwnd,
        };
        let pace = self.pace(flow, active, delivery, now);
        // An echo makes it grow no more (RFC 3168 §6.1.2).
        if was_used && delivered > 0 && !acknowledged.is_echo {
            control.open(active, &mut self.cubic, mss, Opening { acknowledged: delivered, pace }, now);
        }
    }

    /// Proportional rate reduction with its reduction bound that looks for progress (RFC 6937 §3, RFC 9937).
    pub(super) fn reduce_rate(&mut self, active: &mut Active, delivered: u32, mss: u32, is_progress: bool) {
        self.prr_delivered = self.prr_delivered.saturating_add(delivered);
        let pipe = self.pipe(active.snd_una);
        let send = if pipe > active.ssthresh {
            let share = u64::from(self.prr_delivered) * u64::from(active.ssthresh);
            let due = share.div_ceil(u64::from(self.prior_cwnd.max(1)));
            (due.min(u64::from(u32::MAX)) as u32).saturating_sub(self.prr_out)
        } else {
            let bound = self.prr_delivered.saturating_sub(self.prr_out).max(delivered);
            let bound = bound + if is_progress { mss } else { 0 };
            bound.min(active.ssthresh - pipe)
        };
        let least = if self.prr_out == 0 { mss } else { 0 };
        active.cwnd = pipe + send.max(least);
    }

    /// A segment is sent again.
    pub(super) fn note_resent(&mut self, now: Time) {
        if self.resent_ms == 0 {
            self.resent_ms = now.wrapping_ms().max(1);
        }
    }
}
