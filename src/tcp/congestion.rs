//! How fast: the congestion window (RFC 5681, RFC 9438).
//!
//! In: bytes that arrived, or the news that some were lost. Out: the window moved. Two ways of avoiding congestion
//! stand behind one small trait; slow start and what recovery does with the window are the same for both.
//!
//! Invariant: integers only, so that the same events give the same window on every machine.

use super::slow_start::Pace;
use super::{Active, Flow, Time};

/// How congestion is avoided once it has been met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CongestionControl {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 6582.
    NewReno,
}

/// What the window grows for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// Bytes that arrived.
    pub acknowledged: u32,
    /// How fast slow start is.
    pub pace: Pace,
}

/// What CUBIC remembers; all zero before the first loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Cubic {
    /// The window before the last reduction, in bytes.
    pub w_max: u32,
    /// When congestion avoidance began, in wrapping ms, 0 for not.
    epoch_ms: u32,
    /// The window then.
    epoch_cwnd: u32,
    /// The window that Reno would have.
    w_est: u32,
    /// Bytes that arrived and have not made the window grow yet.
    credit: u32,
}

/// One way of avoiding congestion.
trait Avoidance {
    /// Something was lost with this window. Returns the new threshold.
    fn reduce(&mut self, cwnd: u32, mss: u32) -> u32;
    /// So many bytes arrived. Returns how much the window grows.
    fn grow(&mut self, cwnd: u32, acknowledged: u32, mss: u32, srtt_ms: u32, now: Time) -> u32;
}

struct NewReno<'a>(&'a mut Cubic);

impl Avoidance for NewReno<'_> {
    fn reduce(&mut self, cwnd: u32, mss: u32) -> u32 {
        (cwnd / 2).max(2 * mss)
    }

    /// A segment for each window (RFC 5681 §3.1).
    fn grow(&mut self, cwnd: u32, acknowledged: u32, mss: u32, _srtt_ms: u32, _now: Time) -> u32 {
        self.0.credit = self.0.credit.saturating_add(acknowledged);
        if self.0.credit < cwnd {
            return 0;
        }
        self.0.credit -= cwnd;
        mss
    }
}

impl Avoidance for Cubic {
    /// RFC 9438 §4.6, with fast convergence (§4.7).
    fn reduce(&mut self, cwnd: u32, mss: u32) -> u32 {
        self.w_max = if cwnd < self.w_max { scaled(cwnd, 17, 20) } else { cwnd };
        self.epoch_ms = 0;
        scaled(cwnd, 7, 10).max(2 * mss)
    }

    /// RFC 9438 §4.2 to §4.5.
    fn grow(&mut self, cwnd: u32, acknowledged: u32, mss: u32, srtt_ms: u32, now: Time) -> u32 {
        let now_ms = now.wrapping_ms().max(1);
        if self.epoch_ms == 0 {
            *self = Cubic { w_max: self.w_max.max(cwnd), epoch_ms: now_ms, epoch_cwnd: cwnd, w_est: cwnd, credit: 0 };
        }
        // As a Reno flow that halves would grow beside one that takes three tenths (§4.3).
        let alpha_acknowledged = if self.w_est < self.w_max { scaled(acknowledged, 9, 17) } else { acknowledged };
        self.w_est = self.w_est.saturating_add(per_window(alpha_acknowledged, mss, cwnd));
        let t_ms = i128::from(now_ms.wrapping_sub(self.epoch_ms)) + i128::from(srtt_ms);
        let k_ms = i128::from(cube_root(
            u64::from(self.w_max - self.epoch_cwnd.min(self.w_max)) * 2_500_000_000 / u64::from(mss),
        ));
        let distance_ms = t_ms - k_ms;
        // C = 0.4 segments a second cubed.
        let above = i128::from(mss) * 4 * distance_ms * distance_ms * distance_ms / 10_000_000_000;
        let cubic = i128::from(self.w_max) + above;
        let target = cubic.clamp(i128::from(cwnd), i128::from(scaled(cwnd, 3, 2))) as u32;
        if cubic < i128::from(self.w_est) {
            return self.w_est.saturating_sub(cwnd);
        }
        self.credit = self.credit.saturating_add(acknowledged.min(cwnd));
        let growth = per_window(self.credit, target - cwnd, cwnd);
        self.credit = if growth > 0 { 0 } else { self.credit };
        growth
    }
}

impl CongestionControl {
    /// Something was lost. Returns the new threshold (ssthresh).
    pub(super) fn reduce(self, cubic: &mut Cubic, cwnd: u32, mss: u32) -> u32 {
        match self {
            CongestionControl::Cubic => cubic.reduce(cwnd, mss),
            CongestionControl::NewReno => NewReno(cubic).reduce(cwnd, mss),
        }
    }

    /// So many bytes arrived while nothing is being recovered, and the window was in use: it opens.
    pub(super) fn open(self, active: &mut Active, cubic: &mut Cubic, mss: u32, opening: Opening, now: Time) {
        let Opening { acknowledged, pace } = opening;
        if pace == Pace::Over {
            active.ssthresh = active.ssthresh.min(active.cwnd);
        }
        if active.cwnd < active.ssthresh {
            // So many segments for each acknowledgment, so that one of a whole window makes no burst: eight at first
            // (RFC 9406 §4.2), two after a loss (RFC 3465 §2.3).
            let limit = if active.ssthresh == u32::MAX { 8 } else { 2 };
            let most = acknowledged.min(limit * mss);
            let growth = if pace == Pace::Quarter { most / 4 } else { most };
            active.cwnd = active.cwnd.saturating_add(growth.min(active.ssthresh - active.cwnd));
            return;
        }
        let (cwnd, srtt_ms) = (active.cwnd, active.srtt_us / 1_000);
        let growth = match self {
            CongestionControl::Cubic => cubic.grow(cwnd, acknowledged, mss, srtt_ms, now),
            CongestionControl::NewReno => NewReno(cubic).grow(cwnd, acknowledged, mss, srtt_ms, now),
        };
        active.cwnd = active.cwnd.saturating_add(growth);
    }
}

/// Without a repair block: the window grows for newly acknowledged bytes (RFC 5681 §3.1).
pub(super) fn open_without_repair(flow: &Flow, active: &mut Active, acknowledged: u32) {
    let mss = u32::from(flow.mss);
    let growth =
        if active.cwnd < active.ssthresh { acknowledged.min(2 * mss) } else { (mss * mss / active.cwnd.max(1)).max(1) };
    active.cwnd = active.cwnd.saturating_add(growth);
}

/// Without a repair block, which would do it step by step: the window is reduced at once, for a mark.
pub(super) fn reduce_without_repair(flow: &Flow, active: &mut Active, control: CongestionControl) {
    active.ssthresh = control.reduce(&mut Cubic::default(), active.cwnd, u32::from(flow.mss));
    active.cwnd = active.cwnd.min(active.ssthresh);
    active.note_reduced(flow);
}

fn scaled(value: u32, numerator: u64, denominator: u64) -> u32 {
    (u64::from(value) * numerator / denominator).min(u64::from(u32::MAX)) as u32
}

/// `part` of `whole`, for so many of `each`.
fn per_window(part: u32, each: u32, whole: u32) -> u32 {
    (u64::from(part) * u64::from(each) / u64::from(whole.max(1))).min(u64::from(u32::MAX)) as u32
}

/// The integer cube root.
fn cube_root(value: u64) -> u64 {
    let mut root = 0_u64;
    for bit in (0..=21).rev() {
        let next = root | 1 << bit;
        if next.checked_pow(3).is_some_and(|cube| cube <= value) {
            root = next;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Flow;

    fn full(acknowledged: u32) -> Opening {
        Opening { acknowledged, pace: Pace::Full }
    }

    #[test]
    fn the_cube_root_is_rounded_down() {
        for root in [0_u64, 1, 2, 999, 1_000, 2_000_000] {
            assert_eq!(cube_root(root.pow(3)), root);
            assert_eq!(cube_root(root.pow(3) + 3 * root * root), root);
        }
    }

    /// With 100 segments lost at a round trip of 100 ms: down to 70, back at 100 after K = cbrt(30 / 0.4) = 4.2 s, with
    /// a plateau there, then beyond.
    #[test]
    fn cubic_is_back_at_its_window_after_k() {
        let mss = 1_000;
        let mut active = Active::quiet(0, &Flow::free(0));
        let mut cubic = Cubic::default();
        active.cwnd = 100 * mss;
        active.srtt_us = 100_000;
        active.ssthresh = CongestionControl::Cubic.reduce(&mut cubic, active.cwnd, mss);
        active.cwnd = active.ssthresh;
        assert_eq!(active.cwnd, 70 * mss);
        let mut at = |seconds_tenths: u64, active: &mut Active| {
            let cwnd = active.cwnd;
            for part in 0..10 {
                let now = Time::from_ms(1_000 + seconds_tenths * 100 + part * 10);
                CongestionControl::Cubic.open(active, &mut cubic, mss, full(cwnd / 10), now);
            }
            active.cwnd / mss
        };
        let windows: Vec<u32> = (0..80).map(|tenth| at(tenth, &mut active)).collect();
        assert!((88..=97).contains(&windows[20]), "{windows:?}");
        assert!((98..=101).contains(&windows[42]), "{windows:?}");
        assert!(windows[79] > 110, "{windows:?}");
        assert!(windows.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn reno_grows_by_a_segment_for_each_window() {
        let mss = 1_000;
        let mut active = Active::quiet(0, &Flow::free(0));
        let mut cubic = Cubic::default();
        (active.cwnd, active.ssthresh) = (10 * mss, 10 * mss);
        let mut after = |segments: u32| {
            for _ in 0..segments {
                CongestionControl::NewReno.open(&mut active, &mut cubic, mss, full(mss), Time(0));
            }
            active.cwnd / mss
        };
        assert_eq!([9, 1, 10, 1].map(&mut after), [10, 11, 11, 12]);
    }

    #[test]
    fn slow_start_ends_at_the_threshold() {
        let mss = 1_000;
        let mut active = Active::quiet(0, &Flow::free(0));
        (active.cwnd, active.ssthresh) = (10 * mss, 12 * mss);
        CongestionControl::NewReno.open(&mut active, &mut Cubic::default(), mss, full(3 * mss), Time(0));
        assert_eq!(active.cwnd, 12 * mss);
    }
}
