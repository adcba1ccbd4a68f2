//! Frames in a form that can be compared.

use super::history::ClientConnection;
use crate::protocol::jute::{Input, Output};
use crate::protocol::zookeeper::{ConnectRequest, ConnectResponse, MultiResult, OpCode, Reply, ReplyHeader};

/// Whether a received frame is the expected one. Children may stand in any order; everything else is compared byte by byte.
pub(super) fn equal(op: Option<OpCode>, received: &[u8], expected: &[u8]) -> bool {
    if received == expected {
        return true;
    }
    let unordered = matches!(op, Some(OpCode::GetChildren | OpCode::GetChildren2 | OpCode::MultiRead));
    unordered && op.is_some_and(|op| sorted(op, received).is_some_and(|frame| Some(frame) == sorted(op, expected)))
}

/// The frame with its children sorted; `None` when it is no reply to `op`, or has bytes behind it.
fn sorted(op: OpCode, frame: &[u8]) -> Option<Vec<u8>> {
    let mut input = Input::new(frame);
    let header = ReplyHeader::decode(&mut input).ok().filter(|header| header.error == 0)?;
    let mut reply = Reply::decode(op, &mut input).ok().filter(|_| input.is_empty())?;
    match &mut reply {
        Reply::Children(children) | Reply::ChildrenAndStat(children, _) => children.sort_unstable(),
        Reply::Multi(slots) => slots.iter_mut().for_each(|slot| {
            if let MultiResult::GetChildren { children } = slot {
                children.sort_unstable();
            }
        }),
        _ => {}
    }
    let mut normal = Vec::new();
    let mut out = Output::new(&mut normal);
    header.encode(&mut out);
    reply.encode(&mut out);
    Some(normal)
}

/// The body of the answer that refuses the handshake in `body`.
pub(super) fn session_gone(body: &[u8]) -> Option<Vec<u8>> {
    let connect = ConnectRequest::decode(body).ok()?;
    let mut frame = Vec::new();
    ConnectResponse::session_gone(connect.read_only).encode_frame(&mut frame);
    Some(frame.split_off(4))
}

/// Whether the server may close the connection without answering its handshake: it is none, or the client claims to have
/// seen what the server has not. That claim can only be judged by whoever knows how far the server was, so a claim that is
/// above everything the client can have been told counts.
pub(super) fn may_close_silently(connection: &ClientConnection) -> bool {
    const FUTURE: i64 = 1 << 48;
    match ConnectRequest::decode(&connection.sent[0].body) {
        Ok(connect) => connection.sent[0].broken_frame || connect.last_zxid_seen >= FUTURE,
        Err(_) => true,
    }
}
