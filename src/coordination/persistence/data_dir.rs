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
            create_durably(&ours, |directory| File::open(directory)?.sync_all()).map_err(unusable)?;
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

/// Creates `path` and its missing parents, and makes all their names survive a power failure: the name of a directory is durable
/// when the directory that holds it is synced. `sync` syncs one directory.
///
/// Directories that exist already are synced as well, since an earlier start may have died between making and syncing them. Where
/// that is not permitted they are somebody else's, and older than this server.
fn create_durably(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let existed = path.ancestors().find(|ancestor| ancestor.is_dir()).map_or(PathBuf::new(), Path::to_owned);
    create_dir_all(path)?;
    for holder in path.ancestors().skip(1) {
        let synced = sync(holder);
        if holder.starts_with(&existed) && path != existed {
            synced?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::test_directory;

    /// A first start on a new volume: the log was synced, the directories above it were not, and after a power failure the server
    /// found no data directory and began an empty tree.
    #[test]
    fn every_new_name_is_synced_in_the_directory_that_holds_it() {
        let top = test_directory("data-dir");
        let wanted = top.join("a/b").join(DIRECTORY);
        let mut synced = Vec::new();
        create_durably(&wanted, |directory| {
            assert!(wanted.is_dir(), "what is synced before it holds anything is not synced");
            synced.push(directory.to_owned());
            Ok(())
        })
        .unwrap();
        for holder in [top.join("a/b"), top.join("a"), top.clone()] {
            assert!(synced.contains(&holder), "{} is not synced", holder.display());
        }
        std::fs::remove_dir_all(top).unwrap();
    }

    /// A parent that cannot be synced: the new directory could be lost, so the server must not start on it. Above what was made,
    /// there may be directories that this user may not even open.
    #[test]
    fn a_failed_sync_counts_where_something_was_made() {
        let top = test_directory("data-dir-denied");
        let denied = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(create_durably(&top.join("a"), denied).is_err());
        assert!(create_durably(&top.join("a"), denied).is_ok(), "it was there");
        let above = top.clone();
        let above_only = move |directory: &Path| if *directory < *above { denied(directory) } else { Ok(()) };
        assert!(create_durably(&top.join("b/c"), above_only).is_ok());
        std::fs::remove_dir_all(top).unwrap();
    }
}
