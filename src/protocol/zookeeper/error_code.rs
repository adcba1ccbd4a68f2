//! Error codes.

/// The error of a reply header (`KeeperException.Code`). Clients throw on codes they do not know, so none is invented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum ErrorCode {
    Ok = 0,
    SystemError = -1,
    RuntimeInconsistency = -2,
    MarshallingError = -5,
    Unimplemented = -6,
    OperationTimeout = -7,
    BadArguments = -8,
    NoNode = -101,
    NoAuth = -102,
    BadVersion = -103,
    NoChildrenForEphemerals = -108,
    NodeExists = -110,
    NotEmpty = -111,
    SessionExpired = -112,
    InvalidAcl = -114,
    AuthFailed = -115,
    SessionMoved = -118,
    NoWatcher = -121,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn wire(self) -> i32 {
        self as i32
    }

    /// The error with this code, if the server uses it.
    pub fn from_wire(code: i32) -> Option<ErrorCode> {
        use ErrorCode::*;
        [
            Ok,
            SystemError,
            RuntimeInconsistency,
            MarshallingError,
            Unimplemented,
            OperationTimeout,
            BadArguments,
            NoNode,
            NoAuth,
            BadVersion,
            NoChildrenForEphemerals,
            NodeExists,
            NotEmpty,
            SessionExpired,
            InvalidAcl,
            AuthFailed,
            SessionMoved,
            NoWatcher,
        ]
        .into_iter()
        .find(|known| known.wire() == code)
    }
}
