//! When sessions expire: in buckets of one tick.

use crate::base::SessionId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Clone, Copy, Debug)]
struct Deadline {
    bucket_ms: i64,
    timeout_ms: u32,
}

/// Deadlines of sessions, rounded up to the next multiple of the tick: a session lives for its timeout and at most one tick
/// more. Times are those of [`super::Hearing`], a clock that stands still while clients cannot be heard.
#[derive(Debug)]
pub struct ExpiryQueue {
    tick_ms: i64,
    deadlines: HashMap<SessionId, Deadline>,
    buckets: BTreeMap<i64, BTreeSet<SessionId>>,
}

impl ExpiryQueue {
    /// A queue with buckets of `tick_ms`.
    pub fn new(tick_ms: u32) -> ExpiryQueue {
        ExpiryQueue { tick_ms: i64::from(tick_ms.max(1)), deadlines: HashMap::new(), buckets: BTreeMap::new() }
    }

    /// The session was heard of at `now_ms`; `timeout_ms` replaces the one it had.
    pub fn start(&mut self, session: SessionId, timeout_ms: u32, now_ms: i64) {
        let due_ms = now_ms + i64::from(timeout_ms);
        let bucket_ms = (due_ms.div_euclid(self.tick_ms) + 1) * self.tick_ms;
        if let Some(old) = self.deadlines.insert(session, Deadline { bucket_ms, timeout_ms }) {
            if old.bucket_ms == bucket_ms {
                return;
            }
            self.leave_bucket(session, old.bucket_ms);
        }
        self.buckets.entry(bucket_ms).or_default().insert(session);
    }

    /// The session was heard of at `now_ms`. False when it is not in the queue.
    pub fn touch(&mut self, session: SessionId, now_ms: i64) -> bool {
        let Some(deadline) = self.deadlines.get(&session) else { return false };
        self.start(session, deadline.timeout_ms, now_ms);
        true
    }

    /// True when the session has a deadline that was not found past yet.
    pub fn contains(&self, session: SessionId) -> bool {
        self.deadlines.contains_key(&session)
    }

    /// The session is gone.
    pub fn remove(&mut self, session: SessionId) {
        if let Some(deadline) = self.deadlines.remove(&session) {
            self.leave_bucket(session, deadline.bucket_ms);
        }
    }

    fn leave_bucket(&mut self, session: SessionId, bucket_ms: i64) {
        if let Some(bucket) = self.buckets.get_mut(&bucket_ms) {
            bucket.remove(&session);
            if bucket.is_empty() {
                self.buckets.remove(&bucket_ms);
            }
        }
    }

    /// Takes the sessions out whose deadline is past at `now_ms`.
    pub fn expired(&mut self, now_ms: i64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while let Some(entry) = self.buckets.first_entry().filter(|entry| *entry.key() <= now_ms) {
            expired.extend(entry.remove());
        }
        for session in &expired {
            self.deadlines.remove(session);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: SessionId = SessionId(1);

    /// A session must never expire before its timeout, and must within one tick after it.
    #[test]
    fn expiry_comes_between_timeout_and_one_tick_more() {
        for start_ms in 0..300 {
            let mut queue = ExpiryQueue::new(100);
            queue.start(S, 1000, start_ms);
            assert!(queue.expired(start_ms + 1000).is_empty(), "started at {start_ms}");
            assert_eq!(queue.expired(start_ms + 1100), [S], "started at {start_ms}");
        }
    }

    /// A touch moves the session to a later bucket, and leaves nothing behind in the earlier one.
    #[test]
    fn touched_session_leaves_its_old_bucket() {
        let mut queue = ExpiryQueue::new(100);
        queue.start(S, 1000, 0);
        assert!(queue.touch(S, 900));
        assert!(queue.expired(1500).is_empty());
        assert_eq!(queue.expired(2100), [S]);
        assert!(!queue.touch(S, 2100));
    }
}
