//! Requests that a client could send.

use arbitrary::{Arbitrary, Result, Unstructured};
use ringkeeper::protocol::jute::{Input, Output};
use ringkeeper::protocol::zookeeper::{
    AclVector, AddWatchMode, ConnectRequest, Create, CreateFlags, MultiOp, OpCode, Request, SetWatches, StringVector,
    WatcherType,
};

/// Paths that meet one another, and some that are refused.
const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/b",
    "/seq-",
    "",
    "a",
    "/a/",
    "//",
    "/a//b",
    "/zookeeper",
    "/.",
    "/\0",
    "/caf\u{e9}",
    "/\u{1}",
];

/// A path: a familiar one, or any string.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a>(pub &'a str);

impl<'a> Arbitrary<'a> for Path<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        match u.arbitrary::<u8>()? {
            byte if usize::from(byte) < PATHS.len() * 12 => Ok(Path(PATHS[usize::from(byte) % PATHS.len()])),
            _ => u.arbitrary().map(Path),
        }
    }
}

/// An access list as it travels: count and entries.
#[derive(Clone, Debug)]
pub struct AclBytes(Vec<u8>);

impl<'a> Arbitrary<'a> for AclBytes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let identities = [("world", "anyone"), ("auth", ""), ("digest", "u:x"), ("ip", "127.0.0.1/8"), ("super", "")];
        let mut bytes = Vec::new();
        let mut out = Output::new(&mut bytes);
        let count = u.int_in_range(0..=4u8)?;
        out.len(count.into());
        for _ in 0..count {
            out.i32(u.arbitrary()?);
            match u.int_in_range(0..=7u8)? {
                // A null is read as the empty string, and kept as a null.
                6 => (out.buffer(None), out.buffer(None)),
                7 => (out.string(u.arbitrary()?), out.string(u.arbitrary()?)),
                known => {
                    let (scheme, id) = identities[usize::from(known) % identities.len()];
                    (out.string(scheme), out.string(id))
                }
            };
        }
        Ok(AclBytes(bytes))
    }
}

impl AclBytes {
    /// As a request holds it.
    pub fn vector(&self) -> AclVector<'_> {
        AclVector::decode(&mut Input::new(&self.0)).expect("a list that was encoded")
    }
}

/// A vector of strings as it travels.
#[derive(Clone, Debug)]
pub struct StringsBytes(Vec<u8>);

impl<'a> Arbitrary<'a> for StringsBytes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let paths: Vec<Path<'a>> = u.arbitrary()?;
        let mut bytes = Vec::new();
        let mut out = Output::new(&mut bytes);
        out.len(paths.len());
        paths.iter().for_each(|path| out.string(path.0));
        Ok(StringsBytes(bytes))
    }
}

impl StringsBytes {
    fn vector(&self) -> StringVector<'_> {
        StringVector::decode(&mut Input::new(&self.0)).expect("strings that were encoded")
    }
}

/// A create of any kind.
#[derive(Arbitrary, Clone, Debug)]
pub struct AnyCreate<'a> {
    path: Path<'a>,
    data: Option<&'a [u8]>,
    acl: AclBytes,
    flags: i8,
    with_stat: bool,
    ttl_ms: Option<i64>,
}

impl AnyCreate<'_> {
    fn create(&self, flags: i32) -> Create<'_> {
        let (path, acl) = (self.path.0, self.acl.vector());
        // createTTL always answers with the Stat.
        let with_stat = self.with_stat || self.ttl_ms.is_some();
        Create { path, data: self.data, acl, flags: CreateFlags(flags), with_stat, ttl_ms: self.ttl_ms }
    }

    /// Inside a multi, unknown flags are malformed, and a createTTL of another kind of node is read as a plain create.
    fn create_in_multi(&self) -> Create<'_> {
        let create = self.create(i32::from(self.flags).rem_euclid(7));
        if create.flags.is_ttl() { create } else { Create { ttl_ms: None, ..create } }
    }
}

/// A sub-operation that writes.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Debug)]
pub enum AnyWriteOp<'a> {
    Create(AnyCreate<'a>),
    Delete { path: Path<'a>, version: i32 },
    SetData { path: Path<'a>, data: Option<&'a [u8]>, version: i32 },
    Check { path: Path<'a>, version: i32 },
}

impl AnyWriteOp<'_> {
    fn op(&self) -> MultiOp<'_> {
        match self {
            AnyWriteOp::Create(create) => MultiOp::Create(create.create_in_multi()),
            AnyWriteOp::Delete { path, version } => MultiOp::Delete { path: path.0, version: *version },
            AnyWriteOp::SetData { path, data, version } => {
                MultiOp::SetData { path: path.0, data: *data, version: *version }
            }
            AnyWriteOp::Check { path, version } => MultiOp::Check { path: path.0, version: *version },
        }
    }
}

/// A request of any kind.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Debug)]
pub enum AnyRequest<'a> {
    Create(AnyCreate<'a>),
    Delete { path: Path<'a>, version: i32 },
    Exists { path: Path<'a>, watch: bool },
    GetData { path: Path<'a>, watch: bool },
    SetData { path: Path<'a>, data: Option<&'a [u8]>, version: i32 },
    GetAcl { path: Path<'a> },
    SetAcl { path: Path<'a>, acl: AclBytes, version: i32 },
    GetChildren { path: Path<'a>, watch: bool, with_stat: bool },
    Sync { path: Path<'a> },
    Ping,
    Multi(Vec<AnyWriteOp<'a>>),
    MultiRead(Vec<(bool, Path<'a>)>),
    CheckWatches { path: Path<'a>, kind: u8 },
    RemoveWatches { path: Path<'a>, kind: u8 },
    Auth { scheme: AnyScheme<'a>, auth: &'a [u8] },
    SetWatches { relative_zxid: i64, lists: [StringsBytes; 5] },
    AddWatch { path: Path<'a>, recursive: bool },
    CloseSession,
}

/// A scheme: a known one, or any string.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum AnyScheme<'a> {
    Digest,
    Ip,
    World,
    Other(&'a str),
}

impl<'a> AnyScheme<'a> {
    fn name(self) -> &'a str {
        match self {
            AnyScheme::Digest => "digest",
            AnyScheme::Ip => "ip",
            AnyScheme::World => "world",
            AnyScheme::Other(name) => name,
        }
    }
}

fn watcher_type(kind: u8) -> WatcherType {
    use WatcherType::*;
    [Children, Data, Any, Persistent, PersistentRecursive][usize::from(kind) % 5]
}

impl AnyRequest<'_> {
    /// The request, borrowing from this description.
    pub fn request(&self) -> Request<'_> {
        match self {
            AnyRequest::Create(create) => Request::Create(create.create(create.flags.into())),
            AnyRequest::Delete { path, version } => Request::Delete { path: path.0, version: *version },
            AnyRequest::Exists { path, watch } => Request::Exists { path: path.0, watch: *watch },
            AnyRequest::GetData { path, watch } => Request::GetData { path: path.0, watch: *watch },
            AnyRequest::SetData { path, data, version } => {
                Request::SetData { path: path.0, data: *data, version: *version }
            }
            AnyRequest::GetAcl { path } => Request::GetAcl { path: path.0 },
            AnyRequest::SetAcl { path, acl, version } => {
                Request::SetAcl { path: path.0, acl: acl.vector(), version: *version }
            }
            AnyRequest::GetChildren { path, watch, with_stat } => {
                Request::GetChildren { path: path.0, watch: *watch, with_stat: *with_stat }
            }
            AnyRequest::Sync { path } => Request::Sync { path: path.0 },
            AnyRequest::Ping => Request::Ping,
            AnyRequest::Multi(ops) => Request::Multi(ops.iter().map(AnyWriteOp::op).collect()),
            AnyRequest::MultiRead(ops) => Request::MultiRead(ops.iter().map(read_op).collect()),
            AnyRequest::CheckWatches { path, kind } => {
                Request::CheckWatches { path: path.0, kind: watcher_type(*kind) }
            }
            AnyRequest::RemoveWatches { path, kind } => {
                Request::RemoveWatches { path: path.0, kind: watcher_type(*kind) }
            }
            AnyRequest::Auth { scheme, auth } => Request::Auth { scheme: scheme.name(), auth },
            AnyRequest::SetWatches { relative_zxid, lists } => set_watches(*relative_zxid, lists),
            AnyRequest::AddWatch { path, recursive } => {
                let mode = if *recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent };
                Request::AddWatch { path: path.0, mode }
            }
            AnyRequest::CloseSession => Request::CloseSession,
        }
    }
}

fn read_op<'a>((children, path): &(bool, Path<'a>)) -> MultiOp<'a> {
    if *children { MultiOp::GetChildren { path: path.0 } } else { MultiOp::GetData { path: path.0 } }
}

fn set_watches(relative_zxid: i64, lists: &[StringsBytes; 5]) -> Request<'_> {
    let [data, exist, child, persistent, persistent_recursive] = lists.each_ref().map(StringsBytes::vector);
    Request::SetWatches(Box::new(SetWatches { relative_zxid, data, exist, child, persistent, persistent_recursive }))
}

/// A handshake.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct AnyConnect<'a> {
    protocol_version: i32,
    last_zxid_seen: i64,
    timeout_ms: i32,
    session_id: i64,
    password: &'a [u8],
    read_only: Option<bool>,
}

impl<'a> AnyConnect<'a> {
    /// As the client sends it.
    pub fn request(&self) -> ConnectRequest<'a> {
        let AnyConnect { protocol_version, last_zxid_seen, timeout_ms, session_id, password, read_only } = *self;
        ConnectRequest { protocol_version, last_zxid_seen, timeout_ms, session_id, password, read_only }
    }
}

/// An operation code: mostly one that the server knows.
#[derive(Clone, Copy, Debug)]
pub struct AnyOpCode(pub i32);

impl<'a> Arbitrary<'a> for AnyOpCode {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        use OpCode::*;
        let known = [
            Create,
            Delete,
            Exists,
            GetData,
            SetData,
            GetAcl,
            SetAcl,
            GetChildren,
            Sync,
            Ping,
            GetChildren2,
            Check,
            Multi,
            Create2,
            CheckWatches,
            RemoveWatches,
            MultiRead,
            Auth,
            SetWatches,
            SetWatches2,
            AddWatch,
            CloseSession,
        ];
        match u.arbitrary::<u8>()? {
            byte if usize::from(byte) < known.len() * 10 => {
                Ok(AnyOpCode(known[usize::from(byte) % known.len()].wire()))
            }
            _ => u.arbitrary().map(AnyOpCode),
        }
    }
}
