//! A server of one shard and a sequencer, with a disk that is instant: what a connection talks to.

use ringkeeper::base::{ShardId, Zxid};
use ringkeeper::coordination::auth::AuthConfig;
use ringkeeper::coordination::processor::message::ToShard;
use ringkeeper::coordination::processor::{
    SLICE_STEPS, Sequencer, SequencerConfig, SequencerOutputs, Shard, ShardConfig, ShardOutputs, Turn,
};
use ringkeeper::coordination::session::{SessionIds, SessionTable};
use ringkeeper::coordination::tree::{DataTree, ShardMap};
use std::sync::Arc;

/// Longest request that the server takes (`jute.maxbuffer`).
pub const PACKET_BYTES_MAX: usize = 2048;
/// Output that a connection may hold before its socket is left alone.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// See the module documentation.
pub struct LoneServer {
    shard: Shard,
    sequencer: Sequencer,
    released: Zxid,
    number: u64,
    /// What the client was sent.
    pub sent: Vec<u8>,
    /// The connection was closed.
    pub closed: bool,
}

impl LoneServer {
    /// A server on an empty tree, with one connection.
    pub fn new() -> LoneServer {
        let map = ShardMap::new(1, 1);
        let auth = Arc::new(AuthConfig::default());
        let config = ShardConfig {
            id: ShardId(0),
            map: map.clone(),
            boot: 77,
            auth: auth.clone(),
            packet_bytes_max: PACKET_BYTES_MAX,
            session_timeout_ms_min: 100,
            session_timeout_ms_max: 100_000,
            sessionless_timeout_ms: 10_000,
            requests_per_connection_max: 100,
            output_bytes_max: OUTPUT_BYTES_MAX,
            output_bytes_limit: usize::MAX,
            outstanding_requests_max: usize::MAX,
            reply_bytes_max: 1 << 20,
            read_cache_bytes_max: 0,
        };
        let tree = DataTree::new(ShardId(0), &map, 5);
        let mut shard = Shard::new(config, tree, SessionTable::default(), Zxid::ZERO, Zxid::ZERO);
        shard.start_serving();
        let slice_steps = SLICE_STEPS;
        let config =
            SequencerConfig { local: ShardId(0), map, auth, tick_ms: 100, remembered_bytes_max: 1 << 10, slice_steps };
        let sequencer = Sequencer::new(config, Zxid::ZERO, SessionTable::default(), SessionIds::new(1, 1_000_000), 0);
        let number = shard.connect([127, 0, 0, 1].into(), 0);
        let (sent, closed) = (Vec::new(), false);
        let mut server = LoneServer { shard, sequencer, released: Zxid::ZERO, number, sent, closed };
        server.sequencer.open_epoch(1);
        server.settle(ShardOutputs::default());
        server
    }

    /// Whether the driver would read the socket now.
    pub fn wants_bytes(&self) -> bool {
        self.shard.wants_bytes(self.number)
    }

    /// Bytes of the client; returns how many were taken, `None` when they close the connection.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut out = ShardOutputs::default();
        let taken = self.shard.receive(self.number, bytes, self.released, &mut out);
        self.settle(out);
        taken.ok()
    }

    /// Runs everything until nothing moves.
    fn settle(&mut self, mut out: ShardOutputs) {
        loop {
            let mut messages = SequencerOutputs::default();
            for message in std::mem::take(&mut out.to_sequencer) {
                self.sequencer.receive(ShardId(0), message, 0);
            }
            let turn = Turn { records: &self.shard, now_ms: 0, wall_ms: 1000, room_bytes: usize::MAX };
            self.sequencer.advance(turn, &mut messages);
            self.sequencer.new_proposals(|_, _| {});
            self.sequencer.durable(self.sequencer.last(), &mut messages);
            messages.messages.into_iter().for_each(|(_, message)| self.apply(&message, &mut out));
            if std::mem::take(&mut out.dirty).contains(&self.number) {
                self.send(&mut out);
            }
            for (_, message) in std::mem::take(&mut out.to_peers) {
                self.shard.on_peer(ShardId(0), message, &mut out);
            }
            let quiet = out.to_sequencer.is_empty() && out.to_peers.is_empty() && out.dirty.is_empty();
            if quiet && !self.sequencer.has_more() {
                return;
            }
        }
    }

    fn apply(&mut self, message: &ToShard, out: &mut ShardOutputs) {
        self.shard.on_sequencer(message, out).expect("what was validated can be applied");
    }

    fn send(&mut self, out: &mut ShardOutputs) {
        let (bytes, zxid) = self.shard.take_output(self.number, Vec::new(), out);
        self.released = self.released.max(zxid);
        self.sent.extend(bytes);
        self.closed |= self.shard.is_finished(self.number);
    }
}

impl Default for LoneServer {
    fn default() -> Self {
        LoneServer::new()
    }
}
