//! Places in a log and what stands at them, as types.

use std::fmt;

/// The place of a record in the order of a log. Positions grow from record to record and may leave numbers out; what else they mean
/// is for the log's owner to know. Displayed in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before every record.
    pub const ZERO: Position = Position(0);
    /// Above every record: "no limit". No record has it.
    pub const MAX: Position = Position(u64::MAX);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// Whose log it is: the number of a cluster, the same on all its servers. A log of another cluster is never taken for an own one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogOwner(pub u128);

impl fmt::Display for LogOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A record, as it is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place.
    pub position: Position,
    /// The version of what is in the bytes, as [`super::writer::LogConfig::record_version`] was when it was written.
    pub version: u16,
    /// What was appended.
    pub bytes: &'a [u8],
}
