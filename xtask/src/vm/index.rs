//! Reads what a Debian archive says about itself: `InRelease` and `Packages`.

use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The longest line that an index may have. Lists of provided packages have been seen to take
/// 75 KiB.
const LINE_LIMIT: u64 = 1 << 20;

/// A package, as far as it is needed to download it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Name.
    pub(crate) name: String,
    /// Version in Debian's order.
    pub(crate) version: String,
    /// Path below the archive's root.
    pub(crate) filename: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Hash of the file, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

impl Package {
    fn is_sound(&self) -> bool {
        let path_ok = !self.filename.starts_with('/')
            && self
                .filename
                .split('/')
                .all(|part| !part.is_empty() && part != "..");
        is_sha256(&self.sha256) && path_ok && self.size > 0 && !self.version.is_empty()
    }
}

/// Whether it is 64 lower-case hexadecimal digits: it is used as a file name.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The packages of a `Packages` file whose names are wanted. Only those are kept in memory.
///
/// # Errors
/// When the source cannot be read, a line is too long, or a wanted package lacks a field.
pub(crate) fn packages(
    source: &mut impl BufRead,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<Package>> {
    let mut found = Vec::new();
    let mut current: Option<Package> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = source
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)
            .context("failed to read the package index")?;
        if line.len() as u64 == LINE_LIMIT {
            bail!("a line of the package index is longer than {LINE_LIMIT} bytes");
        }
        if line.trim_ascii_end().is_empty() {
            // The end of a paragraph, or of the file.
            if let Some(package) = current.take() {
                if !package.is_sound() {
                    bail!("the package index describes {} incompletely", package.name);
                }
                found.push(package);
            }
            if length == 0 {
                return Ok(found);
            }
            continue;
        }
        // Most of the index is about packages that are not wanted.
        if current.is_none() && !line.starts_with(b"Package:") {
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let Some((field, value)) = text.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match (field, &mut current) {
            ("Package", _) => {
                current = wanted(value).then(|| Package {
                    name: value.to_owned(),
                    ..Package::default()
                });
            }
            ("Version", Some(package)) => value.clone_into(&mut package.version),
            ("Filename", Some(package)) => value.clone_into(&mut package.filename),
            ("Size", Some(package)) => package.size = value.parse().unwrap_or(0),
            ("SHA256", Some(package)) => value.clone_into(&mut package.sha256),
            _ => {}
        }
    }
}

/// The hash that a release file gives for `path`.
pub(crate) fn release_sha256(release: &str, path: &str) -> Option<String> {
    release
        .lines()
        .skip_while(|line| *line != "SHA256:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let sha256 = words.next()?;
            let _size = words.next()?;
            (words.next()? == path && is_sha256(sha256)).then(|| sha256.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "efe19f605b6f54a8352e68d85a629abb2d30b72a085faef603a9152590baa791";

    fn paragraph(name: &str) -> String {
        format!(
            "Package: {name}\nSource: linux\nVersion: 6.1.176-1\nDescription: a\n Version: 9\n\
             Filename: pool/main/l/{name}_1_amd64.deb\nSize: 26484304\nSHA256: {HASH}\n"
        )
    }

    #[test]
    fn keeps_the_wanted_packages_only() {
        let text = format!(
            "{}\n{}\n{}",
            paragraph("a"),
            paragraph("linux-b"),
            paragraph("linux-c")
        );
        let found = packages(&mut text.as_bytes(), |name| name.starts_with("linux-")).unwrap();
        assert_eq!(
            found.iter().map(|p| &*p.name).collect::<Vec<_>>(),
            ["linux-b", "linux-c"]
        );
        assert_eq!(
            found[0],
            Package {
                name: "linux-b".into(),
                version: "6.1.176-1".into(),
                filename: "pool/main/l/linux-b_1_amd64.deb".into(),
                size: 26_484_304,
                sha256: HASH.into(),
            }
        );
    }

    #[test]
    fn refuses_incomplete_and_dangerous_descriptions() {
        let whole = paragraph("x");
        for (from, to) in [
            (HASH, "../../etc/passwd"),
            ("pool/main", "../main"),
            ("pool/main", "/main"),
            ("Size: 26484304", "Size: many"),
            ("\nVersion: 6.1.176-1", ""),
        ] {
            let text = whole.replacen(from, to, 1);
            assert_ne!(text, whole);
            assert!(packages(&mut text.as_bytes(), |_| true).is_err(), "{from}");
        }
    }

    #[test]
    fn refuses_endless_lines() {
        let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(packages(&mut endless, |_| true).is_err());
    }

    #[test]
    fn finds_a_hash_in_the_right_section() {
        let other = HASH.replace('e', "1");
        let release = format!(
            "Origin: Debian\nMD5Sum:\n {other} 12 main/Packages.xz\nSHA256:\n {other} 11 main/Packages\n \
             {HASH} 12 main/Packages.xz\n"
        );
        assert_eq!(
            release_sha256(&release, "main/Packages.xz").as_deref(),
            Some(HASH)
        );
        assert_eq!(release_sha256(&release, "main/Packages.gz"), None);
        assert_eq!(release_sha256("MD5Sum:\n", "main/Packages.xz"), None);
    }
}
