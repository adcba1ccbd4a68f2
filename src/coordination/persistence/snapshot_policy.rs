//! When a snapshot is due (as in `SyncRequestProcessor`). Pure: randomness is an argument.
//!
//! A snapshot is due after more than half of `snapCount` transactions plus a random number below that half, or after more
//! than half of `snapSizeLimitInKb` in the log plus a random part of that half. The random part keeps the servers of an
//! ensemble from taking their snapshots all at once.

/// Counts what was logged since the last snapshot began.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPolicy {
    half_txns: u64,
    half_bytes: Option<u64>,
    /// A snapshot is due above this.
    txns_max: u64,
    /// A snapshot is due above this; `None` is never.
    bytes_max: Option<u64>,
    txns: u64,
    bytes: u64,
}

impl SnapshotPolicy {
    /// A policy for `snapCount` and `snapSizeLimitInKb` (here in bytes; `None` is no limit). `random` is any number.
    pub fn new(snap_count: u32, size_limit_bytes: Option<u64>, random: u64) -> SnapshotPolicy {
        let mut policy = SnapshotPolicy {
            half_txns: u64::from(snap_count / 2),
            half_bytes: size_limit_bytes.map(|bytes| bytes / 2),
            txns_max: 0,
            bytes_max: None,
            txns: 0,
            bytes: 0,
        };
        policy.start_over(random);
        policy
    }

    /// Transactions were logged; what a start replays counts too, so that a long replay is followed by a snapshot.
    pub fn logged(&mut self, txns: u64, bytes: u64) {
        self.txns += txns;
        self.bytes += bytes;
    }

    /// Whether enough was logged.
    pub fn is_due(&self) -> bool {
        self.txns > self.txns_max || self.bytes_max.is_some_and(|max| self.bytes > max)
    }

    /// A snapshot begins, or one that is due is skipped. `random` is any number.
    pub fn start_over(&mut self, random: u64) {
        (self.txns, self.bytes) = (0, 0);
        self.txns_max = self.half_txns + random % self.half_txns.max(1);
        self.bytes_max = self.half_bytes.map(|half| half + random.rotate_left(32) % half.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Too early costs disk bandwidth for ever, too late makes every restart replay more than the operator asked for.
    #[test]
    fn snapshots_are_between_half_the_count_and_the_count_apart() {
        for random in (0..5000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut policy = SnapshotPolicy::new(100, None, random);
            policy.logged(50, u64::MAX / 2);
            assert!(!policy.is_due());
            policy.logged(50, 0);
            assert!(policy.is_due());
            policy.start_over(random);
            assert!(!policy.is_due());
        }
        // The least that the configuration allows.
        let mut policy = SnapshotPolicy::new(2, Some(2), 7);
        policy.logged(1, 1);
        assert!(!policy.is_due());
        policy.logged(1, 0);
        assert!(policy.is_due());
    }

    /// Few large transactions fill a disk as well as many small ones.
    #[test]
    fn bytes_alone_make_a_snapshot_due() {
        let mut policy = SnapshotPolicy::new(1_000_000, Some(1000), 0);
        policy.logged(1, 500);
        assert!(!policy.is_due());
        policy.logged(1, 1);
        assert!(policy.is_due());
    }
}
