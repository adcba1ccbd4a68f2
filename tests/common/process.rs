//! A server in a process of its own, which can be killed.

use super::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How to start a server: on a port that the system picks, which is then read from its log.
#[derive(Clone, Debug)]
pub struct Setup {
    config: PathBuf,
    lines: Vec<String>,
    arguments: Vec<String>,
    /// What runs the server, in front of its own command line.
    runner: Vec<String>,
}

impl Setup {
    /// A server of `shards` shards with its configuration in `directory` and its data in `directory/data`.
    pub fn new(directory: &Path, shards: u16) -> Setup {
        let mut setup = Setup {
            config: directory.join("zoo.cfg"),
            lines: Vec::new(),
            arguments: vec!["--allow-sharing-cpus".into()],
            runner: Vec::new(),
        };
        setup.data_dir(&directory.join("data"));
        setup.line("clientPortAddress=127.0.0.1");
        setup.line("clientPort=0");
        setup.line("tickTime=100");
        setup.line("maxSessionTimeout=60000");
        setup.line("preAllocSize=1024");
        setup.line(&format!("ringkeeper.shards={shards}"));
        setup
    }

    /// Adds a line to the configuration; one with the same key is replaced.
    pub fn line(&mut self, line: &str) -> &mut Setup {
        let key = |line: &str| line.split('=').next().map(str::to_owned);
        self.lines.retain(|other| key(other) != key(line));
        self.lines.push(line.to_owned());
        self
    }

    /// Keeps the data elsewhere.
    pub fn data_dir(&mut self, path: &Path) -> &mut Setup {
        self.line(&format!("dataDir={}", path.display()))
    }

    /// Adds arguments of the command line.
    pub fn arguments(&mut self, arguments: &[&str]) -> &mut Setup {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs the server through a command that ends by becoming it, as `exec` does, so that its process id stays.
    pub fn runner(&mut self, words: &[&str]) -> &mut Setup {
        self.runner = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs the server under resource limits, as arguments of the shell's `ulimit`.
    pub fn limits(&mut self, limits: &[&str]) -> &mut Setup {
        let script: String = limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        self.runner(&["sh", "-c", &format!("{script} exec \"$0\" \"$@\"")])
    }

    fn command(&self) -> Command {
        fs::write(&self.config, self.lines.join("\n") + "\n").expect("the configuration is written");
        let mut words = self.runner.clone();
        words.push(env!("CARGO_BIN_EXE_ringkeeper").to_owned());
        words.push("server".to_owned());
        words.push(self.config.display().to_string());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env_remove("JVMFLAGS").env_remove("SERVER_JVMFLAGS");
        command
    }

    /// Starts the server and waits until it serves. Panics with its log when it does not.
    pub fn start(&self) -> ServerProcess {
        let mut server = self.begin();
        server.wait_until_serving();
        server
    }

    /// Starts the server and waits for nothing.
    pub fn begin(&self) -> ServerProcess {
        let mut child = self.command().spawn().expect("the binary starts");
        let log = Log::follow(child.stderr.take().expect("stderr is a pipe"));
        ServerProcess { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }

    /// Starts a server that must end by itself, with an error.
    pub fn start_refused(&self) -> Refusal {
        let mut server = self.begin();
        let status = server.wait();
        assert!(!status.success(), "the server should have refused to start:\n{}", server.log());
        assert!(status.code().is_some(), "it refused with words, not by a signal: {status}\n{}", server.log());
        Refusal { text: server.log() }
    }
}

/// What a server said that did not start.
#[derive(Debug)]
pub struct Refusal {
    pub text: String,
}

impl Refusal {
    /// Panics unless all `words` are in the text.
    pub fn names(&self, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "{word:?} is missing in:\n{}", self.text);
        }
    }
}

/// Lines of a server's standard error, read by a thread.
#[derive(Clone, Default)]
struct Log {
    text: Arc<Mutex<String>>,
    ended: Arc<Mutex<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn follow(stderr: ChildStderr) -> Log {
        let log = Log::default();
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = lock(&writer.text);
                text.push_str(&line);
                text.push('\n');
            }
            *lock(&writer.ended) = true;
        });
        log
    }
}

/// A running server; killed when dropped.
pub struct ServerProcess {
    child: Child,
    log: Log,
    /// Where it serves clients.
    pub address: SocketAddr,
}

impl ServerProcess {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it serves, and learns where. Panics with its log when it ends instead.
    pub fn wait_until_serving(&mut self) {
        self.address = wait_for("the server to serve", || {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("the server did not start: {status}\n{}", self.log());
            }
            let text = self.log();
            let (_, address) = text.split_once("serving clients on ")?;
            address.lines().next()?.trim().parse().ok()
        });
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        lock(&self.log.text).clone()
    }

    /// Waits until `text` is in its log.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("the log line {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// `kill -9`, and waits for the end. Returns its log.
    pub fn kill(mut self) -> String {
        if let Some(status) = self.child.try_wait().expect("the child can be asked") {
            panic!("the server ended before it was killed: {status}\n{}", self.log());
        }
        self.child.kill().expect("the child can be killed");
        self.wait();
        self.log()
    }

    /// Asks it to stop, and waits for a clean end. Returns its log.
    pub fn stop(mut self) -> String {
        kill_process(self.pid(), Signal::TERM).expect("the child can be signalled");
        let status = self.wait();
        assert!(status.success(), "the server did not stop cleanly: {status}\n{}", self.log());
        self.log()
    }

    fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the server to end", || self.child.try_wait().expect("the child can be asked"));
        wait_for("the end of the log", || lock(&self.log.ended).then_some(()));
        status
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") << 10
    }

    /// CPU time used so far, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc_file("stat");
        let (_, fields) = stat.rsplit_once(')').expect("the name in parentheses");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11..13].iter().map(|field| field.parse::<u64>().expect("clock ticks")).sum()
    }

    /// Open files.
    pub fn open_files(&self) -> u64 {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the child's files").count() as u64
    }

    /// Open sockets: the listeners and the connections. Unlike all files, the segments of the log are not among them.
    pub fn open_sockets(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the child's files");
        let targets = files.filter_map(|file| fs::read_link(file.expect("an entry").path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    fn proc_file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("the child's /proc")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
    }
}

/// Runs a command to its end.
pub fn command_output(words: &[&str]) -> std::io::Result<Output> {
    Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output()
}
