//! What happened, as seen from outside the server, and in which order the server committed.

use super::model::ModelNode;
use crate::base::{SessionId, Zxid};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A moment of a simulation: virtual time, and a number that no two moments share and that grows with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Virtual microseconds since the start.
    pub time_us: u64,
    /// Counts everything that is recorded.
    pub step: u64,
}

/// A connection of the history: an index into [`History::connections`].
pub type ConnectionKey = usize;

/// Something that a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it left the client.
    pub at: Moment,
    /// The body of a frame; for [`Sent::broken_frame`], bytes that are none.
    pub body: Vec<u8>,
    /// True when the bytes are not a frame: a length out of range.
    pub broken_frame: bool,
}

/// A frame that a client received.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was whole at the client.
    pub at: Moment,
    /// The bytes after the length.
    pub body: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The client broke it off; what was under way is lost.
    Client,
    /// The server closed it; the client has received all that was sent before.
    Server,
    /// The server crashed.
    Crash,
}

/// A connection as its client saw it.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    /// Which client.
    pub client: usize,
    /// Which life of the server.
    pub life: usize,
    /// Where the server sees it come from.
    pub address: Ipv4Addr,
    /// Everything sent: first the handshake, then request 1, 2, ...
    pub sent: Vec<Sent>,
    /// Every whole frame received.
    pub received: Vec<Received>,
    /// How and when it ended, if it did.
    pub closed: Option<(Moment, ClosedBy)>,
    /// True when the handshake names the session with a password that is not its own.
    pub wrong_password: bool,
}

/// What a committed transaction was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommittedKind {
    /// The operation that the request asks for.
    Operation,
    /// A new session.
    CreateSession {
        /// Negotiated.
        timeout_ms: u32,
    },
    /// The session came to the connection of the request.
    MoveSession {
        /// Negotiated anew.
        timeout_ms: u32,
    },
    /// The session ended: by the request, or expired when there is none.
    CloseSession,
    /// Nothing: the opening record of an epoch.
    Nothing,
}

/// A committed transaction: its place and its identity, never its result.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its place.
    pub zxid: Zxid,
    /// The server's wall clock when it was proposed.
    pub time_ms: i64,
    /// When it was committed.
    pub at: Moment,
    /// Whose it is.
    pub session: SessionId,
    /// The connection and the number of the request on it.
    pub request: Option<(ConnectionKey, u64)>,
    /// What it was made for.
    pub kind: CommittedKind,
}

/// The state of a server, node by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Every node.
    pub nodes: BTreeMap<String, ModelNode>,
    /// The names of each node's children, as the node itself lists them, sorted.
    pub children: BTreeMap<String, Vec<String>>,
    /// Every session with its timeout in milliseconds.
    pub sessions: BTreeMap<SessionId, u32>,
    /// Whether every part of the server knows the same sessions.
    pub sessions_agree: bool,
    /// Of how many parts of the server this is the sum.
    pub shards: usize,
}

/// A life of the server: from its start to its crash, or to the end of the run.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Number of shards.
    pub shards: usize,
    /// When it began to serve.
    pub started: Moment,
    /// When it crashed, if it did.
    pub crashed: Option<Moment>,
    /// The last transaction that it recovered from disk; everything later of the life before is gone.
    pub recovered: Zxid,
    /// What it recovered.
    pub recovered_dump: Dump,
    /// The one place where transaction numbers leave some out: it goes on after this one.
    pub skipped_to: Option<Zxid>,
    /// What was committed, in order. Transactions that only the recovery of the next life brought to light are among them,
    /// in their place, with the moment of the crash.
    pub committed: Vec<Committed>,
    /// The state at the end of the run, after everything was applied; only of the last life.
    pub final_dump: Option<Dump>,
}

impl Life {
    /// True when every part of the server came to serve, so that what it recovered is known.
    pub fn is_complete(&self) -> bool {
        self.recovered_dump.shards == self.shards
    }
}

impl History {
    /// True when the server had no room for more log at some time between two moments.
    pub fn had_no_room(&self, from: Moment, until: Moment) -> bool {
        self.no_room.iter().any(|(start_us, end_us)| *start_us <= until.time_us && from.time_us <= *end_us)
    }
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The seed that makes it again.
    pub seed: u64,
    /// What the server's wall clock shows at virtual time 0.
    pub wall_clock_start_ms: i64,
    /// Every connection, in order of opening.
    pub connections: Vec<ClientConnection>,
    /// Every life of the server, in order.
    pub lives: Vec<Life>,
    /// From when to when, in microseconds, a part of the server did not turn: what it had to tell was late.
    pub stalls: Vec<(u64, u64)>,
    /// From when to when, in microseconds, the server had no room for more log: it may refuse writes and new sessions.
    pub no_room: Vec<(u64, u64)>,
    /// When the run ended. Connections that are still open have received everything by then.
    pub ended: Moment,
}
