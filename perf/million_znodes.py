#!/usr/bin/env python3
"""What a million znodes of 100 bytes cost: memory, a restart, and the pauses that snapshots cause. Three measurements:

memory    growth of the process's RSS, per znode, from a server that was warmed by as many writes to one znode to one that holds
          a million; ringkeeper with one shard, and Apache ZooKeeper with a heap that may grow.
restart   from the start of the process to the first znode that a client has read, after `kill -9`, several times.
pauses    the longest time that a client waits for a read, one at a time, while another writes so much that snapshots of the
          whole tree follow one another; windows alternate with the bare responder under the same two clients.

What it does not show: a network, a slower disk, znodes with access lists of their own.
Needs nothing but Python, taskset and, for Apache, tests/interop/apache.sh with a JVM.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import threading
import time

import subjects

sys.path.insert(0, str(subjects.ROOT / "tests/interop/raw"))
import zkraw  # noqa: E402

SERVER_CPU, CLIENT_CPU = 0, 1
VALUE_BYTES = 100
FIRST_KEY = "/ringkeeper-bench/k00000000"
SHARDS = {"ringkeeper": [SERVER_CPU], "ringkeeper2": [SERVER_CPU, CLIENT_CPU]}
RESTART_SECONDS_MAX = 120
MEASUREMENTS = ("memory", "restart", "pauses")


def main():
    args = arguments()
    subjects.refuse_memory_file_system(args.work)
    work = args.work / f"million_znodes.{os.getpid()}"
    work.mkdir(parents=True)
    results = {"environment": subjects.machine(args.work) | {"znodes": args.znodes, "rounds": args.rounds}}
    try:
        for name in args.subjects:
            with contextlib.ExitStack() as running:
                results[name] = measure(args, name, work / name, running)
            shutil.rmtree(work / name)
    finally:
        shutil.rmtree(work)
    args.results.mkdir(parents=True, exist_ok=True)
    stem = f"million_znodes-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{results['environment']['commit']}"
    (args.results / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    table = markdown(args, results)
    (args.results / f"{stem}.md").write_text(table)
    print(table)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", default="ringkeeper,ringkeeper2,apache", help="comma separated (%(default)s)")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="measurements, comma separated (%(default)s)")
    parser.add_argument("--binary", type=pathlib.Path, default=subjects.ROOT / "target/release/ringkeeper")
    parser.add_argument("--apache-sh", type=pathlib.Path, default=subjects.ROOT / "tests/interop/apache.sh")
    parser.add_argument("--work", type=pathlib.Path, default=subjects.ROOT / "perf/results")
    parser.add_argument("--results", type=pathlib.Path, default=subjects.ROOT / "perf/results")
    parser.add_argument("--znodes", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="restarts, and windows of each side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="length of a window for pauses (%(default)s)")
    args = parser.parse_args()
    args.subjects, args.only = args.subjects.split(","), args.only.split(",")
    for unknown in set(args.subjects) - {*SHARDS, "apache"} | set(args.only) - set(MEASUREMENTS):
        parser.error(f"unknown: {unknown}")
    if not args.binary.exists():
        parser.error(f"{args.binary} does not exist: cargo build --release, or --binary")
    if os.cpu_count() < 2:
        parser.error("needs two CPUs: one for the server, one for the clients")
    return args


def start(args, name, directory, running):
    if name == "apache":
        return subjects.start_apache(args.apache_sh, directory, running, [SERVER_CPU], "-Xmx4g")
    return subjects.start_ringkeeper(args.binary, directory, running, SHARDS[name])


def measure(args, name, directory, running):
    found = {}
    server = start(args, name, directory, running)
    progress(f"{name}: warming")
    bench(args, server, read_share=0, keys=1, connections=32, outstanding=32, duration="8s")
    before = settled_rss_bytes(server["pid"])
    progress(f"{name}: creating {args.znodes} znodes")
    bench(args, server, read_share=100, keys=args.znodes, connections=1, outstanding=1, duration="0.2s")
    after = settled_rss_bytes(server["pid"])
    found["memory"] = {"before_bytes": before, "after_bytes": after, "per_znode_bytes": (after - before) / args.znodes}
    if "pauses" in args.only and name == "ringkeeper":
        found["pauses"] = pauses(args, server, directory, running)
    if "restart" in args.only:
        found["restart_ms"] = [restart_ms(args, name, directory, running, server) for _ in range(args.rounds)]
    return found


def bench(args, server, **options):
    return subjects.bench(args.binary, server, CLIENT_CPU, value_bytes=VALUE_BYTES, warmup="0s", **options)


def settled_rss_bytes(pid):
    """What is left once snapshots are written and freed memory has been given back: the least of some seconds."""
    readings = []
    for _ in range(20):
        time.sleep(0.25)
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        readings.append(pages * os.sysconf("SC_PAGE_SIZE"))
    return min(readings)


def restart_ms(args, name, directory, running, server):
    os.kill(server["pid"], signal.SIGKILL)
    while pathlib.Path(f"/proc/{server['pid']}/stat").exists() and not is_zombie(server["pid"]):
        time.sleep(0.01)
    progress(f"{name}: restart")
    result = {}
    started = time.monotonic()
    reader = None

    def first_read(port):
        deadline = started + RESTART_SECONDS_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, zkraw.Closed, zkraw.Timeout):
                client = zkraw.Connection(("127.0.0.1", port))
                client.handshake()
                reply = client.call(zkraw.GET_DATA, zkraw.path_watch(FIRST_KEY))
                if reply.err == 0:
                    result["ms"] = (time.monotonic() - started) * 1000
                    return
            time.sleep(0.002)

    # The configuration, and with it the port, stays: the server is asked while it starts.
    reader = threading.Thread(target=first_read, args=(server["port"],))
    reader.start()
    server.update(start_again(args, name, directory, running, server["port"]))
    reader.join()
    if "ms" not in result:
        sys.exit(f"{name} did not serve within {RESTART_SECONDS_MAX} s of its restart")
    return result["ms"]


def start_again(args, name, directory, running, port):
    if name == "apache":
        return subjects.start_apache(args.apache_sh, directory, running, [SERVER_CPU], "-Xmx4g", port)
    return subjects.start_ringkeeper(args.binary, directory, running, SHARDS[name], port)


def is_zombie(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def pauses(args, server, directory, running):
    bare = subjects.start_bare(args.binary, directory / "bare", running, SERVER_CPU)
    log = directory / "server.log"
    windows = []
    for round_number in range(args.rounds):
        for side, target in (("bare", bare), ("ringkeeper", server)):
            progress(f"pauses, round {round_number + 1} of {args.rounds}: {side}")
            snapshots = snapshots_in(log)
            writer = threading.Thread(target=write, args=(args, target))
            writer.start()
            read = bench(args, target, read_share=100, keys=1000, connections=1, outstanding=1,
                         duration=f"{args.seconds}s")[0]
            writer.join()
            windows.append({
                "side": side, "snapshots": snapshots_in(log) - snapshots, "max_us": read["latency"]["max_us"],
                "p99_9_us": read["latency"]["p99_9_us"], "reads_per_second": read["requests_per_second"],
            })
    return windows


def write(args, server):
    """Enough to have snapshots all the time: longer than the reader's window on both sides."""
    bench(args, server, read_share=0, keys=1000, connections=4, outstanding=16, duration=f"{args.seconds + 1}s")


def snapshots_in(log):
    return log.read_text().count(" INFO snapshot ")


def progress(text):
    print(text, file=sys.stderr, flush=True)


def markdown(args, results):
    facts = results["environment"]
    lines = [
        "# A million znodes",
        "",
        f"Commit {facts['commit']}{' with local changes' if facts['dirty'] else ''}; {facts['cpu']}, Linux {facts['kernel']}, data on "
        f"{facts['file_system']}, {facts['java']}. {facts['znodes']} znodes of {VALUE_BYTES} bytes; servers on CPU {SERVER_CPU} "
        f"(ringkeeper2: two shards, CPUs 0 and 1), clients on CPU {CLIENT_CPU}; load average before: {facts['load_before']:.2f}.",
        "",
        "| server | RSS before | RSS after | a znode | restart, median (range) |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in args.subjects:
        memory, restarts = results[name]["memory"], results[name].get("restart_ms", [])
        span = f"{statistics.median(restarts):.0f} ms ({min(restarts):.0f} to {max(restarts):.0f})" if restarts else ""
        mib = [f"{memory[when] / 2**20:.0f} MiB" for when in ("before_bytes", "after_bytes")]
        lines.append(f"| {name} | {mib[0]} | {mib[1]} | {memory['per_znode_bytes']:.0f} B | {span} |")
    windows = results.get("ringkeeper", {}).get("pauses", [])
    if windows:
        lines += ["", "| window | snapshots | longest read | p99.9 | reads/s |", "|---|--:|--:|--:|--:|"]
    for window in windows:
        lines.append(
            f"| {window['side']} | {window['snapshots']} | {window['max_us'] / 1000:.2f} ms | {window['p99_9_us']} us "
            f"| {window['reads_per_second']:.0f} |"
        )
    if windows:
        longest = {side: [w["max_us"] / 1000 for w in windows if w["side"] == side] for side in ("bare", "ringkeeper")}
        medians = {side: statistics.median(values) for side, values in longest.items()}
        lines += ["", f"Longest read, median of the windows: bare {medians['bare']:.2f} ms, ringkeeper {medians['ringkeeper']:.2f} ms."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
