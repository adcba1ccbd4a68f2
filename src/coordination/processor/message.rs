//! What shards and the sequencer say to each other.
//!
//! Three kinds of FIFO: from every shard to the sequencer ([`ToSequencer`]), from the sequencer to every shard ([`ToShard`]:
//! batches *and* lookups, so that a lookup never overtakes a commit, rule B1), and from every shard to every shard
//! ([`PeerMessage`](super::peer::PeerMessage)).

use super::request_pack::RequestPack;
use crate::base::{ConnectionId, SessionId, Zxid};
use crate::coordination::auth::Identities;
use crate::coordination::tree::NodeImage;
use crate::protocol::zookeeper::ErrorCode;
use bytes::Bytes;
use std::sync::Arc;

/// Names a request for ever: a connection of one process life, and the request's number on it (rule B5). The handshake is
/// number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// Counts the requests of the connection.
    pub sequence: u64,
}

/// A request that needs agreement, on its way to the sequencer.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Its name.
    pub id: RequestId,
    /// The session of its connection; [`SessionId::NONE`] for a new one.
    pub session: SessionId,
    /// The client's number for it.
    pub xid: i32,
    /// Whom the connection had proved to be when the request took its turn (rule A13).
    pub identities: Identities,
    /// What is asked.
    pub body: WriteBody,
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum WriteBody {
    /// create, create2, delete, setData, setACL or multi: a record that the home shard found to be well formed.
    Operation {
        /// The operation code.
        op: i32,
        /// The record.
        record: Bytes,
    },
    /// Complete when everything proposed before has been applied.
    Sync,
    /// A new session.
    CreateSession {
        /// Negotiated.
        timeout_ms: u32,
        /// What the client has seen already.
        last_zxid_seen: Zxid,
    },
    /// The session of the request comes to this connection. Its password was checked.
    MoveSession {
        /// Negotiated anew.
        timeout_ms: u32,
        /// What the client has seen already.
        last_zxid_seen: Zxid,
    },
    /// The session of the request ends.
    CloseSession,
}

impl WriteRequest {
    /// About how much memory it holds.
    pub fn bytes(&self) -> usize {
        let record = match &self.body {
            WriteBody::Operation { record, .. } => record.len(),
            _ => 0,
        };
        size_of::<WriteRequest>() + record
    }
}

/// From a shard to the sequencer.
#[derive(Clone, Debug)]
pub enum ToSequencer {
    /// Please order these.
    Requests(RequestPack),
    /// The answer to [`ToShard::Lookup`].
    LookupAnswer(LookupAnswer),
    /// These sessions were heard of.
    Touched(Vec<SessionId>),
}

/// From the sequencer to a shard.
#[derive(Clone, Debug)]
pub enum ToShard {
    /// Apply this.
    Batch(Batch),
    /// What do you have here, everything before this message applied?
    Lookup(Lookup),
}

/// Committed transactions in zxid order; the bytes are shared by all shards.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// [`super::txn::batch_txns`] reads them.
    pub txns: Bytes,
    /// Answers that are no transactions, each with its place.
    pub marks: Vec<Mark>,
}

/// The answer to a request that took no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its place: right after this transaction.
    pub after: Zxid,
    /// Whom it answers.
    pub request: RequestId,
    /// The answer.
    pub answer: MarkAnswer,
}

/// What a [`Mark`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkAnswer {
    /// A sync is complete.
    Synced,
    /// The session to re-attach to does not exist.
    SessionGone,
    /// The write is refused before it was validated: the log has no room.
    Refused(ErrorCode),
    /// Close the connection without a word: the session has moved on, or the client has seen what this server has not.
    Close,
}

/// Names a [`Lookup`] of one leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LookupTicket(pub u64);

/// Questions of prep to the owner of some records.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Returned with the answer.
    pub ticket: LookupTicket,
    /// What is asked.
    pub keys: Arc<[LookupKey]>,
}

/// One thing that prep asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookupKey {
    /// The node at this path, if it exists.
    Node(Box<str>),
    /// The ephemeral nodes of this session at the shard that is asked.
    Ephemerals(SessionId),
}

/// The answers, in the order of the keys.
#[derive(Clone, Debug)]
pub struct LookupAnswer {
    /// Of the question.
    pub ticket: LookupTicket,
    /// What was found.
    pub values: Vec<LookupValue>,
}

/// One thing that prep asked for.
#[derive(Clone, Debug)]
pub enum LookupValue {
    /// The node, if it exists.
    Node(Option<NodeImage>),
    /// Sorted paths.
    Ephemerals(Vec<Box<str>>),
}
