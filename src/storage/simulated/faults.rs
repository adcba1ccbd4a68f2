//! What a simulation does to a disk, and what it may ask without being a process.

use super::contents::Loss;
use super::{SimulatedDisk, Slow};
use std::path::{Path, PathBuf};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file.
    pub path: PathBuf,
    /// Where it begins.
    pub offset: usize,
    /// Its length.
    pub bytes: usize,
}

/// What goes wrong.
impl SimulatedDisk {
    /// The host has lost its power: everything that was not synced may be gone. Call it after
    /// [`crate::runtime::world::World::power_off`], so that no process is left that could see it.
    ///
    /// At times all of it is gone, at times nothing. Gives a line that says which.
    pub fn lose_power(&self) -> String {
        let mut state = self.lock();
        let state = &mut *state;
        state.power_losses += 1;
        state.locks.clear();
        let loss = match state.prng.weighted(&[20, 20, 60]) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some,
        };
        let files_before = state.names.files().count();
        state.names.lose_power(loss, &mut state.prng);
        for (_, inode) in state.names.files() {
            inode.lock().lose_power(loss, &mut state.prng);
        }
        let files = state.names.files().count();
        let what = match loss {
            Loss::All => "everything",
            Loss::Nothing => "nothing",
            Loss::Some => "some",
        };
        format!("the disk lost its power, and of what was not synced {what}: {files} files of {files_before}")
    }

    /// A process opens its files anew, and reads with direct IO what the disk has: the page cache keeps nothing of failed syncs.
    pub fn drop_clean_pages(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        for (_, inode) in state.names.files() {
            inode.lock().drop_clean_pages(&mut state.prng);
        }
    }

    /// The sync that ends next fails, whatever it syncs: a file, a write that syncs itself, or a directory.
    pub fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// The next sync does not fail after all.
    pub fn cancel_failed_sync(&self) {
        self.lock().fail_next_sync = false;
    }

    /// Whether a sync is still to fail.
    pub fn has_sync_to_fail(&self) -> bool {
        self.lock().fail_next_sync
    }

    /// While it is full nothing grows, whatever the capacity.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Bytes that all files together may have.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// What begins before `until_us` of virtual time takes `factor` times as long.
    pub fn slow_down(&self, until_us: u64, factor: u64) {
        self.lock().slow = Slow { until_us, factor };
    }

    /// Turns one bit, on the disk and in the page cache. `None` when the file has no such byte.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) -> Option<String> {
        let inode = self.lock().names.file(path).ok()?;
        let mut contents = inode.lock();
        contents.cached().get(offset)?;
        contents.damage(offset, |bytes| bytes[0] ^= 1 << (bit % 8), 1);
        Some(format!("bit {} of byte {offset} of {} was turned", bit % 8, path.display()))
    }

    /// A write that went to the wrong place: a copy of `from` lies over `to`, as far as both reach. `None` when a file is not there
    /// or too short, or when nothing changes by it.
    pub fn misplace(&self, from: &Extent, to: &Extent) -> Option<String> {
        let (source, target) = {
            let state = self.lock();
            (state.names.file(&from.path).ok()?, state.names.file(&to.path).ok()?)
        };
        let bytes = from.bytes.min(to.bytes);
        let copy = source.lock().cached().get(from.offset..from.offset.checked_add(bytes)?)?.to_vec();
        let mut target = target.lock();
        if target.cached().get(to.offset..to.offset.checked_add(bytes)?)? == copy {
            return None;
        }
        target.damage(to.offset, |place| place.copy_from_slice(&copy[..place.len()]), bytes);
        let (from_path, to_path) = (from.path.display(), to.path.display());
        Some(format!("{bytes} bytes from {} of {from_path} were written to {} of {to_path}", from.offset, to.offset))
    }

    /// The end of a file is gone. `None` when the file is not there, or not longer.
    pub fn cut_file(&self, path: &Path, file_bytes: usize) -> Option<String> {
        let inode = self.lock().names.file(path).ok()?;
        let mut contents = inode.lock();
        let before = contents.cached().len();
        if before <= file_bytes {
            return None;
        }
        contents.damage_file_bytes(file_bytes);
        Some(format!("{} was cut from {before} to {file_bytes} bytes", path.display()))
    }
}

/// What a checker sees.
impl SimulatedDisk {
    /// All files, in the order of their paths.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().names.files().map(|(path, _)| path.to_owned()).collect()
    }

    /// A file as a process would read it.
    pub fn cached_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.lock().names.file(path).ok()?;
        let contents = inode.lock();
        Some(contents.cached().to_vec())
    }

    /// What of a file is there after every power loss: its name and these bytes are durable.
    pub fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.lock().names.durable_file(path)?;
        let contents = inode.lock();
        Some(contents.durable().to_vec())
    }

    /// True when no operation is in flight. Otherwise one of a process that was killed may still change a file.
    pub fn is_idle(&self) -> bool {
        self.lock().in_flight == 0
    }
}
