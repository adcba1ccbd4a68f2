#!/usr/bin/env python3
"""Byte-exact checks of a standalone ZooKeeper server: conformance.py HOST:PORT [--server apache|ringkeeper]

Prints a line per check and ends with `N passed, N failed`. A check whose wanted behaviour Apache 3.9.5 does not have
is marked `deviates` with the reason: it runs against every server except apache, where it is reported as skipped.
The server under test must run with the tickTime given by --tick-ms and with the super digest of SUPER_DIGEST below.
"""

import argparse
import importlib
import signal
import sys
import traceback

from harness import CHECKS, Context, Mismatch
from zkraw import Closed, Timeout

# Each module registers its checks when it is imported; they run in this order.
SUITES = (
    "checks_frames",
    "checks_sessions",
    "checks_nodes",
    "checks_paths",
    "checks_acl",
    "checks_multi",
    "checks_watches",
    "checks_removal",
    "checks_setwatches",
    "checks_order",
    "checks_mntr",
)
TOTAL_SECONDS_MAX = 300


def main():
    parser = argparse.ArgumentParser(description="byte-exact ZooKeeper wire checks")
    parser.add_argument("address", help="HOST:PORT of the server under test")
    parser.add_argument("--server", choices=("apache", "ringkeeper"), default="ringkeeper")
    parser.add_argument("--tick-ms", type=int, default=500, help="the server's tickTime")
    parser.add_argument("--only", default="", help="run only checks whose name contains this")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TOTAL_SECONDS_MAX)
    host, port = options.address.rsplit(":", 1)
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    for suite in SUITES:
        importlib.import_module(suite)
    for check in CHECKS:
        if options.only not in check.name:
            continue
        verdict, why = run_one(check, Context((host, int(port)), options.tick_ms), options.server)
        counts[verdict] += 1
        print(f"{verdict:4} {check.name}{': ' + why if why else ''}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    sys.exit(1 if counts["FAIL"] or not counts["ok"] else 0)


def run_one(check, context, server):
    """The verdict and, unless it passed, the reason."""
    if check.deviates and server == "apache":
        return "skip", f"Apache deviates: {check.deviates}"
    try:
        check.run(context)
        return "ok", ""
    except Mismatch as mismatch:
        return "FAIL", str(mismatch)
    except (Closed, Timeout, ValueError, OSError) as error:
        frame = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frame) if "checks_" in f.filename), frame[-1])
        return "FAIL", f"{type(error).__name__} {error} at {place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
    finally:
        context.close()


def out_of_time(_signal, _frame):
    print(f"FAIL not finished within {TOTAL_SECONDS_MAX} seconds")
    print("0 passed, 1 failed", flush=True)
    sys.stdout.flush()
    raise SystemExit(1)


if __name__ == "__main__":
    main()
