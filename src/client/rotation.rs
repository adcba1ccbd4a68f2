//! Which server to try next, and how long to wait before.
//!
//! Every server is tried once without waiting; then the client waits before each further round, twice as long every time
//! up to [`BACKOFF_MS_MAX`], by a random amount so that the clients of a restarted ensemble do not come back all at once.

use std::ops::Range;

/// Longest wait before a round.
pub(super) const BACKOFF_MS_MAX: u64 = 2_000;
/// Longest wait before the second round.
const BACKOFF_MS_FIRST: u64 = 100;
/// A connection that lived shorter counts as a failed attempt: a server that accepts and closes at once must not be
/// hammered.
const LIVED_MS_MIN: u64 = 1_000;

/// Walks round the servers of a connect string. Invariant: `next < count`.
pub(super) struct Rotation {
    count: usize,
    next: usize,
    failures: usize,
}

impl Rotation {
    /// Over `count` servers (at least one), beginning with server `first % count`.
    pub fn new(count: usize, first: usize) -> Rotation {
        Rotation { count, next: first % count, failures: 0 }
    }

    /// The server to try now, and the range of milliseconds to wait before.
    pub fn next(&mut self) -> (usize, Range<u64>) {
        let server = self.next;
        self.next = (self.next + 1) % self.count;
        let round = self.failures / self.count;
        if round == 0 || !self.failures.is_multiple_of(self.count) {
            return (server, 0..1);
        }
        let wait_ms = (BACKOFF_MS_FIRST << (round - 1).min(16)).min(BACKOFF_MS_MAX);
        (server, wait_ms / 2..wait_ms + 1)
    }

    /// The attempt did not lead to a session, or the connection ended after `lived_ms`.
    pub fn ended(&mut self, lived_ms: u64) {
        self.failures = if lived_ms >= LIVED_MS_MIN { 0 } else { self.failures + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When one of three servers dies its clients must be elsewhere at once; when all are down they must not spin.
    #[test]
    fn a_round_is_free_then_rounds_wait_ever_longer() {
        let mut rotation = Rotation::new(3, 1);
        let mut waits = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..21 {
            let (server, wait_ms) = rotation.next();
            servers.push(server);
            waits.push(wait_ms.end - 1);
            rotation.ended(0);
        }
        assert_eq!(servers[..6], [1, 2, 0, 1, 2, 0]);
        assert_eq!(waits[..9], [0, 0, 0, 100, 0, 0, 200, 0, 0]);
        assert_eq!(waits[18], BACKOFF_MS_MAX);
        rotation.ended(LIVED_MS_MIN);
        assert_eq!(rotation.next().1.end, 1, "after a connection that lived the first attempt is free again");
    }

    /// A server that accepts and closes at once is a failed attempt: without the wait a client loops thousands of times a
    /// second.
    #[test]
    fn short_lived_connections_back_off() {
        let mut rotation = Rotation::new(1, 0);
        assert_eq!(rotation.next().1, 0..1);
        rotation.ended(3);
        assert_eq!(rotation.next().1, 50..101);
    }
}
