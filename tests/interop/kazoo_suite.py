#!/usr/bin/env python3
"""kazoo and its own recipes against a ZooKeeper server: kazoo_suite.py HOST:PORT

Recipes run with real concurrency: each contender has a client (a session) and a thread of its own. Prints a line per
check and ends with `N passed, N failed`. Every wait has a bound.
"""

import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    InvalidACLError,
    LockTimeout,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl, make_digest_acl_credential

WAIT_SECONDS = 20
TOTAL_SECONDS_MAX = 300
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


# ---- recipes -------------------------------------------------------------------------------------------------


@check("Lock: eight contenders, never two inside")
def _(t):
    inside, seen, worst = [], [], []

    def work(client, n):
        for _ in range(10):
            with client.Lock(t.path + "/lock", f"c{n}"):
                inside.append(n)
                worst.append(len(inside))
                seen.append(n)
                inside.remove(n)

    t.in_threads(8, work)
    expect((max(worst), len(seen)), (1, 80))


@check("Lock: contenders, non-blocking and timed acquire")
def _(t):
    one, two = t.client(), t.client()
    lock, other = one.Lock(t.path, "one"), two.Lock(t.path, "two")
    expect(lock.acquire(), True)
    expect(other.acquire(blocking=False), False)
    expect_raises(LockTimeout, other.acquire, timeout=0.2)
    expect(two.Lock(t.path).contenders(), ["one"])
    lock.release()
    expect(other.acquire(timeout=5), True)
    other.release()


@check("Lock: the holder's session ends, the next contender gets it")
def _(t):
    one, two = t.client(), t.client()
    expect(one.Lock(t.path).acquire(), True)
    lock = two.Lock(t.path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock.acquire, timeout=WAIT_SECONDS)
        until(lambda: len(two.get_children(t.path)) == 2, "the second contender")
        one.stop()
        expect(waiting.result(WAIT_SECONDS), True)
    lock.release()


@check("ReadLock and WriteLock: readers together, a writer alone")
def _(t):
    readers, writers, bad = [], [], []

    def work(client, n):
        for _ in range(5):
            if n % 3 == 0:
                with client.WriteLock(t.path):
                    writers.append(n)
                    if len(writers) > 1 or readers:
                        bad.append((list(readers), list(writers)))
                    time.sleep(0.002)
                    writers.remove(n)
            else:
                with client.ReadLock(t.path):
                    readers.append(n)
                    if writers:
                        bad.append((list(readers), list(writers)))
                    time.sleep(0.002)
                    readers.remove(n)

    t.in_threads(6, work)
    expect(bad, [])


@check("Semaphore: at most three inside, leases counted")
def _(t):
    inside, worst = [], []

    def work(client, n):
        for _ in range(5):
            with client.Semaphore(t.path, max_leases=3):
                inside.append(n)
                worst.append(len(inside))
                time.sleep(0.005)
                inside.remove(n)

    t.in_threads(7, work)
    expect(max(worst) <= 3, True, f"most inside {max(worst)}")
    expect(worst != [] and max(worst) > 1, True, "some together")


@check("Election: every candidate leads once, one at a time")
def _(t):
    leading, led = [], []

    def lead(n):
        leading.append(n)
        assert len(leading) == 1, leading
        led.append(n)
        time.sleep(0.01)
        leading.remove(n)

    t.in_threads(5, lambda client, n: client.Election(t.path, f"c{n}").run(lead, n))
    expect(sorted(led), [0, 1, 2, 3, 4])


@check("Barrier: all wait until it is removed")
def _(t):
    maker = t.client()
    barrier = maker.Barrier(t.path)
    barrier.create()
    passed = []

    def work(client, n):
        result = client.Barrier(t.path).wait(WAIT_SECONDS)
        passed.append(n)
        return result

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(t.in_threads, 4, work)
        time.sleep(0.3)
        expect(passed, [])
        expect(barrier.remove(), True)
        expect(waiting.result(WAIT_SECONDS), [True] * 4)


@check("DoubleBarrier: all enter together and leave together")
def _(t):
    entered, left = [], []

    def work(client, n):
        barrier = client.DoubleBarrier(t.path, 5)
        barrier.enter()
        entered.append(n)
        until(lambda: len(entered) == 5, "all inside")
        barrier.leave()
        left.append(n)

    t.in_threads(5, work)
    expect((len(entered), len(left)), (5, 5))


@check("Queue: priorities, and each entry taken once by concurrent consumers")
def _(t):
    client = t.client()
    queue = client.Queue(t.path)
    queue.put(b"late", 200)
    queue.put(b"soon", 50)
    expect((queue.get(), queue.get(), queue.get()), (b"soon", b"late", None))
    for n in range(60):
        queue.put(str(n).encode())

    def work(consumer, _n):
        return list(iter(consumer.Queue(t.path).get, None))

    got = t.in_threads(4, work)
    expect(sorted(int(v) for taken in got for v in taken), list(range(60)))


@check("LockingQueue: hold and consume, an entry of a dead consumer comes back")
def _(t):
    client = t.client()
    queue = client.LockingQueue(t.path)
    queue.put_all([b"a", b"b"])
    dying = t.client()
    expect(dying.LockingQueue(t.path).get(5), b"a")
    dying.stop()
    got = []
    for _ in range(2):
        got.append(queue.get(WAIT_SECONDS))
        expect(queue.consume(), True)
    expect(sorted(got), [b"a", b"b"])


@check("Counter: six clients, no increment lost")
def _(t):
    def work(client, _n):
        counter = client.Counter(t.path)
        for _ in range(20):
            counter += 1

    t.in_threads(6, work)
    expect(t.client().Counter(t.path).value, 120)


@check("Party: members join, leave and die")
def _(t):
    one, two = t.client(), t.client()
    party, other = one.Party(t.path, "one"), two.Party(t.path, "two")
    party.join()
    other.join()
    expect(sorted(party), ["one", "two"])
    other.leave()
    expect(list(party), ["one"])
    shallow = two.ShallowParty(t.path + "-shallow", "s")
    shallow.join()
    expect(len(one.ShallowParty(t.path + "-shallow")), 1)
    two.stop()
    expect(len(one.ShallowParty(t.path + "-shallow")), 0)


@check("ChildrenWatch: ends with the last list")
def _(t):
    watcher, writer = t.client(), t.client()
    writer.ensure_path(t.path)
    lists = []
    watcher.ChildrenWatch(t.path, lambda names: lists.append(sorted(names)))
    for n in range(30):
        writer.create(f"{t.path}/{n:02}")
    writer.delete(f"{t.path}/00")
    until(lambda: lists[-1] == [f"{n:02}" for n in range(1, 30)], "the last list")


@check("DataWatch: missing, created, changed, deleted, created again; versions go up")
def _(t):
    watcher, writer = t.client(), t.client()
    seen = []
    watcher.DataWatch(t.path, lambda data, stat, event: seen.append((data, event.type if event else None)))
    until(lambda: seen == [(None, None)], "the first call")
    writer.create(t.path, b"1")
    until(lambda: seen[-1] == (b"1", "CREATED"), "created")
    writer.set(t.path, b"2")
    until(lambda: seen[-1] == (b"2", "CHANGED"), "changed")
    writer.delete(t.path)
    until(lambda: seen[-1] == (None, "DELETED"), "deleted")
    writer.create(t.path, b"3")
    until(lambda: seen[-1][0] == b"3", "created again")


# ---- transactions --------------------------------------------------------------------------------------------


@check("TransactionRequest: success of every kind")
def _(t):
    client = t.client()
    client.create(t.path, b"0")
    transaction = client.transaction()
    transaction.create(t.path + "/a", b"1")
    transaction.check(t.path, 0)
    transaction.set_data(t.path, b"2", 0)
    transaction.create(t.path + "/s-", sequence=True)
    transaction.create(t.path + "/e", ephemeral=True)
    transaction.delete(t.path + "/a")
    results = transaction.commit()
    expect((results[0], results[1], results[2].version), (t.path + "/a", True, 1))
    expect((results[3], results[4], results[5]), (t.path + "/s-0000000001", t.path + "/e", True))
    expect(client.exists(t.path + "/e").ephemeralOwner, client.client_id[0])


@check("TransactionRequest: failure names its place, nothing is applied")
def _(t):
    client = t.client()
    client.create(t.path, b"0")
    failures = [
        (lambda r: r.create(t.path), NodeExistsError),
        (lambda r: r.create(t.path + "/no/no"), NoNodeError),
        (lambda r: r.delete(t.path + "/no"), NoNodeError),
        (lambda r: r.set_data(t.path, b"", 7), BadVersionError),
        (lambda r: r.check(t.path, 7), BadVersionError),
        (lambda r: r.check(t.path + "/no", -1), NoNodeError),
    ]
    for act, kind in failures:
        transaction = client.transaction()
        transaction.create(t.path + "/a")
        act(transaction)
        transaction.create(t.path + "/b")
        got = [type(result) for result in transaction.commit()]
        expect(got, [RolledBackError, kind, RuntimeInconsistency])
    expect((client.get_children(t.path), client.exists(t.path).version), ([], 0))


# ---- nodes ---------------------------------------------------------------------------------------------------


@check("create, get, set, exists, delete, with versions")
def _(t):
    client = t.client()
    expect(client.create(t.path, b"one"), t.path)
    data, stat = client.get(t.path)
    expect((data, stat.version, stat.dataLength), (b"one", 0, 3))
    expect(client.set(t.path, b"two", 0).version, 1)
    expect_raises(BadVersionError, client.set, t.path, b"", 0)
    expect_raises(BadVersionError, client.delete, t.path, 0)
    expect_raises(NodeExistsError, client.create, t.path)
    client.create(t.path + "/kid")
    expect_raises(NotEmptyError, client.delete, t.path)
    client.delete(t.path, recursive=True)
    expect(client.exists(t.path), None)
    expect_raises(NoNodeError, client.get, t.path)


@check("create with makepath, ensure_path, recursive delete of a deep tree")
def _(t):
    client = t.client()
    client.create(t.path + "/a/b/c/d", b"x", makepath=True)
    client.ensure_path(t.path + "/a/e/f/g")
    expect(sorted(client.get_children(t.path + "/a")), ["b", "e"])
    client.delete(t.path, recursive=True)
    expect(client.exists(t.path), None)


@check("sequence nodes: concurrent creators get each number once")
def _(t):
    t.client().ensure_path(t.path)
    got = t.in_threads(5, lambda client, _n: [client.create(t.path + "/s-", sequence=True) for _ in range(40)])
    expect(sorted(int(path[-10:]) for paths in got for path in paths), list(range(200)))


@check("create with include_data: path and Stat (create2)")
def _(t):
    client = t.client()
    path, stat = client.create(t.path, b"12345", include_data=True)
    expect((path, stat.dataLength, stat.version, stat.czxid == stat.mzxid), (t.path, 5, 0, True))
    names, stat = client.get_children("/", include_data=True)
    expect((t.path[1:] in names, stat.numChildren), (True, len(names)))


@check("ephemerals go when the session is closed")
def _(t):
    one, two = t.client(), t.client()
    one.create(t.path, ephemeral=True)
    gone = threading.Event()
    stat = two.exists(t.path, watch=lambda event: gone.set() if event.type == "DELETED" else None)
    expect(stat.ephemeralOwner, one.client_id[0])
    one.stop()
    expect(gone.wait(5), True)


@check("ephemerals go when the session expires without a word")
def _(t):
    one, two = t.client(timeout=1.0), t.client()
    one.create(t.path, ephemeral=True)
    gone = threading.Event()
    two.exists(t.path, watch=lambda event: gone.set())
    # Cut for good: the connection is broken and the client finds nobody to go to.
    one.set_hosts("127.0.0.1:1")
    one._connection._socket.shutdown(socket.SHUT_RDWR)
    expect(gone.wait(WAIT_SECONDS), True)
    expect(two.exists(t.path), None)


@check("nodes close to 1 MB")
def _(t):
    client = t.client()
    data = os.urandom(1024 * 1023)
    client.create(t.path, data)
    expect(client.get(t.path)[0] == data, True)
    for n in range(5):
        client.set(t.path, bytes([n]) * len(data))
    expect(client.get(t.path)[0], bytes([4]) * len(data))


@check("ten thousand children")
def _(t):
    client = t.client()
    client.create(t.path)
    pending = [client.create_async(f"{t.path}/child-{n:05}") for n in range(10000)]
    for result in pending:
        result.get(WAIT_SECONDS)
    expect(sorted(client.get_children(t.path)), [f"child-{n:05}" for n in range(10000)])
    expect(client.exists(t.path).numChildren, 10000)
    for result in [client.delete_async(f"{t.path}/child-{n:05}") for n in range(10000)]:
        result.get(WAIT_SECONDS)
    expect(client.get_children(t.path), [])


@check("10000 pipelined requests: replies in order")
def _(t):
    client = t.client()
    client.create(t.path)
    order, pending = [], []
    for n in range(10000):
        result = client.set_async(t.path, str(n).encode()) if n % 2 else client.get_async(t.path)
        result.rawlink(lambda _result, n=n: order.append(n))
        pending.append(result)
    values = [result.get(WAIT_SECONDS) for result in pending]
    until(lambda: len(order) == 10000, "all callbacks")
    expect(order, list(range(10000)))
    expect([v.version for v in values[1::2]], list(range(1, 5001)))
    expect([v[0] for v in values[2::2]], [str(n).encode() for n in range(1, 9999, 2)])


@check("chroot: paths are relative to it, for reads, events and sequence nodes")
def _(t):
    outside = t.client()
    outside.create(t.path)
    inside = t.client(hosts=t.address + t.path)
    expect(inside.create("/a", b"x"), "/a")
    expect(outside.get(t.path + "/a")[0], b"x")
    expect(inside.create("/s-", sequence=True), "/s-0000000001")
    events = []
    inside.exists("/b", watch=events.append)
    outside.create(t.path + "/b")
    until(lambda: events, "the event")
    expect((events[0].type, events[0].path), ("CREATED", "/b"))
    expect(sorted(inside.get_children("/")), ["a", "b", "s-0000000001"])


@check("sync, then get")
def _(t):
    one, two = t.client(), t.client()
    one.create(t.path, b"0")
    for n in range(50):
        one.set(t.path, str(n).encode())
        two.sync(t.path)
        expect(two.get(t.path)[0], str(n).encode())


# ---- ACLs ----------------------------------------------------------------------------------------------------


@check("ACL: digest, set and read back, NOAUTH without")
def _(t):
    owner, other = t.client(auth_data=[("digest", "alice:secret")]), t.client()
    acl = make_digest_acl("alice", "secret", all=True)
    owner.create(t.path, b"x", acl=[acl])
    got, stat = owner.get_acls(t.path)
    expect((got, stat.aversion), ([acl], 0))
    for act in (other.get, other.get_children, other.get_acls, other.exists):
        expect_raises(NoAuthError, act, t.path)
    expect_raises(NoAuthError, other.set, t.path, b"")
    expect_raises(NoAuthError, other.create, t.path + "/kid")
    expect_raises(NoAuthError, other.set_acls, t.path, OPEN_ACL_UNSAFE)
    other.add_auth("digest", "alice:secret")
    expect(other.get(t.path)[0], b"x")


@check("ACL: set_acls with versions, read-only for the world")
def _(t):
    owner, other = t.client(auth_data=[("digest", "alice:secret")]), t.client()
    owner.create(t.path, b"x")
    acls = [make_digest_acl("alice", "secret", all=True), make_acl("world", "anyone", read=True)]
    expect(owner.set_acls(t.path, acls, 0).aversion, 1)
    expect_raises(BadVersionError, owner.set_acls, t.path, acls, 0)
    expect(other.get(t.path)[0], b"x")
    expect_raises(NoAuthError, other.set, t.path, b"y")
    masked = other.get_acls(t.path)[0][0]
    expect(masked.id.id, "alice:x")
    expect(owner.get_acls(t.path)[0][0].id.id, make_digest_acl_credential("alice", "secret"))


@check("ACL: the scheme auth, wrong credentials, delete needs the parent")
def _(t):
    owner, other = t.client(), t.client(auth_data=[("digest", "alice:wrong")])
    owner.add_auth("digest", "alice:secret")
    owner.create(t.path, b"x", acl=[make_acl("auth", "", all=True)])
    owner.create(t.path + "/kid", b"x")
    expect_raises(NoAuthError, other.get, t.path)
    expect_raises(NoAuthError, other.delete, t.path + "/kid")
    expect(other.get(t.path + "/kid")[0], b"x")
    owner.delete(t.path + "/kid")


@check("ACL: invalid lists are refused")
def _(t):
    client = t.client()
    expect_raises(InvalidACLError, client.create, t.path, acl=[make_acl("auth", "", all=True)])
    expect_raises(InvalidACLError, client.create, t.path, acl=[make_acl("nosuch", "x", all=True)])


@check("ACL: identities are given again after a reconnect")
def _(t):
    client = t.client(auth_data=[("digest", "alice:secret")])
    client.create(t.path, b"x", acl=[make_digest_acl("alice", "secret", all=True)])
    cut(client)
    expect(client.get(t.path)[0], b"x")


# ---- reconnects ----------------------------------------------------------------------------------------------


@check("cut connection: the session goes on, ephemerals stay")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, ephemeral=True)
    for _ in range(5):
        cut(client)
        expect(other.exists(t.path).ephemeralOwner, client.client_id[0])
    client.delete(t.path)


@check("cut connection: DataWatch and ChildrenWatch go on")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, b"0")
    values, lists = [], []
    client.DataWatch(t.path, lambda data, stat: values.append(data))
    client.ChildrenWatch(t.path, lambda names: lists.append(sorted(names)))
    cut(client)
    other.set(t.path, b"1")
    until(lambda: values[-1] == b"1", "the new value")
    other.create(t.path + "/a")
    until(lambda: lists[-1] == ["a"], "the new child")
    cut(client)
    other.create(t.path + "/b")
    until(lambda: lists[-1] == ["a", "b"], "the second child")


@check("cut connection: a held lock stays held")
def _(t):
    one, two = t.client(), t.client()
    lock = one.Lock(t.path)
    lock.acquire()
    cut(one)
    expect(two.Lock(t.path).acquire(blocking=False), False)
    lock.release()
    expect(two.Lock(t.path).acquire(timeout=5), True)


@check("connection cut every 150 ms: retried requests succeed, no acknowledged write is lost")
def _(t):
    client = t.client()
    client.create(t.path, b"0")
    stop = threading.Event()

    def cutter():
        while not stop.wait(0.15):
            try:
                client._connection._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    thread = threading.Thread(target=cutter, daemon=True)
    thread.start()
    try:
        acknowledged = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.retry(client.set, t.path, b"x")
            acknowledged += 1
            # A write whose reply was cut off is sent again, so there may be more versions than answers, never fewer.
            expect(client.retry(client.get, t.path)[1].version >= acknowledged, True, "versions")
    finally:
        stop.set()
        thread.join()
    until(lambda: client.connected, "connected in the end")
    client.retry(client.get, t.path)


@check("session expiry: state LOST, ephemerals gone, a new session, watches of recipes go on")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, b"0")
    client.create(t.path + "/e", ephemeral=True)
    values = []
    client.DataWatch(t.path, lambda data, stat: values.append(data))
    expire(t, client)
    expect(other.exists(t.path + "/e"), None)
    other.set(t.path, b"1")
    until(lambda: values[-1] == b"1", "the value after expiry")


@check("a second client takes the session over by id and password; the first loses its connection")
def _(t):
    client = t.client()
    client.create(t.path, ephemeral=True)
    session = client.client_id
    # So that the first does not come back and take it over in turn.
    client.set_hosts("127.0.0.1:1")
    second = t.client(client_id=session)
    expect(second.client_id, session)
    expect(second.exists(t.path).ephemeralOwner, session[0])
    until(lambda: not client.connected, "the first connection closed")


@check("a restarted client: start, stop and start again")
def _(t):
    client = t.client()
    client.create(t.path, ephemeral=True)
    client.restart()
    until(lambda: client.connected, "connected")
    expect(client.exists(t.path), None)


@check("server_version and four-letter words")
def _(t):
    client = t.client()
    expect(client.command(b"ruok"), "imok")
    expect(client.server_version()[0] >= 3, True)


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: kazoo_suite.py HOST:PORT [ONLY]")
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TOTAL_SECONDS_MAX)
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
        line = [frame.lineno for frame in frames if frame.filename == __file__][-1]
        print(f"FAIL {name}: {type(error).__name__} {error} at line {line}", flush=True)
        return False
    finally:
        t.close()


def out_of_time(_signal, _frame):
    print(f"FAIL not finished within {TOTAL_SECONDS_MAX} seconds\n0 passed, 1 failed", flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
