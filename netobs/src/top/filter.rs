//! Which rows are shown.

use std::fmt::Write as _;

use super::{reading::Who, text::printable};

/// Longest text of a filter, in characters.
pub(super) const MOST: usize = 80;

/// What filters look at in a row, in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    process: String,
    pod: String,
    container: String,
    netns: Option<u32>,
    ports: Vec<u16>,
    /// All that and what else the row shows.
    text: String,
}

impl Subject {
    /// Of a row of this owner, with these ports and these words more.
    #[must_use]
    pub fn new(who: &Who, ports: &[u16], words: &[&str]) -> Self {
        let small = |text: &str| printable(text).to_lowercase();
        let pod = small(&format!("{}/{} {}", who.namespace, who.pod, who.pod_uid));
        let container = small(&format!("{} {}", who.container, who.container_id));
        let process = small(&who.process);
        let mut text = format!("{process} {pod} {container}");
        // Writing to a string cannot fail.
        if let Some(netns) = who.netns {
            let _ = write!(text, " {netns}");
        }
        for port in ports {
            let _ = write!(text, " {port}");
        }
        for word in words {
            let _ = write!(text, " {}", small(word));
        }
        Self {
            process,
            pod,
            container,
            netns: who.netns,
            ports: ports.to_vec(),
            text,
        }
    }
}

/// Words that must all be found in a row: anywhere, or with `process:`, `pod:`, `container:`,
/// `port:` or `netns:` in front of them, there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Word>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Anywhere(String),
    Process(String),
    Pod(String),
    Container(String),
    Port(Option<u16>),
    Netns(Option<u32>),
}

impl Filter {
    /// Reads what the user typed. Nothing that he can type is wrong: a port that is no number is
    /// found nowhere.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text: String = text.chars().take(MOST).collect();
        let words = text.split_whitespace().map(|word| {
            let word = word.to_lowercase();
            let named = word.split_once(':').and_then(|(name, value)| {
                let text = || value.to_owned();
                Some(match name {
                    "process" => Word::Process(text()),
                    "pod" => Word::Pod(text()),
                    "container" => Word::Container(text()),
                    "port" => Word::Port(value.parse().ok()),
                    "netns" => Word::Netns(value.parse().ok()),
                    // An address has colons, too.
                    _ => return None,
                })
            });
            named.unwrap_or(Word::Anywhere(word))
        });
        Self(words.collect())
    }

    /// Whether it admits every row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a row is shown.
    #[must_use]
    pub fn admits(&self, subject: &Subject) -> bool {
        self.0.iter().all(|word| match word {
            Word::Anywhere(word) => subject.text.contains(word),
            Word::Process(word) => subject.process.contains(word),
            Word::Pod(word) => subject.pod.contains(word),
            Word::Container(word) => subject.container.contains(word),
            Word::Port(port) => port.is_some_and(|port| subject.ports.contains(&port)),
            Word::Netns(netns) => netns.is_some() && *netns == subject.netns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let who = Who {
            netns: Some(4_026_532_000),
            process: "Nginx".to_owned(),
            namespace: "shop".to_owned(),
            pod: "front-7".to_owned(),
            ..Who::default()
        };
        Subject::new(&who, &[8080], &["10.0.0.1", "ESTABLISHED"])
    }

    #[test]
    fn every_word_must_be_found() {
        for (text, found) in [
            ("", true),
            ("  ", true),
            ("nginx", true),
            ("NGI 8080", true),
            ("nginx envoy", false),
            ("808", true),
            ("port:808", false),
            ("port:8080", true),
            ("port:http", false),
            ("netns:4026532000", true),
            ("netns:4026532", false),
            ("process:front", false),
            ("pod:front", true),
            ("pod:shop/front", true),
            ("container:x", false),
            ("established", true),
            ("10.0.0.1", true),
            ("10.0.0.1:8080", false),
        ] {
            assert_eq!(Filter::parse(text).admits(&subject()), found, "{text:?}");
        }
    }
}
