//! How large hash tables are split, so that growing never moves more than a small part of a million entries at once.

/// Number of parts.
pub(super) const PARTS: usize = 256;

/// The part that an entry with this hash belongs to.
///
/// The parts are of unequal size: the first is expected to hold half of what the last holds, with all sizes in between. Equal parts
/// would be as full as one another, all grow within a moment, and then be half empty together.
pub(super) fn part_of(hash: u64) -> usize {
    // Tables use the top 7 bits and the low ones; these 16 are nobody's.
    let u = (hash >> 40) as u32 & 0xffff;
    // With u from 0 to 1 this is log2(1 + u), to a hundredth, times the number of parts.
    let log = u + u * (0x1_0000 - u) / 3 / 0x1_0000;
    log as usize * PARTS / 0x1_0000
}

/// The share of each part in `entries`, rounded up.
pub(super) fn shares(entries: usize) -> [usize; PARTS] {
    let mut shares = [0; PARTS];
    for bits in 0..0x1_0000 {
        shares[part_of(bits << 40)] += 1;
    }
    shares.map(|share| (share * entries).div_ceil(0x1_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the memory of a million entries rests on: sizes from one to two, none left out, and all entries accounted for.
    #[test]
    fn parts_are_spread_from_one_to_two() {
        let shares = shares(PARTS << 16);
        assert_eq!(shares.iter().sum::<usize>(), PARTS << 16);
        let (least, greatest) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        let ratio = *greatest as f64 / *least as f64;
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
        assert!(shares.is_sorted_by(|one, next| *one <= next + next / 50), "no part is much larger than the next");
    }
}
