//! The report on a data directory that a real server wrote, whole and damaged.

use super::{InspectArgs, inspect};
use crate::config::ServerConfig;
use crate::coordination::server::{Server, ServerOptions};
use crate::storage::test_directory;
use std::path::Path;

fn report(path: &Path, records: bool) -> (bool, String) {
    let mut out = Vec::new();
    let args = InspectArgs { path: path.to_owned(), log_dir: None, records };
    let good = inspect(&args, &mut out).unwrap();
    (good, String::from_utf8(out).unwrap())
}

/// A server that starts three times with the smallest `snapCount`: each start opens an epoch, the third has replayed enough
/// for a snapshot.
fn written_by_a_server(name: &str) -> std::path::PathBuf {
    let directory = test_directory(name);
    let mut config = ServerConfig::for_dev(directory.clone());
    (config.client_port, config.shards, config.snap_count) = (0, Some(1), 2);
    config.pre_alloc_size_kib = 64;
    let has_snapshot = || {
        std::fs::read_dir(directory.join("ringkeeper")).unwrap().any(|entry| {
            entry.unwrap().file_name().to_string_lossy().strip_prefix("snapshot.").is_some_and(|s| !s.contains('.'))
        })
    };
    for start in 1..=3 {
        let server = Server::start(config.clone(), ServerOptions::default()).unwrap();
        while start == 3 && !has_snapshot() {
            std::thread::yield_now();
        }
        server.stop_signal().stop();
        server.join().unwrap();
    }
    directory
}

/// What an operator reads first after a crash: it must name what is there, and every damaged file with its place.
#[test]
fn directory_report_names_what_is_there_and_what_is_damaged() {
    let directory = written_by_a_server("inspect");
    let ours = directory.join("ringkeeper");
    let (good, text) = report(&directory, true);
    assert!(good, "{text}");
    assert!(text.contains("1 parts, 6 records") && text.contains("verdict: clean, ends at 0x300000000"), "{text}");
    assert!(text.contains("log.0000000000000001: begins the log after 0x0, "), "{text}");

    let names: Vec<String> = super::names(&ours).unwrap();
    let part = names.iter().find(|name| name.ends_with(".part0")).unwrap();
    let (good, text) = report(&ours.join(part), true);
    assert!(good && text.contains("node \"/zookeeper/quota\" 0 bytes") && text.contains("good, 6 records"), "{text}");
    let (good, text) = report(&ours.join(part.strip_suffix(".part0").unwrap()), false);
    assert!(good && text.contains("part 0: 6 records"), "{text}");
    let (good, text) = report(&ours.join("log.0000000000000001"), true);
    assert!(good && text.contains("4096: block of") && text.contains("0x100000000 time "), "{text}");
    assert!(text.contains("| openEpoch"), "{text}");

    let mut bytes = std::fs::read(ours.join(part)).unwrap();
    bytes[60] ^= 1;
    std::fs::write(ours.join(part), bytes).unwrap();
    let (good, text) = report(&ours, false);
    assert!(!good && text.contains(&format!("{part}: DAMAGED, offset 40: wrong checksum")), "{text}");
    assert!(text.contains("a start from an empty tree would replay"), "{text}");
    let (good, text) = report(&ours.join(part), false);
    assert!(!good && text.contains("DAMAGED, offset 40: wrong checksum"), "{text}");

    std::fs::write(ours.join("log.0000000000000001"), b"gone").unwrap();
    let (good, text) = report(&ours, false);
    assert!(!good && text.contains("verdict: DAMAGED") && text.contains("log.0000000000000001"), "{text}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// A file that is none of ours must not be taken for an empty one of ours.
#[test]
fn foreign_file_is_refused() {
    let args = InspectArgs { path: "/nonexistent/version-2".into(), log_dir: None, records: false };
    let error = inspect(&args, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("neither a directory nor the name of a log segment"), "{error}");
}
