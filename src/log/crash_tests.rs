//! Random histories of appends, flushes and crashes: whatever a crash leaves, recovery gives back a prefix of what was
//! appended that contains everything acknowledged.

use super::format::Life;
use super::position::{Position, Record};
use super::range::RangeReader;
use super::recovery::{RecoveryOptions, Verdict};
use super::test_disk::{BLOCK, SECTOR_BYTES, TestDisk, checked_positions, new_log, record, tiny_config};
use super::writer::{LogConfig, LogWriter};
use proptest::prelude::*;

/// One thing that happens to a log.
#[derive(Clone, Debug)]
enum Event {
    /// Records are appended, of these sizes.
    Append(Vec<usize>),
    /// A flush is planned and succeeds.
    Flush,
    /// The log is idle for a tick.
    Idle,
    /// Somebody asks for room for a record of this size.
    Reserve(usize),
    /// Somebody who lags behind reads what is durable, in ranges of so many positions.
    Read(u64),
    /// A snapshot was taken at the durable position: old segments are recycled.
    Purge,
    /// The power fails. Of the flush in flight, a sector survives if its bit is set.
    Crash { kept_sectors: u64, flush_in_flight: bool },
    /// A leader cuts this many of the last records.
    Truncate(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let size = prop_oneof![4 => 0usize..300, 2 => 3900usize..4200, 1 => 0usize..40_000];
    prop_oneof![
        6 => prop::collection::vec(size, 1..6).prop_map(Event::Append),
        8 => Just(Event::Flush),
        1 => Just(Event::Idle),
        1 => (0usize..200_000).prop_map(Event::Reserve),
        2 => (1u64..8).prop_map(Event::Read),
        1 => Just(Event::Purge),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(kept_sectors, flush_in_flight)| Event::Crash {
            kept_sectors,
            flush_in_flight
        }),
        1 => (0usize..4).prop_map(Event::Truncate),
    ]
}

/// A log, its disk and the truth about it.
struct History {
    disk: TestDisk,
    writer: LogWriter,
    config: LogConfig,
    /// Zxids appended and not known to be lost, ascending.
    appended: Vec<u64>,
    acknowledged: u64,
    /// Snapshot position: records up to here are not needed any more.
    base: u64,
    next_position: u64,
}

impl History {
    fn new() -> History {
        let config = tiny_config();
        let (disk, writer) = new_log(config.clone());
        History { disk, writer, config, appended: Vec::new(), acknowledged: 0, base: 0, next_position: 1 }
    }

    fn step(&mut self, event: Event) {
        self.disk.make_segments(&mut self.writer);
        match event {
            Event::Append(sizes) => sizes.into_iter().for_each(|bytes| self.append(bytes)),
            Event::Flush => {
                if let Some(plan) = self.writer.next_flush().unwrap() {
                    self.acknowledged = self.disk.finish(&mut self.writer, plan).0;
                }
            }
            Event::Idle => {
                if let Some(plan) = self.writer.idle_block().unwrap() {
                    assert_eq!(self.disk.finish(&mut self.writer, plan).0, self.acknowledged);
                }
            }
            Event::Read(positions) => self.read(positions),
            Event::Reserve(bytes) => self.reserve(bytes),
            Event::Purge => {
                self.base = self.acknowledged;
                for life in self.writer.purge_below(Position(self.base + 1)) {
                    // A crash between two removals must leave a log, too.
                    self.disk.recycle(&[life]);
                    let (recovered, _) = self.disk.recover(RecoveryOptions::new(Position(self.base), Life::NONE));
                    assert!(!matches!(recovered.verdict, Verdict::Damage(_)), "{:?}", recovered.verdict);
                }
            }
            Event::Crash { kept_sectors, flush_in_flight } => {
                if flush_in_flight && let Some(plan) = self.writer.next_flush().unwrap() {
                    self.disk.write(&plan, |sector| kept_sectors >> (sector % 64) & 1 == 1);
                }
                self.restart(None);
            }
            Event::Truncate(count) => {
                let keep = self.appended.iter().rev().filter(|position| **position <= self.acknowledged).nth(count);
                let keep = keep.copied().unwrap_or(0).max(self.base);
                self.acknowledged = self.acknowledged.min(keep);
                self.restart(Some(keep));
            }
        }
    }

    fn append(&mut self, bytes: usize) {
        let position = self.next_position;
        self.next_position += 1 + bytes as u64 % 3;
        self.writer.append(Position(position), &record(position, bytes)).unwrap();
        self.appended.push(position);
    }

    /// What a reader gets while the log is written is what was appended and is durable.
    fn read(&mut self, positions: u64) {
        let mut reader = RangeReader::new(Position(self.base));
        let mut records = Vec::new();
        let durable = self.writer.durable_position().0;
        let mut to = self.base;
        while to < durable {
            to += positions;
            while let Some(wanted) = reader.next_read(&self.writer, Position(to)) {
                let (file, from) = (&self.disk.files[&wanted.life], wanted.offset as usize);
                let readable = usize::try_from(self.writer.readable_bytes(wanted.life)).unwrap_or(usize::MAX);
                let end = file.len().min(readable).min(from + wanted.bytes.next_multiple_of(SECTOR_BYTES));
                let is_over = self.writer.segment_after(wanted.life).is_some();
                let mut sink = |record: Record<'_>| records.push((record.position, record.bytes.to_vec()));
                reader.feed(&file[from..end], is_over, Position(to), &mut sink).expect("no damage");
            }
            assert!(records.last().is_none_or(|(position, _)| position.0 <= to), "nothing beyond the range");
        }
        let range = self.base + 1..=durable;
        let expected: Vec<_> = self.appended.iter().copied().filter(|position| range.contains(position)).collect();
        assert_eq!(checked_positions(&records), expected);
    }

    /// Busy is never the last word: flushes and segments that the log asks for itself make the room.
    fn reserve(&mut self, bytes: usize) {
        for _ in 0..2 {
            if let Ok(reservation) = self.writer.try_reserve(bytes) {
                return self.writer.release(reservation);
            }
            self.acknowledged = self.disk.flush_all(&mut self.writer).0;
        }
        panic!("no room for {bytes} bytes, and nothing under way that would make it");
    }

    /// Recovers twice, since a restart may die before its first segment is ready, checks, and goes on.
    fn restart(&mut self, discard_after: Option<u64>) {
        let options = RecoveryOptions {
            discard_after: discard_after.map(Position),
            ..RecoveryOptions::new(Position(self.base), Life::NONE)
        };
        let (recovered, records) = self.disk.recover(options);
        let mut interrupted = self.disk.clone();
        interrupted.recycle(&recovered.recycle_now);
        let (again, records_again) = interrupted.recover(options);
        assert!(
            again.resume(7).is_ok_and(|start| recovered.resume(7).is_ok_and(|first| first.keep_to == start.keep_to))
        );
        assert!(records_again == records, "a restart that is itself interrupted changes nothing");
        let end = match recovered.verdict {
            Verdict::Clean { end } | Verdict::TornTail { end, .. } => end.0,
            other => panic!("a crash is never damage: {other:?}"),
        };
        assert!(end >= self.acknowledged, "record {} was acknowledged, the log ends at {end}", self.acknowledged);
        assert!(discard_after.is_none_or(|cut| end <= cut));
        let base = self.base;
        let expected: Vec<_> =
            self.appended.iter().copied().filter(|position| (base + 1..=end).contains(position)).collect();
        assert_eq!(checked_positions(&records), expected);

        self.appended.retain(|position| *position <= end);
        self.writer = self.disk.resume(self.config.clone(), &recovered);
        assert_eq!(self.writer.durable_position(), Position(end));
        self.acknowledged = end;
        // A new log may use the numbers of lost records again, with other content.
        self.next_position = end + 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// C1, C6, C9, E3 together.
    #[test]
    fn recovery_gives_a_prefix_with_all_that_was_acknowledged(events in prop::collection::vec(event(), 1..60)) {
        let mut history = History::new();
        for event in events {
            history.step(event);
        }
        history.step(Event::Read(3));
        history.step(Event::Crash { kept_sectors: 0, flush_in_flight: true });
    }

    /// E6: any single byte of any acknowledged block but the last, at rest: found, never cut silently, and never a panic.
    #[test]
    fn rot_is_never_taken_for_a_torn_tail(sizes in prop::collection::vec(0usize..9000, 3..20), place in any::<u32>()) {
        let (mut disk, mut writer) = new_log(tiny_config());
        for (position, bytes) in (1..).zip(&sizes) {
            writer.append(Position(position), &record(position, *bytes)).unwrap();
            disk.flush_all(&mut writer);
        }
        let idle = writer.idle_block().unwrap();
        if let Some(plan) = idle {
            disk.finish(&mut writer, plan);
        }
        let (_, intact) = disk.recover_all();
        prop_assert_eq!(intact.len(), sizes.len());
        let lives: Vec<_> = writer.segments().map(|segment| segment.life).collect();
        let life = lives[place as usize % lives.len()];
        let file = disk.files.get_mut(&life).unwrap();
        let at = BLOCK + (place as usize / 7) % (file.len() - BLOCK);
        file[at] ^= 1 << (place % 8);
        let (recovered, records) = disk.recover_all();
        prop_assert!(matches!(recovered.verdict, Verdict::Damage(_)) || records == intact);
    }

    /// Arbitrary bytes for a log: a verdict, no panic, no huge allocation.
    #[test]
    fn garbage_gets_a_verdict(seed in any::<u64>(), flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..40)) {
        let (mut disk, mut writer) = new_log(tiny_config());
        for position in 1..8 {
            writer.append(Position(position), &record(position, (seed >> position) as usize % 9000)).unwrap();
            disk.flush_all(&mut writer);
        }
        let lives: Vec<_> = disk.files.keys().copied().collect();
        for (at, value) in flips {
            let file = disk.files.get_mut(&lives[at as usize % lives.len()]).unwrap();
            let at = at as usize % file.len();
            file[at] = value;
        }
        let (recovered, records) = disk.recover_all();
        if !matches!(recovered.verdict, Verdict::Damage(_)) {
            checked_positions(&records);
        }
    }
}
