//! What this kernel has, by evidence: a test about a thing that is not there ends early, and says so.
//!
//! That is no skip in the sense of [`crate::require`]: nothing is wrong with the machine, and the
//! answer never comes from the kernel's version.

use std::{fs::OpenOptions, io::Write as _, path::Path};

use crate::{listener, netns::Ns, witness::Counters};

/// Something that this kernel does not have, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent(String);

/// Ends a test function early, and says why, when this kernel lacks what it is about.
///
/// ```no_run
/// testbed::only_where!(testbed::feature::mptcp());
/// ```
#[macro_export]
macro_rules! only_where {
    ($($feature:expr),+ $(,)?) => {
        $(if let Err(absent) = $feature {
            $crate::feature::report(&absent);
            return;
        })+
    };
}

/// MPTCP sockets can be made.
///
/// # Errors
/// With what `socket()` says.
pub fn mptcp() -> Result<(), Absent> {
    listener::mptcp_socket()
        .map(drop)
        .map_err(|error| Absent(format!("socket(IPPROTO_MPTCP) says: {error}")))
}

/// This machine is a guest that was made for the tests: what belongs to the whole machine, such as its
/// clock, may be changed.
///
/// # Errors
/// When its first process is not the guests' own.
pub fn guest() -> Result<(), Absent> {
    match std::fs::read_link("/proc/1/exe") {
        Ok(first) if first == Path::new("/init") && Path::new("/vm/payload").exists() => Ok(()),
        _ => Err(Absent("not a guest of the kernel matrix".to_owned())),
    }
}

/// A setting is there in a namespace.
///
/// # Errors
/// When it cannot be read.
pub fn setting(ns: &Ns, key: &str) -> Result<(), Absent> {
    ns.read_sysctl(key)
        .map(drop)
        .map_err(|error| Absent(format!("{error:#}")))
}

/// The kernel keeps a counter.
///
/// # Errors
/// When it is not in /proc/net/netstat or /proc/net/snmp.
pub fn counter(ns: &Ns, group: &str, name: &str) -> Result<(), Absent> {
    match Counters::read_in(ns) {
        Ok(counters) if counters.find(group, name).is_some() => Ok(()),
        Ok(_) => Err(Absent(format!("the kernel counts no {group} {name}"))),
        Err(error) => Err(Absent(format!("{error:#}"))),
    }
}

/// The kernel tells how tracepoints' records are laid out, at this mount of a tracefs, and the
/// record of one has a field.
///
/// # Errors
/// When the record cannot be read, or has no such field.
pub fn tracepoint_field(
    tracefs: &Path,
    category: &str,
    name: &str,
    field: &str,
) -> Result<(), Absent> {
    let path = tracefs
        .join("events")
        .join(category)
        .join(name)
        .join("format");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Absent(format!("failed to read {}: {error}", path.display())))?;
    // `field:int err; offset:76; size:4; signed:1;`
    let declared = |line: &str| {
        let declaration = line.trim().strip_prefix("field:")?.split(';').next()?;
        declaration
            .split([' ', '*', '['])
            .rfind(|word| !word.ends_with(']'))
            .map(str::to_owned)
    };
    if text
        .lines()
        .filter_map(declared)
        .any(|found| found == field)
    {
        Ok(())
    } else {
        Err(Absent(format!("{category}:{name} has no field {field}")))
    }
}

/// Says that the running test has nothing to test on this kernel: on standard error, and in the
/// file that `NETOBS_REPORT` names, from where it gets into the table of the kernel matrix.
pub fn report(absent: &Absent) {
    let thread = std::thread::current();
    let line = format!("ABSENT {}: {}", thread.name().unwrap_or("test"), absent.0);
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("NETOBS_REPORT") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        // What cannot be reported was said above.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}
