//! The part of a server that orders writes: one [`Leadership`] over the [`CommitLog`] of the server.
//!
//! The driver's duties, in this order, on the executor of the local shard:
//! 1. feed [`Sequencer::receive`], [`Sequencer::tick`], [`Sequencer::durable`], [`Sequencer::applied_everywhere`] and
//!    [`Sequencer::set_deaf`];
//! 2. ask the log for [`Sequencer::room_wanted`] ([`super::Admission`]), and call [`Sequencer::advance`], which validates what has room,
//!    or [`Sequencer::refuse`];
//! 3. append every new proposal to the log ([`Sequencer::new_proposals`]);
//! 4. deliver [`SequencerOutputs`]: to each shard in the order given, to the local one at once, before `advance` is called
//!    again: it reads the local shard's records directly;
//! 5. while [`Sequencer::has_more`], let other tasks have a turn and begin again at 2.
//!
//! Rules: B1 (lookups and batches in one FIFO; changes stay outstanding while a request may rely on older answers), B2 (nothing is
//! validated before the epoch's opening record was handed over), B6 (sessions are looked at as the proposals leave them), B7
//! (validation suspends and goes on, nothing behind it is validated meanwhile), B11 (refused before it is proposed), A11 (only the
//! session's current connection may write).

use super::commit_log::CommitLog;
use super::leadership::{Leadership, RoomWanted};
use super::message::{ToSequencer, ToShard};
use super::stall_detector::{Progress, WaitsFor};
use crate::base::{SessionId, ShardId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::session::{SessionIds, SessionTable};
use crate::coordination::tree::{NodeImage, ShardMap};
use std::sync::Arc;

/// Steps of validation between which other tasks of the executor have their turn: about half a millisecond of them.
pub const SLICE_STEPS: usize = 512;

/// What a sequencer is started with.
#[derive(Clone, Debug)]
pub struct SequencerConfig {
    /// The shard whose executor it shares.
    pub local: ShardId,
    /// Who owns which path.
    pub map: ShardMap,
    /// Who may do what.
    pub auth: Arc<AuthConfig>,
    /// Sessions expire in buckets of this.
    pub tick_ms: u32,
    /// What may be remembered of records so that their owners need not be asked again.
    pub remembered_bytes_max: usize,
    /// Steps of validation in one go: [`SLICE_STEPS`].
    pub slice_steps: usize,
}

/// The records of the local shard, with everything applied that was handed to it.
pub trait LocalRecords {
    /// What prep needs to know of the node at `path`.
    fn image(&self, path: &str) -> Option<NodeImage>;

    /// The ephemeral nodes of `session` here, sorted.
    fn ephemerals(&self, session: SessionId) -> Vec<Box<str>>;
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every shard, the local one included.
    All,
    /// One shard, never the local one.
    One(ShardId),
}

/// What must be delivered, in this order.
#[derive(Debug, Default)]
pub struct SequencerOutputs {
    /// Messages and their receivers.
    pub messages: Vec<(Target, ToShard)>,
}

/// What one turn of validation works with.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// The records of the local shard.
    pub records: &'a dyn LocalRecords,
    /// Monotonic.
    pub now_ms: i64,
    /// The time of the transactions.
    pub wall_ms: i64,
    /// Room that the log has granted for this turn, bytes.
    pub room_bytes: usize,
}

/// Gives the order.
#[derive(Debug)]
pub struct Sequencer {
    commits: CommitLog,
    leadership: Leadership,
}

impl Sequencer {
    /// A sequencer that goes on after `last`, the end of the recovered log, with the sessions that exist there. Every session
    /// gets its full timeout again.
    pub fn new(config: SequencerConfig, last: Zxid, sessions: SessionTable, ids: SessionIds, now_ms: i64) -> Sequencer {
        Sequencer { commits: CommitLog::new(last), leadership: Leadership::new(config, sessions, ids, now_ms) }
    }

    /// Proposes the opening record of the next epoch: a leadership does not survive its process (rule E4).
    pub fn open_epoch(&mut self, wall_ms: i64) {
        self.leadership.open_epoch(wall_ms, &mut self.commits);
    }

    /// Like [`Sequencer::open_epoch`], and above the epoch of `highest`, too: the highest zxid that was ever given out. The caller has
    /// checked that an epoch is left.
    pub fn open_epoch_above(&mut self, highest: Zxid, wall_ms: i64) {
        self.leadership.open_epoch_above(highest, wall_ms, &mut self.commits);
    }

    /// What every server has: the proposals, and how far they have come.
    pub fn commits(&self) -> &CommitLog {
        &self.commits
    }

    /// The last proposal.
    pub fn last(&self) -> Zxid {
        self.commits.proposed()
    }

    /// Goes on after `zxid`, so that the end of an epoch can be reached within the life of a test or a simulation.
    pub fn skip_to(&mut self, zxid: Zxid) {
        self.commits.skip_to(zxid);
    }

    /// The last transaction handed to the shards.
    pub fn handed(&self) -> Zxid {
        self.commits.handed()
    }

    /// Requests waiting for validation.
    pub fn queued(&self) -> usize {
        self.leadership.queued()
    }

    /// Memory of requests and proposals that were not handed to the shards.
    pub fn held_bytes(&self) -> usize {
        self.leadership.queued_bytes() + self.commits.proposed_bytes()
    }

    /// True once the epoch is open.
    pub fn is_open(&self) -> bool {
        self.leadership.is_open(&self.commits)
    }

    /// A message from a shard. `now_ms` is monotonic.
    pub fn receive(&mut self, from: ShardId, message: ToSequencer, now_ms: i64) {
        self.leadership.receive(from, message, now_ms);
    }

    /// Clients cannot be heard from now on, or can again: they are held back, or could not come back if their connection broke.
    pub fn set_deaf(&mut self, deaf: bool, now_ms: i64) {
        self.leadership.set_deaf(deaf, now_ms);
    }

    /// A turn of the clock: sessions that were not heard of are put in the queue to be closed (rule B13).
    pub fn tick(&mut self, now_ms: i64) {
        self.leadership.tick(now_ms, &self.commits);
    }

    /// Room in the log for what validation would come to next; `None` when there is nothing to validate now.
    pub fn room_wanted(&mut self) -> Option<RoomWanted> {
        self.leadership.room_wanted(&self.commits)
    }

    /// Validates requests from the front of the queue until one must wait for a record or for room, or a slice of the executor's time is
    /// used up: see [`Sequencer::has_more`].
    pub fn advance(&mut self, turn: Turn<'_>, out: &mut SequencerOutputs) {
        self.leadership.advance(turn, &mut self.commits, out);
    }

    /// The log has no room for the request at the front: it is refused, and those behind it that need as much (rule B11).
    pub fn refuse(&mut self, now_ms: i64, out: &mut SequencerOutputs) {
        self.leadership.refuse(now_ms, &mut self.commits, out);
    }

    /// True when validation can go on at once, given room. The driver lets others have their turn before.
    pub fn has_more(&self) -> bool {
        self.leadership.has_more(&self.commits)
    }

    /// Gives each transaction that was proposed since the last call to the log, in order.
    pub fn new_proposals(&mut self, append: impl FnMut(Zxid, &[u8])) {
        self.commits.give_to_log(append);
    }

    /// Everything up to `zxid` is on disk, and so, with one voter, committed: hands it to the shards.
    pub fn durable(&mut self, zxid: Zxid, out: &mut SequencerOutputs) {
        self.commits.durable_to(zxid);
        self.commits.commit_to(zxid);
        self.commits.hand_over(out);
        self.leadership.settle(&self.commits);
    }

    /// The slowest shard has applied everything up to `zxid`.
    pub fn applied_everywhere(&mut self, zxid: Zxid) {
        self.commits.applied_everywhere(zxid);
    }

    /// Sessions that ended because they were silent, since the start.
    pub fn sessions_expired(&self) -> u64 {
        self.leadership.sessions_expired()
    }

    /// True when something waits to be validated, or to be handed to the shards.
    pub fn has_work(&self) -> bool {
        self.queued() > 0 || self.commits.proposed() > self.commits.handed()
    }

    /// How far the work has come.
    pub fn progress(&self) -> Progress {
        let (validated, steps) = self.leadership.progress();
        let (proposed, durable, handed) = (self.commits.proposed(), self.commits.durable(), self.commits.handed());
        Progress { validated, steps, proposed, durable, handed }
    }

    /// What the work waits for, as far as it can be known here; `None` when only the log can know.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        let writing = self.commits.proposed() > self.commits.durable();
        self.leadership.waits_for().or(writing.then(|| WaitsFor::Durable(self.commits.proposed())))
    }
}
