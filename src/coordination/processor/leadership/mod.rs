//! What belongs to one leadership: who asks for what, and what validation stands on. All of it dies with the epoch.
//!
//! - [`validation`]: makes transactions of the requests in the queue, one after the other.
//! - [`draft`]: the request that is being validated, in slices.
//! - [`prep`]: one step of validation: a request's results, against the outstanding changes and the records of the owner shards.
//! - [`OwnChanges`]: what the request that is being validated changes.
//! - [`KnownRecords`]: what has been proposed and not yet applied everywhere, and what need not be asked again.
//! - [`lookups`], [`foresight`]: asks the owners of records for what validation will need, and gives prep what they said.

mod draft;
mod foresight;
mod known_records;
mod lookups;
mod own_changes;
mod prep;
mod validation;

use super::commit_log::CommitLog;
use super::message::{LookupKey, LookupTicket, ToSequencer, WriteRequest};
use super::sequencer::{SequencerConfig, SequencerOutputs, Turn};
use super::stall_detector::WaitsFor;
use super::txn_room::{TXN_BYTES_MAX, TXN_ROOM_MIN, room_of};
use crate::base::{SessionId, ShardId, Zxid, coverage, planted};
use crate::coordination::session::{ExpiryQueue, Hearing, SessionIds, SessionTable};
use ahash::AHashMap;
use draft::Draft;
use known_records::KnownRecords;
use lookups::{Answers, Ticket};
use own_changes::OwnChanges;
use prep::AclCache;
use std::collections::VecDeque;

/// Room asked of the log at once, about, bytes: as much as a flush writes.
const ROOM_STEP_BYTES: usize = 1 << 20;

/// What waits for validation.
#[derive(Debug)]
enum Item {
    Request(WriteRequest),
    /// The end of a session that was silent for too long.
    Expiry {
        session: SessionId,
        /// For how long clients could not be heard, all together, when it was found silent.
        deaf_ms: i64,
    },
}

#[derive(Debug)]
struct Waiting {
    item: Item,
    /// The most that its transaction takes of the log, once that was counted.
    room_bytes: Option<usize>,
    /// The last transaction that had been handed to the shards when the lookups of this request were worked out;
    /// [`Zxid::MAX`] until then. From the front of the queue to its end this zxid never goes down.
    issued_after: Zxid,
    /// Lookups not answered yet.
    unanswered: usize,
    /// Made with the first answer: a server with one shard never needs them.
    answers: Option<Box<Answers>>,
}

/// Room in the log that validation would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomWanted {
    /// For the request at the front of the queue, bytes.
    pub first: usize,
    /// For those that one flush would take, bytes.
    pub all: usize,
}

/// What one call of [`Leadership::advance`] works with.
struct Work<'a> {
    turn: Turn<'a>,
    /// Steps of validation left.
    steps: usize,
    /// Room in the log left, bytes.
    room_bytes: usize,
    log: &'a mut CommitLog,
}

/// What became of the request at the front of the queue.
enum Outcome {
    /// It is answered, or proposed.
    Done,
    /// There is more to validate, in a later slice.
    More,
    /// Its transaction takes more of the log than was known.
    NeedsRoom,
    /// Records must be looked up first.
    Missing(Vec<LookupKey>),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Leadership {
    config: SequencerConfig,
    /// The opening record of this epoch: nothing is validated before it was handed over.
    opening: Zxid,
    /// Sessions as the proposals leave them.
    sessions: SessionTable,
    ids: SessionIds,
    expiry: ExpiryQueue,
    hearing: Hearing,
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
    tickets: AHashMap<LookupTicket, Ticket>,
    next_ticket: LookupTicket,
    /// Sessions that ended because they were silent.
    sessions_expired: u64,
}

impl Leadership {
    /// A leadership that begins with these sessions. Every one gets its full timeout again.
    pub(super) fn new(config: SequencerConfig, sessions: SessionTable, mut ids: SessionIds, now_ms: i64) -> Leadership {
        let mut expiry = ExpiryQueue::new(config.tick_ms);
        for (id, session) in sessions.iter() {
            ids.skip_past(id);
            expiry.start(id, session.timeout_ms, now_ms);
        }
        Leadership {
            opening: Zxid::MAX,
            sessions,
            ids,
            expiry,
            hearing: Hearing::new(config.map.shards().into(), config.tick_ms, now_ms),
            known: KnownRecords::new(config.remembered_bytes_max),
            own: OwnChanges::default(),
            draft: None,
            merging: false,
            closing: None,
            acls: AclCache::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            front: 0,
            tickets: AHashMap::default(),
            next_ticket: LookupTicket::default(),
            sessions_expired: 0,
            config,
        }
    }

    /// Requests waiting for validation.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Memory of the requests waiting for validation.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Sessions that ended because they were silent.
    pub(super) fn sessions_expired(&self) -> u64 {
        self.sessions_expired
    }

    /// Requests validated, and steps of the one that is being validated.
    pub(super) fn progress(&self) -> (u64, usize) {
        (self.front, self.draft.as_ref().map_or(0, Draft::steps))
    }

    /// True once the epoch is open.
    pub(super) fn is_open(&self, log: &CommitLog) -> bool {
        log.handed() >= self.opening
    }

    /// Clients cannot be heard from now on, or can again: nobody expires for that.
    pub(super) fn set_deaf(&mut self, deaf: bool, now_ms: i64) {
        self.hearing.set_deaf(deaf, now_ms);
    }

    /// A message from a shard. `now_ms` is monotonic.
    pub(super) fn receive(&mut self, from: ShardId, message: ToSequencer, now_ms: i64) {
        match message {
            ToSequencer::Requests(pack) => {
                pack.into_requests().for_each(|request| self.enqueue(Item::Request(request)));
            }
            ToSequencer::LookupAnswer(answer) => self.answered(from, answer),
            ToSequencer::Touched(sessions) => {
                self.hearing.reported(from, now_ms);
                for session in sessions {
                    let clock_ms = self.hearing.clock_at(now_ms);
                    // Due already, but its end is still in the queue: it goes on living.
                    if !self.expiry.touch(session, clock_ms) {
                        self.start_expiry(session, now_ms);
                    }
                }
            }
        }
    }

    /// The session, if it exists, has its full timeout from now on.
    fn start_expiry(&mut self, session: SessionId, now_ms: i64) {
        if let Some(known) = self.sessions.get(session) {
            self.expiry.start(session, known.timeout_ms, self.hearing.clock_at(now_ms));
        }
    }

    /// A turn of the clock: sessions that were not heard of are put in the queue to be closed.
    pub(super) fn tick(&mut self, now_ms: i64, log: &CommitLog) {
        let clock_ms = self.hearing.turn(now_ms);
        if !self.is_open(log) {
            return;
        }
        let deaf_ms = self.hearing.deaf_ms(now_ms);
        for session in self.expiry.expired(clock_ms) {
            if self.sessions.get(session).is_some() {
                self.enqueue(Item::Expiry { session, deaf_ms });
            }
        }
    }

    fn enqueue(&mut self, item: Item) {
        self.queued_bytes += item.bytes();
        let waiting = Waiting { item, room_bytes: None, issued_after: Zxid::MAX, unanswered: 0, answers: None };
        self.queue.push_back(waiting);
    }

    /// True when the request at the front can be validated at once.
    pub(super) fn has_more(&self, log: &CommitLog) -> bool {
        self.is_open(log) && self.queue.front().is_some_and(|front| front.unanswered == 0)
    }

    /// Room in the log for what validation would come to next; `None` when there is nothing to validate now. What is proposed already
    /// needs none.
    pub(super) fn room_wanted(&mut self, log: &CommitLog) -> Option<RoomWanted> {
        if self.merging || !self.has_more(log) {
            return None;
        }
        let first = self.room_of(0);
        let mut all = first;
        for place in 1..self.queue.len().min(self.config.slice_steps) {
            if all >= ROOM_STEP_BYTES || self.queue[place].unanswered > 0 {
                break;
            }
            all += self.room_of(place);
        }
        // The counter of the epoch may be exhausted at any of them: the next epoch has an opening record.
        (all > 0).then_some(RoomWanted { first: first + TXN_ROOM_MIN, all: all + TXN_ROOM_MIN })
    }

    /// The most that the transaction of the request at `place` in the queue takes. One that is too long for any log takes nothing: it
    /// is refused.
    fn room_of(&mut self, place: usize) -> usize {
        if let (0, Some(room_bytes)) = (place, self.draft.as_ref().and_then(Draft::room_bytes)) {
            return room_bytes;
        }
        let Waiting { item, room_bytes, .. } = &mut self.queue[place];
        let counted = *room_bytes.get_or_insert_with(|| match item {
            Item::Request(request) => room_of(request),
            Item::Expiry { .. } => TXN_ROOM_MIN,
        });
        if counted > TXN_BYTES_MAX { 0 } else { counted }
    }

    /// Validates requests from the front of the queue until one must wait for a record or for room, or a slice of the executor's time is
    /// used up. What those behind a waiting one will need is looked up meanwhile.
    pub(super) fn advance(&mut self, turn: Turn<'_>, log: &mut CommitLog, out: &mut SequencerOutputs) {
        let room_bytes = turn.room_bytes.saturating_sub(TXN_ROOM_MIN);
        let mut work = Work { turn, steps: self.config.slice_steps, room_bytes, log };
        while work.steps > 0 && self.has_more(work.log) {
            let needed_bytes = if self.merging { 0 } else { self.room_of(0) };
            if needed_bytes > work.room_bytes {
                break;
            }
            let Some(waiting) = self.queue.pop_front() else { break };
            match self.process(&waiting, &mut work) {
                Outcome::Done => {
                    work.steps = work.steps.saturating_sub(1);
                    work.room_bytes = work.room_bytes.saturating_sub(needed_bytes);
                    self.done(waiting);
                }
                // The loop looks again.
                Outcome::More | Outcome::NeedsRoom => self.queue.push_front(waiting),
                Outcome::Missing(keys) => {
                    coverage::mark("prep-suspended");
                    debug_assert!(!keys.is_empty(), "a suspended request asks for something");
                    self.queue.push_front(waiting);
                    self.ask(0, keys, work.log.handed(), out);
                }
            }
        }
        let log = work.log;
        self.look_ahead(log.handed(), out);
        self.settle(log);
        log.hand_over_answers(out);
    }

    /// The request is answered or proposed, and has left the front of the queue.
    fn done(&mut self, waiting: Waiting) {
        debug_assert!(self.draft.is_none() && !self.merging);
        self.front += 1;
        self.queued_bytes -= waiting.item.bytes();
        self.learn(waiting.answers);
    }

    /// The log has no room for the request at the front: it is refused before anything of it is proposed, and with it those behind it
    /// that need as much (rule B11).
    pub(super) fn refuse(&mut self, now_ms: i64, log: &mut CommitLog, out: &mut SequencerOutputs) {
        if self.merging || !self.has_more(log) {
            return;
        }
        coverage::mark("writes-refused");
        let refused_bytes = self.room_of(0);
        while self.has_more(log) && self.room_of(0) >= refused_bytes {
            let Some(waiting) = self.queue.pop_front() else { break };
            self.give_up_draft(log);
            match &waiting.item {
                Item::Request(request) => log.answer(request.id, self.refusal_for_room(request, log)),
                // It stays known until there is room for its end.
                Item::Expiry { session, .. } => self.start_expiry(*session, now_ms),
            }
            self.done(waiting);
        }
        log.hand_over_answers(out);
    }

    /// Settles the changes that no queued request needs as outstanding. The answers that a queued request holds are at least
    /// as new as its `issued_after`. Lookups are sent in the order of the queue, so the front of the queue sets the limit.
    pub(super) fn settle(&mut self, log: &CommitLog) {
        let handed = log.handed();
        let mut limit = self.queue.front().map_or(handed, |front| front.issued_after.min(handed));
        if planted::is("b1-entry-dropped-early") {
            limit = handed;
        }
        self.known.settle_up_to(limit);
    }

    /// What the request at the front waits for: records, or else what only the log can know.
    pub(super) fn waits_for(&self) -> Option<WaitsFor> {
        let front = self.queue.front()?;
        let asked = self.tickets.values().filter(|ticket| ticket.is_of(self.front)).map(Ticket::shard).min();
        asked.filter(|_| front.unanswered > 0).map(WaitsFor::Records)
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Request(request) => request.bytes(),
            Item::Expiry { .. } => size_of::<Item>(),
        }
    }
}
