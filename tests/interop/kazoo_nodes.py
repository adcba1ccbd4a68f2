"""Transactions, nodes, big nodes, many children, pipelining and chroot through kazoo."""

import os
import socket
import threading

from kazoo.exceptions import (
    BadVersionError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)

from kazoo_harness import check, expect, expect_raises, until, WAIT_SECONDS

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
