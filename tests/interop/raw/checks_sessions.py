"""Session re-attach, expiry and closeSession."""

import time

import zkraw as z
from harness import check, expect, expect_closed, expect_true, table

REFUSED = z.i32(37) + bytes(4 + 4 + 8) + z.i32(16) + bytes(16 + 1)

# ---- re-attach -----------------------------------------------------------------------------------------------


@check("re-attach: same id and password come back")
def _(t):
    client = t.client()
    client.close()
    again = t.reattach(client.session)
    expect((again.session.id, again.session.password), (client.session.id, client.session.password))


@check("re-attach: the timeout is negotiated anew")
def _(t):
    client = t.client(timeout_ms=t.timeout_ms_max)
    client.close()
    again = t.reattach(client.session, timeout_ms=t.timeout_ms_min + 123)
    expect(again.session.timeout_ms, t.timeout_ms_min + 123)


@check("re-attach: ephemerals made before belong to the session still")
def _(t):
    client = t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    client.close()
    again = t.reattach(client.session)
    expect(again.stat(path).owner, client.session.id)
    expect(again.delete(path), (0,))


@check("re-attach: without the readOnly byte the response has none")
def _(t):
    client = t.client()
    expect(len(t.reattach(client.session, read_only=None).session.raw), 36)


@check("re-attach: the session's earlier connection is closed")
def _(t):
    client = t.client()
    t.reattach(client.session)
    expect_closed(client)


@check("re-attach: a write of the earlier connection is not applied afterwards")
def _(t):
    client = t.client()
    path = t.node(client)
    again = t.reattach(client.session)
    try:
        client.send(z.SET_DATA, z.set_data(path, b"stale"))
        client.bytes_until_close()
    except z.Closed:
        pass
    expect(again.get(path)[1], b"")


@check("re-attach: works ten times in a row")
def _(t):
    client = t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    for _ in range(10):
        client = t.reattach(client.session)
    expect(client.stat(path).owner, client.session.id)


@check("re-attach: watches of the earlier connection are gone")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client)
    client.get(path, True)
    again = t.reattach(client.session)
    expect(other.set(path, b"x")[0], 0)
    expect(again.take_events(), [])


@check("re-attach: identities given by auth stay with the earlier connection")
def _(t):
    client = t.client()
    client.auth("digest", b"u:p")
    path = t.node(client, acl=[z.Acl(z.ALL, "auth", "")])
    again = t.reattach(client.session)
    expect(again.get(path)[0], z.NO_AUTH)
    expect(again.auth("digest", b"u:p"), 0)
    expect(again.get(path)[0], 0)


WRONG_PASSWORDS = [
    ("all zero", bytes(16)),
    ("null", None),
    ("empty", b""),
    ("one bit off", "flip"),
    ("cut", "cut"),
    ("longer", "long"),
]


def wrong(password, how):
    variants = {"flip": bytes([password[0] ^ 1]) + password[1:], "cut": password[:15], "long": password + b"\0"}
    return variants[how] if isinstance(how, str) else how


@table("re-attach with a wrong password is answered with zeroes, then the close", WRONG_PASSWORDS)
def _(t, how):
    client = t.client()
    connection = t.tcp()
    password = wrong(client.session.password, how)
    connection.send_frame(z.connect_request(session_id=client.session.id, password=password))
    expect_closed(connection, REFUSED)


@check("re-attach with a wrong password and without the readOnly byte: 36 zeroes")
def _(t):
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=t.client().session.id, read_only=None))
    expect_closed(connection, z.i32(36) + REFUSED[4:-1])


@check(
    "re-attach with a wrong password leaves the rightful connection alone",
    deviates="closes the session's connection before it checks the password",
)
def _(t):
    client = t.client()
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=client.session.id, password=b"x" * 16))
    expect_closed(connection, REFUSED)
    expect(client.exists("/")[0], 0)


@check("re-attach with a wrong password does not end the session")
def _(t):
    client = t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=client.session.id, password=b"x" * 16))
    expect_closed(connection, REFUSED)
    expect(t.reattach(client.session).stat(path).owner, client.session.id)


@table(
    "re-attach to a session that never was is answered with zeroes",
    [("1", 1), ("-1", -1), ("2^63-1", 2**63 - 1), ("-2^63", -(2**63))],
)
def _(t, session_id):
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=session_id, password=b"p" * 16))
    expect_closed(connection, REFUSED)


@check("re-attach with lastZxidSeen ahead of the server: closed silently, the session not moved")
def _(t):
    client = t.client()
    connection = t.tcp()
    connection.send_frame(
        z.connect_request(last_zxid=2**62, session_id=client.session.id, password=client.session.password)
    )
    expect_closed(connection)
    expect(client.exists("/")[0], 0)


@check("re-attach with the last zxid seen is accepted")
def _(t):
    client = t.client()
    last = client.call(z.CREATE, z.create(t.name())).zxid
    expect(t.reattach(client.session, last_zxid=last).session.id, client.session.id)


@check("re-attach: requests sent right behind the handshake are answered")
def _(t):
    client = t.client()
    client.close()
    connection = t.tcp()
    hello = z.connect_request(session_id=client.session.id, password=client.session.password)
    request = z.i32(5) + z.i32(z.EXISTS) + z.path_watch("/")
    connection.send_bytes(z.i32(len(hello)) + hello + z.i32(len(request)) + request)
    expect(connection.read_session().id, client.session.id)
    expect((connection.reply().xid, connection.events), (5, []))


# ---- closeSession --------------------------------------------------------------------------------------------


@check("closeSession: a bare header with a zxid of its own, then the close")
def _(t):
    client = t.client()
    last = client.ping().zxid
    client.send(z.CLOSE_SESSION, b"", 9)
    expect_closed(client, z.i32(16) + z.i32(9) + z.i64(last + 1) + z.i32(0))


@check("closeSession: the session cannot be taken up again")
def _(t):
    client = t.client()
    client.end()
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=client.session.id, password=client.session.password))
    expect_closed(connection, REFUSED)


@check("closeSession: ephemerals go with the zxid of the reply, the parent's pzxid says so")
def _(t):
    client, other = t.client(), t.client()
    parent = t.node(other)
    for name in "abc":
        expect(client.create(f"{parent}/{name}", flags=z.EPHEMERAL)[0], 0)
    reply = client.end()
    stat = other.stat(parent)
    expect((stat.pzxid, stat.num_children, stat.cversion), (reply.zxid, 0, 6))


@check("closeSession: watchers get NodeDeleted with the zxid of the closeSession")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    other.exists(path, True)
    zxid = client.end().zxid
    other.ping()
    expect(other.events, [z.Event(zxid, z.DELETED, 3, path, 0)])


@check("closeSession: requests behind it on the connection are not executed")
def _(t):
    client, other = t.client(), t.client()
    path = t.name()
    client.send(z.CLOSE_SESSION, b"", 1)
    client.send(z.CREATE, z.create(path), 2)
    expect(client.reply().xid, 1)
    expect_closed(client)
    expect(other.exists(path)[0], z.NO_NODE)


@check("closeSession: requests before it are answered first")
def _(t):
    client = t.client()
    path = t.name()
    client.send(z.CREATE, z.create(path, flags=z.EPHEMERAL), 1)
    client.send(z.GET_DATA, z.path_watch(path), 2)
    client.send(z.CLOSE_SESSION, b"", 3)
    expect([(r.xid, r.err) for r in (client.reply(), client.reply(), client.reply())], [(1, 0), (2, 0), (3, 0)])
    expect(t.client().exists(path)[0], z.NO_NODE)


@check("closeSession: nodes of other kinds stay")
def _(t):
    client, other = t.client(), t.client()
    path = t.node(client)
    client.end()
    expect(other.exists(path)[0], 0)


# ---- expiry --------------------------------------------------------------------------------------------------


@check("TCP close is not session close: the ephemeral stays until the timeout, then goes")
def _(t):
    client, other = t.client(timeout_ms=t.timeout_ms_min), t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    other.exists(path, True)
    client.ping()
    client.close()
    left = time.monotonic()
    t.until(lambda: other.take_events() == [(z.DELETED, path)], 10, "NodeDeleted on expiry")
    gone_ms = (time.monotonic() - left) * 1000
    expect_true(gone_ms >= t.timeout_ms_min - 50, f"kept for {gone_ms:.0f} ms, timeout {t.timeout_ms_min}")
    bound = t.timeout_ms_min + 2 * t.tick_ms + 2000
    expect_true(gone_ms <= bound, f"gone after {gone_ms:.0f} ms, at most {bound}")
    expect(other.exists(path)[0], z.NO_NODE)


@check("expiry: an open but silent connection is closed and its session gone")
def _(t):
    client = t.client(timeout_ms=t.timeout_ms_min)
    expect_closed(client)
    connection = t.tcp()
    connection.send_frame(z.connect_request(session_id=client.session.id, password=client.session.password))
    expect_closed(connection, REFUSED)


@table(
    "expiry: a session is kept alive by",
    [
        ("pings", z.PING, b"", -2),
        ("reads", z.EXISTS, z.path_watch("/"), 1),
        ("writes that fail", z.DELETE, z.path_version("/none"), 1),
    ],
)
def _(t, opcode, body, xid):
    client = t.client(timeout_ms=t.timeout_ms_min)
    end = time.monotonic() + 2.5 * t.timeout_ms_min / 1000
    while time.monotonic() < end:
        client.call(opcode, body, xid)
        time.sleep(t.timeout_ms_min / 8000)
    expect(client.exists("/")[0], 0)


@check("expiry: takes one zxid for all the ephemerals")
def _(t):
    client, other = t.client(timeout_ms=t.timeout_ms_min), t.client()
    parent = t.node(other)
    for name in "abc":
        expect(client.create(f"{parent}/{name}", flags=z.EPHEMERAL)[0], 0)
    for name in "abc":
        other.exists(f"{parent}/{name}", True)
    client.close()
    t.until(lambda: other.ping() and len(other.events) == 3, 10, "three events")
    expect({event.zxid for event in other.events}, {other.stat(parent).pzxid})
    expect(sorted(event.path[-1] for event in other.events), ["a", "b", "c"])


@check("expiry: a session re-attached in time lives on")
def _(t):
    client, other = t.client(timeout_ms=t.timeout_ms_min), t.client()
    path = t.node(client, flags=z.EPHEMERAL)
    client.close()
    time.sleep(t.timeout_ms_min / 2000)
    again = t.reattach(client.session, timeout_ms=t.timeout_ms_max)
    time.sleep(2 * t.timeout_ms_min / 1000)
    expect(again.stat(path).owner, client.session.id)
    expect(other.exists(path)[0], 0)


# ---- zxids of sessions ---------------------------------------------------------------------------------------


@check("a new session takes exactly one zxid")
def _(t):
    client = t.client()
    last = client.ping().zxid
    t.client()
    expect(client.ping().zxid, last + 1)


@check("ephemeralOwner is the session's id in every reply that carries a Stat")
def _(t):
    client = t.client()
    path = t.name()
    _err, _path, created = client.ask(z.CREATE2, z.create(path, b"", flags=z.EPHEMERAL))
    stats = [created, client.stat(path), client.get(path)[2], client.children2(path)[2], client.set(path)[1]]
    expect({stat.owner for stat in stats}, {client.session.id})
