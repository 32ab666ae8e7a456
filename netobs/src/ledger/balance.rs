//! Kernel minus attributed: 0 is the promise.

/// One counter of one namespace, read before and after the attributed sum was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The kernel's counter before, less its baseline.
    pub before: u64,
    /// The kernel's counter after, less its baseline.
    pub after: u64,
    /// What netobs attributed in between, since the same baseline.
    pub attributed: u64,
}

impl Balance {
    /// What is certainly not attributed (positive), or attributed too much (negative).
    ///
    /// While a counter moves, no two reads are of one instant. The attributed sum is true when it
    /// lies between what the kernel said before and after it; only what lies outside is a
    /// difference.
    #[must_use]
    pub fn unattributed(self) -> i64 {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if self.attributed < self.before {
            signed(self.before - self.attributed)
        } else if self.attributed > self.after {
            -signed(self.attributed - self.after)
        } else {
            0
        }
    }

    /// Whether the kernel's counter stood still while it was compared.
    #[must_use]
    pub fn is_quiet(self) -> bool {
        self.before == self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unattributed(before: u64, attributed: u64, after: u64) -> i64 {
        Balance {
            before,
            after,
            attributed,
        }
        .unattributed()
    }

    #[test]
    fn within_the_bracket_is_balanced() {
        assert_eq!(unattributed(10, 10, 10), 0);
        assert_eq!(unattributed(10, 12, 15), 0);
    }

    #[test]
    fn outside_the_bracket_is_the_distance_to_it() {
        assert_eq!(unattributed(10, 7, 15), 3);
        assert_eq!(unattributed(10, 17, 15), -2);
    }
}
