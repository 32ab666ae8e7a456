//! The words of a result: severity, status, evidence, remedy.

use serde::Serialize;

/// How much a finding matters. Ordered: `Info < Warning < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Wrong, inert or risky; no proof of harm now.
    Warning,
    /// Harm, with proof, or a setting that is never right.
    Critical,
}

impl Severity {
    /// All of them, gravest first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Warning, Self::Info];

    /// The word used in reports and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What became of one rule in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Looked at, nothing to say.
    Pass,
    /// Something to say.
    Finding,
    /// Cannot apply here: the setting does not exist, or a fact it needs is not given.
    NotApplicable,
    /// Could not be looked at. Makes the whole report partial.
    Unreadable,
}

/// What a finding rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Counters that moved in the window, or a state seen now.
    Evidence,
    /// The value alone. Nothing shows that it hurts now.
    Advice,
}

/// Where a setting can be changed for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FixPlace {
    /// In the pod's `securityContext.sysctls`: Kubernetes calls it safe.
    PodSafe,
    /// There too, once the kubelet's `--allowed-unsafe-sysctls` names it.
    KubeletAllowList,
    /// On the node: the host's own namespace, or a setting that pods cannot have.
    NodeOnly,
    /// In the application, not in a setting.
    Application,
}

impl FixPlace {
    /// A phrase for readers.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::PodSafe => "pod securityContext (a safe sysctl)",
            Self::KubeletAllowList => "pod securityContext, once the kubelet allows it",
            Self::NodeOnly => "the node",
            Self::Application => "the application",
        }
    }
}

/// One fact behind a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Where it was seen: a counter's name, a listener, a file and line.
    pub source: String,
    /// The fact in words, with its numbers.
    pub text: String,
    /// How much a counter moved in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<u64>,
    /// A counter's value since its namespace was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// True when it shows harm now, false when it is only history or context.
    pub live: bool,
}

impl Evidence {
    /// A state seen at the moment of the audit that shows harm.
    #[must_use]
    pub fn seen(source: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            text: text.into(),
            delta: None,
            total: None,
            live: true,
        }
    }

    /// A fact that explains without proving harm.
    #[must_use]
    pub fn context(source: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            live: false,
            ..Self::seen(source, text)
        }
    }
}

/// What a rule says when it has something to say.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How much it matters here.
    pub severity: Severity,
    /// The setting concerned.
    pub key: &'static str,
    /// What is wrong, in one or two sentences.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// What would be better, where one value is.
    pub set: Option<String>,
    /// What to do, in words.
    pub advice: String,
    /// Where to do it, when that is not where the setting lives.
    pub place: Option<FixPlace>,
    /// The facts behind it.
    pub evidence: Vec<Evidence>,
}

impl Problem {
    /// Something to say about `key`.
    #[must_use]
    pub fn new(severity: Severity, key: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            key,
            message: message.into(),
            expected: String::new(),
            set: None,
            advice: String::new(),
            place: None,
            evidence: Vec::new(),
        }
    }

    /// What was expected instead.
    #[must_use]
    pub fn wanted(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// The value that would be better.
    #[must_use]
    pub fn set(mut self, value: impl Into<String>) -> Self {
        self.set = Some(value.into());
        self
    }

    /// What to do, in words.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// To be mended in the application rather than in a setting.
    #[must_use]
    pub fn in_application(mut self) -> Self {
        self.place = Some(FixPlace::Application);
        self
    }

    /// Facts behind it.
    #[must_use]
    pub fn with(mut self, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// Raises the severity when a fact shows harm now. Add the facts first.
    #[must_use]
    pub fn graver_if_live(mut self, severity: Severity) -> Self {
        if self.basis() == Basis::Evidence {
            self.severity = self.severity.max(severity);
        }
        self
    }

    /// What it rests on.
    #[must_use]
    pub fn basis(&self) -> Basis {
        if self.evidence.iter().any(|e| e.live) {
            Basis::Evidence
        } else {
            Basis::Advice
        }
    }
}
