//! The disk of a simulated server: log files that lose, tear and keep what the real ones may.
//!
//! A write goes to a cache; a sync makes the file's writes durable. When the machine fails, every sector that was written
//! since the file's last sync has, independently, the old content or the new one. Names change durably, one at a time, as
//! after a sync of the directory. A file that is used again keeps its stale content.

use crate::base::Zxid;
use crate::base::prng::Prng;
use crate::log::format::Life;
use std::collections::BTreeMap;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file as its reader sees it, and what of it is not durable yet.
#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    /// The old content of every sector that was written since the last sync, by number.
    unsynced: BTreeMap<usize, Vec<u8>>,
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        debug_assert_eq!(offset % SECTOR_BYTES, 0, "direct writes are aligned");
        for (sector, bytes) in (offset / SECTOR_BYTES..).zip(bytes.chunks(SECTOR_BYTES)) {
            let at = sector * SECTOR_BYTES..sector * SECTOR_BYTES + bytes.len();
            let old = &mut self.content[at];
            self.unsynced.entry(sector).or_insert_with(|| old.to_vec());
            old.copy_from_slice(bytes);
        }
    }

    fn fail(&mut self, keeps: &mut impl FnMut() -> bool) {
        for (sector, old) in std::mem::take(&mut self.unsynced) {
            if !keeps() {
                let at = sector * SECTOR_BYTES;
                self.content[at..at + old.len()].copy_from_slice(&old);
            }
        }
    }
}

/// A range of a log file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) life: Life,
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// The directories of log and snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    logs: BTreeMap<Life, File>,
    spares: BTreeMap<Life, File>,
    parts: BTreeMap<(Zxid, u32), Vec<u8>>,
    manifests: BTreeMap<Zxid, Vec<u8>>,
    /// How many files were made of older ones.
    pub(super) recycled: u64,
}

impl Disk {
    /// The log files, by life, with what a reader finds in them.
    pub(super) fn logs(&self) -> impl Iterator<Item = (Life, &[u8])> {
        self.logs.iter().map(|(life, file)| (*life, file.content.as_slice()))
    }

    /// The content of a log file.
    pub(super) fn log(&self, life: Life) -> &[u8] {
        self.logs.get(&life).map_or(&[], |file| &file.content)
    }

    /// The highest life of a spare file.
    pub(super) fn highest_spare(&self) -> Life {
        self.spares.keys().next_back().copied().unwrap_or(Life::NONE)
    }

    /// Writes to a log file; durable after [`Disk::sync`].
    pub(super) fn write(&mut self, life: Life, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.logs.get_mut(&life) {
            file.write(offset as usize, bytes);
        }
    }

    /// Makes everything that was written to a log file durable.
    pub(super) fn sync(&mut self, life: Life) {
        if let Some(file) = self.logs.get_mut(&life) {
            file.unsynced.clear();
        }
    }

    /// Makes the file of a segment: of the oldest spare, stale content and all, or new. Header and name are durable then.
    pub(super) fn make_segment(&mut self, life: Life, segment_bytes: u64, header: &[u8]) {
        let mut file = match self.spares.pop_first() {
            Some((_, file)) => {
                self.recycled += 1;
                file
            }
            None => File::default(),
        };
        file.content.resize(segment_bytes as usize, 0);
        file.content[..header.len()].copy_from_slice(header);
        file.unsynced.clear();
        self.logs.insert(life, file);
    }

    /// The segment could not be finished before the machine failed: its file is a spare still, with or without the header.
    pub(super) fn abandon_segment(&mut self, life: Life, segment_bytes: u64, header: Option<&[u8]>) {
        let (life, mut file) = self.spares.pop_first().unwrap_or((life, File::default()));
        file.content.resize(segment_bytes as usize, 0);
        if let Some(header) = header {
            file.content[..header.len()].copy_from_slice(header);
        }
        self.spares.insert(life, file);
    }

    /// Makes a spare of a log file.
    pub(super) fn recycle(&mut self, life: Life) {
        if let Some(file) = self.logs.remove(&life) {
            self.spares.insert(life, file);
        }
    }

    /// The machine fails: of what was not synced, any sectors survive. At times all of them, or none.
    pub(super) fn fail(&mut self, prng: &mut Prng) {
        let percent = prng.choose(&[0, 50, 90, 100]);
        let mut keeps = || prng.percent(percent);
        self.logs.values_mut().for_each(|file| file.fail(&mut keeps));
        self.spares.values_mut().for_each(|file| file.fail(&mut keeps));
    }

    /// Turns a bit somewhere in `extent`.
    pub(super) fn rot(&mut self, extent: Extent, prng: &mut Prng) {
        if let Some(file) = self.logs.get_mut(&extent.life) {
            let at = extent.offset as usize + prng.below(extent.bytes as u64) as usize;
            file.content[at] ^= 1 << prng.below(8);
        }
    }

    /// A write that went to the wrong place: a copy of the first blocks of `from` lies over `to`.
    pub(super) fn misplace(&mut self, from: Extent, to: Extent) {
        let bytes = from.bytes.min(to.bytes);
        let start = from.offset as usize;
        let copy = self.log(from.life)[start..start + bytes].to_vec();
        if let Some(file) = self.logs.get_mut(&to.life) {
            let start = to.offset as usize;
            file.content[start..start + bytes].copy_from_slice(&copy);
        }
    }
}

/// Snapshots. A file is synced before it counts, so each is there, or not.
impl Disk {
    /// The starts of the snapshots that exist, newest first.
    pub(super) fn manifests(&self) -> Vec<Zxid> {
        self.manifests.keys().rev().copied().collect()
    }

    /// A manifest.
    pub(super) fn manifest(&self, start: Zxid) -> &[u8] {
        self.manifests.get(&start).map_or(&[], Vec::as_slice)
    }

    /// A part.
    pub(super) fn part(&self, start: Zxid, index: u32) -> &[u8] {
        self.parts.get(&(start, index)).map_or(&[], Vec::as_slice)
    }

    /// A part is written and synced.
    pub(super) fn put_part(&mut self, start: Zxid, index: u32, bytes: Vec<u8>) {
        self.parts.insert((start, index), bytes);
    }

    /// A snapshot begins to exist.
    pub(super) fn put_manifest(&mut self, start: Zxid, bytes: Vec<u8>) {
        self.manifests.insert(start, bytes);
    }

    /// A snapshot stops existing.
    pub(super) fn remove_snapshot(&mut self, start: Zxid) {
        self.manifests.remove(&start);
        self.parts.retain(|(of, _), _| *of != start);
    }

    /// Removes parts of snapshots that never came to exist.
    pub(super) fn remove_leftovers(&mut self) {
        let manifests = &self.manifests;
        self.parts.retain(|(start, _), _| manifests.contains_key(start));
    }

    /// Turns a bit somewhere in the newest snapshot, if an older one is there to take its place.
    pub(super) fn rot_snapshot(&mut self, prng: &mut Prng) {
        let [newest, _, ..] = self.manifests()[..] else { return };
        let files: Vec<(Zxid, u32)> = self.parts.keys().copied().filter(|(start, _)| *start == newest).collect();
        let file = self.parts.get_mut(&prng.choose(&files)).filter(|file| !file.is_empty());
        if let Some(file) = file {
            let at = prng.below(file.len() as u64) as usize;
            file[at] ^= 1 << prng.below(8);
        }
    }
}
