//! The state's time, from the clocks of this machine.
//!
//! Comes in: when the state was made and how far its time has come, both from the storage; the wall clock once, at the
//! start; the monotonic clock after that. Goes out: `Time` for every call of the shard. Across restarts the wall clock
//! says how much time has passed, within a process the monotonic clock does.
//!
//! Invariant: time never goes backwards. Where the wall clock was set back while no process ran, time goes on from the
//! last commit instead.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::shard::{Storage, Time};

/// What time it is for one state.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    /// Goes on with the time of a state, which is the same for all of its shards; writes the time of making into what
    /// is fresh.
    pub fn start(shards: &mut [Storage]) -> Clock {
        let wall_us = whole(wall_clock().as_micros());
        // A process may have died when it had started some of them.
        let known = shards.iter().filter(|storage| !storage.is_fresh()).map(Storage::made_at_us).min();
        let made_at_us = known.unwrap_or(wall_us);
        shards.iter_mut().filter(|storage| storage.is_fresh()).for_each(|storage| storage.set_made_at_us(made_at_us));
        let last = shards.iter().map(Storage::last_time).max().unwrap_or(Time(0));
        Clock { base: resumed_time(wall_us, made_at_us, last), started: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.at(Instant::now())
    }

    /// How long it is until `time`; nothing for the past.
    pub fn wait_until(&self, time: Time) -> Duration {
        Duration::from_micros(time.0.saturating_sub(self.now().0))
    }

    fn at(&self, instant: Instant) -> Time {
        let elapsed_us = whole(instant.saturating_duration_since(self.started).as_micros());
        Time(self.base.0.saturating_add(elapsed_us))
    }
}

/// The time since 1970; none on a machine that believes to be earlier.
pub(super) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A count of some unit of time, which takes no more than 64 bits for ages.
pub(super) fn whole(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn resumed_time(wall_us: u64, made_at_us: u64, last: Time) -> Time {
    Time(wall_us.saturating_sub(made_at_us)).max(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_and_a_wall_clock_set_back_does_not() {
        assert_eq!(resumed_time(5_000, 5_000, Time(0)), Time(0));
        assert_eq!(resumed_time(9_000, 5_000, Time(1_000)), Time(4_000));
        assert_eq!(resumed_time(4_000, 5_000, Time(1_000)), Time(1_000));
    }

    #[test]
    fn time_goes_on_from_the_base() {
        let clock = Clock { base: Time(7), started: Instant::now() };
        assert_eq!(clock.at(clock.started + Duration::from_millis(3)), Time(3_007));
        assert!(clock.now() <= clock.now());
        assert_eq!(clock.wait_until(Time(0)), Duration::ZERO);
    }
}
