//! Changes to encoded bytes that a decoder must survive.

use arbitrary::Arbitrary;

/// One change. Places wrap around, so that every change does something.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Mutation {
    /// A bit is flipped.
    Flip { at: u16, bit: u8 },
    /// A byte is set.
    Byte { at: u16, value: u8 },
    /// A big-endian word is set: lengths, counts and codes are such words.
    Word { at: u16, value: i32 },
    /// A word is set to a value at the edge of what lengths may be.
    Edge { at: u16, which: u8 },
    /// The end is cut off.
    Cut { at: u16 },
    /// Some bytes are taken out.
    Remove { at: u16, bytes: u8 },
    /// Some bytes are doubled.
    Double { at: u16, bytes: u8 },
}

const EDGES: [i32; 8] = [-1, 0, 1, -2, i32::MAX, i32::MIN, i32::MAX - 3, 0x10_0000];

impl Mutation {
    /// Applies the change.
    pub fn apply(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Mutation::Flip { at, bit } => bytes[usize::from(at) % len] ^= 1 << (bit % 8),
            Mutation::Byte { at, value } => bytes[usize::from(at) % len] = value,
            Mutation::Word { at, value } => put_word(bytes, at, value),
            Mutation::Edge { at, which } => put_word(bytes, at, EDGES[usize::from(which) % EDGES.len()]),
            Mutation::Cut { at } => bytes.truncate(usize::from(at) % len),
            Mutation::Remove { at, bytes: count } => {
                let from = usize::from(at) % len;
                bytes.drain(from..(from + usize::from(count)).min(len));
            }
            Mutation::Double { at, bytes: count } => {
                let from = usize::from(at) % len;
                let doubled = bytes[from..(from + usize::from(count)).min(len)].to_vec();
                bytes.splice(from..from, doubled);
            }
        }
    }
}

fn put_word(bytes: &mut [u8], at: u16, value: i32) {
    let from = usize::from(at) % bytes.len();
    let word = value.to_be_bytes();
    let fits = (bytes.len() - from).min(word.len());
    bytes[from..from + fits].copy_from_slice(&word[..fits]);
}
