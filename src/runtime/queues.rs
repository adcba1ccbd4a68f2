//! Task queues of a shard, and the small verbs every task needs: spawn, sleep, time out, yield.
//!
//! Shares matter only when several queues want the CPU at once. All queues are `Latency::NotImportant`: with
//! `Latency::Matters` an executor falls asleep with work to do (see `runtime::heartbeat`) far more often.

use super::tasks::until_the_end;
use super::world;
use glommio::{Latency, Shares, TaskQueueHandle, executor};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Shares of [`Queue::Serving`].
const SERVING_SHARES: usize = 800;
/// Shares of [`Queue::LogWrite`].
const LOG_WRITE_SHARES: usize = 600;
/// Shares of [`Queue::Background`].
const BACKGROUND_SHARES: usize = 100;

/// What a task is for; decides its share of the CPU under contention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Client requests, replies, mesh messages, consensus.
    Serving,
    /// Writing and syncing the transaction log.
    LogWrite,
    /// Snapshots, purging, metrics.
    Background,
}

#[derive(Clone, Copy)]
struct ShardQueues {
    serving: TaskQueueHandle,
    log_write: TaskQueueHandle,
    background: TaskQueueHandle,
}

thread_local! {
    // A shard is a thread, so the queues of this thread are the queues of this shard.
    static QUEUES: Cell<Option<ShardQueues>> = const { Cell::new(None) };
}

/// Creates the queues of the executor that runs on this thread. Called once, before any task is spawned.
pub(super) fn create() {
    let queue = |shares, name: &str| executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name);
    QUEUES.set(Some(ShardQueues {
        serving: queue(SERVING_SHARES, "serving"),
        log_write: queue(LOG_WRITE_SHARES, "log_write"),
        background: queue(BACKGROUND_SHARES, "background"),
    }));
}

/// Starts a task on this shard. It runs until it ends, whether or not the handle is kept, or until the shard's own future
/// ends: then it is dropped at its await.
///
/// Panics outside a shard.
pub fn spawn<T: 'static>(queue: Queue, future: impl Future<Output = T> + 'static) -> TaskHandle<T> {
    if world::is_active() {
        return TaskHandle(Handle::Simulated(world::spawn(future)));
    }
    let queues = QUEUES.get().expect("tasks are spawned on a shard started by run_shards");
    let handle = match queue {
        Queue::Serving => queues.serving,
        Queue::LogWrite => queues.log_write,
        Queue::Background => queues.background,
    };
    let task = glommio::spawn_local_into(until_the_end(future), handle);
    TaskHandle(Handle::Real(task.expect("the queues of a shard live as long as the shard").detach()))
}

/// A running task. Awaiting it gives its result, or `None` when it was cancelled. Dropping it lets the task run on.
pub struct TaskHandle<T>(Handle<T>);

enum Handle<T> {
    Real(glommio::task::JoinHandle<Option<T>>),
    Simulated(Rc<world::Join<T>>),
}

impl<T> TaskHandle<T> {
    /// Stops the task at its next await. Do not cancel a task with a log write in flight: its outcome would be unknown.
    pub fn cancel(&self) {
        match &self.0 {
            Handle::Real(handle) => handle.cancel(),
            Handle::Simulated(join) => join.cancel(),
        }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut self.0 {
            Handle::Real(handle) => Pin::new(handle).poll(cx).map(Option::flatten),
            Handle::Simulated(join) => join.poll(cx),
        }
    }
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    if world::is_active() {
        return world::Sleep::new(duration).await;
    }
    glommio::timer::sleep(duration).await;
}

/// The time of [`timeout`] was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for TimedOut {}

/// Runs `future` for at most `duration`, then drops it.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, TimedOut> {
    let mut future = std::pin::pin!(future);
    let mut timer = std::pin::pin!(sleep(duration));
    std::future::poll_fn(|cx| {
        // The future first: a result that is there is never thrown away.
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(TimedOut))
    })
    .await
}

/// Lets other tasks run if this one has used up its turn (1 ms). For loops over many items.
pub async fn yield_if_needed() {
    if world::is_active() {
        return world::yield_at_times().await;
    }
    glommio::yield_if_needed().await;
}

/// True when this task should yield soon. For loops that hold a borrow: ask, drop the borrow, then [`yield_if_needed`].
pub fn need_preempt() -> bool {
    if world::is_active() { world::need_preempt() } else { executor().need_preempt() }
}
