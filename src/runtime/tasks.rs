//! The tasks alive on a shard, so that none outlives it.
//!
//! The executor library does not drop the futures of tasks that still wait when their executor ends: sockets would stay open and
//! locks held for the rest of the process. And it abandons disk operations in flight, whose memory the kernel may still be
//! writing to. So each task is registered here while it lives; at the end of a shard the waiting ones are woken to be dropped,
//! and operations that must not be abandoned are waited for.

use super::queues::sleep;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Pause between two looks at what is still alive.
const END_PAUSE: Duration = Duration::from_millis(1);
/// A disk that does not answer must not keep a stopping server for ever.
const END_PAUSES_MAX: usize = 10_000;

thread_local! {
    // A shard is a thread, so these are the tasks of this shard.
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks { wakers: Vec::new(), free: Vec::new() }) };
    static ENDING: Cell<bool> = const { Cell::new(false) };
    static UNFINISHED: Cell<usize> = const { Cell::new(0) };
    static POLLS: Arc<AtomicU64> = Arc::default();
}

/// How often tasks of this shard were polled; other threads may read it.
pub(super) fn polls() -> Arc<AtomicU64> {
    POLLS.with(Arc::clone)
}

/// Only this thread writes, so a load and a store do.
fn count_poll() {
    POLLS.with(|polls| polls.store(polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed));
}

struct Tasks {
    /// By slot; `None` is a free slot.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A task's place in the table.
struct Registration {
    slot: Option<usize>,
}

impl Registration {
    /// True when the shard ends. Registers at the first call; a task's waker is the same all its life.
    fn must_end(&mut self, cx: &Context<'_>) -> bool {
        if self.slot.is_none() {
            self.slot = Some(TASKS.with_borrow_mut(|tasks| {
                let slot = tasks.free.pop().unwrap_or_else(|| {
                    tasks.wakers.push(None);
                    tasks.wakers.len() - 1
                });
                tasks.wakers[slot] = Some(cx.waker().clone());
                slot
            }));
        }
        ENDING.get()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let waker = TASKS.with_borrow_mut(|tasks| {
                tasks.free.push(slot);
                tasks.wakers[slot].take()
            });
            drop(waker); // outside the borrow: it may be the last reference to its task
        }
    }
}

/// `future`, but dropped with `None` when the shard ends.
pub(super) async fn until_the_end<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut registration = Registration { slot: None };
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        count_poll();
        if registration.must_end(cx) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Starts an operation that runs to its end even if nobody waits for it any more, and that the end of the shard waits for.
pub(crate) fn start_to_finish<F: Future + 'static>(operation: F) -> impl Future<Output = F::Output> + use<F> {
    struct Unfinished;
    impl Drop for Unfinished {
        fn drop(&mut self) {
            UNFINISHED.set(UNFINISHED.get() - 1);
        }
    }
    UNFINISHED.set(UNFINISHED.get() + 1);
    let unfinished = Unfinished;
    let task = glommio::spawn_local(async move {
        let result = operation.await;
        drop(unfinished);
        result
    });
    let handle = task.detach();
    async move { handle.await.expect("an operation in this list is never cancelled") }
}

/// Ends all tasks of this shard and waits for its unfinished operations.
pub(super) async fn end_all() {
    ENDING.set(true);
    for _ in 0..END_PAUSES_MAX {
        let wakers: Vec<Waker> = TASKS.with_borrow(|tasks| tasks.wakers.iter().flatten().cloned().collect());
        if wakers.is_empty() && UNFINISHED.get() == 0 {
            return;
        }
        wakers.into_iter().for_each(Waker::wake);
        sleep(END_PAUSE).await;
    }
    tracing::error!("{} disk operations did not finish before the end of their shard", UNFINISHED.get());
}
