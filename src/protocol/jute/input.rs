//! Reading jute.

use thiserror::Error;

/// Why a record could not be read. Every kind is answered with MARSHALLINGERROR on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JuteError {
    /// The record ends before the field does.
    #[error("record ends before the field does")]
    Truncated,
    /// A length below -1, or one that the rest of the record cannot hold.
    #[error("length {0} does not fit the record")]
    BadLength(i32),
    /// A null where the protocol needs a value.
    #[error("null where a value is needed")]
    Null,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    NotUtf8,
    /// A discriminant the protocol does not know.
    #[error("unknown discriminant {0}")]
    BadDiscriminant(i32),
}

/// A cursor over the bytes of one record. Copying it is how a reader looks ahead.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(JuteError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// The next `len` bytes as they are.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], JuteError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(JuteError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, JuteError> {
        Ok(self.array::<1>()?[0])
    }

    /// A boolean: any non-zero byte is true.
    pub fn bool(&mut self) -> Result<bool, JuteError> {
        Ok(self.u8()? != 0)
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, JuteError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, JuteError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A buffer; null and empty are different things.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        match self.i32()? {
            -1 => Ok(None),
            len if len < 0 || len as usize > self.rest.len() => Err(JuteError::BadLength(len)),
            len => self.take(len as usize).map(Some),
        }
    }

    /// A string; null and empty are different things.
    pub fn ustring(&mut self) -> Result<Option<&'a str>, JuteError> {
        match self.buffer()? {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| JuteError::NotUtf8),
        }
    }

    /// A string that must not be null.
    pub fn string(&mut self) -> Result<&'a str, JuteError> {
        self.ustring()?.ok_or(JuteError::Null)
    }

    /// The element count of a vector; `None` for a null one. `element_bytes_min` is the least an element can take, so that
    /// a count that the rest cannot hold is refused before anybody allocates for it.
    pub fn vector(&mut self, element_bytes_min: usize) -> Result<Option<usize>, JuteError> {
        match self.i32()? {
            -1 => Ok(None),
            count if count < 0 || count as usize > self.rest.len() / element_bytes_min.max(1) => {
                Err(JuteError::BadLength(count))
            }
            count => Ok(Some(count as usize)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hostile count makes a careless reader reserve gigabytes: it must be refused against what is left.
    #[test]
    fn hostile_vector_count_is_refused_before_allocation() {
        let mut input = Input::new(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]);
        assert_eq!(input.vector(4), Err(JuteError::BadLength(0x7fff_ffff)));
        let mut input = Input::new(&[0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(input.vector(4), Err(JuteError::BadLength(-2)));
    }

    /// Null and empty buffers are distinct values; a reader that folds them loses null data.
    #[test]
    fn null_and_empty_buffers_stay_distinct() {
        assert_eq!(Input::new(&[0xff; 4]).buffer(), Ok(None));
        assert_eq!(Input::new(&[0; 4]).buffer(), Ok(Some(&[][..])));
    }

    /// A length that runs past the frame must not read the next frame's bytes.
    #[test]
    fn buffer_longer_than_the_record_is_refused() {
        assert_eq!(Input::new(&[0, 0, 0, 5, 1, 2, 3, 4]).buffer(), Err(JuteError::BadLength(5)));
        assert_eq!(Input::new(&[0, 0, 0]).i32(), Err(JuteError::Truncated));
    }
}
