//! The operations of a [`Client`], typed.
//!
//! Every method queues its request by the call itself, so the order of the calls is the order on the wire, and returns a
//! future that only waits for the reply: calling several and awaiting them later is how to pipeline. A method that sets a
//! watch returns its stream beside the result; the watch is armed exactly when the result is `Ok` (for `exists` also when the
//! node is missing).

use super::error::ClientError;
use super::mailbox::Promised;
use super::session::{Effect, RawReply, ReplyResult};
use super::watcher::{Registration, Watch, WatchList};
use super::{Chroot, Client};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    Acl, AclVector, AddWatchMode, Create, CreateFlags, ErrorCode, OpCode, Reply, Request, Stat,
};
use bytes::Bytes;
use std::future::Future;

/// The version that matches every version.
pub const ANY_VERSION: i32 = -1;

/// A node's data; `None` is ZooKeeper's null, which differs from empty.
pub type Data = Option<Bytes>;

impl Client {
    /// Creates a node and returns its path, which for a sequential one ends with its number.
    pub fn create(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        flags: CreateFlags,
    ) -> impl Future<Output = Result<String, ClientError>> + use<> {
        let answer = self.ask_create(path, data, acl, flags);
        let chroot = self.chroot();
        async move { answer?.read(|reply, _| path_of(reply, &chroot)).await }
    }

    fn ask_create(
        &self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        flags: CreateFlags,
    ) -> Result<Answer, ClientError> {
        let absolute = self.absolute_for_create(path, flags)?;
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(acl, &mut scratch);
        let request = Request::Create(Create { path: &absolute, data, acl, flags, with_stat: false, ttl_ms: None });
        Ok(self.ask(path, &request, Effect::None))
    }

    /// Deletes a node without children.
    pub fn delete(&self, path: &str, version: i32) -> impl Future<Output = Result<(), ClientError>> + use<> {
        let answer = self
            .absolute(path)
            .map(|absolute| self.ask(path, &Request::Delete { path: &absolute, version }, Effect::None));
        async move { answer?.read_empty().await }
    }

    /// The node's stat; `None` when it does not exist.
    pub fn exists(&self, path: &str) -> impl Future<Output = Result<Option<Stat>, ClientError>> + use<> {
        let answer = self
            .absolute(path)
            .map(|absolute| self.ask(path, &Request::Exists { path: &absolute, watch: false }, Effect::None));
        async move { none_if_missing(answer?.read_stat().await) }
    }

    /// As [`exists`](Self::exists), with a watch on creation, deletion and change of data.
    pub fn exists_watch(&self, path: &str) -> impl Future<Output = Result<(Option<Stat>, Watch), ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let (registration, watch) = Registration::new(WatchList::Data, absolute.clone());
            let request = Request::Exists { path: &absolute, watch: true };
            (self.ask(path, &request, Effect::ArmExists(registration)), watch)
        });
        async move {
            let (answer, watch) = answer?;
            Ok((none_if_missing(answer.read_stat().await)?, watch))
        }
    }

    /// The node's data and stat.
    pub fn get_data(&self, path: &str) -> impl Future<Output = Result<(Data, Stat), ClientError>> + use<> {
        let answer = self
            .absolute(path)
            .map(|absolute| self.ask(path, &Request::GetData { path: &absolute, watch: false }, Effect::None));
        async move { answer?.read(data_of).await }
    }

    /// As [`get_data`](Self::get_data), with a watch on deletion and change of data.
    pub fn get_data_watch(&self, path: &str) -> impl Future<Output = Result<(Data, Stat, Watch), ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let (registration, watch) = Registration::new(WatchList::Data, absolute.clone());
            let request = Request::GetData { path: &absolute, watch: true };
            (self.ask(path, &request, Effect::Arm(registration)), watch)
        });
        async move {
            let (answer, watch) = answer?;
            let (data, stat) = answer.read(data_of).await?;
            Ok((data, stat, watch))
        }
    }

    /// Replaces the node's data and returns its new stat.
    pub fn set_data(
        &self,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
    ) -> impl Future<Output = Result<Stat, ClientError>> + use<> {
        let answer = self
            .absolute(path)
            .map(|absolute| self.ask(path, &Request::SetData { path: &absolute, data, version }, Effect::None));
        async move { answer?.read_stat().await }
    }

    /// The node's access control list and stat.
    pub fn get_acl(&self, path: &str) -> impl Future<Output = Result<(Vec<Acl>, Stat), ClientError>> + use<> {
        let answer =
            self.absolute(path).map(|absolute| self.ask(path, &Request::GetAcl { path: &absolute }, Effect::None));
        async move {
            let read = |reply: Reply<'_>, _: &Bytes| match reply {
                Reply::Acl(acl, stat) => Some((acl, stat)),
                _ => None,
            };
            answer?.read(read).await
        }
    }

    /// Replaces the node's access control list. `version` is compared with the stat's `aversion`.
    pub fn set_acl(
        &self,
        path: &str,
        acl: &[Acl],
        version: i32,
    ) -> impl Future<Output = Result<Stat, ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let mut scratch = Vec::new();
            let acl = AclVector::from_acls(acl, &mut scratch);
            self.ask(path, &Request::SetAcl { path: &absolute, acl, version }, Effect::None)
        });
        async move { answer?.read_stat().await }
    }

    /// The names of the node's children in no particular order, and its stat.
    pub fn get_children(&self, path: &str) -> impl Future<Output = Result<(Vec<String>, Stat), ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let request = Request::GetChildren { path: &absolute, watch: false, with_stat: true };
            self.ask(path, &request, Effect::None)
        });
        async move { answer?.read(children_of).await }
    }

    /// As [`get_children`](Self::get_children), with a watch on the list and on the node's deletion.
    pub fn get_children_watch(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<(Vec<String>, Stat, Watch), ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let (registration, watch) = Registration::new(WatchList::Child, absolute.clone());
            let request = Request::GetChildren { path: &absolute, watch: true, with_stat: true };
            (self.ask(path, &request, Effect::Arm(registration)), watch)
        });
        async move {
            let (answer, watch) = answer?;
            let (children, stat) = answer.read(children_of).await?;
            Ok((children, stat, watch))
        }
    }

    /// Only the names of the node's children, by the older operation: a smaller reply.
    pub fn get_children_names(&self, path: &str) -> impl Future<Output = Result<Vec<String>, ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let request = Request::GetChildren { path: &absolute, watch: false, with_stat: false };
            self.ask(path, &request, Effect::None)
        });
        async move {
            let read = |reply: Reply<'_>, _: &Bytes| match reply {
                Reply::Children(children) => Some(children.into_iter().map(str::to_owned).collect()),
                _ => None,
            };
            answer?.read(read).await
        }
    }

    /// Makes the server catch up with the leader: reads called after this one see every write acknowledged before it.
    pub fn sync(&self, path: &str) -> impl Future<Output = Result<(), ClientError>> + use<> {
        let answer =
            self.absolute(path).map(|absolute| self.ask(path, &Request::Sync { path: &absolute }, Effect::None));
        async move { answer?.read(|reply, _| matches!(reply, Reply::Path(_)).then_some(())).await }
    }

    /// Sets a watch that stays armed until it is removed or the session ends.
    pub fn add_watch(
        &self,
        path: &str,
        mode: AddWatchMode,
    ) -> impl Future<Output = Result<Watch, ClientError>> + use<> {
        let answer = self.absolute(path).map(|absolute| {
            let list = match mode {
                AddWatchMode::Persistent => WatchList::Persistent,
                AddWatchMode::PersistentRecursive => WatchList::PersistentRecursive,
            };
            let (registration, watch) = Registration::new(list, absolute.clone());
            (self.ask(path, &Request::AddWatch { path: &absolute, mode }, Effect::Arm(registration)), watch)
        });
        async move {
            let (answer, watch) = answer?;
            answer.read(|reply, _| matches!(reply, Reply::AddWatch).then_some(())).await?;
            Ok(watch)
        }
    }

    /// Proves an identity, now and on every later connection of the session. A refusal ends the session.
    pub fn add_auth(&self, scheme: &str, auth: &[u8]) -> impl Future<Output = Result<(), ClientError>> + use<> {
        self.with_session(|session| session.add_auth(scheme, auth))
    }

    /// Ends the session: its ephemeral nodes are deleted before this returns `Ok`. After an error they live until the session
    /// expires. No request may follow.
    pub fn close(&self) -> impl Future<Output = Result<(), ClientError>> + use<> {
        let answer = self.ask("/", &Request::CloseSession, Effect::Close);
        async move { answer.read_empty().await }
    }

    /// Queues a request; `path` is what an error will name.
    pub(super) fn ask(&self, path: &str, request: &Request<'_>, effect: Effect) -> Answer {
        let reply = self.with_session(|session| session.submit(request, effect));
        Answer { op: request.op_code(), path: path.to_owned(), reply }
    }

    pub(super) fn absolute(&self, path: &str) -> Result<String, ClientError> {
        self.chroot().absolute(path)
    }

    pub(super) fn absolute_for_create(&self, path: &str, flags: CreateFlags) -> Result<String, ClientError> {
        let sequential = [
            CreateFlags::PERSISTENT_SEQUENTIAL,
            CreateFlags::EPHEMERAL_SEQUENTIAL,
            CreateFlags::PERSISTENT_SEQUENTIAL_TTL,
        ];
        match sequential.contains(&flags) {
            true => self.chroot().absolute_sequential(path),
            false => self.chroot().absolute(path),
        }
    }
}

/// A reply on its way.
pub(super) struct Answer {
    op: OpCode,
    path: String,
    reply: Promised<ReplyResult>,
}

impl Answer {
    /// Waits and hands the decoded reply and the buffer that it borrows from to `read`; `None` from it means that the reply
    /// is not one to this operation.
    pub(super) async fn read<T>(self, read: impl FnOnce(Reply<'_>, &Bytes) -> Option<T>) -> Result<T, ClientError> {
        let RawReply { error, body } = self.reply.await?;
        if error != ErrorCode::Ok.wire() {
            return Err(ClientError::refused(error, &self.path));
        }
        let reply = Reply::decode(self.op, &mut Input::new(&body))
            .map_err(|error| ClientError::BadReply(format!("{:?}: {error}", self.op)))?;
        read(reply, &body).ok_or_else(|| ClientError::BadReply(format!("not a reply to {:?}", self.op)))
    }

    async fn read_empty(self) -> Result<(), ClientError> {
        self.read(|reply, _| matches!(reply, Reply::Empty).then_some(())).await
    }

    async fn read_stat(self) -> Result<Stat, ClientError> {
        let read = |reply: Reply<'_>, _: &Bytes| match reply {
            Reply::Stat(stat) => Some(stat),
            _ => None,
        };
        self.read(read).await
    }
}

fn path_of(reply: Reply<'_>, chroot: &Chroot) -> Option<String> {
    match reply {
        Reply::Path(path) => Some(chroot.relative(path).to_owned()),
        _ => None,
    }
}

fn data_of(reply: Reply<'_>, body: &Bytes) -> Option<(Data, Stat)> {
    match reply {
        Reply::Data(data, stat) => Some((data.map(|data| body.slice_ref(data)), stat)),
        _ => None,
    }
}

fn children_of(reply: Reply<'_>, _: &Bytes) -> Option<(Vec<String>, Stat)> {
    match reply {
        Reply::ChildrenAndStat(children, stat) => Some((children.into_iter().map(str::to_owned).collect(), stat)),
        _ => None,
    }
}

fn none_if_missing(stat: Result<Stat, ClientError>) -> Result<Option<Stat>, ClientError> {
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(ClientError::Refused { code: ErrorCode::NoNode, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
