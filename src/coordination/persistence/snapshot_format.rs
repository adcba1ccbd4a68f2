//! A snapshot on disk, to the byte: the manifest and the records. The parts they stand in are [`super::snapshot_part`]'s.
//! All integers are little-endian.
//!
//! A snapshot is **fuzzy**: its parts are written while transactions are applied. It starts at S, the least zxid at which a
//! part was begun, and ends at E, the greatest at which one was finished (rule C3). Loading it and applying the log from S,
//! every record unconditionally, gives the tree from E on; before E nothing may be served. Until E, an update of a missing
//! record is skipped (rule C4).
//!
//! # Files
//! `snapshot.<S>.part<k>`, one for each shard of the server that wrote it, and `snapshot.<S>`, the manifest (S in hex, as Apache
//! names its own). The manifest is written and synced last, after the parts and once the own log is durable to E: a snapshot
//! without it does not exist. Which shards there are when loading is of no matter: a record goes to its owner of that day,
//! and child sets are rebuilt from the paths, whose parents may stand in any part.
//!
//! ```text
//! manifest   0  magic "RKSM"            24  epoch u64               each part
//!            4  format version u32      32  part count u32            0  file bytes u64
//!            8  start zxid S u64        36  zero u32                  8  records u64
//!           16  end zxid E u64          40  parts, 24 bytes each     16  closing crc32c u32
//!                                        n  crc32c of bytes 0..n     20  zero u32
//!
//! record     0  kind u8, then by kind
//!   1 session   1  id i64               9  timeout u32, milliseconds
//!   2 ACL list  1  content hash u128   17  bytes u32                21  the encoded list
//!   3 node      1  path bytes u32       5  data bytes u32, 0xffff_ffff for null data
//!               9  czxid u64           17  mzxid u64                25  pzxid u64
//!              33  ctime i64           41  mtime i64 (milliseconds) 49  ephemeral owner i64
//!              57  version i32         61  cversion i32 (stored)    65  aversion i32
//!              69  ACL content hash u128                            85  path, data
//!   4 meta      1  key u8               2  bytes u32                 6  the bytes
//! ```
//! An ACL list stands in each part whose nodes name it, so that a part can be read alone (rule B4).

use crate::base::{SessionId, Zxid, planted};
use std::fmt;
use thiserror::Error;

/// Version of the format written; readers refuse any other.
pub const SNAPSHOT_FORMAT_VERSION: u32 = 1;
/// Longest path, data, list or meta value, bytes. Checked before anything is allocated.
pub const FIELD_BYTES_MAX: u32 = 512 << 20;
/// Most parts a snapshot can have: one a shard.
pub const PARTS_MAX: u32 = 1 << 16;

const MANIFEST_MAGIC: [u8; 4] = *b"RKSM";
const MANIFEST_HEAD_BYTES: usize = 40;
const MANIFEST_PART_BYTES: usize = 24;
/// The longest manifest, bytes.
pub const MANIFEST_BYTES_MAX: usize = MANIFEST_HEAD_BYTES + PARTS_MAX as usize * MANIFEST_PART_BYTES + 4;
const FILE_PREFIX: &str = "snapshot.";
const NULL_DATA: u32 = u32::MAX;

const KIND_SESSION: u8 = 1;
const KIND_ACL: u8 = 2;
const KIND_NODE: u8 = 3;
const KIND_META: u8 = 4;

/// What is wrong with a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SnapshotFault {
    /// The file ends too early.
    #[error("the file ends too early")]
    Truncated,
    /// Bytes after the end of the format.
    #[error("there are bytes after the end")]
    TrailingBytes,
    /// Not such a file at all.
    #[error("wrong magic")]
    Magic,
    /// Written by another version.
    #[error("snapshot format version {0} is not known to this server")]
    Version(u32),
    /// A checksum does not match.
    #[error("wrong checksum")]
    Checksum,
    /// A length beyond its bound.
    #[error("a length of {0} bytes is too long")]
    TooLong(u64),
    /// Checksum good, content impossible.
    #[error("{0}")]
    Malformed(&'static str),
    /// A good part, but not the one the manifest speaks of.
    #[error("the part is not the one of the manifest")]
    OtherPart,
}

/// A fault and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("offset {offset}: {fault}")]
pub struct SnapshotError {
    /// Where the damaged piece begins in the file, bytes.
    pub offset: u64,
    /// What is wrong.
    pub fault: SnapshotFault,
}

/// A file of a snapshot, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SnapshotFile {
    /// The manifest of the snapshot that starts at this zxid.
    Manifest(Zxid),
    /// A part of the snapshot that starts at this zxid.
    Part(Zxid, u32),
}

impl fmt::Display for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotFile::Manifest(start) => write!(f, "{FILE_PREFIX}{:x}", start.0),
            SnapshotFile::Part(start, index) => write!(f, "{FILE_PREFIX}{:x}.part{index}", start.0),
        }
    }
}

impl SnapshotFile {
    /// What the file of this name is; `None` for any other file.
    pub fn parse(name: &str) -> Option<SnapshotFile> {
        let rest = name.strip_prefix(FILE_PREFIX)?;
        let (digits, part) = rest.split_once(".part").map_or((rest, None), |(digits, part)| (digits, Some(part)));
        let start = Zxid(u64::from_str_radix(digits, 16).ok()?);
        let file = match part {
            None => SnapshotFile::Manifest(start),
            Some(index) => SnapshotFile::Part(start, index.parse().ok()?),
        };
        // One spelling each, so that no two names mean the same file.
        (file.to_string() == name).then_some(file)
    }
}

/// What a manifest says of a part, and what writing or reading one adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartSummary {
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Records in it.
    pub records: u64,
    /// The checksum at its end, which covers everything before.
    pub crc: u32,
}

/// The manifest of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// S: the log is needed from here.
    pub start: Zxid,
    /// E: nothing is served before this is applied. Invariant: not below `start`.
    pub end: Zxid,
    /// Epoch information of the server that wrote it; its meaning is the writer's.
    pub epoch: u64,
    /// The parts by index.
    pub parts: Vec<PartSummary>,
}

impl Manifest {
    /// Records above this must be replayed over the snapshot: all since its start, whatever of them its parts hold (rule C3).
    pub fn replay_after(&self) -> Zxid {
        // The bug takes what was collected over a while for a tree as of the end.
        if planted::is("c3-served-before-end") { self.end } else { self.start }
    }

    /// The manifest file.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.start <= self.end && self.parts.len() <= PARTS_MAX as usize, "a snapshot ends after it starts");
        let mut out = Vec::with_capacity(MANIFEST_HEAD_BYTES + self.parts.len() * MANIFEST_PART_BYTES + 4);
        out.extend_from_slice(&MANIFEST_MAGIC);
        out.extend_from_slice(&SNAPSHOT_FORMAT_VERSION.to_le_bytes());
        for value in [self.start.0, self.end.0, self.epoch, self.parts.len() as u64] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for part in &self.parts {
            for value in [part.file_bytes, part.records, u64::from(part.crc)] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the manifest file.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, SnapshotError> {
        Manifest::decode_fields(bytes).map_err(|fault| SnapshotError { offset: 0, fault })
    }

    fn decode_fields(bytes: &[u8]) -> Result<Manifest, SnapshotFault> {
        let mut fields = Fields::new(bytes);
        check_magic(&mut fields, MANIFEST_MAGIC)?;
        let start = Zxid(fields.u64()?);
        let end = Zxid(fields.u64()?);
        let epoch = fields.u64()?;
        let part_count = fields.u64()?;
        if part_count > u64::from(PARTS_MAX) {
            return Err(SnapshotFault::TooLong(part_count));
        }
        let crc_at = MANIFEST_HEAD_BYTES + part_count as usize * MANIFEST_PART_BYTES;
        match bytes.len().cmp(&(crc_at + 4)) {
            std::cmp::Ordering::Less => return Err(SnapshotFault::Truncated),
            std::cmp::Ordering::Greater => return Err(SnapshotFault::TrailingBytes),
            std::cmp::Ordering::Equal => {}
        }
        if crc32c::crc32c(&bytes[..crc_at]).to_le_bytes() != bytes[crc_at..] {
            return Err(SnapshotFault::Checksum);
        }
        let mut parts = Vec::with_capacity(part_count as usize);
        for _ in 0..part_count {
            let (file_bytes, records) = (fields.u64()?, fields.u64()?);
            let crc = u32::try_from(fields.u64()?).map_err(|_| SnapshotFault::Malformed("a part's checksum"))?;
            parts.push(PartSummary { file_bytes, records, crc });
        }
        if start > end {
            return Err(SnapshotFault::Malformed("the snapshot ends before it starts"));
        }
        Ok(Manifest { start, end, epoch, parts })
    }
}

/// A znode as a snapshot holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord<'a> {
    /// Its path, UTF-8.
    pub path: &'a str,
    /// Its data; null is not empty.
    pub data: Option<&'a [u8]>,
    /// Zxid of its creation.
    pub czxid: Zxid,
    /// Zxid of the last change of its data.
    pub mzxid: Zxid,
    /// Zxid of the last change of its children.
    pub pzxid: Zxid,
    /// Time of creation, milliseconds since 1970.
    pub ctime_ms: i64,
    /// Time of the last change of its data, milliseconds since 1970.
    pub mtime_ms: i64,
    /// Owner session, or the marks of container and TTL nodes; 0 for neither.
    pub ephemeral_owner: i64,
    /// Changes of the data.
    pub version: i32,
    /// Stored child version, which does not move on delete (rule B8).
    pub cversion: i32,
    /// Changes of the ACL.
    pub aversion: i32,
    /// Content hash of the ACL list.
    pub acl_hash: u128,
}

/// A record of a snapshot, borrowed from the writer's tables or the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotRecord<'a> {
    /// A session.
    Session {
        /// Its id.
        id: SessionId,
        /// Its negotiated timeout, milliseconds.
        timeout_ms: u32,
    },
    /// An ACL list that nodes of this part name.
    Acl {
        /// Hash of the list's content.
        hash: u128,
        /// The encoded list.
        bytes: &'a [u8],
    },
    /// A znode.
    Node(NodeRecord<'a>),
    /// Anything else the server needs, such as the configuration.
    Meta {
        /// What it is; the server's choice.
        key: u8,
        /// Its value.
        bytes: &'a [u8],
    },
}

impl<'a> SnapshotRecord<'a> {
    /// Encoded length, bytes; a fault if a field is too long.
    pub fn encoded_bytes(&self) -> Result<usize, SnapshotFault> {
        let (fixed, fields) = match self {
            SnapshotRecord::Session { .. } => (13, [0, 0]),
            SnapshotRecord::Acl { bytes, .. } => (21, [bytes.len(), 0]),
            SnapshotRecord::Node(node) => (85, [node.path.len(), node.data.map_or(0, <[u8]>::len)]),
            SnapshotRecord::Meta { bytes, .. } => (6, [bytes.len(), 0]),
        };
        let too_long = fields.into_iter().find(|bytes| *bytes > FIELD_BYTES_MAX as usize);
        too_long.map_or(Ok(fixed + fields[0] + fields[1]), |bytes| Err(SnapshotFault::TooLong(bytes as u64)))
    }

    /// Appends the record; the caller has checked [`SnapshotRecord::encoded_bytes`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            SnapshotRecord::Session { id, timeout_ms } => {
                out.push(KIND_SESSION);
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&timeout_ms.to_le_bytes());
            }
            SnapshotRecord::Acl { hash, bytes } => {
                out.push(KIND_ACL);
                out.extend_from_slice(&hash.to_le_bytes());
                put_bytes(out, bytes);
            }
            SnapshotRecord::Node(node) => node.encode(out),
            SnapshotRecord::Meta { key, bytes } => {
                out.extend_from_slice(&[KIND_META, *key]);
                put_bytes(out, bytes);
            }
        }
    }

    /// Takes the next record.
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<SnapshotRecord<'a>, SnapshotFault> {
        match fields.u8()? {
            KIND_SESSION => {
                let id = SessionId(fields.u64()? as i64);
                Ok(SnapshotRecord::Session { id, timeout_ms: fields.u32()? })
            }
            KIND_ACL => Ok(SnapshotRecord::Acl { hash: fields.u128()?, bytes: fields.bytes()? }),
            KIND_NODE => NodeRecord::decode(fields).map(SnapshotRecord::Node),
            KIND_META => Ok(SnapshotRecord::Meta { key: fields.u8()?, bytes: fields.bytes()? }),
            _ => Err(SnapshotFault::Malformed("a record of unknown kind")),
        }
    }
}

impl<'a> NodeRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut fixed = [0; 85];
        fixed[0] = KIND_NODE;
        let data_bytes = self.data.map_or(NULL_DATA, |data| data.len() as u32);
        fixed[1..5].copy_from_slice(&(self.path.len() as u32).to_le_bytes());
        fixed[5..9].copy_from_slice(&data_bytes.to_le_bytes());
        fixed[9..17].copy_from_slice(&self.czxid.0.to_le_bytes());
        fixed[17..25].copy_from_slice(&self.mzxid.0.to_le_bytes());
        fixed[25..33].copy_from_slice(&self.pzxid.0.to_le_bytes());
        fixed[33..41].copy_from_slice(&self.ctime_ms.to_le_bytes());
        fixed[41..49].copy_from_slice(&self.mtime_ms.to_le_bytes());
        fixed[49..57].copy_from_slice(&self.ephemeral_owner.to_le_bytes());
        fixed[57..61].copy_from_slice(&self.version.to_le_bytes());
        fixed[61..65].copy_from_slice(&self.cversion.to_le_bytes());
        fixed[65..69].copy_from_slice(&self.aversion.to_le_bytes());
        fixed[69..85].copy_from_slice(&self.acl_hash.to_le_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(self.path.as_bytes());
        out.extend_from_slice(self.data.unwrap_or_default());
    }

    fn decode(fields: &mut Fields<'a>) -> Result<NodeRecord<'a>, SnapshotFault> {
        let (path_bytes, data_bytes) = (fields.u32()?, fields.u32()?);
        let mut node = NodeRecord {
            path: "",
            data: None,
            czxid: Zxid(fields.u64()?),
            mzxid: Zxid(fields.u64()?),
            pzxid: Zxid(fields.u64()?),
            ctime_ms: fields.u64()? as i64,
            mtime_ms: fields.u64()? as i64,
            ephemeral_owner: fields.u64()? as i64,
            version: fields.u32()? as i32,
            cversion: fields.u32()? as i32,
            aversion: fields.u32()? as i32,
            acl_hash: fields.u128()?,
        };
        let path = fields.take(path_bytes as usize)?;
        node.path = std::str::from_utf8(path).map_err(|_| SnapshotFault::Malformed("a path that is not UTF-8"))?;
        if data_bytes != NULL_DATA {
            node.data = Some(fields.take(data_bytes as usize)?);
        }
        Ok(node)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Checks magic and version.
pub(super) fn check_magic(fields: &mut Fields<'_>, magic: [u8; 4]) -> Result<(), SnapshotFault> {
    if fields.take(4)? != magic {
        return Err(SnapshotFault::Magic);
    }
    let version = fields.u32()?;
    if version == SNAPSHOT_FORMAT_VERSION { Ok(()) } else { Err(SnapshotFault::Version(version)) }
}

/// Takes fields off a slice, never beyond its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], SnapshotFault> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(SnapshotFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotFault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SnapshotFault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, SnapshotFault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, SnapshotFault> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, SnapshotFault> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, SnapshotFault> {
        self.array().map(u128::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], SnapshotFault> {
        let bytes = self.u32()?;
        self.take(bytes as usize)
    }
}
