//! Window reads of one record: answered here within their turn, or gathered, as of the position of the request's turn.

use super::encode::{Encoded, Extent, NoBody, PIECE_BYTES, Reader, begin_reply, end_reply};
use super::gather::{Job, OneRead};
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, planted};
use crate::coordination::processor::peer::{Part, ReadKind};
use crate::coordination::tree::path;
use crate::coordination::watch::{Tag, WatchKind};
use crate::protocol::zookeeper::{ErrorCode, permission};

/// The watch that a read leaves: none after an error, except that exists may watch for a node to come.
fn watch_stays(kind: ReadKind, error: Option<ErrorCode>) -> bool {
    error.is_none() || (kind == ReadKind::Exists && error == Some(ErrorCode::NoNode))
}

impl Shard {
    /// exists, getData, getChildren, getChildren2, getACL.
    pub(super) fn read(
        &mut self,
        number: u64,
        xid: i32,
        kind: ReadKind,
        node_path: &str,
        watch: bool,
        out: &mut ShardOutputs,
    ) {
        let watch_kind = match kind {
            ReadKind::Children | ReadKind::ChildrenAndStat => WatchKind::Child,
            _ => WatchKind::Data,
        };
        let canonical = path::canonical(node_path);
        let owner = self.config.map.owner(canonical);
        if let Some(error) = self.read_here(number, xid, kind, canonical, owner, out) {
            if watch && watch_stays(kind, error) {
                self.watches.arm(number, watch_kind, node_path, None);
            }
            return;
        }
        if !self.connections.contains_key(&number) {
            return;
        }
        let watch = watch.then(|| {
            self.next_tag += 1;
            (watch_kind, Box::from(node_path), Tag(self.next_tag))
        });
        if let Some((kind, node_path, tag)) = &watch
            && !planted::is("a1-watch-armed-late")
        {
            self.watches.arm(number, *kind, node_path, Some(*tag));
        }
        let read = OneRead::new(owner, Part { kind, path: canonical.into() }, watch);
        self.begin(number, xid, Job::One(read), out);
    }

    /// Answers a read from the record here, or from a copy of another shard's, and tells the error that it answered with. `None`
    /// when the reply is long, must wait for room, or comes from the owner.
    fn read_here(
        &mut self,
        number: u64,
        xid: i32,
        kind: ReadKind,
        node_path: &str,
        owner: ShardId,
        out: &mut ShardOutputs,
    ) -> Option<Option<ErrorCode>> {
        let position = self.applied;
        let connection = self.connections.get_mut(&number)?;
        if connection.output.bytes() >= self.config.output_bytes_max {
            return None;
        }
        let (tree, auth, identities) = (&self.tree, &self.config.auth, &connection.identities);
        let is_list = matches!(kind, ReadKind::Children | ReadKind::ChildrenAndStat);
        let bytes_max = if is_list { PIECE_BYTES } else { self.config.reply_bytes_max };
        let cached = if owner == self.config.id { None } else { Some(self.read_cache.get(kind, node_path)?) };
        let answered = connection.output.append(position, |buffer| {
            let start = buffer.len();
            begin_reply(buffer);
            let result = match cached {
                None => {
                    let reader = Reader { tree, auth, identities, position };
                    reader.append(kind, node_path, Extent::Whole, bytes_max, buffer)
                }
                Some(record) if auth.allows(tree.acls().get(record.acl), permission::READ, identities) => {
                    buffer.extend_from_slice(record.body);
                    Ok(Encoded { acl: record.acl, more_after: None })
                }
                Some(_) => Err(NoBody::Error(ErrorCode::NoAuth)),
            };
            let error = match result {
                Ok(_) => None,
                Err(NoBody::Error(code)) => Some(code),
                Err(NoBody::TooLong) => {
                    buffer.truncate(start);
                    return None;
                }
            };
            end_reply(xid, position, error, start, buffer);
            Some(error)
        })?;
        connection.packets_sent += 1;
        out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
        Self::mark_dirty(connection, out);
        Some(answered)
    }

    /// A read that was gathered ends: its watch stays, or goes.
    pub(super) fn settle_read_watch(
        &mut self,
        number: u64,
        kind: ReadKind,
        (watch_kind, node_path, tag): (WatchKind, Box<str>, Tag),
        error: Option<ErrorCode>,
    ) {
        let keep = watch_stays(kind, error);
        if !planted::is("a1-watch-armed-late") {
            self.settle_watch(number, watch_kind, &node_path, tag, keep);
        } else if keep && self.connections.contains_key(&number) {
            self.watches.arm(number, watch_kind, &node_path, None);
        }
    }
}
