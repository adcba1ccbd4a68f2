//! A file read from front to back, with a stretch of it in memory.

use crate::storage::{FileReader, Storage, StorageError};
use std::path::Path;

/// See the module documentation. What comes after the stretch is being read ahead meanwhile.
pub(super) struct FileWindow {
    reader: FileReader,
    /// Where the stretch begins in the file.
    start: u64,
    bytes: Vec<u8>,
}

impl FileWindow {
    /// Reads the file from `offset` on.
    pub async fn open(storage: &Storage, path: &Path, offset: u64) -> Result<FileWindow, StorageError> {
        let reader = storage.read_from(path, offset).await?;
        Ok(FileWindow { reader, start: offset, bytes: Vec::new() })
    }

    /// Whether `offset` was passed already: then the file must be opened again.
    pub fn is_beyond(&self, offset: u64) -> bool {
        self.start > offset
    }

    /// The bytes from `offset` on: at least so many, unless the file ends before. What lies before `offset` is forgotten, so
    /// offsets must not go down.
    pub async fn read(&mut self, offset: u64, bytes: usize) -> Result<&[u8], StorageError> {
        loop {
            let passed = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
            let passed = passed.min(self.bytes.len());
            self.bytes.drain(..passed);
            self.start += passed as u64;
            if self.start == offset && self.bytes.len() >= bytes {
                return Ok(&self.bytes);
            }
            match self.reader.next().await? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None => return Ok(&self.bytes),
            }
        }
    }
}
