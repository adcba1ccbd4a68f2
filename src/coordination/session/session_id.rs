//! Session ids and passwords.

use crate::base::SessionId;
use crate::protocol::zookeeper::PASSWORD_BYTES;

/// Makes session ids: the server's id in the high byte, then the clock at start, then a counter.
#[derive(Debug)]
pub struct SessionIds {
    next: i64,
}

impl SessionIds {
    /// Ids of server `server_id` (1 when standalone) that started at `now_ms`.
    pub fn new(server_id: u8, now_ms: i64) -> SessionIds {
        let clock = ((now_ms as u64) << 24) >> 8;
        SessionIds { next: (clock | (server_id as u64) << 56) as i64 }
    }

    /// The next id; never `i64::MIN`, which is how containers are marked on disk, and never 0.
    pub fn allocate(&mut self) -> SessionId {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        if id == i64::MIN || id == 0 { self.allocate() } else { SessionId(id) }
    }

    /// Makes sure that `used` is not given out again: it was found in the log of an earlier life.
    pub fn skip_past(&mut self, used: SessionId) {
        let same_server = used.0 >> 56 == self.next >> 56;
        if same_server && used.0 >= self.next {
            self.next = used.0.wrapping_add(1);
        }
    }
}

/// The password of a session: 16 bytes of `java.util.Random` seeded with the id. Not a secret, but sessions must survive a
/// migration from ZooKeeper, which computes the same (`ZooKeeperServer.generatePasswd`).
pub fn password(session: SessionId) -> [u8; PASSWORD_BYTES] {
    const SUPER_SECRET: i64 = 0xB341_5C00;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session.0 ^ SUPER_SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut bytes = [0; PASSWORD_BYTES];
    for chunk in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        chunk.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of a later life must not repeat those of an earlier one whose clock ran ahead.
    #[test]
    fn ids_are_not_reused_after_the_clock_went_back() {
        let mut ids = SessionIds::new(1, 1_700_000_000_000);
        let first = ids.allocate();
        let mut later = SessionIds::new(1, 1_600_000_000_000);
        later.skip_past(first);
        assert_eq!(later.allocate().0, first.0 + 1);
        assert_eq!(first.0 >> 56, 1);
    }

    /// The generator must be Java's: 48-bit, scrambled seed, upper 32 bits, each int written low byte first.
    #[test]
    fn password_is_java_util_random() {
        // java.util.Random(0).nextInt() is -1155484576: the seed 0 is reached with this id.
        let bytes = password(SessionId(0xB341_5C00));
        assert_eq!(i32::from_le_bytes(bytes[..4].try_into().unwrap()), -1_155_484_576);
        assert_eq!(i32::from_le_bytes(bytes[4..8].try_into().unwrap()), -723_955_400);
    }
}
