#!/usr/bin/env bash
# Fixed seeds, then fresh ones that are printed.
set -eu
fresh=$(( $(date +%s) * 1000 ))
cargo run --quiet -- simulate --seeds 200
echo "fresh seeds from $fresh"
cargo run --quiet -- simulate --start "$fresh" --seeds 100
