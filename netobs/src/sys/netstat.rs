//! The kernel's own counters of one network namespace: `/proc/net/netstat` and `/proc/net/snmp`.
//!
//! Both files have pairs of lines, one of names and one of values, each starting with the same
//! prefix. Which columns there are, and in which order, differs by kernel: they are found by name.
//! Reading is not a snapshot: the kernel adds up per-CPU counts while they go on.
//!
//! kernel: net/ipv4/proc.c netstat_seq_show(), snmp_seq_show()

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The files have about 4 KiB and 2 KiB.
const FILE_LIMIT: u64 = 256 << 10;
/// Columns of one line pair: `TcpExt` has about 140.
const COLUMN_LIMIT: usize = 4096;

/// One table: the variants, the prefix of their line, the column.
macro_rules! counters {
    ($($variant:ident = $prefix:literal $column:literal, $doc:literal;)*) => {
        /// A counter of the kernel that netobs reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Counter {
            $(#[doc = $doc] $variant,)*
        }

        impl Counter {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name for labels: prefix and column, such as `TcpExt_ListenDrops`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!($prefix, "_", $column),)* }
            }

            /// The prefix of the line, and the column in it.
            const fn place(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => ($prefix, $column),)* }
            }
        }
    };
}

counters! {
    ListenDrops = "TcpExt" "ListenDrops", "Connection requests and final ACKs dropped at a listener.";
    ListenOverflows = "TcpExt" "ListenOverflows", "Those of them for which the accept queue was full.";
    TcpSynRetrans = "TcpExt" "TCPSynRetrans", "SYN and SYN-ACK segments sent again.";
    TcpRetransFail = "TcpExt" "TCPRetransFail", "Retransmissions that could not be sent.";
    TcpTimeouts = "TcpExt" "TCPTimeouts", "Retransmission timeouts.";
    TcpLossProbes = "TcpExt" "TCPLossProbes", "Tail loss probes sent.";
    TcpFastRetrans = "TcpExt" "TCPFastRetrans", "Segments sent again in fast recovery.";
    TcpSlowStartRetrans = "TcpExt" "TCPSlowStartRetrans", "Segments sent again after a timeout, in slow start.";
    TcpReqQFullDrop = "TcpExt" "TCPReqQFullDrop", "SYNs dropped because the SYN queue was full.";
    TcpReqQFullDoCookies = "TcpExt" "TCPReqQFullDoCookies", "SYNs answered by cookies because the SYN queue was full.";
    TcpBacklogDrop = "TcpExt" "TCPBacklogDrop", "Packets dropped because the socket's backlog was full.";
    SyncookiesSent = "TcpExt" "SyncookiesSent", "SYN cookies sent.";
    SyncookiesRecv = "TcpExt" "SyncookiesRecv", "Valid SYN cookies received.";
    SyncookiesFailed = "TcpExt" "SyncookiesFailed", "Invalid SYN cookies received.";
    TcpAbortOnTimeout = "TcpExt" "TCPAbortOnTimeout", "Connections given up after the last retransmission.";
    TcpTimeWaitOverflow = "TcpExt" "TCPTimeWaitOverflow", "Connections closed at once because of tcp_max_tw_buckets.";
    PawsActive = "TcpExt" "PAWSActive", "SYN-ACKs refused by their time stamp.";
    PawsEstab = "TcpExt" "PAWSEstab", "Segments of connections refused by their time stamp.";
    TcpFastOpenListenOverflow = "TcpExt" "TCPFastOpenListenOverflow", "Fast open requests beyond the listener's limit.";
    TcpMigrateReqFailure = "TcpExt" "TCPMigrateReqFailure", "Requests that could not move to another listener (since 5.14).";
    ActiveOpens = "Tcp" "ActiveOpens", "Connections begun by this side.";
    PassiveOpens = "Tcp" "PassiveOpens", "Connections accepted from the other side.";
    AttemptFails = "Tcp" "AttemptFails", "Handshakes that failed, both directions.";
    EstabResets = "Tcp" "EstabResets", "Established connections that were reset.";
    RetransSegs = "Tcp" "RetransSegs", "Segments sent again, SYN and SYN-ACK included.";
    OutRsts = "Tcp" "OutRsts", "Resets sent.";
    InErrs = "Tcp" "InErrs", "Segments received with an error.";
}

const COUNT: usize = Counter::ALL.len();

/// Why the counters could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetstatError {
    /// The file could not be read.
    #[error("failed to read network counters from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// None of the counters is there: not the kernel's text.
    #[error("no TCP counters in {}", dir.display())]
    Empty {
        /// The directory with both files.
        dir: PathBuf,
    },
}

/// The values of the counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    values: [u64; COUNT],
    /// Bit `n`: the kernel has the `n`-th counter.
    present: u32,
}

// One bit for each.
const _: () = assert!(COUNT <= 32);

impl Counters {
    /// Takes the counters out of the text of both files. What is missing, or no number, is absent.
    #[must_use]
    pub fn parse(netstat: &str, snmp: &str) -> Self {
        let mut counters = Self {
            values: [0; COUNT],
            present: 0,
        };
        for table in tables(netstat).chain(tables(snmp)) {
            counters.take(&table);
        }
        counters
    }

    /// Reads `<proc_net>/netstat` and `<proc_net>/snmp`. The caller says whose: `/proc/net` is the
    /// namespace of the process' first thread, `/proc/thread-self/net` that of this thread,
    /// `/proc/<pid>/net` that of another process.
    ///
    /// # Errors
    /// [`NetstatError`] when a file cannot be read, or holds none of the counters.
    pub fn read(proc_net: &Path) -> Result<Self, NetstatError> {
        let text = |name| {
            let path = proc_net.join(name);
            read_bounded(&path).map_err(|source| NetstatError::Read { path, source })
        };
        let counters = Self::parse(&text("netstat")?, &text("snmp")?);
        if counters.present == 0 {
            return Err(NetstatError::Empty {
                dir: proc_net.to_owned(),
            });
        }
        Ok(counters)
    }

    /// The value, `None` when this kernel does not have the counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Option<u64> {
        let index = counter as usize;
        let present = self.present >> index & 1 == 1;
        self.values.get(index).copied().filter(|_| present)
    }

    fn take(&mut self, table: &Table<'_>) {
        let wanted: Vec<Counter> = Counter::ALL
            .iter()
            .copied()
            .filter(|counter| counter.place().0 == table.prefix)
            .collect();
        if wanted.is_empty() {
            return;
        }
        for (name, value) in table.counters() {
            let found = wanted.iter().find(|counter| counter.place().1 == name);
            if let Some(&counter) = found
                && let Some(slot) = self.values.get_mut(counter as usize)
            {
                *slot = value;
                self.present |= 1 << counter as usize;
            }
        }
    }
}

/// A pair of lines: the names of counters, and their values.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// What both lines begin with, such as `TcpExt`.
    pub prefix: &'a str,
    names: &'a str,
    values: &'a str,
}

impl<'a> Table<'a> {
    /// Names and values; what is no unsigned number is left out (`MaxConn`, -1, is a setting).
    pub fn counters(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        self.names
            .split_ascii_whitespace()
            .zip(self.values.split_ascii_whitespace())
            .take(COLUMN_LIMIT)
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
    }
}

/// The tables in the text of `/proc/net/netstat` or `/proc/net/snmp`. A line of names without one of
/// values is left out.
pub fn tables(text: &str) -> impl Iterator<Item = Table<'_>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let Some((prefix, names)) = lines.next()?.split_once(':') else {
                continue;
            };
            let values = |line: &&str| {
                line.split_once(':')
                    .is_some_and(|(again, _)| again == prefix)
            };
            if let Some((_, values)) = lines.next_if(values).and_then(|line| line.split_once(':')) {
                return Some(Table {
                    prefix,
                    names,
                    values,
                });
            }
        }
    })
}

fn read_bounded(path: &Path) -> io::Result<String> {
    // procfs says a size of 0; the room given here takes either file in one go.
    let mut bytes = Vec::with_capacity(8 << 10);
    File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NETSTAT: &str = "\
TcpExt: SyncookiesSent ListenDrops TCPNewThing ListenOverflows
TcpExt: 1 18446744073709551615 3 4
IpExt: InNoRoutes ListenDrops
IpExt: 7 8
";
    const SNMP: &str = "\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm MaxConn ActiveOpens RetransSegs InErrs
Tcp: 1 -1 10 11 -5
";

    #[test]
    fn columns_are_found_by_name() {
        let counters = Counters::parse(NETSTAT, SNMP);
        assert_eq!(counters.get(Counter::ListenDrops), Some(u64::MAX));
        assert_eq!(counters.get(Counter::ListenOverflows), Some(4));
        assert_eq!(counters.get(Counter::SyncookiesSent), Some(1));
        assert_eq!(counters.get(Counter::ActiveOpens), Some(10));
        assert_eq!(counters.get(Counter::RetransSegs), Some(11));
    }

    #[test]
    fn absent_is_not_zero() {
        let counters = Counters::parse(NETSTAT, SNMP);
        assert_eq!(counters.get(Counter::TcpMigrateReqFailure), None);
        assert_eq!(counters.get(Counter::InErrs), None);
        let cut = Counters::parse("TcpExt: ListenDrops ListenOverflows\nTcpExt: 5", "");
        assert_eq!(cut.get(Counter::ListenDrops), Some(5));
        assert_eq!(cut.get(Counter::ListenOverflows), None);
        let unpaired = Counters::parse("TcpExt: ListenDrops\nIpExt: 5\n", "Tcp: ActiveOpens");
        assert!(
            Counter::ALL
                .iter()
                .all(|&counter| unpaired.get(counter).is_none())
        );
    }

    #[test]
    fn names_are_unique_and_carry_the_prefix() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert!(names.contains(&"TcpExt_ListenDrops") && names.contains(&"Tcp_RetransSegs"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
    }

    #[test]
    fn files_are_read_from_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Counters::read(dir.path()),
            Err(NetstatError::Read { .. })
        ));
        std::fs::write(dir.path().join("netstat"), NETSTAT).unwrap();
        std::fs::write(dir.path().join("snmp"), "").unwrap();
        assert_eq!(
            Counters::read(dir.path())
                .unwrap()
                .get(Counter::ListenOverflows),
            Some(4)
        );
        std::fs::write(dir.path().join("netstat"), "").unwrap();
        assert!(matches!(
            Counters::read(dir.path()),
            Err(NetstatError::Empty { .. })
        ));
    }

    #[test]
    fn the_running_kernel_has_them() {
        let counters = Counters::read(Path::new("/proc/thread-self/net")).unwrap();
        let absent: Vec<_> = Counter::ALL
            .iter()
            .filter(|&&counter| counters.get(counter).is_none())
            .collect();
        assert!(
            absent
                .iter()
                .all(|&&counter| counter == Counter::TcpMigrateReqFailure)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken(netstat in "(TcpExt:( -?[0-9]{1,25}| ListenDrops| .{0,4}){0,5}\n){0,5}", snmp in ".{0,200}") {
            let _ = Counters::parse(&netstat, &snmp);
            let _ = Counters::parse(&snmp, &netstat);
        }
    }
}
