//! What a machine's clock may say.

use std::ops::Range;

/// Times of day that a machine with this program can have, in seconds since 1970: from 2025 to 2055.
const PLAUSIBLE: Range<u64> = 1_735_689_600..2_713_910_400;

/// Whether a machine's clock may be right, in seconds since 1970. Before it is set, that of a machine without a battery begins anew
/// with each boot, and what was written down then seems to be of now; by one that is far ahead everything is old.
pub fn is_plausible(wall: u64) -> bool {
    PLAUSIBLE.contains(&wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_before_this_program_nor_long_after_it() {
        let year = 31_556_952;
        assert!([2026, 2054].map(|it| is_plausible((it - 1970) * year)).iter().all(|it| *it));
        assert!(![1970, 2024, 2063, 2100].map(|it| is_plausible((it - 1970) * year)).iter().any(|it| *it));
    }
}
