//! Which events are shown.

use netobs_common::event::EventKind;

/// What filters look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The kind; `None` for one that this netobs does not know.
    pub kind: Option<EventKind>,
    /// Inode number of the namespace.
    pub netns: Option<u32>,
    /// Local and remote port.
    pub ports: [Option<u16>; 2],
    /// The process that owns the socket.
    pub pid: Option<u32>,
    /// Id of the container that it runs in.
    pub container: Option<String>,
}

/// All must hold; an empty one lets everything pass. What is not known does not pass a filter that
/// asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds of events; empty for all.
    pub kinds: Vec<EventKind>,
    /// One of the two ports.
    pub port: Option<u16>,
    /// The owner's process id.
    pub pid: Option<u32>,
    /// Inode number of the namespace.
    pub netns: Option<u32>,
    /// How the container's id begins.
    pub container: Option<String>,
}

impl Filter {
    /// Whether an event passes.
    #[must_use]
    pub fn admits(&self, subject: &Subject) -> bool {
        let Self {
            kinds,
            port,
            pid,
            netns,
            container,
        } = self;
        (kinds.is_empty() || subject.kind.is_some_and(|kind| kinds.contains(&kind)))
            && port.is_none_or(|port| subject.ports.contains(&Some(port)))
            && pid.is_none_or(|pid| subject.pid == Some(pid))
            && netns.is_none_or(|netns| subject.netns == Some(netns))
            && container.as_ref().is_none_or(|prefix| {
                let id = subject.container.as_deref().unwrap_or_default();
                // Of an id, twelve digits are known: a longer prefix cannot be told from them.
                !id.is_empty() && (id.starts_with(prefix.as_str()) || prefix.starts_with(id))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            kind: Some(EventKind::Retransmit),
            netns: Some(7),
            ports: [Some(80), None],
            pid: Some(3),
            container: Some("abcdef".to_owned()),
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let all = Filter {
            kinds: vec![EventKind::Retransmit, EventKind::ListenDrop],
            port: Some(80),
            pid: Some(3),
            netns: Some(7),
            container: Some("abc".to_owned()),
        };
        assert!(Filter::default().admits(&subject()));
        assert!(all.admits(&subject()));
        let wrong = [
            Filter {
                kinds: vec![EventKind::Listener],
                ..all.clone()
            },
            Filter {
                port: Some(81),
                ..all.clone()
            },
            Filter {
                pid: Some(4),
                ..all.clone()
            },
            Filter {
                netns: Some(8),
                ..all.clone()
            },
            Filter {
                container: Some("b".to_owned()),
                ..all.clone()
            },
        ];
        for filter in wrong {
            assert!(!filter.admits(&subject()), "{filter:?}");
        }
    }

    #[test]
    fn what_is_not_known_does_not_pass() {
        let unknown = Subject {
            kind: None,
            netns: None,
            ports: [None, None],
            pid: None,
            container: None,
        };
        assert!(Filter::default().admits(&unknown));
        for filter in [
            Filter {
                kinds: vec![EventKind::Retransmit],
                ..Filter::default()
            },
            Filter {
                port: Some(0),
                ..Filter::default()
            },
            Filter {
                container: Some(String::new()),
                ..Filter::default()
            },
        ] {
            assert!(!filter.admits(&unknown), "{filter:?}");
        }
    }
}
