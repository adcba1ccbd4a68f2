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
import shutil
import statistics
import sys
import time

import subjects

ROOT = subjects.ROOT
SERVER_CPU, GENERATOR_CPU = 0, 1
SHARES = [100, 90, 50, 0]
OUTSTANDING = [1, 16, 100]
# The two-shard server shares its second CPU with the generator: only its CPU time means something.
SUBJECTS = ["apache", "ringkeeper", "bare", "ringkeeper2"]


def main():
    args = arguments()
    subjects.refuse_memory_file_system(args.work)
    work = args.work / f"cpu_per_request.{os.getpid()}"
    work.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as running:
            # Those that must stay warm or keep nothing; the others begin each round with an empty disk, or it would fill.
            lasting = [name for name in args.only if not name.startswith("ringkeeper")]
            servers = {name: START[name](args, work / name, running) for name in lasting}
            if "apache" in servers:
                warm(args, servers["apache"])
            results = {"environment": environment(args), "runs": run_all(args, work, servers)}
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


def start_apache(args, directory, running):
    flags = "-Xms1g -Xmx1g -XX:+AlwaysPreTouch"
    return subjects.start_apache(args.apache_sh, directory, running, [SERVER_CPU], flags)


def start_ringkeeper(*cpus):
    return lambda args, directory, running: subjects.start_ringkeeper(args.binary, directory, running, cpus)


START = {
    "apache": start_apache,
    "ringkeeper": start_ringkeeper(SERVER_CPU),
    "bare": lambda args, directory, running: subjects.start_bare(args.binary, directory, running, SERVER_CPU),
    "ringkeeper2": start_ringkeeper(SERVER_CPU, GENERATOR_CPU),
}


# Runs.


def bench(args, server, outstanding, seconds, warmup, seed):
    shares = ",".join(map(str, args.shares))
    return subjects.bench(
        args.binary, server, GENERATOR_CPU, connections=args.connections, outstanding=outstanding, keys=args.keys,
        value_bytes=args.value_bytes, read_share=shares, duration=f"{seconds}s", warmup=f"{warmup}s", seed=seed,
    )


def warm(args, server):
    for outstanding in args.outstanding:
        progress(f"warming the JVM at {outstanding} outstanding")
        bench(args, server, outstanding, args.warm_jvm / len(args.outstanding), 0, 0)


def run_all(args, work, servers):
    runs = []
    for outstanding in args.outstanding:
        for round_number in range(args.rounds):
            for subject in args.only:
                progress(f"{outstanding} outstanding, round {round_number + 1} of {args.rounds}: {subject}")
                with contextlib.ExitStack() as running:
                    server = servers.get(subject) or START[subject](args, work / f"{subject}-fresh", running)
                    ratios = bench(args, server, outstanding, args.seconds, args.warmup, round_number + 1)
                shutil.rmtree(work / f"{subject}-fresh", ignore_errors=True)
                for ratio in ratios:
                    run = {"subject": subject, "outstanding": outstanding, "round": round_number}
                    runs.append(run | {"read_share": ratio["read_share_percent"], "result": ratio})
    return runs


def progress(text):
    print(text, file=sys.stderr, flush=True)


def environment(args):
    names = ("connections", "value_bytes", "keys", "rounds", "seconds", "warmup", "warm_jvm")
    return subjects.machine(args.work) | {name: getattr(args, name) for name in names}


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
        f"data on {facts['file_system']}, {facts['java']}. {facts['connections']} connections, "
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
