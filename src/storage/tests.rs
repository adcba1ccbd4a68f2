//! The real backends on a real file system, as tmpfs would hide direct IO; and the contract on every backend.

use super::*;
use crate::base::ShardId;
use crate::runtime::world::World;
use crate::runtime::{ShardsConfig, run_shards};
use rustix::fs::OFlags;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new empty directory beside the test binary, on the file system the crate is built on.
pub(crate) fn test_directory(name: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let beside = std::env::current_exe().unwrap().parent().unwrap().join("storage-tests");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = beside.join(format!("{name}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs `test` on each of `shards` shards with a directory of its own, and removes the directories if it passes.
fn on_shards<F, Fut>(name: &str, shards: usize, test: F)
where
    F: FnOnce(PathBuf) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let top = test_directory(name);
    let config = ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(shards) };
    let own = top.clone();
    let handle = run_shards(&config, move |context| async move {
        let ShardId(shard) = context.shard;
        let directory = own.join(shard.to_string());
        std::fs::create_dir(&directory)?;
        test(directory).await;
        Ok(())
    });
    handle.unwrap().join().unwrap();
    std::fs::remove_dir_all(&top).unwrap();
}

/// Runs `test` on every backend, each time with a directory of its own: on each of `shards` shards, and in some simulated worlds.
fn on_every_backend<F, Fut>(name: &str, shards: usize, test: F)
where
    F: Fn(Storage, PathBuf) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let on_shard = test.clone();
    on_shards(name, shards, move |directory| async move {
        for (kind, backend) in [("direct", Backend::Direct), ("lossy", Backend::Lossy(Lossy::new(Some(1))))] {
            let own = directory.join(kind);
            backend.create_directories(&own).unwrap();
            on_shard(Storage::new(backend), own).await;
        }
    });
    for seed in 0..5 {
        let (world, test) = (World::new(seed), test.clone());
        let backend = Backend::Simulated(SimulatedDisk::new(world.stream("disk")));
        let outcome = world.run(async move {
            let own = PathBuf::from("/data/own");
            backend.create_directories(&own).unwrap();
            test(Storage::new(backend), own).await;
        });
        outcome.expect("nothing waits for ever");
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 % 253) as u8).collect()
}

fn padded(bytes: &[u8]) -> AlignedBuf {
    let mut buffer = AlignedBuf::new();
    buffer.append(bytes);
    buffer.pad();
    buffer
}

/// The life of a log segment: zero-filled, written in groups that are in flight together, synced, read back, recycled.
#[test]
fn a_log_segment_is_written_synced_renamed_and_read_back() {
    for shards in [1, 3] {
        on_every_backend("segment", shards, |storage, directory| async move {
            let (new, old) = (directory.join("new"), directory.join("old"));
            let file = storage.create(&new, 1 << 20, true).await.unwrap();
            assert_eq!(storage.read_all(&new).await.unwrap(), vec![0; 1 << 20]);
            let (first, second) = (pattern(5000), pattern(70_000));
            let mut buffer = file.write_at(padded(&first), 0).await.unwrap();
            buffer.clear();
            buffer.append(&second);
            buffer.pad();
            file.write_at(buffer, 8192).await.unwrap();
            file.sync().await.unwrap();
            file.close().await.unwrap();
            storage.rename(&new, &old).await.unwrap();
            storage.sync_directory(&directory).await.unwrap();
            let contents = storage.read_all(&old).await.unwrap();
            assert_eq!(contents.len(), 1 << 20);
            assert_eq!((&contents[..5000], &contents[8192..78_192]), (&first[..], &second[..]));
            assert!(contents[5000..8192].iter().all(|&byte| byte == 0));
            assert_eq!(storage.read_first(&old, 5000).await.unwrap(), first);
            let file = storage.open_log_file(&old, SyncMode::EveryWrite).await.unwrap();
            file.write_at(padded(&[9; 10]), 4096).await.unwrap();
            file.close().await.unwrap();
            assert_eq!(storage.read_all(&old).await.unwrap()[4096..4106], [9; 10]);
            storage.remove(&old).await.unwrap();
            assert!(storage.read_all(&old).await.unwrap_err().is_not_found());
            // On a disk with poll queues this would burn a core; the log is opened write-only to avoid it.
            assert_eq!(storage.polled_operations(), 0);
        });
    }
}

/// Lengths around the piece and block sizes, where padding and short reads live.
#[test]
fn an_appended_file_has_exactly_its_bytes_at_every_length() {
    on_every_backend("append", 1, |storage, directory| async move {
        for bytes in [0, 1, 4095, 4096, 4097, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, 5 * (512 << 10) + 777] {
            let path = directory.join(format!("snapshot.{bytes}"));
            let expected = pattern(bytes);
            let mut appender = storage.append_to_new(&path).await.unwrap();
            for piece in expected.chunks(100_003) {
                appender.append(piece).await.unwrap();
            }
            assert_eq!(appender.bytes(), bytes as u64);
            assert_eq!(appender.finish().await.unwrap(), bytes as u64);
            assert_eq!(storage.file_bytes(&path).await.unwrap(), bytes as u64);
            assert_eq!(storage.read_all(&path).await.unwrap(), expected);
            for offset in [0, 1, 4096, 4097, bytes / 2, bytes, bytes + 5000] {
                let mut reader = storage.read_from(&path, offset as u64).await.unwrap();
                let mut rest = Vec::new();
                while let Some(chunk) = reader.next().await.unwrap() {
                    assert!(!chunk.is_empty() && chunk.len() <= 512 << 10);
                    rest.extend_from_slice(&chunk);
                }
                assert_eq!(rest, expected[offset.min(bytes)..], "{bytes} bytes from {offset}");
            }
            storage.remove(&path).await.unwrap();
        }
    });
}

/// What a failed attempt left must not show through in the file that takes its name.
#[test]
fn a_file_that_is_begun_again_is_emptied_first() {
    on_every_backend("again", 1, |storage, directory| async move {
        let path = directory.join("snapshot");
        for bytes in [20_000, 5_001, 5_000, 9_000] {
            let mut appender = storage.append_to_new(&path).await.unwrap();
            appender.append(&pattern(bytes)).await.unwrap();
            assert_eq!(appender.finish().await.unwrap(), bytes as u64);
            assert_eq!(storage.read_all(&path).await.unwrap(), pattern(bytes));
        }
    });
}

#[test]
fn directories_are_created_and_listed() {
    on_every_backend("list", 1, |storage, directory| async move {
        for _ in 0..2 {
            storage.backend.create_directories(&directory.join("version-2/deep")).unwrap();
        }
        storage.create(&directory.join("log.1"), 8192, false).await.unwrap().close().await.unwrap();
        let entries = storage.list(&directory).await.unwrap();
        let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_directory)).collect();
        assert_eq!(names, [("log.1", false), ("version-2", true)]);
        assert_eq!(entries[0].bytes, 8192);
        assert!(storage.list(&directory.join("none")).await.unwrap_err().is_not_found());
        assert!(storage.sync_directory(&directory.join("none")).await.unwrap_err().is_not_found());
        assert!(storage.backend.exists(&directory.join("log.1")).unwrap());
        assert!(!storage.backend.exists(&directory.join("none")).unwrap());
        let error = storage.backend.create_directories(&directory.join("log.1/below")).unwrap_err();
        assert_eq!(error.operation, "create", "a file is in the way: {error}");
    });
}

/// Two servers on one directory would write one log.
#[test]
fn a_directory_is_locked_once() {
    on_every_backend("lock", 1, |storage, directory| async move {
        let lock = storage.backend.lock(&directory).unwrap();
        assert!(lock.is_some());
        assert!(storage.backend.lock(&directory).unwrap().is_none());
        drop(lock);
        assert!(storage.backend.lock(&directory).unwrap().is_some());
        assert!(storage.backend.lock(&directory.join("none")).unwrap_err().is_not_found());
    });
}

/// An operator must see what failed where.
#[test]
fn errors_name_operation_and_path() {
    on_every_backend("errors", 1, |storage, directory| async move {
        let missing = directory.join("missing");
        let error = storage.open_log_file(&missing, SyncMode::OnRequest).await.err().expect("there is no such file");
        assert!(error.is_not_found() && !error.is_out_of_space());
        let text = error.to_string();
        assert!(text.starts_with("cannot open /") && text.contains("missing: No such file"), "{text}");
        let twice = directory.join("twice");
        storage.create(&twice, 4096, false).await.unwrap().close().await.unwrap();
        let error = storage.create(&twice, 4096, false).await.err().expect("the path is taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert!(storage.rename(&missing, &twice).await.unwrap_err().is_not_found());
        storage.remove(&twice).await.unwrap();
    });
    // Asking a real file system for more than it has takes all of it away from everybody else for a moment.
    let full = StorageError {
        operation: "allocate space for",
        path: "/data/log".into(),
        source: io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
    };
    assert!(full.is_out_of_space() && !full.is_not_found());
}

/// A file that could not get its space must not stay behind and take what is left of it.
#[test]
fn a_file_that_cannot_be_created_whole_is_removed() {
    on_every_backend("too-large", 1, |storage, directory| async move {
        let path = directory.join("huge");
        // Beyond the largest file of the file system, so that nothing is taken from the disk of this machine.
        let error = storage.create(&path, 1 << 62, true).await.err().expect("no file is that large");
        assert_eq!(error.operation, "allocate space for");
        assert!(!storage.backend.exists(&path).unwrap());
    });
}

/// What a killed process leaves on the disk is what another look at the file shows, without this process's memory.
fn on_disk(path: &std::path::Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// `kill -9` keeps the page cache, so a server that forgets a sync passes every crash test on the ordinary backend.
#[test]
fn the_lossy_disk_keeps_nothing_that_was_not_synced() {
    on_shards("lossy", 1, |directory| async move {
        let storage = Storage::new(Backend::Lossy(Lossy::new(None)));
        let path = directory.join("log");
        let file = storage.create(&path, 8192, true).await.unwrap();
        file.write_at(padded(&[1; 4096]), 0).await.unwrap();
        file.sync().await.unwrap();
        file.write_at(padded(&[2; 4096]), 0).await.unwrap();
        file.write_at(padded(&[3; 4096]), 8192).await.unwrap();
        let seen = storage.read_all(&path).await.unwrap();
        assert_eq!((seen[0], seen[8192], seen.len()), (2, 3, 12_288), "reads see what was written");
        assert_eq!(on_disk(&path), [vec![1; 4096], vec![0; 4096]].concat(), "the disk does not");
        file.sync().await.unwrap();
        assert_eq!(on_disk(&path), seen);
        assert_eq!(storage.file_bytes(&path).await.unwrap(), 12_288);
    });
}

/// A sync covers what had been written when it began. A writer that counts a later write as synced loses it.
#[test]
fn a_lossy_sync_does_not_cover_writes_that_follow_it() {
    on_shards("lossy-order", 1, |directory| async move {
        let storage = Storage::new(Backend::Lossy(Lossy::new(None)));
        let path = directory.join("log");
        let file = storage.create(&path, 8192, true).await.unwrap();
        file.write_at(padded(&[1; 4096]), 0).await.unwrap();
        let sync = file.sync();
        let write = file.write_at(padded(&[2; 4096]), 4096);
        let (synced, written) = futures_lite::future::zip(sync, write).await;
        synced.unwrap();
        written.unwrap();
        assert_eq!(on_disk(&path), [vec![1; 4096], vec![0; 4096]].concat());
    });
}

/// A forced write reaches the disk alone: what was written before it, by another handle, may still be in the disk's cache. A log
/// that counts the earlier one as synced too loses it.
#[test]
fn a_lossy_write_that_syncs_itself_covers_no_earlier_one() {
    on_shards("lossy-forced", 1, |directory| async move {
        let storage = Storage::new(Backend::Lossy(Lossy::new(None)));
        let path = directory.join("log");
        let plain = storage.create(&path, 12_288, true).await.unwrap();
        let forced = storage.open_log_file(&path, SyncMode::EveryWrite).await.unwrap();
        plain.write_at(padded(&[1; 4096]), 0).await.unwrap();
        forced.write_at(padded(&[2; 4096]), 4096).await.unwrap();
        plain.write_at(padded(&[3; 4096]), 8192).await.unwrap();
        assert_eq!(on_disk(&path), [vec![0; 4096], vec![2; 4096], vec![0; 4096]].concat());
        plain.sync().await.unwrap();
        assert_eq!(on_disk(&path), [vec![1; 4096], vec![2; 4096], vec![3; 4096]].concat());
    });
}

/// Nothing shows from outside whether a write was synced, until the power fails: so the kernel is asked how the file is open.
#[test]
fn only_a_file_whose_writes_sync_themselves_is_open_with_o_dsync() {
    on_shards("dsync", 1, |directory| async move {
        let storage = Storage::new(Backend::Direct);
        let path = directory.join("log");
        storage.create(&path, 4096, true).await.unwrap().close().await.unwrap();
        for (sync, wanted) in [(SyncMode::EveryWrite, true), (SyncMode::OnRequest, false)] {
            let file = storage.open_log_file(&path, sync).await.unwrap();
            file.write_at(padded(&[1; 4096]), 0).await.unwrap();
            assert_eq!(open_flags(&path) & OFlags::DSYNC.bits() != 0, wanted, "{sync:?}");
            file.close().await.unwrap();
        }
    });
}

/// The flags of the one descriptor of this process that is `path`.
fn open_flags(path: &std::path::Path) -> u32 {
    let path = path.canonicalize().unwrap();
    let mut flags = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        // Other tests of this process open and close descriptors meanwhile.
        if std::fs::read_link(entry.path()).is_ok_and(|open| open == path) {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.file_name().display())).unwrap();
            let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            flags.push(u32::from_str_radix(octal, 8).unwrap());
        }
    }
    assert_eq!(flags.len(), 1, "{} is open once", path.display());
    flags[0]
}

/// Recovery must cope with any part of an unsynced write; over many writes all kinds of parts must occur.
#[test]
fn a_seeded_lossy_disk_tears_writes_at_sectors_the_same_way_each_time() {
    on_shards("lossy-torn", 1, |directory| async move {
        let mut runs = Vec::new();
        for run in 0..2 {
            let storage = Storage::new("lossy:42".parse().unwrap());
            let (mut whole, mut nothing, mut torn) = (0, 0, 0);
            let mut images = Vec::new();
            for number in 0..40 {
                let path = directory.join(format!("log.{run}.{number}"));
                let file = storage.create(&path, 4096, true).await.unwrap();
                file.write_at(padded(&[7; 4096]), 0).await.unwrap();
                let image = on_disk(&path);
                let written: Vec<bool> = image.chunks(512).map(|sector| sector == [7; 512]).collect();
                assert!(image.chunks(512).zip(&written).all(|(sector, &written)| written || sector == [0; 512]));
                match written.iter().filter(|&&written| written).count() {
                    8 => whole += 1,
                    0 => nothing += 1,
                    _ => torn += 1,
                }
                images.push(image);
            }
            assert!(whole > 0 && nothing > 0 && torn > 0, "{whole} whole, {nothing} nothing, {torn} torn");
            runs.push(images);
        }
        assert_eq!(runs[0], runs[1]);
    });
}

#[test]
fn the_backend_is_chosen_by_a_word() {
    assert!(matches!("direct".parse(), Ok(Backend::Direct)));
    assert!(matches!("lossy".parse(), Ok(Backend::Lossy(_))));
    assert!(matches!("lossy:7".parse(), Ok(Backend::Lossy(_))));
    for wrong in ["", "lossy:", "lossy7", "lossy:x", "tmpfs"] {
        assert!(wrong.parse::<Backend>().is_err(), "{wrong}");
    }
}
