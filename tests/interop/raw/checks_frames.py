"""Framing, handshake, special xids, malformed packets, unknown opcodes."""

import struct
import time

import zkraw as z
from harness import check, expect, expect_closed, expect_true, table
from zkraw import connect_request, i32, i64

# ---- handshake -----------------------------------------------------------------------------------------------


@check("handshake: 45-byte request gets a 37-byte response")
def _(t):
    session = t.tcp().handshake(read_only=False)
    expect(len(session.raw), 37)
    expect((session.protocol, session.read_only), (0, False))
    expect_true(session.id != 0, "a session id")
    expect(len(session.password), 16)
    expect_true(session.password != bytes(16), "a password that is not all zero")


@check("handshake: without the readOnly byte the response has none either")
def _(t):
    expect(len(t.tcp().handshake(read_only=None).raw), 36)


@check("handshake: a client that accepts read-only is told that it is not")
def _(t):
    expect(t.tcp().handshake(read_only=True).raw[-1:], b"\x00")


@table("handshake: protocolVersion is ignored and answered with 0", [("1", 1), ("-1", -1), ("2^31-1", 2**31 - 1)])
def _(t, version):
    expect(t.tcp().handshake(protocol=version).protocol, 0)


@table(
    "handshake: timeout",
    [
        ("0 becomes the minimum", lambda t: 0, lambda t: t.timeout_ms_min),
        ("-1 becomes the minimum", lambda t: -1, lambda t: t.timeout_ms_min),
        ("-2^31 becomes the minimum", lambda t: -(2**31), lambda t: t.timeout_ms_min),
        ("1 becomes the minimum", lambda t: 1, lambda t: t.timeout_ms_min),
        ("the minimum stays", lambda t: t.timeout_ms_min, lambda t: t.timeout_ms_min),
        ("between stays, to the millisecond", lambda t: t.timeout_ms_min + 777, lambda t: t.timeout_ms_min + 777),
        ("the maximum stays", lambda t: t.timeout_ms_max, lambda t: t.timeout_ms_max),
        ("above becomes the maximum", lambda t: t.timeout_ms_max + 1, lambda t: t.timeout_ms_max),
        ("2^31-1 becomes the maximum", lambda t: 2**31 - 1, lambda t: t.timeout_ms_max),
    ],
)
def _(t, asked, granted):
    expect(t.tcp().handshake(timeout_ms=asked(t)).timeout_ms, granted(t))


@table(
    "handshake: password of a new session is ignored",
    [("null", None), ("empty", b""), ("3 bytes", b"abc"), ("64 bytes", b"x" * 64)],
)
def _(t, password):
    session = t.tcp().handshake(password=password)
    expect_true(session.id != 0, "a session")
    expect(len(session.password), 16)


@check("handshake: two sessions have different ids and passwords")
def _(t):
    one, two = t.tcp().handshake(), t.tcp().handshake()
    expect_true(one.id != two.id, "different ids")
    expect_true(one.password != two.password, "different passwords")


@check("handshake: trailing bytes are ignored")
def _(t):
    connection = t.tcp()
    connection.send_frame(connect_request() + b"trailing")
    expect_true(connection.read_session().id != 0, "a session")


@table(
    "handshake: cut short, the connection is closed without a reply",
    [("24 bytes", 24), ("43 bytes", 43), ("4 bytes", 4)],
)
def _(t, length):
    connection = t.tcp()
    connection.send_frame(connect_request()[:length])
    expect_closed(connection)


@check("handshake: lastZxidSeen above the server's is closed without a reply")
def _(t):
    connection = t.tcp()
    connection.send_frame(connect_request(last_zxid=2**62))
    expect_closed(connection)


@check("handshake: lastZxidSeen one above the last zxid is refused, the last itself accepted")
def _(t):
    last = t.client().ping().zxid
    expect_true(t.tcp().handshake(last_zxid=last).id != 0, "a session at the last zxid")
    connection = t.tcp()
    connection.send_frame(connect_request(last_zxid=last + 1000))
    expect_closed(connection)


@check("handshake: a negative lastZxidSeen is accepted")
def _(t):
    expect_true(t.tcp().handshake(last_zxid=-1).id != 0, "a session")


@check("handshake: delivered a byte at a time")
def _(t):
    connection = t.tcp()
    body = connect_request()
    for byte in i32(len(body)) + body:
        connection.send_bytes(bytes([byte]))
        time.sleep(0.001)
    expect_true(connection.read_session().id != 0, "a session")


@check("handshake: requests sent in the same segment are answered in order")
def _(t):
    connection = t.tcp()
    hello = connect_request()
    requests = [i32(n) + i32(z.EXISTS) + z.path_watch("/") for n in range(1, 21)]
    connection.send_bytes(b"".join(i32(len(body)) + body for body in [hello, *requests]))
    connection.read_session()
    expect([connection.reply().xid for _ in range(20)], list(range(1, 21)))


@table(
    "first frame: closed without a reply for length",
    [("-1", -1), ("-2^31", -(2**31)), ("0x100000", 0x100000), ("2^31-1", 2**31 - 1), ("the letters abcd", 0x61626364)],
)
def _(t, length):
    connection = t.tcp()
    connection.send_bytes(i32(length))
    expect_closed(connection)


# ---- four-letter words ---------------------------------------------------------------------------------------


@check("four-letter word: ruok answers imok without a newline, then closes")
def _(t):
    connection = t.tcp()
    connection.send_bytes(b"ruok")
    expect_closed(connection, b"imok")


@table(
    "four-letter word",
    [
        ("srvr", b"srvr", b"Mode: standalone\n"),
        ("stat", b"stat", b"Clients:\n"),
        ("mntr", b"mntr", b"zk_server_state\tstandalone\n"),
    ],
)
def _(t, word, line):
    connection = t.tcp()
    connection.send_bytes(word)
    text = connection.bytes_until_close()
    expect_true(line in text, f"{line!r} in {text!r}")


@check("four-letter word: after the handshake it is a packet length, so the connection is closed")
def _(t):
    client = t.client()
    client.send_bytes(b"ruok")
    expect_closed(client)


# ---- frames --------------------------------------------------------------------------------------------------


@table(
    "frame of a session: closed without a reply for length",
    [("-1", -1), ("-2^31", -(2**31)), ("0x100000", 0x100000), ("2^31-1", 2**31 - 1)],
)
def _(t, length):
    client = t.client()
    client.send_bytes(i32(length) + b"\x00" * 64)
    expect_closed(client)


@table(
    "frame of a session: closed when the header is cut short",
    [("0 bytes", b""), ("4 bytes", i32(1)), ("7 bytes", i32(1) + b"\0\0\0")],
)
def _(t, body):
    client = t.client()
    client.send_frame(body)
    expect_closed(client)


@check("frame: the largest length, 0xfffff, is accepted")
def _(t):
    client = t.client()
    path = t.name()
    room = z.PACKET_BYTES_MAX - 8 - len(z.create(path, b""))
    err, got = client.create(path, b"d" * room)
    expect((err, got), (0, path))
    expect(client.stat(path).data_length, room)
    expect(client.get(path)[1], b"d" * room)


@check("frame: a request delivered a byte at a time")
def _(t):
    client = t.client()
    body = i32(7) + i32(z.EXISTS) + z.path_watch("/")
    for byte in i32(len(body)) + body:
        client.send_bytes(bytes([byte]))
        time.sleep(0.001)
    expect(client.reply().xid, 7)


@check("frame: many requests in one segment, cut at an odd place")
def _(t):
    client = t.client()
    stream = b"".join(
        i32(len(body)) + body for body in (i32(n) + i32(z.EXISTS) + z.path_watch("/") for n in range(1, 101))
    )
    client.send_bytes(stream[:1501])
    time.sleep(0.01)
    client.send_bytes(stream[1501:])
    expect([client.reply().xid for _ in range(100)], list(range(1, 101)))


@check("request: trailing bytes are ignored")
def _(t):
    client = t.client()
    path = t.node(client)
    reply = client.call(z.DELETE, z.path_version(path) + b"trailing")
    expect((reply.err, reply.body), (0, b""))
    expect(client.exists(path)[0], z.NO_NODE)


TRUNCATED = [
    ("create", z.CREATE, z.create("/t")),
    ("create2", z.CREATE2, z.create("/t")),
    ("delete", z.DELETE, z.path_version("/t")),
    ("exists", z.EXISTS, z.path_watch("/t")),
    ("getData", z.GET_DATA, z.path_watch("/t")),
    ("setData", z.SET_DATA, z.set_data("/t")),
    ("getACL", z.GET_ACL, z.path_only("/t")),
    ("setACL", z.SET_ACL, z.set_acl("/t")),
    ("getChildren", z.GET_CHILDREN, z.path_watch("/t")),
    ("getChildren2", z.GET_CHILDREN2, z.path_watch("/t")),
    ("multi", z.MULTI, z.multi((z.DELETE, z.path_version("/t")))),
    ("multiRead", z.MULTI_READ, z.multi((z.GET_DATA, z.path_watch("/t")))),
    ("addWatch", z.ADD_WATCH, z.path_type("/t", 0)),
    ("setWatches", z.SET_WATCHES, z.set_watches(0)),
    ("setWatches2", z.SET_WATCHES2, z.set_watches(0, persistent=())),
    ("checkWatches", z.CHECK_WATCHES, z.path_type("/t", 3)),
    ("removeWatches", z.REMOVE_WATCHES, z.path_type("/t", 3)),
    ("sync", z.SYNC, z.path_only("/t")),
]


@table("request cut by its last byte gets -5 and the connection lives", TRUNCATED)
def _(t, opcode, body):
    client = t.client()
    reply = client.call(opcode, body[:-1])
    expect((reply.err, reply.body), (z.MARSHALLING_ERROR, b""))
    expect(client.exists("/")[0], 0, "next request")


@table("request with an empty body gets -5 and the connection lives", [row[:2] for row in TRUNCATED])
def _(t, opcode):
    client = t.client()
    reply = client.call(opcode)
    expect((reply.err, reply.body), (z.MARSHALLING_ERROR, b""))
    expect(client.exists("/")[0], 0, "next request")


@table(
    "request with a bad inner length gets -5",
    [
        ("path of -2", z.EXISTS, i32(-2) + b"\0"),
        ("path longer than the packet", z.EXISTS, i32(100) + b"/\0"),
        ("path of 2^31-1", z.EXISTS, i32(2**31 - 1) + b"/\0"),
        ("data of -2", z.SET_DATA, z.ustring("/") + i32(-2) + i32(-1)),
        ("data of 2^31-1", z.SET_DATA, z.ustring("/") + i32(2**31 - 1) + i32(-1)),
        ("2^31-1 ACLs", z.SET_ACL, z.ustring("/") + i32(2**31 - 1) + i32(-1)),
        ("2^31-1 watches", z.SET_WATCHES, i64(0) + i32(2**31 - 1)),
    ],
)
def _(t, opcode, body):
    client = t.client()
    expect(client.call(opcode, body).err, z.MARSHALLING_ERROR)
    expect(client.exists("/")[0], 0, "next request")


@table(
    "malformed write: the reply carries the last zxid and takes none", [("create", z.CREATE), ("setData", z.SET_DATA)]
)
def _(t, opcode):
    client = t.client()
    before = client.ping().zxid
    expect(client.call(opcode, b"\0").zxid, before, "zxid of the reply")
    expect(client.ping().zxid, before, "last zxid afterwards")


# ---- xids ----------------------------------------------------------------------------------------------------


@table("xid is echoed", [("0", 0), ("-3", -3), ("-1000", -1000), ("2^31-1", 2**31 - 1), ("-2^31", -(2**31))])
def _(t, xid):
    client = t.client()
    client.send(z.EXISTS, z.path_watch("/"), xid)
    expect(struct.unpack(">i", client.read_frame()[:4])[0], xid)


@check("xid: the same one twice, and one that goes back, are answered in order")
def _(t):
    client = t.client()
    for xid in (9, 9, 3, 7):
        client.send(z.EXISTS, z.path_watch("/"), xid)
    expect([client.reply().xid for _ in range(4)], [9, 9, 3, 7])


@check("ping: a header of 16 bytes with xid -2 and the last zxid")
def _(t):
    client = t.client()
    created = client.call(z.CREATE, z.create(t.name()))
    client.send(z.PING, b"", -2)
    expect(client.read_frame(), i32(-2) + i64(created.zxid) + i32(0))


@check("ping: answered with xid -2 whatever xid it was sent with")
def _(t):
    client = t.client()
    client.send(z.PING, b"", 77)
    expect(client.reply().xid, -2)


@check("setWatches with xid -8 echoes it, with the last zxid and no body")
def _(t):
    client = t.client()
    last = client.ping().zxid
    client.send(z.SET_WATCHES, z.set_watches(last), -8)
    expect(client.read_frame(), i32(-8) + i64(last) + i32(0))


# ---- unknown opcodes -----------------------------------------------------------------------------------------

REFUSED = [
    ("0 (notification)", 0),
    ("10", 10),
    ("13 (check outside multi)", z.CHECK),
    ("20 (deleteContainer)", z.DELETE_CONTAINER),
    ("23", 23),
    ("99", 99),
    ("108", 108),
    ("500", 500),
    ("2^31-1", 2**31 - 1),
    ("-1 (error)", -1),
    ("-2", -2),
    ("-10 (createSession)", z.CREATE_SESSION),
    ("-12", -12),
]


@table(
    "refused opcode gets {xid, zxid -1, err -6}, then the close",
    REFUSED,
    deviates={
        "20 (deleteContainer)": "executes the server's internal opcode for any client",
        "-10 (createSession)": "executes the server's internal opcode for any client",
    },
)
def _(t, opcode):
    client = t.client()
    client.send(opcode, z.path_version("/"), 5)
    expect_closed(client, i32(16) + i32(5) + i64(-1) + i32(z.UNIMPLEMENTED))


@check("refused opcode: the session lives on and can be taken up again")
def _(t):
    client = t.client()
    path = t.name()
    expect(client.create(path, flags=z.EPHEMERAL)[0], 0)
    client.send(999)
    client.bytes_until_close()
    again = t.reattach(client.session)
    expect(again.session.id, client.session.id)
    expect(again.stat(path).owner, client.session.id)


@check(
    "refused opcode: earlier requests are answered first, later ones never",
    deviates="refuses at the edge, so the -6 and the close may overtake earlier requests",
)
def _(t):
    client = t.client()
    path, later = t.name(), t.name()
    client.send(z.CREATE, z.create(path), 1)
    client.send(z.EXISTS, z.path_watch(path), 2)
    client.send(999, b"", 3)
    client.send(z.CREATE, z.create(later), 4)
    replies = [client.reply() for _ in range(3)]
    expect([(r.xid, r.err) for r in replies], [(1, 0), (2, 0), (3, z.UNIMPLEMENTED)])
    expect_closed(client)
    expect(t.client().exists(later)[0], z.NO_NODE)


# ---- features that are off -----------------------------------------------------------------------------------


@table(
    "createTTL without extended types: an error with a zxid of its own, and the connection goes on",
    [
        ("TTL", 5, 1000, z.UNIMPLEMENTED),
        ("sequential TTL", 6, 1000, z.UNIMPLEMENTED),
        ("TTL of no time", 5, -1, z.UNIMPLEMENTED),
        ("another kind of node", 0, 1000, z.BAD_ARGUMENTS),
        ("an unknown kind of node", 99, 1000, z.BAD_ARGUMENTS),
    ],
)
def _(t, flags, ttl_ms, err):
    client = t.client()
    last = client.ping().zxid
    reply = client.call(z.CREATE_TTL, z.create_ttl(t.name(), flags=flags, ttl_ms=ttl_ms))
    expect((reply.zxid, reply.err, reply.body), (last + 1, err, b""))
    expect(client.exists("/")[0], 0)


@check("createTTL in a multi without extended types: it fails in its slot")
def _(t):
    client = t.client()
    path = t.name()
    _, entries = client.multi(
        (z.CREATE, z.create(path)), (z.CREATE_TTL, z.create_ttl(path + "/a")), (z.CHECK, z.path_version("/"))
    )
    expect([err for _, err, _ in entries], [0, z.UNIMPLEMENTED, z.RUNTIME_INCONSISTENCY])
    _, entries = client.multi((z.CREATE_TTL, z.create_ttl(path, flags=z.EPHEMERAL)))
    expect(entries, [(z.CREATE, 0, path)])


@table("sasl without a configuration: an empty token, and the connection goes on", [("empty", b""), ("some", b"token")])
def _(t, token):
    client = t.client()
    client.send(z.SASL, z.sasl(token), 7)
    expect(client.read_frame(), i32(7) + i64(0) + i32(0) + i32(-1))
    expect(client.exists("/")[0], 0)


# ---- error replies -------------------------------------------------------------------------------------------


@table(
    "error reply is a bare header",
    [
        ("create", z.CREATE, z.create("/no/parent"), z.NO_NODE),
        ("create2", z.CREATE2, z.create("/no/parent"), z.NO_NODE),
        ("delete", z.DELETE, z.path_version("/no"), z.NO_NODE),
        ("exists", z.EXISTS, z.path_watch("/no"), z.NO_NODE),
        ("getData", z.GET_DATA, z.path_watch("/no"), z.NO_NODE),
        ("setData", z.SET_DATA, z.set_data("/no"), z.NO_NODE),
        ("getACL", z.GET_ACL, z.path_only("/no"), z.NO_NODE),
        ("setACL", z.SET_ACL, z.set_acl("/no"), z.NO_NODE),
        ("getChildren", z.GET_CHILDREN, z.path_watch("/no"), z.NO_NODE),
        ("getChildren2", z.GET_CHILDREN2, z.path_watch("/no"), z.NO_NODE),
        ("checkWatches", z.CHECK_WATCHES, z.path_type("/no", 3), z.NO_WATCHER),
        ("removeWatches", z.REMOVE_WATCHES, z.path_type("/no", 3), z.NO_WATCHER),
    ],
)
def _(t, opcode, body, err):
    client = t.client()
    reply = client.call(opcode, body)
    expect((reply.err, reply.body), (err, b""))
