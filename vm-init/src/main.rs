//! The first process of a test guest: prepares the kernel, runs what the manifest names, powers off.
//!
//! Only for a throw-away guest: it refuses to run as anything but process 1.

mod channel;
mod prepare;
mod run;

use anyhow::{Context, bail};
use nix::sys::reboot::{RebootMode, reboot};
use vm_init::{Frame, MANIFEST_PATH, Manifest};

use channel::Channel;

fn main() -> anyhow::Result<()> {
    if std::process::id() != 1 {
        bail!("vm-init is the first process of a test guest; refusing to run as another");
    }
    if let Err(error) = serve() {
        // The console is all that is left to say it on.
        eprintln!("vm-init: {error:#}");
    }
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).context("failed to power off")?;
    Ok(())
}

fn serve() -> anyhow::Result<()> {
    let mut faults = prepare::mounts();
    let channel = Channel::open().context("failed to open the result port")?;
    channel.send(&Frame::Boot {
        release: prepare::release()?,
    });
    let text = std::fs::read_to_string(MANIFEST_PATH).context("failed to read the manifest")?;
    let manifest = Manifest::parse(&text)?;
    faults.extend(prepare::clock(manifest.epoch));
    faults.extend(prepare::modules(&manifest.modules));
    faults.extend(prepare::loopback());
    for text in faults {
        channel.send(&Frame::Fault { text });
    }
    for (index, payload) in manifest.payloads.iter().enumerate() {
        run::payload(&channel, index, payload);
    }
    run::send_files(&channel);
    channel.send(&Frame::Done);
    channel.drain()
}
