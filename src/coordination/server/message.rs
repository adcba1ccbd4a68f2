//! What travels between the executors of a server.

use super::report::ShardReport;
use crate::coordination::processor::message::{PeerMessage, ToSequencer, ToShard};

/// One message of the mesh.
#[derive(Debug)]
pub enum ShardMessage {
    /// For the sequencer, on shard 0.
    ToSequencer(ToSequencer),
    /// From the sequencer.
    ToShard(ToShard),
    /// Between two shards.
    Peer(PeerMessage),
    /// Replay is over: serve.
    Serve,
    /// Sockets may be read again.
    Resume,
    /// Please report; the ticket comes back.
    ReportWanted(u64),
    /// The report that was asked for.
    Report(u64, Box<ShardReport>),
}
