#!/usr/bin/env bash
# Installs what the interop suites need below tests/interop/.work: a Python environment with kazoo, the jars of
# Apache ZooKeeper (server, client, zkCli) and the compiled Java suite; from Debian's packages, as root and only
# when missing: a JDK, Maven, a C compiler and the ZooKeeper C client.
# Idempotent: each part leaves a stamp holding what it was made from, and is made again when that changes.
# Fails loudly when a part cannot be had; nothing is skipped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$here/.work
mkdir -p "$work"

# One installer at a time: two test runs may start together.
exec 9>"$work/install.lock"
flock 9

fail() { echo "interop install: $*" >&2; exit 1; }

apt_updated=
# need_package PACKAGE...: installs Debian packages; root only.
need_package() {
    command -v apt-get >/dev/null || fail "needs the Debian package(s) $*, and this system has no apt-get"
    [ "$(id -u)" = 0 ] || fail "needs the Debian package(s) $*: install them as root, then run this again"
    if [ -z "$apt_updated" ]; then
        DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || fail "apt-get update failed"
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$work/apt.log" 2>&1 \
        || { cat "$work/apt.log" >&2; fail "apt-get install $* failed"; }
}

# fresh NAME KEY: true when part NAME was made from KEY.
fresh() { [ -f "$work/$1.stamp" ] && [ "$(cat "$work/$1.stamp")" = "$2" ]; }
made() { printf '%s' "$2" >"$work/$1.stamp"; }
checksum() { cat "$@" | sha256sum | cut -d' ' -f1; }

c_client_present() {
    printf '#include <zookeeper/zookeeper.h>\nint main(void){zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);return 0;}\n' \
        | cc -DTHREADED -x c - -o "$work/probe" -lzookeeper_mt 2>/dev/null
}

command -v cc >/dev/null || need_package gcc libc6-dev
c_client_present || { need_package libzookeeper-mt-dev; c_client_present || fail "the ZooKeeper C client does not link"; }
command -v javac >/dev/null || need_package default-jdk-headless
command -v mvn >/dev/null || need_package maven
command -v python3 >/dev/null || need_package python3 python3-venv

key=$(checksum "$here/requirements.txt")
if ! fresh venv "$key"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" || { need_package python3-venv; python3 -m venv "$work/venv"; } || fail "no venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" || fail "pip failed"
    made venv "$key"
fi

key=$(checksum "$here/pom.xml")
if ! fresh jars "$key"; then
    rm -rf "$work/jars"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/jars" \
        >"$work/maven.log" 2>&1 || { tail -40 "$work/maven.log" >&2; fail "Maven could not copy the jars"; }
    [ -f "$work/jars/zookeeper-3.9.5.jar" ] || fail "Maven copied no zookeeper-3.9.5.jar"
    made jars "$key"
fi

key=$(checksum "$here/pom.xml" "$here"/java/*.java)
if ! fresh classes "$key"; then
    rm -rf "$work/classes"
    # Without "try" and "classfile": these two only complain about Apache's own classes.
    javac -Xlint:all,-try,-classfile -d "$work/classes" -cp "$work/jars/*" "$here"/java/*.java || fail "javac failed"
    made classes "$key"
fi

key=$(checksum "$here"/c/*.c)
if ! fresh c "$key"; then
    cc -std=gnu11 -O1 -g -Wall -Wextra -Werror -DTHREADED "$here"/c/*.c -o "$work/c_suite" -lzookeeper_mt -lpthread \
        || fail "the C suite does not compile"
    made c "$key"
fi
