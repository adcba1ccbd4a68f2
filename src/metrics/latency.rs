//! Smallest, average and largest of a series of durations.

/// Records durations in microseconds and shows them in milliseconds, as ZooKeeper's reports do.
///
/// Shown values keep `min <= avg <= max`: the smallest is rounded down to whole milliseconds and the largest up, since
/// most requests here take less than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Invariant: all three are 0 while `count` is 0; `min_us * count <= total_us <= max_us * count`.
    count: u64,
    total_us: u64,
    min_us: u64,
    max_us: u64,
}

impl Latency {
    /// Adds one duration.
    pub fn record_us(&mut self, duration_us: u64) {
        self.merge(&Latency { count: 1, total_us: duration_us, min_us: duration_us, max_us: duration_us });
    }

    /// Adds all durations of `other`.
    pub fn merge(&mut self, other: &Latency) {
        if other.count == 0 {
            return;
        }
        self.min_us = if self.count == 0 { other.min_us } else { self.min_us.min(other.min_us) };
        self.max_us = self.max_us.max(other.max_us);
        self.total_us = self.total_us.saturating_add(other.total_us);
        self.count += other.count;
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest in whole milliseconds, rounded down; 0 if there is none.
    pub fn min_ms(&self) -> u64 {
        self.min_us / 1_000
    }

    /// The largest in whole milliseconds, rounded up; 0 if there is none.
    pub fn max_ms(&self) -> u64 {
        self.max_us.div_ceil(1_000)
    }

    /// The sum in whole milliseconds, rounded down.
    pub fn sum_ms(&self) -> u64 {
        self.total_us / 1_000
    }

    /// The average in milliseconds, to four decimals at most and one at least: `0.0`, `1.2101`.
    pub fn avg_ms(&self) -> String {
        // A ten-thousandth of a millisecond is a tenth of a microsecond; half is rounded up, as in ZooKeeper.
        let count = u128::from(self.count.max(1));
        let tenths_us = (u128::from(self.total_us) * 10 + count / 2) / count;
        let text = format!("{}.{:04}", tenths_us / 10_000, tenths_us % 10_000);
        let kept = text.trim_end_matches('0');
        if kept.ends_with('.') { format!("{kept}0") } else { kept.to_owned() }
    }

    /// The five rows of a summary `name`, in ZooKeeper's spelling.
    pub fn rows(&self, name: &str) -> [(String, String); 5] {
        [
            (format!("avg_{name}"), self.avg_ms()),
            (format!("min_{name}"), self.min_ms().to_string()),
            (format!("max_{name}"), self.max_ms().to_string()),
            (format!("cnt_{name}"), self.count.to_string()),
            (format!("sum_{name}"), self.sum_ms().to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(durations_us: &[u64]) -> Latency {
        let mut latency = Latency::default();
        durations_us.iter().for_each(|&duration| latency.record_us(duration));
        latency
    }

    /// Dashboards parse the average as ZooKeeper prints it; Rust's own float text would give `1e-4` or 17 digits.
    #[test]
    fn average_in_a_text_that_dashboards_cannot_parse() {
        for (durations_us, text) in [
            (&[][..], "0.0"),
            (&[3_000], "3.0"),
            (&[80], "0.08"),
            (&[1, 0], "0.0005"),
            (&[1, 1, 0], "0.0007"),
            (&[1_210, 1_210, 1_210, 1_210, 1_210, 1_210, 1_210, 1_210, 1_210, 1_211], "1.2101"),
            (&[999_999, 1_000_001, 1_000_000], "1000.0"),
            (&[9_999, 10_000, 10_000], "9.9997"),
        ] {
            assert_eq!(recorded(durations_us).avg_ms(), text, "{durations_us:?}");
        }
    }

    /// Below a millisecond, rounding all three down shows an average above the maximum.
    #[test]
    fn average_above_the_maximum() {
        let latency = recorded(&[300, 400]);
        assert_eq!((latency.min_ms(), latency.avg_ms().as_str(), latency.max_ms()), (0, "0.35", 1));
    }

    /// A shard without a request must not pull the smallest to 0, whichever side of the merge it is on.
    #[test]
    fn idle_shard_becomes_the_minimum() {
        let (idle, busy) = (Latency::default(), recorded(&[5_000, 9_000]));
        let mut merged = idle;
        merged.merge(&busy);
        assert_eq!(merged, busy);
        merged.merge(&idle);
        assert_eq!(merged, busy);
        merged.merge(&recorded(&[2_000]));
        assert_eq!(merged, recorded(&[5_000, 9_000, 2_000]));
        assert_eq!((merged.min_ms(), merged.max_ms(), merged.count(), merged.sum_ms()), (2, 9, 3, 16));
    }
}
