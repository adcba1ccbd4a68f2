//! Who may do what: identities, schemes, and the check of an access control list. Pure.
//!
//! Schemes: `world`, `auth` (expanded when an ACL is set), `digest`, `ip`, and `super`, which an ACL cannot name and which
//! may do everything (ZooKeeper's `ZooKeeperServer.checkACL` and `PrepRequestProcessor.fixupACL`).

mod digest;
mod ip;

pub use digest::{DigestAlgorithm, digest_id};

use super::tree::AclList;
use crate::protocol::zookeeper::{Acl, AclVector, Id, permission};
use ahash::AHashSet;
use core::net::IpAddr;
use std::sync::Arc;
use thiserror::Error;

/// What the operator decided about authentication.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// `skipACL=yes`: everybody may do everything.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.superDigest`: `super:base64(digest("super:password"))`.
    pub super_digest: Option<String>,
    /// `DigestAuthenticationProvider.enabled=false` takes the scheme away.
    pub digest_disabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: DigestAlgorithm,
}

/// Identities of one connection: every check of an access list compares with all of them.
const IDENTITIES_MAX: usize = 100;

/// The identities that a connection has proved; shared with the requests that it has under way.
pub type Identities = Arc<Vec<Id>>;

/// The ACL names nobody, or somebody in a way that its scheme refuses: INVALIDACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid ACL")]
pub struct InvalidAcl;

/// Unknown scheme or wrong credentials: AUTHFAILED, then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("authentication failed")]
pub struct AuthFailed;

/// By how many bytes a list may grow when `auth` is replaced by whom the connection is. Every entry may name as many identities as the
/// connection has proved: without a bound a small request makes a list that no log takes.
pub const EXPANSION_BYTES_MAX: usize = 64 << 10;

/// What every connection starts with: its address.
pub fn initial_identities(peer: IpAddr) -> Identities {
    Arc::new(vec![Id::new("ip", peer.to_canonical().to_string())])
}

impl AuthConfig {
    /// True when one of `identities` holds one of the bits `perms` in `acl`.
    pub fn allows(&self, acl: &AclList, perms: i32, identities: &[Id]) -> bool {
        if self.skip_acl || acl.world_perms() & perms != 0 || acl.entries().is_empty() {
            return true;
        }
        identities.iter().any(|id| id.scheme == "super")
            || acl.entries().iter().filter(|entry| entry.perms & perms != 0).any(|entry| {
                identities.iter().any(|id| id.scheme == entry.id.scheme && self.matches(&entry.id, &id.id))
            })
    }

    fn matches(&self, wanted: &Id, id: &str) -> bool {
        match wanted.scheme.as_str() {
            "digest" => !self.digest_disabled && wanted.id == id,
            "ip" => ip::matches(&wanted.id, id),
            _ => false,
        }
    }

    /// The list that is stored for the list a client gave: without duplicates, `auth` replaced by whom the connection is.
    pub fn fix_acl(&self, given: &AclVector<'_>, identities: &[Id]) -> Result<Vec<Acl>, InvalidAcl> {
        let mut fixed = Vec::new();
        let mut seen = AHashSet::new();
        let (mut bytes, bytes_max) = (0, given.entry_bytes().len() + EXPANSION_BYTES_MAX);
        for acl in given.to_vec() {
            // A list may have tens of thousands of entries: each is looked up once, not compared with all before it.
            if !seen.insert(acl.clone()) {
                continue;
            }
            let before = fixed.len();
            match acl.id.scheme.as_str() {
                "world" if acl.id.id == "anyone" => fixed.push(acl),
                "auth" => {
                    let authenticated = identities.iter().filter(|id| id.scheme == "digest" && !self.digest_disabled);
                    fixed.extend(authenticated.map(|id| Acl { perms: acl.perms, id: id.clone() }));
                    if fixed.len() == before {
                        return Err(InvalidAcl);
                    }
                }
                "digest" if !self.digest_disabled && digest::is_valid_id(&acl.id.id) => fixed.push(acl),
                "ip" if ip::is_valid_id(&acl.id.id) => fixed.push(acl),
                _ => return Err(InvalidAcl),
            }
            bytes += fixed[before..].iter().map(Acl::wire_bytes).sum::<usize>();
            if bytes > bytes_max {
                return Err(InvalidAcl);
            }
        }
        if fixed.is_empty() { Err(InvalidAcl) } else { Ok(fixed) }
    }

    /// The identities after `auth` was proved under `scheme`, or a refusal.
    pub fn authenticate(&self, scheme: &str, auth: &[u8], identities: &Identities) -> Result<Identities, AuthFailed> {
        match scheme {
            "digest" if !self.digest_disabled => {
                let id = digest_id(self.digest_algorithm, auth);
                if identities.len() >= IDENTITIES_MAX {
                    return Err(AuthFailed);
                }
                let mut proved = identities.to_vec();
                if self.super_digest.as_deref() == Some(id.as_str()) {
                    add(&mut proved, Id::new("super", ""));
                }
                add(&mut proved, Id::new("digest", id));
                Ok(Arc::new(proved))
            }
            "ip" => Ok(identities.clone()),
            _ => Err(AuthFailed),
        }
    }

    /// The list as getACL shows it: without ADMIN, digests are masked.
    pub fn masked(&self, acl: &AclList, identities: &[Id]) -> Vec<Acl> {
        let admin = self.allows(acl, permission::ADMIN, identities);
        acl.entries()
            .iter()
            .cloned()
            .map(|mut entry| {
                if !admin && entry.id.scheme == "digest" {
                    let user = entry.id.id.split(':').next().unwrap_or_default();
                    entry.id.id = format!("{user}:x");
                }
                entry
            })
            .collect()
    }
}

fn add(identities: &mut Vec<Id>, id: Id) {
    if !identities.contains(&id) {
        identities.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, id: Id::new(scheme, id) }
    }

    fn fix(config: &AuthConfig, acls: &[Acl], ids: &[Id]) -> Result<Vec<Acl>, InvalidAcl> {
        let mut scratch = Vec::new();
        config.fix_acl(&AclVector::from_acls(acls, &mut scratch), ids)
    }

    /// "auth" stands for whom the connection is; an address is not an authentication.
    #[test]
    fn auth_expands_to_digest_identities_only() {
        let config = AuthConfig::default();
        let ids = initial_identities("127.0.0.1".parse().unwrap());
        assert_eq!(fix(&config, &[acl(31, "auth", "")], &ids), Err(InvalidAcl));
        let ids = config.authenticate("digest", b"bob:secret", &ids).unwrap();
        let fixed = fix(&config, &[acl(1, "auth", "ignored"), acl(1, "auth", "ignored")], &ids).unwrap();
        assert_eq!(fixed, [acl(1, "digest", &digest_id(DigestAlgorithm::Sha1, b"bob:secret"))]);
    }

    /// 80,000 different entries fit one request; each was compared with all before it, which took half a minute on the sequencer. And
    /// 400 entries for `auth` over 400 identities are 160,000 entries: refused instead of built.
    #[test]
    fn long_lists_cost_no_more_than_their_length() {
        let entries: Vec<Acl> = (0..80_000).map(|perms| acl(perms, "world", "anyone")).collect();
        assert_eq!(fix(&AuthConfig::default(), &entries, &[]).map(|fixed| fixed.len()), Ok(80_000));
        let ids: Vec<Id> = (0..400).map(|i| Id::new("digest", format!("user{i}:secret"))).collect();
        let entries: Vec<Acl> = (0..400).map(|perms| acl(perms, "auth", "")).collect();
        assert_eq!(fix(&AuthConfig::default(), &entries, &ids), Err(InvalidAcl));
        assert_eq!(fix(&AuthConfig::default(), &entries[..2], &ids).map(|fixed| fixed.len()), Ok(800));
    }

    /// Every list that a scheme refuses is INVALIDACL, above all "super", which would be a back door.
    #[test]
    fn lists_that_name_nobody_are_refused() {
        for bad in [
            acl(31, "world", "someone"),
            acl(31, "super", ""),
            acl(31, "digest", "nocolon"),
            acl(31, "digest", "a:b:c"),
            acl(31, "ip", "nonsense"),
            acl(31, "ip", "10.0.0.0/33"),
            acl(31, "", ""),
        ] {
            assert_eq!(fix(&AuthConfig::default(), std::slice::from_ref(&bad), &[]), Err(InvalidAcl), "{bad:?}");
        }
        assert_eq!(fix(&AuthConfig::default(), &[], &[]), Err(InvalidAcl));
    }

    /// A list of one packet may have tens of thousands of different entries, each of them "auth", and a connection may prove as many
    /// identities as it likes: neither the time nor the memory may be the product of the two.
    #[test]
    fn list_that_multiplies_identities_is_refused() {
        let config = AuthConfig::default();
        let mut ids = initial_identities("127.0.0.1".parse().unwrap());
        for user in 0..90 {
            ids = config.authenticate("digest", format!("user{user}:secret").as_bytes(), &ids).unwrap();
        }
        let list: Vec<Acl> = (0..40_000).map(|perms| acl(perms, "auth", "")).collect();
        assert_eq!(fix(&config, &list, &ids), Err(InvalidAcl));
        assert_eq!(fix(&config, &list[..10], &ids).unwrap().len(), 900);
        let many = (0..200).try_fold(ids, |ids, user| config.authenticate("digest", &[b'a', b':', user], &ids));
        assert_eq!(many, Err(AuthFailed));
    }

    /// The super user's digest adds an identity that passes every check.
    #[test]
    fn super_digest_may_do_everything() {
        let config =
            AuthConfig { super_digest: Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs=".into()), ..AuthConfig::default() };
        let anonymous = initial_identities("127.0.0.1".parse().unwrap());
        let root = config.authenticate("digest", b"super:admin", &anonymous).unwrap();
        let list = AclList::new(vec![acl(permission::READ, "digest", "bob:x")]);
        assert!(!config.allows(&list, permission::WRITE, &anonymous));
        assert!(config.allows(&list, permission::WRITE, &root));
        assert_eq!(config.authenticate("world", b"anyone", &anonymous), Err(AuthFailed));
    }
}
