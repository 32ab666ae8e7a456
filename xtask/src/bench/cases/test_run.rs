//! Running programs by hand (`BPF_PROG_TEST_RUN`), where the kernel can.
//!
//! It cannot for most of netobs's: `bpf_prog_test_run_tracing` (net/bpf/test_run.c) knows fentry,
//! fexit and modify_return programs on its own test functions; a `tp_btf` program or an iterator
//! gets EFAULT, a classic tracepoint or a kprobe ENOTSUPP. The case says what the kernel says.

use anyhow::{Context, Result};

use super::Case;
use crate::bench::watcher::NETOBS;
use crate::bench::{Bench, Unit, demanded};

pub(super) const CASE: Case = Case {
    name: "test_run",
    about: "programs run by hand, where their type allows it",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let Some(running) = bench.start(&NETOBS) else {
        return Ok(());
    };
    let mut refused = Vec::new();
    for program in running.process().programs()? {
        let id = program.id.to_string();
        let output = demanded("bpftool")?
            .args(["--json", "prog", "run", "id", &id, "repeat", "100000"])
            .output()
            .context("failed to run bpftool")?;
        #[derive(serde::Deserialize)]
        struct Answer {
            duration: Option<f64>,
            error: Option<String>,
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Answer = serde_json::from_str(&text).unwrap_or(Answer {
            duration: None,
            error: Some("bpftool has no answer".to_owned()),
        });
        match answer {
            Answer {
                duration: Some(nanoseconds),
                ..
            } => bench.figure(
                "per run",
                &format!("program {id}"),
                Unit::Nanoseconds,
                &[nanoseconds],
            ),
            Answer { error, .. } => refused.push(error.unwrap_or_default()),
        }
    }
    running.stop()?;
    refused.sort();
    refused.dedup();
    if !refused.is_empty() {
        bench.absent(
            "netobs's programs",
            &format!(
                "the kernel runs none of these types by hand: {}",
                refused.join("; ")
            ),
        );
    }
    Ok(())
}
