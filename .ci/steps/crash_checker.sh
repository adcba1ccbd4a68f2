#!/usr/bin/env bash
# The crash tests on trial: a real server with a planted bug, acknowledgement before the sync, must not pass them.
set -eu
# The panics of the trial are what it is for; their backtraces are not.
export RUST_BACKTRACE=0
out=$(cargo test --quiet --features planted-bugs --test crash_recovery -- --nocapture planted_ rounds_of_the_trial 2>&1) || { echo "$out"; exit 1; }
echo "$out" | grep -E "^(caught|test result)"
grep -q "^test result: ok. 2 passed" <<<"$out" || { echo "the trial did not run"; exit 1; }
