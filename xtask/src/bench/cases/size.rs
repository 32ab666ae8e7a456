//! Sizes of binaries.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Case;
use crate::bench::{Bench, Unit, peers};
use crate::build;

pub(super) const CASE: Case = Case {
    name: "size",
    about: "bytes of the binaries",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let size = |path: &Path| -> Result<f64> {
        let length = fs::metadata(path)
            .with_context(|| format!("failed to read the size of {}", path.display()))?
            .len();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let megabytes = length as f64 / 1e6;
        Ok(megabytes)
    };
    let agent = size(&bench.agent)?;
    bench.figure("dynamic", "netobs", Unit::Megabytes, &[agent]);
    if bench.quick {
        bench.absent("netobs, static", "takes a second build: not in a quick run");
    } else {
        let linked_in = build::agent(&build::Args {
            release: true,
            linked_in: true,
            target: None,
        })?;
        bench.figure("static", "netobs", Unit::Megabytes, &[size(&linked_in)?]);
    }
    for peer in ["bpftrace", "prometheus-node-exporter", "tcplife", "rezolus"] {
        match peers::find(peer) {
            Some(path) => bench.figure("dynamic", peer, Unit::Megabytes, &[size(&path)?]),
            None => bench.absent(peer, &peers::absence(peer)),
        }
    }
    Ok(())
}
