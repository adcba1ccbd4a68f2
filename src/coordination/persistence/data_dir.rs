//! The directories of a server: what may be in them, and whose they are.
//!
//! ```text
//! dataDir/ringkeeper/       snapshots, and the lock
//! dataLogDir/ringkeeper/    the transaction log
//! ```
//!
//! A `version-2/` beside ours belongs to Apache ZooKeeper. A server that has nothing of its own there does not start over it:
//! its clients would find an empty tree where their data is.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, create_dir_all};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Name of our directory within `dataDir` and `dataLogDir`.
pub const DIRECTORY: &str = "ringkeeper";
const LOCK: &str = "lock";

/// Why the directories cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Somebody else's data.
    #[error(
        "{0} holds the data of an Apache ZooKeeper server (version-2/), which this version cannot read, and no data of \
         ringkeeper: starting here would serve an empty tree. Choose another dataDir"
    )]
    Foreign(PathBuf),
    /// Another server runs here.
    #[error("{0} is in use by another ringkeeper server")]
    InUse(PathBuf),
    /// It cannot be created or opened.
    #[error("cannot use {path}: {source}. Check that it exists, is writable by this user, and has room")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directories, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    /// Where snapshots are.
    pub snapshots: PathBuf,
    /// Where the transaction log is.
    pub log: PathBuf,
    _locks: Vec<File>,
}

impl DataDir {
    /// Checks, creates and locks the directories. Blocks: call it before the shards run.
    pub fn open(data_dir: &Path, data_log_dir: &Path) -> Result<DataDir, DataDirError> {
        // The ring opens directories without a current one: a relative path would fail there.
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| DataDirError::Unusable { path: path.to_owned(), source })
        };
        let (data_dir, data_log_dir) = (&*absolute(data_dir)?, &*absolute(data_log_dir)?);
        let mut locks = Vec::new();
        for parent in [data_dir, data_log_dir] {
            let ours = parent.join(DIRECTORY);
            if parent.join("version-2").exists() && !ours.exists() {
                return Err(DataDirError::Foreign(parent.to_owned()));
            }
        }
        for parent in [data_dir, data_log_dir] {
            let ours = parent.join(DIRECTORY);
            let unusable = |source| DataDirError::Unusable { path: ours.clone(), source };
            create_dir_all(&ours).map_err(unusable)?;
            if parent == data_log_dir && data_log_dir == data_dir && !locks.is_empty() {
                continue;
            }
            let lock =
                File::options().create(true).write(true).truncate(false).open(ours.join(LOCK)).map_err(unusable)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => locks.push(lock),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::InUse(ours)),
                Err(error) => return Err(unusable(error.into())),
            }
        }
        Ok(DataDir { snapshots: data_dir.join(DIRECTORY), log: data_log_dir.join(DIRECTORY), _locks: locks })
    }
}
