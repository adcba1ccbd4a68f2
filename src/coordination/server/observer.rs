//! A spectator of a server, for those who judge it from outside: it is told, and decides nothing.

use crate::base::{ConnectionId, Zxid};
use crate::coordination::processor::Shard;
use bytes::Bytes;
use std::fmt::Debug;
use std::net::SocketAddr;

/// What a spectator is told, in the order in which it happens on each shard.
pub trait Observer: Debug + Send + Sync {
    /// A shard has accepted a connection from `peer`.
    fn connected(&self, connection: ConnectionId, peer: SocketAddr);

    /// Transactions were handed to shard 0, each behind its length ([`crate::coordination::processor::txn::batch_txns`]). While the server
    /// starts these are the ones that it replays.
    fn handed_over(&self, txns: &Bytes);

    /// The server has recovered everything to `last`, and opens its epoch next.
    fn recovered(&self, last: Zxid);

    /// A shard begins to serve, with this state.
    fn serves(&self, shard: &Shard);

    /// A shard ends, with this state.
    fn ends(&self, shard: &Shard);
}
