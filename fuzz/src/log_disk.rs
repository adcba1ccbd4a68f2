//! The files of a transaction log, what a driver does with them, and what time and hardware may do to them.

use arbitrary::Arbitrary;
use ringkeeper::log::chain::SegmentPrefix;
use ringkeeper::log::format::{BLOCK_BYTES_DEFAULT, Life, SEGMENT_HEADER_BYTES};
use ringkeeper::log::position::{Position, Record};
use ringkeeper::log::recovery::{LogRecovery, Recovered, RecoveryOptions};
use ringkeeper::log::writer::{FlushPlan, LogConfig, LogWriter, SegmentSpec};
use std::collections::{BTreeMap, VecDeque};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a block.
pub const BLOCK: usize = BLOCK_BYTES_DEFAULT as usize;

/// Small sizes, so that rolls, splits and records over segments happen all the time.
pub fn tiny_config(sync: bool) -> LogConfig {
    LogConfig {
        segment_bytes: 8 * BLOCK as u64,
        block_bytes: BLOCK as u32,
        flush_bytes_max: 4 * BLOCK as u32,
        queue_bytes_max: 1 << 20,
        ready_segments: 1,
        sync,
        record_version: 0,
    }
}

/// What happens to files at rest. Places wrap around. Nothing here makes a checksum right: bits flip, sectors are lost, come
/// back as they were, or stand elsewhere.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    Flip {
        file: u8,
        sector: u8,
        at: u16,
        bit: u8,
    },
    /// A bit of a header: of the segment or of a block.
    FlipHead {
        file: u8,
        block: u8,
        at: u8,
        bit: u8,
    },
    Zero {
        file: u8,
        sector: u8,
        sectors: u8,
    },
    /// What the file held before its segment's life began.
    Revert {
        file: u8,
        sector: u8,
        sectors: u8,
    },
    Misdirect {
        from: (u8, u8),
        to: (u8, u8),
        sectors: u8,
    },
    Truncate {
        file: u8,
        sector: u8,
        odd_bytes: u8,
    },
    Remove {
        file: u8,
    },
    Exchange {
        one: u8,
        other: u8,
    },
}

/// The files of a data directory.
#[derive(Clone, Debug, Default)]
pub struct LogDisk {
    /// The segments.
    pub files: BTreeMap<Life, Vec<u8>>,
    /// What each held when its life began.
    before: BTreeMap<Life, Vec<u8>>,
    /// Files to recycle, stale content and all.
    pub spares: VecDeque<(Life, Vec<u8>)>,
}

impl LogDisk {
    /// Makes every segment that the writer asks for, of spares if there are any; `made` is told of each.
    pub fn make_segments(&mut self, writer: &mut LogWriter, mut made: impl FnMut(&SegmentSpec)) {
        while let Some(spec) = writer.wants_segment().expect("the log runs") {
            let mut bytes = self.spares.pop_front().map(|(_, bytes)| bytes).unwrap_or_default();
            bytes.resize(spec.segment_bytes as usize, 0);
            self.before.insert(spec.life, bytes.clone());
            bytes[..spec.header.len()].copy_from_slice(&spec.header);
            assert!(self.files.insert(spec.life, bytes).is_none(), "a life is never given out twice");
            made(&spec);
            writer.segment_ready(spec.life).expect("it was asked for");
        }
    }

    /// The part of the plan that reaches the disk: sectors for which `keep` says so. A file that damage took or cut short
    /// takes what it can.
    pub fn write(&mut self, plan: &FlushPlan, mut keep: impl FnMut(usize) -> bool) {
        let file = self.files.get_mut(&plan.life).expect("the segment was made");
        for (sector, bytes) in plan.bytes.chunks(SECTOR_BYTES).enumerate() {
            if keep(sector) {
                let at = plan.offset as usize + sector * SECTOR_BYTES;
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Makes spares of files.
    pub fn recycle(&mut self, lives: &[Life]) {
        for life in lives {
            let bytes = self.files.remove(life).expect("a file that is to be recycled is there");
            self.before.remove(life);
            self.spares.push_back((*life, bytes));
        }
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// Recovers with the given options.
    pub fn recover(&self, options: RecoveryOptions) -> (Recovered, Vec<(Position, Vec<u8>)>) {
        let highest_spare = self.spares.iter().map(|(life, _)| *life).max().unwrap_or_default();
        let options = RecoveryOptions { highest_spare, ..options };
        let prefix = |(life, bytes): (&Life, &'_ Vec<u8>)| (*life, bytes.len().min(2 * BLOCK));
        let prefixes: Vec<_> = self
            .files
            .iter()
            .map(|file| (prefix(file), file.1))
            .map(|((life, len), bytes)| SegmentPrefix { life, bytes: &bytes[..len] })
            .collect();
        let mut recovery = LogRecovery::new(&prefixes, options);
        let mut records = Vec::new();
        let mut sink = |record: Record<'_>| records.push((record.position, record.bytes.to_vec()));
        recovery.read_all(|life| &self.files[&life], &mut sink);
        (recovery.finish(), records)
    }

    /// Whether the file of `life` holds `bytes` at `offset`.
    pub fn holds(&self, life: Life, offset: usize, bytes: &[u8]) -> bool {
        self.files.get(&life).and_then(|file| file.get(offset..offset + bytes.len())) == Some(bytes)
    }

    fn life(&self, file: u8) -> Option<Life> {
        let count = self.files.len();
        // The last files are the interesting ones.
        (count > 0).then(|| *self.files.keys().rev().nth(usize::from(file) % count).expect("below the count"))
    }

    /// The bytes of some sectors, as far as the file reaches.
    fn range(&self, life: Life, sector: u8, sectors: u8) -> std::ops::Range<usize> {
        let len = self.files[&life].len();
        let total = len.div_ceil(SECTOR_BYTES).max(1);
        let from = usize::from(sector) % total * SECTOR_BYTES;
        from.min(len)..(from + (1 + usize::from(sectors)) * SECTOR_BYTES).min(len)
    }

    /// Lets it happen.
    pub fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Flip { file, sector, at, bit } => self.flip(file, sector, usize::from(at) % SECTOR_BYTES, bit),
            Damage::FlipHead { file, block, at, bit } => {
                let sector = (usize::from(block) * (BLOCK / SECTOR_BYTES) % 64) as u8;
                self.flip(file, sector, usize::from(at) % SEGMENT_HEADER_BYTES, bit);
            }
            Damage::Zero { file, sector, sectors } => {
                self.replace(file, sector, sectors, |_, range| vec![0; range.len()])
            }
            Damage::Revert { file, sector, sectors } => self.replace(file, sector, sectors, |before, range| {
                let mut old = before.get(range.start..).unwrap_or_default().to_vec();
                old.resize(range.len(), 0);
                old
            }),
            Damage::Misdirect { from, to, sectors } => self.misdirect(from, to, sectors),
            Damage::Truncate { file, sector, odd_bytes } => {
                if let Some(life) = self.life(file) {
                    let end = self.range(life, sector, 0).start + usize::from(odd_bytes);
                    self.files.get_mut(&life).expect("a file").truncate(end);
                }
            }
            Damage::Remove { file } => {
                if let Some(life) = self.life(file) {
                    self.files.remove(&life);
                }
            }
            Damage::Exchange { one, other } => {
                if let (Some(one), Some(other)) = (self.life(one), self.life(other)) {
                    let first = self.files[&one].clone();
                    let second = self.files.insert(other, first).expect("a file");
                    self.files.insert(one, second);
                }
            }
        }
    }

    fn flip(&mut self, file: u8, sector: u8, at: usize, bit: u8) {
        let Some(life) = self.life(file) else { return };
        let range = self.range(life, sector, 0);
        if let Some(byte) = self.files.get_mut(&life).expect("a file")[range].get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
    }

    fn replace(
        &mut self,
        file: u8,
        sector: u8,
        sectors: u8,
        content: impl FnOnce(&[u8], &std::ops::Range<usize>) -> Vec<u8>,
    ) {
        let Some(life) = self.life(file) else { return };
        let range = self.range(life, sector, sectors);
        let bytes = content(self.before.get(&life).map_or(&[], Vec::as_slice), &range);
        self.files.get_mut(&life).expect("a file")[range].copy_from_slice(&bytes);
    }

    fn misdirect(&mut self, from: (u8, u8), to: (u8, u8), sectors: u8) {
        let (Some(source), Some(target)) = (self.life(from.0), self.life(to.0)) else { return };
        let bytes = self.files[&source][self.range(source, from.1, sectors)].to_vec();
        let range = self.range(target, to.1, sectors);
        let len = range.len().min(bytes.len());
        self.files.get_mut(&target).expect("a file")[range][..len].copy_from_slice(&bytes[..len]);
    }
}
