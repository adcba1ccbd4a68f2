//! The sequencer and the transaction log, on the executor of shard 0.

use super::message::ShardMessage;
use super::shard_driver::ShardDriver;
use super::snapshots::Snapshots;
use super::start::ServerError;
use crate::base::{ShardId, Zxid};
use crate::coordination::persistence::log_writer::Refusal;
use crate::coordination::persistence::txn_log::TxnLog;
use crate::coordination::processor::message::{ToSequencer, ToShard};
use crate::coordination::processor::{Sequencer, SequencerOutputs, Target};
use crate::metrics::Counters;
use crate::runtime::{Queue, clock, spawn};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Requests and proposals held in memory above which clients are held back.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Transactions that the slowest shard may lie behind before clients are held back (rule D1).
const LAG_MAX: u64 = 100_000;
/// What a transaction adds to its request in the log, at most for the common operations.
const TXN_OVERHEAD_BYTES: usize = 512;

/// The sequencer and its log.
pub struct SequencerDriver {
    sequencer: RefCell<Sequencer>,
    outputs: RefCell<SequencerOutputs>,
    log: Rc<TxnLog>,
    snapshots: Rc<Snapshots>,
    /// The operator knows that there is no room for a segment. Small writes may pass all the same, so the sequencer's refusing
    /// comes and goes.
    told: Cell<bool>,
    /// The log has no room yet, and will say when it has.
    waits_for_room: Cell<bool>,
    /// A task is on its way that ends in a turn.
    coming_back: Cell<bool>,
    /// Bytes appended since they were last counted.
    appended_bytes: Cell<u64>,
    commits: Cell<u64>,
    flushes: RefCell<Counters>,
}

impl SequencerDriver {
    /// A driver that appends to `log`, and says how much to `snapshots`.
    pub fn new(sequencer: Sequencer, log: Rc<TxnLog>, snapshots: Rc<Snapshots>) -> Rc<SequencerDriver> {
        Rc::new(SequencerDriver {
            sequencer: RefCell::new(sequencer),
            outputs: RefCell::new(SequencerOutputs::default()),
            log,
            snapshots,
            appended_bytes: Cell::new(0),
            told: Cell::new(false),
            waits_for_room: Cell::new(false),
            coming_back: Cell::new(false),
            commits: Cell::new(0),
            flushes: RefCell::new(Counters::default()),
        })
    }

    /// The core, for a moment.
    pub fn core(&self) -> &RefCell<Sequencer> {
        &self.sequencer
    }

    /// The log.
    pub fn log(&self) -> &Rc<TxnLog> {
        &self.log
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &Rc<Snapshots> {
        &self.snapshots
    }

    /// A message from a shard.
    pub fn receive(&self, from: ShardId, message: ToSequencer) {
        let now_ms = clock::monotonic_ms() as i64;
        self.sequencer.borrow_mut().receive(from, message, now_ms);
    }

    /// A turn of the clock.
    pub fn tick(&self) {
        self.sequencer.borrow_mut().tick(clock::monotonic_ms() as i64);
    }

    /// Everything up to `zxid` is durable: hands it to the shards.
    pub fn durable(&self, zxid: Zxid, driver: &Rc<ShardDriver>) {
        let mut sequencer = self.sequencer.borrow_mut();
        let before = sequencer.handed();
        sequencer.durable(zxid, &mut self.outputs.borrow_mut());
        let handed = sequencer.handed();
        let same_epoch = handed.epoch() == before.epoch();
        let committed = if same_epoch { handed.0 - before.0 } else { u64::from(handed.counter()) + 1 };
        self.commits.set(self.commits.get() + committed);
        drop(sequencer);
        let (count, _, max_us) = self.log.take_flush_times();
        for _ in 0..count {
            self.flushes.borrow_mut().fsync_latency.record_us(max_us);
        }
        driver.turn();
        self.snapshots.committed(committed, self.appended_bytes.take());
    }

    /// Validates what can be validated, gives it to the log, and delivers what the shards must know. True when something was
    /// delivered to the shard of this executor.
    pub fn advance(&self, driver: &Rc<ShardDriver>) -> bool {
        let mut delivered = self.deliver(driver);
        let admitted = self.admit(driver);
        self.waits_for_room.set(!admitted);
        if admitted {
            {
                let shard = driver.core().borrow();
                let mut sequencer = self.sequencer.borrow_mut();
                // This runs in every turn, also in those that only read: what is not used to stamp anything need not be asked for.
                let (now_ms, wall_ms) = match sequencer.queued() {
                    0 => (0, 0),
                    _ => (clock::monotonic_ms() as i64, clock::wall_ms()),
                };
                sequencer.advance(&*shard, now_ms, wall_ms, &mut self.outputs.borrow_mut());
            }
            self.append(driver);
        }
        delivered |= self.deliver(driver);
        self.hold_back(driver);
        self.come_back(driver);
        delivered
    }

    /// When a slice was not enough, another turn follows behind the tasks that are ready now.
    fn come_back(&self, driver: &Rc<ShardDriver>) {
        if self.waits_for_room.get() || !self.sequencer.borrow().has_more() || self.coming_back.replace(true) {
            return;
        }
        let driver = driver.clone();
        spawn(Queue::Serving, async move {
            if let Some(sequencer) = driver.sequencer() {
                sequencer.coming_back.set(false);
            }
            driver.turn();
        });
    }

    /// Asks the log for room before anything is validated (rule B11). False when nothing must be validated now.
    fn admit(&self, driver: &Rc<ShardDriver>) -> bool {
        let mut sequencer = self.sequencer.borrow_mut();
        // Whoever refuses asks again even when nothing is queued: expiry waits for room, too, and queues nothing meanwhile.
        if sequencer.queued() == 0 && !sequencer.is_refusing() && !self.told.get() {
            return true;
        }
        let wanted = sequencer.queued_bytes() + sequencer.queued() * TXN_OVERHEAD_BYTES;
        let mut log = self.log.writer().borrow_mut();
        match log.try_reserve(wanted) {
            Ok(reservation) => {
                // Validation and appending follow in this same turn: nobody can take the room in between.
                log.release(reservation);
                if log.out_of_space().is_none() && self.told.replace(false) {
                    tracing::info!("there is room for the transaction log again; writes are accepted");
                }
                sequencer.set_refusing(false);
                true
            }
            Err(Refusal::NoSpace(reason)) => {
                if !self.told.replace(true) {
                    tracing::error!(
                        "writes are refused until there is room for the log, and clients without a session are turned away: \
                         {reason}"
                    );
                }
                sequencer.set_refusing(true);
                true
            }
            // The next flush or segment makes room, and a turn follows it.
            Err(Refusal::Busy) => false,
            Err(refusal @ Refusal::Stopped(_)) => {
                driver.fail(ServerError::LogStopped(refusal.to_string()));
                false
            }
        }
    }

    fn append(&self, driver: &Rc<ShardDriver>) {
        let mut log = self.log.writer().borrow_mut();
        let mut failed = None;
        let mut appended_bytes = 0;
        self.sequencer.borrow_mut().new_proposals(|zxid, txn| {
            appended_bytes += txn.len() as u64;
            if let Err(error) = log.append(zxid, txn) {
                failed.get_or_insert(error);
            }
        });
        drop(log);
        self.appended_bytes.set(self.appended_bytes.get() + appended_bytes);
        if let Some(error) = failed {
            driver.fail(ServerError::LogStopped(error.to_string()));
        } else if appended_bytes > 0 {
            self.log.kick();
        }
    }

    fn deliver(&self, driver: &Rc<ShardDriver>) -> bool {
        let messages = std::mem::take(&mut self.outputs.borrow_mut().messages);
        let mut local = false;
        for (target, message) in messages {
            match target {
                Target::One(shard) => driver.send(shard, ShardMessage::ToShard(message)),
                Target::All => {
                    for index in 1..driver.shards() {
                        driver.send(ShardId(index as u16), ShardMessage::ToShard(message.clone()));
                    }
                    local = true;
                    driver.apply(&message);
                }
            }
        }
        local
    }

    /// Stops and restarts the reading of sockets on all shards.
    fn hold_back(&self, driver: &Rc<ShardDriver>) {
        let sequencer = self.sequencer.borrow();
        let words = driver.words();
        let lag = sequencer.handed().0.saturating_sub(words.slowest().0);
        // A lag over the end of an epoch is a number without meaning, and short.
        let lags = lag > LAG_MAX && sequencer.handed().epoch() == words.slowest().epoch();
        let hold = lags || sequencer.held_bytes() > HELD_BYTES_MAX;
        if words.is_held_back() && !hold {
            words.hold_back(false);
            for index in 1..driver.shards() {
                driver.send(ShardId(index as u16), ShardMessage::Resume);
            }
            driver.resume_connections();
        } else if hold {
            words.hold_back(true);
        }
    }

    /// Adds what was counted here.
    pub fn add_to(&self, counters: &mut Counters) {
        counters.commits += self.commits.get();
        counters.fsync_latency.merge(&self.flushes.borrow().fsync_latency);
        self.snapshots.add_to(counters);
    }

    /// What a batch of the log looks like to a shard.
    pub fn replay(txns: bytes::Bytes) -> ToShard {
        ToShard::Batch(crate::coordination::processor::message::Batch { txns, marks: Vec::new() })
    }
}
