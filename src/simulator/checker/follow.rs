//! Follows one connection: what it must receive, frame by frame, given the order of commits and the positions that its
//! replies name.
//!
//! A reply names its place: its header zxid is the write's own transaction or the read's position (docs/ordering.md, window reads).
//! Given the places, the whole stream of a connection is determined: for each transaction in order, its events, then the
//! reply to its request; then, at the same position, the reads and watch operations that were executed there, in request
//! order. The follower produces that stream and compares.

use super::history::{ClientConnection, ClosedBy, Committed, CommittedKind, ConnectionKey, History, Moment};
use super::model::{Model, ModelEvent, ModelReply};
use super::reads;
use super::story::{describe_received, describe_sent};
use super::watches::ModelWatches;
use super::{access, normal};
use crate::base::{SessionId, Zxid};
use crate::protocol::jute::{Input, Output};
use crate::protocol::zookeeper::{
    ErrorCode, Id, OpCode, ReplyHeader, Request, RequestError, RequestHeader, WatcherEvent, permission, xid,
};

/// A broken promise, before it is told as a story.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) rule: &'static str,
    pub(super) at: Moment,
    pub(super) connection: Option<ConnectionKey>,
    pub(super) expected: String,
    pub(super) got: String,
}

/// What the outside knows about time: the highest zxid that any client had received, and the highest committed, by moment.
#[derive(Debug, Default)]
pub(super) struct RealTime {
    pub(super) received: Vec<(Moment, i64)>,
    pub(super) committed: Vec<(Moment, i64)>,
}

impl RealTime {
    /// The highest value before `at`; the list is sorted and its values grow.
    pub(super) fn before(list: &[(Moment, i64)], at: Moment) -> i64 {
        match list.partition_point(|(moment, _)| *moment < at) {
            0 => 0,
            after => list[after - 1].1,
        }
    }
}

/// A request of a connection, as far as its bytes say.
pub(super) enum Parsed<'a> {
    /// No frame, or no header: the connection is closed without a reply.
    Broken,
    /// Not known here: UNIMPLEMENTED, then closed.
    Unknown { xid: i32 },
    /// Badly formed: MARSHALLINGERROR.
    Malformed { xid: i32 },
    /// A request.
    Good { xid: i32, request: Box<Request<'a>> },
}

pub(super) fn parse(connection: &ClientConnection, number: usize) -> Parsed<'_> {
    let sent = &connection.sent[number];
    let mut input = Input::new(&sent.body);
    if sent.broken_frame {
        return Parsed::Broken;
    }
    let Ok(RequestHeader { xid, op }) = RequestHeader::decode(&mut input) else { return Parsed::Broken };
    match Request::decode(op, input.rest()) {
        Ok(request) => Parsed::Good { xid, request: Box::new(request) },
        Err(RequestError::Unimplemented(_)) => Parsed::Unknown { xid },
        Err(RequestError::Malformed(_)) => Parsed::Malformed { xid },
    }
}

/// True for requests that become transactions.
pub(super) fn is_write(request: &Request<'_>) -> bool {
    request.op_code().needs_agreement() && request.op_code() != OpCode::Sync
}

/// Whom the connection had proved to be when request `number` took its turn (rule A13). `None` when it must have been
/// closed before, because an authentication failed.
pub(super) fn identities_at(connection: &ClientConnection, number: usize) -> Option<Vec<Id>> {
    let mut identities = access::initial_identities(connection.address);
    for earlier in 1..number {
        if let Parsed::Good { request, .. } = parse(connection, earlier)
            && let Request::Auth { scheme, auth } = *request
            && !access::authenticate(scheme, auth, &mut identities)
        {
            return None;
        }
    }
    Some(identities)
}

/// One connection on its way through the history.
pub(super) struct Follower<'h> {
    history: &'h History,
    key: ConnectionKey,
    connection: &'h ClientConnection,
    /// Everything that was sent to the client has arrived: it must not stop short of what it should contain.
    complete: bool,
    session: SessionId,
    identities: Vec<Id>,
    watches: ModelWatches,
    next_request: usize,
    next_frame: usize,
    opened: bool,
    /// Nothing more can come: the client's stream ended, or the server must have closed the connection.
    finished: bool,
    /// What was missing at the end of the stream, when the server closed the connection. Frames may be missing only if the
    /// session moved on: the move drops what was under way on the old connection, as a broken connection would.
    cut_short: Option<Box<Finding>>,
}

type Check = Result<(), Box<Finding>>;

impl<'h> Follower<'h> {
    pub(super) fn new(history: &'h History, key: ConnectionKey) -> Self {
        let connection = &history.connections[key];
        let broken = (1..connection.sent.len()).any(|number| matches!(parse(connection, number), Parsed::Broken));
        let complete = match connection.closed {
            None => true,
            Some((_, ClosedBy::Server)) => !broken,
            Some((_, ClosedBy::Client | ClosedBy::Crash)) => false,
        };
        Follower {
            history,
            key,
            connection,
            complete,
            session: SessionId::NONE,
            identities: access::initial_identities(connection.address),
            watches: ModelWatches::default(),
            next_request: 1,
            next_frame: 0,
            opened: false,
            finished: false,
            cut_short: None,
        }
    }

    fn finding(&self, rule: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Box<Finding> {
        let frame = self.connection.received.get(self.next_frame).or(self.connection.received.last());
        let at = frame.map(|frame| frame.at).or(self.connection.closed.map(|(at, _)| at)).unwrap_or_default();
        Box::new(Finding { rule, at, connection: Some(self.key), expected: expected.into(), got: got.into() })
    }

    fn describe_next(&self) -> String {
        match self.connection.received.get(self.next_frame) {
            Some(frame) => describe_received(self.next_frame, &frame.body),
            None => "nothing".into(),
        }
    }

    /// The next frame must be `expected`.
    fn expect(&mut self, rule: &'static str, op: Option<OpCode>, expected: &[u8]) -> Check {
        let Some(frame) = self.connection.received.get(self.next_frame) else {
            let missing = self.finding(rule, describe_received(self.next_frame, expected), "nothing");
            if self.complete && self.connection.closed.is_none() {
                return Err(missing);
            }
            self.cut_short = self.complete.then_some(missing);
            self.finished = true;
            return Ok(());
        };
        if !normal::equal(op, &frame.body, expected) {
            return Err(self.finding(rule, describe_received(self.next_frame, expected), self.describe_next()));
        }
        self.next_frame += 1;
        Ok(())
    }

    fn expect_event(&mut self, zxid: Option<Zxid>, kind: crate::protocol::zookeeper::EventType, path: &str) -> Check {
        let mut frame = Vec::new();
        WatcherEvent { kind, path }.encode_frame(zxid, &mut frame);
        self.expect("every event arrives once, in zxid order, before anything newer", None, &frame[4..])
    }

    fn expect_reply(&mut self, op: OpCode, xid: i32, zxid: i64, reply: &ModelReply) -> Check {
        let mut frame = Vec::new();
        let mut out = Output::new(&mut frame);
        ReplyHeader { xid, zxid, error: reply.error }.encode(&mut out);
        out.raw(&reply.body);
        let op = (reply.error == 0).then_some(op);
        self.expect("a reply is what one copy at its position answers, in request order", op, &frame)
    }

    /// The transaction that creates the session or moves it here was committed.
    pub(super) fn on_attached(&mut self, commit: &Committed, response: &[u8]) -> Check {
        self.opened = true;
        self.session = commit.session;
        self.expect("the handshake is answered with the session", None, response)
    }

    /// Which connection it follows.
    pub(super) fn key(&self) -> ConnectionKey {
        self.key
    }

    /// A transaction is applied: its events, then the reply when it is this connection's.
    pub(super) fn on_txn(&mut self, commit: &Committed, events: &[ModelEvent], reply: Option<&ModelReply>) -> Check {
        if matches!(commit.kind, CommittedKind::MoveSession { .. }) && commit.session == self.session {
            self.cut_short = None;
        }
        if !self.opened || self.finished {
            return Ok(());
        }
        let own = commit.request.filter(|(key, _)| *key == self.key).map(|(_, number)| number as usize);
        self.auths_before(commit, own.is_some())?;
        for event in events {
            if self.watches.fire(event, &self.identities) {
                // The event is behind the replies of authentications: they came before it.
                self.take_auths()?;
                self.expect_event(Some(commit.zxid), event.kind, &event.path)?;
            }
            if self.finished {
                return Ok(());
            }
        }
        if let (Some(number), Some(reply)) = (own, reply) {
            self.own_write(commit, number, reply)?;
        }
        let ended = match commit.kind {
            CommittedKind::CloseSession => commit.session == self.session,
            CommittedKind::MoveSession { .. } => commit.session == self.session && own.is_none(),
            _ => false,
        };
        if ended {
            self.take_auths()?;
            self.finished = true;
        }
        Ok(())
    }

    fn own_write(&mut self, commit: &Committed, number: usize, reply: &ModelReply) -> Check {
        if self.connection.received.len() > self.next_frame && self.next_request != number {
            let waiting = self.connection.sent.get(self.next_request);
            let waiting = waiting.map(|sent| describe_sent(self.next_request, &sent.body)).unwrap_or_default();
            let expected = format!("the reply to request {}: {waiting}", self.next_request);
            return Err(self.finding("replies stand in request order", expected, self.describe_next()));
        }
        let Parsed::Good { xid, request } = parse(self.connection, number) else { return Ok(()) };
        self.next_request = number + 1;
        self.expect_reply(request.op_code(), xid, commit.zxid.wire(), reply)
    }

    /// An authentication names no position. It took effect before `commit` in two cases: its reply stands in front of an
    /// event of `commit` or of the reply to a later request that `commit` answers; or its reply had arrived before `commit`
    /// was committed.
    fn auths_before(&mut self, commit: &Committed, own: bool) -> Check {
        let waiting = self.waiting_auths();
        if waiting == 0 {
            return Ok(());
        }
        let next = self.connection.received.get(self.next_frame + waiting);
        let event_follows = next.is_some_and(|frame| {
            header(&frame.body).is_some_and(|h| h.xid == xid::NOTIFICATION && h.zxid == commit.zxid.wire())
        });
        let all = own || event_follows;
        for _ in 0..waiting {
            let arrived = self.connection.received[self.next_frame].at < commit.at;
            if all || arrived {
                self.take_auth()?;
            }
        }
        Ok(())
    }

    /// How many authentications are next in line and have their reply.
    fn waiting_auths(&self) -> usize {
        let is_auth = |offset: &usize| {
            let (request, frame) = (self.next_request + offset, self.next_frame + offset);
            request < self.connection.sent.len()
                && matches!(parse(self.connection, request), Parsed::Good { request, .. } if matches!(*request, Request::Auth { .. }))
                && self
                    .connection
                    .received
                    .get(frame)
                    .and_then(|frame| header(&frame.body))
                    .is_some_and(|h| h.xid != xid::NOTIFICATION && h.zxid == 0)
        };
        (0..).take_while(is_auth).count()
    }

    /// Takes the authentications whose replies are next: nothing comes any more that could tell their place.
    fn take_auths(&mut self) -> Check {
        (0..self.waiting_auths()).try_for_each(|_| self.take_auth())
    }

    fn take_auth(&mut self) -> Check {
        let Parsed::Good { xid, request } = parse(self.connection, self.next_request) else { return Ok(()) };
        let Request::Auth { scheme, auth } = *request else { return Ok(()) };
        if self.finished {
            return Ok(());
        }
        let proved = access::authenticate(scheme, auth, &mut self.identities);
        let reply = if proved { ModelReply::default() } else { ModelReply::error(ErrorCode::AuthFailed) };
        self.next_request += 1;
        self.expect_reply(OpCode::Auth, xid, 0, &reply)?;
        self.finished |= !proved;
        Ok(())
    }

    /// The requests that were executed at `position`, in order.
    pub(super) fn at_position(&mut self, position: Zxid, model: &Model, time: &RealTime) -> Check {
        while self.opened && !self.finished && self.next_request < self.connection.sent.len() {
            if self.next_frame >= self.connection.received.len() {
                return Ok(());
            }
            if !self.step_at(position.wire(), model, time)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the next request if it was executed at `position`; false when it was not.
    fn step_at(&mut self, position: i64, model: &Model, time: &RealTime) -> Result<bool, Box<Finding>> {
        let auths = self.waiting_auths();
        if auths > 0 {
            return self.auths_at(auths, position);
        }
        let (xid, request) = match parse(self.connection, self.next_request) {
            Parsed::Broken => return Ok(false),
            Parsed::Unknown { xid } => {
                let is_answer = |h: ReplyHeader| h.xid != xid::NOTIFICATION && h.zxid == -1;
                if !self.connection.received.get(self.next_frame).and_then(|f| header(&f.body)).is_some_and(is_answer) {
                    return self.reply_is_at(position);
                }
                self.expect_reply(OpCode::Ping, xid, -1, &ModelReply::error(ErrorCode::Unimplemented))?;
                self.next_request += 1;
                self.finished = true;
                return Ok(false);
            }
            Parsed::Malformed { xid } => (xid, None),
            Parsed::Good { xid, request } => (xid, Some(request)),
        };
        if !self.reply_is_at(position)? {
            return Ok(false);
        }
        let number = self.next_request;
        if request.as_deref().is_some_and(is_write) {
            if self.is_refused(number) {
                self.next_request += 1;
                let refused = ModelReply::error(ErrorCode::SystemError);
                self.expect_reply(OpCode::Ping, xid, position, &refused)?;
                return Ok(true);
            }
            let asked = describe_sent(number, &self.connection.sent[number].body);
            let rule = "an answered write is committed once, at the zxid of its reply";
            return Err(self.finding(rule, format!("a transaction for {asked}"), self.describe_next()));
        }
        if matches!(request.as_deref(), Some(Request::Auth { .. })) {
            let rule = "an authentication is answered in its turn, with zxid 0";
            return Err(self.finding(rule, format!("the reply to request {number}"), self.describe_next()));
        }
        self.check_real_time(number, position, request.as_deref(), time)?;
        self.next_request += 1;
        match request {
            None => self.expect_reply(OpCode::Ping, xid, position, &ModelReply::error(ErrorCode::MarshallingError))?,
            Some(request) => self.execute(xid, position, &request, model)?,
        }
        Ok(true)
    }

    fn auths_at(&mut self, auths: usize, position: i64) -> Result<bool, Box<Finding>> {
        let refused = |frame: &super::history::Received| header(&frame.body).is_some_and(|h| h.error != 0);
        let next = self.connection.received.get(self.next_frame + auths).and_then(|frame| header(&frame.body));
        // A refusal is the end of the connection, so its place cannot matter to anything behind it.
        let last = &self.connection.received[self.next_frame + auths - 1];
        if !refused(last) && next.is_none_or(|h| h.xid == xid::NOTIFICATION || h.zxid > position) {
            return Ok(false);
        }
        for _ in 0..auths {
            self.take_auth()?;
        }
        Ok(true)
    }

    /// Whether the next reply names `position`. Events that catch up with setWatches may stand before it.
    fn reply_is_at(&self, position: i64) -> Result<bool, Box<Finding>> {
        let rest = &self.connection.received[self.next_frame..];
        let is_catch_up = |h: &ReplyHeader| h.xid == xid::NOTIFICATION && h.zxid == -1;
        let mut headers = rest.iter().filter_map(|frame| header(&frame.body));
        let Some(reply) = headers.find(|header| !is_catch_up(header)) else { return Ok(false) };
        if reply.zxid > position {
            return Ok(false);
        }
        if reply.xid == xid::NOTIFICATION || reply.zxid < position {
            let rule = "positions and events of a connection never go back, and no event comes unasked";
            let expected = format!("the reply to request {} at {position:#x} or later", self.next_request);
            return Err(self.finding(rule, expected, self.describe_next()));
        }
        Ok(true)
    }

    /// A write may be refused for want of room, if it was there to be wanted.
    fn is_refused(&self, number: usize) -> bool {
        let Some(frame) = self.connection.received.get(self.next_frame) else { return false };
        let refused = header(&frame.body).is_some_and(|h| h.error == ErrorCode::SystemError.wire());
        refused && self.history.had_no_room(self.connection.sent[number].at, frame.at)
    }

    fn check_real_time(&self, number: usize, position: i64, request: Option<&Request<'_>>, time: &RealTime) -> Check {
        let sent_at = self.connection.sent[number].at;
        let (rule, least) = match request {
            Some(Request::Sync { .. }) => {
                ("a sync is ordered behind what was committed", RealTime::before(&time.committed, sent_at))
            }
            _ => ("a read is not older than what any client had seen", RealTime::before(&time.received, sent_at)),
        };
        if position >= least {
            return Ok(());
        }
        Err(self.finding(rule, format!("request {number} at {least:#x} or later"), self.describe_next()))
    }

    fn execute(&mut self, asked_xid: i32, position: i64, request: &Request<'_>, model: &Model) -> Check {
        let done = |result: Result<(), ErrorCode>| result.map_or_else(ModelReply::error, |()| ModelReply::default());
        let reply = match request {
            Request::CheckWatches { path, kind } => done(self.watches.check(path, *kind)),
            Request::RemoveWatches { path, kind } => done(self.watches.remove(path, *kind)),
            Request::AddWatch { path, mode } => {
                self.watches.add(path, *mode);
                ModelReply { error: 0, body: vec![0; 4] }
            }
            Request::SetWatches(watches) => {
                for (kind, path) in self.watches.set(model, watches) {
                    self.expect_event(None, kind, &path)?;
                }
                ModelReply::default()
            }
            other => {
                self.arm(model, other);
                reads::read(model, &self.identities, other).expect("every other request is a read")
            }
        };
        // Pings are answered under their own xid, whatever they carried.
        let xid = if matches!(request, Request::Ping) { xid::PING } else { asked_xid };
        self.expect_reply(request.op_code(), xid, position, &reply)
    }

    /// A read that asks for it leaves a watch, unless it fails; exists leaves one where nothing is, too.
    fn arm(&mut self, model: &Model, request: &Request<'_>) {
        let allowed =
            |path: &str| model.node(path).map(|node| access::allows(&node.acl, permission::READ, &self.identities));
        match request {
            Request::Exists { path, watch: true } if allowed(path) != Some(false) && !path.contains('\0') => {
                self.watches.data.insert((*path).to_owned());
            }
            Request::GetData { path, watch: true } if allowed(path) == Some(true) => {
                self.watches.data.insert((*path).to_owned());
            }
            Request::GetChildren { path, watch: true, .. } if allowed(path) == Some(true) => {
                self.watches.child.insert((*path).to_owned());
            }
            _ => {}
        }
    }

    /// No transaction follows. Whatever the client received must be accounted for, and whatever it asked be answered.
    pub(super) fn at_end(&mut self, refusal_is_due: impl FnOnce(&ClientConnection) -> bool) -> Check {
        if !self.opened {
            return self.never_attached(refusal_is_due);
        }
        if let Some(missing) = self.cut_short.take() {
            return Err(missing);
        }
        if !self.finished {
            self.take_auths()?;
        }
        if self.next_frame < self.connection.received.len() {
            let rule = "nothing is sent that no transaction and no request asks for";
            return Err(self.finding(rule, "nothing", self.describe_next()));
        }
        let unanswered = self.connection.sent.get(self.next_request);
        match (self.connection.closed, unanswered) {
            (None, _) if self.finished => {
                Err(self.finding("a connection is closed when its session ends", "closed", "open"))
            }
            (None, Some(sent)) => {
                let asked = describe_sent(self.next_request, &sent.body);
                Err(self.finding("every request is answered", asked, "nothing"))
            }
            (Some((_, ClosedBy::Server)), _) if self.complete && !self.finished => {
                Err(self.finding("a connection is closed for a reason only", "open", "closed by the server"))
            }
            _ => Ok(()),
        }
    }

    fn never_attached(&mut self, refusal_is_due: impl FnOnce(&ClientConnection) -> bool) -> Check {
        let rule = "a handshake creates or moves a session, or is refused for a reason";
        let gone = normal::session_gone(&self.connection.sent[0].body);
        match (self.connection.received.len(), self.connection.closed) {
            (0, None) => Err(self.finding(rule, "an answer", "nothing")),
            (0, Some((at, ClosedBy::Server)))
                if self.complete
                    && !normal::may_close_silently(self.connection)
                    && !self.history.had_no_room(self.connection.sent[0].at, at) =>
            {
                Err(self.finding(rule, "an answer", "closed by the server"))
            }
            (0, Some(_)) => Ok(()),
            _ => {
                let complete = std::mem::replace(&mut self.complete, true);
                self.expect(rule, None, gone.as_deref().unwrap_or_default())?;
                self.complete = complete;
                if !refusal_is_due(self.connection) {
                    return Err(self.finding(rule, "the session", "refused"));
                }
                match self.next_frame == self.connection.received.len() {
                    true => Ok(()),
                    false => Err(self.finding(rule, "nothing more", self.describe_next())),
                }
            }
        }
    }
}

fn header(body: &[u8]) -> Option<ReplyHeader> {
    ReplyHeader::decode(&mut Input::new(body)).ok()
}
