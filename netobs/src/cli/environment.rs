//! What variables of the environment say: the flags of `netobs run`, by the rule of
//! [`variable`](crate::config::variable).
//!
//! They are read apart from the command line, by the same parser, so that each layer stays what it
//! is: a flag wins over its variable, and a message names where the value stands.

use std::{error::Error as _, ffi::OsString};

use clap::{
    ArgAction, Command, CommandFactory, FromArgMatches,
    builder::BoolishValueParser,
    error::{ContextKind, ContextValue},
};

use super::{Cli, Command as Subcommand, GlobalArgs, failure::UsageError, run::RunArgs};
use crate::config::{Stray, strays, variable};

/// Flags that ask for something once and set nothing.
const NO_SETTINGS: [&str; 3] = ["help", "version", "config.check"];

/// The flags as the environment gives them.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Those of `netobs run`.
    pub run: RunArgs,
    /// Those of every subcommand.
    pub globals: GlobalArgs,
    /// Variables that look as if they were meant for netobs.
    pub strays: Vec<Stray>,
}

impl Environment {
    /// Reads the variables of this process. One that is empty is as good as none; lists are
    /// separated by commas.
    ///
    /// # Errors
    /// When a value is not what its flag takes.
    pub fn read() -> Result<Self, UsageError> {
        Self::of(&std::env::vars_os().collect::<Vec<_>>())
    }

    fn of(set: &[(OsString, OsString)]) -> Result<Self, UsageError> {
        let given = |name: &str| {
            set.iter()
                .any(|(known, value)| known == name && !value.is_empty())
        };
        let names = variables();
        let matches = with_variables(&given)
            .try_get_matches_from(["netobs", "run"])
            .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
        let cli = matches.map_err(|error| explained(&error))?;
        let Subcommand::Run(run) = cli.command else {
            return Err(UsageError("the environment names no subcommand".to_owned()));
        };
        let set = set.iter().filter_map(|(name, _)| name.to_str());
        Ok(Self {
            run,
            globals: cli.globals,
            strays: strays(set.map(str::to_owned), &names),
        })
    }
}

/// The names of all variables.
#[must_use]
pub fn variables() -> Vec<String> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").map(Command::get_arguments);
    cli.get_arguments()
        .chain(run.into_iter().flatten())
        .filter_map(|argument| argument.get_long())
        .filter(|long| !NO_SETTINGS.contains(long))
        .map(variable)
        .collect()
}

/// The parser that takes each flag of `run` from its variable, where `given` says that it is set.
fn with_variables(given: &dyn Fn(&str) -> bool) -> Command {
    let from_variable = |argument: clap::Arg| {
        let name = argument.get_long().filter(|it| !NO_SETTINGS.contains(it));
        let Some(name) = name.map(variable).filter(|name| given(name)) else {
            return argument;
        };
        let argument = argument.env(name);
        match argument.get_action() {
            ArgAction::Append => argument.value_delimiter(','),
            ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
            _ => argument,
        }
    };
    Cli::command()
        .mut_args(from_variable)
        .mut_subcommand("run", |run| run.mut_args(from_variable))
}

/// What clap says of a flag, said of its variable.
fn explained(error: &clap::Error) -> UsageError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let Some(flag) = text(ContextKind::InvalidArg) else {
        return UsageError(format!("environment: {}", error.kind()));
    };
    let name = variable(flag.split([' ', '=', '[']).next().unwrap_or_default());
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let value = value.escape_debug();
    let expected = text(ContextKind::ValidValue).filter(|it| !it.is_empty());
    UsageError(match (error.source(), expected) {
        (Some(why), _) => format!("{name}: \"{value}\": {why}"),
        (None, Some(values)) => format!("{name}: \"{value}\" is none of: {values}"),
        (None, None) => format!("{name}: \"{value}\": {}", error.kind()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap reads the process's own environment, which the tests of `tests/cli.rs` set.
    #[test]
    fn every_flag_has_a_variable_of_its_own() {
        let mut names = variables();
        assert!(names.contains(&"NETOBS_WEB_LISTEN_ADDRESS".to_owned()));
        assert!(names.contains(&"NETOBS_LOG_LEVEL".to_owned()));
        assert!(!names.contains(&"NETOBS_CONFIG_CHECK".to_owned()));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
