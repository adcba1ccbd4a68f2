//! Snapshot files on a real file system: what is kept, what goes, and what a crash leaves.

use super::snapshot::{SnapshotFiles, SnapshotFilesError};
use super::snapshot_format::{Manifest, SnapshotRecord};
use crate::base::{SessionId, Zxid};
use crate::runtime::{ShardsConfig, run_shards};
use crate::storage::{Backend, Storage, test_directory};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Runs `test` on one shard with a directory of its own, which is removed if it passes.
fn with_files<F, Fut>(name: &str, test: F)
where
    F: FnOnce(SnapshotFiles, PathBuf) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = test_directory(name);
    let own = directory.clone();
    let shards = run_shards(&ShardsConfig::new(1), move |_| async move {
        test(SnapshotFiles::new(Storage::new(Backend::Direct), &own), own.clone()).await;
        Ok(())
    });
    shards.unwrap().join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

async fn write(files: &SnapshotFiles, start: u64, end: u64) {
    let mut part = files.begin_part(Zxid(start), 0).await.unwrap();
    part.writer().push(&SnapshotRecord::Session { id: SessionId(1), timeout_ms: 2 }).unwrap();
    part.write_filled().await.unwrap();
    let parts = vec![part.finish(Zxid(end)).await.unwrap()];
    files.publish(&Manifest { start: Zxid(start), end: Zxid(end), epoch: 0, parts }).await.unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Three snapshots of which two cannot be read are one: a purge that counted files would remove the last good one.
#[test]
fn purge_counts_only_snapshots_that_can_be_loaded() {
    with_files("snapshot-purge", |files, directory| async move {
        for start in 1..=5 {
            write(&files, start, start + 1).await;
        }
        let broken = BTreeSet::from([Zxid(4)]);
        std::fs::write(directory.join("snapshot.5"), b"half").unwrap();
        assert_eq!(files.purge(4, &broken).await.unwrap(), None, "only three are good: nothing goes");
        assert_eq!(files.starts().await.unwrap(), [5, 4, 3, 2, 1].map(Zxid));
        assert_eq!(files.purge(2, &broken).await.unwrap(), Some(Zxid(2)));
        assert_eq!(files.starts().await.unwrap(), [5, 4, 3, 2].map(Zxid));
        assert!(!directory.join("snapshot.1.part0").exists());
        assert_eq!(files.manifest(Zxid(2)).await.unwrap().end, Zxid(3));
    });
}

/// A crash between the parts and the manifest leaves files that nobody speaks of; left alone they fill the disk.
#[test]
fn leftovers_of_unfinished_snapshots_go_and_nothing_else() {
    with_files("snapshot-leftovers", |files, directory| async move {
        write(&files, 7, 9).await;
        files.begin_part(Zxid(8), 0).await.unwrap().finish(Zxid(8)).await.unwrap();
        for name in ["snapshot.8.part3", "snapshot.8.tmp", "lock", "snapshot.old", "notes.tmp"] {
            std::fs::write(directory.join(name), b"").unwrap();
        }
        assert_eq!(files.remove_leftovers().await.unwrap(), 3);
        assert_eq!(names(&directory), ["lock", "notes.tmp", "snapshot.7", "snapshot.7.part0", "snapshot.old"]);
    });
}

/// After `--discard-after`, a snapshot that reaches beyond the cut would bring back what was given up.
#[test]
fn snapshot_beyond_the_cut_goes() {
    with_files("snapshot-cut", |files, directory| async move {
        for (start, end) in [(1, 2), (3, 9), (11, 12), (20, 20)] {
            write(&files, start, end).await;
        }
        std::fs::write(directory.join("snapshot.1"), b"unreadable: nobody knows where it ends").unwrap();
        files.remove_beyond(Zxid(12)).await.unwrap();
        assert_eq!(files.starts().await.unwrap(), [11, 3].map(Zxid));
    });
}

/// A manifest under another snapshot's name would make its parts those of the other.
#[test]
fn renamed_manifest_is_refused() {
    with_files("snapshot-renamed", |files, directory| async move {
        write(&files, 1, 2).await;
        std::fs::rename(directory.join("snapshot.1"), directory.join("snapshot.2")).unwrap();
        let error = files.manifest(Zxid(2)).await.unwrap_err().to_string();
        assert!(error.contains("snapshot.2, offset 0: the manifest of another snapshot"), "{error}");
    });
}

/// A file of a terabyte under a manifest's name, sparse as it may be, must not be taken into memory to find that it is none.
#[test]
fn a_huge_file_under_a_manifests_name_is_only_a_broken_snapshot() {
    with_files("snapshot-huge", |files, directory| async move {
        std::fs::File::create(directory.join("snapshot.5")).unwrap().set_len(1 << 40).unwrap();
        let error = files.manifest(Zxid(5)).await.unwrap_err();
        assert!(matches!(error, SnapshotFilesError::Damaged { .. }), "{error}");
        assert_eq!(files.highest().await.unwrap(), Zxid::ZERO, "and it says nothing of zxids");
    });
}
