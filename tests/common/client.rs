//! A blocking client that pipelines and hides nothing: zxids, error codes and the order of replies are the test's to judge.

use ringkeeper::protocol::jute::Input;
use ringkeeper::protocol::zookeeper::{
    Acl, AclVector, ConnectRequest, ConnectResponse, Create, CreateFlags, ErrorCode, EventType, FrameReader, MultiOp,
    OpCode, PASSWORD_BYTES, Reply, ReplyHeader, Request, Stat, WatcherEvent, xid,
};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply later than this is a failure.
const REPLY_PATIENCE: Duration = Duration::from_secs(60);
/// Larger than anything a server answers here.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// What it takes to come back to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: i64,
    pub password: [u8; PASSWORD_BYTES],
    pub timeout_ms: i32,
}

impl Session {
    /// Asks for a new session.
    pub const fn new(timeout_ms: i32) -> Session {
        Session { id: 0, password: [0; PASSWORD_BYTES], timeout_ms }
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Answer {
    pub xid: i32,
    pub zxid: i64,
    pub error: i32,
    pub op: OpCode,
    body: Vec<u8>,
}

impl Answer {
    /// The body; panics when the reply is an error.
    pub fn reply(&self) -> Reply<'_> {
        assert_eq!(self.error, 0, "{:?} was answered with an error", self.op);
        Reply::decode(self.op, &mut Input::new(&self.body)).expect("a well-formed reply")
    }

    /// The Stat that the reply carries.
    pub fn stat(&self) -> Stat {
        match self.reply() {
            Reply::Stat(stat) | Reply::Data(_, stat) | Reply::PathAndStat(_, stat) => stat,
            other => panic!("{other:?} carries no Stat"),
        }
    }

    /// The data that the reply carries.
    pub fn data(&self) -> Vec<u8> {
        match self.reply() {
            Reply::Data(data, _) => data.unwrap_or_default().to_vec(),
            other => panic!("{other:?} carries no data"),
        }
    }

    /// The children that the reply carries, sorted.
    pub fn children(&self) -> Vec<String> {
        let Reply::Children(children) = self.reply() else { panic!("{:?} carries no children", self.op) };
        let mut children: Vec<String> = children.into_iter().map(str::to_owned).collect();
        children.sort();
        children
    }
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventType,
    pub path: String,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    consumed: usize,
    outgoing: Vec<u8>,
    next_xid: i32,
    expected: VecDeque<(i32, OpCode)>,
    events: VecDeque<Event>,
    /// The session as the server granted it.
    pub session: Session,
    /// The highest zxid of any reply.
    pub last_zxid: i64,
}

impl Client {
    /// Connects with a new session of 30 seconds.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::attach(address, Session::new(30_000), 0)
    }

    /// Connects with `session`, having seen `last_zxid`. A session that is gone comes back with id 0.
    pub fn attach(address: SocketAddr, session: Session, last_zxid: i64) -> io::Result<Client> {
        let mut client = Client::open(address, session)?;
        client.last_zxid = last_zxid;
        client.greet()?;
        Ok(client)
    }

    /// Opens the connection and says nothing yet.
    pub fn open(address: SocketAddr, session: Session) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_PATIENCE))?;
        stream.set_write_timeout(Some(REPLY_PATIENCE))?;
        Ok(Client {
            stream,
            received: Vec::new(),
            consumed: 0,
            outgoing: Vec::new(),
            next_xid: 1,
            expected: VecDeque::new(),
            events: VecDeque::new(),
            session,
            last_zxid: 0,
        })
    }

    /// Sends the handshake and takes the answer.
    pub fn greet(&mut self) -> io::Result<()> {
        self.send_greeting()?;
        self.finish_greeting()
    }

    /// Sends the handshake alone.
    pub fn send_greeting(&mut self) -> io::Result<()> {
        self.queue_greeting();
        self.flush()
    }

    /// Puts the handshake where [`Client::queue`] puts requests.
    pub fn queue_greeting(&mut self) {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.session.timeout_ms,
            session_id: self.session.id,
            password: &self.session.password,
            read_only: Some(false),
        };
        request.encode_frame(&mut self.outgoing);
    }

    /// Takes the answer to the handshake.
    pub fn finish_greeting(&mut self) -> io::Result<()> {
        let body = self.frame()?;
        let answer = ConnectResponse::decode(&body).map_err(io::Error::other)?;
        self.session = Session { id: answer.session_id, password: answer.password, timeout_ms: answer.timeout_ms };
        Ok(())
    }

    /// How long a reply may take.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a positive time");
    }

    /// Puts a request behind those to be sent with the next [`Client::flush`]. Returns its xid.
    pub fn queue(&mut self, request: &Request<'_>) -> i32 {
        let number = if matches!(request, Request::Ping) { xid::PING } else { self.next_xid };
        self.next_xid += 1;
        request.encode_frame(number, &mut self.outgoing);
        self.expected.push_back((number, request.op_code()));
        number
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.write_all(&self.outgoing);
        self.outgoing.clear();
        result
    }

    /// Takes what is queued out, for a thread that sends it while this one reads.
    pub fn take_queued(&mut self) -> (TcpStream, Vec<u8>) {
        (self.stream.try_clone().expect("another handle"), std::mem::take(&mut self.outgoing))
    }

    /// Requests that are not answered yet.
    pub fn outstanding(&self) -> usize {
        self.expected.len()
    }

    /// The next reply, which must be for the oldest outstanding request. Events before it are kept.
    pub fn receive(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = self.receive_one()? {
                return Ok(answer);
            }
        }
    }

    /// The next frame, if it is a reply; an event is put aside.
    fn receive_one(&mut self) -> io::Result<Option<Answer>> {
        let body = self.frame()?;
        let mut input = Input::new(&body);
        let header = ReplyHeader::decode(&mut input).map_err(io::Error::other)?;
        if header.xid == xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut input).map_err(io::Error::other)?;
            self.events.push_back(Event { kind: event.kind, path: event.path.to_owned() });
            return Ok(None);
        }
        let (number, op) = self.expected.pop_front().expect("a reply that nobody asked for");
        assert_eq!(header.xid, number, "replies come in the order of their requests");
        self.last_zxid = self.last_zxid.max(header.zxid);
        let body = input.rest().to_vec();
        Ok(Some(Answer { xid: header.xid, zxid: header.zxid, error: header.error, op, body }))
    }

    /// The next event.
    pub fn event(&mut self) -> io::Result<Event> {
        while self.events.is_empty() {
            assert!(self.receive_one()?.is_none(), "a reply came where an event was expected");
        }
        Ok(self.events.pop_front().expect("one is there"))
    }

    /// Events that have come so far, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Sends one request and takes its reply, after those that are outstanding.
    pub fn call(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        let number = self.queue(request);
        self.flush()?;
        loop {
            let answer = self.receive()?;
            if answer.xid == number {
                return Ok(answer);
            }
        }
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut frames = FrameReader::new(&self.received[self.consumed..], REPLY_BYTES_MAX);
            if let Some(frame) = frames.next().map_err(io::Error::other)? {
                let body = frame.body.to_vec();
                self.consumed += frames.consumed();
                return Ok(body);
            }
            self.received.drain(..self.consumed);
            self.consumed = 0;
            let mut piece = [0; 64 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.received.extend_from_slice(&piece[..len]),
            }
        }
    }

    /// create(path, data) with an open ACL.
    pub fn create(&mut self, path: &str, data: &[u8], flags: CreateFlags) -> io::Result<Answer> {
        let mut scratch = Vec::new();
        self.call(&Request::Create(create(path, data, flags, &mut scratch)))
    }

    /// Creates `/nI` with `data` for I from `first` on until one is refused, as a write is that the log has no room for. Returns
    /// which one.
    pub fn create_until_refused(&mut self, first: usize, data: &[u8]) -> usize {
        for made in first..2000 {
            let answer = self.create(&format!("/n{made}"), data, CreateFlags::PERSISTENT).expect("a reply");
            if answer.error != 0 {
                assert_eq!(answer.error, ErrorCode::SystemError.wire());
                return made;
            }
        }
        panic!("the log has room for ever");
    }

    /// setData(path, data) of any version.
    pub fn set(&mut self, path: &str, data: &[u8]) -> io::Result<Answer> {
        self.call(&Request::SetData { path, data: Some(data), version: -1 })
    }

    /// getData(path) without a watch.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.call(&Request::GetData { path, watch: false })
    }

    /// exists(path) without a watch.
    pub fn exists(&mut self, path: &str) -> io::Result<bool> {
        Ok(self.call(&Request::Exists { path, watch: false })?.error == 0)
    }

    /// getChildren(path), sorted, without a watch.
    pub fn children(&mut self, path: &str) -> io::Result<Vec<String>> {
        Ok(self.call(&Request::GetChildren { path, watch: false, with_stat: false })?.children())
    }

    /// Closes the session and waits until the server has said so.
    pub fn close(mut self) -> io::Result<()> {
        self.call(&Request::CloseSession).map(drop)
    }

    /// Queues a create with an open ACL.
    pub fn queue_create(&mut self, path: &str, data: &[u8], flags: CreateFlags) -> i32 {
        let mut scratch = Vec::new();
        let request = Request::Create(create(path, data, flags, &mut scratch));
        self.queue(&request)
    }

    /// Queues a multi that writes the same value to several nodes.
    pub fn queue_set_all(&mut self, paths: &[&str], data: &[u8]) -> i32 {
        let ops = paths.iter().map(|path| MultiOp::SetData { path, data: Some(data), version: -1 });
        self.queue(&Request::Multi(ops.collect()))
    }
}

fn create<'a>(path: &'a str, data: &'a [u8], flags: CreateFlags, scratch: &'a mut Vec<u8>) -> Create<'a> {
    let acl = AclVector::from_acls(&[Acl::open()], scratch);
    Create { path, data: Some(data), acl, flags, with_stat: false, ttl_ms: None }
}

/// True when the error says that the other side is gone, as after a kill.
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted | ConnectionRefused)
}
