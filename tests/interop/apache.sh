#!/usr/bin/env bash
# Runs Apache ZooKeeper 3.9.5, standalone, on the loopback address.
#   apache.sh start DIR PORT [key=value...]   data, configuration and log in DIR; prints the pid once it serves
#   apache.sh stop DIR                        stops the server of DIR and waits for its end
# Environment: JVMFLAGS (default -Xmx512m), APACHE_CPUS (a taskset list to pin the server to).
# Expects tests/interop/install.sh to have run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$here/.work

fail() { echo "apache.sh: $*" >&2; exit 1; }

# Asks the four-letter word srvr; true when the server says it serves.
answers() {
    python3 - "$1" <<'PY' 2>/dev/null
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2) as s:
    s.sendall(b"srvr")
    s.settimeout(2)
    got = b""
    while part := s.recv(4096):
        got += part
sys.exit(0 if b"Mode:" in got else 1)
PY
}

start() {
    [ $# -ge 2 ] || fail "usage: apache.sh start DIR PORT [key=value...]"
    local dir=$1 port=$2
    shift 2
    [ -d "$work/jars" ] || fail "no jars: run install.sh first"
    mkdir -p "$dir/data"
    dir=$(cd "$dir" && pwd)
    {
        printf '%s\n' "dataDir=$dir/data" "clientPort=$port" clientPortAddress=127.0.0.1 tickTime=2000 \
            maxClientCnxns=0 admin.enableServer=false '4lw.commands.whitelist=*'
        [ $# = 0 ] || printf '%s\n' "$@"
    } >"$dir/zoo.cfg"
    local pin=()
    [ -z "${APACHE_CPUS:-}" ] || pin=(taskset -c "$APACHE_CPUS")
    # shellcheck disable=SC2086  # JVMFLAGS is a list of flags
    "${pin[@]}" java ${JVMFLAGS:--Xmx512m} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$work/jars/*" \
        org.apache.zookeeper.server.quorum.QuorumPeerMain \
        "$dir/zoo.cfg" >"$dir/server.log" 2>&1 </dev/null 9>&- &
    local pid=$!
    echo "$pid" >"$dir/pid"
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || { tail -20 "$dir/server.log" >&2; fail "the server ended while starting"; }
        if answers "$port"; then
            echo "$pid"
            return
        fi
        sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    tail -20 "$dir/server.log" >&2
    fail "no answer to srvr within 30 seconds"
}

stop() {
    [ $# = 1 ] || fail "usage: apache.sh stop DIR"
    local pid
    pid=$(cat "$1/pid") || fail "no server was started in $1"
    # A pid may have been given to another process since: only a JVM on this configuration is ours.
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$(cd "$1" && pwd)/zoo.cfg" || { rm "$1/pid"; return; }
    kill "$pid"
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || { rm "$1/pid"; return; }
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    rm "$1/pid"
}

case ${1:-} in
    start) shift; start "$@" ;;
    stop) shift; stop "$@" ;;
    *) fail "usage: apache.sh start DIR PORT [key=value...] | stop DIR" ;;
esac
