//! Writing jute.

/// Appends jute fields to a buffer.
pub struct Output<'b> {
    buffer: &'b mut Vec<u8>,
}

impl<'b> Output<'b> {
    /// Appends to `buffer`.
    pub fn new(buffer: &'b mut Vec<u8>) -> Self {
        Output { buffer }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.u8(value as u8);
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A count or a length. The wire can say `i32::MAX` at most: whoever appends must stay below, and nobody is sent what does not.
    pub fn len(&mut self, value: usize) {
        self.i32(i32::try_from(value).unwrap_or(i32::MAX));
    }

    /// A buffer; null is -1.
    pub fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.i32(-1),
            Some(bytes) => {
                self.len(bytes.len());
                self.raw(bytes);
            }
        }
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.buffer(Some(value.as_bytes()));
    }

    /// Writes a length-prefixed frame around what `body` appends. The length of a frame is bounded as [`Output::len`] says.
    pub fn framed(&mut self, body: impl FnOnce(&mut Output<'_>)) {
        let start = self.buffer.len();
        self.i32(0);
        body(self);
        let len = i32::try_from(self.buffer.len() - start - 4).unwrap_or(i32::MAX);
        self.buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }
}
