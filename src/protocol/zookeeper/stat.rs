//! The Stat record.

use crate::protocol::jute::{Input, JuteError, Output};

/// What a client sees of a znode beside its data (`org.apache.zookeeper.data.Stat`), as the wire carries it.
///
/// `cversion` is the client-visible value: creates plus deletes of children, not the stored count of creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: i64,
}

impl Stat {
    /// Size on the wire.
    pub const BYTES: usize = 68;

    /// The record in wire order.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.czxid.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.mzxid.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.ctime_ms.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.mtime_ms.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.version.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.cversion.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.aversion.to_be_bytes());
        bytes[44..52].copy_from_slice(&self.ephemeral_owner.to_be_bytes());
        bytes[52..56].copy_from_slice(&self.data_length.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.num_children.to_be_bytes());
        bytes[60..68].copy_from_slice(&self.pzxid.to_be_bytes());
        bytes
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Output<'_>) {
        out.raw(&self.to_bytes());
    }

    /// Reads the record.
    pub fn decode(input: &mut Input<'_>) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: input.i64()?,
            mzxid: input.i64()?,
            ctime_ms: input.i64()?,
            mtime_ms: input.i64()?,
            version: input.i32()?,
            cversion: input.i32()?,
            aversion: input.i32()?,
            ephemeral_owner: input.i64()?,
            data_length: input.i32()?,
            num_children: input.i32()?,
            pzxid: input.i64()?,
        })
    }
}
