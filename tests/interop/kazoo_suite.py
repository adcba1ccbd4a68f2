#!/usr/bin/env python3
"""kazoo and its own recipes against a ZooKeeper server: kazoo_suite.py HOST:PORT [ONLY]

Prints a line per check and ends with `N passed, N failed`. Every wait has a bound, and so has the whole run.
"""

import importlib
import logging
import os
import signal
import sys
import traceback

from kazoo_harness import CHECKS, Context

# Each module registers its checks when it is imported; they run in this order.
SUITES = ("kazoo_recipes", "kazoo_nodes", "kazoo_sessions")
TOTAL_SECONDS_MAX = 300


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: kazoo_suite.py HOST:PORT [ONLY]")
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TOTAL_SECONDS_MAX)
    for suite in SUITES:
        importlib.import_module(suite)
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    failed = [name for name, function in CHECKS if only in name and not run_one(sys.argv[1], name, function)]
    passed = sum(only in name for name, _ in CHECKS) - len(failed)
    print(f"{passed} passed, {len(failed)} failed", flush=True)
    # Threads of a check that hung must not keep the process.
    os._exit(1 if failed or not passed else 0)


def run_one(address, name, function):
    t = Context(address)
    try:
        function(t)
        print(f"ok   {name}", flush=True)
        return True
    except Exception as error:  # noqa: BLE001  every failure of a check is reported and counted
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if "kazoo_" in frame.filename][-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        print(f"FAIL {name}: {type(error).__name__} {error} at {where}", flush=True)
        return False
    finally:
        t.close()


def out_of_time(_signal, _frame):
    print(f"FAIL not finished within {TOTAL_SECONDS_MAX} seconds\n0 passed, 1 failed", flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
