//! The bytes of one simulated file: what reads see, what is durable, and what lies between.
//!
//! Every sector has its own history. A write adds a version to each sector that it covers. Making a version durable forgets it and
//! the older versions of its sector. A power loss keeps of every sector one of the versions that are left, or none.
//!
//! Invariants:
//! - `versions` holds no empty list, and in each list the numbers rise;
//! - what is durable is never replaced by something older, whatever survives.

use crate::base::prng::Prng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// The place of a change in the order in which changes became visible, over all files of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangeNumber(pub(super) u64);

/// A write as the page cache took it: whole sectors.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) number: ChangeNumber,
    pub(super) offset: usize,
    pub(super) bytes: Arc<[u8]>,
}

impl Write {
    fn sectors(&self) -> std::ops::Range<usize> {
        let first = self.offset / SECTOR_BYTES;
        first..first + self.bytes.len() / SECTOR_BYTES
    }

    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    /// The bytes for one of its sectors.
    fn sector(&self, sector: usize) -> &[u8] {
        let start = sector * SECTOR_BYTES - self.offset;
        &self.bytes[start..start + SECTOR_BYTES]
    }
}

/// What a write made of one sector, while it is not durable there.
#[derive(Debug)]
struct Version {
    write: Write,
    /// A sync failed over it. The page cache thinks that it is on the disk, so no later sync writes it.
    given_up: bool,
}

/// What a sync covers: everything that was visible when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncPoint {
    below: ChangeNumber,
    file_bytes: usize,
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// By number of the sector, oldest first.
    versions: BTreeMap<usize, Vec<Version>>,
    /// Lengths to which the file was cut since that was last durable, oldest first.
    cuts: Vec<(ChangeNumber, usize)>,
}

/// What a power loss does to everything that was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing of it was on the disk yet.
    All,
    /// All of it was.
    Nothing,
    /// Each change has a fate of its own.
    Some,
}

/// What a power loss does to one write.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    /// Each of its sectors is kept with this chance.
    Torn(u64),
    /// Each of its sectors is kept, or holds neither what was written nor what was there before.
    Spoilt,
}

impl Fate {
    fn draw(loss: Loss, prng: &mut Prng) -> Fate {
        match loss {
            Loss::All => Fate::Lost,
            Loss::Nothing => Fate::Kept,
            Loss::Some => match prng.weighted(&[4, 4, 4, 1]) {
                0 => Fate::Lost,
                1 => Fate::Kept,
                2 => Fate::Torn(prng.choose(&[10, 50, 90])),
                _ => Fate::Spoilt,
            },
        }
    }

    fn keeps(self, prng: &mut Prng) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept | Fate::Spoilt => true,
            Fate::Torn(percent) => prng.percent(percent),
        }
    }
}

impl Contents {
    /// The file as reads see it.
    pub(super) fn cached(&self) -> &[u8] {
        &self.cached
    }

    /// What survives every power loss.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// Bytes that a write up to `end` adds to the file.
    pub(super) fn growth(&self, end: usize) -> usize {
        end.saturating_sub(self.cached.len())
    }

    /// Writes into the page cache.
    pub(super) fn write(&mut self, write: Write) {
        let is_whole = write.offset.is_multiple_of(SECTOR_BYTES) && write.bytes.len().is_multiple_of(SECTOR_BYTES);
        assert!(is_whole, "{} bytes at {} are no whole sectors", write.bytes.len(), write.offset);
        let end = write.end();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[write.offset..end].copy_from_slice(&write.bytes);
        for sector in write.sectors() {
            self.versions.entry(sector).or_default().push(Version { write: write.clone(), given_up: false });
        }
    }

    /// Cuts or extends the file, the latter with zeros.
    pub(super) fn set_file_bytes(&mut self, number: ChangeNumber, file_bytes: usize) {
        if file_bytes < self.cached.len() {
            self.cuts.push((number, file_bytes));
            self.versions.split_off(&file_bytes.div_ceil(SECTOR_BYTES));
        }
        self.cached.resize(file_bytes, 0);
        let last = file_bytes / SECTOR_BYTES;
        if let Some(versions) = self.versions.get_mut(&last) {
            // What a write left behind the cut must not come back when the file grows again.
            let mut bytes = self.cached[last * SECTOR_BYTES..].to_vec();
            bytes.resize(SECTOR_BYTES, 0);
            let given_up = versions.last().is_some_and(|version| version.given_up);
            let write = Write { number, offset: last * SECTOR_BYTES, bytes: bytes.into() };
            versions.push(Version { write, given_up });
        }
    }

    /// The page cache forgets what is clean, and what is read next comes from the disk: of what failed syncs have left behind, each
    /// sector is on the disk, or it is not.
    pub(super) fn drop_clean_pages(&mut self, prng: &mut Prng) {
        for (sector, versions) in &mut self.versions {
            let Some(newest) = versions.iter().rposition(|version| version.given_up) else { continue };
            let is_stored = prng.percent(50);
            let start = sector * SECTOR_BYTES;
            if is_stored {
                let file_bytes = self.durable.len().max(start + SECTOR_BYTES);
                self.durable.resize(file_bytes, 0);
                store(&mut self.durable, *sector, versions[newest].write.sector(*sector));
            }
            versions.drain(..=newest);
            if versions.is_empty() && start < self.cached.len() {
                let end = self.cached.len().min(start + SECTOR_BYTES);
                let mut bytes = [0; SECTOR_BYTES];
                let durable = self.durable.get(start..).unwrap_or_default();
                let known = durable.len().min(SECTOR_BYTES);
                bytes[..known].copy_from_slice(&durable[..known]);
                self.cached[start..end].copy_from_slice(&bytes[..end - start]);
            }
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }

    /// What a sync covers that begins before the change `next` happens.
    pub(super) fn sync_point(&self, next: ChangeNumber) -> SyncPoint {
        SyncPoint { below: next, file_bytes: self.cached.len() }
    }

    /// A sync has succeeded.
    pub(super) fn synced(&mut self, point: SyncPoint) {
        self.cuts_are_durable(point.below);
        let file_bytes = point.file_bytes.max(self.durable.len());
        self.durable.resize(file_bytes, 0);
        let durable = &mut self.durable;
        self.versions.retain(|sector, versions| {
            let covered = |version: &Version| !version.given_up && version.write.number < point.below;
            if let Some(newest) = versions.iter().rposition(covered) {
                store(durable, *sector, versions[newest].write.sector(*sector));
                versions.drain(..=newest);
            }
            !versions.is_empty()
        });
    }

    /// A sync has failed: what it covered is as good as written for the page cache, and the disk may have any part of it.
    pub(super) fn sync_failed(&mut self, point: SyncPoint) {
        let covered = self.versions.values_mut().flatten().filter(|version| version.write.number < point.below);
        covered.for_each(|version| version.given_up = true);
    }

    /// A write has made itself durable, and nothing else but the length that it needs.
    pub(super) fn forced(&mut self, write: &Write) {
        self.cuts_are_durable(write.number);
        let file_bytes = write.end().max(self.durable.len());
        self.durable.resize(file_bytes, 0);
        for sector in write.sectors() {
            let Some(versions) = self.versions.get_mut(&sector) else { continue };
            if let Some(at) = versions.iter().position(|version| version.write.number == write.number) {
                store(&mut self.durable, sector, write.sector(sector));
                versions.drain(..=at);
            }
            if versions.is_empty() {
                self.versions.remove(&sector);
            }
        }
    }

    /// A write that was to make itself durable has failed.
    pub(super) fn force_failed(&mut self, number: ChangeNumber) {
        let failed = self.versions.values_mut().flatten().filter(|version| version.write.number == number);
        failed.for_each(|version| version.given_up = true);
    }

    fn cuts_are_durable(&mut self, below: ChangeNumber) {
        let durable = &mut self.durable;
        self.cuts.retain(|(number, file_bytes)| {
            let covered = *number < below;
            if covered {
                durable.truncate(*file_bytes);
            }
            !covered
        });
    }

    /// The power is gone, and with it the page cache.
    pub(super) fn lose_power(&mut self, loss: Loss, prng: &mut Prng) {
        let cuts = std::mem::take(&mut self.cuts);
        let cut_kept = Fate::draw(loss, prng).keeps(prng);
        if cut_kept {
            cuts.iter().for_each(|(_, file_bytes)| self.durable.truncate(*file_bytes));
        }
        let file_bytes = self.file_bytes_after(loss, prng);
        self.durable.resize(file_bytes, 0);
        let mut fates: BTreeMap<ChangeNumber, Fate> = BTreeMap::new();
        for (sector, versions) in std::mem::take(&mut self.versions) {
            for version in versions.iter().rev() {
                let fate = *fates.entry(version.write.number).or_insert_with(|| Fate::draw(loss, prng));
                if !fate.keeps(prng) {
                    continue;
                }
                let mut bytes = version.write.sector(sector).to_vec();
                if matches!(fate, Fate::Spoilt) && prng.percent(50) {
                    bytes.iter_mut().for_each(|byte| *byte ^= prng.any() as u8);
                }
                store(&mut self.durable, sector, &bytes);
                break;
            }
        }
        self.cached = self.durable.clone();
    }

    /// The length that a power loss leaves: the durable one, the latest, or any between.
    fn file_bytes_after(&self, loss: Loss, prng: &mut Prng) -> usize {
        let (durable, cached) = (self.durable.len() as u64, self.cached.len() as u64);
        let file_bytes = match loss {
            Loss::All => durable,
            Loss::Nothing => cached,
            Loss::Some => match prng.below(3) {
                0 => durable,
                1 => cached,
                _ => prng.between(durable.min(cached), durable.max(cached)),
            },
        };
        file_bytes as usize
    }

    /// Overwrites bytes that lie within the file, on the disk and in the page cache.
    pub(super) fn damage(&mut self, offset: usize, change: impl Fn(&mut [u8]), bytes: usize) {
        for view in [&mut self.durable, &mut self.cached] {
            let end = view.len().min(offset + bytes);
            if offset < end {
                change(&mut view[offset..end]);
            }
        }
    }

    /// Cuts the file, on the disk and in the page cache.
    pub(super) fn damage_file_bytes(&mut self, file_bytes: usize) {
        self.durable.truncate(file_bytes);
        self.cached.truncate(file_bytes);
        self.versions.split_off(&file_bytes.div_ceil(SECTOR_BYTES));
    }
}

/// Stores a sector, as far as the file reaches.
fn store(durable: &mut [u8], sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR_BYTES;
    let end = durable.len().min(start + bytes.len());
    if start < end {
        durable[start..end].copy_from_slice(&bytes[..end - start]);
    }
}
