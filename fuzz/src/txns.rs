//! Transactions as the log holds them.

use crate::requests::{AclBytes, Path};
use arbitrary::Arbitrary;
use ringkeeper::base::{ConnectionId, SessionId, ShardId, Zxid};
use ringkeeper::coordination::processor::message::RequestId;
use ringkeeper::coordination::processor::txn::{Txn, TxnHeader, TxnRecord, TxnWriter};
use ringkeeper::coordination::tree::{AclHash, AclList, NodeStat};

/// A stat with any content.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct AnyStat {
    zxids: [u64; 3],
    times_ms: [i64; 2],
    versions: [i32; 3],
    owner: i64,
}

impl AnyStat {
    fn stat(&self) -> NodeStat {
        NodeStat {
            czxid: Zxid(self.zxids[0]),
            mzxid: Zxid(self.zxids[1]),
            pzxid: Zxid(self.zxids[2]),
            ctime_ms: self.times_ms[0],
            mtime_ms: self.times_ms[1],
            version: self.versions[0],
            cversion: self.versions[1],
            aversion: self.versions[2],
            ephemeral_owner: SessionId(self.owner),
        }
    }
}

/// A record with any content.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Debug)]
pub enum AnyRecord<'a> {
    Create { path: Path<'a>, data: Option<&'a [u8]>, owner: i64, acl: AclBytes, parent_acl: u128, cversion: i32 },
    Delete { path: Path<'a>, acl: u128, parent_acl: u128, cversion: i32 },
    SetData { path: Path<'a>, data: Option<&'a [u8]>, acl: u128, stat: AnyStat, children: i32 },
    SetAcl { path: Path<'a>, acl: AclBytes, stat: AnyStat, children: i32, data_length: i32 },
    Check,
    Error(i32),
    MultiFailed { slot: u32, slots: u32, code: i32 },
    Multi(u32),
    CreateSession { session: i64, timeout_ms: u32 },
    MoveSession { session: i64, timeout_ms: u32 },
    CloseSession(i64),
    OpenEpoch,
}

fn list(acl: &AclBytes) -> AclList {
    AclList::new(acl.vector().to_vec())
}

impl AnyRecord<'_> {
    fn write(&self, writer: &mut TxnWriter<'_>) {
        match self {
            AnyRecord::Create { path, data, owner, acl, parent_acl, cversion } => {
                writer.create(path.0, *data, SessionId(*owner), &list(acl), AclHash(*parent_acl), *cversion);
            }
            AnyRecord::Delete { path, acl, parent_acl, cversion } => {
                writer.delete(path.0, AclHash(*acl), AclHash(*parent_acl), *cversion);
            }
            AnyRecord::SetData { path, data, acl, stat, children } => {
                writer.set_data(path.0, *data, AclHash(*acl), &stat.stat(), *children);
            }
            AnyRecord::SetAcl { path, acl, stat, children, data_length } => {
                writer.set_acl(path.0, &list(acl), &stat.stat(), *children, *data_length);
            }
            AnyRecord::Check => writer.check(),
            AnyRecord::Error(code) => writer.error(*code),
            AnyRecord::MultiFailed { slot, slots, code } => writer.multi_failed(*slot as usize, *slots as usize, *code),
            AnyRecord::Multi(slots) => writer.multi(*slots as usize),
            AnyRecord::CreateSession { session, timeout_ms } => writer.create_session(SessionId(*session), *timeout_ms),
            AnyRecord::MoveSession { session, timeout_ms } => writer.move_session(SessionId(*session), *timeout_ms),
            AnyRecord::CloseSession(session) => writer.close_session(SessionId(*session)),
            AnyRecord::OpenEpoch => writer.open_epoch(),
        }
    }

    /// Whether `read` says what was written.
    fn is(&self, read: &TxnRecord<'_>) -> bool {
        match (self, *read) {
            (
                AnyRecord::Create { path, data, owner, acl, parent_acl, cversion },
                TxnRecord::Create { path: p, data: d, owner: o, acl: a, parent_acl: pa, parent_cversion: pc },
            ) => {
                let same_acl = a.hash == list(acl).hash() && a.to_list().is_ok_and(|read| *read == list(acl));
                same_acl && (path.0, *data, SessionId(*owner), AclHash(*parent_acl), *cversion) == (p, d, o, pa, pc)
            }
            (
                AnyRecord::SetAcl { path, acl, stat, children, data_length },
                TxnRecord::SetAcl { path: p, acl: a, stat: s, num_children: c, data_length: l },
            ) => {
                let same_acl = a.hash == list(acl).hash() && a.to_list().is_ok_and(|read| *read == list(acl));
                same_acl && (path.0, stat.stat(), *children, *data_length) == (p, s, c, l)
            }
            (AnyRecord::Create { .. } | AnyRecord::SetAcl { .. }, _) => false,
            (other, read) => other.plain() == Some(read),
        }
    }

    /// The record as it is read, for those without a list.
    fn plain(&self) -> Option<TxnRecord<'_>> {
        Some(match self {
            AnyRecord::Create { .. } | AnyRecord::SetAcl { .. } => return None,
            AnyRecord::Delete { path, acl, parent_acl, cversion } => TxnRecord::Delete {
                path: path.0,
                acl: AclHash(*acl),
                parent_acl: AclHash(*parent_acl),
                parent_cversion: *cversion,
            },
            AnyRecord::SetData { path, data, acl, stat, children } => TxnRecord::SetData {
                path: path.0,
                data: *data,
                acl: AclHash(*acl),
                stat: stat.stat(),
                num_children: *children,
            },
            AnyRecord::Check => TxnRecord::Check,
            AnyRecord::Error(code) => TxnRecord::Error { code: *code },
            AnyRecord::MultiFailed { slot, slots, code } => {
                TxnRecord::MultiFailed { slot: *slot, slots: *slots, code: *code }
            }
            AnyRecord::Multi(slots) => TxnRecord::Multi { slots: *slots },
            AnyRecord::CreateSession { session, timeout_ms } => {
                TxnRecord::CreateSession { session: SessionId(*session), timeout_ms: *timeout_ms }
            }
            AnyRecord::MoveSession { session, timeout_ms } => {
                TxnRecord::MoveSession { session: SessionId(*session), timeout_ms: *timeout_ms }
            }
            AnyRecord::CloseSession(session) => TxnRecord::CloseSession { session: SessionId(*session) },
            AnyRecord::OpenEpoch => TxnRecord::OpenEpoch,
        })
    }
}

/// A transaction with any content.
#[derive(Arbitrary, Clone, Debug)]
pub struct AnyTxn<'a> {
    zxid: u64,
    time_ms: i64,
    session: i64,
    connection: (u64, u16, u64),
    sequence: u64,
    xid: i32,
    records: Vec<AnyRecord<'a>>,
}

impl AnyTxn<'_> {
    fn header(&self) -> TxnHeader {
        let (boot, shard, number) = self.connection;
        let connection = ConnectionId { boot, shard: ShardId(shard), number };
        TxnHeader {
            zxid: Zxid(self.zxid),
            time_ms: self.time_ms,
            session: SessionId(self.session),
            request: RequestId { connection, sequence: self.sequence },
            xid: self.xid,
        }
    }

    /// Appends the transaction to a batch.
    pub fn write(&self, batch: &mut Vec<u8>) {
        let mut writer = TxnWriter::begin(batch, &self.header());
        self.records.iter().for_each(|record| record.write(&mut writer));
        writer.finish();
    }

    /// Whether `read` says what was written.
    pub fn is(&self, read: &Txn<'_>) -> bool {
        let mut records = read.records();
        let same =
            self.records.iter().all(|record| records.next().is_some_and(|read| read.is_ok_and(|r| record.is(&r))));
        same && records.next().is_none() && read.header == self.header()
    }
}
