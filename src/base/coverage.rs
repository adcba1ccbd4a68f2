//! Coverage marks: the rare paths that a simulation must have taken to count as a proof.
//!
//! A mark costs one thread-local load when nobody records, which is always so in a server.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static MARKS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes that the path called `name` was taken.
#[inline]
pub fn mark(name: &'static str) {
    if RECORDING.get() {
        MARKS.with_borrow_mut(|marks| *marks.entry(name).or_default() += 1);
    }
}

/// Starts counting marks on this thread, from zero.
pub fn start() {
    RECORDING.set(true);
    MARKS.with_borrow_mut(BTreeMap::clear);
}

/// Stops counting and returns how often each mark was passed.
pub fn finish() -> BTreeMap<&'static str, u64> {
    RECORDING.set(false);
    MARKS.take()
}
