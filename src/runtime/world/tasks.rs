//! The tasks of a world, and their wakers.

use super::executor::ExecutorId;
use slab::Slab;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

/// A slot, and which use of it: a waker of a task that has ended wakes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId {
    slot: usize,
    usage: u64,
}

pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    usage: u64,
    executor: ExecutorId,
    /// `None` while it is polled.
    future: Option<TaskFuture>,
    waker: Arc<TaskWaker>,
}

/// Notes that a task is to be polled.
pub(super) struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

/// Tasks that were woken and not yet put into the queue of their executor. One thread uses it; wakers must be `Sync` all the same.
#[derive(Default)]
pub(super) struct Woken(Mutex<Vec<TaskId>>);

impl Woken {
    fn push(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn drain_to(&self, into: &mut Vec<TaskId>) {
        into.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.push(self.task);
        }
    }
}

/// All tasks.
#[derive(Default)]
pub(super) struct Tasks {
    slots: Slab<Task>,
    next_usage: u64,
    woken: Arc<Woken>,
}

impl Tasks {
    /// A new task, which is to be polled.
    pub(super) fn insert(&mut self, executor: ExecutorId, future: TaskFuture) -> TaskId {
        self.next_usage += 1;
        let entry = self.slots.vacant_entry();
        let task = TaskId { slot: entry.key(), usage: self.next_usage };
        let waker = Arc::new(TaskWaker { task, queued: AtomicBool::new(false), woken: self.woken.clone() });
        entry.insert(Task { usage: task.usage, executor, future: Some(future), waker: waker.clone() });
        waker.wake();
        task
    }

    fn get(&mut self, task: TaskId) -> Option<&mut Task> {
        self.slots.get_mut(task.slot).filter(|found| found.usage == task.usage)
    }

    /// Moves tasks that were woken to `into`.
    pub(super) fn woken(&self, into: &mut Vec<TaskId>) {
        self.woken.drain_to(into);
    }

    /// The executor of a task that has not ended.
    pub(super) fn executor_of(&mut self, task: TaskId) -> Option<ExecutorId> {
        self.get(task).map(|task| task.executor)
    }

    /// Takes the future out, to be polled.
    pub(super) fn begin_poll(&mut self, task: TaskId) -> Option<(TaskFuture, Arc<TaskWaker>)> {
        let task = self.get(task)?;
        task.waker.queued.store(false, Ordering::Relaxed);
        Some((task.future.take()?, task.waker.clone()))
    }

    /// Puts the future back. Gives it back to be dropped when the task was cancelled meanwhile.
    #[must_use]
    pub(super) fn end_poll(&mut self, task: TaskId, future: TaskFuture) -> Option<TaskFuture> {
        match self.get(task) {
            Some(task) => {
                task.future = Some(future);
                None
            }
            None => Some(future),
        }
    }

    /// Forgets a task. Its future, if it is not being polled, is the caller's to drop.
    #[must_use]
    pub(super) fn remove(&mut self, task: TaskId) -> Option<TaskFuture> {
        self.get(task)?;
        self.slots.remove(task.slot).future
    }
}
