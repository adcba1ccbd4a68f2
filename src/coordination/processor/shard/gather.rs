//! Reads that are not answered within their turn: they ask the owners of the records, and long ones come in pieces.
//!
//! A read has its turn, its position and its place in the output at once. What it brings is bounded by these rules:
//! - While the output of its connection has room, a read behind others asks at once, and its questions carry what their answers may
//!   be: about what the last replies were. That is promised to its place, and counts as if it were there.
//! - A read that needs more, or that had its turn when there was no room, goes on when its place is the first and what is ready
//!   leaves room. So a connection has at most one reply of unknown length under way.
//! - No reply is longer than `reply_bytes_max`: where one would be, its connection is closed.
//!
//! A read that waits for room keeps its position, and every shard keeps how to undo what came after it. That has a bound, too:
//! beyond it the connection is cut off ([`Shard::cut_off_holders`]).

use super::encode::{Extent, Reader, begin_reply, end_reply};
use super::multi_read::MultiRead;
use super::output::PlaceId;
use super::read_cache::CachedRecord;
use super::set_watches::WatchesAsked;
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, Zxid, coverage, planted};
use crate::coordination::auth::Identities;
use crate::coordination::processor::peer::{
    BriefStat, Found, GatherId, Part, PeerAnswer, PeerMessage, PeerRead, Question, ReadKind, ReadResult,
};
use crate::coordination::watch::{Tag, WatchKind};
use crate::protocol::zookeeper::ErrorCode;
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;

/// Parts of a multiRead, or paths of a setWatches, that are worked off at once: some hundred microseconds.
pub(super) const PARTS_MAX: usize = 512;
/// What the first questions of a read may bring at most, for each owner. A longer reply waits until its place is the first.
const PROMISED_BYTES_MAX: usize = 128 << 10;

/// A read that is not answered yet.
#[derive(Debug)]
pub(super) struct Gather {
    pub connection: u64,
    pub xid: i32,
    pub position: Zxid,
    pub place: PlaceId,
    /// Whom the connection had proved to be when the read had its turn.
    pub identities: Identities,
    /// When the request was read.
    pub since_us: u64,
    /// Questions that are not answered yet.
    pub under_way: usize,
    /// Its connection is gone. The position is kept until what is under way was answered.
    pub abandoned: bool,
    pub job: Job,
}

/// What a read gathers.
#[derive(Debug)]
pub(super) enum Job {
    One(OneRead),
    Multi(MultiRead),
    Watches(WatchesAsked),
}

/// How much the questions of a read may bring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowance {
    /// Other replies come before it: so many bytes from each owner.
    Promised(usize),
    /// Its place is the first: as long as a reply may be.
    Reply(usize),
}

/// A question to be sent.
#[derive(Debug)]
pub(super) struct Ask {
    pub owner: ShardId,
    pub bytes_max: usize,
    pub question: Question,
}

/// The answer makes the reply longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyTooLong;

/// What of a job and of an answer to it belong together.
type Pairs<'a> = SmallVec<[(&'a Part, &'a ReadResult); 1]>;

impl Job {
    fn ask(&mut self, allowance: Allowance) -> Vec<Ask> {
        match self {
            Job::One(read) => vec![read.ask(allowance)],
            Job::Multi(read) => read.ask(allowance),
            Job::Watches(watches) => watches.ask(),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Job::One(read) => read.ended,
            Job::Multi(read) => read.is_complete(),
            // All its questions go out together.
            Job::Watches(_) => true,
        }
    }

    fn answered(&mut self, from: ShardId, found: Found, reply_bytes_max: usize) -> Result<(), ReplyTooLong> {
        match (self, found) {
            (_, Found::TooLong) => Err(ReplyTooLong),
            (Job::One(read), found) => read.answered(found, reply_bytes_max),
            (Job::Multi(read), found) => read.answered(from, found, reply_bytes_max),
            (Job::Watches(watches), Found::Brief(stats)) => {
                watches.answered(from, &stats);
                Ok(())
            }
            (Job::Watches(_), _) => Ok(()),
        }
    }

    fn pairs<'a>(&'a self, from: ShardId, found: &'a Found) -> Pairs<'a> {
        match (self, found) {
            (Job::One(read), Found::Parts(results)) => results.iter().map(|result| (&read.part, result)).collect(),
            (Job::One(read), Found::Piece { result, .. }) => smallvec![(&read.part, result)],
            (Job::Multi(read), Found::Parts(results)) => read.asked_of(from).zip(results).collect(),
            _ => Pairs::new(),
        }
    }
}

/// exists, getData, getChildren, getChildren2 or getACL.
#[derive(Debug)]
pub(super) struct OneRead {
    pub owner: ShardId,
    pub part: Part,
    pub watch: Option<(WatchKind, Box<str>, Tag)>,
    /// The reply as far as it has come.
    reply: Vec<u8>,
    /// The last name in it, while others are to come.
    more_after: Option<Box<str>>,
    ended: bool,
    error: Option<ErrorCode>,
}

impl OneRead {
    pub(super) fn new(owner: ShardId, part: Part, watch: Option<(WatchKind, Box<str>, Tag)>) -> OneRead {
        OneRead { owner, part, watch, reply: Vec::new(), more_after: None, ended: false, error: None }
    }

    fn ask(&self, allowance: Allowance) -> Ask {
        let part = self.part.clone();
        let (bytes_max, question) = match allowance {
            Allowance::Promised(bytes) => (bytes, Question::Parts(smallvec![part])),
            Allowance::Reply(bytes) => {
                (bytes.saturating_sub(self.reply.len()), Question::Piece { part, after: self.more_after.clone() })
            }
        };
        Ask { owner: self.owner, bytes_max, question }
    }

    fn answered(&mut self, found: Found, reply_bytes_max: usize) -> Result<(), ReplyTooLong> {
        let (result, more_after) = match found {
            Found::Parts(mut results) => match results.pop() {
                Some(result) => (result, None),
                None => return Ok(()),
            },
            Found::Piece { result, more_after } => (result, more_after),
            Found::TooLong | Found::Brief(_) => return Err(ReplyTooLong),
        };
        if self.reply.is_empty() {
            begin_reply(&mut self.reply);
        }
        match result {
            ReadResult::Body { bytes, .. } => self.reply.extend_from_slice(&bytes),
            ReadResult::Error(code) => self.error = Some(code),
        }
        self.ended = more_after.is_none();
        self.more_after = more_after;
        if self.reply.len() > reply_bytes_max { Err(ReplyTooLong) } else { Ok(()) }
    }
}

/// The positions of reads that are not answered.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// Ascending, with the number of unanswered reads at each, and how much had been applied by then.
    open: VecDeque<OpenPosition>,
}

#[derive(Debug)]
struct OpenPosition {
    position: Zxid,
    reads: usize,
    applied_bytes: u64,
}

impl Positions {
    pub(super) fn oldest(&self) -> Option<Zxid> {
        self.open.front().map(|open| open.position)
    }

    fn add(&mut self, position: Zxid, applied_bytes: u64) {
        match self.open.back_mut() {
            Some(last) if last.position == position => last.reads += 1,
            _ => self.open.push_back(OpenPosition { position, reads: 1, applied_bytes }),
        }
    }

    fn remove(&mut self, position: Zxid) {
        if let Ok(index) = self.open.binary_search_by_key(&position, |open| open.position) {
            self.open[index].reads -= 1;
        }
        while self.open.pop_front_if(|open| open.reads == 0).is_some() {}
    }

    /// The newest position that was taken when no more than `applied_bytes` had been applied.
    fn newest_until(&self, applied_bytes: u64) -> Option<Zxid> {
        let until = self.open.partition_point(|open| open.applied_bytes <= applied_bytes);
        self.open.get(until.checked_sub(1)?).map(|open| open.position)
    }
}

impl Shard {
    /// A read has its turn, and asks for what it needs as far as there is room.
    pub(super) fn begin(&mut self, number: u64, xid: i32, mut job: Job, out: &mut ShardOutputs) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        self.next_gather += 1;
        let id = GatherId(self.next_gather);
        let promised = connection.output.reply_bytes_expected().min(PROMISED_BYTES_MAX);
        let room = connection.output.bytes() < self.config.output_bytes_max;
        let allowance = match connection.output.has_unfilled() {
            false => Allowance::Reply(self.config.reply_bytes_max),
            true => Allowance::Promised(promised),
        };
        let asks = if room || matches!(job, Job::Watches(_)) { job.ask(allowance) } else { Vec::new() };
        let place = connection.output.reserve(id, promised * asks.len().max(1));
        let (position, identities) = (self.applied, connection.identities.clone());
        let gather = Gather {
            connection: number,
            xid,
            position,
            place,
            identities,
            since_us: self.asked_us,
            under_way: asks.len(),
            abandoned: false,
            job,
        };
        self.open_position(position);
        self.send_questions(id, &gather, asks, out);
        self.gathers.insert(id, gather);
    }

    fn send_questions(&self, id: GatherId, gather: &Gather, asks: Vec<Ask>, out: &mut ShardOutputs) {
        let split = planted::is("multi-split") && matches!(gather.job, Job::Multi(_));
        for Ask { owner, bytes_max, question } in asks {
            let position = if split { Zxid::ZERO } else { gather.position };
            let read = PeerRead { gather: id, position, identities: gather.identities.clone(), bytes_max, question };
            out.to_peers.push((owner, PeerMessage::Read(read)));
        }
    }

    /// The read whose place is the first goes on, when it has waited for that and what is ready leaves room.
    pub(super) fn go_on_first(&mut self, number: u64, out: &mut ShardOutputs) {
        let Some(connection) = self.connections.get(&number) else { return };
        let Some(id) = connection.output.first_unfilled() else { return };
        if connection.output.ready().0.len() >= self.config.output_bytes_max {
            return;
        }
        let Some(mut gather) = self.gathers.remove(&id) else { return };
        if gather.under_way == 0 {
            let asks = gather.job.ask(Allowance::Reply(self.config.reply_bytes_max));
            if asks.is_empty() {
                return self.finish(gather, out);
            }
            gather.under_way = asks.len();
            self.send_questions(id, &gather, asks, out);
        }
        self.gathers.insert(id, gather);
    }

    /// A question of another shard, or of this one: answered now, or parked until this shard is there.
    pub(super) fn peer_read(&mut self, from: ShardId, read: PeerRead, out: &mut ShardOutputs) {
        if read.position > self.applied {
            coverage::mark("peer-read-parked");
            self.parked.entry(read.position).or_default().push((from, read));
        } else {
            self.answer_peer(from, read, out);
        }
    }

    pub(super) fn serve_parked(&mut self, out: &mut ShardOutputs) {
        while let Some(entry) = self.parked.first_entry().filter(|entry| *entry.key() <= self.applied) {
            for (from, read) in entry.remove() {
                self.answer_peer(from, read, out);
            }
        }
    }

    fn answer_peer(&mut self, from: ShardId, read: PeerRead, out: &mut ShardOutputs) {
        let as_of_now =
            planted::is("a2-read-sees-later-write") || (planted::is("multi-split") && read.position == Zxid::ZERO);
        let position = if as_of_now { self.applied } else { read.position };
        let reader = Reader { tree: &self.tree, auth: &self.config.auth, identities: &read.identities, position };
        let found = match read.question {
            Question::Parts(parts) => {
                let mut bytes_left = read.bytes_max;
                let fitting = parts.iter().map_while(|part| {
                    let (result, _) = reader.result(part, Extent::Whole, bytes_left)?;
                    bytes_left = bytes_left.saturating_sub(result.body_bytes());
                    Some(result)
                });
                Found::Parts(fitting.collect())
            }
            Question::Piece { part, after } => {
                match reader.result(&part, Extent::Piece(after.as_deref()), read.bytes_max) {
                    Some((result, more_after)) => Found::Piece { result, more_after },
                    None => Found::TooLong,
                }
            }
            Question::Brief(paths) => Found::Brief(paths.iter().map(|path| self.brief(path, position)).collect()),
        };
        out.to_peers.push((from, PeerMessage::Answer(PeerAnswer { gather: read.gather, found })));
    }

    /// What setWatches compares with.
    pub(super) fn brief(&self, path: &str, position: Zxid) -> Option<BriefStat> {
        let view = self.tree.view(path, position)?;
        Some(BriefStat { mzxid: view.stat().mzxid, pzxid: view.stat().pzxid })
    }

    /// The answer of an owner: the read is complete with it, or goes on as soon as it may.
    pub(super) fn peer_answer(&mut self, from: ShardId, answer: PeerAnswer, out: &mut ShardOutputs) {
        let Some(mut gather) = self.gathers.remove(&answer.gather) else { return };
        gather.under_way = gather.under_way.saturating_sub(1);
        let number = gather.connection;
        if !gather.abandoned {
            self.keep_copies(from, &gather, &answer.found);
            if gather.job.answered(from, answer.found, self.config.reply_bytes_max).is_err() {
                self.gathers.insert(answer.gather, gather);
                return self.refuse_reply(number, out);
            }
        }
        if gather.under_way > 0 {
            self.gathers.insert(answer.gather, gather);
        } else if gather.abandoned {
            self.close_position(gather.position);
        } else if gather.job.is_complete() {
            self.finish(gather, out);
        } else {
            self.gathers.insert(answer.gather, gather);
            self.go_on_first(number, out);
        }
    }

    /// Keeps what other shards answered, if it is still true. What was true at an older position may have changed since.
    fn keep_copies(&mut self, from: ShardId, gather: &Gather, found: &Found) {
        if from == self.config.id || (gather.position != self.applied && !planted::is("old-record-cached")) {
            return;
        }
        for (part, result) in gather.job.pairs(from, found) {
            if let (ReadKind::Data, ReadResult::Body { bytes, acl }) = (part.kind, result)
                && let Some(acl) = self.tree.acls().find(*acl)
            {
                self.read_cache.put(part.path.clone(), CachedRecord { body: bytes.clone(), acl });
            }
        }
    }

    fn finish(&mut self, gather: Gather, out: &mut ShardOutputs) {
        let Gather { connection: number, xid, position, place, job, since_us, .. } = gather;
        out.latencies_us.push(self.now_us.saturating_sub(since_us));
        self.close_position(position);
        let position = if planted::is("a7-header-zxid-of-home") { self.applied } else { position };
        let bytes = match job {
            Job::One(OneRead { part, watch, mut reply, error, .. }) => {
                end_reply(xid, position, error, 0, &mut reply);
                if let Some(watch) = watch {
                    self.settle_read_watch(number, part.kind, watch, error);
                }
                reply
            }
            Job::Multi(read) => {
                let mut reply = Vec::new();
                read.encode(xid, position, &mut reply);
                reply
            }
            Job::Watches(watches) => self.finish_watches(number, xid, position, &watches, out),
        };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.packets_sent += 1;
        connection.output.fill(place, position, bytes);
        let resumes = !connection.output.has_unfilled() && connection.can_resume();
        Self::mark_dirty(connection, out);
        self.go_on_first(number, out);
        if resumes {
            coverage::mark("request-waited-for-reads");
            self.pump(number, out);
        }
    }

    /// A read with a watch was answered. With `keep` the watch's registration stays; otherwise the registration loses the
    /// tag of the read. If the registration has fired already, the same happens to its event.
    pub(super) fn settle_watch(&mut self, number: u64, kind: WatchKind, node_path: &str, tag: Tag, keep: bool) {
        if !keep {
            coverage::mark("tentative-watch-dropped");
        }
        if !self.watches.settle(number, kind, node_path, tag, keep)
            && let Some(connection) = self.connections.get_mut(&number)
        {
            coverage::mark("tentative-watch-had-fired");
            connection.output.settle(tag, keep);
        }
    }

    /// A reply would be longer than any may be: its connection is closed, after what is ready for it.
    pub(super) fn refuse_reply(&mut self, number: u64, out: &mut ShardOutputs) {
        out.refused_replies.push(number);
        self.close_now(number, out);
    }

    /// The places of these reads are given up. What is under way is still answered, to nobody.
    pub(super) fn abandon(&mut self, gathers: Vec<GatherId>) {
        for id in gathers {
            let Some(mut gather) = self.gathers.remove(&id) else { continue };
            if gather.under_way == 0 {
                self.close_position(gather.position);
            } else {
                gather.abandoned = true;
                self.gathers.insert(id, gather);
            }
        }
    }

    /// A read is executed at `position`, which is `applied`, and not answered at once.
    fn open_position(&mut self, position: Zxid) {
        if self.config.map.shards() == 1 && self.positions.oldest().is_none() {
            self.tree.keep_history_above(position);
        }
        self.positions.add(position, self.applied_bytes);
    }

    fn close_position(&mut self, position: Zxid) {
        self.positions.remove(position);
        if self.config.map.shards() > 1 {
            return;
        }
        match self.positions.oldest() {
            Some(oldest) => self.tree.set_floor(oldest),
            None => self.tree.keep_history(false),
        }
    }

    /// Cuts off connections whose reads wait for them to take their output, while more was applied than may be kept for that.
    pub(super) fn cut_off_holders(&mut self, out: &mut ShardOutputs) {
        let until = self.applied_bytes.checked_sub(self.config.output_bytes_limit as u64);
        let Some(newest) = until.and_then(|until| self.positions.newest_until(until)) else { return };
        let holds = |gather: &&Gather| gather.under_way == 0 && !gather.abandoned && gather.position <= newest;
        let mut holders: Vec<u64> = self.gathers.values().filter(holds).map(|gather| gather.connection).collect();
        holders.sort();
        holders.dedup();
        for number in holders {
            self.cut_off(number, out);
        }
    }
}
