//! Bugs planted on purpose: each breaks one rule of order or durability, and the simulator must find it.
//!
//! Without the cargo feature `planted-bugs`, [`is`] is constant and the planted code is compiled out.

/// The bugs that can be planted.
pub const NAMES: &[&str] = &[
    "reply-before-event",
    "a1-watch-armed-late",
    "a2-read-sees-later-write",
    "a3-no-released-check",
    "write-overtakes-read",
    "a7-header-zxid-of-home",
    "multi-split",
    "old-record-cached",
    "b1-entry-dropped-early",
    "b1-answer-over-change",
    "ack-before-sync",
    "c6-stale-block-replayed",
    "c1-acked-block-rewritten",
    "c3-served-before-end",
    "suffix-from-num-children",
    "ephemeral-survives-session",
];

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Plants the bug called `name` on this thread (or none). Returns false for an unknown name.
#[cfg(feature = "planted-bugs")]
pub fn plant(name: Option<&str>) -> bool {
    let known = name.and_then(|name| NAMES.iter().find(|known| **known == name).copied());
    PLANTED.set(known);
    known.is_some() == name.is_some()
}

/// True when the bug called `name` is planted on this thread.
#[cfg(feature = "planted-bugs")]
pub fn is(name: &str) -> bool {
    PLANTED.get() == Some(name)
}

/// True when the bug called `name` is planted: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}
