//! The TOML file as a [`Layer`].

use std::{
    fmt::Display,
    fs::File,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    BtfSource, Error, Given, KeepCapabilities, Layer, LogFormat, LogLevel, MAX_LABEL_SETS, Origin,
    parse_age, parse_btf, parse_listen_address, parse_size, parse_telemetry_path, targets,
};

/// Far more than a configuration of every key; a guard against a wrong file name.
const LIMIT_BYTES: usize = 1 << 20;

/// Tables and their keys: what an unknown one is compared with. A test holds it against the types
/// below.
pub(super) const KEYS: [(&str, &[&str]); 9] = [
    ("web", &["listen_address", "telemetry_path", "config_file"]),
    ("log", &["level", "format"]),
    ("probes", &["enable", "disable", "btf"]),
    ("limits", &["max_label_sets"]),
    ("recorder", &["path", "size", "age"]),
    ("hardening", &["keep_capabilities", "seccomp"]),
    ("kubernetes", &["cri_socket", "pods", "node"]),
    ("audit", &["ignore"]),
    ("probe", targets::PROBE_KEYS),
];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    web: Web,
    log: Log,
    probes: Probes,
    limits: Limits,
    recorder: Recorder,
    hardening: Hardening,
    kubernetes: Kubernetes,
    audit: Audit,
    probe: targets::Table,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Web {
    listen_address: Option<Spanned<Vec<Spanned<String>>>>,
    telemetry_path: Option<Spanned<String>>,
    config_file: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Log {
    level: Option<LogLevel>,
    format: Option<LogFormat>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Probes {
    enable: Option<Vec<Spanned<String>>>,
    disable: Option<Vec<Spanned<String>>>,
    btf: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Limits {
    max_label_sets: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Recorder {
    path: Option<Spanned<String>>,
    size: Option<Spanned<Number>>,
    age: Option<Spanned<String>>,
}

/// A number, or one with a unit as text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number or a text")]
enum Number {
    Plain(i64),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Hardening {
    keep_capabilities: Option<KeepCapabilities>,
    seccomp: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Kubernetes {
    cri_socket: Option<Spanned<String>>,
    pods: Option<bool>,
    node: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Audit {
    ignore: Option<Vec<Spanned<String>>>,
}

/// Reads and checks the file at `path`.
pub(super) fn read(path: &Path) -> Result<Layer, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LIMIT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > LIMIT_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit: LIMIT_BYTES,
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        Error::NotText {
            origin: Origin::in_file(path, &text, good),
        }
    })?;
    Source { path, text: &text }.layer()
}

/// A file's text, which turns offsets into places.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn at(&self, offset: usize) -> Origin {
        Origin::in_file(self.path, self.text, offset)
    }

    fn malformed(&self, error: &toml::de::Error, key: Option<String>) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        // The parser's longer messages go over several lines; a log line is one.
        let message = error
            .message()
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(", ");
        // The parser speaks of Rust's types.
        let message = match message.rsplit_once("expected ") {
            Some((before, "i64" | "u64" | "u32" | "u16" | "usize")) => {
                format!("{before}expected a whole number")
            }
            Some((before, "f64")) => format!("{before}expected a number"),
            _ => message,
        };
        Error::Malformed {
            origin: self.at(offset),
            key,
            message,
        }
    }

    fn refused(&self, key: &'static str, at: usize, why: &dyn Display) -> Error {
        Error::Value {
            origin: self.at(at),
            key,
            message: why.to_string(),
        }
    }

    fn layer(&self) -> Result<Layer, Error> {
        let document = DeTable::parse(self.text).map_err(|error| self.malformed(&error, None))?;
        self.check_keys(document.get_ref())?;
        let Document {
            web,
            log,
            probes,
            limits,
            recorder,
            hardening,
            kubernetes,
            audit,
            probe,
        } = toml::from_str(self.text).map_err(|error| {
            let key = error
                .span()
                .and_then(|span| key_at(document.get_ref(), span.start));
            self.malformed(&error, key)
        })?;
        Ok(Layer {
            listen_addresses: web
                .listen_address
                .map(|list| self.addresses(list))
                .transpose()?,
            telemetry_path: web
                .telemetry_path
                .map(|path| self.telemetry_path(&path))
                .transpose()?,
            web_config_file: web
                .config_file
                .map(|path| self.file_name("web.config_file", &path))
                .transpose()?,
            log_level: log.level,
            log_format: log.format,
            enable: probes.enable.map(|names| self.names(names)),
            disable: probes.disable.map(|names| self.names(names)),
            btf: probes.btf.map(|btf| self.btf(&btf)).transpose()?,
            max_label_sets: limits
                .max_label_sets
                .map(|n| self.label_sets(&n))
                .transpose()?,
            recorder_path: recorder
                .path
                .map(|path| self.recorder_path(&path))
                .transpose()?,
            recorder_size: recorder
                .size
                .map(|size| self.recorder_size(&size))
                .transpose()?,
            recorder_age: recorder
                .age
                .map(|age| self.recorder_age(&age))
                .transpose()?,
            keep_capabilities: hardening.keep_capabilities,
            seccomp: hardening.seccomp,
            cri_socket: kubernetes
                .cri_socket
                .map(|path| self.file_name("kubernetes.cri_socket", &path))
                .transpose()?,
            pods: kubernetes.pods,
            node: kubernetes.node,
            audit_ignore: audit.ignore.map(|ids| self.names(ids)),
            path_probes: Some(targets::read(probe, |key, at, why| {
                self.refused(key, at, why)
            })?),
        })
    }

    /// Finds the first unknown table or key in the order of the file.
    fn check_keys(&self, document: &DeTable<'_>) -> Result<(), Error> {
        let tables = KEYS.map(|(table, _)| table);
        let mut unknown: Vec<(usize, &'static str, &str, &[&str])> = Vec::new();
        for (name, value) in document {
            let known = KEYS
                .iter()
                .find(|(table, _)| *table == name.get_ref().as_ref());
            match (known, value.get_ref()) {
                (Some((_, keys)), DeValue::Table(table)) => {
                    let strange = table
                        .keys()
                        .filter(|key| !keys.contains(&key.get_ref().as_ref()));
                    unknown.extend(
                        strange.map(|key| (key.span().start, "key", key.get_ref().as_ref(), *keys)),
                    );
                    if let Some(DeValue::Array(list)) = table.get("target").map(Spanned::get_ref) {
                        let strange = unknown_in_targets(list);
                        unknown.extend(
                            strange.map(|(at, name)| (at, "key", name, targets::TARGET_KEYS)),
                        );
                    }
                }
                (Some(_), _) => {} // A value where a table belongs: the types will say so.
                (None, DeValue::Table(_)) => {
                    unknown.push((name.span().start, "table", name.get_ref(), &tables));
                }
                (None, _) => unknown.push((name.span().start, "key", name.get_ref(), &tables)),
            }
        }
        match unknown.into_iter().min_by_key(|(at, ..)| *at) {
            Some((at, kind, name, known)) => Err(Error::unknown(self.at(at), kind, name, known)),
            None => Ok(()),
        }
    }

    fn addresses(
        &self,
        list: Spanned<Vec<Spanned<String>>>,
    ) -> Result<Vec<Given<SocketAddr>>, Error> {
        const KEY: &str = "web.listen_address";
        if list.get_ref().is_empty() {
            let why = "the list is empty; leave the key out for the default";
            return Err(self.refused(KEY, list.span().start, &why));
        }
        let read = |text: Spanned<String>| {
            let at = text.span().start;
            let value = parse_listen_address(text.get_ref());
            let value = value.map_err(|why| self.refused(KEY, at, &why))?;
            Ok(Given {
                value,
                origin: self.at(at),
            })
        };
        list.into_inner().into_iter().map(read).collect()
    }

    fn telemetry_path(&self, path: &Spanned<String>) -> Result<String, Error> {
        parse_telemetry_path(path.get_ref())
            .map_err(|why| self.refused("web.telemetry_path", path.span().start, &why))
    }

    /// Relative to the working directory, as the flag's is.
    fn file_name(&self, key: &'static str, path: &Spanned<String>) -> Result<PathBuf, Error> {
        if path.get_ref().is_empty() {
            let why = "expected a file name; leave the key out for none";
            return Err(self.refused(key, path.span().start, &why));
        }
        Ok(PathBuf::from(path.get_ref()))
    }

    /// Relative to the working directory, as the flag's is.
    fn recorder_path(&self, path: &Spanned<String>) -> Result<PathBuf, Error> {
        if path.get_ref().is_empty() {
            let why = "expected a folder; leave the key out for none";
            return Err(self.refused("recorder.path", path.span().start, &why));
        }
        Ok(PathBuf::from(path.get_ref()))
    }

    fn recorder_size(&self, size: &Spanned<Number>) -> Result<u64, Error> {
        let parsed = match size.get_ref() {
            Number::Plain(number) => parse_size(&number.to_string()),
            Number::Text(text) => parse_size(text),
        };
        parsed.map_err(|why| self.refused("recorder.size", size.span().start, &why))
    }

    fn recorder_age(&self, age: &Spanned<String>) -> Result<Duration, Error> {
        parse_age(age.get_ref()).map_err(|why| self.refused("recorder.age", age.span().start, &why))
    }

    fn names(&self, names: Vec<Spanned<String>>) -> Vec<Given<String>> {
        let given = |name: Spanned<String>| Given {
            origin: self.at(name.span().start),
            value: name.into_inner(),
        };
        names.into_iter().map(given).collect()
    }

    fn btf(&self, btf: &Spanned<String>) -> Result<BtfSource, Error> {
        if btf.get_ref().is_empty() {
            let why = "expected a file name or \"none\"";
            return Err(self.refused("probes.btf", btf.span().start, &why));
        }
        let Ok(source) = parse_btf(btf.get_ref());
        Ok(source)
    }

    fn label_sets(&self, number: &Spanned<i64>) -> Result<usize, Error> {
        match usize::try_from(*number.get_ref()) {
            Ok(number @ 1..=MAX_LABEL_SETS) => Ok(number),
            _ => {
                let why = format!("expected a number from 1 to {MAX_LABEL_SETS}");
                Err(self.refused("limits.max_label_sets", number.span().start, &why))
            }
        }
    }
}

/// The key, dotted, whose value begins at or holds the byte `offset`.
fn key_at(document: &DeTable<'_>, offset: usize) -> Option<String> {
    document.iter().find_map(|(table, value)| {
        let inside = match value.get_ref() {
            DeValue::Table(keys) => keys.iter().find_map(|(key, value)| {
                value
                    .span()
                    .contains(&offset)
                    .then(|| format!("{}.{}", table.get_ref(), key.get_ref()))
            }),
            _ => None,
        };
        inside.or_else(|| {
            value
                .span()
                .contains(&offset)
                .then(|| table.get_ref().to_string())
        })
    })
}

/// Keys of `[[probe.target]]` that are not known.
fn unknown_in_targets<'a>(list: &'a DeArray<'_>) -> impl Iterator<Item = (usize, &'a str)> {
    list.iter()
        .filter_map(|target| match target.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        })
        .flat_map(|table| table.keys())
        .filter(|key| !targets::TARGET_KEYS.contains(&key.get_ref().as_ref()))
        .map(|key| (key.span().start, key.get_ref().as_ref()))
}

/// Reads `text` as if it stood in a file called `netobs.toml`.
#[cfg(test)]
pub(super) fn parse(text: &str) -> Result<Layer, Error> {
    Source {
        path: Path::new("netobs.toml"),
        text,
    }
    .layer()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key table and the types are two lists; serde knows the second one.
    #[test]
    fn the_key_table_agrees_with_the_types() {
        let message = |text: &str| toml::from_str::<Document>(text).err().unwrap().to_string();
        let names = |message: &str| {
            let list = message.rsplit_once("expected").unwrap().1.to_owned();
            list.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&message("x = 1")), KEYS.map(|(table, _)| table));
        for (table, keys) in KEYS {
            assert_eq!(
                names(&message(&format!("[{table}]\nx = 1"))),
                keys,
                "{table}"
            );
        }
        let target = "[[probe.target]]\ntarget = 'a:1'\nx = 1";
        assert_eq!(names(&message(target)), targets::TARGET_KEYS);
    }
}
