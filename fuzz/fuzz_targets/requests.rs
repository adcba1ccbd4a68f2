//! Records of the protocol and of transactions: what is written is read again, and whatever else comes is decoded without a
//! panic, within memory that follows from its length, to something that is written as it came where the format has one
//! spelling only.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringkeeper::coordination::processor::txn::{TxnRecord, batch_txns};
use ringkeeper::protocol::jute::{Input, Output};
use ringkeeper::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, FrameReader, OpCode, Reply, Request, RequestHeader, WatcherEvent,
};
use ringkeeper_fuzz::allocation::bounded;
use ringkeeper_fuzz::mutation::Mutation;
use ringkeeper_fuzz::requests::{AnyConnect, AnyOpCode, AnyRequest};
use ringkeeper_fuzz::txns::AnyTxn;

#[derive(Arbitrary, Debug)]
enum Case<'a> {
    /// A request, then the same bytes changed, under its own operation or another.
    Request {
        xid: i32,
        request: AnyRequest<'a>,
        mutations: Vec<Mutation>,
        other: Option<AnyOpCode>,
    },
    RequestBytes {
        op: AnyOpCode,
        bytes: &'a [u8],
    },
    Connect {
        request: AnyConnect<'a>,
        mutations: Vec<Mutation>,
    },
    ConnectBytes(&'a [u8]),
    /// What our client reads.
    ReplyBytes {
        op: AnyOpCode,
        bytes: &'a [u8],
    },
    EventBytes(&'a [u8]),
    ConnectResponseBytes(&'a [u8]),
    /// What recovery reads.
    Txns {
        txns: Vec<AnyTxn<'a>>,
        mutations: Vec<Mutation>,
    },
    TxnsBytes(&'a [u8]),
}

/// The most memory that decoding may take: the widest value is a sub-operation of a multi, of 17 bytes on the wire.
fn memory_bytes_max(bytes: &[u8]) -> usize {
    4096 + 32 * bytes.len()
}

/// The body of the only frame in `frame`.
fn body(frame: &[u8]) -> &[u8] {
    let mut frames = FrameReader::new(frame, frame.len());
    let first = frames.next().expect("a length that fits").expect("a whole frame");
    assert_eq!(frames.consumed(), frame.len());
    first.body
}

fn encoded(request: &Request<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode_frame(0, &mut frame);
    frame[12..].to_vec()
}

/// Whether `request`, read from `record`, must be written as it came.
fn has_one_spelling(op: i32, request: &Request<'_>, record: &[u8]) -> bool {
    match request {
        // Null and empty lists are the same.
        Request::Create(create) => !create.acl.is_empty(),
        // A null path is an empty one.
        Request::SetData { path, .. } => !path.is_empty(),
        Request::SetAcl { acl, path, .. } => !acl.is_empty() && !path.is_empty(),
        // Any byte but zero is true.
        Request::Exists { path, .. } | Request::GetData { path, .. } | Request::GetChildren { path, .. } => {
            record[4 + path.len()] <= 1
        }
        // The headers of sub-operations have fields that nobody reads.
        Request::Multi(_) | Request::MultiRead(_) | Request::Auth { .. } => false,
        Request::SetWatches(_) => op == OpCode::SetWatches2.wire(),
        _ => true,
    }
}

// Declared before the request: values that are compared borrow for the same time.
#[allow(clippy::needless_late_init)]
fn check_request_bytes(op: i32, record: &[u8]) {
    let written;
    let Ok(request) = bounded(memory_bytes_max(record), || Request::decode(op, record)) else { return };
    written = encoded(&request);
    if has_one_spelling(op, &request, record) {
        assert!(record.starts_with(&written), "{request:?} was read from {record:?} and written as {written:?}");
    }
    assert_eq!(Request::decode(request.op_code().wire(), &written).as_ref(), Ok(&request));
}

/// Writes the request into `frame` and reads it again. Gives the record.
fn check_request<'a>(xid: i32, request: &Request<'a>, frame: &'a mut Vec<u8>) -> &'a [u8] {
    request.encode_frame(xid, frame);
    let mut input = Input::new(body(frame));
    let header = RequestHeader::decode(&mut input).expect("a header was written");
    assert_eq!(header, RequestHeader { xid, op: request.op_code().wire() });
    assert_eq!(Request::decode(header.op, input.rest()).as_ref(), Ok(request));
    input.rest()
}

fn check_connect_bytes(bytes: &[u8]) {
    let Ok(request) = ConnectRequest::decode(bytes) else { return };
    let mut frame = Vec::new();
    request.encode_frame(&mut frame);
    assert_eq!(ConnectRequest::decode(body(&frame)), Ok(request));
}

fn check_reply_bytes(op: OpCode, bytes: &[u8]) {
    let Ok(reply) = bounded(memory_bytes_max(bytes), || Reply::decode(op, &mut Input::new(bytes))) else { return };
    let mut written = Vec::new();
    reply.encode(&mut Output::new(&mut written));
    assert_eq!(Reply::decode(op, &mut Input::new(&written)), Ok(reply));
}

fn check_event_bytes(bytes: &[u8]) {
    let Ok(event) = WatcherEvent::decode(&mut Input::new(bytes)) else { return };
    let mut frame = Vec::new();
    event.encode_frame(None, &mut frame);
    assert_eq!(WatcherEvent::decode(&mut Input::new(&frame[20..])), Ok(event));
}

fn check_connect_response_bytes(bytes: &[u8]) {
    let Ok(response) = ConnectResponse::decode(bytes) else { return };
    let mut frame = Vec::new();
    response.encode_frame(&mut frame);
    assert_eq!(ConnectResponse::decode(body(&frame)), Ok(response));
}

/// Reads everything that there is.
fn check_txns_bytes(batch: &[u8]) {
    let mut count = 0;
    for txn in batch_txns(batch).map_while(Result::ok) {
        for record in txn.records() {
            count += 1;
            if let Ok(TxnRecord::Create { acl, .. } | TxnRecord::SetAcl { acl, .. }) = record {
                // Each entry of at least 12 bytes becomes an entry of three words and two strings, held twice.
                let _ = bounded(4096 + 64 * batch.len(), || acl.to_list());
            }
        }
    }
    assert!(count <= batch.len(), "a record takes at least a byte");
}

fn check_txns(txns: &[AnyTxn<'_>], mutations: &[Mutation]) {
    let mut batch = Vec::new();
    txns.iter().for_each(|txn| txn.write(&mut batch));
    let read: Vec<_> = batch_txns(&batch).collect::<Result<_, _>>().expect("what was written can be read");
    assert_eq!(read.len(), txns.len());
    for (written, read) in txns.iter().zip(&read) {
        assert!(written.is(read), "{written:?} was read as {read:?}");
    }
    mutations.iter().for_each(|mutation| mutation.apply(&mut batch));
    check_txns_bytes(&batch);
}

fuzz_target!(|case: Case| {
    match case {
        Case::Request { xid, request, mutations, other } => {
            let mut frame = Vec::new();
            let request = request.request();
            let mut record = check_request(xid, &request, &mut frame).to_vec();
            mutations.iter().for_each(|mutation| mutation.apply(&mut record));
            check_request_bytes(other.map_or(request.op_code().wire(), |op| op.0), &record);
        }
        Case::RequestBytes { op, bytes } => check_request_bytes(op.0, bytes),
        Case::Connect { request, mutations } => {
            let mut frame = Vec::new();
            request.request().encode_frame(&mut frame);
            assert_eq!(ConnectRequest::decode(body(&frame)), Ok(request.request()));
            let mut bytes = body(&frame).to_vec();
            mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
            check_connect_bytes(&bytes);
        }
        Case::ConnectBytes(bytes) => check_connect_bytes(bytes),
        Case::ReplyBytes { op, bytes } => {
            if let Some(op) = OpCode::from_wire(op.0) {
                check_reply_bytes(op, bytes);
            }
        }
        Case::EventBytes(bytes) => check_event_bytes(bytes),
        Case::ConnectResponseBytes(bytes) => check_connect_response_bytes(bytes),
        Case::Txns { txns, mutations } => check_txns(&txns, &mutations),
        Case::TxnsBytes(bytes) => check_txns_bytes(bytes),
    }
});
