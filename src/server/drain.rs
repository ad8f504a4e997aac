//! Draining: a FIN to every connection, at a bounded rate.
//!
//! Comes in: a rate and a bound of time. Goes out: closes, a few with each pass of the worker, then the word that it is
//! over: when nothing but TIME-WAIT is left, or the bound is reached.
//!
//! Invariant: no burst. However long a pass has taken, the next one closes at most one batch.

use std::time::{Duration, Instant};

use crate::shard::{CloseHow, FlowId, Service, Shard, State, Time};

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    rate_per_s: u32,
    started: Instant,
    bound: Duration,
    closed: u64,
    next_slot: u32,
    walk_begins: Instant,
    is_any_open: bool,
    batch: Vec<FlowId>,
}

impl Drain {
    pub(super) fn new(rate_per_s: u32, bound: Duration, now: Instant) -> Drain {
        let rate_per_s = rate_per_s.max(1);
        let batch = Vec::with_capacity(BATCH_MAX);
        Drain { rate_per_s, started: now, bound, closed: 0, next_slot: 0, walk_begins: now, is_any_open: false, batch }
    }

    /// Closes what the rate allows by now. True: the drain is over.
    pub(super) fn pass<S: Service>(&mut self, now: Time, instant: Instant, shard: &mut Shard<S>) -> bool {
        let is_late = instant.saturating_duration_since(self.started) >= self.bound;
        let allowed = self.allowed(instant);
        if allowed == 0 {
            return is_late;
        }
        let next_slot = shard.flows_within(now, self.next_slot, SLOTS_MAX, |view| {
            self.is_any_open |= !matches!(view.state, State::TimeWait | State::Free);
            if matches!(view.state, State::Established | State::CloseWait) {
                self.batch.push(view.id);
            }
            self.batch.len() < allowed
        });
        for flow in self.batch.drain(..) {
            // A flow that has ended since is what a drain wants.
            let _ = shard.close(now, flow, CloseHow::Fin);
            self.closed += 1;
        }
        self.next_slot = next_slot.unwrap_or(0);
        let is_over = next_slot.is_none() && !self.is_any_open;
        if next_slot.is_none() {
            self.is_any_open = false;
            self.walk_begins = instant + WALK_PAUSE;
        }
        is_over || is_late
    }

    /// How long the worker may sleep before the next pass has something to do.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_secs(1).div_f64(f64::from(self.rate_per_s)).clamp(Duration::from_millis(1), WALK_PAUSE)
    }

    fn allowed(&self, instant: Instant) -> usize {
        if instant < self.walk_begins {
            return 0;
        }
        let elapsed_us = instant.saturating_duration_since(self.started).as_micros();
        let by_now = elapsed_us.saturating_mul(u128::from(self.rate_per_s)) / 1_000_000 + 1;
        let owed = by_now.saturating_sub(u128::from(self.closed));
        usize::try_from(owed).unwrap_or(BATCH_MAX).min(BATCH_MAX)
    }
}

/// Closes in one pass.
const BATCH_MAX: usize = 64;

/// Slots that are looked at in one pass, so that the worker's other work does not wait.
const SLOTS_MAX: u32 = 4_096;

/// A connection that was half open during one walk over the table is found by the next.
const WALK_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_no_burst_follows_a_pause() {
        let start = Instant::now();
        let mut drain = Drain::new(1_000, Duration::from_secs(60), start);
        assert_eq!(drain.allowed(start), 1);
        drain.closed = 1;
        assert_eq!(drain.allowed(start), 0);
        assert_eq!(drain.allowed(start + Duration::from_millis(10)), 10);
        assert_eq!(drain.allowed(start + Duration::from_secs(30)), BATCH_MAX);
        drain.walk_begins = start + Duration::from_secs(31);
        assert_eq!(drain.allowed(start + Duration::from_secs(30)), 0);
    }
}
