//! Starting and stopping a server.

use super::connection;
use super::message::ShardMessage;
use super::recovery::recover;
use super::sequencer_driver::SequencerDriver;
use super::shard_driver::ShardDriver;
use super::snapshots::Snapshots;
use super::words::Words;
use crate::base::{ShardId, Zxid};
use crate::config::{self, ServerConfig};
use crate::coordination::admin::Whitelist;
use crate::coordination::auth::{AuthConfig, DigestAlgorithm};
use crate::coordination::persistence::data_dir::{DataDir, DataDirError};
use crate::coordination::persistence::log_writer::LogConfig;
use crate::coordination::persistence::snapshot::SnapshotFiles;
use crate::coordination::persistence::snapshot_format::SnapshotError;
use crate::coordination::persistence::txn_log::TxnLogError;
use crate::coordination::processor::{ApplyError, Sequencer, SequencerConfig, Shard, ShardConfig};
use crate::coordination::session::{SessionIds, SessionTable};
use crate::coordination::tree::{DataTree, ShardMap};
use crate::runtime::{
    BoundListener, ConnectionLimit, Listener, Mesh, PeerLimit, Queue, RuntimeError, ShardContext, ShardResult,
    ShardsConfig, ShardsHandle, StopSignal, Watchdog, WatchdogConfig, bind_listeners, clock, preflight, run_shards,
    sleep, spawn, watchdog,
};
use crate::storage::{Backend, Storage, StorageError};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use thiserror::Error;

/// Why a server did not start, or must not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The machine does not allow it.
    #[error(transparent)]
    Preflight(#[from] preflight::PreflightError),
    /// The shards did not start, or one ended.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The directories cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] TxnLogError),
    /// The log takes nothing any more; what was acknowledged is safe.
    #[error("{0}; the server stops, what it acknowledged is on disk. Check the disk and start it again")]
    LogStopped(String),
    /// The directory of the snapshots cannot be used.
    #[error("snapshots: {0}")]
    Snapshots(StorageError),
    /// It was told to stop before it served.
    #[error("stopped before it served")]
    Stopped,
    /// The log and the snapshots do not meet.
    #[error(
        "the transaction log in {log} begins after zxid {begins_after} only, but {found}: what lies between is missing. \
         Restore a newer snapshot to {snapshots}, or the older files of the log, from a copy", log = log.display(),
        snapshots = snapshots.display()
    )]
    LogBeginsTooLate {
        /// Where the log is.
        log: PathBuf,
        /// Records above this are there.
        begins_after: Zxid,
        /// Where the snapshots are.
        snapshots: PathBuf,
        /// What there is of snapshots.
        found: String,
    },
    /// Acknowledged records are missing at the end of the log.
    #[error(
        "the transaction log in {log} ends at zxid {log_end}, but {snapshot} was written when it was durable to \
         {snapshot_end}: acknowledged writes are missing. Restore the log's files from a copy; or, to give up everything after \
         an older snapshot, start once with --discard-after and its end, which `ringkeeper inspect` shows",
        log = log.display(), snapshot = snapshot.display()
    )]
    LogEndsTooEarly {
        /// Where the log is.
        log: PathBuf,
        /// Its last record.
        log_end: Zxid,
        /// The manifest that says so.
        snapshot: PathBuf,
        /// What it says.
        snapshot_end: Zxid,
    },
    /// There are snapshots and no log.
    #[error(
        "there is no transaction log in {log}, but there is {snapshot}. Check dataLogDir, or restore the log's files from a \
         copy{way_out}", log = log.display(), snapshot = snapshot.display()
    )]
    LogMissing {
        /// Where the log should be.
        log: PathBuf,
        /// The newest manifest.
        snapshot: PathBuf,
        /// What else can be done, if anything.
        way_out: String,
    },
    /// One shard read something else than shard 0: memory or disk cannot be trusted.
    #[error(
        "part {part} of the snapshot reads differently on shard {shard} ({error}): check this machine's memory and disk"
    )]
    SnapshotDiffers {
        /// The shard.
        shard: ShardId,
        /// The part.
        part: u32,
        /// What it found.
        error: SnapshotError,
    },
    /// A committed transaction cannot be applied.
    #[error("{0}; the server stops rather than serve a wrong tree. Please report this with the output of `inspect`")]
    Apply(ApplyError),
    /// The client address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the watchdog: {0}")]
    Watchdog(std::io::Error),
}

/// Choices that are not configuration.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// More shards than CPUs: for tests.
    pub allow_sharing_cpus: bool,
    /// Where bytes go.
    pub backend: Backend,
    /// `--discard-after`: give up everything behind this transaction.
    pub discard_after: Option<Zxid>,
    /// Raised to stop the server, also while it starts.
    pub stop: StopSignal,
    /// A bug to plant on every shard, so that a test can show that it finds it; an unknown name ends the server.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            allow_sharing_cpus: false,
            backend: Backend::Direct,
            discard_after: None,
            stop: StopSignal::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: StopSignal,
    shards: ShardsHandle,
    _watchdog: Watchdog,
}

/// What every shard is made from.
struct Shared {
    config: ServerConfig,
    options: ServerOptions,
    directories: DataDir,
    listeners: Mutex<Vec<Option<BoundListener>>>,
    limit: ConnectionLimit,
    peers: PeerLimit,
    mesh: Mesh<ShardMessage>,
    words: Arc<Words>,
    map: ShardMap,
    auth: Arc<AuthConfig>,
    boot: u64,
    stop: StopSignal,
    counters: Mutex<Vec<Option<watchdog::TurnCounter>>>,
    serving: mpsc::Sender<()>,
}

/// Requests of one connection under way before its socket is left alone.
const REQUESTS_PER_CONNECTION_MAX: usize = 1000;
/// Output of one connection held before its socket is left alone.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Output of one connection at which it is cut off. Beyond [`OUTPUT_BYTES_MAX`] there are only events, and the replies to what was
/// read before.
const OUTPUT_BYTES_LIMIT: usize = 64 << 20;
/// The longest reply, if `jute.maxbuffer` does not ask for more: a list of 760,000 children with names of 80 characters.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// What the sequencer remembers of records, so that it need not ask for them again: some 30,000 of them.
const REMEMBERED_BYTES_MAX: usize = 8 << 20;
/// Largest write of one log flush.
const FLUSH_BYTES_MAX: u32 = 1 << 20;

impl Server {
    /// Starts a server and waits until it serves.
    pub fn start(config: ServerConfig, options: ServerOptions) -> Result<Server, ServerError> {
        let shards = usize::from(config.shards.unwrap_or_else(default_shards));
        let directories = DataDir::open(&config.data_dir, &config.data_log_dir)?;
        let report = preflight::check(&preflight::PreflightConfig {
            shards,
            directories: vec![directories.log.clone(), directories.snapshots.clone()],
            connections_min: 1,
        })?;
        tracing::info!("kernel {}, {shards} shards, {} connections at most", report.kernel, report.connections_max);
        report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let address = client_address(&config)?;
        let listeners = bind_listeners(address, shards)
            .map_err(|error| ServerError::Listen { address: address.to_string(), reason: error.to_string() })?;
        let address = listeners[0].local_addr();
        let watchdog = Watchdog::start(shards, WatchdogConfig::default(), watchdog::abort_on_stall())
            .map_err(ServerError::Watchdog)?;
        let wanted = config.max_cnxns.map_or(usize::MAX, |max| max as usize);
        let connections_max = report.connections_max.min(wanted);
        let stop = options.stop.clone();
        let (serving, all_serve) = mpsc::channel();
        let boot = rand::random();
        let counters = (0..shards).map(|shard| Some(watchdog.counter(ShardId(shard as u16)))).collect();
        let shared = Arc::new(Shared {
            auth: Arc::new(auth_config(&config)),
            map: ShardMap::new(shards as u16, boot),
            mesh: Mesh::new(shards),
            words: Arc::new(Words::new(shards)),
            limit: ConnectionLimit::new(connections_max),
            peers: PeerLimit::new(config.max_client_cnxns.map_or(usize::MAX, |max| max as usize)),
            listeners: Mutex::new(listeners.into_iter().map(Some).collect()),
            counters: Mutex::new(counters),
            stop: stop.clone(),
            config,
            options,
            directories,
            boot,
            serving,
        });
        let mut runtime = ShardsConfig::new(shards);
        runtime.allow_sharing_cpus = shared.options.allow_sharing_cpus;
        runtime.cpus = shared.config.cpus.as_ref().map(|cpus| cpus.iter().map(|cpu| *cpu as usize).collect());
        runtime.io_memory_bytes = report.io_memory_bytes;
        runtime.ring_depth = report.ring_depth;
        if shared.config.spin_micros > 0 {
            runtime.spin_before_park = Some(Duration::from_micros(shared.config.spin_micros.into()));
        }
        let handle = run_shards(&runtime, move |context| run_shard(shared.clone(), context))?;
        // The senders go with the shards: an error there ends this loop early.
        let served = (0..shards).take_while(|_| all_serve.recv().is_ok()).count();
        let server = Server { address, stop, shards: handle, _watchdog: watchdog };
        if served < shards {
            server.stop.stop();
            // A shard ends before it serves for an error of its own, or because it was told to.
            return Err(server.shards.join().map_or_else(ServerError::from, |()| ServerError::Stopped));
        }
        Ok(server)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Raised to stop the server.
    pub fn stop_signal(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Waits for the end of the server.
    pub fn join(self) -> Result<(), ServerError> {
        Ok(self.shards.join()?)
    }
}

fn default_shards() -> u16 {
    crate::runtime::shards::allowed_cpus().map_or(1, |cpus| cpus.len().clamp(1, u16::MAX.into()) as u16)
}

fn client_address(config: &ServerConfig) -> Result<SocketAddr, ServerError> {
    let host = config.client_port_address.as_deref().unwrap_or("0.0.0.0");
    let failed = |reason: String| ServerError::Listen { address: format!("{host}:{}", config.client_port), reason };
    let mut addresses = (host, config.client_port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("the name has no address".into()))
}

fn auth_config(config: &ServerConfig) -> AuthConfig {
    AuthConfig {
        skip_acl: config.skip_acl,
        super_digest: config.super_digest.clone(),
        digest_disabled: !config.digest_enabled,
        digest_algorithm: match config.digest_algorithm {
            config::DigestAlgorithm::Sha1 => DigestAlgorithm::Sha1,
            config::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
            config::DigestAlgorithm::Sha512 => DigestAlgorithm::Sha512,
        },
    }
}

fn shard_config(shared: &Shared, id: ShardId) -> ShardConfig {
    ShardConfig {
        id,
        map: shared.map.clone(),
        boot: shared.boot,
        auth: shared.auth.clone(),
        packet_bytes_max: shared.config.jute_max_buffer_bytes as usize,
        session_timeout_ms_min: shared.config.min_session_timeout_ms,
        session_timeout_ms_max: shared.config.max_session_timeout_ms,
        sessionless_timeout_ms: shared.config.sessionless_cnxn_timeout_ms.into(),
        requests_per_connection_max: REQUESTS_PER_CONNECTION_MAX,
        output_bytes_max: OUTPUT_BYTES_MAX,
        output_bytes_limit: OUTPUT_BYTES_LIMIT,
        reply_bytes_max: reply_bytes_max(shared.config.jute_max_buffer_bytes as usize),
        read_cache_bytes_max: (shared.config.read_cache_mib as usize) << 20,
    }
}

/// How long a reply may be. Clients refuse what is longer than their own `jute.maxbuffer`, which is to be set as the server's is
/// (1 MiB in current clients, 4 MiB in older ones). Twice that leaves room for what surrounds a node's data, and the least is for
/// clients without a limit.
fn reply_bytes_max(jute_max_buffer_bytes: usize) -> usize {
    jute_max_buffer_bytes.saturating_mul(2).clamp(REPLY_BYTES_MAX, i32::MAX as usize)
}

fn take<T>(slots: &Mutex<Vec<Option<T>>>, shard: ShardId) -> T {
    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
    slots[shard.index()].take().expect("every shard starts once")
}

async fn run_shard(shared: Arc<Shared>, context: ShardContext) -> ShardResult {
    #[cfg(feature = "planted-bugs")]
    if !crate::base::planted::plant(shared.options.planted.as_deref()) {
        return Err(format!("no bug is called {:?}", shared.options.planted).into());
    }
    let result = serve_shard(&shared, context.shard).await;
    // One shard less is no server: the others end as well.
    shared.stop.stop();
    result.map_err(Into::into)
}

async fn serve_shard(shared: &Arc<Shared>, id: ShardId) -> Result<(), ServerError> {
    spawn(Queue::Serving, take(&shared.counters, id).run());
    let mesh = shared.mesh.connect(id).await;
    let tree = DataTree::new(id, &shared.map, shared.boot);
    let shard = Shard::new(shard_config(shared, id), tree, SessionTable::default(), Zxid::ZERO, Zxid::ZERO);
    let whitelist = Whitelist::parse(&shared.config.four_letter_whitelist);
    let storage = Storage::new(shared.options.backend.clone());
    let snapshots = SnapshotFiles::new(storage, &shared.directories.snapshots);
    let driver = ShardDriver::new(shard, mesh, shared.words.clone(), whitelist, snapshots);
    for peer in shared.map.all().filter(|peer| *peer != id) {
        spawn(Queue::Serving, receive(driver.clone(), peer));
    }
    if id == ShardId(0) {
        start_sequencer(shared, &driver).await?;
    }
    let stop = shared.stop.clone();
    let ends = async {
        driver.until_serving().await;
        serve_clients(shared, &driver).await
    };
    let result = first_of(first_of(ends, async { Err(driver.failed().await) }), async {
        stop.stopped().await;
        Ok(())
    })
    .await;
    driver.close_connections();
    if let Some(sequencer) = driver.sequencer() {
        sequencer.log().stop();
    }
    driver.mesh().close();
    result
}

async fn first_of<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    futures_lite::future::or(one, other).await
}

/// Messages of one other shard.
async fn receive(driver: Rc<ShardDriver>, peer: ShardId) {
    while let Some(mut batch) = driver.mesh().receive(peer).await {
        for message in batch.drain(..) {
            driver.deliver(peer, message);
        }
        driver.mesh().recycle(batch);
        driver.turn();
    }
}

/// Recovers, opens the epoch, and tells every shard to serve.
async fn start_sequencer(shared: &Arc<Shared>, driver: &Rc<ShardDriver>) -> Result<(), ServerError> {
    let log_config = LogConfig {
        segment_bytes: u64::from(shared.config.pre_alloc_size_kib) << 10,
        flush_bytes_max: FLUSH_BYTES_MAX,
        sync: shared.config.force_sync,
        ..LogConfig::default()
    };
    let storage = Storage::new(shared.options.backend.clone());
    let recovered = recover(driver, storage, &shared.directories.log, log_config, shared.options.discard_after).await?;
    let sessions = driver.core().borrow().sessions().clone();
    let config = SequencerConfig {
        local: ShardId(0),
        map: shared.map.clone(),
        auth: shared.auth.clone(),
        tick_ms: shared.config.tick_time_ms,
        remembered_bytes_max: REMEMBERED_BYTES_MAX,
    };
    let ids = SessionIds::new(1, clock::wall_ms());
    let now_ms = clock::monotonic_ms() as i64;
    let mut sequencer = Sequencer::new(config, recovered.log.end, sessions, ids, now_ms);
    sequencer.open_epoch(clock::wall_ms());
    let log = recovered.log.log;
    let files = driver.snapshots().clone();
    let snapshots = Snapshots::new(&shared.config, files, log.clone(), recovered.broken, recovered.replayed);
    let sequencer = SequencerDriver::new(sequencer, log, snapshots.clone());
    driver.set_sequencer(sequencer.clone());
    spawn(Queue::LogWrite, run_flushes(driver.clone(), sequencer.clone()));
    spawn(Queue::Background, run_segments(driver.clone(), sequencer.clone()));
    spawn(Queue::Background, snapshots.run(driver.clone()));
    driver.turn();
    spawn(Queue::Serving, announce(driver.clone(), sequencer));
    Ok(())
}

async fn run_flushes(driver: Rc<ShardDriver>, sequencer: Rc<SequencerDriver>) {
    let durable = |zxid| sequencer.durable(zxid, &driver);
    if let Err(error) = sequencer.log().run_flushes(durable).await {
        driver.fail(error.into());
    }
}

async fn run_segments(driver: Rc<ShardDriver>, sequencer: Rc<SequencerDriver>) {
    let room = || driver.turn();
    if let Err(error) = sequencer.log().run_segments(room).await {
        driver.fail(error.into());
    }
}

/// Waits until the epoch is open, then lets every shard serve.
async fn announce(driver: Rc<ShardDriver>, sequencer: Rc<SequencerDriver>) {
    let mut waits_for_room = false;
    while !sequencer.core().borrow().is_open() {
        if let (false, Some(reason)) = (waits_for_room, sequencer.log().writer().borrow().out_of_space()) {
            waits_for_room = true;
            tracing::error!(
                "no client is served yet: the start of a server is a record of its log, and there is no room for it \
                 ({reason}). It goes on when there is"
            );
        }
        sleep(Duration::from_millis(1)).await;
    }
    if waits_for_room {
        tracing::info!("there is room for the transaction log again");
    }
    for other in 1..driver.shards() {
        driver.send(ShardId(other as u16), ShardMessage::Serve);
    }
    driver.start_serving();
    driver.flush_mesh();
}

/// Accepts connections until the listener ends.
async fn serve_clients(shared: &Arc<Shared>, driver: &Rc<ShardDriver>) -> Result<(), ServerError> {
    let failed = |error: std::io::Error| ServerError::Listen {
        address: shared.config.client_port.to_string(),
        reason: error.to_string(),
    };
    let listener = Listener::new(take(&shared.listeners, driver.id()), shared.limit.clone()).map_err(failed)?;
    spawn(Queue::Serving, run_ticks(driver.clone(), shared.config.tick_time_ms));
    let _ = shared.serving.send(());
    while let Some(accepted) = listener.accept().await.map_err(failed)? {
        let peer = accepted.socket.peer_addr().ip();
        let Some(peer_permit) = shared.peers.try_acquire(peer) else {
            driver.connection_rejected();
            tracing::warn!("{peer} has as many connections as maxClientCnxns allows; one more is closed");
            continue;
        };
        let permits = (accepted.permit, peer_permit);
        spawn(Queue::Serving, connection::serve(driver.clone(), accepted.socket, permits));
    }
    Ok(())
}

/// The clock of a shard: touches are reported twice in a tick, so that no session expires for want of a report.
async fn run_ticks(driver: Rc<ShardDriver>, tick_ms: u32) {
    let period = Duration::from_millis(u64::from(tick_ms / 2).max(1));
    loop {
        sleep(period).await;
        driver.tick();
        let Some(sequencer) = driver.sequencer() else { continue };
        sequencer.tick();
        driver.turn();
        if let Err(error) = sequencer.log().idle().await {
            return driver.fail(error.into());
        }
    }
}
