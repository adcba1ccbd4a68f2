//! What can go wrong for a user of the client.

use crate::protocol::zookeeper::ErrorCode;
use thiserror::Error;

/// Why an operation did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The connection ended before the reply came: the operation may or may not have happened. The client reconnects by
    /// itself; whether to ask again is the caller's decision.
    #[error("connection to the server lost; whether the operation took effect is unknown")]
    ConnectionLoss,
    /// The ensemble has ended the session: ephemeral nodes and watches are gone, and this client is of no further use.
    #[error("the session has expired")]
    SessionExpired,
    /// The server refused the credentials; this client is of no further use.
    #[error("the server refused the authentication")]
    AuthFailed,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The server answered with an error.
    #[error("{path}: {code:?}")]
    Refused {
        /// What the server said.
        code: ErrorCode,
        /// The path that was asked for, without the chroot.
        path: String,
    },
    /// The server answered with an error code that this client does not know.
    #[error("{path}: server error {wire}")]
    RefusedUnknown {
        /// The code on the wire.
        wire: i32,
        /// The path that was asked for, without the chroot.
        path: String,
    },
    /// A multi was refused as a whole because of one of its operations.
    #[error("multi failed at operation {index} ({path}): error {wire}")]
    MultiRefused {
        /// The place of the operation, from 0.
        index: usize,
        /// The error on the wire.
        wire: i32,
        /// The path of the operation, without the chroot.
        path: String,
    },
    /// The reply is not what the protocol promises. The connection is given up.
    #[error("the server's reply breaks the protocol: {0}")]
    BadReply(String),
    /// The path is not one that ZooKeeper allows.
    #[error("invalid path {path:?}: {reason}")]
    InvalidPath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connect string cannot be read.
    #[error("invalid connect string {text:?}: {reason}")]
    InvalidConnectString {
        /// The string as given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The request does not fit a packet (`jute.maxbuffer`); it was not sent.
    #[error("a request of {bytes} bytes is above the limit of {limit} (jute.maxbuffer)")]
    RequestTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// No server could be reached within the time given.
    #[error("no server answered within {waited_ms} ms{}", last_failure.as_ref().map(|f| format!(" (last: {f})")).unwrap_or_default())]
    NotConnected {
        /// How long the caller waited.
        waited_ms: u64,
        /// What the last attempt ended with.
        last_failure: Option<String>,
    },
}

impl ClientError {
    /// The server's error code, if it is one that the server answered with.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            ClientError::MultiRefused { wire, .. } => ErrorCode::from_wire(*wire),
            _ => None,
        }
    }

    /// The error for a reply with code `wire` (not 0) about `path`.
    pub(super) fn refused(wire: i32, path: &str) -> ClientError {
        let path = path.to_owned();
        match ErrorCode::from_wire(wire) {
            Some(ErrorCode::SessionExpired) => ClientError::SessionExpired,
            Some(ErrorCode::AuthFailed) => ClientError::AuthFailed,
            Some(code) => ClientError::Refused { code, path },
            None => ClientError::RefusedUnknown { wire, path },
        }
    }
}
