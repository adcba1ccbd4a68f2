//! The memory that a block of the log is laid out in and written from.

use std::fmt;

/// Bytes that grow at the end. A `Vec<u8>` will do; a driver that writes with direct IO brings memory that is aligned for it, and so
/// saves a copy of every flush.
pub trait BlockBuffer: Default + fmt::Debug {
    /// Its bytes.
    fn as_slice(&self) -> &[u8];

    /// Its bytes, to be changed in place.
    fn as_mut_slice(&mut self) -> &mut [u8];

    /// Adds `bytes` at the end.
    fn append(&mut self, bytes: &[u8]);

    /// Keeps the first `len` bytes.
    fn truncate(&mut self, len: usize);

    /// Forgets all bytes; the memory is to be used again.
    fn clear(&mut self);

    /// Adds that many zeros at the end.
    fn append_zeros(&mut self, mut count: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let piece = &ZEROS[..count.min(ZEROS.len())];
            self.append(piece);
            count -= piece.len();
        }
    }
}

impl BlockBuffer for Vec<u8> {
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }

    fn clear(&mut self) {
        Vec::clear(self);
    }
}
