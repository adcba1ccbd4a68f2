//! The bodies of read replies: built within a bound, whole or in pieces.

use crate::base::Zxid;
use crate::coordination::auth::AuthConfig;
use crate::coordination::processor::peer::{Part, ReadKind, ReadResult};
use crate::coordination::tree::{AclRef, DataTree, NodeView};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{ErrorCode, Id, ReplyHeader, Stat, permission};
use std::ops::ControlFlow;

/// A list is built in pieces of about so many bytes, which takes some hundred microseconds; in between the others have their turn.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Length and header of a reply frame.
pub(super) const REPLY_HEAD_BYTES: usize = size_of::<i32>() + ReplyHeader::BYTES;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBody {
    /// The client is told.
    Error(ErrorCode),
    /// It is longer than it may be.
    TooLong,
}

/// What was appended of a body.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The list that allowed it.
    pub acl: AclRef,
    /// The last name in it, when others follow.
    pub more_after: Option<Box<str>>,
}

/// How much of a body is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extent<'a> {
    Whole,
    /// From behind this name on; as much as makes a piece.
    Piece(Option<&'a str>),
}

/// Reads records for somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub tree: &'a DataTree,
    pub auth: &'a AuthConfig,
    pub identities: &'a [Id],
    pub position: Zxid,
}

impl Reader<'_> {
    /// Appends a body, or a piece of one, of at most `bytes_max`. After an error the buffer is as it was.
    pub(super) fn append(
        &self,
        kind: ReadKind,
        path: &str,
        extent: Extent<'_>,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Encoded, NoBody> {
        let view = self.tree.view(path, self.position).ok_or(NoBody::Error(ErrorCode::NoNode))?;
        let acl = view.acl();
        let perms = if kind == ReadKind::Acl { permission::READ | permission::ADMIN } else { permission::READ };
        if !self.auth.allows(self.tree.acls().get(acl), perms, self.identities) {
            return Err(NoBody::Error(ErrorCode::NoAuth));
        }
        let start = buffer.len();
        let more_after = match kind {
            ReadKind::Children | ReadKind::ChildrenAndStat => append_children(kind, &view, extent, bytes_max, buffer),
            ReadKind::Exists | ReadKind::Data | ReadKind::Acl => {
                self.append_record(kind, &view, bytes_max, buffer).map(|()| None)
            }
        };
        match more_after {
            Ok(more_after) => Ok(Encoded { acl, more_after }),
            Err(reason) => {
                buffer.truncate(start);
                Err(reason)
            }
        }
    }

    /// Appends a body that is as long as what is stored.
    fn append_record(
        &self,
        kind: ReadKind,
        view: &NodeView<'_>,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), NoBody> {
        let acl = self.tree.acls().get(view.acl());
        let stored_bytes = match kind {
            ReadKind::Data => size_of::<i32>() + view.data().map_or(0, <[u8]>::len),
            ReadKind::Acl => size_of::<i32>() + acl.entry_bytes().len(),
            _ => 0,
        };
        if stored_bytes + Stat::BYTES > bytes_max {
            return Err(NoBody::TooLong);
        }
        buffer.reserve(stored_bytes + Stat::BYTES);
        let mut out = Output::new(buffer);
        match kind {
            ReadKind::Data => out.buffer(view.data()),
            ReadKind::Acl => {
                let masked = self.auth.masked(acl, self.identities);
                out.len(masked.len());
                masked.iter().for_each(|entry| entry.encode(&mut out));
            }
            _ => {}
        }
        stat(view).encode(&mut out);
        Ok(())
    }

    /// A body of at most `bytes_max` as the answer to a question.
    pub(super) fn result(
        &self,
        part: &Part,
        extent: Extent<'_>,
        bytes_max: usize,
    ) -> Option<(ReadResult, Option<Box<str>>)> {
        let mut bytes = Vec::new();
        match self.append(part.kind, &part.path, extent, bytes_max, &mut bytes) {
            Ok(Encoded { acl, more_after }) => {
                Some((ReadResult::Body { bytes, acl: self.tree.acls().get(acl).hash() }, more_after))
            }
            Err(NoBody::Error(code)) => Some((ReadResult::Error(code), None)),
            Err(NoBody::TooLong) => None,
        }
    }
}

fn stat(view: &NodeView<'_>) -> Stat {
    view.stat().to_wire(view.data_length(), view.num_children() as i32)
}

fn append_children(
    kind: ReadKind,
    view: &NodeView<'_>,
    extent: Extent<'_>,
    bytes_max: usize,
    buffer: &mut Vec<u8>,
) -> Result<Option<Box<str>>, NoBody> {
    let (after, piece_bytes) = match extent {
        Extent::Whole => (None, usize::MAX),
        Extent::Piece(after) => (after, PIECE_BYTES),
    };
    let start = buffer.len();
    // The stat comes last.
    let bytes_max = bytes_max.saturating_sub(if kind == ReadKind::ChildrenAndStat { Stat::BYTES } else { 0 });
    if after.is_none() {
        let children = view.num_children();
        // What the lengths of the names alone would take.
        if (children + 1).saturating_mul(size_of::<i32>()) > bytes_max {
            return Err(NoBody::TooLong);
        }
        Output::new(buffer).len(children);
    }
    // The name that made the piece full: it is the last one, if another follows.
    let (mut last, mut ended) = (None, Ok(None));
    let _ = view.try_for_each_child(after, |name| {
        if last.is_some() {
            ended = Ok(last.take());
            return ControlFlow::Break(());
        }
        if buffer.len() - start + size_of::<i32>() + name.len() > bytes_max {
            ended = Err(NoBody::TooLong);
            return ControlFlow::Break(());
        }
        Output::new(buffer).string(name);
        if buffer.len() - start >= piece_bytes {
            last = Some(Box::from(name));
        }
        ControlFlow::Continue(())
    });
    let more_after = ended?;
    if kind == ReadKind::ChildrenAndStat && more_after.is_none() {
        stat(view).encode(&mut Output::new(buffer));
    }
    Ok(more_after)
}

/// Begins a reply frame; [`end_reply`] must follow.
pub(super) fn begin_reply(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&[0; REPLY_HEAD_BYTES]);
}

/// Completes the frame that begins at `start`: with what was appended to it as its body, or with an error and without one.
pub(super) fn end_reply(xid: i32, position: Zxid, error: Option<ErrorCode>, start: usize, buffer: &mut Vec<u8>) {
    if error.is_some() {
        buffer.truncate(start + REPLY_HEAD_BYTES);
    }
    // Whoever appends stays below what a frame can say.
    let length = i32::try_from(buffer.len() - start - size_of::<i32>()).unwrap_or(i32::MAX);
    let header = ReplyHeader { xid, zxid: position.wire(), error: error.map_or(0, ErrorCode::wire) };
    let (length_place, header_place) = buffer[start..start + REPLY_HEAD_BYTES].split_at_mut(size_of::<i32>());
    length_place.copy_from_slice(&length.to_be_bytes());
    header_place.copy_from_slice(&header.to_bytes());
}
