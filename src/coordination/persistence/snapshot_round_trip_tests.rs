//! A snapshot written while transactions are applied, loaded by any number of shards and replayed, is the tree again.

use super::snapshot_format::{Manifest, NodeRecord, PartSummary, SnapshotFault, SnapshotRecord};
use super::snapshot_loader::SnapshotLoader;
use super::snapshot_part::PartWriter;
use super::snapshot_scan::PartScan;
use crate::base::{SessionId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::processor::message::{Batch, RequestId};
use crate::coordination::processor::txn::{TxnHeader, TxnWriter};
use crate::coordination::processor::{Shard, ShardConfig, ShardOutputs};
use crate::coordination::session::SessionTable;
use crate::coordination::tree::{AclList, ChildSet, DataTree, NodeStat, ShardMap, path};
use crate::protocol::zookeeper::{Acl, Id};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

const BOOT: u64 = 77;

fn shards(count: u16) -> Vec<Shard> {
    let map = ShardMap::new(count, BOOT);
    let shard = |id| {
        let config = ShardConfig {
            id,
            map: map.clone(),
            boot: BOOT,
            auth: Arc::new(AuthConfig::default()),
            packet_bytes_max: 1 << 20,
            session_timeout_ms_min: 100,
            session_timeout_ms_max: 100_000,
            sessionless_timeout_ms: 10_000,
            requests_per_connection_max: 1000,
            output_bytes_max: 1 << 20,
            output_bytes_limit: 2 << 20,
            outstanding_requests_max: usize::MAX,
            reply_bytes_max: 4 << 20,
            read_cache_bytes_max: 1 << 20,
        };
        let tree = DataTree::new(id, &map, BOOT);
        Shard::new(config, tree, SessionTable::default(), Zxid::ZERO, Zxid::ZERO)
    };
    map.all().map(shard).collect()
}

/// Valid transactions as prep would make them, over few paths, so that they are created and deleted again and again.
struct History {
    random: StdRng,
    nodes: BTreeMap<String, (NodeStat, i32, Arc<AclList>)>,
    sessions: Vec<SessionId>,
    lists: Vec<Arc<AclList>>,
    txns: Vec<Bytes>,
}

impl History {
    fn new(seed: u64, length: usize) -> History {
        let open = Arc::new(AclList::open());
        let own = |id: &str| Arc::new(AclList::new(vec![Acl { perms: 31, id: Id::new("ip", id) }, Acl::open()]));
        let mut history = History {
            random: StdRng::seed_from_u64(seed),
            nodes: BTreeMap::from([("/".to_owned(), (NodeStat::default(), 1, open.clone()))]),
            sessions: Vec::new(),
            lists: vec![open, own("127.0.0.1"), own("127.0.0.2")],
            txns: Vec::new(),
        };
        (0..length).for_each(|_| history.step());
        history
    }

    fn step(&mut self) {
        let zxid = Zxid(self.txns.len() as u64 + 1);
        let header = TxnHeader {
            zxid,
            time_ms: zxid.0 as i64 * 10,
            session: SessionId::NONE,
            request: RequestId::default(),
            xid: 0,
        };
        let mut bytes = Vec::new();
        let mut writer = TxnWriter::begin(&mut bytes, &header);
        match self.random.random_range(0..20) {
            0 => {
                let session = SessionId(zxid.0 as i64);
                self.sessions.push(session);
                writer.create_session(session, 1000 + zxid.0 as u32);
            }
            1 if !self.sessions.is_empty() => {
                let session = self.sessions.swap_remove(self.random.random_range(0..self.sessions.len()));
                writer.close_session(session);
                let owned = |(path, (stat, ..)): (&String, &(NodeStat, i32, Arc<AclList>))| {
                    (stat.ephemeral_owner == session).then(|| path.clone())
                };
                for node in self.nodes.iter().filter_map(owned).collect::<Vec<_>>() {
                    self.delete(&node, zxid, &mut writer);
                }
            }
            _ => {
                let parent = ["/a", "/b", "/c"][self.random.random_range(0..3)];
                let child = format!("{parent}/{}", self.random.random_range(0..4));
                let target = if self.random.random_range(0..3) == 0 { parent.to_owned() } else { child };
                self.change(&target, &header, &mut writer);
            }
        }
        writer.finish();
        self.txns.push(bytes.into());
    }

    fn change(&mut self, target: &str, header: &TxnHeader, writer: &mut TxnWriter<'_>) {
        let zxid = header.zxid;
        let list = self.lists[self.random.random_range(0..self.lists.len())].clone();
        let data = format!("data of {zxid}");
        match self.nodes.get_mut(target) {
            None => self.create(target, header, &list, data.as_bytes(), writer),
            Some((stat, children, acl)) => match self.random.random_range(0..4) {
                0 => {
                    stat.aversion += 1;
                    *acl = list;
                    writer.set_acl(target, acl, stat, *children, 0);
                }
                1 => {
                    *stat = NodeStat { version: stat.version + 1, mzxid: zxid, mtime_ms: header.time_ms, ..*stat };
                    writer.set_data(target, Some(data.as_bytes()), acl.hash(), stat, *children);
                }
                _ if *children == 0 => self.delete(target, zxid, writer),
                _ => writer.check(),
            },
        }
    }

    fn create(
        &mut self,
        target: &str,
        header: &TxnHeader,
        list: &Arc<AclList>,
        data: &[u8],
        writer: &mut TxnWriter<'_>,
    ) {
        let is_child = path::parent(target) != Some("/");
        let owner = self.sessions.last().copied().filter(|_| is_child).unwrap_or(SessionId::NONE);
        let Some((parent, children, parent_acl)) = self.nodes.get_mut(path::parent(target).unwrap()) else {
            return writer.error(-101);
        };
        parent.cversion += 1;
        parent.pzxid = header.zxid;
        *children += 1;
        writer.create(target, Some(data), owner, list, parent_acl.hash(), parent.cversion);
        let stat = NodeStat::created(header.zxid, header.time_ms, owner);
        self.nodes.insert(target.to_owned(), (stat, 0, list.clone()));
    }

    fn delete(&mut self, target: &str, zxid: Zxid, writer: &mut TxnWriter<'_>) {
        let (_, _, acl) = self.nodes.remove(target).unwrap();
        let (parent, children, parent_acl) = self.nodes.get_mut(path::parent(target).unwrap()).unwrap();
        parent.pzxid = zxid;
        *children -= 1;
        writer.delete(target, acl.hash(), parent_acl.hash(), parent.cversion);
    }

    /// Applies the transactions above `shard.applied()` up to number `to`.
    fn apply(&self, shard: &mut Shard, to: usize) {
        for txn in &self.txns[shard.applied().0 as usize..to.max(shard.applied().0 as usize)] {
            let batch = Batch { txns: txn.clone(), marks: Vec::new() };
            shard.apply(&batch, &mut ShardOutputs::default()).unwrap();
        }
    }
}

struct WrittenSnapshot {
    manifest: Arc<Manifest>,
    parts: Vec<Vec<u8>>,
}

/// Every shard applies and scans at a pace of its own.
fn write_snapshot(history: &History, count: u16, start: usize, random: &mut StdRng) -> WrittenSnapshot {
    let (mut parts, mut summaries, mut end) = (Vec::new(), Vec::new(), start);
    for (index, mut shard) in shards(count).into_iter().enumerate() {
        let mut at = (start + random.random_range(0..20)).min(history.txns.len());
        history.apply(&mut shard, at);
        let mut writer = PartWriter::new(Zxid(start as u64), index as u32);
        let mut scan = PartScan::begin(&shard, index == 0);
        scan.check_after_every_record();
        let finished_at = loop {
            if let Some(finished_at) = scan.slice(&shard, &mut writer, || true).unwrap() {
                break finished_at;
            }
            at = (at + random.random_range(0..6)).min(history.txns.len());
            history.apply(&mut shard, at);
        };
        let (bytes, summary) = writer.finish(finished_at);
        parts.push(bytes.concat());
        summaries.push(summary);
        end = end.max(finished_at.0 as usize);
    }
    let manifest = Manifest { start: Zxid(start as u64), end: Zxid(end as u64), epoch: 0, parts: summaries };
    WrittenSnapshot { manifest: Arc::new(manifest), parts }
}

fn load(snapshot: &WrittenSnapshot, shard: &mut Shard, piece_bytes: usize) {
    let mut loader = SnapshotLoader::begin(snapshot.manifest.clone(), shard);
    for (index, part) in snapshot.parts.iter().enumerate() {
        for piece in part.chunks(piece_bytes) {
            loader.feed(shard, index as u32, piece).unwrap();
        }
    }
    loader.end(shard).unwrap();
}

/// Everything that a shard holds, as text.
fn dump(shard: &Shard) -> Vec<String> {
    let tree = shard.tree();
    let mut lines: Vec<String> = (0..tree.scan_end())
        .filter_map(|slot| tree.scan_at(slot))
        .map(|node| {
            let names = node.children().map(ChildSet::to_vec).unwrap_or_default();
            let acl = tree.acls().get(node.acl()).hash();
            format!("{} {:?} {:?} {acl:?} {names:?}", node.path(), node.data(), node.stat())
        })
        .collect();
    lines.sort();
    for (id, session) in shard.sessions().iter() {
        lines.push(format!("{id} {} {:?}", session.timeout_ms, tree.ephemerals(id)));
    }
    lines.push(format!("{} {} {}", tree.len(), tree.ephemerals_count(), tree.data_bytes()));
    lines
}

/// Rules C3, C4 and C5: the scan meets nodes that are created, deleted and re-created under it, shards scan at different
/// times, and the loader has another number of shards. Whatever the snapshot caught, the log from its start makes it right.
#[test]
fn snapshot_written_under_writes_converges_for_any_number_of_shards() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let history = History::new(seed, 200);
        let writers = [1, 2, 3][seed as usize % 3];
        let readers = [1, 3, 2, 5][seed as usize % 4];
        let snapshot = write_snapshot(&history, writers, random.random_range(0..150), &mut random);
        let piece_bytes = random.random_range(1..3000);
        for (mut loaded, mut reference) in shards(readers).into_iter().zip(shards(readers)) {
            load(&snapshot, &mut loaded, piece_bytes);
            assert_eq!(loaded.applied(), snapshot.manifest.start);
            history.apply(&mut loaded, snapshot.manifest.end.0 as usize);
            history.apply(&mut reference, snapshot.manifest.end.0 as usize);
            assert_eq!(dump(&loaded), dump(&reference), "seed {seed}: {writers} to {readers} shards, at the end");
            history.apply(&mut loaded, 200);
            history.apply(&mut reference, 200);
            assert_eq!(dump(&loaded), dump(&reference), "seed {seed}: {writers} to {readers} shards, later");
        }
    }
}

fn one_part(records: &[SnapshotRecord<'_>]) -> WrittenSnapshot {
    let mut writer = PartWriter::new(Zxid(5), 0);
    records.iter().for_each(|record| writer.push(record).unwrap());
    let (bytes, summary) = writer.finish(Zxid(6));
    let manifest = Manifest { start: Zxid(5), end: Zxid(6), epoch: 0, parts: vec![summary] };
    WrittenSnapshot { manifest: Arc::new(manifest), parts: vec![bytes.concat()] }
}

/// Checksums tell what was written, not that it makes sense: a part of another writer must not end in a half tree or a panic,
/// and every shard must refuse it alike, also those that own nothing of it.
#[test]
fn part_that_makes_no_sense_is_refused_by_every_shard() {
    let node = |path: &'static str, acl_hash| {
        SnapshotRecord::Node(NodeRecord {
            path,
            data: None,
            czxid: Zxid(1),
            mzxid: Zxid(1),
            pzxid: Zxid(1),
            ctime_ms: 0,
            mtime_ms: 0,
            ephemeral_owner: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            acl_hash,
        })
    };
    let open = AclList::open().hash().0;
    for (bad, said) in [
        (node("/a", 1), "a node names an ACL list"),
        (node("a", open), "does not begin with /"),
        (SnapshotRecord::Acl { hash: 9, bytes: &[0, 0, 0, 0] }, "does not fit its name"),
        (SnapshotRecord::Acl { hash: 9, bytes: &[0, 0, 0, 9] }, "does not fit its name"),
        (SnapshotRecord::Meta { key: 1, bytes: b"" }, "a newer server"),
    ] {
        let snapshot = one_part(&[node("/", open), bad]);
        for shard in &mut shards(3) {
            let mut loader = SnapshotLoader::begin(snapshot.manifest.clone(), shard);
            let fault = loader.feed(shard, 0, &snapshot.parts[0]).unwrap_err();
            assert!(fault.error.to_string().contains(said), "{fault:?}");
            assert_eq!(loader.feed(shard, 0, b"more"), Err(fault));
            assert_eq!(loader.end(shard), Err(fault));
        }
    }
}

/// An empty part file brings no bytes at all, so nothing would notice that it is missing.
#[test]
fn empty_part_file_is_a_fault_wherever_it_stands() {
    let whole = one_part(&[]);
    let parts = vec![whole.manifest.parts[0], PartSummary::default(), PartSummary::default()];
    let manifest = Arc::new(Manifest { parts, ..(*whole.manifest).clone() });
    let shard = &mut shards(1)[0];
    let mut loader = SnapshotLoader::begin(manifest.clone(), shard);
    loader.feed(shard, 0, &whole.parts[0]).unwrap();
    let fault = loader.end(shard).unwrap_err();
    assert_eq!((fault.part, fault.error.fault), (1, SnapshotFault::Truncated));
    let mut loader = SnapshotLoader::begin(manifest, shard);
    loader.feed(shard, 0, &whole.parts[0]).unwrap();
    assert_eq!(loader.feed(shard, 2, b"x").unwrap_err().part, 1);
}

/// A part that was finished after the snapshot's end would be served before its effects are complete.
#[test]
fn part_finished_after_the_end_is_refused() {
    let written = one_part(&[]);
    let manifest = Arc::new(Manifest { end: Zxid(5), ..(*written.manifest).clone() });
    let shard = &mut shards(1)[0];
    let mut loader = SnapshotLoader::begin(manifest, shard);
    loader.feed(shard, 0, &written.parts[0]).unwrap();
    assert!(loader.end(shard).unwrap_err().error.to_string().contains("after the snapshot's end"));
}
