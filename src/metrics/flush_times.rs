//! How long log flushes take, and which of them take too long.

use super::{Counters, Latency};

/// The flushes of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushTimes {
    /// `fsync.warningthresholdms`.
    threshold_ms: i64,
    latency: Latency,
    exceeded: u64,
}

impl FlushTimes {
    /// Nothing yet. A flush above `threshold_ms` is too long.
    pub fn new(threshold_ms: i64) -> FlushTimes {
        FlushTimes { threshold_ms, latency: Latency::default(), exceeded: 0 }
    }

    /// Counts a flush. Whole milliseconds are compared, as in ZooKeeper; the result is those of a flush that took too long.
    pub fn record_us(&mut self, duration_us: u64) -> Option<u64> {
        self.latency.record_us(duration_us);
        let duration_ms = duration_us / 1_000;
        let too_long = i64::try_from(duration_ms).unwrap_or(i64::MAX) > self.threshold_ms;
        self.exceeded += u64::from(too_long);
        too_long.then_some(duration_ms)
    }

    /// Adds what was counted.
    pub fn add_to(&self, counters: &mut Counters) {
        counters.fsync_latency.merge(&self.latency);
        counters.fsync_threshold_exceeded += self.exceeded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fsync.warningthresholdms` was parsed and then read by nobody: a disk could stall for seconds without a word.
    #[test]
    fn slow_flush_goes_unnoticed() {
        let mut times = FlushTimes::new(20);
        assert_eq!(
            [20_999, 21_000, 5_000, 3_000_000].map(|us| times.record_us(us)),
            [None, Some(21), None, Some(3_000)]
        );
        let mut counters = Counters::default();
        times.add_to(&mut counters);
        assert_eq!((counters.fsync_threshold_exceeded, counters.fsync_latency.count()), (2, 4));
        assert_eq!(FlushTimes::new(-1).record_us(0), Some(0));
        assert_eq!(FlushTimes::new(0).record_us(999), None);
    }
}
