//! A histogram of durations: 32 buckets to each doubling, from nanoseconds on, in a fixed 15 KB.
//!
//! Comes in: durations. Goes out: how many there were, quantiles, and how many were shorter than a bound. A quantile is
//! the upper end of its bucket, so it is at most three percent too long and never too short.
//!
//! Invariant: recording allocates nothing and takes the same few instructions whatever was recorded before.

use std::time::Duration;

/// Durations, counted.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], count: 0, sum_ns: 0 }
    }
}

impl Histogram {
    /// Counts one more.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds all of another one.
    pub(super) fn add(&mut self, other: &Histogram) {
        let Histogram { counts, count, sum_ns } = other;
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        self.count += count;
        self.sum_ns = self.sum_ns.saturating_add(*sum_ns);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// What a `share` (0.99 for the 99th percentile) of them did not exceed; nothing where nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(upper_end_ns(found)))
    }

    /// How many took less than 2^`exponent` nanoseconds.
    pub fn shorter_than_power(&self, exponent: u32) -> u64 {
        self.counts[..bucket(1 << exponent.min(63))].iter().sum()
    }

    /// What was recorded since `earlier`, a copy of this one.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        Histogram {
            counts,
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
        }
    }
}

/// Below 32 ns buckets are exact; from there each doubling has as many.
fn bucket(ns: u64) -> usize {
    if ns < SHARES {
        return ns as usize;
    }
    let doublings = ns.ilog2() - SHARES.ilog2();
    (u64::from(doublings) * SHARES + (ns >> doublings)) as usize
}

/// The longest duration that falls into a bucket.
fn upper_end_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SHARES {
        return bucket;
    }
    let end = u128::from(bucket % SHARES + SHARES + 1) << (bucket / SHARES - 1);
    u64::try_from(end - 1).unwrap_or(u64::MAX)
}

/// Buckets to a doubling.
const SHARES: u64 = 32;

/// Those below the first doubling, and those of 59 doublings.
const BUCKETS: usize = 60 * SHARES as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_the_bucket_that_ends_behind_it() {
        for ns in (0..5_000).chain((0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let at = bucket(ns);
            assert!(at < BUCKETS && ns <= upper_end_ns(at), "{ns}");
            assert!(at == 0 || ns > upper_end_ns(at - 1), "{ns}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_end_ns(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_at_most_a_share_too_long() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=1_000).for_each(|us| histogram.record(Duration::from_micros(us)));
        for (share, exact_us) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let told = histogram.quantile(share).expect("there are some").as_secs_f64() * 1e6;
            let exact = f64::from(exact_us);
            assert!((exact..=exact * 33.0 / 32.0).contains(&told), "{share}: {told} for {exact}");
        }
        assert_eq!(histogram.shorter_than_power(63), 1_000);
        assert_eq!(histogram.shorter_than_power(10), 1, "1 us is less than 1,024 ns");
        let earlier = histogram.clone();
        histogram.record(Duration::from_secs(1));
        assert_eq!(histogram.since(&earlier).count(), 1);
        assert_eq!(histogram.since(&earlier).sum(), Duration::from_secs(1));
    }
}
