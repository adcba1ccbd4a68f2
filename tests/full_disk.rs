//! The disk fills up under a running server, or cannot be written at all.
//!
//! The hazard: a write that was validated and given a number cannot be taken back, so a log that finds no room for it can only
//! stop the server; and a client that was told "no" must not find its write after the next restart. So room is asked for
//! before anything is decided: writes are refused with SYSTEMERROR, reads go on, and writes do as soon as there is room.
//!
//! A full disk needs a file system of its own. It is mounted in a mount namespace of its own (as an ordinary user: in a user
//! namespace), which ends with the test. Where neither is permitted, the tests say so loudly and check nothing.

mod common;

use common::{Client, SHARD_COUNTS, ServerProcess, Setup, TestDir, command_output, is_gone, wait_for};
use ringkeeper::protocol::zookeeper::CreateFlags;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file system in a namespace. A process holds it; its end is the end of both.
struct Mount {
    holder: Child,
    as_root: bool,
    directory: PathBuf,
}

impl Mount {
    /// Mounts a file system by a shell command that gets the directory as `$0`; `None` where that is not permitted.
    fn new(directory: &Path, mount: &str) -> Option<Mount> {
        fs::create_dir_all(directory).expect("a directory");
        let as_root = rustix::process::geteuid().is_root();
        let script = format!("{mount} && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args([if as_root { "-m" } else { "-rm" }, "sh", "-c", &script])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line or the end");
        let mount = Mount { holder, as_root, directory: directory.to_owned() };
        (line == "mounted\n").then_some(mount)
    }

    /// A small file system in memory.
    fn tmpfs(directory: &Path) -> Option<Mount> {
        Mount::new(directory, "mount -t tmpfs -o size=8m none \"$0\"")
    }

    /// A small real file system, for root only.
    fn ext4(directory: &Path, image: &Path) -> Option<Mount> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        fs::File::create(image).expect("an image").set_len(24 << 20).expect("a sparse image");
        let image = image.display().to_string();
        let made = command_output(&["mkfs.ext4", "-q", "-F", "-m", "0", &image]).ok()?;
        made.status.success().then_some(())?;
        Mount::new(directory, &format!("mount -o loop '{image}' \"$0\""))
    }

    /// Words that run a command in the namespace.
    fn enter(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", self.holder.id()), "--mount".to_owned()];
        if !self.as_root {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words
    }

    fn run(&self, command: &[&str]) {
        let mut words = self.enter();
        words.extend(command.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = command_output(&words).expect("the command runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The mounted directory as this process can reach it.
    fn view(&self) -> PathBuf {
        let inside = self.directory.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    fn filler(&self) -> PathBuf {
        self.view().join("filler")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).expect("a file");
        for piece_bytes in [64 << 10, 4096, 512] {
            while file.write_all(&vec![1; piece_bytes]).and_then(|()| file.sync_data()).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("the filler is removed");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn setup_on(mount: &Mount, directory: &TestDir, shards: u16) -> Setup {
    let mut setup = Setup::new(directory.path(), shards);
    let runner = mount.enter();
    setup.data_dir(&mount.directory).line("preAllocSize=256");
    setup.runner(&runner.iter().map(String::as_str).collect::<Vec<_>>());
    setup
}

/// Every kind of file system that can be had here.
fn on_each_file_system(test: &str, check: impl Fn(&Mount, &TestDir)) {
    let mut checked = 0;
    for kind in ["tmpfs", "ext4"] {
        let directory = TestDir::new(test);
        let at = directory.join("mounted");
        let mount = match kind {
            "tmpfs" => Mount::tmpfs(&at),
            _ => Mount::ext4(&at, &directory.join("image")),
        };
        match mount {
            Some(mount) => {
                check(&mount, &directory);
                checked += 1;
            }
            None => eprintln!("SKIPPED: {test} on {kind}: this user cannot mount it here"),
        }
    }
    if checked == 0 {
        eprintln!("SKIPPED: {test} CHECKED NOTHING: no file system could be mounted");
    }
}

const DATA: [u8; 8 << 10] = [7; 8 << 10];

/// What is too little for a large write may be enough for some small ones. Returns how many.
fn write_until_refused(client: &mut Client) -> i32 {
    let mut written = 0;
    while client.set("/", b"small").expect("a reply").error == 0 {
        written += 1;
        assert!(written < 200, "the file system is not full");
    }
    written
}

fn verify(server: &ServerProcess, nodes: usize) {
    let mut client = Client::connect(server.address).expect("a connection");
    for number in 0..nodes {
        assert_eq!(client.get(&format!("/n{number}")).expect("a reply").data(), DATA, "node {number}");
    }
    assert!(!client.exists(&format!("/n{nodes}")).expect("a reply"), "a refused write happened");
}

/// The disk is full, then it is not, then the server is killed.
#[test]
fn full_disk_refuses_writes_serves_reads_and_goes_on_when_there_is_room() {
    for shards in SHARD_COUNTS {
        on_each_file_system("full", |mount, directory| {
            let setup = setup_on(mount, directory, shards);
            let server = setup.start();
            let mut client = Client::connect(server.address).expect("a connection");
            assert_eq!(client.create("/n0", &DATA, CreateFlags::PERSISTENT).expect("a reply").error, 0);
            mount.fill();
            let made = client.create_until_refused(1, &DATA);
            let written = write_until_refused(&mut client);
            server.wait_for_log("writes are refused until there is room");
            let read = client.get("/n0").expect("a reply");
            assert_eq!((read.data(), read.stat().version), (DATA.to_vec(), 0), "reads are served");
            assert_eq!(client.get("/").expect("a reply").stat().version, written, "a refused write left no trace");
            mount.make_room();
            wait_for("writes to be accepted again", || {
                (client.set("/", b"yes").expect("a reply").error == 0).then_some(())
            });
            server.wait_for_log("writes are accepted");
            let again = client.create(&format!("/n{made}"), &DATA, CreateFlags::PERSISTENT).expect("a reply");
            assert_eq!(again.error, 0, "what was refused left nothing behind");
            server.kill();
            let server = setup.start();
            verify(&server, made + 1);
            server.stop();
        });
    }
}

/// The server is killed while its disk is full: what it acknowledged is there, what it refused is not.
#[test]
fn kill_on_a_full_disk_loses_nothing() {
    for shards in SHARD_COUNTS {
        on_each_file_system("killed", |mount, directory| {
            let setup = setup_on(mount, directory, shards);
            let server = setup.start();
            let mut client = Client::connect(server.address).expect("a connection");
            mount.fill();
            let made = client.create_until_refused(0, &DATA);
            server.kill();
            mount.make_room();
            let server = setup.start();
            verify(&server, made);
            server.stop();
        });
    }
}

/// Leaves too little room for a segment, but enough for a file.
fn fill_but_a_little(mount: &Mount) {
    mount.fill();
    let file = fs::File::options().write(true).open(mount.filler()).expect("the filler");
    let filled = file.metadata().expect("its size").len();
    file.set_len(filled - (64 << 10)).expect("a little is given back");
    file.sync_all().expect("a sync");
}

/// The disk is full before the server starts. It waited without a word, and a signal ended it as if it had crashed.
#[test]
fn start_on_a_full_disk_says_what_it_waits_for_and_goes_on_or_stops() {
    const WAITING: &str = "no client is served yet";
    for shards in SHARD_COUNTS {
        on_each_file_system("fullstart", |mount, directory| {
            let setup = setup_on(mount, directory, shards);
            fill_but_a_little(mount);
            let stopped = setup.begin();
            stopped.wait_for_log(WAITING);
            let log = stopped.stop();
            assert!(log.contains("No space left on device"), "{log}");
            let mut server = setup.begin();
            server.wait_for_log(WAITING);
            mount.make_room();
            server.wait_until_serving();
            let mut client = Client::connect(server.address).expect("a connection");
            assert_eq!(client.create("/n0", &DATA, CreateFlags::PERSISTENT).expect("a reply").error, 0);
            server.stop();
        });
    }
}

/// A session is a record of the log as well. Without room for it the connection is closed at once, so that the client tries
/// another server, or again; those who have a session keep it.
#[test]
fn new_sessions_are_turned_away_while_the_disk_is_full() {
    for shards in SHARD_COUNTS {
        on_each_file_system("sessions", |mount, directory| {
            let server = setup_on(mount, directory, shards).start();
            let mut client = Client::connect(server.address).expect("a connection");
            mount.fill();
            client.create_until_refused(0, &DATA);
            write_until_refused(&mut client);
            server.wait_for_log("clients without a session are turned away");
            for _ in 0..3 {
                let refused = Client::connect(server.address).err().expect("there is no room for a session");
                assert!(is_gone(&refused), "{refused}");
            }
            assert!(client.exists("/").expect("the session with a connection is served"));
            mount.make_room();
            let mut new = wait_for("sessions to be accepted again", || Client::connect(server.address).ok());
            assert_eq!(new.set("/", b"yes").expect("a reply").error, 0);
            server.stop();
        });
    }
}

/// A disk that fell back to read-only after an error, as ext4 does, holds good data, and the server cannot go on with it.
#[test]
fn read_only_directory_is_refused_by_name() {
    for shards in SHARD_COUNTS {
        on_each_file_system("readonly", |mount, directory| {
            let setup = setup_on(mount, directory, shards);
            let at = mount.directory.display().to_string();
            // Without the options that the mount has now: some of them cannot be given again in a user namespace.
            let remount = |mode| {
                let options = format!("remount,{mode}");
                mount.run(&["mount", "--options-mode=ignore", "-o", &options, &at]);
            };
            remount("ro");
            setup.start_refused().names(&[&at, "Read-only file system"]);
            remount("rw");
            let server = setup.start();
            let mut client = Client::connect(server.address).expect("a connection");
            assert_eq!(client.create("/n0", &DATA, CreateFlags::PERSISTENT).expect("a reply").error, 0);
            server.stop();
            remount("ro");
            setup.start_refused().names(&[&at, "Read-only file system"]);
            remount("rw");
            verify(&setup.start(), 1);
        });
    }
}
