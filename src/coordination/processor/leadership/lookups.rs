//! Questions to the shards that own records: asked ahead of validation, and used by it.
//!
//! Invariant: once a request is at the front of the queue, the answers to the request, overlaid with what the sequencer
//! knows, are the records after the last proposal (rule B1).

use super::draft::{LOOKUPS_MAX, foresee_parts};
use super::foresight::{Foresight, Known};
use super::prep::{Missing, RecordSource};
use super::{Item, Leadership};
use crate::base::{SessionId, ShardId, Zxid};
use crate::coordination::processor::message::{
    Lookup, LookupAnswer, LookupKey, LookupTicket, LookupValue, ToShard, WriteBody,
};
use crate::coordination::processor::sequencer::{LocalRecords, SequencerOutputs, Target};
use crate::coordination::tree::{NodeImage, ShardMap};
use crate::protocol::zookeeper::{MultiReader, OpCode, Request};
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records asked for at once on behalf of the requests behind the front, about.
const LOOK_AHEAD_MAX: usize = 4096;

/// What the other shards said to one request.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// In the order in which they came: what is remembered of them must not depend on a table's seed.
    nodes: Vec<(Box<str>, Option<NodeImage>)>,
    /// Places in `nodes`.
    by_path: HashTable<usize>,
    hasher: RandomState,
    ephemerals: BTreeMap<ShardId, Vec<Box<str>>>,
}

impl Answers {
    fn node(&self, path: &str) -> Option<&Option<NodeImage>> {
        let is_it = |place: &usize| *self.nodes[*place].0 == *path;
        self.by_path.find(self.hasher.hash_one(path), is_it).map(|place| &self.nodes[*place].1)
    }

    fn put_node(&mut self, path: Box<str>, image: Option<NodeImage>) {
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.by_path.insert_unique(hasher.hash_one(&*path), nodes.len(), |place| hasher.hash_one(&*nodes[*place].0));
        self.nodes.push((path, image));
    }
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Ticket {
    shard: ShardId,
    keys: Arc<[LookupKey]>,
    /// Number of the waiting request, counted since the start.
    waiting: u64,
}

impl Ticket {
    /// The shard that was asked.
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// True when it was asked on behalf of this request.
    pub(super) fn is_of(&self, request: u64) -> bool {
        self.waiting == request
    }
}

impl Leadership {
    /// While the front of the queue waits for records, asks for what the requests behind it will surely need, once for each
    /// request. When the front can be validated at once, nothing is looked at: most requests are about records that are
    /// known.
    pub(super) fn look_ahead(&mut self, handed: Zxid, out: &mut SequencerOutputs) {
        if self.config.map.shards() == 1 || self.queue.front().is_none_or(|front| front.unanswered == 0) {
            return;
        }
        let looked_at = self.queue.partition_point(|waiting| waiting.issued_after != Zxid::MAX);
        let mut asked = 0;
        for place in looked_at..self.queue.len() {
            // The rest has its turn when the front has its answers.
            if asked >= LOOK_AHEAD_MAX {
                return;
            }
            let keys = self.first_remote_keys(&self.queue[place].item);
            asked += keys.len() + 1;
            // A request that asks nothing now is stamped as well: it may ask in its turn, and the requests behind it then
            // hold older answers.
            self.queue[place].issued_after = handed;
            self.ask(place, keys, handed, out);
        }
    }

    fn first_remote_keys(&self, item: &Item) -> Vec<LookupKey> {
        let (op, record) = match item {
            Item::Expiry { session, .. } => return vec![LookupKey::Ephemerals(*session)],
            Item::Request(request) => match &request.body {
                WriteBody::CloseSession => return vec![LookupKey::Ephemerals(request.session)],
                WriteBody::Operation { op, record } => (*op, record),
                _ => return Vec::new(),
            },
        };
        let mut ahead = Foresight::new(self);
        if op == OpCode::Multi.wire() {
            foresee_parts(&mut ahead, MultiReader::new(record));
        } else if let Ok(request) = Request::decode(op, record) {
            ahead.request(&request);
        }
        ahead.into_keys()
    }

    /// Sends lookups for what the request at `place` in the queue needs from other shards.
    pub(super) fn ask(&mut self, place: usize, keys: Vec<LookupKey>, handed: Zxid, out: &mut SequencerOutputs) {
        if keys.is_empty() {
            return;
        }
        let mut by_shard: BTreeMap<ShardId, Vec<LookupKey>> = BTreeMap::new();
        for key in keys {
            match &key {
                LookupKey::Node(path) => by_shard.entry(self.config.map.owner(path)).or_default().push(key),
                LookupKey::Ephemerals(_) => {
                    for shard in self.config.map.all().filter(|shard| *shard != self.config.local) {
                        by_shard.entry(shard).or_default().push(key.clone());
                    }
                }
            }
        }
        for (shard, keys) in by_shard {
            let keys: Arc<[LookupKey]> = keys.into();
            let ticket = self.next_ticket;
            self.next_ticket = LookupTicket(ticket.0 + 1);
            let lookup = Lookup { ticket, keys: keys.clone() };
            out.messages.push((Target::One(shard), ToShard::Lookup(lookup)));
            self.tickets.insert(ticket, Ticket { shard, keys, waiting: self.front + place as u64 });
            let waiting = &mut self.queue[place];
            waiting.unanswered += 1;
            waiting.issued_after = waiting.issued_after.min(handed);
        }
    }

    pub(super) fn answered(&mut self, from: ShardId, answer: LookupAnswer) {
        let Some(ticket) = self.tickets.remove(&answer.ticket) else { return };
        debug_assert_eq!(from, ticket.shard);
        // A request leaves the queue only when its lookups are answered.
        let waiting = &mut self.queue[(ticket.waiting - self.front) as usize];
        waiting.unanswered -= 1;
        let answers = waiting.answers.get_or_insert_default();
        for (key, value) in ticket.keys.iter().zip(answer.values) {
            match (key, value) {
                // The answer to a question that was asked twice says the same: neither is older than the other for this request.
                (LookupKey::Node(path), LookupValue::Node(_)) if answers.node(path).is_some() => {}
                (LookupKey::Node(path), LookupValue::Node(image)) => answers.put_node(path.clone(), image),
                (LookupKey::Ephemerals(_), LookupValue::Ephemerals(paths)) => {
                    answers.ephemerals.insert(from, paths);
                }
                _ => unreachable!("an answer has the kind of its key"),
            }
        }
    }

    /// Remembers the answers that a request was validated with: they hold for the next request as well. Of a long one only
    /// the first are kept: it must not push out what others need, nor hold anybody for that.
    pub(super) fn learn(&mut self, answers: Option<Box<Answers>>) {
        for (path, image) in answers.iter().flat_map(|answers| &answers.nodes).take(LOOKUPS_MAX) {
            self.known.learn(path, image.as_ref());
        }
    }
}

/// What is known of the requests behind the front: those before them may still change any sequence number.
impl Known for Leadership {
    fn is_missing(&self, path: &str) -> bool {
        self.config.map.owner(path) != self.config.local && !self.known.contains(path)
    }

    fn next_sequence(&self, _: &str) -> Option<i32> {
        None
    }
}

/// The owners' records as one request may see them.
pub(super) struct Source<'a> {
    pub map: &'a ShardMap,
    pub local_shard: ShardId,
    pub local: &'a dyn LocalRecords,
    pub answers: Option<&'a Answers>,
}

impl RecordSource for Source<'_> {
    fn node(&self, path: &str) -> Result<Option<NodeImage>, Missing> {
        if self.map.owner(path) == self.local_shard {
            return Ok(self.local.image(path));
        }
        match self.answers.and_then(|answers| answers.node(path)) {
            Some(image) => Ok(image.clone()),
            None => Err(Missing(vec![LookupKey::Node(path.into())])),
        }
    }

    fn ephemerals(&self, session: SessionId) -> Result<Vec<Box<str>>, Missing> {
        let answers = self.answers.map(|answers| &answers.ephemerals);
        if answers.map_or(0, BTreeMap::len) + 1 < usize::from(self.map.shards()) {
            return Err(Missing(vec![LookupKey::Ephemerals(session)]));
        }
        let mut paths = self.local.ephemerals(session);
        paths.extend(answers.into_iter().flat_map(BTreeMap::values).flatten().cloned());
        Ok(paths)
    }
}
