//! Reads one namespace from inside it, or a fixture from its root directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::sockets;
use crate::audit::counters;
use crate::audit::keys::{KEYS, Reach};
use crate::audit::snapshot::{Counters, Listener, Settings, Sockets, Sockstat};
use crate::audit::value::{MAX_VALUE_BYTES, Reading};

/// The first look of a window.
#[derive(Debug, Default)]
pub(super) struct First {
    pub(super) counters: Counters,
    pub(super) listeners: Vec<Listener>,
    pub(super) softnet: Option<(u64, u64)>,
}

/// Everything read in one visit.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    pub(super) sockets: Option<Sockets>,
    pub(super) neighbours: Option<u64>,
    pub(super) softnet: Option<(u64, u64)>,
    pub(super) sockstat: Option<Sockstat>,
    pub(super) unread: Vec<&'static str>,
}

/// The settings below `proc`/sys. Node-wide ones only in the host's namespace.
///
/// `/proc/sys/net` shows the namespace of the thread that opens it.
pub(super) fn settings(proc: &Path, host: bool) -> Settings {
    KEYS.iter()
        .filter(|key| host || key.reach != Reach::Node)
        .map(|key| {
            (
                key.name,
                setting(&proc.join("sys").join(key.path()), key.kind),
            )
        })
        .collect()
}

fn setting(path: &Path, kind: crate::audit::value::Kind) -> Reading {
    let mut bytes = Vec::new();
    let limit = MAX_VALUE_BYTES as u64 + 1;
    let result = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match result {
        Ok(_) => Reading::parse(kind, &String::from_utf8_lossy(&bytes)),
        Err(error) if absent(&error) => Reading::Missing,
        Err(error) => Reading::Unreadable(error.kind().to_string()),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The first look, inside the namespace.
pub(super) fn first(proc: &Path) -> First {
    // Not /proc/net: that is the namespace of the process' first thread.
    let net = proc.join("thread-self/net");
    First {
        counters: counters::read(&net).unwrap_or_default(),
        listeners: sockets::listeners().unwrap_or_default(),
        softnet: softnet(&net),
    }
}

/// The last look, or the only one, inside the namespace.
pub(super) fn visit(proc: &Path, host: bool) -> Visit {
    let net = proc.join("thread-self/net");
    let settings = settings(proc, host);
    let range = match settings.get("net.ipv4.ip_local_port_range") {
        Some(Reading::Vector(range)) => match range.as_slice() {
            [low, high] => u16::try_from(*low).ok().zip(u16::try_from(*high).ok()),
            _ => None,
        },
        _ => None,
    };
    let counters = counters::read(&net);
    let sockets = sockets::sockets(range);
    let mut unread = Vec::new();
    if counters.is_err() {
        unread.push("the TCP counters");
    }
    match &sockets {
        Err(_) => unread.push("the list of TCP sockets"),
        Ok(sockets) if sockets.truncated => unread.push("a part of the very many TCP sockets"),
        Ok(_) => {}
    }
    Visit {
        settings,
        counters: counters.unwrap_or_default(),
        sockets: sockets.ok(),
        unread,
        neighbours: neighbours(&net),
        softnet: softnet(&net),
        sockstat: counters::read_text(&net.join("sockstat"))
            .ok()
            .and_then(|t| counters::sockstat(&t)),
    }
}

fn softnet(net: &Path) -> Option<(u64, u64)> {
    counters::softnet(&counters::read_text(&net.join("softnet_stat")).ok()?)
}

/// Lines of `arp` without its heading.
fn neighbours(net: &Path) -> Option<u64> {
    let text = counters::read_text(&net.join("arp")).ok()?;
    u64::try_from(text.lines().count().saturating_sub(1)).ok()
}

/// Gives the listeners of the last look what they had dropped at the first.
pub(super) fn match_drops(first: &[Listener], last: &mut [Listener]) {
    let before: HashMap<u32, u32> = first
        .iter()
        .filter(|l| l.inode != 0)
        .map(|l| (l.inode, l.drops))
        .collect();
    for listener in last {
        // One that was made meanwhile started from zero.
        listener.drops_first = Some(before.get(&listener.inode).copied().unwrap_or(0));
    }
}
