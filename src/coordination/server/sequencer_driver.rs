//! The sequencer and the transaction log, on the executor of shard 0.

use super::error::ServerError;
use super::message::ShardMessage;
use super::shard_driver::ShardDriver;
use super::snapshots::Snapshots;
use crate::base::{ShardId, Zxid};
use crate::coordination::processor::message::{ToSequencer, ToShard};
use crate::coordination::processor::txn_room::LOG_HEAD_BYTES_MAX;
use crate::coordination::processor::{
    Admission, AdmissionNews, Admitted, HoldBack, HoldBackChange, HoldBackLimits, Load, Room, Sequencer,
    SequencerOutputs, StallDetector, StallNews, Target, Turn, WaitsFor,
};
use crate::log::driver::WriteAheadLog;
use crate::log::format::RECORD_HEAD_BYTES;
use crate::log::writer::Refusal;
use crate::metrics::{Counters, FlushTimes};
use crate::runtime::{Queue, clock, spawn};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What may wait inside the server before clients are held back (rule D1).
const HOLD_BACK: HoldBackLimits = HoldBackLimits {
    held_bytes_max: 64 << 20,
    unapplied_bytes_max: 64 << 20,
    lag_max: 100_000,
    pending_messages_max: 10_000,
};
/// Work that waits for so long while nothing moves is worth a line in the log.
const STALL_MS: i64 = 5_000;

// The bound on a transaction counts what the log adds to it.
const _: () = assert!(RECORD_HEAD_BYTES <= LOG_HEAD_BYTES_MAX);

/// The sequencer and its log.
pub struct SequencerDriver {
    sequencer: RefCell<Sequencer>,
    outputs: RefCell<SequencerOutputs>,
    log: Rc<WriteAheadLog>,
    snapshots: Rc<Snapshots>,
    admission: RefCell<Admission>,
    hold_back: RefCell<HoldBack>,
    stalls: RefCell<StallDetector>,
    stall_count: Cell<u64>,
    /// A task is on its way that ends in a turn.
    coming_back: Cell<bool>,
    /// Bytes appended since they were last counted.
    appended_bytes: Cell<u64>,
    /// `None` while flushes are not synced: then they tell nothing of the disk.
    flushes: RefCell<Option<FlushTimes>>,
}

impl SequencerDriver {
    /// A driver that appends to `log`, and says how much to `snapshots`.
    /// Flushes are timed in `flushes`, if at all.
    pub fn new(
        sequencer: Sequencer,
        log: Rc<WriteAheadLog>,
        snapshots: Rc<Snapshots>,
        flushes: Option<FlushTimes>,
    ) -> Rc<SequencerDriver> {
        Rc::new(SequencerDriver {
            sequencer: RefCell::new(sequencer),
            outputs: RefCell::new(SequencerOutputs::default()),
            log,
            snapshots,
            appended_bytes: Cell::new(0),
            admission: RefCell::new(Admission::default()),
            hold_back: RefCell::new(HoldBack::new(HOLD_BACK)),
            stalls: RefCell::new(StallDetector::new(STALL_MS, clock::monotonic_ms() as i64)),
            stall_count: Cell::new(0),
            coming_back: Cell::new(false),
            flushes: RefCell::new(flushes),
        })
    }

    /// The core, for a moment.
    pub fn core(&self) -> &RefCell<Sequencer> {
        &self.sequencer
    }

    /// The log.
    pub fn log(&self) -> &Rc<WriteAheadLog> {
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
    pub fn tick(&self, driver: &Rc<ShardDriver>) {
        let now_ms = clock::monotonic_ms() as i64;
        self.look_for_stall(now_ms, driver);
        self.sequencer.borrow_mut().tick(now_ms);
    }

    /// Everything up to `zxid` is durable: hands it to the shards.
    pub fn durable(&self, zxid: Zxid, driver: &Rc<ShardDriver>) {
        // With one voter durable is committed.
        self.log.commit(zxid.into());
        let mut sequencer = self.sequencer.borrow_mut();
        let before = sequencer.handed();
        sequencer.durable(zxid, &mut self.outputs.borrow_mut());
        let handed = sequencer.handed();
        let same_epoch = handed.epoch() == before.epoch();
        let committed = if same_epoch { handed.0 - before.0 } else { u64::from(handed.counter()) + 1 };
        drop(sequencer);
        self.time_flushes();
        driver.turn();
        self.snapshots.committed(committed, self.appended_bytes.take());
    }

    fn time_flushes(&self) {
        let (count, _, max_us) = self.log.take_flush_times();
        let mut flushes = self.flushes.borrow_mut();
        let Some(flushes) = &mut *flushes else { return };
        for _ in 0..count {
            if let Some(took_ms) = flushes.record_us(max_us) {
                tracing::warn!(
                    "a flush of the transaction log took {took_ms} ms (fsync.warningthresholdms): writes wait for the disk. Check \
                     what else uses it, or give dataLogDir one of its own"
                );
            }
        }
    }

    /// Validates what can be validated, gives it to the log, and delivers what the shards must know. True when something was
    /// delivered to the shard of this executor.
    pub fn advance(&self, driver: &Rc<ShardDriver>) -> bool {
        let mut delivered = self.deliver(driver);
        match self.admit(driver) {
            Admitted::Bytes(room_bytes) => {
                self.validate(room_bytes, driver);
                self.append(driver);
            }
            Admitted::Refuse => {
                let now_ms = clock::monotonic_ms() as i64;
                self.sequencer.borrow_mut().refuse(now_ms, &mut self.outputs.borrow_mut());
            }
            // The log makes room when it is asked, and a turn follows.
            Admitted::Wait => self.log.kick(),
            Admitted::Stop(reason) => driver.fail(ServerError::LogStopped(reason)),
        }
        delivered |= self.deliver(driver);
        self.hold_back(driver);
        self.come_back(driver);
        delivered
    }

    /// Asks the log for room before anything is validated (rule B11). Validation and appending follow in this same turn: nobody can
    /// take the room in between.
    fn admit(&self, driver: &Rc<ShardDriver>) -> Admitted {
        let ask = |bytes| match self.log.try_reserve(bytes) {
            Ok(reservation) => {
                let mut log = self.log.writer().borrow_mut();
                log.release(reservation);
                Room::Granted { short: log.out_of_space().is_some() }
            }
            Err(Refusal::Busy) => Room::Busy,
            Err(Refusal::NoSpace(reason)) => Room::None(reason),
            Err(refusal @ Refusal::Stopped(_)) => Room::Stopped(refusal.to_string()),
        };
        let was_refusing = self.admission.borrow().is_refusing();
        let (admitted, news) = self.admission.borrow_mut().admit(&mut self.sequencer.borrow_mut(), ask);
        match news {
            Some(AdmissionNews::NoRoom(reason)) => tracing::error!(
                "writes are refused until there is room for the log, and clients without a session are turned away: {reason}"
            ),
            Some(AdmissionNews::RoomAgain) => {
                tracing::info!("there is room for the transaction log again; writes are accepted");
            }
            None => {}
        }
        if was_refusing != self.admission.borrow().is_refusing() {
            self.update_hearing(driver);
        }
        admitted
    }

    fn validate(&self, room_bytes: usize, driver: &Rc<ShardDriver>) {
        let shard = driver.core().borrow();
        let mut sequencer = self.sequencer.borrow_mut();
        // This runs in every turn, also in turns that only read. The clocks are read only when a request is there to be
        // stamped.
        let (now_ms, wall_ms) = match sequencer.queued() {
            0 => (0, 0),
            _ => (clock::monotonic_ms() as i64, clock::wall_ms()),
        };
        let turn = Turn { records: &*shard, now_ms, wall_ms, room_bytes };
        sequencer.advance(turn, &mut self.outputs.borrow_mut());
    }

    /// When a slice was not enough, another turn follows behind the tasks that are ready now.
    fn come_back(&self, driver: &Rc<ShardDriver>) {
        let waits = self.admission.borrow().is_waiting();
        if waits || !self.sequencer.borrow().has_more() || self.coming_back.replace(true) {
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

    fn append(&self, driver: &Rc<ShardDriver>) {
        let mut log = self.log.writer().borrow_mut();
        let mut failed = None;
        let mut appended_bytes = 0;
        self.sequencer.borrow_mut().new_proposals(|zxid, txn| {
            appended_bytes += txn.len() as u64;
            if let Err(error) = log.append(zxid.into(), txn) {
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
        let words = driver.words();
        let slowest = words.slowest();
        let mut sequencer = self.sequencer.borrow_mut();
        sequencer.applied_everywhere(slowest);
        let load = Load {
            held_bytes: sequencer.held_bytes(),
            unapplied_bytes: sequencer.commits().unapplied_bytes(),
            handed: sequencer.handed(),
            slowest,
            pending_messages: driver.mesh().pending_max(),
        };
        drop(sequencer);
        let Some(change) = self.hold_back.borrow_mut().decide(&load) else { return };
        words.hold_back(change == HoldBackChange::Hold);
        self.update_hearing(driver);
        if change == HoldBackChange::Resume {
            for index in 1..driver.shards() {
                driver.send(ShardId(index as u16), ShardMessage::Resume);
            }
            driver.resume_connections();
        }
    }

    /// Clients that are not read, and those that could not come back, do not expire.
    fn update_hearing(&self, driver: &Rc<ShardDriver>) {
        let deaf = self.hold_back.borrow().is_held_back()
            || self.admission.borrow().is_refusing()
            || driver.words().stalled_ms() > 0;
        self.sequencer.borrow_mut().set_deaf(deaf, clock::monotonic_ms() as i64);
    }

    /// Says when work waits and nothing moves, and when it moves again.
    fn look_for_stall(&self, now_ms: i64, driver: &Rc<ShardDriver>) {
        let sequencer = self.sequencer.borrow();
        let (has_work, progress) = (sequencer.has_work(), sequencer.progress());
        let (queued, waits_for) = (sequencer.queued(), sequencer.waits_for());
        drop(sequencer);
        let mut stalls = self.stalls.borrow_mut();
        match stalls.observe(now_ms, has_work, progress) {
            None => {}
            Some(StallNews::Began { stalled_ms }) => {
                self.stall_count.set(self.stall_count.get() + 1);
                let admission = self.admission.borrow();
                let waits_for = match waits_for {
                    Some(waits_for @ WaitsFor::Records(_)) => waits_for,
                    _ if admission.is_refusing() => WaitsFor::Disk,
                    _ if admission.is_waiting() => WaitsFor::Log,
                    other => other.unwrap_or(WaitsFor::Nothing),
                };
                tracing::error!(
                    "no write has moved for {stalled_ms} ms: {queued} requests wait, proposed to zxid {}, on disk to {}, handed to                      the shards to {}; the first waits for {waits_for}",
                    progress.proposed,
                    progress.durable,
                    progress.handed
                );
            }
            Some(StallNews::Ended { stalled_ms }) => {
                tracing::info!("writes move again, after {stalled_ms} ms");
            }
        }
        driver.words().set_stalled_ms(stalls.stalled_ms().max(0) as u64);
        drop(stalls);
        self.update_hearing(driver);
    }

    /// Adds what was counted here.
    pub fn add_to(&self, counters: &mut Counters) {
        counters.stale_sessions_expired += self.sequencer.borrow().sessions_expired();
        counters.write_stalls += self.stall_count.get();
        counters.write_stall_ms += self.stalls.borrow().stalled_ms().max(0) as u64;
        self.flushes.borrow().iter().for_each(|flushes| flushes.add_to(counters));
        self.snapshots.add_to(counters);
    }

    /// What a batch of the log looks like to a shard.
    pub fn replay(txns: bytes::Bytes) -> ToShard {
        ToShard::Batch(crate::coordination::processor::message::Batch { txns, marks: Vec::new() })
    }
}
