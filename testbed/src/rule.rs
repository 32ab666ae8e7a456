//! nft rules that lose TCP segments, removed when dropped.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::{command, netns::Ns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where in its namespace a rule looks at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that were received for this namespace: the sender cannot know of the loss.
    Input,
    /// Packets that this namespace sends: the sending function gets an error.
    Output,
}

impl Hook {
    const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Which TCP segments a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Segments to this port.
    To(u16),
    /// Segments from this port.
    From(u16),
    /// Segments of sockets with this `SO_MARK`; only at [`Hook::Output`].
    Mark(u32),
    /// Segments of no connection; as long as such a rule stands, the namespace tracks connections.
    Invalid,
}

/// A rule in a table of its own, for IPv4 and IPv6. Counts what it drops.
#[derive(Debug)]
pub struct Rule {
    ns: Ns,
    table: String,
    installed: bool,
}

impl Rule {
    /// Drops every selected segment.
    ///
    /// # Errors
    /// When `nft` is missing or refuses the rule.
    pub fn drop_all(ns: &Ns, hook: Hook, select: Select) -> Result<Self> {
        Self::install(ns, hook, select, "")
    }

    /// Drops the first of every `every` selected segments, so 1 drops them all.
    ///
    /// # Errors
    /// When `every` is 0, or `nft` is missing or refuses the rule.
    pub fn drop_each(ns: &Ns, hook: Hook, select: Select, every: u32) -> Result<Self> {
        if every == 0 {
            bail!("a rule cannot drop every 0th segment");
        }
        Self::install(ns, hook, select, &format!("numgen inc mod {every} 0 "))
    }

    fn install(ns: &Ns, hook: Hook, select: Select, sample: &str) -> Result<Self> {
        let selected = match select {
            Select::To(port) => format!("tcp dport {port}"),
            Select::From(port) => format!("tcp sport {port}"),
            Select::Mark(mark) => format!("meta l4proto tcp meta mark {mark}"),
            Select::Invalid => "meta l4proto tcp ct state invalid".to_owned(),
        };
        let table = format!("netobstb{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let hook = hook.name();
        let rules = format!(
            "table inet {table} {{ chain loss {{ type filter hook {hook} priority 0; \
             {selected} {sample}counter drop; }}; }}\n"
        );
        command::nft(ns, &rules).context("install a loss rule")?;
        Ok(Self {
            ns: ns.clone(),
            table,
            installed: true,
        })
    }

    /// How many packets the rule has dropped. A packet may be several joined segments.
    ///
    /// # Errors
    /// When `nft` fails or prints no counter.
    pub fn dropped(&self) -> Result<u64> {
        let list = ["list", "table", "inet", &self.table];
        let text = command::run(&self.ns, "nft", &list, "")?;
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets")
            .skip(1);
        words
            .next()
            .and_then(|packets| packets.parse().ok())
            .with_context(|| format!("find the counter in {text:?}"))
    }

    /// Removes the rule now and says how many packets it dropped.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn remove(mut self) -> Result<u64> {
        let dropped = self.dropped()?;
        command::nft(&self.ns, &self.removal()).context("remove a loss rule")?;
        self.installed = false;
        Ok(dropped)
    }

    fn removal(&self) -> String {
        format!("delete table inet {}\n", self.table)
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        if self.installed {
            // Nobody to report to; at the latest the namespace takes its rules with it.
            let _ = command::nft(&self.ns, &self.removal());
        }
    }
}
