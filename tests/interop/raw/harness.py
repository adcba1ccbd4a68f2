"""How checks are declared and what they are given.

A check is a function of one Context, registered with @check (one check) or @table (one check per row). It fails by
raising Mismatch, through `expect`. Every check makes its own connections and its own nodes; none leans on another.
"""

import itertools
import os
import time
from collections import namedtuple

from zkraw import CLOSE_SESSION, OPEN, Client, Closed, Connection, Timeout

# super:admin, the value of DigestAuthenticationProvider.superDigest that the server must be started with.
SUPER_DIGEST = "super:xQJmxLMiHGwaqBvst5y6rkB6HQs="

Check = namedtuple("Check", "name run deviates")
CHECKS = []
_serial = itertools.count(1)


class Mismatch(Exception):
    """The server did something else than wanted."""


def check(name, deviates=None):
    """Registers the function as one check. `deviates`: why Apache fails it."""

    def register(function):
        CHECKS.append(Check(name, function, deviates))
        return function

    return register


def table(name, rows, deviates=None):
    """Registers one check per row; row[0] is its name, the rest are arguments. `deviates`: reasons by row name."""

    def register(function):
        for title, *arguments in rows:

            def run(context, arguments=arguments):
                function(context, *arguments)

            CHECKS.append(Check(f"{name}: {title}", run, (deviates or {}).get(title)))
        return function

    return register


def expect(got, want, what=""):
    if got != want:
        raise Mismatch(f"{what + ': ' if what else ''}got {got!r}, want {want!r}")


def expect_true(condition, what):
    if not condition:
        raise Mismatch(what)


def expect_closed(connection, leftover=b"", what="bytes before the close"):
    """The server must close the connection, having sent exactly `leftover`."""
    expect(connection.bytes_until_close(), leftover, what)


class Context:
    """The address of the server under test and what one check opened there."""

    def __init__(self, address, tick_ms):
        self.address, self.tick_ms = address, tick_ms
        self.opened = []

    @property
    def timeout_ms_min(self):
        return 2 * self.tick_ms

    @property
    def timeout_ms_max(self):
        return 20 * self.tick_ms

    def tcp(self):
        """A connection without a session."""
        connection = Connection(self.address)
        self.opened.append(connection)
        return connection

    def client(self, **handshake):
        """A connection with a session; handshake fields as zkraw.connect_request."""
        client = Client(self.address, **handshake)
        self.opened.append(client)
        return client

    def reattach(self, session, **handshake):
        """A new connection that asks for an existing session."""
        return self.client(session_id=session.id, password=session.password, **handshake)

    def node(self, client, data=b"", flags=0, acl=OPEN):
        """Creates a node of its own directly below the root and returns its path."""
        err, path = client.create(self.name(), data, flags, acl)
        expect(err, 0, "create of the check's own node")
        return path

    def name(self):
        """A path that nobody used."""
        return f"/check-{os.getpid()}-{next(_serial)}"

    def until(self, condition, seconds, what):
        """Polls until the condition holds; fails after the bound."""
        deadline = time.monotonic() + seconds
        while not condition():
            expect_true(time.monotonic() < deadline, f"not within {seconds} s: {what}")
            time.sleep(0.02)

    def close(self):
        """Ends every session of the check, and waits for it, so that later checks find the zxids to themselves."""
        sessions = {c.session.id: c.session for c in self.opened if c.session and c.session.id}
        for connection in self.opened:
            connection.close()
        for session in sessions.values():
            self._end(session)

    def _end(self, session):
        """Taken up anew, since the check may have lost its connection; a session that is gone answers with id 0."""
        try:
            connection = Connection(self.address)
            if connection.handshake(session_id=session.id, password=session.password).id:
                connection.call(CLOSE_SESSION)
            connection.close()
        except (Closed, Timeout, OSError) as error:
            print(f"note: session {session.id:#x} was not ended: {error}")
