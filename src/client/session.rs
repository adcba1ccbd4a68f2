//! The session as a state machine: what to send, whom a reply belongs to, when to ping, what to carry over to the next
//! connection. No IO and no clock: the driver carries bytes and time in and out.
//!
//! Contract with the driver, for each connection: [`connect_request`](Session::connect_request) is sent;
//! [`on_connected`](Session::on_connected) takes the answer; then, until the connection ends, [`on_frame`](Session::on_frame)
//! takes every frame in order, [`on_timer`](Session::on_timer) is called when [`next_deadline_us`](Session::next_deadline_us)
//! has come, and what [`take_output`](Session::take_output) gives is sent in order; at the end, and also when the attempt to
//! connect failed, [`on_disconnected`](Session::on_disconnected).
//!
//! Invariants: replies come in the order of the requests, so `in_flight` is a queue and every reply is checked against its
//! front; every submitted request gets exactly one answer; after a final state nothing is queued and no watch is armed.

use super::chroot::Chroot;
use super::error::ClientError;
use super::mailbox::{self, Promise, Promised, Receiver, Sender};
use super::watcher::{Registration, WatchList, WatchTable};
use crate::base::SessionId;
use crate::protocol::jute::{Input, JuteError};
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, ErrorCode, PASSWORD_BYTES, ReplyHeader, Request, WatcherEvent, xid,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No connection; the client is looking for a server.
    Connecting,
    /// Attached to a server.
    Connected,
    /// Final: the ensemble ended the session.
    Expired,
    /// Final: the server refused the credentials.
    AuthFailed,
    /// Final: closed by its user.
    Closed,
}

impl SessionState {
    /// True when the session is over.
    pub fn is_final(self) -> bool {
        self.failure().is_some()
    }

    /// What a request gets in a final state.
    fn failure(self) -> Option<ClientError> {
        match self {
            SessionState::Connecting | SessionState::Connected => None,
            SessionState::Expired => Some(ClientError::SessionExpired),
            SessionState::AuthFailed => Some(ClientError::AuthFailed),
            SessionState::Closed => Some(ClientError::Closed),
        }
    }
}

/// The limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The session timeout to ask for.
    pub timeout_ms: i32,
    /// Most requests that have been sent and not answered; further ones wait in order.
    pub outstanding_max: usize,
    /// Largest request packet.
    pub request_bytes_max: usize,
}

/// A reply with its body still encoded. With `error` not 0 the body is empty.
#[derive(Debug)]
pub(super) struct RawReply {
    pub error: i32,
    pub body: Bytes,
}

/// What a request is answered with.
pub(super) type ReplyResult = Result<RawReply, ClientError>;

/// What a reply does to the watch table, before any later frame is looked at.
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Arms a watch if the request succeeded.
    Arm(Registration),
    /// exists: arms a data watch if the node is there, an exist watch if it is not.
    ArmExists(Registration),
    /// closeSession: the session ends.
    Close,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerOutcome {
    /// Nothing, or a ping, which is in the output.
    Alive,
    /// Nothing was heard for two thirds of the timeout: this connection is to be given up.
    ServerSilent,
}

/// A request that waits for its reply.
struct Pending {
    xid: i32,
    waiter: Waiter,
}

enum Waiter {
    User { promise: Promise<ReplyResult>, effect: Effect },
    SetWatches,
}

/// Credentials, replayed on every connection, and who waits for the first answer to them.
struct Auth {
    scheme: String,
    auth: Vec<u8>,
    promise: Option<Promise<Result<(), ClientError>>>,
}

/// One session, from its first handshake to its end.
pub(super) struct Session {
    limits: Limits,
    chroot: Chroot,
    state: SessionState,
    listeners: Vec<Sender<SessionState>>,
    id: SessionId,
    password: [u8; PASSWORD_BYTES],
    /// Negotiated, in force on the current connection.
    timeout_us: u64,
    last_zxid: i64,
    last_xid: i32,
    closing: bool,
    /// What goes ahead of queued requests: authentication, SetWatches, pings.
    control: Vec<u8>,
    queued: VecDeque<(Vec<u8>, Pending)>,
    in_flight: VecDeque<Pending>,
    auths: Vec<Auth>,
    /// Indices into `auths` whose answers are due, in order.
    auth_due: VecDeque<usize>,
    watches: WatchTable,
    last_sent_us: u64,
    last_heard_us: u64,
}

impl Session {
    /// Output is handed over in pieces of about this size, so that one turn does not gather everything that is queued.
    const OUTPUT_BYTES_SOFT_MAX: usize = 256 * 1024;
    /// State changes that wait in one stream; there are few, and a cut stream still ends with the newest.
    const STATES_MAX: usize = 64;

    pub fn new(limits: Limits, chroot: Chroot) -> Session {
        Session {
            limits,
            chroot,
            state: SessionState::Connecting,
            listeners: Vec::new(),
            id: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            timeout_us: 0,
            last_zxid: 0,
            last_xid: 0,
            closing: false,
            control: Vec::new(),
            queued: VecDeque::new(),
            in_flight: VecDeque::new(),
            auths: Vec::new(),
            auth_due: VecDeque::new(),
            watches: WatchTable::default(),
            last_sent_us: 0,
            last_heard_us: 0,
        }
    }

    pub fn state(&self) -> SessionState {
        self.state
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// True from the call of close on: no reconnect, no new requests.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// A stream of the states to come, beginning with the present one.
    pub fn listen(&mut self) -> Receiver<SessionState> {
        let (sender, receiver) = mailbox::queue(Self::STATES_MAX);
        sender.send(self.state, || self.state);
        if !self.state.is_final() {
            self.listeners.retain(Sender::is_open);
            self.listeners.push(sender);
        }
        receiver
    }

    /// Queues a request. The order of the calls is the order on the wire.
    pub fn submit(&mut self, request: &Request<'_>, effect: Effect) -> Promised<ReplyResult> {
        let (promise, promised) = mailbox::slot();
        if let Some(failure) = self.state.failure().or(self.closing.then_some(ClientError::Closed)) {
            promise.fulfil(Err(failure));
            return promised;
        }
        let xid = self.next_xid();
        let mut frame = Vec::new();
        request.encode_frame(xid, &mut frame);
        let (bytes, limit) = (frame.len() - 4, self.limits.request_bytes_max);
        if bytes > limit {
            promise.fulfil(Err(ClientError::RequestTooLarge { bytes, limit }));
            return promised;
        }
        self.closing |= matches!(effect, Effect::Close);
        self.queued.push_back((frame, Pending { xid, waiter: Waiter::User { promise, effect } }));
        promised
    }

    /// Adds credentials: sent now if connected, and again on every later connection.
    pub fn add_auth(&mut self, scheme: &str, auth: &[u8]) -> Promised<Result<(), ClientError>> {
        let (promise, promised) = mailbox::slot();
        if let Some(failure) = self.state.failure() {
            promise.fulfil(Err(failure));
            return promised;
        }
        self.auths.push(Auth { scheme: scheme.to_owned(), auth: auth.to_owned(), promise: Some(promise) });
        if self.state == SessionState::Connected {
            self.send_auth(self.auths.len() - 1);
        }
        promised
    }

    fn send_auth(&mut self, index: usize) {
        let Auth { scheme, auth, .. } = &self.auths[index];
        Request::Auth { scheme, auth }.encode_frame(xid::AUTH, &mut self.control);
        self.auth_due.push_back(index);
    }

    fn next_xid(&mut self) -> i32 {
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(1);
        self.last_xid
    }

    /// The first packet of a connection: a new session, or the present one again.
    pub fn connect_request(&self) -> ConnectRequest<'_> {
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.limits.timeout_ms,
            session_id: self.id.0,
            password: &self.password,
            read_only: Some(false),
        }
    }

    /// Takes the answer to the handshake. Authentication and watches go out ahead of everything that is queued.
    pub fn on_connected(&mut self, response: &ConnectResponse, now_us: u64) -> Result<(), ClientError> {
        if response.session_id == SessionId::NONE.0 || response.timeout_ms <= 0 {
            self.end(SessionState::Expired);
            return Err(ClientError::SessionExpired);
        }
        if self.id != SessionId::NONE && self.id.0 != response.session_id {
            return Err(ClientError::BadReply(format!(
                "asked for session {}, got {}",
                self.id,
                SessionId(response.session_id)
            )));
        }
        self.id = SessionId(response.session_id);
        self.password = response.password;
        self.timeout_us = response.timeout_ms as u64 * 1000;
        self.last_sent_us = now_us;
        self.last_heard_us = now_us;
        (0..self.auths.len()).for_each(|index| self.send_auth(index));
        for _ in 0..self.watches.rearm(self.last_zxid, &mut self.control) {
            self.in_flight.push_back(Pending { xid: xid::SET_WATCHES, waiter: Waiter::SetWatches });
        }
        self.set_state(SessionState::Connected);
        Ok(())
    }

    /// Appends what is to be sent now. Nothing is appended when there is nothing to send, or too much unanswered.
    pub fn take_output(&mut self, now_us: u64, output: &mut Vec<u8>) {
        if self.state != SessionState::Connected {
            return;
        }
        let before = output.len();
        output.append(&mut self.control);
        while self.in_flight.len() < self.limits.outstanding_max && output.len() < Self::OUTPUT_BYTES_SOFT_MAX {
            let Some((frame, pending)) = self.queued.pop_front() else { break };
            output.extend_from_slice(&frame);
            self.in_flight.push_back(pending);
        }
        if output.len() > before {
            self.last_sent_us = now_us;
        }
    }

    /// Takes one frame. An error means that the server broke the protocol, or that the session is over: the connection is
    /// to be given up.
    pub fn on_frame(&mut self, body: &[u8], now_us: u64) -> Result<(), ClientError> {
        self.last_heard_us = now_us;
        let mut input = Input::new(body);
        let header = ReplyHeader::decode(&mut input).map_err(bad_reply)?;
        self.last_zxid = self.last_zxid.max(header.zxid);
        match header.xid {
            xid::NOTIFICATION => {
                let event = WatcherEvent::decode(&mut input).map_err(bad_reply)?;
                self.watches.dispatch(event.kind, event.path, header.zxid, &self.chroot);
                Ok(())
            }
            xid::PING => Ok(()),
            xid::AUTH => self.on_auth_reply(header.error),
            _ => self.on_reply(&header, input.rest()),
        }
    }

    fn on_auth_reply(&mut self, error: i32) -> Result<(), ClientError> {
        let Some(index) = self.auth_due.pop_front() else {
            return Err(ClientError::BadReply("an authentication reply that nothing waits for".into()));
        };
        if error != ErrorCode::Ok.wire() {
            self.end(SessionState::AuthFailed);
            return Err(ClientError::AuthFailed);
        }
        if let Some(promise) = self.auths[index].promise.take() {
            promise.fulfil(Ok(()));
        }
        Ok(())
    }

    fn on_reply(&mut self, header: &ReplyHeader, body: &[u8]) -> Result<(), ClientError> {
        let due = self.in_flight.front().map(|pending| pending.xid);
        if due != Some(header.xid) {
            return Err(ClientError::BadReply(match due {
                Some(due) => format!("reply to xid {} where {due} is due", header.xid),
                None => format!("reply to xid {} where none is due", header.xid),
            }));
        }
        match self.in_flight.pop_front().map(|pending| pending.waiter) {
            Some(Waiter::SetWatches) if header.error != ErrorCode::Ok.wire() => {
                return Err(ClientError::BadReply(format!("the server did not take the watches: {}", header.error)));
            }
            Some(Waiter::User { promise, effect }) => {
                let ends = matches!(effect, Effect::Close);
                self.apply(effect, header.error);
                promise.fulfil(Ok(RawReply { error: header.error, body: Bytes::copy_from_slice(body) }));
                if ends {
                    self.end(SessionState::Closed);
                }
            }
            Some(Waiter::SetWatches) | None => {}
        }
        Ok(())
    }

    fn apply(&mut self, effect: Effect, error: i32) {
        let (ok, missing) = (error == ErrorCode::Ok.wire(), error == ErrorCode::NoNode.wire());
        match effect {
            Effect::Arm(registration) | Effect::ArmExists(registration) if ok => self.watches.register(registration),
            Effect::ArmExists(registration) if missing => {
                self.watches.register(Registration { list: WatchList::Exist, ..registration });
            }
            _ => {}
        }
    }

    /// When [`on_timer`](Self::on_timer) is to be called at the latest.
    pub fn next_deadline_us(&self) -> u64 {
        self.ping_due_us().min(self.silence_ends_us())
    }

    fn ping_due_us(&self) -> u64 {
        self.last_sent_us + self.timeout_us / 3
    }

    fn silence_ends_us(&self) -> u64 {
        self.last_heard_us + self.timeout_us / 3 * 2
    }

    /// Queues a ping after a third of the timeout without a send; reports two thirds without a reply.
    pub fn on_timer(&mut self, now_us: u64) -> TimerOutcome {
        if now_us >= self.silence_ends_us() {
            return TimerOutcome::ServerSilent;
        }
        if now_us >= self.ping_due_us() {
            Request::Ping.encode_frame(xid::PING, &mut self.control);
            self.last_sent_us = now_us;
        }
        TimerOutcome::Alive
    }

    /// The connection, or the attempt to make one, has ended: everything unanswered fails, whether it was sent or not.
    pub fn on_disconnected(&mut self) {
        if self.state.is_final() {
            return;
        }
        self.fail_all(&ClientError::ConnectionLoss);
        if self.closing {
            self.end(SessionState::Closed);
        } else {
            self.set_state(SessionState::Connecting);
        }
    }

    /// The last user is gone: the session is left to expire.
    pub fn abandon(&mut self) {
        self.closing = true;
        self.end(SessionState::Closed);
    }

    fn end(&mut self, state: SessionState) {
        if let (false, Some(failure)) = (self.state.is_final(), state.failure()) {
            self.set_state(state);
            self.listeners.clear();
            self.fail_all(&failure);
            self.watches.end_all();
        }
    }

    fn fail_all(&mut self, failure: &ClientError) {
        self.control.clear();
        self.auth_due.clear();
        let pending = self.in_flight.drain(..).chain(self.queued.drain(..).map(|(_, pending)| pending));
        for pending in pending {
            if let Waiter::User { promise, .. } = pending.waiter {
                promise.fulfil(Err(failure.clone()));
            }
        }
        for promise in self.auths.iter_mut().filter_map(|auth| auth.promise.take()) {
            promise.fulfil(Err(failure.clone()));
        }
    }

    fn set_state(&mut self, state: SessionState) {
        if self.state != state {
            self.state = state;
            self.listeners.iter().for_each(|listener| listener.send(state, || state));
        }
    }
}

fn bad_reply(error: JuteError) -> ClientError {
    ClientError::BadReply(error.to_string())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
