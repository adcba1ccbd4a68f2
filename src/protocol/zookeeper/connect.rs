//! The handshake.

use crate::protocol::jute::{Input, JuteError, Output};

/// Length of a session password.
pub const PASSWORD_BYTES: usize = 16;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// Ignored by servers; clients send 0.
    pub protocol_version: i32,
    /// The highest zxid that the client has seen: a server behind it must not serve it.
    pub last_zxid_seen: i64,
    /// The session timeout that the client asks for.
    pub timeout_ms: i32,
    /// 0 asks for a new session.
    pub session_id: i64,
    /// The password of the session to re-attach to. Null and empty are accepted and match nothing.
    pub password: &'a [u8],
    /// Whether a read-only server will do. Clients before 3.4 send no such byte, and must get none back.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads the body of the first frame.
    pub fn decode(body: &'a [u8]) -> Result<ConnectRequest<'a>, JuteError> {
        let mut input = Input::new(body);
        Ok(ConnectRequest {
            protocol_version: input.i32()?,
            last_zxid_seen: input.i64()?,
            timeout_ms: input.i32()?,
            session_id: input.i64()?,
            password: input.buffer()?.unwrap_or_default(),
            read_only: if input.is_empty() { None } else { Some(input.bool()?) },
        })
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| {
            out.i32(self.protocol_version);
            out.i64(self.last_zxid_seen);
            out.i32(self.timeout_ms);
            out.i64(self.session_id);
            out.buffer(Some(self.password));
            if let Some(read_only) = self.read_only {
                out.bool(read_only);
            }
        });
    }
}

/// The answer to a [`ConnectRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The negotiated timeout; 0 tells the client that its session is gone.
    pub timeout_ms: i32,
    /// The session; 0 when it is gone.
    pub session_id: i64,
    /// The session's password; zeros when it is gone.
    pub password: [u8; PASSWORD_BYTES],
    /// Present exactly when the request carried the byte.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// "Your session is gone", with the read-only byte mirrored.
    pub fn session_gone(read_only: Option<bool>) -> Self {
        ConnectResponse {
            timeout_ms: 0,
            session_id: 0,
            password: [0; PASSWORD_BYTES],
            read_only: read_only.map(|_| false),
        }
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, buffer: &mut Vec<u8>) {
        Output::new(buffer).framed(|out| {
            out.i32(0);
            out.i32(self.timeout_ms);
            out.i64(self.session_id);
            out.buffer(Some(&self.password));
            if let Some(read_only) = self.read_only {
                out.bool(read_only);
            }
        });
    }

    /// Reads the body of the answer frame.
    pub fn decode(body: &[u8]) -> Result<ConnectResponse, JuteError> {
        let mut input = Input::new(body);
        input.i32()?;
        let timeout_ms = input.i32()?;
        let session_id = input.i64()?;
        let password = input.buffer()?.ok_or(JuteError::Null)?;
        Ok(ConnectResponse {
            timeout_ms,
            session_id,
            password: password.try_into().map_err(|_| JuteError::BadLength(password.len() as i32))?,
            read_only: if input.is_empty() { None } else { Some(input.bool()?) },
        })
    }
}
