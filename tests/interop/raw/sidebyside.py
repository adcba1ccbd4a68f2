#!/usr/bin/env python3
"""The same request stream to two servers, replies and events compared field by field: sidebyside.py A B

A and B are HOST:PORT of two servers that nobody else uses meanwhile. A seeded stream of pipelined batches goes to both,
first over one session, then over two that take turns. Left out of the comparison, each for its reason:
  times (ctime, mtime)    clocks differ
  zxids                   compared relative to the stream's start
  session ids             compared by which session they mean
  order of child lists    unspecified
  order of the events of one closeSession    unspecified (the ephemerals of a session have no order)
  one zxid at a re-attach    ours logs every session move, Apache's standalone server does not; each one is listed
A batch ends behind a setACL, because Apache checks requests pipelined behind it against the former list.
Prints the first difference in full, and ends with `N passed, N failed`, counting batches.
"""

import argparse
import random
import signal
import sys

import zkraw as z

TOTAL_SECONDS_MAX = 240
DIFFERENCES_MAX = 100
SESSION_TIMEOUT_MS = 30000
STAT_ZXIDS = ("czxid", "mzxid", "pzxid")


class Side:
    """One server: its sessions, and how its zxids and session ids read in the terms both sides share."""

    def __init__(self, name, address):
        host, port = address.rsplit(":", 1)
        self.name, self.address = name, (host, int(port))
        self.clients, self.owners, self.moves = {}, {0: 0}, []
        self.base = None

    def open(self, index, label):
        client = z.Client(self.address, timeout_ms=SESSION_TIMEOUT_MS)
        self.clients[index] = client
        self.owners[client.session.id] = label
        client.events.clear()
        return client

    def start_stream(self):
        self.base = self.clients[0].ping().zxid

    def reattach(self, index):
        """A new connection for the session; returns how many zxids that took."""
        old = self.clients[index]
        before = old.ping().zxid
        old.close()
        client = z.Client(
            self.address,
            timeout_ms=SESSION_TIMEOUT_MS,
            session_id=old.session.id,
            password=old.session.password,
            last_zxid=before,
        )
        self.clients[index] = client
        taken = client.ping().zxid - before
        if taken == 1:
            self.moves.append(before + 1)
        return taken

    def zxid(self, real):
        """The zxid as a distance from the stream's start, session moves not counted."""
        if real <= 0:
            return real
        if real < self.base:
            return "before the stream"
        return real - self.base - sum(self.base < move <= real for move in self.moves)

    def real_zxid(self, shared):
        real = self.base + shared
        for move in self.moves:
            real += self.base < move <= real
        return real

    def plain(self, value):
        """A decoded value without what may differ."""
        if isinstance(value, z.Stat):
            times = {"ctime": None, "mtime": None}
            zxids = {field: self.zxid(getattr(value, field)) for field in STAT_ZXIDS}
            return value._replace(owner=self.owners.get(value.owner, "unknown session"), **times, **zxids)
        if isinstance(value, z.Acl):
            return value
        if isinstance(value, tuple):
            return tuple(self.plain(item) for item in value)
        if isinstance(value, list):
            return self._plain_list(value)
        return value

    def _plain_list(self, items):
        if items and all(isinstance(item, str) for item in items):
            return sorted(items)
        return [self.plain(item) for item in items]

    def packet(self, packet, opcodes):
        if isinstance(packet, z.Event):
            return packet._replace(zxid=self.zxid(packet.zxid))
        opcode = opcodes[packet.xid]
        return (
            z.Reply(packet.xid, self.zxid(packet.zxid), packet.err, None),
            self.plain(z.decode_reply(opcode, packet)),
        )


class Stream:
    """The seeded source of requests; it never looks at an answer, so both sides get the same."""

    NAMES = ("a", "b", "c", "s-")
    ACLS = (z.OPEN, z.OPEN, z.OPEN, [z.Acl(z.READ, "world", "anyone")], [z.Acl(z.ALL, "auth", "")], [])

    def __init__(self, seed, root):
        self.random, self.root = random.Random(seed), root

    def path(self):
        depth = self.random.choice((0, 1, 1, 1, 2, 2, 3))
        return "/".join([self.root, *(self.random.choice(self.NAMES) for _ in range(depth))])

    def below(self):
        depth = self.random.choice((1, 1, 1, 2, 2, 3))
        name = "/".join([self.root, *(self.random.choice(self.NAMES) for _ in range(depth))])
        return name + (self.random.choice(("/", "//x", "/..")) if self.random.random() < 0.05 else "")

    def data(self):
        return self.random.choice((None, b"", b"x", self.random.randbytes(self.random.randrange(200))))

    def version(self):
        return self.random.choice((-1, -1, -1, 0, 1, 2))

    def create(self):
        path = self.below()
        flags = self.random.choice((0, 0, 0, 0, 1, 2, 3))
        return z.create(
            path, self.data(), self.random.choice(self.ACLS) if self.random.random() < 0.1 else z.OPEN, flags
        )

    def sub_write(self):
        return self.random.choice(
            (
                lambda: (z.CREATE, self.create()),
                lambda: (z.CREATE2, self.create()),
                lambda: (z.DELETE, z.path_version(self.below(), self.version())),
                lambda: (z.SET_DATA, z.set_data(self.path(), self.data(), self.version())),
                lambda: (z.CHECK, z.path_version(self.path(), self.version())),
            )
        )()

    def sub_read(self):
        return self.random.choice((z.GET_DATA, z.GET_CHILDREN)), z.path_watch(self.path(), self.random.random() < 0.5)

    def request(self, zxid_now):
        """(opcode, body) where body may be a function of the side, for zxids."""
        r = self.random
        watch = r.random() < 0.4
        kinds = {
            z.CREATE: (14, lambda: self.create()),
            z.CREATE2: (6, lambda: self.create()),
            z.DELETE: (12, lambda: z.path_version(self.below(), self.version())),
            z.SET_DATA: (12, lambda: z.set_data(self.path(), self.data(), self.version())),
            z.EXISTS: (8, lambda: z.path_watch(self.path(), watch)),
            z.GET_DATA: (10, lambda: z.path_watch(self.path(), watch)),
            z.GET_CHILDREN: (5, lambda: z.path_watch(self.path(), watch)),
            z.GET_CHILDREN2: (7, lambda: z.path_watch(self.path(), watch)),
            z.GET_ACL: (3, lambda: z.path_only(self.path())),
            z.SET_ACL: (2, lambda: z.set_acl(self.below(), r.choice(self.ACLS), self.version())),
            z.SYNC: (2, lambda: z.path_only(self.path())),
            z.MULTI: (8, lambda: z.multi(*[self.sub_write() for _ in range(r.randrange(6))])),
            z.MULTI_READ: (4, lambda: z.multi(*[self.sub_read() for _ in range(r.randrange(5))])),
            z.ADD_WATCH: (2, lambda: z.path_type(self.path(), r.choice((0, 1, 7)))),
            z.CHECK_WATCHES: (2, lambda: z.path_type(self.path(), r.randrange(1, 6))),
            z.REMOVE_WATCHES: (3, lambda: z.path_type(self.path(), r.randrange(1, 6))),
            z.SET_WATCHES: (1, lambda: self.set_watches(max(zxid_now - r.randrange(40), 0), 3)),
            z.SET_WATCHES2: (1, lambda: self.set_watches(max(zxid_now - r.randrange(40), 0), 5)),
        }
        opcode = r.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        return opcode, kinds[opcode][1]()

    def set_watches(self, shared_zxid, groups):
        lists = b"".join(
            z.vector([self.path() for _ in range(self.random.randrange(4))], z.ustring) for _ in range(groups)
        )
        return lambda side: z.i64(side.real_zxid(shared_zxid)) + lists


class Comparison:
    def __init__(self, sides, seed):
        self.sides, self.seed = sides, seed
        self.batches = self.packets = self.differences = 0
        self.labels = 0

    def note(self, what, a, b):
        """Counts one batch; prints the first difference in full."""
        self.batches += 1
        if a == b:
            return
        self.differences += 1
        if self.differences == 1:
            print(f"first difference (seed {self.seed}, batch {self.batches}): {what}")
            for line in difference(self.sides, a, b):
                print(line)

    def open(self, index):
        self.labels += 1
        for side in self.sides:
            side.open(index, f"session {self.labels}")

    def run(self, sessions, requests):
        for index in range(sessions):
            self.open(index)
        root = f"/sidebyside-{sessions}"
        for side in self.sides:
            side.clients[0].ask(z.CREATE, z.create(root))
            side.start_stream()
        stream = Stream(self.seed * 10 + sessions, root)
        sent = 0
        while sent < requests and self.differences < DIFFERENCES_MAX:
            sent += self.step(stream, stream.random.randrange(sessions), sessions)
        for index in range(sessions):
            for side in self.sides:
                side.clients[index].end()

    def step(self, stream, index, sessions):
        """One batch, or now and then a re-attach, a new session or an auth; returns the requests sent."""
        chance = stream.random.random()
        if chance < 0.01:
            taken = [side.reattach(index) for side in self.sides]
            self.note(f"re-attach of session {index}: zxids taken beyond the one allowed", *[t > 1 for t in taken])
            return 1
        if chance < 0.02:
            return self.renew(index, sessions)
        if chance < 0.03:
            return self.batch(index, sessions, [(z.AUTH, z.auth("digest", b"alice:secret"))])
        batch = []
        now = self.sides[0].zxid(self.sides[0].clients[index].ping().zxid)
        for _ in range(stream.random.choice((1, 1, 2, 4, 12, 40))):
            batch.append(stream.request(now))
            if batch[-1][0] == z.SET_ACL:
                break
        return self.batch(index, sessions, batch)

    def renew(self, index, sessions):
        """closeSession and a new session in its place."""
        traces = []
        for side in self.sides:
            reply = side.clients[index].end()
            others = self.events_of_others(side, index, sessions)
            traces.append([(side.zxid(reply.zxid), reply.err), *[sorted(events) for events in others]])
        self.note(f"closeSession of session {index}", *traces)
        self.open(index)
        return 1

    def batch(self, index, sessions, requests):
        traces = []
        for side in self.sides:
            client = side.clients[index]
            client.trace.clear()
            opcodes = {}
            for xid, (opcode, body) in enumerate(requests, 1):
                client.send(opcode, body(side) if callable(body) else body, xid)
                opcodes[xid] = opcode
            while sum(isinstance(packet, z.Reply) for packet in client.trace) < len(requests):
                client.read_packet()
            trace = [side.packet(packet, opcodes) for packet in client.trace]
            traces.append([trace, *self.events_of_others(side, index, sessions)])
            client.events.clear()
        self.packets += sum(map(len, traces[0]))
        self.note(f"batch of {len(requests)} on session {index}: opcodes {[opcode for opcode, _ in requests]}", *traces)
        return len(requests)

    def events_of_others(self, side, index, sessions):
        """What the other sessions were told meanwhile; a ping first, behind which it has arrived."""
        told = []
        for other in range(sessions):
            if other != index:
                client = side.clients[other]
                client.ping()
                told.append([side.packet(event, {}) for event in client.events])
                client.events.clear()
        return told


def difference(sides, a, b):
    """Lines that show, for the first part in which they differ, both sides' packets from the first that differs on."""
    parts = zip(a, b) if isinstance(a, list) else [(a, b)]
    left, right = next(pair for pair in parts if pair[0] != pair[1])
    left, right = (part if isinstance(part, list) else [part] for part in (left, right))
    at = next((n for n, pair in enumerate(zip(left, right)) if pair[0] != pair[1]), min(len(left), len(right)))
    for side, packets in zip(sides, (left, right)):
        yield f"  {side.name}, packet {at} of {len(packets)}:"
        yield from (f"    {packet}" for packet in packets[at : at + 3])


def main():
    parser = argparse.ArgumentParser(description="one request stream to two ZooKeeper servers")
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=10000, help="for one session, and again for two")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TOTAL_SECONDS_MAX)
    comparison = Comparison([Side("A", options.a), Side("B", options.b)], options.seed)
    try:
        for sessions in (1, 2):
            comparison.run(sessions, options.requests)
    except (z.Closed, z.Timeout, ValueError, OSError) as error:
        comparison.differences += 1
        comparison.batches += 1
        print(f"FAIL seed {options.seed}, batch {comparison.batches}: {type(error).__name__} {error}")
    for side in comparison.sides:
        print(f"{side.name}: {len(side.moves)} session moves took a zxid (tolerated): {side.moves[:20]}")
    print(f"seed {options.seed}: {comparison.packets} replies and events compared")
    print(f"{comparison.batches - comparison.differences} passed, {comparison.differences} failed")
    sys.exit(1 if comparison.differences or not comparison.batches else 0)


def out_of_time(_signal, _frame):
    print(f"FAIL not finished within {TOTAL_SECONDS_MAX} seconds\n0 passed, 1 failed", flush=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
