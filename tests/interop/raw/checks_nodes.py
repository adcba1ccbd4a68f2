"""create, delete, setData and the reads: Stats, sequence numbers, versions, zxids."""

import zkraw as z
from harness import check, expect, expect_true, table

# ---- replies -------------------------------------------------------------------------------------------------


@check("create: the reply is the path and nothing else")
def _(t):
    client = t.client()
    path = t.name()
    expect(client.call(z.CREATE, z.create(path)).body, z.ustring(path))


@check("create2: path and Stat, to the byte")
def _(t):
    client = t.client()
    path = t.name()
    reply = client.call(z.CREATE2, z.create(path, b"12345"))
    _path, stat = z.decode_reply(z.CREATE2, reply)
    wanted = z.Stat(reply.zxid, reply.zxid, stat.ctime, stat.ctime, 0, 0, 0, 0, 5, 0, reply.zxid)
    expect((_path, stat), (path, wanted))
    expect(client.stat(path), wanted, "exists")
    expect_true(stat.ctime > 1_600_000_000_000, "ctime in milliseconds")


@check("create2 of an ephemeral sequential node")
def _(t):
    client = t.client()
    parent = t.node(client)
    err, path, stat = client.ask(z.CREATE2, z.create(parent + "/s-", b"ab", flags=z.EPHEMERAL_SEQUENTIAL))
    expect((err, path), (0, parent + "/s-0000000000"))
    expect((stat.owner, stat.data_length), (client.session.id, 2))


@table("null data stays null, empty stays empty", [("null", None), ("empty", b"")])
def _(t, data):
    client = t.client()
    path = t.node(client, data)
    expect(client.get(path)[1], data, "after create")
    expect(client.stat(path).data_length, 0)
    client.set(path, b"x")
    err, stat = client.set(path, data)
    expect((err, stat.data_length, client.get(path)[1]), (0, 0, data), "after setData")


@check("getData: data, then Stat, to the byte")
def _(t):
    client = t.client()
    path = t.node(client, b"hello")
    body = client.call(z.GET_DATA, z.path_watch(path)).body
    expect(body[:9], z.buffer(b"hello"))
    expect(len(body), 9 + 68)


@check("data of every byte value comes back")
def _(t):
    client = t.client()
    data = bytes(range(256)) * 17
    expect(client.get(t.node(client, data))[1], data)


@check("getChildren: names only, of a node without children an empty list")
def _(t):
    client = t.client()
    path = t.node(client)
    expect(client.call(z.GET_CHILDREN, z.path_watch(path)).body, z.i32(0))
    for name in ("b", "a", "ü"):
        expect(client.create(f"{path}/{name}")[0], 0)
    expect(sorted(client.children(path)[1]), ["a", "b", "ü"])


@check("getChildren2: the list and the Stat of the node")
def _(t):
    client = t.client()
    path = t.node(client, b"xyz")
    client.create(path + "/a")
    err, names, stat = client.children2(path)
    expect((err, names, stat), (0, ["a"], client.stat(path)))


@check("names outside ASCII are compared and returned as bytes")
def _(t):
    client = t.client()
    path = t.name() + "-ζώο-動物園"
    expect(client.create(path), (0, path))
    expect(client.exists(path)[0], 0)


# ---- Stat of node and parent ---------------------------------------------------------------------------------


def changed(before, after):
    return {f: (a, b) for f, a, b in zip(z.Stat._fields, before, after) if a != b}


@check("create: the parent's numChildren, cversion and pzxid move, nothing else")
def _(t):
    client = t.client()
    parent = t.node(client)
    before = client.stat(parent)
    zxid = client.call(z.CREATE, z.create(parent + "/a")).zxid
    expect(
        changed(before, client.stat(parent)),
        {"cversion": (0, 1), "num_children": (0, 1), "pzxid": (before.pzxid, zxid)},
    )


@check("delete: the parent's numChildren, cversion and pzxid move, nothing else")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    before = client.stat(parent)
    zxid = client.call(z.DELETE, z.path_version(parent + "/a")).zxid
    expect(
        changed(before, client.stat(parent)),
        {"cversion": (1, 2), "num_children": (1, 0), "pzxid": (before.pzxid, zxid)},
    )


@check("setData: version, mzxid, mtime and dataLength move; the parent does not")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    before, parent_before = client.stat(parent + "/a"), client.stat(parent)
    reply = client.call(z.SET_DATA, z.set_data(parent + "/a", b"123"))
    (stat,) = z.decode_reply(z.SET_DATA, reply)
    expect(stat, client.stat(parent + "/a"), "reply and exists")
    moved = changed(before, stat._replace(mtime=before.mtime))
    expect(moved, {"mzxid": (before.mzxid, reply.zxid), "version": (0, 1), "data_length": (0, 3)})
    expect(client.stat(parent), parent_before, "parent")


@check("setACL: aversion moves, nothing else; the parent does not")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    before, parent_before = client.stat(parent + "/a"), client.stat(parent)
    err, stat = client.ask(z.SET_ACL, z.set_acl(parent + "/a"))
    expect((err, changed(before, stat)), (0, {"aversion": (0, 1)}))
    expect((client.stat(parent + "/a"), client.stat(parent)), (stat, parent_before))


@check("a grandchild does not touch the grandparent")
def _(t):
    client = t.client()
    top = t.node(client)
    client.create(top + "/a")
    before = client.stat(top)
    client.create(top + "/a/b")
    client.delete(top + "/a/b")
    expect(client.stat(top), before)


@check("cversion counts creates and deletes")
def _(t):
    client = t.client()
    parent = t.node(client)
    seen = []
    for act in ("c0", "c1", "d0", "c0", "d0", "d1"):
        path = f"{parent}/{act[1]}"
        client.create(path) if act[0] == "c" else client.delete(path)
        seen.append(client.stat(parent).cversion)
    expect(seen, [1, 2, 3, 4, 5, 6])


@check("failed writes change no Stat")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    before = client.stat(parent), client.stat(parent + "/a")
    expect(client.create(parent + "/a")[0], z.NODE_EXISTS)
    expect(client.delete(parent)[0], z.NOT_EMPTY)
    expect(client.delete(parent + "/a", 7)[0], z.BAD_VERSION)
    expect(client.set(parent + "/a", b"x", 7)[0], z.BAD_VERSION)
    expect(client.ask(z.SET_ACL, z.set_acl(parent + "/a", version=7))[0], z.BAD_VERSION)
    expect((client.stat(parent), client.stat(parent + "/a")), before)


@check("a node deleted and created again starts afresh")
def _(t):
    client = t.client()
    path = t.node(client, b"old")
    client.create(path + "/c")
    client.set(path, b"older")
    client.delete(path + "/c")
    client.delete(path)
    reply = client.call(z.CREATE2, z.create(path))
    stat = z.decode_reply(z.CREATE2, reply)[1]
    expect(
        (stat.czxid, stat.mzxid, stat.pzxid, stat.version, stat.cversion, stat.aversion, stat.data_length),
        (reply.zxid, reply.zxid, reply.zxid, 0, 0, 0, 0),
    )
    expect(client.create(path + "/s-", flags=z.SEQUENTIAL)[1], path + "/s-0000000000")


@check("the built-in nodes are there")
def _(t):
    client = t.client()
    expect(sorted(client.children("/zookeeper")[1]), ["config", "quota"])
    expect((client.stat("/").czxid, client.stat("/").ctime), (0, 0))
    stat = client.stat("/zookeeper")
    expect((stat.czxid, stat.cversion, stat.num_children), (0, -2, 2))
    err, data, stat = client.get("/zookeeper/config")
    expect((err, data, stat.aversion), (0, b"", -1))


# ---- versions ------------------------------------------------------------------------------------------------


@table(
    "setData with version",
    [
        ("-1 matches any", -1, 0),
        ("current matches", 1, 0),
        ("older", 0, z.BAD_VERSION),
        ("newer", 2, z.BAD_VERSION),
        ("-2", -2, z.BAD_VERSION),
    ],
)
def _(t, version, err):
    client = t.client()
    path = t.node(client)
    client.set(path, b"1")
    expect(client.set(path, b"2", version)[0], err)


@table(
    "delete with version",
    [("-1 matches any", -1, 0), ("current matches", 1, 0), ("older", 0, z.BAD_VERSION), ("newer", 2, z.BAD_VERSION)],
)
def _(t, version, err):
    client = t.client()
    path = t.node(client)
    client.set(path, b"1")
    expect(client.delete(path, version)[0], err)


@table(
    "setACL with version",
    [
        ("-1 matches any", -1, 0),
        ("current aversion matches", 1, 0),
        ("older", 0, z.BAD_VERSION),
        ("newer", 2, z.BAD_VERSION),
    ],
)
def _(t, version, err):
    client = t.client()
    path = t.node(client)
    client.ask(z.SET_ACL, z.set_acl(path))
    client.set(path, b"1")
    client.set(path, b"2")
    expect(client.ask(z.SET_ACL, z.set_acl(path, version=version))[0], err)


# ---- sequence numbers ----------------------------------------------------------------------------------------


def suffixes(client, parent, count, flags=z.SEQUENTIAL):
    return [int(client.create(parent + "/s-", flags=flags)[1][-10:]) for _ in range(count)]


@check("sequence: counts from 0000000000")
def _(t):
    client = t.client()
    parent = t.node(client)
    expect(client.create(parent + "/s-", flags=z.SEQUENTIAL), (0, parent + "/s-0000000000"))
    expect(suffixes(client, parent, 3), [1, 2, 3])


@check("sequence: one counter for all names of a parent, ephemeral or not")
def _(t):
    client = t.client()
    parent = t.node(client)
    paths = [
        client.create(f"{parent}/{name}", flags=flags)[1][len(parent) + 1 :]
        for name, flags in (("a", 2), ("b", 3), ("a", 3), ("", 2))
    ]
    expect(paths, ["a0000000000", "b0000000001", "a0000000002", "0000000003"])


@check("sequence: plain creates advance it")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/x")
    client.create(parent + "/y")
    expect(suffixes(client, parent, 1), [2])


@check("sequence: deletes do not move it")
def _(t):
    client = t.client()
    parent = t.node(client)
    suffixes(client, parent, 3)
    for n in range(3):
        client.delete(f"{parent}/s-{n:010}")
    expect(suffixes(client, parent, 1), [3])


@check("sequence: failed creates do not move it")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/x")
    expect(client.create(parent + "/x")[0], z.NODE_EXISTS)
    expect(client.create(parent + "/s-", flags=z.SEQUENTIAL, acl=[])[0], z.INVALID_ACL)
    expect(suffixes(client, parent, 1), [1])


@check("sequence: grandchildren do not move it")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/x")
    client.create(parent + "/x/y")
    expect(suffixes(client, parent, 1), [1])


@check("sequence: expired or closed sessions' ephemerals do not move it back")
def _(t):
    client, other = t.client(), t.client()
    parent = t.node(other)
    suffixes(client, parent, 2, z.EPHEMERAL_SEQUENTIAL)
    client.end()
    expect(suffixes(other, parent, 1), [2])


@check("sequence: the suffixed name may exist already")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/s-0000000001")
    expect(client.create(parent + "/s-", flags=z.SEQUENTIAL)[0], z.NODE_EXISTS)
    client.create(parent + "/other")
    expect(suffixes(client, parent, 1), [2])


@check("sequence: pipelined creates get consecutive numbers in order")
def _(t):
    client = t.client()
    parent = t.node(client)
    for _ in range(200):
        client.send(z.CREATE, z.create(parent + "/s-", flags=z.SEQUENTIAL))
    got = [z.decode_reply(z.CREATE, client.reply())[0] for _ in range(200)]
    expect(got, [f"{parent}/s-{n:010}" for n in range(200)])


# ---- delete --------------------------------------------------------------------------------------------------


@check("delete: version is looked at before children")
def _(t):
    client = t.client()
    path = t.node(client)
    client.create(path + "/c")
    expect(client.delete(path, 5)[0], z.BAD_VERSION)
    expect(client.delete(path, 0)[0], z.NOT_EMPTY)


@check("ephemerals have no children")
def _(t):
    client = t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    expect(client.create(path + "/c")[0], z.NO_CHILDREN_FOR_EPHEMERALS)
    expect(client.create(path + "/s-", flags=z.SEQUENTIAL)[0], z.NO_CHILDREN_FOR_EPHEMERALS)


@check("an ephemeral can be deleted and changed by another session")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    expect(other.set(path, b"x")[0], 0)
    expect(other.stat(path).owner, client.session.id)
    expect(other.delete(path), (0,))
    expect(client.exists(path)[0], z.NO_NODE)


# ---- zxids ---------------------------------------------------------------------------------------------------


@check("zxid: writes count up by one, failed ones too; reads and pings do not")
def _(t):
    client = t.client()
    path = t.node(client)
    last = client.ping().zxid
    steps = [
        (z.SET_DATA, z.set_data(path), 1),
        (z.SET_DATA, z.set_data(path, version=99), 1),
        (z.CREATE, z.create(path), 1),
        (z.CREATE, z.create("/no/such"), 1),
        (z.CREATE, z.create(path, acl=[]), 1),
        (z.CREATE, z.create(path, flags=77), 1),
        (z.CREATE, z.create("relative"), 1),
        (z.DELETE, z.path_version("/no"), 1),
        (z.DELETE, z.path_version("/zookeeper"), 1),
        (z.SET_ACL, z.set_acl("/no"), 1),
        (z.MULTI, z.multi(), 1),
        (z.MULTI, z.multi((z.DELETE, z.path_version("/no"))), 1),
        (z.EXISTS, z.path_watch("/no"), 0),
        (z.GET_DATA, z.path_watch(path), 0),
        (z.GET_CHILDREN, z.path_watch(path), 0),
        (z.GET_CHILDREN2, z.path_watch(path), 0),
        (z.GET_ACL, z.path_only(path), 0),
        (z.SYNC, z.path_only(path), 0),
        (z.PING, b"", 0),
        (z.MULTI_READ, z.multi((z.GET_DATA, z.path_watch(path))), 0),
        (z.ADD_WATCH, z.path_type(path, 0), 0),
        (z.CHECK_WATCHES, z.path_type(path, 3), 0),
        (z.REMOVE_WATCHES, z.path_type(path, 3), 0),
        (z.SET_WATCHES, z.set_watches(0), 0),
        (z.SET_WATCHES2, z.set_watches(0, persistent=()), 0),
        (z.DELETE, z.path_version(path), 1),
    ]
    for opcode, body, takes in steps:
        last += takes
        expect(client.call(opcode, body, -2 if opcode == z.PING else None).zxid, last, f"opcode {opcode} {body!r}")


@check("zxid: czxid, mzxid and pzxid are the zxids of the replies")
def _(t):
    client = t.client()
    path = t.name()
    czxid = client.call(z.CREATE, z.create(path)).zxid
    mzxid = client.call(z.SET_DATA, z.set_data(path, b"x")).zxid
    pzxid = client.call(z.CREATE, z.create(path + "/c")).zxid
    stat = client.stat(path)
    expect((stat.czxid, stat.mzxid, stat.pzxid), (czxid, mzxid, pzxid))


@check("zxid: auth is answered with 0 and takes none")
def _(t):
    client = t.client()
    last = client.ping().zxid
    expect(client.call(z.AUTH, z.auth("digest", b"a:b"), -4).zxid, 0)
    expect(client.ping().zxid, last)


# ---- sync ----------------------------------------------------------------------------------------------------


@table(
    "sync echoes the path", [("of a node", "/zookeeper"), ("of none", "/no/such"), ("relative", "abc"), ("empty", "")]
)
def _(t, path):
    expect(t.client().call(z.SYNC, z.path_only(path)).body, z.ustring(path))


@check("sync: answered in its place among other requests")
def _(t):
    client = t.client()
    path = t.name()
    client.send(z.CREATE, z.create(path), 1)
    client.send(z.SYNC, z.path_only(path), 2)
    client.send(z.EXISTS, z.path_watch(path), 3)
    expect([(r.xid, r.err) for r in (client.reply(), client.reply(), client.reply())], [(1, 0), (2, 0), (3, 0)])
