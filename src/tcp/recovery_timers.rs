//! What an expired timer means for recovery, and which timer comes next (RFC 8985 §6.3, §7; RFC 6298 §5).
//!
//! In: the repair block, with the flow and its active block. Out: runs marked as lost or a probe allowed, and the next
//! timer.

use super::congestion::CongestionControl;
use super::recovery::{LOSS, PROBE_DUE, PROBED_AGAIN, RECOVERING, UNPROBED};
use super::recovery::{TIMER_PROBE, TIMER_REORDERING, TIMER_RETRANSMISSION};
use super::repair::SACKED;
use super::{Active, Flow, Repair, Time};

/// A delayed acknowledgment of the peer's (RFC 8985 §7.2).
const PEER_DELAY_MS: u32 = 200;

impl Repair {
    /// Everything in flight was too large for its path and goes again, which says nothing of congestion.
    pub(super) fn lose_to_the_path(&mut self) {
        self.lose_all();
        self.has_rack = 0;
        self.late_us = 0;
        self.probe = UNPROBED;
    }

    /// The retransmission timer has expired: everything counts as lost, one segment to begin with (RFC 5681 §3.1).
    pub(super) fn on_time_out(&mut self, flow: &Flow, active: &mut Active, control: CongestionControl) {
        self.enter(flow, active, control, LOSS);
        self.lose_all();
        self.has_rack = 0;
        self.probe = UNPROBED;
        active.cwnd = u32::from(flow.mss);
    }

    /// The timer for late segments has expired.
    pub(super) fn on_reordering_timer(
        &mut self,
        flow: &Flow,
        active: &mut Active,
        control: CongestionControl,
        now: Time,
    ) {
        if self.detect(flow, active, now) > 0 && self.is_calm() {
            self.enter(flow, active, control, RECOVERING);
            self.reduce_rate(active, 0, u32::from(flow.mss), false);
        }
    }

    /// The probe timer has expired: one more segment goes, new or the last one again (RFC 8985 §7.3).
    pub(super) fn on_probe_timer(&mut self, flow: &Flow, active: &mut Active) {
        let mss = u32::from(flow.mss);
        let has_new =
            active.sendable_end().after(flow.snd_nxt) && flow.snd_nxt.since(active.snd_una) < flow.send_window();
        self.probe = if has_new { PROBE_DUE } else { PROBED_AGAIN };
        self.probe_end = flow.snd_nxt;
        if !has_new {
            self.lose_last(active.snd_una, mss);
        }
    }

    /// Which timer is to run, and for how long, in ms.
    pub(super) fn next_timer(&mut self, flow: &Flow, active: &Active) -> (u8, u32) {
        let late_ms = self.late_us.div_ceil(1_000).max(1);
        // Never in place of a time-out that comes sooner: after a long silence round trips say little.
        if self.late_us > 0 && late_ms < active.rto_ms {
            return (TIMER_REORDERING, late_ms);
        }
        let pipe = self.pipe(active.snd_una);
        let may_probe = self.is_calm()
            && self.probe == UNPROBED
            && flow.takes_sack()
            && pipe > 0
            && active.srtt_us != 0
            && active.retries == 0
            && self.bytes_of(active.snd_una, SACKED) == 0;
        if may_probe {
            let is_single = pipe <= u32::from(flow.mss);
            let wait_ms = 2 * active.srtt_us.div_ceil(1_000) + if is_single { PEER_DELAY_MS } else { 2 };
            if wait_ms < active.rto_ms {
                return (TIMER_PROBE, wait_ms);
            }
        }
        (TIMER_RETRANSMISSION, active.rto_ms)
    }
}
