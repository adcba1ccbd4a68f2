//! What a start does before it may write: loads the newest whole snapshot into all shards, then replays the log from its start.
//!
//! The order matters: what the shards are given is only believed once the log's verdict is in, and files that contradict the log
//! are removed before anything new is written. A start that ends here with an error has destroyed nothing.

use super::error::ServerError;
use super::message::ShardMessage;
use super::sequencer_driver::SequencerDriver;
use super::shard_driver::ShardDriver;
use super::snapshot_load::{Loaded, load_newest};
use crate::base::{ShardId, Zxid};
use crate::coordination::persistence::snapshot_format::SnapshotFile;
use crate::log::damage::DamageCause;
use crate::log::driver::{OpenedLog, WriteAheadLog, WriteAheadLogError};
use crate::log::writer::LogConfig;
use crate::runtime::{clock, random, yield_if_needed};
use crate::storage::Storage;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

/// Bytes of replayed transactions handed over at once.
const REPLAY_BATCH_BYTES: usize = 1 << 20;

/// Where a server starts from.
pub struct Recovered {
    /// The log, ready to go on; everything in it is handed to the shards.
    pub log: OpenedLog,
    /// Transactions and bytes that were replayed.
    pub replayed: (u64, u64),
    /// Snapshots that could not be loaded.
    pub broken: BTreeSet<Zxid>,
}

/// Recovers from the snapshots of `driver` and the log in `directory`. With `discard_after`, everything above it is given up.
pub async fn recover(
    driver: &Rc<ShardDriver>,
    storage: Storage,
    directory: &Path,
    config: LogConfig,
    discard_after: Option<Zxid>,
) -> Result<Recovered, ServerError> {
    let files = driver.snapshots();
    let loaded = load_newest(driver, files, discard_after).await?;
    let log_exists = WriteAheadLog::exists(&storage, directory).await.map_err(WriteAheadLogError::from)?;
    if !log_exists && discard_after.is_none() {
        refuse_without_log(driver, directory, &loaded)?;
    }
    let started_ms = clock::monotonic_ms();
    let mut replay = Replay::default();
    let from = loaded.manifest.as_ref().map_or(Zxid::ZERO, |manifest| manifest.replay_after());
    let sink = |_, txn: &[u8]| replay.add(txn);
    let opened = WriteAheadLog::open(storage, directory, config, from, discard_after, random::any(), sink)
        .await
        .map_err(|error| begins_too_late(error, driver, &loaded))?;
    if let Some(notice) = &opened.notice {
        tracing::warn!("{notice}");
    }
    if let Some(manifest) = loaded.manifest.as_ref().filter(|manifest| manifest.end > opened.end) {
        return Err(ServerError::LogEndsTooEarly {
            log: directory.to_owned(),
            log_end: opened.end,
            snapshot: files.path(SnapshotFile::Manifest(manifest.start)),
            snapshot_end: manifest.end,
        });
    }
    if let Some(zxid) = discard_after {
        // Before anything is written above the cut: later, nobody could tell that these snapshots hold what was given up.
        files.remove_beyond(zxid).await.map_err(ServerError::Snapshots)?;
    }
    let replayed = (replay.transactions, replay.bytes);
    hand_over(driver, replay).await;
    tracing::info!(
        "recovered to {} ({} transactions replayed in {} ms)",
        opened.end,
        replayed.0,
        clock::monotonic_ms() - started_ms
    );
    let leftovers = files.remove_leftovers().await.map_err(ServerError::Snapshots)?;
    if leftovers > 0 {
        tracing::info!("removed {leftovers} files of snapshots that were not finished");
    }
    Ok(Recovered { log: opened, replayed, broken: loaded.broken })
}

/// A log directory that is empty while there are snapshots is the wrong directory, or has lost its files.
fn refuse_without_log(driver: &ShardDriver, directory: &Path, loaded: &Loaded) -> Result<(), ServerError> {
    let newest = loaded.manifest.as_ref().map(|manifest| manifest.start).or(loaded.broken.last().copied());
    let Some(newest) = newest else { return Ok(()) };
    // A snapshot that was written while transactions were applied is no tree without them.
    let complete = loaded.manifest.as_ref().filter(|manifest| manifest.start == manifest.end);
    let way_out = complete.map_or(String::new(), |manifest| {
        format!("; only if they are gone for good, start once with --discard-after {}", manifest.end)
    });
    let snapshot = driver.snapshots().path(SnapshotFile::Manifest(newest));
    Err(ServerError::LogMissing { log: directory.to_owned(), snapshot, way_out })
}

/// Says what a log that does not reach back means, in view of the snapshots.
fn begins_too_late(error: WriteAheadLogError, driver: &ShardDriver, loaded: &Loaded) -> ServerError {
    let WriteAheadLogError::Damaged { directory, damage, .. } = &error else { return error.into() };
    let DamageCause::BeginsTooLate { begins_after } = damage.cause else { return error.into() };
    let found = match &loaded.manifest {
        Some(manifest) => format!("the newest snapshot that can be used starts at {}", manifest.start),
        None => "there is no snapshot that can be used".to_owned(),
    };
    let broken = match loaded.broken.len() {
        0 => String::new(),
        count => format!(" ({count} newer cannot be read, see above)"),
    };
    ServerError::LogBeginsTooLate {
        log: directory.into(),
        begins_after,
        snapshots: driver.snapshots().directory().to_owned(),
        found: found + &broken,
    }
}

/// Hands the log's transactions to all shards, through the FIFO that commits take.
async fn hand_over(driver: &Rc<ShardDriver>, replay: Replay) {
    for batch in replay.finish() {
        let message = SequencerDriver::replay(batch);
        for other in 1..driver.shards() {
            driver.send(ShardId(other as u16), ShardMessage::ToShard(message.clone()));
        }
        driver.apply(&message);
        driver.flush_mesh();
        yield_if_needed().await;
    }
}

/// Transactions of the log, in batches as the shards take them.
#[derive(Default)]
struct Replay {
    batches: Vec<Bytes>,
    open: BytesMut,
    transactions: u64,
    bytes: u64,
}

impl Replay {
    fn add(&mut self, txn: &[u8]) {
        self.transactions += 1;
        self.bytes += txn.len() as u64;
        self.open.put_u32_le(txn.len() as u32);
        self.open.put_slice(txn);
        if self.open.len() >= REPLAY_BATCH_BYTES {
            self.batches.push(self.open.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.batches.push(self.open.split().freeze());
        }
        self.batches
    }
}
