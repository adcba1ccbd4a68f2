#!/usr/bin/env bash
# Every fuzz target on the committed corpus, once: that they build, and that what was found stays mended.
set -eu
if ! command -v "${CXX:-c++}" >/dev/null; then
    apt-get update -qq && apt-get install -y -qq g++ || { echo "a C++ compiler is needed for libFuzzer"; exit 1; }
fi
cargo clippy --quiet --package ringkeeper-fuzz --all-targets -- -D warnings
fuzz/run --replay
