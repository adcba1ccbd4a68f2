"""Watches: which event for which write, one-shot, persistent and recursive."""

import zkraw as z
from harness import check, expect, table
from zkraw import CHILDREN_CHANGED, CREATED, DATA_CHANGED, DELETED

# ---- one-shot watches ----------------------------------------------------------------------------------------


def arm_data(client, path):
    client.get(path, True)


def arm_exists(client, path):
    client.exists(path, True)


def arm_children(client, path):
    client.children(path, True)


def arm_children2(client, path):
    client.children2(path, True)


def write_set(client, path):
    expect(client.set(path, b"new")[0], 0)


def write_delete(client, path):
    expect(client.delete(path)[0], 0)


def write_child(client, path):
    expect(client.create(path + "/child")[0], 0)


def write_acl(client, path):
    expect(client.ask(z.SET_ACL, z.set_acl(path))[0], 0)


def write_child_deleted(client, path):
    write_child(client, path)
    client.take_events()
    expect(client.delete(path + "/child")[0], 0)


ONE_SHOT = [
    ("getData, setData", arm_data, write_set, [DATA_CHANGED]),
    ("getData, delete", arm_data, write_delete, [DELETED]),
    ("getData, child created", arm_data, write_child, []),
    ("getData, setACL", arm_data, write_acl, []),
    ("exists, setData", arm_exists, write_set, [DATA_CHANGED]),
    ("exists, delete", arm_exists, write_delete, [DELETED]),
    ("exists, child created", arm_exists, write_child, []),
    ("exists, setACL", arm_exists, write_acl, []),
    ("getChildren, setData", arm_children, write_set, []),
    ("getChildren, delete", arm_children, write_delete, [DELETED]),
    ("getChildren, child created", arm_children, write_child, [CHILDREN_CHANGED]),
    ("getChildren, setACL", arm_children, write_acl, []),
    ("getChildren2, child created", arm_children2, write_child, [CHILDREN_CHANGED]),
    ("getChildren2, delete", arm_children2, write_delete, [DELETED]),
]


@table("one-shot watch", ONE_SHOT)
def _(t, arm, write, events):
    client, other = t.client(), t.client()
    path = t.node(client)
    arm(client, path)
    write(other, path)
    expect(client.take_events(), [(kind, path) for kind in events])


@check("one-shot watch: fires once")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    write_set(client, path)
    write_set(client, path)
    expect(client.take_events(), [(DATA_CHANGED, path)])


@check("one-shot watch: set twice, fires once")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    arm_data(client, path)
    arm_exists(client, path)
    write_set(client, path)
    expect(client.take_events(), [(DATA_CHANGED, path)])


@check("one-shot watch: a read without the flag leaves it armed")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    client.get(path, False)
    write_set(client, path)
    expect(client.take_events(), [(DATA_CHANGED, path)])


@check("one-shot watch: data and children on one node are apart")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    arm_children(client, path)
    write_child(client, path)
    write_set(client, path)
    expect(client.take_events(), [(CHILDREN_CHANGED, path), (DATA_CHANGED, path)])


@check("one-shot watch: data and children on a deleted node, one NodeDeleted")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    arm_children(client, path)
    write_delete(client, path)
    expect(client.take_events(), [(DELETED, path)])


@check("one-shot watch: after the one NodeDeleted neither table is armed")
def _(t):
    client = t.client()
    path = t.node(client)
    arm_data(client, path)
    arm_children(client, path)
    write_delete(client, path)
    client.create(path)
    write_child(client, path)
    write_set(client, path)
    expect(client.take_events(), [(DELETED, path)])


@check("exists on a missing node leaves a watch for its creation")
def _(t):
    client = t.client()
    path = t.name()
    arm_exists(client, path)
    client.create(path)
    write_set(client, path)
    expect(client.take_events(), [(CREATED, path)])


@table(
    "failed read leaves no watch",
    [("getData", arm_data), ("getChildren", arm_children), ("getChildren2", arm_children2)],
)
def _(t, arm):
    client = t.client()
    path = t.name()
    arm(client, path)
    client.create(path)
    write_child(client, path)
    write_set(client, path)
    expect(client.take_events(), [])


@table(
    "failed read does not take away the watch that exists left", [("getData", arm_data), ("getChildren", arm_children)]
)
def _(t, arm):
    client = t.client()
    path = t.name()
    arm_exists(client, path)
    arm(client, path)
    client.create(path)
    expect(client.take_events(), [(CREATED, path)])


@table(
    "read refused with NOAUTH leaves no watch",
    [("exists", arm_exists), ("getData", arm_data), ("getChildren", arm_children)],
)
def _(t, arm):
    client = t.client()
    path = t.node(client, acl=[z.Acl(z.ALL & ~z.READ, "world", "anyone")])
    arm(client, path)
    client.ask(z.SET_ACL, z.set_acl(path))
    write_set(client, path)
    write_child(client, path)
    expect(client.take_events(), [])


@check("parent's child watch: create and delete fire it, setData of a child does not")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    arm_children(client, parent)
    write_set(client, parent + "/a")
    expect(client.take_events(), [])
    write_delete(client, parent + "/a")
    expect(client.take_events(), [(CHILDREN_CHANGED, parent)])


@check("parent's child watch: grandchildren do not fire it")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    arm_children(client, parent)
    client.create(parent + "/a/b")
    expect(client.take_events(), [])


@check("child watch on the root")
def _(t):
    client = t.client()
    arm_children(client, "/")
    t.node(client)
    expect(client.take_events(), [(CHILDREN_CHANGED, "/")])


@check("delete: the node's event, then the parent's")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a")
    arm_children(client, parent)
    arm_data(client, parent + "/a")
    write_delete(client, parent + "/a")
    expect(client.take_events(), [(DELETED, parent + "/a"), (CHILDREN_CHANGED, parent)])


@check("create: the node's event, then the parent's")
def _(t):
    client = t.client()
    parent = t.node(client)
    arm_children(client, parent)
    arm_exists(client, parent + "/a")
    client.create(parent + "/a")
    expect(client.take_events(), [(CREATED, parent + "/a"), (CHILDREN_CHANGED, parent)])


@check("sequential create fires the watch on its suffixed path")
def _(t):
    client = t.client()
    parent = t.node(client)
    arm_exists(client, parent + "/s-0000000000")
    arm_exists(client, parent + "/s-")
    client.create(parent + "/s-", flags=z.SEQUENTIAL)
    expect(client.take_events(), [(CREATED, parent + "/s-0000000000")])


@check("every watching connection gets its event")
def _(t):
    clients = [t.client() for _ in range(5)]
    path = t.node(clients[0])
    for client in clients:
        arm_data(client, path)
    write_set(clients[0], path)
    expect([client.take_events() for client in clients], [[(DATA_CHANGED, path)]] * 5)


@check("failed writes fire nothing")
def _(t):
    client = t.client()
    path = t.node(client)
    client.create(path + "/a")
    arm_data(client, path)
    arm_children(client, path)
    client.set(path, b"", 9)
    client.delete(path)
    client.create(path + "/a")
    client.create(path)
    client.multi((z.SET_DATA, z.set_data(path)), (z.CREATE, z.create(path + "/b")), (z.DELETE, z.path_version("/none")))
    expect(client.take_events(), [])


@check("multi fires in the order of its operations")
def _(t):
    client = t.client()
    base = t.node(client)
    client.create(base + "/x")
    arm_data(client, base + "/x")
    arm_exists(client, base + "/y")
    arm_children(client, base)
    arm_data(client, base)
    client.multi(
        (z.SET_DATA, z.set_data(base + "/x")),
        (z.CREATE, z.create(base + "/y")),
        (z.SET_DATA, z.set_data(base)),
        (z.DELETE, z.path_version(base + "/x")),
    )
    expect(
        client.take_events(),
        [(DATA_CHANGED, base + "/x"), (CREATED, base + "/y"), (CHILDREN_CHANGED, base), (DATA_CHANGED, base)],
    )


# ---- events --------------------------------------------------------------------------------------------------


@check("event: to the byte, with the zxid of the write")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client)
    arm_data(client, path)
    zxid = other.call(z.SET_DATA, z.set_data(path)).zxid
    frame = z.i32(-1) + z.i64(zxid) + z.i32(0) + z.i32(DATA_CHANGED) + z.i32(3) + z.ustring(path)
    expect(client.read_frame(), frame)


@check("event: all of a multi carry its zxid")
def _(t):
    client = t.client()
    base = t.node(client)
    client.add_watch(base, z.RECURSIVE_WATCH)
    reply = client.call(z.MULTI, z.multi(*[(z.CREATE, z.create(f"{base}/{n}")) for n in range(3)]))
    expect([event.zxid for event in client.events], [reply.zxid] * 3)


@check("event: not delivered to a connection that may not READ the node; the watch is used up")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client, acl=[z.Acl(z.ALL, "world", "anyone")])
    other.auth("digest", b"alice:secret")
    arm_data(client, path)
    expect(other.ask(z.SET_ACL, z.set_acl(path, [z.Acl(z.ALL, "auth", "")]))[0], 0)
    write_set(other, path)
    expect(client.take_events(), [])
    expect(other.ask(z.SET_ACL, z.set_acl(path))[0], 0)
    write_set(other, path)
    expect(client.take_events(), [])


@check("event: NodeDeleted is filtered by the ACL the node had")
def _(t):
    client, other = t.client(), t.client()
    parent = t.node(client)
    other.auth("digest", b"alice:secret")
    arm_exists(client, parent + "/secret")
    arm_exists(client, parent + "/open")
    expect(other.create(parent + "/secret", acl=[z.Acl(z.ALL, "auth", "")])[0], 0)
    expect(other.create(parent + "/open")[0], 0)
    expect(client.take_events(), [(CREATED, parent + "/open")])
    client.add_watch(parent, z.RECURSIVE_WATCH)
    write_delete(other, parent + "/secret")
    write_delete(other, parent + "/open")
    expect(client.take_events(), [(DELETED, parent + "/open")])


@check("event: ChildrenChanged is filtered by the ACL of the parent")
def _(t):
    client, other = t.client(), t.client()
    parent = t.node(client)
    arm_children(client, parent)
    other.auth("digest", b"alice:secret")
    expect(other.ask(z.SET_ACL, z.set_acl(parent, [z.Acl(z.ALL, "auth", "")]))[0], 0)
    expect(other.create(parent + "/a")[0], 0)
    expect(client.take_events(), [])


# ---- addWatch ------------------------------------------------------------------------------------------------


@table("addWatch: the reply has a body of four zero bytes", [("persistent", 0), ("recursive", 1)])
def _(t, mode):
    client = t.client()
    last = client.ping().zxid
    client.send(z.ADD_WATCH, z.path_type(t.name(), mode), 3)
    expect(client.read_frame(), z.i32(3) + z.i64(last) + z.i32(0) + z.i32(0))


@table("addWatch: unknown mode gets -5", [("2", 2), ("-1", -1), ("100", 100)])
def _(t, mode):
    expect(t.client().add_watch("/", mode)[0], z.MARSHALLING_ERROR)


@table("addWatch: path is not looked at", [("missing", "/no/such"), ("relative", "abc"), ("trailing slash", "/a/")])
def _(t, path):
    expect(t.client().add_watch(path, 0), (0, 0))


@check("persistent watch: every change of the node and of its children's names")
def _(t):
    client, other = t.client(), t.client()
    path = t.name()
    client.add_watch(path, z.PERSISTENT_WATCH)
    other.create(path)
    write_set(other, path)
    write_acl(other, path)
    other.create(path + "/c")
    write_set(other, path + "/c")
    other.create(path + "/c/d")
    other.delete(path + "/c/d")
    other.delete(path + "/c")
    write_set(other, path)
    other.delete(path)
    other.create(path)
    kinds = [CREATED, DATA_CHANGED, CHILDREN_CHANGED, CHILDREN_CHANGED, DATA_CHANGED, DELETED, CREATED]
    expect(client.take_events(), [(kind, path) for kind in kinds])


@check("recursive watch: every node below, never ChildrenChanged")
def _(t):
    client, other = t.client(), t.client()
    path = t.name()
    client.add_watch(path, z.RECURSIVE_WATCH)
    other.create(path)
    other.create(path + "/c")
    write_set(other, path + "/c")
    other.create(path + "/c/d")
    write_set(other, path)
    write_acl(other, path)
    other.delete(path + "/c/d")
    other.delete(path + "/c")
    other.delete(path)
    expect(
        client.take_events(),
        [
            (CREATED, path),
            (CREATED, path + "/c"),
            (DATA_CHANGED, path + "/c"),
            (CREATED, path + "/c/d"),
            (DATA_CHANGED, path),
            (DELETED, path + "/c/d"),
            (DELETED, path + "/c"),
            (DELETED, path),
        ],
    )


@check("recursive watch: a sibling whose name only begins alike is not below")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.RECURSIVE_WATCH)
    client.create(path + "x")
    client.create(path + "-y")
    expect(client.take_events(), [])


@check("recursive watch on the root sees everything")
def _(t):
    client = t.client()
    client.add_watch("/", z.RECURSIVE_WATCH)
    path = t.node(client)
    client.create(path + "/a")
    expect(client.take_events(), [(CREATED, path), (CREATED, path + "/a")])


@check("recursive watches on a node and its ancestor: one event")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.RECURSIVE_WATCH)
    client.add_watch(path + "/a", z.RECURSIVE_WATCH)
    client.create(path + "/a")
    expect(client.take_events(), [(CREATED, path + "/a")])


@check("persistent and recursive on one path: the union, each event once")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.PERSISTENT_WATCH)
    client.add_watch(path, z.RECURSIVE_WATCH)
    write_set(client, path)
    client.create(path + "/a")
    events = client.take_events()
    expect(sorted(events), sorted([(DATA_CHANGED, path), (CREATED, path + "/a"), (CHILDREN_CHANGED, path)]))


@check("one-shot beside persistent: one event, and the persistent one stays")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.PERSISTENT_WATCH)
    arm_data(client, path)
    write_set(client, path)
    expect(client.take_events(), [(DATA_CHANGED, path)])
    write_set(client, path)
    expect(client.take_events(), [(DATA_CHANGED, path)])


@check("one-shot child watch beside recursive: both kinds of event, the recursive one stays")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.RECURSIVE_WATCH)
    arm_children(client, path)
    client.create(path + "/a")
    expect(sorted(client.take_events()), sorted([(CREATED, path + "/a"), (CHILDREN_CHANGED, path)]))
    client.create(path + "/b")
    expect(client.take_events(), [(CREATED, path + "/b")])


@check("delete with a persistent watch: one NodeDeleted, the watch stays")
def _(t):
    client = t.client()
    path = t.node(client)
    client.add_watch(path, z.PERSISTENT_WATCH)
    arm_data(client, path)
    arm_children(client, path)
    write_delete(client, path)
    client.create(path)
    expect(client.take_events(), [(DELETED, path), (CREATED, path)])


@check("persistent watch on the parent, delete of a child: ChildrenChanged only")
def _(t):
    client = t.client()
    path = t.node(client)
    client.create(path + "/a")
    client.add_watch(path, z.PERSISTENT_WATCH)
    write_delete(client, path + "/a")
    expect(client.take_events(), [(CHILDREN_CHANGED, path)])


@check("persistent watches end with the connection")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client)
    client.add_watch(path, z.RECURSIVE_WATCH)
    again = t.reattach(client.session)
    write_set(other, path)
    expect(again.take_events(), [])
