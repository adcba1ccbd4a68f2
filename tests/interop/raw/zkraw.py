"""A ZooKeeper client that writes and reads the wire by hand, so that tests can send what no library would.

Contract: nothing is retried, hidden or reordered. Every frame read from the socket is either a reply or a watch
event and is kept in `Connection.trace` in the order of arrival. Every wait has a bound and raises Timeout.
Encoders are plain functions from fields to body bytes, one per opcode; `None` stands for jute's null.
"""

import itertools
import socket
import struct
import time
from collections import namedtuple

REPLY_WAIT_SECONDS = 20.0
PACKET_BYTES_MAX = 0xFFFFF

# Opcodes.
NOTIFICATION, CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN, SYNC = range(10)
PING, GET_CHILDREN2, CHECK, MULTI, CREATE2, RECONFIG, CHECK_WATCHES, REMOVE_WATCHES = range(11, 19)
CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = range(19, 23)
AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES2, ADD_WATCH = range(100, 107)
CREATE_SESSION, CLOSE_SESSION = -10, -11

# Error codes.
OK, RUNTIME_INCONSISTENCY, MARSHALLING_ERROR, UNIMPLEMENTED, BAD_ARGUMENTS = 0, -2, -5, -6, -8
NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, INVALID_ACL, AUTH_FAILED, NO_WATCHER = -110, -111, -114, -115, -121

# Event types, watcher types, watch modes, create flags, permissions.
CREATED, DELETED, DATA_CHANGED, CHILDREN_CHANGED = 1, 2, 3, 4
W_CHILDREN, W_DATA, W_ANY, W_PERSISTENT, W_RECURSIVE = 1, 2, 3, 4, 5
PERSISTENT_WATCH, RECURSIVE_WATCH = 0, 1
PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL = 0, 1, 2, 3
READ, WRITE, CREATE_PERM, DELETE_PERM, ADMIN, ALL = 1, 2, 4, 8, 16, 31

Acl = namedtuple("Acl", "perms scheme id")
Reply = namedtuple("Reply", "xid zxid err body")
Event = namedtuple("Event", "zxid type state path err")
Session = namedtuple("Session", "protocol timeout_ms id password read_only raw")
Stat = namedtuple(
    "Stat",
    "czxid mzxid ctime mtime version cversion aversion owner data_length num_children pzxid",
)

OPEN = [Acl(ALL, "world", "anyone")]


class Closed(Exception):
    """The server closed the connection."""


class Timeout(Exception):
    """The server was silent for longer than the bound."""


# ---- jute ----------------------------------------------------------------------------------------------------


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def boolean(value):
    return b"\x01" if value else b"\x00"


def buffer(value):
    return i32(-1) if value is None else i32(len(value)) + value


def ustring(value):
    return i32(-1) if value is None else buffer(value if isinstance(value, bytes) else value.encode())


def vector(items, encode):
    return i32(-1) if items is None else i32(len(items)) + b"".join(map(encode, items))


def acl_list(acls):
    return vector(acls, lambda a: i32(a.perms) + ustring(a.scheme) + ustring(a.id))


class Reader:
    """Decodes one body; `end` fails when bytes are left over."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"wants {count} bytes at {self.at} of {len(self.data)}: {self.data!r}")
        self.at += count
        return self.data[self.at - count : self.at]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def boolean(self):
        return self.take(1) != b"\x00"

    def buffer(self):
        length = self.i32()
        return None if length == -1 else self.take(length)

    def ustring(self):
        raw = self.buffer()
        return None if raw is None else raw.decode()

    def vector(self, decode):
        count = self.i32()
        return None if count == -1 else [decode() for _ in range(count)]

    def acl(self):
        return Acl(self.i32(), self.ustring(), self.ustring())

    def stat(self):
        return Stat(*struct.unpack(">qqqqiiiqiiq", self.take(68)))

    def end(self):
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many: {self.data[self.at:]!r}")


# ---- request bodies ------------------------------------------------------------------------------------------


def connect_request(protocol=0, last_zxid=0, timeout_ms=10000, session_id=0, password=bytes(16), read_only=False):
    """The handshake's body. read_only None leaves the byte out, as clients before 3.4 do."""
    body = i32(protocol) + i64(last_zxid) + i32(timeout_ms) + i64(session_id) + buffer(password)
    return body if read_only is None else body + boolean(read_only)


def create(path, data=b"", acl=OPEN, flags=PERSISTENT):
    return ustring(path) + buffer(data) + acl_list(acl) + i32(flags)


def create_ttl(path, data=b"", acl=OPEN, flags=5, ttl_ms=1000):
    return create(path, data, acl, flags) + i64(ttl_ms)


def path_version(path, version=-1):
    """delete, check."""
    return ustring(path) + i32(version)


def path_watch(path, watch=False):
    """exists, getData, getChildren, getChildren2."""
    return ustring(path) + boolean(watch)


def path_only(path):
    """getACL, sync, deleteContainer, getEphemerals, getAllChildrenNumber."""
    return ustring(path)


def set_data(path, data=b"", version=-1):
    return ustring(path) + buffer(data) + i32(version)


def set_acl(path, acl=OPEN, version=-1):
    return ustring(path) + acl_list(acl) + i32(version)


def auth(scheme, token, kind=0):
    return i32(kind) + ustring(scheme) + buffer(token)


def sasl(token):
    return buffer(token)


def reconfig(joining=None, leaving=None, members=None, config_id=-1):
    return ustring(joining) + ustring(leaving) + ustring(members) + i64(config_id)


def path_type(path, kind):
    """checkWatches and removeWatches (watcher type), addWatch (mode)."""
    return ustring(path) + i32(kind)


def set_watches(relative_zxid, data=(), exist=(), child=(), persistent=None, recursive=None):
    """setWatches, or setWatches2 when persistent or recursive is given."""
    groups = [data, exist, child]
    if persistent is not None or recursive is not None:
        groups += [persistent or (), recursive or ()]
    return i64(relative_zxid) + b"".join(vector(g, ustring) for g in groups)


def multi_header(kind, done=False, err=-1):
    return i32(kind) + boolean(done) + i32(err)


MULTI_END = multi_header(-1, True, -1)


def multi(*ops):
    """ops: (opcode, body) pairs; also the body of multiRead."""
    return b"".join(multi_header(kind) + body for kind, body in ops) + MULTI_END


# ---- reply bodies --------------------------------------------------------------------------------------------


def decode_multi(body):
    """The entries of a multi reply: (type, err, value) with value by type; checks both copies of an error."""
    reader, entries = Reader(body), []
    while True:
        kind, done, err = reader.i32(), reader.boolean(), reader.i32()
        if done:
            if (kind, err) != (-1, -1):
                raise ValueError(f"odd terminator: type {kind}, err {err}")
            reader.end()
            return entries
        entries.append((kind, err, _multi_value(reader, kind, err)))


def _multi_value(reader, kind, err):
    if kind == -1:
        copy = reader.i32()
        if copy != err:
            raise ValueError(f"header says {err}, ErrorResponse {copy}")
        return None
    if kind == GET_DATA:
        return reader.buffer(), reader.stat()
    readers = {
        CREATE: reader.ustring,
        CREATE2: lambda: (reader.ustring(), reader.stat()),
        SET_DATA: reader.stat,
        DELETE: lambda: None,
        CHECK: lambda: None,
        GET_CHILDREN: lambda: reader.vector(reader.ustring),
    }
    return readers[kind]()


def decode_reply(opcode, reply):
    """The fields of a successful reply's body, as a tuple; fails on a byte too few or too many."""
    if reply.err != OK:
        if reply.body:
            raise ValueError(f"error reply {reply.err} with a body: {reply.body!r}")
        return ()
    reader = Reader(reply.body)
    if opcode in (MULTI, MULTI_READ):
        return (decode_multi(reply.body),)
    fields = {
        CREATE: lambda: (reader.ustring(),),
        CREATE2: lambda: (reader.ustring(), reader.stat()),
        CREATE_CONTAINER: lambda: (reader.ustring(), reader.stat()),
        CREATE_TTL: lambda: (reader.ustring(), reader.stat()),
        EXISTS: lambda: (reader.stat(),),
        GET_DATA: lambda: (reader.buffer(), reader.stat()),
        SET_DATA: lambda: (reader.stat(),),
        GET_ACL: lambda: (reader.vector(reader.acl), reader.stat()),
        SET_ACL: lambda: (reader.stat(),),
        GET_CHILDREN: lambda: (reader.vector(reader.ustring),),
        GET_CHILDREN2: lambda: (reader.vector(reader.ustring), reader.stat()),
        SYNC: lambda: (reader.ustring(),),
        ADD_WATCH: lambda: (reader.i32(),),
        SASL: lambda: (reader.buffer(),),
        RECONFIG: lambda: (reader.buffer(), reader.stat()),
        GET_EPHEMERALS: lambda: (reader.vector(reader.ustring),),
        GET_ALL_CHILDREN_NUMBER: lambda: (reader.i32(),),
    }.get(opcode, tuple)()
    reader.end()
    return fields


# ---- connection ----------------------------------------------------------------------------------------------


class Connection:
    """One TCP connection. `session` is set by `handshake`; `trace` holds every Reply and Event as it came."""

    def __init__(self, address):
        self.sock = socket.create_connection(address, REPLY_WAIT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.xids = itertools.count(1)
        self.trace, self.events, self.pending = [], [], b""
        self.session = None

    # raw bytes

    def send_bytes(self, data):
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from error

    def send_frame(self, body):
        self.send_bytes(i32(len(body)) + body)

    def read_frame(self, wait=REPLY_WAIT_SECONDS):
        length = struct.unpack(">i", self._exactly(4, wait))[0]
        return self._exactly(length, wait)

    def _exactly(self, count, wait):
        deadline = time.monotonic() + wait
        while len(self.pending) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout(f"{len(self.pending)} of {count} bytes after {wait} s")
            self.sock.settimeout(left)
            try:
                part = self.sock.recv(1 << 20)
            except TimeoutError:
                continue
            except OSError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed(f"end of stream after {len(self.pending)} of {count} bytes")
            self.pending += part
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def bytes_until_close(self, wait=REPLY_WAIT_SECONDS):
        """Every byte until the server closes; Timeout when it does not."""
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                part = self.sock.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                part = b""
            if not part:
                taken, self.pending = self.pending, b""
                return taken
            self.pending += part
        raise Timeout(f"still open after {wait} s")

    # session

    def handshake(self, wait=REPLY_WAIT_SECONDS, **fields):
        """Sends a ConnectRequest and returns the Session answered; id 0 is a refusal."""
        self.send_frame(connect_request(**fields))
        return self.read_session(wait)

    def read_session(self, wait=REPLY_WAIT_SECONDS):
        raw = self.read_frame(wait)
        reader = Reader(raw)
        protocol, timeout_ms, ident, password = reader.i32(), reader.i32(), reader.i64(), reader.buffer()
        read_only = reader.boolean() if len(raw) == 37 else None
        reader.end()
        self.session = Session(protocol, timeout_ms, ident, password, read_only, raw)
        return self.session

    # requests

    def send(self, opcode, body=b"", xid=None):
        """Sends one request and returns its xid."""
        xid = next(self.xids) if xid is None else xid
        self.send_frame(i32(xid) + i32(opcode) + body)
        return xid

    def read_packet(self, wait=REPLY_WAIT_SECONDS):
        """The next Reply or Event."""
        reader = Reader(self.read_frame(wait))
        xid, zxid, err = reader.i32(), reader.i64(), reader.i32()
        if xid == -1:
            packet = Event(zxid, reader.i32(), reader.i32(), reader.ustring(), err)
            reader.end()
            self.events.append(packet)
        else:
            packet = Reply(xid, zxid, err, reader.data[reader.at :])
        self.trace.append(packet)
        return packet

    def reply(self, wait=REPLY_WAIT_SECONDS):
        """The next Reply; events on the way are kept."""
        deadline = time.monotonic() + wait
        while True:
            packet = self.read_packet(max(deadline - time.monotonic(), 0.001))
            if isinstance(packet, Reply):
                return packet

    def call(self, opcode, body=b"", xid=None):
        """Sends one request and returns its Reply; the reply must echo the xid."""
        sent = self.send(opcode, body, xid)
        reply = self.reply()
        if reply.xid != sent:
            raise ValueError(f"reply to xid {reply.xid}, wanted {sent}")
        return reply

    def ping(self):
        return self.call(PING, xid=-2)

    def take_events(self):
        """The events so far as (type, path); a ping first, behind which everything earlier has arrived."""
        self.ping()
        taken, self.events = self.events, []
        return [(event.type, event.path) for event in taken]

    def close(self):
        """Closes the TCP connection only; the session lives on."""
        self.sock.close()


class Client(Connection):
    """A Connection with a session and shorthands that return decoded replies as (err, fields...)."""

    def __init__(self, address, **fields):
        super().__init__(address)
        self.handshake(**fields)
        if self.session.id == 0:
            raise Closed("no session")

    def ask(self, opcode, body=b""):
        reply = self.call(opcode, body)
        return (reply.err, *decode_reply(opcode, reply))

    def create(self, path, data=b"", flags=PERSISTENT, acl=OPEN):
        return self.ask(CREATE, create(path, data, acl, flags))

    def delete(self, path, version=-1):
        return self.ask(DELETE, path_version(path, version))

    def exists(self, path, watch=False):
        return self.ask(EXISTS, path_watch(path, watch))

    def get(self, path, watch=False):
        return self.ask(GET_DATA, path_watch(path, watch))

    def set(self, path, data=b"", version=-1):
        return self.ask(SET_DATA, set_data(path, data, version))

    def children(self, path, watch=False):
        return self.ask(GET_CHILDREN, path_watch(path, watch))

    def children2(self, path, watch=False):
        return self.ask(GET_CHILDREN2, path_watch(path, watch))

    def stat(self, path):
        """The Stat; the node must exist."""
        err, *rest = self.exists(path)
        if err:
            raise ValueError(f"exists {path}: {err}")
        return rest[0]

    def add_watch(self, path, mode):
        return self.ask(ADD_WATCH, path_type(path, mode))

    def multi(self, *ops):
        return self.ask(MULTI, multi(*ops))

    def auth(self, scheme, token):
        return self.call(AUTH, auth(scheme, token), xid=-4).err

    def end(self):
        """closeSession, then the TCP connection."""
        reply = self.call(CLOSE_SESSION)
        self.close()
        return reply
