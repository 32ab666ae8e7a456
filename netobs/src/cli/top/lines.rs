//! `netobs top --json`: one object for each reading.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
};

use anyhow::Context as _;

use super::{TopArgs, source::Source};
use crate::{
    sys::signals::EndSignals,
    top::{Model, model::Tables},
};

pub(super) fn run(
    args: &TopArgs,
    signals: &EndSignals,
    known_probes: &[&str],
) -> anyhow::Result<()> {
    let mut source = Source::start(args, known_probes)?;
    source.harden();
    let mut model = Model::default();
    let mut written = 0;
    let mut result = Ok(());
    source.run(
        signals,
        || false,
        |reading| {
            result = write(&model.take(&reading));
            written += 1;
            if result.is_err() || args.count.is_some_and(|count| written >= count) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?;
    match result {
        // Who read has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("failed to write to stdout"),
    }
}

fn write(tables: &Tables) -> io::Result<()> {
    let mut line = serde_json::to_vec(tables)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
