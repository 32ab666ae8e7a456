//! `netobs completions`.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netobs completions bash > /etc/bash_completion.d/netobs
  netobs completions zsh  > /usr/local/share/zsh/site-functions/_netobs
  netobs completions fish > ~/.config/fish/completions/netobs.fish")]
pub struct CompletionsArgs {
    /// The shell to write for
    shell: Shell,
}

impl CompletionsArgs {
    /// Writes the script to stdout.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn run(&self) -> io::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "netobs", &mut script);
        print(&script)
    }
}
