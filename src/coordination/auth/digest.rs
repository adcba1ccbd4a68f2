//! The digest scheme: `user:base64(hash("user:password"))`.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::Digest;

/// How passwords are hashed (`DigestAuthenticationProvider.digestAlg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum DigestAlgorithm {
    #[default]
    Sha1,
    Sha256,
    Sha512,
}

/// The identity that the clear-text `user:password` proves.
pub fn digest_id(algorithm: DigestAlgorithm, user_and_password: &[u8]) -> String {
    let text = String::from_utf8_lossy(user_and_password);
    let user = text.split(':').next().unwrap_or_default();
    let hash = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(sha1::Sha1::digest(text.as_bytes())),
        DigestAlgorithm::Sha256 => STANDARD.encode(sha2::Sha256::digest(text.as_bytes())),
        DigestAlgorithm::Sha512 => STANDARD.encode(sha2::Sha512::digest(text.as_bytes())),
    };
    format!("{user}:{hash}")
}

/// An id must have exactly two parts; like Java's `split`, empty parts at the end do not count.
pub(super) fn is_valid_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}
