//! Snapshots of a simulated server: taken in slices while it runs, found and loaded when it starts.
//!
//! The scan and the loader are the server's own; what stands here is what its drivers do with files: parts first, the manifest
//! once the log is durable to the end, then old snapshots and the log below them go (rule C3).

use super::disk::Disk;
use crate::base::{Zxid, coverage};
use crate::coordination::persistence::snapshot_format::{Manifest, PartSummary};
use crate::coordination::persistence::snapshot_loader::SnapshotLoader;
use crate::coordination::persistence::snapshot_part::PartWriter;
use crate::coordination::persistence::snapshot_policy::SnapshotPolicy;
use crate::coordination::persistence::snapshot_scan::PartScan;
use crate::coordination::processor::Shard;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Transactions after which a snapshot is due.
const SNAP_COUNT: u32 = 120;
/// Snapshots that stay.
const RETAIN: usize = 2;

/// The part of one shard, while it is being written.
#[derive(Debug)]
struct Part {
    scan: PartScan,
    writer: Option<PartWriter>,
    bytes: Vec<u8>,
}

/// A snapshot under way.
#[derive(Debug)]
struct Running {
    start: Zxid,
    parts: Vec<Option<Part>>,
    finished: Vec<Option<(PartSummary, Zxid)>>,
}

/// The snapshots of one life.
#[derive(Debug)]
pub(super) struct Snapshots {
    policy: SnapshotPolicy,
    running: Option<Running>,
    /// Snapshots that could not be loaded: they do not count as kept.
    broken: BTreeSet<Zxid>,
}

impl Snapshots {
    /// `replayed` transactions count towards the next snapshot.
    pub(super) fn new(replayed: u64, broken: BTreeSet<Zxid>, random: u64) -> Snapshots {
        let mut policy = SnapshotPolicy::new(SNAP_COUNT, None, random);
        policy.logged(replayed, 0);
        Snapshots { policy, running: None, broken }
    }

    /// Transactions were committed. True when a snapshot is to begin.
    pub(super) fn committed(&mut self, txns: u64, random: u64) -> bool {
        self.policy.logged(txns, 0);
        if !self.policy.is_due() {
            return false;
        }
        self.policy.start_over(random);
        self.running.is_none()
    }

    /// A snapshot of so many parts begins at `start`.
    pub(super) fn begin(&mut self, start: Zxid, parts: usize) {
        let (parts, finished) = ((0..parts).map(|_| None).collect(), vec![None; parts]);
        self.running = Some(Running { start, parts, finished });
    }

    /// A shard was asked for its part.
    pub(super) fn begin_part(&mut self, shard: usize, core: &Shard) {
        let Some(running) = &mut self.running else { return };
        let mut scan = PartScan::begin(core, shard == 0);
        scan.check_after_every_record();
        let writer = Some(PartWriter::new(running.start, shard as u32));
        running.parts[shard] = Some(Part { scan, writer, bytes: Vec::new() });
    }

    /// A slice of so many records of a shard's part. True when the part is finished.
    pub(super) fn slice(&mut self, shard: usize, core: &Shard, records: u64, disk: &mut Disk) -> Result<bool, String> {
        let Some(running) = &mut self.running else { return Ok(false) };
        let Some(part) = &mut running.parts[shard] else { return Ok(false) };
        let Some(writer) = &mut part.writer else { return Ok(false) };
        let mut left = records;
        let enough = || {
            left -= 1;
            left == 0
        };
        let finished_at = part.scan.slice(core, writer, enough).map_err(|fault| fault.to_string())?;
        while let Some(bytes) = writer.take_filled() {
            part.bytes.extend_from_slice(&bytes);
        }
        let (Some(finished_at), Some(writer)) = (finished_at, finished_at.and_then(|_| part.writer.take())) else {
            return Ok(false);
        };
        let (rest, summary) = writer.finish(finished_at);
        rest.iter().for_each(|bytes| part.bytes.extend_from_slice(bytes));
        disk.put_part(running.start, shard as u32, std::mem::take(&mut part.bytes));
        running.finished[shard] = Some((summary, finished_at));
        if finished_at > running.start {
            coverage::mark("snapshot-part-is-fuzzy");
        }
        Ok(true)
    }

    /// Publishes the snapshot if all its parts are there and the log is durable to its end. Gives the position from which the
    /// log is still needed, if older parts of it may go.
    pub(super) fn publish(&mut self, durable: Zxid, disk: &mut Disk) -> Option<Zxid> {
        let running = self.running.as_ref()?;
        let finished: Vec<(PartSummary, Zxid)> = running.finished.iter().copied().collect::<Option<_>>()?;
        let end = finished.iter().map(|(_, at)| *at).max().unwrap_or(running.start);
        if durable < end {
            return None;
        }
        let parts = finished.into_iter().map(|(summary, _)| summary).collect();
        let manifest = Manifest { start: running.start, end, epoch: u64::from(end.epoch()), parts };
        disk.put_manifest(running.start, manifest.encode());
        coverage::mark("snapshot-published");
        self.running = None;
        self.purge(disk)
    }

    fn purge(&self, disk: &mut Disk) -> Option<Zxid> {
        let mut kept = Vec::new();
        for start in disk.manifests() {
            if kept.len() >= RETAIN {
                disk.remove_snapshot(start);
            } else if !self.broken.contains(&start) && Manifest::decode(disk.manifest(start)).is_ok() {
                kept.push(start);
            }
        }
        kept.last().copied().filter(|_| kept.len() >= RETAIN)
    }
}

/// What was found of snapshots.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The one that was loaded, if any.
    pub(super) manifest: Option<Manifest>,
    /// Newer ones that could not be.
    pub(super) broken: BTreeSet<Zxid>,
}

/// Loads the newest snapshot that is whole into all shards.
pub(super) fn load_newest(disk: &Disk, shards: &mut [Shard]) -> Loaded {
    let mut loaded = Loaded::default();
    for start in disk.manifests() {
        match load(disk, start, shards) {
            Some(manifest) => {
                coverage::mark("snapshot-loaded");
                loaded.manifest = Some(manifest);
                return loaded;
            }
            None => {
                coverage::mark("broken-snapshot-passed-over");
                loaded.broken.insert(start);
            }
        }
    }
    shards.iter_mut().for_each(Shard::start_empty);
    loaded
}

fn load(disk: &Disk, start: Zxid, shards: &mut [Shard]) -> Option<Manifest> {
    let manifest = Arc::new(Manifest::decode(disk.manifest(start)).ok()?);
    for shard in shards {
        let mut loader = SnapshotLoader::begin(manifest.clone(), shard);
        for part in 0..manifest.parts.len() as u32 {
            for piece in disk.part(start, part).chunks(1000) {
                loader.feed(shard, part, piece).ok()?;
            }
        }
        loader.end(shard).ok()?;
    }
    Some((*manifest).clone())
}
