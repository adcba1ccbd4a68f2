//! Ids as types, so that the compiler keeps them apart.

use std::fmt;

/// A ZooKeeper transaction id: `epoch << 32 | counter`. Totally ordered; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before every transaction.
    pub const ZERO: Zxid = Zxid(0);
    /// Above every transaction: "keep nothing", "no limit".
    pub const MAX: Zxid = Zxid(u64::MAX);

    /// The transaction `counter` of `epoch`.
    pub const fn new(epoch: u32, counter: u32) -> Zxid {
        Zxid((epoch as u64) << 32 | counter as u64)
    }

    /// The epoch (upper 32 bits).
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The place within the epoch (lower 32 bits).
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The id as the wire writes it: a signed 64-bit integer.
    pub const fn wire(self) -> i64 {
        self.0 as i64
    }

    /// The following id in the same epoch.
    ///
    /// Panics when the counter would wrap: the sequencer opens a new epoch before that happens.
    pub fn next(self) -> Zxid {
        assert!(self.counter() != u32::MAX, "zxid counter of epoch {} exhausted", self.epoch());
        Zxid(self.0 + 1)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A ZooKeeper session id. 0 on the wire means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl SessionId {
    /// No session (what a new client sends, what a refused client gets).
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A shard: one executor and all it owns. Shard 0 also carries the sequencer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index into per-shard tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A client connection of one process life, named so that a reply can never reach a later connection (rule B5).
///
/// `number` is never reused within one life of one shard; `boot` tells the lives apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Random number of the process life ("boot nonce").
    pub boot: u64,
    /// The home shard: the one that accepted the connection.
    pub shard: ShardId,
    /// Counts up from 1 on the home shard; 0 means "no connection".
    pub number: u64,
}

impl ConnectionId {
    /// No connection: transactions the server makes itself (expiry) carry it.
    pub const NONE: ConnectionId = ConnectionId { boot: 0, shard: ShardId(0), number: 0 };
}
