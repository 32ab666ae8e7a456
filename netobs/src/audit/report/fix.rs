//! What to do about a finding: words, a command, a file, a pod's YAML.

use serde::Serialize;

use crate::audit::finding::{FixPlace, Problem};
use crate::audit::keys;
use crate::audit::subject::Subject;

/// The file that commands and advice write to.
const FILE: &str = "/etc/sysctl.d/90-tcp.conf";

/// A remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Where it is possible.
    pub place: FixPlace,
    /// What to do, in words.
    pub advice: String,
    /// For now: a command, run on the node.
    pub command: Option<String>,
    /// For good: a line, and the file it belongs to.
    pub persistent: Option<String>,
    /// For good, for a pod: a piece of its specification.
    pub pod_yaml: Option<String>,
}

impl Fix {
    /// The remedy for `problem` where `subject` is.
    #[must_use]
    pub fn of(problem: &Problem, subject: Subject<'_>) -> Self {
        let key = problem.key;
        let place = problem
            .place
            .or_else(|| keys::find(key).map(|k| k.place))
            .unwrap_or(FixPlace::NodeOnly);
        // The host's own namespace has no pod to set it in.
        let place = if subject.ns.host && place != FixPlace::Application {
            FixPlace::NodeOnly
        } else {
            place
        };
        let mut fix = Self {
            place,
            advice: problem.advice.clone(),
            command: None,
            persistent: None,
            pod_yaml: None,
        };
        let Some(value) = problem.set.as_deref() else {
            return fix;
        };
        let words = value.contains(' ');
        let assignment = if words {
            format!("{key}=\"{value}\"")
        } else {
            format!("{key}={value}")
        };
        if place == FixPlace::NodeOnly {
            fix.command = Some(format!("sysctl -w {assignment}"));
            fix.persistent = Some(format!("{key} = {value}  # in {FILE}"));
            return fix;
        }
        // Lasts as long as the namespace: pods get theirs anew at each start.
        fix.command = Some(enter(subject, &assignment));
        fix.pod_yaml = Some(format!(
            "spec: {{securityContext: {{sysctls: [{{name: {key}, value: \"{value}\"}}]}}}}"
        ));
        if place == FixPlace::KubeletAllowList {
            let allow = format!("kubelet --allowed-unsafe-sysctls={key}");
            fix.advice = match fix.advice.as_str() {
                "" => allow,
                advice => format!("{advice}; {allow}"),
            };
        }
        fix
    }
}

fn enter(subject: Subject<'_>, assignment: &str) -> String {
    let owner = &subject.ns.owner;
    match (&owner.path, owner.pid) {
        (_, Some(pid)) => format!("nsenter --net=/proc/{pid}/ns/net sysctl -w {assignment}"),
        (Some(path), None) => format!("nsenter --net={path} sysctl -w {assignment}"),
        (None, None) => format!("sysctl -w {assignment}  # inside the namespace"),
    }
}
