//! A client connection, as its home shard keeps it.

use super::output::Output;
use super::set_watches::WatchesLeft;
use crate::base::{SessionId, Zxid};
use crate::coordination::auth::{Identities, initial_identities};
use crate::coordination::processor::peer::GatherId;
use crate::protocol::zookeeper::OpCode;
use core::net::IpAddr;
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

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
    /// The value of `released` when the request was read. The request is not served at a position below that value.
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

impl Expected {
    /// Memory beside the value itself.
    fn bytes(&self) -> usize {
        match self {
            Expected::Multi(ops) => size_of_val(ops.as_slice()),
            Expected::Sync { path } => path.len(),
            Expected::Connect { .. } | Expected::Single(_) | Expected::CloseSession => 0,
        }
    }
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
    /// A setWatches that is carried out in parts. Later requests wait for it.
    pub arming: Option<WatchesLeft>,
    unanswered: VecDeque<Unanswered>,
    /// Memory of the requests in `waiting` and `unanswered`.
    requests_bytes: usize,
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
    /// Requests of the whole shard, to which this connection adds `counted`.
    outstanding: Rc<Cell<usize>>,
    counted: usize,
}

impl Connection {
    /// `outstanding` counts the requests of all connections.
    pub(super) fn new(number: u64, peer: IpAddr, now_ms: i64, outstanding: Rc<Cell<usize>>) -> Connection {
        Connection {
            number,
            state: ConnectionState::New,
            session: SessionId::NONE,
            timeout_ms: 0,
            identities: initial_identities(peer),
            sequence: 0,
            waiting: VecDeque::new(),
            barriers: 0,
            arming: None,
            unanswered: VecDeque::new(),
            requests_bytes: 0,
            output: Output::default(),
            touched: false,
            dirty: false,
            closing_since_ms: None,
            cut_off: false,
            accepted_ms: now_ms,
            peer,
            packets_received: 0,
            packets_sent: 0,
            outstanding,
            counted: 0,
        }
    }

    /// A request waits behind the others.
    pub(super) fn hold(&mut self, held: Held) {
        self.barriers += usize::from(held.barrier);
        self.requests_bytes += held.body.len();
        self.waiting.push_back(held);
        self.count_requests();
    }

    /// The request that has waited longest goes on.
    pub(super) fn take_held(&mut self) -> Option<Held> {
        let held = self.waiting.pop_front()?;
        self.barriers -= usize::from(held.barrier);
        self.requests_bytes -= held.body.len();
        self.count_requests();
        Some(held)
    }

    /// The request could not take its turn: it returns to the front of the queue.
    pub(super) fn hold_again(&mut self, held: Held) {
        self.barriers += usize::from(held.barrier);
        self.requests_bytes += held.body.len();
        self.waiting.push_front(held);
        self.count_requests();
    }

    /// A request is on its way through the sequencer.
    pub(super) fn expect(&mut self, unanswered: Unanswered) {
        self.requests_bytes += unanswered.expected.bytes();
        self.unanswered.push_back(unanswered);
        self.count_requests();
    }

    /// The request that is on its way through the sequencer longest.
    pub(super) fn oldest_unanswered(&self) -> Option<&Unanswered> {
        self.unanswered.front()
    }

    /// Where its reply goes, too.
    pub(super) fn oldest_unanswered_and_output(&mut self) -> (Option<&Unanswered>, &mut Output) {
        (self.unanswered.front(), &mut self.output)
    }

    /// It is answered.
    pub(super) fn take_unanswered(&mut self) -> Option<Unanswered> {
        let unanswered = self.unanswered.pop_front()?;
        self.requests_bytes -= unanswered.expected.bytes();
        self.count_requests();
        Some(unanswered)
    }

    /// True when a request must wait behind others.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.arming.is_some()
    }

    /// True when a write may be forwarded although requests wait: none of the waiting requests can change what the write
    /// means.
    pub(super) fn lets_writes_pass(&self) -> bool {
        self.barriers == 0 && self.arming.is_none()
    }

    /// True when the request that has waited longest comes before every unanswered one.
    pub(super) fn can_resume(&self) -> bool {
        if let Some(left) = &self.arming {
            return !left.under_way;
        }
        let Some(held) = self.waiting.front() else { return false };
        self.unanswered.front().is_none_or(|unanswered| held.sequence < unanswered.sequence)
    }

    /// Requests that wait or are under way.
    pub(super) fn requests(&self) -> usize {
        self.waiting.len() + self.unanswered.len() + usize::from(self.arming.is_some())
    }

    /// Tells the shard's count what has changed here.
    pub(super) fn count_requests(&mut self) {
        let requests = self.requests();
        let counted = std::mem::replace(&mut self.counted, requests);
        self.outstanding.set(self.outstanding.get() - counted + self.counted);
    }

    /// Requests and output held, and what the requests that were read are expected to add.
    pub(super) fn bytes_expected(&self) -> usize {
        self.requests_bytes + self.output.bytes() + self.waiting.len() * self.output.reply_bytes_expected()
    }

    /// Stops serving: requests that wait are forgotten, what has a place is still sent.
    pub(super) fn close_when_drained(&mut self) {
        self.state = ConnectionState::Closing;
        self.waiting.clear();
        self.barriers = 0;
        self.arming = None;
        self.unanswered.clear();
        self.requests_bytes = 0;
        self.count_requests();
    }

    /// Stops at once, and nothing more is sent: the client takes nothing. Gives the reads whose answers are nobody's now.
    pub(super) fn cut_off(&mut self) -> Vec<GatherId> {
        self.close_when_drained();
        self.cut_off = true;
        self.output.drop_all()
    }

    /// Stops at once: only what is ready is still sent. Gives the reads whose answers are nobody's now.
    pub(super) fn close_now(&mut self) -> Vec<GatherId> {
        self.close_when_drained();
        self.output.drop_places()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outstanding.set(self.outstanding.get() - self.counted);
    }
}
