//! The part of a server that orders writes.
//!
//! The driver's duties, in this order, on the executor of the local shard:
//! 1. feed [`Sequencer::receive`], [`Sequencer::tick`] and [`Sequencer::durable`];
//! 2. call [`Sequencer::advance`], which validates what can be validated;
//! 3. append every new proposal to the log ([`Sequencer::new_proposals`]);
//! 4. deliver [`SequencerOutputs`]: to each shard in the order given, to the local one at once, before `advance` is called
//!    again: it reads the local shard's records directly.
//!
//! [`lookups`] asks the owners of records and gives prep what they said.
//!
//! Rules: B1 (lookups and batches in one FIFO; changes stay outstanding while a request may rely on older answers), B2 (nothing is
//! validated before the epoch's opening record was handed over), B6 (sessions are looked at as the proposals leave them), B7
//! (validation suspends and starts again), A11 (only the session's current connection may write).

mod lookups;

use super::known_records::KnownRecords;
use super::message::{Batch, LookupKey, Mark, MarkAnswer, RequestId, ToSequencer, ToShard, WriteBody, WriteRequest};
use super::own_changes::OwnChanges;
use super::prep::{AclCache, Prep, Stop};
use super::proposals::Proposals;
use super::txn::{TxnHeader, TxnWriter};
use crate::base::{SessionId, ShardId, Zxid, coverage, planted};
use crate::coordination::auth::AuthConfig;
use crate::coordination::session::{ExpiryQueue, Session, SessionIds, SessionTable};
use crate::coordination::tree::{NodeImage, ShardMap};
use crate::protocol::zookeeper::{ErrorCode, Request};
use ahash::AHashMap;
use bytes::Bytes;
use lookups::{Answers, Source, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a sequencer is started with.
#[derive(Clone, Debug)]
pub struct SequencerConfig {
    /// The shard whose executor it shares.
    pub local: ShardId,
    /// Who owns which path.
    pub map: ShardMap,
    /// Who may do what.
    pub auth: Arc<AuthConfig>,
    /// Sessions expire in buckets of this.
    pub tick_ms: u32,
    /// What may be remembered of records so that their owners need not be asked again.
    pub remembered_bytes_max: usize,
}

/// The records of the local shard, with everything applied that was handed to it.
pub trait LocalRecords {
    /// What prep needs to know of the node at `path`.
    fn image(&self, path: &str) -> Option<NodeImage>;

    /// The ephemeral nodes of `session` here, sorted.
    fn ephemerals(&self, session: SessionId) -> Vec<Box<str>>;
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every shard, the local one included.
    All,
    /// One shard, never the local one.
    One(ShardId),
}

/// What must be delivered, in this order.
#[derive(Debug, Default)]
pub struct SequencerOutputs {
    /// Messages and their receivers.
    pub messages: Vec<(Target, ToShard)>,
}

/// What waits for validation.
#[derive(Debug)]
enum Asked {
    Client(WriteRequest),
    Expire(SessionId),
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    /// What had been handed to the shards when it was first looked at for what must be looked up; [`Zxid::MAX`] before. Along the
    /// queue it never goes down.
    issued_after: Zxid,
    /// Lookups not answered yet.
    unanswered: usize,
    /// Made with the first answer: a server with one shard never needs them.
    answers: Option<Box<Answers>>,
}

/// Gives the order.
#[derive(Debug)]
pub struct Sequencer {
    config: SequencerConfig,
    /// The last proposal.
    last: Zxid,
    /// The last transaction handed to the shards.
    handed: Zxid,
    /// The opening record of this epoch: nothing is validated before it was handed over.
    opening: Zxid,
    /// Sessions as the proposals leave them.
    sessions: SessionTable,
    ids: SessionIds,
    expiry: ExpiryQueue,
    known: KnownRecords,
    own: OwnChanges,
    acls: AclCache,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    /// Number of the request at the front of the queue.
    front: u64,
    tickets: AHashMap<u64, Ticket>,
    next_ticket: u64,
    proposals: Proposals,
    marks: VecDeque<Mark>,
    refusing: bool,
    /// Sessions whose end was queued because nobody heard of them.
    expired_sessions: u64,
}

impl Sequencer {
    /// A sequencer that goes on after `last`, the end of the recovered log, with the sessions that exist there. Every session
    /// gets its full timeout again.
    pub fn new(
        config: SequencerConfig,
        last: Zxid,
        sessions: SessionTable,
        mut ids: SessionIds,
        now_ms: i64,
    ) -> Sequencer {
        let mut expiry = ExpiryQueue::new(config.tick_ms);
        for (id, session) in sessions.iter() {
            ids.skip_past(id);
            expiry.start(id, session.timeout_ms, now_ms);
        }
        let remembered_bytes_max = config.remembered_bytes_max;
        Sequencer {
            config,
            last,
            handed: last,
            opening: Zxid::MAX,
            sessions,
            ids,
            expiry,
            known: KnownRecords::new(remembered_bytes_max),
            own: OwnChanges::default(),
            acls: AclCache::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            front: 0,
            tickets: AHashMap::default(),
            next_ticket: 0,
            proposals: Proposals::default(),
            marks: VecDeque::new(),
            refusing: false,
            expired_sessions: 0,
        }
    }

    /// Proposes the opening record of the next epoch: a leadership does not survive its process (rule E4).
    pub fn open_epoch(&mut self, wall_ms: i64) {
        self.open_epoch_above(self.last, wall_ms);
    }

    /// Proposes the opening of an epoch that is above the one of `highest`, too: the highest zxid that was ever given out, also when
    /// the log was cut below it. The caller has checked that an epoch is left.
    pub fn open_epoch_above(&mut self, highest: Zxid, wall_ms: i64) {
        let epoch = self.last.max(highest).epoch();
        let zxid = Zxid::new(epoch.checked_add(1).expect("epochs are not exhausted"), 0);
        self.write_txn(zxid, wall_ms, SessionId::NONE, RequestId::default(), 0, |writer| writer.open_epoch());
        self.opening = self.opening.min(zxid);
    }

    /// The last proposal.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// Goes on after `zxid`, so that the end of an epoch can be reached within the life of a test or a simulation.
    pub fn skip_to(&mut self, zxid: Zxid) {
        self.last = zxid;
    }

    /// The last transaction handed to the shards.
    pub fn handed(&self) -> Zxid {
        self.handed
    }

    /// Requests waiting for validation.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Memory of the requests waiting for validation.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Memory of requests and proposals that are not committed yet: what admission is bounded by.
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes + self.proposals.bytes()
    }

    /// Number of records that outstanding proposals changed.
    pub fn outstanding_len(&self) -> usize {
        self.known.outstanding_len()
    }

    /// True once the epoch is open.
    pub fn is_open(&self) -> bool {
        self.handed >= self.opening
    }

    /// Refuses writes before they are validated, or goes on: the log has no room (rule B11).
    pub fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// True while writes are refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// A message from a shard. `now_ms` is monotonic.
    pub fn receive(&mut self, from: ShardId, message: ToSequencer, now_ms: i64) {
        match message {
            ToSequencer::Requests(pack) => {
                pack.into_requests().for_each(|request| self.enqueue(Asked::Client(request)));
            }
            ToSequencer::LookupAnswer(answer) => self.answered(from, answer),
            ToSequencer::Touched(sessions) => {
                for session in sessions {
                    // Due already, but its end is still in the queue: it goes on living.
                    if !self.expiry.touch(session, now_ms)
                        && let Some(known) = self.sessions.get(session)
                    {
                        self.expiry.start(session, known.timeout_ms, now_ms);
                    }
                }
            }
        }
    }

    /// How many sessions this server has ended because nobody heard of them.
    pub fn expired_sessions(&self) -> u64 {
        self.expired_sessions
    }

    /// A turn of the clock: sessions that were not heard of are put in the queue to be closed. Deliver queued touches first
    /// (rule B13).
    pub fn tick(&mut self, now_ms: i64) {
        self.expiry.turn(now_ms);
        if !self.is_open() {
            return;
        }
        for session in self.expiry.expired(now_ms) {
            match self.sessions.get(session) {
                // It stays known and due until there is room for its end.
                Some(known) if self.refusing => self.expiry.start(session, known.timeout_ms, now_ms),
                Some(_) => {
                    self.expired_sessions += 1;
                    self.enqueue(Asked::Expire(session));
                }
                None => {}
            }
        }
    }

    fn enqueue(&mut self, asked: Asked) {
        self.queued_bytes += asked.bytes();
        self.queue.push_back(Waiting { asked, issued_after: Zxid::MAX, unanswered: 0, answers: None });
    }

    /// Validates requests from the front of the queue until one must wait for a record; what those behind it will need is
    /// looked up meanwhile. `wall_ms` is the time of the transactions.
    pub fn advance(&mut self, local: &dyn LocalRecords, now_ms: i64, wall_ms: i64, out: &mut SequencerOutputs) {
        while self.is_open() && self.queue.front().is_some_and(|front| front.unanswered == 0) {
            let Some(waiting) = self.queue.pop_front() else { break };
            match self.process(&waiting, local, now_ms, wall_ms) {
                Ok(()) => {
                    self.front += 1;
                    self.queued_bytes -= waiting.asked.bytes();
                    self.learn(waiting.answers);
                }
                Err(keys) => {
                    coverage::mark("prep-suspended");
                    self.queue.push_front(waiting);
                    self.ask(0, keys, out);
                    if self.queue[0].unanswered == 0 {
                        // Everything asked for turned out to be outstanding meanwhile: cannot happen, since nothing behind
                        // the front is validated; going round again would never end.
                        unreachable!("a suspended request asks for something");
                    }
                }
            }
        }
        self.look_ahead(out);
        self.settle();
        self.hand_over_marks(out);
    }

    /// Nothing that a queued request may rely on settles: its answers date from `issued_after` at the earliest, and lookups
    /// are sent in the order of the queue.
    fn settle(&mut self) {
        let mut limit = self.queue.front().map_or(self.handed, |front| front.issued_after.min(self.handed));
        if planted::is("b1-entry-dropped-early") {
            limit = self.handed;
        }
        self.known.settle_up_to(limit);
    }

    fn process(
        &mut self,
        waiting: &Waiting,
        local: &dyn LocalRecords,
        now_ms: i64,
        wall_ms: i64,
    ) -> Result<(), Vec<LookupKey>> {
        let request = match &waiting.asked {
            Asked::Client(request) => request,
            // It was heard of, or moved, while its end waited in the queue.
            Asked::Expire(session) if self.expiry.contains(*session) => {
                coverage::mark("expiry-taken-back");
                return Ok(());
            }
            Asked::Expire(session) => return self.close_session(*session, None, waiting, local, wall_ms),
        };
        if let Some(answer) = self.refusal(request) {
            self.mark(request.id, answer);
            return Ok(());
        }
        match &request.body {
            WriteBody::Sync => {
                self.mark(request.id, MarkAnswer::Synced);
                Ok(())
            }
            WriteBody::CreateSession { timeout_ms, .. } => {
                let session = self.ids.allocate();
                self.place_session(request, session, *timeout_ms, now_ms, wall_ms, |w, s, t| w.create_session(s, t));
                Ok(())
            }
            WriteBody::MoveSession { timeout_ms, .. } => {
                let session = request.session;
                self.place_session(request, session, *timeout_ms, now_ms, wall_ms, |w, s, t| w.move_session(s, t));
                Ok(())
            }
            WriteBody::CloseSession => self.close_session(request.session, Some(request), waiting, local, wall_ms),
            WriteBody::Operation { op, record } => self.operation(request, *op, record, waiting, local, wall_ms),
        }
    }

    /// Answers that need neither validation nor a transaction.
    fn refusal(&self, request: &WriteRequest) -> Option<MarkAnswer> {
        match &request.body {
            WriteBody::CreateSession { last_zxid_seen, .. } | WriteBody::MoveSession { last_zxid_seen, .. }
                if *last_zxid_seen > self.last =>
            {
                Some(MarkAnswer::Close)
            }
            WriteBody::MoveSession { .. } if self.sessions.get(request.session).is_none() => {
                Some(MarkAnswer::SessionGone)
            }
            WriteBody::CreateSession { .. } | WriteBody::MoveSession { .. } if self.refusing => Some(MarkAnswer::Close),
            WriteBody::CreateSession { .. } | WriteBody::MoveSession { .. } | WriteBody::Sync => None,
            WriteBody::CloseSession | WriteBody::Operation { .. } => {
                let known = self.sessions.get(request.session);
                if known.is_some_and(|session| session.connection != request.id.connection) {
                    coverage::mark("write-of-moved-session-refused");
                    return Some(MarkAnswer::Close);
                }
                self.refusing.then_some(MarkAnswer::Refused(ErrorCode::SystemError))
            }
        }
    }

    fn mark(&mut self, request: RequestId, answer: MarkAnswer) {
        self.marks.push_back(Mark { after: self.last, request, answer });
    }

    fn place_session(
        &mut self,
        request: &WriteRequest,
        session: SessionId,
        timeout_ms: u32,
        now_ms: i64,
        wall_ms: i64,
        write: impl FnOnce(&mut TxnWriter<'_>, SessionId, u32),
    ) {
        let zxid = self.next_zxid(wall_ms);
        self.sessions.put(session, Session { timeout_ms, connection: request.id.connection });
        self.expiry.start(session, timeout_ms, now_ms);
        self.write_txn(zxid, wall_ms, session, request.id, request.xid, |writer| {
            write(writer, session, timeout_ms);
        });
    }

    fn close_session(
        &mut self,
        session: SessionId,
        request: Option<&WriteRequest>,
        waiting: &Waiting,
        local: &dyn LocalRecords,
        wall_ms: i64,
    ) -> Result<(), Vec<LookupKey>> {
        let (id, xid) = request.map_or((RequestId::default(), 0), |request| (request.id, request.xid));
        if self.sessions.get(session).is_none() {
            if request.is_some() {
                self.refuse(id, session, xid, ErrorCode::SessionExpired, wall_ms);
            }
            return Ok(());
        }
        self.validated(id, session, xid, &[], waiting, local, wall_ms, |prep| prep.close_session())?;
        self.sessions.remove(session);
        self.expiry.remove(session);
        Ok(())
    }

    fn operation(
        &mut self,
        request: &WriteRequest,
        op: i32,
        record: &[u8],
        waiting: &Waiting,
        local: &dyn LocalRecords,
        wall_ms: i64,
    ) -> Result<(), Vec<LookupKey>> {
        let (id, session, xid) = (request.id, request.session, request.xid);
        if self.sessions.get(session).is_none() {
            self.refuse(id, session, xid, ErrorCode::SessionExpired, wall_ms);
            return Ok(());
        }
        match Request::decode(op, record) {
            // The home shard decoded it before.
            Err(_) => self.refuse(id, session, xid, ErrorCode::MarshallingError, wall_ms),
            Ok(decoded) => {
                let identities = request.identities.clone();
                self.validated(id, session, xid, &identities, waiting, local, wall_ms, |prep| prep.request(&decoded))?;
            }
        }
        Ok(())
    }

    /// A transaction that says that the request was refused.
    fn refuse(&mut self, id: RequestId, session: SessionId, xid: i32, code: ErrorCode, wall_ms: i64) {
        let zxid = self.next_zxid(wall_ms);
        self.write_txn(zxid, wall_ms, session, id, xid, |writer| writer.error(code.wire()));
    }

    /// Runs prep and proposes what it wrote; a refusal is proposed too. Nothing has happened when records are missing.
    #[allow(clippy::too_many_arguments)]
    fn validated(
        &mut self,
        id: RequestId,
        session: SessionId,
        xid: i32,
        identities: &[crate::protocol::zookeeper::Id],
        waiting: &Waiting,
        local: &dyn LocalRecords,
        wall_ms: i64,
        validate: impl FnOnce(&mut Prep<'_, '_, Source<'_>>) -> Result<(), Stop>,
    ) -> Result<(), Vec<LookupKey>> {
        let zxid = self.next_zxid(wall_ms);
        let answers = waiting.answers.as_deref();
        let source = Source { map: &self.config.map, local_shard: self.config.local, local, answers };
        let header = TxnHeader { zxid, time_ms: wall_ms, session, request: id, xid };
        self.own.clear();
        let mut writer = TxnWriter::begin(self.proposals.buffer(), &header);
        let start = writer.mark();
        let result = validate(&mut Prep {
            auth: &self.config.auth,
            known: &self.known,
            source: &source,
            own: &mut self.own,
            acls: &mut self.acls,
            session,
            identities,
            zxid,
            time_ms: wall_ms,
            writer: &mut writer,
        });
        match result {
            Ok(()) => {}
            Err(Stop::Missing(keys)) => {
                writer.abandon();
                return Err(keys);
            }
            Err(Stop::Refused(code)) => {
                writer.rewind(start);
                writer.error(code.wire());
                self.own.clear();
            }
        }
        writer.finish();
        self.proposed_now(zxid);
        for (path, image) in self.own.drain() {
            self.known.put(zxid, path, image);
        }
        Ok(())
    }

    fn write_txn(
        &mut self,
        zxid: Zxid,
        wall_ms: i64,
        session: SessionId,
        request: RequestId,
        xid: i32,
        write: impl FnOnce(&mut TxnWriter<'_>),
    ) {
        let header = TxnHeader { zxid, time_ms: wall_ms, session, request, xid };
        let mut writer = TxnWriter::begin(self.proposals.buffer(), &header);
        write(&mut writer);
        writer.finish();
        self.proposed_now(zxid);
    }

    fn proposed_now(&mut self, zxid: Zxid) {
        self.last = zxid;
        self.proposals.push(zxid);
    }

    /// The next zxid; opens a new epoch when the counter is exhausted, so that it never wraps. A suspended request leaves no
    /// gap: its zxid is given out again.
    fn next_zxid(&mut self, wall_ms: i64) -> Zxid {
        if self.last.counter() == u32::MAX {
            coverage::mark("epoch-rolled-over");
            self.open_epoch(wall_ms);
        }
        self.last.next()
    }

    /// Gives each transaction that was proposed since the last call to the log, in order.
    pub fn new_proposals(&mut self, append: impl FnMut(Zxid, &[u8])) {
        self.proposals.give_to_log(append);
    }

    /// Everything up to `zxid` is on disk, and so, in a server on its own, committed: hands it to the shards.
    pub fn durable(&mut self, zxid: Zxid, out: &mut SequencerOutputs) {
        while let Some((txns, last)) = self.proposals.take_up_to(zxid) {
            self.handed = last;
            let marks = self.marks_up_to(last);
            out.messages.push((Target::All, ToShard::Batch(Batch { txns, marks })));
        }
        self.settle();
    }

    fn marks_up_to(&mut self, zxid: Zxid) -> Vec<Mark> {
        let count = self.marks.partition_point(|mark| mark.after <= zxid);
        self.marks.drain(..count).collect()
    }

    /// Marks whose place is reached already need no transaction to travel with.
    fn hand_over_marks(&mut self, out: &mut SequencerOutputs) {
        let marks = self.marks_up_to(self.handed);
        if !marks.is_empty() {
            out.messages.push((Target::All, ToShard::Batch(Batch { txns: Bytes::new(), marks })));
        }
    }
}

impl Asked {
    fn bytes(&self) -> usize {
        match self {
            Asked::Client(request) => request.bytes(),
            Asked::Expire(_) => size_of::<Asked>(),
        }
    }
}
