//! Round trips and the retransmission time-out (RFC 6298).
//!
//! In: what is sent and acknowledged, and when. Out: the smoothed round trip, its variation, and the time-out with its
//! back-off.

use super::{Active, SeqNum, Time};

/// Initial retransmission time-out (RFC 6298 §2.1).
const RTO_INITIAL_MS: u32 = 1_000;
/// The same where the SYN-ACK timed out (RFC 6298 §5.7).
const RTO_AFTER_LOST_SYN_ACK_MS: u32 = 3_000;
/// A variation without a smoothed round-trip time says that the SYN-ACK timed out; it fits the flow's path memory.
const LOST_SYN_ACK_RTTVAR_US: u32 = 1_000;
/// RFC 6298 asks for 1 s; like Linux we take 200 ms above the smoothed round trip, which covers a delayed ACK.
const RTO_VARIATION_MIN_MS: u32 = 200;
/// No round trip is being timed.
const NOT_TIMING: u8 = 0;
/// One is.
const TIMING: u8 = 1;
/// The segment that was timed was sent again: only a timestamp can say which of the two is acknowledged.
const AMBIGUOUS: u8 = 2;
/// A round trip that seems to take longer is taken for so long.
const SAMPLE_US_MAX: u32 = 60_000_000;
/// Largest time-out after back-off; RFC 6298 §2.5 allows any bound of at least 60 s.
const RTO_MAX_MS: u32 = 60_000;

impl Active {
    /// The handshake is complete, but its SYN-ACK timed out: one segment to begin with (RFC 5681 §3.1), and a long
    /// time-out, until a round trip was timed.
    pub(super) fn lose_syn_ack(&mut self, mss: u16) {
        if self.srtt_us == 0 {
            self.rttvar_us = LOST_SYN_ACK_RTTVAR_US;
        }
        self.cwnd = u32::from(mss);
        self.reset_rto();
    }

    pub(super) fn has_lost_syn_ack(&self) -> bool {
        self.srtt_us == 0 && self.rttvar_us != 0
    }

    /// Times the round trip that ends when `seq` is acknowledged, unless one is being timed.
    pub(super) fn time_round_trip(&mut self, seq: SeqNum, now: Time) {
        if self.timing != TIMING {
            self.timing = TIMING;
            self.timed_seq = seq;
            self.timed_at_us = now.wrapping_us();
        }
    }

    /// Takes the sample if `ack` ends the round trip that is being timed (RFC 6298 §2). Where nothing is, as something
    /// was sent again, `echo` says which sending was acknowledged (§3): our clock in ms, from a timestamps option.
    /// Returns the sample where it is of one sending and exact.
    pub(super) fn end_round_trip(&mut self, ack: SeqNum, echo: Option<u32>, now: Time) -> Option<u32> {
        let elapsed_us = match (self.timing, echo) {
            (TIMING, _) if !ack.before(self.timed_seq) => now.wrapping_us().wrapping_sub(self.timed_at_us),
            (AMBIGUOUS, Some(echo)) => now.wrapping_ms().wrapping_sub(echo).saturating_mul(1_000),
            _ => return None,
        };
        let is_exact = self.timing == TIMING;
        self.timing = NOT_TIMING;
        let sample_us = elapsed_us.clamp(1, SAMPLE_US_MAX);
        if self.srtt_us == 0 {
            self.srtt_us = sample_us;
            self.rttvar_us = sample_us / 2;
        } else {
            let deviation_us = self.srtt_us.abs_diff(sample_us);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + deviation_us / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + sample_us / 8).max(1);
        }
        is_exact.then_some(sample_us)
    }

    /// Something was sent again: what is being timed would be ambiguous (Karn, MUST-18).
    pub(super) fn abandon_round_trip(&mut self) {
        self.timing = AMBIGUOUS;
    }

    /// The time-out without back-off.
    pub(super) fn reset_rto(&mut self) {
        self.rto_ms = if self.has_lost_syn_ack() {
            RTO_AFTER_LOST_SYN_ACK_MS
        } else if self.srtt_us == 0 {
            RTO_INITIAL_MS
        } else {
            self.srtt_us / 1_000 + (4 * (self.rttvar_us / 1_000)).max(RTO_VARIATION_MIN_MS)
        };
        self.rto_ms = self.rto_ms.min(RTO_MAX_MS);
    }

    /// Doubles the time-out (RFC 6298 §5.5).
    pub(super) fn back_off(&mut self) {
        self.retries = self.retries.saturating_add(1);
        self.rto_ms = (self.rto_ms * 2).min(RTO_MAX_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Flow;

    fn active() -> Active {
        Active::quiet(0, &Flow::free(0))
    }

    #[test]
    fn the_first_sample_sets_rtt_and_variation() {
        let mut active = active();
        active.time_round_trip(SeqNum(10), Time::from_ms(1_000));
        active.end_round_trip(SeqNum(9), None, Time::from_ms(1_040));
        assert_eq!(active.srtt_us(), None, "an earlier acknowledgment does not end the round trip");
        active.end_round_trip(SeqNum(10), None, Time::from_ms(1_100));
        active.reset_rto();
        assert_eq!((active.srtt_us, active.rttvar_us, active.rto_ms), (100_000, 50_000, 300));
    }

    #[test]
    fn a_repeated_segment_is_not_timed() {
        let mut active = active();
        active.time_round_trip(SeqNum(10), Time::from_ms(0));
        active.abandon_round_trip();
        active.end_round_trip(SeqNum(10), None, Time::from_ms(5));
        assert_eq!(active.srtt_us(), None);
    }

    #[test]
    fn back_off_doubles_up_to_a_minute() {
        let mut active = active();
        for expected_ms in [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            active.back_off();
            assert_eq!(active.rto_ms, expected_ms);
        }
    }
}
