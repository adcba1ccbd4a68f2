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
use crate::log::driver::{LogOpening, OpenedLog, Replay, WriteAheadLog, WriteAheadLogError};
use crate::log::position::{LogOwner, Record};
use crate::log::writer::LogConfig;
use crate::runtime::{clock, random, sleep, yield_if_needed};
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Bytes of replayed transactions handed over at once.
const REPLAY_BATCH_BYTES: usize = 1 << 20;
/// Batches that may be on their way to the shards.
const REPLAY_BATCHES_MAX: usize = 16;
/// Pause before looking again whether all shards have taken a batch.
const REPLAY_PAUSE: Duration = Duration::from_micros(200);
/// The last epoch that can be opened: on the wire a zxid has a sign.
const EPOCH_LAST: u32 = i32::MAX as u32;
/// Version of a transaction's encoding, which its record in the log carries.
pub const TXN_VERSION: u16 = 1;

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
    let mut replay = TxnReplay::new(driver.clone());
    let from = loaded.manifest.as_ref().map_or(Zxid::ZERO, |manifest| manifest.replay_after());
    // Snapshots may reach further than the log that is kept, and are removed below.
    let highest_known = files.highest().await.map_err(ServerError::Snapshots)?;
    let opening = LogOpening {
        config: LogConfig { record_version: TXN_VERSION, ..config },
        from: from.into(),
        discard_after: discard_after.map(Into::into),
        highest_known: highest_known.into(),
        // A server on its own has no cluster but its log: the first start draws its number, and the log keeps it.
        owner: None,
        new_owner: LogOwner(u128::from(random::any()) << 64 | u128::from(random::any())),
        new_stream_id: random::any(),
    };
    let opened = WriteAheadLog::open(storage, directory, opening, &mut replay)
        .await
        .map_err(|error| explain(error, driver, &loaded))?;
    replay.end().await?;
    let highest = Zxid::from(opened.highest);
    if highest.epoch() >= EPOCH_LAST {
        return Err(ServerError::EpochsExhausted { highest });
    }
    let end = Zxid::from(opened.end);
    if let Some(notice) = &opened.notice {
        tracing::warn!("{notice}");
    }
    if let Some(manifest) = loaded.manifest.as_ref().filter(|manifest| manifest.end > end) {
        return Err(ServerError::LogEndsTooEarly {
            log: directory.to_owned(),
            log_end: end,
            snapshot: files.path(SnapshotFile::Manifest(manifest.start)),
            snapshot_end: manifest.end,
        });
    }
    if let Some(zxid) = discard_after {
        // Before anything is written above the cut: later, nobody could tell that these snapshots hold what was given up.
        files.remove_beyond(zxid).await.map_err(ServerError::Snapshots)?;
    }
    // With one voter durable is committed: the tail, whose fate its blocks leave open, is committed here and nowhere else (rule C2).
    opened.log.commit(opened.end);
    let replayed = (replay.transactions, replay.bytes);
    tracing::info!(
        "recovered to {} ({} transactions replayed in {} ms)",
        end,
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

/// Says what to do about a log that cannot be used, in view of the snapshots.
fn explain(error: WriteAheadLogError, driver: &ShardDriver, loaded: &Loaded) -> ServerError {
    let WriteAheadLogError::Damaged { directory, damage } = error else { return error.into() };
    let DamageCause::BeginsTooLate { begins_after } = damage.cause else {
        return ServerError::LogDamaged { log: directory, keep: damage.recoverable_to.into(), damage };
    };
    let found = match &loaded.manifest {
        Some(manifest) => format!("the newest snapshot that can be used starts at {}", manifest.start),
        None => "there is no snapshot that can be used".to_owned(),
    };
    let broken = match loaded.broken.len() {
        0 => String::new(),
        count => format!(" ({count} newer cannot be read, see above)"),
    };
    ServerError::LogBeginsTooLate {
        log: directory,
        begins_after: begins_after.into(),
        snapshots: driver.snapshots().directory().to_owned(),
        found: found + &broken,
    }
}

/// Transactions of the log on their way to all shards, in batches, through the FIFO that commits take.
///
/// Bound: [`REPLAY_BATCHES_MAX`] batches are on their way, each of [`REPLAY_BATCH_BYTES`] or one transaction. A batch is on its way
/// until every shard has applied it and let go of it; until then the reading of the log waits.
struct TxnReplay {
    driver: Rc<ShardDriver>,
    open: Vec<u8>,
    /// Filled and not handed over.
    filled: VecDeque<Bytes>,
    /// Handed over and not let go of by all shards, oldest first.
    on_their_way: VecDeque<Bytes>,
    transactions: u64,
    bytes: u64,
    /// The first record that this server does not understand.
    unknown: Option<ServerError>,
}

impl Replay for TxnReplay {
    fn record(&mut self, record: Record<'_>) {
        if record.version != TXN_VERSION {
            let (zxid, version) = (record.position.into(), record.version);
            self.unknown.get_or_insert(ServerError::UnknownTxn { zxid, version });
            return;
        }
        self.transactions += 1;
        self.bytes += record.bytes.len() as u64;
        self.open.extend_from_slice(&(record.bytes.len() as u32).to_le_bytes());
        self.open.extend_from_slice(record.bytes);
        if self.open.len() >= REPLAY_BATCH_BYTES {
            self.close_batch();
        }
    }

    async fn until_taken(&mut self) {
        while let Some(batch) = self.filled.pop_front() {
            self.hand_over(batch).await;
        }
    }
}

impl TxnReplay {
    fn new(driver: Rc<ShardDriver>) -> TxnReplay {
        TxnReplay {
            driver,
            open: Vec::new(),
            filled: VecDeque::new(),
            on_their_way: VecDeque::new(),
            transactions: 0,
            bytes: 0,
            unknown: None,
        }
    }

    /// Every batch has memory of its own: whether the shards have let go of one must not depend on another.
    fn close_batch(&mut self) {
        self.filled.push_back(Bytes::from(std::mem::take(&mut self.open)));
    }

    async fn hand_over(&mut self, batch: Bytes) {
        if self.unknown.is_some() {
            return;
        }
        let message = SequencerDriver::replay(batch.clone());
        for other in 1..self.driver.shards() {
            self.driver.send(ShardId(other as u16), ShardMessage::ToShard(message.clone()));
        }
        self.driver.apply(&message);
        self.driver.flush_mesh();
        drop(message);
        self.on_their_way.push_back(batch);
        self.until_on_their_way(REPLAY_BATCHES_MAX - 1).await;
        yield_if_needed().await;
    }

    /// Waits until at most so many batches are on their way. The shards end it; a shard that ends stops the server, and with it
    /// the start.
    async fn until_on_their_way(&mut self, at_most: usize) {
        while self.on_their_way.len() > at_most {
            if self.on_their_way.pop_front_if(|oldest| oldest.is_unique()).is_none() {
                sleep(REPLAY_PAUSE).await;
            }
        }
    }

    /// The log was read to its end: hands over the rest.
    async fn end(&mut self) -> Result<(), ServerError> {
        if !self.open.is_empty() {
            self.close_batch();
        }
        self.until_taken().await;
        self.unknown.take().map_or(Ok(()), Err)
    }
}
