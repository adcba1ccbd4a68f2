//! A client connection, as its home shard keeps it.

use super::output::Output;
use crate::base::{SessionId, Zxid};
use crate::coordination::auth::{Identities, initial_identities};
use crate::protocol::zookeeper::OpCode;
use core::net::IpAddr;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nothing was received yet.
    New,
    /// The handshake is on its way through the log.
    Connecting,
    /// It serves its session.
    Open,
    /// It is closed as soon as its output is sent; what it still sends is ignored.
    Closing,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) struct Held {
    /// Its number on the connection.
    pub sequence: u64,
    /// What the server had handed to any client when the request was read: it is not served below.
    pub released: Zxid,
    /// The frame's body.
    pub body: Box<[u8]>,
    /// Later writes of the connection must not be forwarded before it.
    pub barrier: bool,
    /// When it was read.
    pub since_us: u64,
}

/// How the reply to a request that needs agreement looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The handshake.
    Connect { read_only: Option<bool> },
    /// A single operation.
    Single(OpCode),
    /// A multi: create and create2 answer differently (rule B3).
    Multi(SmallVec<[OpCode; 4]>),
    /// sync echoes its path.
    Sync { path: Box<str> },
    /// closeSession: a header, then the end.
    CloseSession,
}

/// A request that is on its way through the sequencer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub sequence: u64,
    pub xid: i32,
    pub expected: Expected,
    /// When it was read.
    pub since_us: u64,
}

/// State of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub number: u64,
    pub state: ConnectionState,
    pub session: SessionId,
    pub timeout_ms: u32,
    pub identities: Identities,
    /// Number of the last request that was read; the handshake is 0.
    pub sequence: u64,
    /// In order; see [`Connection::hold`].
    pub waiting: VecDeque<Held>,
    /// Number of barriers in `waiting`.
    barriers: usize,
    pub unanswered: VecDeque<Unanswered>,
    pub output: Output,
    /// Something was heard since the session was last reported.
    pub touched: bool,
    /// Listed in the outputs' dirty list already.
    pub dirty: bool,
    /// The first tick that found it closing (monotonic).
    pub closing_since_ms: Option<i64>,
    /// Its socket is closed whether or not it has taken everything.
    pub cut_off: bool,
    /// When it was accepted (monotonic).
    pub accepted_ms: i64,
    pub peer: IpAddr,
    pub packets_received: u64,
    pub packets_sent: u64,
}

impl Connection {
    pub(super) fn new(number: u64, peer: IpAddr, now_ms: i64) -> Connection {
        Connection {
            number,
            state: ConnectionState::New,
            session: SessionId::NONE,
            timeout_ms: 0,
            identities: initial_identities(peer),
            sequence: 0,
            waiting: VecDeque::new(),
            barriers: 0,
            unanswered: VecDeque::new(),
            output: Output::default(),
            touched: false,
            dirty: false,
            closing_since_ms: None,
            cut_off: false,
            accepted_ms: now_ms,
            peer,
            packets_received: 0,
            packets_sent: 0,
        }
    }

    /// A request waits behind the others.
    pub(super) fn hold(&mut self, held: Held) {
        self.barriers += usize::from(held.barrier);
        self.waiting.push_back(held);
    }

    /// The request that has waited longest goes on.
    pub(super) fn take_held(&mut self) -> Option<Held> {
        let held = self.waiting.pop_front()?;
        self.barriers -= usize::from(held.barrier);
        Some(held)
    }

    /// It could not: it is the first again.
    pub(super) fn hold_again(&mut self, held: Held) {
        self.barriers += usize::from(held.barrier);
        self.waiting.push_front(held);
    }

    /// True when a write may be forwarded although requests wait: nothing among them decides what the write is.
    pub(super) fn lets_writes_pass(&self) -> bool {
        self.barriers == 0
    }

    /// True when the request that has waited longest comes before every unanswered one.
    pub(super) fn can_resume(&self) -> bool {
        let Some(held) = self.waiting.front() else { return false };
        self.unanswered.front().is_none_or(|unanswered| held.sequence < unanswered.sequence)
    }

    /// Requests that wait or are under way.
    pub(super) fn requests(&self) -> usize {
        self.waiting.len() + self.unanswered.len()
    }

    /// Output held, and what the requests that were read are expected to add to it.
    pub(super) fn output_bytes_expected(&self) -> usize {
        self.output.bytes() + self.waiting.len() * self.output.reply_bytes_expected()
    }

    /// Stops serving: requests that wait are forgotten, what has a place is still sent.
    pub(super) fn close_when_drained(&mut self) {
        self.state = ConnectionState::Closing;
        self.waiting.clear();
        self.barriers = 0;
        self.unanswered.clear();
    }

    /// Stops at once, and nothing more is sent: the client takes nothing.
    pub(super) fn cut_off(&mut self) {
        self.close_when_drained();
        self.output = Output::default();
        self.cut_off = true;
    }

    /// Stops at once: only what is ready is still sent.
    pub(super) fn close_now(&mut self) {
        self.close_when_drained();
        self.output.drop_places();
    }
}
