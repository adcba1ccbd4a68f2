//! The machine of a simulated server: its disk, which outlives every life of the server, and the life that there is now.

use super::checker::access::SUPER_DIGEST;
use super::recorder::Recorder;
use crate::base::Zxid;
use crate::base::prng::Prng;
use crate::config::ServerConfig;
use crate::coordination::persistence::snapshot_format::SnapshotFile;
use crate::coordination::server::{Limits, Server, ServerOptions};
use crate::runtime::StopSignal;
use crate::runtime::world::{ExecutorId, HostId, ProcessId, World, pause_us};
use crate::storage::{Backend, SimulatedDisk};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Sessions of a simulated server expire in buckets of this.
pub(super) const TICK_MS: u32 = 50;
/// The least and the greatest session timeout that it grants.
pub(super) const SESSION_TIMEOUT_MS: (u32, u32) = (200, 2000);
/// Where it listens.
const PORT: u16 = 2181;
/// Its host. Clients have the numbers below.
const HOST: HostId = HostId::new(200);
/// A stop that takes longer than this, in microseconds, never ends.
const STOP_US_MAX: u64 = 20_000_000;

/// A machine.
pub(super) struct Machine {
    world: World,
    recorder: Recorder,
    disk: SimulatedDisk,
    schedule: RefCell<Prng>,
    shards: Option<u16>,
    planted: Option<&'static str>,
    life: RefCell<Option<LifeOfServer>>,
    /// Of each life.
    pub(super) shards_of_lives: RefCell<Vec<u16>>,
}

struct LifeOfServer {
    process: ProcessId,
    stop: StopSignal,
    end: Rc<RefCell<Option<Result<(), String>>>>,
}

impl Machine {
    /// A machine on which no server has run.
    pub(super) fn new(
        world: &World,
        recorder: Recorder,
        shards: Option<u16>,
        planted: Option<&'static str>,
    ) -> Machine {
        Machine {
            world: world.clone(),
            recorder,
            disk: SimulatedDisk::new(world.stream("disk")),
            schedule: RefCell::new(world.stream("machine")),
            shards,
            planted,
            life: RefCell::default(),
            shards_of_lives: RefCell::default(),
        }
    }

    /// Where clients connect to.
    pub(super) fn address() -> SocketAddr {
        SocketAddr::new(HOST.address().into(), PORT)
    }

    /// Its host.
    pub(super) fn host() -> HostId {
        HOST
    }

    /// Its disk.
    pub(super) fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Starts a server, once the kernel has finished what it was doing for the one before: a process that is killed is gone, and its
    /// lock on the data directory with it, only when its requests to the kernel have ended.
    pub(super) async fn start(&self) {
        while !self.disk.is_idle() {
            pause_us(100).await;
        }
        self.disk.drop_clean_pages();
        let (config, options) = self.settings();
        self.recorder.starts(config.shards.unwrap_or(1), options.limits.transactions_of_first_epoch);
        let process = self.world.start_process(HOST, "server");
        let stop = options.stop.clone();
        let end = Rc::new(RefCell::new(None));
        let told = end.clone();
        self.world.start_main(process, async move {
            let result = match Server::launch(config, options).await {
                Ok(server) => server.ended().await,
                Err(error) => Err(error),
            };
            *told.borrow_mut() = Some(result.map_err(|error| error.to_string()));
        });
        *self.life.borrow_mut() = Some(LifeOfServer { process, stop, end });
    }

    fn settings(&self) -> (ServerConfig, ServerOptions) {
        let mut schedule = self.schedule.borrow_mut();
        let shards = match self.shards {
            Some(shards) => shards,
            None => schedule.choose(&super::simulation::SHARDS),
        };
        self.shards_of_lives.borrow_mut().push(shards);
        let mut config = ServerConfig::for_dev(PathBuf::from("/data"));
        config.client_port = PORT;
        config.client_port_address = Some(HOST.address().to_string());
        config.shards = Some(shards);
        config.tick_time_ms = TICK_MS;
        (config.min_session_timeout_ms, config.max_session_timeout_ms) = SESSION_TIMEOUT_MS;
        config.super_digest = Some(SUPER_DIGEST.to_owned());
        config.snap_count = schedule.choose(&[40, 100, 400]);
        config.snap_retain_count = 3;
        let caches = [0, 2 << 10, 1 << 20];
        let limits = Limits {
            requests_per_connection_max: 12,
            output_bytes_max: 16 << 10,
            output_bytes_limit: 1 << 20,
            reply_bytes_max: 1 << 20,
            remembered_bytes_max: schedule.choose(&caches),
            slice_steps: schedule.choose(&[1, 3, 512]),
            flush_bytes_max: 16 << 10,
            log_queue_bytes_max: 256 << 10,
            segment_bytes: Some(32 << 10),
            read_cache_bytes_max: Some(schedule.choose(&caches)),
            transactions_of_first_epoch: match schedule.percent(5) {
                true => schedule.between(1, 60) as u32,
                false => u32::MAX,
            },
        };
        let options = ServerOptions {
            allow_sharing_cpus: true,
            backend: Backend::Simulated(self.disk.clone()),
            limits,
            observer: Some(Arc::new(self.recorder.clone())),
            ..ServerOptions::default()
        };
        #[cfg(feature = "planted-bugs")]
        let options = ServerOptions { planted: self.planted.map(str::to_owned), ..options };
        let _ = self.planted;
        (config, options)
    }

    /// The executors of the server that runs: its main one, then its shards.
    pub(super) fn executors(&self) -> Vec<ExecutorId> {
        self.life.borrow().as_ref().map_or_else(Vec::new, |life| self.world.executors_of(life.process))
    }

    /// How the server ended by itself, if it did.
    pub(super) fn ended(&self) -> Option<Result<(), String>> {
        self.life.borrow().as_ref().and_then(|life| life.end.borrow_mut().take())
    }

    /// The server is killed.
    pub(super) fn kill(&self) {
        self.recorder.crashed();
        if let Some(life) = self.life.take() {
            self.world.kill(life.process);
        }
    }

    /// The machine loses power.
    pub(super) fn lose_power(&self) {
        self.recorder.crashed();
        self.world.power_off(HOST);
        self.life.take();
        self.disk.lose_power();
        self.world.network().host_up(HOST);
    }

    /// A bit turns somewhere in the newest snapshot, if an older one is there to take its place.
    pub(super) fn spoil_newest_snapshot(&self) {
        let files = self.disk.files();
        let kind = |path: &PathBuf| SnapshotFile::parse(path.file_name()?.to_str()?);
        let manifests = files.iter().filter_map(kind).filter_map(|file| match file {
            SnapshotFile::Manifest(start) => Some(start),
            SnapshotFile::Part(..) => None,
        });
        let mut starts: Vec<Zxid> = manifests.collect();
        starts.sort_unstable();
        let [.., _, newest] = starts[..] else { return };
        let is_of_newest = |path: &&PathBuf| matches!(kind(path), Some(SnapshotFile::Manifest(start) | SnapshotFile::Part(start, _)) if start == newest);
        let parts: Vec<&PathBuf> = files.iter().filter(is_of_newest).collect();
        let mut schedule = self.schedule.borrow_mut();
        let path = schedule.choose(&parts);
        let bytes = self.disk.durable_bytes(path).map_or(0, |bytes| bytes.len() as u64);
        if bytes > 0 {
            let (offset, bit) = (schedule.below(bytes) as usize, schedule.below(8) as u8);
            let spoilt = self.disk.flip_bit(path, offset, bit);
            self.world.trace(spoilt.unwrap_or_default().as_bytes());
        }
    }

    /// The server stops because it is told to. Gives why it did not.
    pub(super) async fn stop(&self) -> Result<(), String> {
        let Some((process, stop)) = self.life.borrow().as_ref().map(|life| (life.process, life.stop.clone())) else {
            return Ok(());
        };
        stop.stop();
        let began_us = self.world.now_us();
        let result = loop {
            if let Some(result) = self.ended() {
                break result;
            }
            if self.world.now_us() > began_us + STOP_US_MAX {
                break Err("the server does not end although it was told to stop".into());
            }
            pause_us(500).await;
        };
        self.life.take();
        self.world.kill(process);
        // A server that is told to stop before it serves says that it has not served.
        result.or_else(|error| if error.contains("stopped before it served") { Ok(()) } else { Err(error) })
    }
}
