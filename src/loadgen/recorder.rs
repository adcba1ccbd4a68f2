//! What a run has seen so far.

use hdrhistogram::Histogram;

/// Longest latency told apart; longer ones count as this one (60 s).
const LATENCY_US_MAX: u64 = 60_000_000;
/// Decimal digits that the histograms keep.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies and errors of the measured window.
pub(super) struct Recorder {
    /// Of reads, in microseconds.
    pub reads_us: Histogram<u64>,
    /// Of writes, in microseconds.
    pub writes_us: Histogram<u64>,
    /// Replies with an error, or of the wrong size.
    pub errors: u64,
    /// The first of them in words.
    pub first_error: Option<String>,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder { reads_us: histogram(), writes_us: histogram(), errors: 0, first_error: None }
    }

    /// `count` replies took `latency_us` each.
    pub fn record(&mut self, is_write: bool, latency_us: u64, count: u64) {
        let histogram = if is_write { &mut self.writes_us } else { &mut self.reads_us };
        histogram.saturating_record_n(latency_us.max(1), count);
    }

    /// A reply was an error.
    pub fn record_error(&mut self, describe: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(describe);
    }

    /// Replies of both kinds, errors included.
    pub fn requests(&self) -> u64 {
        self.reads_us.len() + self.writes_us.len()
    }

    /// Reads and writes together.
    pub fn all_us(&self) -> Histogram<u64> {
        let mut all = self.reads_us.clone();
        all.add(&self.writes_us).expect("both histograms have the same bounds");
        all
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pause longer than the histogram's range must show as its maximum, not vanish.
    #[test]
    fn overlong_latency_counts_as_the_maximum() {
        let mut recorder = Recorder::new();
        recorder.record(false, 0, 2);
        recorder.record(true, 10 * LATENCY_US_MAX, 1);
        let all = recorder.all_us();
        assert_eq!((recorder.requests(), all.min()), (3, 1));
        assert!(all.max() >= LATENCY_US_MAX);
    }
}
