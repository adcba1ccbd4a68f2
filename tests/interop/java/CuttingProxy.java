import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

/** Forwards TCP connections to one server and can break them all at will, so that a client must reconnect. */
final class CuttingProxy implements AutoCloseable {
    private final InetSocketAddress target;
    private final ServerSocket listener;
    private final List<Socket> sockets = new ArrayList<>();
    private volatile boolean refusing;

    CuttingProxy(InetSocketAddress target) throws IOException {
        this.target = target;
        this.listener = new ServerSocket(0, 64, InetAddress.getLoopbackAddress());
        daemon(this::acceptLoop);
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    /** Breaks every connection; while `refuse` is set, new ones are broken at once too. */
    void cut(boolean refuse) {
        refusing = refuse;
        List<Socket> broken;
        synchronized (sockets) {
            broken = new ArrayList<>(sockets);
            sockets.clear();
        }
        broken.forEach(CuttingProxy::closeQuietly);
    }

    void accept() {
        refusing = false;
    }

    @Override
    public void close() throws IOException {
        listener.close();
        cut(true);
    }

    private void acceptLoop() {
        while (!listener.isClosed()) {
            Socket client = null;
            try {
                client = listener.accept();
                if (refusing) {
                    client.close();
                    continue;
                }
                Socket server = new Socket();
                server.connect(target, 5000);
                client.setTcpNoDelay(true);
                server.setTcpNoDelay(true);
                synchronized (sockets) {
                    sockets.add(client);
                    sockets.add(server);
                }
                Socket from = client;
                daemon(() -> pump(from, server));
                daemon(() -> pump(server, from));
            } catch (IOException broken) {
                // The client sees its connection end, which is what this class is for.
                closeQuietly(client);
            }
        }
    }

    private static void pump(Socket from, Socket to) {
        byte[] bytes = new byte[65536];
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            for (int count = in.read(bytes); count >= 0; count = in.read(bytes)) {
                out.write(bytes, 0, count);
            }
        } catch (IOException ended) {
            // Either side ended: so does the other, below.
        }
        closeQuietly(from);
        closeQuietly(to);
    }

    private static void closeQuietly(Socket socket) {
        try {
            if (socket != null) {
                socket.close();
            }
        } catch (IOException ignored) {
            // A socket that cannot be closed is closed already.
        }
    }

    private static void daemon(Runnable work) {
        Thread thread = new Thread(work, "proxy");
        thread.setDaemon(true);
        thread.start();
    }
}
