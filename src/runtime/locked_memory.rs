//! Waiting for locked memory that another process of this user still holds.
//!
//! The kernel counts the memory of rings by user, not by process, and gives it back some time after the process that had it has
//! ended. So a server that is restarted may find the memory of its predecessor still taken: it waits a second, then starts
//! with as little as it can.

use std::thread;
use std::time::Duration;

/// Attempts before the memory counts as taken for good: a second in all.
const ATTEMPTS_MAX: usize = 20;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Registered memory and ring depth below which a shard makes no sense.
pub(super) const IO_BYTES_MIN: usize = 64 << 10;
/// See [`IO_BYTES_MIN`].
pub(super) const RING_DEPTH_MIN: usize = 128;

/// Calls `attempt` again and again while its error is one that `is_short` takes for too little memory, for a second at most.
/// Gives the last result. Blocks the thread.
pub(super) fn wait_while_short<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_short: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt() {
            Err(error) if is_short(&error) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server killed and started again at once found its own memory taken, and did not start.
    #[test]
    fn memory_that_comes_back_is_waited_for_and_other_errors_are_not() {
        let mut attempts = 0;
        let result = wait_while_short(
            || {
                attempts += 1;
                if attempts < 3 { Err("short") } else { Ok(attempts) }
            },
            |error| *error == "short",
        );
        assert_eq!(result, Ok(3));
        let mut attempts = 0;
        let result: Result<(), _> = wait_while_short(
            || {
                attempts += 1;
                Err("other")
            },
            |error| *error == "short",
        );
        assert_eq!((result, attempts), (Err("other"), 1));
    }
}
