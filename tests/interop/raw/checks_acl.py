"""ACLs and auth packets."""

import base64
import hashlib

import zkraw as z
from harness import check, expect, expect_closed, table


def digest(user, password):
    return user + ":" + base64.b64encode(hashlib.sha1(f"{user}:{password}".encode()).digest()).decode()


def only(perms, scheme="world", ident="anyone"):
    return [z.Acl(perms, scheme, ident)]


AUTH = [z.Acl(z.ALL, "auth", "")]
ALICE = digest("alice", "secret")

# ---- auth packets --------------------------------------------------------------------------------------------


@check("auth: success is a bare header with zxid 0 and the xid sent")
def _(t):
    client = t.client()
    client.send(z.AUTH, z.auth("digest", b"alice:secret"), -4)
    expect(client.read_frame(), z.i32(-4) + z.i64(0) + z.i32(0))


@check("auth: any xid is echoed")
def _(t):
    expect(t.client().call(z.AUTH, z.auth("digest", b"a:b"), 55).xid, 55)


@table(
    "auth fails with -115, then the close: scheme",
    [
        ("unknown", "nosuch", b"x"),
        ("world", "world", b"anyone"),
        ("empty", "", b"x"),
        ("auth", "auth", b"x"),
        ("null", None, b"x"),
    ],
)
def _(t, scheme, token):
    client = t.client()
    client.send(z.AUTH, z.auth(scheme, token), -4)
    expect_closed(client, z.i32(16) + z.i32(-4) + z.i64(0) + z.i32(z.AUTH_FAILED))


@check("auth: after a failure the session can be taken up again")
def _(t):
    client = t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    client.auth("nosuch", b"x")
    client.bytes_until_close()
    expect(t.reattach(client.session).stat(path).owner, client.session.id)


@check("auth: the scheme ip succeeds")
def _(t):
    expect(t.client().auth("ip", b"whatever"), 0)


@check("auth: several identities add up")
def _(t):
    client = t.client()
    client.auth("digest", b"alice:secret")
    client.auth("digest", b"bob:secret")
    for who in ("alice", "bob"):
        path = t.node(client, b"x", acl=only(z.ALL, "digest", digest(who, "secret")))
        expect(client.get(path)[0], 0, who)


@check("auth: counts for the requests behind it, in its place of the pipeline")
def _(t):
    maker, client = t.client(), t.client()
    path = t.node(maker, acl=only(z.ALL, "digest", ALICE))
    client.send(z.GET_DATA, z.path_watch(path), 1)
    client.send(z.AUTH, z.auth("digest", b"alice:secret"), -4)
    client.send(z.GET_DATA, z.path_watch(path), 2)
    replies = {reply.xid: reply.err for reply in (client.reply(), client.reply(), client.reply())}
    expect(replies[-4], 0)
    expect(replies[2], 0)


@check(
    "auth: is answered in its place of the pipeline",
    deviates="answers auth at the edge, so it may overtake earlier requests",
)
def _(t):
    client = t.client()
    path = t.name()
    client.send(z.CREATE, z.create(path), 1)
    client.send(z.AUTH, z.auth("digest", b"alice:secret"), -4)
    client.send(z.EXISTS, z.path_watch(path), 2)
    expect([client.reply().xid for _ in range(3)], [1, -4, 2])


# ---- ACL lists -----------------------------------------------------------------------------------------------

LISTS = [
    ("null", None, z.INVALID_ACL),
    ("empty", [], z.INVALID_ACL),
    ("world:anyone", only(z.ALL), 0),
    ("world:other", only(z.ALL, "world", "other"), z.INVALID_ACL),
    ("world:empty", only(z.ALL, "world", ""), z.INVALID_ACL),
    ("unknown scheme", only(z.ALL, "nosuch", "x"), z.INVALID_ACL),
    ("empty scheme", only(z.ALL, "", "x"), z.INVALID_ACL),
    ("super", only(z.ALL, "super", ""), z.INVALID_ACL),
    ("auth without identities", only(z.ALL, "auth", ""), z.INVALID_ACL),
    ("digest user:hash", only(z.ALL, "digest", ALICE), 0),
    ("digest without a colon", only(z.ALL, "digest", "alice"), z.INVALID_ACL),
    ("digest with two colons", only(z.ALL, "digest", "a:b:c"), z.INVALID_ACL),
    ("ip address", only(z.ALL, "ip", "127.0.0.1"), 0),
    ("ip with bits", only(z.ALL, "ip", "127.0.0.0/8"), 0),
    ("ip with 33 bits", only(z.ALL, "ip", "127.0.0.0/33"), z.INVALID_ACL),
    ("ip with negative bits", only(z.ALL, "ip", "127.0.0.0/-1"), z.INVALID_ACL),
    ("ip that is none", only(z.ALL, "ip", "localhost"), z.INVALID_ACL),
    ("ip with three parts", only(z.ALL, "ip", "127.0.0"), z.INVALID_ACL),
    ("ip with a part of 256", only(z.ALL, "ip", "127.0.0.256"), z.INVALID_ACL),
    ("one bad entry among good ones", only(z.ALL) + only(z.ALL, "nosuch", "x"), z.INVALID_ACL),
    ("permissions 0", only(0), 0),
    ("permissions beyond the five", only(0x7FFFFFFF), 0),
]


@table("create with ACL", LISTS)
def _(t, acl, err):
    expect(t.client().create(t.name(), acl=acl)[0], err)


@table("setACL with ACL", LISTS)
def _(t, acl, err):
    client = t.client()
    path = t.node(client)
    expect(client.ask(z.SET_ACL, z.set_acl(path, acl))[0], err)


def get_acl(client, path):
    return client.ask(z.GET_ACL, z.path_only(path))


@check("getACL: the list as given, then the Stat")
def _(t):
    client = t.client()
    acl = only(z.READ, "ip", "127.0.0.1") + only(z.ALL) + only(z.WRITE, "digest", ALICE)
    path = t.node(client, acl=acl)
    expect(get_acl(client, path), (0, acl, client.stat(path)))


@check("ACL: duplicates are removed, the order is kept")
def _(t):
    client = t.client()
    one, two = only(z.READ, "ip", "127.0.0.1"), only(z.ALL)
    path = t.node(client, acl=one + two + one + two)
    expect(get_acl(client, path)[1], one + two)


@check("ACL: entries that differ in permissions only are no duplicates")
def _(t):
    client = t.client()
    acl = only(z.READ) + only(z.READ | z.ADMIN)
    expect(get_acl(client, t.node(client, acl=acl))[1], acl)


@check("ACL: auth becomes the connection's identities, with its permissions")
def _(t):
    client = t.client()
    client.auth("digest", b"alice:secret")
    path = t.node(client, acl=[z.Acl(z.READ | z.ADMIN, "auth", "ignored")])
    expect(get_acl(client, path)[1], only(z.READ | z.ADMIN, "digest", ALICE))


@check("ACL: auth becomes every identity of the connection, ip not among them")
def _(t):
    client = t.client()
    client.auth("digest", b"alice:secret")
    client.auth("digest", b"bob:secret")
    path = t.node(client, acl=AUTH)
    expect(
        {(a.scheme, a.id) for a in get_acl(client, path)[1]}, {("digest", ALICE), ("digest", digest("bob", "secret"))}
    )


@check("ACL: the same identity given twice counts once")
def _(t):
    client = t.client()
    client.auth("digest", b"alice:secret")
    client.auth("digest", b"alice:secret")
    expect(get_acl(client, t.node(client, acl=AUTH))[1], only(z.ALL, "digest", ALICE))


@check("getACL: the root's and the built-in nodes'")
def _(t):
    client = t.client()
    expect(get_acl(client, "/")[1], only(z.ALL))
    expect(get_acl(client, "/zookeeper/config")[1], only(z.READ))


@check("getACL: digests are masked without ADMIN")
def _(t):
    client = t.client()
    acl = only(z.READ) + only(z.ALL, "digest", ALICE)
    path = t.node(client, acl=acl)
    expect(get_acl(client, path)[1], only(z.READ) + only(z.ALL, "digest", "alice:x"))
    client.auth("digest", b"alice:secret")
    expect(get_acl(client, path)[1], acl)


@table(
    "getACL with permission",
    [("READ", z.READ, 0), ("ADMIN", z.ADMIN, 0), ("all others", z.WRITE | z.CREATE_PERM | z.DELETE_PERM, z.NO_AUTH)],
)
def _(t, perms, err):
    client = t.client()
    expect(get_acl(client, t.node(client, acl=only(perms)))[0], err)


# ---- which permission, and where -----------------------------------------------------------------------------

OTHERS = {perm: z.ALL & ~perm for perm in (z.READ, z.WRITE, z.CREATE_PERM, z.DELETE_PERM, z.ADMIN)}
NEEDS = [
    ("exists needs READ", z.READ, z.EXISTS, lambda p: z.path_watch(p)),
    ("getData needs READ", z.READ, z.GET_DATA, lambda p: z.path_watch(p)),
    ("getChildren needs READ", z.READ, z.GET_CHILDREN, lambda p: z.path_watch(p)),
    ("getChildren2 needs READ", z.READ, z.GET_CHILDREN2, lambda p: z.path_watch(p)),
    ("setData needs WRITE", z.WRITE, z.SET_DATA, lambda p: z.set_data(p)),
    ("setACL needs ADMIN", z.ADMIN, z.SET_ACL, lambda p: z.set_acl(p)),
    ("create needs CREATE on the parent", z.CREATE_PERM, z.CREATE, lambda p: z.create(p + "/new")),
    ("create2 needs CREATE on the parent", z.CREATE_PERM, z.CREATE2, lambda p: z.create(p + "/new")),
    ("delete needs DELETE on the parent", z.DELETE_PERM, z.DELETE, lambda p: z.path_version(p + "/old")),
]


@table("permission", NEEDS)
def _(t, perm, opcode, body):
    client = t.client()
    for perms, err in ((OTHERS[perm], z.NO_AUTH), (perm, 0)):
        path = t.node(client)
        client.create(path + "/old")
        client.ask(z.SET_ACL, z.set_acl(path, only(perms)))
        expect(client.ask(opcode, body(path))[0], err, f"with permissions {perms}")


@check("permission: delete does not look at the node's own ACL, nor its children's parent's")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a", acl=only(0))
    expect(client.delete(parent + "/a")[0], 0)


@check("permission: ACLs are not inherited")
def _(t):
    client = t.client()
    parent = t.node(client)
    client.create(parent + "/a", b"x")
    client.ask(z.SET_ACL, z.set_acl(parent, only(0)))
    expect(client.get(parent)[0], z.NO_AUTH)
    expect(client.get(parent + "/a")[0], 0)


@check("permission: NOAUTH comes before BADVERSION")
def _(t):
    client = t.client()
    path = t.node(client, acl=only(z.READ))
    expect(client.set(path, b"", 9)[0], z.NO_AUTH)
    expect(client.ask(z.SET_ACL, z.set_acl(path, version=9))[0], z.NO_AUTH)


@check("permission: exists of a missing node is -101, whatever the parent allows")
def _(t):
    client = t.client()
    path = t.node(client, acl=only(0))
    expect(client.exists(path + "/none")[0], z.NO_NODE)


@table(
    "permission: not needed for",
    [
        ("sync", z.SYNC, lambda p: z.path_only(p)),
        ("addWatch", z.ADD_WATCH, lambda p: z.path_type(p, 0)),
        ("setWatches", z.SET_WATCHES, lambda p: z.set_watches(2**62, data=[p])),
    ],
)
def _(t, opcode, body):
    client = t.client()
    path = t.node(client, acl=only(0))
    expect(client.call(opcode, body(path)).err, 0)


# ---- who matches ---------------------------------------------------------------------------------------------


@table(
    "digest identity",
    [
        ("right", b"alice:secret", 0),
        ("wrong password", b"alice:other", z.NO_AUTH),
        ("wrong user", b"bob:secret", z.NO_AUTH),
        ("none", None, z.NO_AUTH),
        ("the hash itself as password", ALICE.encode(), z.NO_AUTH),
    ],
)
def _(t, token, err):
    maker, client = t.client(), t.client()
    path = t.node(maker, acl=only(z.ALL, "digest", ALICE))
    if token is not None:
        client.auth("digest", token)
    expect(client.get(path)[0], err)


@table(
    "ip ACL for a client of 127.0.0.1",
    [
        ("the address", "127.0.0.1", 0),
        ("another", "127.0.0.2", z.NO_AUTH),
        ("its /8", "127.0.0.0/8", 0),
        ("its /31", "127.0.0.0/31", 0),
        ("/32 of another", "127.0.0.2/32", z.NO_AUTH),
        ("another /8", "10.0.0.0/8", z.NO_AUTH),
    ],
)
def _(t, ident, err):
    client = t.client()
    expect(client.get(t.node(client, acl=only(z.ALL, "ip", ident)))[0], err)


@check("super digest: passes every ACL")
def _(t):
    client = t.client()
    path = t.node(client, acl=only(0))
    expect(client.get(path)[0], z.NO_AUTH)
    expect(client.auth("digest", b"super:admin"), 0)
    expect(client.get(path)[0], 0)
    expect(client.ask(z.SET_ACL, z.set_acl(path, only(z.READ)))[0], 0)
    expect(client.set("/zookeeper/config", b"")[0], 0, "setData of /zookeeper/config")


@check("super digest: a wrong password is just another identity")
def _(t):
    client = t.client()
    path = t.node(client, acl=only(0))
    expect(client.auth("digest", b"super:wrong"), 0)
    expect(client.get(path)[0], z.NO_AUTH)


@check(
    "ACL: setACL counts at once for the requests behind it",
    deviates="checks a pipelined write against the ACL from before an outstanding setACL",
)
def _(t):
    client = t.client()
    path = t.node(client, b"x")
    client.send(z.SET_ACL, z.set_acl(path, only(z.READ | z.ADMIN)), 1)
    client.send(z.SET_DATA, z.set_data(path), 2)
    client.send(z.SET_ACL, z.set_acl(path, only(z.WRITE)), 3)
    client.send(z.GET_DATA, z.path_watch(path), 4)
    client.send(z.SET_DATA, z.set_data(path), 5)
    expect([client.reply().err for _ in range(5)], [0, z.NO_AUTH, 0, z.NO_AUTH, 0])
