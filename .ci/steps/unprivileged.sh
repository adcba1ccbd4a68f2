#!/usr/bin/env bash
# All tests once more, as an ordinary user with the limits that Linux distributions give one: 8 MiB of locked memory and 1024
# open files, soft and hard. Root has neither limit, so a server that needs more than an ordinary user has looks fine to it.
# Sources and build go to a directory that any user can reach, which a checkout below /root is not; it is kept, so that the
# next run builds only what changed.
set -euo pipefail
if [ "$(id -u)" != 0 ]; then
    echo "user $(id -un) is not root: the tests already ran unprivileged, with $(ulimit -Hl) KiB of locked memory and $(ulimit -Hn) files"
    exit 0
fi
# A user id of its own: locked memory is counted by user, not by process.
uid=54321
locked_kib=8192
files_max=1024
work=/var/tmp/ringkeeper-unprivileged

command -v setpriv >/dev/null || { echo "setpriv is missing: install util-linux"; exit 1; }
target=$(.ci/target_directory)
mkdir -p "$work/source" "$work/home"
# Deleted files would otherwise stay; times are kept, so that what did not change is not built again.
find "$work/source" -mindepth 1 -delete
git ls-files -z | tar --create --null --files-from=- --ignore-failed-read --file=- 2>/dev/null | tar --extract --directory="$work/source"
if [ ! -d "$work/target/debug" ] && [ -d "$target/debug/deps" ]; then
    # The dependencies are the same. Our own tests are not: the other directory's path is compiled into them.
    mkdir -p "$work/target/debug"
    cp -a --reflink=auto "$target"/debug/{build,deps,.fingerprint} "$work/target/debug/"
    rm -rf "$work/target/debug/.fingerprint"/ringkeeper-*
fi
cd "$work/source"
export CARGO_TARGET_DIR=$work/target
cargo test --no-run --quiet
mapfile -t binaries < <(cargo test --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ ${#binaries[@]} != 0 ] || { echo "no test binaries were built"; exit 1; }
find "$work/target" -type d -name storage-tests -prune -exec rm -rf {} +
rm -rf "$work/target/tmp"
mkdir -p "$work/target/tmp"
chown "$uid:$uid" "$work/home" "$work/target/tmp" "$work/target/debug/deps"

failed=0
for binary in "${binaries[@]}"; do
    echo "-- $(basename "$binary")"
    env HOME="$work/home" TMPDIR="$work/target/tmp" \
        setpriv --reuid="$uid" --regid="$uid" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
        bash -c "ulimit -l $locked_kib -n $files_max; exec \"\$0\" --quiet --test-threads=2" "$binary" </dev/null \
        || { failed=1; echo "-- $(basename "$binary") FAILED"; }
done
exit "$failed"
