//! Applying committed transactions: the only thing that changes a shard's tree.

use super::connection::Expected;
use super::{Connection, ConnectionState, Shard, ShardOutputs, reply};
use crate::base::{ConnectionId, SessionId, Zxid, coverage, planted};
use crate::coordination::processor::message::{Batch, Mark, MarkAnswer, RequestId};
use crate::coordination::processor::txn::{MalformedTxn, Txn, TxnAcl, TxnRecord, batch_txns};
use crate::coordination::session::{Session, password};
use crate::coordination::tree::{AclHash, AclRef, path};
use crate::protocol::zookeeper::{ConnectResponse, ErrorCode, EventType, Reply, WatcherEvent, permission};
use thiserror::Error;

/// A committed transaction that cannot be applied: the server must stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// It cannot be read.
    #[error("transaction {0} cannot be read")]
    Malformed(Zxid),
    /// It changes a record that is not there, above the end of the snapshot (rule C4).
    #[error("transaction {zxid} changes {path}, which does not exist on shard {shard}")]
    MissingRecord {
        /// The transaction.
        zxid: Zxid,
        /// The record.
        path: String,
        /// The shard that owns it.
        shard: crate::base::ShardId,
    },
    /// It names an access list that nobody has told of.
    #[error("transaction {0} names an unknown ACL")]
    UnknownAcl(Zxid),
}

impl Shard {
    /// Applies a batch, transaction by transaction, then serves what has waited for it.
    pub fn apply(&mut self, batch: &Batch, out: &mut ShardOutputs) -> Result<(), ApplyError> {
        let mut marks = batch.marks.iter().peekable();
        for txn in batch_txns(&batch.txns) {
            let txn = txn.map_err(|_| ApplyError::Malformed(self.applied))?;
            while let Some(mark) = marks.next_if(|mark| mark.after < txn.header.zxid) {
                self.apply_mark(mark, out);
            }
            self.apply_txn(&txn, out)?;
        }
        for mark in marks {
            self.apply_mark(mark, out);
        }
        self.applied_bytes += batch.txns.len() as u64;
        self.cut_off_holders(out);
        self.resume(out);
        Ok(())
    }

    /// One transaction: records, events, reply, and only then the position.
    fn apply_txn(&mut self, txn: &Txn<'_>, out: &mut ShardOutputs) -> Result<(), ApplyError> {
        let zxid = txn.header.zxid;
        self.serve_before(txn.header.request, out);
        let malformed = |_: MalformedTxn| ApplyError::Malformed(zxid);
        // A session's own transactions cannot be answered before they are applied, not even by mistake.
        let of_session = |record| matches!(record, TxnRecord::CreateSession { .. } | TxnRecord::MoveSession { .. });
        let early = planted::is("reply-before-event")
            && !txn.records().next().is_some_and(|record| record.is_ok_and(of_session));
        if early {
            self.reply(txn, out).map_err(malformed)?;
        }
        let mut closed = None;
        for record in txn.records() {
            self.apply_record(txn, &record.map_err(malformed)?, &mut closed, out)?;
        }
        if !early {
            self.reply(txn, out).map_err(malformed)?;
        }
        self.applied = zxid;
        if let Some(session) = closed {
            self.session_closed(session, out);
        }
        Ok(())
    }

    pub(super) fn owns(&self, node_path: &str) -> bool {
        self.config.map.owner(node_path) == self.config.id
    }

    fn apply_record(
        &mut self,
        txn: &Txn<'_>,
        record: &TxnRecord<'_>,
        closed: &mut Option<Session>,
        out: &mut ShardOutputs,
    ) -> Result<(), ApplyError> {
        let zxid = txn.header.zxid;
        match *record {
            TxnRecord::Create { path, data, owner, acl, parent_acl, parent_cversion } => {
                let acl_ref = self.acl_ref(&acl, zxid)?;
                if self.owns(path) {
                    self.tree.apply_create(zxid, path, data, acl_ref, &txn.created_stat(owner));
                }
                self.apply_child(zxid, path, true, parent_cversion)?;
                self.fire(zxid, EventType::NodeCreated, path, acl.hash, out)?;
                self.fire_children_changed(zxid, path, parent_acl, out)?;
            }
            TxnRecord::Delete { path, acl, parent_acl, parent_cversion } => {
                if self.owns(path) {
                    let found = self.tree.apply_delete(zxid, path);
                    self.expect_record(found, zxid, path)?;
                } else {
                    self.read_cache.remove(path);
                }
                self.apply_child(zxid, path, false, parent_cversion)?;
                self.fire(zxid, EventType::NodeDeleted, path, acl, out)?;
                self.fire_children_changed(zxid, path, parent_acl, out)?;
            }
            TxnRecord::SetData { path, data, acl, stat, num_children } => {
                if self.owns(path) {
                    let found = self.tree.apply_set_data(zxid, path, data, &stat);
                    self.expect_record(found, zxid, path)?;
                } else {
                    self.read_cache.set_data(path, data, &stat, num_children);
                }
                self.fire(zxid, EventType::NodeDataChanged, path, acl, out)?;
            }
            TxnRecord::SetAcl { path, acl, stat, .. } => {
                let acl_ref = self.acl_ref(&acl, zxid)?;
                if self.owns(path) {
                    let found = self.tree.apply_set_acl(zxid, path, acl_ref, stat.aversion);
                    self.expect_record(found, zxid, path)?;
                } else {
                    self.read_cache.remove(path);
                }
            }
            TxnRecord::CreateSession { session, timeout_ms } | TxnRecord::MoveSession { session, timeout_ms } => {
                let connection = txn.header.request.connection;
                let before = self.sessions.put(session, Session { timeout_ms, connection });
                if let Some(old) = before.and_then(|old| self.own_number(old.connection))
                    && (old != connection.number || connection.shard != self.config.id)
                {
                    coverage::mark("moved-session-closes-old-connection");
                    self.close_now(old, out);
                }
            }
            TxnRecord::CloseSession { session } => *closed = self.sessions.remove(session),
            TxnRecord::Check
            | TxnRecord::Error { .. }
            | TxnRecord::MultiFailed { .. }
            | TxnRecord::Multi { .. }
            | TxnRecord::OpenEpoch => {}
        }
        Ok(())
    }

    /// Every shard learns every list: it filters events by the lists of nodes that it does not own (rule B4).
    fn acl_ref(&mut self, acl: &TxnAcl<'_>, zxid: Zxid) -> Result<AclRef, ApplyError> {
        match self.tree.acls().find(acl.hash) {
            Some(known) => Ok(known),
            None => Ok(self.tree.intern_acl(acl.to_list().map_err(|_| ApplyError::Malformed(zxid))?)),
        }
    }

    fn apply_child(&mut self, zxid: Zxid, node_path: &str, added: bool, cversion: i32) -> Result<(), ApplyError> {
        let Some((parent, name)) = path::split(node_path) else { return Err(ApplyError::Malformed(zxid)) };
        if !self.owns(parent) {
            self.read_cache.remove(parent);
            return Ok(());
        }
        let found = self.tree.apply_child(zxid, parent, name, added, cversion);
        self.expect_record(found, zxid, parent)
    }

    /// While a fuzzy snapshot is replayed up to its end, records of the future or of the past are expected (rule C4).
    fn expect_record(&self, found: bool, zxid: Zxid, node_path: &str) -> Result<(), ApplyError> {
        if found || zxid <= self.serve_from {
            if !found {
                coverage::mark("replay-skipped-missing-record");
            }
            return Ok(());
        }
        Err(ApplyError::MissingRecord { zxid, path: node_path.into(), shard: self.config.id })
    }

    fn fire_children_changed(
        &mut self,
        zxid: Zxid,
        node_path: &str,
        parent_acl: AclHash,
        out: &mut ShardOutputs,
    ) -> Result<(), ApplyError> {
        match path::parent(node_path) {
            Some(parent) => self.fire(zxid, EventType::NodeChildrenChanged, parent, parent_acl, out),
            None => Ok(()),
        }
    }

    /// Queues the event for every connection here that it concerns and that may read the node.
    fn fire(
        &mut self,
        zxid: Zxid,
        kind: EventType,
        node_path: &str,
        acl: AclHash,
        out: &mut ShardOutputs,
    ) -> Result<(), ApplyError> {
        if self.watches.is_empty() {
            return Ok(());
        }
        self.watches.fire(kind, node_path, &mut self.fired);
        if self.fired.is_empty() {
            return Ok(());
        }
        let acl = self.tree.acls().find(acl).ok_or(ApplyError::UnknownAcl(zxid))?;
        let acl = self.tree.acls().get(acl);
        let mut overfull = Vec::new();
        for fired in &self.fired {
            let Some(connection) = self.connections.get_mut(&fired.connection) else { continue };
            if !self.config.auth.allows(acl, permission::READ, &connection.identities) {
                coverage::mark("event-filtered");
                continue;
            }
            connection.packets_sent += 1;
            connection.output.append_event(zxid, fired, |buffer| {
                WatcherEvent { kind, path: node_path }.encode_frame(Some(zxid), buffer);
            });
            if connection.output.bytes() > self.config.output_bytes_limit {
                overfull.push(fired.connection);
            }
            Self::mark_dirty(connection, out);
        }
        for number in overfull {
            self.cut_off(number, out);
        }
        Ok(())
    }

    pub(super) fn own_number(&self, connection: ConnectionId) -> Option<u64> {
        (connection.boot == self.config.boot && connection.shard == self.config.id).then_some(connection.number)
    }

    /// The connection whose oldest unanswered request this is (rule B5), with that request taken off.
    fn take_unanswered(
        &mut self,
        request: RequestId,
        out: &mut ShardOutputs,
    ) -> Option<(&mut Connection, i32, Expected)> {
        let number = self.own_number(request.connection)?;
        let connection = self.connections.get_mut(&number)?;
        connection.oldest_unanswered().filter(|oldest| oldest.sequence == request.sequence)?;
        let unanswered = connection.take_unanswered()?;
        Self::answered(connection, self.now_us.saturating_sub(unanswered.since_us), &mut self.resumed, out);
        Some((connection, unanswered.xid, unanswered.expected))
    }

    /// The oldest unanswered request of the connection is taken off.
    fn answered(connection: &Connection, latency_us: u64, resumed: &mut Vec<u64>, out: &mut ShardOutputs) {
        out.latencies_us.push(latency_us);
        if connection.can_resume() {
            resumed.push(connection.number);
        }
    }

    fn reply(&mut self, txn: &Txn<'_>, out: &mut ShardOutputs) -> Result<(), MalformedTxn> {
        let RequestId { connection, sequence } = txn.header.request;
        let Some(number) = self.own_number(connection) else { return Ok(()) };
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        // The request is answered while it stands in the queue. To move it out first would read memory that two overlapping
        // stores have just written. For such a read the CPU waits until all earlier stores have left its store buffer, those
        // of a large value included: that took 8 % of a write.
        let (oldest, output) = connection.oldest_unanswered_and_output();
        let Some(oldest) = oldest.filter(|oldest| oldest.sequence == sequence) else { return Ok(()) };
        let latency_us = self.now_us.saturating_sub(oldest.since_us);
        let connects = if let Expected::Connect { read_only } = oldest.expected { Some(read_only) } else { None };
        let closes = oldest.expected == Expected::CloseSession;
        let mut fits = true;
        if connects.is_none() {
            let reply_bytes_max = self.config.reply_bytes_max;
            output.append(txn.header.zxid, |buffer| {
                let start = buffer.len();
                reply::encode(&oldest.expected, oldest.xid, txn, buffer)?;
                fits = buffer.len() - start <= reply_bytes_max;
                buffer.truncate(if fits { buffer.len() } else { start });
                Ok::<(), MalformedTxn>(())
            })?;
            Self::mark_dirty(connection, out);
        }
        connection.packets_sent += 1;
        connection.take_unanswered();
        Self::answered(connection, latency_us, &mut self.resumed, out);
        if let Some(read_only) = connects {
            self.connected(number, txn, read_only, out)?;
        }
        if !fits {
            self.refuse_reply(number, out);
        }
        if closes {
            self.close_when_drained(number, out);
        }
        Ok(())
    }

    /// The session of the connection was created, or moved to it.
    fn connected(
        &mut self,
        number: u64,
        txn: &Txn<'_>,
        read_only: Option<bool>,
        out: &mut ShardOutputs,
    ) -> Result<(), MalformedTxn> {
        let session = txn.header.session;
        let timeout_ms = self.sessions.get(session).ok_or(MalformedTxn)?.timeout_ms;
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if connection.session != SessionId::NONE {
            self.counters.connection_revalidations += 1;
        }
        connection.state = ConnectionState::Open;
        connection.session = session;
        connection.timeout_ms = timeout_ms;
        let response = ConnectResponse {
            timeout_ms: timeout_ms as i32,
            session_id: session.0,
            password: password(session),
            read_only: read_only.map(|_| false),
        };
        connection.output.append(txn.header.zxid, |buffer| response.encode_frame(buffer));
        Self::mark_dirty(connection, out);
        if !connection.waiting.is_empty() {
            self.resumed.push(number);
        }
        Ok(())
    }

    fn apply_mark(&mut self, mark: &Mark, out: &mut ShardOutputs) {
        let zxid = mark.after;
        self.serve_before(mark.request, out);
        let Some((connection, xid, expected)) = self.take_unanswered(mark.request, out) else { return };
        let number = connection.number;
        match (mark.answer, expected) {
            (MarkAnswer::Synced, Expected::Sync { path }) => {
                connection.packets_sent += 1;
                connection.output.append(zxid, |buffer| Reply::Path(&path).encode_frame(xid, zxid, buffer));
                Self::mark_dirty(connection, out);
            }
            (MarkAnswer::SessionGone, Expected::Connect { read_only }) => {
                connection.packets_sent += 1;
                connection.output.append(zxid, |buffer| {
                    ConnectResponse::session_gone(read_only).encode_frame(buffer);
                });
                self.counters.connection_revalidations += 1;
                self.close_when_drained(number, out);
            }
            (MarkAnswer::Refused(code), _) => {
                connection.packets_sent += 1;
                connection.output.append(zxid, |buffer| {
                    Reply::encode_error_frame(xid, zxid.wire(), code, buffer);
                });
                Self::mark_dirty(connection, out);
            }
            (MarkAnswer::Close, _) => self.close_now(number, out),
            (answer, expected) => {
                debug_assert!(false, "{answer:?} cannot answer {expected:?}");
                self.close_now(number, out);
            }
        }
    }

    /// The session is gone: its connection is closed once the pending output is sent. A connection that has asked for the
    /// end itself is closing already.
    fn session_closed(&mut self, session: Session, out: &mut ShardOutputs) {
        let Some(number) = self.own_number(session.connection) else { return };
        if let Some(connection) = self.connections.get(&number)
            && connection.state != ConnectionState::Closing
        {
            coverage::mark("session-closed-by-server");
            self.close_when_drained(number, out);
        }
    }

    /// Serves what has waited for the position to move.
    fn resume(&mut self, out: &mut ShardOutputs) {
        self.serve_parked(out);
        for number in std::mem::take(&mut self.resumed) {
            self.pump(number, out);
        }
        while let Some(&(released, number)) = self.stalled.first().filter(|(released, _)| *released <= self.applied) {
            self.stalled.remove(&(released, number));
            self.pump(number, out);
        }
    }

    /// An error in place of a reply, for a request that did not need agreement.
    pub(super) fn reply_error(&mut self, number: u64, xid: i32, zxid: i64, code: ErrorCode, out: &mut ShardOutputs) {
        let applied = self.applied;
        out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.packets_sent += 1;
            connection.output.append(applied, |buffer| Reply::encode_error_frame(xid, zxid, code, buffer));
            Self::mark_dirty(connection, out);
        }
    }
}
