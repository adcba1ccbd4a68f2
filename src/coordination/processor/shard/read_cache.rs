//! Copies of other shards' records: a read of one needs no hop to its owner.
//!
//! Every shard sees every transaction, so a copy can be kept exact **at this shard's own position**, the position at which reads
//! are served. Kept is what getData answers; exists is answered from it, too. Lists of children always come from the owner.
//!
//! Invariants:
//! - A record is put in only as of the position that this shard is at.
//! - Before the position moves over a transaction, every record that it touches was changed in the same way, or taken out.
//! - The memory is bounded by what [`ReadCache::new`] was told. What is read often stays, what is read once goes.

use crate::base::coverage;
use crate::coordination::processor::peer::ReadKind;
use crate::coordination::tree::{AclRef, NodeStat};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::Stat;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// What a record is taken to cost beside its path and body, bytes.
const RECORD_BYTES: u64 = 160;
/// Assumed for sizing the tables at the start; they grow.
const RECORDS_EXPECTED: usize = 256;

/// A record as getData answers it.
#[derive(Clone, Debug)]
pub(super) struct CachedRecord {
    /// The encoded body of the reply: the data, then the stat.
    pub body: Vec<u8>,
    /// Who may read it.
    pub acl: AclRef,
}

/// The body of one reply, and who may see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedBody<'a> {
    pub body: &'a [u8],
    pub acl: AclRef,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Box<str>, CachedRecord> for ByBytes {
    fn weight(&self, path: &Box<str>, record: &CachedRecord) -> u64 {
        RECORD_BYTES + (path.len() + record.body.capacity()) as u64
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct ReadCache {
    /// `None` when nothing may be kept.
    records: Option<Cache<Box<str>, CachedRecord, ByBytes, ahash::RandomState>>,
}

impl ReadCache {
    /// An empty cache of at most about `bytes_max`; `seed` makes what is evicted repeatable.
    pub(super) fn new(bytes_max: usize, seed: u64) -> ReadCache {
        let hasher = ahash::RandomState::with_seeds(seed, 0x7265_6164, !seed, 0x6361_6368);
        let cache = || Cache::with(RECORDS_EXPECTED, bytes_max as u64, ByBytes, hasher, Default::default());
        ReadCache { records: (bytes_max > 0).then(cache) }
    }

    /// What a read of this kind finds at `path` as of this shard's position, if it is kept here.
    pub(super) fn get(&self, kind: ReadKind, path: &str) -> Option<CachedBody<'_>> {
        let stat_only = match kind {
            ReadKind::Data => false,
            ReadKind::Exists => true,
            ReadKind::Children | ReadKind::ChildrenAndStat | ReadKind::Acl => return None,
        };
        let record = self.records.as_ref()?.get(path)?;
        coverage::mark("read-of-cached-record");
        let body = if stat_only { &record.body[record.body.len() - Stat::BYTES..] } else { &record.body };
        Some(CachedBody { body, acl: record.acl })
    }

    /// The owner answered, as of the position that this shard is at.
    pub(super) fn put(&mut self, path: Box<str>, record: CachedRecord) {
        if let Some(records) = &mut self.records {
            records.insert(path, record);
        }
    }

    /// The record at `path` changed in a way that is not followed here.
    pub(super) fn remove(&mut self, path: &str) {
        if let Some(records) = &mut self.records
            && records.remove(path).is_some()
        {
            coverage::mark("cached-record-dropped");
        }
    }

    /// The data of the node at `path` was set; `stat` is its whole stat afterwards.
    pub(super) fn set_data(&mut self, path: &str, data: Option<&[u8]>, stat: &NodeStat, num_children: i32) {
        let Some(mut record) = self.records.as_mut().and_then(|records| records.get_mut(path)) else { return };
        coverage::mark("cached-record-changed");
        record.body.clear();
        let mut out = Output::new(&mut record.body);
        out.buffer(data);
        stat.to_wire(data.map_or(0, <[u8]>::len) as i32, num_children).encode(&mut out);
    }
}
