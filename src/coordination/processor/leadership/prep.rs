//! Prep: turns a request into results.
//!
//! A request is validated against the records as the last proposal leaves them: what the sequencer knows, and the outstanding
//! changes above all, over what the owner shards answer. Each method here does one step: one operation, one part of a multi, or one
//! ephemeral node of a session that ends. A step that misses a record has changed nothing, and is taken again when the record has
//! been looked up (rule B7). The steps of one request work on an overlay of their own (rule B10).
//!
//! Everything that could make applying fail is refused here, before anything is logged. The order of the checks is
//! ZooKeeper's (`PrepRequestProcessor.pRequest2Txn`).

use super::known_records::KnownRecords;
use super::own_changes::OwnChanges;
use crate::base::{SessionId, Zxid, planted};
use crate::coordination::auth::AuthConfig;
use crate::coordination::processor::message::LookupKey;
use crate::coordination::processor::txn::TxnWriter;
use crate::coordination::tree::{AclList, NodeImage, NodeStat, path};
use crate::protocol::zookeeper::{Acl, AclVector, Create, CreateFlags, ErrorCode, Id, MultiOp, Request, permission};
use ahash::AHashMap;
use std::sync::Arc;

/// Where records come from that the sequencer does not know.
pub trait RecordSource {
    /// The node at `path` as its owner has it, `Ok(None)` when it does not exist; an error when it must be looked up first.
    fn node(&self, path: &str) -> Result<Option<NodeImage>, Missing>;

    /// The ephemeral nodes of `session` on every shard.
    fn ephemerals(&self, session: SessionId) -> Result<Vec<Box<str>>, Missing>;
}

/// A record that is not here: look it up and take the step again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<LookupKey>);

/// Why validation stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The request is refused.
    Refused(ErrorCode),
    /// Records must be looked up first.
    Missing(Vec<LookupKey>),
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Stop {
        Stop::Missing(missing.0)
    }
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Stop {
        Stop::Refused(code)
    }
}

impl From<path::InvalidPath> for Stop {
    fn from(_: path::InvalidPath) -> Stop {
        Stop::Refused(ErrorCode::BadArguments)
    }
}

/// Access lists that requests named lately, by their wire form: most creates name one of a handful.
#[derive(Debug, Default)]
pub struct AclCache {
    lists: AHashMap<Box<[u8]>, Arc<AclList>>,
}

impl AclCache {
    const LISTS_MAX: usize = 1024;

    fn list(&mut self, auth: &AuthConfig, given: &AclVector<'_>, identities: &[Id]) -> Result<Arc<AclList>, ErrorCode> {
        if let Some(list) = self.lists.get(given.entry_bytes()) {
            return Ok(list.clone());
        }
        let fixed: Vec<Acl> = auth.fix_acl(given, identities).map_err(|_| ErrorCode::InvalidAcl)?;
        let depends_on_identities = given.to_vec().iter().any(|acl| acl.id.scheme == "auth");
        let list = Arc::new(AclList::new(fixed));
        if !depends_on_identities {
            if self.lists.len() >= Self::LISTS_MAX {
                self.lists.clear();
            }
            self.lists.insert(given.entry_bytes().into(), list.clone());
        }
        Ok(list)
    }
}

/// Everything that a step of validating one request needs.
pub struct Prep<'a, 'w, R> {
    /// What the operator decided.
    pub auth: &'a AuthConfig,
    /// What need not be asked.
    pub known: &'a KnownRecords,
    /// Records of the owners.
    pub source: &'a R,
    /// Changes made so far by this request: empty at the start.
    pub own: &'a mut OwnChanges,
    /// Lists named lately.
    pub acls: &'a mut AclCache,
    /// Who asks.
    pub session: SessionId,
    /// Whom its connection has proved to be.
    pub identities: &'a [Id],
    /// The transaction that is being made.
    pub zxid: Zxid,
    /// Its time.
    pub time_ms: i64,
    /// Where the results go.
    pub writer: &'a mut TxnWriter<'w>,
}

/// Decimal digits of a sequence number.
const SEQUENCE_DIGITS: usize = 10;

impl<R: RecordSource> Prep<'_, '_, R> {
    /// Validates a client's request of one operation and writes its result. On `Stop` it has changed and written nothing.
    pub fn request(&mut self, request: &Request<'_>) -> Result<(), Stop> {
        match request {
            Request::Create(create) => self.create(create),
            Request::Delete { path, version } => self.delete(path, *version),
            Request::SetData { path, data, version } => self.set_data(path, *data, *version),
            Request::SetAcl { path, acl, version } => self.set_acl(path, acl, *version),
            // A multi is validated part by part, and the home shard forwards no other kind.
            _ => Err(Stop::Refused(ErrorCode::Unimplemented)),
        }
    }

    /// The record at `node_path` as this request leaves it so far.
    pub fn record(&self, node_path: &str) -> Result<Option<NodeImage>, Stop> {
        let key = path::canonical(node_path);
        if let Some(own) = self.own.get(key) {
            return Ok(own.clone());
        }
        match self.known.get(key) {
            Some(image) => Ok(image.cloned()),
            None => Ok(self.source.node(key)?),
        }
    }

    fn existing(&self, node_path: &str) -> Result<NodeImage, Stop> {
        self.record(node_path)?.ok_or(Stop::Refused(ErrorCode::NoNode))
    }

    fn put(&mut self, node_path: &str, image: Option<NodeImage>) {
        self.own.put(path::canonical(node_path), image);
    }

    fn check_acl(&self, image: &NodeImage, perms: i32) -> Result<(), Stop> {
        if self.auth.allows(&image.acl, perms, self.identities) { Ok(()) } else { Err(ErrorCode::NoAuth.into()) }
    }

    fn create(&mut self, create: &Create<'_>) -> Result<(), Stop> {
        if create.ttl_ms.is_some() && !create.flags.is_ttl() {
            // ZooKeeper says so from a time to live of zero on; one below zero would end it.
            return Err(ErrorCode::BadArguments.into());
        }
        let (ephemeral, sequential) = match create.flags {
            // An ordinary create with the container flag makes an ordinary node, as in ZooKeeper.
            CreateFlags::PERSISTENT | CreateFlags::CONTAINER => (false, false),
            CreateFlags::EPHEMERAL => (true, false),
            CreateFlags::PERSISTENT_SEQUENTIAL => (false, true),
            CreateFlags::EPHEMERAL_SEQUENTIAL => (true, true),
            CreateFlags::PERSISTENT_TTL | CreateFlags::PERSISTENT_SEQUENTIAL_TTL => {
                return Err(ErrorCode::Unimplemented.into());
            }
            _ => return Err(ErrorCode::BadArguments.into()),
        };
        let parent_path = path::parent(create.path).filter(|_| !create.path.contains('\0'));
        let parent_path = parent_path.ok_or(Stop::Refused(ErrorCode::BadArguments))?;
        let acl = self.acls.list(self.auth, &create.acl, self.identities)?;
        let mut parent = self.existing(parent_path)?;
        self.check_acl(&parent, permission::CREATE)?;
        let suffixed;
        let node_path = if sequential {
            suffixed = sequential_path(create.path, sequence_number(&parent));
            &suffixed
        } else {
            create.path
        };
        path::validate(node_path)?;
        if self.record(node_path)?.is_some() {
            return Err(ErrorCode::NodeExists.into());
        }
        if parent.stat.ephemeral_owner != SessionId::NONE {
            return Err(ErrorCode::NoChildrenForEphemerals.into());
        }
        parent.stat.cversion = parent.stat.cversion.wrapping_add(1);
        parent.stat.pzxid = self.zxid;
        parent.num_children += 1;
        let owner = if ephemeral { self.session } else { SessionId::NONE };
        self.writer.create(node_path, create.data, owner, &acl, parent.acl.hash(), parent.stat.cversion);
        let created = NodeImage {
            stat: NodeStat::created(self.zxid, self.time_ms, owner),
            data_length: create.data.map_or(0, <[u8]>::len) as i32,
            num_children: 0,
            acl,
        };
        self.put(parent_path, Some(parent));
        self.put(node_path, Some(created));
        Ok(())
    }

    fn delete(&mut self, node_path: &str, version: i32) -> Result<(), Stop> {
        let parent_path = path::parent(node_path)
            .filter(|_| !node_path.contains('\0') && !path::is_special(node_path))
            .ok_or(Stop::Refused(ErrorCode::BadArguments))?;
        let parent = self.existing(parent_path)?;
        self.check_acl(&parent, permission::DELETE)?;
        let image = self.existing(node_path)?;
        check_version(image.stat.version, version)?;
        if image.num_children > 0 {
            return Err(ErrorCode::NotEmpty.into());
        }
        self.remove(node_path, &image, parent_path, parent);
        Ok(())
    }

    fn remove(&mut self, node_path: &str, image: &NodeImage, parent_path: &str, mut parent: NodeImage) {
        parent.stat.pzxid = self.zxid;
        parent.num_children -= 1;
        self.writer.delete(node_path, image.acl.hash(), parent.acl.hash(), parent.stat.cversion);
        self.put(parent_path, Some(parent));
        self.put(node_path, None);
    }

    fn set_data(&mut self, node_path: &str, data: Option<&[u8]>, version: i32) -> Result<(), Stop> {
        path::validate(node_path)?;
        let mut image = self.existing(node_path)?;
        self.check_acl(&image, permission::WRITE)?;
        image.stat.version = check_version(image.stat.version, version)?;
        image.stat.mzxid = self.zxid;
        image.stat.mtime_ms = self.time_ms;
        image.data_length = data.map_or(0, <[u8]>::len) as i32;
        self.writer.set_data(node_path, data, image.acl.hash(), &image.stat, image.num_children);
        self.put(node_path, Some(image));
        Ok(())
    }

    fn set_acl(&mut self, node_path: &str, acl: &AclVector<'_>, version: i32) -> Result<(), Stop> {
        path::validate(node_path)?;
        let list = self.acls.list(self.auth, acl, self.identities)?;
        let mut image = self.existing(node_path)?;
        self.check_acl(&image, permission::ADMIN)?;
        image.stat.aversion = check_version(image.stat.aversion, version)?;
        image.acl = list;
        self.writer.set_acl(node_path, &image.acl, &image.stat, image.num_children, image.data_length);
        self.put(node_path, Some(image));
        Ok(())
    }

    fn check(&mut self, node_path: &str, version: i32) -> Result<(), Stop> {
        path::validate(node_path)?;
        let image = self.existing(node_path)?;
        self.check_acl(&image, permission::READ)?;
        check_version(image.stat.version, version)?;
        self.writer.check();
        Ok(())
    }

    /// Validates one sub-operation of a multi and writes its result. On `Stop` it has changed and written nothing.
    pub fn part(&mut self, op: &MultiOp<'_>) -> Result<(), Stop> {
        match op {
            MultiOp::Create(create) => self.create(create),
            MultiOp::Delete { path, version } => self.delete(path, *version),
            MultiOp::SetData { path, data, version } => self.set_data(path, *data, *version),
            MultiOp::Check { path, version } => self.check(path, *version),
            MultiOp::GetData { .. } | MultiOp::GetChildren { .. } => Err(ErrorCode::MarshallingError.into()),
        }
    }

    /// The ephemeral nodes of the session of the request, sorted, those included that outstanding proposals created (rule B6). Some
    /// may be gone, or belong to another session by now: [`Prep::delete_ephemeral`] looks.
    pub fn own_ephemerals(&self) -> Result<Vec<Box<str>>, Stop> {
        let mut paths = self.source.ephemerals(self.session)?;
        paths.extend(self.known.created_ephemerals(self.session).map(Box::from));
        // A few sorted lists, one behind the other.
        paths.sort();
        paths.dedup();
        if planted::is("ephemeral-survives-session") {
            paths.pop();
        }
        Ok(paths)
    }

    /// Deletes `node_path` if it is an ephemeral node of the session of the request.
    pub fn delete_ephemeral(&mut self, node_path: &str) -> Result<(), Stop> {
        let Some(image) = self.record(node_path)?.filter(|image| image.stat.ephemeral_owner == self.session) else {
            return Ok(());
        };
        let Some(parent_path) = path::parent(node_path) else { return Ok(()) };
        let parent = self.existing(parent_path)?;
        self.remove(node_path, &image, parent_path, parent);
        Ok(())
    }
}

/// The path of the sequential child that gets `number`.
pub fn sequential_path(prefix: &str, number: i32) -> String {
    format!("{prefix}{number:0SEQUENCE_DIGITS$}")
}

/// True for the creates that append a number.
pub fn is_sequential(flags: CreateFlags) -> bool {
    matches!(flags, CreateFlags::PERSISTENT_SEQUENTIAL | CreateFlags::EPHEMERAL_SEQUENTIAL)
}

/// The number that the next sequential child gets: how many children were ever created, however named.
pub fn sequence_number(parent: &NodeImage) -> i32 {
    if planted::is("suffix-from-num-children") { parent.num_children } else { parent.stat.cversion }
}

/// The version after a change that expects `expected` (-1: anything).
fn check_version(current: i32, expected: i32) -> Result<i32, Stop> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BadVersion.into());
    }
    Ok(current.wrapping_add(1))
}
