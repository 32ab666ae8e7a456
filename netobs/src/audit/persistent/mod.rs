//! The configuration that a reboot would apply: `sysctl.d` by the precedence of
//! `systemd-sysctl`, and `/etc/sysctl.conf` where it counts.
//!
//! Blind: settings that something else makes at boot or later (tuned, the kubelet,
//! a container runtime, `sysctl.*` on the kernel's command line, a script).

mod files;
mod parse;

use std::path::Path;

use glob::{MatchOptions, Pattern};

use files::PROCPS_FILE;
pub use parse::{Assignment, Complaint, normalize};

/// What one file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Path as the machine sees it.
    pub path: String,
    /// Its assignments, in order.
    pub assignments: Vec<Assignment>,
    /// Its first bad lines.
    pub complaints: Vec<Complaint>,
    /// How many bad lines it has.
    pub bad_lines: usize,
    /// True when it is empty or a link to `/dev/null`: it hides its namesakes.
    pub mask: bool,
    /// Why it could not be read.
    pub unreadable: Option<String>,
}

/// A setting's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The value.
    pub value: String,
    /// `path:line`.
    pub source: String,
    /// `path:line` and value of assignments that it overrides with another value.
    pub overridden: Vec<(String, String)>,
}

/// All persistent configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persistent {
    /// Files in the order in which they are applied.
    pub files: Vec<ConfigFile>,
    /// (hidden path, path that hides it).
    pub hidden: Vec<(String, String)>,
    /// `/etc/sysctl.conf`, when systemd does not read it through a link.
    pub procps_only: Option<ConfigFile>,
}

impl Persistent {
    /// Reads everything below `root`. Never fails: what cannot be read says so itself.
    #[must_use]
    pub fn load(root: &Path) -> Self {
        let (sources, hidden, directories) = files::discover(root);
        let files: Vec<ConfigFile> = sources.into_iter().chain(directories).map(config).collect();
        let procps = files::read(root, Path::new(PROCPS_FILE));
        let absent =
            matches!(&procps, files::Content::Unreadable(why) if why.contains("not there"));
        let procps = config(files::Source {
            path: PROCPS_FILE.to_owned(),
            content: procps,
        });
        // Debian links /etc/sysctl.d/99-sysctl.conf to it; the same lines then count.
        let linked = files
            .iter()
            .any(|f| f.path.ends_with("/99-sysctl.conf") && f.assignments == procps.assignments);
        let procps_only = (!absent && !linked && !procps.assignments.is_empty()).then_some(procps);
        Self {
            files,
            hidden,
            procps_only,
        }
    }

    /// What a reboot would set `key` to; `None` when no file says anything about it.
    ///
    /// An exact name beats every pattern, wherever it stands; among equals the last wins.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Persisted> {
        let mut exact: Vec<(String, Option<&str>)> = Vec::new();
        let mut patterns: Vec<(String, Option<&str>)> = Vec::new();
        for file in &self.files {
            for a in &file.assignments {
                let source = || format!("{}:{}", file.path, a.line);
                if a.key == key {
                    exact.push((source(), a.value.as_deref()));
                } else if is_pattern(&a.key) && matches(&a.key, key) {
                    patterns.push((source(), a.value.as_deref()));
                }
            }
        }
        let candidates = if exact.is_empty() { patterns } else { exact };
        let (last, before) = candidates.split_last()?;
        let value = last.1?;
        let overridden = before
            .iter()
            .filter_map(|(source, old)| Some((source.clone(), (*old)?.to_owned())))
            .filter(|(_, old)| old != value)
            .collect();
        Some(Persisted {
            value: value.to_owned(),
            source: last.0.clone(),
            overridden,
        })
    }

    /// Files that could not be read.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .chain(&self.procps_only)
            .filter_map(|f| Some((f.path.as_str(), f.unreadable.as_deref()?)))
    }
}

fn is_pattern(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

/// A `*` stays within one part of the name, as in `glob(3)` over `/proc/sys`.
fn matches(pattern: &str, key: &str) -> bool {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let path = |name: &str| {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect::<String>()
    };
    Pattern::new(&path(pattern)).is_ok_and(|p| p.matches_with(&path(key), options))
}

fn config(source: files::Source) -> ConfigFile {
    let (parsed, mask, unreadable) = match source.content {
        files::Content::Bytes(bytes) => (parse::parse(&bytes), false, None),
        files::Content::Mask => (parse::Parsed::default(), true, None),
        files::Content::Unreadable(why) => (parse::Parsed::default(), false, Some(why)),
    };
    ConfigFile {
        path: source.path,
        assignments: parsed.assignments,
        complaints: parsed.complaints,
        bad_lines: parsed.bad_lines,
        mask,
        unreadable,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::Persistent;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn value(root: &Path, key: &str) -> Option<(String, String)> {
        Persistent::load(root)
            .value(key)
            .map(|p| (p.value, p.source))
    }

    #[test]
    fn names_are_sorted_across_directories_and_the_last_wins() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(
            root,
            "/usr/lib/sysctl.d/50-a.conf",
            "net.core.somaxconn=1\n",
        );
        put(root, "/run/sysctl.d/60-b.conf", "net.core.somaxconn=2\n");
        put(root, "/etc/sysctl.d/40-c.conf", "net.core.somaxconn=3\n");
        put(
            root,
            "/etc/sysctl.d/99-not-a-conf.txt",
            "net.core.somaxconn=4\n",
        );
        let won = Persistent::load(root).value("net.core.somaxconn").unwrap();
        assert_eq!(
            (won.value.as_str(), won.source.as_str()),
            ("2", "/run/sysctl.d/60-b.conf:1")
        );
        assert_eq!(won.overridden.len(), 2);
    }

    #[test]
    fn a_namesake_in_a_stronger_directory_hides_and_an_empty_one_masks() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(
            root,
            "/usr/lib/sysctl.d/50-a.conf",
            "net.core.somaxconn=1\n",
        );
        put(root, "/usr/lib/sysctl.d/51-b.conf", "net.ipv4.tcp_sack=0\n");
        put(
            root,
            "/usr/lib/sysctl.d/52-c.conf",
            "net.ipv4.tcp_dsack=0\n",
        );
        put(root, "/etc/sysctl.d/50-a.conf", "net.core.somaxconn=2\n");
        put(root, "/etc/sysctl.d/51-b.conf", "");
        symlink("/dev/null", root.join("etc/sysctl.d/52-c.conf")).unwrap();
        assert_eq!(value(root, "net.core.somaxconn").unwrap().0, "2");
        assert_eq!(value(root, "net.ipv4.tcp_sack"), None);
        assert_eq!(value(root, "net.ipv4.tcp_dsack"), None);
        let loaded = Persistent::load(root);
        assert_eq!(loaded.hidden.len(), 3);
        assert_eq!(loaded.files.iter().filter(|f| f.mask).count(), 2);
        assert_eq!(loaded.unreadable().count(), 0);
    }

    #[test]
    fn an_exact_name_beats_patterns_and_a_minus_shields() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(
            root,
            "/etc/sysctl.d/10.conf",
            "net.ipv4.tcp_sack = 1\n-net.ipv4.tcp_ecn\nnet.*.tcp_dsack=7\nnet.*=5\n",
        );
        put(root, "/etc/sysctl.d/20.conf", "net.ipv4.tcp_* = 0\n");
        assert_eq!(value(root, "net.ipv4.tcp_sack").unwrap().0, "1");
        assert_eq!(value(root, "net.ipv4.tcp_ecn"), None);
        assert_eq!(value(root, "net.ipv4.tcp_dsack").unwrap().0, "0");
        assert_eq!(value(root, "net.core.somaxconn"), None);
    }

    #[test]
    fn links_stay_inside_the_root_and_bad_ones_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "/etc/sysctl.conf", "net.core.somaxconn=9\n");
        fs::create_dir_all(root.join("etc/sysctl.d")).unwrap();
        symlink("../sysctl.conf", root.join("etc/sysctl.d/99-sysctl.conf")).unwrap();
        symlink("/etc/sysctl.conf", root.join("etc/sysctl.d/98-x.conf")).unwrap();
        symlink("/nowhere", root.join("etc/sysctl.d/10-gone.conf")).unwrap();
        symlink("11-loop.conf", root.join("etc/sysctl.d/11-loop.conf")).unwrap();
        fs::create_dir(root.join("etc/sysctl.d/12-dir.conf")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        put(root, "/usr/lib/sysctl.d/50.conf", "net.ipv4.tcp_sack=1\n");
        let loaded = Persistent::load(root);
        let won = loaded.value("net.core.somaxconn").unwrap();
        assert_eq!(won.source, "/etc/sysctl.d/99-sysctl.conf:1");
        assert_eq!(loaded.procps_only, None);
        assert_eq!(loaded.unreadable().count(), 3, "{:?}", loaded.files);
        assert!(loaded.hidden.is_empty(), "{:?}", loaded.hidden);
    }

    #[test]
    fn without_the_link_sysctl_conf_is_for_procps_only() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "/etc/sysctl.conf", "net.core.somaxconn=9\n");
        let loaded = Persistent::load(dir.path());
        assert_eq!(loaded.value("net.core.somaxconn"), None);
        assert_eq!(loaded.procps_only.unwrap().assignments.len(), 1);
    }

    #[test]
    fn a_fifo_and_too_much_junk_do_not_hang_the_audit() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "/etc/sysctl.d/10-junk.conf", &"x".repeat(5 << 20));
        nix::unistd::mkfifo(
            &root.join("etc/sysctl.d/20-fifo.conf"),
            nix::sys::stat::Mode::S_IRUSR,
        )
        .unwrap();
        assert_eq!(Persistent::load(root).unreadable().count(), 2);
    }
}
