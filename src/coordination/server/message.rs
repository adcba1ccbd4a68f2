//! What travels between the executors of a server.

use super::report::ShardReport;
use super::snapshots::PartOutcome;
use crate::base::Zxid;
use crate::coordination::persistence::snapshot_format::Manifest;
use crate::coordination::processor::message::{ToSequencer, ToShard};
use crate::coordination::processor::peer::PeerMessage;
use bytes::Bytes;
use std::sync::Arc;

/// One message of the mesh.
#[derive(Debug)]
pub enum ShardMessage {
    /// For the sequencer, on shard 0.
    ToSequencer(ToSequencer),
    /// From the sequencer.
    ToShard(ToShard),
    /// Between two shards.
    Peer(PeerMessage),
    /// Of the snapshot that the server starts from; before the log.
    Load(SnapshotLoad),
    /// Please write your part of the snapshot that starts at this zxid, which you have applied when this comes.
    SnapshotWanted(Zxid),
    /// The part is written, or it failed.
    SnapshotPart(Box<PartOutcome>),
    /// Replay is over: serve.
    Serve,
    /// Sockets may be read again.
    Resume,
    /// Please report; the ticket comes back.
    ReportWanted(u64),
    /// The report that was asked for.
    Report(u64, Box<ShardReport>),
}

/// From shard 0 to all shards, itself included, while a snapshot is loaded.
#[derive(Clone, Debug)]
pub enum SnapshotLoad {
    /// The pieces of this snapshot follow; forget what came before.
    Begin(Arc<Manifest>),
    /// The next bytes of a part.
    Piece {
        /// Which one.
        part: u32,
        /// Shared by all shards.
        bytes: Bytes,
    },
    /// It is complete, and whole.
    End,
    /// There is none: start from an empty tree.
    None,
}
