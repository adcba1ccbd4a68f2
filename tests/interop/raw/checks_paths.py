"""Order of the errors of create, path validation and the special paths."""

import zkraw as z
from harness import check, expect, table

NOBODY = [z.Acl(z.READ, "world", "anyone")]


@table(
    "create with flags",
    [("0", 0, 0), ("1", 1, 0), ("2", 2, 0), ("3", 3, 0)]
    + [(str(n), n, z.BAD_ARGUMENTS) for n in (-1, 7, 8, 100, 2**31 - 1, -(2**31))],
)
def _(t, flags, err):
    client = t.client()
    parent = t.node(client)
    got, *path = client.create(parent + "/a", flags=flags)
    expect(got, err)
    if err == 0:
        expect(path, [parent + "/a" + ("0000000000" if flags & 2 else "")])


# Every row breaks two rules; the error is that of the first in the server's order.
PRECEDENCE = [
    ("bad flags before a bad ACL", "/a", dict(flags=9, acl=[]), z.BAD_ARGUMENTS),
    ("bad flags before a missing parent", "/no/a", dict(flags=9), z.BAD_ARGUMENTS),
    ("bad flags before a node that exists", "/there", dict(flags=9), z.BAD_ARGUMENTS),
    ("a path without a slash before a bad ACL", None, dict(acl=[]), z.BAD_ARGUMENTS),
    ("a bad ACL before a missing parent", "/no/a", dict(acl=[]), z.INVALID_ACL),
    ("a bad ACL before a node that exists", "/there", dict(acl=[]), z.INVALID_ACL),
    ("a bad ACL before a bad path", "/a/", dict(acl=[]), z.INVALID_ACL),
    ("a bad ACL before no permission", "/shut/a", dict(acl=[]), z.INVALID_ACL),
    ("a missing parent before a bad path", "/no/..", {}, z.NO_NODE),
    ("no permission before a node that exists", "/shut/there", {}, z.NO_AUTH),
    ("no permission before a bad path", "/shut/..", {}, z.NO_AUTH),
    ("no permission before an ephemeral parent", "/shutephemeral/a", {}, z.NO_AUTH),
    ("a bad path before a node that exists", "/..", {}, z.BAD_ARGUMENTS),
    ("a bad path before an ephemeral parent", "/ephemeral/..", {}, z.BAD_ARGUMENTS),
]


@table("create: which error comes first", PRECEDENCE)
def _(t, below, fields, err):
    client = t.client()
    base = t.node(client)
    client.create(base + "/there")
    client.create(base + "/ephemeral", flags=z.EPHEMERAL)
    client.create(base + "/shutephemeral", flags=z.EPHEMERAL, acl=NOBODY)
    client.create(base + "/shut", acl=[z.Acl(z.ALL, "world", "anyone")])
    client.create(base + "/shut/there")
    client.ask(z.SET_ACL, z.set_acl(base + "/shut", NOBODY))
    path = "noslash" if below is None else base + below
    expect(client.create(path, **fields)[0], err)


BAD = z.BAD_ARGUMENTS
CREATE_PATHS = [
    ("null", None, z.MARSHALLING_ERROR),
    ("empty", "", BAD),
    ("relative", "a", BAD),
    ("relative, two parts: the parent is missing", "a/b", z.NO_NODE),
    ("the root", "/", z.NODE_EXISTS),
    ("trailing slash", "{}/", BAD),
    ("empty part", "{}//b", z.NO_NODE),
    ("two slashes: an empty name below the root", "//", BAD),
    (".", "{}/.", BAD),
    ("..", "{}/..", BAD),
    ("part that begins with a dot", "{}/.a", 0),
    ("part that ends with a dot", "{}/a.", 0),
    ("three dots", "{}/...", 0),
    ("NUL", "{}/a\0b", BAD),
    ("U+0001", "{}/a\u0001b", BAD),
    ("U+001F", "{}/a\u001fb", BAD),
    ("space", "{}/a b", 0),
    ("tilde", "{}/a~b", 0),
    ("U+007F", "{}/a\u007fb", BAD),
    ("U+009F", "{}/a\u009fb", BAD),
    ("U+00A0", "{}/a\u00a0b", 0),
    ("U+D7FF", "{}/a\ud7ffb", 0),
    ("U+E000", "{}/a\ue000b", BAD),
    ("U+F8FF", "{}/a\uf8ffb", BAD),
    ("U+F900", "{}/a\uf900b", 0),
    ("U+FFEF", "{}/a\uffefb", 0),
    ("U+FFF0", "{}/a\ufff0b", BAD),
    ("U+FFFF", "{}/a\uffffb", BAD),
    ("U+10000: two surrogates in Java", "{}/a\U00010000b", BAD),
    ("U+1F600", "{}/\U0001f600", BAD),
    ("U+10FFFF", "{}/a\U0010ffff", BAD),
    ("U+1F600 in a parent: it is missing", "{}/\U0001f600/a", z.NO_NODE),
    ("bytes that are not UTF-8", b"/a\xe9", BAD),
    ("a surrogate as UTF-8", b"/\xed\xa0\x80", BAD),
    ("backslash, quotes, percent", "{}/a\\\"'%", 0),
]


def formed(client, t, path):
    return path.format(t.node(client)) if isinstance(path, str) and "{}" in path else path


@table("create: path", CREATE_PATHS)
def _(t, path, err):
    client = t.client()
    path = formed(client, t, path)
    got, *rest = client.create(path)
    expect(got, err)
    if err == 0:
        expect(rest, [path])
        expect(client.exists(path)[0], 0)


@table(
    "create sequential: path before its suffix",
    [
        ("trailing slash: an empty name", "{}/", 0),
        (".: no longer a dot", "{}/.", 0),
        ("..", "{}/..", 0),
        ("empty part", "{}//a", z.NO_NODE),
        ("U+0001", "{}/\u0001", BAD),
        ("U+1F600", "{}/\U0001f600", BAD),
        ("bytes that are not UTF-8", b"/\xe9", BAD),
    ],
)
def _(t, path, err):
    client = t.client()
    path = formed(client, t, path)
    got, *rest = client.create(path, flags=z.SEQUENTIAL)
    expect((got, rest), (err, [] if err else [path + "0000000000"]))


@table(
    "setData, setACL: path",
    [
        ("null", None, BAD),
        ("empty", "", BAD),
        ("relative", "a", BAD),
        ("trailing slash", "{}/", BAD),
        ("empty part", "{}//b", BAD),
        (".", "{}/.", BAD),
        ("NUL", "{}\0", BAD),
        ("U+1F600", "{}/\U0001f600", BAD),
        ("bytes that are not UTF-8", b"/\xe9", BAD),
        ("missing", "{}/none", z.NO_NODE),
    ],
)
def _(t, path, err):
    client = t.client()
    path = formed(client, t, path)
    expect(client.set(path)[0], err, "setData")
    expect(client.ask(z.SET_ACL, z.set_acl(path))[0], err, "setACL")


@table(
    "delete: path",
    [
        ("relative", "a", BAD),
        ("empty", "", BAD),
        ("trailing slash", "{}/", z.NO_NODE),
        ("empty part", "{}//b", z.NO_NODE),
        ("NUL", "{}/a\0", BAD),
        ("U+1F600", "{}/\U0001f600", z.NO_NODE),
        ("bytes that are not UTF-8", b"/\xe9", z.NO_NODE),
        ("missing parent", "{}/no/no", z.NO_NODE),
    ],
)
def _(t, path, err):
    client = t.client()
    expect(client.delete(formed(client, t, path))[0], err)


@table(
    "delete: the built-in node", [(path, path) for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config")]
)
def _(t, path):
    expect(t.client().delete(path)[0], BAD)


READ_PATHS = [
    ("relative", "a"),
    ("trailing slash", "/zookeeper/"),
    ("two slashes", "//"),
    ("U+1F600", "/\U0001f600"),
    ("bytes that are not UTF-8", b"/\xe9"),
]


@table("a path that no node can have: nothing is created", [("U+1F600", "\U0001f600"), ("U+E000", "\ue000")])
def _(t, name):
    client = t.client()
    parent = t.node(client)
    path = f"{parent}/{name}"
    expect(client.create(path)[0], BAD, "create")
    expect(client.ask(z.CREATE2, z.create(path))[0], BAD, "create2")
    expect(client.create(path, flags=z.EPHEMERAL | z.SEQUENTIAL)[0], BAD, "create sequential")
    first, kind = (z.CREATE, z.create(parent + "/first")), z.BAD_ARGUMENTS
    for op in ((z.CREATE, z.create(path)), (z.SET_DATA, z.set_data(path)), (z.CHECK, z.path_version(path))):
        _, entries = client.multi(first, op)
        expect([err for _, err, _ in entries], [0, kind], f"multi with opcode {op[0]}")
    expect(client.children(parent), (0, []))
    expect(client.stat(parent).cversion, 0)


@table("reads: no such path", READ_PATHS)
def _(t, path):
    client = t.client()
    for opcode in (z.EXISTS, z.GET_DATA, z.GET_CHILDREN, z.GET_CHILDREN2):
        expect(client.ask(opcode, z.path_watch(path))[0], z.NO_NODE, f"opcode {opcode}")
    expect(client.ask(z.GET_ACL, z.path_only(path))[0], z.NO_NODE, "getACL")


@table(
    "reads: a path with NUL",
    [("exists", 3, BAD), ("getData", 4, z.NO_NODE), ("getChildren", 8, z.NO_NODE), ("getChildren2", 12, z.NO_NODE)],
)
def _(t, opcode, err):
    expect(t.client().ask(opcode, z.path_watch("/a\0"))[0], err)


@check("reads: the empty path is the root")
def _(t):
    client = t.client()
    expect(client.stat(""), client.stat("/"))


@table(
    "reads: the null path gets -5",
    [("exists", z.EXISTS), ("getData", z.GET_DATA), ("getChildren", z.GET_CHILDREN), ("getChildren2", z.GET_CHILDREN2)],
)
def _(t, opcode):
    client = t.client()
    expect(client.ask(opcode, z.path_watch(None))[0], z.MARSHALLING_ERROR)
    expect(client.exists("/")[0], 0)


@table(
    "setData on a built-in node",
    [("/", "/", 0), ("/zookeeper", "/zookeeper", 0), ("/zookeeper/config", "/zookeeper/config", z.NO_AUTH)],
)
def _(t, path, err):
    client = t.client()
    expect(client.set(path, b"")[0], err)


@check("the root can be read, and has children")
def _(t):
    client = t.client()
    path = t.node(client)
    err, names, stat = client.children2("/")
    expect(err, 0)
    expect((path[1:] in names, "zookeeper" in names, stat.num_children), (True, True, len(names)))
