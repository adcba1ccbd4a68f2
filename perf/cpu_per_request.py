#!/usr/bin/env python3
"""CPU microseconds a request costs a server: ringkeeper, Apache ZooKeeper and the bare responder, in one session.

Every server is one process, pinned to CPU 0 (or, for the two-shard run, to CPUs 0 and 1); the generator,
`ringkeeper bench ratio`, is pinned to CPU 1. The subjects take turns (A B C A B C ...), so that a neighbour's noise hits all
of them; the table gives medians over the rounds and, for ratios, the median of the ratios of each round with their range.

What it does not show: a network (everything runs over loopback), latency under an open arrival process, more than two cores.
Needs nothing but Python, taskset and, for Apache, tests/interop/apache.sh with a JVM.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVER_CPU, GENERATOR_CPU = 0, 1
SHARES = [100, 90, 50, 0]
OUTSTANDING = [1, 16, 100]
# The two-shard server shares its second CPU with the generator: only its CPU time means something.
SUBJECTS = ["apache", "ringkeeper", "bare", "ringkeeper2"]
NO_DISK = ("tmpfs", "ramfs", "devtmpfs")


def main():
    args = arguments()
    refuse_memory_file_system(args.work)
    work = args.work / f"cpu_per_request.{os.getpid()}"
    work.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as running:
            servers = {name: START[name](args, work / name, running) for name in args.only}
            if "apache" in servers:
                warm(args, servers["apache"])
            results = {"environment": environment(args), "runs": run_all(args, servers)}
    finally:
        shutil.rmtree(work)
    results["medians"] = medians(results["runs"])
    table = markdown(results, args.only)
    args.results.mkdir(parents=True, exist_ok=True)
    name = f"cpu_per_request-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{results['environment']['commit']}"
    (args.results / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.results / f"{name}.md").write_text(table)
    print(table)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects, comma separated (%(default)s)")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/ringkeeper")
    parser.add_argument("--apache-sh", type=pathlib.Path, default=ROOT / "tests/interop/apache.sh")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "perf/results", help="where the servers keep their data")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "perf/results")
    parser.add_argument("--rounds", type=int, default=5, help="times that every subject has its turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measured window (%(default)s)")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each window (%(default)s)")
    parser.add_argument("--warm-jvm", type=float, default=30, help="seconds of load at each read share before the first round")
    parser.add_argument("--shares", type=numbers, default=SHARES)
    parser.add_argument("--outstanding", type=numbers, default=OUTSTANDING)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--value-bytes", type=int, default=1024)
    parser.add_argument("--keys", type=int, default=10000)
    args = parser.parse_args()
    args.only = args.only.split(",")
    unknown = set(args.only) - set(SUBJECTS)
    if unknown:
        parser.error(f"unknown subject: {', '.join(sorted(unknown))}")
    if not args.binary.exists():
        parser.error(f"{args.binary} does not exist: cargo build --release, or --binary")
    if os.cpu_count() < 2:
        parser.error("needs two CPUs: one for the server, one for the generator")
    return args


def numbers(text):
    return [int(number) for number in text.split(",")]


def refuse_memory_file_system(directory):
    """A log on a memory file system costs nothing to flush: the figures would flatter everybody, and not equally."""
    path, best = str(directory.resolve()), ("", "")
    for line in open("/proc/self/mounts"):
        mount, kind = line.split()[1:3]
        if path == mount or path.startswith(mount.rstrip("/") + "/"):
            best = max(best, (mount, kind), key=lambda entry: len(entry[0]))
    if best[1] in NO_DISK:
        sys.exit(f"{directory} is on {best[1]}: give a directory on a disk with --work")


# Servers: each function starts one, has it stopped when `running` ends, and returns its port and pid.


def start_bare(args, directory, running):
    command = [args.binary, "bench", "bare-responder", "--cpus", SERVER_CPU]
    process = start(command, [SERVER_CPU], directory, running, stderr=subprocess.PIPE)
    line = process.stderr.readline().decode()
    if not line.startswith("listening on "):
        sys.exit(f"the bare responder did not start: {line}")
    return {"port": int(line.rsplit(":", 1)[1]), "pid": process.pid}


def start_ringkeeper(cpus):
    def with_cpus(args, directory, running):
        directory.mkdir()
        port = free_port()
        (directory / "zoo.cfg").write_text(
            f"dataDir={directory}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\n"
            f"maxClientCnxns=0\nringkeeper.shards={len(cpus)}\nringkeeper.cpus={','.join(map(str, cpus))}\n"
        )
        log = open(directory / "server.log", "wb")
        running.callback(log.close)
        command = [args.binary, "server", directory / "zoo.cfg"]
        process = start(command, cpus, directory, running, stdout=log, stderr=log)
        wait_for_port(process, port, directory / "server.log")
        return {"port": port, "pid": process.pid}

    return with_cpus


def start_apache(args, directory, running):
    port = free_port()
    variables = dict(os.environ, APACHE_CPUS=str(SERVER_CPU), JVMFLAGS="-Xms1g -Xmx1g -XX:+AlwaysPreTouch")
    command = [args.apache_sh, "start", directory, str(port)]
    started = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
    running.callback(subprocess.run, [args.apache_sh, "stop", directory], check=False)
    return {"port": port, "pid": int(started.stdout)}


START = {
    "apache": start_apache,
    "ringkeeper": start_ringkeeper([SERVER_CPU]),
    "bare": start_bare,
    "ringkeeper2": start_ringkeeper([SERVER_CPU, GENERATOR_CPU]),
}


def start(command, cpus, directory, running, **streams):
    pinned = ["taskset", "-c", ",".join(map(str, cpus)), *map(str, command)]
    directory.mkdir(exist_ok=True)
    process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, **streams)
    running.callback(stop, process)
    return process


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(process, port, log):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"the server did not start:\n{log.read_text()[-2000:]}")


# Runs.


def bench(args, server, outstanding, seconds, warmup, seed):
    command = [args.binary, "bench", "ratio", "--json", "-s", f"127.0.0.1:{server['port']}"]
    command += ["--server-pid", server["pid"], "--cpus", GENERATOR_CPU, "--connections", args.connections]
    command += ["--outstanding", outstanding, "--keys", args.keys, "--value-bytes", args.value_bytes]
    command += ["--read-share", ",".join(map(str, args.shares)), "--duration", f"{seconds}s", "--warmup", f"{warmup}s"]
    command += ["--seed", seed]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stderr.decode()}")
    ratios = json.loads(done.stdout)["ratios"]
    for ratio in ratios:
        if ratio["errors"]:
            sys.exit(f"{ratio['errors']} errors at {ratio['read_share_percent']}% reads: {ratio['first_error']}")
    return ratios


def warm(args, server):
    for outstanding in args.outstanding:
        progress(f"warming the JVM at {outstanding} outstanding")
        bench(args, server, outstanding, args.warm_jvm / len(args.outstanding), 0, 0)


def run_all(args, servers):
    runs = []
    for outstanding in args.outstanding:
        for round_number in range(args.rounds):
            for subject, server in servers.items():
                progress(f"{outstanding} outstanding, round {round_number + 1} of {args.rounds}: {subject}")
                for ratio in bench(args, server, outstanding, args.seconds, args.warmup, round_number + 1):
                    run = {"subject": subject, "outstanding": outstanding, "round": round_number}
                    runs.append(run | {"read_share": ratio["read_share_percent"], "result": ratio})
    return runs


def progress(text):
    print(text, file=sys.stderr, flush=True)


def environment(args):
    def output(*command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
        return done.stdout.decode().strip()

    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "commit": output("git", "rev-parse", "--short=12", "HEAD"),
        "dirty": bool(output("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")),
        "kernel": platform.release(),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "java": output("java", "-version").splitlines()[0] if "apache" in args.only else None,
        "file_system": output("stat", "-f", "-c", "%T", str(args.work)),
        "connections": args.connections,
        "value_bytes": args.value_bytes,
        "keys": args.keys,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "warm_jvm": args.warm_jvm,
    }


# Results.


def medians(runs):
    """By outstanding, read share and subject: the medians of the rounds, and the CPU of each round for the ratios."""
    cells = {}
    for run in runs:
        cells.setdefault((run["outstanding"], run["read_share"], run["subject"]), []).append(run["result"])
    rows = []
    for (outstanding, share, subject), results in cells.items():
        cpu = [result["servers"][0]["scheduled_us_per_request"] for result in results]
        rows.append({
            "outstanding": outstanding,
            "read_share": share,
            "subject": subject,
            "cpu_us_per_request": statistics.median(cpu),
            "cpu_us_per_round": cpu,
            "requests_per_second": statistics.median(result["requests_per_second"] for result in results),
            "p50_us": statistics.median(result["latency"]["p50_us"] for result in results),
            "p99_us": statistics.median(result["latency"]["p99_us"] for result in results),
            "generator_cpu_share": statistics.median(result["generator_cpu_share"] for result in results),
            "generator_us_per_request": statistics.median(result["generator_us_per_request"] for result in results),
        })
    return rows


def markdown(results, subjects):
    table = {(row["outstanding"], row["read_share"], row["subject"]): row for row in results["medians"]}
    facts = results["environment"]
    lines = [
        "# CPU per request",
        "",
        f"Commit {facts['commit']}{' with local changes' if facts['dirty'] else ''}; {facts['cpu']}, Linux {facts['kernel']}, "
        f"data on {facts['file_system']}{', ' + facts['java'] if facts['java'] else ''}. {facts['connections']} connections, "
        f"{facts['value_bytes']}-byte values, {facts['keys']} keys; medians of {facts['rounds']} alternating rounds of "
        f"{facts['seconds']} s; load average before: {facts['load_before']:.2f}. Server on CPU {SERVER_CPU}, generator on CPU "
        f"{GENERATOR_CPU}, loopback. Ratios: median (least to greatest) of the rounds. A star: the generator used more than "
        "80 % of its CPU, so that requests a second are not the server's limit.",
        "",
    ]
    pairs = [("apache", "ringkeeper"), ("ringkeeper", "bare"), ("apache", "bare")]
    pairs = [pair for pair in pairs if set(pair) <= set(subjects)]
    head = ["outstanding", "reads %", *(f"{name} us" for name in subjects)]
    head += [f"{one}/{other}" for one, other in pairs]
    head += [f"{name} k req/s" for name in subjects if name != "ringkeeper2"]
    head += ["generator us"]
    lines += ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
    for outstanding, share in dict.fromkeys((row["outstanding"], row["read_share"]) for row in results["medians"]):
        row = {name: table[outstanding, share, name] for name in subjects}
        cells = [str(outstanding), f"{share:g}", *(f"{row[name]['cpu_us_per_request']:.2f}" for name in subjects)]
        cells += [ratio(row[one], row[other]) for one, other in pairs]
        cells += [throughput(row[name]) for name in subjects if name != "ringkeeper2"]
        cells += [f"{row[subjects[0]]['generator_us_per_request']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def ratio(one, other):
    ratios = [a / b for a, b in zip(one["cpu_us_per_round"], other["cpu_us_per_round"])]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def throughput(row):
    return f"{row['requests_per_second'] / 1000:.1f}{'*' if row['generator_cpu_share'] > 0.8 else ''}"


if __name__ == "__main__":
    main()
