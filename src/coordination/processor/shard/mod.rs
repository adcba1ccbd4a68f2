//! One shard: a part of the tree, and a share of the connections.
//!
//! Inputs: [`Shard::connect`], [`Shard::receive`], [`Shard::disconnect`] (clients); [`Shard::on_sequencer`] (batches and
//! lookups, in one FIFO); [`Shard::on_peer`] (reads of and for other shards); [`Shard::set_floor`], [`Shard::tick`]. Outputs are
//! collected in [`ShardOutputs`]; the bytes of each dirty connection are fetched with [`Shard::take_output`] when its socket can
//! take them, and it is closed when [`Shard::is_finished`] says so.
//!
//! Invariants (docs/ordering.md, window reads):
//! - `applied` moves with each transaction, after its records, events and reply; nothing else is served in between (A12).
//! - A connection's requests take their turn in order, with one exception: a write passes waiting reads. A read waits until
//!   the earlier requests that need agreement are answered. A read also waits until `applied` has reached the value that
//!   `released` had when the read came in (A3). The reads in front of a write have their turn before the write's transaction
//!   is applied (A2).
//! - A read is answered as of `applied` at its turn, whoever owns the record, and its reply carries that position (A7).
//! - What is kept of other shards' records is exact at `applied` (see `read_cache`).
//! - Before a reply or an event leaves, the driver raises the server's `released` word to the zxid that
//!   [`Shard::take_output`] returns with it.

mod apply;
mod connection;
mod encode;
mod gather;
mod load;
mod multi_read;
mod output;
mod read;
mod read_cache;
mod reply;
mod set_watches;
mod turn;

pub use apply::ApplyError;
pub use connection::ConnectionState;

use super::message::{Lookup, LookupAnswer, LookupKey, LookupValue, ToSequencer, ToShard, WriteRequest};
use super::peer::{GatherId, PeerMessage, PeerRead};
use super::request_pack::{PackSize, RequestPack};
use super::sequencer::LocalRecords;
use crate::base::{ConnectionId, SessionId, ShardId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::session::SessionTable;
use crate::coordination::tree::{DataTree, NodeImage, ShardMap};
use crate::coordination::watch::{Fired, WatchTable};
use crate::metrics::Counters;
use ahash::AHashMap;
use connection::Connection;
use core::net::IpAddr;
use gather::{Gather, Positions};
use read_cache::ReadCache;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What a shard is started with.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which one it is.
    pub id: ShardId,
    /// Who owns which path.
    pub map: ShardMap,
    /// Number of the process life.
    pub boot: u64,
    /// Who may do what.
    pub auth: Arc<AuthConfig>,
    /// `jute.maxbuffer`.
    pub packet_bytes_max: usize,
    /// `minSessionTimeout`.
    pub session_timeout_ms_min: u32,
    /// `maxSessionTimeout`.
    pub session_timeout_ms_max: u32,
    /// A connection that has not asked for a session by then is dropped.
    pub sessionless_timeout_ms: i64,
    /// Requests of one connection that may wait or be under way before its socket is no longer read.
    pub requests_per_connection_max: usize,
    /// Output of one connection that may wait to be sent, or be on its way, before its socket is no longer read and requests
    /// that were read have to wait.
    pub output_bytes_max: usize,
    /// Output of one connection above which it is cut off: events come whether or not its client reads. Also what may be applied
    /// while a read keeps its position because its client does not take what comes before it.
    pub output_bytes_limit: usize,
    /// Requests outstanding on the whole server above which a connection that has some is not read (`globalOutstandingLimit`).
    pub outstanding_requests_max: usize,
    /// The longest reply: where a longer one is asked for, the connection is closed. Below 2 GiB, which is what a frame can say.
    pub reply_bytes_max: usize,
    /// What may be kept of other shards' records, so that reads need not ask for them.
    pub read_cache_bytes_max: usize,
}

/// What must be delivered. The messages to one receiver keep their order.
#[derive(Debug, Default)]
pub struct ShardOutputs {
    /// For the sequencer.
    pub to_sequencer: Vec<ToSequencer>,
    /// For other shards.
    pub to_peers: Vec<(ShardId, PeerMessage)>,
    /// Connections that have bytes to send or are finished.
    pub dirty: Vec<u64>,
    /// Connections that are closed because a reply would be longer than `reply_bytes_max`.
    pub refused_replies: Vec<u64>,
    /// How long requests took, from when they were read to their reply.
    pub latencies_us: Vec<u64>,
    /// Of the last pack of requests for the sequencer.
    pack_size: PackSize,
}

impl ShardOutputs {
    /// True when nothing waits for the sequencer or for another shard.
    pub fn is_quiet(&self) -> bool {
        self.to_sequencer.is_empty() && self.to_peers.is_empty()
    }

    /// A request for the sequencer: packed with those that go right before it.
    fn forward(&mut self, request: WriteRequest, record: &[u8]) {
        if !matches!(self.to_sequencer.last(), Some(ToSequencer::Requests(pack)) if !pack.is_full()) {
            self.to_sequencer.push(ToSequencer::Requests(RequestPack::with_room(self.pack_size)));
        }
        if let Some(ToSequencer::Requests(pack)) = self.to_sequencer.last_mut() {
            pack.push(request, record);
            self.pack_size = pack.size();
        }
    }
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    tree: DataTree,
    sessions: SessionTable,
    watches: WatchTable,
    connections: AHashMap<u64, Connection>,
    next_connection: u64,
    next_tag: u64,
    /// The last transaction applied.
    applied: Zxid,
    /// End of the snapshot that was loaded: nothing is served below (rule C3).
    serve_from: Zxid,
    /// Reads of other shards that are ahead of this one.
    parked: BTreeMap<Zxid, Vec<(ShardId, PeerRead)>>,
    read_cache: ReadCache,
    /// Reads that are not answered yet.
    gathers: AHashMap<GatherId, Gather>,
    next_gather: u64,
    positions: Positions,
    /// Bytes of all transactions that were applied.
    applied_bytes: u64,
    /// A transaction could not be applied: nothing is served any more.
    failed: Option<ApplyError>,
    /// Connections whose next request must not be served before this position.
    stalled: BTreeSet<(Zxid, u64)>,
    /// Connections that may go on since the current batch answered them.
    resumed: Vec<u64>,
    fired: Vec<Fired>,
    /// The driver's clock, for latencies.
    now_us: u64,
    /// When the request was read whose turn it is.
    asked_us: u64,
    /// Requests that wait or are under way. Invariant: the sum over `connections`.
    outstanding: Rc<Cell<usize>>,
    /// The same on the other shards, as the driver last heard.
    outstanding_elsewhere: usize,
    /// What happened so far: of the traffic, that of connections that are gone.
    counters: Counters,
    /// Sessions that were heard of on connections that are gone, and not reported yet.
    heard: Vec<SessionId>,
}

impl Shard {
    /// A shard of a server that has recovered up to `applied`. Below `serve_from` the tree may be ahead of `applied` in places:
    /// it comes from a fuzzy snapshot.
    pub fn new(config: ShardConfig, tree: DataTree, sessions: SessionTable, applied: Zxid, serve_from: Zxid) -> Shard {
        // One that owns everything has nothing to keep.
        let read_cache_bytes_max = if config.map.shards() > 1 { config.read_cache_bytes_max } else { 0 };
        let mut shard = Shard {
            read_cache: ReadCache::new(read_cache_bytes_max, config.boot),
            config,
            tree,
            sessions,
            watches: WatchTable::default(),
            connections: AHashMap::default(),
            next_connection: 1,
            next_tag: 0,
            applied,
            serve_from,
            parked: BTreeMap::new(),
            gathers: AHashMap::default(),
            next_gather: 0,
            positions: Positions::default(),
            applied_bytes: 0,
            failed: None,
            stalled: BTreeSet::new(),
            resumed: Vec::new(),
            fired: Vec::new(),
            now_us: 0,
            asked_us: 0,
            outstanding: Rc::default(),
            outstanding_elsewhere: 0,
            counters: Counters::default(),
            heard: Vec::new(),
        };
        shard.forget_history();
        shard
    }

    /// A server with one shard never reads in the past; what replay changes nobody reads before it is over.
    fn forget_history(&mut self) {
        self.tree.set_floor(if self.config.map.shards() == 1 { Zxid::MAX } else { self.applied });
    }

    /// Replay is over: from now on other shards may ask for a position that is a little behind.
    pub fn start_serving(&mut self) {
        self.tree.keep_history(self.config.map.shards() > 1);
        self.tree.set_floor(self.applied);
    }

    /// The time of what comes next (monotonic). Latencies rest on it, nothing else.
    pub fn set_clock_us(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Which one it is.
    pub fn id(&self) -> ShardId {
        self.config.id
    }

    /// The last transaction applied.
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// The least position that a read of this shard may still ask for: what it contributes to `floor`.
    pub fn published(&self) -> Zxid {
        self.positions.oldest().map_or(self.applied, |oldest| oldest.min(self.applied))
    }

    /// No shard will ask for a position below `floor` any more.
    pub fn set_floor(&mut self, floor: Zxid) {
        self.tree.set_floor(floor);
    }

    /// The longest reply that it sends.
    pub fn reply_bytes_max(&self) -> usize {
        self.config.reply_bytes_max
    }

    /// Its part of the tree.
    pub fn tree(&self) -> &DataTree {
        &self.tree
    }

    /// The sessions, as of `applied`.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// The watches of its connections.
    pub fn watches(&self) -> &WatchTable {
        &self.watches
    }

    /// Requests that wait or are under way.
    pub fn outstanding_requests(&self) -> usize {
        self.outstanding.get()
    }

    /// Requests that wait or are under way on all other shards together.
    pub fn set_outstanding_elsewhere(&mut self, requests: usize) {
        self.outstanding_elsewhere = requests;
    }

    /// What it has counted, its open connections included.
    pub fn counters(&self) -> Counters {
        debug_assert_eq!(self.outstanding.get(), self.connections.values().map(Connection::requests).sum::<usize>());
        let mut counters = self.counters.clone();
        for connection in self.connections.values() {
            counters.packets_received += connection.packets_received;
            counters.packets_sent += connection.packets_sent;
        }
        counters.outstanding_requests = self.outstanding.get() as u64;
        counters
    }

    /// The name of a connection of this shard in transactions.
    pub fn connection_id(&self, number: u64) -> ConnectionId {
        ConnectionId { boot: self.config.boot, shard: self.config.id, number }
    }

    /// A client connected from `peer`. Returns the connection's number.
    pub fn connect(&mut self, peer: IpAddr, now_ms: i64) -> u64 {
        let number = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(number, Connection::new(number, peer, now_ms, self.outstanding.clone()));
        number
    }

    /// The client is gone: its watches go, its session stays, and its timeout runs from when it was last heard of.
    pub fn disconnect(&mut self, number: u64) {
        self.watches.remove_connection(number);
        let Some(mut gone) = self.connections.remove(&number) else { return };
        self.abandon(gone.output.drop_all());
        self.counters.packets_received += gone.packets_received;
        self.counters.packets_sent += gone.packets_sent;
        self.heard.extend(gone.touched.then_some(gone.session));
    }

    /// True when the connection's socket should be read: neither its requests nor its output have piled up, and while the whole
    /// server has more than its share to do, its own requests are answered first. The replies to them let it go on.
    pub fn wants_bytes(&self, number: u64) -> bool {
        let crowded = self.outstanding.get() + self.outstanding_elsewhere > self.config.outstanding_requests_max;
        self.failed.is_none()
            && self.connections.get(&number).is_some_and(|connection| {
                !(crowded && connection.requests() > 0)
                    && connection.requests() < self.config.requests_per_connection_max
                    && connection.bytes_expected() < self.config.output_bytes_max
            })
    }

    /// Takes the bytes that the connection can send now; `spare` becomes the connection's next buffer. The bytes tell of
    /// states up to the zxid that is returned: raise `released` to that zxid before the bytes are sent. Requests that waited
    /// for room in the output take their turns now, so the connection may be dirty again.
    pub fn take_output(&mut self, number: u64, spare: Vec<u8>, out: &mut ShardOutputs) -> (Vec<u8>, Zxid) {
        let Some(connection) = self.connections.get_mut(&number) else { return (Vec::new(), Zxid::ZERO) };
        connection.dirty = false;
        if self.failed.is_some() {
            return (Vec::new(), Zxid::ZERO);
        }
        let zxid = connection.output.ready().1;
        let bytes = connection.output.take_ready(spare);
        let resumes = connection.can_resume();
        self.go_on_first(number, out);
        if resumes {
            self.pump(number, out);
        }
        (bytes, zxid)
    }

    /// True when the connection must be closed: it is unknown, or has sent everything.
    pub fn is_finished(&self, number: u64) -> bool {
        self.failed.is_some()
            || self
                .connections
                .get(&number)
                .is_none_or(|connection| connection.state == ConnectionState::Closing && connection.output.is_drained())
    }

    /// True when the connection's socket must be closed at once: its client does not take what it is sent.
    pub fn is_cut_off(&self, number: u64) -> bool {
        self.connections.get(&number).is_some_and(|connection| connection.cut_off)
    }

    /// What the connection is, for reports.
    pub fn connection_state(&self, number: u64) -> Option<(ConnectionState, SessionId)> {
        self.connections.get(&number).map(|connection| (connection.state, connection.session))
    }

    /// Its connections for reports: number, peer, session, requests under way, packets received and sent.
    pub fn connection_reports(&self) -> Vec<(u64, IpAddr, SessionId, usize, u64, u64)> {
        let report = |c: &Connection| (c.number, c.peer, c.session, c.requests(), c.packets_received, c.packets_sent);
        let mut reports: Vec<_> = self.connections.values().map(report).collect();
        reports.sort_by_key(|report| report.0);
        reports
    }

    /// A turn of the clock: reports the sessions that were heard of, drops connections that never asked for one, and those that
    /// are closing and do not take the rest of their output.
    pub fn tick(&mut self, now_ms: i64, out: &mut ShardOutputs) {
        let mut touched = std::mem::take(&mut self.heard);
        touched.retain(|session| *session != SessionId::NONE);
        let (mut late, mut stuck) = (Vec::new(), Vec::new());
        for connection in self.connections.values_mut() {
            // What was heard while the session was being created counts for it.
            if connection.session != SessionId::NONE && std::mem::take(&mut connection.touched) {
                touched.push(connection.session);
            }
            let waited_ms = now_ms - connection.accepted_ms;
            if connection.state == ConnectionState::New && waited_ms >= self.config.sessionless_timeout_ms {
                late.push(connection.number);
            }
            if connection.state == ConnectionState::Closing {
                let since_ms = *connection.closing_since_ms.get_or_insert(now_ms);
                if now_ms - since_ms >= self.config.sessionless_timeout_ms {
                    stuck.push(connection.number);
                }
            }
        }
        touched.sort();
        touched.dedup();
        // Also of nobody: it says that everybody who spoke was heard.
        out.to_sequencer.push(ToSequencer::Touched(touched));
        self.counters.sessionless_connections_expired += late.len() as u64;
        late.sort();
        for number in late {
            self.close_now(number, out);
        }
        stuck.sort();
        for number in stuck {
            self.cut_off(number, out);
        }
    }

    /// A message from the sequencer. An error means that this server must not go on.
    pub fn on_sequencer(&mut self, message: &ToShard, out: &mut ShardOutputs) -> Result<(), ApplyError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match message {
            ToShard::Batch(batch) => self.apply(batch, out).inspect_err(|error| self.failed = Some(error.clone())),
            ToShard::Lookup(lookup) => {
                out.to_sequencer.push(ToSequencer::LookupAnswer(self.lookup(lookup)));
                Ok(())
            }
        }
    }

    fn lookup(&self, lookup: &Lookup) -> LookupAnswer {
        let value = |key: &LookupKey| match key {
            LookupKey::Node(path) => LookupValue::Node(self.tree.image(path)),
            LookupKey::Ephemerals(session) => LookupValue::Ephemerals(LocalRecords::ephemerals(self, *session)),
        };
        LookupAnswer { ticket: lookup.ticket, values: lookup.keys.iter().map(value).collect() }
    }

    /// A message from another shard.
    pub fn on_peer(&mut self, from: ShardId, message: PeerMessage, out: &mut ShardOutputs) {
        if self.failed.is_some() {
            return;
        }
        match message {
            PeerMessage::Read(read) => self.peer_read(from, read, out),
            PeerMessage::Answer(answer) => self.peer_answer(from, answer, out),
            PeerMessage::GoOn(number) => self.pump(number, out),
        }
    }

    fn mark_dirty(connection: &mut Connection, out: &mut ShardOutputs) {
        if !connection.dirty {
            connection.dirty = true;
            out.dirty.push(connection.number);
        }
    }

    /// Closes a connection without waiting for anything; its watches go.
    fn close_now(&mut self, number: u64, out: &mut ShardOutputs) {
        self.watches.remove_connection(number);
        if let Some(connection) = self.connections.get_mut(&number) {
            let gathers = connection.close_now();
            Self::mark_dirty(connection, out);
            self.abandon(gathers);
        }
    }

    /// Closes a connection whose client takes nothing; its watches and its output go.
    fn cut_off(&mut self, number: u64, out: &mut ShardOutputs) {
        self.watches.remove_connection(number);
        if let Some(connection) = self.connections.get_mut(&number) {
            let gathers = connection.cut_off();
            // The connection is listed even when it is dirty already: the driver may have put it aside because its socket
            // takes nothing, and must look at it again.
            connection.dirty = true;
            out.dirty.push(number);
            self.abandon(gathers);
        }
    }

    /// Closes a connection after what it has coming; its watches go.
    fn close_when_drained(&mut self, number: u64, out: &mut ShardOutputs) {
        self.watches.remove_connection(number);
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.close_when_drained();
            Self::mark_dirty(connection, out);
        }
    }
}

impl LocalRecords for Shard {
    fn image(&self, path: &str) -> Option<NodeImage> {
        self.tree.image(path)
    }

    fn ephemerals(&self, session: SessionId) -> Vec<Box<str>> {
        self.tree.ephemerals(session).into_iter().map(Box::from).collect()
    }
}
