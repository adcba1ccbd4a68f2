"""What moves the rows of mntr, and by how much (reference: Apache 3.9.5, observed and in its source)."""

import zkraw as z
from harness import check, expect, expect_closed, expect_true

# Every row that both servers have, but for the times.
ROWS = (
    "packets_received packets_sent bytes_received_count response_bytes num_alive_connections outstanding_requests znode_count "
    "watch_count ephemerals_count approximate_data_size global_sessions local_sessions connection_request_count "
    "connection_revalidate_count connection_rejected sessionless_connections_expired stale_sessions_expired auth_failed_count "
    "commit_count snap_count large_requests_rejected cnt_snapshottime"
).split()
# mntr itself: Apache sends its long answer in several packets, so that packets sent are compared without it.
WORD = dict(packets_received=1, bytes_received_count=4)


def rows(t):
    connection = t.tcp()
    connection.send_bytes(b"mntr")
    lines = connection.bytes_until_close().decode().splitlines()
    return {name[3:]: value for name, value in (line.split("\t", 1) for line in lines if "\t" in line)}


def moved(before, after):
    return {row: int(after[row]) - int(before[row]) for row in ROWS if row != "packets_sent" and after[row] != before[row]}


def settled(t):
    """The rows, once what the last request set in motion has been counted."""
    last = rows(t)
    while True:
        now = rows(t)
        if {row: n for row, n in moved(last, now).items() if WORD.get(row) != n} == {}:
            return now
        last = now


def expect_moves(t, action, **moves):
    """`action` moves these rows and no others."""
    before = settled(t)
    action()
    wanted = dict(moves)

    def as_wanted():
        now = rows(t)
        got = moved(before, now)
        words = (got.get("bytes_received_count", 0) - wanted.get("bytes_received_count", 0)) // 4
        got["packets_received"] = got.get("packets_received", 0) - words
        got["bytes_received_count"] = got.get("bytes_received_count", 0) - 4 * words
        as_wanted.got = {row: n for row, n in got.items() if n}
        return as_wanted.got == wanted

    try:
        t.until(as_wanted, 3, "the rows")
    except Exception:
        expect(as_wanted.got, wanted)
        raise


def frame(opcode_body):
    return 4 + 8 + len(opcode_body)


HANDSHAKE = 4 + len(z.connect_request())


@check("mntr: every row is there")
def _(t):
    got = rows(t)
    expect([row for row in ROWS if row not in got], [])
    for name in ("fsynctime", "snapshottime"):
        expect([part for part in ("avg", "min", "max", "cnt", "sum") if f"{part}_{name}" not in got], [])
    for row in ("version", "server_state", "avg_latency", "min_latency", "max_latency", "uptime"):
        expect_true(row in got, row)
    for row in ("open_file_descriptor_count", "max_file_descriptor_count"):
        expect_true(int(got[row]) > 0, row)


@check("mntr: a session comes, asks and goes")
def _(t):
    clients = []
    expect_moves(
        t,
        lambda: clients.append(t.client()),
        packets_received=1,
        bytes_received_count=HANDSHAKE,
        num_alive_connections=1,
        global_sessions=1,
        connection_request_count=1,
    )
    client = clients[0]
    expect_moves(t, client.ping, packets_received=1, bytes_received_count=12)
    asked = z.path_watch("/")
    expect_moves(
        t, lambda: client.exists("/"), packets_received=1, bytes_received_count=frame(asked), response_bytes=16 + 68
    )
    asked = z.path_watch("/none")
    expect_moves(
        t, lambda: client.exists("/none"), packets_received=1, bytes_received_count=frame(asked), response_bytes=16
    )
    expect_moves(
        t,
        lambda: client.auth("digest", b"a:b"),
        packets_received=1,
        bytes_received_count=frame(z.auth("digest", b"a:b")),
    )
    expect_moves(
        t,
        client.end,
        packets_received=1,
        bytes_received_count=12,
        response_bytes=16,
        num_alive_connections=-1,
        global_sessions=-1,
    )


@check("mntr: nodes, their sizes and who owns them")
def _(t):
    client = t.client()
    path = t.name()
    asked = z.create(path, b"xyz")
    expect_moves(
        t,
        lambda: client.create(path, b"xyz"),
        packets_received=1,
        bytes_received_count=frame(asked),
        response_bytes=16 + 4 + len(path),
        znode_count=1,
        approximate_data_size=len(path) + 3,
    )
    expect_moves(
        t, lambda: client.create(path, b"xyz"), packets_received=1, bytes_received_count=frame(asked), response_bytes=16
    )
    asked = z.set_data(path, b"12345")
    expect_moves(
        t,
        lambda: client.set(path, b"12345"),
        packets_received=1,
        bytes_received_count=frame(asked),
        response_bytes=16 + 68,
        approximate_data_size=2,
    )
    child = path + "/e"
    asked = z.create(child, flags=z.EPHEMERAL)
    expect_moves(
        t,
        lambda: client.create(child, flags=z.EPHEMERAL),
        packets_received=1,
        bytes_received_count=frame(asked),
        response_bytes=16 + 4 + len(child),
        znode_count=1,
        ephemerals_count=1,
        approximate_data_size=len(child),
    )
    asked = z.path_version(child)
    expect_moves(
        t,
        lambda: client.delete(child),
        packets_received=1,
        bytes_received_count=frame(asked),
        response_bytes=16,
        znode_count=-1,
        ephemerals_count=-1,
        approximate_data_size=-len(child),
    )


@check("mntr: watches of every kind, and their end")
def _(t):
    client = t.client()
    path = t.node(client)
    for opcode, reply in ((z.GET_DATA, 16 + 4 + 68), (z.GET_CHILDREN, 16 + 4)):
        asked = z.path_watch(path, True)
        moves = dict(packets_received=1, bytes_received_count=frame(asked), response_bytes=reply, watch_count=1)
        expect_moves(t, lambda: client.ask(opcode, asked), **moves)
    # A persistent watch is in both of Apache's tables, a recursive one in one.
    for mode, watches in ((0, 2), (1, 1)):
        asked = z.path_type(f"{path}/{mode}", mode)
        moves = dict(packets_received=1, bytes_received_count=frame(asked), response_bytes=20, watch_count=watches)
        expect_moves(t, lambda: client.ask(z.ADD_WATCH, asked), **moves)
    # Events are no replies.
    asked = z.set_data(path, b"")
    moves = dict(packets_received=1, bytes_received_count=frame(asked), response_bytes=16 + 68, watch_count=-1)
    expect_moves(t, lambda: client.set(path, b""), **moves)
    expect_moves(t, client.close, num_alive_connections=-1, watch_count=-4)


COUNTED = dict(packets_received=1, bytes_received_count=HANDSHAKE, connection_request_count=1)


def attempt(t, **fields):
    """A handshake that ends the connection."""
    connection = t.tcp()
    connection.send_frame(z.connect_request(**fields))
    connection.bytes_until_close()


@check("mntr: handshakes that take up a session, with every answer")
def _(t):
    session = t.client().session
    # The old connection goes, the new one stays.
    expect_moves(t, lambda: t.reattach(session), connection_revalidate_count=1, **COUNTED)
    unknown = dict(session_id=0x1234, password=bytes(16))
    expect_moves(t, lambda: attempt(t, **unknown), connection_revalidate_count=1, **COUNTED)
    expect_moves(t, lambda: attempt(t, last_zxid=1 << 60), **COUNTED)
    ahead = dict(session_id=session.id, password=session.password, last_zxid=1 << 60)
    expect_moves(t, lambda: attempt(t, **ahead), **COUNTED)


@check(
    "mntr: a handshake with a wrong password",
    deviates="closes the session's connection before it checks the password",
)
def _(t):
    session = t.client().session
    wrong = dict(session_id=session.id, password=bytes(16))
    expect_moves(t, lambda: attempt(t, **wrong), connection_revalidate_count=1, **COUNTED)


@check("mntr: what is no packet is not counted, and a four-letter word is")
def _(t):
    def oversized():
        connection = t.tcp()
        connection.send_bytes(z.i32(5_000_000))
        expect_closed(connection)

    expect_moves(t, oversized)

    def word():
        connection = t.tcp()
        connection.send_bytes(b"srvr")
        connection.bytes_until_close()

    # It cannot be told from the mntr that asks.
    expect_moves(t, word)
    before = rows(t)
    word()
    after = rows(t)
    expect(int(after["packets_received"]) - int(before["packets_received"]), 2)
    expect(int(after["bytes_received_count"]) - int(before["bytes_received_count"]), 8)


@check("mntr: packets never go back when clients go")
def _(t):
    before = rows(t)
    for _ in range(5):
        client = t.client()
        for _ in range(20):
            client.exists("/")
        client.end()
        after = rows(t)
        for row in ("packets_received", "packets_sent"):
            expect_true(int(after[row]) >= int(before[row]) + 22, f"{row}: {before[row]} to {after[row]}")
        before = after


@check("mntr: a session that is silent, and one that is closed")
def _(t):
    counted = dict(global_sessions=-1, num_alive_connections=-1, stale_sessions_expired=1)
    client = t.client(timeout_ms=t.timeout_ms_min)
    before = settled(t)
    t.until(lambda: int(rows(t)["stale_sessions_expired"]) > int(before["stale_sessions_expired"]), 10, "the expiry")
    got = {row: n for row, n in moved(before, settled(t)).items() if row in counted}
    expect(got, counted)
    expect_closed(client)
