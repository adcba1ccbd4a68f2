//! A channel of batches between two executors: what the executor library's shared channel is to real ones.
//!
//! A batch arrives some time after it was sent, and no batch overtakes another.

use super::{Sleep, current};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Longest time that a batch is under way.
const DELAY_US_MAX: u64 = 5_000;

/// Why a batch was not taken.
pub(in crate::runtime) enum SendError<T> {
    /// There is no room; the batch comes back.
    Full(T),
    /// The other half is gone.
    Gone,
}

struct Shared<T> {
    /// With the time of arrival.
    queue: VecDeque<(u64, T)>,
    last_us: u64,
    batches_max: usize,
    receiver: Option<Waker>,
    closed: bool,
    received_by_nobody: bool,
}

type Link<T> = Arc<Mutex<Shared<T>>>;

fn lock<T>(link: &Link<T>) -> MutexGuard<'_, Shared<T>> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending half.
pub(in crate::runtime) struct Sender<T>(Link<T>);

/// The receiving half.
pub(in crate::runtime) struct Receiver<T>(Link<T>);

/// A channel for `batches_max` batches.
pub(in crate::runtime) fn channel<T>(batches_max: usize) -> (Sender<T>, Receiver<T>) {
    let link = Arc::new(Mutex::new(Shared {
        queue: VecDeque::new(),
        last_us: 0,
        batches_max,
        receiver: None,
        closed: false,
        received_by_nobody: false,
    }));
    (Sender(link.clone()), Receiver(link))
}

impl<T> Sender<T> {
    /// Sends, if there is room.
    pub(in crate::runtime) fn try_send(&self, batch: T) -> Result<(), SendError<T>> {
        let world = current();
        let delay_us = world.delay_us(0, world.network().mesh_delay_us_max().min(DELAY_US_MAX));
        let waker = {
            let mut shared = lock(&self.0);
            if shared.received_by_nobody || shared.closed {
                return Err(SendError::Gone);
            }
            if shared.queue.len() >= shared.batches_max {
                return Err(SendError::Full(batch));
            }
            let at_us = (world.now_us() + delay_us).max(shared.last_us);
            shared.last_us = at_us;
            shared.queue.push_back((at_us, batch));
            shared.receiver.take()
        };
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// The receiver gets what was sent, then `None`.
    pub(in crate::runtime) fn close(&self) {
        let waker = {
            let mut shared = lock(&self.0);
            shared.closed = true;
            shared.receiver.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Receiver<T> {
    /// The next batch; `None` when the sender has closed and everything was received.
    pub(in crate::runtime) async fn recv(&self) -> Option<T> {
        loop {
            let arrives_us = poll_fn(|cx| {
                let mut shared = lock(&self.0);
                match shared.queue.front() {
                    Some((at_us, _)) => Poll::Ready(Some(*at_us)),
                    None if shared.closed => Poll::Ready(None),
                    None => {
                        shared.receiver = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            })
            .await?;
            let now_us = current().now_us();
            if arrives_us <= now_us {
                return lock(&self.0).queue.pop_front().map(|(_, batch)| batch);
            }
            let mut sleep = pin!(Sleep::new(Duration::from_micros(arrives_us - now_us)));
            poll_fn(|cx| sleep.as_mut().poll(cx)).await;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut shared = lock(&self.0);
            shared.received_by_nobody = true;
            std::mem::take(&mut shared.queue)
        };
        drop(left);
    }
}
