//! Sockets and listeners over loopback, on real executors.

use super::*;
use crate::base::ShardId;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LOOPBACK: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

fn on_one_shard<F, Fut>(test: F)
where
    F: FnOnce() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ShardResult> + 'static,
{
    run_shards(&ShardsConfig::new(1), move |_| test()).unwrap().join().unwrap();
}

fn listener(limit: usize) -> Listener {
    Listener::new(bind_listeners(LOOPBACK, 1).unwrap().remove(0), ConnectionLimit::new(limit)).unwrap()
}

async fn pair() -> (Rc<Socket>, Accepted) {
    let listener = listener(10);
    let client = Socket::connect(listener.local_addr()).await.unwrap();
    let accepted = listener.accept().await.unwrap().unwrap();
    assert_eq!(client.local_addr(), accepted.socket.peer_addr());
    (Rc::new(client), accepted)
}

/// A connection whose reader waits must still be written to by another task: with one borrow for both, the write would
/// panic or wait for the client's next request.
#[test]
fn a_waiting_reader_does_not_hinder_the_writer() {
    on_one_shard(|| async {
        let (client, accepted) = pair().await;
        client.set_nodelay(true)?;
        let server = Rc::new(accepted.socket);
        let reader = server.clone();
        let reading = spawn(Queue::Serving, async move {
            let mut buffer = [0; 100];
            let count = reader.read(&mut buffer).await.unwrap();
            buffer[..count].to_vec()
        });
        // The writer runs after the reader has begun to wait.
        spawn(Queue::Serving, async {}).await;
        server.write_all(b"event").await?;
        let mut buffer = [0; 100];
        assert_eq!(client.read(&mut buffer).await?, 5);
        client.write_all(b"request").await?;
        assert_eq!(reading.await.unwrap(), b"request");
        Ok(())
    });
}

/// Fills the socket until `try_write` refuses, then sends the rest while the peer reads: all bytes, in order.
#[test]
fn a_full_socket_refuses_at_once_and_the_waiting_write_goes_on() {
    on_one_shard(|| async {
        let (client, accepted) = pair().await;
        let piece: Vec<u8> = (0..100_003u32).map(|at| (at % 251) as u8).collect();
        let mut sent = 0;
        let refused = loop {
            match accepted.socket.try_write(&piece[sent % piece.len()..]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let expected = sent + piece.len();
        let reader = client.clone();
        let length = piece.len();
        let reading = spawn(Queue::Serving, async move {
            let (mut buffer, mut seen) = (vec![0; 1 << 16], 0);
            while seen < expected {
                let count = reader.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the stream ended after {seen} of {expected} bytes");
                assert!(
                    buffer[..count].iter().enumerate().all(|(at, &byte)| byte == ((seen + at) % length % 251) as u8)
                );
                seen += count;
            }
        });
        let start = sent % piece.len();
        accepted.socket.write_all(&piece[start..]).await?;
        accepted.socket.write_all(&piece[..start]).await?;
        reading.await.unwrap();
        Ok(())
    });
}

/// Closing a session from the commit stream must end the connection's tasks, wherever they wait.
#[test]
fn close_wakes_the_reader_and_the_writer() {
    on_one_shard(|| async {
        let (client, accepted) = pair().await;
        let server = Rc::new(accepted.socket);
        let reader = server.clone();
        let reading = spawn(Queue::Serving, async move { reader.read(&mut [0; 10]).await });
        let writer = server.clone();
        let writing = spawn(Queue::Serving, async move {
            loop {
                if let Err(error) = writer.write(&[0; 1 << 16]).await {
                    return error.kind();
                }
            }
        });
        // By now the reader waits for bytes and the writer for room; if not, `close` finds them later: same outcome.
        while !matches!(server.try_write(&[0; 1 << 16]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {}
        spawn(Queue::Serving, async {}).await;
        server.close();
        assert!(server.is_closed());
        assert_eq!(reading.await.unwrap()?, 0);
        assert_eq!(writing.await.unwrap(), io::ErrorKind::BrokenPipe);
        drop(client);
        Ok(())
    });
}

/// A socket is dropped while its shard goes on with other things; the client must see the end without waiting for them.
#[test]
fn a_dropped_socket_ends_the_stream_after_the_last_reply() {
    on_one_shard(|| async {
        let (client, accepted) = pair().await;
        accepted.socket.write_all(b"bye").await?;
        drop(accepted);
        let mut buffer = [0; 10];
        assert_eq!(client.read(&mut buffer).await?, 3);
        assert_eq!(client.read(&mut buffer).await?, 0);
        Ok(())
    });
}

/// The last bytes and the end of the stream arrive together and are one event. The reader takes the bytes, finds that there were
/// fewer than it has room for, and waits for an event that will not come: the connection lives on until its session expires.
#[test]
fn the_end_of_a_stream_that_came_with_its_last_bytes_is_seen() {
    on_one_shard(|| async {
        let listener = listener(10);
        let mut client = TcpStream::connect(listener.local_addr())?;
        client.write_all(b"last")?;
        client.shutdown(std::net::Shutdown::Write)?;
        let accepted = listener.accept().await?.unwrap();
        let mut buffer = [0; 100];
        assert_eq!(accepted.socket.read(&mut buffer).await?, 4);
        assert_eq!(accepted.socket.read(&mut buffer).await?, 0);
        assert_eq!(accepted.socket.read(&mut buffer).await?, 0, "an end is seen as often as it is looked for");
        Ok(())
    });
}

/// Many more sockets become ready at once than are fetched with one call, each once: whoever is left out waits for ever.
#[test]
fn all_sockets_that_become_ready_at_once_are_served() {
    on_one_shard(|| async {
        let count = readiness::EVENTS_MAX * 2 + 1;
        let listener = listener(count);
        let mut clients = Vec::new();
        let mut readers = Vec::new();
        for _ in 0..count {
            clients.push(TcpStream::connect(listener.local_addr())?);
            let socket = listener.accept().await?.unwrap();
            readers.push(spawn(Queue::Serving, async move { socket.socket.read(&mut [0; 10]).await.unwrap() }));
        }
        // All readers wait.
        spawn(Queue::Serving, async {}).await;
        for client in &mut clients {
            client.write_all(b"x")?;
        }
        for reader in readers {
            assert_eq!(reader.await, Some(1));
        }
        Ok(())
    });
}

#[test]
fn shutdown_write_leaves_reading_open() {
    on_one_shard(|| async {
        let (client, accepted) = pair().await;
        client.write_all(b"last").await?;
        client.shutdown_write()?;
        let mut buffer = [0; 10];
        assert_eq!(accepted.socket.read(&mut buffer).await?, 4);
        assert_eq!(accepted.socket.read(&mut buffer).await?, 0);
        accepted.socket.write_all(b"reply").await?;
        assert_eq!(client.read(&mut buffer).await?, 5);
        Ok(())
    });
}

#[test]
fn a_refused_connection_is_an_error_with_its_reason() {
    on_one_shard(|| async {
        let gone = listener(1).local_addr();
        let error = Socket::connect_within(gone, Duration::from_secs(30)).await.err().expect("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        Ok(())
    });
}

#[test]
fn a_timeout_drops_what_takes_too_long_and_passes_on_what_is_ready() {
    on_one_shard(|| async {
        assert_eq!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await, Err(TimedOut));
        assert_eq!(timeout(Duration::ZERO, async { 5 }).await, Ok(5));
        Ok(())
    });
}

/// `SO_REUSEPORT` let a second server of the same user take half of the first one's clients without a word.
#[test]
fn a_port_in_use_is_refused_even_by_the_same_user() {
    let first = bind_listeners(LOOPBACK, 3).unwrap();
    let address = first[0].local_addr();
    assert!(address.port() != 0 && first.iter().all(|listener| listener.local_addr() == address));
    for shards in [1, 3] {
        let error = bind_listeners(address, shards).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // Whoever asked says which address it was: said here as well, the operator reads it twice.
        let text = error.to_string();
        assert!(text.starts_with("address in use; ") && !text.contains(&address.to_string()), "{text}");
    }
    // A foreign server without any option is seen too.
    let foreign = std::net::TcpListener::bind(LOOPBACK).unwrap();
    assert_eq!(bind_listeners(foreign.local_addr().unwrap(), 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

/// Only IPv4 was listened on where no address is configured, so that a client which tries `localhost` as `::1` first found nobody.
/// Limits and access lists must know an IPv4 client by its own address all the same, not by the one that IPv6 wraps it in.
#[test]
fn clients_of_one_family_find_nobody() {
    on_one_shard(|| async {
        let every: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let mut bound = bind_listeners(every, 2).unwrap();
        let address = bound[0].local_addr();
        assert!(bound.iter().all(|listener| listener.local_addr() == address));
        bound.truncate(1);
        let listener = Listener::new(bound.remove(0), ConnectionLimit::new(10))?;
        let mut loopbacks: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            loopbacks.push(Ipv6Addr::LOCALHOST.into());
        }
        for loopback in loopbacks {
            let client = Socket::connect((loopback, address.port()).into()).await?;
            let accepted = timeout(Duration::from_secs(10), listener.accept()).await.unwrap()?.unwrap();
            assert_eq!(accepted.socket.peer_addr(), client.local_addr());
            assert_eq!(accepted.socket.peer_addr().ip(), loopback);
        }
        Ok(())
    });
}

/// `clientPortListenBacklog` was parsed and then read by nobody. The kernel lets one more wait than the backlog says, and does not
/// answer the next.
#[test]
fn listen_backlog_is_ignored() {
    let bound = bind_listeners(ListenAt::from(LOOPBACK).with_backlog(Some(1)), 1).unwrap().remove(0);
    let connect = || TcpStream::connect_timeout(&bound.local_addr(), Duration::from_millis(300));
    let waiting = [connect(), connect()].map(|client| client.expect("it waits to be accepted"));
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(waiting);
}

/// A server killed with clients connected leaves connections in TIME_WAIT and the like on its port; it must start again at once.
#[test]
fn a_restarted_server_gets_its_port_back() {
    let listeners = bind_listeners(LOOPBACK, 2).unwrap();
    let address = listeners[0].local_addr();
    let handle_one = |listeners: Vec<BoundListener>| {
        let config = ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(2) };
        let listeners = Arc::new(Mutex::new(listeners));
        let stop = StopSignal::new();
        let signal = stop.clone();
        let handle = run_shards(&config, move |_| async move {
            let bound = listeners.lock().unwrap().pop().expect("one for each shard");
            let listener = Rc::new(Listener::new(bound, ConnectionLimit::new(10))?);
            let accepting = listener.clone();
            let served = spawn(Queue::Serving, async move {
                while let Some(accepted) = accepting.accept().await.unwrap() {
                    accepted.socket.write_all(b"hello").await.unwrap();
                } // each is closed by the server, which puts it into TIME_WAIT
            });
            signal.stopped().await;
            listener.stop();
            served.await.expect("the accept loop ends by itself");
            Ok(())
        });
        for _ in 0..20 {
            let mut greeting = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "hello");
        }
        let open = TcpStream::connect(address).unwrap();
        stop.stop();
        handle.unwrap().join().unwrap();
        open
    };
    let open = handle_one(listeners);
    handle_one(bind_listeners(address, 2).unwrap());
    drop(open);
}

/// At the limit a new client waits in the backlog and is served as soon as another leaves; an accept loop without a limit
/// ran into the open-file limit and spun.
#[test]
fn the_connection_limit_delays_and_does_not_refuse() {
    on_one_shard(|| async {
        let limit = ConnectionLimit::new(1);
        let listener = Rc::new(Listener::new(bind_listeners(LOOPBACK, 1).unwrap().remove(0), limit.clone()).unwrap());
        let first_client = Socket::connect(listener.local_addr()).await?;
        let first = listener.accept().await?.unwrap();
        assert_eq!(limit.open(), 1);
        let second_client = Socket::connect(listener.local_addr()).await?;
        assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err());
        drop((first, first_client));
        let second = listener.accept().await?.unwrap();
        assert_eq!(second.socket.peer_addr(), second_client.local_addr());
        Ok(())
    });
}

#[test]
fn stop_ends_an_accept_that_waits() {
    on_one_shard(|| async {
        let listener = Rc::new(listener(1));
        let accepting = listener.clone();
        let waiting = spawn(Queue::Serving, async move { accepting.accept().await });
        spawn(Queue::Serving, async {}).await;
        listener.stop();
        assert!(waiting.await.unwrap()?.is_none());
        assert!(listener.accept().await?.is_none());
        Ok(())
    });
}

/// Several shards and plain blocking clients: every byte comes back, whichever shard has the connection.
#[test]
fn clients_of_all_shards_are_served() {
    let listeners = bind_listeners(LOOPBACK, 3).unwrap();
    let address = listeners[0].local_addr();
    let listeners: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(listeners.into_iter().map(Some).collect()));
    let limit = ConnectionLimit::new(1000);
    let count = limit.clone();
    let stop = StopSignal::new();
    let signal = stop.clone();
    let config = ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(3) };
    let handle = run_shards(&config, move |context| async move {
        let ShardId(shard) = context.shard;
        let bound = listeners.lock().unwrap()[usize::from(shard)].take().unwrap();
        let listener = Rc::new(Listener::new(bound, limit)?);
        let accepting = listener.clone();
        spawn(Queue::Serving, async move {
            while let Some(Accepted { socket, permit }) = accepting.accept().await.unwrap() {
                spawn(Queue::Serving, async move {
                    let _permit = permit;
                    let mut buffer = [0; 4096];
                    loop {
                        match socket.read(&mut buffer).await.unwrap() {
                            0 => break,
                            count => socket.write_all(&buffer[..count]).await.unwrap(),
                        }
                    }
                });
            }
        });
        signal.stopped().await;
        listener.stop();
        Ok(())
    });
    let mut clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    for round in 0..20u8 {
        for client in &mut clients {
            client.write_all(&[round; 300]).unwrap();
        }
        for client in &mut clients {
            let mut echo = [0; 300];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [round; 300]);
        }
    }
    assert_eq!(count.open(), 60);
    stop.stop();
    handle.unwrap().join().unwrap();
    drop(clients);
    assert_eq!(count.open(), 0, "permits come back when the connections' tasks end");
}
