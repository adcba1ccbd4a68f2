//! The floor: what a request costs when nothing is done but to receive, parse, look up, and reply.
//!
//! It speaks the handshake, getData, setData, create, ping and closeSession, on the same sockets as the real server, and keeps
//! one table of paths. No log, no order, no watches, no sharing between shards. Any other operation, and anything malformed,
//! ends the connection. A server's cost beyond this one's is the cost of being a coordination service.

use crate::base::Zxid;
use crate::client::ReceiveBuffer;
use crate::protocol::jute::{Input, Output};
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, ErrorCode, FrameReader, OpCode, PACKET_BYTES_MAX_DEFAULT, PASSWORD_BYTES, Reply,
    ReplyHeader, Request, RequestHeader, Stat,
};
use crate::runtime::{Accepted, ConnectionLimit, Listener, Queue, Socket, StopSignal, bind_listeners, spawn};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// Where the responder listens.
#[derive(Clone, Copy, Debug)]
pub struct BareResponderConfig {
    /// The address; port 0 lets the kernel choose.
    pub address: SocketAddr,
}

/// The one session that every connection gets.
const SESSION_ID: i64 = 1;
/// The zxid of every reply.
const ZXID: Zxid = Zxid(1);
/// Connections beyond these wait.
const CONNECTIONS_MAX: usize = 10_000;

type Table = HashMap<Vec<u8>, Vec<u8>, ahash::RandomState>;

/// Serves until `stop`. `listening` is told the address once connections are accepted.
pub async fn serve_bare(
    config: BareResponderConfig,
    stop: StopSignal,
    listening: impl FnOnce(SocketAddr),
) -> io::Result<()> {
    let listeners = bind_listeners(config.address, 1)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.address)))?;
    let [bound] = <[_; 1]>::try_from(listeners).map_err(|_| io::Error::other("one listener was asked for"))?;
    let listener = Rc::new(Listener::new(bound, ConnectionLimit::new(CONNECTIONS_MAX))?);
    listening(listener.local_addr());
    let stopping = listener.clone();
    spawn(Queue::Serving, async move {
        stop.stopped().await;
        stopping.stop();
    });
    let table = Rc::new(RefCell::new(Table::default()));
    while let Some(accepted) = listener.accept().await? {
        let table = table.clone();
        spawn(Queue::Serving, async move { serve_connection(accepted, &table).await });
    }
    Ok(())
}

async fn serve_connection(accepted: Accepted, table: &RefCell<Table>) {
    let Accepted { socket, permit } = accepted;
    if let Err(error) = serve(&socket, table).await {
        tracing::debug!("{}: {error}", socket.peer_addr());
    }
    drop(permit);
}

async fn serve(socket: &Socket, table: &RefCell<Table>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = ReceiveBuffer::default();
    let mut output = Vec::new();
    let mut greeted = false;
    loop {
        let len = socket.read(buffer.space()).await?;
        if len == 0 {
            return Ok(());
        }
        buffer.filled(len);
        let mut frames = FrameReader::new(buffer.received(), PACKET_BYTES_MAX_DEFAULT);
        let mut goes_on = true;
        while let (true, Some(frame)) = (goes_on, frames.next().map_err(io::Error::other)?) {
            if greeted {
                goes_on = answer(frame.body, table, &mut output)?;
            } else {
                greet(frame.body, &mut output)?;
                greeted = true;
            }
        }
        let consumed = frames.consumed();
        buffer.consume(consumed);
        socket.write_all(&output).await?;
        output.clear();
        if !goes_on {
            return Ok(());
        }
    }
}

fn greet(body: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    let request = ConnectRequest::decode(body).map_err(io::Error::other)?;
    ConnectResponse {
        timeout_ms: request.timeout_ms.max(1),
        session_id: SESSION_ID,
        password: [0; PASSWORD_BYTES],
        read_only: request.read_only.map(|_| false),
    }
    .encode_frame(output);
    Ok(())
}

/// Answers one request; false after closeSession.
fn answer(body: &[u8], table: &RefCell<Table>, output: &mut Vec<u8>) -> io::Result<bool> {
    let mut input = Input::new(body);
    let header = RequestHeader::decode(&mut input).map_err(io::Error::other)?;
    let xid = header.xid;
    // The path of a read is taken as bytes, like that of a write: nobody here needs it to be UTF-8.
    if header.op == OpCode::GetData.wire() {
        let path = input.buffer().map_err(io::Error::other)?.unwrap_or_default();
        match table.borrow().get(path) {
            Some(data) => reply_data(xid, data, output),
            None => Reply::encode_error_frame(xid, ZXID.wire(), ErrorCode::NoNode, output),
        }
        return Ok(true);
    }
    match Request::decode(header.op, input.rest()).map_err(io::Error::other)? {
        Request::SetData { path, data, .. } => match table.borrow_mut().get_mut(path.as_bytes()) {
            Some(stored) => {
                stored.clear();
                stored.extend_from_slice(data.unwrap_or_default());
                Reply::Stat(stat(stored.len())).encode_frame(xid, ZXID, output);
            }
            None => Reply::encode_error_frame(xid, ZXID.wire(), ErrorCode::NoNode, output),
        },
        Request::Create(create) => {
            let data = create.data.unwrap_or_default().to_vec();
            table.borrow_mut().insert(create.path.as_bytes().to_vec(), data);
            Reply::Path(create.path).encode_frame(xid, ZXID, output);
        }
        Request::Ping => Reply::Empty.encode_frame(xid, ZXID, output),
        Request::CloseSession => {
            Reply::Empty.encode_frame(xid, ZXID, output);
            return Ok(false);
        }
        other => return Err(io::Error::other(format!("{:?} is not answered here", other.op_code()))),
    }
    Ok(true)
}

fn reply_data(xid: i32, data: &[u8], output: &mut Vec<u8>) {
    Output::new(output).framed(|out| {
        ReplyHeader { xid, zxid: ZXID.wire(), error: 0 }.encode(out);
        out.buffer(Some(data));
        stat(data.len()).encode(out);
    });
}

fn stat(data_bytes: usize) -> Stat {
    Stat { data_length: data_bytes as i32, ..Stat::default() }
}
