"""Order on one connection and between two."""

import threading

import zkraw as z
from harness import check, expect, expect_true, table
from zkraw import CHILDREN_CHANGED, CREATED, DATA_CHANGED, DELETED, Event, Reply


def kinds(trace):
    """The trace as short words: e<type> for events, r<xid> for replies."""
    return [f"e{p.type}" if isinstance(p, Event) else f"r{p.xid}" for p in trace]


@table(
    "own write: its event comes before its reply",
    [
        ("create", z.CREATE, lambda p: z.create(p + "/new"), lambda c, p: c.exists(p + "/new", True), CREATED),
        (
            "create, child watch",
            z.CREATE,
            lambda p: z.create(p + "/new"),
            lambda c, p: c.children(p, True),
            CHILDREN_CHANGED,
        ),
        ("setData", z.SET_DATA, lambda p: z.set_data(p), lambda c, p: c.get(p, True), DATA_CHANGED),
        ("delete", z.DELETE, lambda p: z.path_version(p), lambda c, p: c.get(p, True), DELETED),
        ("multi", z.MULTI, lambda p: z.multi((z.SET_DATA, z.set_data(p))), lambda c, p: c.get(p, True), DATA_CHANGED),
    ],
)
def _(t, opcode, body, arm, kind):
    client = t.client()
    path = t.node(client)
    arm(client, path)
    client.trace.clear()
    client.send(opcode, body(path), 5)
    client.reply()
    expect(kinds(client.trace), [f"e{kind}", "r5"])


@check("pipelined: reads with watches, writes, events and replies in their places")
def _(t):
    client = t.client()
    path = t.node(client)
    client.trace.clear()
    client.send(z.GET_DATA, z.path_watch(path, True), 1)
    client.send(z.SET_DATA, z.set_data(path, b"2"), 2)
    client.send(z.GET_DATA, z.path_watch(path, True), 3)
    client.send(z.SET_DATA, z.set_data(path, b"4"), 4)
    client.send(z.SET_DATA, z.set_data(path, b"5"), 5)
    client.send(z.GET_DATA, z.path_watch(path), 6)
    while len(client.trace) < 8:
        client.read_packet()
    expect(kinds(client.trace), ["r1", "e3", "r2", "r3", "e3", "r4", "r5", "r6"])
    got = {p.xid: z.decode_reply(z.GET_DATA, p)[0] for p in client.trace if isinstance(p, Reply) and p.xid in (1, 3, 6)}
    expect(got, {1: b"", 3: b"2", 6: b"5"})


@check("pipelined: a read sees no later write of its own connection")
def _(t):
    client = t.client()
    for _ in range(100):
        path = t.name()
        client.send(z.EXISTS, z.path_watch(path, True))
        client.send(z.CREATE, z.create(path))
        client.send(z.EXISTS, z.path_watch(path))
        expect([client.reply().err for _ in range(3)], [z.NO_NODE, 0, 0])
        expect([(e.type, e.path) for e in client.events], [(CREATED, path)])
        client.events.clear()


@check("pipelined: 10000 mixed requests, replies in order, every write visible to the read behind it")
def _(t):
    client = t.client()
    path = t.node(client)

    def write():
        for n in range(5000):
            client.send(z.SET_DATA, z.set_data(path, str(n).encode()), 2 * n + 1)
            client.send(z.GET_DATA, z.path_watch(path), 2 * n + 2)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for n in range(5000):
        set_reply, get_reply = client.reply(), client.reply()
        expect((set_reply.xid, get_reply.xid), (2 * n + 1, 2 * n + 2))
        expect(z.decode_reply(z.GET_DATA, get_reply)[0], str(n).encode())
        expect(z.decode_reply(z.SET_DATA, set_reply)[0].version, n + 1)
    writer.join(10)


@check("pipelined: errors, reads, writes, pings and syncs keep their order")
def _(t):
    client = t.client()
    path = t.node(client)
    steps = [
        (z.CREATE, z.create(path)),
        (z.EXISTS, z.path_watch("/none")),
        (z.PING, b""),
        (z.SET_DATA, z.set_data(path)),
        (z.GET_DATA, b""),
        (z.SYNC, z.path_only(path)),
        (z.MULTI, z.multi()),
        (z.CHECK_WATCHES, z.path_type(path, 3)),
        (z.DELETE, z.path_version("/none")),
        (z.GET_CHILDREN, z.path_watch("/")),
    ] * 30
    for n, (opcode, body) in enumerate(steps):
        client.send(opcode, body, -2 if opcode == z.PING else n)
    got = [client.reply().xid for _ in steps]
    expect(got, [-2 if opcode == z.PING else n for n, (opcode, _b) in enumerate(steps)])


@check("header zxids of one connection never go down")
def _(t):
    client, other = t.client(), t.client()
    paths = [t.node(client) for _ in range(10)]
    for n in range(300):
        other.send(z.SET_DATA, z.set_data(paths[n % 10], b"x"))
        client.send(z.GET_DATA, z.path_watch(paths[n % 10], True))
        client.send(z.SET_DATA, z.set_data(paths[(n + 5) % 10], b"y"))
    replies = [client.reply() for _ in range(600)]
    expect([reply.err for reply in replies], [0] * 600)
    for _ in range(300):
        other.reply()
    zxids = [packet.zxid for packet in client.trace]
    expect(zxids, sorted(zxids))


@check("two clients: a write answered to one is seen by the other")
def _(t):
    one, two = t.client(), t.client()
    paths = [t.node(one) for _ in range(8)]
    for n in range(400):
        path = paths[n % 8]
        expect(one.set(path, str(n).encode())[0], 0)
        expect(two.get(path)[1], str(n).encode(), f"round {n}")


@check("two clients: an event is seen before the state it tells of, or a newer one")
def _(t):
    reader, writer = t.client(), t.client()
    paths = [t.node(writer) for _ in range(4)]
    for n in range(200):
        path = paths[n % 4]
        reader.events.clear()
        reader.get(path, True)
        writer.send(z.SET_DATA, z.set_data(path, str(n).encode()))
        for _ in range(3):
            reader.send(z.GET_DATA, z.path_watch(path))
        reader.trace.clear()
        told = False
        for _ in range(3):
            value = z.decode_reply(z.GET_DATA, reader.reply())[0]
            told = any(isinstance(p, Event) for p in reader.trace)
            expect_true(value != str(n).encode() or told, f"round {n}: the new value before its event")
        writer.reply()
        expect(len(reader.take_events()), 1, f"round {n}: events")


@check("two clients: a multi is seen whole or not at all")
def _(t):
    writer, reader = t.client(), t.client()
    paths = [t.node(writer, b"0") for _ in range(6)]
    for n in range(1, 201):
        writer.send(z.MULTI, z.multi(*[(z.SET_DATA, z.set_data(path, str(n).encode())) for path in paths]))
        _err, entries = reader.ask(z.MULTI_READ, z.multi(*[(z.GET_DATA, z.path_watch(path)) for path in paths]))
        expect(len({value[0] for _k, _e, value in entries}), 1, f"round {n}: values in one multiRead")
        reads = []
        for path in paths:
            reader.send(z.GET_DATA, z.path_watch(path))
        for _ in paths:
            reads.append(int(z.decode_reply(z.GET_DATA, reader.reply())[0]))
        expect(reads, sorted(reads), f"round {n}: values of reads in a row never go back")
        expect(writer.reply().err, 0)


@check("two clients: events of one server arrive in zxid order")
def _(t):
    watcher, one, two = t.client(), t.client(), t.client()
    base = t.node(watcher)
    watcher.add_watch(base, z.RECURSIVE_WATCH)
    for n in range(200):
        one.send(z.CREATE, z.create(f"{base}/one-{n}"))
        two.send(z.CREATE, z.create(f"{base}/two-{n}"))
    for _ in range(200):
        one.reply()
        two.reply()
    events = (watcher.ping(), watcher.events)[1]
    zxids = [event.zxid for event in events]
    expect((len(zxids), zxids == sorted(zxids)), (400, True))


@check("two clients: of two conditional writes with the same version one wins")
def _(t):
    one, two = t.client(), t.client()
    path = t.node(one)
    for version in range(100):
        one.send(z.SET_DATA, z.set_data(path, b"1", version))
        two.send(z.SET_DATA, z.set_data(path, b"2", version))
        expect(sorted([one.reply().err, two.reply().err]), [z.BAD_VERSION, 0], f"version {version}")


@check("many connections: sequential creates of one parent get each number once")
def _(t):
    clients = [t.client() for _ in range(10)]
    base = t.node(clients[0])
    for client in clients:
        for _ in range(50):
            client.send(z.CREATE, z.create(base + "/s-", flags=z.SEQUENTIAL))
    got = [[int(z.decode_reply(z.CREATE, client.reply())[0][-10:]) for _ in range(50)] for client in clients]
    expect(sorted(sum(got, [])), list(range(500)))
    expect_true(all(numbers == sorted(numbers) for numbers in got), "each connection's numbers go up")
