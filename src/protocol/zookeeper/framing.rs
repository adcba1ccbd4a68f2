//! Frames: a 32-bit length, then that many bytes.

use thiserror::Error;

/// `jute.maxbuffer`: the largest request packet that ZooKeeper accepts by default (0xfffff is accepted, one more is not).
pub const PACKET_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// Why a stream of frames cannot go on. The connection is closed without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A negative length or one above `jute.maxbuffer`.
    #[error("packet length {length} is outside 0..={limit} (jute.maxbuffer)")]
    BadLength {
        /// The length that was announced.
        length: i32,
        /// The limit in force.
        limit: usize,
    },
}

/// One whole frame at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The bytes after the length.
    pub body: &'a [u8],
}

/// Cuts frames from the front of a buffer.
pub struct FrameReader<'a> {
    bytes: &'a [u8],
    consumed: usize,
    packet_bytes_max: usize,
}

impl<'a> FrameReader<'a> {
    /// Reads frames of at most `packet_bytes_max` from `bytes`.
    pub fn new(bytes: &'a [u8], packet_bytes_max: usize) -> Self {
        FrameReader { bytes, consumed: 0, packet_bytes_max }
    }

    /// How many bytes belong to the frames returned so far.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// How many more bytes the frame at the front needs (0 when its length is not known yet or it is complete).
    pub fn missing(&self) -> usize {
        let rest = &self.bytes[self.consumed..];
        match rest.first_chunk::<4>() {
            Some(length) => (i32::from_be_bytes(*length).max(0) as usize + 4).saturating_sub(rest.len()),
            None => 0,
        }
    }

    /// The next whole frame; `None` when the rest is incomplete.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, FrameError> {
        let rest = &self.bytes[self.consumed..];
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        if length < 0 || length as usize > self.packet_bytes_max {
            return Err(FrameError::BadLength { length, limit: self.packet_bytes_max });
        }
        let Some(body) = rest.get(4..4 + length as usize) else { return Ok(None) };
        self.consumed += 4 + length as usize;
        Ok(Some(Frame { body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit is inclusive (0xfffff is accepted), and a length above it closes the connection before its bytes arrive.
    #[test]
    fn length_above_jute_maxbuffer_is_refused_at_once() {
        let mut accepted = FrameReader::new(&[0, 0x0f, 0xff, 0xff], PACKET_BYTES_MAX_DEFAULT);
        assert_eq!(accepted.next(), Ok(None));
        let mut refused = FrameReader::new(&[0, 0x10, 0, 0], PACKET_BYTES_MAX_DEFAULT);
        assert!(refused.next().is_err());
        assert!(FrameReader::new(&[0xff; 4], 10).next().is_err());
    }

    /// Frames that arrive in one piece are all cut, and a split one waits without being consumed.
    #[test]
    fn split_frame_is_not_consumed() {
        let bytes = [0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 9];
        let mut reader = FrameReader::new(&bytes, 100);
        assert_eq!(reader.next().unwrap().unwrap().body, &[7]);
        assert_eq!(reader.next().unwrap().unwrap().body, &[] as &[u8]);
        assert_eq!(reader.next(), Ok(None));
        assert_eq!((reader.consumed(), reader.missing()), (9, 1));
    }
}
