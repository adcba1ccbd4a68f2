//! A disk for tests: files in memory, one flush in flight, and crashes that keep any part of it, sector by sector.

use super::chain::SegmentPrefix;
use super::format::{BLOCK_BYTES_DEFAULT, Life};
use super::position::{LogOwner, Position, Record};
use super::recovery::{LogRecovery, Recovered, RecoveryOptions};
use super::writer::{FlushPlan, LogConfig, LogStart, LogWriter};
use std::collections::{BTreeMap, VecDeque};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Whose logs these are.
pub const OWNER: LogOwner = LogOwner(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
pub const BLOCK: usize = BLOCK_BYTES_DEFAULT as usize;

/// Small sizes, so that rolls, splits and records over segments happen all the time.
pub fn tiny_config() -> LogConfig {
    LogConfig {
        segment_bytes: 8 * BLOCK as u64,
        block_bytes: BLOCK as u32,
        flush_bytes_max: 4 * BLOCK as u32,
        queue_bytes_max: 1 << 20,
        ready_segments: 1,
        sync: true,
        record_version: 3,
    }
}

/// The record of `position`: its content follows from its number, so a mixed-up one is noticed.
pub fn record(position: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (position as usize * 31 + i * 7 + i / 251) as u8).collect()
}

/// The files of a data directory.
#[derive(Clone, Debug, Default)]
pub struct TestDisk {
    pub files: BTreeMap<Life, Vec<u8>>,
    /// Files to recycle, stale content and all.
    pub spares: VecDeque<(Life, Vec<u8>)>,
}

impl TestDisk {
    /// Makes every segment the writer asks for, from spares if there are any.
    pub fn make_segments(&mut self, writer: &mut LogWriter) {
        while let Some(spec) = writer.wants_segment().expect("log runs") {
            let mut bytes = self.spares.pop_front().map(|(_, bytes)| bytes).unwrap_or_default();
            bytes.resize(spec.segment_bytes as usize, 0);
            bytes[..spec.header.len()].copy_from_slice(&spec.header);
            assert!(self.files.insert(spec.life, bytes).is_none(), "a life is never given out twice");
            writer.segment_ready(spec.life).expect("asked for");
        }
    }

    /// The part of the plan that reaches the disk: sectors for which `keep` says so.
    pub fn write(&mut self, plan: &FlushPlan, mut keep: impl FnMut(usize) -> bool) {
        let file = self.files.get_mut(&plan.life).expect("the segment was made");
        for (sector, bytes) in plan.bytes.chunks(SECTOR_BYTES).enumerate() {
            if keep(sector) {
                let at = plan.offset as usize + sector * SECTOR_BYTES;
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Carries out everything the writer wants, to the end of its queue.
    pub fn flush_all(&mut self, writer: &mut LogWriter) -> Position {
        loop {
            self.make_segments(writer);
            let Some(plan) = writer.next_flush().expect("log runs") else { return writer.durable_position() };
            self.finish(writer, plan);
        }
    }

    /// Carries out one plan with success.
    pub fn finish(&mut self, writer: &mut LogWriter, plan: FlushPlan) -> Position {
        self.write(&plan, |_| true);
        writer.give_back(plan.bytes);
        writer.on_flushed(Ok(())).expect("log runs")
    }

    /// Recovers with the given options; checks that what comes out is in order and is what was written.
    pub fn recover(&self, options: RecoveryOptions) -> (Recovered, Vec<(Position, Vec<u8>)>) {
        let highest_spare = self.spares.iter().map(|(life, _)| *life).max().unwrap_or_default();
        let options = RecoveryOptions { highest_spare, ..options };
        let prefixes: Vec<_> = self
            .files
            .iter()
            .map(|(life, bytes)| SegmentPrefix { life: *life, bytes: &bytes[..bytes.len().min(2 * BLOCK)] })
            .collect();
        let mut recovery = LogRecovery::new(&prefixes, options);
        let mut records = Vec::new();
        let mut sink = |record: Record<'_>| {
            assert_eq!(record.version, 3, "what the configuration says");
            records.push((record.position, record.bytes.to_vec()));
        };
        // Never more than asked for, up to a sector: what ends in the middle of a stretch must be asked for again.
        while let Some(wanted) = recovery.next_read() {
            let (file, from) = (&self.files[&wanted.life], wanted.offset as usize);
            let end = file.len().min(from + wanted.bytes.next_multiple_of(SECTOR_BYTES));
            recovery.feed(file.get(from..end).unwrap_or_default(), &mut sink);
        }
        (recovery.finish(), records)
    }

    /// Recovers everything.
    pub fn recover_all(&self) -> (Recovered, Vec<(Position, Vec<u8>)>) {
        self.recover(RecoveryOptions::new(Position::ZERO, Life::NONE))
    }

    /// Goes on after a recovery: syncs the tail, recycles what may go, makes the first segment.
    pub fn resume(&mut self, config: LogConfig, recovered: &Recovered) -> LogWriter {
        let start = recovered.resume(7).expect("no damage");
        let mut writer = LogWriter::start(config, start).expect("good configuration");
        if !writer.tail_to_sync().is_empty() {
            writer.on_tail_synced(Ok(())).expect("log runs");
        }
        self.recycle(&recovered.recycle_now);
        self.make_segments(&mut writer);
        self.recycle(&recovered.recycle_when_ready);
        writer
    }

    /// Makes spares of files.
    pub fn recycle(&mut self, lives: &[Life]) {
        for life in lives {
            let bytes = self.files.remove(life).expect("the file is there");
            self.spares.push_back((*life, bytes));
        }
    }
}

/// A new log on an empty disk.
pub fn new_log(config: LogConfig) -> (TestDisk, LogWriter) {
    let mut disk = TestDisk::default();
    let mut writer =
        LogWriter::start(config, LogStart::begin(7, OWNER, Life(1), Position::ZERO)).expect("good configuration");
    disk.make_segments(&mut writer);
    (disk, writer)
}

/// Appends records and flushes each run on its own.
pub fn append_each(
    disk: &mut TestDisk,
    writer: &mut LogWriter,
    positions: impl IntoIterator<Item = u64>,
    bytes: usize,
) {
    for position in positions {
        writer.append(Position(position), &record(position, bytes)).expect("log runs");
        assert_eq!(disk.flush_all(writer), Position(position));
    }
}

/// The positions, after a check of every record's content.
pub fn checked_positions(records: &[(Position, Vec<u8>)]) -> Vec<u64> {
    for (position, bytes) in records {
        assert_eq!(*bytes, record(position.0, bytes.len()), "content of record {position}");
    }
    records.iter().map(|(position, _)| position.0).collect()
}
