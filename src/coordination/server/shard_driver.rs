//! One shard on its executor.

use super::connection::ClientConnection;
use super::error::ServerError;
use super::message::{ShardMessage, SnapshotLoad};
use super::observer::Observer;
use super::report::{Gathering, ShardReport};
use super::sequencer_driver::SequencerDriver;
use super::snapshots;
use super::words::Words;
use crate::base::ShardId;
use crate::coordination::admin::{ConnectionStats, FourLetterWord, Whitelist};
use crate::coordination::persistence::snapshot::SnapshotFiles;
use crate::coordination::persistence::snapshot_loader::{PartFault, SnapshotLoader};
use crate::coordination::processor::message::{ToSequencer, ToShard};
use crate::coordination::processor::peer::PeerMessage;
use crate::coordination::processor::{Shard, ShardOutputs};
use crate::metrics::Counters;
use crate::runtime::{LocalNotify, MeshEnd, Queue, clock, spawn, yield_if_needed};
use ahash::RandomState;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A shard's core, its connections and its end of the mesh.
///
/// Every wake-up ends in [`ShardDriver::turn`], which delivers all outputs and sends what is ready. No borrow of the core
/// lives across an await: the methods here are synchronous.
pub struct ShardDriver {
    shard: RefCell<Shard>,
    outputs: RefCell<ShardOutputs>,
    /// On shard 0 only.
    sequencer: RefCell<Option<Rc<SequencerDriver>>>,
    mesh: MeshEnd<ShardMessage>,
    /// Messages of this shard to itself: the pieces of long work, one after the other.
    own_work: RefCell<VecDeque<PeerMessage>>,
    /// A task is at `own_work`.
    working: Cell<bool>,
    words: Arc<Words>,
    /// By number. The numbers are the server's own, so their hash need be no secret; and its order is the same in every run.
    connections: RefCell<HashMap<u64, Rc<ClientConnection>, RandomState>>,
    /// Sent output buffers, for reuse.
    spare: RefCell<Vec<Vec<u8>>>,
    counters: RefCell<Counters>,
    gathering: RefCell<Gathering>,
    whitelist: Whitelist,
    snapshots: SnapshotFiles,
    observer: Option<Arc<dyn Observer>>,
    /// While the server loads a snapshot.
    loader: RefCell<Option<SnapshotLoader>>,
    started_ms: u64,
    serving: Cell<bool>,
    /// This server must not go on: nothing is served any more.
    stopped: Cell<bool>,
    /// Raised when [`ShardMessage::Serve`] has come.
    serve: LocalNotify,
    /// The first error that forbids going on.
    failed: RefCell<Option<ServerError>>,
    failure: LocalNotify,
}

/// Output buffers kept for reuse, and the largest one worth keeping.
const SPARE_BUFFERS_MAX: usize = 64;
const SPARE_BUFFER_BYTES_MAX: usize = 256 << 10;

impl ShardDriver {
    /// A driver for `shard`, which has applied nothing yet.
    pub fn new(
        shard: Shard,
        mesh: MeshEnd<ShardMessage>,
        words: Arc<Words>,
        whitelist: Whitelist,
        snapshots: SnapshotFiles,
        observer: Option<Arc<dyn Observer>>,
    ) -> Rc<ShardDriver> {
        Rc::new(ShardDriver {
            shard: RefCell::new(shard),
            outputs: RefCell::new(ShardOutputs::default()),
            sequencer: RefCell::new(None),
            mesh,
            own_work: RefCell::new(VecDeque::new()),
            working: Cell::new(false),
            words,
            connections: RefCell::new(HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4))),
            spare: RefCell::new(Vec::new()),
            counters: RefCell::new(Counters::default()),
            gathering: RefCell::new(Gathering::default()),
            whitelist,
            snapshots,
            observer,
            loader: RefCell::new(None),
            started_ms: clock::monotonic_ms(),
            serving: Cell::new(false),
            stopped: Cell::new(false),
            serve: LocalNotify::new(),
            failed: RefCell::new(None),
            failure: LocalNotify::new(),
        })
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.mesh.shard()
    }

    /// How many there are.
    pub fn shards(&self) -> usize {
        self.mesh.shards()
    }

    /// The core, for a moment.
    pub fn core(&self) -> &RefCell<Shard> {
        &self.shard
    }

    /// The shared words.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Words that may be asked for.
    pub fn whitelist(&self) -> &Whitelist {
        &self.whitelist
    }

    /// Where snapshots are.
    pub fn snapshots(&self) -> &SnapshotFiles {
        &self.snapshots
    }

    /// Reports being gathered here.
    pub fn gathering(&self) -> &RefCell<Gathering> {
        &self.gathering
    }

    /// When the driver was made (monotonic).
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// True between the end of replay and the first failure.
    pub fn is_serving(&self) -> bool {
        self.serving.get() && !self.stopped.get()
    }

    /// Makes this the shard that orders writes.
    pub fn set_sequencer(&self, sequencer: Rc<SequencerDriver>) {
        *self.sequencer.borrow_mut() = Some(sequencer);
    }

    /// The sequencer, on shard 0.
    pub fn sequencer(&self) -> Option<Rc<SequencerDriver>> {
        self.sequencer.borrow().clone()
    }

    /// Replay is over.
    pub fn start_serving(&self) {
        self.shard.borrow_mut().start_serving();
        if let Some(observer) = &self.observer {
            observer.serves(&self.shard.borrow());
        }
        self.serving.set(true);
        self.serve.notify();
    }

    /// Waits until replay is over.
    pub async fn until_serving(&self) {
        while !self.serving.get() {
            self.serve.notified().await;
        }
    }

    /// This server must not go on. It serves nothing from now on: what it would answer cannot be relied on.
    pub fn fail(&self, error: ServerError) {
        self.stopped.set(true);
        self.failed.borrow_mut().get_or_insert(error);
        self.close_connections();
        self.failure.notify();
    }

    /// Waits for the first failure.
    pub async fn failed(&self) -> ServerError {
        loop {
            if let Some(error) = self.failed.borrow_mut().take() {
                return error;
            }
            self.failure.notified().await;
        }
    }

    /// Sends a message to another shard, with the next [`ShardDriver::flush_mesh`].
    pub fn send(&self, shard: ShardId, message: ShardMessage) {
        self.mesh.push(shard, message);
    }

    /// Hands the messages collected for other shards over.
    pub fn flush_mesh(&self) {
        self.mesh.flush();
    }

    /// The end of the mesh, for the receiving tasks.
    pub fn mesh(&self) -> &MeshEnd<ShardMessage> {
        &self.mesh
    }

    /// A message from another shard; call [`ShardDriver::turn`] after the batch.
    pub fn deliver(self: &Rc<Self>, from: ShardId, message: ShardMessage) {
        if self.stopped.get() {
            return;
        }
        match message {
            ShardMessage::ToShard(message) => self.apply(&message),
            ShardMessage::Peer(message) => {
                let mut shard = self.shard.borrow_mut();
                if matches!(message, PeerMessage::Answer(_)) {
                    shard.set_clock_us(clock::monotonic_us());
                }
                shard.on_peer(from, message, &mut self.outputs.borrow_mut());
            }
            ShardMessage::ToSequencer(message) => self.to_sequencer(from, message),
            ShardMessage::Load(message) => self.load(message),
            ShardMessage::SnapshotWanted(start) => {
                spawn(Queue::Background, snapshots::write_part(self.clone(), start));
            }
            ShardMessage::SnapshotPart(outcome) => self.snapshot_part(*outcome),
            ShardMessage::Serve => self.start_serving(),
            ShardMessage::Resume => self.resume_connections(),
            ShardMessage::ReportWanted(ticket) => {
                self.send(from, ShardMessage::Report(ticket, Box::new(self.report())));
            }
            ShardMessage::Report(ticket, report) => self.gathering.borrow_mut().arrived(ticket, *report),
        }
    }

    fn to_sequencer(&self, from: ShardId, message: ToSequencer) {
        match &*self.sequencer.borrow() {
            Some(sequencer) => sequencer.receive(from, message),
            None => self.send(ShardId(0), ShardMessage::ToSequencer(message)),
        }
    }

    /// A part of a snapshot is written, or failed: shard 0 wants to know.
    pub fn snapshot_part(&self, outcome: snapshots::PartOutcome) {
        match &*self.sequencer.borrow() {
            Some(sequencer) => sequencer.snapshots().part_arrived(outcome),
            None => self.send(ShardId(0), ShardMessage::SnapshotPart(Box::new(outcome))),
        }
    }

    /// The next of the snapshot that the server starts from.
    pub fn load(&self, message: SnapshotLoad) {
        match message {
            SnapshotLoad::Begin(manifest) => {
                let loader = SnapshotLoader::begin(manifest, &mut self.shard.borrow_mut());
                *self.loader.borrow_mut() = Some(loader);
            }
            // What is wrong with the bytes, shard 0 has found as well, and begins another snapshot.
            SnapshotLoad::Piece { part, bytes } => drop(self.load_piece(part, &bytes)),
            SnapshotLoad::End => {
                if let Err(fault) = self.end_load() {
                    self.fail(ServerError::SnapshotDiffers { shard: self.id(), part: fault.part, error: fault.error });
                }
            }
            SnapshotLoad::None => {
                *self.loader.borrow_mut() = None;
                self.shard.borrow_mut().start_empty();
            }
        }
    }

    /// The next bytes of a part of the snapshot that is being loaded.
    pub fn load_piece(&self, part: u32, bytes: &[u8]) -> Result<(), PartFault> {
        match &mut *self.loader.borrow_mut() {
            Some(loader) => loader.feed(&mut self.shard.borrow_mut(), part, bytes),
            None => Ok(()),
        }
    }

    /// The snapshot was fed.
    pub fn end_load(&self) -> Result<(), PartFault> {
        let loader = self.loader.borrow_mut().take();
        loader.map_or(Ok(()), |loader| loader.end(&mut self.shard.borrow_mut()))
    }

    /// A message from the sequencer.
    pub fn apply(&self, message: &ToShard) {
        if let (Some(observer), ShardId(0), ToShard::Batch(batch)) = (&self.observer, self.id(), message) {
            observer.handed_over(&batch.txns);
        }
        let mut shard = self.shard.borrow_mut();
        shard.set_clock_us(clock::monotonic_us());
        if let Err(error) = shard.on_sequencer(message, &mut self.outputs.borrow_mut()) {
            drop(shard);
            self.fail(ServerError::Apply(error));
        }
    }

    /// Runs `step` on the core.
    pub fn step<T>(&self, step: impl FnOnce(&mut Shard, &mut ShardOutputs) -> T) -> T {
        step(&mut self.shard.borrow_mut(), &mut self.outputs.borrow_mut())
    }

    /// Ends a wake-up: delivers what the cores put out until nothing is left, publishes the position, sends what is ready.
    pub fn turn(self: &Rc<Self>) {
        while !self.stopped.get() {
            self.deliver_outputs();
            // What the sequencer hands over is applied here at once, and may put out more.
            let sequencer = self.sequencer.borrow().clone();
            if sequencer.is_some_and(|sequencer| sequencer.advance(self)) || !self.outputs.borrow().is_quiet() {
                continue;
            }
            if self.stopped.get() {
                return;
            }
            self.publish();
            self.mesh.flush();
            self.send_output();
            // Output that left makes room, and requests that waited for it may have put out more.
            if self.outputs.borrow().is_quiet() && self.outputs.borrow().dirty.is_empty() {
                return;
            }
        }
    }

    fn deliver_outputs(self: &Rc<Self>) {
        let (requests, peers) = {
            let mut outputs = self.outputs.borrow_mut();
            let mut counters = self.counters.borrow_mut();
            outputs.latencies_us.drain(..).for_each(|us| counters.request_latency.record_us(us));
            (std::mem::take(&mut outputs.to_sequencer), std::mem::take(&mut outputs.to_peers))
        };
        for message in requests {
            self.to_sequencer(self.id(), message);
        }
        for (shard, message) in peers {
            if shard == self.id() {
                self.work_later(message);
            } else {
                self.send(shard, ShardMessage::Peer(message));
            }
        }
    }

    fn work_later(self: &Rc<Self>, message: PeerMessage) {
        self.own_work.borrow_mut().push_back(message);
        if !self.working.replace(true) {
            spawn(Queue::Serving, self.clone().work());
        }
    }

    /// Works off what this shard has asked of itself; between two pieces the others have their turn.
    async fn work(self: Rc<Self>) {
        loop {
            let message = self.own_work.borrow_mut().pop_front();
            let Some(message) = message else { break };
            self.deliver(self.id(), ShardMessage::Peer(message));
            self.turn();
            yield_if_needed().await;
        }
        self.working.set(false);
    }

    fn publish(&self) {
        let mut shard = self.shard.borrow_mut();
        self.words.publish(shard.id(), shard.applied(), shard.published(), shard.outstanding_requests());
        if self.shards() > 1 {
            shard.set_floor(self.words.floor());
            let outstanding_elsewhere = self.words.outstanding_elsewhere(shard.id());
            shard.set_outstanding_elsewhere(outstanding_elsewhere);
        }
    }

    fn send_output(self: &Rc<Self>) {
        let refused = std::mem::take(&mut self.outputs.borrow_mut().refused_replies);
        for number in refused {
            let Some(connection) = self.connections.borrow().get(&number).cloned() else { continue };
            tracing::warn!(
                "{}: a request asks for a reply of more than {} bytes, which is the most that is sent (64 MiB, or twice \
                 jute.maxbuffer); connection closed",
                connection.peer(),
                self.shard.borrow().reply_bytes_max()
            );
        }
        let dirty = std::mem::take(&mut self.outputs.borrow_mut().dirty);
        for number in &dirty {
            self.send_connection(*number);
        }
        let mut dirty = dirty;
        dirty.clear();
        let mut outputs = self.outputs.borrow_mut();
        if outputs.dirty.is_empty() {
            outputs.dirty = dirty;
        }
    }

    fn send_connection(self: &Rc<Self>, number: u64) {
        let Some(connection) = self.connections.borrow().get(&number).cloned() else { return };
        if connection.is_closed() {
            return;
        }
        if self.shard.borrow().is_cut_off(number) {
            tracing::warn!("{}: the client does not take its replies and events; connection closed", connection.peer());
            return connection.close();
        }
        if !connection.is_writable() {
            // The connection's writing task fetches the rest once the socket has taken what it was given.
            return;
        }
        let spare = self.spare.borrow_mut().pop().unwrap_or_default();
        let (bytes, zxid) = self.step(|shard, out| shard.take_output(number, spare, out));
        self.words.raise_released(zxid);
        self.counters.borrow_mut().response_bytes += connection.reply_bytes(&bytes);
        let spare = connection.send(bytes);
        let mut spares = self.spare.borrow_mut();
        if spares.len() < SPARE_BUFFERS_MAX && spare.capacity() <= SPARE_BUFFER_BYTES_MAX {
            spares.push(spare);
        }
        drop(spares);
        if self.shard.borrow().is_finished(number) {
            connection.close_when_sent();
        }
        connection.resume();
    }

    /// The connection's socket has taken everything it was given: it gets what has come since.
    pub fn writable(self: &Rc<Self>, number: u64) {
        self.outputs.borrow_mut().dirty.push(number);
        self.turn();
    }

    /// True when the connection's socket may be read now.
    pub fn wants_bytes(&self, number: u64) -> bool {
        !self.words.is_held_back() && !self.stopped.get() && self.shard.borrow().wants_bytes(number)
    }

    /// Bytes came in on a connection; call [`ShardDriver::turn`] afterwards. `Ok` is how many were consumed; an error closes
    /// the connection.
    pub fn received(&self, number: u64, bytes: &[u8]) -> Result<usize, String> {
        let released = self.words.released();
        let mut shard = self.shard.borrow_mut();
        shard.set_clock_us(clock::monotonic_us());
        let result = shard.receive(number, bytes, released, &mut self.outputs.borrow_mut());
        if let Ok(consumed) = result {
            self.counters.borrow_mut().bytes_received += consumed as u64;
        }
        result.map_err(|error| error.to_string())
    }

    /// A connection was accepted.
    pub fn add_connection(&self, number: u64, connection: Rc<ClientConnection>) {
        if let Some(observer) = &self.observer {
            observer.connected(self.shard.borrow().connection_id(number), connection.peer());
        }
        self.connections.borrow_mut().insert(number, connection);
    }

    /// A connection is gone.
    pub fn remove_connection(&self, number: u64) {
        self.connections.borrow_mut().remove(&number);
        self.shard.borrow_mut().disconnect(number);
    }

    /// A four-letter word is answered. ZooKeeper counts it as a packet each way.
    pub fn word_asked(&self) {
        let mut counters = self.counters.borrow_mut();
        counters.packets_received += 1;
        counters.packets_sent += 1;
        counters.bytes_received += FourLetterWord::BYTES;
    }

    /// A connection was closed at once because of a limit.
    pub fn connection_rejected(&self) {
        self.counters.borrow_mut().connections_rejected += 1;
    }

    /// A turn of the clock.
    pub fn tick(self: &Rc<Self>) {
        self.step(|shard, out| shard.tick(clock::monotonic_ms() as i64, out));
        self.turn();
    }

    /// Lets the readers of all connections look again whether they may read.
    pub fn resume_connections(&self) {
        for connection in self.connections.borrow().values() {
            connection.resume();
        }
    }

    /// The shard ends.
    pub fn observe_end(&self) {
        if let Some(observer) = &self.observer {
            observer.ends(&self.shard.borrow());
        }
    }

    /// Closes every connection.
    pub fn close_connections(&self) {
        for connection in self.connections.borrow().values() {
            connection.close();
        }
    }

    /// The numbers of this shard.
    pub fn report(&self) -> ShardReport {
        let shard = self.shard.borrow();
        let mut counters = self.counters.borrow().clone();
        counters.merge(&shard.counters());
        if let Some(sequencer) = &*self.sequencer.borrow() {
            sequencer.add_to(&mut counters);
        }
        let connections = self.connections.borrow();
        counters.connections_alive = connections.len() as u64;
        let stats = shard.connection_reports().into_iter().filter_map(|report| {
            let (number, _, _, queued, received, sent) = report;
            let peer = connections.get(&number)?.peer();
            let (queued, interest_ops) = (queued as u64, 1);
            Some(ConnectionStats { peer, interest_ops, queued, received, sent })
        });
        ShardReport {
            connections: stats.collect(),
            applied: shard.applied(),
            znodes: shard.tree().len() as u64,
            ephemerals: shard.tree().ephemerals_count() as u64,
            data_bytes: shard.tree().data_bytes(),
            watches: shard.watches().count_in_zookeeper() as u64,
            sessions: shard.sessions().len() as u64,
            counters,
        }
    }
}
