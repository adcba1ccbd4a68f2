//! The model's access control, written from ZooKeeper's behaviour: who a connection is, what a list means.

use crate::protocol::zookeeper::{Acl, AclVector, ErrorCode, Id, permission};
use base64::Engine;
use sha1::{Digest, Sha1};
use std::net::Ipv4Addr;

/// The password of the super user in a simulation: `superDigest` of `super:admin`.
pub const SUPER_DIGEST: &str = "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=";

/// Whom every connection is from the start.
pub fn initial_identities(address: Ipv4Addr) -> Vec<Id> {
    vec![Id::new("ip", address.to_string())]
}

/// `user:base64(SHA1("user:password"))`.
pub fn digest_of(credentials: &[u8]) -> String {
    let text = String::from_utf8_lossy(credentials);
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", base64::engine::general_purpose::STANDARD.encode(Sha1::digest(credentials)))
}

/// Adds what `auth` proves to `identities`; false when the scheme has no provider that accepts it.
pub fn authenticate(scheme: &str, auth: &[u8], identities: &mut Vec<Id>) -> bool {
    match scheme {
        "digest" => {
            let digest = digest_of(auth);
            if digest == SUPER_DIGEST {
                add(identities, Id::new("super", ""));
            }
            add(identities, Id::new("digest", digest));
            true
        }
        "ip" => true,
        _ => false,
    }
}

fn add(identities: &mut Vec<Id>, id: Id) {
    if !identities.contains(&id) {
        identities.push(id);
    }
}

/// Whether a holder of `identities` may do any of `wanted` under `acl`.
pub fn allows(acl: &[Acl], wanted: i32, identities: &[Id]) -> bool {
    if acl.is_empty() || identities.iter().any(|id| id.scheme == "super") {
        return true;
    }
    acl.iter().filter(|entry| entry.perms & wanted != 0).any(|entry| {
        let is_anyone = entry.id.scheme == "world" && entry.id.id == "anyone";
        is_anyone || identities.iter().any(|id| id.scheme == entry.id.scheme && matches(&entry.id, id))
    })
}

fn matches(wanted: &Id, proved: &Id) -> bool {
    match wanted.scheme.as_str() {
        "digest" => wanted.id == proved.id,
        "ip" => match (parse_network(&wanted.id), proved.id.parse::<Ipv4Addr>()) {
            (Some((network, bits)), Ok(address)) => {
                let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
                u32::from(network) & mask == u32::from(address) & mask
            }
            _ => false,
        },
        _ => false,
    }
}

fn parse_network(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, bits) = match text.split_once('/') {
        None => (text, 32),
        Some((address, bits)) => (address, bits.parse().ok()?),
    };
    (bits <= 32).then_some((address.parse().ok()?, bits))
}

/// The list that is stored for the list that was given.
pub fn fix_acl(given: &AclVector<'_>, identities: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let mut unique: Vec<Acl> = Vec::new();
    for acl in given.to_vec() {
        if !unique.contains(&acl) {
            unique.push(acl);
        }
    }
    if unique.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    let mut fixed = Vec::new();
    for acl in unique {
        let valid = match acl.id.scheme.as_str() {
            "world" => acl.id.id == "anyone",
            "digest" => acl.id.id.matches(':').count() == 1,
            "ip" => parse_network(&acl.id.id).is_some(),
            "auth" => {
                let proved: Vec<&Id> = identities.iter().filter(|id| id.scheme == "digest").collect();
                if proved.is_empty() {
                    return Err(ErrorCode::InvalidAcl);
                }
                fixed.extend(proved.into_iter().map(|id| Acl { perms: acl.perms, id: id.clone() }));
                continue;
            }
            _ => false,
        };
        if !valid {
            return Err(ErrorCode::InvalidAcl);
        }
        fixed.push(acl);
    }
    Ok(fixed)
}

/// The list as getACL shows it.
pub fn masked(acl: &[Acl], identities: &[Id]) -> Vec<Acl> {
    let admin = allows(acl, permission::ADMIN, identities);
    let mask = |entry: &Acl| match entry.id.scheme.as_str() {
        "digest" if !admin => {
            let user = entry.id.id.split(':').next().unwrap_or_default();
            Acl { perms: entry.perms, id: Id::new("digest", format!("{user}:x")) }
        }
        _ => entry.clone(),
    };
    acl.iter().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample of ZooKeeper's documentation: a model with another digest than ZooKeeper's would agree with a wrong server.
    #[test]
    fn super_digest_is_the_references_sample() {
        assert_eq!(digest_of(b"super:admin"), SUPER_DIGEST);
        let mut identities = initial_identities(Ipv4Addr::new(10, 0, 0, 1));
        assert!(authenticate("digest", b"super:admin", &mut identities));
        assert!(allows(&[Acl { perms: 0, id: Id::new("world", "anyone") }], permission::ADMIN, &identities));
    }

    /// An address matches its network and no other.
    #[test]
    fn ip_acl_matches_by_prefix() {
        let acl = [Acl { perms: permission::READ, id: Id::new("ip", "10.0.1.0/24") }];
        let may = |last| allows(&acl, permission::READ, &initial_identities(last));
        assert!(may(Ipv4Addr::new(10, 0, 1, 200)) && !may(Ipv4Addr::new(10, 0, 2, 1)));
        assert!(!allows(&acl, permission::WRITE, &initial_identities(Ipv4Addr::new(10, 0, 1, 1))));
    }
}
