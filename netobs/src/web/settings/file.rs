//! The YAML text as [`Settings`].

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use hyper::header::{HeaderName, HeaderValue};
use rustls::{CipherSuite, NamedGroup};

use super::{
    ClientAuth, Hash, Place, Rate, Settings, SettingsError, Tls, duration,
    yaml::{self, At, Node, Refused, Spanned},
};

/// Far more than a file of every key needs; a guard against a wrong file name.
const LIMIT_BYTES: u64 = 256 << 10;
const USERS: usize = 1024;
/// A hash of this cost takes about two seconds to check; each further step doubles it.
const MOST_COST: u32 = 15;
/// bcrypt has none below.
const LEAST_COST: u32 = 4;

/// The header fields that the exporter-toolkit lets a file set, and the values of those that have
/// a closed list.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// Go's names of the TLS 1.2 suites that are supported.
const SUITES: [(&str, CipherSuite); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Go takes these names too, and ignores them: the suites of TLS 1.3 are always on.
const SUITES_13: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

#[derive(Default)]
struct Document {
    tls: Option<TlsPart>,
    http: HttpPart,
    users: BTreeMap<String, Spanned<String>>,
    rate: Option<RatePart>,
}

impl Document {
    fn read(text: &str) -> Result<Self, Refused> {
        let mut fields = yaml::parse(text)?.fields(&[
            "tls_server_config",
            "http_server_config",
            "basic_auth_users",
            "rate_limit",
        ])?;
        let http = fields.node("http_server_config");
        Ok(Self {
            tls: (fields.node("tls_server_config"))
                .map(TlsPart::read)
                .transpose()?,
            http: http.map(HttpPart::read).transpose()?.unwrap_or_default(),
            users: fields.texts("basic_auth_users")?,
            rate: fields.node("rate_limit").map(RatePart::read).transpose()?,
        })
    }
}

struct TlsPart {
    cert_file: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    client_ca_file: Option<Spanned<String>>,
    client_auth_type: Option<Spanned<String>>,
    client_allowed_sans: Option<Vec<Spanned<String>>>,
    min_version: Option<Spanned<String>>,
    max_version: Option<Spanned<String>>,
    cipher_suites: Option<Vec<Spanned<String>>>,
    curve_preferences: Option<Vec<Spanned<String>>>,
    prefer_server_cipher_suites: Option<bool>,
}

impl TlsPart {
    fn read(node: Node) -> Result<Self, Refused> {
        let mut fields = node.fields(&[
            "cert_file",
            "key_file",
            "client_ca_file",
            "client_auth_type",
            "client_allowed_sans",
            "min_version",
            "max_version",
            "cipher_suites",
            "curve_preferences",
            "prefer_server_cipher_suites",
        ])?;
        Ok(Self {
            cert_file: fields.text("cert_file")?,
            key_file: fields.text("key_file")?,
            client_ca_file: fields.text("client_ca_file")?,
            client_auth_type: fields.text("client_auth_type")?,
            client_allowed_sans: fields.list("client_allowed_sans")?,
            min_version: fields.text("min_version")?,
            max_version: fields.text("max_version")?,
            cipher_suites: fields.list("cipher_suites")?,
            curve_preferences: fields.list("curve_preferences")?,
            prefer_server_cipher_suites: fields.truth("prefer_server_cipher_suites")?,
        })
    }
}

#[derive(Default)]
struct HttpPart {
    http2: Option<bool>,
    headers: BTreeMap<String, Spanned<String>>,
}

impl HttpPart {
    fn read(node: Node) -> Result<Self, Refused> {
        let mut fields = node.fields(&["http2", "headers"])?;
        Ok(Self {
            http2: fields.truth("http2")?,
            headers: fields.texts("headers")?,
        })
    }
}

struct RatePart {
    interval: Option<Spanned<String>>,
    burst: Option<Spanned<u32>>,
}

impl RatePart {
    fn read(node: Node) -> Result<Self, Refused> {
        let mut fields = node.fields(&["interval", "burst"])?;
        Ok(Self {
            interval: fields.text("interval")?,
            burst: fields.number("burst")?,
        })
    }
}

/// Reads and checks the file at `path`.
pub(in crate::web) fn read(path: &Path) -> Result<Settings, SettingsError> {
    let what = "the web configuration file";
    let bytes = bytes(what, path, LIMIT_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| SettingsError::Read {
        what,
        path: path.to_owned(),
        source: io::Error::other("the file is not UTF-8 text"),
    })?;
    Source { path }.settings(&text)
}

/// The bytes of a file that may not be larger than `limit`; `what` it is, for messages.
pub(in crate::web) fn bytes(
    what: &'static str,
    path: &Path,
    limit: u64,
) -> Result<Vec<u8>, SettingsError> {
    let failed = |source| SettingsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => SettingsError::Closed {
            what,
            path: path.to_owned(),
            uid: nix::unistd::geteuid().as_raw(),
            source,
        },
        _ => failed(source),
    })?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::other(format!(
            "larger than {limit} bytes"
        ))));
    }
    Ok(bytes)
}

/// Where the text comes from, for messages and for relative paths.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
}

impl Source<'_> {
    fn place(&self, at: At) -> Place {
        Place::new(self.path, Some(at))
    }

    fn refused<T>(
        &self,
        key: &'static str,
        value: &Spanned<T>,
        why: impl Display,
    ) -> SettingsError {
        SettingsError::Value {
            place: self.place(value.defined),
            key,
            message: why.to_string(),
        }
    }

    fn malformed(&self, refused: Refused) -> SettingsError {
        SettingsError::Malformed {
            place: Place::new(self.path, refused.at),
            message: refused.message,
        }
    }

    /// Reads `text`.
    pub(super) fn settings(&self, text: &str) -> Result<Settings, SettingsError> {
        // An empty file means no TLS and no users, as it does to the exporter-toolkit.
        let document = Document::read(text).map_err(|refused| self.malformed(refused))?;
        if document.http.http2 == Some(true) {
            tracing::debug!(
                "http2 is on in the web configuration; HTTP/1.1 is spoken all the same"
            );
        }
        let (tls, rate) = (document.tls.as_ref(), document.rate.as_ref());
        Ok(Settings {
            path: self.path.to_owned(),
            tls: tls.map(|part| self.tls(part)).transpose()?.flatten(),
            headers: self.headers(&document.http.headers)?,
            users: self.users(&document.users)?,
            rate: rate.map(|part| self.rate(part)).transpose()?.flatten(),
        })
    }

    /// A path in the file is relative to the file.
    fn resolve(&self, path: &Spanned<String>) -> PathBuf {
        self.path
            .parent()
            .unwrap_or(Path::new(""))
            .join(&path.value)
    }

    fn tls(&self, part: &TlsPart) -> Result<Option<Tls>, SettingsError> {
        fn given(path: Option<&Spanned<String>>) -> Option<&Spanned<String>> {
            path.filter(|path| !path.value.is_empty())
        }
        let client_ca = given(part.client_ca_file.as_ref());
        let client_auth = match &part.client_auth_type {
            None => ClientAuth::None,
            Some(text) => self.client_auth(text)?,
        };
        let (cert, key) = match (
            given(part.cert_file.as_ref()),
            given(part.key_file.as_ref()),
        ) {
            (Some(cert), Some(key)) => (cert, key),
            (Some(cert), None) => {
                return Err(self.refused(
                    "tls_server_config.cert_file",
                    cert,
                    "key_file is missing",
                ));
            }
            (None, Some(key)) => {
                return Err(self.refused(
                    "tls_server_config.key_file",
                    key,
                    "cert_file is missing",
                ));
            }
            // Nothing that asks for TLS: as if the part were not there.
            (None, None) => match client_ca.or(part.client_auth_type.as_ref()) {
                None => return Ok(None),
                Some(asking) => {
                    let why = "cert_file and key_file are missing";
                    return Err(self.refused("tls_server_config", asking, why));
                }
            },
        };
        match client_ca {
            None if client_auth.is_verified() => {
                // Go would fall back to the roots of the system: every public site's certificate.
                let why = "it takes a client_ca_file to verify clients against";
                let at = part.client_auth_type.as_ref().unwrap_or(cert);
                return Err(self.refused("tls_server_config.client_auth_type", at, why));
            }
            Some(ca) if client_auth == ClientAuth::None => {
                let why = "no client is asked for a certificate: set client_auth_type";
                return Err(self.refused("tls_server_config.client_ca_file", ca, why));
            }
            _ => {}
        }
        let (tls12, tls13) = self.versions(part)?;
        Ok(Some(Tls {
            cert_file: self.resolve(cert),
            key_file: self.resolve(key),
            client_ca_file: client_ca.map(|path| self.resolve(path)),
            client_auth,
            client_allowed_sans: self.allowed_sans(part, client_auth)?,
            tls12,
            tls13,
            suites: self.suites(part.cipher_suites.as_deref().unwrap_or_default())?,
            groups: self.groups(part.curve_preferences.as_deref().unwrap_or_default())?,
            prefer_server_suites: part.prefer_server_cipher_suites.unwrap_or(true),
        }))
    }

    fn client_auth(&self, text: &Spanned<String>) -> Result<ClientAuth, SettingsError> {
        Ok(match text.value.as_str() {
            "" | "NoClientCert" => ClientAuth::None,
            "RequestClientCert" => ClientAuth::Request,
            // The toolkit keeps the second name for old files.
            "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAny,
            "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
            "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
            _ => {
                let why = "expected NoClientCert, RequestClientCert, RequireAnyClientCert, \
                           VerifyClientCertIfGiven or RequireAndVerifyClientCert";
                return Err(self.refused("tls_server_config.client_auth_type", text, why));
            }
        })
    }

    fn allowed_sans(
        &self,
        part: &TlsPart,
        client_auth: ClientAuth,
    ) -> Result<Option<Vec<String>>, SettingsError> {
        const KEY: &str = "tls_server_config.client_allowed_sans";
        let Some(names) = &part.client_allowed_sans else {
            return Ok(None);
        };
        for name in names {
            if !client_auth.is_mandatory() {
                let why = "client_auth_type must be RequireAnyClientCert or \
                           RequireAndVerifyClientCert: others let clients in without a certificate";
                return Err(self.refused(KEY, name, why));
            }
            if name.value.contains('@') && !name.value.contains(':') {
                let why =
                    "e-mail addresses are not compared; use a DNS name, an IP address or a URI";
                return Err(self.refused(KEY, name, why));
            }
        }
        Ok(Some(names.iter().map(|name| name.value.clone()).collect()))
    }

    fn versions(&self, part: &TlsPart) -> Result<(bool, bool), SettingsError> {
        let read = |key, text: Option<&Spanned<String>>, default| match text {
            None => Ok(default),
            Some(text) => match text.value.as_str() {
                "TLS12" => Ok(12),
                "TLS13" => Ok(13),
                "TLS10" | "TLS11" => Err(self.refused(
                    key,
                    text,
                    "versions before TLS 1.2 are not safe and not supported; use TLS12 or TLS13",
                )),
                _ => Err(self.refused(key, text, "expected TLS12 or TLS13")),
            },
        };
        let min = read(
            "tls_server_config.min_version",
            part.min_version.as_ref(),
            12,
        )?;
        let max = read(
            "tls_server_config.max_version",
            part.max_version.as_ref(),
            13,
        )?;
        match &part.max_version {
            Some(text) if min > max => Err(self.refused(
                "tls_server_config.max_version",
                text,
                "it is lower than min_version",
            )),
            _ => Ok((min == 12, max == 13)),
        }
    }

    fn suites(&self, names: &[Spanned<String>]) -> Result<Option<Vec<CipherSuite>>, SettingsError> {
        let mut suites = Vec::new();
        for name in names {
            if SUITES_13.contains(&name.value.as_str()) {
                continue;
            }
            let Some((_, suite)) = SUITES.iter().find(|(known, _)| *known == name.value) else {
                let known = SUITES.map(|(known, _)| known).join(", ");
                let why = format!("unknown or not supported; supported are {known}");
                return Err(self.refused("tls_server_config.cipher_suites", name, why));
            };
            suites.push(*suite);
        }
        Ok((!suites.is_empty()).then_some(suites))
    }

    fn groups(&self, names: &[Spanned<String>]) -> Result<Option<Vec<NamedGroup>>, SettingsError> {
        let mut groups = Vec::new();
        for name in names {
            let Some((_, group)) = CURVES.iter().find(|(known, _)| *known == name.value) else {
                let known = CURVES.map(|(known, _)| known).join(", ");
                let why = format!("unknown or not supported; supported are {known}");
                return Err(self.refused("tls_server_config.curve_preferences", name, why));
            };
            groups.push(*group);
        }
        Ok((!groups.is_empty()).then_some(groups))
    }

    fn headers(
        &self,
        given: &BTreeMap<String, Spanned<String>>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
        const KEY: &str = "http_server_config.headers";
        let mut headers = Vec::new();
        for (name, value) in given {
            let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
                let known = HEADERS.map(|(known, _)| known).join(", ");
                let name = name.escape_debug();
                let why = format!("\"{name}\" cannot be set; those that can are {known}");
                return Err(self.refused(KEY, value, why));
            };
            if value.value.is_empty() {
                continue;
            }
            if !values.is_empty() && !values.contains(&value.value.as_str()) {
                let why = format!("{name} takes {}", values.join(" or "));
                return Err(self.refused(KEY, value, why));
            }
            let parsed = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(&value.value),
            );
            let (Ok(name), Ok(text)) = parsed else {
                return Err(self.refused(KEY, value, "the value cannot stand in a header"));
            };
            headers.push((name, text));
        }
        Ok(headers)
    }

    fn users(
        &self,
        given: &BTreeMap<String, Spanned<String>>,
    ) -> Result<BTreeMap<String, Hash>, SettingsError> {
        const KEY: &str = "basic_auth_users";
        if let Some(value) = given.values().nth(USERS) {
            return Err(self.refused(KEY, value, format!("more than {USERS} users")));
        }
        let mut users = BTreeMap::new();
        for (name, hash) in given {
            if name.contains(':') {
                let why = "a user's name cannot hold a colon";
                return Err(self.refused(KEY, hash, why));
            }
            let Ok(parts) = hash.value.parse::<bcrypt::HashParts>() else {
                let name = name.escape_debug();
                let why = format!(
                    "the password of \"{name}\" is not a bcrypt hash; make one with: htpasswd -nBC 10 \
                     \"\" | tr -d ':\\n'"
                );
                return Err(self.refused(KEY, hash, why));
            };
            let cost = parts.get_cost();
            if !(LEAST_COST..=MOST_COST).contains(&cost) {
                let why = format!(
                    "a bcrypt cost of {cost} is not taken; it must be from {LEAST_COST} to {MOST_COST}"
                );
                return Err(self.refused(KEY, hash, why));
            }
            let text = hash.value.clone();
            users.insert(name.clone(), Hash { text, cost });
        }
        Ok(users)
    }

    fn rate(&self, part: &RatePart) -> Result<Option<Rate>, SettingsError> {
        let Some(text) = &part.interval else {
            return match &part.burst {
                Some(burst) => Err(self.refused("rate_limit.burst", burst, "interval is missing")),
                None => Ok(None),
            };
        };
        let Some(interval) = duration::parse(&text.value) else {
            let why = "expected a duration such as 500ms, 1s or 1m30s; 0 switches the limit off";
            return Err(self.refused("rate_limit.interval", text, why));
        };
        if interval.is_zero() {
            return Ok(None);
        }
        match &part.burst {
            Some(burst) if burst.value > 0 => Ok(Some(Rate {
                interval,
                burst: burst.value,
            })),
            Some(burst) => {
                let why = "with a burst of 0 no request would ever be answered";
                Err(self.refused("rate_limit.burst", burst, why))
            }
            None => {
                let why = "burst is missing: without it no request would ever be answered";
                Err(self.refused("rate_limit.interval", text, why))
            }
        }
    }
}
