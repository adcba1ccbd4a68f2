"""setWatches and setWatches2: catch-up events and re-arming."""

import zkraw as z
from harness import check, expect, table
from zkraw import CHILDREN_CHANGED, CREATED, DATA_CHANGED, DELETED


def set_watches(client, relative_zxid, **groups):
    """Sends setWatches(2) as a client library does, and returns the events sent before its reply."""
    opcode = z.SET_WATCHES2 if {"persistent", "recursive"} & set(groups) else z.SET_WATCHES
    client.events = []
    reply = client.call(opcode, z.set_watches(relative_zxid, **groups), -8)
    expect((reply.err, reply.body), (0, b""))
    events, client.events = client.events, []
    return events


def pairs(events):
    return [(event.type, event.path) for event in events]


class Scene:
    """A node with one child, the zxid at which a client last looked, and a second client that changes things."""

    def __init__(self, t):
        self.client, self.other = t.client(), t.client()
        self.path = t.node(self.client)
        self.client.create(self.path + "/kid")
        self.missing = t.name()
        self.seen = self.client.ping().zxid

    def change(self, what):
        path, other = self.path, self.other
        acts = {
            "nothing": lambda: (0,),
            "set": lambda: other.set(path, b"x"),
            "child created": lambda: other.create(path + "/new"),
            "child deleted": lambda: other.delete(path + "/kid"),
            "child set": lambda: other.set(path + "/kid", b"x"),
            "setACL": lambda: other.ask(z.SET_ACL, z.set_acl(path)),
            "deleted": lambda: (other.delete(path + "/kid"), other.delete(path))[1],
            "deleted and created": lambda: (other.delete(path + "/kid"), other.delete(path), other.create(path))[2],
            "missing created": lambda: other.create(self.missing),
            "missing came and went": lambda: (other.create(self.missing), other.delete(self.missing))[1],
        }
        expect(acts[what]()[0], 0)


CATCH_UP = [
    ("data, nothing happened", "data", "nothing", None),
    ("data, setData", "data", "set", DATA_CHANGED),
    ("data, child created", "data", "child created", None),
    ("data, setACL", "data", "setACL", None),
    ("data, deleted", "data", "deleted", DELETED),
    ("data, deleted and created", "data", "deleted and created", DATA_CHANGED),
    ("child, nothing happened", "child", "nothing", None),
    ("child, setData", "child", "set", None),
    ("child, child created", "child", "child created", CHILDREN_CHANGED),
    ("child, child deleted", "child", "child deleted", CHILDREN_CHANGED),
    ("child, child set", "child", "child set", None),
    ("child, deleted", "child", "deleted", DELETED),
    ("child, deleted and created", "child", "deleted and created", CHILDREN_CHANGED),
    ("exist, nothing happened", "exist", "nothing", None),
    ("exist, created", "exist", "missing created", CREATED),
    ("exist, came and went", "exist", "missing came and went", None),
]


@table("setWatches", CATCH_UP)
def _(t, group, what, kind):
    scene = Scene(t)
    path = scene.missing if group == "exist" else scene.path
    scene.change(what)
    events = set_watches(scene.client, scene.seen, **{group: [path]})
    expect(events, [z.Event(-1, kind, 3, path, 0)] if kind else [])


@table("setWatches: what was not caught up is armed", [row[:3] for row in CATCH_UP if row[3] is None])
def _(t, group, what):
    scene = Scene(t)
    scene.change(what)
    path = scene.missing if group == "exist" else scene.path
    set_watches(scene.client, scene.seen, **{group: [path]})
    write, kind = {
        "data": (lambda: scene.other.set(path, b"again"), DATA_CHANGED),
        "child": (lambda: scene.other.create(path + "/again"), CHILDREN_CHANGED),
        "exist": (lambda: scene.other.create(path), CREATED),
    }[group]
    expect(write()[0], 0)
    expect(scene.client.take_events(), [(kind, path)])


@table("setWatches: what was caught up is not armed", [row[:3] for row in CATCH_UP if row[3] is not None])
def _(t, group, what):
    scene = Scene(t)
    scene.change(what)
    path = scene.missing if group == "exist" else scene.path
    set_watches(scene.client, scene.seen, **{group: [path]})
    scene.other.create(path)
    scene.other.set(path, b"again")
    scene.other.create(path + "/again")
    expect(scene.client.take_events(), [])


@check("setWatches: data events, then exist, then child, all before the reply")
def _(t):
    scene = Scene(t)
    scene.change("set")
    scene.change("child created")
    scene.change("missing created")
    events = set_watches(scene.client, scene.seen, data=[scene.path], exist=[scene.missing], child=[scene.path])
    wanted = [(DATA_CHANGED, scene.path), (CREATED, scene.missing), (CHILDREN_CHANGED, scene.path)]
    expect(pairs(events), wanted)


@check("setWatches: events follow the order of the paths")
def _(t):
    client = t.client()
    paths = [t.node(client) for _ in range(5)]
    order = [paths[n] for n in (3, 0, 4, 1, 2)]
    expect(pairs(set_watches(client, 0, data=order)), [(DATA_CHANGED, path) for path in order])


@check("setWatches: relativeZxid equal to mzxid is not a change")
def _(t):
    client = t.client()
    path = t.name()
    zxid = client.call(z.CREATE, z.create(path)).zxid
    expect(set_watches(client, zxid, data=[path], child=[path]), [])
    expect(len(set_watches(client, zxid - 1, data=[path])), 1)


@check("setWatches: a path in data and child, deleted: an event for each")
def _(t):
    client = t.client()
    path = t.name()
    expect(pairs(set_watches(client, 0, data=[path], child=[path])), [(DELETED, path)] * 2)


@check("setWatches: needs no permission, events are sent whatever the ACL")
def _(t):
    client = t.client()
    path = t.node(client, acl=[z.Acl(0, "world", "anyone")])
    expect(pairs(set_watches(client, 0, data=[path])), [(DATA_CHANGED, path)])


@table("setWatches: empty", [("setWatches", {}), ("setWatches2", {"persistent": []})])
def _(t, groups):
    expect(set_watches(t.client(), 0, **groups), [])


@check("setWatches: paths are not checked")
def _(t):
    expect(pairs(set_watches(t.client(), 0, data=["relative", "/a/"])), [(DELETED, "relative"), (DELETED, "/a/")])


@table("setWatches: null lists get -5", [("setWatches", z.SET_WATCHES, 3), ("setWatches2", z.SET_WATCHES2, 5)])
def _(t, opcode, groups):
    client = t.client()
    expect(client.call(opcode, z.i64(0) + z.i32(-1) * groups).err, z.MARSHALLING_ERROR)
    expect(client.exists("/")[0], 0)


@check("setWatches: many in a row with xid -8, each answered")
def _(t):
    client = t.client()
    paths = [t.node(client) for _ in range(30)]
    last = client.ping().zxid
    for path in paths:
        client.send(z.SET_WATCHES, z.set_watches(last, data=[path]), -8)
    expect([client.reply().xid for _ in paths], [-8] * 30)
    for path in paths:
        client.set(path, b"x")
    expect(client.take_events(), [(DATA_CHANGED, path) for path in paths])


@check("setWatches: ten thousand paths in one packet")
def _(t):
    client = t.client()
    base = t.node(client)
    paths = [f"{base}/{n}" for n in range(10000)]
    last = client.ping().zxid
    expect(set_watches(client, last, exist=paths), [])
    client.create(paths[9999])
    expect(client.take_events(), [(CREATED, paths[9999])])


@check("setWatches2: all five groups, persistent ones without catch-up")
def _(t):
    scene = Scene(t)
    scene.change("set")
    scene.change("child created")
    events = set_watches(
        scene.client,
        scene.seen,
        data=[scene.path],
        exist=[scene.missing],
        child=[scene.path],
        persistent=[scene.path],
        recursive=[scene.path],
    )
    expect(pairs(events), [(DATA_CHANGED, scene.path), (CHILDREN_CHANGED, scene.path)])


@table("setWatches2 arms", [("persistent", "persistent", z.W_PERSISTENT), ("recursive", "recursive", z.W_RECURSIVE)])
def _(t, group, number):
    client, other = t.client(), t.client()
    path = t.node(client)
    expect(set_watches(client, 0, **{group: [path]}), [])
    expect(client.ask(z.CHECK_WATCHES, z.path_type(path, number)), (0,))
    other.set(path, b"1")
    other.set(path, b"2")
    expect(client.take_events(), [(DATA_CHANGED, path)] * 2)


@check("reconnect: what happened in between is caught up on the new connection, later events follow")
def _(t):
    scene = Scene(t)
    scene.client.get(scene.path, True)
    scene.client.children(scene.path, True)
    scene.client.close()
    scene.change("set")
    again = t.reattach(scene.client.session, last_zxid=scene.seen)
    events = set_watches(again, scene.seen, data=[scene.path], child=[scene.path])
    expect(pairs(events), [(DATA_CHANGED, scene.path)])
    scene.change("child created")
    expect(again.take_events(), [(CHILDREN_CHANGED, scene.path)])


@check("setWatches behind a pipelined write of the same connection sees it")
def _(t):
    scene = Scene(t)
    client = scene.client
    client.send(z.SET_DATA, z.set_data(scene.path, b"x"), 1)
    client.send(z.SET_WATCHES, z.set_watches(scene.seen, data=[scene.path]), -8)
    expect([client.reply().xid for _ in range(2)], [1, -8])
    expect([(event.zxid, event.type) for event in client.events], [(-1, DATA_CHANGED)])
