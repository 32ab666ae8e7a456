//! Images made here: no registry is asked.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::runtime::finish;

/// An image of one file: Debian's busybox, which is linked statically. It is both what holds a
/// pod's namespaces and what serves in it.
pub(crate) const BUSYBOX: &str = "localhost/netobs-test/busybox:1";

/// Writes the image, in the form of `docker save`, into `directory`; returns its file.
pub(crate) fn busybox(directory: &Path) -> std::path::PathBuf {
    let at = |name: &str| directory.join(name);
    let which = finish(Command::new("sh").args(["-c", "command -v busybox"]));
    fs::create_dir_all(at("layer/bin")).unwrap();
    fs::copy(which.trim(), at("layer/bin/busybox")).unwrap();
    let tar = |file: &Path, folder: &Path, names: &[&str]| {
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(file);
        finish(tar.arg("--directory").arg(folder).args(names));
    };
    tar(&at("layer.tar"), &at("layer"), &["bin"]);
    let sum = finish(Command::new("sha256sum").arg(at("layer.tar")));
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "1000000"]},
        "rootfs": {"type": "layers",
            "diff_ids": [format!("sha256:{}", sum.split(' ').next().unwrap())]},
    });
    fs::write(at("config.json"), config.to_string()).unwrap();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]);
    fs::write(at("manifest.json"), manifest.to_string()).unwrap();
    let image = at("busybox-image.tar");
    tar(
        &image,
        directory,
        &["manifest.json", "config.json", "layer.tar"],
    );
    image
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
