//! What timestamps decide of a segment that arrives (RFC 7323 §4.3, §5; RFC 6191).
//!
//! In: the flow, the segment, the time. Out: whether it is from an earlier round of the sequence numbers, whether it
//! may take the place of a connection in TIME-WAIT; and TS.Recent moved.

use std::ops::ControlFlow::{self, Break, Continue};

use super::{Active, Control, Effects, Flow, Reply, Rule, Segment, State, Time};

/// TS.Recent of a connection that was silent for longer says nothing: 24 days (RFC 7323 §5.5).
const TS_RECENT_VALID_S: u32 = 24 * 86_400;

/// What the timestamps option takes of each segment, with its padding.
const TIMESTAMPS_BYTES: u16 = 12;

impl Flow {
    /// What options take of each segment of the connection, SACK apart.
    pub(super) fn options_bytes(&self) -> u16 {
        if self.has_timestamps() { TIMESTAMPS_BYTES } else { 0 }
    }
}

/// Whether this SYN opens a new connection in place of one in TIME-WAIT: its timestamp is later than all of the old
/// one's, or it lies beyond everything that the old one sent (RFC 9293 §3.6.1, MAY-2; RFC 6191 §2). One whose bytes are
/// not read yet stays; the peer asks again.
pub fn is_reopening(flow: &Flow, active: &Active, segment: &Segment) -> bool {
    let is_plain_syn = segment.control.has(Control::SYN)
        && !segment.control.has(Control::ACK)
        && !segment.control.has(Control::RST)
        && !segment.control.has(Control::FIN);
    let lies_beyond = segment.seq.after(flow.rcv_nxt);
    let is_later = match segment.timestamps {
        Some(timestamps) if flow.has_timestamps() => {
            let ahead = timestamps.value.wrapping_sub(flow.ts_recent) as i32;
            ahead > 0 || ahead == 0 && lies_beyond
        }
        Some(_) | None => lies_beyond,
    };
    flow.is_in(State::TimeWait) && !active.has_unread(flow) && is_plain_syn && is_later
}

/// Before the first check, where timestamps were agreed on: a segment with an old one is from an earlier round of the
/// sequence numbers (PAWS, RFC 7323 §5.3), one without is not the peer's (§3.2). A reset is exempt from both.
pub(super) fn check_timestamps(flow: &mut Flow, segment: &Segment, now: Time) -> ControlFlow<Effects> {
    if !flow.has_timestamps() || segment.control.has(Control::RST) {
        return Continue(());
    }
    let Some(timestamps) = segment.timestamps else {
        // A peer that has lost the connection and asks for a new one without timestamps must hear from us (RFC 5961
        // §4.2).
        let is_syn = segment.control.has(Control::SYN);
        return if is_syn { Continue(()) } else { Break(Effects::only(Rule::TimestampMissing)) };
    };
    let is_old = (timestamps.value.wrapping_sub(flow.ts_recent) as i32) < 0;
    let is_valid = now.seconds().saturating_sub(flow.heard_s) < TS_RECENT_VALID_S;
    if !is_old || !is_valid {
        return Continue(());
    }
    if segment.length() == 0 && !flow.may_challenge(now) {
        return Break(Effects::only(Rule::ChallengeThrottled));
    }
    Break(Effects::reply(Rule::TimestampTooOld, Reply::Ack))
}

/// TS.Recent follows segments that are not beyond the last acknowledgment that was sent (RFC 7323 §4.3). An older value
/// passes `check_timestamps` only where the one we had is no longer valid.
pub(super) fn take_timestamp(flow: &mut Flow, active: &Active, segment: &Segment) {
    if let Some(timestamps) = segment.timestamps
        && flow.has_timestamps()
        && segment.seq.at_or_before(active.rcv_acked)
        && !segment.control.has(Control::RST)
    {
        flow.ts_recent = timestamps.value;
    }
}
