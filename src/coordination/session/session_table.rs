//! The sessions of the server, as every shard knows them from the commit stream.

use crate::base::{ConnectionId, SessionId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A session that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its negotiated timeout.
    pub timeout_ms: u32,
    /// The connection that it was last created or moved on: the only one whose writes are accepted (rule A11).
    pub connection: ConnectionId,
}

/// All sessions, by id.
#[derive(Clone, Debug, Default)]
pub struct SessionTable {
    sessions: BTreeMap<SessionId, Session>,
}

impl SessionTable {
    /// The session with this id.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// The session was created, or moved to another connection; returns what it was before.
    pub fn put(&mut self, id: SessionId, session: Session) -> Option<Session> {
        self.sessions.insert(id, session)
    }

    /// The session was closed.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.sessions.remove(&id)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions above `after`, by id; all of them without it. For a walk in slices: a session that exists throughout is met.
    pub fn iter_after(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, &Session)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.sessions.range((from, Bound::Unbounded)).map(|(id, session)| (*id, session))
    }

    /// Every session, by id.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }
}
