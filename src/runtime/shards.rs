//! Starts the executors of a server: one thread and one CPU a shard, all of them or none.
//!
//! CPUs come only from this thread's affinity mask, because the executor library's own list of online CPUs ignores `taskset` and
//! cpusets. The start has two phases: every thread builds its executor and reports; only when all have succeeded do
//! the shards' futures begin. So no shard ever waits for a peer that could not start.

use super::heartbeat::{self, BEAT_BUSY, Pulse};
use super::locked_memory::{IO_BYTES_MIN, RING_DEPTH_MIN, wait_while_short};
use super::{queues, readiness, tasks, world};
use crate::base::ShardId;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a task may run before the executor looks at IO and other shards. The library's default is 100 ms.
const PREEMPT_TIMER: Duration = Duration::from_millis(1);
/// The first timer of an executor can be tens of milliseconds late; this one is thrown away before serving begins.
const FIRST_TIMER: Duration = Duration::from_millis(1);
/// An executor that is not built by then, or has not turned for all the beats given to it, never will.
const FIRST_TURN_MAX: Duration = Duration::from_secs(10);

/// How to start the shards.
#[derive(Clone, Debug)]
pub struct ShardsConfig {
    /// Number of shards, at least 1.
    pub shards: usize,
    /// Use only these CPUs. `None`: all this process may use.
    pub cpus: Option<Vec<usize>>,
    /// Permit more shards than CPUs. For tests and tiny machines: such shards take turns on a CPU.
    pub allow_sharing_cpus: bool,
    /// Busy-wait this long before sleeping: shorter wake-ups for a burnt core.
    pub spin_before_park: Option<Duration>,
    /// Memory registered for disk IO, per shard. Counts three times against the locked-memory limit of an unprivileged user.
    pub io_memory_bytes: usize,
    /// Entries of each io_uring, at least 1; rounded up to a power of two by the kernel.
    pub ring_depth: usize,
}

impl ShardsConfig {
    /// `shards` shards with little memory, so that several of them fit an unprivileged user's limits (tests). A server takes
    /// `io_memory_bytes` and `ring_depth` from its preflight report.
    pub fn new(shards: usize) -> ShardsConfig {
        ShardsConfig {
            shards,
            cpus: None,
            allow_sharing_cpus: false,
            spin_before_park: None,
            io_memory_bytes: 64 << 10,
            ring_depth: 256,
        }
    }
}

impl ShardsConfig {
    /// Whether there is a CPU for each shard.
    pub fn check_cpus(&self) -> Result<(), RuntimeError> {
        assign_cpus(self, &allowed_cpus()?).map(drop)
    }
}

/// What a shard knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardContext {
    /// Which shard this is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: usize,
    /// The CPU it is pinned to.
    pub cpu: usize,
}

/// How a shard ends. An error ends the server and is shown to the operator.
pub type ShardResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Why the shards did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A value of [`ShardsConfig`] makes no sense.
    #[error("{0}")]
    Config(String),
    /// The CPUs this process may use are unknown.
    #[error("cannot read this process's CPU affinity: {0}")]
    Affinity(#[source] std::io::Error),
    /// More shards than CPUs.
    #[error(
        "{shards} shards need {shards} CPUs, but this process may use only {available:?}; \
         lower the number of shards or widen the CPU set (taskset, cpuset, cpus=)"
    )]
    TooFewCpus {
        /// Wanted shards.
        shards: usize,
        /// Usable CPUs.
        available: Vec<usize>,
    },
    /// An executor or its thread could not be created. No shard has run.
    #[error("shard {shard} could not start on CPU {cpu}: {reason}")]
    Start {
        /// The shard.
        shard: usize,
        /// Its CPU.
        cpu: usize,
        /// What went wrong.
        reason: String,
    },
    /// The kernel gives no memory for the rings of an executor. No shard has run.
    #[error(
        "shard {shard} could not start: no memory for its rings ({reason}). The limit on locked memory is one for all processes \
         of a user: raise it (LimitMEMLOCK=infinity in the service's unit, memlock in /etc/security/limits.conf), stop other \
         users of io_uring under this user, or configure fewer shards"
    )]
    NoMemory {
        /// The shard.
        shard: usize,
        /// What the kernel said.
        reason: String,
    },
    /// A shard ended with an error.
    #[error("shard {shard} failed: {reason}")]
    Shard {
        /// The shard.
        shard: usize,
        /// The error's text.
        reason: String,
    },
    /// A shard panicked.
    #[error("shard {shard} panicked: {reason}")]
    Panic {
        /// The shard.
        shard: usize,
        /// The panic's message.
        reason: String,
    },
}

/// Running shards.
#[must_use = "dropping the handle lets the shards run without anybody noticing their end"]
pub struct ShardsHandle {
    threads: Vec<JoinHandle<()>>,
    shards: usize,
    ended: Arc<Ended>,
}

/// How the shards have ended so far, and who waits for that.
#[derive(Default)]
struct Ended {
    state: Mutex<Ends>,
}

#[derive(Default)]
struct Ends {
    results: Vec<Result<(), RuntimeError>>,
    waiting: Option<Waker>,
}

impl Ended {
    /// Every shard says so once, also when it panicked.
    fn report(&self, end: Result<(), RuntimeError>) {
        let waker = {
            let mut state = self.lock();
            state.results.push(end);
            state.waiting.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShardsHandle {
    /// How many there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Waits until all shards have ended, or until the first one has failed. Gives the first failure once.
    ///
    /// On an error the other shards may still run: the caller ends the process, since a server with a dead shard is no server.
    pub async fn ended(&self) -> Result<(), RuntimeError> {
        poll_fn(|cx| {
            let mut state = self.ended.lock();
            if let Some(place) = state.results.iter().position(Result::is_err) {
                return Poll::Ready(std::mem::replace(&mut state.results[place], Ok(())));
            }
            if state.results.len() == self.shards {
                return Poll::Ready(Ok(()));
            }
            state.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// [`ShardsHandle::ended`] for a thread that may block, and then waits for the threads.
    pub fn join(self) -> Result<(), RuntimeError> {
        futures_lite::future::block_on(self.ended())?;
        for thread in self.threads {
            thread.join().map_err(|panic| RuntimeError::Panic { shard: 0, reason: panic_text(panic) })?;
        }
        Ok(())
    }
}

/// Starts `config.shards` executors; each runs the future that its clone of `make` gives.
///
/// Returns when every executor works and its future may begin, or with the reason why one could not be made (then no future
/// has run, and all threads have ended). Where the locked memory does not suffice it waits up to two seconds for more, and makes
/// do with less than configured. May be called several times in one process.
pub fn run_shards<F, Fut>(config: &ShardsConfig, make: F) -> Result<ShardsHandle, RuntimeError>
where
    F: FnOnce(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    if world::is_active() {
        return Ok(simulated(config, make));
    }
    start_with_memory_left(config, build_executor, make)
}

/// The shards of a simulated process: executors of its world.
fn simulated<F, Fut>(config: &ShardsConfig, make: F) -> ShardsHandle
where
    F: FnOnce(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    let ended = Arc::<Ended>::default();
    let report = ended.clone();
    world::on_executors(config.shards, make, move |end| report.report(end));
    ShardsHandle { threads: Vec::new(), shards: config.shards, ended }
}

/// [`start`], waiting for locked memory, and then with less of it.
fn start_with_memory_left<F, Fut>(config: &ShardsConfig, build: Build, make: F) -> Result<ShardsHandle, RuntimeError>
where
    F: FnOnce(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    let is_short = |error: &RuntimeError| matches!(error, RuntimeError::NoMemory { .. });
    let begin = |config: &ShardsConfig| wait_while_short(|| start(config, build, make.clone()), is_short);
    match begin(config) {
        Err(error) if is_short(&error) => {
            tracing::warn!("{error}; trying with as little as possible, which costs CPU");
            begin(&ShardsConfig {
                io_memory_bytes: config.io_memory_bytes.min(IO_BYTES_MIN),
                ring_depth: config.ring_depth.min(RING_DEPTH_MIN),
                ..config.clone()
            })
        }
        result => result,
    }
}

/// Builds one executor; tests put a failing one in its place.
type Build = fn(&ShardsConfig, ShardContext) -> Result<LocalExecutor, BuildError>;

/// Why there is no executor.
enum BuildError {
    /// ENOMEM.
    NoMemory(String),
    Other(String),
}

impl BuildError {
    fn on(self, context: ShardContext) -> RuntimeError {
        let shard = context.shard.index();
        match self {
            BuildError::NoMemory(reason) => RuntimeError::NoMemory { shard, reason },
            BuildError::Other(reason) => RuntimeError::Start { shard, cpu: context.cpu, reason },
        }
    }
}

fn start<F, Fut>(config: &ShardsConfig, build: Build, make: F) -> Result<ShardsHandle, RuntimeError>
where
    F: FnOnce(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    if config.ring_depth == 0 {
        return Err(RuntimeError::Config("the ring depth must be at least 1".into()));
    }
    let cpus = assign_cpus(config, &allowed_cpus()?)?;
    let ended = Arc::<Ended>::default();
    let (mut threads, mut starters, mut pulses) = (Vec::new(), Vec::new(), Vec::new());
    for (index, &cpu) in cpus.iter().enumerate() {
        let context = ShardContext { shard: ShardId(index as u16), shards: config.shards, cpu };
        // An early return drops `starters`, at which the threads that did get their executor end.
        let started = start_thread(config, context, build, &ended)?;
        threads.push(started.thread);
        starters.push(started.starter);
        pulses.push(started.pulse);
    }
    let (alive, all_ended) = channel();
    let heart = std::thread::Builder::new().name("heartbeat".into());
    heart.spawn(move || heartbeat::beat(&pulses, &all_ended)).map_err(|error| RuntimeError::Start {
        shard: 0,
        cpu: cpus[0],
        reason: format!("no thread for the heartbeat: {error}"),
    })?;
    for starter in starters {
        // A thread that has reported success waits for this and nothing else.
        let sent = starter.send(Go { make: make.clone(), alive: alive.clone() }).is_ok();
        assert!(sent, "the thread waits for the start");
    }
    Ok(ShardsHandle { threads, shards: config.shards, ended })
}

/// A thread whose executor works.
struct Started<F> {
    thread: JoinHandle<()>,
    starter: Sender<Go<F>>,
    pulse: Pulse,
}

/// Starts a thread and waits until its executor works. Sending it [`Go`] starts its future; dropping the sender ends it.
fn start_thread<F, Fut>(
    config: &ShardsConfig,
    context: ShardContext,
    build: Build,
    ended: &Arc<Ended>,
) -> Result<Started<F>, RuntimeError>
where
    F: FnOnce(ShardContext) -> Fut + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    let (built, when_built) = channel();
    let (works, when_works) = channel();
    let (starter, go) = channel();
    let signals = Signals { built, works, go, ended: ended.clone() };
    let config = config.clone();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", context.shard.index()))
        .spawn(move || shard_main(&config, context, build, signals))
        .map_err(|error| BuildError::Other(format!("no thread: {error}")).on(context))?;
    let pulse =
        when_built.recv_timeout(FIRST_TURN_MAX).map_err(|error| no_report("is not built", error).on(context))??;
    first_turn(&pulse, &when_works).map_err(|error| error.on(context))?;
    Ok(Started { thread, starter, pulse })
}

/// Waits until an executor has turned, and beats it meanwhile: its first turn can be lost like any other.
///
/// An executor that does not turn is left behind with its thread. Should it ever go on, it finds its sender gone, and ends.
fn first_turn(pulse: &Pulse, when_works: &Receiver<Result<(), BuildError>>) -> Result<(), BuildError> {
    let begun = Instant::now();
    loop {
        match when_works.recv_timeout(BEAT_BUSY) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < FIRST_TURN_MAX => pulse.beat(),
            Err(error) => return Err(no_report("does not turn", error)),
        }
    }
}

/// A starting thread said nothing.
fn no_report(what: &str, error: RecvTimeoutError) -> BuildError {
    BuildError::Other(match error {
        RecvTimeoutError::Timeout => format!("its executor {what} within {} s", FIRST_TURN_MAX.as_secs()),
        RecvTimeoutError::Disconnected => format!("its executor {what}: its thread has ended"),
    })
}

/// What a waiting thread goes on with.
struct Go<F> {
    make: F,
    /// Held until the shard has ended.
    alive: Sender<()>,
}

struct Signals<F> {
    built: Sender<Result<Pulse, RuntimeError>>,
    works: Sender<Result<(), BuildError>>,
    go: Receiver<Go<F>>,
    ended: Arc<Ended>,
}

fn shard_main<F, Fut>(config: &ShardsConfig, context: ShardContext, build: Build, signals: Signals<F>)
where
    F: FnOnce(ShardContext) -> Fut,
    Fut: Future<Output = ShardResult> + 'static,
{
    let shard = context.shard.index();
    let built = catch_unwind(AssertUnwindSafe(|| build(config, context)))
        .unwrap_or_else(|panic| Err(BuildError::Other(panic_text(panic))))
        .map_err(|error| error.on(context));
    let executor = match built {
        Ok(executor) => executor,
        Err(error) => {
            let _ = signals.built.send(Err(error)); // the receiver is gone when another shard failed first
            return;
        }
    };
    if signals.built.send(Ok(Pulse::of(&executor))).is_err() {
        return; // the start was given up
    }
    let works = executor.run(async {
        queues::create();
        readiness::create()?;
        queues::sleep(FIRST_TIMER).await;
        Ok(())
    });
    let works = works.map_err(|error: std::io::Error| BuildError::Other(format!("no epoll set: {error}")));
    let failed = works.is_err();
    if signals.works.send(works).is_err() || failed {
        return; // the start was given up
    }
    let Ok(Go { make, alive }) = signals.go.recv() else { return }; // another shard could not start
    let end = match catch_unwind(AssertUnwindSafe(|| executor.run(make(context)))) {
        Ok(result) => {
            executor.run(tasks::end_all());
            readiness::end();
            result.map_err(|error| RuntimeError::Shard { shard, reason: error.to_string() })
        }
        Err(panic) => Err(RuntimeError::Panic { shard, reason: panic_text(panic) }),
    };
    // What the executor itself holds closes with it, so the end is reported after it.
    drop(executor);
    drop(alive);
    signals.ended.report(end);
}

fn build_executor(config: &ShardsConfig, context: ShardContext) -> Result<LocalExecutor, BuildError> {
    let mut builder = LocalExecutorBuilder::new(Placement::Fixed(context.cpu))
        .name(&format!("shard-{}", context.shard))
        .io_memory(config.io_memory_bytes)
        .ring_depth(config.ring_depth)
        .preempt_timer(PREEMPT_TIMER);
    if let Some(spin) = config.spin_before_park {
        builder = builder.spin_before_park(spin);
    }
    builder.make().map_err(|error| match error.raw_os_error() {
        Some(number) if number == rustix::io::Errno::NOMEM.raw_os_error() => BuildError::NoMemory(error.to_string()),
        _ => BuildError::Other(error.to_string()),
    })
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no message".into(), |text| (*text).to_string()),
    }
}

/// The CPUs the calling thread may run on, in ascending order.
pub fn allowed_cpus() -> Result<Vec<usize>, RuntimeError> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|errno| RuntimeError::Affinity(errno.into()))?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// One CPU for each shard.
fn assign_cpus(config: &ShardsConfig, allowed: &[usize]) -> Result<Vec<usize>, RuntimeError> {
    if config.shards == 0 || config.shards > usize::from(u16::MAX) {
        return Err(RuntimeError::Config(format!("the number of shards must be 1 to 65535, not {}", config.shards)));
    }
    let mut usable = allowed.to_vec();
    if let Some(wanted) = &config.cpus {
        usable.retain(|cpu| wanted.contains(cpu));
    }
    if usable.is_empty() || (usable.len() < config.shards && !config.allow_sharing_cpus) {
        return Err(RuntimeError::TooFewCpus { shards: config.shards, available: usable });
    }
    Ok(usable.iter().copied().cycle().take(config.shards).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Queue, StopSignal, spawn};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn three_shards() -> ShardsConfig {
        ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(3) }
    }

    /// `taskset -c 1` with one shard ran on CPU 0, because the library asked for the online CPUs.
    #[test]
    fn cpus_come_from_the_affinity_mask_and_the_wish() {
        let config = |shards, cpus| ShardsConfig { cpus, ..ShardsConfig::new(shards) };
        assert_eq!(assign_cpus(&config(1, None), &[1]).unwrap(), [1]);
        assert_eq!(assign_cpus(&config(2, Some(vec![5, 2, 9])), &[1, 2, 3, 5]).unwrap(), [2, 5]);
        let error = assign_cpus(&config(3, None), &[0, 4]).unwrap_err();
        assert!(error.to_string().contains("3 shards need 3 CPUs, but this process may use only [0, 4]"), "{error}");
        assert!(assign_cpus(&config(1, Some(vec![7])), &[0, 1]).is_err());
        assert!(assign_cpus(&config(0, None), &[0, 1]).is_err());
    }

    #[test]
    fn shards_share_cpus_only_when_told_to() {
        assert_eq!(assign_cpus(&three_shards(), &[0, 1]).unwrap(), [0, 1, 0]);
        let none = ShardsConfig { cpus: Some(vec![8]), ..three_shards() };
        assert!(assign_cpus(&none, &[0, 1]).is_err());
    }

    /// Tests start several servers in one process, one after the other and side by side.
    #[test]
    fn shards_start_and_stop_many_times_in_one_process() {
        for shards in [1, 3, 3] {
            let config = ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(shards) };
            let stop = StopSignal::new();
            let seen = Arc::new(Mutex::new(Vec::new()));
            let (signal, log) = (stop.clone(), seen.clone());
            let handle = run_shards(&config, move |context| async move {
                assert_eq!(spawn(Queue::Serving, async { 7 }).await, Some(7));
                log.lock().unwrap().push((context.shard, context.shards));
                signal.stopped().await;
                Ok(())
            })
            .unwrap();
            stop.stop();
            handle.join().unwrap();
            seen.lock().unwrap().sort();
            let expected: Vec<_> = (0..shards).map(|shard| (ShardId(shard as u16), shards)).collect();
            assert_eq!(*seen.lock().unwrap(), expected);
        }
    }

    /// The first turn of an executor is lost when its thread is off the CPU for the preemption timer's time before the first task.
    /// Such an executor slept for ever: after two seconds another one was built in its place, in one start of 300.
    #[test]
    fn an_executor_that_lost_its_first_turn_is_woken_until_it_turns() {
        /// Turns only at the third beat: the two turns before are lost as well.
        struct Asleep {
            beats: AtomicUsize,
            works: Sender<Result<(), BuildError>>,
        }
        impl std::task::Wake for Asleep {
            fn wake(self: Arc<Self>) {
                if self.beats.fetch_add(1, Ordering::SeqCst) == 2 {
                    self.works.send(Ok(())).unwrap();
                }
            }
        }
        let (works, when_works) = channel();
        let asleep = Arc::new(Asleep { beats: AtomicUsize::new(0), works });
        let turned = first_turn(&Pulse::new(asleep.clone().into()), &when_works);
        assert!(turned.is_ok() && asleep.beats.load(Ordering::SeqCst) == 3);
    }

    /// With the library's pool a shard that failed to start was silently missing, or its peers waited for it for ever.
    #[test]
    fn one_shard_that_cannot_start_ends_the_start_before_any_future_runs() {
        static RUN: AtomicUsize = AtomicUsize::new(0);
        fn second_fails(config: &ShardsConfig, context: ShardContext) -> Result<LocalExecutor, BuildError> {
            if context.shard == ShardId(1) {
                Err(BuildError::Other("no ring".into()))
            } else {
                build_executor(config, context)
            }
        }
        let result = start(&three_shards(), second_fails, |_| async {
            RUN.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let error = result.err().expect("the start fails").to_string();
        assert!(error.contains("shard 1 could not start on CPU") && error.contains("no ring"), "{error}");
        assert_eq!(RUN.load(Ordering::SeqCst), 0);
    }

    /// Locked memory is counted by user: another process may hold what the plan for this one reckoned with.
    #[test]
    fn shards_start_with_less_memory_when_it_is_taken_and_say_what_to_do_when_there_is_none() {
        fn little_is_left(config: &ShardsConfig, context: ShardContext) -> Result<LocalExecutor, BuildError> {
            if config.ring_depth > RING_DEPTH_MIN {
                return Err(BuildError::NoMemory("ENOMEM".into()));
            }
            build_executor(config, context)
        }
        fn none_is_left(_: &ShardsConfig, _: ShardContext) -> Result<LocalExecutor, BuildError> {
            Err(BuildError::NoMemory("ENOMEM".into()))
        }
        let config = ShardsConfig { ring_depth: 1024, ..ShardsConfig::new(1) };
        start_with_memory_left(&config, little_is_left, |_| async { Ok(()) }).unwrap().join().unwrap();
        let result = start_with_memory_left(&config, none_is_left, |_| async { Ok(()) });
        let error = result.err().expect("no executor can be built").to_string();
        assert!(error.contains("ENOMEM") && error.contains("LimitMEMLOCK") && !error.contains("  "), "{error}");
    }

    #[test]
    fn a_kernel_refusal_is_reported_with_its_reason() {
        let config = ShardsConfig { ring_depth: 1 << 30, ..ShardsConfig::new(1) };
        let error = run_shards(&config, |_| async { Ok(()) }).err().expect("no ring is that deep").to_string();
        assert!(error.contains("shard 0 could not start") && error.contains("os error 22"), "{error}");
        assert!(run_shards(&ShardsConfig { ring_depth: 0, ..config }, |_| async { Ok(()) }).is_err());
    }

    #[test]
    fn the_first_failing_shard_ends_the_join_with_its_text() {
        let result = run_shards(&three_shards(), |context| async move {
            if context.shard == ShardId(2) { Err("disk is gone".into()) } else { Ok(()) }
        })
        .unwrap()
        .join();
        assert_eq!(result.unwrap_err().to_string(), "shard 2 failed: disk is gone");
    }

    /// A panicking task kills its executor; without a report the rest of the server would go on with a shard less.
    #[test]
    fn a_panic_in_a_spawned_task_is_reported() {
        let handle = run_shards(&ShardsConfig::new(1), |_| async {
            spawn(Queue::Background, async { panic!("invariant broken") }).await;
            Ok(())
        })
        .unwrap();
        let error = handle.join().unwrap_err().to_string();
        assert!(error.starts_with("shard 0 panicked"), "{error}");
    }
}
