//! Wake-up flags: [`LocalNotify`] within one shard, [`StopSignal`] from any thread to all shards.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A flag with one waiting task, for the sender and flush tasks of a shard.
///
/// `notify` raises the flag; `notified` waits until it is up and lowers it. Notifications before the wait are not lost, several
/// of them count as one. Invariant: at most one task waits at a time; a second waiter takes the place of the first.
#[derive(Default)]
pub struct LocalNotify {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl LocalNotify {
    /// A lowered flag.
    pub fn new() -> LocalNotify {
        LocalNotify::default()
    }

    /// Raises the flag and wakes the waiting task, if any.
    pub fn notify(&self) {
        self.raised.set(true);
        // Taken out first: a waker may run code that comes back here.
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waker) = waiter {
            waker.wake();
        }
    }

    /// Waits until the flag is up, then lowers it. Dropping the future loses no notification.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.waiter.borrow_mut();
            if !waiter.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waiter = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// "Stop now", raised once by any thread and seen by any number of tasks on all shards.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    shared: Arc<StopShared>,
}

#[derive(Debug, Default)]
struct StopShared {
    raised: AtomicBool,
    next_waiter: AtomicU64,
    waiters: Mutex<Vec<(u64, Waker)>>,
}

impl StopShared {
    /// A panic elsewhere cannot leave the list half-changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StopSignal {
    /// A signal not yet raised.
    pub fn new() -> StopSignal {
        StopSignal::default()
    }

    /// Raises the signal and wakes everybody who waits for it. May be called from any thread, and again.
    pub fn stop(&self) {
        // Under the lock, so that a task that is just about to wait either sees the flag or is in the list.
        let mut waiters = self.shared.lock();
        self.shared.raised.store(true, Ordering::Release);
        for (_, waker) in waiters.drain(..) {
            waker.wake();
        }
    }

    /// True once `stop` was called.
    pub fn is_stopped(&self) -> bool {
        self.shared.raised.load(Ordering::Acquire)
    }

    /// Resolves once `stop` was called.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let number = self.shared.next_waiter.fetch_add(1, Ordering::Relaxed);
        Stopped { shared: self.shared.clone(), number }
    }
}

struct Stopped {
    shared: Arc<StopShared>,
    number: u64,
}

impl Future for Stopped {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.raised.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut waiters = self.shared.lock();
        if self.shared.raised.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        match waiters.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, known)) => known.clone_from(cx.waker()),
            None => waiters.push((self.number, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Stopped {
    /// A waker must not outlive the executor it belongs to, so it leaves the list with its future.
    fn drop(&mut self) {
        self.shared.lock().retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    /// A sender task that checks its queue, finds it empty and then waits would sleep for ever if a notification between the
    /// two were lost.
    #[test]
    fn a_notification_before_the_wait_is_kept_and_used_once() {
        block_on(async {
            let notify = LocalNotify::new();
            notify.notify();
            notify.notify();
            assert!(poll_once(notify.notified()).await.is_some());
            assert!(poll_once(notify.notified()).await.is_none(), "two notifications are one wake-up");
        });
    }

    #[test]
    fn stop_wakes_waiters_of_other_threads_and_later_ones() {
        let signal = StopSignal::new();
        let waiting = signal.clone();
        let thread = std::thread::spawn(move || block_on(waiting.stopped()));
        signal.stop();
        thread.join().expect("the waiter ends");
        block_on(signal.stopped());
        assert!(signal.is_stopped());
    }

    /// Wakers of an executor that has ended must not be touched by a later `stop`.
    #[test]
    fn a_dropped_wait_leaves_no_waker_behind() {
        let signal = StopSignal::new();
        block_on(async { assert!(poll_once(signal.stopped()).await.is_none()) });
        assert!(signal.shared.lock().is_empty());
    }
}
