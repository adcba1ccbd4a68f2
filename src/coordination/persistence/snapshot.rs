//! Snapshots on disk: begins, publishes, finds, removes their files. The bytes are [`super::snapshot_format`]'s and
//! [`super::snapshot_part`]'s; when and what, the server's.
//!
//! A snapshot exists from the moment its manifest has its name ([`SnapshotFiles::publish`]), and stops existing when it has
//! lost it: parts without a manifest are leftovers of a crash or of a failure, and are removed at the next start.

use super::snapshot_format::{MANIFEST_BYTES_MAX, Manifest, PartSummary, SnapshotError, SnapshotFault, SnapshotFile};
use super::snapshot_part::PartWriter;
use crate::base::Zxid;
use crate::storage::{FileAppender, FileReader, Storage, StorageError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a snapshot cannot be written or read.
#[derive(Debug, Error)]
pub enum SnapshotFilesError {
    /// A file operation failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file does not hold what it should.
    #[error("{}, {error}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Place and fault.
        error: SnapshotError,
    },
    /// A record that cannot be written.
    #[error("a record cannot be written: {0}")]
    Record(#[from] SnapshotFault),
}

/// The directory of the snapshots, as one shard sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    storage: Storage,
    directory: PathBuf,
}

impl SnapshotFiles {
    /// The snapshots in `directory`, which exists.
    pub fn new(storage: Storage, directory: &Path) -> SnapshotFiles {
        SnapshotFiles { storage, directory: directory.to_owned() }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a file of a snapshot is.
    pub fn path(&self, file: SnapshotFile) -> PathBuf {
        self.directory.join(file.to_string())
    }

    async fn files(&self) -> Result<Vec<SnapshotFile>, StorageError> {
        let entries = self.storage.list(&self.directory).await?;
        Ok(entries.iter().filter_map(|entry| SnapshotFile::parse(&entry.name)).collect())
    }

    /// The start zxids of all snapshots, newest first.
    pub async fn starts(&self) -> Result<Vec<Zxid>, StorageError> {
        let mut starts: Vec<Zxid> = self.files().await?.into_iter().filter_map(manifest_start).collect();
        starts.sort_by(|one, other| other.cmp(one));
        Ok(starts)
    }

    /// The highest zxid that a snapshot here speaks of. One whose manifest cannot be read says nothing.
    pub async fn highest(&self) -> Result<Zxid, StorageError> {
        let mut highest = Zxid::ZERO;
        for start in self.starts().await? {
            if let Ok(manifest) = self.manifest(start).await {
                highest = highest.max(manifest.end);
            }
        }
        Ok(highest)
    }

    /// Reads and checks the manifest of the snapshot that starts at `start`.
    pub async fn manifest(&self, start: Zxid) -> Result<Manifest, SnapshotFilesError> {
        let path = self.path(SnapshotFile::Manifest(start));
        // One more than the largest has: a longer file is noticed, and not read.
        let bytes = self.storage.read_first(&path, MANIFEST_BYTES_MAX + 1).await?;
        match Manifest::decode(&bytes) {
            Ok(manifest) if manifest.start == start => Ok(manifest),
            Ok(_) => {
                Err(SnapshotError { offset: 0, fault: SnapshotFault::Malformed("the manifest of another snapshot") })
            }
            Err(error) => Err(error),
        }
        .map_err(|error| SnapshotFilesError::Damaged { path, error })
    }

    /// Reads a part from its beginning.
    pub async fn read_part(&self, start: Zxid, index: u32) -> Result<FileReader, StorageError> {
        self.storage.read_from(&self.path(SnapshotFile::Part(start, index)), 0).await
    }

    /// Begins a part. A file that a failed attempt left is overwritten.
    pub async fn begin_part(&self, start: Zxid, index: u32) -> Result<PartFile, StorageError> {
        let appender = self.storage.append_to_new(&self.path(SnapshotFile::Part(start, index))).await?;
        Ok(PartFile { appender, writer: PartWriter::new(start, index) })
    }

    /// Makes the snapshot exist. All its parts are finished, and the log is durable to its end (rule C3).
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), StorageError> {
        let temporary = self.directory.join(format!("{}{TEMPORARY}", SnapshotFile::Manifest(manifest.start)));
        let mut file = self.storage.append_to_new(&temporary).await?;
        file.append(&manifest.encode()).await?;
        file.finish().await?;
        // The names of the parts must not be younger than the name of what speaks of them.
        self.storage.sync_directory(&self.directory).await?;
        self.storage.rename(&temporary, &self.path(SnapshotFile::Manifest(manifest.start))).await?;
        self.storage.sync_directory(&self.directory).await
    }

    /// Removes a snapshot, or what a failed attempt left of it: the manifest first, so that a crash leaves no half snapshot.
    pub async fn remove(&self, start: Zxid) -> Result<(), StorageError> {
        let mut names = Vec::new();
        for entry in self.storage.list(&self.directory).await? {
            match SnapshotFile::parse(&entry.name) {
                Some(SnapshotFile::Manifest(other)) if other == start => {
                    self.storage.remove(&self.directory.join(entry.name)).await?;
                    self.storage.sync_directory(&self.directory).await?;
                }
                Some(SnapshotFile::Part(other, _)) if other == start => names.push(entry.name),
                None if temporary_start(&entry.name) == Some(start) => names.push(entry.name),
                _ => {}
            }
        }
        self.remove_all(&names).await
    }

    /// Removes the parts of snapshots that never came to exist. Not while one is being written. Gives the number of files.
    pub async fn remove_leftovers(&self) -> Result<usize, StorageError> {
        let entries = self.storage.list(&self.directory).await?;
        let files = entries.iter().filter_map(|entry| SnapshotFile::parse(&entry.name));
        let known: BTreeSet<Zxid> = files.filter_map(manifest_start).collect();
        let is_leftover = |name: &String| match SnapshotFile::parse(name) {
            Some(SnapshotFile::Part(start, _)) => !known.contains(&start),
            Some(SnapshotFile::Manifest(_)) => false,
            None => temporary_start(name).is_some(),
        };
        let names: Vec<String> = entries.into_iter().map(|entry| entry.name).filter(is_leftover).collect();
        self.remove_all(&names).await?;
        Ok(names.len())
    }

    async fn remove_all(&self, names: &[String]) -> Result<(), StorageError> {
        for name in names {
            self.storage.remove(&self.directory.join(name)).await?;
        }
        if names.is_empty() { Ok(()) } else { self.storage.sync_directory(&self.directory).await }
    }

    /// Keeps the newest `retain` snapshots that can be loaded, and removes everything older. A snapshot that cannot be read,
    /// or is among `broken`, is not counted: it stays if it is newer than the oldest snapshot kept, and goes otherwise.
    /// Gives the start of the oldest snapshot kept: the log is needed from there. `None` while there are fewer than
    /// `retain`: then the whole log is kept, too.
    pub async fn purge(&self, retain: usize, broken: &BTreeSet<Zxid>) -> Result<Option<Zxid>, StorageError> {
        let mut kept = Vec::new();
        for start in self.starts().await? {
            if kept.len() >= retain {
                self.remove(start).await?;
            } else if !broken.contains(&start) && self.manifest(start).await.is_ok() {
                kept.push(start);
            }
        }
        Ok(kept.last().copied().filter(|_| kept.len() >= retain))
    }

    /// Removes every snapshot that may hold something above `zxid`: the log was cut there. A snapshot that cannot be read
    /// may.
    pub async fn remove_beyond(&self, zxid: Zxid) -> Result<(), StorageError> {
        for start in self.starts().await? {
            if !self.manifest(start).await.is_ok_and(|manifest| manifest.end <= zxid) {
                self.remove(start).await?;
            }
        }
        Ok(())
    }
}

const TEMPORARY: &str = ".tmp";

fn manifest_start(file: SnapshotFile) -> Option<Zxid> {
    match file {
        SnapshotFile::Manifest(start) => Some(start),
        SnapshotFile::Part(..) => None,
    }
}

/// The snapshot whose manifest was being written under this name.
fn temporary_start(name: &str) -> Option<Zxid> {
    SnapshotFile::parse(name.strip_suffix(TEMPORARY)?).and_then(manifest_start)
}

/// A part being written.
pub struct PartFile {
    appender: FileAppender,
    writer: PartWriter,
}

impl PartFile {
    /// Takes the records. Call [`PartFile::write_filled`] between them.
    pub fn writer(&mut self) -> &mut PartWriter {
        &mut self.writer
    }

    /// Writes what the writer has filled; waits while enough is on its way to the disk.
    pub async fn write_filled(&mut self) -> Result<(), StorageError> {
        while let Some(bytes) = self.writer.take_filled() {
            self.appender.append(&bytes).await?;
            self.writer.give_back(bytes);
        }
        Ok(())
    }

    /// Ends the part, whose scan was finished at `finished_at`, and syncs the file.
    pub async fn finish(mut self, finished_at: Zxid) -> Result<PartSummary, StorageError> {
        let (rest, summary) = self.writer.finish(finished_at);
        for bytes in &rest {
            self.appender.append(bytes).await?;
        }
        self.appender.finish().await?;
        Ok(summary)
    }
}
