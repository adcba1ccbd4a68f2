//! Snapshots in a running server: written under writes, started from with another number of shards, broken, purged, refused.

use ringkeeper::base::Zxid;
use ringkeeper::config::ServerConfig;
use ringkeeper::coordination::persistence::snapshot_format::{Manifest, SnapshotFile};
use ringkeeper::coordination::server::{Server, ServerOptions};
use ringkeeper::protocol::jute::Input;
use ringkeeper::protocol::zookeeper::{
    Acl, AclVector, ConnectRequest, ConnectResponse, Create, CreateFlags, Id, OpCode, Reply, ReplyHeader, Request, Stat,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory on the real file system, removed when the test passes.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> TestDirectory {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("snapshots-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestDirectory(path)
    }

    fn config(&self, shards: u16, retain: Option<u32>) -> ServerConfig {
        let mut config = ServerConfig::for_dev(self.0.clone());
        config.client_port = 0;
        config.shards = Some(shards);
        config.snap_count = 50;
        config.pre_alloc_size_kib = 64;
        config.snap_retain_count = retain.unwrap_or(3);
        config.purge_interval_hours = retain.map(|_| 1);
        config
    }

    fn files(&self) -> PathBuf {
        self.0.join("ringkeeper")
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.files()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    /// The manifests, newest first.
    fn manifests(&self) -> Vec<Manifest> {
        // A stop may have left parts, or a manifest under its temporary name.
        let is_manifest = |name: &String| matches!(SnapshotFile::parse(name), Some(SnapshotFile::Manifest(_)));
        let names = self.names("snapshot.").into_iter().filter(is_manifest);
        let read = |name: String| Manifest::decode(&std::fs::read(self.files().join(name)).unwrap()).unwrap();
        let mut manifests: Vec<Manifest> = names.map(read).collect();
        manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.start));
        manifests
    }

    fn part(&self, manifest: &Manifest, index: usize) -> PathBuf {
        self.files().join(format!("snapshot.{:x}.part{index}", manifest.start.0))
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn start(config: ServerConfig) -> Result<Server, String> {
    let options = ServerOptions { allow_sharing_cpus: true, ..ServerOptions::default() };
    Server::start(config, options).map_err(|error| error.to_string())
}

fn stop(server: Server) {
    server.stop_signal().stop();
    server.join().unwrap();
}

/// A blocking client that speaks just enough.
struct Client {
    stream: TcpStream,
    address: SocketAddr,
    session: i64,
    password: [u8; 16],
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

impl Client {
    fn attach(address: SocketAddr, session_id: i64, password: [u8; 16]) -> Client {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut bytes = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 40_000,
            session_id,
            password: &password,
            read_only: Some(false),
        };
        request.encode_frame(&mut bytes);
        stream.write_all(&bytes).unwrap();
        let response = ConnectResponse::decode(&read_frame(&mut stream)).unwrap();
        Client { stream, address, session: response.session_id, password: response.password }
    }

    fn connect(server: &Server) -> Client {
        Client::attach(server.address(), 0, [0; 16])
    }

    /// Sends all requests, then reads all answers: error codes and bodies.
    fn call_all(&mut self, requests: &[Request<'_>]) -> Vec<(i32, Vec<u8>)> {
        let mut bytes = Vec::new();
        requests.iter().enumerate().for_each(|(xid, request)| request.encode_frame(xid as i32, &mut bytes));
        self.stream.write_all(&bytes).unwrap();
        let mut answers = Vec::new();
        for xid in 0..requests.len() {
            let frame = read_frame(&mut self.stream);
            let mut input = Input::new(&frame);
            let header = ReplyHeader::decode(&mut input).unwrap();
            assert_eq!(header.xid, xid as i32);
            answers.push((header.error, input.rest().to_vec()));
        }
        answers
    }

    fn call(&mut self, request: Request<'_>) -> Vec<u8> {
        let (error, body) = self.call_all(std::slice::from_ref(&request)).remove(0);
        assert_eq!(error, 0, "{request:?}");
        body
    }

    fn create(&mut self, path: &str, flags: CreateFlags) -> String {
        let mut scratch = Vec::new();
        let body = self.call(create(path, flags, &mut scratch));
        let Ok(Reply::Path(path)) = Reply::decode(OpCode::Create, &mut Input::new(&body)) else { panic!("{body:?}") };
        path.to_owned()
    }

    fn snapshots(&self) -> u64 {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(b"mntr").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let row = text.lines().find_map(|line| line.strip_prefix("zk_cnt_snapshottime\t")).unwrap();
        row.parse().unwrap()
    }

    /// A round of every kind of change below `/load/<round>`, about thirty transactions.
    fn round(&mut self, round: usize) {
        let top = format!("/load/{round}");
        self.create(&top, CreateFlags::PERSISTENT);
        let children: Vec<String> = (0..10).map(|n| format!("{top}/n{n}")).collect();
        let own = [Acl { perms: 31, id: Id::new("ip", format!("127.0.0.{}", 1 + round % 3)) }, Acl::open()];
        let (mut scratch, mut acl_scratch) = (Vec::new(), Vec::new());
        let open = AclVector::from_acls(&[Acl::open()], &mut scratch);
        let acl = AclVector::from_acls(&own, &mut acl_scratch);
        let mut requests = Vec::new();
        for (n, path) in children.iter().enumerate() {
            let flags = if n % 4 == 3 { CreateFlags::EPHEMERAL } else { CreateFlags::PERSISTENT };
            requests.push(Request::Create(Create {
                path,
                data: None,
                acl: open,
                flags,
                with_stat: false,
                ttl_ms: None,
            }));
            requests.push(Request::SetData { path, data: Some(path.as_bytes()), version: 0 });
        }
        requests.extend(children.iter().step_by(3).map(|path| Request::SetAcl { path, acl, version: -1 }));
        requests.extend(children.iter().step_by(2).map(|path| Request::Delete { path, version: -1 }));
        requests.push(Request::SetData { path: "/load", data: None, version: -1 });
        assert!(self.call_all(&requests).iter().all(|(error, _)| *error == 0));
        self.create("/load/seq-", CreateFlags::PERSISTENT_SEQUENTIAL);
    }

    /// Rounds until the server has written `wanted` snapshots in this life. Gives the number of the next round.
    fn rounds_until_snapshots(&mut self, mut round: usize, wanted: u64) -> usize {
        while self.snapshots() < wanted {
            assert!(round < 2000, "no snapshot comes");
            self.round(round);
            round += 1;
        }
        round
    }

    /// Rounds until the beginning of the log is gone. Gives the number of the next round.
    fn rounds_until_purged(&mut self, directory: &TestDirectory) -> usize {
        let mut round = self.rounds_until_snapshots(0, 4);
        while directory.names("log.").contains(&"log.0000000000000001".to_owned()) {
            assert!(round < 2000, "the log is never purged");
            self.round(round);
            round += 1;
        }
        round
    }
}

fn create<'a>(path: &'a str, flags: CreateFlags, scratch: &'a mut Vec<u8>) -> Request<'a> {
    let acl = AclVector::from_acls(&[Acl::open()], scratch);
    Request::Create(Create { path, data: Some(b"x"), acl, flags, with_stat: false, ttl_ms: None })
}

type Tree = BTreeMap<String, (Option<Vec<u8>>, Stat, Vec<Acl>, Vec<String>)>;

/// The whole tree as a client sees it.
fn tree(client: &mut Client) -> Tree {
    let mut found = Tree::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        let body = client.call(Request::GetData { path: &path, watch: false });
        let Ok(Reply::Data(data, stat)) = Reply::decode(OpCode::GetData, &mut Input::new(&body)) else { panic!() };
        let body = client.call(Request::GetAcl { path: &path });
        let Ok(Reply::Acl(acl, _)) = Reply::decode(OpCode::GetAcl, &mut Input::new(&body)) else { panic!() };
        let body = client.call(Request::GetChildren { path: &path, watch: false, with_stat: false });
        let Ok(Reply::Children(children)) = Reply::decode(OpCode::GetChildren, &mut Input::new(&body)) else {
            panic!()
        };
        let mut children: Vec<String> = children.into_iter().map(str::to_owned).collect();
        children.sort();
        let parent = if path == "/" { "" } else { &path };
        open.extend(children.iter().map(|name| format!("{parent}/{name}")));
        found.insert(path, (data.map(<[u8]>::to_vec), stat, acl, children));
    }
    found
}

/// What a restart must bring back, from a snapshot of one number of shards into another: data, stats, ACLs, children,
/// sessions with their ephemerals, sequence numbers. The log below the snapshot is gone, so it cannot come from there.
#[test]
fn everything_is_there_after_a_restart_with_another_number_of_shards() {
    for (written_by, read_by) in [(1, 3), (3, 1), (2, 3)] {
        let directory = TestDirectory::new(&format!("restart-{written_by}-{read_by}"));
        let server = start(directory.config(written_by, Some(2))).unwrap();
        let mut client = Client::connect(&server);
        client.create("/load", CreateFlags::PERSISTENT);
        let rounds = client.rounds_until_purged(&directory);
        client.round(rounds);
        let before = tree(&mut client);
        let ephemerals = |tree: &Tree| tree.values().filter(|(_, stat, ..)| stat.ephemeral_owner != 0).count();
        assert!(ephemerals(&before) > 0);
        stop(server);

        let manifests = directory.manifests();
        assert!((2..=3).contains(&manifests.len()), "{manifests:?}");
        assert!(manifests.iter().all(|manifest| manifest.parts.len() == usize::from(written_by)));

        let server = start(directory.config(read_by, Some(2))).unwrap();
        let mut client = Client::attach(server.address(), client.session, client.password);
        assert_ne!(client.session, 0, "the session lives on");
        assert!(tree(&mut client) == before, "{written_by} to {read_by} shards");
        let next = client.create("/load/seq-", CreateFlags::PERSISTENT_SEQUENTIAL);
        // Every round made a directory and a sequential node below /load.
        assert_eq!(next, format!("/load/seq-{:010}", 2 * (rounds + 1)));
        client.call(Request::CloseSession);
        let mut other = Client::connect(&server);
        assert_eq!(ephemerals(&tree(&mut other)), 0, "they go with their session");
        stop(server);
    }
}

/// A snapshot that a crash of the disk has cut in half must cost time, not data: the one before it and the log still tell all.
#[test]
fn broken_snapshot_falls_back_to_the_one_before() {
    let directory = TestDirectory::new("broken");
    let server = start(directory.config(2, None)).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    client.rounds_until_snapshots(0, 3);
    let before = tree(&mut client);
    stop(server);
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let manifests = directory.manifests();
    cut(&directory.part(&manifests[0], 1));
    cut(&directory.files().join(format!("snapshot.{:x}", manifests[1].start.0)));
    for shards in [1, 3] {
        let server = start(directory.config(shards, None)).unwrap();
        let mut client = Client::attach(server.address(), client.session, client.password);
        assert!(tree(&mut client) == before, "{shards} shards");
        stop(server);
    }
}

/// When the only snapshot is broken and the log no longer reaches back, an empty or half tree must not be served; and the
/// refused start must not make it worse.
#[test]
fn log_that_begins_too_late_is_refused_with_a_text() {
    let directory = TestDirectory::new("too-late");
    let server = start(directory.config(1, Some(1))).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    client.rounds_until_purged(&directory);
    let before = tree(&mut client);
    stop(server);
    let manifests = directory.manifests();
    let saved: Vec<_> = manifests.iter().map(|m| std::fs::read(directory.part(m, 0)).unwrap()).collect();
    for (manifest, bytes) in manifests.iter().zip(&saved) {
        std::fs::write(directory.part(manifest, 0), &bytes[..bytes.len() - 1]).unwrap();
    }
    let files = directory.names("");
    let error = start(directory.config(1, Some(1))).err().expect("the start is refused");
    assert!(error.contains("begins after zxid") && error.contains("no snapshot that can be used"), "{error}");
    assert!(error.contains("cannot be read, see above"), "{error}");
    assert_eq!(directory.names(""), files);
    for (manifest, bytes) in manifests.iter().zip(&saved) {
        std::fs::write(directory.part(manifest, 0), bytes).unwrap();
    }
    let server = start(directory.config(1, Some(1))).unwrap();
    assert!(tree(&mut Client::attach(server.address(), client.session, client.password)) == before);
    stop(server);
}

/// A snapshot without its log lacks everything acknowledged since: most likely `dataLogDir` is wrong.
#[test]
fn snapshots_without_a_log_are_refused() {
    let directory = TestDirectory::new("no-log");
    let server = start(directory.config(1, None)).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    client.rounds_until_snapshots(0, 1);
    stop(server);
    let mut config = directory.config(1, None);
    config.data_log_dir = directory.0.join("elsewhere");
    let error = start(config).err().expect("the start is refused");
    assert!(error.contains("there is no transaction log in") && error.contains("Check dataLogDir"), "{error}");
    // A log that was lost and begun again by hand must not pass either.
    for name in directory.names("log.") {
        std::fs::remove_file(directory.files().join(name)).unwrap();
    }
    let error = start(directory.config(1, None)).err().expect("the start is refused");
    assert!(error.contains("there is no transaction log in"), "{error}");
}

/// `--discard-after` gives up what follows; a snapshot that was taken later would bring it back at the start after the next.
#[test]
fn discarded_transactions_do_not_come_back_with_a_later_snapshot() {
    let directory = TestDirectory::new("discard");
    let server = start(directory.config(2, None)).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    let rounds = client.rounds_until_snapshots(0, 1);
    client.create("/later", CreateFlags::PERSISTENT);
    client.rounds_until_snapshots(rounds, 3);
    stop(server);
    let oldest = directory.manifests().pop().unwrap();
    let discard_after: Option<Zxid> = Some(oldest.end);
    let options = ServerOptions { allow_sharing_cpus: true, discard_after, ..ServerOptions::default() };
    let config = ServerConfig { snap_count: 1_000_000, ..directory.config(1, None) };
    stop(Server::start(config, options).unwrap());
    assert_eq!(directory.manifests(), [oldest]);
    let server = start(directory.config(3, None)).unwrap();
    let found = tree(&mut Client::connect(&server));
    assert!(found.contains_key("/load/0") && !found.contains_key("/later"));
    stop(server);
}

/// A snapshot that cannot be written must not stop the server: the log has everything. The next one is tried as if nothing
/// had happened.
#[test]
fn failed_snapshot_leaves_the_server_serving() {
    let directory = TestDirectory::new("failed");
    let mut config = directory.config(3, None);
    config.data_log_dir = directory.0.join("log");
    let server = start(config.clone()).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    let hidden = directory.0.join("hidden");
    std::fs::rename(directory.files(), &hidden).unwrap();
    (0..10).for_each(|round| client.round(round));
    assert_eq!(client.snapshots(), 0);
    std::fs::rename(&hidden, directory.files()).unwrap();
    client.rounds_until_snapshots(10, 1);
    let before = tree(&mut client);
    stop(server);
    let server = start(config).unwrap();
    assert!(tree(&mut Client::attach(server.address(), client.session, client.password)) == before);
    stop(server);
}

/// A start that replayed much takes a snapshot soon, so that the next one need not do the same again.
#[test]
fn long_replay_is_followed_by_a_snapshot() {
    let directory = TestDirectory::new("long-replay");
    let mut config = directory.config(1, None);
    config.snap_count = 1_000_000;
    let server = start(config).unwrap();
    let mut client = Client::connect(&server);
    client.create("/load", CreateFlags::PERSISTENT);
    (0..10).for_each(|round| client.round(round));
    stop(server);
    assert_eq!(directory.manifests(), []);
    let server = start(directory.config(2, None)).unwrap();
    let client = Client::connect(&server);
    // Nothing is written any more: the replay alone must be enough.
    while client.snapshots() == 0 {}
    stop(server);
    assert_eq!(directory.manifests().len(), 1);
}
