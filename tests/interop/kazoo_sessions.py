"""ACLs, cut connections, re-attach and expiry through kazoo."""

import socket
import threading
import time

from kazoo.exceptions import BadVersionError, InvalidACLError, NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl, make_digest_acl_credential

from kazoo_harness import check, cut, expect, expect_raises, expire, until

# ---- ACLs ----------------------------------------------------------------------------------------------------


@check("ACL: digest, set and read back, NOAUTH without")
def _(t):
    owner, other = t.client(auth_data=[("digest", "alice:secret")]), t.client()
    acl = make_digest_acl("alice", "secret", all=True)
    owner.create(t.path, b"x", acl=[acl])
    got, stat = owner.get_acls(t.path)
    expect((got, stat.aversion), ([acl], 0))
    for act in (other.get, other.get_children, other.get_acls, other.exists):
        expect_raises(NoAuthError, act, t.path)
    expect_raises(NoAuthError, other.set, t.path, b"")
    expect_raises(NoAuthError, other.create, t.path + "/kid")
    expect_raises(NoAuthError, other.set_acls, t.path, OPEN_ACL_UNSAFE)
    other.add_auth("digest", "alice:secret")
    expect(other.get(t.path)[0], b"x")


@check("ACL: set_acls with versions, read-only for the world")
def _(t):
    owner, other = t.client(auth_data=[("digest", "alice:secret")]), t.client()
    owner.create(t.path, b"x")
    acls = [make_digest_acl("alice", "secret", all=True), make_acl("world", "anyone", read=True)]
    expect(owner.set_acls(t.path, acls, 0).aversion, 1)
    expect_raises(BadVersionError, owner.set_acls, t.path, acls, 0)
    expect(other.get(t.path)[0], b"x")
    expect_raises(NoAuthError, other.set, t.path, b"y")
    masked = other.get_acls(t.path)[0][0]
    expect(masked.id.id, "alice:x")
    expect(owner.get_acls(t.path)[0][0].id.id, make_digest_acl_credential("alice", "secret"))


@check("ACL: the scheme auth, wrong credentials, delete needs the parent")
def _(t):
    owner, other = t.client(), t.client(auth_data=[("digest", "alice:wrong")])
    owner.add_auth("digest", "alice:secret")
    owner.create(t.path, b"x", acl=[make_acl("auth", "", all=True)])
    owner.create(t.path + "/kid", b"x")
    expect_raises(NoAuthError, other.get, t.path)
    expect_raises(NoAuthError, other.delete, t.path + "/kid")
    expect(other.get(t.path + "/kid")[0], b"x")
    owner.delete(t.path + "/kid")


@check("ACL: invalid lists are refused")
def _(t):
    client = t.client()
    expect_raises(InvalidACLError, client.create, t.path, acl=[make_acl("auth", "", all=True)])
    expect_raises(InvalidACLError, client.create, t.path, acl=[make_acl("nosuch", "x", all=True)])


@check("ACL: identities are given again after a reconnect")
def _(t):
    client = t.client(auth_data=[("digest", "alice:secret")])
    client.create(t.path, b"x", acl=[make_digest_acl("alice", "secret", all=True)])
    cut(client)
    expect(client.get(t.path)[0], b"x")


# ---- reconnects ----------------------------------------------------------------------------------------------


@check("cut connection: the session goes on, ephemerals stay")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, ephemeral=True)
    for _ in range(5):
        cut(client)
        expect(other.exists(t.path).ephemeralOwner, client.client_id[0])
    client.delete(t.path)


@check("cut connection: DataWatch and ChildrenWatch go on")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, b"0")
    values, lists = [], []
    client.DataWatch(t.path, lambda data, stat: values.append(data))
    client.ChildrenWatch(t.path, lambda names: lists.append(sorted(names)))
    cut(client)
    other.set(t.path, b"1")
    until(lambda: values[-1] == b"1", "the new value")
    other.create(t.path + "/a")
    until(lambda: lists[-1] == ["a"], "the new child")
    cut(client)
    other.create(t.path + "/b")
    until(lambda: lists[-1] == ["a", "b"], "the second child")


@check("cut connection: a held lock stays held")
def _(t):
    one, two = t.client(), t.client()
    lock = one.Lock(t.path)
    lock.acquire()
    cut(one)
    expect(two.Lock(t.path).acquire(blocking=False), False)
    lock.release()
    expect(two.Lock(t.path).acquire(timeout=5), True)


@check("connection cut every 150 ms: retried requests succeed, no acknowledged write is lost")
def _(t):
    client = t.client()
    client.create(t.path, b"0")
    stop = threading.Event()

    def cutter():
        while not stop.wait(0.15):
            try:
                client._connection._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    thread = threading.Thread(target=cutter, daemon=True)
    thread.start()
    try:
        acknowledged = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.retry(client.set, t.path, b"x")
            acknowledged += 1
            # A write whose reply was cut off is sent again, so there may be more versions than answers, never fewer.
            expect(client.retry(client.get, t.path)[1].version >= acknowledged, True, "versions")
    finally:
        stop.set()
        thread.join()
    until(lambda: client.connected, "connected in the end")
    client.retry(client.get, t.path)


@check("session expiry: state LOST, ephemerals gone, a new session, watches of recipes go on")
def _(t):
    client, other = t.client(), t.client()
    client.create(t.path, b"0")
    client.create(t.path + "/e", ephemeral=True)
    values = []
    client.DataWatch(t.path, lambda data, stat: values.append(data))
    expire(t, client)
    expect(other.exists(t.path + "/e"), None)
    other.set(t.path, b"1")
    until(lambda: values[-1] == b"1", "the value after expiry")


@check("a second client takes the session over by id and password; the first loses its connection")
def _(t):
    client = t.client()
    client.create(t.path, ephemeral=True)
    session = client.client_id
    # So that the first does not come back and take it over in turn.
    client.set_hosts("127.0.0.1:1")
    second = t.client(client_id=session)
    expect(second.client_id, session)
    expect(second.exists(t.path).ephemeralOwner, session[0])
    until(lambda: not client.connected, "the first connection closed")


@check("a restarted client: start, stop and start again")
def _(t):
    client = t.client()
    client.create(t.path, ephemeral=True)
    client.restart()
    until(lambda: client.connected, "connected")
    expect(client.exists(t.path), None)


@check("server_version and four-letter words")
def _(t):
    client = t.client()
    expect(client.command(b"ruok"), "imok")
    expect(client.server_version()[:2], (3, 9))
    expect("Mode: standalone" in client.command(b"srvr"), True)
