//! What a simulated server starts from, and how its state is read from outside.

use super::checker::access::SUPER_DIGEST;
use super::checker::history::{CommittedKind, Dump};
use super::checker::model::ModelNode;
use super::journal;
use super::machine::Machine;
use super::server::SESSION_TIMEOUT_MS;
use super::snapshots::load_newest;
use crate::base::{SessionId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::persistence::log_recovery;
use crate::coordination::processor::message::{Batch, ToShard};
use crate::coordination::processor::txn::{Txn, TxnRecord};
use crate::coordination::processor::{Shard, ShardConfig, ShardOutputs};
use crate::coordination::session::SessionTable;
use crate::coordination::tree::{ChildSet, DataTree, ShardMap};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a server starts from.
pub(super) struct Recovered {
    pub(super) map: ShardMap,
    pub(super) auth: Arc<AuthConfig>,
    pub(super) shards: Vec<Shard>,
    pub(super) log: log_recovery::Recovered,
    /// The last transaction.
    pub(super) last: Zxid,
    /// Transactions that were replayed.
    pub(super) replayed: u64,
    /// Snapshots that could not be loaded.
    pub(super) broken: BTreeSet<Zxid>,
}

/// Loads the newest whole snapshot into `shards` new shards, then replays the log over it.
pub(super) fn recover(machine: &mut Machine, shards: u16, boot: u64) -> Result<Recovered, String> {
    let map = ShardMap::new(shards, machine.schedule.any());
    let auth = Arc::new(AuthConfig { super_digest: Some(SUPER_DIGEST.to_owned()), ..AuthConfig::default() });
    // Nothing, a few records, or all of them.
    let read_cache_bytes_max = [0, 2 << 10, 1 << 20][machine.schedule.between(0, 2) as usize];
    let shard = |id| {
        let config = ShardConfig {
            id,
            map: map.clone(),
            boot,
            auth: auth.clone(),
            packet_bytes_max: 0xf_ffff,
            session_timeout_ms_min: SESSION_TIMEOUT_MS.0,
            session_timeout_ms_max: SESSION_TIMEOUT_MS.1,
            sessionless_timeout_ms: 10_000,
            requests_per_connection_max: 12,
            output_bytes_max: 16 << 10,
            output_bytes_limit: 1 << 20,
            reply_bytes_max: 4 << 20,
            read_cache_bytes_max,
        };
        Shard::new(config, DataTree::new(id, &map, boot), SessionTable::default(), Zxid::ZERO, Zxid::ZERO)
    };
    let mut shards: Vec<Shard> = map.all().map(shard).collect();
    let loaded = load_newest(&machine.disk, &mut shards);
    machine.disk.remove_leftovers();
    let from = loaded.manifest.as_ref().map_or(Zxid::ZERO, |manifest| manifest.replay_after());
    let (log, records) = journal::recover(&machine.disk, from);
    // A damaged log says so here, before anything is believed.
    log.resume(0).map_err(|damage| format!("the log is damaged: {damage}"))?;
    let last = replay(&records, &mut shards)?.unwrap_or(from);
    match &loaded.manifest {
        Some(manifest) if manifest.end > last => {
            Err(format!("the log ends at {last}, the snapshot at {}", manifest.end))
        }
        _ => Ok(Recovered { map, auth, shards, log, last, replayed: records.len() as u64, broken: loaded.broken }),
    }
}

/// Applies records of the log. Returns the last transaction.
fn replay(records: &[(Zxid, Vec<u8>)], shards: &mut [Shard]) -> Result<Option<Zxid>, String> {
    for (_, record) in records {
        let mut bytes = (record.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        let batch = ToShard::Batch(Batch { txns: Bytes::from(bytes), marks: Vec::new() });
        for shard in &mut *shards {
            shard.on_sequencer(&batch, &mut ShardOutputs::default()).map_err(|error| error.to_string())?;
        }
    }
    shards.iter_mut().for_each(Shard::start_serving);
    Ok(records.last().map(|(zxid, _)| *zxid))
}

/// What a transaction was made for.
pub(super) fn kind_of(txn: &Txn<'_>) -> CommittedKind {
    match txn.records().next() {
        Some(Ok(TxnRecord::CreateSession { timeout_ms, .. })) => CommittedKind::CreateSession { timeout_ms },
        Some(Ok(TxnRecord::MoveSession { timeout_ms, .. })) => CommittedKind::MoveSession { timeout_ms },
        Some(Ok(TxnRecord::CloseSession { .. })) => CommittedKind::CloseSession,
        Some(Ok(TxnRecord::OpenEpoch)) => CommittedKind::Nothing,
        _ => CommittedKind::Operation,
    }
}

/// Every node and every session that `shards` hold.
pub(super) fn dump(shards: &[Shard]) -> Dump {
    let mut dump = Dump::default();
    for shard in shards {
        let tree = shard.tree();
        for node in (0..tree.scan_end()).filter_map(|slot| tree.scan_at(slot)) {
            let stat = node.stat();
            let model = ModelNode {
                data: node.data().map(<[u8]>::to_vec),
                acl: tree.acls().get(node.acl()).entries().to_vec(),
                czxid: stat.czxid.wire(),
                mzxid: stat.mzxid.wire(),
                pzxid: stat.pzxid.wire(),
                ctime_ms: stat.ctime_ms,
                mtime_ms: stat.mtime_ms,
                version: stat.version,
                creates: stat.cversion,
                aversion: stat.aversion,
                ephemeral_owner: stat.ephemeral_owner,
            };
            dump.nodes.insert(node.path().to_owned(), model);
            let children = node.children().map(ChildSet::to_vec).unwrap_or_default();
            dump.children.insert(node.path().to_owned(), children);
        }
    }
    let sessions = |shard: &Shard| -> BTreeMap<SessionId, u32> {
        shard.sessions().iter().map(|(id, session)| (id, session.timeout_ms)).collect()
    };
    dump.sessions = sessions(&shards[0]);
    dump.sessions_agree = shards.iter().all(|shard| sessions(shard) == dump.sessions);
    dump
}
