//! The direct-IO backend: io_uring and `O_DIRECT` through the shard's executor.
//!
//! No operation is abandoned: each runs in a task of its own to its end, also when nobody waits for it any more. The kernel may be
//! reading from or writing to its memory until then.

use super::SyncMode;
use super::buffer::{AlignedBuf, BLOCK_BYTES};
use super::error::{Context, Result};
use crate::runtime::tasks::start_to_finish;
use crate::runtime::yield_if_needed;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};
use glommio::{allocate_dma_buffer, allocate_dma_buffer_global};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

/// Bytes of one streaming read or write. Larger single requests were seen to hang on some disks.
pub(super) const STREAM_BYTES: usize = 512 << 10;
/// Streaming requests in flight.
const STREAM_DEPTH: usize = 4;
/// Streaming writes in flight: enough to keep the disk busy, few enough not to keep log flushes waiting behind them.
pub(super) const APPEND_DEPTH: usize = 2;

const _: () = assert!(STREAM_BYTES.is_multiple_of(BLOCK_BYTES));

/// A result that is still on its way.
type InFlight<T> = Pin<Box<dyn Future<Output = T>>>;
/// What the executor library gives for a read.
type ReadOutcome = std::result::Result<ReadResult, glommio::GlommioError<()>>;

/// A file of the log, open for writing only.
///
/// Write-only because a disk with poll queues is otherwise polled, burning up to 400 µs of CPU for a 4 KiB write.
pub(super) struct File {
    file: Rc<DmaFile>,
    path: PathBuf,
}

impl File {
    pub(super) async fn open(path: &Path, sync: SyncMode) -> Result<File> {
        let flags = match sync {
            SyncMode::OnRequest => OFlags::empty(),
            SyncMode::EveryWrite => OFlags::DSYNC,
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).custom_flags(flags.bits() as i32).dma_open(path).await.context("open", path)?;
        File::checked(file, path)
    }

    pub(super) async fn create(path: &Path, bytes: u64, zero_fill: bool) -> Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).dma_open(path).await.context("create", path)?;
        let prepared = match File::checked(file, path) {
            Ok(file) => file.prepare(bytes, zero_fill).await.map(|()| file),
            Err(error) => Err(error),
        };
        if prepared.is_err() {
            // Half a file is of no use and may hold the last free space. If it cannot be removed, the first error says more.
            if let Err(error) = glommio::io::remove(path).await {
                tracing::warn!("cannot remove {} after its creation failed: {error}", path.display());
            }
        }
        prepared
    }

    async fn prepare(&self, bytes: u64, zero_fill: bool) -> Result<()> {
        self.reserve(bytes, zero_fill).await?;
        if zero_fill {
            self.fill_with_zeros(bytes).await?;
        }
        self.sync().await
    }

    fn checked(file: DmaFile, path: &Path) -> Result<File> {
        if file.alignment() > BLOCK_BYTES as u64 {
            let text = format!("the disk's logical block of {} bytes is larger than {BLOCK_BYTES}", file.alignment());
            return Err(io::Error::new(io::ErrorKind::Unsupported, text)).context("use", path);
        }
        Ok(File { file: Rc::new(file), path: path.to_owned() })
    }

    /// Takes the space now, so that a full disk is noticed here and not in the middle of the log.
    async fn reserve(&self, bytes: u64, zero_fill: bool) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match self.file.pre_allocate(bytes, false).await.context("allocate space for", &self.path) {
            Err(error) if error.source.kind() == io::ErrorKind::Unsupported => {
                // Not every file system can reserve. Zeros take the space too; without them at least the length is right.
                if zero_fill { Ok(()) } else { self.file.truncate(bytes).await.context("extend", &self.path) }
            }
            other => other,
        }
    }

    /// Overwriting blocks that were written before needs no journal commit at the next sync; merely reserved ones do.
    async fn fill_with_zeros(&self, bytes: u64) -> Result<()> {
        let zeros = |bytes: u64| {
            let mut zeros =
                allocate_dma_buffer_global((bytes.min(STREAM_BYTES as u64) as usize).next_multiple_of(BLOCK_BYTES));
            zeros.as_bytes_mut().fill(0);
            Rc::new(zeros)
        };
        let mut whole = zeros(bytes.max(1));
        let mut offset = 0;
        while offset < bytes {
            if bytes - offset < whole.len() as u64 {
                whole = zeros(bytes - offset);
            }
            write_whole(&self.file, &self.path, whole.clone(), offset).await?;
            offset += whole.len() as u64;
            yield_if_needed().await;
        }
        Ok(())
    }

    pub(super) async fn write_at(&self, buffer: AlignedBuf, offset: u64) -> Result<AlignedBuf> {
        let Some((memory, capacity_hint)) = buffer.lend() else {
            return Ok(AlignedBuf::new()); // never allocated: nothing to write
        };
        write_whole(&self.file, &self.path, memory.clone(), offset).await?;
        Ok(AlignedBuf::from_lent(memory, capacity_hint))
    }

    pub(super) async fn sync(&self) -> Result<()> {
        let file = self.file.clone();
        start_to_finish(async move { file.fdatasync().await }).await.context("sync", &self.path)
    }

    pub(super) async fn close(self) -> Result<()> {
        // With an operation of a dropped future still in flight the file closes when that ends.
        self.file.close_rc().await.map(drop).context("close", &self.path)
    }
}

/// Writes all of `memory`. The kernel may take less, above all when the disk is nearly full; the rest then tells why.
fn write_whole(
    file: &Rc<DmaFile>,
    path: &Path,
    memory: Rc<DmaBuffer>,
    offset: u64,
) -> impl Future<Output = Result<()>> + use<> {
    let (file, path) = (file.clone(), path.to_owned());
    start_to_finish(async move {
        let mut written = file.write_rc_at(memory.clone(), offset).await.context("write", &path)?;
        while written < memory.len() {
            if written == 0 || !written.is_multiple_of(BLOCK_BYTES) {
                return Err(io::Error::from(io::ErrorKind::WriteZero)).context("write", &path);
            }
            let mut rest = allocate_dma_buffer_global(memory.len() - written);
            rest.as_bytes_mut().copy_from_slice(&memory.as_bytes()[written..]);
            let more = file.write_at(rest, offset + written as u64).await.context("write", &path)?;
            if more == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero)).context("write", &path);
            }
            written += more;
        }
        Ok(())
    })
}

/// Reads a part of a file, or from an offset to its end, several requests ahead.
pub(super) struct Reader {
    file: Rc<DmaFile>,
    path: PathBuf,
    /// Length of the file when it was opened, or less: the end of what is read.
    end: u64,
    /// Offset of the next request; a multiple of [`BLOCK_BYTES`].
    next: u64,
    /// Bytes of the first chunk that lie before the wanted offset.
    skip: usize,
    in_flight: VecDeque<(u64, InFlight<ReadOutcome>)>,
}

impl Reader {
    pub(super) async fn open(path: &Path, offset: u64) -> Result<Reader> {
        let file = OpenOptions::new().read(true).dma_open(path).await.context("open", path)?;
        let end = file.file_size().await.context("read the size of", path)?;
        let next = offset - offset % BLOCK_BYTES as u64;
        let skip = (offset - next) as usize;
        // An offset behind the end reads nothing.
        let next = if offset >= end { end.next_multiple_of(BLOCK_BYTES as u64) } else { next };
        Ok(Reader { file: Rc::new(file), path: path.to_owned(), end, next, skip, in_flight: VecDeque::new() })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.end
    }

    /// Reads no further than to `end`.
    pub(super) fn until(mut self, end: u64) -> Reader {
        self.end = self.end.min(end);
        self
    }

    pub(super) async fn next(&mut self) -> Result<Option<ReadResult>> {
        while self.in_flight.len() < STREAM_DEPTH && self.next < self.end {
            let (file, offset) = (self.file.clone(), self.next);
            // What is not wanted is not read: it may be nearly all of many large files.
            let bytes = (self.end - offset).next_multiple_of(BLOCK_BYTES as u64).min(STREAM_BYTES as u64) as usize;
            let request = start_to_finish(async move { file.read_at_aligned(offset, bytes).await });
            self.in_flight.push_back((offset, Box::pin(request)));
            self.next += bytes as u64;
        }
        let Some((offset, request)) = self.in_flight.pop_front() else { return Ok(None) };
        let chunk = request.await.context("read", &self.path)?;
        let expected = (self.end - offset).min(STREAM_BYTES as u64) as usize;
        if chunk.len() < expected {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("read", &self.path);
        }
        let skip = std::mem::take(&mut self.skip);
        // A file that has grown since it was opened may give more; it is not part of this reading.
        Ok(Some(ReadResult::slice(&chunk, skip, expected - skip).expect("the part lies within the chunk")))
    }
}

/// Writes a new file from front to back, several requests in flight.
pub(super) struct Appender {
    file: Rc<DmaFile>,
    path: PathBuf,
    /// The piece being filled.
    piece: DmaBuffer,
    filled: usize,
    /// Offset of the piece being filled.
    offset: u64,
    in_flight: VecDeque<InFlight<Result<()>>>,
    failed: bool,
}

impl Appender {
    pub(super) async fn create(path: &Path) -> Result<Appender> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).dma_open(path).await.context("create", path)?;
        Ok(Appender {
            file: Rc::new(file),
            path: path.to_owned(),
            piece: allocate_dma_buffer(STREAM_BYTES),
            filled: 0,
            offset: 0,
            in_flight: VecDeque::new(),
            failed: false,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.offset + self.filled as u64
    }

    pub(super) async fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(STREAM_BYTES - self.filled);
            self.piece.as_bytes_mut()[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == STREAM_BYTES {
                self.start_write();
                self.wait_until_in_flight(APPEND_DEPTH - 1).await?;
            }
        }
        Ok(())
    }

    fn start_write(&mut self) {
        let mut piece = std::mem::replace(&mut self.piece, allocate_dma_buffer(STREAM_BYTES));
        let padded = self.filled.next_multiple_of(BLOCK_BYTES);
        piece.as_bytes_mut()[self.filled..padded].fill(0);
        piece.trim_to_size(padded);
        let request = write_whole(&self.file, &self.path, Rc::new(piece), self.offset);
        self.in_flight.push_back(Box::pin(request));
        self.offset += self.filled as u64;
        self.filled = 0;
    }

    async fn wait_until_in_flight(&mut self, at_most: usize) -> Result<()> {
        while self.in_flight.len() > at_most {
            let oldest = self.in_flight.pop_front().expect("more than none are in flight");
            if let Err(error) = oldest.await {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<u64> {
        if self.filled > 0 {
            self.start_write();
        }
        self.wait_until_in_flight(0).await?;
        if self.failed {
            return Err(io::Error::other("an earlier part could not be written")).context("finish", &self.path);
        }
        if !self.offset.is_multiple_of(BLOCK_BYTES as u64) {
            self.file.truncate(self.offset).await.context("cut the padding of", &self.path)?;
        }
        let file = self.file.clone();
        start_to_finish(async move { file.fdatasync().await }).await.context("sync", &self.path)?;
        self.file.close_rc().await.context("close", &self.path)?;
        Ok(self.offset)
    }
}
