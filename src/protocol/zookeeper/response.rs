//! Replies.
//!
//! A server writes a reply straight into the connection's output buffer with [`ReplyHeader`] and [`Reply`]; a client reads
//! the header and then the body of the operation that it asked for. An error reply has no body, except that a failed multi
//! answers with header error 0 and an error in every slot.

use super::{Acl, ErrorCode, Frame, FrameReader, OpCode, Stat, xid};
use crate::base::Zxid;
use crate::protocol::jute::{Input, JuteError, Output};

/// What precedes every reply but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's xid.
    pub xid: i32,
    /// A write's own transaction; the position of a read.
    pub zxid: i64,
    /// [`ErrorCode`] on the wire; 0 is success.
    pub error: i32,
}

impl ReplyHeader {
    /// Size on the wire.
    pub const BYTES: usize = 16;

    /// The header in wire order.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.xid.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.zxid.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_be_bytes());
        bytes
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Output<'_>) {
        out.raw(&self.to_bytes());
    }

    /// Reads the header.
    pub fn decode(input: &mut Input<'_>) -> Result<ReplyHeader, JuteError> {
        Ok(ReplyHeader { xid: input.i32()?, zxid: input.i64()?, error: input.i32()? })
    }
}

/// Bytes of the replies among `frames`, whole frames behind the handshake's: what ZooKeeper calls `response_bytes`. Lengths do not
/// count, nor do events, and neither does what ZooKeeper answers in passing, pings and proofs of identity.
pub fn reply_bytes(frames: &[u8]) -> u64 {
    let mut reader = FrameReader::new(frames, i32::MAX as usize);
    let mut bytes = 0;
    while let Ok(Some(Frame { body })) = reader.next() {
        let counts = body
            .first_chunk()
            .is_some_and(|first| !matches!(i32::from_be_bytes(*first), xid::NOTIFICATION | xid::PING | xid::AUTH));
        bytes += if counts { body.len() as u64 } else { 0 };
    }
    bytes
}

/// The result of one sub-operation of a successful multi.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MultiResult<'a> {
    Create {
        path: &'a str,
    },
    /// create2, createTTL and createContainer all answer with type 15.
    Create2 {
        path: &'a str,
        stat: Stat,
    },
    Delete,
    SetData {
        stat: Stat,
    },
    Check,
    GetData {
        data: Option<&'a [u8]>,
        stat: Stat,
    },
    GetChildren {
        children: Vec<&'a str>,
    },
    /// A slot of a failed multi, or a failed read of a multiRead.
    Error(i32),
}

/// The body of a successful reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reply<'a> {
    Empty,
    Path(&'a str),
    PathAndStat(&'a str, Stat),
    Stat(Stat),
    Data(Option<&'a [u8]>, Stat),
    Acl(Vec<Acl>, Stat),
    Children(Vec<&'a str>),
    ChildrenAndStat(Vec<&'a str>, Stat),
    Multi(Vec<MultiResult<'a>>),
    /// addWatch: a 32-bit error even on success.
    AddWatch,
    /// sasl: null when there is nothing more to say.
    Sasl(Option<&'a [u8]>),
}

impl<'a> Reply<'a> {
    /// Appends the whole frame of a successful reply.
    pub fn encode_frame(&self, xid: i32, zxid: Zxid, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| {
            ReplyHeader { xid, zxid: zxid.wire(), error: 0 }.encode(out);
            self.encode(out);
        });
    }

    /// Appends the whole frame of an error reply: a header alone.
    pub fn encode_error_frame(xid: i32, zxid: i64, error: ErrorCode, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| ReplyHeader { xid, zxid, error: error.wire() }.encode(out));
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Output<'_>) {
        match self {
            Reply::Empty => {}
            Reply::Path(path) => out.string(path),
            Reply::PathAndStat(path, stat) => {
                out.string(path);
                stat.encode(out);
            }
            Reply::Stat(stat) => stat.encode(out),
            Reply::Data(data, stat) => {
                out.buffer(*data);
                stat.encode(out);
            }
            Reply::Acl(acl, stat) => {
                out.len(acl.len());
                acl.iter().for_each(|entry| entry.encode(out));
                stat.encode(out);
            }
            Reply::Children(children) => encode_strings(children, out),
            Reply::ChildrenAndStat(children, stat) => {
                encode_strings(children, out);
                stat.encode(out);
            }
            Reply::Multi(results) => {
                results.iter().for_each(|result| result.encode(out));
                MultiResult::encode_end(out);
            }
            Reply::AddWatch => out.i32(0),
            Reply::Sasl(token) => out.buffer(*token),
        }
    }

    /// Reads the body of a successful reply to `op`.
    pub fn decode(op: OpCode, input: &mut Input<'a>) -> Result<Reply<'a>, JuteError> {
        Ok(match op {
            OpCode::Create | OpCode::Sync => Reply::Path(input.string()?),
            OpCode::Create2 | OpCode::CreateTtl => Reply::PathAndStat(input.string()?, Stat::decode(input)?),
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Reply::Stat(Stat::decode(input)?),
            OpCode::GetData => Reply::Data(input.buffer()?, Stat::decode(input)?),
            OpCode::GetAcl => {
                let acl = super::AclVector::decode(input)?.to_vec();
                Reply::Acl(acl, Stat::decode(input)?)
            }
            OpCode::GetChildren => Reply::Children(decode_strings(input)?),
            OpCode::GetChildren2 => Reply::ChildrenAndStat(decode_strings(input)?, Stat::decode(input)?),
            OpCode::Multi | OpCode::MultiRead => Reply::Multi(MultiResult::decode_all(input)?),
            OpCode::AddWatch => {
                input.i32()?;
                Reply::AddWatch
            }
            OpCode::Sasl => Reply::Sasl(input.buffer()?),
            OpCode::Delete
            | OpCode::Ping
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CloseSession => Reply::Empty,
        })
    }
}

impl<'a> MultiResult<'a> {
    /// Appends the slot: a header with the type, then its record.
    pub fn encode(&self, out: &mut Output<'_>) {
        let (op, error) = match self {
            MultiResult::Create { .. } => (OpCode::Create.wire(), 0),
            MultiResult::Create2 { .. } => (OpCode::Create2.wire(), 0),
            MultiResult::Delete => (OpCode::Delete.wire(), 0),
            MultiResult::SetData { .. } => (OpCode::SetData.wire(), 0),
            MultiResult::Check => (OpCode::Check.wire(), 0),
            MultiResult::GetData { .. } => (OpCode::GetData.wire(), 0),
            MultiResult::GetChildren { .. } => (OpCode::GetChildren.wire(), 0),
            MultiResult::Error(error) => (-1, *error),
        };
        out.i32(op);
        out.bool(false);
        out.i32(error);
        match self {
            MultiResult::Create { path } => out.string(path),
            MultiResult::Create2 { path, stat } => {
                out.string(path);
                stat.encode(out);
            }
            MultiResult::Delete | MultiResult::Check => {}
            MultiResult::SetData { stat } => stat.encode(out),
            MultiResult::GetData { data, stat } => {
                out.buffer(*data);
                stat.encode(out);
            }
            MultiResult::GetChildren { children } => encode_strings(children, out),
            MultiResult::Error(error) => out.i32(*error),
        }
    }

    /// Appends the header that ends the slots.
    pub fn encode_end(out: &mut Output<'_>) {
        out.i32(-1);
        out.bool(true);
        out.i32(-1);
    }

    fn decode_all(input: &mut Input<'a>) -> Result<Vec<MultiResult<'a>>, JuteError> {
        let mut results = Vec::new();
        loop {
            let (op, done) = (input.i32()?, input.bool()?);
            input.i32()?;
            if done {
                return Ok(results);
            }
            results.push(match op {
                -1 => MultiResult::Error(input.i32()?),
                1 => MultiResult::Create { path: input.string()? },
                2 => MultiResult::Delete,
                4 => MultiResult::GetData { data: input.buffer()?, stat: Stat::decode(input)? },
                5 => MultiResult::SetData { stat: Stat::decode(input)? },
                8 => MultiResult::GetChildren { children: decode_strings(input)? },
                13 => MultiResult::Check,
                15 => MultiResult::Create2 { path: input.string()?, stat: Stat::decode(input)? },
                unknown => return Err(JuteError::BadDiscriminant(unknown)),
            });
        }
    }
}

fn encode_strings(strings: &[&str], out: &mut Output<'_>) {
    out.len(strings.len());
    strings.iter().for_each(|string| out.string(string));
}

fn decode_strings<'a>(input: &mut Input<'a>) -> Result<Vec<&'a str>, JuteError> {
    let count = input.vector(4)?.unwrap_or(0);
    (0..count).map(|_| input.string()).collect()
}
