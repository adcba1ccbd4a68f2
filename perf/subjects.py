"""The servers that are compared, started alike for every measurement, and what a report must say of the machine.

Every start function starts one process pinned to given CPUs, has it stopped when `running` ends, and returns port and pid.
"""

import contextlib
import json
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NO_DISK = ("tmpfs", "ramfs", "devtmpfs")


def refuse_memory_file_system(directory):
    """A log on a memory file system costs nothing to flush: the figures would flatter everybody, and not equally."""
    path, best = str(directory.resolve()), ("", "")
    for line in open("/proc/self/mounts"):
        mount, kind = line.split()[1:3]
        if path == mount or path.startswith(mount.rstrip("/") + "/"):
            best = max(best, (mount, kind), key=lambda entry: len(entry[0]))
    if best[1] in NO_DISK:
        sys.exit(f"{directory} is on {best[1]}: give a directory on a disk with --work")


def start_bare(binary, directory, running, cpu):
    command = [binary, "bench", "bare-responder", "--cpus", cpu]
    process = start(command, [cpu], directory, running, stderr=subprocess.PIPE)
    line = process.stderr.readline().decode()
    if not line.startswith("listening on "):
        sys.exit(f"the bare responder did not start: {line}")
    return {"port": int(line.rsplit(":", 1)[1]), "pid": process.pid}


def start_ringkeeper(binary, directory, running, cpus, port=None):
    directory.mkdir(exist_ok=True)
    port = port or free_port()
    (directory / "zoo.cfg").write_text(
        f"dataDir={directory}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\n"
        f"maxClientCnxns=0\nringkeeper.shards={len(cpus)}\nringkeeper.cpus={','.join(map(str, cpus))}\n"
    )
    log = open(directory / "server.log", "ab")
    running.callback(log.close)
    process = start([binary, "server", directory / "zoo.cfg"], cpus, directory, running, stdout=log, stderr=log)
    wait_for_port(process, port, directory / "server.log")
    return {"port": port, "pid": process.pid}


def start_apache(apache_sh, directory, running, cpus, jvm_flags, port=None):
    port = port or free_port()
    variables = dict(os.environ, APACHE_CPUS=",".join(map(str, cpus)), JVMFLAGS=jvm_flags)
    command = [apache_sh, "start", directory, str(port)]
    started = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
    running.callback(subprocess.run, [apache_sh, "stop", directory], check=False)
    return {"port": port, "pid": int(started.stdout)}


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


def bench(binary, server, cpu, **options):
    """The ratios that `ringkeeper bench ratio` measured; it runs on `cpu`, and an error ends the measurement."""
    command = [binary, "bench", "ratio", "--json", "-s", f"127.0.0.1:{server['port']}"]
    command += ["--server-pid", server["pid"], "--cpus", cpu]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stderr.decode()}")
    ratios = json.loads(done.stdout)["ratios"]
    for ratio in ratios:
        if ratio["errors"]:
            sys.exit(f"{ratio['errors']} errors at {ratio['read_share_percent']}% reads: {ratio['first_error']}")
    return ratios


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    return done.stdout.decode().strip()


def machine(work):
    """What every report must say: the code, the hardware, the file system, and how busy the machine was."""
    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "commit": output("git", "rev-parse", "--short=12", "HEAD"),
        "dirty": bool(output("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")),
        "kernel": platform.release(),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "file_system": output("stat", "-f", "-c", "%T", str(work)),
        "java": output("java", "-version").splitlines()[0] if shutil.which("java") else "no Java",
    }
