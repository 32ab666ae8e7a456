//! The TCP counters of a namespace, from `/proc/thread-self/net/{netstat,snmp}`.
//!
//! Both files are pairs of lines, `Group: name name ...` and `Group: value value ...`; they show
//! the namespace of the thread that opens them, summed over all CPUs. Counters of TCP over IPv6
//! are in the same lines.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context, Result, ensure};

use crate::netns::Ns;

const FILES: [&str; 2] = [
    "/proc/thread-self/net/netstat",
    "/proc/thread-self/net/snmp",
];

/// `(group, name)` to value, for example `("TcpExt", "ListenDrops")`.
type Values = BTreeMap<(String, String), u64>;

/// All counters of a namespace at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(Values);

impl Counters {
    /// Reads the counters of `ns`.
    ///
    /// # Errors
    /// When `/proc` is not mounted or its files do not have the form described above.
    pub fn read_in(ns: &Ns) -> Result<Self> {
        ns.run(Self::read_here)
    }

    /// Reads the counters of the calling thread's namespace.
    ///
    /// # Errors
    /// As [`Counters::read_in`].
    pub fn read_here() -> Result<Self> {
        let mut values = Values::new();
        for file in FILES {
            let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
            parse(&text, &mut values).with_context(|| format!("parse {file}"))?;
        }
        Ok(Self(values))
    }

    /// The value of a counter.
    ///
    /// # Panics
    /// When this kernel has no such counter: a missing number must not look like 0.
    #[must_use]
    pub fn get(&self, group: &str, name: &str) -> u64 {
        self.find(group, name)
            .unwrap_or_else(|| panic!("this kernel has no counter {group} {name}"))
    }

    /// The value of a counter that not every kernel has.
    #[must_use]
    pub fn find(&self, group: &str, name: &str) -> Option<u64> {
        self.0.get(&(group.to_owned(), name.to_owned())).copied()
    }

    /// How far each counter has grown since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Delta {
        let grown = self.0.iter().map(|(key, now)| {
            let then = before.0.get(key).copied().unwrap_or(0);
            (key.clone(), now.wrapping_sub(then))
        });
        Delta(grown.collect())
    }
}

/// How far the counters of a namespace moved between two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta(Values);

impl Delta {
    /// The growth of a counter.
    ///
    /// # Panics
    /// When this kernel has no such counter.
    #[must_use]
    pub fn get(&self, group: &str, name: &str) -> u64 {
        self.find(group, name)
            .unwrap_or_else(|| panic!("this kernel has no counter {group} {name}"))
    }

    /// The growth of a counter that not every kernel has.
    #[must_use]
    pub fn find(&self, group: &str, name: &str) -> Option<u64> {
        self.0.get(&(group.to_owned(), name.to_owned())).copied()
    }
}

/// The TCP counters that moved, for the message of a failed assertion.
impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for ((group, name), grown) in &self.0 {
            if *grown != 0 && matches!(group.as_str(), "Tcp" | "TcpExt") {
                write!(f, "{separator}{name} {:+}", grown.cast_signed())?;
                separator = ", ";
            }
        }
        if separator.is_empty() {
            f.write_str("nothing")
        } else {
            Ok(())
        }
    }
}

/// Adds the pairs of lines of `text` to `values`.
fn parse(text: &str, values: &mut Values) -> Result<()> {
    let mut lines = text.lines();
    while let Some(names) = lines.next() {
        let (group, names) = names.split_once(':').context("a line without a group")?;
        let row = lines
            .next()
            .with_context(|| format!("{group} has no values"))?;
        let (same, row) = row.split_once(':').context("a line without a group")?;
        ensure!(
            group == same,
            "the names of {group} are followed by values of {same}"
        );
        let (mut names, mut row) = (names.split_whitespace(), row.split_whitespace());
        loop {
            match (names.next(), row.next()) {
                (Some(name), Some(value)) => {
                    let value = number(value).with_context(|| format!("{group} {name}"))?;
                    values.insert((group.to_owned(), name.to_owned()), value);
                }
                (None, None) => break,
                _ => anyhow::bail!("{group} has not as many values as names"),
            }
        }
    }
    Ok(())
}

/// A counter is unsigned; a few limits in the same lines (`Tcp MaxConn`) are -1.
fn number(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(error) => match text.parse::<i64>() {
            Ok(negative) => Ok(negative.cast_unsigned()),
            Err(_) => Err(error).with_context(|| format!("{text:?} is not a number")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(text: &str) -> Result<Counters> {
        let mut values = Values::new();
        parse(text, &mut values).map(|()| Counters(values))
    }

    #[test]
    fn pairs_of_lines_are_joined() {
        let read = counters("Tcp: MaxConn InErrs\nTcp: -1 7\nTcpExt: ListenDrops\nTcpExt: 3\n");
        let read = read.unwrap();
        assert_eq!(read.get("Tcp", "InErrs"), 7);
        assert_eq!(read.get("Tcp", "MaxConn"), u64::MAX);
        assert_eq!(read.get("TcpExt", "ListenDrops"), 3);
        assert_eq!(read.find("TcpExt", "InErrs"), None);
    }

    #[test]
    fn broken_files_are_refused() {
        for text in [
            "Tcp: A\n",
            "Tcp: A\nUdp: 1\n",
            "Tcp: A B\nTcp: 1\n",
            "Tcp: A\nTcp: x\n",
            "?\n",
        ] {
            assert!(counters(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn growth_names_only_what_moved() {
        let before = counters("Tcp: A B\nTcp: 5 5\n").unwrap();
        let after = counters("Tcp: A B\nTcp: 5 8\n").unwrap();
        assert_eq!(after.since(&before).get("Tcp", "B"), 3);
        assert_eq!(after.since(&before).to_string(), "B +3");
        assert_eq!(after.since(&after).to_string(), "nothing");
    }

    #[test]
    #[should_panic(expected = "no counter Tcp Nonsense")]
    fn an_unknown_counter_is_not_zero() {
        let _ = counters("Tcp: A\nTcp: 1\n").unwrap().get("Tcp", "Nonsense");
    }
}
