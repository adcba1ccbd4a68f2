//! One znode.

use super::acl_list::AclRef;
use super::child_set::ChildSet;
use crate::base::{SessionId, Zxid};
use crate::protocol::zookeeper::Stat;

/// What is stored of a znode beside path, data and children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NodeStat {
    /// Transaction that created it.
    pub czxid: Zxid,
    /// Transaction that last set its data.
    pub mzxid: Zxid,
    /// Transaction that last added or removed a child.
    pub pzxid: Zxid,
    /// When it was created (leader's wall clock).
    pub ctime_ms: i64,
    /// When its data was last set.
    pub mtime_ms: i64,
    /// Number of setData.
    pub version: i32,
    /// *Stored* value: the number of children ever created, so also the next sequence number. Clients see
    /// `2 * cversion - children` (creates plus deletes).
    pub cversion: i32,
    /// Number of setACL.
    pub aversion: i32,
    /// The session it lives with; [`SessionId::NONE`] for a persistent node.
    pub ephemeral_owner: SessionId,
}

impl NodeStat {
    /// A node just created.
    pub fn created(zxid: Zxid, time_ms: i64, ephemeral_owner: SessionId) -> NodeStat {
        NodeStat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: time_ms,
            mtime_ms: time_ms,
            ephemeral_owner,
            ..NodeStat::default()
        }
    }

    /// What clients see.
    pub fn to_wire(&self, data_length: i32, num_children: i32) -> Stat {
        Stat {
            czxid: self.czxid.wire(),
            mzxid: self.mzxid.wire(),
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: self.ephemeral_owner.0,
            data_length,
            num_children,
            pzxid: self.pzxid.wire(),
        }
    }
}

/// Path and data in one allocation, and who may do what with them.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Box<[u8]>,
    /// Length of the path; the top bit says that there is data (null and empty differ).
    path_len: u32,
    /// Here, because it fills the word that the length begins: eight bytes less for every node.
    pub(super) acl: AclRef,
}

impl Body {
    const HAS_DATA: u32 = 1 << 31;

    pub(super) fn new(path: &str, data: Option<&[u8]>, acl: AclRef) -> Body {
        Body { bytes: joined(path.as_bytes(), data), path_len: Body::tagged_len(path.len(), data.is_some()), acl }
    }

    fn tagged_len(path_len: usize, has_data: bool) -> u32 {
        path_len as u32 | if has_data { Self::HAS_DATA } else { 0 }
    }

    /// Sets the data; the path stays. In place when the length stays, as it mostly does: nobody else must need the old data.
    pub(super) fn set_data(&mut self, data: Option<&[u8]>) {
        let (path, old) = self.split();
        let new = data.unwrap_or_default();
        let path_len = path.len();
        if old.len() == new.len() {
            self.bytes[path_len..].copy_from_slice(new);
        } else {
            self.bytes = joined(path, data);
        }
        self.path_len = Body::tagged_len(path_len, data.is_some());
    }

    /// Path and data go to the caller. [`Body::fill`] must follow.
    pub(super) fn take(&mut self) -> Body {
        Body { bytes: std::mem::take(&mut self.bytes), path_len: self.path_len, acl: self.acl }
    }

    /// Sets path and data; the access list stays.
    pub(super) fn fill(&mut self, path: &str, data: Option<&[u8]>) {
        self.path_len = Body::tagged_len(path.len(), data.is_some());
        self.bytes = joined(path.as_bytes(), data);
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at((self.path_len & !Self::HAS_DATA) as usize)
    }

    pub(super) fn path(&self) -> &str {
        std::str::from_utf8(self.split().0).expect("the path was a str when it was stored")
    }

    /// The path for hashing and comparing. Cheaper than [`Body::path`], which goes over it once more.
    pub(super) fn path_bytes(&self) -> &[u8] {
        self.split().0
    }

    pub(super) fn data(&self) -> Option<&[u8]> {
        (self.path_len & Self::HAS_DATA != 0).then(|| self.split().1)
    }
}

fn joined(path: &[u8], data: Option<&[u8]>) -> Box<[u8]> {
    [path, data.unwrap_or_default()].concat().into_boxed_slice()
}

/// What most nodes do not have: they were created and then only read.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) mtime_ms: i64,
    pub(super) version: i32,
    pub(super) cversion: i32,
    pub(super) aversion: i32,
    pub(super) ephemeral_owner: SessionId,
    pub(super) children: ChildSet,
}

/// A znode. 48 bytes, path and data; 104 more once it was changed, has children or is ephemeral.
#[derive(Debug)]
pub struct Node {
    pub(super) czxid: Zxid,
    pub(super) ctime_ms: i64,
    pub(super) body: Body,
    pub(super) extra: Option<Box<Extra>>,
}

impl Node {
    /// A node without children.
    pub fn new(path: &str, data: Option<&[u8]>, acl: AclRef, stat: &NodeStat) -> Node {
        let mut node =
            Node { czxid: stat.czxid, ctime_ms: stat.ctime_ms, body: Body::new(path, data, acl), extra: None };
        node.set_stat(stat);
        node
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.body.path()
    }

    /// Its data; null and empty differ.
    pub fn data(&self) -> Option<&[u8]> {
        self.body.data()
    }

    /// Its access control list.
    pub fn acl(&self) -> AclRef {
        self.body.acl
    }

    /// Its stat.
    pub fn stat(&self) -> NodeStat {
        match &self.extra {
            None => NodeStat::created(self.czxid, self.ctime_ms, SessionId::NONE),
            Some(extra) => NodeStat {
                czxid: self.czxid,
                mzxid: extra.mzxid,
                pzxid: extra.pzxid,
                ctime_ms: self.ctime_ms,
                mtime_ms: extra.mtime_ms,
                version: extra.version,
                cversion: extra.cversion,
                aversion: extra.aversion,
                ephemeral_owner: extra.ephemeral_owner,
            },
        }
    }

    /// The session it lives with.
    pub fn ephemeral_owner(&self) -> SessionId {
        self.extra.as_ref().map_or(SessionId::NONE, |extra| extra.ephemeral_owner)
    }

    /// Its children, if it ever had any.
    pub fn children(&self) -> Option<&ChildSet> {
        self.extra.as_ref().map(|extra| &extra.children)
    }

    /// How many children it has.
    pub fn num_children(&self) -> usize {
        self.children().map_or(0, ChildSet::len)
    }

    /// The part that is allocated on first use.
    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        let (zxid, time_ms) = (self.czxid, self.ctime_ms);
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                mzxid: zxid,
                pzxid: zxid,
                mtime_ms: time_ms,
                version: 0,
                cversion: 0,
                aversion: 0,
                ephemeral_owner: SessionId::NONE,
                children: ChildSet::default(),
            })
        })
    }

    /// Sets the whole stat; the children stay.
    pub(super) fn set_stat(&mut self, stat: &NodeStat) {
        self.czxid = stat.czxid;
        self.ctime_ms = stat.ctime_ms;
        let plain = NodeStat::created(stat.czxid, stat.ctime_ms, SessionId::NONE);
        if self.extra.is_none() && *stat == plain {
            return;
        }
        let extra = self.extra_mut();
        extra.mzxid = stat.mzxid;
        extra.pzxid = stat.pzxid;
        extra.mtime_ms = stat.mtime_ms;
        extra.version = stat.version;
        extra.cversion = stat.cversion;
        extra.aversion = stat.aversion;
        extra.ephemeral_owner = stat.ephemeral_owner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a million znodes cost rests on this: a field more in the wrong place is eight megabytes more.
    #[test]
    fn node_is_six_words() {
        assert_eq!((size_of::<Node>(), size_of::<Option<Node>>(), size_of::<Extra>()), (48, 48, 104));
    }
}
