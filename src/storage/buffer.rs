//! The byte buffer that goes to direct IO.

use glommio::allocate_dma_buffer_global;
use glommio::io::DmaBuffer;
use std::fmt;
use std::rc::Rc;

/// Unit of length and offset of all direct IO here; at least the logical block of any disk in common use.
pub const BLOCK_BYTES: usize = 4096;

/// A growable buffer at a 4096-aligned address. Filled with [`AlignedBuf::append`], padded, then given to
/// [`super::LogFile::write_at`], which gives it back. Needs no executor.
///
/// Invariant: `len <= capacity`, and only the first `len` bytes are ever read.
pub struct AlignedBuf {
    memory: Option<DmaBuffer>,
    len: usize,
    /// Capacity of the next allocation, so that a buffer that comes back from a write grows to its old size in one step.
    capacity_hint: usize,
}

impl AlignedBuf {
    /// An empty buffer that allocates on first use.
    pub fn new() -> AlignedBuf {
        AlignedBuf::with_capacity(BLOCK_BYTES)
    }

    /// An empty buffer that will allocate `bytes` on first use.
    pub fn with_capacity(bytes: usize) -> AlignedBuf {
        AlignedBuf { memory: None, len: 0, capacity_hint: bytes.max(BLOCK_BYTES).next_multiple_of(BLOCK_BYTES) }
    }

    /// Number of bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| &memory.as_bytes()[..self.len])
    }

    /// Its bytes, to be changed in place (a checksum in a header, for instance).
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], |memory| &mut memory.as_bytes_mut()[..self.len])
    }

    /// Adds `bytes` at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds zeros until the length is a multiple of [`BLOCK_BYTES`].
    pub fn pad(&mut self) {
        let missing = self.len.next_multiple_of(BLOCK_BYTES) - self.len;
        if missing > 0 {
            self.grow(missing).fill(0);
        }
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets its bytes, and keeps its memory unless a write has cut it. The next allocation is then a little smaller than the
    /// last one, but not smaller than what was written: so it follows what is needed, and seldom has to grow.
    pub fn clear(&mut self) {
        let capacity = self.memory.as_ref().map_or(0, DmaBuffer::len);
        if capacity < self.capacity_hint {
            self.memory = None;
            let smaller = self.capacity_hint - self.capacity_hint / 8;
            self.capacity_hint = capacity.max(smaller).next_multiple_of(BLOCK_BYTES);
        }
        self.len = 0;
    }

    /// Makes the buffer `more` bytes longer and gives the new part to be overwritten.
    fn grow(&mut self, more: usize) -> &mut [u8] {
        let (start, end) = (self.len, self.len + more);
        let capacity = self.memory.as_ref().map_or(0, DmaBuffer::len);
        if capacity < end || self.memory.is_none() {
            let capacity = end.max(2 * capacity).max(self.capacity_hint).next_multiple_of(BLOCK_BYTES);
            let mut larger = allocate_dma_buffer_global(capacity);
            larger.as_bytes_mut()[..start].copy_from_slice(self.as_slice());
            self.capacity_hint = capacity;
            self.memory = Some(larger);
        }
        self.len = end;
        let memory = self.memory.as_mut().expect("allocated above when it was missing");
        &mut memory.as_bytes_mut()[start..end]
    }

    /// The memory, cut to the bytes in it, to be lent to the kernel; and what [`AlignedBuf::from_lent`] needs beside it.
    pub(super) fn lend(self) -> Option<(Rc<DmaBuffer>, usize)> {
        let mut memory = self.memory?;
        memory.trim_to_size(self.len);
        Some((Rc::new(memory), self.capacity_hint))
    }

    /// The buffer again, with its bytes. Empty if the kernel still holds the memory.
    pub(super) fn from_lent(memory: Rc<DmaBuffer>, capacity_hint: usize) -> AlignedBuf {
        let memory = Rc::try_unwrap(memory).ok();
        AlignedBuf { len: memory.as_ref().map_or(0, DmaBuffer::len), memory, capacity_hint }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        AlignedBuf::new()
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).field("capacity_hint", &self.capacity_hint).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fresh memory is not zeroed: bytes of an earlier life must not reach the disk in the padding.
    #[test]
    fn padding_is_zeros_and_growth_keeps_the_bytes() {
        let mut buffer = AlignedBuf::new();
        for round in 0..3 {
            buffer.clear();
            let bytes: Vec<u8> = (0..10_000u32).map(|at| (at % 251) as u8 | 1).collect();
            for piece in bytes.chunks(777) {
                buffer.append(piece);
            }
            buffer.pad();
            assert_eq!(buffer.len(), 12_288, "round {round}");
            assert_eq!(&buffer.as_slice()[..10_000], bytes);
            assert!(buffer.as_slice()[10_000..].iter().all(|&byte| byte == 0));
            buffer.pad();
            assert_eq!(buffer.len(), 12_288, "padding a full block adds nothing");
        }
    }

    /// The kernel takes the whole memory it is lent, so it must be cut to the bytes, and can be used again afterwards.
    #[test]
    fn a_lent_buffer_comes_back_with_its_bytes_and_grows_again() {
        let mut buffer = AlignedBuf::with_capacity(1 << 16);
        buffer.append(&[7; 100]);
        buffer.pad();
        let (memory, hint) = buffer.lend().unwrap();
        assert_eq!(memory.len(), BLOCK_BYTES);
        assert_eq!(memory.as_ptr().align_offset(BLOCK_BYTES), 0);
        let mut buffer = AlignedBuf::from_lent(memory, hint);
        assert_eq!(buffer.len(), BLOCK_BYTES);
        buffer.append(&[8; 5000]);
        assert_eq!((buffer.as_slice()[99], buffer.as_slice()[100], buffer.as_slice()[4096]), (7, 0, 8));
        assert!(AlignedBuf::new().lend().is_none());
    }

    /// A buffer that a burst has made large must not hold its memory for ever, nor grow step by step, copying, for every write of a
    /// steady load.
    #[test]
    fn what_a_buffer_allocates_follows_what_is_written() {
        let write = |mut buffer: AlignedBuf, blocks: usize| {
            buffer.clear();
            for _ in 0..blocks {
                buffer.append(&[1; BLOCK_BYTES]);
            }
            let (memory, hint) = buffer.lend().unwrap();
            AlignedBuf::from_lent(memory, hint)
        };
        let capacity = |mut buffer: AlignedBuf| {
            buffer.clear();
            buffer.append(&[1]);
            buffer.memory.as_ref().map_or(0, DmaBuffer::len)
        };
        let mut buffer = write(AlignedBuf::new(), 1000);
        assert!(capacity(write(AlignedBuf::new(), 1000)) >= 800 * BLOCK_BYTES, "the next write is as large");
        for _ in 0..100 {
            buffer = write(buffer, 3);
        }
        assert!(capacity(buffer) <= 8 * BLOCK_BYTES);
    }
}
