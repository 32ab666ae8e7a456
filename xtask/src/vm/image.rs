//! The initial file system of one guest.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use vm_init::{MANIFEST_PATH, Manifest};

use super::VmOptions;
use super::content::Content;
use super::cpio::Archive;
use super::modules::{self, Selection};
use super::package::Kernel;
use super::report::Todo;

/// Empty folders that the guest mounts on or writes to.
const FOLDERS: &[&str] = &[
    "/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/out", "/var/tmp",
];

/// Left of a guest's time for booting, for ending a payload and for powering off.
const SPARE: Duration = Duration::from_secs(20);

/// Writes the initial file system for `kernel` to `target`, for what of the payloads is to be done.
///
/// # Errors
/// When a file cannot be read or written, or the kernel lacks a module.
pub(crate) fn write(
    target: &Path,
    kernel: &Kernel,
    content: &Content,
    options: &VmOptions,
    todo: &[Todo],
) -> anyhow::Result<Selection> {
    let selection = modules::select(&kernel.modules)?;
    let file = File::create(target).context("failed to create the initial file system")?;
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
    let manifest = manifest(content, options, todo);
    fill(&mut archive, kernel, content, &selection, manifest)?;
    archive
        .finish()
        .context("failed to write the initial file system")?;
    Ok(selection)
}

fn fill(
    archive: &mut Archive<BufWriter<File>>,
    kernel: &Kernel,
    content: &Content,
    selection: &Selection,
    mut manifest: Manifest,
) -> anyhow::Result<()> {
    for folder in FOLDERS {
        archive.folder(Path::new(folder))?;
    }
    // The kernel opens it for the first process before anything is mounted.
    archive.device(Path::new("/dev/console"), 5, 1)?;
    archive.device(Path::new("/dev/null"), 1, 3)?;
    for (guest, host) in &content.files {
        let bytes = fs::read(host).with_context(|| format!("failed to read {}", host.display()))?;
        archive.file(guest, &bytes)?;
    }
    for (guest, text) in &content.texts {
        archive.file(guest, text)?;
    }
    for (guest, to) in &content.links {
        archive.link(guest, to)?;
    }
    for (order, file) in selection.files.iter().enumerate() {
        let guest = modules::guest_path(order, file);
        archive.file(&guest, &modules::read(&kernel.modules.join(file))?)?;
        manifest.modules.push(guest.to_string_lossy().into_owned());
    }
    archive.file(Path::new(MANIFEST_PATH), manifest.encode().as_bytes())?;
    Ok(())
}

fn manifest(content: &Content, options: &VmOptions, todo: &[Todo]) -> Manifest {
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let timeout = options
        .timeout
        .saturating_sub(SPARE)
        .max(options.timeout / 2);
    let payloads = options
        .payloads
        .iter()
        .zip(&content.payloads)
        .zip(todo)
        .filter_map(|((payload, guest), todo)| {
            let mut args = payload.args.clone();
            match todo {
                Todo::All => {}
                Todo::Tests(names) => {
                    args.push("--exact".to_owned());
                    args.extend(names.iter().cloned());
                }
                Todo::Nothing => return None,
            }
            Some(vm_init::Payload {
                path: guest.to_string_lossy().into_owned(),
                args,
                env: payload.env.clone(),
                timeout,
            })
        })
        .collect();
    Manifest {
        epoch,
        modules: Vec::new(),
        payloads,
    }
}
