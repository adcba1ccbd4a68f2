import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** Nodes, Stats, ACLs, multi and multiRead through Apache's client. */
final class NodeChecks {
    private NodeChecks() {}

    static void register() {
        Suite.CHECKS.put("create: the four modes", NodeChecks::createModes);
        Suite.CHECKS.put("create2: the Stat of the new node", NodeChecks::createStat);
        Suite.CHECKS.put("create: error codes", NodeChecks::createErrors);
        Suite.CHECKS.put("null and empty data", NodeChecks::nullData);
        Suite.CHECKS.put("setData and delete with versions", NodeChecks::versions);
        Suite.CHECKS.put("getChildren with Stat, exists", NodeChecks::children);
        Suite.CHECKS.put("big node of a million bytes", NodeChecks::bigNode);
        Suite.CHECKS.put("ACL: digest, getACL, setACL, NoAuth", NodeChecks::acls);
        Suite.CHECKS.put("multi: success of every kind", NodeChecks::multiSuccess);
        Suite.CHECKS.put("multi: failure, the error of each operation", NodeChecks::multiFailure);
        Suite.CHECKS.put("multi: empty", NodeChecks::multiEmpty);
        Suite.CHECKS.put("multi: transaction builder, asynchronous", NodeChecks::transaction);
        Suite.CHECKS.put("multiRead: data, children and errors", NodeChecks::multiRead);
        Suite.CHECKS.put("sync", NodeChecks::sync);
        Suite.CHECKS.put("path: the table of the server's test is Apache's", NodeChecks::pathTable);
        Suite.CHECKS.put("numbers: the table of the configuration's test is Java's", NodeChecks::numberTable);
        Suite.CHECKS.put("asynchronous pipelining: callbacks in order", NodeChecks::pipelining);
    }

    private static void pathTable(Suite t) throws Exception {
        Suite.expect(tableFile("ringkeeper.path.table"), PathTable.table());
    }

    private static void numberTable(Suite t) throws Exception {
        Suite.expect(tableFile("ringkeeper.number.table"), NumberTable.table());
    }

    private static List<String> tableFile(String property) throws Exception {
        return Files.readAllLines(Path.of(System.getProperty(property)));
    }

    private static void createModes(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.expect(Suite.create(zk, t.path, "x"), t.path);
        String seq = zk.create(t.path + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
        String eph = zk.create(t.path + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        String both = zk.create(t.path + "/b-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL);
        Suite.expect(seq, t.path + "/s-0000000000");
        Suite.expect(both, t.path + "/b-0000000002");
        Suite.expect(zk.exists(eph, false).getEphemeralOwner(), zk.getSessionId());
        Suite.expect(zk.exists(both, false).getEphemeralOwner(), zk.getSessionId());
        Suite.expect(zk.exists(seq, false).getEphemeralOwner(), 0L);
    }

    private static void createStat(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Stat stat = new Stat();
        String path = zk.create(t.path, Suite.bytes("12345"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, stat);
        Suite.expect(path, t.path);
        Suite.expect(stat.getDataLength(), 5);
        Suite.expect(stat.getNumChildren(), 0);
        Suite.expect(stat.getEphemeralOwner(), zk.getSessionId());
        Suite.expect(stat, zk.exists(t.path, false));
    }

    private static void createErrors(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "x");
        Suite.expectCode(Code.NODEEXISTS, () -> Suite.create(zk, t.path, "x"));
        Suite.expectCode(Code.NONODE, () -> Suite.create(zk, t.path + "/no/no", "x"));
        Suite.expectCode(Code.INVALIDACL, () ->
                zk.create(t.path + "/a", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        zk.create(t.path + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        Suite.expectCode(Code.NOCHILDRENFOREPHEMERALS, () -> Suite.create(zk, t.path + "/e/kid", "x"));
        Suite.expectCode(Code.NOTEMPTY, () -> zk.delete(t.path, -1));
        Suite.expectCode(Code.NONODE, () -> zk.delete(t.path + "/none", -1));
        Suite.expectCode(Code.NONODE, () -> zk.getData(t.path + "/none", false, null));
    }

    private static void nullData(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        zk.create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        Suite.expect(zk.getData(t.path, false, null), null);
        zk.setData(t.path, new byte[0], -1);
        Suite.expect(zk.getData(t.path, false, null), new byte[0]);
        Suite.expect(zk.setData(t.path, null, -1).getDataLength(), 0);
        Suite.expect(zk.getData(t.path, false, null), null);
    }

    private static void versions(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        Suite.expect(zk.setData(t.path, Suite.bytes("1"), 0).getVersion(), 1);
        Suite.expectCode(Code.BADVERSION, () -> zk.setData(t.path, Suite.bytes("2"), 0));
        Suite.expect(zk.setData(t.path, Suite.bytes("2"), -1).getVersion(), 2);
        Suite.expectCode(Code.BADVERSION, () -> zk.delete(t.path, 1));
        zk.delete(t.path, 2);
        Suite.expect(zk.exists(t.path, false), null);
    }

    private static void children(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "x");
        for (String name : List.of("a", "b", "c")) {
            Suite.create(zk, t.path + "/" + name, name);
        }
        zk.delete(t.path + "/b", -1);
        Stat stat = new Stat();
        List<String> names = new ArrayList<>(zk.getChildren(t.path, false, stat));
        Collections.sort(names);
        Suite.expect(names, List.of("a", "c"));
        Suite.expect(stat.getNumChildren(), 2);
        Suite.expect(stat.getCversion(), 4);
        Suite.expect(stat, zk.exists(t.path, false));
    }

    private static void bigNode(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        byte[] data = new byte[1_000_000];
        Arrays.fill(data, (byte) 7);
        zk.create(t.path, data, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        Suite.expect(Arrays.equals(zk.getData(t.path, false, null), data), true);
    }

    private static void acls(Suite t) throws Exception {
        ZooKeeper owner = t.client();
        ZooKeeper other = t.client();
        owner.addAuthInfo("digest", Suite.bytes("alice:secret"));
        owner.create(t.path, Suite.bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        Stat stat = new Stat();
        ACL acl = owner.getACL(t.path, stat).get(0);
        Suite.expect(acl.getPerms(), Perms.ALL);
        Suite.expect(acl.getId().getScheme(), "digest");
        Suite.expect(acl.getId().getId().startsWith("alice:"), true);
        Suite.expectCode(Code.NOAUTH, () -> other.getData(t.path, false, null));
        Suite.expectCode(Code.NOAUTH, () -> other.setData(t.path, null, -1));
        // The client asks the list whether it contains null, which List.of refuses to be asked.
        List<ACL> readable = Arrays.asList(acl, new ACL(Perms.READ, new Id("world", "anyone")));
        Suite.expect(owner.setACL(t.path, readable, 0).getAversion(), 1);
        Suite.expectCode(Code.BADVERSION, () -> owner.setACL(t.path, readable, 0));
        Suite.expect(other.getData(t.path, false, null), Suite.bytes("x"));
        Suite.expect(other.getACL(t.path, stat).get(0).getId().getId(), "alice:x");
        other.addAuthInfo("digest", Suite.bytes("alice:secret"));
        Suite.expect(other.setData(t.path, null, -1).getVersion(), 1);
    }

    private static void multiSuccess(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        List<OpResult> results = zk.multi(List.of(
                Op.create(t.path + "/a", Suite.bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(t.path + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
                Op.setData(t.path, Suite.bytes("22"), 0),
                Op.check(t.path, 1),
                Op.delete(t.path + "/a", 0)));
        Suite.expect(((OpResult.CreateResult) results.get(0)).getPath(), t.path + "/a");
        Suite.expect(((OpResult.CreateResult) results.get(1)).getPath(), t.path + "/s-0000000001");
        Stat stat = ((OpResult.SetDataResult) results.get(2)).getStat();
        Suite.expect(stat.getVersion(), 1);
        Suite.expect(stat.getNumChildren(), 2);
        Suite.expect(results.get(3) instanceof OpResult.CheckResult, true);
        Suite.expect(results.get(4) instanceof OpResult.DeleteResult, true);
        Suite.expect(zk.getChildren(t.path, false), List.of("s-0000000001"));
    }

    private static void multiFailure(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        KeeperException error = Suite.expectCode(Code.BADVERSION, () -> zk.multi(List.of(
                Op.create(t.path + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.setData(t.path, null, 7),
                Op.delete(t.path, -1))));
        List<Integer> codes = new ArrayList<>();
        for (OpResult result : error.getResults()) {
            codes.add(((OpResult.ErrorResult) result).getErr());
        }
        Suite.expect(codes, List.of(0, Code.BADVERSION.intValue(), Code.RUNTIMEINCONSISTENCY.intValue()));
        Suite.expect(zk.exists(t.path + "/a", false), null);
    }

    private static void multiEmpty(Suite t) throws Exception {
        Suite.expect(t.client().multi(List.of()), List.of());
    }

    private static void transaction(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        CountDownLatch done = new CountDownLatch(1);
        List<Object> got = Collections.synchronizedList(new ArrayList<>());
        zk.transaction()
                .create(t.path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)
                .setData(t.path, Suite.bytes("x"), 0)
                .commit((code, path, context, results) -> {
                    got.add(code);
                    got.add(results.size());
                    done.countDown();
                }, null);
        Suite.expect(done.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), true);
        Suite.expect(got, List.of(0, 2));
        Suite.expect(zk.getData(t.path, false, null), Suite.bytes("x"));
    }

    private static void multiRead(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "data");
        Suite.create(zk, t.path + "/kid", "x");
        List<OpResult> results = zk.multi(List.of(
                Op.getData(t.path),
                Op.getChildren(t.path),
                Op.getData(t.path + "/none"),
                Op.getChildren(t.path + "/kid")));
        OpResult.GetDataResult data = (OpResult.GetDataResult) results.get(0);
        Suite.expect(data.getData(), Suite.bytes("data"));
        Suite.expect(data.getStat(), zk.exists(t.path, false));
        Suite.expect(((OpResult.GetChildrenResult) results.get(1)).getChildren(), List.of("kid"));
        Suite.expect(((OpResult.ErrorResult) results.get(2)).getErr(), Code.NONODE.intValue());
        Suite.expect(((OpResult.GetChildrenResult) results.get(3)).getChildren(), List.of());
    }

    private static void sync(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        ZooKeeper other = t.client();
        Suite.create(zk, t.path, "0");
        for (int n = 0; n < 50; n++) {
            zk.setData(t.path, Suite.bytes("" + n), -1);
            Suite.barrier(other);
            Suite.expect(other.getData(t.path, false, null), Suite.bytes("" + n));
        }
    }

    private static void pipelining(Suite t) throws Exception {
        ZooKeeper zk = t.client();
        Suite.create(zk, t.path, "0");
        int count = 10000;
        List<Integer> order = Collections.synchronizedList(new ArrayList<>());
        List<Integer> versions = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch done = new CountDownLatch(2 * count);
        for (int n = 0; n < count; n++) {
            zk.setData(t.path, Suite.bytes("" + n), -1, (code, path, context, stat) -> {
                order.add((Integer) context);
                done.countDown();
            }, 2 * n);
            zk.getData(t.path, false, (code, path, context, data, stat) -> {
                order.add((Integer) context);
                versions.add(stat.getVersion());
                done.countDown();
            }, 2 * n + 1);
        }
        Suite.expect(done.await(60, TimeUnit.SECONDS), true);
        for (int n = 0; n < 2 * count; n++) {
            Suite.expect(order.get(n), n);
        }
        for (int n = 0; n < count; n++) {
            Suite.expect(versions.get(n), n + 1);
        }
    }
}
