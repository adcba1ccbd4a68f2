//! Simulated clients: several sessions that pipeline, watch, break off in the middle, come back, go silent, and at times
//! send nonsense.
//!
//! A [`Client`] decides what to do; whoever drives the simulation carries it out ([`Action`]) and tells the client what it
//! receives. A client draws from its own stream of random numbers, so that one seed is one behaviour.

mod belief;
mod operations;

use crate::base::prng::Prng;
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, PASSWORD_BYTES, ReplyHeader, Request, RequestHeader, WatcherEvent, xid,
};
use belief::Belief;
use std::collections::VecDeque;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Opens a connection and sends `handshake`, a whole frame. A connection that is open stays so, but the client looks at
    /// it no more.
    Connect {
        /// The frame.
        handshake: Vec<u8>,
        /// Names a session with a password that is not its own.
        wrong_password: bool,
    },
    /// Sends bytes on the connection: a whole frame, or bytes that are none.
    Send {
        /// The bytes.
        bytes: Vec<u8>,
        /// Not a frame.
        broken_frame: bool,
    },
    /// Sends a whole frame on the connection before this one, which the client had left open.
    SendOnOld(Vec<u8>),
    /// Breaks the connection off.
    Disconnect,
}

/// How often clients do what, in percent or permille of their turns.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Habits {
    pub pipeline_depth_max: u64,
    pub disconnect_permille: u64,
    pub reconnect_permille: u64,
    pub close_session_permille: u64,
    pub silence_permille: u64,
    pub nonsense_permille: u64,
    pub authenticate_permille: u64,
    pub turn_delay_us_max: u64,
    pub timeout_ms_min: u64,
    pub timeout_ms_max: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Habits {
            pipeline_depth_max: 8,
            disconnect_permille: 30,
            reconnect_permille: 25,
            close_session_permille: 12,
            silence_permille: 12,
            nonsense_permille: 12,
            authenticate_permille: 30,
            turn_delay_us_max: 20_000,
            timeout_ms_min: 300,
            timeout_ms_max: 900,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Session {
    id: i64,
    password: [u8; PASSWORD_BYTES],
    timeout_ms: i32,
}

/// A connection that the client uses.
#[derive(Debug)]
struct Link {
    answered: bool,
    asked_for: i64,
    /// Requests without a reply, as they were sent (without the length).
    outstanding: VecDeque<Vec<u8>>,
    closing: bool,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    prng: Prng,
    habits: Habits,
    session: Option<Session>,
    link: Option<Link>,
    /// The connection before was left open and may be written to.
    has_old: bool,
    last_zxid_seen: i64,
    next_xid: i32,
    belief: Belief,
    credentials: Vec<&'static [u8]>,
    /// Requests sent.
    pub operations: u64,
}

impl Client {
    /// Client `number` of a simulation.
    pub fn new(seed: u64, number: usize, habits: Habits) -> Client {
        Client {
            prng: Prng::stream(seed, &format!("workload {number}")),
            habits,
            session: None,
            link: None,
            has_old: false,
            last_zxid_seen: 0,
            next_xid: 1,
            belief: Belief::default(),
            credentials: Vec::new(),
            operations: 0,
        }
    }

    /// True when the server is to close the connection in use.
    pub fn awaits_close(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.closing)
    }

    /// Requests of the connection in use that are not answered, its handshake included; none when the server is to close it.
    pub fn unanswered(&self) -> usize {
        match &self.link {
            Some(link) if !link.closing => link.outstanding.len() + usize::from(!link.answered),
            _ => 0,
        }
    }

    /// The client's turn. Returns what it does now, and after how many microseconds it wants its next turn.
    pub fn turn(&mut self) -> (Vec<Action>, u64) {
        let mut actions = Vec::new();
        let delay_us = self.prng.delay(50, self.habits.turn_delay_us_max);
        let Some(link) = &self.link else {
            self.connect(&mut actions);
            return (actions, delay_us);
        };
        if link.closing {
            return (actions, delay_us);
        }
        if link.answered && self.prng.permille(self.habits.silence_permille) {
            // Long enough to expire, at times just not.
            let timeout_us = self.session.map_or(0, |session| session.timeout_ms as u64 * 1000);
            return (actions, self.prng.between(timeout_us / 2, timeout_us * 2));
        }
        if self.prng.permille(self.habits.disconnect_permille) {
            actions.push(Action::Disconnect);
            self.on_closed();
        } else if link.answered && self.prng.permille(self.habits.reconnect_permille) {
            self.connect(&mut actions);
            self.has_old = true;
        } else if link.answered && self.prng.permille(self.habits.close_session_permille) {
            self.send(&mut actions, |_, xid| encoded(&Request::CloseSession, xid));
            self.close_link();
        } else if self.prng.permille(self.habits.nonsense_permille) {
            self.nonsense(&mut actions);
        } else {
            self.burst(&mut actions);
        }
        (actions, delay_us)
    }

    /// At the end of a run: whoever is connected asks once more, so that every event that is due must come before.
    pub fn last_turn(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.link.as_ref().is_some_and(|link| !link.closing) {
            self.send(&mut actions, |_, _| encoded(&Request::Ping, xid::PING));
        }
        actions
    }

    fn connect(&mut self, actions: &mut Vec<Action>) {
        let mut handshake = Vec::new();
        let timeout_ms = self.prng.between(self.habits.timeout_ms_min, self.habits.timeout_ms_max) as i32;
        let timeout_ms = if self.prng.percent(5) { self.prng.choose(&[0, -5, i32::MAX]) } else { timeout_ms };
        let wrong_password = self.session.is_some() && self.prng.percent(5);
        let mut password = self.session.map_or([0; PASSWORD_BYTES], |session| session.password);
        password[3] ^= wrong_password as u8;
        let session_id = self.session.map_or(0, |session| session.id);
        let from_the_future = self.prng.percent(2);
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: if from_the_future { i64::MAX } else { self.last_zxid_seen },
            timeout_ms,
            session_id,
            password: &password,
            read_only: self.prng.choose(&[None, Some(false), Some(true)]),
        }
        .encode_frame(&mut handshake);
        if self.prng.percent(1) {
            handshake = vec![0, 0, 0, 3, 1, 2, 3];
        }
        actions.push(Action::Connect { handshake, wrong_password });
        self.has_old = false;
        self.link = Some(Link { answered: false, asked_for: session_id, outstanding: VecDeque::new(), closing: false });
        for credentials in self.credentials.clone() {
            self.send(actions, |_, _| encoded(&Request::Auth { scheme: "digest", auth: credentials }, xid::AUTH));
        }
        if let Some(frame) = self.belief.set_watches_frame(self.last_zxid_seen) {
            self.send(actions, |_, _| frame);
        }
    }

    fn send(&mut self, actions: &mut Vec<Action>, frame: impl FnOnce(&mut Prng, i32) -> Vec<u8>) {
        let Some(link) = &mut self.link else { return };
        let bytes = frame(&mut self.prng, self.next_xid);
        self.next_xid += 1;
        self.operations += 1;
        link.outstanding.push_back(bytes[4..].to_vec());
        actions.push(Action::Send { bytes, broken_frame: false });
    }

    fn burst(&mut self, actions: &mut Vec<Action>) {
        let outstanding = self.link.as_ref().map_or(0, |link| link.outstanding.len() as u64);
        let depth = self.prng.between(1, self.habits.pipeline_depth_max);
        for _ in outstanding.min(depth)..depth {
            if self.prng.permille(self.habits.authenticate_permille) {
                let last = if self.prng.percent(90) { 3 } else { operations::CREDENTIALS.len() };
                let credentials = self.prng.choose(&operations::CREDENTIALS[..last]);
                if !self.credentials.contains(&credentials) {
                    self.credentials.push(credentials);
                }
                self.send(actions, |_, _| encoded(&Request::Auth { scheme: "digest", auth: credentials }, xid::AUTH));
            } else {
                self.send(actions, operations::request_frame);
            }
        }
        if self.has_old && self.prng.percent(30) {
            let frame = operations::request_frame(&mut self.prng, self.next_xid);
            self.next_xid += 1;
            self.operations += 1;
            actions.push(Action::SendOnOld(frame));
        }
    }

    fn nonsense(&mut self, actions: &mut Vec<Action>) {
        match self.prng.weighted(&[60, 15, 15, 10]) {
            0 => self.send(actions, operations::malformed_frame),
            1 => {
                self.send(actions, operations::unknown_frame);
                self.close_link();
            }
            2 => {
                self.send(actions, |_, xid| encoded(&Request::Auth { scheme: "nonsense", auth: b"x" }, xid));
                self.close_link();
            }
            _ => {
                actions.push(Action::Send { bytes: vec![0x7f, 0xff, 0xff, 0xff], broken_frame: true });
                self.close_link();
            }
        }
    }

    /// The server will close the connection: nothing more is sent.
    fn close_link(&mut self) {
        if let Some(link) = &mut self.link {
            link.closing = true;
        }
    }

    /// The connection is gone.
    pub fn on_closed(&mut self) {
        self.link = None;
        self.has_old = false;
    }

    /// The old connection is gone.
    pub fn on_old_closed(&mut self) {
        self.has_old = false;
    }

    /// A frame arrived on the connection.
    pub fn on_frame(&mut self, body: &[u8]) {
        let Some(link) = &mut self.link else { return };
        if !link.answered {
            link.answered = true;
            return self.on_connected(body);
        }
        let mut input = Input::new(body);
        let Ok(header) = ReplyHeader::decode(&mut input) else { return };
        if header.xid == xid::NOTIFICATION {
            if let Ok(event) = WatcherEvent::decode(&mut input) {
                self.belief.on_event(event.kind, event.path);
            }
            return;
        }
        // Java's client stores the header's zxid without taking a maximum (rule A7).
        if header.zxid > 0 {
            self.last_zxid_seen = header.zxid;
        }
        let Some(sent) = link.outstanding.pop_front() else { return };
        let mut input = Input::new(&sent);
        if let Ok(asked) = RequestHeader::decode(&mut input)
            && let Ok(request) = Request::decode(asked.op, input.rest())
        {
            self.belief.on_reply(&request, header.error);
            if matches!(request, Request::CloseSession) {
                self.forget_session();
            }
        }
    }

    fn on_connected(&mut self, body: &[u8]) {
        match ConnectResponse::decode(body) {
            Ok(response) if response.timeout_ms > 0 => {
                let ConnectResponse { timeout_ms, session_id, password, .. } = response;
                self.session = Some(Session { id: session_id, password, timeout_ms });
            }
            _ => {
                self.close_link();
                // With the right password this means that the session is gone.
                let asked_for = self.link.as_ref().map_or(0, |link| link.asked_for);
                if self.session.is_some_and(|session| session.id == asked_for) && self.prng.percent(80) {
                    self.forget_session();
                }
            }
        }
    }

    fn forget_session(&mut self) {
        self.session = None;
        if self.prng.percent(50) {
            self.belief = Belief::default();
            self.credentials.clear();
        }
    }
}

fn encoded(request: &Request<'_>, xid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode_frame(xid, &mut frame);
    frame
}
