//! Where to connect and below which node to live: the connect string `host1:2181,host2:2181/chroot`.
//!
//! The server knows nothing of a chroot: the client puts it in front of every path that it sends and takes it away from
//! every path that it receives.

use super::error::ClientError;

/// The port when the connect string names none.
pub const DEFAULT_PORT: u16 = 2181;

/// One server of a connect string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name or an address, without brackets.
    pub name: String,
    /// The client port.
    pub port: u16,
}

/// A parsed connect string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// The servers in the order given; at least one.
    pub hosts: Vec<Host>,
    /// The node that the client sees as `/`.
    pub chroot: Chroot,
}

impl ConnectString {
    /// Reads `host[:port][,host[:port]...][/chroot]`; an IPv6 address stands in brackets.
    pub fn parse(text: &str) -> Result<ConnectString, ClientError> {
        let invalid = |reason| ClientError::InvalidConnectString { text: text.to_owned(), reason };
        let (hosts, chroot) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let hosts = hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(|host| Host::parse(host).map_err(invalid))
            .collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(invalid("it names no server"));
        }
        Ok(ConnectString { hosts, chroot: Chroot::new(chroot)? })
    }
}

impl Host {
    fn parse(text: &str) -> Result<Host, &'static str> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
                match rest {
                    "" => (name, None),
                    _ => (name, Some(rest.strip_prefix(':').ok_or("after an address in brackets comes `:port`")?)),
                }
            }
            None => match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => return Err("an IPv6 address needs brackets"),
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        if name.is_empty() {
            return Err("a server has no name");
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?,
            None => DEFAULT_PORT,
        };
        Ok(Host { name: name.to_owned(), port })
    }
}

/// The node below which a client lives. Invariant: empty, or a valid path other than `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chroot(String);

impl Chroot {
    /// The chroot `path`; `""` and `/` mean none.
    pub fn new(path: &str) -> Result<Chroot, ClientError> {
        match path {
            "" | "/" => Ok(Chroot::default()),
            _ => validate_path(path).map(|()| Chroot(path.to_owned())),
        }
    }

    /// The path as given; empty for none.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the server calls the client's `path`. Refuses a path that is not valid.
    pub fn absolute(&self, path: &str) -> Result<String, ClientError> {
        validate_path(path)?;
        Ok(self.prefix(path))
    }

    /// As [`absolute`](Self::absolute), for a sequential create: the name may be completed by the number, so `/a/` is fine.
    pub fn absolute_sequential(&self, path: &str) -> Result<String, ClientError> {
        validate_path(&format!("{path}0")).map_err(|error| match error {
            ClientError::InvalidPath { reason, .. } => ClientError::InvalidPath { path: path.to_owned(), reason },
            other => other,
        })?;
        Ok(if self.0.is_empty() { path.to_owned() } else { format!("{}{path}", self.0) })
    }

    fn prefix(&self, path: &str) -> String {
        match path {
            _ if self.0.is_empty() => path.to_owned(),
            "/" => self.0.clone(),
            _ => format!("{}{path}", self.0),
        }
    }

    /// What the client calls the server's `path`. A path outside the chroot stays as it is.
    pub fn relative<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.0.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

/// Refuses what the server would refuse in a create (reference: `PathUtils.validatePath`).
pub fn validate_path(path: &str) -> Result<(), ClientError> {
    match path_fault(path) {
        None => Ok(()),
        Some(reason) => Err(ClientError::InvalidPath { path: path.to_owned(), reason }),
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("it does not start with /");
    }
    if path == "/" {
        return None;
    }
    if path.ends_with('/') {
        return Some("it ends with /");
    }
    for component in path[1..].split('/') {
        match component {
            "" => return Some("it has an empty component"),
            "." | ".." => return Some("relative components are not allowed"),
            _ => {}
        }
    }
    let forbidden = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    path.contains(forbidden).then_some("it has a character that ZooKeeper forbids")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker's `zookeeper.connect` has one chroot, at the end, for all hosts: reading it as part of the last host, or
    /// forgetting the default port, sends the broker to the wrong place.
    #[test]
    fn chroot_belongs_to_all_hosts() {
        let parsed = ConnectString::parse("zk1:2182, zk2,[::1]:99,[fe80::1]/kafka/main").unwrap();
        let hosts: Vec<_> = parsed.hosts.iter().map(|h| (h.name.as_str(), h.port)).collect();
        assert_eq!(hosts, [("zk1", 2182), ("zk2", 2181), ("::1", 99), ("fe80::1", 2181)]);
        assert_eq!(parsed.chroot.as_str(), "/kafka/main");
        assert_eq!(ConnectString::parse("zk1/").unwrap().chroot, Chroot::default());
    }

    /// A mistyped connect string must be refused with its reason, not tried for ever.
    #[test]
    fn bad_connect_strings_are_refused() {
        for text in
            ["", "/a", "zk1:0", "zk1:x", ":2181", "::1", "[::1", "[::1]2181", "zk1/a/", "zk1//a", "zk1/a,zk2:1/.."]
        {
            assert!(ConnectString::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    /// `/kafka2/x` does not lie below `/kafka`: a prefix match on bytes would show it as `2/x`.
    #[test]
    fn chroot_strips_whole_components_only() {
        let chroot = Chroot::new("/kafka").unwrap();
        assert_eq!(chroot.absolute("/").unwrap(), "/kafka");
        assert_eq!(chroot.absolute("/x/y").unwrap(), "/kafka/x/y");
        assert_eq!(chroot.relative("/kafka"), "/");
        assert_eq!(chroot.relative("/kafka/x"), "/x");
        assert_eq!(chroot.relative("/kafka2/x"), "/kafka2/x");
        let none = Chroot::default();
        assert_eq!((none.relative("/"), none.relative("/x")), ("/", "/x"));
    }

    /// A sequential create may leave the name to the server (`/queue/`); any other path with a slash at its end is refused.
    #[test]
    fn only_sequential_creates_may_end_with_a_slash() {
        let chroot = Chroot::new("/c").unwrap();
        assert_eq!(chroot.absolute_sequential("/queue/").unwrap(), "/c/queue/");
        assert!(chroot.absolute("/queue/").is_err());
        assert!(chroot.absolute_sequential("/queue//").is_err());
        assert!(chroot.absolute("/a\u{7}").is_err());
    }
}
