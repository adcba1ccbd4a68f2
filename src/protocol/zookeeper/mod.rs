//! ZooKeeper's client protocol: requests and responses as values that borrow from their frame.
//!
//! Decoding answers one question only: is this a well-formed record? What it means is for `coordination` to decide.

mod acl;
mod connect;
mod error_code;
mod event;
mod framing;
mod op_code;
mod request;
mod response;
mod stat;

pub use acl::{Acl, AclVector, Id, permission};
pub use connect::{ConnectRequest, ConnectResponse, PASSWORD_BYTES};
pub use error_code::ErrorCode;
pub use event::{EventType, WatcherEvent};
pub use framing::{Frame, FrameError, FrameReader, PACKET_BYTES_MAX_DEFAULT};
pub use op_code::OpCode;
pub use request::{
    AddWatchMode, Create, CreateFlags, MultiOp, MultiOps, MultiReader, Request, RequestError, RequestHeader,
    SetWatches, StringVector, WatcherType, xid,
};
pub use response::{MultiResult, Reply, ReplyHeader, reply_bytes};
pub use stat::Stat;
