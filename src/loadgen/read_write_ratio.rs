//! `bench ratio`: getData and setData in a given ratio on uniformly random keys, closed loop.
//!
//! One task a connection. A wake-up of it is: take what one receive gives, check and time the replies, refill to the number of
//! outstanding requests, send all of it at once. Every ratio has its own warm-up and its own measured window, on the same
//! connections.

use super::closed_loop::{ClosedLoop, LoopFault, Workload};
use super::cpu::CpuReading;
use super::recorder::Recorder;
use super::report::{BenchReport, RatioReport};
use super::requests::{KEYS_MAX, Keys, Template, create_root};
use crate::client::{Connection, ConnectionError, Host, run_blocking};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{ConnectRequest, ErrorCode, PASSWORD_BYTES, ReplyHeader, Request};
use crate::runtime::{LocalNotify, Queue, Socket, TaskHandle, clock, sleep, spawn, timeout};
use futures_lite::future::or;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;
use thiserror::Error;

/// What to run.
#[derive(Clone, Debug)]
pub struct RatioConfig {
    /// The servers; connections are spread over them in turn.
    pub hosts: Vec<Host>,
    /// Shares of reads in percent, run one after another.
    pub read_shares_percent: Vec<f64>,
    /// Size of every value.
    pub value_bytes: usize,
    /// Connections, each with a session of its own.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub outstanding: usize,
    /// Number of keys.
    pub keys: u32,
    /// Length of each measured window.
    pub duration: Duration,
    /// What precedes each window.
    pub warmup: Duration,
    /// Seeds the random keys.
    pub seed: u64,
    /// The session timeout to ask for.
    pub session_timeout_ms: i32,
    /// Server processes whose CPU time is to be read.
    pub server_pids: Vec<u32>,
}

/// Why a run did not come to its end.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A value of the configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A server could not be reached, or a connection ended.
    #[error("{address}: {source}")]
    Connection {
        /// The server.
        address: SocketAddr,
        /// What happened.
        source: ConnectionError,
    },
    /// A server gave no session.
    #[error("{0}: the server gave no session")]
    NoSession(SocketAddr),
    /// A host could not be resolved, or CPU times could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A server broke the protocol.
    #[error("{address}: {reason}")]
    Protocol {
        /// The server.
        address: SocketAddr,
        /// How.
        reason: String,
    },
    /// Preparing the keys failed.
    #[error("{address}: preparing the keys failed with error {wire}")]
    Prepare {
        /// The server.
        address: SocketAddr,
        /// The error on the wire.
        wire: i32,
    },
    /// A whole window without a reply.
    #[error("no reply within the measured window of {0:?}")]
    NoReply(Duration),
    /// A server has stopped answering.
    #[error("{address}: no reply to {in_flight} request(s) within {limit:?}")]
    Silent {
        /// The server.
        address: SocketAddr,
        /// Requests without a reply.
        in_flight: usize,
        /// How long the generator waited.
        limit: Duration,
    },
}

/// Largest reply that is accepted; getData of the largest value fits.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// A server that does not answer for so long has failed, whatever its session timeout.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Requests in flight while the keys are made.
const PREPARE_BATCH: usize = 128;

/// Runs the benchmark. Must be called on a shard; `progress` is told what happens in words.
pub async fn run_ratio(config: RatioConfig, progress: impl Fn(&str)) -> Result<BenchReport, LoadError> {
    check(&config)?;
    let value = vec![b'v'; config.value_bytes];
    let workload = Rc::new(Workload {
        keys: Keys::new(config.keys),
        get_data: Template::get_data(),
        set_data: Template::set_data(&value),
        value_bytes: config.value_bytes,
    });
    let mut connections = open_all(&config).await?;
    progress(&format!("preparing {} keys", config.keys));
    prepare(&mut connections[0], &workload, &Template::create(&value)).await?;
    let loops = |(index, link)| Lane {
        link,
        closed_loop: ClosedLoop::new(workload.clone(), config.outstanding, config.seed.wrapping_add(index as u64)),
        output: Vec::new(),
    };
    let mut lanes: Vec<Lane> = connections.into_iter().enumerate().map(loops).collect();
    let mut ratios = Vec::new();
    for share_percent in &config.read_shares_percent {
        progress(&format!("{share_percent}% reads: {:?} warm-up, {:?} measured", config.warmup, config.duration));
        let (back, report) = measure(lanes, *share_percent, &config).await?;
        lanes = back;
        ratios.push(report);
    }
    for lane in &mut lanes {
        lane.link.call(&Request::CloseSession).await?;
    }
    Ok(report(&config, ratios))
}

fn check(config: &RatioConfig) -> Result<(), LoadError> {
    let wrong = |text: &str| Err(LoadError::Config(text.to_owned()));
    match config {
        _ if config.hosts.is_empty() => wrong("no server is given"),
        _ if config.connections == 0 || config.outstanding == 0 => {
            wrong("at least one connection and one outstanding request are needed")
        }
        _ if config.keys == 0 || config.keys > KEYS_MAX => wrong("the number of keys must be 1 to 100000000"),
        _ if config.read_shares_percent.is_empty() => wrong("no read share is given"),
        _ if config.read_shares_percent.iter().any(|share| !(0.0..=100.0).contains(share)) => {
            wrong("a read share is a percentage from 0 to 100")
        }
        _ if config.duration.is_zero() => wrong("the duration must not be zero"),
        _ => Ok(()),
    }
}

fn report(config: &RatioConfig, ratios: Vec<RatioReport>) -> BenchReport {
    BenchReport {
        version: env!("CARGO_PKG_VERSION"),
        servers: config.hosts.iter().map(|host| format!("{}:{}", host.name, host.port)).collect(),
        connections: config.connections,
        outstanding: config.outstanding,
        value_bytes: config.value_bytes,
        keys: config.keys,
        seed: config.seed,
        warmup_seconds: config.warmup.as_secs_f64(),
        ratios,
    }
}

/// A connection and the name for its errors.
struct Link {
    connection: Connection,
    address: SocketAddr,
}

async fn open_all(config: &RatioConfig) -> Result<Vec<Link>, LoadError> {
    let hosts = config.hosts.clone();
    let addresses =
        run_blocking("resolve", move || hosts.iter().map(first_address).collect::<io::Result<Vec<_>>>()).await??;
    let mut links = Vec::new();
    for address in addresses.iter().cycle().take(config.connections) {
        links.push(Link::open(*address, config.session_timeout_ms).await?);
    }
    Ok(links)
}

fn first_address(host: &Host) -> io::Result<SocketAddr> {
    let named = |error| io::Error::other(format!("{}: {error}", host.name));
    let mut addresses = (host.name.as_str(), host.port).to_socket_addrs().map_err(named)?;
    addresses.next().ok_or_else(|| io::Error::other(format!("{}: the name has no address", host.name)))
}

impl Link {
    async fn open(address: SocketAddr, timeout_ms: i32) -> Result<Link, LoadError> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms,
            session_id: 0,
            password: &[0; PASSWORD_BYTES],
            read_only: Some(false),
        };
        let (connection, response) = timeout(SILENCE_MAX, Connection::open(address, &request, REPLY_BYTES_MAX))
            .await
            .map_err(|_| LoadError::Silent { address, in_flight: 1, limit: SILENCE_MAX })?
            .map_err(|source| LoadError::Connection { address, source })?;
        match response.session_id {
            0 => Err(LoadError::NoSession(address)),
            _ => Ok(Link { connection, address }),
        }
    }

    fn failed(&self, source: ConnectionError) -> LoadError {
        LoadError::Connection { address: self.address, source }
    }

    /// One request on its own; returns the error of its reply.
    async fn call(&mut self, request: &Request<'_>) -> Result<i32, LoadError> {
        let mut output = Vec::new();
        request.encode_frame(0, &mut output);
        Ok(self.exchange(&output, 1).await?[0])
    }

    /// Sends `count` requests with xids from 0 and returns the errors of their replies.
    async fn exchange(&mut self, requests: &[u8], count: usize) -> Result<Vec<i32>, LoadError> {
        let address = self.address;
        self.connection.send(requests).await.map_err(|error| self.failed(error))?;
        let mut errors = Vec::with_capacity(count);
        while errors.len() < count {
            timeout(SILENCE_MAX, self.connection.receive())
                .await
                .map_err(|_| LoadError::Silent { address, in_flight: count - errors.len(), limit: SILENCE_MAX })?
                .map_err(|source| LoadError::Connection { address, source })?;
            self.connection
                .frames(|frame| {
                    let header = ReplyHeader::decode(&mut Input::new(frame)).map_err(|error| error.to_string())?;
                    if header.xid as usize != errors.len() {
                        return Err(format!("reply to xid {} where {} is due", header.xid, errors.len()).into());
                    }
                    errors.push(header.error);
                    Ok(())
                })
                .map_err(|fault: Fault| fault.at(address))?;
        }
        Ok(errors)
    }
}

/// Makes the keys with the value; sets it where a key is there already.
async fn prepare(link: &mut Link, workload: &Workload, create: &Template) -> Result<(), LoadError> {
    let mut output = Vec::new();
    create_root(0, &mut output);
    let root = link.exchange(&output, 1).await?;
    accept(link, &root, &[ErrorCode::Ok, ErrorCode::NodeExists])?;
    let all: Vec<u32> = (0..workload.keys.count()).collect();
    let mut present = Vec::new();
    for batch in all.chunks(PREPARE_BATCH) {
        let errors = send_batch(link, batch, create, &workload.keys).await?;
        accept(link, &errors, &[ErrorCode::Ok, ErrorCode::NodeExists])?;
        let there = batch.iter().zip(&errors).filter(|(_, error)| **error == ErrorCode::NodeExists.wire());
        present.extend(there.map(|(key, _)| *key));
    }
    for batch in present.chunks(PREPARE_BATCH) {
        let errors = send_batch(link, batch, &workload.set_data, &workload.keys).await?;
        accept(link, &errors, &[ErrorCode::Ok])?;
    }
    Ok(())
}

async fn send_batch(link: &mut Link, keys: &[u32], template: &Template, all: &Keys) -> Result<Vec<i32>, LoadError> {
    let mut output = Vec::new();
    for (xid, key) in keys.iter().enumerate() {
        template.append(xid as i32, *key, all, &mut output);
    }
    link.exchange(&output, keys.len()).await
}

fn accept(link: &Link, errors: &[i32], accepted: &[ErrorCode]) -> Result<(), LoadError> {
    match errors.iter().find(|error| accepted.iter().all(|code| code.wire() != **error)) {
        Some(wire) => Err(LoadError::Prepare { address: link.address, wire: *wire }),
        None => Ok(()),
    }
}

/// What the tasks of one ratio share.
struct Run {
    /// Reads out of 2^32 requests.
    read_share: u64,
    phase: Cell<Phase>,
    recorder: RefCell<Recorder>,
    failed: LocalNotify,
    sockets: Vec<Rc<Socket>>,
    /// The sockets were closed because the server did not answer.
    silent: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Draining,
}

async fn measure(
    lanes: Vec<Lane>,
    share_percent: f64,
    config: &RatioConfig,
) -> Result<(Vec<Lane>, RatioReport), LoadError> {
    let run = Rc::new(Run {
        read_share: (share_percent / 100.0 * (1u64 << 32) as f64).round() as u64,
        phase: Cell::new(Phase::WarmUp),
        recorder: RefCell::new(Recorder::new()),
        failed: LocalNotify::new(),
        sockets: lanes.iter().map(|lane| lane.link.connection.socket().clone()).collect(),
        silent: Cell::new(false),
    });
    let start = |lane: Lane| spawn(Queue::Serving, drive_lane(lane, run.clone()));
    let tasks: Vec<TaskHandle<Result<Lane, LoadError>>> = lanes.into_iter().map(start).collect();
    let window = or(async { Some(watch_window(&run, config).await) }, async {
        run.failed.notified().await;
        None
    })
    .await;
    run.phase.set(Phase::Draining);
    // A server that has stopped answering is found out here: the sockets end, and so do the tasks that wait on them.
    let silence = run.clone();
    let watch = spawn(Queue::Background, async move {
        sleep(SILENCE_MAX).await;
        silence.silent.set(true);
        silence.sockets.iter().for_each(|socket| socket.close());
    });
    let mut lanes = Vec::new();
    for task in tasks {
        lanes.push(task.await.expect("nobody cancels these tasks")?);
    }
    watch.cancel();
    let Window { length, generator, servers } = window.expect("a run that failed has returned its error")?;
    let recorder = run.recorder.borrow();
    let report = RatioReport::new(share_percent, length, &recorder, generator, &servers);
    Ok((lanes, report.ok_or(LoadError::NoReply(length))?))
}

struct Window {
    length: Duration,
    generator: super::CpuUse,
    servers: Vec<(u32, super::CpuUse)>,
}

/// Opens and closes the measured window and reads the CPU times at both ends.
async fn watch_window(run: &Run, config: &RatioConfig) -> Result<Window, LoadError> {
    sleep(config.warmup).await;
    let servers = config.server_pids.iter().map(|pid| CpuReading::of(*pid)).collect::<io::Result<Vec<_>>>()?;
    let generator = CpuReading::of(std::process::id())?;
    let started_us = clock::monotonic_us();
    run.phase.set(Phase::Measured);
    sleep(config.duration).await;
    run.phase.set(Phase::Draining);
    let length = Duration::from_micros(clock::monotonic_us() - started_us);
    let generator = generator.since()?;
    let used = servers.iter().map(CpuReading::since).collect::<io::Result<Vec<_>>>()?;
    Ok(Window { length, generator, servers: config.server_pids.iter().copied().zip(used).collect() })
}

/// One connection and its closed loop.
struct Lane {
    link: Link,
    closed_loop: ClosedLoop,
    output: Vec<u8>,
}

async fn drive_lane(mut lane: Lane, run: Rc<Run>) -> Result<Lane, LoadError> {
    match lane.run(&run).await {
        Ok(()) => Ok(lane),
        Err(error) => {
            run.failed.notify();
            // The other tasks must not wait for a window that nobody closes any more.
            run.phase.set(Phase::Draining);
            Err(error)
        }
    }
}

impl Lane {
    async fn run(&mut self, run: &Run) -> Result<(), LoadError> {
        let mut now_us = clock::monotonic_us();
        loop {
            if run.phase.get() != Phase::Draining {
                self.closed_loop.fill(run.read_share, now_us, &mut self.output);
            } else if self.closed_loop.in_flight() == 0 {
                return Ok(());
            }
            self.send_and_receive().await.map_err(|error| self.ended(run, error))?;
            now_us = clock::monotonic_us();
            self.take_replies(run, now_us)?;
        }
    }

    fn ended(&self, run: &Run, error: ConnectionError) -> LoadError {
        match run.silent.get() {
            true => LoadError::Silent {
                address: self.link.address,
                in_flight: self.closed_loop.in_flight(),
                limit: SILENCE_MAX,
            },
            false => self.link.failed(error),
        }
    }

    /// Sends the output and receives once. A server that does not take more before its replies are read must not stop us, so
    /// what is left of the output waits beside the receive.
    async fn send_and_receive(&mut self) -> Result<(), ConnectionError> {
        let socket = self.link.connection.socket().clone();
        let mut sent = match self.output.is_empty() {
            true => 0,
            false => match socket.try_write(&self.output) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                result => result?,
            },
        };
        while sent < self.output.len() {
            let rest = &self.output[sent..];
            let step = or(async { socket.write(rest).await.map(Some) }, async {
                self.link.connection.receive().await.map(|()| None).map_err(io::Error::other)
            });
            match step.await? {
                Some(len) => sent += len,
                None => {
                    self.output.drain(..sent);
                    return Ok(());
                }
            }
        }
        self.output.clear();
        self.link.connection.receive().await
    }

    fn take_replies(&mut self, run: &Run, now_us: u64) -> Result<(), LoadError> {
        let Lane { link, closed_loop, .. } = self;
        let address = link.address;
        let mut recorder = run.recorder.borrow_mut();
        let mut recorder = (run.phase.get() == Phase::Measured).then_some(&mut *recorder);
        link.connection
            .frames(|frame| closed_loop.on_reply(frame, now_us, recorder.as_deref_mut()).map_err(Fault::from))
            .map_err(|fault| fault.at(address))?;
        if let Some(recorder) = recorder {
            closed_loop.flush(recorder);
        }
        Ok(())
    }
}

/// What can be wrong with a frame.
enum Fault {
    Connection(ConnectionError),
    Protocol(String),
}

impl Fault {
    fn at(self, address: SocketAddr) -> LoadError {
        match self {
            Fault::Connection(source) => LoadError::Connection { address, source },
            Fault::Protocol(reason) => LoadError::Protocol { address, reason },
        }
    }
}

impl From<ConnectionError> for Fault {
    fn from(error: ConnectionError) -> Fault {
        Fault::Connection(error)
    }
}

impl From<LoopFault> for Fault {
    fn from(fault: LoopFault) -> Fault {
        Fault::Protocol(fault.to_string())
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Protocol(reason)
    }
}
