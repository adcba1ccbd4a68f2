//! A shard's part of a snapshot, record by record, while transactions go on being applied. Pure.
//!
//! A part holds every record that existed throughout its scan (rule C5): sessions are walked in the order of their ids, nodes in
//! the order of their slots, which they keep for life. What is created, changed or deleted meanwhile is in the part as it was
//! when the scan came by, or not at all: the log from the snapshot's start settles it (rule C3).

use super::snapshot_format::{NodeRecord, SnapshotFault, SnapshotRecord};
use super::snapshot_part::PartWriter;
use crate::base::{SessionId, Zxid};
use crate::coordination::processor::Shard;
use crate::coordination::tree::{AclRef, Node};
use crate::protocol::jute::Output;
use std::collections::HashSet;

/// Bytes of records after which the clock is looked at: some tens of microseconds.
const CHECK_BYTES: usize = 16 << 10;
/// What it costs to pass over a slot or to write a record's fixed part, in bytes of copying.
const RECORD_COST_BYTES: usize = 128;

/// Where a scan stands. Between two slices the shard goes on.
#[derive(Debug)]
pub struct PartScan {
    /// Sessions are written, and this was the last one; `None` once they are done.
    sessions: Option<Option<SessionId>>,
    slot: usize,
    slots_end: usize,
    /// Lists that are in the part already.
    lists: HashSet<AclRef>,
    list_bytes: Vec<u8>,
    /// Bytes of work between two questions whether it is enough.
    check_bytes: usize,
}

impl PartScan {
    /// A scan of `shard` that begins now. One part of a snapshot also has the sessions.
    pub fn begin(shard: &Shard, with_sessions: bool) -> PartScan {
        PartScan {
            sessions: with_sessions.then_some(None),
            slot: 0,
            slots_end: shard.tree().scan_end(),
            lists: HashSet::new(),
            list_bytes: Vec::new(),
            check_bytes: CHECK_BYTES,
        }
    }

    /// So that in a simulation a transaction comes between any two records.
    pub fn check_after_every_record(&mut self) {
        self.check_bytes = 1;
    }

    /// Writes records until `enough` says so, which is asked every `CHECK_BYTES`. At the end of the scan gives the zxid at
    /// which it was finished.
    pub fn slice(
        &mut self,
        shard: &Shard,
        writer: &mut PartWriter,
        mut enough: impl FnMut() -> bool,
    ) -> Result<Option<Zxid>, SnapshotFault> {
        let mut unchecked_bytes = 0;
        loop {
            let Some(bytes) = self.next(shard, writer)? else { return Ok(Some(shard.applied())) };
            unchecked_bytes += bytes;
            if unchecked_bytes >= self.check_bytes {
                unchecked_bytes = 0;
                if enough() {
                    return Ok(None);
                }
            }
        }
    }

    /// Writes the next record, or passes over an empty slot, and tells about how much work that was; `None` at the end.
    fn next(&mut self, shard: &Shard, writer: &mut PartWriter) -> Result<Option<usize>, SnapshotFault> {
        if let Some(after) = self.sessions {
            let next = shard.sessions().iter_after(after).next();
            self.sessions = next.map(|(id, _)| Some(id));
            if let Some((id, session)) = next {
                writer.push(&SnapshotRecord::Session { id, timeout_ms: session.timeout_ms })?;
            }
            return Ok(Some(RECORD_COST_BYTES));
        }
        if self.slot >= self.slots_end {
            return Ok(None);
        }
        let node = shard.tree().scan_at(self.slot);
        self.slot += 1;
        match node {
            Some(node) => self.push_node(shard, node, writer).map(Some),
            None => Ok(Some(RECORD_COST_BYTES)),
        }
    }

    fn push_node(&mut self, shard: &Shard, node: &Node, writer: &mut PartWriter) -> Result<usize, SnapshotFault> {
        let list = shard.tree().acls().get(node.acl());
        if self.lists.insert(node.acl()) {
            self.list_bytes.clear();
            list.encode(&mut Output::new(&mut self.list_bytes));
            writer.push(&SnapshotRecord::Acl { hash: list.hash().0, bytes: &self.list_bytes })?;
        }
        let stat = node.stat();
        writer.push(&SnapshotRecord::Node(NodeRecord {
            path: node.path(),
            data: node.data(),
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime_ms: stat.ctime_ms,
            mtime_ms: stat.mtime_ms,
            ephemeral_owner: stat.ephemeral_owner.0,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            acl_hash: list.hash().0,
        }))?;
        Ok(RECORD_COST_BYTES + node.path().len() + node.data().map_or(0, <[u8]>::len))
    }
}
