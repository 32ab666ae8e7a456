//! The kernels of the matrix: which suite has them, and what their packages are called.

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// Where a suite is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Archive {
    /// The main archive.
    Main,
    /// Security updates.
    Security,
    /// What has left the main archive.
    Old,
}

/// A kernel by the pattern of its package names; minor versions move.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Its name in the matrix.
    pub(crate) name: &'static str,
    /// Other names that mean it.
    pub(crate) aliases: &'static [&'static str],
    /// Archives and suites, in order of preference; the first that has a match is used.
    pub(crate) suites: &'static [(Archive, &'static str)],
    /// What the name of the package with the kernel starts with; a digit has to follow.
    pub(crate) image: &'static str,
    /// What has to follow `image`, for suites that have more than one kernel.
    pub(crate) series: &'static str,
    /// What the names of further packages start with, when the kernel is in several.
    pub(crate) companions: &'static [&'static str],
}

/// What the names of all packages end with: the smallest kernel, made for virtual machines.
pub(crate) const FLAVOUR: &str = "-cloud-amd64";

/// The matrix, oldest first.
pub(crate) const SPECS: &[Spec] = &[
    Spec {
        name: "5.10",
        aliases: &["bullseye"],
        suites: &[
            (Archive::Main, "bullseye"),
            (Archive::Security, "bullseye-security"),
            (Archive::Old, "bullseye"),
        ],
        image: "linux-image-",
        series: "5.10.",
        companions: &[],
    },
    Spec {
        name: "6.1",
        aliases: &["bookworm"],
        suites: &[
            (Archive::Main, "bookworm"),
            (Archive::Security, "bookworm-security"),
            (Archive::Old, "bookworm"),
        ],
        image: "linux-image-",
        series: "6.1.",
        companions: &[],
    },
    Spec {
        name: "6.12",
        aliases: &["trixie"],
        suites: &[
            (Archive::Main, "trixie"),
            (Archive::Security, "trixie-security"),
        ],
        image: "linux-image-",
        series: "6.12.",
        companions: &[],
    },
    Spec {
        // Whatever is newest. The image package of that name has held nothing since 7.1.
        name: "sid",
        aliases: &["latest", "7.x", "7.2"],
        suites: &[(Archive::Main, "sid")],
        image: "linux-binary-",
        series: "",
        companions: &["linux-modules-", "linux-base-"],
    },
];

impl Spec {
    /// Whether a package of this name holds this kernel.
    pub(crate) fn is_image(&self, package: &str) -> bool {
        self.abi(package).is_some()
    }

    /// The part of the package's name that its companions share.
    fn abi<'a>(&self, package: &'a str) -> Option<&'a str> {
        let abi = package.strip_prefix(self.image)?;
        let numbered = abi.starts_with(|first: char| first.is_ascii_digit());
        (numbered && abi.starts_with(self.series) && abi.ends_with(FLAVOUR)).then_some(abi)
    }

    /// The names of the further packages that belong to that image.
    pub(crate) fn companions_of(&self, image: &str) -> Vec<String> {
        let abi = self.abi(image).unwrap_or_default();
        self.companions
            .iter()
            .map(|prefix| format!("{prefix}{abi}"))
            .collect()
    }
}

/// The kernels that `names` mean, in the matrix's order; all when there are none.
///
/// # Errors
/// For a name that is no kernel's.
pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<&'static Spec>> {
    let means = |spec: &Spec, name: &str| spec.name == name || spec.aliases.contains(&name);
    for name in names {
        if !SPECS.iter().any(|spec| means(spec, name)) {
            let known: Vec<_> = SPECS.iter().map(|spec| spec.name).collect();
            bail!("unknown kernel {name}: the matrix has {}", known.join(", "));
        }
    }
    let chosen = |spec: &&Spec| names.is_empty() || names.iter().any(|name| means(spec, name));
    Ok(SPECS.iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> &'static Spec {
        select(&[name.to_owned()]).unwrap()[0]
    }

    #[test]
    fn patterns_take_the_signed_cloud_kernel_only() {
        let five = spec("5.10");
        assert!(five.is_image("linux-image-5.10.0-32-cloud-amd64"));
        for other in [
            "linux-image-5.10.0-32-cloud-amd64-unsigned",
            "linux-image-5.10.0-32-cloud-amd64-dbg",
            "linux-image-5.10.0-32-amd64",
            "linux-image-6.1.0-0.deb11.48-cloud-amd64",
            "linux-image-5.100.0-1-cloud-amd64",
            "linux-image-cloud-amd64",
        ] {
            assert!(!five.is_image(other), "{other}");
        }
        assert!(spec("6.12").is_image("linux-image-6.12.107+deb13-cloud-amd64"));
        assert!(!spec("6.1").is_image("linux-image-6.12.107+deb13-cloud-amd64"));
    }

    #[test]
    fn sid_takes_any_version_and_what_belongs_to_it() {
        let sid = spec("7.2");
        let image = "linux-binary-7.3.1+deb14-cloud-amd64";
        assert!(sid.is_image(image));
        assert!(!sid.is_image("linux-binary-unsigned-7.3.1+deb14-cloud-amd64"));
        assert_eq!(
            sid.companions_of(image),
            [
                "linux-modules-7.3.1+deb14-cloud-amd64",
                "linux-base-7.3.1+deb14-cloud-amd64"
            ]
        );
        assert!(
            spec("6.1")
                .companions_of("linux-image-6.1.0-1-cloud-amd64")
                .is_empty()
        );
    }

    #[test]
    fn names_select_in_matrix_order() {
        let names = ["latest".to_owned(), "5.10".to_owned(), "sid".to_owned()];
        let chosen: Vec<_> = select(&names)
            .unwrap()
            .iter()
            .map(|spec| spec.name)
            .collect();
        assert_eq!(chosen, ["5.10", "sid"]);
        assert_eq!(select(&[]).unwrap().len(), SPECS.len());
        assert!(
            select(&["4.19".to_owned()])
                .unwrap_err()
                .to_string()
                .contains("4.19")
        );
    }
}
