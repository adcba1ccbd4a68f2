//! What the coordination service runs on each shard.

use super::connection;
use super::error::ServerError;
use super::message::ShardMessage;
use super::recovery::recover;
use super::sequencer_driver::SequencerDriver;
use super::shard_driver::ShardDriver;
use super::snapshots::Snapshots;
use super::start::ServerOptions;
use super::words::Words;
use crate::base::{ShardId, Zxid};
use crate::config::{self, ServerConfig};
use crate::coordination::admin::Whitelist;
use crate::coordination::auth::{AuthConfig, DigestAlgorithm};
use crate::coordination::persistence::data_dir::DataDir;
use crate::coordination::persistence::snapshot::SnapshotFiles;
use crate::coordination::processor::{Sequencer, SequencerConfig, Shard, ShardConfig};
use crate::coordination::session::{SessionIds, SessionTable};
use crate::coordination::tree::{DataTree, ShardMap};
use crate::log::position::Position;
use crate::log::writer::LogConfig;
use crate::metrics::FlushTimes;
use crate::process::{Place, ProcessError, Service};
use crate::runtime::{Listener, Mesh, PeerLimit, Queue, clock, random, sleep, spawn};
use crate::storage::Storage;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The service: what every shard is made from.
pub struct Coordination {
    config: ServerConfig,
    options: ServerOptions,
    directories: DataDir,
    peers: PeerLimit,
    mesh: Mesh<ShardMessage>,
    words: Arc<Words>,
    map: ShardMap,
    auth: Arc<AuthConfig>,
    boot: u64,
}

impl Coordination {
    /// The service of a server with `shards` shards and its data in `directories`.
    pub fn new(config: ServerConfig, options: ServerOptions, directories: DataDir, shards: usize) -> Coordination {
        let boot = random::any();
        Coordination {
            auth: Arc::new(auth_config(&config)),
            map: ShardMap::new(shards as u16, boot),
            mesh: Mesh::new(shards),
            words: Arc::new(Words::new(shards)),
            peers: PeerLimit::new(config.max_client_cnxns.map_or(usize::MAX, |max| max as usize)),
            config,
            options,
            directories,
            boot,
        }
    }
}

impl Service for Coordination {
    type Error = ServerError;

    async fn run(self: Arc<Self>, place: Place) -> Result<(), ServerError> {
        #[cfg(feature = "planted-bugs")]
        if !crate::base::planted::plant(self.options.planted.as_deref()) {
            return Err(ServerError::UnknownPlant(self.options.planted.clone().unwrap_or_default()));
        }
        serve_shard(&self, place).await
    }
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

fn shard_config(shared: &Coordination, id: ShardId) -> ShardConfig {
    let limits = &shared.options.limits;
    ShardConfig {
        id,
        map: shared.map.clone(),
        boot: shared.boot,
        auth: shared.auth.clone(),
        packet_bytes_max: shared.config.jute_max_buffer_bytes as usize,
        session_timeout_ms_min: shared.config.min_session_timeout_ms,
        session_timeout_ms_max: shared.config.max_session_timeout_ms,
        sessionless_timeout_ms: shared.config.sessionless_cnxn_timeout_ms.into(),
        requests_per_connection_max: limits.requests_per_connection_max,
        output_bytes_max: limits.output_bytes_max,
        output_bytes_limit: limits.output_bytes_limit,
        reply_bytes_max: reply_bytes_max(limits.reply_bytes_max, shared.config.jute_max_buffer_bytes as usize),
        outstanding_requests_max: shared.config.global_outstanding_limit as usize,
        read_cache_bytes_max: limits.read_cache_bytes_max.unwrap_or((shared.config.read_cache_mib as usize) << 20),
    }
}

/// How long a reply may be. Clients refuse what is longer than their own `jute.maxbuffer`, which is to be set as the server's is
/// (1 MiB in current clients, 4 MiB in older ones). Twice that leaves room for what surrounds a node's data, and the least is for
/// clients without a limit.
fn reply_bytes_max(least: usize, jute_max_buffer_bytes: usize) -> usize {
    jute_max_buffer_bytes.saturating_mul(2).clamp(least, i32::MAX as usize)
}

async fn serve_shard(shared: &Arc<Coordination>, mut place: Place) -> Result<(), ServerError> {
    let id = place.context.shard;
    let mesh = shared.mesh.connect(id).await;
    let tree = DataTree::new(id, &shared.map, shared.boot);
    let shard = Shard::new(shard_config(shared, id), tree, SessionTable::default(), Zxid::ZERO, Zxid::ZERO);
    let whitelist = Whitelist::parse(&shared.config.four_letter_whitelist);
    let storage = Storage::new(shared.options.backend.clone());
    let snapshots = SnapshotFiles::new(storage, &shared.directories.snapshots);
    let driver =
        ShardDriver::new(shard, mesh, shared.words.clone(), whitelist, snapshots, shared.options.observer.clone());
    for peer in shared.map.all().filter(|peer| *peer != id) {
        spawn(Queue::Serving, receive(driver.clone(), peer));
    }
    let stop = place.stop.clone();
    let listeners = std::mem::take(&mut place.listeners);
    let runs = async {
        if id == ShardId(0) {
            start_sequencer(shared, &driver).await?;
        }
        driver.until_serving().await;
        spawn(Queue::Serving, run_ticks(driver.clone(), shared.config.tick_time_ms));
        place.serves();
        serve_clients(shared, &driver, listeners).await
    };
    let result = first_of(first_of(runs, async { Err(driver.failed().await) }), async {
        stop.stopped().await;
        Ok(())
    })
    .await;
    driver.close_connections();
    driver.observe_end();
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
async fn start_sequencer(shared: &Arc<Coordination>, driver: &Rc<ShardDriver>) -> Result<(), ServerError> {
    let limits = &shared.options.limits;
    let log_config = LogConfig {
        flush_bytes_max: limits.flush_bytes_max,
        queue_bytes_max: limits.log_queue_bytes_max,
        sync: shared.config.force_sync,
        ..LogConfig::default()
    }
    .with_segments_of(limits.segment_bytes.unwrap_or(u64::from(shared.config.pre_alloc_size_kib) << 10));
    let storage = Storage::new(shared.options.backend.clone());
    let recovered = recover(driver, storage, &shared.directories.log, log_config, shared.options.discard_after).await?;
    if let Some(observer) = &shared.options.observer {
        observer.recovered(recovered.log.end.into());
    }
    let sessions = driver.core().borrow().sessions().clone();
    let config = SequencerConfig {
        local: ShardId(0),
        map: shared.map.clone(),
        auth: shared.auth.clone(),
        tick_ms: shared.config.tick_time_ms,
        remembered_bytes_max: limits.remembered_bytes_max,
        slice_steps: limits.slice_steps,
    };
    let ids = SessionIds::new(1, clock::wall_ms());
    let now_ms = clock::monotonic_ms() as i64;
    let mut sequencer = Sequencer::new(config, recovered.log.end.into(), sessions, ids, now_ms);
    sequencer.open_epoch_above(recovered.log.highest.into(), clock::wall_ms());
    if limits.transactions_of_first_epoch < u32::MAX {
        let epoch = sequencer.last().epoch();
        sequencer.skip_to(Zxid::new(epoch, u32::MAX - limits.transactions_of_first_epoch));
    }
    let log = recovered.log.log;
    let files = driver.snapshots().clone();
    let snapshots = Snapshots::new(&shared.config, files, log.clone(), recovered.broken, recovered.replayed);
    let flushes = shared.config.force_sync.then(|| FlushTimes::new(shared.config.fsync_warning_threshold_ms));
    let sequencer = SequencerDriver::new(sequencer, log, snapshots.clone(), flushes);
    driver.set_sequencer(sequencer.clone());
    spawn(Queue::LogWrite, run_flushes(driver.clone(), sequencer.clone()));
    spawn(Queue::Background, run_segments(driver.clone(), sequencer.clone()));
    spawn(Queue::Background, snapshots.run(driver.clone()));
    driver.turn();
    spawn(Queue::Serving, announce(driver.clone(), sequencer));
    Ok(())
}

async fn run_flushes(driver: Rc<ShardDriver>, sequencer: Rc<SequencerDriver>) {
    let durable = |position: Position| sequencer.durable(position.into(), &driver);
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

/// Accepts connections until a listener ends.
async fn serve_clients(
    shared: &Arc<Coordination>,
    driver: &Rc<ShardDriver>,
    listeners: Vec<Listener>,
) -> Result<(), ServerError> {
    let (first, more) = {
        let mut listeners = listeners.into_iter();
        (listeners.next(), listeners)
    };
    for listener in more {
        let (shared, driver) = (shared.clone(), driver.clone());
        spawn(Queue::Serving, async move {
            if let Err(error) = accept_clients(&shared, &driver, &listener).await {
                driver.fail(error);
            }
        });
    }
    match first {
        Some(listener) => accept_clients(shared, driver, &listener).await,
        None => std::future::pending().await,
    }
}

async fn accept_clients(
    shared: &Arc<Coordination>,
    driver: &Rc<ShardDriver>,
    listener: &Listener,
) -> Result<(), ServerError> {
    let failed = |reason| ProcessError::Listen { address: listener.local_addr(), reason };
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
        sequencer.tick(&driver);
        driver.turn();
        if let Err(error) = sequencer.log().idle().await {
            return driver.fail(error.into());
        }
    }
}
