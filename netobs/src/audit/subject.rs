//! What a rule is handed: one namespace in its machine, with the questions rules ask.

use std::time::Duration;

use crate::audit::finding::Evidence;
use crate::audit::keys::{self, Reach};
use crate::audit::snapshot::{KernelDefault, Listener, Machine, Namespace, Sockets};
use crate::audit::value::{Reading, SecretState};

/// Why a rule has no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It does not apply here; the reason, in words.
    NotApplicable(String),
    /// The setting is there and could not be read.
    Unreadable {
        /// The setting; empty when it is not a setting that could not be read.
        key: &'static str,
        /// The reason, in words.
        reason: String,
    },
}

/// One namespace, in the machine it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The namespace under audit.
    pub ns: &'a Namespace,
}

impl<'a> Subject<'a> {
    /// What reading `key` gave. Node-wide settings are taken from the host's namespace.
    #[must_use]
    pub fn reading(&self, key: &str) -> &'a Reading {
        let node = keys::find(key).is_some_and(|k| k.reach == Reach::Node);
        let settings = if node {
            &self.machine.host.settings
        } else {
            &self.ns.settings
        };
        settings.get(key).unwrap_or(&Reading::Missing)
    }

    fn skip(&self, key: &'static str) -> Skip {
        match self.reading(key) {
            Reading::Missing => {
                Skip::NotApplicable(format!("this kernel or namespace has no {key}"))
            }
            Reading::Unreadable(reason) => Skip::Unreadable {
                key,
                reason: reason.clone(),
            },
            _ => Skip::Unreadable {
                key,
                reason: "its value is not of the known form".to_owned(),
            },
        }
    }

    /// A setting that is one number.
    ///
    /// # Errors
    /// When the setting is missing, unreadable or no number.
    pub fn int(&self, key: &'static str) -> Result<i64, Skip> {
        match self.reading(key) {
            Reading::Int(n) => Ok(*n),
            _ => Err(self.skip(key)),
        }
    }

    /// A second setting that a rule can do without.
    #[must_use]
    pub fn maybe_int(&self, key: &'static str) -> Option<i64> {
        self.int(key).ok()
    }

    /// A setting that is `N` numbers.
    ///
    /// # Errors
    /// When the setting is missing, unreadable or something else.
    pub fn vector<const N: usize>(&self, key: &'static str) -> Result<[i64; N], Skip> {
        match self.reading(key) {
            Reading::Vector(v) => v.as_slice().try_into().map_err(|_| self.skip(key)),
            _ => Err(self.skip(key)),
        }
    }

    /// A setting that is words.
    ///
    /// # Errors
    /// When the setting is missing, unreadable or something else.
    pub fn text(&self, key: &'static str) -> Result<&'a str, Skip> {
        match self.reading(key) {
            Reading::Text(t) => Ok(t),
            _ => Err(self.skip(key)),
        }
    }

    /// What may be known of a secret.
    ///
    /// # Errors
    /// When it is missing or unreadable.
    pub fn secret(&self, key: &'static str) -> Result<SecretState, Skip> {
        match self.reading(key) {
            Reading::Secret(s) => Ok(*s),
            _ => Err(self.skip(key)),
        }
    }

    /// The kernel's default for `key`.
    #[must_use]
    pub fn default_of(&self, key: &str) -> Option<KernelDefault> {
        self.machine.defaults.of(&self.machine.kernel, key)
    }

    /// The kernel's default for `key` when it is a number.
    #[must_use]
    pub fn default_int(&self, key: &str) -> Option<i64> {
        self.default_of(key)?.value.parse().ok()
    }

    /// How much a counter moved in the window; `None` without a window.
    #[must_use]
    pub fn delta(&self, counter: &str) -> Option<u64> {
        self.ns.counters.delta(counter)
    }

    /// True when the counter moved in the window.
    #[must_use]
    pub fn moved(&self, counter: &str) -> bool {
        self.delta(counter).is_some_and(|d| d > 0)
    }

    /// A counter since the namespace was made.
    #[must_use]
    pub fn total(&self, counter: &str) -> Option<u64> {
        self.ns.counters.total(counter)
    }

    /// The counters of `names` that are not zero: live where they moved in the window.
    #[must_use]
    pub fn counters(&self, names: &[&str]) -> Vec<Evidence> {
        names
            .iter()
            .filter_map(|name| self.counter(name, true))
            .collect()
    }

    /// The same, but never as proof of harm.
    #[must_use]
    pub fn history(&self, names: &[&str]) -> Vec<Evidence> {
        names
            .iter()
            .filter_map(|name| self.counter(name, false))
            .collect()
    }

    fn counter(&self, name: &str, proof: bool) -> Option<Evidence> {
        let total = self.total(name)?;
        let delta = self.delta(name);
        if total == 0 && delta.unwrap_or(0) == 0 {
            return None;
        }
        let since = "since this namespace was made";
        let text = match (delta, self.ns.counters.length) {
            (Some(delta), Some(window)) => {
                format!("{name} +{delta} in {}, {total} {since}", seconds(window))
            }
            _ => format!("{name} {total} {since}"),
        };
        let live = proof && delta.is_some_and(|d| d > 0);
        Some(Evidence {
            source: name.to_owned(),
            text,
            delta,
            total: Some(total),
            live,
        })
    }

    /// The namespace's sockets.
    ///
    /// # Errors
    /// When they could not be listed.
    pub fn sockets(&self) -> Result<&'a Sockets, Skip> {
        self.ns.sockets.as_ref().ok_or_else(|| Skip::Unreadable {
            key: "",
            reason: "the sockets of this namespace could not be listed".to_owned(),
        })
    }

    /// The listening sockets, empty where they could not be listed.
    #[must_use]
    pub fn listeners(&self) -> &'a [Listener] {
        self.ns
            .sockets
            .as_ref()
            .map_or(&[], |s| s.listeners.as_slice())
    }
}

/// A duration in words, to the tenth of a second below ten seconds.
#[must_use]
pub fn seconds(window: Duration) -> String {
    if window < Duration::from_secs(10) && window.subsec_millis() >= 100 {
        format!("{:.1} s", window.as_secs_f64())
    } else {
        format!("{} s", window.as_secs())
    }
}
