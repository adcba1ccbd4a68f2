import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * Apache's own Java client against a ZooKeeper server: `java Suite HOST:PORT`.
 *
 * <p>Prints a line per check and ends with `N passed, N failed`. Every wait has a bound, and so has the whole run.
 */
public final class Suite {
    static final int WAIT_SECONDS = 20;
    static final int TOTAL_SECONDS_MAX = 240;

    interface Check {
        void run(Suite t) throws Exception;
    }

    /** All checks by name, in the order they run. */
    static final Map<String, Check> CHECKS = new LinkedHashMap<>();

    private static final AtomicInteger SERIAL = new AtomicInteger();

    final String address;
    final String path = "/java-" + ProcessHandle.current().pid() + "-" + SERIAL.incrementAndGet();
    private final List<AutoCloseable> opened = new ArrayList<>();

    private Suite(String address) {
        this.address = address;
    }

    public static void main(String[] arguments) {
        if (arguments.length < 1) {
            System.err.println("usage: Suite HOST:PORT [ONLY]");
            System.exit(2);
        }
        limitRunTime();
        NodeChecks.register();
        WatchChecks.register();
        SessionChecks.register();
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Check> entry : CHECKS.entrySet()) {
            if (arguments.length > 1 && !entry.getKey().contains(arguments[1])) {
                continue;
            }
            if (runOne(arguments[0], entry.getKey(), entry.getValue())) {
                passed++;
            } else {
                failed++;
            }
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }

    private static boolean runOne(String address, String name, Check check) {
        Suite t = new Suite(address);
        try {
            check.run(t);
            System.out.println("ok   " + name);
            return true;
        } catch (Exception | AssertionError error) {
            System.out.println("FAIL " + name + ": " + error + " at " + place(error));
            return false;
        } finally {
            t.close();
        }
    }

    private static String place(Throwable error) {
        return Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().endsWith("Checks"))
                .map(frame -> frame.getFileName() + ":" + frame.getLineNumber())
                .findFirst()
                .orElse("unknown place");
    }

    private static void limitRunTime() {
        Thread thread = new Thread(() -> {
            try {
                Thread.sleep(TOTAL_SECONDS_MAX * 1000L);
            } catch (InterruptedException interrupted) {
                return;
            }
            System.out.println("FAIL not finished within " + TOTAL_SECONDS_MAX + " seconds");
            System.out.println("0 passed, 1 failed");
            Runtime.getRuntime().halt(1);
        });
        thread.setDaemon(true);
        thread.start();
    }

    private void close() {
        for (AutoCloseable one : opened) {
            try {
                one.close();
            } catch (Exception error) {
                System.err.println("close: " + error);
            }
        }
    }

    // ---- what checks use

    /** The events that reached one watcher, in order; waits are bounded. */
    static final class Events implements Watcher {
        private final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            queue.add(event);
        }

        WatchedEvent next() throws InterruptedException {
            WatchedEvent event = queue.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            if (event == null) {
                throw new AssertionError("no event within " + WAIT_SECONDS + " seconds");
            }
            return event;
        }

        /** The next event of a node, as `Type path`; connection events are passed over. */
        String nextOfNode() throws InterruptedException {
            WatchedEvent event = next();
            while (event.getType() == Event.EventType.None) {
                event = next();
            }
            return event.getType() + " " + event.getPath();
        }

        void awaitState(Event.KeeperState state) throws InterruptedException {
            while (next().getState() != state) {
                // Other states on the way are passed over; next() bounds the wait.
                continue;
            }
        }

        void expectNone() {
            List<WatchedEvent> left = new ArrayList<>(queue);
            left.removeIf(event -> event.getType() == Event.EventType.None);
            expect(left.toString(), "[]");
        }
    }

    InetSocketAddress target() {
        int colon = address.lastIndexOf(':');
        return new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
    }

    CuttingProxy proxy() throws IOException {
        CuttingProxy proxy = new CuttingProxy(target());
        opened.add(proxy);
        return proxy;
    }

    ZooKeeper client() throws Exception {
        return client(address, 10000, new Events());
    }

    ZooKeeper client(String where, int timeoutMs, Events events) throws Exception {
        ZooKeeper client = new ZooKeeper(where, timeoutMs, events);
        opened.add(0, client);
        events.awaitState(Watcher.Event.KeeperState.SyncConnected);
        return client;
    }

    ZooKeeper client(String where, int timeoutMs, Events events, long session, byte[] password) throws Exception {
        ZooKeeper client = new ZooKeeper(where, timeoutMs, events, session, password);
        opened.add(0, client);
        events.awaitState(Watcher.Event.KeeperState.SyncConnected);
        return client;
    }

    static String create(ZooKeeper client, String path, String data) throws Exception {
        return client.create(path, bytes(data), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    /** Returns when everything the server sent before has been handed to the watchers. */
    static void barrier(ZooKeeper client) throws Exception {
        CountDownLatch done = new CountDownLatch(1);
        client.sync("/", (code, where, context) -> done.countDown(), null);
        if (!done.await(WAIT_SECONDS, TimeUnit.SECONDS)) {
            throw new AssertionError("no answer to sync");
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void expect(Object got, Object want) {
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError("got " + text(got) + ", want " + text(want));
        }
    }

    private static String text(Object value) {
        return value instanceof byte[] ? Arrays.toString((byte[]) value) : String.valueOf(value);
    }

    interface Act {
        void run() throws Exception;
    }

    static KeeperException expectCode(KeeperException.Code code, Act act) throws Exception {
        try {
            act.run();
        } catch (KeeperException error) {
            expect(error.code(), code);
            return error;
        }
        throw new AssertionError("wanted " + code + ", got a success");
    }
}
