//! A log's life and the truth about it, kept outside: what was appended, what was acknowledged, and where it was written.

use crate::allocation::bounded;
use crate::log_disk::{Damage, LogDisk, tiny_config};
use arbitrary::Arbitrary;
use ringkeeper::log::format::{BLOCK_HEADER_BYTES, Life, SEGMENT_HEADER_BYTES, SegmentHeader};
use ringkeeper::log::position::{LogOwner, Position};
use ringkeeper::log::recovery::{Recovered, RecoveryOptions, Verdict};
use ringkeeper::log::writer::{FlushPlan, LogStart, LogWriter, SegmentSpec};
use std::collections::BTreeMap;

/// How long a record is, bytes.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum RecordSize {
    Small(u8),
    /// About as long as a block.
    Block(i8),
    /// Up to more than a segment.
    Large(u16),
}

impl RecordSize {
    fn bytes(self) -> usize {
        match self {
            RecordSize::Small(bytes) => bytes.into(),
            RecordSize::Block(more) => (4020 + isize::from(more)) as usize,
            RecordSize::Large(bytes) => usize::from(bytes) % 40_000,
        }
    }
}

/// One thing that happens to a log.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Debug)]
pub enum Event {
    Append(Vec<RecordSize>),
    Flush,
    /// The log is idle for a tick.
    Idle,
    /// A snapshot was taken at the durable position: old segments are recycled.
    Purge,
    /// The power fails. Of the flush in flight, a sector survives if its bit is set.
    Crash {
        kept_sectors: u64,
        in_flight: bool,
    },
    /// So many of the last records are cut on purpose.
    Truncate(u8),
    /// Files are damaged; then the server starts.
    Rot(Vec<Damage>),
}

/// A flush that was carried out.
#[derive(Debug)]
struct Flushed {
    life: Life,
    offset: usize,
    head: Vec<u8>,
    /// The last record that is complete with it.
    completes: u64,
}

/// A segment's header that says where the log was cut.
#[derive(Debug)]
struct Cut {
    life: Life,
    keep_to: u64,
    head: Vec<u8>,
}

/// What names a record's content: its length, and how often the log had been started when it was appended.
type Content = (usize, u32);

/// Records whose content follows from position and start, so that a mixed-up or an abandoned one is noticed.
fn record(position: u64, (bytes, start): Content) -> Vec<u8> {
    (0..bytes).map(|i| (position as usize * 31 + i * 7 + i / 251 + start as usize * 101) as u8).collect()
}

/// A log, its disk and the truth about it.
#[derive(Debug)]
pub struct History {
    disk: LogDisk,
    writer: LogWriter,
    sync: bool,
    starts: u32,
    /// What is in the log, acknowledged or not.
    live: BTreeMap<u64, Content>,
    /// What was ever appended.
    ever: BTreeMap<u64, Vec<Content>>,
    acknowledged: u64,
    /// Snapshot position: records up to here are not needed any more.
    base: u64,
    next_position: u64,
    flushed: Vec<Flushed>,
    cuts: Vec<Cut>,
    /// Damage has been done since the last start.
    rotten: bool,
    /// The log cannot go on.
    over: bool,
}

impl History {
    /// A new log on an empty disk.
    pub fn new(sync: bool) -> History {
        let writer = LogWriter::start(tiny_config(sync), LogStart::begin(7, LogOwner(1), Life(1), Position::ZERO))
            .expect("good sizes");
        let mut history = History {
            disk: LogDisk::default(),
            writer,
            sync,
            starts: 0,
            live: BTreeMap::new(),
            ever: BTreeMap::new(),
            acknowledged: 0,
            base: 0,
            next_position: 1,
            flushed: Vec::new(),
            cuts: Vec::new(),
            rotten: false,
            over: false,
        };
        history.make_segments();
        history
    }

    /// Lets the events happen, then a crash.
    pub fn run(mut self, events: Vec<Event>) {
        for event in events {
            if self.over {
                return;
            }
            self.make_segments();
            self.step(event);
        }
        if !self.over {
            self.step(Event::Crash { kept_sectors: 0, in_flight: true });
        }
    }

    fn make_segments(&mut self) {
        let cuts = &mut self.cuts;
        self.disk.make_segments(&mut self.writer, |spec| note_cut(spec, cuts));
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Append(sizes) => sizes.into_iter().take(8).for_each(|size| self.append(size.bytes())),
            Event::Flush => {
                if let Some(plan) = self.writer.next_flush().expect("the log runs") {
                    self.carry_out(plan, |_| true);
                }
            }
            Event::Idle => {
                if let Some(plan) = self.writer.idle_block().expect("the log runs") {
                    let acknowledged = self.acknowledged;
                    self.carry_out(plan, |_| true);
                    assert_eq!(self.acknowledged, acknowledged, "an idle block completes nothing");
                }
            }
            Event::Purge => {
                self.base = self.acknowledged;
                let purged = self.writer.purge_below(Position(self.base + 1));
                self.disk.recycle(&purged);
            }
            Event::Crash { kept_sectors, in_flight } => {
                if in_flight && let Some(plan) = self.writer.next_flush().expect("the log runs") {
                    let acknowledged = self.acknowledged;
                    self.carry_out(plan, |sector| kept_sectors >> (sector % 64) & 1 == 1);
                    self.acknowledged = acknowledged;
                }
                self.start(None);
            }
            Event::Truncate(count) => {
                let durable = self.live.range(..=self.acknowledged).rev().nth(usize::from(count) % 4);
                let keep = durable.map_or(0, |(position, _)| *position).max(self.base);
                self.acknowledged = self.acknowledged.min(keep);
                self.start(Some(keep));
            }
            Event::Rot(damages) => {
                self.rotten = true;
                damages.into_iter().take(6).for_each(|damage| self.disk.damage(damage));
                self.start(None);
            }
        }
    }

    fn append(&mut self, bytes: usize) {
        let position = self.next_position;
        self.next_position += 1 + bytes as u64 % 3;
        let content = (bytes, self.starts);
        self.writer.append(Position(position), &record(position, content)).expect("the log runs");
        self.live.insert(position, content);
        self.ever.entry(position).or_default().push(content);
    }

    fn carry_out(&mut self, plan: FlushPlan, keep: impl FnMut(usize) -> bool) {
        self.disk.write(&plan, keep);
        let completes = self.writer.on_flushed(Ok(())).expect("the log runs").0;
        let (life, offset) = (plan.life, plan.offset as usize);
        self.flushed.push(Flushed { life, offset, head: plan.bytes[..BLOCK_HEADER_BYTES].to_vec(), completes });
        self.writer.give_back(plan.bytes);
        self.acknowledged = completes;
    }

    /// The server starts: what it finds is judged, and the log goes on if it may.
    fn start(&mut self, discard_after: Option<u64>) {
        let (recovered, records) = self.recover(discard_after);
        match &recovered.verdict {
            Verdict::Damage(damage) => {
                assert!(self.rotten, "nothing was damaged, but {damage}");
                let recoverable_to = damage.recoverable_to.0;
                assert!(recovered.resume(7).is_err(), "a damaged log is not written to");
                if self.check_records(&records, recoverable_to) && !records.is_empty() {
                    self.discard(recoverable_to, &records);
                } else {
                    self.over = true;
                }
            }
            // It then begins where the snapshot ends; that a log should be there is for the caller to know.
            Verdict::Empty => self.judge(self.base, &recovered, &records, discard_after),
            Verdict::Clean { end } | Verdict::TornTail { end, .. } => {
                self.judge(end.0, &recovered, &records, discard_after);
            }
        }
    }

    fn recover(&self, discard_after: Option<u64>) -> (Recovered, Vec<(Position, Vec<u8>)>) {
        let discard_after = discard_after.map(Position);
        let options = RecoveryOptions { discard_after, ..RecoveryOptions::new(Position(self.base), Life::NONE) };
        // Records are held twice at most, and this keeps them, too.
        bounded((64 << 10) + 6 * self.disk.bytes(), || self.disk.recover(options))
    }

    /// The operator gives up what the damage took: that much was promised by the report.
    fn discard(&mut self, recoverable_to: u64, records: &[(Position, Vec<u8>)]) {
        let (recovered, again) = self.recover(Some(recoverable_to));
        assert!(!matches!(recovered.verdict, Verdict::Damage(_)), "{recoverable_to}: {:?}", recovered.verdict);
        assert!(again == records, "what could be recovered is recovered");
        self.resume(recoverable_to, &recovered);
    }

    /// The log is believed: it must be what was appended, and all that was acknowledged unless nothing is left that shows it.
    fn judge(&mut self, end: u64, recovered: &Recovered, records: &[(Position, Vec<u8>)], discard_after: Option<u64>) {
        if end < self.base {
            // The snapshot says that more was durable: the caller refuses to start.
            assert!(self.rotten, "the log ends at {end}, before the snapshot at {}", self.base);
            self.over = true;
            return;
        }
        assert!(discard_after.is_none_or(|cut| end <= cut.max(self.base)), "the cut is kept to");
        if !self.check_records(records, end) {
            self.over = true;
            return;
        }
        if end < self.acknowledged {
            assert!(self.rotten, "record {} was acknowledged, the log ends at {end}", self.acknowledged);
            self.check_evidence(end);
        }
        self.resume(end, recovered);
    }

    /// Whether the records are those of the live log after the base up to `end`. If a cut was lost with the header that
    /// says it, what was cut off may come back: then they must only have been appended at some time, in order.
    fn check_records(&self, records: &[(Position, Vec<u8>)], end: u64) -> bool {
        for pair in records.windows(2) {
            assert!(pair[0].0 < pair[1].0, "records grow");
        }
        let found = |position: u64, content: &Content, bytes: &[u8]| *bytes == record(position, *content);
        let cut_lost = self.cuts.iter().any(|cut| !self.disk.holds(cut.life, 0, &cut.head));
        for (position, bytes) in records {
            let ever = self
                .ever
                .get(&position.0)
                .is_some_and(|all| all.iter().any(|content| found(position.0, content, bytes)));
            assert!(ever, "record {position} was never appended like this");
        }
        if cut_lost {
            return false;
        }
        let expected: Vec<u64> =
            self.live.range(self.base + 1..).map(|(position, _)| *position).take_while(|z| *z <= end).collect();
        let read: Vec<u64> = records.iter().map(|(position, _)| position.0).collect();
        assert_eq!(read, expected, "the records up to {end}, without a gap");
        assert!(
            records.iter().all(|(position, bytes)| found(position.0, &self.live[&position.0], bytes)),
            "an abandoned record"
        );
        true
    }

    /// Acknowledged records are missing and nobody was told. Then nothing may be left on the disk that was written after
    /// them: no header of a later flush, no cut that kept them.
    fn check_evidence(&self, end: u64) {
        let Some((&lost, _)) = self.live.range(end + 1..=self.acknowledged).next() else { return };
        for cut in self.cuts.iter().filter(|cut| cut.keep_to >= lost) {
            let there = self.disk.holds(cut.life, 0, &cut.head);
            assert!(!there, "record {lost} is missing silently, but {} says that it was kept", cut.life.file_name());
        }
        if !self.sync {
            return;
        }
        let later = self.flushed.iter().skip_while(|flush| flush.completes < lost).skip(1);
        for flush in later {
            let there = self.disk.holds(flush.life, flush.offset, &flush.head);
            let file = flush.life.file_name();
            assert!(
                !there,
                "record {lost} is missing silently, but a later block stands in {file} at {}",
                flush.offset
            );
        }
    }

    /// Goes on after a recovery that ended at `end`.
    fn resume(&mut self, end: u64, recovered: &Recovered) {
        let start = recovered.resume(7).expect("no damage");
        self.writer = LogWriter::start(tiny_config(self.sync), start).expect("good sizes");
        if !self.writer.tail_to_sync().is_empty() {
            self.writer.on_tail_synced(Ok(())).expect("the log runs");
        }
        assert_eq!(self.writer.durable_position(), Position(end));
        let in_force = self.flushed.iter().position(|flush| flush.completes >= end).filter(|_| end > 0);
        self.flushed.truncate(in_force.map_or(0, |index| index + 1));
        if let Some(last) = self.flushed.last_mut() {
            // What it wrote beyond the cut is void: a new record with one of those numbers is not in it.
            last.completes = end;
        }
        self.cuts.retain(|cut| cut.keep_to <= end);
        self.live.split_off(&(end + 1));
        self.disk.recycle(&recovered.recycle_now);
        self.make_segments();
        self.disk.recycle(&recovered.recycle_when_ready);
        // Files that are gone carry no cut: the new segment has it.
        self.cuts.retain(|cut| self.disk.files.contains_key(&cut.life));
        self.acknowledged = end;
        // A new log may use the numbers of lost records again, with other content.
        self.next_position = end + 1;
        self.starts += 1;
        self.rotten = false;
    }
}

fn note_cut(spec: &SegmentSpec, cuts: &mut Vec<Cut>) {
    let header = SegmentHeader::decode(&spec.header, spec.life).expect("a header that was just made");
    if header.is_cut() {
        let head = spec.header[..SEGMENT_HEADER_BYTES].to_vec();
        cuts.push(Cut { life: spec.life, keep_to: header.keep_to.0, head });
    }
}
