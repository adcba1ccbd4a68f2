//! What the types of [`crate::storage`] do on a simulated disk: operations of the kernel, as [`super::super::dma`] makes them.

use super::contents::Write;
use super::names::{Inode, Node};
use super::{Operation, SimulatedDisk, Work};
use crate::storage::buffer::{AlignedBuf, BLOCK_BYTES};
use crate::storage::dma::{APPEND_DEPTH, STREAM_BYTES};
use crate::storage::error::{Context, Result};
use crate::storage::{DirectoryEntry, SyncMode};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// Names.
impl SimulatedDisk {
    pub(in crate::storage) async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (from.to_owned(), to.to_owned());
        let renamed = self.start_now(|operation| async move {
            operation.takes(Work::Name).await;
            operation.state()?.names.rename(&old, &new)?;
            operation.takes(Work::Name).await;
            Ok(())
        });
        renamed.await.context("rename", from)
    }

    pub(in crate::storage) async fn remove(&self, path: &Path) -> Result<()> {
        let owned = path.to_owned();
        let removed = self.start_now(|operation| async move {
            operation.takes(Work::Name).await;
            operation.state()?.names.remove(&owned)?;
            operation.takes(Work::Name).await;
            Ok(())
        });
        removed.await.context("remove", path)
    }

    pub(in crate::storage) async fn sync_directory(&self, directory: &Path) -> Result<()> {
        let point = self.lock().names.sync_point(directory).context("open", directory)?;
        let owned = directory.to_owned();
        let synced = self.start_now(|operation| async move {
            operation.takes(Work::Sync).await;
            let mut state = operation.state()?;
            state.sync_outcome()?;
            state.names.synced(&owned, point);
            Ok(())
        });
        synced.await.context("sync", directory)
    }

    pub(in crate::storage) async fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        let owned = directory.to_owned();
        let listed = self.start_now(|operation| async move {
            operation.takes(Work::Name).await;
            let state = operation.state()?;
            let mut listed: Vec<DirectoryEntry> =
                state.names.entries_of(&owned)?.into_iter().filter_map(|(path, node)| entry(path, node)).collect();
            listed.sort();
            Ok(listed)
        });
        listed.await.context("list", directory)
    }

    pub(in crate::storage) async fn file_bytes(&self, path: &Path) -> Result<u64> {
        Ok(Reader::open(self, path, 0).await?.file_bytes())
    }

    async fn open_inode(&self, path: &Path) -> Result<Handle> {
        let owned = path.to_owned();
        let opened = self.start_now(|operation| async move {
            operation.takes(Work::Name).await;
            let state = operation.state()?;
            let inode = state.names.file(&owned)?;
            Ok(Handle { disk: operation.disk.clone(), inode, path: owned, power_losses: state.power_losses })
        });
        opened.await.context("open", path)
    }

    async fn create_inode(&self, path: &Path) -> Result<Handle> {
        let owned = path.to_owned();
        let created = self.start_now(|operation| async move {
            operation.takes(Work::Name).await;
            let mut state = operation.state()?;
            let inode = Inode::default();
            state.names.create(&owned, Node::File(inode.clone()))?;
            Ok(Handle { disk: operation.disk.clone(), inode, path: owned, power_losses: state.power_losses })
        });
        created.await.context("create", path)
    }
}

fn entry(path: &Path, node: &Node) -> Option<DirectoryEntry> {
    let name = path.file_name()?.to_str()?.to_owned();
    Some(match node {
        Node::Directory => DirectoryEntry { name, is_directory: true, bytes: 0 },
        Node::File(inode) => DirectoryEntry { name, is_directory: false, bytes: inode.lock().cached().len() as u64 },
    })
}

/// An open file. One that was opened before a power loss is of no use after it.
#[derive(Clone)]
struct Handle {
    disk: SimulatedDisk,
    inode: Inode,
    path: PathBuf,
    power_losses: u64,
}

impl Handle {
    fn start<T: 'static, F: Future<Output = io::Result<T>> + 'static, C: FnOnce(Operation, Inode) -> F>(
        &self,
        carry_out: C,
    ) -> impl Future<Output = io::Result<T>> + use<T, F, C> {
        let inode = self.inode.clone();
        self.disk.start(self.power_losses, |operation| carry_out(operation, inode))
    }

    /// The write has started when this returns.
    fn write(&self, bytes: Arc<[u8]>, offset: u64, sync: SyncMode) -> impl Future<Output = Result<()>> + use<> {
        let written = self.start(move |operation, inode| async move {
            operation.takes(Work::Write).await;
            let write = {
                let mut state = operation.state()?;
                let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes.len()));
                let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
                let growth = inode.lock().growth(end) as u64;
                state.check_space(growth)?;
                let write = Write { number: state.next_change(), offset: offset as usize, bytes };
                inode.lock().write(write.clone());
                write
            };
            operation.takes(Work::Write).await;
            if sync == SyncMode::EveryWrite {
                let mut state = operation.state()?;
                match state.sync_outcome() {
                    Ok(()) => inode.lock().forced(&write),
                    Err(error) => {
                        inode.lock().force_failed(write.number);
                        return Err(error);
                    }
                }
            }
            Ok(())
        });
        let path = self.path.clone();
        async move { written.await.context("write", &path) }
    }

    /// Covers what is visible now.
    async fn sync(&self) -> Result<()> {
        let next_change = self.disk.lock().next_change;
        let point = self.inode.lock().sync_point(next_change);
        let synced = self.start(move |operation, inode| async move {
            operation.takes(Work::Sync).await;
            match operation.state()?.sync_outcome() {
                Ok(()) => inode.lock().synced(point),
                Err(error) => {
                    inode.lock().sync_failed(point);
                    return Err(error);
                }
            }
            Ok(())
        });
        synced.await.context("sync", &self.path)
    }

    async fn set_file_bytes(&self, file_bytes: u64) -> io::Result<()> {
        let set = self.start(move |operation, inode| async move {
            operation.takes(Work::Write).await;
            {
                let mut state = operation.state()?;
                let more = file_bytes.saturating_sub(inode.lock().cached().len() as u64);
                state.check_space(more)?;
                let number = state.next_change();
                inode.lock().set_file_bytes(number, file_bytes as usize);
            }
            operation.takes(Work::Write).await;
            Ok(())
        });
        set.await
    }
}

/// A file of the log, open for writing only.
pub(in crate::storage) struct File {
    handle: Handle,
    sync: SyncMode,
}

impl File {
    pub(in crate::storage) async fn open(disk: &SimulatedDisk, path: &Path, sync: SyncMode) -> Result<File> {
        Ok(File { handle: disk.open_inode(path).await?, sync })
    }

    /// Reserving the space and writing zeros to it are the same here: a sparse file and a full one read alike.
    pub(in crate::storage) async fn create(disk: &SimulatedDisk, path: &Path, bytes: u64) -> Result<File> {
        let file = File { handle: disk.create_inode(path).await?, sync: SyncMode::OnRequest };
        let prepared = match file.handle.set_file_bytes(bytes).await.context("allocate space for", path) {
            Ok(()) => file.sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            // As with a real disk: half a file is of no use, and the first error says more than a second one would.
            if let Err(error) = disk.remove(path).await {
                tracing::warn!("cannot remove {} after its creation failed: {error}", path.display());
            }
            return Err(error);
        }
        Ok(file)
    }

    pub(in crate::storage) async fn write_at(&self, buffer: AlignedBuf, offset: u64) -> Result<AlignedBuf> {
        self.handle.write(buffer.as_slice().into(), offset, self.sync).await?;
        Ok(buffer)
    }

    pub(in crate::storage) async fn sync(&self) -> Result<()> {
        self.handle.sync().await
    }
}

/// Reads a file from an offset to the end that it had when it was opened.
pub(in crate::storage) struct Reader {
    handle: Handle,
    end: u64,
    next: u64,
}

impl Reader {
    pub(in crate::storage) async fn open(disk: &SimulatedDisk, path: &Path, offset: u64) -> Result<Reader> {
        let handle = disk.open_inode(path).await?;
        let end = handle.inode.lock().cached().len() as u64;
        Ok(Reader { handle, end, next: offset.min(end) })
    }

    pub(in crate::storage) fn file_bytes(&self) -> u64 {
        self.end
    }

    /// Reads no further than to `end`.
    pub(in crate::storage) fn until(mut self, end: u64) -> Reader {
        self.end = self.end.min(end);
        self
    }

    pub(in crate::storage) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.next >= self.end {
            return Ok(None);
        }
        // The first piece ends where a block does, as with direct IO.
        let (start, stream) = (self.next as usize, STREAM_BYTES as u64);
        let end = self.end.min(self.next - self.next % BLOCK_BYTES as u64 + stream) as usize;
        let read = self.handle.start(move |operation, inode| async move {
            operation.takes(Work::Read).await;
            let _state = operation.state()?;
            let contents = inode.lock();
            // The file may have been cut since it was opened.
            let piece = contents.cached().get(start..end).map(<[u8]>::to_vec);
            piece.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        });
        let piece = read.await.context("read", &self.handle.path)?;
        self.next = end as u64;
        Ok(Some(piece))
    }
}

/// Writes a file from front to back, several writes in flight.
pub(in crate::storage) struct Appender {
    handle: Handle,
    piece: Vec<u8>,
    /// Offset of the piece being filled.
    offset: u64,
    in_flight: VecDeque<Pin<Box<dyn Future<Output = Result<()>>>>>,
    has_failed: bool,
}

impl Appender {
    /// A file that exists is emptied, and keeps its name.
    pub(in crate::storage) async fn create(disk: &SimulatedDisk, path: &Path) -> Result<Appender> {
        let handle = match disk.create_inode(path).await {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                let handle = disk.open_inode(path).await?;
                handle.set_file_bytes(0).await.context("create", path)?;
                handle
            }
            other => other?,
        };
        Ok(Appender { handle, piece: Vec::new(), offset: 0, in_flight: VecDeque::new(), has_failed: false })
    }

    pub(in crate::storage) fn bytes(&self) -> u64 {
        self.offset + self.piece.len() as u64
    }

    pub(in crate::storage) async fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(STREAM_BYTES - self.piece.len()));
            self.piece.extend_from_slice(taken);
            bytes = rest;
            if self.piece.len() == STREAM_BYTES {
                self.start_write();
                self.wait_until_in_flight(APPEND_DEPTH - 1).await?;
            }
        }
        Ok(())
    }

    /// Direct IO writes whole blocks.
    fn start_write(&mut self) {
        let filled = self.piece.len();
        self.piece.resize(filled.next_multiple_of(BLOCK_BYTES), 0);
        let request = self.handle.write(self.piece.as_slice().into(), self.offset, SyncMode::OnRequest);
        self.in_flight.push_back(Box::pin(request));
        self.piece.clear();
        self.offset += filled as u64;
    }

    async fn wait_until_in_flight(&mut self, at_most: usize) -> Result<()> {
        while self.in_flight.len() > at_most {
            let Some(oldest) = self.in_flight.pop_front() else { break };
            if let Err(error) = oldest.await {
                self.has_failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(in crate::storage) async fn finish(mut self) -> Result<u64> {
        if !self.piece.is_empty() {
            self.start_write();
        }
        self.wait_until_in_flight(0).await?;
        if self.has_failed {
            return Err(io::Error::other("an earlier part could not be written")).context("finish", &self.handle.path);
        }
        if !self.offset.is_multiple_of(BLOCK_BYTES as u64) {
            self.handle.set_file_bytes(self.offset).await.context("cut the padding of", &self.handle.path)?;
        }
        self.handle.sync().await?;
        Ok(self.offset)
    }
}
