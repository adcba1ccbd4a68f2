import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Watches through Apache's client. */
final class WatchChecks {
    /** An event of our own, behind which a watcher's queue is known to be empty. */
    private static final WatchedEvent MARKER =
            new WatchedEvent(Watcher.Event.EventType.NodeCreated, Watcher.Event.KeeperState.SyncConnected, "/marker");

    private WatchChecks() {}

    static void register() {
        Suite.CHECKS.put("exists watch: created, then changed, then deleted", WatchChecks::existsWatch);
        Suite.CHECKS.put("getData watch: once, with the zxid of the write", WatchChecks::dataWatch);
        Suite.CHECKS.put("getChildren watch: names only", WatchChecks::childWatch);
        Suite.CHECKS.put("deleted node: data and child watcher both told", WatchChecks::deletedNode);
        Suite.CHECKS.put("addWatch persistent: events and order", WatchChecks::persistent);
        Suite.CHECKS.put("addWatch recursive: events and order", WatchChecks::recursive);
        Suite.CHECKS.put("addWatch recursive: multi in the order of its operations", WatchChecks::recursiveMulti);
        Suite.CHECKS.put("modes live side by side on one path", WatchChecks::sideBySide);
        Suite.CHECKS.put("removeWatches: one kind, and NoWatcher", WatchChecks::removeKinds);
        Suite.CHECKS.put("removeWatches: one of two watchers (checkWatches)", WatchChecks::removeOne);
        Suite.CHECKS.put("removeAllWatches: any", WatchChecks::removeAll);
        Suite.CHECKS.put("event before reply", WatchChecks::eventBeforeReply);
        Suite.CHECKS.put("event before newer state, two clients", WatchChecks::eventBeforeState);
    }

    private static void existsWatch(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events events = new Suite.Events();
        Suite.expect(zk.exists(t.path, events), null);
        Suite.create(zk, t.path, "0");
        Suite.expect(events.nextOfNode(), "NodeCreated " + t.path);
        zk.exists(t.path, events);
        zk.setData(t.path, null, -1);
        Suite.expect(events.nextOfNode(), "NodeDataChanged " + t.path);
        zk.exists(t.path, events);
        zk.delete(t.path, -1);
        Suite.expect(events.nextOfNode(), "NodeDeleted " + t.path);
    }

    private static void dataWatch(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        ZooKeeper other = t.client();
        Suite.Events events = new Suite.Events();
        Suite.create(zk, t.path, "0");
        zk.getData(t.path, events, null);
        long zxid = other.setData(t.path, null, -1).getMzxid();
        other.setData(t.path, null, -1);
        Suite.expect(events.next().getZxid(), zxid);
        Suite.barrier(zk);
        events.expectNone();
    }

    private static void childWatch(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events events = new Suite.Events();
        Suite.create(zk, t.path, "0");
        Suite.create(zk, t.path + "/a", "0");
        zk.getChildren(t.path, events);
        zk.setData(t.path + "/a", null, -1);
        zk.setData(t.path, null, -1);
        Suite.barrier(zk);
        events.expectNone();
        zk.delete(t.path + "/a", -1);
        Suite.expect(events.nextOfNode(), "NodeChildrenChanged " + t.path);
    }

    private static void deletedNode(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events data = new Suite.Events();
        Suite.Events children = new Suite.Events();
        Suite.create(zk, t.path, "0");
        zk.getData(t.path, data, null);
        zk.getChildren(t.path, children);
        zk.delete(t.path, -1);
        Suite.expect(data.nextOfNode(), "NodeDeleted " + t.path);
        Suite.expect(children.nextOfNode(), "NodeDeleted " + t.path);
    }

    private static void life(ZooKeeper zk, String path) throws Exception {
        Suite.create(zk, path, "0");
        Suite.create(zk, path + "/a", "0");
        zk.setData(path, null, -1);
        zk.setData(path + "/a", null, -1);
        zk.delete(path + "/a", -1);
        zk.delete(path, -1);
    }

    private static void expectEvents(Suite.Events events, String... wanted) throws Exception {
        for (String want : wanted) {
            Suite.expect(events.nextOfNode(), want);
        }
    }

    private static void persistent(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events events = new Suite.Events();
        zk.addWatch(t.path, events, AddWatchMode.PERSISTENT);
        life(t.client(), t.path);
        Suite.barrier(zk);
        expectEvents(
                events,
                "NodeCreated " + t.path,
                "NodeChildrenChanged " + t.path,
                "NodeDataChanged " + t.path,
                "NodeChildrenChanged " + t.path,
                "NodeDeleted " + t.path);
        events.expectNone();
    }

    private static void recursive(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events events = new Suite.Events();
        zk.addWatch(t.path, events, AddWatchMode.PERSISTENT_RECURSIVE);
        life(t.client(), t.path);
        Suite.barrier(zk);
        expectEvents(
                events,
                "NodeCreated " + t.path,
                "NodeCreated " + t.path + "/a",
                "NodeDataChanged " + t.path,
                "NodeDataChanged " + t.path + "/a",
                "NodeDeleted " + t.path + "/a",
                "NodeDeleted " + t.path);
        events.expectNone();
    }

    private static void recursiveMulti(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events events = new Suite.Events();
        zk.addWatch(t.path, events, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.multi(List.of(
                Op.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(t.path + "/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(t.path + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.setData(t.path + "/b", null, -1),
                Op.delete(t.path + "/a", -1)));
        expectEvents(
                events,
                "NodeCreated " + t.path,
                "NodeCreated " + t.path + "/b",
                "NodeCreated " + t.path + "/a",
                "NodeDataChanged " + t.path + "/b",
                "NodeDeleted " + t.path + "/a");
    }

    private static void sideBySide(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.Events once = new Suite.Events();
        Suite.Events lasting = new Suite.Events();
        Suite.Events tree = new Suite.Events();
        Suite.create(zk, t.path, "0");
        zk.addWatch(t.path, tree, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.addWatch(t.path, lasting, AddWatchMode.PERSISTENT);
        zk.getData(t.path, once, null);
        zk.setData(t.path, null, -1);
        zk.setData(t.path, null, -1);
        Suite.barrier(zk);
        expectEvents(once, "NodeDataChanged " + t.path);
        once.expectNone();
        expectEvents(lasting, "NodeDataChanged " + t.path, "NodeDataChanged " + t.path);
        lasting.expectNone();
        expectEvents(tree, "NodeDataChanged " + t.path, "NodeDataChanged " + t.path);
        tree.expectNone();
    }

    private static void removeKinds(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        Suite.Events data = new Suite.Events();
        Suite.Events children = new Suite.Events();
        zk.getData(t.path, data, null);
        zk.getChildren(t.path, children);
        zk.removeWatches(t.path, data, WatcherType.Data, false);
        Suite.expect(data.nextOfNode(), "DataWatchRemoved " + t.path);
        zk.setData(t.path, null, -1);
        Suite.create(zk, t.path + "/a", "0");
        Suite.barrier(zk);
        data.expectNone();
        expectEvents(children, "NodeChildrenChanged " + t.path);
        Suite.expectCode(Code.NOWATCHER, () -> zk.removeWatches(t.path, data, WatcherType.Data, false));
        Suite.expectCode(Code.NOWATCHER, () -> zk.removeAllWatches(t.path, WatcherType.Any, false));
        for (AddWatchMode mode : AddWatchMode.values()) {
            Suite.Events lasting = new Suite.Events();
            zk.addWatch(t.path, lasting, mode);
            WatcherType type =
                    mode == AddWatchMode.PERSISTENT ? WatcherType.Persistent : WatcherType.PersistentRecursive;
            zk.removeWatches(t.path, lasting, type, false);
            Suite.expect(lasting.nextOfNode(), "PersistentWatchRemoved " + t.path);
            zk.setData(t.path, null, -1);
            Suite.barrier(zk);
            lasting.expectNone();
        }
    }

    private static void removeOne(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        Suite.Events one = new Suite.Events();
        Suite.Events two = new Suite.Events();
        zk.getData(t.path, one, null);
        zk.getData(t.path, two, null);
        // With a second watcher left, the client only asks the server to check.
        zk.removeWatches(t.path, one, WatcherType.Data, false);
        Suite.expect(one.nextOfNode(), "DataWatchRemoved " + t.path);
        zk.setData(t.path, null, -1);
        Suite.expect(two.nextOfNode(), "NodeDataChanged " + t.path);
        one.expectNone();
    }

    private static void removeAll(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        List<Suite.Events> all = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            all.add(new Suite.Events());
        }
        zk.getData(t.path, all.get(0), null);
        zk.getChildren(t.path, all.get(1));
        zk.addWatch(t.path + "/below", all.get(2), AddWatchMode.PERSISTENT);
        zk.addWatch(t.path, all.get(3), AddWatchMode.PERSISTENT_RECURSIVE);
        zk.removeAllWatches(t.path, WatcherType.Any, false);
        zk.setData(t.path, null, -1);
        Suite.create(zk, t.path + "/below", "0");
        Suite.expect(all.get(2).nextOfNode(), "NodeCreated " + t.path + "/below");
        Suite.expect(all.get(0).nextOfNode(), "DataWatchRemoved " + t.path);
        Suite.expect(all.get(1).nextOfNode(), "ChildWatchRemoved " + t.path);
        for (Suite.Events events : all) {
            List<String> left = new ArrayList<>();
            Suite.barrier(zk);
            events.process(MARKER);
            for (String text = events.nextOfNode(); !text.equals("NodeCreated /marker"); text = events.nextOfNode()) {
                left.add(text);
            }
            left.removeIf(text -> text.startsWith("PersistentWatchRemoved"));
            Suite.expect(left, List.of());
        }
    }

    private static void eventBeforeReply(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        List<String> order = Collections.synchronizedList(new ArrayList<>());
        Suite.create(zk, t.path, "0");
        for (int n = 0; n < 100; n++) {
            order.clear();
            CountDownLatch done = new CountDownLatch(2);
            zk.getData(t.path, event -> {
                order.add("event");
                done.countDown();
            }, null);
            zk.setData(t.path, null, -1, (code, path, context, stat) -> {
                order.add("reply");
                done.countDown();
            }, null);
            Suite.expect(done.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), true);
            Suite.expect(order, List.of("event", "reply"));
        }
    }

    private static void eventBeforeState(Suite t) throws Exception {
        ZooKeeper reader = t.client();
        ZooKeeper writer = t.client();
        Suite.create(writer, t.path, "0");
        for (int n = 1; n <= 200; n++) {
            int version = n;
            List<String> order = Collections.synchronizedList(new ArrayList<>());
            CountDownLatch done = new CountDownLatch(4);
            reader.getData(t.path, event -> {
                order.add("event");
                done.countDown();
            }, null);
            writer.setData(t.path, null, -1, (code, path, context, stat) -> {}, null);
            for (int k = 0; k < 3; k++) {
                reader.getData(t.path, false, (code, path, context, data, stat) -> {
                    order.add(stat.getVersion() == version ? "new" : "old");
                    done.countDown();
                }, null);
            }
            Suite.expect(done.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), true);
            int event = order.indexOf("event");
            int newer = order.indexOf("new");
            Suite.expect(newer < 0 || event < newer, true);
        }
    }
}
