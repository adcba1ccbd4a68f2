//! What the model answers to reads.

use super::access;
use super::model::{Model, ModelNode, ModelReply};
use crate::protocol::zookeeper::{ErrorCode, Id, MultiOp, MultiResult, Reply, Request, permission};

/// The answer to a read that sets and touches no watch. `None` when `request` is not such a read.
///
/// Children stand in order of their names here; a server may answer in any order.
pub fn read(model: &Model, identities: &[Id], request: &Request<'_>) -> Option<ModelReply> {
    let result = match request {
        // Of the reads, only exists looks for it.
        Request::Exists { path, .. } if path.contains('\0') => Err(ErrorCode::BadArguments),
        Request::Exists { path, .. } => {
            require(model, path, permission::READ, identities).map(|_| ModelReply::ok(&Reply::Stat(model.stat(path))))
        }
        Request::GetData { path, .. } => require(model, path, permission::READ, identities)
            .map(|node| ModelReply::ok(&Reply::Data(node.data.as_deref(), model.stat(path)))),
        Request::GetChildren { path, with_stat, .. } => require(model, path, permission::READ, identities).map(|_| {
            let children = model.children(path);
            ModelReply::ok(&match with_stat {
                true => Reply::ChildrenAndStat(children, model.stat(path)),
                false => Reply::Children(children),
            })
        }),
        Request::GetAcl { path } => require(model, path, permission::READ | permission::ADMIN, identities)
            .map(|node| ModelReply::ok(&Reply::Acl(access::masked(&node.acl, identities), model.stat(path)))),
        Request::MultiRead(ops) => {
            Ok(ModelReply::ok(&Reply::Multi(ops.iter().map(|op| read_slot(model, identities, op)).collect())))
        }
        Request::Sync { path } => Ok(ModelReply::ok(&Reply::Path(path))),
        Request::Ping => Ok(ModelReply::default()),
        _ => return None,
    };
    Some(result.unwrap_or_else(ModelReply::error))
}

fn require<'m>(model: &'m Model, path: &str, permission: i32, identities: &[Id]) -> Result<&'m ModelNode, ErrorCode> {
    let node = model.node(path).ok_or(ErrorCode::NoNode)?;
    if access::allows(&node.acl, permission, identities) { Ok(node) } else { Err(ErrorCode::NoAuth) }
}

fn read_slot<'m>(model: &'m Model, identities: &[Id], op: &MultiOp<'_>) -> MultiResult<'m> {
    let result = match op {
        MultiOp::GetData { path } => require(model, path, permission::READ, identities)
            .map(|node| MultiResult::GetData { data: node.data.as_deref(), stat: model.stat(path) }),
        MultiOp::GetChildren { path } => require(model, path, permission::READ, identities)
            .map(|_| MultiResult::GetChildren { children: model.children(path) }),
        _ => Err(ErrorCode::MarshallingError),
    };
    result.unwrap_or_else(|error| MultiResult::Error(error.wire()))
}
