//! One shard's reading of a snapshot: every shard checks and decodes all bytes of all parts, and takes what it owns. Pure.
//!
//! All shards see the same bytes and judge them alike, so a fault that one finds is every shard's fault.

use super::snapshot_format::{Manifest, NodeRecord, SnapshotError, SnapshotFault, SnapshotRecord};
use super::snapshot_part::PartReader;
use crate::base::SessionId;
use crate::coordination::processor::Shard;
use crate::coordination::tree::{AclList, AclRef, NodeStat};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::AclVector;
use std::sync::Arc;

/// One shard's reading of a snapshot.
pub struct SnapshotLoader {
    manifest: Arc<Manifest>,
    part: u32,
    reader: Option<PartReader>,
    /// The list that the last node had: nearly always also that of the next.
    last_list: Option<(u128, AclRef)>,
    failed: Option<PartFault>,
}

/// What is wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartFault {
    /// Which one.
    pub part: u32,
    /// Place and fault.
    pub error: SnapshotError,
}

impl SnapshotLoader {
    /// Begins to load the snapshot of `manifest`.
    pub fn begin(manifest: Arc<Manifest>, shard: &mut Shard) -> SnapshotLoader {
        shard.begin_load(manifest.parts.iter().map(|part| part.records).fold(0, u64::saturating_add));
        SnapshotLoader { manifest, part: 0, reader: None, last_list: None, failed: None }
    }

    /// Takes the next bytes of a part; the parts come one after the other. After a fault nothing more is taken.
    pub fn feed(&mut self, shard: &mut Shard, part: u32, bytes: &[u8]) -> Result<(), PartFault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        self.feed_part(shard, part, bytes).inspect_err(|fault| self.failed = Some(*fault))
    }

    fn feed_part(&mut self, shard: &mut Shard, part: u32, bytes: &[u8]) -> Result<(), PartFault> {
        // An empty file brings no piece: its part must not be passed over.
        while self.part < part {
            self.end_part()?;
            self.part += 1;
        }
        let fault = |error| PartFault { part, error };
        if self.reader.is_none() {
            self.reader = self.manifest.part_reader(part);
        }
        let Some(reader) = &mut self.reader else {
            return Err(fault(SnapshotError { offset: 0, fault: SnapshotFault::OtherPart }));
        };
        let offset = reader.offset();
        let (last_list, mut refused) = (&mut self.last_list, None);
        reader
            .feed(bytes, &mut |record| {
                if refused.is_none() {
                    refused = take(shard, last_list, record).err();
                }
            })
            .map_err(fault)?;
        refused.map_or(Ok(()), |refused| Err(fault(SnapshotError { offset, fault: refused })))
    }

    fn end_part(&mut self) -> Result<(), PartFault> {
        let fault = |error| PartFault { part: self.part, error };
        let Some(reader) = self.reader.take() else {
            return Err(fault(SnapshotError { offset: 0, fault: SnapshotFault::Truncated }));
        };
        let offset = reader.offset();
        let (_, finished_at) = reader.finish().map_err(fault)?;
        if finished_at > self.manifest.end {
            let late = SnapshotFault::Malformed("the part was finished after the snapshot's end");
            return Err(fault(SnapshotError { offset, fault: late }));
        }
        Ok(())
    }

    /// All parts were fed: the shard goes on from the snapshot.
    pub fn end(mut self, shard: &mut Shard) -> Result<(), PartFault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        self.end_part()?;
        while (self.part as usize) + 1 < self.manifest.parts.len() {
            self.part += 1;
            self.end_part()?;
        }
        shard.end_load(self.manifest.start, self.manifest.end);
        Ok(())
    }
}

fn take(
    shard: &mut Shard,
    last_list: &mut Option<(u128, AclRef)>,
    record: SnapshotRecord<'_>,
) -> Result<(), SnapshotFault> {
    match record {
        SnapshotRecord::Session { id, timeout_ms } => shard.load_session(id, timeout_ms),
        SnapshotRecord::Acl { hash, bytes } => {
            let malformed = SnapshotFault::Malformed("an ACL list that does not fit its name");
            let vector = AclVector::decode(&mut Input::new(bytes)).map_err(|_| malformed)?;
            let list = AclList::new(vector.to_vec());
            if list.hash().0 != hash {
                return Err(malformed);
            }
            shard.load_acl(Arc::new(list));
        }
        SnapshotRecord::Node(node) => {
            if !node.path.starts_with('/') {
                return Err(SnapshotFault::Malformed("a path that does not begin with /"));
            }
            // Also for nodes of other shards: all shards must judge alike.
            let list = match *last_list {
                Some((hash, list)) if hash == node.acl_hash => list,
                _ => {
                    let unknown = SnapshotFault::Malformed("a node names an ACL list that the part does not hold");
                    shard.find_acl(node.acl_hash).ok_or(unknown)?
                }
            };
            *last_list = Some((node.acl_hash, list));
            shard.load_node(node.path, node.data, list, &stat(&node));
        }
        SnapshotRecord::Meta { .. } => return Err(SnapshotFault::Malformed("a record that only a newer server knows")),
    }
    Ok(())
}

fn stat(node: &NodeRecord<'_>) -> NodeStat {
    NodeStat {
        czxid: node.czxid,
        mzxid: node.mzxid,
        pzxid: node.pzxid,
        ctime_ms: node.ctime_ms,
        mtime_ms: node.mtime_ms,
        version: node.version,
        cversion: node.cversion,
        aversion: node.aversion,
        ephemeral_owner: SessionId(node.ephemeral_owner),
    }
}
