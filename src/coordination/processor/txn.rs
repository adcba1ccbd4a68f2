//! Transactions: the ordered results of their sub-operations.
//!
//! Applying a transaction is unconditional, needs no other shard, and may be repeated (rule B3); the reply to its request and
//! the events of its watches are built from it alone. These bytes are made once, by prep, and serve the log, the shards, and
//! later the learners.
//!
//! All integers little-endian; `text` is a u32 length and UTF-8; `blob` a u32 length (`0xffff_ffff` for null) and bytes; `acl`
//! a content hash u128 and the list as a blob holding a jute vector; a bare hash is a u128.
//!
//! ```text
//! transaction  zxid u64 | time_ms i64 | session i64 | boot u64 | connection u64 | sequence u64 | shard u16 | xid i32 | record*
//! record       1 create         path text | data blob | owner i64 | acl | parent acl hash | parent cversion i32
//!              2 delete         path text | acl hash | parent acl hash | parent cversion i32
//!              3 setData        path text | data blob | acl hash | stat | children i32
//!              4 setACL         path text | acl | stat | children i32 | data length i32
//!              5 check
//!              6 error          code i32
//!              7 multi failed   failing slot u32 | slots u32 | code i32
//!              8 multi          slots u32                               (precedes the slots' records)
//!              9 createSession  session i64 | timeout_ms u32
//!             10 moveSession    session i64 | timeout_ms u32
//!             11 closeSession   session i64                             (precedes the deletes of its ephemerals)
//!             12 openEpoch
//! stat         czxid mzxid pzxid u64 | ctime_ms mtime_ms i64 | version cversion aversion i32 | owner i64
//! batch        (length u32 | transaction)*
//! ```
//!
//! The session, boot nonce, shard, connection, sequence and xid name the request (rule B5).

use super::message::RequestId;
use crate::base::{ConnectionId, SessionId, ShardId, Zxid};
use crate::coordination::tree::{AclHash, AclList, NodeStat};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::AclVector;
use std::sync::Arc;
use thiserror::Error;

/// Length of the length that stands before each transaction of a batch.
pub const LENGTH_BYTES: usize = 4;
/// Length of a transaction's header.
pub const HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 8 + 8 + 2 + 4;

/// A transaction that cannot be read. Checksums and version numbers come before, so this is a defect, never bad luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed transaction")]
pub struct MalformedTxn;

/// What precedes the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnHeader {
    /// Its place in the order.
    pub zxid: Zxid,
    /// Wall clock at prep.
    pub time_ms: i64,
    /// The session that asked for it; [`SessionId::NONE`] when the server did.
    pub session: SessionId,
    /// The request that it answers.
    pub request: RequestId,
    /// The client's number for the request.
    pub xid: i32,
}

/// An access list in a transaction: its name, and the list itself for those who do not know it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnAcl<'a> {
    /// Its name.
    pub hash: AclHash,
    vector: &'a [u8],
}

impl TxnAcl<'_> {
    /// The list.
    pub fn to_list(&self) -> Result<Arc<AclList>, MalformedTxn> {
        let vector = AclVector::decode(&mut Input::new(self.vector)).map_err(|_| MalformedTxn)?;
        Ok(Arc::new(AclList::new(vector.to_vec())))
    }
}

/// The result of one sub-operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TxnRecord<'a> {
    Create {
        path: &'a str,
        data: Option<&'a [u8]>,
        owner: SessionId,
        acl: TxnAcl<'a>,
        parent_acl: AclHash,
        parent_cversion: i32,
    },
    Delete {
        path: &'a str,
        acl: AclHash,
        parent_acl: AclHash,
        parent_cversion: i32,
    },
    SetData {
        path: &'a str,
        data: Option<&'a [u8]>,
        acl: AclHash,
        stat: NodeStat,
        num_children: i32,
    },
    SetAcl {
        path: &'a str,
        acl: TxnAcl<'a>,
        stat: NodeStat,
        num_children: i32,
        data_length: i32,
    },
    Check,
    Error {
        code: i32,
    },
    MultiFailed {
        slot: u32,
        slots: u32,
        code: i32,
    },
    Multi {
        slots: u32,
    },
    CreateSession {
        session: SessionId,
        timeout_ms: u32,
    },
    MoveSession {
        session: SessionId,
        timeout_ms: u32,
    },
    CloseSession {
        session: SessionId,
    },
    OpenEpoch,
}

/// A transaction, borrowing from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Txn<'a> {
    /// Who asked, and when.
    pub header: TxnHeader,
    records: &'a [u8],
}

impl<'a> Txn<'a> {
    /// Reads the header; the records are read as they are iterated.
    pub fn decode(bytes: &'a [u8]) -> Result<Txn<'a>, MalformedTxn> {
        let mut reader = Reader { rest: bytes };
        let (zxid, time_ms) = (Zxid(reader.u64()?), reader.i64()?);
        let session = SessionId(reader.i64()?);
        let (boot, number, sequence) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let shard = ShardId(reader.u16()?);
        let xid = reader.i32()?;
        let request = RequestId { connection: ConnectionId { boot, shard, number }, sequence };
        Ok(Txn { header: TxnHeader { zxid, time_ms, session, request, xid }, records: reader.rest })
    }

    /// The results in order.
    pub fn records(&self) -> TxnRecords<'a> {
        TxnRecords { reader: Reader { rest: self.records } }
    }

    /// The stat of a node that this transaction created.
    pub fn created_stat(&self, owner: SessionId) -> NodeStat {
        NodeStat::created(self.header.zxid, self.header.time_ms, owner)
    }
}

/// Iterates over the records of a transaction.
#[derive(Clone, Debug)]
pub struct TxnRecords<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for TxnRecords<'a> {
    type Item = Result<TxnRecord<'a>, MalformedTxn>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest.is_empty() {
            return None;
        }
        let record = self.reader.record();
        if record.is_err() {
            self.reader.rest = &[];
        }
        Some(record)
    }
}

/// The transactions of a batch's bytes, in order.
pub fn batch_txns(bytes: &[u8]) -> impl Iterator<Item = Result<Txn<'_>, MalformedTxn>> {
    let mut reader = Reader { rest: bytes };
    std::iter::from_fn(move || {
        if reader.rest.is_empty() {
            return None;
        }
        let txn = reader.u32().and_then(|len| reader.take(len as usize)).and_then(Txn::decode);
        if txn.is_err() {
            reader.rest = &[];
        }
        Some(txn)
    })
}

#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MalformedTxn> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(MalformedTxn)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedTxn> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(MalformedTxn)?;
        self.rest = tail;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, MalformedTxn> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, MalformedTxn> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, MalformedTxn> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, MalformedTxn> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, MalformedTxn> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn hash(&mut self) -> Result<AclHash, MalformedTxn> {
        Ok(AclHash(u128::from_le_bytes(self.array()?)))
    }

    fn blob(&mut self) -> Result<Option<&'a [u8]>, MalformedTxn> {
        match self.u32()? {
            u32::MAX => Ok(None),
            len => self.take(len as usize).map(Some),
        }
    }

    fn text(&mut self) -> Result<&'a str, MalformedTxn> {
        std::str::from_utf8(self.blob()?.ok_or(MalformedTxn)?).map_err(|_| MalformedTxn)
    }

    fn acl(&mut self) -> Result<TxnAcl<'a>, MalformedTxn> {
        Ok(TxnAcl { hash: self.hash()?, vector: self.blob()?.ok_or(MalformedTxn)? })
    }

    fn stat(&mut self) -> Result<NodeStat, MalformedTxn> {
        Ok(NodeStat {
            czxid: Zxid(self.u64()?),
            mzxid: Zxid(self.u64()?),
            pzxid: Zxid(self.u64()?),
            ctime_ms: self.i64()?,
            mtime_ms: self.i64()?,
            version: self.i32()?,
            cversion: self.i32()?,
            aversion: self.i32()?,
            ephemeral_owner: SessionId(self.i64()?),
        })
    }

    fn record(&mut self) -> Result<TxnRecord<'a>, MalformedTxn> {
        Ok(match self.array::<1>()?[0] {
            1 => TxnRecord::Create {
                path: self.text()?,
                data: self.blob()?,
                owner: SessionId(self.i64()?),
                acl: self.acl()?,
                parent_acl: self.hash()?,
                parent_cversion: self.i32()?,
            },
            2 => TxnRecord::Delete {
                path: self.text()?,
                acl: self.hash()?,
                parent_acl: self.hash()?,
                parent_cversion: self.i32()?,
            },
            3 => TxnRecord::SetData {
                path: self.text()?,
                data: self.blob()?,
                acl: self.hash()?,
                stat: self.stat()?,
                num_children: self.i32()?,
            },
            4 => TxnRecord::SetAcl {
                path: self.text()?,
                acl: self.acl()?,
                stat: self.stat()?,
                num_children: self.i32()?,
                data_length: self.i32()?,
            },
            5 => TxnRecord::Check,
            6 => TxnRecord::Error { code: self.i32()? },
            7 => TxnRecord::MultiFailed { slot: self.u32()?, slots: self.u32()?, code: self.i32()? },
            8 => TxnRecord::Multi { slots: self.u32()? },
            9 => TxnRecord::CreateSession { session: SessionId(self.i64()?), timeout_ms: self.u32()? },
            10 => TxnRecord::MoveSession { session: SessionId(self.i64()?), timeout_ms: self.u32()? },
            11 => TxnRecord::CloseSession { session: SessionId(self.i64()?) },
            12 => TxnRecord::OpenEpoch,
            _ => return Err(MalformedTxn),
        })
    }
}

/// Appends one transaction to a batch's bytes: the header at once, then record after record.
pub struct TxnWriter<'b> {
    bytes: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> TxnWriter<'b> {
    /// Starts a transaction at the end of `bytes`.
    pub fn begin(bytes: &'b mut Vec<u8>, header: &TxnHeader) -> TxnWriter<'b> {
        let start = bytes.len();
        let mut writer = TxnWriter { bytes, start };
        writer.raw(&[0; LENGTH_BYTES]);
        writer.raw(&header.zxid.0.to_le_bytes());
        writer.raw(&header.time_ms.to_le_bytes());
        writer.raw(&header.session.0.to_le_bytes());
        let RequestId { connection, sequence } = header.request;
        writer.raw(&connection.boot.to_le_bytes());
        writer.raw(&connection.number.to_le_bytes());
        writer.raw(&sequence.to_le_bytes());
        writer.raw(&connection.shard.0.to_le_bytes());
        writer.raw(&header.xid.to_le_bytes());
        writer
    }

    /// Goes on with the transaction that begins at `start` and was left unfinished.
    pub fn resume(bytes: &'b mut Vec<u8>, start: usize) -> TxnWriter<'b> {
        debug_assert!(bytes.len() >= start + LENGTH_BYTES + HEADER_BYTES, "the header was written");
        TxnWriter { bytes, start }
    }

    /// Takes back all records; the header stays.
    pub fn clear_records(&mut self) {
        self.bytes.truncate(self.start + LENGTH_BYTES + HEADER_BYTES);
    }

    /// Ends the transaction.
    pub fn finish(self) {
        let len = self.bytes.len() - self.start - LENGTH_BYTES;
        let len = u32::try_from(len).expect("a transaction is shorter than 4 GiB");
        self.bytes[self.start..self.start + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    }

    /// Takes the whole transaction back.
    pub fn abandon(self) {
        self.bytes.truncate(self.start);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    fn blob(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.u32(u32::MAX),
            Some(bytes) => {
                self.u32(u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB"));
                self.raw(bytes);
            }
        }
    }

    fn hash(&mut self, hash: AclHash) {
        self.raw(&hash.0.to_le_bytes());
    }

    fn acl(&mut self, list: &AclList) {
        self.hash(list.hash());
        let count = i32::try_from(list.entries().len()).expect("an ACL came in a frame");
        self.u32(4 + list.entry_bytes().len() as u32);
        self.raw(&count.to_be_bytes());
        self.raw(list.entry_bytes());
    }

    fn stat(&mut self, stat: &NodeStat) {
        for zxid in [stat.czxid, stat.mzxid, stat.pzxid] {
            self.raw(&zxid.0.to_le_bytes());
        }
        self.i64(stat.ctime_ms);
        self.i64(stat.mtime_ms);
        for version in [stat.version, stat.cversion, stat.aversion] {
            self.i32(version);
        }
        self.i64(stat.ephemeral_owner.0);
    }

    fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    /// A node was created.
    pub fn create(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        owner: SessionId,
        acl: &AclList,
        parent_acl: AclHash,
        parent_cversion: i32,
    ) {
        self.tag(1);
        self.blob(Some(path.as_bytes()));
        self.blob(data);
        self.i64(owner.0);
        self.acl(acl);
        self.hash(parent_acl);
        self.i32(parent_cversion);
    }

    /// A node was deleted.
    pub fn delete(&mut self, path: &str, acl: AclHash, parent_acl: AclHash, parent_cversion: i32) {
        self.tag(2);
        self.blob(Some(path.as_bytes()));
        self.hash(acl);
        self.hash(parent_acl);
        self.i32(parent_cversion);
    }

    /// A node's data was set.
    pub fn set_data(&mut self, path: &str, data: Option<&[u8]>, acl: AclHash, stat: &NodeStat, num_children: i32) {
        self.tag(3);
        self.blob(Some(path.as_bytes()));
        self.blob(data);
        self.hash(acl);
        self.stat(stat);
        self.i32(num_children);
    }

    /// A node's access list was set.
    pub fn set_acl(&mut self, path: &str, acl: &AclList, stat: &NodeStat, num_children: i32, data_length: i32) {
        self.tag(4);
        self.blob(Some(path.as_bytes()));
        self.acl(acl);
        self.stat(stat);
        self.i32(num_children);
        self.i32(data_length);
    }

    /// A check inside a multi passed.
    pub fn check(&mut self) {
        self.tag(5);
    }

    /// The request was refused.
    pub fn error(&mut self, code: i32) {
        self.tag(6);
        self.i32(code);
    }

    /// A multi of `slots` sub-operations was refused because of one of them.
    pub fn multi_failed(&mut self, slot: usize, slots: usize, code: i32) {
        self.tag(7);
        self.u32(slot as u32);
        self.u32(slots as u32);
        self.i32(code);
    }

    /// A multi of `slots` sub-operations, whose records follow.
    pub fn multi(&mut self, slots: usize) {
        self.tag(8);
        self.u32(slots as u32);
    }

    /// A session was created.
    pub fn create_session(&mut self, session: SessionId, timeout_ms: u32) {
        self.tag(9);
        self.i64(session.0);
        self.u32(timeout_ms);
    }

    /// A session was moved to another connection.
    pub fn move_session(&mut self, session: SessionId, timeout_ms: u32) {
        self.tag(10);
        self.i64(session.0);
        self.u32(timeout_ms);
    }

    /// A session was closed; the deletes of its ephemerals follow.
    pub fn close_session(&mut self, session: SessionId) {
        self.tag(11);
        self.i64(session.0);
    }

    /// An epoch begins.
    pub fn open_epoch(&mut self) {
        self.tag(12);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> TxnHeader {
        TxnHeader {
            zxid: Zxid::new(3, 9),
            time_ms: 1234,
            session: SessionId(77),
            request: RequestId { connection: ConnectionId { boot: 5, shard: ShardId(2), number: 8 }, sequence: 11 },
            xid: -3,
        }
    }

    /// The same bytes serve log, shards and learners: what is written must be what is read, null data included.
    #[test]
    fn every_record_reads_back_as_written() {
        let list = AclList::read_only();
        let stat = NodeStat { version: 4, cversion: 5, ..NodeStat::created(Zxid(7), 8, SessionId(9)) };
        let mut bytes = Vec::new();
        let mut writer = TxnWriter::begin(&mut bytes, &header());
        writer.check();
        writer.clear_records();
        assert_eq!(bytes.len(), LENGTH_BYTES + HEADER_BYTES);
        let mut writer = TxnWriter::resume(&mut bytes, 0);
        writer.multi(4);
        writer.create("/a", None, SessionId(1), &list, AclHash(5), 6);
        writer.set_data("/b", Some(b""), AclHash(2), &stat, 3);
        writer.set_acl("/c", &list, &stat, 1, 2);
        writer.delete("/d", AclHash(1), AclHash(2), -3);
        writer.close_session(SessionId(4));
        writer.finish();

        let txns: Vec<Txn> = batch_txns(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!((txns.len(), txns[0].header), (1, header()));
        let records: Vec<TxnRecord> = txns[0].records().collect::<Result<_, _>>().unwrap();
        assert_eq!(records[0], TxnRecord::Multi { slots: 4 });
        let TxnRecord::Create { path: "/a", data: None, acl, parent_cversion: 6, .. } = records[1] else { panic!() };
        assert_eq!(*acl.to_list().unwrap(), list);
        assert_eq!(
            records[2],
            TxnRecord::SetData { path: "/b", data: Some(b""), acl: AclHash(2), stat, num_children: 3 }
        );
        assert!(matches!(records[3], TxnRecord::SetAcl { path: "/c", data_length: 2, .. }));
        assert_eq!(records[5], TxnRecord::CloseSession { session: SessionId(4) });
        assert_eq!(records.len(), 6);
    }

    /// A transaction cut anywhere is an error, never a shorter transaction.
    #[test]
    fn truncated_transaction_is_an_error() {
        let mut bytes = Vec::new();
        let mut writer = TxnWriter::begin(&mut bytes, &header());
        writer.create("/a", Some(b"data"), SessionId::NONE, &AclList::open(), AclHash(5), 6);
        writer.finish();
        for cut in 1..bytes.len() {
            assert!(batch_txns(&bytes[..cut]).any(|txn| txn.is_err()), "cut at {cut}");
        }
    }
}
