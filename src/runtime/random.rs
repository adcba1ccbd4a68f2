//! The one place that draws random numbers for the product; pure cores get them as arguments.

use super::world;

/// Any number. Not for secrets.
pub fn any() -> u64 {
    if world::is_active() { world::current().random() } else { rand::random() }
}
