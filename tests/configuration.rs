//! A server that is started with a configuration that it cannot serve, or that says what it must report.

mod common;

use common::{Client, SHARD_COUNTS, Setup, TestDir};
use ringkeeper::protocol::zookeeper::{CreateFlags, Request};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).map_or_else(|_| Vec::new(), |entries| entries.collect());
    entries.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A name for the directory, lines of the configuration, what `myid` holds, and what the refusal says.
type Refused<'a> = (&'a str, &'a [&'a str], Option<&'a str>, &'a [&'a str]);

/// A start that failed for its configuration had made directories and files in `dataDir` first, also in one that was named by
/// mistake. And it said what it could not do twice: `cannot listen on A: cannot listen on A: address in use`.
#[test]
fn refused_configuration_leaves_something_in_the_data_directory() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = format!("clientPort={}", taken.local_addr().unwrap().port());
    let server_line = "server.1=localhost:2888:3888;2181";
    let cases: [Refused<'_>; 5] = [
        ("in-use", &[&taken_port], None, &["cannot listen on 127.0.0.1:", "address in use"]),
        ("no-interface", &["clientPortAddress=192.0.2.1"], None, &["cannot listen on 192.0.2.1:", "no interface"]),
        ("no-number", &["tickTime=soon"], None, &["tickTime=soon: expected a whole number"]),
        ("my-id", &[server_line], Some("one"), &["myid:1: myid=one", "server.N"]),
        ("my-id-alone", &[], Some("one\n"), &["myid:1: myid=one"]),
    ];
    for (name, lines, my_id, words) in cases {
        let directory = TestDir::new(name);
        let data = directory.path().join("data");
        let mut setup = Setup::new(directory.path(), 1);
        for line in lines {
            setup.line(line);
        }
        if let Some(my_id) = my_id {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("myid"), my_id).unwrap();
        }
        let refusal = setup.start_refused();
        refusal.names(words);
        assert!(refusal.text.matches("cannot listen").count() <= 1, "{name}: {}", refusal.text);
        let expected: &[&str] = if my_id.is_some() { &["myid"] } else { &[] };
        assert_eq!(names_in(&data), expected, "{name}");
        assert!(my_id.is_some() || !data.exists(), "{name}: {} was made", data.display());
    }
}

fn monitor_row(address: SocketAddr, row: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"mntr").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let prefix = format!("zk_{row}\t");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).expect("the row is there").parse().unwrap()
}

/// `fsync.warningthresholdms` was read by nobody: not even a disk that stalled for seconds was told of. Below zero every flush is too
/// slow, as in ZooKeeper. Without syncing there is nothing to time.
#[test]
fn slow_disk_is_not_told_of() {
    for (force_sync, told) in [("yes", true), ("no", false)] {
        let directory = TestDir::new(force_sync);
        let mut setup = Setup::new(directory.path(), 1);
        setup.line("fsync.warningthresholdms=-1").line("4lw.commands.whitelist=mntr");
        let server = setup.line(&format!("forceSync={force_sync}")).start();
        drop(Client::connect(server.address).unwrap());
        let text = "a flush of the transaction log took";
        assert_eq!(server.log().contains(text), told, "forceSync={force_sync}: {}", server.log());
        assert_eq!(monitor_row(server.address, "fsync_threshold_exceed_count") > 0, told);
        assert_eq!(monitor_row(server.address, "cnt_fsynctime") > 0, told);
    }
}

/// A limit on what is outstanding holds clients back. Whoever is held back must be let go on by what is answered, on every shard, and
/// however strict the limit is: with none allowed, each connection still has one request at a time.
#[test]
fn strict_outstanding_limit_lets_nobody_go_on() {
    const REQUESTS: usize = 300;
    for shards in SHARD_COUNTS {
        for limit in [0, 3] {
            let directory = TestDir::new("outstanding");
            let mut setup = Setup::new(directory.path(), shards);
            let server = setup.line(&format!("globalOutstandingLimit={limit}")).start();
            let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address).unwrap()).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                for request in 0..REQUESTS {
                    match request % 3 {
                        0 => client.queue_create(&format!("/c{number}-{request}"), b"x", CreateFlags::PERSISTENT),
                        1 => client
                            .queue(&Request::Exists { path: &format!("/c{number}-{}", request - 1), watch: false }),
                        _ => client.queue(&Request::GetChildren { path: "/", watch: false, with_stat: false }),
                    };
                }
                client.flush().unwrap();
            }
            for client in &mut clients {
                for _ in 0..REQUESTS {
                    // The kit checks that the replies come in order.
                    assert_eq!(client.receive().unwrap().error, 0, "{shards} shards, limit {limit}");
                }
            }
        }
    }
}
