//! A whole server of pure cores in one place, for tests: messages are delivered when the test says so, and "disk" is instant.

use super::admission::{Admission, AdmissionNews, Admitted, Room};
use super::message::{ToSequencer, ToShard};
use super::peer::PeerMessage;
use super::scaling_tests::Counting;
use super::sequencer::{SLICE_STEPS, Sequencer, SequencerConfig, SequencerOutputs, Target, Turn};
use super::shard::{Shard, ShardConfig, ShardOutputs};
use super::txn_room::LOG_HEAD_BYTES_MAX;
use crate::base::{ShardId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::session::{SessionIds, SessionTable};
use crate::coordination::tree::{DataTree, ShardMap};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{ConnectRequest, ConnectResponse, FrameReader, OpCode, ReplyHeader, Request};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A frame that a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub header: ReplyHeader,
    pub body: Vec<u8>,
}

impl Received {
    /// Reads the body as a reply to `op`.
    pub(super) fn reply(&self, op: OpCode) -> crate::protocol::zookeeper::Reply<'_> {
        crate::protocol::zookeeper::Reply::decode(op, &mut Input::new(&self.body)).expect("a well-formed reply")
    }
}

pub(super) struct TestServer {
    pub shards: Vec<Shard>,
    pub sequencer: Sequencer,
    pub to_sequencer: VecDeque<(ShardId, ToSequencer)>,
    pub to_shard: Vec<VecDeque<ToShard>>,
    pub to_peer: VecDeque<(ShardId, ShardId, PeerMessage)>,
    pub released: Zxid,
    pub now_ms: i64,
    /// The connection (shard, number) whose socket takes nothing: its output stays until [`TestServer::take_output`].
    pub slow: Option<(usize, u64)>,
    /// Of all requests so far.
    pub latencies_us: Vec<u64>,
    pub admission: Admission,
    pub admission_news: Vec<AdmissionNews>,
    /// What the log still takes; `None` when that is no matter. When it takes no more it is busy, or out of disk.
    pub log_room_bytes: Option<usize>,
    pub log_is_busy: bool,
    /// Records of the local shard that validation asked for since [`TestServer::start_counting`], altogether and in one go.
    pub records_asked: Cell<usize>,
    pub records_asked_at_once_max: usize,
    /// The longest validation in one go since then, and all of them together.
    pub validated_at_once_max: Duration,
    pub validated: Duration,
    /// Questions to other shards since then.
    pub lookups: usize,
    /// What each connection (shard, number) was sent and has not looked at.
    received: Vec<((usize, u64), Vec<u8>)>,
}

/// One client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub shard: usize,
    pub number: u64,
}

impl TestServer {
    pub(super) fn new(shards: u16) -> TestServer {
        TestServer::with_outstanding_max(shards, usize::MAX)
    }

    pub(super) fn with_outstanding_max(shards: u16, outstanding_requests_max: usize) -> TestServer {
        let map = ShardMap::new(shards, 1);
        let auth = Arc::new(AuthConfig::default());
        let shard = |id| {
            let config = ShardConfig {
                id,
                map: map.clone(),
                boot: 77,
                auth: auth.clone(),
                packet_bytes_max: 16 << 20,
                session_timeout_ms_min: 100,
                session_timeout_ms_max: 100_000,
                sessionless_timeout_ms: 10_000,
                requests_per_connection_max: 1000,
                output_bytes_max: 1 << 20,
                output_bytes_limit: 2 << 20,
                outstanding_requests_max,
                reply_bytes_max: 4 << 20,
                read_cache_bytes_max: 1 << 10,
            };
            let tree = DataTree::new(id, &map, 5);
            let mut shard = Shard::new(config, tree, SessionTable::default(), Zxid::ZERO, Zxid::ZERO);
            shard.start_serving();
            shard
        };
        let config = SequencerConfig {
            local: ShardId(0),
            map: map.clone(),
            auth: auth.clone(),
            tick_ms: 100,
            remembered_bytes_max: 1 << 10,
            slice_steps: SLICE_STEPS,
        };
        let ids = SessionIds::new(1, 1_000_000);
        let mut server = TestServer {
            shards: map.all().map(shard).collect(),
            sequencer: Sequencer::new(config, Zxid::ZERO, SessionTable::default(), ids, 0),
            to_sequencer: VecDeque::new(),
            to_shard: vec![VecDeque::new(); shards.into()],
            to_peer: VecDeque::new(),
            released: Zxid::ZERO,
            now_ms: 0,
            slow: None,
            latencies_us: Vec::new(),
            admission: Admission::default(),
            admission_news: Vec::new(),
            log_room_bytes: None,
            log_is_busy: false,
            records_asked: Cell::new(0),
            records_asked_at_once_max: 0,
            validated_at_once_max: Duration::ZERO,
            validated: Duration::ZERO,
            lookups: 0,
            received: Vec::new(),
        };
        server.sequencer.open_epoch(1);
        server.settle();
        server
    }

    fn deliver(&mut self, out: SequencerOutputs) {
        for (target, message) in out.messages {
            match target {
                Target::All => {
                    for shard in 1..self.shards.len() {
                        self.to_shard[shard].push_back(message.clone());
                    }
                    let mut out = ShardOutputs::default();
                    self.shards[0].on_sequencer(&message, &mut out).unwrap();
                    self.collect(0, out);
                }
                Target::One(shard) => {
                    self.lookups += 1;
                    self.to_shard[shard.index()].push_back(message);
                }
            }
        }
    }

    fn collect(&mut self, shard: usize, out: ShardOutputs) {
        let id = ShardId(shard as u16);
        self.latencies_us.extend(out.latencies_us);
        self.to_sequencer.extend(out.to_sequencer.into_iter().map(|message| (id, message)));
        self.to_peer.extend(out.to_peers.into_iter().map(|(to, message)| (id, to, message)));
        for number in out.dirty {
            if self.slow != Some((shard, number)) {
                self.take_output(shard, number);
            }
        }
    }

    /// Sends what a connection has ready.
    pub(super) fn take_output(&mut self, shard: usize, number: u64) {
        let mut out = ShardOutputs::default();
        let (bytes, zxid) = self.shards[shard].take_output(number, Vec::new(), &mut out);
        self.released = self.released.max(zxid);
        match self.received.iter_mut().find(|(who, _)| *who == (shard, number)) {
            Some((_, all)) => all.extend(bytes),
            None => self.received.push(((shard, number), bytes)),
        }
        self.collect(shard, out);
    }

    /// Runs the sequencer: what it got, validation, an instant disk.
    pub(super) fn run_sequencer(&mut self) {
        while let Some((from, message)) = self.to_sequencer.pop_front() {
            self.sequencer.receive(from, message, self.now_ms);
        }
        let mut out = SequencerOutputs::default();
        let (asked, begun) = (self.records_asked.get(), Instant::now());
        let records = Counting { records: &self.shards[0], asked: &self.records_asked };
        let log = |bytes| match self.log_room_bytes {
            None => Room::Granted { short: false },
            Some(left) if bytes <= left => Room::Granted { short: true },
            Some(_) if self.log_is_busy => Room::Busy,
            Some(left) => Room::None(format!("{left} bytes are left")),
        };
        let (admitted, news) = self.admission.admit(&mut self.sequencer, log);
        self.admission_news.extend(news);
        match admitted {
            Admitted::Bytes(room_bytes) => {
                let (now_ms, wall_ms) = (self.now_ms, 1000 + self.now_ms);
                self.sequencer.advance(Turn { records: &records, now_ms, wall_ms, room_bytes }, &mut out);
            }
            Admitted::Refuse => self.sequencer.refuse(self.now_ms, &mut out),
            Admitted::Wait => {}
            Admitted::Stop(reason) => panic!("{reason}"),
        }
        let took = begun.elapsed();
        self.validated += took;
        self.validated_at_once_max = self.validated_at_once_max.max(took);
        self.records_asked_at_once_max = self.records_asked_at_once_max.max(self.records_asked.get() - asked);
        let left = &mut self.log_room_bytes;
        self.sequencer.new_proposals(|_, txn| {
            let taken = LOG_HEAD_BYTES_MAX + txn.len();
            *left = left.map(|left| left.checked_sub(taken).expect("what is proposed fits the log"));
        });
        self.deliver(out);
        let mut out = SequencerOutputs::default();
        self.sequencer.durable(self.sequencer.last(), &mut out);
        self.deliver(out);
    }

    /// A turn of every clock: shards report whom they heard of, and the silent are looked for.
    pub(super) fn tick(&mut self) {
        let all: Vec<usize> = (0..self.shards.len()).collect();
        self.tick_shards(&all);
    }

    /// The same, while the other shards stand still.
    pub(super) fn tick_shards(&mut self, shards: &[usize]) {
        for &shard in shards {
            let mut out = ShardOutputs::default();
            self.shards[shard].tick(self.now_ms, &mut out);
            self.collect(shard, out);
        }
        while let Some((from, message)) = self.to_sequencer.pop_front() {
            self.sequencer.receive(from, message, self.now_ms);
        }
        self.sequencer.tick(self.now_ms);
    }

    /// Counts from zero.
    pub(super) fn start_counting(&mut self) {
        self.records_asked.set(0);
        self.records_asked_at_once_max = 0;
        self.validated_at_once_max = Duration::ZERO;
        self.validated = Duration::ZERO;
        self.lookups = 0;
    }

    /// Delivers one message to a shard from the sequencer.
    pub(super) fn run_shard(&mut self, shard: usize) -> bool {
        let Some(message) = self.to_shard[shard].pop_front() else { return false };
        let mut out = ShardOutputs::default();
        self.shards[shard].on_sequencer(&message, &mut out).unwrap();
        self.collect(shard, out);
        true
    }

    /// Delivers the oldest message between shards.
    pub(super) fn run_peer(&mut self) -> bool {
        let Some((from, to, message)) = self.to_peer.pop_front() else { return false };
        let mut out = ShardOutputs::default();
        self.shards[to.index()].on_peer(from, message, &mut out);
        self.collect(to.index(), out);
        true
    }

    /// Runs everything until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            let before = self.sequencer.handed();
            self.run_sequencer();
            let mut moved = self.sequencer.handed() != before || !self.to_sequencer.is_empty() || self.goes_on();
            for shard in 0..self.shards.len() {
                while self.run_shard(shard) {
                    moved = true;
                }
            }
            while self.run_peer() {
                moved = true;
            }
            let floor = self.shards.iter().map(Shard::published).min().unwrap();
            self.shards.iter_mut().for_each(|shard| shard.set_floor(floor));
            if !moved && self.to_sequencer.is_empty() {
                return;
            }
        }
    }

    /// True when validation can go on without anybody's help.
    fn goes_on(&self) -> bool {
        self.sequencer.has_more() && !self.admission.is_waiting()
    }

    /// Bytes of a client arrive. Returns how many were consumed.
    pub(super) fn send(&mut self, client: Client, bytes: &[u8]) -> usize {
        let mut out = ShardOutputs::default();
        let consumed = self.shards[client.shard].receive(client.number, bytes, self.released, &mut out);
        self.collect(client.shard, out);
        consumed.expect("a frame of an allowed length")
    }

    pub(super) fn request(&mut self, client: Client, xid: i32, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode_frame(xid, &mut bytes);
        self.send(client, &bytes);
    }

    /// Everything the client received since the last call.
    pub(super) fn received(&mut self, client: Client) -> Vec<Received> {
        let Some((_, bytes)) = self.received.iter_mut().find(|(who, _)| *who == (client.shard, client.number)) else {
            return Vec::new();
        };
        let bytes = std::mem::take(bytes);
        let mut frames = FrameReader::new(&bytes, usize::MAX >> 1);
        let mut received = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            let mut input = Input::new(frame.body);
            let header = ReplyHeader::decode(&mut input).unwrap();
            received.push(Received { header, body: input.rest().to_vec() });
        }
        received
    }

    /// A connection with a handshake; the answer is `None` when the server closed it without one.
    pub(super) fn attach(&mut self, shard: usize, session: i64, password: &[u8]) -> (Client, Option<ConnectResponse>) {
        let number = self.shards[shard].connect("127.0.0.1".parse().unwrap(), self.now_ms);
        let client = Client { shard, number };
        let mut bytes = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 1000,
            session_id: session,
            password,
            read_only: Some(false),
        };
        request.encode_frame(&mut bytes);
        self.send(client, &bytes);
        self.settle();
        let place = self.received.iter_mut().find(|(who, _)| *who == (shard, number));
        let response = place.and_then(|(_, bytes)| {
            let bytes = std::mem::take(bytes);
            (bytes.len() > 4).then(|| ConnectResponse::decode(&bytes[4..]).unwrap())
        });
        (client, response)
    }

    pub(super) fn client(&mut self, shard: usize) -> (Client, ConnectResponse) {
        let (client, response) = self.attach(shard, 0, &[0; 16]);
        (client, response.expect("a new session is granted"))
    }
}
