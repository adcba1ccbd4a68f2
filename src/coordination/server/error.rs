//! Why a server ends.

use crate::base::{ShardId, Zxid};
use crate::coordination::persistence::data_dir::DataDirError;
use crate::coordination::persistence::snapshot_format::SnapshotError;
use crate::coordination::processor::ApplyError;
use crate::log::damage::Damage;
use crate::log::driver::WriteAheadLogError;
use crate::process::ProcessError;
use crate::storage::StorageError;
use std::path::PathBuf;
use thiserror::Error;

/// Why a server did not start, or must not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The directories cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] WriteAheadLogError),
    /// Acknowledged records are missing in the log.
    #[error(
        "the transaction log in {log} is damaged: {damage}. Restore the file from a copy, or start once with --discard-after {keep} \
         to give up everything after it; `ringkeeper inspect {log}` shows what is there", log = log.display()
    )]
    LogDamaged {
        /// Where the log is.
        log: PathBuf,
        /// What is wrong.
        damage: Box<Damage>,
        /// The last transaction that can be read.
        keep: Zxid,
    },
    /// The log was written by a server with other transactions.
    #[error(
        "transaction {zxid} of the log has version {version}, which this server does not know: start the version of ringkeeper that \
         wrote it"
    )]
    UnknownTxn {
        /// The transaction.
        zxid: Zxid,
        /// Its version.
        version: u16,
    },
    /// No epoch is left.
    #[error(
        "zxid {highest} is of the last epoch, so this server cannot open another one: restore older files from a copy"
    )]
    EpochsExhausted {
        /// The highest zxid on this disk.
        highest: Zxid,
    },
    /// The log takes nothing any more; what was acknowledged is safe.
    #[error("{0}; the server stops, what it acknowledged is on disk. Check the disk and start it again")]
    LogStopped(String),
    /// The directory of the snapshots cannot be used.
    #[error("snapshots: {0}")]
    Snapshots(StorageError),
    /// The log and the snapshots do not meet.
    #[error(
        "the transaction log in {log} begins after zxid {begins_after} only, but {found}: what lies between is missing. \
         Restore a newer snapshot to {snapshots}, or the older files of the log, from a copy", log = log.display(),
        snapshots = snapshots.display()
    )]
    LogBeginsTooLate {
        /// Where the log is.
        log: PathBuf,
        /// Records above this are there.
        begins_after: Zxid,
        /// Where the snapshots are.
        snapshots: PathBuf,
        /// What there is of snapshots.
        found: String,
    },
    /// Acknowledged records are missing at the end of the log.
    #[error(
        "the transaction log in {log} ends at zxid {log_end}, but {snapshot} was written when it was durable to \
         {snapshot_end}: acknowledged writes are missing. Restore the log's files from a copy; or, to give up everything after \
         an older snapshot, start once with --discard-after and its end, which `ringkeeper inspect` shows",
        log = log.display(), snapshot = snapshot.display()
    )]
    LogEndsTooEarly {
        /// Where the log is.
        log: PathBuf,
        /// Its last record.
        log_end: Zxid,
        /// The manifest that says so.
        snapshot: PathBuf,
        /// What it says.
        snapshot_end: Zxid,
    },
    /// There are snapshots and no log.
    #[error(
        "there is no transaction log in {log}, but there is {snapshot}. Check dataLogDir, or restore the log's files from a \
         copy{way_out}", log = log.display(), snapshot = snapshot.display()
    )]
    LogMissing {
        /// Where the log should be.
        log: PathBuf,
        /// The newest manifest.
        snapshot: PathBuf,
        /// What else can be done, if anything.
        way_out: String,
    },
    /// One shard read something else than shard 0: memory or disk cannot be trusted.
    #[error(
        "part {part} of the snapshot reads differently on shard {shard} ({error}): check this machine's memory and disk"
    )]
    SnapshotDiffers {
        /// The shard.
        shard: ShardId,
        /// The part.
        part: u32,
        /// What it found.
        error: SnapshotError,
    },
    /// A committed transaction cannot be applied.
    #[error("{0}; the server stops rather than serve a wrong tree. Please report this with the output of `inspect`")]
    Apply(ApplyError),
    /// The configured client address is none.
    #[error("clientPortAddress {address}: {reason}. Correct it, or leave it out to listen on all addresses")]
    ClientAddress {
        /// As configured.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// There is no such bug to plant.
    #[cfg(feature = "planted-bugs")]
    #[error("no bug is called {0:?}")]
    UnknownPlant(String),
}
