//! The active block: what a connection needs only while something is under way.
//!
//! A flow borrows one while bytes are in flight or queued, received bytes wait for the service, or the handshake is
//! half done, and gives it back when it falls quiet.
//!
//! ```text
//!        snd_una        resend_nxt      snd_nxt (in the flow)   snd_end
//! ----------|---------------|---------------|-----------------------|----
//!   acked   |  in flight    |  to be sent   |  queued, never sent   | FIN
//!           |  or lost      |  again        |                       |
//! ```
//!
//! Where nothing is to be sent again `resend_nxt` equals SND.NXT.
//!
//! Invariant: plain old data; deadlines are in ms of the stack's clock, wrapping, 0 for none.

use bytemuck::{Pod, Zeroable};

use super::marks::{OWES_CWR, PEER_LOSING, REDUCED};
use super::{Flow, NO_SPAN, PathMemory, SeqNum, Time, path};

/// How long a gap may stay with something held behind it: a peer that lives has sent it again by then, its time-outs
/// being a minute at most where they are as ours.
const GAP_MS_MAX: u32 = 120_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Active {
    /// Slot of the flow that has borrowed this.
    pub flow: u32,
    /// Oldest byte not acknowledged.
    pub snd_una: SeqNum,
    /// Next byte to send again.
    pub resend_nxt: SeqNum,
    /// One past the last queued byte; our FIN, if any, has this number.
    pub snd_end: SeqNum,
    /// First span of the send queue.
    pub send_head: u32,
    /// Its last span.
    pub send_tail: u32,
    /// Sequence number of the first byte of the first span.
    pub send_head_seq: SeqNum,
    /// First span of the receive queue: bytes that are acknowledged and not yet consumed.
    pub recv_head: u32,
    /// Its last span.
    pub recv_tail: u32,
    /// How much of its first span is consumed.
    pub recv_head_offset: u32,
    /// How many bytes wait in it.
    pub recv_bytes: u32,
    /// How many spans they are in.
    pub recv_spans: u32,
    /// Congestion window in bytes (RFC 5681).
    pub cwnd: u32,
    /// Slow start threshold in bytes.
    pub ssthresh: u32,
    /// Smoothed round-trip time, 0 before the first sample (RFC 6298).
    pub srtt_us: u32,
    /// Round-trip time variation.
    pub rttvar_us: u32,
    /// Retransmission time-out with its back-off.
    pub rto_ms: u32,
    /// The acknowledgment of this number ends the round trip that is being timed.
    pub(super) timed_seq: SeqNum,
    pub(super) timed_at_us: u32,
    /// When the retransmission or probe timer expires.
    deadline_ms: u32,
    /// Since when nothing new was acknowledged, in seconds plus one; 0 while all is well.
    stalled_since_s: u32,
    /// Time-outs in a row.
    pub retries: u8,
    pub(super) timing: u8,
    /// An ACK is owed to the peer and goes out at the end of the batch.
    is_ack_owed: u8,
    /// Duplicate acknowledgments in a row, where there is no SACK.
    pub(super) duplicates: u8,
    /// The send queue is sent up to here only.
    pub(super) send_limit: SeqNum,
    /// The acknowledgment that was last sent (Last.ACK.sent of RFC 7323 §4.3).
    pub rcv_acked: SeqNum,
    /// When an ACK that is delayed goes out.
    ack_deadline_ms: u32,
    /// One past the last urgent byte of the peer's that the application was told of.
    pub(super) rcv_up: SeqNum,
    /// One past the last urgent byte in the send queue.
    pub(super) snd_up: SeqNum,
    /// Which of `rcv_up`, `snd_up`, `reduced_end` and `send_limit` say something, whether CWR is owed, and whether what
    /// the peer sends is being lost.
    pub(super) marks: u8,
    /// What is known of the size of segments that arrive: see `path`.
    pub(super) path: u8,
    /// A path MTU that was claimed and is not believed yet; 0 for none.
    pub(super) doubted_mtu: u16,
    /// The repair block that is borrowed, plus one; 0 for none.
    repair: u32,
    /// When what is held beyond a gap is given up.
    pub(super) gap_deadline_ms: u32,
    /// Where the segment ends that `path` speaks of, or where the one begins that the doubted claim is about.
    pub(super) path_seq: SeqNum,
    /// What was sent before this was sent before the congestion window was last reduced.
    pub(super) reduced_end: SeqNum,
}

const _: () = assert!(size_of::<Active>() == 128, "an active block is two cache lines");

impl Active {
    /// The block of a quiet flow, with what the flow remembers of its path.
    pub fn quiet(slot: u32, flow: &Flow) -> Active {
        let memory = flow.path_memory();
        let mss = u32::from(flow.mss);
        let mut active = Active {
            flow: slot,
            snd_una: flow.snd_nxt,
            resend_nxt: flow.snd_nxt,
            snd_end: flow.snd_nxt,
            send_head: NO_SPAN,
            send_tail: NO_SPAN,
            send_head_seq: flow.snd_nxt,
            recv_head: NO_SPAN,
            recv_tail: NO_SPAN,
            rcv_acked: flow.rcv_nxt,
            cwnd: (10 * mss).min((2 * mss).max(14_600)),
            ssthresh: u32::MAX,
            srtt_us: memory.srtt_ms.saturating_mul(1_000),
            rttvar_us: memory.rttvar_ms.saturating_mul(1_000),
            marks: if memory.is_cwr_owed { OWES_CWR | REDUCED } else { 0 }
                | if memory.is_peer_losing { PEER_LOSING } else { 0 },
            reduced_end: flow.snd_nxt,
            path: if memory.has_taken_full { path::ARRIVED } else { path::UNTRIED },
            ..Active::zeroed()
        };
        if flow.has_our_fin() {
            active.snd_end = flow.snd_nxt.minus(1);
        }
        if memory.ssthresh == PathMemory::ONE_SEGMENT {
            active.cwnd = mss;
        } else if memory.ssthresh > 0 {
            active.ssthresh = memory.ssthresh.max(2 * mss);
            active.cwnd = active.cwnd.min(active.ssthresh);
        }
        if active.has_lost_syn_ack() {
            active.cwnd = mss;
        }
        active.reset_rto();
        active
    }

    /// The index of the repair block, while there is one.
    pub fn repair(&self) -> Option<u32> {
        self.repair.checked_sub(1)
    }

    /// Borrows a repair block, or gives it back.
    pub fn set_repair(&mut self, index: Option<u32>) {
        self.repair = index.map_or(0, |index| index + 1);
    }

    /// Whether the flow needs this block no longer, and owes the peer nothing.
    #[inline]
    pub fn is_quiet(&self, flow: &Flow) -> bool {
        !self.is_needed(flow) && self.is_ack_owed == 0
    }

    /// Owes the peer an ACK, which goes out at the end of the batch.
    pub fn owe_ack(&mut self) {
        self.is_ack_owed = 1;
    }

    /// Owes the peer an ACK, which may wait for so many ms for something that it can go with (RFC 9293 §3.8.6.3).
    pub(super) fn owe_delayed_ack(&mut self, delay_ms: u32, now: Time) {
        if self.ack_deadline_ms == 0 {
            self.ack_deadline_ms = deadline_in(delay_ms, now);
        }
    }

    /// Whether an ACK goes out at the end of the batch.
    pub fn is_ack_owed(&self) -> bool {
        self.is_ack_owed == 1
    }

    /// An ACK that waits shall wait no longer. Returns whether there was one.
    pub fn hurry_ack(&mut self) -> bool {
        if self.ack_deadline_ms == 0 {
            return false;
        }
        self.ack_deadline_ms = 0;
        // Stored plainly: rustc 1.95 drops the store of `|= u8::from(is_waiting)` where it inlines this into the timer.
        self.is_ack_owed = 1;
        true
    }

    /// A segment with this acknowledgment leaves.
    pub(super) fn acknowledge(&mut self, rcv_nxt: SeqNum) {
        self.rcv_acked = rcv_nxt;
        self.is_ack_owed = 0;
        self.ack_deadline_ms = 0;
    }

    /// Whether something is under way that an idle flow has no place for.
    #[inline]
    pub fn is_needed(&self, flow: &Flow) -> bool {
        let has_unsent = self.snd_end.after(flow.snd_nxt) || flow.is_close_queued();
        let is_half_open = flow.is_half_open();
        let has_waiting_ack = self.ack_deadline_ms != 0;
        has_waiting_ack
            || self.repair != 0
            || self.snd_una != flow.snd_nxt
            || has_unsent
            || self.recv_bytes > 0
            || is_half_open
    }

    /// Whether no loss, no mark and no doubt about the path is to be thought of when something is acknowledged.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let has_settled_path = self.path == path::UNTRIED || self.path == path::ARRIVED;
        self.repair == 0 && self.marks & REDUCED == 0 && has_settled_path && self.doubted_mtu == 0
    }

    /// Whether everything that is queued was sent, nothing is to be sent again, and no ACK is owed.
    #[inline]
    pub(super) fn has_sent_all(&self, flow: &Flow) -> bool {
        self.snd_end == flow.snd_nxt
            && self.resend_nxt == flow.snd_nxt
            && self.is_ack_owed == 0
            && !flow.is_close_queued()
            && !flow.is_half_open()
    }

    /// What the flow is to remember of the path. Where congestion was met, a window that has grown well beyond the
    /// threshold since counts for most of what it is (RFC 2861 §3.1): the next restart begins with no more.
    pub fn path_memory(&self, flow: &Flow) -> PathMemory {
        let ssthresh = match self.ssthresh {
            u32::MAX if self.cwnd <= u32::from(flow.mss) => PathMemory::ONE_SEGMENT,
            u32::MAX => 0,
            ssthresh => ssthresh.max(self.cwnd - self.cwnd / 4),
        };
        PathMemory {
            srtt_ms: self.srtt_us.div_ceil(1_000),
            rttvar_ms: self.rttvar_us.div_ceil(1_000),
            ssthresh,
            is_cwr_owed: self.marks & OWES_CWR != 0,
            has_taken_full: self.path == path::ARRIVED,
            is_peer_losing: self.is_peer_losing(),
        }
    }

    /// The smoothed round-trip time, once there was a sample.
    pub fn srtt_us(&self) -> Option<u32> {
        (self.srtt_us != 0).then_some(self.srtt_us)
    }

    /// Whether the application is still to be given bytes that the peer was told have arrived. One that has closed for
    /// good wants none.
    pub fn has_unread(&self, flow: &Flow) -> bool {
        self.recv_bytes > 0 && !flow.is_orphaned()
    }

    /// How many sent bytes (and FIN or SYN) are not acknowledged.
    pub fn in_flight(&self, flow: &Flow) -> u32 {
        flow.snd_nxt.since(self.snd_una)
    }

    /// How much of a receive window of so many bytes the receive queue takes up. A span counts as a thousandth at
    /// least, or a peer that sends byte by byte would take many times the memory that its window stands for.
    pub fn received_share(&self, window_bytes: u32) -> u32 {
        const SPANS_MAX: u32 = 1_024;
        self.recv_bytes.max(self.recv_spans.saturating_mul(window_bytes / SPANS_MAX))
    }

    /// How many bytes are in the send queue, sent or not.
    pub fn queued_bytes(&self) -> u32 {
        if self.snd_end.before(self.snd_una) { 0 } else { self.snd_end.since(self.snd_una) }
    }

    /// When the timer expires, in wrapping ms.
    pub fn deadline_ms(&self) -> Option<u32> {
        (self.deadline_ms != 0).then_some(self.deadline_ms)
    }

    /// When something expires, the timer, the delay of an ACK or the wait for a gap, in ms of the stack's clock.
    pub fn next_deadline(&self, now: Time) -> Option<u64> {
        const NEVER: i32 = i32::MAX;
        let ahead_ms = |deadline_ms: u32| match deadline_ms {
            0 => NEVER,
            _ => deadline_ms.wrapping_sub(now.wrapping_ms()) as i32,
        };
        let gap_ms = ahead_ms(self.gap_deadline_ms);
        let nearest_ms = ahead_ms(self.deadline_ms).min(ahead_ms(self.ack_deadline_ms)).min(gap_ms);
        (nearest_ms != NEVER).then(|| now.ms().saturating_add_signed(nearest_ms.into()))
    }

    /// Whether the timer has expired.
    pub fn is_due(&self, now: Time) -> bool {
        is_past(self.deadline_ms, now)
    }

    /// Whether an ACK has waited long enough.
    pub fn is_ack_due(&self, now: Time) -> bool {
        is_past(self.ack_deadline_ms, now)
    }

    /// Something is held beyond a gap, which the peer has so long to fill.
    pub fn await_gap(&mut self, now: Time) {
        if self.gap_deadline_ms == 0 {
            self.gap_deadline_ms = deadline_in(GAP_MS_MAX, now);
        }
    }

    /// Nothing is held, or some of the gap is filled.
    pub fn end_gap(&mut self) {
        self.gap_deadline_ms = 0;
    }

    /// Whether the peer has had its time.
    pub fn is_gap_due(&self, now: Time) -> bool {
        is_past(self.gap_deadline_ms, now)
    }

    /// Starts the timer anew.
    pub fn arm(&mut self, now: Time) {
        self.deadline_ms = deadline_in(self.rto_ms, now);
    }

    /// Starts the timer anew, for so many ms.
    pub(super) fn arm_for(&mut self, wait_ms: u32, now: Time) {
        self.deadline_ms = deadline_in(wait_ms, now);
    }

    /// Stops the timer.
    pub fn disarm(&mut self) {
        self.deadline_ms = 0;
    }

    /// For how many seconds nothing new was acknowledged; starts to count with the first call.
    pub(super) fn stalled_s(&mut self, now: Time) -> u32 {
        if self.stalled_since_s == 0 {
            self.stalled_since_s = now.seconds() + 1;
        }
        (now.seconds() + 1).saturating_sub(self.stalled_since_s)
    }

    /// The peer has answered, though nothing new was acknowledged.
    pub(super) fn answered(&mut self) {
        self.stalled_since_s = 0;
    }

    /// Something new was acknowledged.
    pub(super) fn progressed(&mut self) {
        self.stalled_since_s = 0;
        self.retries = 0;
        self.reset_rto();
    }
}

/// A deadline; never 0, which means that there is none.
fn deadline_in(delay_ms: u32, now: Time) -> u32 {
    now.wrapping_ms().wrapping_add(delay_ms).max(1)
}

fn is_past(deadline_ms: u32, now: Time) -> bool {
    deadline_ms != 0 && now.wrapping_ms().wrapping_sub(deadline_ms) as i32 >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Active {
        Active::quiet(0, &Flow::free(0))
    }

    #[test]
    fn a_deadline_is_due_across_the_wrap_of_its_clock() {
        let mut active = active();
        let now = Time::from_ms(u64::from(u32::MAX) - 10);
        active.arm(now);
        assert!(!active.is_due(now.plus_ms(999)));
        assert!(active.is_due(now.plus_ms(1_000)));
    }
}
