//! Waiting in virtual time.

use super::{Timer, TimerKey, current, is_active, need_preempt};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Resolves at a virtual time.
pub(in crate::runtime) struct Sleep {
    until_us: u64,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(in crate::runtime) fn new(duration: Duration) -> Sleep {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Sleep { until_us: current().now_us().saturating_add(us), timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = current();
        if world.now_us() >= self.until_us {
            return Poll::Ready(());
        }
        // The waker of a task stays the same, but a future may be moved to another task between two polls.
        if let Some(key) = self.timer.take() {
            world.inner.timers.borrow_mut().due.remove(&key);
        }
        self.timer = Some(world.at(self.until_us, Timer::Wake(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer.take()
            && is_active()
        {
            let timer = current().inner.timers.borrow_mut().due.remove(&key);
            drop(timer);
        }
    }
}

/// Lets the other tasks of the executor run first, at times.
pub(in crate::runtime) async fn yield_at_times() {
    if need_preempt() {
        futures_lite::future::yield_now().await;
    }
}
