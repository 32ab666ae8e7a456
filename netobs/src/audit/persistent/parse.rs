//! One sysctl.d file: lines to assignments, by the rules of `sysctl.d(5)`.

/// Longest line that is read; no setting of the kernel needs more.
const MAX_LINE_BYTES: usize = 4096;
/// Complaints kept for one file; the rest are counted.
const MAX_COMPLAINTS: usize = 20;
/// Assignments kept for one file.
const MAX_ASSIGNMENTS: usize = 10_000;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The setting's name with dots, or a pattern.
    pub key: String,
    /// The value; `None` for a line that only shields a key from patterns (`-key`).
    pub value: Option<String>,
    /// Line number, from 1.
    pub line: usize,
}

/// A line that makes no sense. Its text is never kept: it might be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Assignments, in order.
    pub(super) assignments: Vec<Assignment>,
    /// The first bad lines.
    pub(super) complaints: Vec<Complaint>,
    /// How many bad lines there were.
    pub(super) bad_lines: usize,
}

/// Reads a file's content. Never fails: what cannot be read is a complaint.
#[must_use]
pub(super) fn parse(content: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, line) in content.split(|b| *b == b'\n').enumerate() {
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((key, value))) if parsed.assignments.len() < MAX_ASSIGNMENTS => {
                parsed.assignments.push(Assignment {
                    key,
                    value,
                    line: index + 1,
                });
            }
            Ok(Some(_)) => parsed.complain(index + 1, "more assignments than are read"),
            Err(what) => parsed.complain(index + 1, what),
        }
    }
    parsed
}

impl Parsed {
    fn complain(&mut self, line: usize, what: &'static str) {
        self.bad_lines += 1;
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(Complaint { line, what });
        }
    }
}

type Pair = (String, Option<String>);

fn parse_line(line: &[u8]) -> Result<Option<Pair>, &'static str> {
    if line.len() > MAX_LINE_BYTES {
        return Err("line too long");
    }
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8")?.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (left, value) = match line.split_once('=') {
        Some((left, value)) => (left.trim(), Some(value.trim())),
        None => (line, None),
    };
    // A leading minus makes a failure to set it harmless, or shields the key from patterns.
    let (minus, name) = match left.strip_prefix('-') {
        Some(rest) => (true, rest.trim()),
        None => (false, left),
    };
    if value.is_none() && !minus {
        return Err("no '=' in it");
    }
    if name.is_empty() {
        return Err("no setting's name before the '='");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("white space or control characters in the setting's name");
    }
    if value.is_some_and(|v| v.chars().any(|c| c.is_control() && c != '\t')) {
        return Err("control characters in the value");
    }
    let key = normalize(name);
    if key
        .split('.')
        .any(|part| part.is_empty() || part == "/" || part.starts_with('/'))
    {
        return Err("an empty part in the setting's name");
    }
    let value = value.map(|v| {
        if is_secret(&key) {
            redact(v)
        } else {
            squeeze(v)
        }
    });
    Ok(Some((key, value)))
}

/// Gives a name its dotted form. Whichever of `.` and `/` comes first separates; after a
/// slash, dots belong to names (`net/ipv4/conf/eth0.100/rp_filter`), after a dot the two
/// are swapped.
#[must_use]
pub fn normalize(name: &str) -> String {
    let name = name.trim_start_matches('/');
    match name.find(['.', '/']) {
        Some(at) if name.get(at..=at) == Some("/") => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// True for settings whose value must never be shown.
#[must_use]
pub(super) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    last.contains("secret") || last.ends_with("_key") || last.ends_with("_seed")
}

fn redact(value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        "(hidden)".to_owned()
    }
}

/// One space between words, so that values compare as the kernel reads them.
fn squeeze(value: &str) -> String {
    let words: Vec<&str> = value.split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{normalize, parse};

    fn one(line: &str) -> Option<(String, Option<String>)> {
        let mut parsed = parse(line.as_bytes());
        parsed.assignments.pop().map(|a| (a.key, a.value))
    }

    #[test]
    fn lines_are_read_as_systemd_reads_them() {
        let set = |k: &str, v: &str| Some((k.to_owned(), Some(v.to_owned())));
        for (line, want) in [
            (
                "net.core.somaxconn = 1024",
                set("net.core.somaxconn", "1024"),
            ),
            ("net/core/somaxconn=1024", set("net.core.somaxconn", "1024")),
            (
                "/net/core/somaxconn=1024",
                set("net.core.somaxconn", "1024"),
            ),
            ("  -net.core.somaxconn=7  ", set("net.core.somaxconn", "7")),
            (
                "net.ipv4.tcp_rmem =  4096\t87380   6291456",
                set("net.ipv4.tcp_rmem", "4096 87380 6291456"),
            ),
            (
                "net/ipv4/conf/eth0.100/rp_filter=1",
                set("net.ipv4.conf.eth0/100.rp_filter", "1"),
            ),
            (
                "net.ipv4.conf.eth0/100.rp_filter=1",
                set("net.ipv4.conf.eth0/100.rp_filter", "1"),
            ),
            ("net.ipv4.tcp_*=1", set("net.ipv4.tcp_*", "1")),
            ("key.a = b = c", set("key.a", "b = c")),
            ("a.b=", set("a.b", "")),
            (
                "-net.ipv4.tcp_sack",
                Some(("net.ipv4.tcp_sack".to_owned(), None)),
            ),
            ("# a.b=1", None),
            ("; a.b=1", None),
            ("", None),
        ] {
            let parsed = parse(line.as_bytes());
            assert_eq!(parsed.bad_lines, 0, "{line:?}");
            assert_eq!(one(line), want, "{line:?}");
        }
    }

    #[test]
    fn bad_lines_are_counted_and_never_kept() {
        for line in [
            "net.core.somaxconn",
            "= 3",
            "-",
            "-=3",
            "a b = 1",
            "a..b=1",
            ".=1",
            "a.=1",
        ] {
            let parsed = parse(line.as_bytes());
            assert_eq!(
                (parsed.assignments.len(), parsed.bad_lines),
                (0, 1),
                "{line:?}"
            );
        }
        assert_eq!(parse(b"a.b=\xff\xfe").bad_lines, 1);
        assert_eq!(parse(b"a.b=\x1b[2J").bad_lines, 1);
        let junk = vec![b'x'; 1 << 20];
        assert_eq!(parse(&junk).bad_lines, 1);
        let junk = b"junk\n".repeat(200_000);
        let parsed = parse(&junk);
        assert_eq!((parsed.bad_lines, parsed.complaints.len()), (200_000, 20));
    }

    #[test]
    fn secrets_are_hidden_while_reading() {
        for line in [
            "net.ipv4.tcp_fastopen_key = 0badc0de-0badc0de-0badc0de-0badc0de",
            "net/ipv6/conf/all/stable_secret=0badc0de",
        ] {
            assert!(!format!("{:?}", parse(line.as_bytes())).contains("c0de"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(content in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let parsed = parse(&content);
            let lines = content.split(|b| *b == b'\n').count();
            prop_assert!(parsed.assignments.len() + parsed.bad_lines <= lines);
            for a in &parsed.assignments {
                prop_assert!(!a.key.is_empty());
                prop_assert!(!a.key.chars().any(char::is_control));
            }
        }

        #[test]
        fn both_spellings_are_one_name(parts in proptest::collection::vec("[a-z0-9_]{1,8}", 1..6)) {
            prop_assert_eq!(normalize(&parts.join(".")), normalize(&parts.join("/")));
        }
    }
}
