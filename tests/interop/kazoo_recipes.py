"""kazoo's own recipes, with real concurrency: each contender has a session and a thread of its own."""

import time
from concurrent.futures import ThreadPoolExecutor

from kazoo.exceptions import LockTimeout

from kazoo_harness import check, expect, expect_raises, until, WAIT_SECONDS

# ---- recipes -------------------------------------------------------------------------------------------------


@check("Lock: eight contenders, never two inside")
def _(t):
    inside, seen, worst = [], [], []

    def work(client, n):
        for _ in range(10):
            with client.Lock(t.path + "/lock", f"c{n}"):
                inside.append(n)
                worst.append(len(inside))
                seen.append(n)
                inside.remove(n)

    t.in_threads(8, work)
    expect((max(worst), len(seen)), (1, 80))


@check("Lock: contenders, non-blocking and timed acquire")
def _(t):
    one, two = t.client(), t.client()
    lock, other = one.Lock(t.path, "one"), two.Lock(t.path, "two")
    expect(lock.acquire(), True)
    expect(other.acquire(blocking=False), False)
    expect_raises(LockTimeout, other.acquire, timeout=0.2)
    expect(two.Lock(t.path).contenders(), ["one"])
    lock.release()
    expect(other.acquire(timeout=5), True)
    other.release()


@check("Lock: the holder's session ends, the next contender gets it")
def _(t):
    one, two = t.client(), t.client()
    expect(one.Lock(t.path).acquire(), True)
    lock = two.Lock(t.path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock.acquire, timeout=WAIT_SECONDS)
        until(lambda: len(two.get_children(t.path)) == 2, "the second contender")
        one.stop()
        expect(waiting.result(WAIT_SECONDS), True)
    lock.release()


@check("ReadLock and WriteLock: readers together, a writer alone")
def _(t):
    readers, writers, bad = [], [], []

    def work(client, n):
        for _ in range(5):
            if n % 3 == 0:
                with client.WriteLock(t.path):
                    writers.append(n)
                    if len(writers) > 1 or readers:
                        bad.append((list(readers), list(writers)))
                    time.sleep(0.002)
                    writers.remove(n)
            else:
                with client.ReadLock(t.path):
                    readers.append(n)
                    if writers:
                        bad.append((list(readers), list(writers)))
                    time.sleep(0.002)
                    readers.remove(n)

    t.in_threads(6, work)
    expect(bad, [])


@check("Semaphore: three inside together, never more")
def _(t):
    inside, counts = [], []

    def work(client, n):
        for _ in range(5):
            with client.Semaphore(t.path, max_leases=3):
                inside.append(n)
                counts.append(len(inside))
                # Nobody leaves before three were inside at once, so that this does not hang on who is fast.
                until(lambda: max(counts) >= 3, "three leases held together")
                inside.remove(n)

    t.in_threads(7, work)
    expect((max(counts), len(counts)), (3, 35))


@check("Election: every candidate leads once, one at a time")
def _(t):
    leading, led = [], []

    def lead(n):
        leading.append(n)
        assert len(leading) == 1, leading
        led.append(n)
        time.sleep(0.01)
        leading.remove(n)

    t.in_threads(5, lambda client, n: client.Election(t.path, f"c{n}").run(lead, n))
    expect(sorted(led), [0, 1, 2, 3, 4])


@check("Barrier: all wait until it is removed")
def _(t):
    maker = t.client()
    barrier = maker.Barrier(t.path)
    barrier.create()
    passed = []

    def work(client, n):
        result = client.Barrier(t.path).wait(WAIT_SECONDS)
        passed.append(n)
        return result

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(t.in_threads, 4, work)
        time.sleep(0.3)
        expect(passed, [])
        expect(barrier.remove(), True)
        expect(waiting.result(WAIT_SECONDS), [True] * 4)


@check("DoubleBarrier: all enter together and leave together")
def _(t):
    entered, left = [], []

    def work(client, n):
        barrier = client.DoubleBarrier(t.path, 5)
        barrier.enter()
        entered.append(n)
        until(lambda: len(entered) == 5, "all inside")
        barrier.leave()
        left.append(n)

    t.in_threads(5, work)
    expect((len(entered), len(left)), (5, 5))


@check("Queue: priorities, and each entry taken once by concurrent consumers")
def _(t):
    client = t.client()
    queue = client.Queue(t.path)
    queue.put(b"late", 200)
    queue.put(b"soon", 50)
    expect((queue.get(), queue.get(), queue.get()), (b"soon", b"late", None))
    for n in range(60):
        queue.put(str(n).encode())

    def work(consumer, _n):
        return list(iter(consumer.Queue(t.path).get, None))

    got = t.in_threads(4, work)
    expect(sorted(int(v) for taken in got for v in taken), list(range(60)))


@check("LockingQueue: hold and consume, an entry of a dead consumer comes back")
def _(t):
    client = t.client()
    queue = client.LockingQueue(t.path)
    queue.put_all([b"a", b"b"])
    dying = t.client()
    expect(dying.LockingQueue(t.path).get(5), b"a")
    dying.stop()
    got = []
    for _ in range(2):
        got.append(queue.get(WAIT_SECONDS))
        expect(queue.consume(), True)
    expect(sorted(got), [b"a", b"b"])


@check("Counter: six clients, no increment lost")
def _(t):
    def work(client, _n):
        counter = client.Counter(t.path)
        for _ in range(20):
            counter += 1

    t.in_threads(6, work)
    expect(t.client().Counter(t.path).value, 120)


@check("Party: members join, leave and die")
def _(t):
    one, two = t.client(), t.client()
    party, other = one.Party(t.path, "one"), two.Party(t.path, "two")
    party.join()
    other.join()
    expect(sorted(party), ["one", "two"])
    other.leave()
    expect(list(party), ["one"])
    shallow = two.ShallowParty(t.path + "-shallow", "s")
    shallow.join()
    expect(len(one.ShallowParty(t.path + "-shallow")), 1)
    two.stop()
    expect(len(one.ShallowParty(t.path + "-shallow")), 0)


@check("ChildrenWatch: ends with the last list")
def _(t):
    watcher, writer = t.client(), t.client()
    writer.ensure_path(t.path)
    lists = []
    watcher.ChildrenWatch(t.path, lambda names: lists.append(sorted(names)))
    for n in range(30):
        writer.create(f"{t.path}/{n:02}")
    writer.delete(f"{t.path}/00")
    until(lambda: lists[-1] == [f"{n:02}" for n in range(1, 30)], "the last list")


@check("DataWatch: missing, created, changed, deleted, created again; versions go up")
def _(t):
    watcher, writer = t.client(), t.client()
    seen = []
    watcher.DataWatch(t.path, lambda data, stat, event: seen.append((data, event.type if event else None)))
    until(lambda: seen == [(None, None)], "the first call")
    writer.create(t.path, b"1")
    until(lambda: seen[-1] == (b"1", "CREATED"), "created")
    writer.set(t.path, b"2")
    until(lambda: seen[-1] == (b"2", "CHANGED"), "changed")
    writer.delete(t.path)
    until(lambda: seen[-1] == (None, "DELETED"), "deleted")
    writer.create(t.path, b"3")
    until(lambda: seen[-1][0] == b"3", "created again")
