//! Processes and executors of a world: who runs which task, and for how long.

use super::network::HostId;
use super::tasks::{TaskFuture, TaskId};
use super::{POLLS_MAX, World, current};
use crate::base::ShardId;
use crate::runtime::shards::{RuntimeError, ShardContext, ShardResult};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A process of a world; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(usize);

/// An executor of a world; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecutorId(usize);

struct Process {
    host: HostId,
    alive: bool,
}

struct Executor {
    process: ProcessId,
    alive: bool,
    /// Busy until then.
    free_at_us: u64,
    ready: Vec<TaskId>,
    tasks: BTreeSet<TaskId>,
    /// Operations that run to their end, and that the end of the executor waits for.
    unfinished: usize,
}

/// All processes and executors there ever were.
#[derive(Default)]
pub(super) struct Executors {
    processes: Vec<Process>,
    executors: Vec<Executor>,
    /// Those alive, in order.
    alive: Vec<ExecutorId>,
    running: Option<ExecutorId>,
}

impl Executors {
    /// When the first executor that has something to do can do it.
    pub(super) fn next_free_us(&self) -> Option<u64> {
        let busy = self.alive.iter().map(|id| &self.executors[id.0]).filter(|executor| !executor.ready.is_empty());
        busy.map(|executor| executor.free_at_us).min()
    }
}

impl World {
    /// A new process on `host`; its name goes into the trace. It has no executors yet.
    pub fn start_process(&self, host: HostId, name: &str) -> ProcessId {
        let mut executors = self.inner.executors.borrow_mut();
        self.trace(name.as_bytes());
        executors.processes.push(Process { host, alive: true });
        ProcessId(executors.processes.len() - 1)
    }

    /// Starts the main executor of a process: `main` is to a process what the main thread is.
    pub fn start_main(&self, process: ProcessId, main: impl Future<Output = ()> + 'static) {
        let executor = self.add_executor(process);
        self.spawn_on(executor, main);
    }

    pub(super) fn add_executor(&self, process: ProcessId) -> ExecutorId {
        let mut executors = self.inner.executors.borrow_mut();
        let id = ExecutorId(executors.executors.len());
        executors.executors.push(Executor {
            process,
            alive: true,
            free_at_us: self.now_us(),
            ready: Vec::new(),
            tasks: BTreeSet::new(),
            unfinished: 0,
        });
        executors.alive.push(id);
        id
    }

    /// True until the process was killed.
    pub fn is_alive(&self, process: ProcessId) -> bool {
        self.inner.executors.borrow().processes[process.0].alive
    }

    /// Ends a process as `kill -9` does: nothing of it runs any more, and the kernel closes its sockets. What the kernel was doing for
    /// it, it finishes.
    pub fn kill(&self, process: ProcessId) {
        let executors: Vec<ExecutorId> = {
            let mut executors = self.inner.executors.borrow_mut();
            executors.processes[process.0].alive = false;
            let of_process = |id: &&ExecutorId| executors.executors[id.0].process == process;
            executors.alive.iter().filter(of_process).copied().collect()
        };
        self.trace(executors.len().to_le_bytes().as_slice());
        for executor in executors {
            self.end_executor(executor);
        }
    }

    /// A machine loses power: its connections vanish without a word, and its processes end. What becomes of its disk is the
    /// business of [`crate::storage::SimulatedDisk`].
    pub fn power_off(&self, host: HostId) {
        self.inner.network.host_down(host);
        let processes: Vec<ProcessId> = {
            let executors = self.inner.executors.borrow();
            let of_host = |(_, process): &(usize, &Process)| process.host == host && process.alive;
            executors.processes.iter().enumerate().filter(of_host).map(|(id, _)| ProcessId(id)).collect()
        };
        processes.into_iter().for_each(|process| self.kill(process));
    }

    pub(super) fn kill_all(&self) {
        let count = self.inner.executors.borrow().processes.len();
        (0..count).map(ProcessId).filter(|process| self.is_alive(*process)).for_each(|process| self.kill(process));
    }

    /// The executor does not turn for `for_us`.
    pub fn stall(&self, executor: ExecutorId, for_us: u64) {
        let until_us = self.now_us() + for_us;
        let free_at_us = &mut self.inner.executors.borrow_mut().executors[executor.0].free_at_us;
        *free_at_us = until_us.max(*free_at_us);
    }

    /// The executors of a process that are alive, the main one first.
    pub fn executors_of(&self, process: ProcessId) -> Vec<ExecutorId> {
        let executors = self.inner.executors.borrow();
        executors.alive.iter().filter(|id| executors.executors[id.0].process == process).copied().collect()
    }

    pub(super) fn host_of(&self, executor: ExecutorId) -> HostId {
        let executors = self.inner.executors.borrow();
        executors.processes[executors.executors[executor.0].process.0].host
    }

    /// The executor whose task is being polled.
    pub(super) fn running(&self) -> Option<ExecutorId> {
        self.inner.executors.borrow().running
    }

    /// The process whose task is being polled.
    pub(crate) fn running_process(&self) -> Option<ProcessId> {
        let executors = self.inner.executors.borrow();
        executors.running.map(|id| executors.executors[id.0].process)
    }

    /// Ends an executor: all its tasks are dropped.
    fn end_executor(&self, id: ExecutorId) {
        let tasks = {
            let mut executors = self.inner.executors.borrow_mut();
            executors.alive.retain(|alive| *alive != id);
            let executor = &mut executors.executors[id.0];
            executor.alive = false;
            executor.ready = Vec::new();
            std::mem::take(&mut executor.tasks)
        };
        self.drop_tasks(id, tasks);
    }

    fn drop_tasks(&self, executor: ExecutorId, tasks: BTreeSet<TaskId>) {
        let before = self.inner.executors.borrow_mut().running.replace(executor);
        for task in tasks {
            let future = self.inner.tasks.borrow_mut().remove(task);
            drop(future);
        }
        self.inner.executors.borrow_mut().running = before;
    }

    /// Spawns on an executor. On one that has ended the future is dropped, and never done.
    pub(super) fn spawn_on<T: 'static>(
        &self,
        id: ExecutorId,
        future: impl Future<Output = T> + 'static,
    ) -> Rc<Join<T>> {
        let join = Rc::new(Join { state: RefCell::new(JoinState::Running(None)), task: RefCell::new(None) });
        let done = join.clone();
        self.insert(id, &join, Box::pin(async move { done.finish(future.await) }));
        join
    }

    fn insert<T>(&self, id: ExecutorId, join: &Join<T>, future: TaskFuture) {
        let alive = self.inner.executors.borrow().executors[id.0].alive;
        if !alive {
            drop(future);
            return join.cancelled();
        }
        let task = self.inner.tasks.borrow_mut().insert(id, future);
        *join.task.borrow_mut() = Some((id, task));
        self.inner.executors.borrow_mut().executors[id.0].tasks.insert(task);
    }

    fn cancel(&self, id: ExecutorId, task: TaskId) {
        self.inner.executors.borrow_mut().executors[id.0].tasks.remove(&task);
        self.drop_tasks(id, BTreeSet::from([task]));
    }

    /// Polls one task, if any executor is free and has one.
    pub(super) fn poll_one(&self) -> bool {
        let Some((id, task)) = self.choose_task() else { return false };
        let Some((mut future, waker)) = self.inner.tasks.borrow_mut().begin_poll(task) else { return true };
        self.inner.polls.set(self.inner.polls.get() + 1);
        assert!(self.inner.polls.get() < POLLS_MAX, "seed {}: the world does not come to rest", self.inner.seed);
        self.inner.executors.borrow_mut().running = Some(id);
        let waker = Waker::from(waker);
        let outcome = future.as_mut().poll(&mut Context::from_waker(&waker));
        self.inner.executors.borrow_mut().running = None;
        match outcome {
            Poll::Ready(()) => {
                drop(future);
                let removed = self.inner.tasks.borrow_mut().remove(task);
                drop(removed);
                self.inner.executors.borrow_mut().executors[id.0].tasks.remove(&task);
            }
            Poll::Pending => {
                let cancelled = self.inner.tasks.borrow_mut().end_poll(task, future);
                drop(cancelled);
            }
        }
        true
    }

    /// Draws an executor that can run, and one of its tasks; and how long the executor is busy with it.
    fn choose_task(&self) -> Option<(ExecutorId, TaskId)> {
        let mut woken = Vec::new();
        self.inner.tasks.borrow().woken(&mut woken);
        let mut executors = self.inner.executors.borrow_mut();
        for task in woken {
            if let Some(id) = self.inner.tasks.borrow_mut().executor_of(task) {
                executors.executors[id.0].ready.push(task);
            }
        }
        let now_us = self.now_us();
        let runnable = |id: &&ExecutorId| {
            let executor = &executors.executors[id.0];
            executor.free_at_us <= now_us && !executor.ready.is_empty()
        };
        let candidates = executors.alive.iter().filter(runnable).count();
        if candidates == 0 {
            return None;
        }
        let mut schedule = self.inner.schedule.borrow_mut();
        let drawn = if candidates == 1 { 0 } else { schedule.below(candidates as u64) as usize };
        let id = *executors.alive.iter().filter(runnable).nth(drawn)?;
        let executor = &mut executors.executors[id.0];
        let place = if executor.ready.len() == 1 { 0 } else { schedule.below(executor.ready.len() as u64) as usize };
        let task = executor.ready.remove(place);
        executor.free_at_us = now_us + schedule.between(1, 4);
        self.trace(&(now_us << 12 | (id.0 as u64) & 0xfff).to_le_bytes());
        Some((id, task))
    }
}

/// The result of a task.
pub(in crate::runtime) struct Join<T> {
    state: RefCell<JoinState<T>>,
    task: RefCell<Option<(ExecutorId, TaskId)>>,
}

enum JoinState<T> {
    Running(Option<Waker>),
    Done(T),
    /// Cancelled, or taken.
    Gone,
}

impl<T> Join<T> {
    fn finish(&self, value: T) {
        if let JoinState::Running(Some(waker)) = self.state.replace(JoinState::Done(value)) {
            waker.wake();
        }
    }

    fn cancelled(&self) {
        if let JoinState::Running(Some(waker)) = self.state.replace(JoinState::Gone) {
            waker.wake();
        }
    }

    /// Stops the task at its await.
    pub(in crate::runtime) fn cancel(&self) {
        if !matches!(*self.state.borrow(), JoinState::Running(_)) {
            return;
        }
        if let Some((executor, task)) = self.task.take() {
            current().cancel(executor, task);
        }
        self.cancelled();
    }

    /// `Some(None)` when it was cancelled, `None` while it runs.
    pub(super) fn take(&self) -> Option<Option<T>> {
        let mut state = self.state.borrow_mut();
        match &*state {
            JoinState::Running(_) => None,
            _ => match std::mem::replace(&mut *state, JoinState::Gone) {
                JoinState::Done(value) => Some(Some(value)),
                _ => Some(None),
            },
        }
    }

    pub(in crate::runtime) fn poll(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.take() {
            return Poll::Ready(value);
        }
        *self.state.borrow_mut() = JoinState::Running(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Spawns on the executor that runs.
pub(in crate::runtime) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Rc<Join<T>> {
    let world = current();
    let executor = world.running().expect("tasks are spawned on an executor");
    world.spawn_on(executor, future)
}

/// Starts an operation of the kernel for the executor that runs: neither the end of whoever waits for it ends it, nor that of its
/// process. The end of the executor waits for it.
pub(crate) fn start_in_kernel<T: 'static>(operation: impl Future<Output = T> + 'static) -> impl Future<Output = T> {
    let world = current();
    let user = world.running();
    let kernel = world.kernel();
    let count = |change: fn(usize) -> usize| {
        move |world: &World| {
            if let Some(user) = user {
                let unfinished = &mut world.inner.executors.borrow_mut().executors[user.0].unfinished;
                *unfinished = change(*unfinished);
            }
        }
    };
    count(|unfinished| unfinished + 1)(&world);
    let finished = count(|unfinished| unfinished - 1);
    let join = world.spawn_on(kernel, async move {
        let value = operation.await;
        finished(&current());
        value
    });
    poll_fn(move |cx| match join.poll(cx) {
        Poll::Ready(Some(value)) => Poll::Ready(value),
        // The kernel goes only with the world.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
}

impl World {
    /// The world's own executor, the first of all: nothing kills it.
    pub(super) fn kernel(&self) -> ExecutorId {
        ExecutorId(0)
    }

    /// Drops every task of the executor that runs but the one that calls this, and waits for what the kernel does for it.
    async fn end_tasks(&self, executor: ExecutorId, caller: TaskId) {
        let tasks = {
            let mut executors = self.inner.executors.borrow_mut();
            let tasks = &mut executors.executors[executor.0].tasks;
            std::mem::replace(tasks, BTreeSet::from([caller]))
        };
        self.drop_tasks(executor, tasks.into_iter().filter(|task| *task != caller).collect());
        while self.inner.executors.borrow().executors[executor.0].unfinished > 0 {
            super::pause_us(100).await;
        }
    }
}

/// Starts an executor for each shard in the process that runs. `ended` is told how each ends.
pub(in crate::runtime) fn on_executors<F, Fut>(
    shards: usize,
    make: F,
    ended: impl Fn(Result<(), RuntimeError>) + Clone + 'static,
) where
    F: FnOnce(ShardContext) -> Fut + Clone + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    let world = current();
    let process = world.running_process().expect("shards are started by a process");
    for index in 0..shards {
        let executor = world.add_executor(process);
        let context = ShardContext { shard: ShardId(index as u16), shards, cpu: index };
        let (make, ended, world_of_shard) = (make.clone(), ended.clone(), world.clone());
        let join = Rc::new(Join { state: RefCell::new(JoinState::Running(None)), task: RefCell::new(None) });
        let this = join.clone();
        let main = async move {
            let result = make(context).await;
            let caller = this.task.borrow().map(|(_, task)| task);
            if let Some(caller) = caller {
                world_of_shard.end_tasks(executor, caller).await;
            }
            ended(result.map_err(|error| RuntimeError::Shard { shard: index, reason: error.to_string() }));
            this.finish(());
        };
        world.insert(executor, &join, Box::pin(main));
    }
}
