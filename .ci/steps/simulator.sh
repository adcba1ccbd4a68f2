#!/usr/bin/env bash
# Fixed seeds, enough for every coverage mark; fresh ones that are printed; and every planted bug is found.
set -eu
fresh=$(( $(date +%s) * 1000 ))
cargo run --quiet -- simulate --seeds 1000
echo "fresh seeds from $fresh"
cargo run --quiet -- simulate --start-seed "$fresh" --seeds 300
cargo run --quiet --features planted-bugs -- simulate --plant all --seeds 200
