"""How the kazoo checks are declared and what they are given: clients, threads with sessions, cut connections."""

import itertools
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from kazoo.client import KazooClient, KazooState

WAIT_SECONDS = 20
CHECKS = []


def check(name):
    def register(function):
        CHECKS.append((name, function))
        return function

    return register


def expect(got, want, what=""):
    assert got == want, f"{what + ': ' if what else ''}got {got!r}, want {want!r}"


def expect_raises(kind, function, *arguments, **keywords):
    try:
        result = function(*arguments, **keywords)
    except kind:
        return
    raise AssertionError(f"wanted {kind.__name__}, got the result {result!r}")


def until(condition, what, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Context:
    """Clients of one check and a node of its own below which it works."""

    serial = itertools.count(1)

    def __init__(self, address):
        self.address, self.clients = address, []
        self.path = f"/kazoo-{os.getpid()}-{next(self.serial)}"

    def client(self, **options):
        options.setdefault("hosts", self.address)
        client = KazooClient(timeout=options.pop("timeout", 8.0), **options)
        self.clients.append(client)
        client.start(WAIT_SECONDS)
        return client

    def in_threads(self, count, work):
        """Runs work(client, index) in `count` threads, each with its own session; returns the results by index."""
        clients = [self.client() for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(work, client, n) for n, client in enumerate(clients)]
            return [future.result(60) for future in futures]

    def close(self):
        for client in self.clients:
            try:
                client.stop()
            finally:
                client.close()


def cut(client):
    """Breaks the TCP connection under the client and waits until it is connected again, in the same session."""
    session, states = client.client_id[0], []
    client.add_listener(states.append)
    client._connection._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: KazooState.CONNECTED in states, "reconnected")
    client.remove_listener(states.append)
    expect(states, [KazooState.SUSPENDED, KazooState.CONNECTED], "states")
    expect(client.client_id[0], session, "session")


def expire(t, client):
    """Ends the client's session from a second connection and waits until the client has a new one."""
    old, states = client.client_id, []
    client.add_listener(states.append)
    thief = KazooClient(hosts=t.address, client_id=old)
    thief.start(WAIT_SECONDS)
    thief.stop()
    thief.close()
    until(lambda: KazooState.LOST in states and client.connected and client.client_id[0] != old[0], "a new session")
    client.remove_listener(states.append)
