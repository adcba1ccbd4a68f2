//! The contract of [`crate::storage`] against a disk that does everything that it may. What may happen must happen in some seed,
//! and what must not, in none.

use super::contents::{ChangeNumber, Contents, Loss, SECTOR_BYTES, Write};
use super::*;
use crate::runtime::world::{HostId, World};
use crate::storage::{AlignedBuf, Backend, Storage, SyncMode};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const HOST: HostId = HostId::new(1);
const BLOCK: usize = 4096;

/// Runs `test` as the world's own task, with a disk that has a directory `/data`.
fn in_world<T: 'static, F: Future<Output = T> + 'static>(
    seed: u64,
    test: impl FnOnce(World, SimulatedDisk) -> F + 'static,
) -> T {
    let world = World::new(seed);
    let (this, disk) = (world.clone(), SimulatedDisk::new(world.stream("disk")));
    let outcome = world.run(async move {
        Backend::Simulated(disk.clone()).create_directories(Path::new("/data")).unwrap();
        test(this, disk).await
    });
    outcome.expect("nothing waits for ever")
}

fn storage(disk: &SimulatedDisk) -> Storage {
    Storage::new(Backend::Simulated(disk.clone()))
}

fn block(byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::new();
    buffer.append(&[byte; BLOCK]);
    buffer
}

fn data() -> &'static Path {
    Path::new("/data")
}

fn log() -> PathBuf {
    data().join("log")
}

/// A log of `blocks` blocks of zeros whose name is durable.
async fn durable_log(disk: &SimulatedDisk, blocks: usize) -> crate::storage::LogFile {
    let storage = storage(disk);
    let file = storage.create(&log(), (blocks * BLOCK) as u64, true).await.unwrap();
    storage.sync_directory(data()).await.unwrap();
    file
}

/// Recovery must cope with every part of a write that was not synced, and may rely on what was.
#[test]
fn a_power_loss_keeps_what_was_synced_and_any_sectors_of_the_rest() {
    let mut seen = BTreeSet::new();
    for seed in 0..120 {
        let bytes = in_world(seed, |_, disk| async move {
            let file = durable_log(&disk, 3).await;
            file.write_at(block(1), 0).await.unwrap();
            file.sync().await.unwrap();
            file.write_at(block(2), BLOCK as u64).await.unwrap();
            assert_eq!(disk.cached_bytes(&log()).unwrap()[BLOCK..2 * BLOCK], [2; BLOCK]);
            assert_eq!(disk.durable_bytes(&log()).unwrap()[BLOCK..], [0; 2 * BLOCK]);
            disk.lose_power();
            disk.cached_bytes(&log()).unwrap()
        });
        assert_eq!(bytes[..BLOCK], [1; BLOCK], "seed {seed}");
        assert_eq!(bytes[2 * BLOCK..], [0; BLOCK], "seed {seed}");
        let sectors = || bytes[BLOCK..2 * BLOCK].chunks(SECTOR_BYTES);
        let new = sectors().filter(|sector| *sector == [2; SECTOR_BYTES]).count();
        let old = sectors().filter(|sector| *sector == [0; SECTOR_BYTES]).count();
        seen.insert(match (old, new) {
            (8, 0) => "lost",
            (0, 8) => "kept",
            (old, new) if old + new == 8 => "torn",
            _ => "spoilt",
        });
    }
    assert_eq!(seen, BTreeSet::from(["lost", "kept", "torn", "spoilt"]));
}

/// A manifest that is renamed before its parts' names are durable would speak of files that are gone.
#[test]
fn names_that_were_not_synced_survive_from_the_front() {
    let mut seen = BTreeSet::new();
    for seed in 0..80 {
        let files = in_world(seed, |_, disk| async move {
            let storage = storage(&disk);
            for name in ["a", "b", "c", "d"] {
                storage.create(&data().join(name), 0, false).await.unwrap();
                if name == "a" {
                    storage.sync_directory(data()).await.unwrap();
                }
            }
            storage.remove(&data().join("a")).await.unwrap();
            disk.lose_power();
            disk.files()
        });
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        seen.insert(names.concat());
    }
    let wanted = ["a", "ab", "abc", "abcd", "bcd"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(wanted), "each prefix of what was done, and nothing else");
}

/// A rename replaces a file whole or not at all; until the directory is synced either may be there.
#[test]
fn a_rename_that_was_not_synced_leaves_the_old_file_or_the_new_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let (files, bytes) = in_world(seed, |_, disk| async move {
            let storage = storage(&disk);
            let (old, new) = (data().join("manifest"), data().join("manifest.tmp"));
            for (path, byte) in [(&old, 1), (&new, 2)] {
                let mut file = storage.append_to_new(path).await.unwrap();
                file.append(&[byte; 10]).await.unwrap();
                file.finish().await.unwrap();
            }
            storage.sync_directory(data()).await.unwrap();
            storage.rename(&new, &old).await.unwrap();
            assert_eq!(disk.cached_bytes(&old).unwrap(), [2; 10]);
            disk.lose_power();
            (disk.files().len(), disk.cached_bytes(&old).unwrap())
        });
        assert_eq!(bytes.len(), 10, "seed {seed}: what was finished is whole");
        assert_eq!((files, bytes[0]), if bytes[0] == 1 { (2, 1) } else { (1, 2) }, "seed {seed}");
        seen.insert(bytes[0]);
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

/// A name says nothing of the content: a snapshot that was published before its parts were synced may be of any length.
#[test]
fn a_file_whose_name_alone_was_synced_has_any_length_and_content() {
    let mut seen = BTreeSet::new();
    for seed in 0..120 {
        let bytes = in_world(seed, |_, disk| async move {
            let storage = storage(&disk);
            let mut file = storage.append_to_new(&log()).await.unwrap();
            storage.sync_directory(data()).await.unwrap();
            file.append(&vec![7; 512 << 10]).await.unwrap();
            file.append(&[7; 10]).await.unwrap();
            while !disk.is_idle() {
                pause_us(100).await;
            }
            disk.lose_power();
            disk.cached_bytes(&log()).unwrap()
        });
        assert!(bytes.len() <= 512 << 10);
        seen.insert(match bytes.len() {
            0 => "empty",
            length if length < 512 << 10 => "shorter",
            _ if bytes.iter().all(|&byte| byte == 7) => "whole",
            _ => "torn",
        });
    }
    assert_eq!(seen, BTreeSet::from(["empty", "shorter", "torn", "whole"]));
}

/// `kill -9` takes no write away: one that had returned is read by the next process, and one that was in flight comes later.
#[test]
fn a_killed_process_leaves_the_page_cache_and_its_operations_in_flight() {
    let mut late = 0;
    for seed in 0..40 {
        late += in_world(seed, |world, disk| async move {
            let file = durable_log(&disk, 2).await;
            let process = world.start_process(HOST, "server");
            let step = Rc::new(RefCell::new(0));
            let told = step.clone();
            world.start_main(process, async move {
                file.write_at(block(1), 0).await.unwrap();
                *told.borrow_mut() = 1;
                file.write_at(block(2), BLOCK as u64).await.unwrap();
                *told.borrow_mut() = 2;
            });
            while *step.borrow() == 0 {
                pause_us(1).await;
            }
            pause_us(10).await;
            world.kill(process);
            assert_eq!(*step.borrow(), 1, "the second write takes longer");
            let at_once = storage(&disk).read_all(&log()).await.unwrap();
            assert_eq!(at_once[..BLOCK], [1; BLOCK]);
            while !disk.is_idle() {
                pause_us(100).await;
            }
            let later = disk.cached_bytes(&log()).unwrap();
            assert_eq!(later[BLOCK..], [2; BLOCK]);
            usize::from(at_once != later)
        });
    }
    assert!((1..40).contains(&late), "the next process saw the write late in {late} of 40");
}

/// Rule E3: what was read back after a restart may sit in the page cache only. Whoever acknowledges it without a sync loses it
/// when the power fails after the restart.
#[test]
fn kill_restart_acknowledge_power_loss_loses_what_the_second_process_did_not_sync() {
    let lost = |seed, syncs: bool| {
        in_world(seed, move |world, disk| async move {
            let file = durable_log(&disk, 1).await;
            let first = world.start_process(HOST, "first");
            world.start_main(first, async move { drop(file.write_at(block(1), 0).await.unwrap()) });
            pause_us(5_000).await;
            world.kill(first);
            let second = world.start_process(HOST, "second");
            let (disk_of_second, acknowledged) = (disk.clone(), Rc::new(RefCell::new(None)));
            let told = acknowledged.clone();
            world.start_main(second, async move {
                let storage = storage(&disk_of_second);
                let recovered = storage.read_all(&log()).await.unwrap();
                if syncs {
                    storage.open_log_file(&log(), SyncMode::OnRequest).await.unwrap().sync().await.unwrap();
                }
                *told.borrow_mut() = Some(recovered);
            });
            pause_us(20_000).await;
            assert_eq!(acknowledged.take().unwrap(), [1; BLOCK]);
            world.power_off(HOST);
            disk.lose_power();
            disk.cached_bytes(&log()).unwrap() != [1; BLOCK]
        })
    };
    assert!((0..20).any(|seed| lost(seed, false)));
    assert!(!(0..20).any(|seed| lost(seed, true)));
}

/// As on Linux: the pages of a failed sync are clean, so the next sync succeeds and writes nothing. A log that goes on after a
/// failed sync acknowledges what is on no disk.
#[test]
fn after_a_failed_sync_a_later_one_succeeds_without_writing() {
    for forced in [false, true] {
        let mut kept = BTreeSet::new();
        for seed in 0..40 {
            let after = in_world(seed, move |_, disk| async move {
                let plain = durable_log(&disk, 2).await;
                let sync = if forced { SyncMode::EveryWrite } else { SyncMode::OnRequest };
                let file = storage(&disk).open_log_file(&log(), sync).await.unwrap();
                disk.fail_next_sync();
                let failed = async {
                    file.write_at(block(1), 0).await?;
                    file.sync().await
                };
                let error = failed.await.unwrap_err();
                assert_eq!(error.source.raw_os_error(), Some(Errno::IO.raw_os_error()));
                assert!(!disk.has_sync_to_fail());
                plain.write_at(block(2), BLOCK as u64).await.unwrap();
                plain.sync().await.unwrap();
                assert_eq!(disk.cached_bytes(&log()).unwrap(), [[1; BLOCK], [2; BLOCK]].concat());
                assert_eq!(disk.durable_bytes(&log()).unwrap(), [[0; BLOCK], [2; BLOCK]].concat());
                disk.lose_power();
                disk.cached_bytes(&log()).unwrap()
            });
            assert_eq!(after[BLOCK..], [2; BLOCK]);
            kept.insert(after[..BLOCK] == [1; BLOCK]);
        }
        assert_eq!(kept, BTreeSet::from([false, true]), "forced: {forced}");
    }
}

/// A server whose sync failed ends, and the next one reads its files with direct IO: what it reads is on the disk, or it is not, and
/// what it has read stays.
#[test]
fn what_is_read_after_a_failed_sync_and_a_restart_survives_a_power_loss() {
    let mut kept = BTreeSet::new();
    for seed in 0..40 {
        let (read, after) = in_world(seed, |_, disk| async move {
            let file = durable_log(&disk, 1).await;
            file.write_at(block(1), 0).await.unwrap();
            disk.fail_next_sync();
            file.sync().await.unwrap_err();
            disk.drop_clean_pages();
            let read = disk.cached_bytes(&log()).unwrap();
            file.sync().await.unwrap();
            disk.lose_power();
            (read, disk.cached_bytes(&log()).unwrap())
        });
        assert_eq!(read, after, "seed {seed}");
        kept.insert(read[0] == 1);
    }
    assert_eq!(kept, BTreeSet::from([false, true]));
}

/// What is written again after a failed sync can be synced; and old bytes never come back over it.
#[test]
fn what_is_written_again_after_a_failed_sync_is_durable_after_the_next() {
    for seed in 0..40 {
        in_world(seed, |_, disk| async move {
            let file = durable_log(&disk, 1).await;
            file.write_at(block(1), 0).await.unwrap();
            disk.fail_next_sync();
            file.sync().await.unwrap_err();
            file.write_at(block(2), 0).await.unwrap();
            file.sync().await.unwrap();
            disk.lose_power();
            assert_eq!(disk.cached_bytes(&log()).unwrap(), [2; BLOCK]);
        });
    }
}

/// A forced write leaves what was written before it where it was. A sync covers what had returned when it was called.
#[test]
fn a_sync_covers_what_came_before_and_a_forced_write_only_itself() {
    for seed in 0..40 {
        in_world(seed, move |_, disk| async move {
            let plain = durable_log(&disk, 3).await;
            let forced = storage(&disk).open_log_file(&log(), SyncMode::EveryWrite).await.unwrap();
            plain.write_at(block(1), 0).await.unwrap();
            forced.write_at(block(2), BLOCK as u64).await.unwrap();
            let durable = disk.durable_bytes(&log()).unwrap();
            assert_eq!(durable, [[0; BLOCK], [2; BLOCK], [0; BLOCK]].concat(), "seed {seed}");
            let (sync, write) = (plain.sync(), plain.write_at(block(3), 2 * BLOCK as u64));
            let (synced, written) = futures_lite::future::zip(sync, write).await;
            synced.unwrap();
            written.unwrap();
            let durable = disk.durable_bytes(&log()).unwrap();
            assert_eq!(durable, [[1; BLOCK], [2; BLOCK], [0; BLOCK]].concat(), "seed {seed}");
        });
    }
}

/// A newer write that is durable must not be undone by an older one that was not.
#[test]
fn an_older_write_never_comes_back_over_a_durable_one() {
    for seed in 0..60 {
        in_world(seed, |_, disk| async move {
            let plain = durable_log(&disk, 1).await;
            let forced = storage(&disk).open_log_file(&log(), SyncMode::EveryWrite).await.unwrap();
            plain.write_at(block(1), 0).await.unwrap();
            forced.write_at(block(2), 0).await.unwrap();
            disk.lose_power();
            assert_eq!(disk.cached_bytes(&log()).unwrap(), [2; BLOCK]);
        });
    }
}

/// Whoever needs an order must await one write before starting the next.
#[test]
fn writes_in_flight_together_end_in_any_order() {
    let order = |seed| {
        in_world(seed, |_, disk| async move {
            let file = durable_log(&disk, 1).await;
            let (one, two) = futures_lite::future::zip(file.write_at(block(1), 0), file.write_at(block(2), 0)).await;
            one.unwrap();
            two.unwrap();
            disk.cached_bytes(&log()).unwrap()[0]
        })
    };
    assert_eq!((0..30).map(order).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
}

/// A full disk refuses what grows and takes what is there already: a log that has its segment goes on.
#[test]
fn a_full_disk_takes_overwrites_only_and_keeps_no_half_files() {
    for by_capacity in [false, true] {
        in_world(1, move |_, disk| async move {
            let storage = storage(&disk);
            let file = durable_log(&disk, 2).await;
            if by_capacity {
                disk.set_capacity(2 * BLOCK as u64 + 100)
            } else {
                disk.set_full(true)
            }
            let error = storage.create(&data().join("next"), BLOCK as u64, true).await.err().unwrap();
            assert!(error.is_out_of_space() && error.is_refusal());
            assert_eq!(error.operation, "allocate space for");
            assert_eq!(disk.files(), [log()]);
            file.write_at(block(1), BLOCK as u64).await.unwrap();
            file.sync().await.unwrap();
            assert!(file.write_at(block(1), 2 * BLOCK as u64).await.unwrap_err().is_out_of_space());
            assert_eq!(disk.cached_bytes(&log()).unwrap().len(), 2 * BLOCK, "nothing of it is written");
            let mut snapshot = storage.append_to_new(&data().join("snapshot")).await.unwrap();
            snapshot.append(&[1; 10]).await.unwrap();
            assert!(snapshot.finish().await.unwrap_err().is_out_of_space());
            disk.set_full(false);
            disk.set_capacity(1 << 20);
            storage.create(&data().join("next"), BLOCK as u64, true).await.unwrap();
        });
    }
}

/// A disk that stalls answers in the end.
#[test]
fn a_slow_disk_is_slow_for_as_long_as_was_said() {
    in_world(1, |world, disk| async move {
        let file = durable_log(&disk, 1).await;
        let begun_us = world.now_us();
        disk.slow_down(begun_us + 1_000, 1_000);
        file.write_at(block(1), 0).await.unwrap();
        assert!(world.now_us() - begun_us >= 20_000, "a write takes 20 µs and more, a thousand times");
        let begun_us = world.now_us();
        file.write_at(block(1), 0).await.unwrap();
        assert!(world.now_us() - begun_us <= 3_000);
    });
}

/// An operation of the time before a power loss must not touch the disk of the time after.
#[test]
fn what_was_in_flight_at_a_power_loss_does_nothing_later() {
    let mut torn = 0;
    for seed in 0..40 {
        torn += in_world(seed, move |world, disk| async move {
            let file = durable_log(&disk, 1).await;
            let process = world.start_process(HOST, "server");
            world.start_main(process, async move { drop(file.write_at(block(1), 0).await) });
            pause_us(seed * 40).await;
            world.power_off(HOST);
            disk.lose_power();
            let after = disk.cached_bytes(&log()).unwrap();
            while !disk.is_idle() {
                pause_us(100).await;
            }
            assert_eq!(disk.cached_bytes(&log()).unwrap(), after);
            usize::from(after != [0; BLOCK] && after != [1; BLOCK])
        });
    }
    assert!(torn > 0, "a write in flight may leave any part of itself");
}

/// A directory that was made without a sync of its parent vanishes with everything that was synced in it.
#[test]
fn a_directory_whose_parent_was_not_synced_takes_its_files_with_it() {
    let left = |seed, created: bool| {
        in_world(seed, move |_, disk| async move {
            let backend = Backend::Simulated(disk.clone());
            let directory = Path::new("/data/new");
            // A process that was killed made it, and did not live to sync its name.
            backend.make_directory(directory).unwrap();
            if created {
                backend.create_directories(directory).unwrap();
            }
            let storage = Storage::new(backend);
            storage.create(&directory.join("log"), BLOCK as u64, true).await.unwrap();
            storage.sync_directory(directory).await.unwrap();
            disk.lose_power();
            disk.files().len()
        })
    };
    assert_eq!((0..20).map(|seed| left(seed, false)).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    assert_eq!((0..20).map(|seed| left(seed, true)).collect::<BTreeSet<_>>(), BTreeSet::from([1]));
}

/// The directories that a call makes are there after a power loss, all of them.
#[test]
fn created_directories_survive_a_power_loss() {
    for seed in 0..20 {
        in_world(seed, |_, disk| async move {
            let backend = Backend::Simulated(disk.clone());
            backend.create_directories(Path::new("/srv/keeper/data")).unwrap();
            backend.create_directories(Path::new("/srv/keeper/data")).unwrap();
            disk.lose_power();
            assert!(backend.exists(Path::new("/srv/keeper/data")).unwrap());
        });
    }
}

/// Two servers on one directory would write one log; and a server that was killed must not keep its successor out.
#[test]
fn a_lock_lives_as_long_as_its_process_and_no_longer() {
    in_world(1, |world, disk| async move {
        let backend = Backend::Simulated(disk.clone());
        let holder = world.start_process(HOST, "holder");
        let of_holder = backend.clone();
        world.start_main(holder, async move {
            let _lock = of_holder.lock(data()).unwrap().unwrap();
            std::future::pending::<()>().await;
        });
        pause_us(1_000).await;
        assert!(backend.lock(data()).unwrap().is_none());
        world.kill(holder);
        let lock = backend.lock(data()).unwrap().expect("the holder is gone");
        assert!(backend.lock(data()).unwrap().is_none(), "the same process has it");
        drop(lock);
        let old = backend.lock(data()).unwrap().unwrap();
        disk.lose_power();
        let _new = backend.lock(data()).unwrap().expect("no lock outlives a power loss");
        drop(old);
        assert!(backend.lock(data()).unwrap().is_none(), "an old lock does not open a new one");
        assert!(backend.lock(Path::new("/none")).unwrap_err().is_not_found());
    });
}

/// Damage is what it says, and it is there for readers and after a power loss.
#[test]
fn damage_is_done_where_it_was_asked_for() {
    in_world(1, |_, disk| async move {
        let file = durable_log(&disk, 2).await;
        file.write_at(block(1), BLOCK as u64).await.unwrap();
        file.sync().await.unwrap();
        let mut wanted = disk.cached_bytes(&log()).unwrap();
        assert_eq!(disk.flip_bit(&log(), 5000, 3).unwrap(), "bit 3 of byte 5000 of /data/log was turned");
        wanted[5000] ^= 8;
        let extent = |offset, bytes| Extent { path: log(), offset, bytes };
        assert!(disk.misplace(&extent(BLOCK, 1000), &extent(10, 600)).is_some());
        let copy = wanted[BLOCK..BLOCK + 600].to_vec();
        wanted[10..610].copy_from_slice(&copy);
        assert_eq!(disk.misplace(&extent(0, 10), &extent(1000, 10)), None, "zeros over zeros are no damage");
        assert_eq!(disk.misplace(&extent(0, 10), &extent(2 * BLOCK, 10)), None);
        assert!(disk.cut_file(&log(), 7000).is_some());
        wanted.truncate(7000);
        assert_eq!(disk.cut_file(&log(), 7000), None);
        assert_eq!(disk.flip_bit(&log(), 7000, 0), None);
        assert_eq!(storage(&disk).read_all(&log()).await.unwrap(), wanted);
        disk.lose_power();
        assert_eq!(disk.cached_bytes(&log()).unwrap(), wanted);
    });
}

/// The life of a disk that everything happens to. Gives the hash of the run and what is left.
fn eventful(seed: u64) -> (u64, Vec<(PathBuf, Vec<u8>)>) {
    let world = World::new(seed);
    let (this, disk) = (world.clone(), SimulatedDisk::new(world.stream("disk")));
    let left = world.run(async move {
        Backend::Simulated(disk.clone()).create_directories(data()).unwrap();
        for round in 0..6 {
            let process = this.start_process(HOST, "server");
            let storage = storage(&disk);
            this.start_main(process, async move {
                for number in 0..10_u8 {
                    let path = data().join(format!("{round}.{number}"));
                    // The sync that was to fail may be the one of a later process.
                    let Ok(file) = storage.create(&path, 4 * BLOCK as u64, true).await else { continue };
                    let writes = (0..4).map(|at| file.write_at(block(number), at * BLOCK as u64));
                    for write in writes {
                        write.await.unwrap();
                    }
                    let _ = file.sync().await;
                    storage.rename(&path, &data().join(format!("old.{number}"))).await.unwrap();
                    let _ = storage.sync_directory(data()).await;
                }
            });
            pause_us(this.stream("pauses").between(1_000, 60_000) * (round + 1) / 2).await;
            disk.fail_next_sync();
            this.kill(process);
            if round % 2 == 0 {
                disk.lose_power();
            }
        }
        disk.files().into_iter().map(|path| (path.clone(), disk.cached_bytes(&path).unwrap())).collect()
    });
    (world.trace_hash(), left.unwrap())
}

/// A seed that finds a fault must find it again.
#[test]
fn the_same_seed_is_the_same_disk() {
    let runs: Vec<_> = (0..10).map(eventful).collect();
    assert!(runs.iter().any(|(_, left)| !left.is_empty()));
    assert_eq!(runs, (0..10).map(eventful).collect::<Vec<_>>());
    assert_ne!(runs[0].0, runs[1].0);
}

/// Cuts and holes are where a history of sectors goes wrong: whatever came before, a sync makes durable what readers see, and a
/// power loss that loses nothing leaves what readers saw.
#[test]
fn a_sync_makes_durable_exactly_what_is_seen_whatever_came_before() {
    for seed in 0..300 {
        let mut prng = Prng::stream(seed, "contents");
        let mut contents = Contents::default();
        for number in 0..40 {
            let (number, next) = (ChangeNumber(number), ChangeNumber(number + 1));
            let sectors = |prng: &mut Prng| prng.below(12) as usize * SECTOR_BYTES;
            match prng.below(5) {
                0 => contents.set_file_bytes(number, prng.below(6_000) as usize),
                1 => {
                    let point = contents.sync_point(next);
                    contents.synced(point);
                    assert!(contents.durable() == contents.cached(), "seed {seed}");
                }
                kind => {
                    let bytes = vec![prng.between(1, 255) as u8; prng.between(1, 4) as usize * SECTOR_BYTES];
                    let write = Write { number, offset: sectors(&mut prng), bytes: bytes.into() };
                    contents.write(write.clone());
                    if kind == 2 {
                        contents.forced(&write);
                        let range = write.offset..write.offset + write.bytes.len();
                        assert!(contents.durable()[range] == *write.bytes, "seed {seed}");
                    }
                }
            }
        }
        let seen = contents.cached().to_vec();
        contents.lose_power(Loss::Nothing, &mut prng);
        assert!(contents.cached() == seen, "seed {seed}");
    }
}
