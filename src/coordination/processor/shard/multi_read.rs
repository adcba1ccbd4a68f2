//! multiRead: every part as of one position (rule A6).

use super::encode::{Encoded, Extent, NoBody, PIECE_BYTES, REPLY_HEAD_BYTES, Reader, begin_reply, end_reply};
use super::gather::{Allowance, Ask, Job, PARTS_MAX, ReplyTooLong};
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, Zxid};
use crate::coordination::processor::peer::{Found, Part, Question, ReadKind, ReadResult};
use crate::coordination::tree::path;
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{ErrorCode, MultiOp, MultiResult, OpCode};
use std::collections::{BTreeMap, VecDeque};

/// What one question brings at most: a node of the default `jute.maxbuffer` fits.
const QUESTION_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Header of one result.
const RESULT_HEAD_BYTES: usize = 9;

/// A multiRead that is not answered yet.
#[derive(Debug)]
pub(super) struct MultiRead {
    parts: Vec<Part>,
    results: Vec<Option<ReadResult>>,
    queues: BTreeMap<ShardId, PartQueue>,
    /// Parts that did not fit with others: each is asked for alone.
    long: VecDeque<(ShardId, usize)>,
    /// Of the first of `long`: the last name that has come, while others are to come.
    more_after: Option<Box<str>>,
    /// What the results take in the reply.
    reply_bytes: usize,
}

/// Parts that one owner is still to be asked for.
#[derive(Debug)]
struct PartQueue {
    parts: VecDeque<usize>,
    /// So many at the next question: parts that did not fit are asked for again.
    next: usize,
}

impl MultiRead {
    fn new(parts: Vec<Part>, owner: impl Fn(&str) -> ShardId) -> MultiRead {
        let mut queues: BTreeMap<ShardId, PartQueue> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            let queue = queues.entry(owner(&part.path));
            queue.or_insert_with(|| PartQueue { parts: VecDeque::new(), next: PARTS_MAX }).parts.push_back(index);
        }
        let results = parts.iter().map(|_| None).collect();
        MultiRead { parts, results, queues, long: VecDeque::new(), more_after: None, reply_bytes: REPLY_HEAD_BYTES }
    }

    /// The parts that are asked of an owner at once, in their order.
    pub(super) fn asked_of(&self, owner: ShardId) -> impl Iterator<Item = &Part> {
        let queue = self.queues.get(&owner);
        queue.into_iter().flat_map(|queue| queue.parts.iter().take(queue.next)).map(|index| &self.parts[*index])
    }

    pub(super) fn is_complete(&self) -> bool {
        self.queues.is_empty() && self.long.is_empty()
    }

    pub(super) fn ask(&self, allowance: Allowance) -> Vec<Ask> {
        if let (Some((owner, index)), true) = (self.long.front(), self.queues.is_empty()) {
            let bytes_max = match allowance {
                Allowance::Promised(bytes) => bytes,
                Allowance::Reply(bytes) => bytes.saturating_sub(self.reply_bytes + RESULT_HEAD_BYTES),
            };
            let question = Question::Piece { part: self.parts[*index].clone(), after: self.more_after.clone() };
            return vec![Ask { owner: *owner, bytes_max, question }];
        }
        let bytes_max = match allowance {
            Allowance::Promised(bytes) => bytes,
            Allowance::Reply(bytes) => {
                (bytes.saturating_sub(self.reply_bytes) / self.queues.len().max(1)).min(QUESTION_BYTES_MAX)
            }
        };
        let ask = |owner: &ShardId| {
            let question = Question::Parts(self.asked_of(*owner).cloned().collect());
            Ask { owner: *owner, bytes_max, question }
        };
        self.queues.keys().map(ask).collect()
    }

    pub(super) fn answered(&mut self, from: ShardId, found: Found, reply_bytes_max: usize) -> Result<(), ReplyTooLong> {
        match found {
            Found::Parts(results) => self.parts_found(from, results),
            Found::Piece { result, more_after } => self.piece_found(result, more_after),
            Found::TooLong | Found::Brief(_) => return Err(ReplyTooLong),
        }
        if self.reply_bytes > reply_bytes_max { Err(ReplyTooLong) } else { Ok(()) }
    }

    fn parts_found(&mut self, from: ShardId, results: impl IntoIterator<Item = ReadResult>) {
        let Some(queue) = self.queues.get_mut(&from) else { return };
        let mut fitted = 0;
        for result in results {
            let Some(index) = queue.parts.pop_front() else { break };
            self.reply_bytes += RESULT_HEAD_BYTES + result.body_bytes().max(size_of::<i32>());
            self.results[index] = Some(result);
            fitted += 1;
        }
        queue.next = (fitted * 2).clamp(1, PARTS_MAX);
        if fitted == 0 {
            self.long.extend(queue.parts.pop_front().map(|index| (from, index)));
        }
        if queue.parts.is_empty() {
            self.queues.remove(&from);
        }
    }

    fn piece_found(&mut self, result: ReadResult, more_after: Option<Box<str>>) {
        let Some((_, index)) = self.long.front() else { return };
        self.reply_bytes += result.body_bytes().max(size_of::<i32>());
        match (&mut self.results[*index], result) {
            (Some(ReadResult::Body { bytes, .. }), ReadResult::Body { bytes: more, .. }) => {
                bytes.extend_from_slice(&more)
            }
            (slot, result) => {
                self.reply_bytes += RESULT_HEAD_BYTES;
                *slot = Some(result);
            }
        }
        if more_after.is_none() {
            self.long.pop_front();
        }
        self.more_after = more_after;
    }

    /// Appends the reply.
    pub(super) fn encode(self, xid: i32, position: Zxid, buffer: &mut Vec<u8>) {
        buffer.reserve_exact(self.reply_bytes + RESULT_HEAD_BYTES);
        let start = buffer.len();
        begin_reply(buffer);
        for (part, result) in self.parts.iter().zip(self.results) {
            let found = match &result {
                Some(ReadResult::Body { bytes, .. }) => Ok(&bytes[..]),
                Some(ReadResult::Error(code)) => Err(*code),
                None => Err(ErrorCode::SystemError),
            };
            append_result(part.kind, found, buffer);
        }
        MultiResult::encode_end(&mut Output::new(buffer));
        end_reply(xid, position, None, start, buffer);
    }
}

fn append_head(kind: ReadKind, buffer: &mut Vec<u8>) {
    let op = if kind == ReadKind::Data { OpCode::GetData } else { OpCode::GetChildren };
    let mut out = Output::new(buffer);
    out.i32(op.wire());
    out.bool(false);
    out.i32(0);
}

fn append_result(kind: ReadKind, found: Result<&[u8], ErrorCode>, buffer: &mut Vec<u8>) {
    match found {
        Ok(body) => {
            append_head(kind, buffer);
            buffer.extend_from_slice(body);
        }
        Err(code) => MultiResult::Error(code.wire()).encode(&mut Output::new(buffer)),
    }
}

impl Shard {
    pub(super) fn multi_read(&mut self, number: u64, xid: i32, ops: &[MultiOp<'_>], out: &mut ShardOutputs) {
        let part = |op: &MultiOp<'_>| match op {
            MultiOp::GetData { path } => Some((ReadKind::Data, path::canonical(path).into())),
            MultiOp::GetChildren { path } => Some((ReadKind::Children, path::canonical(path).into())),
            // Decoding refuses writes in a multiRead.
            _ => None,
        };
        let parts: Vec<Part> = ops.iter().filter_map(part).map(|(kind, path)| Part { kind, path }).collect();
        if !self.multi_read_here(number, xid, &parts, out) {
            let map = &self.config.map;
            let read = MultiRead::new(parts, |path| map.owner(path));
            self.begin(number, xid, Job::Multi(read), out);
        }
    }

    /// Answers a short one whose records are all here. False when it must be gathered.
    fn multi_read_here(&mut self, number: u64, xid: i32, parts: &[Part], out: &mut ShardOutputs) -> bool {
        let position = self.applied;
        let here =
            parts.len() <= PARTS_MAX && parts.iter().all(|part| self.config.map.owner(&part.path) == self.config.id);
        let Some(connection) = self.connections.get_mut(&number) else { return true };
        if !here || connection.output.bytes() >= self.config.output_bytes_max {
            return false;
        }
        let reader = Reader { tree: &self.tree, auth: &self.config.auth, identities: &connection.identities, position };
        let whole = connection.output.append(position, |buffer| {
            let start = buffer.len();
            begin_reply(buffer);
            for part in parts {
                let head = buffer.len();
                append_head(part.kind, buffer);
                let bytes_left = PIECE_BYTES.saturating_sub(buffer.len() - start);
                match reader.append(part.kind, &part.path, Extent::Whole, bytes_left, buffer) {
                    Ok(Encoded { .. }) => {}
                    Err(NoBody::Error(code)) => {
                        buffer.truncate(head);
                        append_result(part.kind, Err(code), buffer);
                    }
                    Err(NoBody::TooLong) => {
                        buffer.truncate(start);
                        return false;
                    }
                }
            }
            MultiResult::encode_end(&mut Output::new(buffer));
            end_reply(xid, position, None, start, buffer);
            true
        });
        if whole {
            connection.packets_sent += 1;
            out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
            Self::mark_dirty(connection, out);
        }
        whole
    }
}
