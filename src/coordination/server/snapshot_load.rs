//! Loading a snapshot into the shards at start.
//!
//! Shard 0 reads the files and hands their bytes to every shard through the mesh, before the log; each shard checks and
//! decodes all of them and takes what it owns. All shards see the same bytes and judge them alike, so a fault that shard 0
//! finds is every shard's fault: it then begins an older snapshot, or none.

use super::error::ServerError;
use super::message::{ShardMessage, SnapshotLoad};
use super::shard_driver::ShardDriver;
use crate::base::{ShardId, Zxid, coverage};
use crate::coordination::persistence::snapshot::{SnapshotFiles, SnapshotFilesError};
use crate::coordination::persistence::snapshot_format::{Manifest, SnapshotFile};
use crate::coordination::persistence::snapshot_loader::PartFault;
use crate::runtime::{clock, sleep, yield_if_needed};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Pieces of a part that may be on their way to the other shards; one has 512 KiB.
const PIECES_IN_FLIGHT_MAX: usize = 32;
/// Pause before looking again whether the other shards have taken a piece.
const PIECE_PAUSE: Duration = Duration::from_micros(200);

/// What was found of snapshots.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The one that was loaded, if any.
    pub manifest: Option<Arc<Manifest>>,
    /// Newer ones that could not be.
    pub broken: BTreeSet<Zxid>,
}

/// Loads the newest snapshot that is whole into all shards. With `discard_after`, one that holds nothing above it.
pub async fn load_newest(
    driver: &ShardDriver,
    files: &SnapshotFiles,
    discard_after: Option<Zxid>,
) -> Result<Loaded, ServerError> {
    let mut loaded = Loaded::default();
    for start in files.starts().await.map_err(ServerError::Snapshots)? {
        match load(driver, files, start, discard_after).await {
            Ok(Some(manifest)) => {
                coverage::mark("snapshot-loaded");
                loaded.manifest = Some(manifest);
                return Ok(loaded);
            }
            Ok(None) => tracing::warn!("snapshot {start} holds transactions that are to be discarded; not used"),
            Err(error) => {
                tracing::error!("snapshot {start} cannot be used: {error}; trying the one before it");
                coverage::mark("broken-snapshot-passed-over");
                loaded.broken.insert(start);
            }
        }
    }
    load_everywhere(driver, SnapshotLoad::None);
    Ok(loaded)
}

async fn load(
    driver: &ShardDriver,
    files: &SnapshotFiles,
    start: Zxid,
    discard_after: Option<Zxid>,
) -> Result<Option<Arc<Manifest>>, SnapshotFilesError> {
    let started_ms = clock::monotonic_ms();
    let manifest = Arc::new(files.manifest(start).await?);
    if discard_after.is_some_and(|zxid| manifest.end > zxid) {
        return Ok(None);
    }
    load_everywhere(driver, SnapshotLoad::Begin(manifest.clone()));
    for part in 0..manifest.parts.len() as u32 {
        load_part(driver, files, start, part).await?;
    }
    driver.end_load().map_err(|fault| damaged(files, start, fault))?;
    send_everywhere(driver, SnapshotLoad::End);
    let records: u64 = manifest.parts.iter().map(|part| part.records).sum();
    let (end, took_ms) = (manifest.end, clock::monotonic_ms() - started_ms);
    tracing::info!("loaded snapshot {start} (to {end}, {records} records) in {took_ms} ms");
    Ok(Some(manifest))
}

async fn load_part(
    driver: &ShardDriver,
    files: &SnapshotFiles,
    start: Zxid,
    part: u32,
) -> Result<(), SnapshotFilesError> {
    let mut in_flight = VecDeque::new();
    let mut reader = files.read_part(start, part).await?;
    while let Some(chunk) = reader.next().await? {
        if driver.shards() > 1 {
            let bytes = Bytes::copy_from_slice(&chunk);
            send_everywhere(driver, SnapshotLoad::Piece { part, bytes: bytes.clone() });
            in_flight.push_back(bytes);
        }
        driver.load_piece(part, &chunk).map_err(|fault| damaged(files, start, fault))?;
        while in_flight.len() >= PIECES_IN_FLIGHT_MAX {
            if in_flight.pop_front_if(|oldest| oldest.is_unique()).is_none() {
                sleep(PIECE_PAUSE).await;
            }
        }
        yield_if_needed().await;
    }
    Ok(())
}

fn damaged(files: &SnapshotFiles, start: Zxid, fault: PartFault) -> SnapshotFilesError {
    SnapshotFilesError::Damaged { path: files.path(SnapshotFile::Part(start, fault.part)), error: fault.error }
}

fn load_everywhere(driver: &ShardDriver, message: SnapshotLoad) {
    send_everywhere(driver, message.clone());
    driver.load(message);
}

fn send_everywhere(driver: &ShardDriver, message: SnapshotLoad) {
    for other in 1..driver.shards() {
        driver.send(ShardId(other as u16), ShardMessage::Load(message.clone()));
    }
    driver.flush_mesh();
}
