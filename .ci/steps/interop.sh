#!/usr/bin/env bash
# Third-party clients in Python, Java and C, byte-exact checks, and the same requests to Apache ZooKeeper and to ours, with
# one shard and with three. Installs what is missing, see tests/interop/install.sh; nothing is skipped.
set -eu
cargo build --quiet
# The binary of this very build, wherever cargo puts it.
target=$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
RINGKEEPER=$target/debug/ringkeeper tests/interop/run.sh --shards "1 3"
