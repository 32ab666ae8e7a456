//! Compiles the kernel side (`netobs-ebpf`) for the BPF target and leaves the object in
//! `$OUT_DIR/netobs-ebpf`, from where the agent embeds it; notes the revision and the compiler.
//!
//! | variable | effect |
//! |---|---|
//! | `NETOBS_EBPF_TOOLCHAIN` | `debian` or `nightly`: take this compiler for the kernel side, no other |
//! | `NETOBS_DENY_WARNINGS` | `1`: a warning in the kernel side stops the build |

use std::process::ExitCode;

#[path = "build/ebpf.rs"]
mod ebpf;
#[path = "build/revision.rs"]
mod revision;
#[path = "build/strip.rs"]
mod strip;
#[path = "build/toolchain.rs"]
mod toolchain;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    revision::note();
    match ebpf::build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}
