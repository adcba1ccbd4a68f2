import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Reconnects (setWatches), re-attach and expiry through Apache's client, over a proxy that breaks connections. */
final class SessionChecks {
    private SessionChecks() {}

    static void register() {
        Suite.CHECKS.put("reconnect: same session, ephemeral stays", SessionChecks::reconnect);
        Suite.CHECKS.put("reconnect: setWatches catches up on what happened", SessionChecks::catchUp);
        Suite.CHECKS.put("reconnect: setWatches arms what did not", SessionChecks::rearm);
        Suite.CHECKS.put("reconnect: persistent watches go on", SessionChecks::persistentGoOn);
        Suite.CHECKS.put("reconnect: three thousand watches, in several packets", SessionChecks::manyWatches);
        Suite.CHECKS.put("reconnect: identities are given again", SessionChecks::authAgain);
        Suite.CHECKS.put("re-attach with id and password", SessionChecks::reattach);
        Suite.CHECKS.put("re-attach with a wrong password expires the client", SessionChecks::wrongPassword);
        Suite.CHECKS.put("expiry: the client is told, ephemerals are gone", SessionChecks::expiry);
        Suite.CHECKS.put("close: ephemerals are gone, the session cannot be taken up", SessionChecks::close);
    }

    private static final class Scene {
        final CuttingProxy proxy;
        final Suite.Events session = new Suite.Events();
        final ZooKeeper zk;
        final ZooKeeper other;

        Scene(Suite t, int timeoutMs) throws Exception {
            proxy = t.proxy();
            zk = t.client(proxy.address(), timeoutMs, session);
            other = t.client();
        }

        /** Breaks the connection, runs `meanwhile` while the client is away, and waits until it is back. */
        void away(Suite.Act meanwhile) throws Exception {
            proxy.cut(true);
            session.awaitState(KeeperState.Disconnected);
            meanwhile.run();
            proxy.accept();
            session.awaitState(KeeperState.SyncConnected);
        }
    }

    private static void reconnect(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        long id = s.zk.getSessionId();
        s.zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        for (int n = 0; n < 3; n++) {
            s.away(() -> {});
            Suite.expect(s.zk.getSessionId(), id);
            Suite.expect(s.zk.exists(t.path, false).getEphemeralOwner(), id);
        }
        s.zk.delete(t.path, -1);
    }

    private static void catchUp(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        Suite.Events data = new Suite.Events();
        Suite.Events exists = new Suite.Events();
        Suite.Events children = new Suite.Events();
        Suite.Events gone = new Suite.Events();
        Suite.create(s.zk, t.path, "0");
        Suite.create(s.zk, t.path + "/kid", "0");
        s.zk.getData(t.path, data, null);
        s.zk.getChildren(t.path, children);
        s.zk.exists(t.path + "/later", exists);
        s.zk.getData(t.path + "/kid", gone, null);
        s.away(() -> {
            s.other.setData(t.path, null, -1);
            Suite.create(s.other, t.path + "/later", "0");
            s.other.delete(t.path + "/kid", -1);
        });
        Suite.expect(data.nextOfNode(), "NodeDataChanged " + t.path);
        Suite.expect(children.nextOfNode(), "NodeChildrenChanged " + t.path);
        Suite.expect(exists.nextOfNode(), "NodeCreated " + t.path + "/later");
        Suite.expect(gone.nextOfNode(), "NodeDeleted " + t.path + "/kid");
    }

    private static void rearm(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        Suite.Events data = new Suite.Events();
        Suite.Events exists = new Suite.Events();
        Suite.Events children = new Suite.Events();
        Suite.create(s.zk, t.path, "0");
        s.zk.getData(t.path, data, null);
        s.zk.getChildren(t.path, children);
        s.zk.exists(t.path + "/later", exists);
        s.away(() -> {});
        Suite.barrier(s.zk);
        data.expectNone();
        children.expectNone();
        exists.expectNone();
        s.other.setData(t.path, null, -1);
        Suite.expect(data.nextOfNode(), "NodeDataChanged " + t.path);
        Suite.create(s.other, t.path + "/later", "0");
        Suite.expect(exists.nextOfNode(), "NodeCreated " + t.path + "/later");
        Suite.expect(children.nextOfNode(), "NodeChildrenChanged " + t.path);
    }

    private static void persistentGoOn(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        Suite.Events lasting = new Suite.Events();
        Suite.Events tree = new Suite.Events();
        Suite.create(s.zk, t.path, "0");
        s.zk.addWatch(t.path, lasting, AddWatchMode.PERSISTENT);
        s.zk.addWatch(t.path, tree, AddWatchMode.PERSISTENT_RECURSIVE);
        s.away(() -> s.other.setData(t.path, null, -1));
        Suite.barrier(s.zk);
        lasting.expectNone();
        Suite.create(s.other, t.path + "/a", "0");
        Suite.create(s.other, t.path + "/a/b", "0");
        Suite.expect(lasting.nextOfNode(), "NodeChildrenChanged " + t.path);
        Suite.expect(tree.nextOfNode(), "NodeCreated " + t.path + "/a");
        Suite.expect(tree.nextOfNode(), "NodeCreated " + t.path + "/a/b");
    }

    private static void manyWatches(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        Suite.Events events = new Suite.Events();
        String longName = "x".repeat(100);
        int count = 3000;
        for (int n = 0; n < count; n++) {
            s.zk.exists(t.path + "-" + longName + n, events);
        }
        s.away(() -> {});
        Suite.create(s.other, t.path + "-" + longName + 0, "0");
        Suite.expect(events.nextOfNode(), "NodeCreated " + t.path + "-" + longName + 0);
        Suite.create(s.other, t.path + "-" + longName + (count - 1), "0");
        Suite.expect(events.nextOfNode(), "NodeCreated " + t.path + "-" + longName + (count - 1));
        events.expectNone();
    }

    private static void authAgain(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        s.zk.addAuthInfo("digest", Suite.bytes("alice:secret"));
        s.zk.create(t.path, Suite.bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        s.away(() -> {});
        Suite.expect(s.zk.getData(t.path, false, null), Suite.bytes("x"));
    }

    private static void reattach(Suite t) throws Exception {
        Scene s = new Scene(t, 10000);
        s.zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        // The first client must not come back and take the session over in turn.
        s.proxy.cut(true);
        s.session.awaitState(KeeperState.Disconnected);
        ZooKeeper again =
                t.client(t.address, 8000, new Suite.Events(), s.zk.getSessionId(), s.zk.getSessionPasswd());
        Suite.expect(again.getSessionId(), s.zk.getSessionId());
        Suite.expect(again.getSessionPasswd(), s.zk.getSessionPasswd());
        Suite.expect(again.getSessionTimeout(), 8000);
        Suite.expect(again.exists(t.path, false).getEphemeralOwner(), s.zk.getSessionId());
    }

    private static void wrongPassword(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        Suite.Events events = new Suite.Events();
        try (ZooKeeper thief = new ZooKeeper(t.address, 10000, events, zk.getSessionId(), new byte[16])) {
            events.awaitState(KeeperState.Expired);
            Suite.expect(thief.getState().isAlive(), false);
        }
        Suite.expect(t.client().exists(t.path, false).getEphemeralOwner(), zk.getSessionId());
    }

    private static void expiry(Suite t) throws Exception {
        Scene s = new Scene(t, 1000);
        s.zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        Suite.Events gone = new Suite.Events();
        s.other.exists(t.path, gone);
        s.proxy.cut(true);
        Suite.expect(gone.nextOfNode(), "NodeDeleted " + t.path);
        s.proxy.accept();
        s.session.awaitState(KeeperState.Expired);
        Suite.expectCode(Code.SESSIONEXPIRED, () -> s.zk.exists("/", false));
    }

    private static void close(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        ZooKeeper other = t.client();
        zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        long id = zk.getSessionId();
        byte[] password = zk.getSessionPasswd();
        Suite.Events gone = new Suite.Events();
        other.exists(t.path, gone);
        zk.close();
        Suite.expect(gone.nextOfNode(), "NodeDeleted " + t.path);
        Suite.Events events = new Suite.Events();
        try (ZooKeeper again = new ZooKeeper(t.address, 10000, events, id, password)) {
            events.awaitState(KeeperState.Expired);
            Suite.expect(again.getState().isAlive(), false);
        }
    }
}
