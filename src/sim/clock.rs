//! The node's clock, which may begin at any time, stand still for a while, and then leap.
//!
//! The time of the world comes in, the time of the node goes out, and the other way round for deadlines.
//!
//! Invariant: it never goes back.

use crate::shard::Time;

/// The clock of a machine, against that of the world.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// What it shows when the world begins, in microseconds.
    offset_us: u64,
    /// When it stands still, in microseconds of the world, in order and apart: from, until.
    stops_us: Vec<(u64, u64)>,
}

impl Clock {
    /// A clock that stands still at these times.
    pub(super) fn new(offset_us: u64, stops_us: &[(u64, u64)]) -> Clock {
        Clock { offset_us, stops_us: stops_us.to_vec() }
    }

    /// What it shows at this time of the world.
    pub(super) fn at(&self, now_us: u64) -> Time {
        Time(self.offset_us + self.stop_at(now_us).map_or(now_us, |(from_us, _)| from_us))
    }

    /// The time of the world at which it shows this, or more for the first time.
    pub(super) fn world_us(&self, time: Time) -> u64 {
        let shown_us = time.0.saturating_sub(self.offset_us);
        // What it leaps over it shows when it goes on.
        self.stop_at(shown_us).filter(|&(from_us, _)| shown_us > from_us).map_or(shown_us, |(_, until_us)| until_us)
    }

    fn stop_at(&self, now_us: u64) -> Option<(u64, u64)> {
        self.stops_us.iter().copied().find(|&(from_us, until_us)| (from_us..until_us).contains(&now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_leaps_to_where_it_ought_to_be() {
        let clock = Clock::new(1_000, &[(10, 20), (40, 50)]);
        let shown: Vec<u64> = [9, 10, 15, 19, 20, 45, 60].map(|now_us| clock.at(now_us).0 - 1_000).into();
        assert_eq!(shown, [9, 10, 10, 10, 20, 40, 60]);
    }

    #[test]
    fn a_deadline_within_a_stop_is_due_at_its_end() {
        let clock = Clock::new(1_000, &[(10, 20)]);
        for (deadline_us, due_us) in [(0, 0), (1_009, 9), (1_010, 10), (1_011, 20), (1_019, 20), (1_021, 21)] {
            assert_eq!(clock.world_us(Time(deadline_us)), due_us);
        }
    }
}
