"""checkWatches and removeWatches."""

import zkraw as z
from checks_watches import arm_children, arm_data, arm_exists, write_child, write_delete, write_set
from harness import check, expect, table
from zkraw import DATA_CHANGED


def arm(client, path, what):
    arms = {
        "data": lambda: arm_exists(client, path),
        "children": lambda: arm_children(client, path),
        "persistent": lambda: client.add_watch(path, z.PERSISTENT_WATCH),
        "recursive": lambda: client.add_watch(path, z.RECURSIVE_WATCH),
    }
    arms[what]()


TYPES = [
    ("children", z.W_CHILDREN),
    ("data", z.W_DATA),
    ("any", z.W_ANY),
    ("persistent", z.W_PERSISTENT),
    ("recursive", z.W_RECURSIVE),
]
KINDS = ("data", "children", "persistent", "recursive")
PAIRS = [
    (f"{kind} watch, type {title}", kind, number, 0 if title in (kind, "any") else z.NO_WATCHER)
    for kind in KINDS
    for title, number in TYPES
]


@table("checkWatches", PAIRS)
def _(t, kind, number, err):
    client = t.client()
    path = t.node(client)
    arm(client, path, kind)
    for _ in range(2):
        reply = client.call(z.CHECK_WATCHES, z.path_type(path, number))
        expect((reply.err, reply.body), (err, b""))


@table("removeWatches", PAIRS)
def _(t, kind, number, err):
    client = t.client()
    path = t.node(client)
    arm(client, path, kind)
    reply = client.call(z.REMOVE_WATCHES, z.path_type(path, number))
    expect((reply.err, reply.body), (err, b""))
    expect(client.ask(z.CHECK_WATCHES, z.path_type(path, z.W_ANY))[0], z.NO_WATCHER if err == 0 else 0)
    write_set(client, path)
    write_child(client, path)
    expect(bool(client.take_events()), err != 0, "events afterwards")


@table("checkWatches, removeWatches: unknown type gets -5", [("0", 0), ("6", 6), ("-1", -1)])
def _(t, number):
    client = t.client()
    for opcode in (z.CHECK_WATCHES, z.REMOVE_WATCHES):
        expect(client.ask(opcode, z.path_type("/", number))[0], z.MARSHALLING_ERROR)


@check("removeWatches any: takes every kind on the path")
def _(t):
    client = t.client()
    path = t.node(client)
    for kind in KINDS:
        arm(client, path, kind)
    expect(client.ask(z.REMOVE_WATCHES, z.path_type(path, z.W_ANY)), (0,))
    write_set(client, path)
    write_child(client, path)
    write_delete(client, path + "/child")
    expect(client.take_events(), [])


@check("removeWatches of one kind leaves the others")
def _(t):
    client = t.client()
    path = t.node(client)
    for kind in KINDS:
        arm(client, path, kind)
    for number, left in ((z.W_DATA, 3), (z.W_CHILDREN, 2), (z.W_PERSISTENT, 1), (z.W_RECURSIVE, 0)):
        expect(client.ask(z.REMOVE_WATCHES, z.path_type(path, number)), (0,))
        held = [n for _title, n in TYPES if n != z.W_ANY and client.ask(z.CHECK_WATCHES, z.path_type(path, n))[0] == 0]
        expect(len(held), left, f"kinds left after type {number}")


@check("removeWatches: only on that path, only of that connection")
def _(t):
    client, other = t.client(), t.client()
    one, two = t.node(client), t.node(client)
    for path in (one, two):
        arm_data(client, path)
        arm_data(other, path)
    client.ask(z.REMOVE_WATCHES, z.path_type(one, z.W_ANY))
    write_set(other, one)
    write_set(other, two)
    expect(client.take_events(), [(DATA_CHANGED, two)])
    expect(sorted(other.take_events()), sorted([(DATA_CHANGED, one), (DATA_CHANGED, two)]))


@check("checkWatches: nothing after the one-shot watch has fired")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    write_set(client, path)
    expect(client.ask(z.CHECK_WATCHES, z.path_type(path, z.W_ANY))[0], z.NO_WATCHER)


@check("checkWatches: a recursive watch does not count for paths below it")
def _(t):
    client = t.client()
    path = t.node(client)
    client.create(path + "/a")
    client.add_watch(path, z.RECURSIVE_WATCH)
    expect(client.ask(z.CHECK_WATCHES, z.path_type(path + "/a", z.W_ANY))[0], z.NO_WATCHER)


@check("removeWatches behind a pipelined read with watch takes that watch")
def _(t):
    client = t.client()
    path = t.node(client)
    client.send(z.GET_DATA, z.path_watch(path, True), 1)
    client.send(z.REMOVE_WATCHES, z.path_type(path, z.W_DATA), 2)
    expect([(r.xid, r.err) for r in (client.reply(), client.reply())], [(1, 0), (2, 0)])
    write_set(client, path)
    expect(client.take_events(), [])


BEHIND = [("checkWatches", z.CHECK_WATCHES), ("removeWatches", z.REMOVE_WATCHES)]
# Enough paths that on a server which spreads nodes over shards some are not at the connection's own.
PATHS = 12


@table("pipelined behind a read that fails with NONODE or NOAUTH, and so leaves no watch", BEHIND)
def _(t, opcode):
    client = t.client()
    for n in range(PATHS):
        path = t.name() if n % 2 else t.node(client, acl=[z.Acl(z.ALL & ~z.READ, "world", "anyone")])
        client.send(z.GET_CHILDREN, z.path_watch(path, True), 1)
        client.send(z.GET_DATA, z.path_watch(path, True), 2)
        client.send(opcode, z.path_type(path, z.W_ANY), 3)
        err = z.NO_NODE if n % 2 else z.NO_AUTH
        expect([client.reply().err for _ in range(3)], [err, err, z.NO_WATCHER], path)


@table("pipelined behind setWatches that catches up, and so arms nothing", BEHIND)
def _(t, opcode):
    client = t.client()
    for _ in range(PATHS):
        path, missing = t.node(client), t.name()
        client.send(z.SET_WATCHES, z.set_watches(0, data=[path, missing], exist=[path], child=[path, missing]), -8)
        client.send(opcode, z.path_type(path, z.W_ANY), 1)
        client.send(opcode, z.path_type(missing, z.W_ANY), 2)
        expect([client.reply().err for _ in range(3)], [0, z.NO_WATCHER, z.NO_WATCHER], path)


@table("pipelined behind setWatches that arms", BEHIND)
def _(t, opcode):
    client = t.client()
    for _ in range(PATHS):
        path = t.node(client)
        client.send(z.SET_WATCHES, z.set_watches(2**62, data=[path]), -8)
        client.send(opcode, z.path_type(path, z.W_DATA), 1)
        expect([client.reply().err for _ in range(2)], [0, 0], path)
