//! Where things are kept: everything below `target/vm/`.

use std::path::{Path, PathBuf};

/// The workspace, and the folder of the kernel matrix in its target folder.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Top of the workspace.
    pub(crate) workspace: PathBuf,
    /// `target/vm`.
    pub(crate) root: PathBuf,
}

impl Paths {
    /// The paths of this workspace; `CARGO_TARGET_DIR` is followed.
    pub(crate) fn find() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = manifest.parent().unwrap_or(manifest).to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace.join("target"), |target| workspace.join(target));
        Self {
            workspace,
            root: target.join("vm"),
        }
    }

    /// Which packages each kernel was last found to be.
    pub(crate) fn catalog(&self) -> PathBuf {
        self.root.join("catalog.json")
    }

    /// Held while the rest is changed.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// A package index, by its hash.
    pub(crate) fn index(&self, sha256: &str) -> PathBuf {
        self.root.join("indices").join(format!("{sha256}.xz"))
    }

    /// A package, by its hash.
    pub(crate) fn package(&self, sha256: &str) -> PathBuf {
        self.root.join("packages").join(format!("{sha256}.deb"))
    }

    /// An unpacked kernel, by the hashes of its packages.
    pub(crate) fn kernel(&self, key: &str) -> PathBuf {
        self.root.join("kernels").join(key)
    }

    /// What a run on a kernel leaves: image, console, results, files.
    pub(crate) fn run(&self, kernel: &str) -> PathBuf {
        self.root.join("run").join(kernel)
    }
}
