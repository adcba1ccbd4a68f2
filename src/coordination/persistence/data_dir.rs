//! The directories of a server: what may be in them, and whose they are.
//!
//! ```text
//! dataDir/ringkeeper/       snapshots, and the lock
//! dataLogDir/ringkeeper/    the transaction log
//! ```
//!
//! A `version-2/` beside ours belongs to Apache ZooKeeper. A server that has nothing of its own there does not start over it:
//! its clients would find an empty tree where their data is.

use crate::storage::{Backend, DirectoryLock, StorageError};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Name of our directory within `dataDir` and `dataLogDir`.
pub const DIRECTORY: &str = "ringkeeper";

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
    /// It cannot be created, synced or locked.
    #[error("{0}. Check that it exists, is writable by this user, and has room")]
    Unusable(#[from] StorageError),
    /// A relative path means nothing without a current directory.
    #[error("cannot tell where {path} is: {source}. Give dataDir and dataLogDir as absolute paths")]
    Relative {
        /// The path.
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
    _locks: Vec<DirectoryLock>,
}

impl DataDir {
    /// Checks, creates and locks the directories. Their names are durable then. Blocks: call it before the shards run.
    pub fn open(backend: &Backend, data_dir: &Path, data_log_dir: &Path) -> Result<DataDir, DataDirError> {
        let (data_dir, data_log_dir) = (&*absolute(data_dir)?, &*absolute(data_log_dir)?);
        let parents = if data_dir == data_log_dir { vec![data_dir] } else { vec![data_dir, data_log_dir] };
        for parent in &parents {
            if backend.exists(&parent.join("version-2"))? && !backend.exists(&parent.join(DIRECTORY))? {
                return Err(DataDirError::Foreign(parent.to_path_buf()));
            }
        }
        let mut locks = Vec::new();
        for ours in parents.into_iter().map(|parent| parent.join(DIRECTORY)) {
            backend.create_directories(&ours)?;
            locks.push(backend.lock(&ours)?.ok_or(DataDirError::InUse(ours))?);
        }
        Ok(DataDir { snapshots: data_dir.join(DIRECTORY), log: data_log_dir.join(DIRECTORY), _locks: locks })
    }
}

/// The ring opens directories without a current one: a relative path would fail there.
fn absolute(path: &Path) -> Result<PathBuf, DataDirError> {
    std::path::absolute(path).map_err(|source| DataDirError::Relative { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::world::{HostId, World, pause_us};
    use crate::storage::{SimulatedDisk, Storage, test_directory};

    /// A first start made the directories, and clients were answered: the log was synced, and so was the directory it is in. But nobody
    /// had synced the name of that directory. The power failed, and the next start found an empty disk.
    #[test]
    fn the_first_start_on_a_disk_survives_a_power_loss() {
        for seed in 0..40 {
            let world = World::new(seed);
            let (this, disk) = (world.clone(), SimulatedDisk::new(world.stream("disk")));
            let found = world.run(async move {
                let (host, backend) = (HostId::new(1), Backend::Simulated(disk.clone()));
                let server = this.start_process(host, "server");
                let of_server = backend.clone();
                this.start_main(server, async move {
                    let directories =
                        DataDir::open(&of_server, Path::new("/srv/keeper/data"), Path::new("/srv/keeper/log")).unwrap();
                    let storage = Storage::new(of_server);
                    for directory in [&directories.snapshots, &directories.log] {
                        storage.create(&directory.join("acknowledged"), 4096, true).await.unwrap();
                        storage.sync_directory(directory).await.unwrap();
                    }
                    std::future::pending::<()>().await;
                });
                pause_us(200_000).await;
                this.power_off(host);
                disk.lose_power();
                disk.files()
            });
            let wanted = ["/srv/keeper/data/ringkeeper/acknowledged", "/srv/keeper/log/ringkeeper/acknowledged"];
            assert_eq!(found.unwrap(), wanted.map(PathBuf::from), "seed {seed}");
        }
    }

    /// Two servers on one directory would write one log, and one that was killed must not keep its successor out.
    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let world = World::new(1);
        let (this, disk) = (world.clone(), SimulatedDisk::new(world.stream("disk")));
        let outcome = world.run(async move {
            let backend = Backend::Simulated(disk);
            let open = |backend: &Backend| DataDir::open(backend, Path::new("/data"), Path::new("/data"));
            let server = this.start_process(HostId::new(1), "server");
            let of_server = backend.clone();
            this.start_main(server, async move {
                let _directories = open(&of_server).unwrap();
                std::future::pending::<()>().await;
            });
            pause_us(1_000).await;
            let error = open(&backend).unwrap_err();
            assert_eq!(error.to_string(), "/data/ringkeeper is in use by another ringkeeper server");
            this.kill(server);
            open(&backend).unwrap();
        });
        outcome.unwrap();
    }

    /// The data of another server is not started over; and an operator is told what is wrong with a path.
    #[test]
    fn directories_that_cannot_be_used_are_told_apart() {
        let top = test_directory("data-dir");
        std::fs::create_dir(top.join("version-2")).unwrap();
        assert!(matches!(DataDir::open(&Backend::Direct, &top, &top), Err(DataDirError::Foreign(_))));
        std::fs::create_dir(top.join(DIRECTORY)).unwrap();
        DataDir::open(&Backend::Direct, &top, &top).unwrap();
        std::fs::write(top.join("file"), "").unwrap();
        let error = DataDir::open(&Backend::Direct, &top.join("file"), &top).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot look for /") && error.contains("/file/version-2: Not a directory"),
            "{error}"
        );
        assert!(error.contains("writable by this user"), "{error}");
        std::fs::remove_dir_all(&top).unwrap();
    }
}
