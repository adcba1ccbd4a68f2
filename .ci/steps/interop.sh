#!/usr/bin/env bash
# Third-party clients in Python, Java and C, byte-exact checks, and the same requests to Apache ZooKeeper and to ours, with
# one shard and with three. Installs what is missing, see tests/interop/install.sh; nothing is skipped.
# Arguments are passed on to tests/interop/run.sh; without any, all suites run.
set -eu
cargo build --quiet
# The binary of this very build, wherever cargo puts it.
target=$(.ci/target_directory)
RINGKEEPER=$target/debug/ringkeeper tests/interop/run.sh --shards "1 3" "$@"
