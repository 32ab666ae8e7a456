//! Counters by name, as many as the kernel has: rules look up dozens that nothing else of
//! netobs needs, so the fixed list that the ledger uses is not enough here. Their text is read
//! by the same parser.
//!
//! kernel: net/ipv4/proc.c netstat_seq_show(), net/netfilter/nf_conntrack_standalone.c ct_cpu_seq_show()

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::audit::snapshot::{Counters, Sockstat};
use crate::sys::netstat::tables;

/// The files have a few KiB each; the largest, `arp`, a line per neighbour.
const MAX_BYTES: u64 = 8 << 20;
/// `TcpExt` has about 140 columns.
const MAX_COUNTERS: usize = 4096;

/// Reads at most a few MiB of a file of `/proc`.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// All counters of the namespace whose `/proc/.../net` is `net`. What is missing is absent.
pub(super) fn read(net: &Path) -> io::Result<Counters> {
    let mut counters = Counters::new();
    netstat(&read_text(&net.join("netstat"))?, &mut counters);
    netstat(&read_text(&net.join("snmp"))?, &mut counters);
    // Only with the module, and only for root.
    if let Ok(text) = read_text(&net.join("stat/nf_conntrack")) {
        conntrack(&text, &mut counters);
    }
    Ok(counters)
}

/// The TCP counters of `netstat` or `snmp`.
pub(super) fn netstat(text: &str, counters: &mut Counters) {
    for table in tables(text).filter(|table| matches!(table.prefix, "TcpExt" | "Tcp")) {
        for (name, value) in table.counters() {
            if counters.len() < MAX_COUNTERS {
                counters.insert(format!("{}.{name}", table.prefix), value);
            }
        }
    }
}

/// A line of names, then one of hexadecimal values per CPU.
pub(super) fn conntrack(text: &str, counters: &mut Counters) {
    let mut lines = text.lines();
    let Some(names) = lines.next() else { return };
    let names: Vec<&str> = names.split_whitespace().take(64).collect();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            if *name == "entries" {
                continue;
            }
            if let Ok(value) = u64::from_str_radix(value, 16) {
                let sum = counters.entry(format!("conntrack.{name}")).or_insert(0);
                *sum = sum.saturating_add(value);
            }
        }
    }
}

/// Drops and squeezes, summed over CPUs: the second and third column, in hexadecimal.
pub(super) fn softnet(text: &str) -> Option<(u64, u64)> {
    let mut sum = None;
    for line in text.lines() {
        let mut columns = line
            .split_whitespace()
            .skip(1)
            .map(|c| u64::from_str_radix(c, 16).ok());
        if let (Some(Some(dropped)), Some(Some(squeezed))) = (columns.next(), columns.next()) {
            let (a, b) = sum.unwrap_or((0_u64, 0_u64));
            sum = Some((a.saturating_add(dropped), b.saturating_add(squeezed)));
        }
    }
    sum
}

/// The TCP line of `sockstat`: words and numbers in turn.
pub(super) fn sockstat(text: &str) -> Option<Sockstat> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut stat = Sockstat::default();
    let mut words = line.split_whitespace();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let Ok(value) = value.parse() else { continue };
        match name {
            "orphan" => stat.orphans = value,
            "tw" => stat.time_wait = value,
            "mem" => stat.mem_pages = value,
            _ => {}
        }
    }
    Some(stat)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{conntrack, netstat, sockstat, softnet};
    use crate::audit::snapshot::{Counters, Sockstat};

    #[test]
    fn tables_are_read_by_name() {
        let mut counters = Counters::new();
        netstat(
            "TcpExt: A ListenOverflows\nTcpExt: 1 7\nIpExt: X\nIpExt: 3\nTcp: MaxConn OutRsts\nTcp: -1 4\n",
            &mut counters,
        );
        conntrack(
            "entries  drop insert_failed\n00000004  0a 1\n00000004  01 2\n",
            &mut counters,
        );
        let names: Vec<(&str, u64)> = counters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(
            names,
            [
                ("Tcp.OutRsts", 4),
                ("TcpExt.A", 1),
                ("TcpExt.ListenOverflows", 7),
                ("conntrack.drop", 11),
                ("conntrack.insert_failed", 3),
            ]
        );
        assert_eq!(softnet("0e 02 01 00\n10 01 00 00\n"), Some((3, 1)));
        assert_eq!(softnet(""), None);
        let stat = sockstat("sockets: used 15\nTCP: inuse 1 orphan 2 tw 9 alloc 1 mem 328\n");
        assert_eq!(
            stat,
            Some(Sockstat {
                orphans: 2,
                time_wait: 9,
                mem_pages: 328
            })
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\n]{0,400}") {
            let mut counters = Counters::new();
            netstat(&text, &mut counters);
            conntrack(&text, &mut counters);
            let _ = (softnet(&text), sockstat(&text));
        }
    }
}
