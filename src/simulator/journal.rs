//! The transaction log of a simulated server: carries out what the log writer plans, on the simulated disk.

use super::agenda::Inside;
use super::disk::{Disk, Extent};
use super::machine::Machine;
use super::prng::Prng;
use crate::base::{Zxid, coverage};
use crate::log::chain::SegmentPrefix;
use crate::log::format::{BLOCK_BYTES_DEFAULT, Life};
use crate::log::recovery::{LogRecovery, Recovered, RecoveryOptions, Verdict};
use crate::log::writer::{FlushPlan, LogConfig, LogError, LogWriter, Refusal, SegmentSpec};
use std::collections::VecDeque;

/// Small sizes, so that rolls, splits and records over several segments happen all the time.
fn config() -> LogConfig {
    let block_bytes = u64::from(BLOCK_BYTES_DEFAULT);
    LogConfig {
        segment_bytes: 8 * block_bytes,
        block_bytes: BLOCK_BYTES_DEFAULT,
        flush_bytes_max: 4 * BLOCK_BYTES_DEFAULT,
        queue_bytes_max: 64 * block_bytes,
        ready_segments: 1,
        sync: true,
        record_version: 0,
    }
}

/// The log of one life.
#[derive(Debug)]
pub(super) struct Journal {
    writer: LogWriter,
    writing: Option<FlushPlan>,
    making: Option<SegmentSpec>,
    recycle: VecDeque<Life>,
    recycle_when_ready: Vec<Life>,
    /// Where completed flushes lie, in order.
    flushed: Vec<Extent>,
}

impl Journal {
    /// Goes on after a recovery.
    pub(super) fn start(machine: &mut Machine, recovered: &Recovered) -> Result<Journal, String> {
        let stream_id = machine.schedule.any();
        let start = recovered.resume(stream_id).map_err(|damage| damage.to_string())?;
        let mut writer = LogWriter::start(config(), start).map_err(|error| error.to_string())?;
        let tail = writer.tail_to_sync().to_vec();
        if !tail.is_empty() {
            tail.iter().for_each(|life| machine.disk.sync(*life));
            writer.on_tail_synced(Ok(())).map_err(|error| error.to_string())?;
        }
        let mut journal = Journal {
            writer,
            writing: None,
            making: None,
            recycle: recovered.recycle_now.iter().copied().collect(),
            recycle_when_ready: recovered.recycle_when_ready.clone(),
            flushed: Vec::new(),
        };
        machine.after(0, Inside::Recycle);
        machine.after(0, Inside::LogIdle);
        journal.drive(machine).map_err(|error| error.to_string())?;
        Ok(journal)
    }

    /// Everything up to here is durable.
    pub(super) fn durable(&self) -> Zxid {
        self.writer.durable_position().into()
    }

    pub(super) fn append(&mut self, zxid: Zxid, record: &[u8]) -> Result<(), LogError> {
        self.writer.append(zxid.into(), record)
    }

    /// Asks for room before a write is prepared. Room given is taken in the same turn.
    pub(super) fn admits(&mut self, bytes: usize) -> Result<(), Refusal> {
        let reservation = self.writer.try_reserve(bytes)?;
        self.writer.release(reservation);
        Ok(())
    }

    /// Begins what the writer wants next.
    pub(super) fn drive(&mut self, machine: &mut Machine) -> Result<(), LogError> {
        if self.making.is_none()
            && let Some(spec) = self.writer.wants_segment()?
        {
            self.making = Some(spec);
            let delay_us = machine.flush_delay();
            machine.after(delay_us, Inside::SegmentMade);
        }
        if self.writing.is_none()
            && let Some(plan) = self.writer.next_flush()?
        {
            self.begin(machine, plan);
        }
        Ok(())
    }

    fn begin(&mut self, machine: &mut Machine, plan: FlushPlan) {
        self.writing = Some(plan);
        let delay_us = machine.flush_delay();
        machine.after(delay_us, Inside::Written);
    }

    /// The flush is over: written and synced, or failed. Gives the durable position.
    pub(super) fn written(&mut self, machine: &mut Machine) -> Result<Zxid, LogError> {
        let Some(plan) = self.writing.take() else { return Ok(self.durable()) };
        machine.disk.write(plan.life, plan.offset, &plan.bytes);
        if std::mem::take(&mut machine.sync_fails) {
            coverage::mark("sync-failed");
            return self.writer.on_flushed(Err("input/output error".into())).map(Zxid::from);
        }
        if plan.sync {
            machine.disk.sync(plan.life);
        }
        self.flushed.push(Extent { life: plan.life, offset: plan.offset, bytes: plan.bytes.len() });
        let durable = self.writer.on_flushed(Ok(()))?;
        self.writer.give_back(plan.bytes);
        self.writer.commit(durable);
        self.drive(machine)?;
        Ok(durable.into())
    }

    /// The segment is there, or there is no room for it.
    pub(super) fn segment_made(&mut self, machine: &mut Machine) -> Result<(), LogError> {
        let Some(spec) = self.making.take() else { return Ok(()) };
        if machine.now_us < machine.full_disk_until_us {
            coverage::mark("no-room-for-segment");
            self.writer.segment_failed(spec.life, "no space left on device".into())?;
            return Ok(());
        }
        machine.disk.make_segment(spec.life, spec.segment_bytes, &spec.header);
        self.writer.segment_ready(spec.life)?;
        if !self.recycle_when_ready.is_empty() {
            self.recycle.extend(self.recycle_when_ready.drain(..));
            machine.after(10, Inside::Recycle);
        }
        self.drive(machine)
    }

    /// One file that is no longer needed becomes a spare.
    pub(super) fn recycle_one(&mut self, machine: &mut Machine) {
        let Some(life) = self.recycle.pop_front() else { return };
        machine.disk.recycle(life);
        let delay_us = machine.schedule.between(10, 2_000);
        machine.after(delay_us, Inside::Recycle);
    }

    /// A while has passed: an idle log says what is durable, a failed segment is tried again.
    pub(super) fn idle(&mut self, machine: &mut Machine) -> Result<(), LogError> {
        self.writer.retry_segment();
        if self.writing.is_none()
            && let Some(plan) = self.writer.idle_block()?
        {
            coverage::mark("idle-block");
            self.begin(machine, plan);
        }
        machine.after(30_000, Inside::LogIdle);
        self.drive(machine)
    }

    /// The log is needed from `position` only.
    pub(super) fn purge_below(&mut self, machine: &mut Machine, zxid: Zxid) {
        let purged = self.writer.purge_below(zxid.into());
        if !purged.is_empty() {
            coverage::mark("log-purged");
            self.recycle.extend(purged);
            machine.after(10, Inside::Recycle);
        }
    }

    /// The machine fails in the middle of whatever is going on.
    pub(super) fn crash(self, disk: &mut Disk, prng: &mut Prng) -> Vec<Extent> {
        if let Some(plan) = self.writing {
            coverage::mark("crash-in-flush");
            disk.write(plan.life, plan.offset, &plan.bytes);
        }
        if let Some(spec) = self.making {
            coverage::mark("crash-in-segment");
            match prng.below(3) {
                0 => disk.abandon_segment(spec.life, spec.segment_bytes, None),
                1 => disk.abandon_segment(spec.life, spec.segment_bytes, Some(&spec.header)),
                _ => disk.make_segment(spec.life, spec.segment_bytes, &spec.header),
            }
        }
        disk.fail(prng);
        self.flushed
    }
}

/// Reads the log on `disk` from `from` on.
pub(super) fn recover(disk: &Disk, from: Zxid) -> (Recovered, Vec<(Zxid, Vec<u8>)>) {
    let head_bytes = 2 * BLOCK_BYTES_DEFAULT as usize;
    let prefixes: Vec<SegmentPrefix<'_>> =
        disk.logs().map(|(life, bytes)| SegmentPrefix { life, bytes: &bytes[..bytes.len().min(head_bytes)] }).collect();
    let mut recovery = LogRecovery::new(&prefixes, RecoveryOptions::new(from.into(), disk.highest_spare()));
    let mut records = Vec::new();
    recovery
        .read_all(|life| disk.log(life), &mut |record| records.push((record.position.into(), record.bytes.to_vec())));
    (recovery.finish(), records)
}

/// Spoils a copy of the disk in the middle of what was acknowledged, and checks that a start would not take the damage for a
/// torn tail: it must see everything, or refuse.
pub(super) fn damage_is_noticed(disk: &Disk, flushed: &[Extent], from: Zxid, prng: &mut Prng) -> Result<(), String> {
    // The last flush cannot be told from a torn one as long as no block after it says that it was durable (rule E6).
    let alive: Vec<Extent> = flushed.iter().copied().filter(|extent| !disk.log(extent.life).is_empty()).collect();
    let Some((last, earlier)) = alive.split_last().filter(|(_, earlier)| earlier.len() > 1) else { return Ok(()) };
    let (_, intact) = recover(disk, from);
    let mut spoilt = disk.clone();
    let place = prng.choose(earlier);
    if prng.percent(50) {
        spoilt.rot(place, prng);
    } else {
        spoilt.misplace(*last, place);
    }
    let (recovered, records) = recover(&spoilt, from);
    match recovered.verdict {
        Verdict::Damage(_) => {
            coverage::mark("damage-refused");
            Ok(())
        }
        _ if records == intact => Ok(()),
        verdict => Err(format!("damage at {place:?} was taken for {verdict:?}")),
    }
}
