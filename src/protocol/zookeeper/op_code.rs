//! Operation codes.

/// The operation of a request (`ZooDefs.OpCode`). Only the codes that this server answers; every other code is answered
/// with UNIMPLEMENTED and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum OpCode {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetAcl = 6,
    SetAcl = 7,
    GetChildren = 8,
    Sync = 9,
    Ping = 11,
    GetChildren2 = 12,
    Check = 13,
    Multi = 14,
    Create2 = 15,
    CheckWatches = 17,
    RemoveWatches = 18,
    CreateTtl = 21,
    MultiRead = 22,
    Auth = 100,
    SetWatches = 101,
    Sasl = 102,
    SetWatches2 = 105,
    AddWatch = 106,
    CloseSession = -11,
}

impl OpCode {
    /// The operation with this code, if this server answers it.
    pub fn from_wire(code: i32) -> Option<OpCode> {
        use OpCode::*;
        Some(match code {
            1 => Create,
            2 => Delete,
            3 => Exists,
            4 => GetData,
            5 => SetData,
            6 => GetAcl,
            7 => SetAcl,
            8 => GetChildren,
            9 => Sync,
            11 => Ping,
            12 => GetChildren2,
            13 => Check,
            14 => Multi,
            15 => Create2,
            17 => CheckWatches,
            18 => RemoveWatches,
            21 => CreateTtl,
            22 => MultiRead,
            100 => Auth,
            101 => SetWatches,
            102 => Sasl,
            105 => SetWatches2,
            106 => AddWatch,
            -11 => CloseSession,
            _ => return None,
        })
    }

    /// The code on the wire.
    pub fn wire(self) -> i32 {
        self as i32
    }

    /// True when the operation goes through agreement: it is ordered by the sequencer and answered from the commit stream.
    pub fn needs_agreement(self) -> bool {
        use OpCode::*;
        matches!(self, Create | Create2 | CreateTtl | Delete | SetData | SetAcl | Multi | Sync | CloseSession)
    }
}
