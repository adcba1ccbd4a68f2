//! A file layer that forgets unsynced writes when the process dies, for crash tests of the real server.
//!
//! `kill -9` cannot show a missing sync: the kernel keeps the page cache. Here a write stays in this process's memory until a
//! sync of its file; so a killed process loses everything that it had not synced. With a seed, some unsynced writes also
//! reach the file at once, whole or as a random subset of their 512-byte sectors, as a disk that loses power may have
//! written any part of what was not flushed. Reads see the unsynced writes, like a page cache.
//!
//! Modelled: contents and length of files. Not modelled: directory entries (create, rename and remove take effect at once),
//! sizes (create and truncate too), and the loss of synced data. System calls block the shard: this backend is for tests.

use super::SyncMode;
use super::buffer::AlignedBuf;
use super::dma::STREAM_BYTES;
use super::error::{Context, Result};
use futures_lite::future::yield_now;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes in one piece at least.
const SECTOR_BYTES: usize = 512;

/// The unsynced writes of one process, shared by all its shards. Clones are the same.
#[derive(Clone, Debug)]
pub struct Lossy {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Decides what reaches the file before its sync; `None`: nothing does.
    random: Option<StdRng>,
    /// By device and inode, so that renaming a file keeps its writes.
    unsynced: HashMap<FileId, VecDeque<Write>>,
    /// Number of the next write, over all files.
    next_write: u64,
}

type FileId = (u64, u64);

#[derive(Debug)]
struct Write {
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl Lossy {
    /// Nothing reaches a file before its sync; with a seed, chosen writes and sectors do.
    pub fn new(seed: Option<u64>) -> Lossy {
        let random = seed.map(StdRng::seed_from_u64);
        Lossy { state: Arc::new(Mutex::new(State { random, unsynced: HashMap::new(), next_write: 0 })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change below is a single step, so the state is good even after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, path: &Path, sync: SyncMode) -> Result<File> {
        let file = OpenOptions::new().write(true).open(path).context("open", path)?;
        Ok(File { sync, ..self.handle(file, path)? })
    }

    pub(super) fn create(&self, path: &Path, bytes: u64) -> Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).context("create", path)?;
        if let Err(error) = file.set_len(bytes) {
            fs::remove_file(path).context("remove", path)?;
            return Err(error).context("allocate space for", path);
        }
        self.fresh(file, path)
    }

    pub(super) fn create_empty(&self, path: &Path) -> Result<File> {
        let file = fs::File::create(path).context("create", path)?;
        self.fresh(file, path)
    }

    /// A new or emptied file has no unsynced writes, even if its inode belonged to a file that had some.
    fn fresh(&self, file: fs::File, path: &Path) -> Result<File> {
        let file = self.handle(file, path)?;
        self.lock().unsynced.remove(&file.id);
        Ok(file)
    }

    fn handle(&self, file: fs::File, path: &Path) -> Result<File> {
        let metadata = file.metadata().context("read the size of", path)?;
        let id = (metadata.dev(), metadata.ino());
        Ok(File { id, file, path: path.to_owned(), disk: self.clone(), sync: SyncMode::OnRequest })
    }

    /// The file as this process sees it.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut contents = fs::read(path).context("read", path)?;
        let metadata = fs::metadata(path).context("read the size of", path)?;
        for write in self.lock().unsynced.get(&(metadata.dev(), metadata.ino())).into_iter().flatten() {
            let (start, end) = (write.offset as usize, write.offset as usize + write.bytes.len());
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[start..end].copy_from_slice(&write.bytes);
        }
        Ok(contents)
    }

    pub(super) fn file_bytes(&self, path: &Path) -> Result<u64> {
        let metadata = fs::metadata(path).context("read the size of", path)?;
        let state = self.lock();
        let unsynced = state.unsynced.get(&(metadata.dev(), metadata.ino())).into_iter().flatten();
        Ok(unsynced.map(|write| write.offset + write.bytes.len() as u64).fold(metadata.len(), u64::max))
    }
}

impl State {
    /// Gives the number of the write.
    fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> Result<u64> {
        if let Some(random) = &mut self.random {
            match random.random_range(0..4) {
                0 => file.store(bytes, offset)?,
                1 => {
                    for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if random.random() {
                            file.store(sector, offset + (index * SECTOR_BYTES) as u64)?;
                        }
                    }
                }
                _ => {}
            }
        }
        let number = self.next_write;
        self.next_write += 1;
        self.unsynced.entry(file.id).or_default().push_back(Write { number, offset, bytes: bytes.to_vec() });
        Ok(number)
    }

    /// Stores one write of `file` and leaves earlier ones as they are: a forced write empties no cache.
    fn store_one(&mut self, file: &File, number: u64) -> Result<()> {
        let Some(writes) = self.unsynced.get_mut(&file.id) else { return Ok(()) };
        if let Some(at) = writes.iter().position(|write| write.number == number) {
            file.store(&writes[at].bytes, writes[at].offset)?;
            writes.remove(at);
        }
        Ok(())
    }

    /// Stores the writes of `file` with a number below `end`, in order. What could not be stored stays unsynced.
    fn store(&mut self, file: &File, end: u64) -> Result<()> {
        let Some(writes) = self.unsynced.get_mut(&file.id) else { return Ok(()) };
        while writes.front().is_some_and(|write| write.number < end) {
            file.store(&writes[0].bytes, writes[0].offset)?;
            writes.pop_front();
        }
        Ok(())
    }
}

pub(super) struct File {
    id: FileId,
    file: fs::File,
    path: PathBuf,
    disk: Lossy,
    sync: SyncMode,
}

impl File {
    fn store(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).context("write", &self.path)
    }

    pub(super) async fn write_at(&self, buffer: AlignedBuf, offset: u64) -> Result<AlignedBuf> {
        let number = self.disk.lock().write(self, buffer.as_slice(), offset)?;
        yield_now().await;
        if self.sync == SyncMode::EveryWrite {
            self.disk.lock().store_one(self, number)?;
            self.file.sync_data().context("sync", &self.path)?;
        }
        Ok(buffer)
    }

    /// Covers the writes that had completed when it was called, as fdatasync(2) does, and no later ones.
    pub(super) async fn sync(&self) -> Result<()> {
        let end = self.disk.lock().next_write;
        yield_now().await;
        self.disk.lock().store(self, end)?;
        self.file.sync_data().context("sync", &self.path)
    }
}

/// Hands out the file as it was when opened, piece by piece.
pub(super) struct Reader {
    contents: Vec<u8>,
    next: usize,
}

impl Reader {
    pub(super) fn open(disk: &Lossy, path: &Path, offset: u64) -> Result<Reader> {
        let contents = disk.read(path)?;
        let next = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        Ok(Reader { contents, next })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Reads no further than to `end`.
    pub(super) fn until(mut self, end: usize) -> Reader {
        self.contents.truncate(end);
        self
    }

    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.contents.len().min(self.next + STREAM_BYTES);
        let piece = self.contents[self.next..end].to_vec();
        self.next = end;
        (!piece.is_empty()).then_some(piece)
    }
}

pub(super) struct Appender {
    file: File,
    offset: u64,
}

impl Appender {
    pub(super) fn create(disk: &Lossy, path: &Path) -> Result<Appender> {
        Ok(Appender { file: disk.create_empty(path)?, offset: 0 })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.disk.lock().write(&self.file, bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        yield_now().await;
        Ok(())
    }

    pub(super) async fn finish(self) -> Result<u64> {
        self.file.sync().await?;
        Ok(self.offset)
    }
}

/// The wish of a command line: `lossy` or `lossy:SEED`.
pub(super) fn parse(text: &str) -> io::Result<Lossy> {
    match text.strip_prefix("lossy") {
        Some("") => Ok(Lossy::new(None)),
        Some(rest) => {
            let seed = rest.strip_prefix(':').and_then(|seed| seed.parse().ok());
            seed.map(|seed| Lossy::new(Some(seed)))
        }
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is not lossy:NUMBER"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is neither direct nor lossy"))),
    }
}
