#!/usr/bin/env bash
# Runs third-party clients against a server started for the purpose, on loopback and a free port.
#   run.sh [--server ringkeeper|apache] [--shards "1 3"] [--seed N] [SUITE...]
# Suites: sidebyside conformance kazoo java zkcli c (default: all).
# ringkeeper runs everything once for each number of shards, by default with one and again with three. The binary is
# $RINGKEEPER, else release/ or debug/ringkeeper below $CARGO_TARGET_DIR, which is target/ of this repository by default.
# Data lie below .work, on the repository's file system; they are removed when all passed and kept, with the logs, when
# not. sidebyside compares the server with an Apache server of its own; --seed (default 1) chooses its requests.
# Ends with `N passed, N failed` (and skipped, where conformance skips).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$here/.work
root=$(cd "$here/../.." && pwd)
suites_all=(sidebyside conformance kazoo java zkcli c)
tick_ms=500
suite_seconds_max=420
super_digest=super:xQJmxLMiHGwaqBvst5y6rkB6HQs=

server=ringkeeper
shard_counts="1 3"
seed=1
suites=()
server_pid=
apache_dirs=()
passed=0
failed=0
skipped=0

fail() { echo "run.sh: $*" >&2; exit 1; }

main() {
    parse_arguments "$@"
    [ "$server" = apache ] || find_ringkeeper
    "$here/install.sh"
    mkdir -p "$work/run"
    run=$(mktemp -d "$work/run/XXXXXX")
    trap stop_all EXIT
    trap 'exit 130' INT TERM
    if [ "$server" = apache ]; then
        run_against apache ""
    else
        local shards
        for shards in $shard_counts; do
            run_against "ringkeeper-shards-$shards" "$shards"
        done
    fi
    [ "$failed" != 0 ] || { stop_all; rm -rf "$run"; }
    [ "$failed" = 0 ] || echo "data and logs are kept in ${run#"$root"/}"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

parse_arguments() {
    while [ $# != 0 ]; do
        case $1 in
            --server) server=${2:?--server needs a name}; shift ;;
            --shards) shard_counts=${2:?--shards needs a list of numbers}; shift ;;
            --seed) seed=${2:?--seed needs a number}; shift ;;
            -*) fail "unknown option $1" ;;
            *)
                [[ " ${suites_all[*]} " == *" $1 "* ]] || fail "unknown suite $1 (of: ${suites_all[*]})"
                suites+=("$1")
                ;;
        esac
        shift
    done
    [[ $server == ringkeeper || $server == apache ]] || fail "unknown server $server"
    [[ $shard_counts =~ ^[1-9][0-9]*(\ [1-9][0-9]*)*$ ]] || fail "--shards wants numbers, got '$shard_counts'"
    [[ $seed =~ ^[0-9]+$ ]] || fail "--seed wants a number, got '$seed'"
    [ ${#suites[@]} != 0 ] || suites=("${suites_all[@]}")
}

find_ringkeeper() {
    local candidate target=${CARGO_TARGET_DIR:-$root/target}
    for candidate in "${RINGKEEPER:-}" "$target/release/ringkeeper" "$target/debug/ringkeeper"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] && { binary=$candidate; return; }
        [ -z "${RINGKEEPER:-}" ] || fail "RINGKEEPER=$RINGKEEPER is no program"
    done
    fail "no ringkeeper binary: build it, or name it in RINGKEEPER"
}

# run_against NAME SHARDS: every suite against one server that was started fresh.
run_against() {
    local suite
    name=$1
    dir=$(mktemp -d "$run/$1-XXXXXX")
    port=$(free_port)
    if [ -z "$2" ]; then start_apache "$dir" "$port"; else start_ringkeeper "$dir" "$port" "$2"; fi
    # sidebyside comes first in the default order: it needs a server on which no session is about to expire.
    for suite in "${suites[@]}"; do
        run_suite "$suite"
    done
    stop_all
}

run_suite() {
    local suite=$1 log=$dir/$1.log began=$SECONDS rc=0
    suite_command "$suite" >"$log" 2>&1 </dev/null || rc=$?
    grep -E '^(FAIL|skip|first difference)' "$log" || true
    local last p f s
    last=$(tail -n 1 "$log")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[4]:-0}
    else
        echo "FAIL $suite ended without a result (exit code $rc): $last"
        p=0 f=1 s=0
    fi
    # A program that says all is well and yet exits with an error has failed.
    [ "$rc" = 0 ] || [ "$f" != 0 ] || { echo "FAIL $suite exited with $rc"; f=1; }
    [ -z "$server_pid" ] || kill -0 "$server_pid" 2>/dev/null || { echo "FAIL the server ended during $suite"; f=$((f + 1)); }
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-20s %-12s %5d ok %4d bad %4d skipped  %4d s\n' "$name" "$suite" "$p" "$f" "$s" $((SECONDS - began))
}

suite_command() {
    local address=127.0.0.1:$port
    local bounded=(timeout --kill-after=10 "$suite_seconds_max")
    case $1 in
        sidebyside) side_by_side "$address" ;;
        conformance)
            "${bounded[@]}" python3 "$here/raw/conformance.py" "$address" --server "$server" --tick-ms "$tick_ms" ;;
        kazoo) "${bounded[@]}" "$work/venv/bin/python" "$here/kazoo_suite.py" "$address" ;;
        java)
            "${bounded[@]}" java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$work/classes:$work/jars/*" \
                "-Dringkeeper.path.table=$root/src/coordination/tree/path_table.txt" \
                "-Dringkeeper.number.table=$root/src/config/java_numbers.txt" Suite "$address" ;;
        zkcli) "${bounded[@]}" "$here/zkcli.sh" "$address" ;;
        c) "${bounded[@]}" "$work/c_suite" "$address" ;;
    esac
}

side_by_side() {
    local other_port rc=0
    other_port=$(free_port)
    start_apache "$dir/beside" "$other_port"
    timeout --kill-after=10 "$suite_seconds_max" python3 "$here/raw/sidebyside.py" --seed "$seed" \
        "$1" "127.0.0.1:$other_port" || rc=$?
    "$here/apache.sh" stop "$dir/beside"
    return "$rc"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_apache() {
    apache_dirs+=("$1")
    "$here/apache.sh" start "$1" "$2" tickTime=$tick_ms "DigestAuthenticationProvider.superDigest=$super_digest" >/dev/null
}

# start_ringkeeper DIR PORT SHARDS
start_ringkeeper() {
    printf '%s\n' "dataDir=$1/data" "clientPort=$2" clientPortAddress=127.0.0.1 "tickTime=$tick_ms" maxClientCnxns=0 \
        '4lw.commands.whitelist=*' "DigestAuthenticationProvider.superDigest=$super_digest" >"$1/zoo.cfg"
    mkdir -p "$1/data"
    local sharing=()
    if [ "$3" -gt "$(nproc)" ]; then
        echo "$3 shards share $(nproc) CPUs here: order is tested all the same, speed is not"
        sharing=(--allow-sharing-cpus)
    fi
    "$binary" server "$1/zoo.cfg" --override "ringkeeper.shards=$3" "${sharing[@]}" >"$1/server.log" 2>&1 </dev/null &
    server_pid=$!
    for _ in $(seq 300); do
        kill -0 "$server_pid" 2>/dev/null || { tail -20 "$1/server.log" >&2; fail "ringkeeper ended while starting"; }
        serves "$2" && return
        sleep 0.1
    done
    tail -20 "$1/server.log" >&2
    fail "ringkeeper did not answer srvr within 30 seconds"
}

# serves PORT: true when the server answers srvr with its mode.
serves() {
    local answer
    answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf srvr >&3 && timeout 2 cat <&3) 2>/dev/null) || return 1
    [[ $answer == *Mode:* ]]
}

# Stops what this run started, by pid.
stop_all() {
    local one
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$server_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
    for one in "${apache_dirs[@]}"; do
        [ ! -f "$one/pid" ] || "$here/apache.sh" stop "$one" || true
    done
    apache_dirs=()
}

main "$@"
