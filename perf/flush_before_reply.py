#!/usr/bin/env python3
"""Did the flush complete before the reply left? Asks the kernel, by its tracepoints, and not the server.

One client sends durable setData requests, one after the other. The kernel notes, with one clock: recvfrom and sendto of the
server's threads, the submission and completion of io_uring writes, and ext4's sync of a file of the log, which ends when the
disk has emptied its cache. The log is written with O_DSYNC, so for every reply there must be, in this order: the request
received, a write submitted, a sync of a log file begun and ended, the write completed, and only then the reply sent.

The same requests to a server with forceSync=no show that the check can fail: there every reply must be found without a flush.
Exit code 0: all as it must be, in both runs. Needs root (tracefs), ext4, and a debug or release build; nothing is installed.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/interop/raw"))
import zkraw  # noqa: E402

TRACEFS = pathlib.Path("/sys/kernel/tracing")
STEPS = ("request received", "write submitted", "sync begun", "sync ended", "write completed", "reply sent")
VERDICTS = ("flush before reply", "REPLY BEFORE FLUSH", "no flush")
BUFFER_KIB_PER_CPU = 32768
START_SECONDS_MAX = 30
# System calls return negative error numbers, which the trace prints as unsigned ones.
ERRORS_FROM = 1 << 63
LINE = re.compile(r"^\s*(?P<task>.+)-(?P<tid>\d+)\s+\[\d+\]\s+\S+\s+(?P<s>\d+)\.(?P<us>\d+): (?P<event>\w+)(?P<text>.*)$")


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("root is needed: tracefs is closed to others")
    if not (TRACEFS / "events").is_dir():
        subprocess.run(["mount", "-t", "tracefs", "none", str(TRACEFS)], check=True)
    if not (TRACEFS / "events/ext4/ext4_sync_file_exit").is_dir():
        sys.exit("the kernel has no ext4 tracepoints: this check follows ext4's syncs")
    work = options.work / f"flush_before_reply.{os.getpid()}"
    work.mkdir(parents=True)
    try:
        passed = True
        for force_sync, wanted in (("yes", VERDICTS[0]), ("no", VERDICTS[2])):
            verdicts = run(options, work / force_sync, force_sync)
            passed &= verdicts[wanted] == options.requests
    finally:
        shutil.rmtree(work)
    print("passed: every reply waited for its flush, and without flushes this is seen" if passed else "FAILED")
    sys.exit(0 if passed else 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--binary", type=pathlib.Path, default=target / "release/ringkeeper")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "perf/.work", help="on the file system to be tested")
    return parser.parse_args()


def run(options, directory, force_sync):
    """One server, one client, one trace; prints the table and returns how many replies got which verdict."""
    with contextlib.ExitStack() as stack:
        pid, port = start_server(options, directory, force_sync, stack)
        threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")}
        client = zkraw.Client(("127.0.0.1", port), timeout_ms=30000)
        if client.create("/flushed")[0] != 0:
            sys.exit("cannot create /flushed")
        trace = stack.enter_context(tracing(threads))
        for number in range(options.requests):
            err = client.set("/flushed", b"%d" % number)[0]
            if err != 0:
                sys.exit(f"setData {number} failed: {err}")
        lines = trace()
        log_files = {path.stat().st_ino for path in directory.rglob("log.*")}
        client.end()
    requests = follow(lines, threads, log_files)
    if len(requests) != options.requests:
        sys.exit(f"{options.requests} requests were sent and {len(requests)} traced: the trace is not complete")
    return table(requests, force_sync)


def start_server(options, directory, force_sync, stack):
    directory.mkdir()
    (directory / "zoo.cfg").write_text(
        f"dataDir={directory}/data\nclientPort=0\nclientPortAddress=127.0.0.1\ntickTime=2000\n"
        f"forceSync={force_sync}\nringkeeper.shards={options.shards}\n"
    )
    log = directory / "server.log"
    command = [str(options.binary), "server", str(directory / "zoo.cfg"), "--allow-sharing-cpus"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    stack.callback(stop, server)
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        found = re.search(r"serving clients on \S+:(\d+)", log.read_text())
        if found:
            return server.pid, int(found[1])
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server did not start:\n{log.read_text()}")
        time.sleep(0.05)


def stop(server):
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()


@contextlib.contextmanager
def tracing(threads):
    """An instance of the tracer that sees the system calls of `threads` and the rings they submit to; gives a function that ends
    the recording and returns its lines."""
    instance = TRACEFS / "instances" / f"flush_before_reply_{os.getpid()}"
    instance.mkdir()
    try:
        put = lambda name, text: (instance / name).write_text(text)  # noqa: E731
        put("trace_clock", "mono")
        put("buffer_size_kb", str(BUFFER_KIB_PER_CPU))
        ours = " || ".join(f"common_pid == {thread}" for thread in sorted(threads))
        for event in (
            "syscalls/sys_enter_recvfrom",
            "syscalls/sys_exit_recvfrom",
            "syscalls/sys_enter_sendto",
            "io_uring/io_uring_submit_req",
        ):
            put(f"events/{event}/filter", ours)
            put(f"events/{event}/enable", "1")
        # Noted by an interrupt or a kernel worker: the ring tells whose a completion is, the inode whose a sync.
        put("events/io_uring/io_uring_complete/enable", "1")
        put("events/ext4/ext4_sync_file_enter/enable", "1")
        put("events/ext4/ext4_sync_file_exit/enable", "1")
        put("tracing_on", "1")

        def lines():
            put("tracing_on", "0")
            for cpu in (instance / "per_cpu").iterdir():
                overrun = re.search(r"^overrun: (\d+)", (cpu / "stats").read_text(), re.M)
                if int(overrun[1]):
                    sys.exit(f"{overrun[1]} events were lost; ask for fewer requests")
            return (instance / "trace").read_text().splitlines()

        yield lines
    finally:
        instance.rmdir()


def follow(lines, threads, log_files):
    """Per request the times, in µs, of the STEPS that happened in order; `None` from the first that did not."""
    requests, writes, current = [], set(), None
    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        thread, at, text = int(match["tid"]), int(match["s"]) * 1e6 + int(match["us"]), match["text"]
        event = match["event"]
        if event == "sys_recvfrom":
            if "->" in text and 0 < int(text.split("->")[1], 0) < ERRORS_FROM:
                current = {"request received": at}
        elif event == "sys_sendto" and thread in threads and current is not None:
            current["reply sent"] = at
            requests.append(current)
            current = None
        elif event == "io_uring_submit_req":
            ring, request = re.search(r"ring (\S+), req (\S+),", text).groups()
            if re.search(r"opcode (\w+)", text)[1] in ("WRITE", "WRITE_FIXED", "WRITEV"):
                writes.add((ring, request))
                note(current, "write submitted", at)
            else:
                writes.discard((ring, request))
        elif event == "ext4_sync_file_enter":
            if int(re.search(r"ino (\d+)", text)[1]) in log_files:
                note(current, "sync begun", at)
        elif event == "ext4_sync_file_exit":
            inode, result = re.search(r"ino (\d+) ret (-?\d+)", text).groups()
            if int(inode) in log_files and int(result) == 0:
                note(current, "sync ended", at)
        elif event == "io_uring_complete":
            ring, request = re.search(r"ring (\S+), req (\S+),", text).groups()
            if (ring, request) in writes and int(re.search(r"result (-?\d+)", text)[1]) > 0:
                note(current, "write completed", at)
            writes.discard((ring, request))
    return requests


def note(current, step, at):
    """Takes a step only directly behind the one before it, so that a flush of something else cannot stand in for this one."""
    if current is None or step in current:
        return
    before = STEPS[STEPS.index(step) - 1]
    if before in current:
        current[step] = at


def verdict(request):
    if "write completed" in request:
        return VERDICTS[0]
    return VERDICTS[1] if "sync begun" in request else VERDICTS[2]


def table(requests, force_sync):
    print(f"\nforceSync={force_sync}: {len(requests)} setData requests, one at a time")
    print(f"| {'step':17} | {'requests':>8} | {'median us':>9} | {'max us':>9} |\n|{'-' * 19}|{'-' * 9}:|{'-' * 10}:|{'-' * 10}:|")
    for step in STEPS:
        times = [request[step] - request["request received"] for request in requests if step in request]
        median = f"{statistics.median(times):.0f}" if times else "-"
        longest = f"{max(times):.0f}" if times else "-"
        print(f"| {step:17} | {len(times):8} | {median:>9} | {longest:>9} |")
    counts = {name: sum(verdict(request) == name for request in requests) for name in VERDICTS}
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return counts


if __name__ == "__main__":
    main()
