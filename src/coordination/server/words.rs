//! The words that the shards of a server share.

use crate::base::{ShardId, Zxid};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Each word on a cache line of its own: every shard writes its own and reads all.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Word(AtomicU64);

/// What the other shards look at together.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Published {
    position: AtomicU64,
    outstanding: AtomicUsize,
}

/// `released`, `applied` and `published` (docs/ordering.md, window reads), and whether clients must be held back.
#[derive(Debug)]
pub struct Words {
    released: Word,
    applied: Vec<Word>,
    published: Vec<Published>,
    held_back: AtomicBool,
    /// For how long work has been waiting and nothing has moved, milliseconds; see [`crate::coordination::processor::StallDetector`].
    stalled_ms: AtomicU64,
}

impl Words {
    /// For `shards` shards.
    pub fn new(shards: usize) -> Words {
        Words {
            released: Word::default(),
            applied: (0..shards).map(|_| Word::default()).collect(),
            published: (0..shards).map(|_| Published::default()).collect(),
            held_back: AtomicBool::new(false),
            stalled_ms: AtomicU64::new(0),
        }
    }

    /// The highest zxid in anything handed to any client. Acquire: what a client has been told happened before this is read.
    pub fn released(&self) -> Zxid {
        Zxid(self.released.0.load(Ordering::Acquire))
    }

    /// Bytes that tell of `zxid` are about to be sent.
    pub fn raise_released(&self, zxid: Zxid) {
        if self.released() < zxid {
            self.released.0.fetch_max(zxid.0, Ordering::AcqRel);
        }
    }

    /// A shard has come to `applied`, and asks for no position below `published`. So many requests of its clients are
    /// outstanding.
    pub fn publish(&self, shard: ShardId, applied: Zxid, published: Zxid, outstanding: usize) {
        self.applied[shard.index()].0.store(applied.0, Ordering::Release);
        let word = &self.published[shard.index()];
        word.position.store(published.0, Ordering::Release);
        word.outstanding.store(outstanding, Ordering::Relaxed);
    }

    /// Requests outstanding on all shards but this one. Only a throttle rests on it, so that it may be a little stale.
    pub fn outstanding_elsewhere(&self, shard: ShardId) -> usize {
        let others = self.published.iter().enumerate().filter(|(index, _)| *index != shard.index());
        others.map(|(_, word)| word.outstanding.load(Ordering::Relaxed)).sum()
    }

    /// The least position that any shard may ask for. May be stale: it only grows.
    pub fn floor(&self) -> Zxid {
        Zxid(self.published.iter().map(|word| word.position.load(Ordering::Acquire)).min().unwrap_or(0))
    }

    /// How far the slowest shard has come.
    pub fn slowest(&self) -> Zxid {
        Zxid(self.applied.iter().map(|word| word.0.load(Ordering::Acquire)).min().unwrap_or(0))
    }

    /// Work has been waiting for so long, and nothing has moved; 0 when that is no stall.
    pub fn set_stalled_ms(&self, stalled_ms: u64) {
        self.stalled_ms.store(stalled_ms, Ordering::Relaxed);
    }

    /// See [`Words::set_stalled_ms`].
    pub fn stalled_ms(&self) -> u64 {
        self.stalled_ms.load(Ordering::Relaxed)
    }

    /// Shards stop reading sockets while this is set (rule D1).
    pub fn hold_back(&self, held_back: bool) {
        self.held_back.store(held_back, Ordering::Relaxed);
    }

    /// True while sockets must not be read.
    pub fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }
}
