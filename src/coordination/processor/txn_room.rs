//! The most that the transaction of a request takes of the log, known before the request is validated (rule B11): a log that is full
//! must refuse a write before it is proposed, since a proposal that cannot be written stops every write behind it.
//!
//! The bound follows the format in [`super::txn`]. Nothing of a request is repeated in its transaction, except access lists that name
//! `auth`; so its own length, and something for each part, is enough.

use super::message::{WriteBody, WriteRequest};
use super::txn::HEADER_BYTES;
use crate::coordination::auth::{EXPANSION_BYTES_MAX, Identities};
use crate::protocol::zookeeper::{MultiReader, OpCode};

/// What the log may add to a record, bytes.
pub const LOG_HEAD_BYTES_MAX: usize = 16;
/// A transaction without any path, data or list: header, head, and the longest record of fixed length.
pub const TXN_ROOM_MIN: usize = HEADER_BYTES + LOG_HEAD_BYTES_MAX + 32;
/// What the record of a part takes beyond the part itself: two ACL hashes, a stat, a sequence number, lengths and counts.
pub const PART_ROOM: usize = 128;
/// What the delete of an ephemeral node takes beside its path.
const DELETE_ROOM: usize = 48;
/// The longest transaction that a request may lead to. Only hostile ones come near; beyond it the log could not take the record.
pub const TXN_BYTES_MAX: usize = 256 << 20;

/// The most that the transaction of `request` takes. For the end of a session: without its ephemeral nodes.
pub fn room_of(request: &WriteRequest) -> usize {
    match &request.body {
        WriteBody::Sync => 0,
        WriteBody::Operation { op, record } => {
            let parts = if *op == OpCode::Multi.wire() { parts_in(record) } else { 1 };
            TXN_ROOM_MIN + record.len() + parts * PART_ROOM + expansion_bytes_max(record, parts, &request.identities)
        }
        _ => TXN_ROOM_MIN,
    }
}

/// The most that the end of a session with these ephemeral nodes takes.
pub fn room_of_close(paths: &[Box<str>]) -> usize {
    TXN_ROOM_MIN + paths.iter().map(|path| DELETE_ROOM + path.len()).sum::<usize>()
}

/// Number of parts of a multi.
pub fn parts_in(record: &[u8]) -> usize {
    let mut reader = MultiReader::new(record);
    std::iter::from_fn(|| reader.next_op().ok().flatten()).count()
}

/// By how much the access lists of a request grow when `auth` becomes whom the connection is.
fn expansion_bytes_max(record: &[u8], parts: usize, identities: &Identities) -> usize {
    /// Permissions, two lengths, and the scheme.
    const ENTRY_BYTES_MIN: usize = 16;
    let proved_bytes: usize =
        identities.iter().filter(|id| id.scheme == "digest").map(|id| ENTRY_BYTES_MIN + 2 + id.id.len()).sum();
    if proved_bytes == 0 || !record.windows(4).any(|window| window == b"auth") {
        return 0;
    }
    let entries = record.len() / ENTRY_BYTES_MIN;
    (entries * proved_bytes).min(parts * EXPANSION_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SessionId, Zxid};
    use crate::coordination::processor::message::RequestId;
    use crate::coordination::processor::txn::{LENGTH_BYTES, TxnHeader, TxnWriter};
    use crate::coordination::tree::{AclHash, AclList, NodeStat};
    use crate::protocol::zookeeper::{Acl, AclVector, Create, CreateFlags, Id, MultiOp, Request};
    use bytes::Bytes;
    use std::sync::Arc;

    fn request(request: &Request<'_>, identities: Vec<Id>) -> WriteRequest {
        const FRAME_HEADER_BYTES: usize = 12;
        let mut frame = Vec::new();
        request.encode_frame(1, &mut frame);
        let record = Bytes::copy_from_slice(&frame[FRAME_HEADER_BYTES..]);
        WriteRequest {
            id: RequestId::default(),
            session: SessionId(1),
            xid: 1,
            identities: Arc::new(identities),
            body: WriteBody::Operation { op: request.op_code().wire(), record },
        }
    }

    fn written(write: impl FnOnce(&mut TxnWriter<'_>)) -> usize {
        let (zxid, session) = (Zxid(1), SessionId(1));
        let header = TxnHeader { zxid, time_ms: 0, session, request: RequestId::default(), xid: 0 };
        let mut bytes = Vec::new();
        let mut writer = TxnWriter::begin(&mut bytes, &header);
        write(&mut writer);
        writer.finish();
        bytes.len() - LENGTH_BYTES + LOG_HEAD_BYTES_MAX
    }

    /// On a full disk small parts and many ephemeral nodes took more than was asked for: the write was proposed, could not be written,
    /// and its client waited for ever. Every kind of record is written here at its longest and held against the bound.
    #[test]
    fn nothing_takes_more_than_its_bound() {
        let mut scratch = Vec::new();
        let list = AclList::new(vec![Acl::open()]);
        let acl = AclVector::from_acls(list.entries(), &mut scratch);
        let (hash, stat) = (AclHash(0), NodeStat::default());
        let create = Create { path: "/a", data: None, acl, flags: CreateFlags(3), ttl_ms: None, with_stat: true };
        let cases: [(Request<'_>, usize); 4] = [
            (Request::Create(create), written(|w| w.create("/a-2147483648", None, SessionId(1), &list, hash, 1))),
            (Request::Delete { path: "/a", version: 1 }, written(|w| w.delete("/a", hash, hash, 1))),
            (
                Request::SetData { path: "/a", data: None, version: 1 },
                written(|w| w.set_data("/a", None, hash, &stat, 1)),
            ),
            (Request::SetAcl { path: "/a", acl, version: 1 }, written(|w| w.set_acl("/a", &list, &stat, 1, 1))),
        ];
        for (case, bytes) in cases {
            let room = room_of(&request(&case, Vec::new()));
            assert!(bytes <= room && room <= bytes + 2 * PART_ROOM, "{bytes} of {room}: {case:?}");
        }
        let parts = [
            MultiOp::Create(create),
            MultiOp::Delete { path: "/a", version: 1 },
            MultiOp::SetData { path: "/a", data: None, version: 1 },
            MultiOp::Check { path: "/a", version: 1 },
        ];
        for count in [1, 10_000] {
            for part in parts {
                let room = room_of(&request(&Request::Multi((0..count).map(|_| part).collect()), Vec::new()));
                let bytes = written(|writer| {
                    writer.multi(count);
                    (0..count).for_each(|_| match part {
                        MultiOp::Create(_) => writer.create("/a-2147483648", None, SessionId(1), &list, hash, 1),
                        MultiOp::Delete { .. } => writer.delete("/a", hash, hash, 1),
                        MultiOp::SetData { .. } => writer.set_data("/a", None, hash, &stat, 1),
                        _ => writer.check(),
                    });
                });
                assert!(bytes <= room, "{bytes} of {room}: {count} of {part:?}");
            }
        }
        let paths: Vec<Box<str>> = (0..10_000).map(|i| format!("/{i}").into()).collect();
        let bytes = written(|writer| {
            writer.close_session(SessionId(1));
            paths.iter().for_each(|path| writer.delete(path, hash, hash, 1));
        });
        assert!(bytes <= room_of_close(&paths));
    }

    /// One short entry of an access list may stand for every identity that the connection has proved.
    #[test]
    fn lists_that_name_auth_are_counted_as_what_they_become() {
        let ids: Vec<Id> = (0..100).map(|i| Id::new("digest", format!("user{i}:{}", "x".repeat(28)))).collect();
        let fixed: Vec<Acl> = ids.iter().map(|id| Acl { perms: 31, id: id.clone() }).collect();
        let list = AclList::new(fixed);
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[Acl { perms: 31, id: Id::new("auth", "") }], &mut scratch);
        let create =
            Create { path: "/a", data: None, acl, flags: CreateFlags::PERSISTENT, ttl_ms: None, with_stat: true };
        let one = written(|writer| writer.create("/a", None, SessionId::NONE, &list, AclHash(0), 1));
        let alone = request(&Request::Create(create), ids.clone());
        assert!(one <= room_of(&alone));
        let multi = request(&Request::Multi((0..50).map(|_| MultiOp::Create(create)).collect()), ids);
        assert!(50 * one <= room_of(&multi));
    }
}
