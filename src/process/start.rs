//! Starting and ending a process.

use super::outcome::{FirstError, Serving};
use super::{Place, ProcessError, Service};
use crate::base::ShardId;
use crate::runtime::{
    BoundListener, ConnectionLimit, ListenAt, Listener, Queue, ShardContext, ShardResult, ShardsConfig, ShardsHandle,
    StopSignal, TurnCounter, Watchdog, WatchdogConfig, bind_listeners, preflight, run_shards, spawn, watchdog, world,
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
    /// Where to listen.
    pub listen: Vec<ListenAt>,
    /// Connections at once, over all listeners; fewer if the machine does not allow so many.
    pub connections_max: usize,
    /// Raised to stop the process, also while it starts.
    pub stop: StopSignal,
}

/// A process that can start: what its configuration asks of the machine is there. Nothing was written.
pub struct Prepared {
    config: ProcessConfig,
    runtime: ShardsConfig,
    /// By address, then by shard.
    listeners: Vec<Vec<BoundListener>>,
}

impl Prepared {
    /// Looks for the CPUs and takes the addresses.
    pub fn new(config: ProcessConfig) -> Result<Prepared, ProcessError> {
        let mut runtime = ShardsConfig::new(config.shards);
        runtime.allow_sharing_cpus = config.allow_sharing_cpus;
        runtime.cpus = config.cpus.clone();
        runtime.spin_before_park = config.spin_before_park;
        if !world::is_active() {
            runtime.check_cpus()?;
        }
        let bind = |at: &ListenAt| {
            bind_listeners(*at, config.shards).map_err(|reason| ProcessError::Listen { address: at.address, reason })
        };
        let listeners = config.listen.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Prepared { config, runtime, listeners })
    }

    /// Starts `service`, whose shards write to `directories` with direct IO, and waits until every shard serves.
    pub async fn start<S: Service>(self, directories: Vec<PathBuf>, service: S) -> Result<Process<S>, S::Error> {
        let serving = Serving::default();
        let process = self.begin(directories, Arc::new(service), serving.clone()).map_err(S::Error::from)?;
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

    fn begin<S: Service>(
        mut self,
        directories: Vec<PathBuf>,
        service: Arc<S>,
        serving: Serving,
    ) -> Result<Process<S>, ProcessError> {
        let shards = self.config.shards;
        let connections_max = self.look_at_machine(directories)?;
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
        for bound in self.listeners {
            addresses.extend(bound.first().map(BoundListener::local_addr));
            luggage.iter_mut().zip(bound).for_each(|(luggage, bound)| luggage.listeners.push(bound));
        }
        let stop = self.config.stop;
        let first_error = FirstError::new();
        let shared = Arc::new(Shared {
            service,
            luggage: luggage.into_iter().map(|luggage| Mutex::new(Some(luggage))).collect(),
            limit: ConnectionLimit::new(connections_max),
            stop: stop.clone(),
            serving,
            first_error: first_error.clone(),
        });
        let shards = run_shards(&self.runtime, move |context| shared.run(context))?;
        Ok(Process { addresses, stop, shards, first_error, _watchdog: watchdog })
    }

    /// Gives how many connections there may be.
    fn look_at_machine(&mut self, directories: Vec<PathBuf>) -> Result<usize, ProcessError> {
        let connections_max = self.config.connections_max;
        if world::is_active() {
            return Ok(connections_max);
        }
        let shards = self.config.shards;
        let report = preflight::check(&preflight::PreflightConfig { shards, directories, connections_min: 1 })?;
        tracing::info!("kernel {}, {shards} shards, {} connections at most", report.kernel, report.connections_max);
        report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.runtime.io_memory_bytes = report.io_memory_bytes;
        self.runtime.ring_depth = report.ring_depth;
        Ok(connections_max.min(report.connections_max))
    }
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
        let listeners = listeners.into_iter().map(|bound| {
            let address = bound.local_addr();
            let failed = |reason| ProcessError::Listen { address, reason };
            Listener::new(bound, self.limit.clone()).map_err(failed)
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        if let Some(turns) = turns {
            spawn(Queue::Serving, turns.run());
        }
        let place = Place { context, listeners, stop: self.stop.clone(), serving: self.serving.clone() };
        self.service.clone().run(place).await
    }
}
