//! The ip scheme: an address, or an address and the number of its leading bits that count.

use core::net::IpAddr;

fn parse(id: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match id.split_once('/') {
        None => (id, None),
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((address, bits))
}

pub(super) fn is_valid_id(id: &str) -> bool {
    parse(id).is_some()
}

/// True when the address `peer` lies in the range `wanted`.
pub(super) fn matches(wanted: &str, peer: &str) -> bool {
    let (Some((range, bits)), Ok(peer)) = (parse(wanted), peer.parse::<IpAddr>()) else { return false };
    let leading = |value: u128, width: u32| value.checked_shr(width - bits).unwrap_or(0);
    match (range, peer) {
        (IpAddr::V4(range), IpAddr::V4(peer)) => {
            leading(u32::from(range).into(), 32) == leading(u32::from(peer).into(), 32)
        }
        (IpAddr::V6(range), IpAddr::V6(peer)) => leading(range.into(), 128) == leading(peer.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/0` means everybody and `/32` one host: a shift by the full width must not overflow.
    #[test]
    fn prefixes_at_both_ends_match() {
        for (wanted, peer, expected) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.0.0/16", "10.1.200.1", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("0.0.0.0/0", "192.168.0.1", true),
            ("::/0", "fe80::1", true),
            ("fe80::/10", "fe81::1", true),
            ("fe80::/10", "10.0.0.1", false),
        ] {
            assert_eq!(matches(wanted, peer), expected, "{wanted} {peer}");
        }
    }
}
