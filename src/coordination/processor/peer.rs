//! What shards say to each other, and to themselves.
//!
//! A read of records that other shards own is a few questions, each answered as of the read's position. A question carries what its
//! answer may be at most, so that what is on its way between shards is within the bounds of those who asked. Work that is long is
//! asked for in pieces, also by the owner itself: between two pieces the others have their turn.

use crate::base::Zxid;
use crate::coordination::auth::Identities;
use crate::coordination::tree::AclHash;
use crate::protocol::zookeeper::ErrorCode;
use smallvec::SmallVec;

/// Names a read under way at its home shard; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatherId(pub u64);

/// From one shard to another, or to itself.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// Please answer as of a position.
    Read(PeerRead),
    /// The answer to a [`PeerRead`].
    Answer(PeerAnswer),
    /// To itself: the connection of this number goes on with what it has begun, after the others had their turn.
    GoOn(u64),
}

/// A question to the owner of some records. A read has at most one under way at each owner.
#[derive(Clone, Debug)]
pub struct PeerRead {
    /// Returned with the answer.
    pub gather: GatherId,
    /// The position `s` of the read.
    pub position: Zxid,
    /// Who asks.
    pub identities: Identities,
    /// The bodies of the answer may be of so many bytes, all together.
    pub bytes_max: usize,
    /// What is asked.
    pub question: Question,
}

/// What a [`PeerRead`] asks.
#[derive(Clone, Debug)]
pub enum Question {
    /// The first of these parts, as many as fit.
    Parts(SmallVec<[Part; 1]>),
    /// One part, however long it is: a long list comes in pieces.
    Piece {
        /// Which one.
        part: Part,
        /// The last name of the piece before.
        after: Option<Box<str>>,
    },
    /// What setWatches compares with, of each of these paths.
    Brief(Vec<Box<str>>),
}

/// A record that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What of it.
    pub kind: ReadKind,
    /// Its path, in the canonical form.
    pub path: Box<str>,
}

/// What a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// exists
    Exists,
    /// getData
    Data,
    /// getChildren
    Children,
    /// getChildren2
    ChildrenAndStat,
    /// getACL
    Acl,
}

/// The answer to a [`PeerRead`].
#[derive(Clone, Debug)]
pub struct PeerAnswer {
    /// Of the question.
    pub gather: GatherId,
    /// What was found.
    pub found: Found,
}

/// What the owner found.
#[derive(Clone, Debug)]
pub enum Found {
    /// To [`Question::Parts`]: as many as fitted, in their order.
    Parts(SmallVec<[ReadResult; 1]>),
    /// To [`Question::Piece`].
    Piece {
        /// The piece.
        result: ReadResult,
        /// The last name in it, if others follow.
        more_after: Option<Box<str>>,
    },
    /// To [`Question::Piece`]: it, or the rest of it, is longer than the answer may be.
    TooLong,
    /// To [`Question::Brief`]: in the order of the paths; `None` where nothing is.
    Brief(Vec<Option<BriefStat>>),
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The reply.
    Body {
        /// Its encoded body, or a piece of it.
        bytes: Vec<u8>,
        /// The list that allowed it.
        acl: AclHash,
    },
    /// Why there is none.
    Error(ErrorCode),
}

impl ReadResult {
    /// Length of the body; 0 without one.
    pub fn body_bytes(&self) -> usize {
        match self {
            ReadResult::Body { bytes, .. } => bytes.len(),
            ReadResult::Error(_) => 0,
        }
    }
}

/// What setWatches compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BriefStat {
    /// Data last set by.
    pub mzxid: Zxid,
    /// Children last changed by.
    pub pzxid: Zxid,
}
