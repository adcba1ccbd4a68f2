"""multi and multiRead."""

import struct

import zkraw as z
from harness import check, expect, expect_closed, table


def create(path, data=b"", **fields):
    return z.CREATE, z.create(path, data, **fields)


def delete(path, version=-1):
    return z.DELETE, z.path_version(path, version)


def set_data(path, data=b"", version=-1):
    return z.SET_DATA, z.set_data(path, data, version)


def verify(path, version=-1):
    return z.CHECK, z.path_version(path, version)


def failed(*errs):
    """The body of a failed multi, by hand."""
    return b"".join(z.multi_header(-1, False, e) + z.i32(e) for e in errs) + z.MULTI_END


# ---- success -------------------------------------------------------------------------------------------------


@check("multi: every kind, to the byte, in one zxid")
def _(t):
    client = t.client()
    base = t.node(client)
    reply = client.call(
        z.MULTI,
        z.multi(
            create(base + "/a", b"1"),
            (z.CREATE2, z.create(base + "/b", b"22")),
            set_data(base + "/a", b"333"),
            verify(base + "/a", 1),
            delete(base + "/b"),
        ),
    )
    _, created, changed = z.CREATE, *[v for _k, _e, v in z.decode_multi(reply.body) if isinstance(v, (tuple, z.Stat))]
    stat_b, stat_a = created[1], changed
    raw = (
        z.multi_header(1, False, 0)
        + z.ustring(base + "/a")
        + z.multi_header(15, False, 0)
        + z.ustring(base + "/b")
        + pack(stat_b)
        + z.multi_header(5, False, 0)
        + pack(stat_a)
        + z.multi_header(13, False, 0)
        + z.multi_header(2, False, 0)
        + z.MULTI_END
    )
    expect((reply.err, reply.body), (0, raw))
    zxid = reply.zxid
    expect((stat_b.czxid, stat_b.data_length, stat_b.num_children), (zxid, 2, 0))
    expect((stat_a.czxid, stat_a.mzxid, stat_a.version, stat_a.data_length), (zxid, zxid, 1, 3))
    expect(stat_a.ctime, stat_a.mtime, "one time for the whole multi")


def pack(stat):
    return struct.pack(">qqqqiiiqiiq", *stat)


@check("multi: empty succeeds with the terminator alone and takes a zxid")
def _(t):
    client = t.client()
    last = client.ping().zxid
    reply = client.call(z.MULTI, z.multi())
    expect((reply.zxid, reply.err, reply.body), (last + 1, 0, z.MULTI_END))


@check("multi: later operations see earlier ones")
def _(t):
    client = t.client()
    base = t.node(client)
    err, entries = client.multi(
        create(base + "/a"),
        create(base + "/a/b"),
        create(base + "/a/s-", flags=z.SEQUENTIAL),
        create(base + "/a/s-", flags=z.SEQUENTIAL),
        set_data(base + "/a", b"x", 0),
        set_data(base + "/a", b"y", 1),
        verify(base + "/a", 2),
        delete(base + "/a/b"),
    )
    expect((err, {e for _k, e, _v in entries}), (0, {0}))
    expect([entries[2][2], entries[3][2]], [base + "/a/s-0000000001", base + "/a/s-0000000002"])
    expect(client.get(base + "/a")[1], b"y")


@check("multi: a node created, deleted and created again")
def _(t):
    client = t.client()
    path = t.name()
    err, entries = client.multi(create(path, b"1"), delete(path), create(path, b"2"))
    expect((err, [e for _k, e, _v in entries]), (0, [0, 0, 0]))
    expect(client.get(path)[1], b"2")


@check("multi: each Stat is the one right after its operation")
def _(t):
    client = t.client()
    base = t.node(client)
    _err, entries = client.multi(
        set_data(base, b"1"), create(base + "/a"), set_data(base, b"22"), create(base + "/b"), set_data(base, b"333")
    )
    stats = [v for _k, _e, v in entries if isinstance(v, z.Stat)]
    expect(
        [(s.version, s.data_length, s.num_children, s.cversion) for s in stats],
        [(1, 1, 0, 0), (2, 2, 1, 1), (3, 3, 2, 2)],
    )


@check("multi: an ephemeral belongs to the session")
def _(t):
    client, other = t.client(), t.client()
    path = t.name()
    client.multi(create(path, flags=z.EPHEMERAL))
    expect(other.stat(path).owner, client.session.id)
    client.end()
    expect(other.exists(path)[0], z.NO_NODE)


@check("multi: parent of several creates counts each, pzxid is the multi's")
def _(t):
    client = t.client()
    base = t.node(client)
    reply = client.call(z.MULTI, z.multi(*[create(f"{base}/{n}") for n in range(5)], delete(base + "/0")))
    stat = client.stat(base)
    expect((stat.num_children, stat.cversion, stat.pzxid), (4, 6, reply.zxid))


@check("multi: a thousand operations")
def _(t):
    client = t.client()
    base = t.node(client)
    _err, entries = client.multi(*[create(base + "/s-", flags=z.SEQUENTIAL) for _ in range(1000)])
    expect([v for _k, _e, v in entries], [f"{base}/s-{n:010}" for n in range(1000)])


# ---- failure -------------------------------------------------------------------------------------------------


@check("failed multi: header err 0, entries 0, the code, -2, to the byte")
def _(t):
    client = t.client()
    base = t.node(client)
    reply = client.call(
        z.MULTI, z.multi(create(base + "/a"), delete(base + "/none"), create(base + "/b"), verify(base))
    )
    expect((reply.err, reply.body), (0, failed(0, z.NO_NODE, -2, -2)))
    expect(client.children(base)[1], [])


FAILURES = [
    ("create: node exists", lambda b: create(b + "/there"), z.NODE_EXISTS),
    ("create: parent missing", lambda b: create(b + "/no/no"), z.NO_NODE),
    ("create: bad path", lambda b: create(b + "/.."), z.BAD_ARGUMENTS),
    ("create: bad ACL", lambda b: create(b + "/x", acl=[]), z.INVALID_ACL),
    ("create: no permission", lambda b: create(b + "/shut/x"), z.NO_AUTH),
    ("create: ephemeral parent", lambda b: create(b + "/ephemeral/x"), z.NO_CHILDREN_FOR_EPHEMERALS),
    ("create2: node exists", lambda b: (z.CREATE2, z.create(b + "/there")), z.NODE_EXISTS),
    ("delete: missing", lambda b: delete(b + "/none"), z.NO_NODE),
    ("delete: version", lambda b: delete(b + "/there", 9), z.BAD_VERSION),
    ("delete: children", lambda b: delete(b), z.NOT_EMPTY),
    ("setData: missing", lambda b: set_data(b + "/none"), z.NO_NODE),
    ("setData: version", lambda b: set_data(b, b"", 9), z.BAD_VERSION),
    ("setData: no permission", lambda b: set_data(b + "/shut"), z.NO_AUTH),
    ("check: missing", lambda b: verify(b + "/none"), z.NO_NODE),
    ("check: version", lambda b: verify(b, 9), z.BAD_VERSION),
    ("check: no permission", lambda b: verify(b + "/shut"), z.NO_AUTH),
]


@table("failed multi", FAILURES)
def _(t, operation, err):
    client = t.client()
    base = t.node(client)
    client.create(base + "/there")
    client.create(base + "/ephemeral", flags=z.EPHEMERAL)
    client.create(base + "/shut", acl=[z.Acl(0, "world", "anyone")])
    before = client.stat(base), client.stat(base + "/there")
    reply = client.call(z.MULTI, z.multi(set_data(base + "/there", b"new"), operation(base), create(base + "/later")))
    expect((reply.err, reply.body), (0, failed(0, err, -2)))
    expect((client.stat(base), client.stat(base + "/there")), before, "Stats afterwards")


@check("failed multi: the first operation fails")
def _(t):
    client = t.client()
    expect(client.call(z.MULTI, z.multi(delete("/none"), delete("/none"))).body, failed(z.NO_NODE, -2))


@check("failed multi: takes a zxid, shown in the reply")
def _(t):
    client = t.client()
    last = client.ping().zxid
    expect(client.call(z.MULTI, z.multi(delete("/none"))).zxid, last + 1)
    expect(client.ping().zxid, last + 1)


@check("failed multi: sequence numbers are given back")
def _(t):
    client = t.client()
    base = t.node(client)
    client.multi(create(base + "/s-", flags=z.SEQUENTIAL), create(base + "/s-", flags=z.SEQUENTIAL), delete("/none"))
    expect(client.create(base + "/s-", flags=z.SEQUENTIAL)[1], base + "/s-0000000000")


@check("failed multi: pipelined with writes on the same nodes, nothing of it shows")
def _(t):
    client = t.client()
    base = t.node(client)
    client.send(z.SET_DATA, z.set_data(base, b"1", 0))
    client.send(z.MULTI, z.multi(set_data(base, b"2", 1), create(base + "/a"), set_data(base, b"3", 9)))
    client.send(z.SET_DATA, z.set_data(base, b"4", 1))
    client.send(z.CREATE, z.create(base + "/s-", flags=z.SEQUENTIAL))
    replies = [client.reply() for _ in range(4)]
    expect([r.err for r in replies], [0, 0, 0, 0])
    expect(replies[1].body, failed(0, 0, z.BAD_VERSION))
    expect(z.decode_reply(z.CREATE, replies[3])[0], base + "/s-0000000000")
    expect(client.get(base)[1], b"4")


@check("failed multi: a node it would have created does not exist for the next request")
def _(t):
    client = t.client()
    path = t.name()
    client.send(z.MULTI, z.multi(create(path), delete("/none")))
    client.send(z.CREATE, z.create(path + "/child"))
    client.send(z.CREATE, z.create(path))
    expect([client.reply().err for _ in range(3)], [0, z.NO_NODE, 0])


@check("failed multi: a delete and an ephemeral create undone")
def _(t):
    client, other = t.client(), t.client()
    base = t.node(other)
    other.create(base + "/e", flags=z.EPHEMERAL)
    client.multi(delete(base + "/e"), create(base + "/e", flags=z.EPHEMERAL), delete("/none"))
    expect(other.stat(base + "/e").owner, other.session.id)
    client.end()
    expect(other.exists(base + "/e")[0], 0)


# ---- malformed -----------------------------------------------------------------------------------------------

READS = (z.GET_DATA, z.path_watch("/"))
MALFORMED = [
    ("only reads", z.multi(READS)),
    ("a read after a write", z.multi(create("/malformed"), READS)),
    ("a write after a read", z.multi(READS, create("/malformed"))),
    ("sync", z.multi(create("/malformed"), (z.SYNC, z.path_only("/")))),
    ("exists", z.multi((z.EXISTS, z.path_watch("/")))),
    ("setACL", z.multi((z.SET_ACL, z.set_acl("/")))),
    ("a multi inside", z.multi((z.MULTI, z.multi()))),
    ("deleteContainer", z.multi((z.DELETE_CONTAINER, z.path_only("/malformed")))),
    ("unknown type 77", z.multi((77, b""))),
    ("type -1 that is not the end", z.multi((-1, z.i32(0)))),
    ("a create with unknown flags", z.multi(create("/malformed", flags=9))),
    ("no terminator", z.multi(create("/malformed"))[: -len(z.MULTI_END)]),
]


@table("multi: -5 for the whole packet", MALFORMED)
def _(t, body):
    client = t.client()
    reply = client.call(z.MULTI, body)
    expect((reply.err, reply.body), (z.MARSHALLING_ERROR, b""))
    expect(client.exists("/malformed")[0], z.NO_NODE)


@table(
    "multi: a malformed one takes no zxid, as any malformed write",
    MALFORMED,
    deviates={title: "takes one, as no other malformed write does" for title, _ in MALFORMED},
)
def _(t, body):
    client = t.client()
    before = client.ping().zxid
    expect(client.call(z.MULTI, body).zxid, before, "zxid of the reply")
    expect(client.ping().zxid, before, "last zxid afterwards")


# ---- multiRead -----------------------------------------------------------------------------------------------


def get(path, watch=False):
    return z.GET_DATA, z.path_watch(path, watch)


def children(path, watch=False):
    return z.GET_CHILDREN, z.path_watch(path, watch)


@check("multiRead: data and children, to the byte")
def _(t):
    client = t.client()
    path = t.node(client, b"data")
    client.create(path + "/kid")
    last = client.ping().zxid
    reply = client.call(z.MULTI_READ, z.multi(get(path), children(path)))
    stat = client.stat(path)
    raw = (
        z.multi_header(4, False, 0)
        + z.buffer(b"data")
        + pack(stat)
        + z.multi_header(8, False, 0)
        + z.vector(["kid"], z.ustring)
        + z.MULTI_END
    )
    expect((reply.zxid, reply.err, reply.body), (last, 0, raw))


@check("multiRead: one failure does not stop the others")
def _(t):
    client = t.client()
    path = t.node(client, b"x")
    err, entries = client.ask(z.MULTI_READ, z.multi(get("/none"), get(path), children("/none"), children(path)))
    expect((err, [(k, e) for k, e, _v in entries]), (0, [(-1, z.NO_NODE), (4, 0), (-1, z.NO_NODE), (8, 0)]))


@check("multiRead: NOAUTH per entry")
def _(t):
    client = t.client()
    path = t.node(client, acl=[z.Acl(z.WRITE, "world", "anyone")])
    _err, entries = client.ask(z.MULTI_READ, z.multi(get(path), children(path), get("/")))
    expect([(k, e) for k, e, _v in entries], [(-1, z.NO_AUTH), (-1, z.NO_AUTH), (4, 0)])


@check("multiRead: empty succeeds")
def _(t):
    reply = t.client().call(z.MULTI_READ, z.multi())
    expect((reply.err, reply.body), (0, z.MULTI_END))


@check("multiRead: watch flags are ignored")
def _(t):
    client = t.client()
    path = t.node(client)
    client.ask(z.MULTI_READ, z.multi(get(path, True), children(path, True)))
    client.set(path, b"x")
    client.create(path + "/c")
    expect(client.take_events(), [])


@table(
    "multiRead: -5 for",
    [
        ("a write", z.multi(get("/"), create("/malformed"))),
        ("only a write", z.multi(create("/malformed"))),
        ("exists", z.multi((z.EXISTS, z.path_watch("/")))),
        ("no terminator", z.multi(get("/"))[: -len(z.MULTI_END)]),
    ],
)
def _(t, body):
    client = t.client()
    expect(client.call(z.MULTI_READ, body).err, z.MARSHALLING_ERROR)
    expect(client.exists("/malformed")[0], z.NO_NODE)


@check("multi: cut off inside an operation, then the connection closed: nothing applied")
def _(t):
    client = t.client()
    path = t.name()
    body = z.i32(1) + z.i32(z.MULTI) + z.multi(create(path), create(path + "/b"))
    client.send_bytes(z.i32(len(body)) + body[:-20])
    client.close()
    expect(t.client().exists(path)[0], z.NO_NODE)


@check(
    "multi: after a refused opcode on the same connection nothing runs",
    deviates="may read and run further requests between the -6 and the close",
)
def _(t):
    client = t.client()
    path = t.name()
    client.send(999, b"", 1)
    try:
        client.send(z.MULTI, z.multi(create(path)), 2)
    except z.Closed:
        pass
    expect_closed(client, z.i32(16) + z.i32(1) + z.i64(-1) + z.i32(z.UNIMPLEMENTED))
    expect(t.client().exists(path)[0], z.NO_NODE)
