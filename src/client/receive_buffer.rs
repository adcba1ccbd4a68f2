//! The bytes of a connection between the socket and the parser: frames are parsed where the kernel put them.
//!
//! Invariant: `start <= end <= bytes.len()`; `bytes[start..end]` is what was received and not consumed.

use crate::protocol::zookeeper::FrameReader;

/// A buffer of [`ReceiveBuffer::BYTES`], larger only while a larger frame is on its way.
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        ReceiveBuffer { bytes: vec![0; Self::BYTES], start: 0, end: 0 }
    }
}

impl ReceiveBuffer {
    /// Its usual size.
    pub const BYTES: usize = 64 * 1024;

    /// Where the next bytes go; never empty. Moves an incomplete frame to the front. Call only when every whole frame was
    /// consumed and the length of the incomplete one was accepted by a [`FrameReader`].
    pub fn space(&mut self) -> &mut [u8] {
        let missing = FrameReader::new(self.received(), usize::MAX).missing();
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let needed = (self.end + missing.max(1)).max(Self::BYTES);
        if needed != self.bytes.len() {
            self.bytes.resize(needed, 0);
            self.bytes.shrink_to(needed);
        }
        &mut self.bytes[self.end..]
    }

    /// `len` bytes were put into [`space`](Self::space).
    pub fn filled(&mut self, len: usize) {
        assert!(len <= self.bytes.len() - self.end, "more was received than there was space for");
        self.end += len;
    }

    /// What was received and not consumed.
    pub fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `len` bytes of [`received`](Self::received) are done with.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "more was consumed than was received");
        self.start += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_be_bytes().to_vec();
        frame.extend((0..len).map(|n| n as u8));
        frame
    }

    /// Frames arrive in arbitrary pieces, some larger than the buffer: none may be lost, repeated or mixed, and the buffer
    /// must return to its size, or a hundred thousand idle connections keep the memory of their largest reply.
    #[test]
    fn frames_survive_any_split_and_the_buffer_shrinks_back() {
        let sizes = [0, 5, 70_000, 1, 65_532, 65_533, 300_000, 3, 0, 40_000, 40_000, 9];
        let stream: Vec<u8> = sizes.iter().flat_map(|len| frame(*len)).collect();
        for piece in [1_000_000, 65_536, 1009, 7] {
            let (mut buffer, mut fed, mut seen) = (ReceiveBuffer::default(), 0, Vec::new());
            while fed < stream.len() {
                let space = buffer.space();
                let len = piece.min(space.len()).min(stream.len() - fed);
                space[..len].copy_from_slice(&stream[fed..fed + len]);
                fed += len;
                buffer.filled(len);
                let mut frames = FrameReader::new(buffer.received(), 1 << 20);
                while let Some(frame) = frames.next().unwrap() {
                    assert!(frame.body.iter().enumerate().all(|(n, byte)| *byte == n as u8));
                    seen.push(frame.body.len());
                }
                let consumed = frames.consumed();
                buffer.consume(consumed);
            }
            assert_eq!(seen, sizes, "in pieces of {piece}");
            assert_eq!(buffer.space().len(), ReceiveBuffer::BYTES);
            assert_eq!(buffer.bytes.capacity(), ReceiveBuffer::BYTES);
        }
    }
}
