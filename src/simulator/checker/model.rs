//! The one-copy model: what a standalone ZooKeeper 3.9 holds and answers, as naively as it can be written.
//!
//! One `BTreeMap`, one transaction at a time, everything computed from scratch. It is written from ZooKeeper's
//! behaviour and shares nothing with the server but the wire types: where the two disagree, one is wrong.

use super::access;
use crate::base::{SessionId, Zxid};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, ErrorCode, EventType, Id, MultiOp, MultiResult, Reply, Request, Stat,
    permission,
};
use std::collections::BTreeMap;

/// A znode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelNode {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<Acl>,
    pub czxid: i64,
    pub mzxid: i64,
    pub pzxid: i64,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    /// How many children were ever created here: the next sequence number.
    pub creates: i32,
    pub aversion: i32,
    pub ephemeral_owner: SessionId,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The session.
    pub session: SessionId,
    /// Whom its connection had proved to be.
    pub identities: &'a [Id],
}

/// An answer: header error and body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelReply {
    pub error: i32,
    pub body: Vec<u8>,
}

impl ModelReply {
    /// Success with `reply`.
    pub fn ok(reply: &Reply<'_>) -> ModelReply {
        let mut body = Vec::new();
        reply.encode(&mut Output::new(&mut body));
        ModelReply { error: 0, body }
    }

    /// `error` without a body.
    pub fn error(error: ErrorCode) -> ModelReply {
        ModelReply { error: error.wire(), body: Vec::new() }
    }
}

/// Something that watches may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEvent {
    /// What happened.
    pub kind: EventType,
    /// Where.
    pub path: String,
    /// Who may read this list may see the event.
    pub acl: Vec<Acl>,
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelOutcome {
    pub reply: ModelReply,
    /// In order of the sub-operations; of each, the node before its parent.
    pub events: Vec<ModelEvent>,
}

/// The state of the world after one transaction.
#[derive(Clone, Debug)]
pub struct Model {
    /// Every znode by path.
    pub nodes: BTreeMap<String, ModelNode>,
    /// Every session with its timeout in milliseconds.
    pub sessions: BTreeMap<SessionId, u32>,
}

enum SubResult {
    Path(String),
    PathAndStat(String, Stat),
    Stat(Stat),
    Nothing,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A fresh server.
    pub fn new() -> Model {
        let plain = ModelNode {
            data: Some(Vec::new()),
            acl: vec![Acl::open()],
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime_ms: 0,
            mtime_ms: 0,
            version: 0,
            creates: 0,
            aversion: 0,
            ephemeral_owner: SessionId::NONE,
        };
        let read_only = vec![Acl { perms: permission::READ, ..Acl::open() }];
        let config = ModelNode { acl: read_only, aversion: -1, ..plain.clone() };
        let nodes = [
            ("/", plain.clone()),
            ("/zookeeper", plain.clone()),
            ("/zookeeper/quota", plain),
            ("/zookeeper/config", config),
        ];
        Model {
            nodes: nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect(),
            sessions: BTreeMap::new(),
        }
    }

    /// The node at `path`; the empty path is an alias of the root.
    pub fn node(&self, path: &str) -> Option<&ModelNode> {
        self.nodes.get(if path.is_empty() { "/" } else { path })
    }

    /// The names of the children of `path`, sorted.
    pub fn children(&self, path: &str) -> Vec<&str> {
        let prefix = if path.is_empty() || path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below = self.nodes.range(prefix.clone()..).take_while(|(other, _)| other.starts_with(&prefix));
        below.map(|(other, _)| &other[prefix.len()..]).filter(|name| !name.is_empty() && !name.contains('/')).collect()
    }

    /// What clients see of the node at `path`, which exists.
    pub fn stat(&self, path: &str) -> Stat {
        let node = self.node(path).expect("the caller looked");
        let num_children = self.children(path).len() as i32;
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime_ms: node.ctime_ms,
            mtime_ms: node.mtime_ms,
            version: node.version,
            cversion: node.creates.wrapping_mul(2).wrapping_sub(num_children),
            aversion: node.aversion,
            ephemeral_owner: node.ephemeral_owner.0,
            data_length: node.data.as_ref().map_or(0, |data| data.len() as i32),
            num_children,
            pzxid: node.pzxid,
        }
    }

    /// Carries out a write as transaction `zxid`. Whoever orders it has checked that its session exists.
    pub fn apply_write(&mut self, zxid: Zxid, time_ms: i64, actor: Actor<'_>, request: &Request<'_>) -> ModelOutcome {
        let mut writer = Writer { model: self, zxid: zxid.wire(), time_ms, actor, events: Vec::new() };
        let result = match request {
            Request::Multi(ops) => return writer.multi(ops),
            Request::Create(create) => writer.create(create),
            Request::Delete { path, version } => writer.delete(path, *version),
            Request::SetData { path, data, version } => writer.set_data(path, *data, *version),
            Request::SetAcl { path, acl, version } => writer.set_acl(path, acl, *version),
            other => panic!("{other:?} is not a write of the tree"),
        };
        let reply = match &result {
            Ok(SubResult::Path(path)) => ModelReply::ok(&Reply::Path(path)),
            Ok(SubResult::PathAndStat(path, stat)) => ModelReply::ok(&Reply::PathAndStat(path, *stat)),
            Ok(SubResult::Stat(stat)) => ModelReply::ok(&Reply::Stat(*stat)),
            Ok(SubResult::Nothing) => ModelReply::ok(&Reply::Empty),
            Err(error) => ModelReply::error(*error),
        };
        ModelOutcome { reply, events: writer.events }
    }

    /// Ends `session` as transaction `zxid`: its ephemerals go, in order of their paths.
    pub fn close_session(&mut self, zxid: Zxid, session: SessionId) -> Vec<ModelEvent> {
        self.sessions.remove(&session);
        let owned = self.nodes.iter().filter(|(_, node)| node.ephemeral_owner == session);
        let paths: Vec<String> = owned.map(|(path, _)| path.clone()).collect();
        let actor = Actor { session, identities: &[] };
        let mut writer = Writer { model: self, zxid: zxid.wire(), time_ms: 0, actor, events: Vec::new() };
        for path in paths {
            writer.remove(&path);
        }
        writer.events
    }
}

/// The parent of `path`, which contains a slash: everything before the last one.
fn parent_of(path: &str) -> &str {
    &path[..path.rfind('/').unwrap_or(0)]
}

fn key(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// What `PathUtils.validatePath` accepts.
pub fn is_valid_path(path: &str) -> bool {
    // ZooKeeper forbids U+D800 to U+F8FF; the surrogates among them are no `char`.
    let bad = |c: char| matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if path == "/" {
        return true;
    }
    path.starts_with('/')
        && !path.contains(bad)
        && path[1..].split('/').all(|component| !component.is_empty() && component != "." && component != "..")
}

fn is_special(path: &str) -> bool {
    ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(&path)
}

struct Writer<'m, 'a> {
    model: &'m mut Model,
    zxid: i64,
    time_ms: i64,
    actor: Actor<'a>,
    events: Vec<ModelEvent>,
}

impl Writer<'_, '_> {
    fn require(&self, path: &str, permission: i32) -> Result<(), ErrorCode> {
        let node = self.model.node(path).ok_or(ErrorCode::NoNode)?;
        match access::allows(&node.acl, permission, self.actor.identities) {
            true => Ok(()),
            false => Err(ErrorCode::NoAuth),
        }
    }

    fn event(&mut self, kind: EventType, path: &str) {
        let acl = self.model.node(path).map(|node| node.acl.clone()).unwrap_or_default();
        self.events.push(ModelEvent { kind, path: path.to_owned(), acl });
    }

    fn create(&mut self, create: &Create<'_>) -> Result<SubResult, ErrorCode> {
        if !(0..=6).contains(&create.flags.0) {
            return Err(ErrorCode::BadArguments);
        }
        if matches!(create.flags, CreateFlags::PERSISTENT_TTL | CreateFlags::PERSISTENT_SEQUENTIAL_TTL) {
            return Err(ErrorCode::Unimplemented);
        }
        let sequential = matches!(create.flags, CreateFlags::PERSISTENT_SEQUENTIAL | CreateFlags::EPHEMERAL_SEQUENTIAL);
        let ephemeral = matches!(create.flags, CreateFlags::EPHEMERAL | CreateFlags::EPHEMERAL_SEQUENTIAL);
        if !create.path.contains('/') || create.path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let acl = access::fix_acl(&create.acl, self.actor.identities)?;
        let parent_path = key(parent_of(create.path)).to_owned();
        self.require(&parent_path, permission::CREATE)?;
        let parent = &self.model.nodes[&parent_path];
        let path = match sequential {
            true => format!("{}{:010}", create.path, parent.creates),
            false => create.path.to_owned(),
        };
        if !is_valid_path(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.model.nodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if parent.ephemeral_owner != SessionId::NONE {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let owner = if ephemeral { self.actor.session } else { SessionId::NONE };
        self.insert(&path, &parent_path, create.data, acl, owner);
        Ok(match create.with_stat {
            true => SubResult::PathAndStat(path.clone(), self.model.stat(&path)),
            false => SubResult::Path(path),
        })
    }

    fn insert(&mut self, path: &str, parent: &str, data: Option<&[u8]>, acl: Vec<Acl>, ephemeral_owner: SessionId) {
        let node = ModelNode {
            data: data.map(<[u8]>::to_vec),
            acl,
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime_ms: self.time_ms,
            mtime_ms: self.time_ms,
            version: 0,
            creates: 0,
            aversion: 0,
            ephemeral_owner,
        };
        self.model.nodes.insert(path.to_owned(), node);
        let above = self.model.nodes.get_mut(parent).expect("the parent was looked up");
        above.creates = above.creates.wrapping_add(1);
        above.pzxid = self.zxid;
        self.event(EventType::NodeCreated, path);
        self.event(EventType::NodeChildrenChanged, parent);
    }

    fn delete(&mut self, path: &str, version: i32) -> Result<SubResult, ErrorCode> {
        if !path.contains('/') || path.contains('\0') || is_special(path) {
            return Err(ErrorCode::BadArguments);
        }
        self.require(key(parent_of(path)), permission::DELETE)?;
        let node = self.model.nodes.get(path).ok_or(ErrorCode::NoNode)?;
        check_version(node.version, version)?;
        if !self.model.children(path).is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        self.remove(path);
        Ok(SubResult::Nothing)
    }

    fn remove(&mut self, path: &str) {
        let parent = key(parent_of(path)).to_owned();
        self.event(EventType::NodeDeleted, path);
        self.model.nodes.remove(path);
        if let Some(above) = self.model.nodes.get_mut(&parent) {
            above.pzxid = self.zxid;
        }
        self.event(EventType::NodeChildrenChanged, &parent);
    }

    fn set_data(&mut self, path: &str, data: Option<&[u8]>, version: i32) -> Result<SubResult, ErrorCode> {
        if !is_valid_path(path) {
            return Err(ErrorCode::BadArguments);
        }
        self.require(path, permission::WRITE)?;
        let node = self.model.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        check_version(node.version, version)?;
        node.version = node.version.wrapping_add(1);
        node.mzxid = self.zxid;
        node.mtime_ms = self.time_ms;
        node.data = data.map(<[u8]>::to_vec);
        self.event(EventType::NodeDataChanged, path);
        Ok(SubResult::Stat(self.model.stat(path)))
    }

    fn set_acl(&mut self, path: &str, acl: &AclVector<'_>, version: i32) -> Result<SubResult, ErrorCode> {
        if !is_valid_path(path) {
            return Err(ErrorCode::BadArguments);
        }
        let acl = access::fix_acl(acl, self.actor.identities)?;
        self.require(path, permission::ADMIN)?;
        let node = self.model.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        check_version(node.aversion, version)?;
        node.aversion = node.aversion.wrapping_add(1);
        node.acl = acl;
        Ok(SubResult::Stat(self.model.stat(path)))
    }

    fn check(&mut self, path: &str, version: i32) -> Result<SubResult, ErrorCode> {
        if !is_valid_path(path) {
            return Err(ErrorCode::BadArguments);
        }
        self.require(path, permission::READ)?;
        check_version(self.model.node(path).ok_or(ErrorCode::NoNode)?.version, version)?;
        Ok(SubResult::Nothing)
    }

    /// All or nothing; a failed one answers with a code for each sub-operation and header error 0.
    fn multi(&mut self, ops: &[MultiOp<'_>]) -> ModelOutcome {
        let before = self.model.nodes.clone();
        let mut results = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let result = match op {
                MultiOp::Create(create) => self.create(create),
                MultiOp::Delete { path, version } => self.delete(path, *version),
                MultiOp::SetData { path, data, version } => self.set_data(path, *data, *version),
                MultiOp::Check { path, version } => self.check(path, *version),
                MultiOp::GetData { .. } | MultiOp::GetChildren { .. } => Err(ErrorCode::MarshallingError),
            };
            match result {
                Ok(result) => results.push((op, result)),
                Err(error) => {
                    self.model.nodes = before;
                    let code = |place: usize| match place.cmp(&index) {
                        std::cmp::Ordering::Less => 0,
                        std::cmp::Ordering::Equal => error.wire(),
                        std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency.wire(),
                    };
                    let slots = (0..ops.len()).map(|place| MultiResult::Error(code(place))).collect();
                    return ModelOutcome { reply: ModelReply::ok(&Reply::Multi(slots)), events: Vec::new() };
                }
            }
        }
        let slots = results.iter().map(|(op, result)| match (op, result) {
            (_, SubResult::Path(path)) => MultiResult::Create { path },
            (_, SubResult::PathAndStat(path, stat)) => MultiResult::Create2 { path, stat: *stat },
            (_, SubResult::Stat(stat)) => MultiResult::SetData { stat: *stat },
            (MultiOp::Delete { .. }, SubResult::Nothing) => MultiResult::Delete,
            (_, SubResult::Nothing) => MultiResult::Check,
        });
        let reply = ModelReply::ok(&Reply::Multi(slots.collect()));
        ModelOutcome { reply, events: std::mem::take(&mut self.events) }
    }
}

fn check_version(current: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == current { Ok(()) } else { Err(ErrorCode::BadVersion) }
}
