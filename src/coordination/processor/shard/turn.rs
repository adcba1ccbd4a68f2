//! Requests taking their turn.

use super::connection::{ConnectionState, Expected, Held, Unanswered};
use super::{Shard, ShardOutputs};
use crate::base::{ConnectionId, SessionId, Zxid, coverage, planted};
use crate::coordination::processor::message::{RequestId, WriteBody, WriteRequest};
use crate::coordination::processor::peer::ReadKind;
use crate::coordination::session::password;
use crate::coordination::watch::WatchKind;
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    AddWatchMode, ConnectRequest, ConnectResponse, ErrorCode, FrameError, FrameReader, Reply, Request, RequestError,
    RequestHeader, WatcherType, xid as special_xid,
};
use bytes::Bytes;

/// Whether a request took its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Taken,
    /// It must wait for earlier requests to be answered.
    WaitForAnswers,
    /// It must wait for the shard to catch up with what other clients have seen.
    WaitForPosition,
}

/// A frame's body with its header read.
struct Parsed<'a> {
    header: RequestHeader,
    request: Result<Request<'a>, RequestError>,
    record: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// `None` when there is not even a header.
    fn new(body: &'a [u8]) -> Option<Parsed<'a>> {
        let mut input = Input::new(body);
        let header = RequestHeader::decode(&mut input).ok()?;
        let record = input.rest();
        Some(Parsed { header, request: Request::decode(header.op, record), record })
    }

    fn needs_agreement(&self) -> bool {
        self.request.as_ref().is_ok_and(|request| request.op_code().needs_agreement())
    }

    /// True when a later write of the connection may be forwarded first: the request changes nothing that the write depends on,
    /// and can be executed at any moment.
    fn lets_writes_pass(&self) -> bool {
        matches!(
            self.request,
            Ok(Request::Exists { .. }
                | Request::GetData { .. }
                | Request::GetChildren { .. }
                | Request::GetAcl { .. }
                | Request::MultiRead(_)
                | Request::AddWatch { .. }
                | Request::Ping)
        )
    }
}

impl Shard {
    /// Takes bytes of a client. `released` is the server's word as it was when the bytes arrived. Returns how many bytes
    /// were consumed; the caller offers the rest again. When [`Shard::wants_bytes`] says yes, the rest is the beginning of a
    /// frame and is offered together with what comes next. When it says no, the rest may be whole frames, which are offered
    /// once it says yes: a short request can ask for a long reply, so requests wait for room. An error closes the connection
    /// at once.
    pub fn receive(
        &mut self,
        number: u64,
        bytes: &[u8],
        released: Zxid,
        out: &mut ShardOutputs,
    ) -> Result<usize, FrameError> {
        if self.failed.is_some() {
            return Ok(bytes.len());
        }
        let mut frames = FrameReader::new(bytes, self.config.packet_bytes_max);
        loop {
            if frames.consumed() > 0 && !self.wants_bytes(number) {
                return Ok(frames.consumed());
            }
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(frames.consumed()),
                Err(error) => {
                    self.close_now(number, out);
                    return Err(error);
                }
            };
            let Some(connection) = self.connections.get_mut(&number) else { return Ok(bytes.len()) };
            connection.packets_received += 1;
            connection.touched = true;
            match connection.state {
                ConnectionState::New => self.handshake(number, frame.body, out),
                ConnectionState::Closing => return Ok(bytes.len()),
                ConnectionState::Connecting | ConnectionState::Open => {
                    connection.sequence += 1;
                    let sequence = connection.sequence;
                    self.request(number, sequence, released, frame.body, out);
                }
            }
        }
    }

    fn handshake(&mut self, number: u64, body: &[u8], out: &mut ShardOutputs) {
        let Ok(request) = ConnectRequest::decode(body) else { return self.close_now(number, out) };
        self.counters.connection_requests += 1;
        let (min, max) = (self.config.session_timeout_ms_min, self.config.session_timeout_ms_max);
        let timeout_ms = u32::try_from(request.timeout_ms).unwrap_or(0).clamp(min, max);
        let session = SessionId(request.session_id);
        let last_zxid_seen = Zxid(request.last_zxid_seen.max(0) as u64);
        let read_only = request.read_only;
        // The password first: an attempt with a wrong one must not disturb the session's connection.
        if session != SessionId::NONE && request.password != password(session) {
            let applied = self.applied;
            self.counters.connection_revalidations += 1;
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.packets_sent += 1;
                connection.output.append(applied, |buffer| {
                    ConnectResponse::session_gone(read_only).encode_frame(buffer);
                });
            }
            return self.close_when_drained(number, out);
        }
        let body = if session == SessionId::NONE {
            WriteBody::CreateSession { timeout_ms, last_zxid_seen }
        } else {
            WriteBody::MoveSession { timeout_ms, last_zxid_seen }
        };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.state = ConnectionState::Connecting;
            connection.session = session;
        }
        self.forward(number, 0, 0, Expected::Connect { read_only }, body, &[], out);
    }

    /// A request was read: the request takes its turn now, or waits behind the others. A write passes waiting reads: the
    /// shard serves those reads before it applies the write's transaction ([`Shard::serve_before`]).
    fn request(&mut self, number: u64, sequence: u64, released: Zxid, body: &[u8], out: &mut ShardOutputs) {
        let Some(connection) = self.connections.get(&number) else { return };
        let parsed = Parsed::new(body);
        let first = !connection.has_waiting();
        let passes = !first && connection.lets_writes_pass() && parsed.as_ref().is_some_and(Parsed::needs_agreement);
        if passes {
            coverage::mark("write-passed-waiting-reads");
        }
        self.asked_us = self.now_us;
        let turn = if first || passes {
            self.take_turn(number, sequence, released, &parsed, out)
        } else {
            Turn::WaitForAnswers
        };
        if turn == Turn::Taken {
            return;
        }
        if turn == Turn::WaitForPosition {
            coverage::mark("read-waited-for-released");
            self.stalled.insert((released, number));
        }
        if let Some(connection) = self.connections.get_mut(&number) {
            let barrier = !parsed.is_some_and(|parsed| parsed.lets_writes_pass());
            connection.hold(Held { sequence, released, body: body.into(), barrier, since_us: self.now_us });
        }
    }

    /// Lets the waiting requests of a connection take their turns, as far as they can and their output has room.
    pub(super) fn pump(&mut self, number: u64, out: &mut ShardOutputs) {
        loop {
            let Some(connection) = self.connections.get_mut(&number) else { return };
            if connection.output.bytes() >= self.config.output_bytes_max {
                // Whoever takes the output lets them go on.
                return;
            }
            if let Some(left) = &connection.arming {
                if left.under_way {
                    return;
                }
                self.arm_next(number, out);
                continue;
            }
            let Some(held) = connection.take_held() else { return };
            if !self.take_held_turn(number, held, out) {
                return;
            }
        }
    }

    /// To be called before the transaction of `request` is applied, or `request` is answered without one. The waiting reads
    /// in front of `request` have their turn now, so that they do not see the transaction (rule A2).
    pub(super) fn serve_before(&mut self, request: RequestId, out: &mut ShardOutputs) {
        let Some(number) = self.own_number(request.connection) else { return };
        if planted::is("write-overtakes-read") {
            return;
        }
        while let Some(connection) = self.connections.get_mut(&number)
            && connection.waiting.front().is_some_and(|held| held.sequence < request.sequence)
            && let Some(held) = connection.take_held()
        {
            coverage::mark("read-served-before-own-write");
            // The read waits for a position that was released before the write was forwarded. So this position lies below
            // the zxid of the write.
            if !self.take_held_turn(number, held, out) {
                debug_assert!(false, "a read before a write is served before the write");
                return self.close_now(number, out);
            }
        }
    }

    /// Lets a waiting request try to take its turn. A request that must go on waiting returns to the front of the queue.
    fn take_held_turn(&mut self, number: u64, held: Held, out: &mut ShardOutputs) -> bool {
        self.asked_us = held.since_us;
        let turn = self.take_turn(number, held.sequence, held.released, &Parsed::new(&held.body), out);
        if turn == Turn::Taken {
            return true;
        }
        if turn == Turn::WaitForPosition {
            self.stalled.insert((held.released, number));
        }
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.hold_again(held);
        }
        false
    }

    fn take_turn(
        &mut self,
        number: u64,
        sequence: u64,
        released: Zxid,
        parsed: &Option<Parsed<'_>>,
        out: &mut ShardOutputs,
    ) -> Turn {
        let Some(connection) = self.connections.get(&number) else { return Turn::Taken };
        let Some(Parsed { header, request, record }) = parsed else {
            // Not even a header: nothing can be answered.
            self.close_now(number, out);
            return Turn::Taken;
        };
        if let Ok(request) = request
            && request.op_code().needs_agreement()
        {
            if connection.state != ConnectionState::Open {
                return Turn::WaitForAnswers;
            }
            self.forward_request(number, sequence, *header, request, record, out);
            return Turn::Taken;
        }
        // Whether a watch is there depends on how the reads before it end (rule A9).
        let needs_reads = matches!(request, Ok(Request::CheckWatches { .. } | Request::RemoveWatches { .. }));
        let unanswered = connection.oldest_unanswered().is_some_and(|unanswered| unanswered.sequence < sequence);
        if unanswered || (needs_reads && connection.output.has_unfilled()) {
            return Turn::WaitForAnswers;
        }
        let needed = if planted::is("a3-no-released-check") { Zxid::ZERO } else { released };
        let floor = if planted::is("c3-served-before-end") { Zxid::ZERO } else { self.serve_from };
        if self.applied < needed.max(floor) {
            return Turn::WaitForPosition;
        }
        match request {
            Ok(request) => self.execute(number, header.xid, request, record, out),
            Err(RequestError::Malformed(_)) => {
                self.reply_error(number, header.xid, self.applied.wire(), ErrorCode::MarshallingError, out);
            }
            Err(RequestError::Unimplemented(_)) => {
                self.reply_error(number, header.xid, -1, ErrorCode::Unimplemented, out);
                self.close_when_drained(number, out);
            }
        }
        Turn::Taken
    }

    fn forward_request(
        &mut self,
        number: u64,
        sequence: u64,
        header: RequestHeader,
        request: &Request<'_>,
        record: &[u8],
        out: &mut ShardOutputs,
    ) {
        let operation = WriteBody::Operation { op: header.op, record: Bytes::new() };
        let (expected, body, record) = match request {
            Request::Sync { path } => (Expected::Sync { path: (*path).into() }, WriteBody::Sync, &[][..]),
            Request::CloseSession => (Expected::CloseSession, WriteBody::CloseSession, &[][..]),
            Request::Multi(ops) => (Expected::Multi(ops.iter().map(|op| op.op_code()).collect()), operation, record),
            single => (Expected::Single(single.op_code()), operation, record),
        };
        self.forward(number, sequence, header.xid, expected, body, record, out);
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        number: u64,
        sequence: u64,
        xid: i32,
        expected: Expected,
        body: WriteBody,
        record: &[u8],
        out: &mut ShardOutputs,
    ) {
        let (boot, shard) = (self.config.boot, self.config.id);
        // The handshake is no request that waits.
        let since_us = if sequence == 0 { self.now_us } else { self.asked_us };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.expect(Unanswered { sequence, xid, expected, since_us });
        let id = RequestId { connection: ConnectionId { boot, shard, number }, sequence };
        let (session, identities) = (connection.session, connection.identities.clone());
        out.forward(WriteRequest { id, session, xid, identities, body }, record);
    }

    /// Executes a request that needs no agreement, at the position `applied`.
    fn execute(&mut self, number: u64, xid: i32, request: &Request<'_>, record: &[u8], out: &mut ShardOutputs) {
        match request {
            // Of the reads, only exists looks for it.
            Request::Exists { path, .. } if path.contains('\0') => {
                self.reply_error(number, xid, self.applied.wire(), ErrorCode::BadArguments, out);
            }
            Request::Exists { path, watch } => self.read(number, xid, ReadKind::Exists, path, *watch, out),
            Request::GetData { path, watch } => self.read(number, xid, ReadKind::Data, path, *watch, out),
            Request::GetChildren { path, watch, with_stat } => {
                let kind = if *with_stat { ReadKind::ChildrenAndStat } else { ReadKind::Children };
                self.read(number, xid, kind, path, *watch, out);
            }
            Request::GetAcl { path } => self.read(number, xid, ReadKind::Acl, path, false, out),
            Request::MultiRead(ops) => self.multi_read(number, xid, ops, out),
            Request::SetWatches(watches) => self.set_watches(number, xid, watches, record, out),
            Request::Ping => self.reply_local(number, special_xid::PING, &Reply::Empty, out),
            Request::AddWatch { path, mode } => {
                let kind = match mode {
                    AddWatchMode::Persistent => WatchKind::Persistent,
                    AddWatchMode::PersistentRecursive => WatchKind::PersistentRecursive,
                };
                self.watches.arm(number, kind, path, None);
                self.reply_local(number, xid, &Reply::AddWatch, out);
            }
            Request::CheckWatches { path, kind } => {
                let found = self.watches.contains(number, path, *kind);
                self.reply_watcher(number, xid, found, out);
            }
            Request::RemoveWatches { path, kind } => self.remove_watches(number, xid, path, *kind, out),
            Request::Auth { scheme, auth } => self.authenticate(number, xid, scheme, auth, out),
            // Nobody has configured SASL: there is nothing to prove and no more to say, and clients go on without it.
            Request::Sasl { .. } => self.reply_aside(number, xid, &Reply::Sasl(None), out),
            Request::Create(_)
            | Request::Delete { .. }
            | Request::SetData { .. }
            | Request::SetAcl { .. }
            | Request::Multi(_)
            | Request::Sync { .. }
            | Request::CloseSession => {
                debug_assert!(false, "it needs agreement and was forwarded");
                self.close_now(number, out);
            }
        }
    }

    fn remove_watches(&mut self, number: u64, xid: i32, path: &str, kind: WatcherType, out: &mut ShardOutputs) {
        let found = self.watches.remove_kind(number, path, kind);
        self.reply_watcher(number, xid, found, out);
    }

    fn reply_watcher(&mut self, number: u64, xid: i32, found: bool, out: &mut ShardOutputs) {
        if found {
            self.reply_local(number, xid, &Reply::Empty, out);
        } else {
            self.reply_error(number, xid, self.applied.wire(), ErrorCode::NoWatcher, out);
        }
    }

    /// The reply to a request that concerns the connection alone: it carries no position, and ZooKeeper does not time it.
    fn reply_aside(&mut self, number: u64, xid: i32, reply: &Reply<'_>, out: &mut ShardOutputs) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.packets_sent += 1;
            connection.output.append(Zxid::ZERO, |buffer| reply.encode_frame(xid, Zxid::ZERO, buffer));
            Self::mark_dirty(connection, out);
        }
    }

    /// A reply that needs no record: it carries the position of its turn.
    fn reply_local(&mut self, number: u64, xid: i32, reply: &Reply<'_>, out: &mut ShardOutputs) {
        let applied = self.applied;
        out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.packets_sent += 1;
            connection.output.append(applied, |buffer| reply.encode_frame(xid, applied, buffer));
            Self::mark_dirty(connection, out);
        }
    }

    fn authenticate(&mut self, number: u64, xid: i32, scheme: &str, auth: &[u8], out: &mut ShardOutputs) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match self.config.auth.authenticate(scheme, auth, &connection.identities) {
            Ok(identities) => {
                connection.identities = identities;
                self.reply_aside(number, xid, &Reply::Empty, out);
            }
            Err(_) => {
                self.reply_error(number, xid, 0, ErrorCode::AuthFailed, out);
                self.close_when_drained(number, out);
            }
        }
    }
}
