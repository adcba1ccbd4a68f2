//! Replays a history through the one-copy model and compares everything that clients saw with it.
//!
//! What is proven, for any number of shards: linearizable writes; request order per connection; a session's
//! view never goes back, also across reconnects; one server never contradicts itself between clients (rule A3); events
//! once, in zxid order, before anything newer; a multi seen whole; no write of a connection whose session has moved on; no
//! session expired early and no ephemeral without its session; and after a crash, every acknowledged write and nothing half.

use super::follow::{Finding, Follower, Parsed, RealTime, identities_at, is_write, parse};
use super::history::{
    ClientConnection, Committed, CommittedKind, ConnectionKey, Dump, History, Life, Moment, Received,
};
use super::model::{Actor, Model, ModelEvent, ModelReply};
use super::story::{Violation, describe_sent, steps_around};
use crate::base::{SessionId, Zxid};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, ErrorCode, PASSWORD_BYTES, ReplyHeader, Request, xid,
};
use std::collections::BTreeMap;

/// What the server under test promises beside the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The least timeout that is granted.
    pub session_timeout_ms_min: u32,
    /// The greatest.
    pub session_timeout_ms_max: u32,
    /// How long the news that a session was heard of may be under way to whoever expires it.
    pub touch_delay_us_max: u64,
    /// How much later than its timeout a session expires at the latest, when nothing is wrong.
    pub expiry_delay_us_max: u64,
}

/// How much a verified history contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Verified {
    pub transactions: u64,
    pub requests: u64,
    pub replies: u64,
    pub events: u64,
}

/// Checks `history`.
pub fn verify(history: &History, promises: &Promises) -> Result<Verified, Box<Violation>> {
    let mut replay = Replay {
        history,
        promises,
        time: real_time(history),
        model: Model::new(),
        position: Zxid::ZERO,
        sessions: BTreeMap::new(),
        closed: BTreeMap::new(),
        last_write: BTreeMap::new(),
    };
    match replay.run() {
        Ok(()) => Ok(count(history)),
        Err(finding) => {
            let Finding { rule, at, connection, expected, got } = *finding;
            let steps = steps_around(history, at, connection);
            Err(Box::new(Violation { seed: history.seed, rule, at, connection, expected, got, steps }))
        }
    }
}

fn count(history: &History) -> Verified {
    let transactions = history.lives.iter().map(|life| life.committed.len() as u64).sum();
    let mut verified = Verified { transactions, ..Verified::default() };
    for connection in &history.connections {
        verified.requests += connection.sent.len() as u64;
        let events = connection.received.iter().skip(1).filter(|frame| is_event(frame)).count() as u64;
        verified.events += events;
        verified.replies += connection.received.len() as u64 - events;
    }
    verified
}

fn is_event(frame: &Received) -> bool {
    ReplyHeader::decode(&mut Input::new(&frame.body)).is_ok_and(|header| header.xid == xid::NOTIFICATION)
}

fn real_time(history: &History) -> RealTime {
    let mut received = Vec::new();
    for connection in &history.connections {
        for frame in connection.received.iter().skip(1) {
            if let Ok(header) = ReplyHeader::decode(&mut Input::new(&frame.body)) {
                received.push((frame.at, header.zxid));
            }
        }
    }
    let commits = history.lives.iter().flat_map(|life| &life.committed);
    RealTime { received: growing(received), committed: growing(commits.map(|c| (c.at, c.zxid.wire())).collect()) }
}

fn growing(mut list: Vec<(Moment, i64)>) -> Vec<(Moment, i64)> {
    list.sort_unstable();
    let mut highest = 0;
    for (_, value) in &mut list {
        highest = highest.max(*value);
        *value = highest;
    }
    list
}

/// A session as the outside knows it.
struct Known {
    password: [u8; PASSWORD_BYTES],
    connection: ConnectionKey,
    timeout_ms: u32,
}

type Check = Result<(), Box<Finding>>;

struct Replay<'h> {
    history: &'h History,
    promises: &'h Promises,
    time: RealTime,
    model: Model,
    position: Zxid,
    sessions: BTreeMap<SessionId, Known>,
    /// When each session that is gone was closed.
    closed: BTreeMap<SessionId, Moment>,
    /// The number of the last committed request of each connection.
    last_write: BTreeMap<ConnectionKey, u64>,
}

fn finding(
    rule: &'static str,
    at: Moment,
    connection: Option<ConnectionKey>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Box<Finding> {
    Box::new(Finding { rule, at, connection, expected: expected.into(), got: got.into() })
}

impl<'h> Replay<'h> {
    fn run(&mut self) -> Check {
        for (number, life) in self.history.lives.iter().enumerate() {
            if number > 0 {
                self.check_recovery(number, life)?;
            }
            self.live(number, life)?;
        }
        let Some(last) = self.history.lives.last() else { return Ok(()) };
        if let Some(dump) = &last.final_dump {
            self.check_dump("the final state is the model's", self.history.ended, dump)?;
        }
        self.check_overdue(last)
    }

    fn live(&mut self, number: usize, life: &Life) -> Check {
        let connections = self.history.connections.iter().enumerate();
        let mut followers: Vec<Follower<'h>> = connections
            .filter(|(_, connection)| connection.life == number)
            .map(|(key, _)| Follower::new(self.history, key))
            .collect();
        let survives = self.history.lives.get(number + 1).map_or(Zxid::MAX, |next| next.recovered);
        for commit in life.committed.iter().filter(|commit| commit.zxid <= survives) {
            if life.skipped_to.is_some_and(|zxid| zxid.next() == commit.zxid) {
                self.position = commit.zxid;
            } else {
                self.check_place(commit)?;
            }
            self.commit(commit, &mut followers)?;
            for follower in &mut followers {
                follower.at_position(commit.zxid, &self.model, &self.time)?;
            }
        }
        for follower in &mut followers {
            follower.at_end(|connection| self.may_refuse(connection))?;
        }
        Ok(())
    }

    /// Whether the session that the handshake names may be called gone.
    fn may_refuse(&self, connection: &ClientConnection) -> bool {
        let Ok(connect) = ConnectRequest::decode(&connection.sent[0].body) else { return false };
        let session = SessionId(connect.session_id);
        let closed_before = |at: Moment| self.closed.get(&session).is_some_and(|closed| *closed < at);
        let unknown = !self.sessions.contains_key(&session) && !self.closed.contains_key(&session);
        let asked = session != SessionId::NONE;
        asked
            && (connection.wrong_password
                || unknown
                || connection.received.first().is_some_and(|f| closed_before(f.at)))
    }

    /// The next number of the epoch, or the first of a later one.
    fn check_place(&mut self, commit: &Committed) -> Check {
        let before = std::mem::replace(&mut self.position, commit.zxid);
        let follows = before.counter() != u32::MAX && commit.zxid == before.next();
        if follows || (commit.zxid.counter() == 0 && commit.zxid.epoch() == before.epoch() + 1) {
            return Ok(());
        }
        let rule = "transactions follow each other without a gap";
        Err(finding(rule, commit.at, None, format!("the one after {before}"), commit.zxid.to_string()))
    }

    fn commit(&mut self, commit: &Committed, followers: &mut [Follower<'h>]) -> Check {
        if let Some((key, number)) = commit.request {
            self.check_request(commit, key, number)?;
        }
        let (events, reply) = match commit.kind {
            CommittedKind::Nothing => (Vec::new(), None),
            CommittedKind::CreateSession { timeout_ms } | CommittedKind::MoveSession { timeout_ms } => {
                self.attach(commit, timeout_ms, followers)?;
                (Vec::new(), None)
            }
            CommittedKind::CloseSession => self.close(commit)?,
            CommittedKind::Operation => self.operation(commit)?,
        };
        followers.iter_mut().try_for_each(|follower| follower.on_txn(commit, &events, reply.as_ref()))
    }

    /// The request of a transaction exists, comes after everything that its sender knew, and after the one before it on its
    /// connection, with no write left out.
    fn check_request(&mut self, commit: &Committed, key: ConnectionKey, number: u64) -> Check {
        let connection = &self.history.connections[key];
        let Some(sent) = connection.sent.get(number as usize) else {
            let rule = "every transaction has a request";
            return Err(finding(rule, commit.at, Some(key), "a request that was sent", format!("request {number}")));
        };
        let known = RealTime::before(&self.time.received, sent.at);
        if commit.zxid.wire() <= known {
            let rule = "a write is ordered after everything that was known when it was sent";
            return Err(finding(rule, commit.at, Some(key), format!("above {known:#x}"), commit.zxid.to_string()));
        }
        let wall_ms = |moment: Moment| self.history.wall_clock_start_ms + (moment.time_us / 1000) as i64;
        if commit.time_ms < wall_ms(sent.at) || commit.time_ms > wall_ms(commit.at) {
            let rule = "a transaction's time is when it was proposed";
            let expected = format!("{} to {}", wall_ms(sent.at), wall_ms(commit.at));
            return Err(finding(rule, commit.at, Some(key), expected, commit.time_ms.to_string()));
        }
        if number == 0 {
            return Ok(());
        }
        let last = self.last_write.insert(key, number).unwrap_or(0);
        if number <= last {
            let rule = "each write is committed once, in the order of its connection";
            return Err(finding(rule, commit.at, Some(key), format!("after {last}"), format!("request {number}")));
        }
        let is_skipped = |earlier: &usize| {
            matches!(parse(connection, *earlier), Parsed::Good { request, .. } if is_write(&request))
                && !self.history.had_no_room(connection.sent[*earlier].at, commit.at)
        };
        match (last as usize + 1..number as usize).find(is_skipped) {
            None => Ok(()),
            Some(skipped) => {
                let rule = "no write overtakes an earlier one of its connection";
                let expected = describe_sent(skipped, &connection.sent[skipped].body);
                Err(finding(rule, commit.at, Some(key), expected, describe_sent(number as usize, &sent.body)))
            }
        }
    }

    fn attach(&mut self, commit: &Committed, timeout_ms: u32, followers: &mut [Follower<'h>]) -> Check {
        let rule = "a session is created or moved as the handshake asks";
        let Some((key, 0)) = commit.request else {
            return Err(finding(rule, commit.at, None, "a handshake", format!("{:?}", commit.request)));
        };
        let connection = &self.history.connections[key];
        let fail = |expected: String, got: String| Err(finding(rule, commit.at, Some(key), expected, got));
        let Ok(connect) = ConnectRequest::decode(&connection.sent[0].body) else {
            return fail("a handshake".into(), "bytes that are none".into());
        };
        let created = matches!(commit.kind, CommittedKind::CreateSession { .. });
        let asked = i64::from(connect.timeout_ms);
        let granted =
            asked.clamp(self.promises.session_timeout_ms_min.into(), self.promises.session_timeout_ms_max.into());
        if i64::from(timeout_ms) != granted {
            return fail(format!("timeout {granted} ms"), format!("{timeout_ms} ms"));
        }
        if commit.zxid.wire() <= connect.last_zxid_seen {
            return fail(format!("a place after {:#x}", connect.last_zxid_seen), commit.zxid.to_string());
        }
        if created != (connect.session_id == 0) || (!created && connect.session_id != commit.session.0) {
            return fail(format!("session {:#x}", connect.session_id), format!("{:?} {}", commit.kind, commit.session));
        }
        if created && (self.sessions.contains_key(&commit.session) || self.closed.contains_key(&commit.session)) {
            return fail("a new session".into(), format!("{} again", commit.session));
        }
        if !created && (connection.wrong_password || !self.sessions.contains_key(&commit.session)) {
            return fail("a refusal".into(), format!("session {} moved", commit.session));
        }
        let told = connection.received.first().and_then(|frame| ConnectResponse::decode(&frame.body).ok());
        let password = match (self.sessions.get(&commit.session), told) {
            (Some(known), _) if known.password != [0; PASSWORD_BYTES] => known.password,
            (_, Some(response)) => response.password,
            (_, None) => [0; PASSWORD_BYTES],
        };
        self.sessions.insert(commit.session, Known { password, connection: key, timeout_ms });
        // The timeout that is stored is the one of creation; a move renegotiates the connection's.
        self.model.sessions.insert(commit.session, timeout_ms);
        let mut response = Vec::new();
        let read_only = connect.read_only.map(|_| false);
        ConnectResponse { timeout_ms: timeout_ms as i32, session_id: commit.session.0, password, read_only }
            .encode_frame(&mut response);
        let mut attached = followers.iter_mut().filter(|follower| follower.key() == key);
        attached.try_for_each(|follower| follower.on_attached(commit, &response[4..]))
    }

    fn close(&mut self, commit: &Committed) -> Result<(Vec<ModelEvent>, Option<ModelReply>), Box<Finding>> {
        let Some(known) = self.sessions.remove(&commit.session) else {
            let rule = "a session is closed once";
            return Err(finding(rule, commit.at, None, "a session that exists", commit.session.to_string()));
        };
        match commit.request {
            Some((key, _)) if key != known.connection => {
                let rule = "nobody but its own connection closes a session";
                let expected = format!("connection {}", known.connection);
                return Err(finding(rule, commit.at, Some(key), expected, format!("connection {key}")));
            }
            Some(_) => {}
            None => self.check_expiry(commit, &known)?,
        }
        self.closed.insert(commit.session, commit.at);
        Ok((self.model.close_session(commit.zxid, commit.session), Some(ModelReply::default())))
    }

    /// Not before the timeout after the last request that was surely heard: its reply had arrived, and there was time for the
    /// news to reach whoever expires sessions.
    fn check_expiry(&self, commit: &Committed, known: &Known) -> Check {
        let decided_us = ((commit.time_ms - self.history.wall_clock_start_ms + 1) * 1000) as u64;
        let connection = &self.history.connections[known.connection];
        let replies = connection.received.iter().enumerate().filter(|(number, frame)| *number == 0 || !is_event(frame));
        let heard = connection.sent.iter().zip(replies).filter(|(_, (_, reply))| {
            let told_us = reply.at.time_us + self.promises.touch_delay_us_max;
            told_us + self.stalled_us(reply.at.time_us, decided_us) <= decided_us
        });
        match heard.map(|(sent, _)| sent.at.time_us).max() {
            Some(at_us) if at_us + u64::from(known.timeout_ms) * 1000 > decided_us => Err(finding(
                "a session does not expire before its timeout",
                commit.at,
                Some(known.connection),
                format!("expiry of {} {} ms after {at_us} us", commit.session, known.timeout_ms),
                format!("expiry at {decided_us} us"),
            )),
            _ => Ok(()),
        }
    }

    /// For how long a part of the server did not turn between two times.
    fn stalled_us(&self, from_us: u64, until_us: u64) -> u64 {
        let within = |(start, end): &(u64, u64)| (*end).min(until_us).saturating_sub((*start).max(from_us));
        self.history.stalls.iter().map(within).sum()
    }

    fn operation(&mut self, commit: &Committed) -> Result<(Vec<ModelEvent>, Option<ModelReply>), Box<Finding>> {
        let rule = "an operation is committed as its client asked for it";
        let Some((key, number)) = commit.request.filter(|(_, number)| *number > 0) else {
            return Err(finding(rule, commit.at, None, "a request", format!("{:?}", commit.request)));
        };
        match self.sessions.get(&commit.session) {
            None if self.closed.contains_key(&commit.session) => {
                return Ok((Vec::new(), Some(ModelReply::error(ErrorCode::SessionExpired))));
            }
            Some(known) if known.connection == key => {}
            other => {
                let rule = "no write of a connection whose session has moved on";
                let expected = other.map_or("a session".into(), |known| format!("connection {}", known.connection));
                return Err(finding(rule, commit.at, Some(key), expected, format!("session {}", commit.session)));
            }
        }
        let connection = &self.history.connections[key];
        let request = match parse(connection, number as usize) {
            Parsed::Good { request, .. } if is_write(&request) && !matches!(*request, Request::CloseSession) => request,
            _ => {
                let got = describe_sent(number as usize, &connection.sent[number as usize].body);
                return Err(finding(rule, commit.at, Some(key), "a write", got));
            }
        };
        let Some(identities) = identities_at(connection, number as usize) else {
            return Err(finding(rule, commit.at, Some(key), "closed after a failed authentication", "a write"));
        };
        let actor = Actor { session: commit.session, identities: &identities };
        let outcome = self.model.apply_write(commit.zxid, commit.time_ms, actor, &request);
        Ok((outcome.events, Some(outcome.reply)))
    }

    /// Everything acknowledged survived, and what survived is the model's state at its zxid, nothing half.
    fn check_recovery(&mut self, number: usize, life: &Life) -> Check {
        let earlier = self.history.connections.iter().filter(|connection| connection.life < number);
        let frames = earlier.flat_map(|connection| connection.received.iter().skip(1));
        let headers = frames.filter_map(|frame| ReplyHeader::decode(&mut Input::new(&frame.body)).ok());
        let acknowledged = headers.map(|header| header.zxid).max().unwrap_or(0);
        if life.recovered.wire() < acknowledged {
            let rule = "every acknowledged write survives a crash";
            let expected = format!("{acknowledged:#x} or later");
            return Err(finding(rule, life.started, None, expected, life.recovered.to_string()));
        }
        if life.recovered != self.position {
            let rule = "what is recovered was committed, in the same order";
            return Err(finding(rule, life.started, None, self.position.to_string(), life.recovered.to_string()));
        }
        if !life.is_complete() {
            return Ok(());
        }
        self.check_dump("the recovered state is the model's at its zxid", life.started, &life.recovered_dump)
    }

    fn check_dump(&self, rule: &'static str, at: Moment, dump: &Dump) -> Check {
        let differing = |expected: String, got: String| Err(finding(rule, at, None, expected, got));
        for (path, node) in &self.model.nodes {
            let found = dump.nodes.get(path);
            if found != Some(node) {
                return differing(format!("{path}: {node:?}"), format!("{found:?}"));
            }
            let (children, listed) = (self.model.children(path), dump.children.get(path));
            if listed.is_none_or(|listed| *listed != children) {
                return differing(format!("children of {path}: {children:?}"), format!("{listed:?}"));
            }
        }
        if let Some((path, node)) = dump.nodes.iter().find(|(path, _)| !self.model.nodes.contains_key(*path)) {
            return differing(format!("no node {path}"), format!("{node:?}"));
        }
        if dump.sessions != self.model.sessions || !dump.sessions_agree {
            return differing(format!("{:?}", self.model.sessions), format!("{:?}", dump.sessions));
        }
        Ok(())
    }

    /// At the end, every session that was silent for too long is gone.
    fn check_overdue(&self, last: &Life) -> Check {
        for (session, known) in &self.sessions {
            let connection = &self.history.connections[known.connection];
            let heard = connection.sent.last().map_or(0, |sent| sent.at.time_us).max(last.started.time_us);
            let due_us = heard + u64::from(known.timeout_ms) * 1000 + self.promises.expiry_delay_us_max;
            if due_us < self.history.ended.time_us {
                return Err(finding(
                    "a silent session expires",
                    self.history.ended,
                    Some(known.connection),
                    format!("session {session} expired at {due_us} us at the latest"),
                    "it exists",
                ));
            }
        }
        Ok(())
    }
}
