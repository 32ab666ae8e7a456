//! What every guest holds, whatever its kernel: our first process, payloads, programs, libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::paths::Paths;
use super::{VmOptions, tools};

/// Text files that some programs look for.
const TEXTS: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
];

/// Files and links of a guest.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// From the guest's path to the host's.
    pub(crate) files: BTreeMap<PathBuf, PathBuf>,
    /// From the guest's path to the contents.
    pub(crate) texts: BTreeMap<PathBuf, Vec<u8>>,
    /// Symbolic links and their targets.
    pub(crate) links: BTreeMap<PathBuf, String>,
    /// Paths of the payloads in the guest, in the order of the options.
    pub(crate) payloads: Vec<PathBuf>,
}

impl Content {
    /// Builds the first process, and finds all that the options ask for.
    ///
    /// # Errors
    /// When something cannot be built or found.
    pub(crate) fn collect(paths: &Paths, options: &VmOptions) -> anyhow::Result<Self> {
        let mut content = Self::default();
        content.program(Path::new("/init"), &build_init(paths)?)?;
        for (index, payload) in options.payloads.iter().enumerate() {
            let name = payload
                .path
                .file_name()
                .context("a payload needs a file name")?;
            let guest = Path::new("/vm/payload").join(index.to_string()).join(name);
            content.program(&guest, &strip(paths, &payload.path)?)?;
            content.payloads.push(guest);
        }
        for name in &options.programs {
            let host = tools::find(name).with_context(|| format!("no program {name}"))?;
            content.program(&host, &host)?;
        }
        for (host, guest) in &options.files {
            if !guest.is_absolute() {
                bail!("the guest's path of {} is not absolute", host.display());
            }
            if is_executable(host)? {
                content.program(guest, &strip(paths, host)?)?;
            } else {
                content.files.insert(guest.clone(), host.clone());
            }
        }
        for (path, text) in TEXTS {
            content
                .texts
                .insert(PathBuf::from(path), text.as_bytes().to_vec());
        }
        content.shell()?;
        Ok(content)
    }

    /// Adds a program and the libraries that it is linked with.
    fn program(&mut self, guest: &Path, host: &Path) -> anyhow::Result<()> {
        self.files.insert(guest.to_path_buf(), host.to_path_buf());
        let output = Command::new("ldd")
            .arg(host)
            .stdin(Stdio::null())
            .output()
            .context("failed to run ldd")?;
        // ldd fails for what is linked statically, and for a script.
        let text = String::from_utf8_lossy(&output.stdout);
        for library in libraries(&text)
            .with_context(|| format!("failed to find the libraries of {}", host.display()))?
        {
            self.files.insert(library.clone(), library);
        }
        Ok(())
    }

    /// Adds busybox, when there is one that needs no libraries, under all its names that no other
    /// program has.
    fn shell(&mut self) -> anyhow::Result<()> {
        let Some(busybox) = tools::find("busybox") else {
            return Ok(());
        };
        let output = Command::new(&busybox)
            .arg("--list")
            .stdin(Stdio::null())
            .output()
            .context("failed to run busybox")?;
        let taken: BTreeSet<_> = self
            .files
            .keys()
            .filter_map(|path| path.file_name())
            .collect();
        let names: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|name| !taken.contains(std::ffi::OsStr::new(name)))
            .map(str::to_owned)
            .collect();
        self.program(Path::new("/bin/busybox"), &busybox)?;
        for name in names.iter().filter(|name| *name != "busybox") {
            self.links
                .insert(Path::new("/bin").join(name), "busybox".to_owned());
        }
        Ok(())
    }
}

/// Whether a file may be run.
fn is_executable(file: &Path) -> anyhow::Result<bool> {
    let metadata =
        fs::metadata(file).with_context(|| format!("failed to look at {}", file.display()))?;
    Ok(metadata.permissions().mode() & 0o111 != 0)
}

/// The paths in ldd's output: `name => path (address)`, or `path (address)` for the loader.
fn libraries(text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("=> not found") {
            bail!("{line}");
        }
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        // The kernel's own page, and "statically linked", are no paths.
        if let Some((path, _)) = path
            .rsplit_once(" (")
            .filter(|(path, _)| path.starts_with('/'))
        {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// Builds the guest's first process with the cargo that runs us.
fn build_init(paths: &Paths) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "vm-init",
            "--message-format",
            "json",
        ])
        .current_dir(&paths.workspace)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    if !output.status.success() {
        bail!("failed to build vm-init");
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are not text")?;
    let executable = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .context("cargo did not say where vm-init is")?;
    strip(paths, &executable)
}

/// A copy without debug information, which no guest reads and every guest would have in memory.
/// Names of functions stay. What is no program is taken as it is.
fn strip(paths: &Paths, program: &Path) -> anyhow::Result<PathBuf> {
    let folder = paths.root.join("stripped");
    fs::create_dir_all(&folder).context("failed to create the folder of stripped programs")?;
    let name = program.file_name().context("a program needs a file name")?;
    let target = folder.join(name);
    let status = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .arg(&target)
        .arg("--")
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("failed to run strip")?;
    if status.success() {
        return Ok(target);
    }
    if !program.is_file() {
        bail!("{} is no file", program.display());
    }
    Ok(program.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f00)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f11)\n";
        assert_eq!(
            libraries(text).unwrap(),
            [
                Path::new("/lib/x86_64-linux-gnu/libmnl.so.0"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(libraries("\tstatically linked\n").unwrap().is_empty());
        assert!(libraries("\tlibx.so.1 => not found\n").is_err());
    }
}
