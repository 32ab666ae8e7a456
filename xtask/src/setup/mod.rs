//! `cargo xtask setup`: what building and testing need, found or installed.
//!
//! Nothing is installed that is there in another form: who has a nightly with `rust-src` and a
//! bpf-linker keeps them. Nothing is ever removed.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Result, bail};

use crate::command;

mod apt;
mod linker;
mod need;
mod promtool;
mod system;

use need::Need;
pub(crate) use need::Scope;
use system::System;

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the machine is to be set up for
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value = "test")]
    scope: Scope,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would be installed and stop
    #[arg(long)]
    dry_run: bool,
}

/// Installs what is missing for building and testing.
pub(crate) fn setup(args: &Args) -> Result<()> {
    let needs = need::missing(args.scope);
    if needs.is_empty() {
        println!("everything is here");
        return Ok(());
    }
    let plan = Plan::make(&needs, args.dry_run)?;
    plan.print();
    if args.dry_run {
        return Ok(());
    }
    if !args.yes && !confirmed()? {
        bail!("nothing was installed");
    }
    plan.carry_out(args.scope)
}

/// Installs what `scope` lacks without asking, and says so; does nothing and says nothing when
/// everything is there.
pub(crate) fn ensure(scope: Scope) -> Result<()> {
    let needs = need::missing(scope);
    if needs.is_empty() {
        return Ok(());
    }
    let plan = Plan::make(&needs, false)?;
    plan.print();
    plan.carry_out(scope)
}

/// Names what `scope` lacks, and installs nothing.
///
/// # Errors
/// When something is missing.
pub(crate) fn demand(scope: Scope) -> Result<()> {
    let needs = need::missing(scope);
    if needs.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = needs.iter().map(ToString::to_string).collect();
    let scope = clap::ValueEnum::to_possible_value(&scope);
    bail!(
        "this machine lacks {}: `cargo xtask setup --for {}` installs it",
        names.join(", "),
        scope.as_ref().map_or("test", |value| value.get_name())
    )
}

/// Installs one of the distribution's packages.
///
/// # Errors
/// When it has none of that name, or is not one of those whose packages are known here.
pub(crate) fn install_package(name: &str) -> Result<()> {
    if System::detect() != System::Apt {
        bail!("packages are installed on Debian and Ubuntu only");
    }
    if apt::candidate(name).is_none() {
        apt::update()?;
    }
    apt::install(&[name])
}

/// What will be done about each need.
struct Plan {
    needs: Vec<(Need, Vec<String>)>,
}

impl Plan {
    fn make(needs: &[Need], dry_run: bool) -> Result<Self> {
        let system = System::detect();
        if system != System::Apt {
            for need in needs {
                eprintln!("missing: {need}");
            }
            bail!("{}", system.by_hand());
        }
        if !dry_run {
            println!("reading the package lists (apt-get update)");
            apt::update()?;
        }
        let compiler = apt::Compiler::best();
        let needs = needs
            .iter()
            .map(|need| Ok((*need, need.packages(compiler.as_ref())?)))
            .collect::<Result<_>>()?;
        Ok(Self { needs })
    }

    fn print(&self) {
        println!("netobs needs, and this machine lacks:");
        for (need, packages) in &self.needs {
            let mut ways = Vec::new();
            if !packages.is_empty() {
                ways.push(format!("apt-get install {}", packages.join(" ")));
            }
            ways.extend(need.other_way());
            println!("  {need}: {}", ways.join(", then "));
        }
    }

    fn carry_out(&self, scope: Scope) -> Result<()> {
        let mut packages: Vec<&str> = self
            .needs
            .iter()
            .flat_map(|(_, packages)| packages)
            .map(String::as_str)
            .collect();
        packages.sort_unstable();
        packages.dedup();
        if !packages.is_empty() {
            println!("installing {} packages", packages.len());
            apt::install(&packages)?;
        }
        for (need, _) in &self.needs {
            match need {
                Need::Linker => linker::install()?,
                Need::Promtool => promtool::unpack()?,
                Need::Compiler | Need::Tool(_) => {}
            }
        }
        let left = need::missing(scope);
        if let Some(need) = left.first() {
            bail!("{need} is still missing after the installation");
        }
        println!("everything is here");
        Ok(())
    }
}

/// Asks on the terminal.
fn confirmed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("there is no terminal to ask on: `cargo xtask setup --yes` does not ask");
    }
    let who = if command::is_root() {
        ""
    } else {
        " (as root, through sudo)"
    };
    print!("Install it{who}? [Y/n] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}
