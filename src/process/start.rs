//! Starting and ending a process.

use super::outcome::{FirstError, Serving};
use super::{Place, ProcessError, Service};
use crate::base::ShardId;
use crate::runtime::{
    BoundListener, ConnectionLimit, Listener, Queue, ShardContext, ShardResult, ShardsConfig, ShardsHandle, StopSignal,
    TurnCounter, Watchdog, WatchdogConfig, bind_listeners, preflight, run_shards, spawn, watchdog, world,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How to start a process.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Use only these CPUs. `None`: all this process may use.
    pub cpus: Option<Vec<usize>>,
    /// Permit more shards than CPUs: for tests.
    pub allow_sharing_cpus: bool,
    /// Busy-wait this long before sleeping.
    pub spin_before_park: Option<Duration>,
    /// Directories that shards write to with direct IO. They exist.
    pub directories: Vec<PathBuf>,
    /// Where to listen. Port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Connections at once, over all listeners; fewer if the machine does not allow so many.
    pub connections_max: usize,
    /// Raised to stop the process, also while it starts.
    pub stop: StopSignal,
}

/// A running process.
pub struct Process<S: Service> {
    addresses: Vec<SocketAddr>,
    stop: StopSignal,
    shards: ShardsHandle,
    first_error: FirstError<S::Error>,
    _watchdog: Option<Watchdog>,
}

/// What each shard takes with it. Filled before the shards start, and emptied by them.
struct Luggage {
    listeners: Vec<BoundListener>,
    turns: Option<TurnCounter>,
}

impl<S: Service> Process<S> {
    /// Starts a process that runs `service`, and waits until every shard serves.
    pub async fn start(config: ProcessConfig, service: S) -> Result<Process<S>, S::Error> {
        let serving = Serving::default();
        let process = Process::begin(config, Arc::new(service), serving.clone()).map_err(S::Error::from)?;
        let served = async {
            serving.all(process.shards.shards()).await;
            None
        };
        let Some(ended) = futures_lite::future::or(served, async { Some(process.ended().await) }).await else {
            return Ok(process);
        };
        process.stop.stop();
        // A shard ends before it serves for an error of its own, or because it was told to.
        Err(ended.err().unwrap_or_else(|| ProcessError::Stopped.into()))
    }

    fn begin(config: ProcessConfig, service: Arc<S>, serving: Serving) -> Result<Process<S>, ProcessError> {
        let shards = config.shards;
        let mut runtime = ShardsConfig::new(shards);
        runtime.allow_sharing_cpus = config.allow_sharing_cpus;
        runtime.cpus = config.cpus;
        runtime.spin_before_park = config.spin_before_park;
        let mut connections_max = config.connections_max;
        if !world::is_active() {
            let directories = config.directories;
            let report = preflight::check(&preflight::PreflightConfig { shards, directories, connections_min: 1 })?;
            connections_max = connections_max.min(report.connections_max);
            tracing::info!("kernel {}, {shards} shards, {connections_max} connections at most", report.kernel);
            report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            runtime.io_memory_bytes = report.io_memory_bytes;
            runtime.ring_depth = report.ring_depth;
        }
        let watchdog = match world::is_active() {
            true => None,
            false => Some(
                Watchdog::start(shards, WatchdogConfig::default(), watchdog::abort_on_stall())
                    .map_err(ProcessError::Watchdog)?,
            ),
        };
        let turns = |shard: usize| watchdog.as_ref().map(|watchdog| watchdog.counter(ShardId(shard as u16)));
        let mut luggage: Vec<_> =
            (0..shards).map(|shard| Luggage { listeners: Vec::new(), turns: turns(shard) }).collect();
        let mut addresses = Vec::new();
        for address in config.listen {
            let bound = bind_listeners(address, shards).map_err(ProcessError::Listen)?;
            addresses.extend(bound.first().map(BoundListener::local_addr));
            luggage.iter_mut().zip(bound).for_each(|(luggage, bound)| luggage.listeners.push(bound));
        }
        let first_error = FirstError::new();
        let shared = Arc::new(Shared {
            service,
            luggage: luggage.into_iter().map(|luggage| Mutex::new(Some(luggage))).collect(),
            limit: ConnectionLimit::new(connections_max),
            stop: config.stop.clone(),
            serving,
            first_error: first_error.clone(),
        });
        let handle = run_shards(&runtime, move |context| shared.run(context))?;
        Ok(Process { addresses, stop: config.stop, shards: handle, first_error, _watchdog: watchdog })
    }

    /// The addresses listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Raised to stop the process.
    pub fn stop_signal(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Waits for the end of the process. Gives the first error once.
    pub async fn ended(&self) -> Result<(), S::Error> {
        let failure = self.shards.ended().await.err().map(ProcessError::from);
        self.first_error.take().or(failure.map(S::Error::from)).map_or(Ok(()), Err)
    }

    /// [`Process::ended`] for a thread that may block; waits for the threads as well.
    pub fn join(self) -> Result<(), S::Error> {
        futures_lite::future::block_on(self.ended())?;
        Ok(self.shards.join().map_err(ProcessError::from)?)
    }
}

/// What every shard is started from.
struct Shared<S: Service> {
    service: Arc<S>,
    luggage: Vec<Mutex<Option<Luggage>>>,
    limit: ConnectionLimit,
    stop: StopSignal,
    serving: Serving,
    first_error: FirstError<S::Error>,
}

impl<S: Service> Shared<S> {
    async fn run(self: Arc<Self>, context: ShardContext) -> ShardResult {
        if let Err(error) = self.serve(context).await {
            self.first_error.record(error);
        }
        // One shard less is no server: the others end as well.
        self.stop.stop();
        Ok(())
    }

    async fn serve(&self, context: ShardContext) -> Result<(), S::Error> {
        let luggage = self.luggage[context.shard.index()].lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Luggage { listeners, turns }) = luggage else { return Ok(()) };
        let listeners = listeners.into_iter().map(|bound| Listener::new(bound, self.limit.clone()));
        let listeners = listeners.collect::<Result<_, _>>().map_err(ProcessError::Listen)?;
        if let Some(turns) = turns {
            spawn(Queue::Serving, turns.run());
        }
        let place = Place { context, listeners, stop: self.stop.clone(), serving: self.serving.clone() };
        self.service.clone().run(place).await
    }
}
