//! Snapshots while the server runs: shard 0 decides when, every shard writes its part, shard 0 publishes the whole.
//!
//! One at a time:
//! 1. shard 0 asks every shard for its part, through the FIFO of the commits: so all of them have applied the start S;
//! 2. each writes its part in the background and reports the zxid at which its scan was finished; the greatest is the end E;
//! 3. once the log is durable to E the manifest is published, and old snapshots and the log below them may go (rule C3).
//!
//! A snapshot that fails leaves nothing behind but a line in the server's own log: the server goes on, and tries again when
//! the next one is due. The log alone carries everything meanwhile.

use super::message::ShardMessage;
use super::shard_driver::ShardDriver;
use crate::base::{ShardId, Zxid, coverage};
use crate::config::ServerConfig;
use crate::coordination::persistence::snapshot::{SnapshotFiles, SnapshotFilesError};
use crate::coordination::persistence::snapshot_format::{Manifest, PartSummary, SnapshotFault};
use crate::coordination::persistence::snapshot_policy::SnapshotPolicy;
use crate::coordination::persistence::snapshot_scan::PartScan;
use crate::log::driver::WriteAheadLog;
use crate::metrics::Counters;
use crate::runtime::{LocalNotify, Queue, clock, need_preempt, random, sleep, spawn, timeout};
use crate::storage::StorageError;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// How long a scan keeps its shard from other work at once.
const SLICE_US: u64 = 200;
/// Least pause between two slices. A pause is as long as the slice before it was: at most half of a CPU goes into a snapshot.
const PAUSE_US_MIN: u64 = 100;

/// The part of one shard: written, or not.
#[derive(Debug)]
pub struct PartOutcome {
    /// Which part.
    pub index: u32,
    /// What goes into the manifest, and the zxid at which the scan was finished.
    pub result: Result<(PartSummary, Zxid), SnapshotFilesError>,
}

/// When old snapshots and old log go.
#[derive(Clone, Copy, Debug)]
struct Purging {
    /// Snapshots that stay.
    retain: usize,
    /// At least this often, and after each snapshot.
    interval: Duration,
}

/// The snapshots of a server, on shard 0.
pub struct Snapshots {
    files: SnapshotFiles,
    log: Rc<WriteAheadLog>,
    policy: RefCell<SnapshotPolicy>,
    /// `None`: everything is kept for ever, as ZooKeeper does without `autopurge.purgeInterval`.
    purging: Option<Purging>,
    /// True with `forceSync=no`: what the log calls durable need not be on disk then, so the log is synced before a snapshot
    /// is published.
    sync_log: bool,
    /// Snapshots that could not be loaded at start: they do not count as kept.
    broken: BTreeSet<Zxid>,
    running: Cell<bool>,
    due: LocalNotify,
    outcomes: RefCell<Vec<PartOutcome>>,
    /// A part has arrived, or the log's durable position has moved.
    progress: LocalNotify,
    counters: RefCell<Counters>,
}

impl Snapshots {
    /// The snapshots in `files`. `replayed` are the transactions and bytes that the start had to replay: a long replay makes a
    /// snapshot due at once.
    pub fn new(
        config: &ServerConfig,
        files: SnapshotFiles,
        log: Rc<WriteAheadLog>,
        broken: BTreeSet<Zxid>,
        replayed: (u64, u64),
    ) -> Rc<Snapshots> {
        let size_limit_bytes = config.snap_size_limit_kib.map(|kib| kib.saturating_mul(1024));
        let mut policy = SnapshotPolicy::new(config.snap_count, size_limit_bytes, random::any());
        policy.logged(replayed.0, replayed.1);
        let purging = |hours: u32| Purging {
            retain: (config.snap_retain_count as usize).max(1),
            interval: Duration::from_secs(u64::from(hours) * 3600),
        };
        Rc::new(Snapshots {
            files,
            log,
            policy: RefCell::new(policy),
            purging: config.purge_interval_hours.map(purging),
            sync_log: !config.force_sync,
            broken,
            running: Cell::new(false),
            due: LocalNotify::new(),
            outcomes: RefCell::new(Vec::new()),
            progress: LocalNotify::new(),
            counters: RefCell::new(Counters::default()),
        })
    }

    /// Transactions were committed, so the log's durable position has moved, and bytes were appended.
    pub fn committed(&self, txns: u64, bytes: u64) {
        self.progress.notify();
        let mut policy = self.policy.borrow_mut();
        policy.logged(txns, bytes);
        if !policy.is_due() {
            return;
        }
        if self.running.get() {
            // One at a time: as in ZooKeeper, the next is skipped, so that a slow disk does not write snapshots without end.
            policy.start_over(random::any());
        } else {
            self.due.notify();
        }
    }

    /// A shard has written its part, or failed to.
    pub fn part_arrived(&self, outcome: PartOutcome) {
        self.outcomes.borrow_mut().push(outcome);
        self.progress.notify();
    }

    /// Adds what was counted here.
    pub fn add_to(&self, counters: &mut Counters) {
        counters.merge(&self.counters.borrow());
    }

    /// Takes snapshots when they are due, and purges, as long as the server runs.
    pub async fn run(self: Rc<Self>, driver: Rc<ShardDriver>) {
        loop {
            self.purge().await;
            let due = match self.purging {
                Some(purging) => timeout(purging.interval, self.due.notified()).await.is_ok(),
                None => {
                    self.due.notified().await;
                    true
                }
            };
            if due {
                self.take(&driver).await;
            }
        }
    }

    /// Takes one snapshot.
    async fn take(&self, driver: &Rc<ShardDriver>) {
        let started_us = clock::monotonic_us();
        self.policy.borrow_mut().start_over(random::any());
        self.running.set(true);
        // The sequencer hands over to this shard at once: the others have applied this before they see the request.
        let start = driver.core().borrow().applied();
        let result = self.write(driver, start).await;
        self.running.set(false);
        let took_us = clock::monotonic_us() - started_us;
        match result {
            Ok(manifest) => {
                let records: u64 = manifest.parts.iter().map(|part| part.records).sum();
                let bytes: u64 = manifest.parts.iter().map(|part| part.file_bytes).sum();
                let (end, took_ms) = (manifest.end, took_us / 1000);
                tracing::info!("snapshot {start} (to {end}): {records} records, {bytes} bytes, in {took_ms} ms");
                self.counters.borrow_mut().snapshot_latency.record_us(took_us);
            }
            Err(error) => {
                let rest = match self.files.remove(start).await {
                    Ok(()) => "its files are removed".to_owned(),
                    Err(error) => format!("its files could not be removed ({error})"),
                };
                tracing::error!("snapshot {start} failed: {error}; {rest}, the server goes on without it");
            }
        }
    }

    async fn write(&self, driver: &Rc<ShardDriver>, start: Zxid) -> Result<Manifest, SnapshotFilesError> {
        for other in 1..driver.shards() {
            driver.send(ShardId(other as u16), ShardMessage::SnapshotWanted(start));
        }
        driver.flush_mesh();
        spawn(Queue::Background, write_part(driver.clone(), start));
        while self.outcomes.borrow().len() < driver.shards() {
            self.progress.notified().await;
        }
        // All of them have ended: if one has failed, nobody writes files any more that are about to be removed.
        let mut outcomes = self.outcomes.take();
        outcomes.sort_by_key(|outcome| outcome.index);
        let (mut parts, mut end) = (Vec::new(), start);
        for outcome in outcomes {
            let (summary, finished_at) = outcome.result?;
            parts.push(summary);
            end = end.max(finished_at);
        }
        self.until_durable(end).await;
        if self.sync_log {
            self.log.sync_above(start.into()).await?;
        }
        let manifest = Manifest { start, end, epoch: u64::from(end.epoch()), parts };
        self.files.publish(&manifest).await?;
        coverage::mark("snapshot-published");
        if manifest.end > manifest.start {
            coverage::mark("snapshot-part-is-fuzzy");
        }
        Ok(manifest)
    }

    async fn until_durable(&self, zxid: Zxid) {
        while self.log.writer().borrow().durable_position() < zxid.into() {
            self.progress.notified().await;
        }
    }

    /// Removes what nobody needs any more, if that is wanted.
    async fn purge(&self) {
        let Some(purging) = self.purging else { return };
        if let Err(error) = self.purge_all(purging.retain).await {
            tracing::warn!("old snapshots and logs are not all removed: {error}; tried again after the next snapshot");
        }
    }

    async fn purge_all(&self, retain: usize) -> Result<(), StorageError> {
        match self.files.purge(retain, &self.broken).await? {
            Some(oldest) => self.log.purge_below(Zxid(oldest.0.saturating_add(1)).into()).await,
            None => Ok(()),
        }
    }
}

/// Writes the part of this shard of the snapshot that starts at `start`, and reports to shard 0.
pub async fn write_part(driver: Rc<ShardDriver>, start: Zxid) {
    let index = u32::from(driver.id().0);
    let result = scan(&driver, start, index).await;
    driver.snapshot_part(PartOutcome { index, result });
    driver.flush_mesh();
}

async fn scan(driver: &ShardDriver, start: Zxid, index: u32) -> Result<(PartSummary, Zxid), SnapshotFilesError> {
    let mut part = driver.snapshots().begin_part(start, index).await?;
    let mut scan = PartScan::begin(&driver.core().borrow(), index == 0);
    loop {
        let began_us = clock::monotonic_us();
        let enough = || clock::monotonic_us() - began_us >= SLICE_US || need_preempt();
        let finished: Result<Option<Zxid>, SnapshotFault> = scan.slice(&driver.core().borrow(), part.writer(), enough);
        let finished = finished?;
        let took_us = clock::monotonic_us() - began_us;
        part.write_filled().await?;
        if let Some(finished_at) = finished {
            return Ok((part.finish(finished_at).await?, finished_at));
        }
        sleep(Duration::from_micros(took_us.max(PAUSE_US_MIN))).await;
    }
}
