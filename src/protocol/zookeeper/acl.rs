//! Access control lists on the wire.

use crate::protocol::jute::{Input, JuteError, Output};

/// The permission bits of an ACL entry (`ZooDefs.Perms`).
#[allow(missing_docs)]
pub mod permission {
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;
    pub const ALL: i32 = 31;
}

/// Whom an entry means: a scheme and a name within it. Also an identity that a connection has proved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, `super`.
    pub scheme: String,
    /// The name within the scheme.
    pub id: String,
}

impl Id {
    /// An identity of `scheme`.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Id { scheme: scheme.into(), id: id.into() }
    }
}

/// One entry: permission bits for an identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acl {
    /// Any combination of [`permission`]; not validated, as in ZooKeeper.
    pub perms: i32,
    /// Whom it is given to.
    pub id: Id,
}

impl Acl {
    /// Everything to everybody: `OPEN_ACL_UNSAFE`.
    pub fn open() -> Acl {
        Acl { perms: permission::ALL, id: Id::new("world", "anyone") }
    }

    /// Length on the wire.
    pub fn wire_bytes(&self) -> usize {
        3 * size_of::<i32>() + self.id.scheme.len() + self.id.id.len()
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut Output<'_>) {
        out.i32(self.perms);
        out.string(&self.id.scheme);
        out.string(&self.id.id);
    }
}

/// A well-formed vector of ACL entries, still in its frame. Null counts as empty: both are refused with INVALIDACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclVector<'a> {
    count: usize,
    entries: &'a [u8],
}

impl<'a> AclVector<'a> {
    /// Permissions and two lengths.
    const ENTRY_BYTES_MIN: usize = 12;

    /// Reads the vector and checks that every entry is well formed.
    pub fn decode(input: &mut Input<'a>) -> Result<Self, JuteError> {
        let count = input.vector(Self::ENTRY_BYTES_MIN)?.unwrap_or(0);
        let start = input.rest();
        for _ in 0..count {
            input.i32()?;
            input.ustring()?;
            input.ustring()?;
        }
        Ok(AclVector { count, entries: &start[..start.len() - input.rest().len()] })
    }

    /// The encoded entries without the count: equal lists have equal bytes.
    pub fn entry_bytes(&self) -> &'a [u8] {
        self.entries
    }

    /// True for an empty or null vector.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries as owned values, in order. A null scheme or id reads as the empty string, which no scheme accepts.
    pub fn to_vec(&self) -> Vec<Acl> {
        let mut input = Input::new(self.entries);
        let field = |input: &mut Input<'a>| input.ustring().ok().flatten().unwrap_or("").to_owned();
        (0..self.count)
            .map(|_| Acl {
                perms: input.i32().unwrap_or(0),
                id: Id { scheme: field(&mut input), id: field(&mut input) },
            })
            .collect()
    }

    /// Appends the vector.
    pub fn encode(&self, out: &mut Output<'_>) {
        out.len(self.count);
        out.raw(self.entries);
    }

    /// The list `acls` in the form that `scratch` holds.
    pub fn from_acls(acls: &[Acl], scratch: &'a mut Vec<u8>) -> AclVector<'a> {
        scratch.clear();
        let mut out = Output::new(scratch);
        for acl in acls {
            acl.encode(&mut out);
        }
        AclVector { count: acls.len(), entries: scratch }
    }
}
