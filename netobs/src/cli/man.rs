//! `netobs man`.

use anyhow::bail;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Cli, failure::UsageError, print, version};

/// Print a manual page in roff
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netobs man | man -l -
  netobs man run > /usr/local/share/man/man1/netobs-run.1")]
pub struct ManArgs {
    /// The page of this subcommand instead of the first page
    #[arg(value_name = "COMMAND")]
    page: Option<String>,
}

impl ManArgs {
    /// Writes the page to stdout.
    ///
    /// # Errors
    /// When there is no such subcommand, or stdout cannot be written.
    pub fn run(&self) -> anyhow::Result<()> {
        // Building resolves the global flags and the full names (`netobs-run`) of subcommands.
        let mut command = Cli::command();
        command.build();
        let page = match &self.page {
            None => command,
            Some(name) => match command.find_subcommand(name) {
                Some(found) => found.clone(),
                None => {
                    let name = name.escape_debug();
                    bail!(UsageError(format!("there is no subcommand \"{name}\"")));
                }
            },
        };
        let mut roff = Vec::new();
        Man::new(page)
            .source(format!("netobs {}", version()))
            .render(&mut roff)?;
        Ok(print(&roff)?)
    }
}
