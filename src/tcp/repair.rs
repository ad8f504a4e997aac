//! The repair block: what a connection needs while bytes are lost or out of order.
//!
//! An active block borrows one while it holds received bytes beyond a gap, or more than one segment is in flight, and
//! gives it back when neither is so. Without one a connection still works: what comes out of order is asked for again,
//! and a lost segment is found by its time-out.
//!
//! ```text
//!  held    what the peer sent beyond RCV.NXT, as ranges        |----gap----[....]--gap--[...]
//!  runs    what we sent, from SND.UNA on, as runs of one state [flying][sacked][lost][flying again]
//! ```
//!
//! Invariant: plain old data; both lists are in order, without overlap, and have a bound.

use bytemuck::{Pod, Zeroable};

use super::congestion::Cubic;
use super::recovery::{PROBED_NEW, REDUCING};
use super::slow_start::SlowStart;
use super::{Active, Control, Flow, Segment, SeqNum, Time};

/// A range of the peer's stream beyond a gap, with the spans that hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Held {
    /// Its first byte.
    pub start: SeqNum,
    /// One past its last.
    pub end: SeqNum,
    /// First span.
    pub head: u32,
    /// Last span.
    pub tail: u32,
}

/// A range of our stream in flight whose bytes have the same fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Run {
    /// One past its last byte; it begins where the run before ends.
    pub end: SeqNum,
    /// When the last of it was sent, in wrapping microseconds.
    pub sent_us: u32,
    pub fate: u8,
    /// Whether it was sent more than once.
    pub is_resent: u8,
    /// How long before the last of it the first was sent, or as long as can be said.
    pub spread_us: u16,
}

/// When bytes were sent, and up to where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Sending {
    /// In wrapping microseconds.
    pub at_us: u32,
    pub end: SeqNum,
}

/// In flight, as far as is known.
pub(super) const FLYING: u8 = 0;
/// Selectively acknowledged.
pub(super) const SACKED: u8 = 1;
/// Lost, to be sent again.
pub(super) const LOST: u8 = 2;

/// How many ranges are held at most.
pub const HELD_MAX: usize = 12;
/// How many runs there are at most.
pub(super) const RUNS_MAX: usize = 26;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Repair {
    /// The active block that has borrowed this.
    pub active: u32,
    pub(super) held_count: u8,
    pub(super) run_count: u8,
    /// Where we are in recovering: see `recovery`.
    pub(super) phase: u8,
    /// 1 where the peer's FIN was received out of order, at `fin_seq`.
    pub(super) has_fin: u8,
    pub(super) held: [Held; HELD_MAX],
    pub(super) runs: [Run; RUNS_MAX],
    pub(super) fin_seq: SeqNum,
    /// Which range came last, to be told first.
    pub(super) latest: SeqNum,
    /// What came twice, to be told once (RFC 2883); empty where both are the same.
    pub(super) duplicate_start: SeqNum,
    pub(super) duplicate_end: SeqNum,
    /// Recovery ends when everything before this is acknowledged.
    pub(super) recovery_end: SeqNum,
    /// Proportional rate reduction (RFC 6937): bytes delivered and sent since recovery began, and where it began.
    pub(super) prr_delivered: u32,
    pub(super) prr_out: u32,
    pub(super) prior_cwnd: u32,
    pub(super) prior_ssthresh: u32,
    /// RACK (RFC 8985): the latest sending that is known to have arrived.
    pub(super) rack: Sending,
    pub(super) rack_rtt_us: u32,
    pub(super) min_rtt_us: u32,
    /// The furthest byte that is known to have arrived.
    pub(super) furthest: SeqNum,
    /// How many quarters of the round trip a segment may be late.
    pub(super) reordering_quarters: u8,
    /// Recoveries until that is forgotten.
    pub(super) reordering_rounds: u8,
    pub(super) has_reordering: u8,
    /// Whether `rack` and `rack_rtt_us` say something.
    pub(super) has_rack: u8,
    /// No widening for reordering until this is acknowledged.
    pub(super) reordering_round_end: SeqNum,
    /// How long late segments may still be late, in microseconds; 0 where none are.
    pub(super) late_us: u32,
    /// What was in flight when it was probed whether the end of it is lost.
    pub(super) probe_end: SeqNum,
    /// Our clock, in ms and never 0, when something was first sent again in this recovery; 0 where nothing was.
    pub(super) resent_ms: u32,
    /// How many spans hold what is held.
    pub(super) held_spans: u16,
    /// Whether the end of what was sent is being probed: see `recovery`.
    pub(super) probe: u8,
    /// What the connection's timer stands for: see `recovery`.
    pub(super) timer: u8,
    pub(super) cubic: Cubic,
    pub(super) slow_start: SlowStart,
}

const _: () = assert!(size_of::<Repair>() == 640, "a repair block is ten cache lines");

/// Whether a segment with payload or FIN is not the next one, so that a repair block is of use.
pub fn is_out_of_order(flow: &Flow, segment: &Segment) -> bool {
    const BEHIND_MAX: u32 = 1 << 20;
    let is_near = segment.seq.within(flow.rcv_nxt, flow.receive_window())
        || flow.takes_sack() && segment.seq.within(flow.rcv_nxt.minus(BEHIND_MAX), BEHIND_MAX);
    let has_something = segment.length() > 0 && !segment.control.has(Control::SYN);
    has_something && is_near && segment.seq != flow.rcv_nxt && !flow.has_peer_fin()
}

impl Active {
    /// Whether more is to be in flight than one segment, whose loss a time-out finds soon enough.
    pub fn wants_repair(&self, flow: &Flow) -> bool {
        self.queued_bytes() > u32::from(flow.mss)
    }
}

impl Repair {
    /// The block that the active block with this index borrows, with what is in flight by now.
    pub fn begin(index: u32, flow: &Flow, active: &Active, now: Time) -> Repair {
        let mut repair = Repair::empty(index);
        if !flow.is_half_open() {
            repair.begin_runs(active.snd_una, flow.snd_nxt, now.wrapping_us());
            if active.resend_nxt.before(flow.snd_nxt) {
                repair.lose_from(active.snd_una, active.resend_nxt);
            }
        }
        repair
    }

    /// For an active block, with nothing held and nothing in flight.
    pub(super) fn empty(active: u32) -> Repair {
        Repair { active, reordering_quarters: 1, ..Repair::zeroed() }
    }

    /// Whether new bytes were sent to probe the tail, and nothing new was acknowledged since.
    pub fn has_probed(&self) -> bool {
        self.probe == PROBED_NEW
    }

    /// Whether a process that wrote it can have meant it: its lists are within their bounds, in order, and what is in
    /// flight is what the runs cover.
    pub fn is_valid(&self, snd_una: SeqNum, snd_nxt: SeqNum) -> bool {
        if usize::from(self.held_count) > HELD_MAX || usize::from(self.run_count) > RUNS_MAX || self.phase > REDUCING {
            return false;
        }
        let mut end = snd_una;
        for run in self.runs() {
            if run.fate > LOST || !run.end.after(end) {
                return false;
            }
            end = run.end;
        }
        let are_held = usize::from(self.held_spans) >= usize::from(self.held_count);
        let are_held_in_order = self.held().windows(2).all(|pair| pair[0].end.before(pair[1].start));
        let are_not_empty = self.held().iter().all(|range| range.start.before(range.end));
        are_held && are_held_in_order && are_not_empty && (self.run_count == 0 || end == snd_nxt)
    }

    /// The shortest round trip that was seen, or what is remembered of the path.
    pub(super) fn shortest_round_trip_us(&self, active: &Active) -> u32 {
        if self.min_rtt_us == 0 { active.srtt_us } else { self.min_rtt_us }
    }

    /// Whether it holds nothing that anybody needs.
    pub fn is_idle(&self) -> bool {
        self.held_count == 0 && self.has_fin == 0 && self.run_count == 0 && self.duplicate_start == self.duplicate_end
    }
}
