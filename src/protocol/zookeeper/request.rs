//! Requests.

use super::acl::AclVector;
use super::op_code::OpCode;
use crate::protocol::jute::{Input, JuteError, Output};
use smallvec::SmallVec;
use thiserror::Error;

/// The xids with a meaning of their own.
#[allow(missing_docs)]
pub mod xid {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}

/// What precedes every request but the first: the client's number for it and the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Echoed in the reply; need not increase, may be negative.
    pub xid: i32,
    /// The operation code, known or not.
    pub op: i32,
}

impl RequestHeader {
    /// Reads the header.
    pub fn decode(input: &mut Input<'_>) -> Result<RequestHeader, JuteError> {
        Ok(RequestHeader { xid: input.i32()?, op: input.i32()? })
    }
}

/// Why a request record is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Badly formed: answered with MARSHALLINGERROR, the connection stays.
    #[error("malformed request: {0}")]
    Malformed(#[from] JuteError),
    /// Operation (or sub-operation) that this server does not answer: UNIMPLEMENTED, then the connection is closed.
    #[error("operation {0} is not implemented")]
    Unimplemented(i32),
}

/// The flags of a create (`CreateMode`), unchecked: what they mean, and which are refused, is decided by prep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateFlags(pub i32);

#[allow(missing_docs)]
impl CreateFlags {
    /// True for the kinds of nodes that end by themselves.
    pub fn is_ttl(self) -> bool {
        matches!(self, CreateFlags::PERSISTENT_TTL | CreateFlags::PERSISTENT_SEQUENTIAL_TTL)
    }

    pub const PERSISTENT: CreateFlags = CreateFlags(0);
    pub const EPHEMERAL: CreateFlags = CreateFlags(1);
    pub const PERSISTENT_SEQUENTIAL: CreateFlags = CreateFlags(2);
    pub const EPHEMERAL_SEQUENTIAL: CreateFlags = CreateFlags(3);
    pub const CONTAINER: CreateFlags = CreateFlags(4);
    pub const PERSISTENT_TTL: CreateFlags = CreateFlags(5);
    pub const PERSISTENT_SEQUENTIAL_TTL: CreateFlags = CreateFlags(6);
}

/// A create of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Create<'a> {
    pub path: &'a str,
    pub data: Option<&'a [u8]>,
    pub acl: AclVector<'a>,
    pub flags: CreateFlags,
    /// create2 and createTTL: the reply carries the Stat.
    pub with_stat: bool,
    /// createTTL: how long the node lives without being changed or having children, unchecked.
    pub ttl_ms: Option<i64>,
}

impl<'a> Create<'a> {
    fn decode(input: &mut Input<'a>, with_stat: bool) -> Result<Self, JuteError> {
        Ok(Create {
            path: path(input)?,
            data: input.buffer()?,
            acl: AclVector::decode(input)?,
            flags: CreateFlags(input.i32()?),
            with_stat,
            ttl_ms: None,
        })
    }

    fn decode_ttl(input: &mut Input<'a>) -> Result<Self, JuteError> {
        let create = Create::decode(input, true)?;
        Ok(Create { ttl_ms: Some(input.i64()?), ..create })
    }

    /// The operation that it travels under.
    fn op_code(&self) -> OpCode {
        match (self.ttl_ms, self.with_stat) {
            (Some(_), _) => OpCode::CreateTtl,
            (None, true) => OpCode::Create2,
            (None, false) => OpCode::Create,
        }
    }

    fn encode(&self, out: &mut Output<'_>) {
        out.string(self.path);
        out.buffer(self.data);
        self.acl.encode(out);
        out.i32(self.flags.0);
        self.ttl_ms.into_iter().for_each(|ttl_ms| out.i64(ttl_ms));
    }
}

/// A sub-operation of a multi or a multiRead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MultiOp<'a> {
    Create(Create<'a>),
    Delete { path: &'a str, version: i32 },
    SetData { path: &'a str, data: Option<&'a [u8]>, version: i32 },
    Check { path: &'a str, version: i32 },
    GetData { path: &'a str },
    GetChildren { path: &'a str },
}

impl<'a> MultiOp<'a> {
    /// The code that the sub-operation carries.
    pub fn op_code(&self) -> OpCode {
        match self {
            MultiOp::Create(create) => create.op_code(),
            MultiOp::Delete { .. } => OpCode::Delete,
            MultiOp::SetData { .. } => OpCode::SetData,
            MultiOp::Check { .. } => OpCode::Check,
            MultiOp::GetData { .. } => OpCode::GetData,
            MultiOp::GetChildren { .. } => OpCode::GetChildren,
        }
    }

    fn decode(op: i32, input: &mut Input<'a>) -> Result<Self, RequestError> {
        Ok(match OpCode::from_wire(op) {
            Some(OpCode::Create) => MultiOp::Create(Self::known_flags(Create::decode(input, false)?)?),
            Some(OpCode::Create2) => MultiOp::Create(Self::known_flags(Create::decode(input, true)?)?),
            Some(OpCode::CreateTtl) => MultiOp::Create(Self::with_ttl(Create::decode_ttl(input)?)),
            Some(OpCode::Delete) => MultiOp::Delete { path: path(input)?, version: input.i32()? },
            Some(OpCode::SetData) => {
                MultiOp::SetData { path: validated(input)?, data: input.buffer()?, version: input.i32()? }
            }
            Some(OpCode::Check) => MultiOp::Check { path: validated(input)?, version: input.i32()? },
            Some(OpCode::GetData) => {
                let path = path(input)?;
                input.bool()?;
                MultiOp::GetData { path }
            }
            Some(OpCode::GetChildren) => {
                let path = path(input)?;
                input.bool()?;
                MultiOp::GetChildren { path }
            }
            // createContainer inside a multi: legal in ZooKeeper, not built here yet.
            _ if op == 19 => return Err(RequestError::Unimplemented(op)),
            _ => return Err(JuteError::BadDiscriminant(op).into()),
        })
    }

    /// Inside a multi, ZooKeeper takes a createTTL of another kind of node for a plain create.
    fn with_ttl(create: Create<'a>) -> Create<'a> {
        if create.flags.is_ttl() { create } else { Create { with_stat: false, ttl_ms: None, ..create } }
    }

    /// Since 3.9 an unknown flag inside a multi fails the decoding of the whole packet.
    fn known_flags(create: Create<'a>) -> Result<Create<'a>, JuteError> {
        match create.flags.0 {
            0..=6 => Ok(create),
            unknown => Err(JuteError::BadDiscriminant(unknown)),
        }
    }

    fn encode(&self, out: &mut Output<'_>) {
        match self {
            MultiOp::Create(create) => create.encode(out),
            MultiOp::Delete { path, version } | MultiOp::Check { path, version } => {
                out.string(path);
                out.i32(*version);
            }
            MultiOp::SetData { path, data, version } => {
                out.string(path);
                out.buffer(*data);
                out.i32(*version);
            }
            MultiOp::GetData { path } | MultiOp::GetChildren { path } => {
                out.string(path);
                out.bool(false);
            }
        }
    }
}

/// Reads the sub-operations of a multi's record one by one, so that a long one need not be read at once. A copy looks ahead.
#[derive(Clone, Copy, Debug)]
pub struct MultiReader<'a> {
    record_bytes: usize,
    input: Input<'a>,
}

impl<'a> MultiReader<'a> {
    /// Reads from the beginning of `record`.
    pub fn new(record: &'a [u8]) -> MultiReader<'a> {
        MultiReader::at(record, 0)
    }

    /// Goes on at `offset`, which [`MultiReader::offset`] gave; beyond the end there is nothing.
    pub fn at(record: &'a [u8], offset: usize) -> MultiReader<'a> {
        let rest = record.get(offset..).unwrap_or_default();
        MultiReader { record_bytes: record.len(), input: Input::new(rest) }
    }

    /// Where the next sub-operation stands.
    pub fn offset(&self) -> usize {
        self.record_bytes - self.input.rest().len()
    }

    /// The next sub-operation; `None` after the header that says done.
    pub fn next_op(&mut self) -> Result<Option<MultiOp<'a>>, RequestError> {
        let input = &mut self.input;
        let (op, done) = (input.i32()?, input.bool()?);
        input.i32()?;
        if done { Ok(None) } else { MultiOp::decode(op, input).map(Some) }
    }
}

/// The sub-operations of a multi. Decoding stops at the frame's end, so their number is bounded by its length.
pub type MultiOps<'a> = SmallVec<[MultiOp<'a>; 4]>;

/// How an addWatch listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddWatchMode {
    /// Stays armed after it fired; sees the node and its children list.
    Persistent,
    /// Stays armed; sees the node and everything below it, but no children-changed events.
    PersistentRecursive,
}

impl AddWatchMode {
    fn from_wire(mode: i32) -> Result<Self, JuteError> {
        match mode {
            0 => Ok(AddWatchMode::Persistent),
            1 => Ok(AddWatchMode::PersistentRecursive),
            unknown => Err(JuteError::BadDiscriminant(unknown)),
        }
    }
}

/// Which registrations a checkWatches or removeWatches means (`Watcher.WatcherType`, with the two of 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(i32)]
pub enum WatcherType {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    PersistentRecursive = 5,
}

impl WatcherType {
    fn from_wire(kind: i32) -> Result<Self, JuteError> {
        use WatcherType::*;
        [Children, Data, Any, Persistent, PersistentRecursive]
            .into_iter()
            .find(|known| *known as i32 == kind)
            .ok_or(JuteError::BadDiscriminant(kind))
    }
}

/// A well-formed vector of non-null paths, still in its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StringVector<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> StringVector<'a> {
    /// Reads the vector; a null one, or a null in it, is malformed, as iterating it is in ZooKeeper.
    pub fn decode(input: &mut Input<'a>) -> Result<Self, JuteError> {
        let count = input.vector(4)?.ok_or(JuteError::Null)?;
        let start = input.rest();
        for _ in 0..count {
            path(input)?;
        }
        Ok(StringVector { count, bytes: &start[..start.len() - input.rest().len()] })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut input = Input::new(self.bytes);
        std::iter::from_fn(move || path(&mut input).ok())
    }
}

/// The watches that a client brings along after a reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SetWatches<'a> {
    pub relative_zxid: i64,
    pub data: StringVector<'a>,
    pub exist: StringVector<'a>,
    pub child: StringVector<'a>,
    pub persistent: StringVector<'a>,
    pub persistent_recursive: StringVector<'a>,
}

/// A request, borrowing from its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request<'a> {
    Create(Create<'a>),
    Delete { path: &'a str, version: i32 },
    Exists { path: &'a str, watch: bool },
    GetData { path: &'a str, watch: bool },
    SetData { path: &'a str, data: Option<&'a [u8]>, version: i32 },
    GetAcl { path: &'a str },
    SetAcl { path: &'a str, acl: AclVector<'a>, version: i32 },
    GetChildren { path: &'a str, watch: bool, with_stat: bool },
    Sync { path: &'a str },
    Ping,
    Multi(MultiOps<'a>),
    MultiRead(MultiOps<'a>),
    CheckWatches { path: &'a str, kind: WatcherType },
    RemoveWatches { path: &'a str, kind: WatcherType },
    Auth { scheme: &'a str, auth: &'a [u8] },
    Sasl { token: &'a [u8] },
    SetWatches(Box<SetWatches<'a>>),
    AddWatch { path: &'a str, mode: AddWatchMode },
    CloseSession,
}

/// What stands for every path that is not UTF-8.
///
/// Java puts U+FFFD for what it cannot decode, and no node may have that character in its name: writes of such a path are
/// refused, and reads find nothing.
const UNREADABLE_PATH: &str = "/\u{fffd}";

/// A path that must not be null.
fn path<'a>(input: &mut Input<'a>) -> Result<&'a str, JuteError> {
    optional_path(input)?.ok_or(JuteError::Null)
}

/// A path that validation will look at: a null one is refused there like an empty one, with BADARGUMENTS.
fn validated<'a>(input: &mut Input<'a>) -> Result<&'a str, JuteError> {
    Ok(optional_path(input)?.unwrap_or_default())
}

fn optional_path<'a>(input: &mut Input<'a>) -> Result<Option<&'a str>, JuteError> {
    match input.ustring() {
        Err(JuteError::NotUtf8) => Ok(Some(UNREADABLE_PATH)),
        result => result,
    }
}

impl<'a> Request<'a> {
    /// Reads the record of operation `op`. Bytes behind a well-formed record are ignored, as ZooKeeper does.
    pub fn decode(op: i32, body: &'a [u8]) -> Result<Request<'a>, RequestError> {
        let input = &mut Input::new(body);
        Ok(match OpCode::from_wire(op).ok_or(RequestError::Unimplemented(op))? {
            OpCode::Create => Request::Create(Create::decode(input, false)?),
            OpCode::Create2 => Request::Create(Create::decode(input, true)?),
            OpCode::CreateTtl => Request::Create(Create::decode_ttl(input)?),
            OpCode::Delete => Request::Delete { path: path(input)?, version: input.i32()? },
            OpCode::Exists => Request::Exists { path: path(input)?, watch: input.bool()? },
            OpCode::GetData => Request::GetData { path: path(input)?, watch: input.bool()? },
            OpCode::SetData => {
                Request::SetData { path: validated(input)?, data: input.buffer()?, version: input.i32()? }
            }
            OpCode::GetAcl => Request::GetAcl { path: path(input)? },
            OpCode::SetAcl => {
                Request::SetAcl { path: validated(input)?, acl: AclVector::decode(input)?, version: input.i32()? }
            }
            OpCode::GetChildren => Request::GetChildren { path: path(input)?, watch: input.bool()?, with_stat: false },
            OpCode::GetChildren2 => Request::GetChildren { path: path(input)?, watch: input.bool()?, with_stat: true },
            OpCode::Sync => Request::Sync { path: path(input)? },
            OpCode::Ping => Request::Ping,
            // A check on its own could corrupt state in old servers (ZOOKEEPER-2623); new ones do not know it.
            OpCode::Check => return Err(RequestError::Unimplemented(op)),
            OpCode::Multi => Request::Multi(Self::decode_multi(input, false)?),
            OpCode::MultiRead => Request::MultiRead(Self::decode_multi(input, true)?),
            OpCode::CheckWatches => {
                Request::CheckWatches { path: path(input)?, kind: WatcherType::from_wire(input.i32()?)? }
            }
            OpCode::RemoveWatches => {
                Request::RemoveWatches { path: path(input)?, kind: WatcherType::from_wire(input.i32()?)? }
            }
            OpCode::Auth => {
                input.i32()?;
                Request::Auth {
                    scheme: input.ustring()?.unwrap_or_default(),
                    auth: input.buffer()?.unwrap_or_default(),
                }
            }
            OpCode::Sasl => Request::Sasl { token: input.buffer()?.unwrap_or_default() },
            OpCode::SetWatches => Request::SetWatches(Self::decode_set_watches(input, false)?),
            OpCode::SetWatches2 => Request::SetWatches(Self::decode_set_watches(input, true)?),
            OpCode::AddWatch => Request::AddWatch { path: path(input)?, mode: AddWatchMode::from_wire(input.i32()?)? },
            OpCode::CloseSession => Request::CloseSession,
        })
    }

    fn decode_set_watches(input: &mut Input<'a>, with_persistent: bool) -> Result<Box<SetWatches<'a>>, JuteError> {
        Ok(Box::new(SetWatches {
            relative_zxid: input.i64()?,
            data: StringVector::decode(input)?,
            exist: StringVector::decode(input)?,
            child: StringVector::decode(input)?,
            persistent: if with_persistent { StringVector::decode(input)? } else { StringVector::default() },
            persistent_recursive: if with_persistent { StringVector::decode(input)? } else { StringVector::default() },
        }))
    }

    /// Sub-operations up to the header that says done. All must be of the packet's kind: reads or writes.
    fn decode_multi(input: &mut Input<'a>, reads: bool) -> Result<MultiOps<'a>, RequestError> {
        let mut ops = MultiOps::new();
        let mut reader = MultiReader::new(input.rest());
        while let Some(sub) = reader.next_op()? {
            if matches!(sub, MultiOp::GetData { .. } | MultiOp::GetChildren { .. }) != reads {
                return Err(JuteError::BadDiscriminant(sub.op_code().wire()).into());
            }
            ops.push(sub);
        }
        Ok(ops)
    }

    /// The operation code that this request travels under.
    pub fn op_code(&self) -> OpCode {
        match self {
            Request::Create(create) => create.op_code(),
            Request::Delete { .. } => OpCode::Delete,
            Request::Exists { .. } => OpCode::Exists,
            Request::GetData { .. } => OpCode::GetData,
            Request::SetData { .. } => OpCode::SetData,
            Request::GetAcl { .. } => OpCode::GetAcl,
            Request::SetAcl { .. } => OpCode::SetAcl,
            Request::GetChildren { with_stat: false, .. } => OpCode::GetChildren,
            Request::GetChildren { with_stat: true, .. } => OpCode::GetChildren2,
            Request::Sync { .. } => OpCode::Sync,
            Request::Ping => OpCode::Ping,
            Request::Multi(_) => OpCode::Multi,
            Request::MultiRead(_) => OpCode::MultiRead,
            Request::CheckWatches { .. } => OpCode::CheckWatches,
            Request::RemoveWatches { .. } => OpCode::RemoveWatches,
            Request::Auth { .. } => OpCode::Auth,
            Request::Sasl { .. } => OpCode::Sasl,
            Request::SetWatches(_) => OpCode::SetWatches2,
            Request::AddWatch { .. } => OpCode::AddWatch,
            Request::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends the whole frame. SetWatches always travels in its second form.
    pub fn encode_frame(&self, xid: i32, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| {
            out.i32(xid);
            out.i32(self.op_code().wire());
            self.encode(out);
        });
    }

    fn encode(&self, out: &mut Output<'_>) {
        match self {
            Request::Create(create) => create.encode(out),
            Request::Delete { path, version } => {
                out.string(path);
                out.i32(*version);
            }
            Request::Exists { path, watch }
            | Request::GetData { path, watch }
            | Request::GetChildren { path, watch, .. } => {
                out.string(path);
                out.bool(*watch);
            }
            Request::SetData { path, data, version } => {
                out.string(path);
                out.buffer(*data);
                out.i32(*version);
            }
            Request::GetAcl { path } | Request::Sync { path } => out.string(path),
            Request::SetAcl { path, acl, version } => {
                out.string(path);
                acl.encode(out);
                out.i32(*version);
            }
            Request::Ping | Request::CloseSession => {}
            Request::Multi(ops) | Request::MultiRead(ops) => Self::encode_multi(ops, out),
            Request::CheckWatches { path, kind } | Request::RemoveWatches { path, kind } => {
                out.string(path);
                out.i32(*kind as i32);
            }
            Request::Auth { scheme, auth } => {
                out.i32(0);
                out.string(scheme);
                out.buffer(Some(auth));
            }
            Request::Sasl { token } => out.buffer(Some(token)),
            Request::SetWatches(watches) => {
                out.i64(watches.relative_zxid);
                for list in
                    [watches.data, watches.exist, watches.child, watches.persistent, watches.persistent_recursive]
                {
                    out.len(list.count);
                    out.raw(list.bytes);
                }
            }
            Request::AddWatch { path, mode } => {
                out.string(path);
                out.i32(matches!(mode, AddWatchMode::PersistentRecursive) as i32);
            }
        }
    }

    fn encode_multi(ops: &MultiOps<'_>, out: &mut Output<'_>) {
        for op in ops {
            out.i32(op.op_code().wire());
            out.bool(false);
            out.i32(-1);
            op.encode(out);
        }
        out.i32(-1);
        out.bool(true);
        out.i32(-1);
    }
}

impl<'a> StringVector<'a> {
    /// The strings in the form that `scratch` holds: what a client sends.
    pub fn from_strings<'s>(strings: impl IntoIterator<Item = &'s str>, scratch: &'a mut Vec<u8>) -> StringVector<'a> {
        scratch.clear();
        let mut count = 0;
        for string in strings {
            Output::new(scratch).string(string);
            count += 1;
        }
        StringVector { count, bytes: scratch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Java puts U+FFFD for what is not UTF-8 and goes on: a write is then refused for its path, and a read finds no node. Ours
    /// answered that the request cannot be read.
    #[test]
    fn path_that_is_no_utf8_makes_the_request_unreadable() {
        for bytes in [&b"/\xe9"[..], b"/\xed\xa0\x80", b"\xff", b"/a\xc3"] {
            let mut body = Vec::new();
            let mut out = Output::new(&mut body);
            out.buffer(Some(bytes));
            out.i32(-1); // delete, check: any version; reads: a watch
            for op in
                [OpCode::Delete, OpCode::Exists, OpCode::GetData, OpCode::GetChildren, OpCode::GetAcl, OpCode::Sync]
            {
                let request = Request::decode(op.wire(), &body).unwrap();
                let mut frame = Vec::new();
                request.encode_frame(0, &mut frame);
                let shown = format!("{request:?}");
                assert!(shown.contains(UNREADABLE_PATH), "{op:?} {bytes:?}: {shown}");
            }
            assert_eq!(
                MultiOp::decode(OpCode::Check.wire(), &mut Input::new(&body)).unwrap(),
                MultiOp::Check { path: UNREADABLE_PATH, version: -1 }
            );
        }
    }

    /// ZooKeeper reads a null path and leaves it to the validation of writes, which says BADARGUMENTS, where ours called the
    /// whole request unreadable. One operation was forgotten when the others were mended, so all of them stand here.
    #[test]
    fn null_paths_of_validated_writes_are_read_as_empty_ones() {
        let mut body = Vec::new();
        let mut out = Output::new(&mut body);
        out.i32(-1); // the path
        out.i32(-1); // setData: no data; setACL: no list
        out.i32(-1); // any version
        let path = |op: OpCode| match Request::decode(op.wire(), &body) {
            Ok(Request::SetData { path, .. } | Request::SetAcl { path, .. }) => path.to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!([path(OpCode::SetData), path(OpCode::SetAcl)], ["", ""]);
        for op in [OpCode::GetData, OpCode::Exists, OpCode::Delete] {
            let read = Request::decode(op.wire(), &body);
            assert!(matches!(read, Err(RequestError::Malformed(JuteError::Null))), "{op:?}: {read:?}");
        }
    }
}
