//! The clock hand: goes round the table of flows and looks at each in passing.
//!
//! Time-outs of idle flows are in no timer; they are noticed when the hand passes. A round takes four seconds whatever
//! the size of the table, so such a time-out comes up to four seconds late.

use std::ops::Range;

use crate::tcp::Time;

const ROUND_MS: u64 = 4_000;
const STEP_MS: u64 = 50;
/// Flows that one step passes at most; a table so large that this is too few has a slower hand.
const STEP_FLOWS_MAX: u64 = 65_536;

/// Where the hand stands.
#[derive(Debug)]
pub struct ClockHand {
    slot: u32,
    moved_at: Time,
}

impl ClockHand {
    /// At the first slot.
    pub fn new(now: Time) -> ClockHand {
        ClockHand { slot: 0, moved_at: now }
    }

    /// Moves on over a table of `slots` slots, and returns those passed, at most one round and never across the end.
    pub fn advance(&mut self, now: Time, slots: u32) -> Range<u32> {
        if now < self.next() || slots == 0 {
            return 0..0;
        }
        let elapsed_ms = (now.ms() - self.moved_at.ms()).min(ROUND_MS);
        self.moved_at = now;
        let count = (u64::from(slots) * elapsed_ms).div_ceil(ROUND_MS).min(STEP_FLOWS_MAX) as u32;
        let start = if self.slot >= slots { 0 } else { self.slot };
        let end = start.saturating_add(count).min(slots);
        self.slot = end;
        start..end
    }

    /// When it wants to move next.
    pub fn next(&self) -> Time {
        self.moved_at.plus_ms(STEP_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_passes_every_slot_once() {
        for slots in [1u32, 7, 80, 1_000, 100_000] {
            let mut hand = ClockHand::new(Time::from_ms(0));
            let mut passed = vec![0; slots as usize];
            let mut now = Time::from_ms(0);
            let mut rounds = 0;
            while rounds == 0 {
                now = now.plus_ms(STEP_MS);
                let range = hand.advance(now, slots);
                rounds += u32::from(range.end == slots);
                range.for_each(|slot| passed[slot as usize] += 1);
            }
            assert!(passed.iter().all(|&times| times == 1), "{slots} slots");
            assert!(now.ms() <= ROUND_MS + STEP_MS, "{slots} slots took {} ms", now.ms());
        }
    }

    #[test]
    fn it_stands_still_between_steps() {
        let mut hand = ClockHand::new(Time::from_ms(0));
        assert!(hand.advance(Time::from_ms(STEP_MS - 1), 1_000).is_empty());
        assert!(!hand.advance(Time::from_ms(STEP_MS), 1_000).is_empty());
        assert!(hand.advance(Time::from_ms(STEP_MS + 1), 1_000).is_empty());
    }
}
