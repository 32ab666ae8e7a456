//! The variables of the environment: one rule makes the name of each from its flag.

use std::fmt;

use super::nearest::nearest;

/// With which every variable of netobs begins.
const PREFIX: &str = "NETOBS_";

/// Variables with that prefix that are no flags: of the unit file, of builds and of tests.
const OTHERS: [&str; 6] = [
    "NETOBS_FLAGS",
    "NETOBS_REVISION",
    "NETOBS_RUSTC",
    "NETOBS_REQUIRE",
    "NETOBS_BLESS",
    "NETOBS_BIN",
];

/// The variable of a flag: `NETOBS_` and its name in capitals, with `_` for `.` and `-`.
///
/// ```
/// use netobs::config::variable;
/// assert_eq!(variable("--web.listen-address"), "NETOBS_WEB_LISTEN_ADDRESS");
/// ```
#[must_use]
pub fn variable(flag: &str) -> String {
    let name = flag.trim_start_matches('-').chars().map(|c| match c {
        '.' | '-' => '_',
        other => other.to_ascii_uppercase(),
    });
    PREFIX.chars().chain(name).collect()
}

/// A variable that looks like one of netobs's and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its name, cut when very long.
    pub name: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug();
        write!(f, "the variable {name} has no effect: no flag is called so")?;
        match &self.nearest {
            Some(near) => write!(f, "; did you mean {near}?"),
            None => Ok(()),
        }
    }
}

/// Those among `set` that begin like netobs's, are none of `known`, and have not been put there by
/// others: for a service called netobs, Kubernetes sets `NETOBS_SERVICE_HOST`, `NETOBS_PORT` and
/// their like in every container of its namespace.
pub fn strays(set: impl IntoIterator<Item = String>, known: &[String]) -> Vec<Stray> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut strays: Vec<Stray> = set
        .into_iter()
        .filter(|name| {
            name.strip_prefix(PREFIX).is_some_and(|rest| {
                !rest.starts_with("SERVICE_") && rest != "PORT" && !rest.starts_with("PORT_")
            }) && !known.contains(&name.as_str())
                && !OTHERS.contains(&name.as_str())
        })
        .map(|name| Stray {
            nearest: nearest(&name, &known).map(str::to_owned),
            name: name.chars().take(64).collect(),
        })
        .collect();
    strays.sort_by(|a, b| a.name.cmp(&b.name));
    strays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_found_and_what_others_set_is_not() {
        let known = ["NETOBS_LOG_LEVEL", "NETOBS_NO_PROBE"].map(str::to_owned);
        let set = [
            "NETOBS_LOG_LEVL",
            "NETOBS_LOG_LEVEL",
            "NETOBS_FLAGS",
            "NETOBS_SERVICE_HOST",
            "NETOBS_PORT_10977_TCP_ADDR",
            "NETOBS_PORT",
            "NETOBS_COLOUR_OF_THE_SKY",
            "PATH",
        ];
        let strays = strays(set.map(str::to_owned), &known);
        let strays: Vec<_> = strays
            .iter()
            .map(|stray| (stray.name.as_str(), stray.nearest.as_deref()))
            .collect();
        assert_eq!(
            strays,
            [
                ("NETOBS_COLOUR_OF_THE_SKY", None),
                ("NETOBS_LOG_LEVL", Some("NETOBS_LOG_LEVEL")),
            ]
        );
    }
}
