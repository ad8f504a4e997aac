//! The clock hand: goes round the table of flows and looks at each in passing.
//!
//! Time-outs of idle flows are in no timer; they are noticed when the hand passes. A round takes four seconds, so such
//! a time-out comes up to four seconds late. The hand goes in steps of a bounded number of flows, the more often the
//! larger the table; beyond sixteen million flows a thousand steps a second are too few, and a round takes longer.

use std::ops::Range;

use crate::tcp::Time;

const ROUND_US: u64 = 4_000_000;
/// A small table is looked at so often.
const STEP_US_MAX: u64 = 50_000;
const STEP_US_MIN: u64 = 1_000;
/// Flows that one step passes at most: some twenty microseconds.
const STEP_FLOWS_MAX: u64 = 4_096;
/// When it goes on after it was stopped.
const PAUSE_US: u64 = 250;

/// Where the hand stands.
#[derive(Debug)]
pub struct ClockHand {
    slot: u32,
    moved_at: Time,
    next: Time,
    /// Slots that a step was to pass and did not.
    owed: u64,
}

impl ClockHand {
    /// At the first slot.
    pub fn new(now: Time) -> ClockHand {
        ClockHand { slot: 0, moved_at: now, next: Time(now.0 + STEP_US_MAX), owed: 0 }
    }

    /// Moves on over a table of `slots` slots, and returns those passed, at most one round and never across the end.
    pub fn advance(&mut self, now: Time, slots: u32) -> Range<u32> {
        if now < self.next || slots == 0 {
            return 0..0;
        }
        let slots_wide = u64::from(slots);
        let elapsed_us = (now.0 - self.moved_at.0).min(ROUND_US);
        let due = (slots_wide * elapsed_us).div_ceil(ROUND_US) + self.owed;
        let count = due.min(STEP_FLOWS_MAX);
        let start = if self.slot >= slots { 0 } else { self.slot };
        let end = u64::from(start).saturating_add(count).min(slots_wide) as u32;
        self.slot = end;
        self.moved_at = now;
        self.owed = 0;
        self.next = Time(now.0 + (ROUND_US * STEP_FLOWS_MAX / slots_wide).clamp(STEP_US_MIN, STEP_US_MAX));
        start..end
    }

    /// The step that was last made ends before `slot`: it goes on from there soon.
    pub fn stop_at(&mut self, slot: u32) {
        self.owed = u64::from(self.slot - slot);
        self.slot = slot;
        self.next = Time(self.moved_at.0 + PAUSE_US);
    }

    /// When it wants to move next.
    pub fn next(&self) -> Time {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_passes_every_slot_once() {
        for slots in [1u32, 7, 80, 1_000, 100_000, 5_000_000] {
            let mut hand = ClockHand::new(Time::from_ms(0));
            let mut passed = vec![0; slots as usize];
            let mut now = Time::from_ms(0);
            let mut rounds = 0;
            while rounds == 0 {
                now = hand.next();
                let range = hand.advance(now, slots);
                assert!(!range.is_empty() && range.len() as u64 <= STEP_FLOWS_MAX);
                rounds += u32::from(range.end == slots);
                range.for_each(|slot| passed[slot as usize] += 1);
            }
            assert!(passed.iter().all(|&times| times == 1), "{slots} slots");
            assert!(now.0 <= ROUND_US + STEP_US_MAX, "{slots} slots took {} ms", now.ms());
        }
    }

    #[test]
    fn what_a_stopped_step_left_is_passed_soon() {
        const SLOTS: u32 = 100_000;
        let mut hand = ClockHand::new(Time::from_ms(0));
        let mut passed = 0;
        let mut now = Time::from_ms(0);
        while passed < SLOTS {
            now = hand.next();
            let range = hand.advance(now, SLOTS);
            assert_eq!(range.start, passed, "nothing is left out");
            let stop = range.end.min(range.start + 256);
            if stop < range.end {
                hand.stop_at(stop);
            }
            passed = stop;
        }
        assert!(now.0 <= ROUND_US + STEP_US_MAX, "it took {} ms", now.ms());
    }

    #[test]
    fn it_stands_still_between_steps() {
        let mut hand = ClockHand::new(Time::from_ms(0));
        assert!(hand.advance(Time(STEP_US_MAX - 1), 1_000).is_empty());
        assert!(!hand.advance(Time(STEP_US_MAX), 1_000).is_empty());
        assert!(hand.advance(Time(STEP_US_MAX + 1), 1_000).is_empty());
    }
}
