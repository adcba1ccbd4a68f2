//! Notices that requests wait and nothing moves.
//!
//! Every wait has somebody who ends it; if that one is missing, clients hang and nothing else shows it. So the places that work has
//! come to are looked at with every turn of the clock.

use crate::base::{ShardId, Zxid};
use std::fmt;

/// How far the work of a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests validated since the start.
    pub validated: u64,
    /// Steps of the one that is being validated.
    pub steps: usize,
    /// The last transaction proposed.
    pub proposed: Zxid,
    /// The last one on this disk.
    pub durable: Zxid,
    /// The last one handed to the shards.
    pub handed: Zxid,
}

/// What the work of a server waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Records of another shard.
    Records(ShardId),
    /// Room in the queue of the log, or its next segment.
    Log,
    /// Room on the disk of the log.
    Disk,
    /// Writes of the log up to this transaction.
    Durable(Zxid),
    /// Nothing that is known: a defect.
    Nothing,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitsFor::Records(shard) => write!(f, "records that shard {shard} was asked for"),
            WaitsFor::Log => f.write_str("the transaction log, which is busy or makes its next segment"),
            WaitsFor::Disk => f.write_str("room on the disk of the transaction log"),
            WaitsFor::Durable(zxid) => write!(f, "the disk of the transaction log to have written zxid {zxid}"),
            WaitsFor::Nothing => f.write_str("nothing that is known; please report this"),
        }
    }
}

/// What the operator should hear: once a stall, and once at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallNews {
    /// Nothing has moved for so long.
    Began {
        /// Milliseconds.
        stalled_ms: i64,
    },
    /// Something moves again, after so long.
    Ended {
        /// Milliseconds.
        stalled_ms: i64,
    },
}

/// See the module documentation.
#[derive(Debug)]
pub struct StallDetector {
    after_ms: i64,
    last: Progress,
    /// When something moved last, or nothing waited.
    moved_ms: i64,
    looked_ms: i64,
    told: bool,
}

impl StallDetector {
    /// Calls it a stall when nothing has moved for `after_ms`.
    pub fn new(after_ms: i64, now_ms: i64) -> StallDetector {
        StallDetector { after_ms, last: Progress::default(), moved_ms: now_ms, looked_ms: now_ms, told: false }
    }

    /// With every turn of the clock: whether work waits, and how far it has come.
    pub fn observe(&mut self, now_ms: i64, work_waits: bool, progress: Progress) -> Option<StallNews> {
        let stalled_ms = now_ms - self.moved_ms;
        self.looked_ms = now_ms;
        if !work_waits || progress != self.last {
            self.last = progress;
            self.moved_ms = now_ms;
            return std::mem::take(&mut self.told).then_some(StallNews::Ended { stalled_ms });
        }
        let news = stalled_ms >= self.after_ms && !std::mem::replace(&mut self.told, stalled_ms >= self.after_ms);
        news.then_some(StallNews::Began { stalled_ms })
    }

    /// For how long nothing has moved, milliseconds; 0 while that is no stall.
    pub fn stalled_ms(&self) -> i64 {
        if self.told { self.looked_ms - self.moved_ms } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log said that it was busy, and nobody made it less so: no write was answered until a restart, and neither the log of the
    /// server nor its numbers said a word.
    #[test]
    fn work_that_does_not_move_is_told_once_and_its_end_too() {
        let mut detector = StallDetector::new(3000, 0);
        let progress = Progress { validated: 7, ..Progress::default() };
        assert_eq!(detector.observe(0, true, progress), None);
        let news: Vec<_> = (1..10).filter_map(|i| detector.observe(i * 1000, true, progress)).collect();
        assert_eq!(news, [StallNews::Began { stalled_ms: 3000 }]);
        assert_eq!(detector.stalled_ms(), 9000);
        let moved = Progress { validated: 8, ..progress };
        assert_eq!(detector.observe(10_000, true, moved), Some(StallNews::Ended { stalled_ms: 10_000 }));
        assert_eq!((detector.stalled_ms(), detector.observe(11_000, true, moved)), (0, None));
    }

    /// An idle server does not move either, and a slow one moves: neither stalls.
    #[test]
    fn idle_and_slow_servers_do_not_stall() {
        let mut detector = StallDetector::new(3000, 0);
        for second in 0..100 {
            assert_eq!(detector.observe(second * 1000, false, Progress::default()), None);
        }
        for second in 100..200 {
            let progress = Progress { durable: Zxid(second as u64 / 2), ..Progress::default() };
            assert_eq!(detector.observe(second * 1000, true, progress), None);
        }
    }
}
