//! The one place that reads time.
//!
//! Pure cores never call this: they get `now` as an argument from the driver that called it. Inside a simulated world this is the
//! world's time.

use super::world;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds that never run backwards, counted from the first reading of this process.
///
/// Stands still while the machine is suspended. Means nothing to another process.
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1000
}

/// Like [`monotonic_ms`], in microseconds and with the same origin.
pub fn monotonic_us() -> u64 {
    if world::is_active() { world::current().now_us() } else { origin().elapsed().as_micros() as u64 }
}

/// Milliseconds since 1970 by the wall clock. May jump, also backwards: for `ctime` and `mtime`, never for durations.
pub fn wall_ms() -> i64 {
    if world::is_active() {
        return world::current().wall_ms();
    }
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        // A clock set before 1970 is wrong but legal: a negative time, as on the wire of ZooKeeper.
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration computed from two readings in different units must not mix origins: the microseconds would then run ahead
    /// of or behind the milliseconds by the time between the two first calls.
    #[test]
    fn both_monotonic_units_share_one_origin() {
        let before_us = monotonic_us();
        let middle_ms = monotonic_ms();
        let after_us = monotonic_us();
        assert!(before_us / 1000 <= middle_ms && middle_ms <= after_us / 1000);
    }

    #[test]
    fn wall_time_is_after_this_code_was_written() {
        assert!(wall_ms() > 1_750_000_000_000);
    }
}
