//! Several operations in one transaction.

use super::error::ClientError;
use super::session::Effect;
use super::{Chroot, Client};
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, ErrorCode, MultiOp, MultiOps, MultiResult, Reply, Request, Stat,
};
use bytes::Bytes;
use std::future::Future;

/// An operation of a [`Client::multi`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Op<'a> {
    Create { path: &'a str, data: Option<&'a [u8]>, acl: &'a [Acl], flags: CreateFlags },
    Delete { path: &'a str, version: i32 },
    SetData { path: &'a str, data: Option<&'a [u8]>, version: i32 },
    Check { path: &'a str, version: i32 },
}

/// The result of an [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// The path of the new node.
    Create(String),
    /// Deleted.
    Delete,
    /// The new stat.
    SetData(Stat),
    /// The version was as expected.
    Check,
}

impl<'a> Op<'a> {
    /// The node that it is about.
    pub fn path(&self) -> &'a str {
        match self {
            Op::Create { path, .. } | Op::Delete { path, .. } | Op::SetData { path, .. } | Op::Check { path, .. } => {
                path
            }
        }
    }
}

impl Client {
    /// Runs all of `ops` or none, as one transaction. [`ClientError::MultiRefused`] names the one that failed.
    pub fn multi(&self, ops: &[Op<'_>]) -> impl Future<Output = Result<Vec<OpResult>, ClientError>> + use<> {
        let answer = self.ask_multi(ops);
        let paths: Vec<String> = ops.iter().map(|op| op.path().to_owned()).collect();
        let chroot = self.chroot();
        async move {
            let read = |reply: Reply<'_>, _: &Bytes| match reply {
                Reply::Multi(slots) => read_multi(slots, &paths, &chroot),
                _ => None,
            };
            answer?.read(read).await?
        }
    }

    fn ask_multi(&self, ops: &[Op<'_>]) -> Result<super::operations::Answer, ClientError> {
        let absolute = |op: &Op<'_>| match op {
            Op::Create { path, flags, .. } => self.absolute_for_create(path, *flags),
            other => self.absolute(other.path()),
        };
        let paths = ops.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
        let mut scratch = vec![Vec::new(); ops.len()];
        let encoded: MultiOps<'_> = ops
            .iter()
            .zip(&paths)
            .zip(&mut scratch)
            .map(|((op, path), scratch)| match *op {
                Op::Create { data, acl, flags, .. } => {
                    let acl = AclVector::from_acls(acl, scratch);
                    MultiOp::Create(Create { path, data, acl, flags, with_stat: false, ttl_ms: None })
                }
                Op::Delete { version, .. } => MultiOp::Delete { path, version },
                Op::SetData { data, version, .. } => MultiOp::SetData { path, data, version },
                Op::Check { version, .. } => MultiOp::Check { path, version },
            })
            .collect();
        Ok(self.ask(ops.first().map_or("/", Op::path), &Request::Multi(encoded), Effect::None))
    }
}

/// A failed multi has an error in every slot: 0 before the one that failed, its code, then RUNTIMEINCONSISTENCY.
fn read_multi(
    slots: Vec<MultiResult<'_>>,
    paths: &[String],
    chroot: &Chroot,
) -> Option<Result<Vec<OpResult>, ClientError>> {
    if slots.len() != paths.len() {
        return None;
    }
    let failed = slots.iter().position(|slot| {
        matches!(slot, MultiResult::Error(code)
            if ![ErrorCode::Ok, ErrorCode::RuntimeInconsistency].map(ErrorCode::wire).contains(code))
    });
    if let Some(index) = failed
        && let MultiResult::Error(wire) = slots[index]
    {
        return Some(Err(ClientError::MultiRefused { index, wire, path: paths[index].clone() }));
    }
    let results = slots.into_iter().map(|slot| match slot {
        MultiResult::Create { path } | MultiResult::Create2 { path, .. } => {
            Some(OpResult::Create(chroot.relative(path).to_owned()))
        }
        MultiResult::Delete => Some(OpResult::Delete),
        MultiResult::SetData { stat } => Some(OpResult::SetData(stat)),
        MultiResult::Check => Some(OpResult::Check),
        MultiResult::GetData { .. } | MultiResult::GetChildren { .. } | MultiResult::Error(_) => None,
    });
    results.collect::<Option<Vec<_>>>().map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed multi travels with header error 0: a client that only looks at the header takes it for a success.
    #[test]
    fn failure_inside_a_multi_is_found() {
        let paths = ["/a".to_owned(), "/b".to_owned(), "/c".to_owned()];
        let slots = vec![MultiResult::Error(0), MultiResult::Error(-110), MultiResult::Error(-2)];
        let expected = ClientError::MultiRefused { index: 1, wire: -110, path: "/b".into() };
        assert_eq!(read_multi(slots, &paths, &Chroot::default()), Some(Err(expected.clone())));
        assert_eq!(expected.code(), Some(ErrorCode::NodeExists));
        let short = vec![MultiResult::Delete];
        assert_eq!(read_multi(short, &paths, &Chroot::default()), None, "fewer results than operations");
        let all_zero = vec![MultiResult::Error(0); 3];
        assert_eq!(read_multi(all_zero, &paths, &Chroot::default()), None, "no result and no failure either");
    }
}
