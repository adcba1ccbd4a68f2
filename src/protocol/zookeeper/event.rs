//! Watch notifications.

use super::response::ReplyHeader;
use crate::base::Zxid;
use crate::protocol::jute::{Input, JuteError, Output};

/// What happened to the path of a notification (`Watcher.Event.EventType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

impl EventType {
    /// The type with this code.
    pub fn from_wire(code: i32) -> Option<EventType> {
        use EventType::*;
        [NodeCreated, NodeDeleted, NodeDataChanged, NodeChildrenChanged].into_iter().find(|t| *t as i32 == code)
    }
}

/// A notification from server to client: reply header with xid -1, then the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherEvent<'a> {
    /// What happened.
    pub kind: EventType,
    /// Where.
    pub path: &'a str,
}

impl<'a> WatcherEvent<'a> {
    /// `KeeperState.SyncConnected`: the only state that a server sends.
    const STATE_SYNC_CONNECTED: i32 = 3;

    /// Appends the whole frame. `zxid` is the transaction that fired it; `None` (events made up by setWatches) is -1.
    pub fn encode_frame(&self, zxid: Option<Zxid>, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| {
            ReplyHeader { xid: super::xid::NOTIFICATION, zxid: zxid.map_or(-1, Zxid::wire), error: 0 }.encode(out);
            out.i32(self.kind as i32);
            out.i32(Self::STATE_SYNC_CONNECTED);
            out.string(self.path);
        });
    }

    /// Reads the event that follows a reply header with xid -1.
    pub fn decode(input: &mut Input<'a>) -> Result<WatcherEvent<'a>, JuteError> {
        let code = input.i32()?;
        let kind = EventType::from_wire(code).ok_or(JuteError::BadDiscriminant(code))?;
        input.i32()?;
        Ok(WatcherEvent { kind, path: input.string()? })
    }
}
