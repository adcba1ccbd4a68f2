//! The part of a server that orders writes.
//!
//! The driver's duties, in this order, on the executor of the local shard:
//! 1. feed [`Sequencer::receive`], [`Sequencer::tick`] and [`Sequencer::durable`];
//! 2. call [`Sequencer::advance`], which validates what can be validated;
//! 3. append every new proposal to the log ([`Sequencer::new_proposals`]);
//! 4. deliver [`SequencerOutputs`]: to each shard in the order given, to the local one at once, before `advance` is called
//!    again: it reads the local shard's records directly;
//! 5. while [`Sequencer::has_more`], let other tasks have a turn and begin again at 2.
//!
//! [`lookups`] asks the owners of records and gives prep what they said; [`draft`] is the request that is being validated.
//!
//! Rules: B1 (lookups and batches in one FIFO; changes stay outstanding while a request may rely on older answers), B2 (nothing is
//! validated before the epoch's opening record was handed over), B6 (sessions are looked at as the proposals leave them), B7
//! (validation suspends and goes on, nothing behind it is validated meanwhile), A11 (only the session's current connection may write).

mod draft;
mod lookups;

use super::known_records::KnownRecords;
use super::message::{Batch, LookupKey, Mark, MarkAnswer, RequestId, ToSequencer, ToShard, WriteBody, WriteRequest};
use super::own_changes::OwnChanges;
use super::prep::{AclCache, Prep, Stop};
use super::proposals::Proposals;
use super::txn::{TxnHeader, TxnWriter};
use crate::base::{ConnectionId, SessionId, ShardId, Zxid, coverage, planted};
use crate::coordination::auth::AuthConfig;
use crate::coordination::session::{ExpiryQueue, Session, SessionIds, SessionTable};
use crate::coordination::tree::{NodeImage, ShardMap};
use crate::protocol::zookeeper::{ErrorCode, Id};
use ahash::AHashMap;
use bytes::Bytes;
use draft::{Ask, Draft, SLICE_STEPS, Slice};
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
enum Item {
    Request(WriteRequest),
    /// The end of a session that was silent for too long.
    Expiry(SessionId),
}

#[derive(Debug)]
struct Waiting {
    item: Item,
    /// What had been handed to the shards when it was first looked at for what must be looked up; [`Zxid::MAX`] before. Along the
    /// queue it never goes down.
    issued_after: Zxid,
    /// Lookups not answered yet.
    unanswered: usize,
    /// Made with the first answer: a server with one shard never needs them.
    answers: Option<Box<Answers>>,
}

/// On whose behalf a transaction is made.
#[derive(Clone, Copy)]
struct Asker<'a> {
    session: SessionId,
    request: RequestId,
    xid: i32,
    identities: &'a [Id],
}

impl<'a> Asker<'a> {
    fn client(request: &'a WriteRequest) -> Asker<'a> {
        Asker { session: request.session, request: request.id, xid: request.xid, identities: &request.identities }
    }

    /// The server itself: to end a session, or to open an epoch.
    fn server(session: SessionId) -> Asker<'static> {
        Asker { session, request: RequestId::default(), xid: 0, identities: &[] }
    }

    fn header(&self, zxid: Zxid, time_ms: i64) -> TxnHeader {
        TxnHeader { zxid, time_ms, session: self.session, request: self.request, xid: self.xid }
    }
}

/// What one call of [`Sequencer::advance`] works with.
struct Turn<'a> {
    local: &'a dyn LocalRecords,
    now_ms: i64,
    wall_ms: i64,
    /// Steps of validation left.
    steps: usize,
}

/// What became of the request at the front of the queue.
enum Outcome {
    /// It is answered, or proposed.
    Done,
    /// There is more to validate, in a later slice.
    More,
    /// Records must be looked up first.
    Missing(Vec<LookupKey>),
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
    /// The changes of the request at the front of the queue, and its transaction in the making.
    own: OwnChanges,
    draft: Option<Draft>,
    /// The request at the front is proposed, and not all of its changes are known yet.
    merging: bool,
    /// The session that ends with the request at the front, which is proposed.
    closing: Option<SessionId>,
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
            draft: None,
            merging: false,
            closing: None,
            acls: AclCache::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            front: 0,
            tickets: AHashMap::default(),
            next_ticket: 0,
            proposals: Proposals::default(),
            marks: VecDeque::new(),
            refusing: false,
        }
    }

    /// Proposes the opening record of the next epoch: a leadership does not survive its process (rule E4).
    pub fn open_epoch(&mut self, wall_ms: i64) {
        let zxid = Zxid::new(self.last.epoch().checked_add(1).expect("epochs are not exhausted"), 0);
        let header = Asker::server(SessionId::NONE).header(zxid, wall_ms);
        self.write_txn(&header, |writer| writer.open_epoch());
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
                pack.into_requests().for_each(|request| self.enqueue(Item::Request(request)));
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
                Some(_) => self.enqueue(Item::Expiry(session)),
                None => {}
            }
        }
    }

    fn enqueue(&mut self, item: Item) {
        self.queued_bytes += item.bytes();
        self.queue.push_back(Waiting { item, issued_after: Zxid::MAX, unanswered: 0, answers: None });
    }

    /// Validates requests from the front of the queue until one must wait for a record, or a slice of the executor's time is used up:
    /// see [`Sequencer::has_more`]. What those behind a waiting one will need is looked up meanwhile. `wall_ms` is the time of the
    /// transactions.
    pub fn advance(&mut self, local: &dyn LocalRecords, now_ms: i64, wall_ms: i64, out: &mut SequencerOutputs) {
        let mut turn = Turn { local, now_ms, wall_ms, steps: SLICE_STEPS };
        while turn.steps > 0 && self.has_more() {
            let Some(waiting) = self.queue.pop_front() else { break };
            match self.process(&waiting, &mut turn) {
                Outcome::Done => {
                    debug_assert!(self.draft.is_none());
                    turn.steps = turn.steps.saturating_sub(1);
                    self.front += 1;
                    self.queued_bytes -= waiting.item.bytes();
                    self.learn(waiting.answers);
                }
                Outcome::More => self.queue.push_front(waiting),
                Outcome::Missing(keys) => {
                    coverage::mark("prep-suspended");
                    debug_assert!(!keys.is_empty(), "a suspended request asks for something");
                    self.queue.push_front(waiting);
                    self.ask(0, keys, out);
                }
            }
        }
        self.look_ahead(out);
        self.settle();
        self.hand_over_marks(out);
    }

    /// True when [`Sequencer::advance`] can go on at once. The driver lets others have their turn before.
    pub fn has_more(&self) -> bool {
        self.is_open() && self.queue.front().is_some_and(|front| front.unanswered == 0)
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

    fn process(&mut self, waiting: &Waiting, turn: &mut Turn<'_>) -> Outcome {
        let outcome = if self.merging { self.merge(turn) } else { self.next_slice(waiting, turn) };
        if matches!(outcome, Outcome::Done)
            && let Some(session) = self.closing.take()
        {
            self.sessions.remove(session);
            self.expiry.remove(session);
        }
        outcome
    }

    fn next_slice(&mut self, waiting: &Waiting, turn: &mut Turn<'_>) -> Outcome {
        let answers = waiting.answers.as_deref();
        let request = match &waiting.item {
            Item::Request(request) => request,
            // It was heard of, or moved, while its end waited in the queue.
            Item::Expiry(session) if self.expiry.contains(*session) => {
                coverage::mark("expiry-taken-back");
                self.give_up_draft();
                return Outcome::Done;
            }
            Item::Expiry(session) => return self.close_session(Asker::server(*session), answers, turn),
        };
        if let Some(answer) = self.refusal(request) {
            self.give_up_draft();
            self.mark(request.id, answer);
            return Outcome::Done;
        }
        let asker = Asker::client(request);
        match &request.body {
            WriteBody::Sync => self.mark(request.id, MarkAnswer::Synced),
            WriteBody::CreateSession { timeout_ms, .. } => {
                let asker = Asker { session: self.ids.allocate(), ..asker };
                self.place_session(asker, *timeout_ms, turn, |w, s, t| w.create_session(s, t));
            }
            WriteBody::MoveSession { timeout_ms, .. } => {
                self.place_session(asker, *timeout_ms, turn, |w, s, t| w.move_session(s, t));
            }
            WriteBody::CloseSession => return self.close_session(asker, answers, turn),
            WriteBody::Operation { op, record } => {
                if self.sessions.get(asker.session).is_some() {
                    return self.validate(asker, Ask::Operation { op: *op, record }, answers, turn);
                }
                self.refuse(asker, ErrorCode::SessionExpired, turn.wall_ms);
            }
        }
        Outcome::Done
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
        asker: Asker<'_>,
        timeout_ms: u32,
        turn: &Turn<'_>,
        write: impl FnOnce(&mut TxnWriter<'_>, SessionId, u32),
    ) {
        let session = asker.session;
        let zxid = self.next_zxid(turn.wall_ms);
        self.sessions.put(session, Session { timeout_ms, connection: asker.request.connection });
        self.expiry.start(session, timeout_ms, turn.now_ms);
        self.write_txn(&asker.header(zxid, turn.wall_ms), |writer| write(writer, session, timeout_ms));
    }

    fn close_session(&mut self, asker: Asker<'_>, answers: Option<&Answers>, turn: &mut Turn<'_>) -> Outcome {
        if self.sessions.get(asker.session).is_none() {
            // Nobody waits for what the server does by itself.
            if asker.request != RequestId::default() {
                self.refuse(asker, ErrorCode::SessionExpired, turn.wall_ms);
            }
            return Outcome::Done;
        }
        self.validate(asker, Ask::Close, answers, turn)
    }

    /// A transaction that says that the request was refused.
    fn refuse(&mut self, asker: Asker<'_>, code: ErrorCode, wall_ms: i64) {
        let zxid = self.next_zxid(wall_ms);
        self.write_txn(&asker.header(zxid, wall_ms), |writer| writer.error(code.wire()));
    }

    /// Runs prep over the next slice of the request at the front, and proposes the transaction once it is whole; a refusal is proposed
    /// too.
    fn validate(&mut self, asker: Asker<'_>, ask: Ask<'_>, answers: Option<&Answers>, turn: &mut Turn<'_>) -> Outcome {
        let mut draft = match self.draft.take() {
            Some(draft) => draft,
            None => {
                let header = asker.header(self.next_zxid(turn.wall_ms), turn.wall_ms);
                TxnWriter::begin(self.proposals.buffer(), &header);
                Draft::new(header, ask)
            }
        };
        let source = Source { map: &self.config.map, local_shard: self.config.local, local: turn.local, answers };
        let start = self.proposals.draft_start();
        let mut writer = TxnWriter::resume(self.proposals.buffer(), start);
        let mut prep = Prep {
            auth: &self.config.auth,
            known: &self.known,
            source: &source,
            own: &mut self.own,
            acls: &mut self.acls,
            session: asker.session,
            identities: asker.identities,
            zxid: draft.header.zxid,
            time_ms: draft.header.time_ms,
            writer: &mut writer,
        };
        match draft.advance(&mut prep, ask, &mut turn.steps) {
            Ok(Slice::Done) => {}
            Ok(Slice::More) => {
                self.draft = Some(draft);
                return Outcome::More;
            }
            Err(Stop::Missing(keys)) => {
                self.draft = Some(draft);
                return Outcome::Missing(keys);
            }
            Err(Stop::Refused(code)) => {
                writer.clear_records();
                writer.error(code.wire());
                self.own.clear();
            }
        }
        writer.finish();
        self.proposed_now(draft.header.zxid);
        self.closing = matches!(ask, Ask::Close).then_some(asker.session);
        self.merging = true;
        self.merge(turn)
    }

    /// What the request at the front changed becomes known, in slices too: its transaction is proposed, and nothing is validated before
    /// all of it is known.
    fn merge(&mut self, turn: &mut Turn<'_>) -> Outcome {
        // About as much work as a step of validation.
        const CHANGES_A_STEP: usize = 4;
        for count in 1.. {
            let Some((path, image)) = self.own.pop() else { break };
            self.known.put(self.last, path, image);
            if count % CHANGES_A_STEP == 0 {
                turn.steps = turn.steps.saturating_sub(1);
                if turn.steps == 0 {
                    return Outcome::More;
                }
            }
        }
        self.merging = false;
        Outcome::Done
    }

    /// The request at the front is not validated any further; nothing has happened.
    fn give_up_draft(&mut self) {
        if self.draft.take().is_some() {
            coverage::mark("draft-given-up");
            self.proposals.give_up_draft();
            self.own.clear();
        }
    }

    fn write_txn(&mut self, header: &TxnHeader, write: impl FnOnce(&mut TxnWriter<'_>)) {
        let mut writer = TxnWriter::begin(self.proposals.buffer(), header);
        write(&mut writer);
        writer.finish();
        self.proposed_now(header.zxid);
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

    /// The connection that a session is on, as the proposals leave it.
    pub fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.sessions.get(session).map(|session| session.connection)
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Request(request) => request.bytes(),
            Item::Expiry(_) => size_of::<Item>(),
        }
    }
}
