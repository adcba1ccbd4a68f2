//! What the shards of a process tell the one who waits for them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// How many shards serve. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    state: Arc<Mutex<(usize, Option<Waker>)>>,
}

impl Serving {
    pub(super) fn one_more(&self) {
        let waker = {
            let mut state = lock(&self.state);
            state.0 += 1;
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits until `shards` of them do.
    pub(super) async fn all(&self, shards: usize) {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.0 >= shards {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The first error of any shard: those after it follow from it. Clones share it.
#[derive(Debug)]
pub(super) struct FirstError<E>(Arc<Mutex<Option<E>>>);

impl<E> Clone for FirstError<E> {
    fn clone(&self) -> Self {
        FirstError(self.0.clone())
    }
}

impl<E> FirstError<E> {
    pub(super) fn new() -> FirstError<E> {
        FirstError(Arc::new(Mutex::new(None)))
    }

    pub(super) fn record(&self, error: E) {
        lock(&self.0).get_or_insert(error);
    }

    pub(super) fn take(&self) -> Option<E> {
        lock(&self.0).take()
    }
}

/// Every change is a single step, so the state is good even after a panic elsewhere.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
