//! An OCI image layout in one tar: <https://github.com/opencontainers/image-spec>, version 1.1.
//!
//! Written by hand: an image is four small JSON documents, and the crates that model all of them
//! would be the largest part of these tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::layer;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// SHA-256 of a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            hex.push_str(&format!("{byte:02x}"));
        }
        Self(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Points to a blob.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: Digest,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

/// What an image runs on.
#[derive(Clone, Copy, Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

/// What all architectures of an image have in common.
pub(super) struct Common {
    /// Full name with tag, such as `example.org/netobs:0.1.0`.
    pub(super) reference: String,
    /// RFC 3339.
    pub(super) created: String,
    /// `org.opencontainers.image.*`.
    pub(super) labels: BTreeMap<&'static str, String>,
    pub(super) entrypoint: &'static str,
    pub(super) command: &'static [&'static str],
    pub(super) ports: &'static [&'static str],
}

/// A layout that grows by one architecture at a time.
pub(super) struct Layout {
    common: Common,
    blobs: BTreeMap<Digest, Vec<u8>>,
    manifests: Vec<Descriptor>,
}

impl Layout {
    pub(super) fn new(common: Common) -> Self {
        Self {
            common,
            blobs: BTreeMap::new(),
            manifests: Vec::new(),
        }
    }

    /// Adds an image of one layer; `architecture` in Go's words, as the specification wants it.
    pub(super) fn add(&mut self, architecture: &'static str, layer: layer::Layer) -> Result<()> {
        let common = &self.common;
        let ports: BTreeMap<_, _> = common.ports.iter().map(|port| (port, json!({}))).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": common.created,
            "config": {
                "Entrypoint": [common.entrypoint],
                "Cmd": common.command,
                "ExposedPorts": ports,
                "Labels": common.labels,
                "User": "0:0",
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
            "history": [{ "created": common.created, "created_by": "cargo xtask image" }],
        });
        let config = self.blob(CONFIG, serde_json::to_vec(&config)?);
        let layer = self.blob(LAYER, layer.bytes);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": self.common.labels,
        });
        let mut manifest = self.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        manifest.platform = Some(Platform {
            architecture,
            os: "linux",
        });
        self.manifests.push(manifest);
        Ok(())
    }

    /// Writes the tar; returns the digest by which a registry or a runtime will know the image.
    pub(super) fn write(mut self, output: impl Write, seconds: u64) -> Result<Digest> {
        let image = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": self.manifests,
            "annotations": self.common.labels,
        });
        let mut image = self.blob(INDEX, serde_json::to_vec(&image)?);
        let digest = image.digest.clone();
        let reference = self.common.reference.clone();
        let tag = reference.rsplit(':').next().unwrap_or_default().to_owned();
        image
            .annotations
            .insert("io.containerd.image.name", reference);
        image
            .annotations
            .insert("org.opencontainers.image.ref.name", tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [image],
        });

        let mut archive = tar::Builder::new(output);
        let mut append = |path: &str, bytes: &[u8]| {
            let size = bytes.len() as u64;
            let mut header = layer::header(tar::EntryType::Regular, 0o644, size, seconds);
            archive
                .append_data(&mut header, path, bytes)
                .with_context(|| format!("failed to write {path} of the layout"))
        };
        append("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append("index.json", &serde_json::to_vec(&index)?)?;
        for (digest, bytes) in &self.blobs {
            append(&format!("blobs/sha256/{}", digest.0), bytes)?;
        }
        archive
            .into_inner()
            .and_then(|mut output| output.flush())
            .context("failed to end the layout")?;
        Ok(digest)
    }

    fn blob(&mut self, media_type: &'static str, bytes: Vec<u8>) -> Descriptor {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        self.blobs.insert(digest.clone(), bytes);
        Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    fn tar() -> Result<(Digest, Vec<u8>)> {
        let mut layout = Layout::new(Common {
            reference: "example.org/a/b:1.2".into(),
            created: "1970-01-01T00:00:07Z".into(),
            labels: BTreeMap::from([("org.opencontainers.image.version", "1.2".into())]),
            entrypoint: "/b",
            command: &["run"],
            ports: &["1/tcp"],
        });
        for architecture in ["amd64", "arm64"] {
            let entry = layer::Entry {
                path: "b".to_owned(),
                mode: 0o755,
                bytes: architecture.into(),
            };
            layout.add(architecture, layer::pack(vec![entry], 7)?)?;
        }
        let mut tar = Vec::new();
        let digest = layout.write(&mut tar, 7)?;
        Ok((digest, tar))
    }

    #[test]
    fn every_descriptor_points_to_a_blob_of_its_size_and_digest() -> Result<()> {
        let (digest, tar) = tar()?;
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar.as_slice()).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(path, bytes);
        }
        let mut seen = 0;
        let mut open = vec![serde_json::from_slice::<Value>(&files["index.json"])?];
        while let Some(document) = open.pop() {
            for key in ["manifests", "layers"] {
                open.extend(document[key].as_array().into_iter().flatten().cloned());
            }
            open.extend(document.get("config").cloned());
            let Some(pointed) = document["digest"].as_str() else {
                continue;
            };
            let blob = &files[&format!("blobs/{}", pointed.replace(':', "/"))];
            assert_eq!(Digest::of(blob).to_string(), pointed);
            assert_eq!(document["size"], blob.len());
            seen += 1;
            if document["mediaType"] != LAYER {
                open.push(serde_json::from_slice(blob)?);
            }
        }
        // The image, and per architecture a manifest, a configuration and a layer.
        assert_eq!(seen, 7);
        let index: Value = serde_json::from_slice(&files["index.json"])?;
        assert_eq!(index["manifests"][0]["digest"], digest.to_string());
        Ok(())
    }

    #[test]
    fn two_layouts_of_the_same_files_are_the_same() -> Result<()> {
        assert_eq!(tar()?, tar()?);
        Ok(())
    }
}
