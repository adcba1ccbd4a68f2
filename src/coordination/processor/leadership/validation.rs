//! Makes transactions of requests: sessions here, operations in [`super::draft`].

use super::draft::{Ask, Draft, Slice};
use super::lookups::{Answers, Source};
use super::prep::{Prep, Stop};
use super::{Item, Leadership, Outcome, Waiting, Work};
use crate::base::{SessionId, Zxid, coverage};
use crate::coordination::processor::commit_log::CommitLog;
use crate::coordination::processor::message::{MarkAnswer, RequestId, WriteBody, WriteRequest};
use crate::coordination::processor::txn::{TxnHeader, TxnWriter};
use crate::coordination::processor::txn_room::TXN_BYTES_MAX;
use crate::coordination::session::Session;
use crate::protocol::zookeeper::{ErrorCode, Id};

/// On whose behalf a transaction is made.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
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

impl Leadership {
    /// Proposes the opening record of the next epoch: a leadership does not survive its process (rule E4).
    pub(in super::super) fn open_epoch(&mut self, wall_ms: i64, log: &mut CommitLog) {
        self.open_epoch_above(log.proposed(), wall_ms, log);
    }

    /// Proposes the opening of an epoch that is above the one of `highest`, too: the highest zxid that was ever given out, also when
    /// the log was cut below it. The caller has checked that an epoch is left.
    pub(in super::super) fn open_epoch_above(&mut self, highest: Zxid, wall_ms: i64, log: &mut CommitLog) {
        let epoch = log.proposed().max(highest).epoch();
        let zxid = Zxid::new(epoch.checked_add(1).expect("epochs are not exhausted"), 0);
        let header = Asker::server(SessionId::NONE).header(zxid, wall_ms);
        write_txn(log, &header, |writer| writer.open_epoch());
        self.opening = self.opening.min(zxid);
    }

    /// Takes the request at the front a slice further.
    pub(super) fn process(&mut self, waiting: &Waiting, work: &mut Work<'_>) -> Outcome {
        let outcome = if self.merging { self.merge(work) } else { self.next_slice(waiting, work) };
        if matches!(outcome, Outcome::Done)
            && let Some(session) = self.closing.take()
        {
            self.sessions.remove(session);
            self.expiry.remove(session);
            self.sessions_expired += u64::from(matches!(waiting.item, Item::Expiry { .. }));
        }
        outcome
    }

    fn next_slice(&mut self, waiting: &Waiting, work: &mut Work<'_>) -> Outcome {
        let answers = waiting.answers.as_deref();
        let request = match &waiting.item {
            Item::Request(request) => request,
            Item::Expiry { session, deaf_ms } => return self.expire(*session, *deaf_ms, answers, work),
        };
        let too_long = waiting.room_bytes.is_some_and(|bytes| bytes > TXN_BYTES_MAX);
        let too_long = too_long.then_some(MarkAnswer::Refused(ErrorCode::SystemError));
        if let Some(answer) = self.refusal(request, work.log).or(too_long) {
            self.give_up_draft(work.log);
            work.log.answer(request.id, answer);
            return Outcome::Done;
        }
        let asker = Asker::client(request);
        match &request.body {
            WriteBody::Sync => work.log.answer(request.id, MarkAnswer::Synced),
            WriteBody::CreateSession { timeout_ms, .. } => {
                let asker = Asker { session: self.ids.allocate(), ..asker };
                self.place_session(asker, *timeout_ms, work, |w, s, t| w.create_session(s, t));
            }
            WriteBody::MoveSession { timeout_ms, .. } => {
                self.place_session(asker, *timeout_ms, work, |w, s, t| w.move_session(s, t));
            }
            WriteBody::CloseSession => return self.close_session(asker, answers, work),
            WriteBody::Operation { op, record } => {
                if self.sessions.get(asker.session).is_some() {
                    return self.validate(asker, Ask::Operation { op: *op, record }, answers, work);
                }
                self.refuse_session(asker, work);
            }
        }
        Outcome::Done
    }

    /// Answers that need neither validation nor a transaction.
    fn refusal(&self, request: &WriteRequest, log: &CommitLog) -> Option<MarkAnswer> {
        match &request.body {
            WriteBody::CreateSession { last_zxid_seen, .. } | WriteBody::MoveSession { last_zxid_seen, .. }
                if *last_zxid_seen > log.proposed() =>
            {
                Some(MarkAnswer::Close)
            }
            WriteBody::MoveSession { .. } if self.sessions.get(request.session).is_none() => {
                Some(MarkAnswer::SessionGone)
            }
            WriteBody::CreateSession { .. } | WriteBody::MoveSession { .. } | WriteBody::Sync => None,
            WriteBody::CloseSession | WriteBody::Operation { .. } => {
                let known = self.sessions.get(request.session);
                known.filter(|session| session.connection != request.id.connection).map(|_| {
                    coverage::mark("write-of-moved-session-refused");
                    MarkAnswer::Close
                })
            }
        }
    }

    /// The answer to a request that the log has no room for.
    pub(super) fn refusal_for_room(&self, request: &WriteRequest, log: &CommitLog) -> MarkAnswer {
        self.refusal(request, log).unwrap_or(match &request.body {
            WriteBody::CreateSession { .. } | WriteBody::MoveSession { .. } => MarkAnswer::Close,
            WriteBody::Sync => MarkAnswer::Synced,
            WriteBody::CloseSession | WriteBody::Operation { .. } => MarkAnswer::Refused(ErrorCode::SystemError),
        })
    }

    /// Ends a session that was silent, unless it was heard of, or could not be heard, while its end waited in the queue.
    fn expire(&mut self, session: SessionId, deaf_ms: i64, answers: Option<&Answers>, work: &mut Work<'_>) -> Outcome {
        let now_ms = work.turn.now_ms;
        // Less than a tick is no more than what lies between a client's word and the report of it.
        let unheard = self.hearing.deaf_ms(now_ms) - deaf_ms >= i64::from(self.config.tick_ms);
        if unheard && !self.expiry.contains(session) {
            self.start_expiry(session, now_ms);
        }
        if self.expiry.contains(session) {
            self.give_up_draft(work.log);
            return Outcome::Done;
        }
        self.close_session(Asker::server(session), answers, work)
    }

    fn place_session(
        &mut self,
        asker: Asker<'_>,
        timeout_ms: u32,
        work: &mut Work<'_>,
        write: impl FnOnce(&mut TxnWriter<'_>, SessionId, u32),
    ) {
        let session = asker.session;
        let header = self.header(&asker, work);
        self.sessions.put(session, Session { timeout_ms, connection: asker.request.connection });
        self.start_expiry(session, work.turn.now_ms);
        write_txn(work.log, &header, |writer| write(writer, session, timeout_ms));
    }

    fn close_session(&mut self, asker: Asker<'_>, answers: Option<&Answers>, work: &mut Work<'_>) -> Outcome {
        if self.sessions.get(asker.session).is_none() {
            // Nobody waits for what the server does by itself.
            if asker.request != RequestId::default() {
                self.refuse_session(asker, work);
            }
            return Outcome::Done;
        }
        self.validate(asker, Ask::Close, answers, work)
    }

    /// A transaction that says that the session has ended before.
    fn refuse_session(&mut self, asker: Asker<'_>, work: &mut Work<'_>) {
        let header = self.header(&asker, work);
        write_txn(work.log, &header, |writer| writer.error(ErrorCode::SessionExpired.wire()));
    }

    /// The header of the next transaction; opens a new epoch when the counter is exhausted, so that it never wraps. Given up, it leaves
    /// no gap: its zxid is given out again.
    fn header(&mut self, asker: &Asker<'_>, work: &mut Work<'_>) -> TxnHeader {
        let wall_ms = work.turn.wall_ms;
        if work.log.proposed().counter() == u32::MAX {
            coverage::mark("epoch-rolled-over");
            self.open_epoch(wall_ms, work.log);
        }
        asker.header(work.log.proposed().next(), wall_ms)
    }

    /// Runs prep over the next slice of the request at the front, and proposes the transaction once it is whole; a refusal is proposed
    /// too.
    fn validate(&mut self, asker: Asker<'_>, ask: Ask<'_>, answers: Option<&Answers>, work: &mut Work<'_>) -> Outcome {
        let mut draft = match self.draft.take() {
            Some(draft) => draft,
            None => {
                let header = self.header(&asker, work);
                work.log.begin_draft(&header);
                Draft::new(header, ask)
            }
        };
        let Work { turn, steps, log, .. } = work;
        let source = Source { map: &self.config.map, local_shard: self.config.local, local: turn.records, answers };
        let mut writer = log.draft();
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
        let outcome = match draft.advance(&mut prep, ask, steps) {
            Ok(Slice::Done) => Outcome::Done,
            Ok(Slice::More) => Outcome::More,
            Ok(Slice::Listed) => Outcome::NeedsRoom,
            Err(Stop::Missing(keys)) => Outcome::Missing(keys),
            Err(Stop::Refused(code)) => {
                writer.clear_records();
                writer.error(code.wire());
                self.own.clear();
                Outcome::Done
            }
        };
        if !matches!(outcome, Outcome::Done) {
            self.draft = Some(draft);
            return outcome;
        }
        writer.finish();
        log.propose(draft.header.zxid);
        self.closing = matches!(ask, Ask::Close).then_some(asker.session);
        self.merging = true;
        self.merge(work)
    }

    /// What the request at the front changed becomes known, in slices too: its transaction is proposed, and nothing is validated before
    /// all of it is known.
    fn merge(&mut self, work: &mut Work<'_>) -> Outcome {
        // About as much work as a step of validation.
        const CHANGES_A_STEP: usize = 4;
        let zxid = work.log.proposed();
        for count in 1.. {
            let Some((path, image)) = self.own.pop() else { break };
            self.known.put(zxid, path, image);
            if count % CHANGES_A_STEP == 0 {
                work.steps = work.steps.saturating_sub(1);
                if work.steps == 0 {
                    return Outcome::More;
                }
            }
        }
        self.merging = false;
        Outcome::Done
    }

    /// The request at the front is not validated any further; nothing has happened.
    pub(super) fn give_up_draft(&mut self, log: &mut CommitLog) {
        if self.draft.take().is_some() {
            log.give_up_draft();
            self.own.clear();
        }
    }
}

fn write_txn(log: &mut CommitLog, header: &TxnHeader, write: impl FnOnce(&mut TxnWriter<'_>)) {
    let mut writer = log.begin_draft(header);
    write(&mut writer);
    writer.finish();
    log.propose(header.zxid);
}
