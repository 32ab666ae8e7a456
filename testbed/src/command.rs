//! `ip` and `nft`, run inside a namespace.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{netns::Ns, raw::Family};

/// Runs `ip -batch -` in `ns` with one command a line; the first failure ends the batch.
///
/// # Errors
/// When `ip` is not installed or refuses a line; its own words are in the error.
pub(crate) fn ip(ns: &Ns, lines: &str) -> Result<()> {
    run(ns, "ip", &["-batch", "-"], lines).map(drop)
}

/// As [`ip`], for commands that do not show their family by an address.
///
/// # Errors
/// As [`ip`].
pub(crate) fn ip_in_family(ns: &Ns, family: Family, lines: &str) -> Result<()> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    run(ns, "ip", &[family, "-batch", "-"], lines).map(drop)
}

/// Runs `nft -f -` in `ns`.
///
/// # Errors
/// When `nft` is not installed or refuses the rules; its own words are in the error.
pub(crate) fn nft(ns: &Ns, rules: &str) -> Result<()> {
    run(ns, "nft", &["-f", "-"], rules).map(drop)
}

/// Runs `program` in `ns`, feeds `input` and returns what it printed.
///
/// # Errors
/// When the program is not there, cannot be run or ends with another status than 0.
pub(crate) fn run(ns: &Ns, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let output = ns.run(|| -> Result<_> {
        let mut child = match Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("the command {program} is not on PATH")
            }
            Err(error) => return Err(error).with_context(|| format!("run {program}")),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends early says why on its standard error; that is the better report.
            match stdin.write_all(input.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    return Err(error).with_context(|| format!("write to {program}"));
                }
                _ => {}
            }
        }
        child
            .wait_with_output()
            .with_context(|| format!("wait for {program}"))
    })?;
    if !output.status.success() {
        bail!(
            "{program} in {} ended with {}: {} (input: {})",
            ns.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            input.trim(),
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what {program} printed"))
}
