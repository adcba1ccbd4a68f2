//! Names: what a shard does with them on a real file system, and what a process does with directories before its shards run.

use super::error::{Context, Result};
use super::simulated::SimulatedLock;
use super::{Backend, DirectoryEntry};
use crate::runtime::tasks::start_to_finish;
use glommio::io::Directory;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::Path;

/// Name of the file that is locked in place of its directory.
const LOCK: &str = "lock";

pub(super) async fn rename(from: &Path, to: &Path) -> Result<()> {
    let (old, new) = (from.to_owned(), to.to_owned());
    start_to_finish(async move { glommio::io::rename(old, new).await }).await.context("rename", from)
}

pub(super) async fn remove(path: &Path) -> Result<()> {
    let owned = path.to_owned();
    start_to_finish(async move { glommio::io::remove(owned).await }).await.context("remove", path)
}

pub(super) async fn sync(directory: &Path) -> Result<()> {
    let handle = Directory::open(directory).await.context("open", directory)?;
    start_to_finish(async move {
        handle.sync().await?;
        handle.close().await
    })
    .await
    .context("sync", directory)
}

pub(super) async fn list(directory: &Path) -> Result<Vec<DirectoryEntry>> {
    let owned = directory.to_owned();
    blocking(move || list_blocking(&owned)).await.context("list", directory)
}

/// Runs a system call that has no place in the ring on the shard's helper thread.
fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    start_to_finish(async move { glommio::executor().spawn_blocking(call).await })
}

fn list_blocking(directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Ok(name) = entry.file_name().into_string() {
            entries.push(DirectoryEntry { name, is_directory: metadata.is_dir(), bytes: metadata.len() });
        }
    }
    entries.sort();
    Ok(entries)
}

/// A directory that no other server uses as long as this lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _lock: Lock,
}

#[derive(Debug)]
enum Lock {
    Real { _file: File },
    Simulated { _lock: SimulatedLock },
}

/// Before the shards run. These calls block.
impl Backend {
    /// Whether there is anything called `path`.
    pub fn exists(&self, path: &Path) -> Result<bool> {
        match self {
            Backend::Direct | Backend::Lossy(_) => path.try_exists().context("look for", path),
            Backend::Simulated(disk) => Ok(disk.exists(path)),
        }
    }

    /// Creates a directory and its missing parents; fine if it exists. `path` is absolute. The names are durable when this returns.
    ///
    /// The order: no directory is made before the name of its parent is durable. So of the directories that exist only the name of the
    /// last one can be one that an earlier process made and did not live to sync.
    pub fn create_directories(&self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !self.is_directory(above)).collect();
        let existing = path.ancestors().nth(missing.len());
        if let Some(parent) = existing.and_then(Path::parent) {
            self.sync_names_if_ours(parent)?;
        }
        for directory in missing.into_iter().rev() {
            self.make_directory(directory)?;
            if let Some(parent) = directory.parent() {
                self.sync_names(parent)?;
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &Path) -> bool {
        match self {
            Backend::Direct | Backend::Lossy(_) => path.is_dir(),
            Backend::Simulated(disk) => disk.is_directory(path),
        }
    }

    /// Creates one directory. Its name is not durable yet.
    pub(super) fn make_directory(&self, path: &Path) -> Result<()> {
        match self {
            Backend::Direct | Backend::Lossy(_) => fs::create_dir(path),
            Backend::Simulated(disk) => disk.make_directory(path),
        }
        .context("create", path)
    }

    fn sync_names(&self, directory: &Path) -> Result<()> {
        match self {
            Backend::Direct | Backend::Lossy(_) => File::open(directory).and_then(|directory| directory.sync_all()),
            Backend::Simulated(disk) => disk.sync_names_at_once(directory),
        }
        .context("sync", directory)
    }

    /// Whoever may not list a directory, or cannot write to its file system, has made nothing in it: there is nothing to sync then.
    fn sync_names_if_ours(&self, directory: &Path) -> Result<()> {
        use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        match self.sync_names(directory) {
            Err(error)
                if matches!(
                    error.source.kind(),
                    PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Locks a directory for this process. `None`: it is locked already.
    pub fn lock(&self, directory: &Path) -> Result<Option<DirectoryLock>> {
        let lock = match self {
            Backend::Direct | Backend::Lossy(_) => {
                lock_file(directory).map(|file| file.map(|_file| Lock::Real { _file }))
            }
            Backend::Simulated(disk) => {
                disk.lock_directory(directory).map(|lock| lock.map(|_lock| Lock::Simulated { _lock }))
            }
        };
        Ok(lock.context("lock", directory)?.map(|_lock| DirectoryLock { _lock }))
    }
}

fn lock_file(directory: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).write(true).truncate(false).open(directory.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
