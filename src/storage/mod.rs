//! Files below the transaction log, the snapshots and the broker's logs: the seam to the disk. Beside [`crate::runtime`] the
//! only code that names glommio; no type of it appears in a signature.
//!
//! Contract:
//! - everything runs on one shard's executor; a handle stays on the shard that opened it;
//! - a write that has returned is durable if its file was opened with [`SyncMode::EveryWrite`]. Otherwise it is **not**, until a
//!   [`LogFile::sync`] that began afterwards has returned;
//! - writes in flight together complete in any order: whoever needs an order awaits one before starting the next;
//! - after a failed sync, or a failed write that syncs, nothing is known about the file's unsynced bytes; the caller must stop
//!   using it;
//! - a new or renamed file survives a crash once [`Storage::sync_directory`] has returned for its directory;
//! - do not drop the future of a write or sync: its outcome would be unknown.
//!
//! Log files are opened write-only and, like everything else, in units of [`BLOCK_BYTES`]. Three backends stand behind
//! [`Storage`]: direct IO; [`Lossy`], which forgets what was not synced when the process is killed; and [`SimulatedDisk`], the disk
//! of a host of a simulated world.

mod buffer;
mod directories;
mod dma;
mod error;
mod lossy;
mod simulated;
#[cfg(test)]
mod tests;

pub use buffer::{AlignedBuf, BLOCK_BYTES};
pub use directories::DirectoryLock;
pub use error::{Result, StorageError};
pub use lossy::Lossy;
pub use simulated::{Extent, SimulatedDisk};
#[cfg(test)]
pub(crate) use tests::test_directory;

use glommio::io::ReadResult;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;

/// Where bytes go. Chosen once at start and cloned to every shard.
#[derive(Clone, Debug)]
pub enum Backend {
    /// `O_DIRECT` through io_uring: every real server.
    Direct,
    /// Loses unsynced writes when the process dies: crash tests.
    Lossy(Lossy),
    /// The disk of a simulated host: simulations.
    Simulated(SimulatedDisk),
}

impl FromStr for Backend {
    type Err = io::Error;

    /// `direct`, `lossy` or `lossy:SEED`.
    fn from_str(text: &str) -> io::Result<Backend> {
        if text == "direct" { Ok(Backend::Direct) } else { lossy::parse(text).map(Backend::Lossy) }
    }
}

/// What makes the writes to a log file durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncMode {
    /// [`LogFile::sync`].
    OnRequest,
    /// Each write makes itself durable, and nothing but itself, before it returns (`O_DSYNC`).
    ///
    /// One operation where a write and a sync are two. The kernel also syncs it without one of its worker threads, which cost
    /// a log of small flushes more than the flush; and a disk that takes "forced" writes need not empty its whole cache.
    EveryWrite,
}

/// The disk as one shard sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage {
    backend: Backend,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// Name within the directory. Names that are not UTF-8 are none of ours and are left out.
    pub name: String,
    /// Is it a directory?
    pub is_directory: bool,
    /// Length of a file in bytes, without writes that are only in memory.
    pub bytes: u64,
}

impl Storage {
    /// A view of `backend`.
    pub fn new(backend: Backend) -> Storage {
        Storage { backend }
    }

    /// Opens an existing file for writing.
    pub async fn open_log_file(&self, path: &Path, sync: SyncMode) -> Result<LogFile> {
        Ok(LogFile(match &self.backend {
            Backend::Direct => LogFileKind::Direct(dma::File::open(path, sync).await?),
            Backend::Lossy(disk) => LogFileKind::Lossy(disk.open(path, sync)?),
            Backend::Simulated(disk) => LogFileKind::Simulated(simulated::File::open(disk, path, sync).await?),
        }))
    }

    /// Creates a file of `bytes` bytes and syncs it (not its directory). Fails if the path exists. Its writes are synced on
    /// request.
    ///
    /// With `zero_fill` the zeros are really written, in pieces between which other tasks run, so that later syncs of
    /// overwrites need no journal commit. Without, the space is only reserved.
    pub async fn create(&self, path: &Path, bytes: u64, zero_fill: bool) -> Result<LogFile> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "{bytes} bytes are no whole number of blocks");
        Ok(LogFile(match &self.backend {
            Backend::Direct => LogFileKind::Direct(dma::File::create(path, bytes, zero_fill).await?),
            Backend::Lossy(disk) => LogFileKind::Lossy(disk.create(path, bytes)?),
            Backend::Simulated(disk) => LogFileKind::Simulated(simulated::File::create(disk, path, bytes).await?),
        }))
    }

    /// Renames a file within its directory, replacing what has the new name. Durable after [`Storage::sync_directory`].
    pub async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        match &self.backend {
            Backend::Direct | Backend::Lossy(_) => directories::rename(from, to).await,
            Backend::Simulated(disk) => disk.rename(from, to).await,
        }
    }

    /// Removes a file. Durable after [`Storage::sync_directory`].
    pub async fn remove(&self, path: &Path) -> Result<()> {
        match &self.backend {
            Backend::Direct | Backend::Lossy(_) => directories::remove(path).await,
            Backend::Simulated(disk) => disk.remove(path).await,
        }
    }

    /// Makes created, renamed and removed names in `directory` durable.
    pub async fn sync_directory(&self, directory: &Path) -> Result<()> {
        match &self.backend {
            Backend::Direct | Backend::Lossy(_) => directories::sync(directory).await,
            Backend::Simulated(disk) => disk.sync_directory(directory).await,
        }
    }

    /// What is in a directory, sorted by name.
    pub async fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        match &self.backend {
            Backend::Direct | Backend::Lossy(_) => directories::list(directory).await,
            Backend::Simulated(disk) => disk.list(directory).await,
        }
    }

    /// Length of a file in bytes.
    pub async fn file_bytes(&self, path: &Path) -> Result<u64> {
        match &self.backend {
            Backend::Direct => Ok(dma::Reader::open(path, 0).await?.file_bytes()),
            Backend::Lossy(disk) => disk.file_bytes(path),
            Backend::Simulated(disk) => disk.file_bytes(path).await,
        }
    }

    /// The whole file. For large files use [`Storage::read_from`].
    pub async fn read_all(&self, path: &Path) -> Result<Vec<u8>> {
        let mut reader = self.read_from(path, 0).await?;
        let mut contents = Vec::with_capacity(reader.file_bytes() as usize);
        while let Some(chunk) = reader.next().await? {
            contents.extend_from_slice(&chunk);
        }
        Ok(contents)
    }

    /// The first `bytes` of a file, or all of a shorter one.
    pub async fn read_first(&self, path: &Path, bytes: usize) -> Result<Vec<u8>> {
        let reader = match &self.backend {
            Backend::Direct => ReaderKind::Direct(dma::Reader::open(path, 0).await?.until(bytes as u64)),
            Backend::Lossy(disk) => ReaderKind::Lossy(lossy::Reader::open(disk, path, 0)?.until(bytes)),
            Backend::Simulated(disk) => {
                ReaderKind::Simulated(simulated::Reader::open(disk, path, 0).await?.until(bytes as u64))
            }
        };
        let (mut reader, mut first) = (FileReader(reader), Vec::new());
        while let Some(chunk) = reader.next().await? {
            first.extend_from_slice(&chunk);
        }
        Ok(first)
    }

    /// Reads a file from `offset` to its present end, with several requests ahead of the caller.
    pub async fn read_from(&self, path: &Path, offset: u64) -> Result<FileReader> {
        Ok(FileReader(match &self.backend {
            Backend::Direct => ReaderKind::Direct(dma::Reader::open(path, offset).await?),
            Backend::Lossy(disk) => ReaderKind::Lossy(lossy::Reader::open(disk, path, offset)?),
            Backend::Simulated(disk) => ReaderKind::Simulated(simulated::Reader::open(disk, path, offset).await?),
        }))
    }

    /// Begins a file that is written from front to back, for snapshots. An existing one is emptied.
    pub async fn append_to_new(&self, path: &Path) -> Result<FileAppender> {
        Ok(FileAppender(match &self.backend {
            Backend::Direct => AppenderKind::Direct(dma::Appender::create(path).await?),
            Backend::Lossy(disk) => AppenderKind::Lossy(lossy::Appender::create(disk, path)?),
            Backend::Simulated(disk) => AppenderKind::Simulated(simulated::Appender::create(disk, path).await?),
        }))
    }

    /// Reads and writes of this shard that went through the executor's polling ring, which burns a core while it waits.
    ///
    /// 0 unless the disk has poll queues (`queue/io_poll`, see preflight).
    pub fn polled_operations(&self) -> u64 {
        if matches!(self.backend, Backend::Simulated(_)) {
            return 0;
        }
        let polled = glommio::executor().io_stats().poll_ring;
        polled.file_reads().0 + polled.file_writes().0
    }
}

/// A file open for writing. Several writes may be in flight; close it to learn of late errors.
pub struct LogFile(LogFileKind);

enum LogFileKind {
    Direct(dma::File),
    Lossy(lossy::File),
    Simulated(simulated::File),
}

impl LogFile {
    /// Writes the whole buffer at `offset` and gives it back. Length and offset are multiples of [`BLOCK_BYTES`].
    ///
    /// On an error any part of it may be in the file. Durable on return only with [`SyncMode::EveryWrite`].
    pub async fn write_at(&self, buffer: AlignedBuf, offset: u64) -> Result<AlignedBuf> {
        assert!(buffer.len().is_multiple_of(BLOCK_BYTES), "a write of {} bytes is not padded", buffer.len());
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "offset {offset} is not at a block");
        match &self.0 {
            LogFileKind::Direct(file) => file.write_at(buffer, offset).await,
            LogFileKind::Lossy(file) => file.write_at(buffer, offset).await,
            LogFileKind::Simulated(file) => file.write_at(buffer, offset).await,
        }
    }

    /// Makes all writes durable that had returned when this was called (fdatasync).
    pub async fn sync(&self) -> Result<()> {
        match &self.0 {
            LogFileKind::Direct(file) => file.sync().await,
            LogFileKind::Lossy(file) => file.sync().await,
            LogFileKind::Simulated(file) => file.sync().await,
        }
    }

    /// Closes the file. Syncs nothing.
    pub async fn close(self) -> Result<()> {
        match self.0 {
            LogFileKind::Direct(file) => file.close().await,
            LogFileKind::Lossy(_) | LogFileKind::Simulated(_) => Ok(()),
        }
    }
}

/// Reads a file from front to back.
pub struct FileReader(ReaderKind);

enum ReaderKind {
    Direct(dma::Reader),
    Lossy(lossy::Reader),
    Simulated(simulated::Reader),
}

impl FileReader {
    /// Length of the file when it was opened.
    pub fn file_bytes(&self) -> u64 {
        match &self.0 {
            ReaderKind::Direct(reader) => reader.file_bytes(),
            ReaderKind::Lossy(reader) => reader.file_bytes(),
            ReaderKind::Simulated(reader) => reader.file_bytes(),
        }
    }

    /// The next piece, at most 512 KiB; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        Ok(match &mut self.0 {
            ReaderKind::Direct(reader) => reader.next().await?.map(|chunk| Chunk(ChunkKind::Direct(chunk))),
            ReaderKind::Lossy(reader) => reader.next().map(|chunk| Chunk(ChunkKind::Copied(chunk))),
            ReaderKind::Simulated(reader) => reader.next().await?.map(|chunk| Chunk(ChunkKind::Copied(chunk))),
        })
    }
}

/// A piece of a file; of a real disk, in the memory the disk wrote it to.
pub struct Chunk(ChunkKind);

enum ChunkKind {
    Direct(ReadResult),
    Copied(Vec<u8>),
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            ChunkKind::Direct(chunk) => chunk,
            ChunkKind::Copied(chunk) => chunk,
        }
    }
}

/// Writes a file from front to back. Nothing of it counts before [`FileAppender::finish`] has returned.
pub struct FileAppender(AppenderKind);

enum AppenderKind {
    Direct(dma::Appender),
    Lossy(lossy::Appender),
    Simulated(simulated::Appender),
}

impl FileAppender {
    /// Bytes appended so far.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            AppenderKind::Direct(appender) => appender.bytes(),
            AppenderKind::Lossy(appender) => appender.bytes(),
            AppenderKind::Simulated(appender) => appender.bytes(),
        }
    }

    /// Adds bytes; waits only while several writes of 512 KiB are in flight. After an error the file must be given up.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.0 {
            AppenderKind::Direct(appender) => appender.append(bytes).await,
            AppenderKind::Lossy(appender) => appender.append(bytes).await,
            AppenderKind::Simulated(appender) => appender.append(bytes).await,
        }
    }

    /// Writes the rest and syncs the file (not its directory). Gives its length.
    pub async fn finish(self) -> Result<u64> {
        match self.0 {
            AppenderKind::Direct(appender) => appender.finish().await,
            AppenderKind::Lossy(appender) => appender.finish().await,
            AppenderKind::Simulated(appender) => appender.finish().await,
        }
    }
}
