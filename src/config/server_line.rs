//! The value of a `server.N` line:
//! `host:quorumPort:electionPort[:participant|observer][;[clientHost:]clientPort]`, IPv6 hosts in brackets.

/// What a standalone server needs from a `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerLine {
    pub is_participant: bool,
    /// Address and port for clients, if the line gives them; the address may be left out.
    pub client: Option<(Option<String>, u16)>,
}

/// Parses the value; `None` if it does not have the shape above.
pub(super) fn parse(value: &str) -> Option<ServerLine> {
    let (server, client) = match value.split_once(';') {
        Some((server, client)) => (server, Some(parse_client(client)?)),
        None => (value, None),
    };
    let (_, rest) = split_host(server)?;
    let mut parts = rest.split(':');
    let quorum_port: u16 = parts.next()?.parse().ok()?;
    let election_port: u16 = parts.next()?.parse().ok()?;
    let is_participant = match parts.next() {
        None => true,
        Some(role) if role.eq_ignore_ascii_case("participant") => true,
        Some(role) if role.eq_ignore_ascii_case("observer") => false,
        Some(_) => return None,
    };
    (parts.next().is_none() && quorum_port != election_port).then_some(ServerLine { is_participant, client })
}

fn parse_client(text: &str) -> Option<(Option<String>, u16)> {
    if let Ok(port) = text.parse() {
        return Some((None, port));
    }
    let (host, port) = split_host(text)?;
    Some((Some(host.to_owned()), port.parse().ok()?))
}

/// Splits `host:rest` or `[v6]:rest`.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:")?,
        None => text.split_once(':')?,
    };
    (!host.is_empty()).then_some((host, rest))
}
