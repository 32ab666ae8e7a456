//! The running kernel's release, for the table of defaults.
//!
//! Nothing is switched on or off by it: whether a setting exists is seen by reading it.
//! The version only says which default the documentation promises, where a fresh
//! namespace could not be asked.

use std::fmt;

/// A release string and, where it could be read, its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    release: String,
    version: Option<Version>,
}

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

impl Kernel {
    /// Takes a release as `uname -r` prints it. One that cannot be read has no version.
    #[must_use]
    pub fn parse(release: &str) -> Self {
        let release: String = release
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(128)
            .collect();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        let version = match (next(), next()) {
            (Some(major), Some(minor)) => Some(Version(major, minor)),
            _ => None,
        };
        Self { release, version }
    }

    /// The release string.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// True where the version is known and older than `version`.
    #[must_use]
    pub fn older_than(&self, version: Version) -> bool {
        self.version.is_some_and(|own| own < version)
    }

    /// Picks from rows of (first version, value), oldest first, what holds for this kernel.
    #[must_use]
    pub fn pick<'a>(&self, rows: &'a [(Version, &'a str)]) -> Option<&'a str> {
        let own = self.version?;
        rows.iter()
            .rev()
            .find(|(since, _)| *since <= own)
            .map(|(_, value)| *value)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Version};

    #[test]
    fn releases_of_many_distributions_are_read() {
        for (release, want) in [
            ("6.18.44-fc-v669\n", Some(Version(6, 18))),
            ("5.10.0-28-cloud-amd64", Some(Version(5, 10))),
            ("4.18.0-553.el8_10.x86_64", Some(Version(4, 18))),
            ("6.1", Some(Version(6, 1))),
            ("7", None),
            ("", None),
            ("linux", None),
            ("99999999.1", None),
        ] {
            assert_eq!(Kernel::parse(release).version, want, "{release:?}");
        }
    }

    #[test]
    fn the_newest_row_not_newer_than_the_kernel_is_picked() {
        let rows = [(Version(0, 0), "128"), (Version(5, 4), "4096")];
        assert_eq!(Kernel::parse("5.3.1").pick(&rows), Some("128"));
        assert_eq!(Kernel::parse("5.4.0").pick(&rows), Some("4096"));
        assert_eq!(Kernel::parse("6.18.44").pick(&rows), Some("4096"));
        assert_eq!(Kernel::parse("what").pick(&rows), None);
        assert!(!Kernel::parse("what").older_than(Version(4, 13)));
    }
}
