//! Which Debian mirror to use: the one that this machine's package manager uses.

use std::fs;
use std::path::Path;

use super::spec::Archive;

/// Used when the machine is configured for no Debian mirror, as an Ubuntu machine is.
const DEFAULT_MAIN: &str = "http://deb.debian.org/debian";
/// The security archive's default.
const DEFAULT_SECURITY: &str = "http://deb.debian.org/debian-security";
/// Where suites go when they leave the mirrors.
const DEFAULT_OLD: &str = "http://archive.debian.org/debian";

/// Roots of the archives, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    main: String,
    security: String,
    old: String,
}

impl Mirrors {
    /// `NETOBS_DEBIAN_MIRROR` and `NETOBS_DEBIAN_SECURITY_MIRROR`, else what apt is configured
    /// for, else the public ones.
    pub(crate) fn find() -> Self {
        let uris = configured(Path::new("/etc/apt"));
        let choose = |variable: &str, name: &str, default: &str| {
            std::env::var(variable)
                .ok()
                .filter(|uri| is_http(uri))
                .or_else(|| uris.iter().find(|uri| is_archive(uri, name)).cloned())
                .unwrap_or_else(|| default.to_owned())
                .trim_end_matches('/')
                .to_owned()
        };
        Self {
            main: choose("NETOBS_DEBIAN_MIRROR", "debian", DEFAULT_MAIN),
            security: choose(
                "NETOBS_DEBIAN_SECURITY_MIRROR",
                "debian-security",
                DEFAULT_SECURITY,
            ),
            old: choose(
                "NETOBS_DEBIAN_ARCHIVE",
                "debian-archive/debian",
                DEFAULT_OLD,
            ),
        }
    }

    /// The root of an archive.
    pub(crate) fn root(&self, archive: Archive) -> &str {
        match archive {
            Archive::Main => &self.main,
            Archive::Security => &self.security,
            Archive::Old => &self.old,
        }
    }
}

fn is_http(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// Whether the URI's path is that of a Debian archive of this name, directly below the host.
fn is_archive(uri: &str, name: &str) -> bool {
    uri.split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .is_some_and(|(_, path)| path.trim_end_matches('/') == name)
}

/// All HTTP URIs in apt's source files, in the order of the files' names.
fn configured(apt: &Path) -> Vec<String> {
    let mut files = vec![apt.join("sources.list")];
    let folder = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten();
    let mut more: Vec<_> = folder.map(|entry| entry.path()).collect();
    more.sort();
    files.extend(more);
    files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => Some(one_line_uris(&text)),
                "sources" => Some(paragraph_uris(&text)),
                _ => None,
            }
        })
        .flatten()
        .filter(|uri| is_http(uri))
        .collect()
}

/// URIs of `deb [options] uri suite components` lines.
fn one_line_uris(text: &str) -> Vec<String> {
    let uri = |line: &str| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        rest.split_ascii_whitespace().next().map(str::to_owned)
    };
    text.lines().filter_map(uri).collect()
}

/// URIs of enabled paragraphs for binary packages.
fn paragraph_uris(text: &str) -> Vec<String> {
    let mut uris = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            paragraph.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let enabled = field("Enabled").is_none_or(|value| !value.eq_ignore_ascii_case("no"));
        let binary = field("Types").is_some_and(|kinds| kinds.split(' ').any(|kind| kind == "deb"));
        if enabled && binary {
            let value = field("URIs").unwrap_or_default();
            uris.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
    }
    uris
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(
            folder.path().join("sources.list"),
            "# deb http://no/debian x main\ndeb-src http://no/debian x main\n\
             deb [arch=amd64 signed-by=/k] http://one/debian/ bookworm main\n\
             deb cdrom:[x]/ bookworm main\n",
        )
        .unwrap();
        fs::write(
            parts.join("b.sources"),
            "Types: deb-src\nURIs: http://no/debian\n\nTypes: deb deb-src\n# a comment\n\
             URIs: http://two/debian-security http://three/x\n\nEnabled: no\nTypes: deb\n\
             URIs: http://no/debian\n",
        )
        .unwrap();
        fs::write(
            parts.join("c.list.disabled"),
            "deb http://no/debian x main\n",
        )
        .unwrap();
        assert_eq!(
            configured(folder.path()),
            [
                "http://one/debian/",
                "http://two/debian-security",
                "http://three/x"
            ]
        );
    }

    #[test]
    fn archives_of_other_distributions_are_not_taken() {
        assert!(is_archive("http://host:3142/debian/", "debian"));
        for other in [
            "http://host/ubuntu",
            "http://host/debian-security",
            "http://host/x/debian",
            "http://h",
        ] {
            assert!(!is_archive(other, "debian"), "{other}");
        }
    }
}
