//! Clients that take too much: connections, descriptors, replies that nobody reads, requests by the thousand.
//!
//! The hazard: each of these is harmless until a limit is met, and then a careless accept loop spins, a server dies of a
//! failed `accept`, or one slow reader fills the memory of all. Every limit must end in waiting or in one closed connection,
//! and be over as soon as its cause is.

mod common;

use common::{Client, PATIENCE, SHARD_COUNTS, ServerProcess, Session, Setup, TestDir, is_gone, wait_for};
use ringkeeper::protocol::zookeeper::{Acl, AclVector, Create, CreateFlags, ErrorCode, MultiOp, Reply, Request};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection must be left without an answer to count as waiting.
const SILENCE: Duration = Duration::from_millis(800);

fn start(test: &str, shards: u16, adjust: impl FnOnce(&mut Setup)) -> (TestDir, ServerProcess) {
    let directory = TestDir::new(test);
    let mut setup = Setup::new(directory.path(), shards);
    adjust(&mut setup);
    let server = setup.start();
    (directory, server)
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A connection that was tried: is it served, or does it wait for a place?
enum Attempt {
    Served(Client),
    Waiting(Client),
}

/// Sends the handshake on a new connection, which waits when no answer comes within [`SILENCE`].
fn connect_or_wait(server: &ServerProcess) -> Attempt {
    let mut client = Client::open(server.address, Session::new(30_000)).expect("the backlog takes it");
    client.send_greeting().expect("the kernel takes it");
    client.set_patience(SILENCE);
    let answer = client.finish_greeting();
    client.set_patience(PATIENCE);
    match answer {
        Ok(()) => Attempt::Served(client),
        Err(error) if timed_out(&error) => Attempt::Waiting(client),
        Err(error) => panic!("a connection beyond the limit waits and is not dropped: {error}"),
    }
}

/// A server may not burn its CPUs while connections wait: at most a third of one core.
fn assert_idle_while_waiting(server: &ServerProcess) {
    let (before, since) = (server.cpu_ticks(), Instant::now());
    let mut quiet = TcpStream::connect(server.address).expect("the backlog takes it");
    quiet.set_read_timeout(Some(Duration::from_secs(1))).expect("a positive time");
    let read = quiet.read(&mut [0]).expect_err("nobody answers");
    assert!(timed_out(&read), "{read}");
    let (used, passed) = (server.cpu_ticks() - before, since.elapsed().as_millis() as u64 / 10);
    assert!(used <= passed / 3, "{used} of {passed} ticks of 10 ms were burnt while nothing could be accepted");
}

/// More clients than the open-file limit leaves room for.
#[test]
fn connections_beyond_the_file_limit_wait_for_a_place() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("files", shards, |setup| {
            setup.limits(&["-n 200"]).line("maxClientCnxns=0");
        });
        let mut clients = Vec::new();
        let mut waiting = loop {
            match connect_or_wait(&server) {
                Attempt::Served(client) => clients.push(client),
                Attempt::Waiting(waiting) => break waiting,
            }
            assert!(clients.len() < 200, "more connections than files");
        };
        assert!(clients.len() >= 20, "the limit leaves room for some: {}", clients.len());
        assert_idle_while_waiting(&server);
        assert!(clients[0].exists("/").expect("the others are served"));
        // One place may go to the silent connection of the check above.
        clients.drain(..4).for_each(|client| client.close().expect("the session is closed"));
        waiting.finish_greeting().expect("a place became free");
        assert!(waiting.exists("/").expect("a reply"));
        server.stop();
    }
}

/// The descriptors run out although the limit looked fine at the start: `accept` itself fails.
#[test]
fn failing_accept_neither_spins_nor_kills_the_server() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("accept", shards, |_| ());
        let mut first = Client::connect(server.address).expect("a connection");
        let highest = server.open_files() + 4;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = |current| Rlimit { current: Some(current), maximum };
        let before = prlimit(Some(server.pid()), Resource::Nofile, limit(highest)).expect("the limit of a child");
        let mut clients = Vec::new();
        let mut waiting = loop {
            match connect_or_wait(&server) {
                Attempt::Served(client) => clients.push(client),
                Attempt::Waiting(waiting) => break waiting,
            }
            assert!(clients.len() < 50, "more connections than files");
        };
        server.wait_for_log("cannot accept on");
        assert_idle_while_waiting(&server);
        assert!(first.exists("/").expect("the others are served"));
        prlimit(Some(server.pid()), Resource::Nofile, Rlimit { current: before.current, maximum })
            .expect("raised again");
        waiting.finish_greeting().expect("there are descriptors again");
        assert!(waiting.exists("/").expect("a reply"));
        server.stop();
    }
}

const DATA: [u8; 16 << 10] = [7; 16 << 10];

/// A new segment of the log is a file. That none can be opened passes like a full disk does, and must not end a server that
/// loses nothing by waiting.
#[test]
fn segment_that_the_file_limit_forbids_refuses_writes_until_it_is_raised() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("segments", shards, |setup| {
            setup.line("preAllocSize=256");
        });
        let mut client = Client::connect(server.address).expect("a connection");
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = |current| prlimit(Some(server.pid()), Resource::Nofile, Rlimit { current, maximum });
        // No new descriptor, whichever are free.
        let before = limit(Some(3)).expect("the limit of a child");
        let made = client.create_until_refused(0, &DATA);
        server.wait_for_log("Too many open files");
        assert!(client.exists("/n0").expect("reads are served"));
        limit(before.current).expect("raised again");
        // What was refused left nothing behind: else it would exist already, which is another error.
        wait_for("the write to be accepted", || {
            let again = client.create(&format!("/n{made}"), &DATA, CreateFlags::PERSISTENT);
            let error = again.expect("a reply").error;
            assert!(error == 0 || error == ErrorCode::SystemError.wire(), "{error}");
            (error == 0).then_some(())
        });
        let log = server.stop();
        assert_eq!(log.matches("writes are refused until there is room for the log").count(), 1, "{log}");
    }
}

/// A limit on file size is met with a signal as well, which by default ends the process without a word.
#[test]
fn segment_that_the_file_size_limit_forbids_is_waited_for() {
    for shards in SHARD_COUNTS {
        let directory = TestDir::new("fsize");
        let mut setup = Setup::new(directory.path(), shards);
        let mut server = setup.limits(&["-S -f 100"]).begin(); // blocks of 512 bytes, or 1024 in some shells
        server.wait_for_log("no client is served yet");
        assert!(server.log().contains("File too large"), "{}", server.log());
        let maximum = getrlimit(Resource::Fsize).maximum;
        let raised = Rlimit { current: maximum, maximum };
        prlimit(Some(server.pid()), Resource::Fsize, raised).expect("the limit of a child");
        server.wait_until_serving();
        let mut client = Client::connect(server.address).expect("a connection");
        assert_eq!(client.set("/", b"yes").expect("a reply").error, 0);
        server.stop();
    }
}

/// The limit of one address counts over all shards: counted in each, three shards would let three times as many in.
#[test]
fn max_client_cnxns_counts_over_all_shards() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("cnxns", shards, |setup| {
            setup.line("maxClientCnxns=5");
        });
        let mut clients: Vec<Client> =
            (0..5).map(|_| Client::connect(server.address).expect("within the limit")).collect();
        for _ in 0..6 {
            let refused = Client::connect(server.address).err().expect("one too many");
            assert!(is_gone(&refused), "{refused}");
        }
        server.wait_for_log("maxClientCnxns");
        drop(clients.pop());
        let mut next = wait_for("a place", || Client::connect(server.address).ok());
        assert!(next.exists("/").expect("a reply"));
        assert!(clients[0].exists("/").expect("a reply"));
        server.stop();
    }
}

/// A port scanner or a broken load balancer opens connections and says nothing.
#[test]
fn connection_without_a_handshake_is_dropped() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("silent", shards, |setup| {
            setup.line("nio.sessionlessCnxnTimeout=300");
        });
        let mut greeted = Client::connect(server.address).expect("a connection");
        let mut silent = TcpStream::connect(server.address).expect("a connection");
        let mut half = TcpStream::connect(server.address).expect("a connection");
        half.write_all(&[0, 0, 0, 44, 0]).expect("a part of a handshake is sent");
        for stream in [&mut silent, &mut half] {
            stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
            assert_eq!(stream.read(&mut [0; 8]).expect("an orderly end"), 0, "dropped without a word");
        }
        assert!(greeted.exists("/").expect("a client with a session stays"));
        server.stop();
    }
}

/// Some bytes of requests ask for a gigabyte of replies, and the client does not read them.
#[test]
fn slow_reader_costs_neither_memory_nor_the_time_of_others() {
    const REQUESTS: usize = 10_000;
    /// Of the gigabyte asked for: some replies in flight between shards, copied a few times on their way.
    const GROWTH_BYTES_MAX: u64 = 256 << 20;
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("slow", shards, |_| ());
        let mut other = Client::connect(server.address).expect("a connection");
        let data = vec![b'x'; 100 << 10];
        assert_eq!(other.create("/large", &data, CreateFlags::PERSISTENT).expect("a reply").error, 0);
        let before = server.resident_bytes();
        let mut slow = Client::connect(server.address).expect("a connection");
        for _ in 0..REQUESTS {
            slow.queue(&Request::GetData { path: "/large", watch: false });
        }
        let (mut stream, bytes) = slow.take_queued();
        let sender = thread::spawn(move || stream.write_all(&bytes));
        let mut peak = 0;
        for round in 0..1000 {
            assert_eq!(other.set("/", format!("{round}").as_bytes()).expect("a reply").error, 0);
            assert_eq!(other.get("/").expect("a reply").data(), format!("{round}").as_bytes());
            peak = peak.max(server.resident_bytes());
        }
        let growth = peak.saturating_sub(before);
        assert!(growth < GROWTH_BYTES_MAX, "the server grew by {} MiB for one slow reader", growth >> 20);
        // It was slow, not wrong: when it reads at last, nothing is missing.
        for _ in 0..REQUESTS {
            assert_eq!(slow.receive().expect("a reply").data().len(), data.len());
        }
        sender.join().expect("the sender did not panic").expect("everything was taken in the end");
        server.stop();
    }
}

/// One request of 55 KB names a node of a million bytes 2,300 times. The reply would have more than 2 GiB, and building it ended the
/// process. It must end the connection only, and not be built.
#[test]
fn request_for_more_than_two_gigabytes_costs_a_connection_and_little_memory() {
    /// The longest reply is of 64 MiB; it is held once, and while its last piece is added perhaps twice.
    const GROWTH_BYTES_MAX: u64 = 256 << 20;
    for shards in [1, 3] {
        let (_directory, server) = start("multiread", shards, |_| ());
        let mut other = Client::connect(server.address).expect("a connection");
        assert_eq!(other.create("/m", &vec![1; 1_000_000], CreateFlags::PERSISTENT).expect("a reply").error, 0);
        let before = server.resident_bytes();
        let mut greedy = Client::connect(server.address).expect("a connection");
        let parts = (0..2_300).map(|_| MultiOp::GetData { path: "/m" }).collect();
        greedy.queue(&Request::MultiRead(parts));
        greedy.flush().expect("sent");
        let gone = greedy.receive().expect_err("the connection is closed");
        assert!(is_gone(&gone), "{gone}");
        let growth = server.resident_bytes().saturating_sub(before);
        assert!(growth < GROWTH_BYTES_MAX, "the server grew by {} MiB", growth >> 20);
        assert_eq!(other.get("/m").expect("a reply").data().len(), 1_000_000);
        let log = server.stop();
        assert_eq!(log.matches("asks for a reply of more than 67108864 bytes").count(), 1, "{log}");
    }
}

/// A client writes 20 KB of requests for a long list, and reads nothing. With several shards a gigabyte of answers was built for it, and
/// others waited for seconds.
#[test]
fn lists_for_a_client_that_does_not_read_cost_neither_memory_nor_the_time_of_others() {
    const REQUESTS: usize = 390;
    const CHILDREN: usize = 30_000;
    /// Of the gigabyte asked for.
    const GROWTH_BYTES_MAX: u64 = 160 << 20;
    for shards in [1, 3] {
        let (_directory, server) = start("lists", shards, |_| ());
        let mut other = Client::connect(server.address).expect("a connection");
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
        assert_eq!(other.create("/d", b"", CreateFlags::PERSISTENT).expect("a reply").error, 0);
        for some in (0..CHILDREN).collect::<Vec<_>>().chunks(500) {
            let paths: Vec<String> = some.iter().map(|child| format!("/d/{child:080}")).collect();
            for path in &paths {
                let flags = CreateFlags::PERSISTENT;
                other.queue(&Request::Create(Create { path, data: None, acl, flags, ttl_ms: None, with_stat: false }));
            }
            other.flush().expect("sent");
            some.iter().for_each(|_| assert_eq!(other.receive().expect("a reply").error, 0));
        }
        let before = server.resident_bytes();
        let mut slow = Client::connect(server.address).expect("a connection");
        for _ in 0..REQUESTS {
            slow.queue(&Request::GetChildren { path: "/d", watch: false, with_stat: false });
        }
        slow.flush().expect("sent");
        let (mut peak, mut longest) = (0, Duration::ZERO);
        for _ in 0..300 {
            let since = Instant::now();
            assert!(other.exists("/").expect("a reply"));
            longest = longest.max(since.elapsed());
            peak = peak.max(server.resident_bytes());
        }
        let growth = peak.saturating_sub(before);
        assert!(growth < GROWTH_BYTES_MAX, "the server grew by {} MiB for {shards} shards", growth >> 20);
        assert!(longest < Duration::from_secs(1), "another client waited for {longest:?}");
        // It was slow, not wrong.
        for _ in 0..REQUESTS {
            let answer = slow.receive().expect("a reply");
            let Reply::Children(names) = answer.reply() else { panic!("a list of children") };
            assert_eq!(names.len(), CHILDREN);
        }
        server.stop();
    }
}

/// The same client goes away instead of reading: the server must let go of what it held for it.
#[test]
fn slow_reader_that_goes_away_leaves_nothing_behind() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("gone", shards, |_| ());
        let mut other = Client::connect(server.address).expect("a connection");
        assert_eq!(other.create("/large", &vec![1; 100 << 10], CreateFlags::PERSISTENT).expect("a reply").error, 0);
        let sockets = server.open_sockets();
        let mut slow = Client::connect(server.address).expect("a connection");
        for _ in 0..1000 {
            slow.queue(&Request::GetData { path: "/large", watch: false });
        }
        let (stream, _) = slow.take_queued();
        slow.queue(&Request::GetData { path: "/large", watch: false });
        slow.flush().expect("sent");
        stream.shutdown(Shutdown::Both).expect("shut down");
        drop((slow, stream));
        wait_for("the socket of the lost connection", || (server.open_sockets() <= sockets).then_some(()));
        assert!(other.exists("/large").expect("a reply"));
        server.stop();
    }
}

/// A client that stays connected and reads nothing until its session has expired. The end of a connection waited for its output to
/// be taken, so the socket, and what was held for it, stayed for as long as the client liked.
#[test]
fn slow_reader_whose_session_expires_leaves_nothing_behind() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("expired", shards, |setup| {
            setup.line("nio.sessionlessCnxnTimeout=500");
        });
        let mut other = Client::connect(server.address).expect("a connection");
        assert_eq!(other.create("/large", &vec![1; 900 << 10], CreateFlags::PERSISTENT).expect("a reply").error, 0);
        let sockets = server.open_sockets();
        let mut slow = Client::attach(server.address, Session::new(200), 0).expect("a session");
        for _ in 0..100 {
            slow.queue(&Request::GetData { path: "/large", watch: false });
        }
        slow.flush().expect("sent");
        wait_for("its connection", || (server.open_sockets() > sockets).then_some(()));
        wait_for("the socket of the expired session", || (server.open_sockets() <= sockets).then_some(()));
        server.wait_for_log("does not take its replies and events");
        drop(slow);
        server.stop();
    }
}

/// A client that pipelines everything it has at once, reads and writes mixed, gets its answers in the order of its requests.
#[test]
fn burst_of_twenty_thousand_requests_is_answered_in_order() {
    const REQUESTS: usize = 20_000;
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("burst", shards, |_| ());
        let mut client = Client::connect(server.address).expect("a connection");
        for name in ["/a", "/b", "/c"] {
            assert_eq!(client.create(name, b"0", CreateFlags::PERSISTENT).expect("a reply").error, 0);
        }
        let paths = ["/a", "/b", "/c"];
        let mut expected = Vec::new();
        let mut latest = [String::from("0"), String::from("0"), String::from("0")];
        for number in 0..REQUESTS {
            let which = number % 3;
            if number % 10 == 0 {
                latest[which] = number.to_string();
                client.queue(&Request::SetData {
                    path: paths[which],
                    data: Some(latest[which].as_bytes()),
                    version: -1,
                });
                expected.push(None);
            } else {
                client.queue(&Request::GetData { path: paths[which], watch: false });
                expected.push(Some(latest[which].clone()));
            }
        }
        let (mut stream, bytes) = client.take_queued();
        let sender = thread::spawn(move || stream.write_all(&bytes));
        for (number, expected) in expected.into_iter().enumerate() {
            let answer = client.receive().expect("a reply");
            assert_eq!(answer.error, 0);
            if let Some(data) = expected {
                assert_eq!(
                    answer.data(),
                    data.as_bytes(),
                    "request {number} sees the writes before it and no later one"
                );
            }
        }
        sender.join().expect("the sender did not panic").expect("everything was taken");
        server.stop();
    }
}

/// Clients that write faster than segments of the log are made, at a server whose clock turns twice an hour. When a segment was
/// ready, nobody told the sequencer: the writes that had waited for it stood still until the next tick, with the disk idle.
#[test]
fn writes_that_waited_for_a_log_segment_go_on_when_there_is_one() {
    const WRITES: usize = 6_000;
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("segment", shards, |setup| {
            setup.line("tickTime=3600000").line("minSessionTimeout=60000");
        });
        let mut client = Client::connect(server.address).expect("a connection");
        client.create("/a", b"", CreateFlags::PERSISTENT).expect("a reply");
        let data = [0; 4096];
        for _ in 0..WRITES {
            client.queue(&Request::SetData { path: "/a", data: Some(&data), version: -1 });
        }
        let (mut stream, bytes) = client.take_queued();
        let sender = thread::spawn(move || stream.write_all(&bytes));
        for number in 0..WRITES {
            let answer =
                client.receive().unwrap_or_else(|error| panic!("write {number} of {WRITES} stands still: {error}"));
            assert_eq!(answer.error, 0);
        }
        sender.join().expect("the sender did not panic").expect("everything was taken");
        server.stop();
    }
}

/// The limits of an ordinary user on an ordinary distribution.
#[test]
fn server_starts_within_the_limits_of_an_ordinary_user() {
    for shards in SHARD_COUNTS {
        let (_directory, server) = start("ordinary", shards, |setup| {
            setup.limits(&["-l 8192", "-n 1024"]);
        });
        let mut client = Client::connect(server.address).expect("a connection");
        assert_eq!(client.create("/a", b"1", CreateFlags::PERSISTENT).expect("a reply").error, 0);
        assert_eq!(client.get("/a").expect("a reply").data(), b"1");
        server.stop();
    }
}
