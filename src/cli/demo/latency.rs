//! Latencies in buckets: any number of them in a fixed 15 KB, each within 1.6 percent.
//!
//! A bucket covers an equal share of a power of two: 64 of them from 64 up to 128, 64 from 128 up to 256, and so on;
//! below 64 a bucket is one microsecond.

/// How often each latency was seen.
#[derive(Debug)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    /// None yet. The memory is touched now.
    pub fn new() -> Latencies {
        Latencies { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Counts one of `us` microseconds.
    pub fn record(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.total += 1;
    }

    /// The latency that `share` (0 to 1) of all do not exceed, in microseconds; 0 where there are none.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return highest_us(bucket) as f64;
            }
        }
        0.0
    }
}

fn bucket(us: u64) -> usize {
    let us = us.min(LATENCY_MAX_US);
    if us < SHARE {
        return us as usize;
    }
    let doublings = u64::from(us.ilog2()) - u64::from(SHARE.ilog2());
    ((doublings + 1) * SHARE + (us >> doublings) - SHARE) as usize
}

/// The highest latency that falls into the bucket.
fn highest_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SHARE {
        return bucket;
    }
    let doublings = bucket / SHARE - 1;
    ((bucket % SHARE + SHARE + 1) << doublings) - 1
}

/// Buckets for each power of two.
const SHARE: u64 = 64;

/// What is longer counts as this: 71 minutes.
const LATENCY_MAX_US: u64 = u32::MAX as u64;

/// One share below the first doubling, one for each of 26 doublings.
const BUCKETS: usize = 27 * SHARE as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_falls_into_a_bucket_that_is_close() {
        let mut us = 0;
        while us < LATENCY_MAX_US {
            let highest = highest_us(bucket(us));
            assert!(highest >= us && highest - us <= us / 64, "{us} -> {highest}");
            assert_eq!(bucket(highest), bucket(us));
            us += us / 100 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_counted_off() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile_us(0.5), 0.0);
        for us in 1..=60 {
            latencies.record(us);
        }
        assert_eq!(latencies.quantile_us(0.5), 30.0);
        assert_eq!(latencies.quantile_us(0.99), 60.0);
        assert_eq!(latencies.quantile_us(0.0), 1.0);
    }
}
