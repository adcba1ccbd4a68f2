//! Which shard owns a path.

use crate::base::ShardId;
use ahash::RandomState;

/// `owner(path) = hash(path) mod shards`. A choice of one process life: nothing on disk or on the wire depends on it.
#[derive(Clone, Debug)]
pub struct ShardMap {
    shards: u16,
    hasher: RandomState,
}

impl ShardMap {
    /// A map over `shards` shards. Every shard of a process must be given the same `seed`.
    pub fn new(shards: u16, seed: u64) -> Self {
        assert!(shards > 0, "a server has at least one shard");
        ShardMap { shards, hasher: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x5ca1_ab1e) }
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Every shard.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// The owner of `path`.
    pub fn owner(&self, path: &str) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        // The upper bits: the lower ones pick the bucket of the owner's own table.
        ShardId(((self.hash(path) >> 32) % self.shards as u64) as u16)
    }

    /// The hash that tables keyed by path use.
    pub fn hash(&self, path: &str) -> u64 {
        self.hasher.hash_one(path)
    }
}
