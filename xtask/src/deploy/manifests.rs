//! The manifests and the chart: valid, the same in what they deploy, and no more rights than said.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::tools::Tools;
use super::{folder, output};
use crate::{command, workspace};

/// Each overlay of the manifests, and the values with which the chart deploys the same.
const SAME: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("overlays/prometheus-operator", &["podMonitor.enabled=true"]),
    ("overlays/with-tracefs", &["tracefs=true"]),
    (NAMED, &["names.pods=true"]),
];

/// The overlay that asks the API server for names of pods.
const NAMED: &str = "overlays/with-pod-names";

/// Values that the chart must refuse.
const REFUSED: &[&[&str]] = &[
    &["port=0"],
    &["prot=10977"],
    &["image.digest=latest"],
    &["capabilities={BPF,PERFMON,ALL}"],
    &["capabilities={SYSLOG}"],
    &["podMonitor.enabled=true", "serviceMonitor.enabled=true"],
    &["serviceMonitor.enabled=true", "service.enabled=false"],
    &["names.pods=true", "serviceAccount.create=false"],
    &["names.criSocket=containerd.sock"],
    // Its folder is mounted, and that would be all of the node.
    &["names.criSocket=/containerd.sock"],
];

/// Everything that can be set, set.
const EVERYTHING: &[&str] = &[
    "image.tag=edge",
    "imagePullSecrets[0].name=registry",
    "log.level=debug",
    "dns=true",
    "extraArgs={--no-probe=kfree_skb}",
    "seLinuxOptions.type=spc_t",
    "tracefs=true",
    "names.criSocket=/run/containerd/containerd.sock",
    "config=[[probe.target]]",
    "networkPolicy.egress[0].ports[0].port=443",
    "priorityClassName=system-node-critical",
    "podAnnotations.a=b",
    "podLabels.c=d",
    "networkPolicy.from[0].namespaceSelector.matchLabels.e=f",
    "serviceMonitor.enabled=true",
    "serviceMonitor.interval=15s",
    "serviceMonitor.labels.g=h",
];

/// Labels that say how an object was deployed, and nothing of what it is.
const OF_HELM: &[&str] = &[
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

pub(super) fn check(tools: &Tools) -> Result<()> {
    command::run_quietly(
        Command::new(&tools.helm)
            .args(["lint", "--strict", "--quiet"])
            .arg(folder().join("helm/netobs")),
    )?;
    let mut rendered = Vec::new();
    for (overlay, values) in SAME {
        let plain = kustomize(tools, overlay)?;
        let chart = helm(tools, values)?;
        same(overlay, &plain, &chart)?;
        for text in [&plain, &chart] {
            rights(text, *overlay == NAMED)?;
        }
        rendered.extend([plain, chart]);
    }
    let everything = helm(tools, EVERYTHING)?;
    let monitor = folder().join("kubernetes/overlays/prometheus-operator/servicemonitor.yaml");
    let monitor = fs::read_to_string(&monitor)
        .with_context(|| format!("failed to read {}", monitor.display()))?;
    monitors(&monitor, &helm(tools, &["serviceMonitor.enabled=true"])?)?;
    rights(&everything, false)?;
    rendered.push(everything);
    for values in REFUSED {
        ensure!(
            helm(tools, values).is_err(),
            "the chart takes --set {}",
            values.join(",")
        );
    }
    validate(tools, &rendered)
}

fn kustomize(tools: &Tools, overlay: &str) -> Result<String> {
    let path = folder().join("kubernetes").join(overlay);
    output(Command::new(&tools.kubectl).arg("kustomize").arg(path))
}

fn helm(tools: &Tools, values: &[&str]) -> Result<String> {
    let mut helm = Command::new(&tools.helm);
    helm.args(["template", "netobs", "--namespace", "netobs"])
        .arg(folder().join("helm/netobs"));
    for value in values {
        helm.args(["--set", value]);
    }
    output(&mut helm)
}

/// The objects of a stream of YAML documents, in the order of their kinds.
fn objects(text: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(text).context("failed to read a manifest")?;
    objects.retain(|object| !object.is_null());
    objects.sort_by_key(|object| object["kind"].to_string());
    Ok(objects)
}

/// An object without what only one of the two ways of deployment adds.
fn plain(mut object: Value) -> Value {
    if let Some(labels) = object
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    {
        labels.retain(|name, _| !OF_HELM.contains(&name.as_str()));
    }
    object
}

/// Compares object by object. The namespace is the manifests' alone: helm makes it, if anybody.
fn same(overlay: &str, kustomized: &str, templated: &str) -> Result<()> {
    let mut ours = objects(kustomized)?;
    ours.retain(|object| object["kind"] != "Namespace");
    let theirs: Vec<Value> = objects(templated)?.into_iter().map(plain).collect();
    let kinds = |objects: &[Value]| {
        let kinds: Vec<String> = objects.iter().map(|o| o["kind"].to_string()).collect();
        kinds.join(", ")
    };
    ensure!(
        ours.len() == theirs.len(),
        "{overlay} has {}, the chart {}",
        kinds(&ours),
        kinds(&theirs)
    );
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if let Some(difference) = difference("", ours, theirs) {
            bail!(
                "{overlay} and the chart differ in {}{difference}",
                ours["kind"]
            );
        }
    }
    Ok(())
}

/// The first place where two values differ, and both.
fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys())
            .find_map(|key| difference(&format!("{path}.{key}"), &ours[key], &theirs[key])),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => (a.iter().zip(b).enumerate())
            .find_map(|(index, (a, b))| difference(&format!("{path}[{index}]"), a, b)),
        _ => (ours != theirs).then(|| format!("{path}: {ours} and {theirs}")),
    }
}

/// The ServiceMonitor that is in no overlay is the chart's.
fn monitors(file: &str, templated: &str) -> Result<()> {
    let ours = objects(file)?;
    let theirs = objects(templated)?.into_iter().map(plain);
    let theirs = theirs.filter(|object| object["kind"] == "ServiceMonitor");
    for (ours, mut theirs) in ours.iter().zip(theirs) {
        if let Some(metadata) = theirs["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        if let Some(difference) = difference("", ours, &theirs) {
            bail!("servicemonitor.yaml and the chart differ in {difference}");
        }
    }
    Ok(())
}

/// What an administrator says yes to, whatever else changes. `named`: when names of pods are asked
/// for.
fn rights(text: &str, named: bool) -> Result<()> {
    for object in objects(text)? {
        let kind = object["kind"].as_str().unwrap_or_default();
        ensure!(
            named || !kind.contains("Role"),
            "netobs asks nothing of the API server, and gets no role there"
        );
        if kind == "ClusterRole" {
            let only =
                json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]);
            ensure!(object["rules"] == only, "the role is more than names take");
        }
        if kind != "DaemonSet" {
            continue;
        }
        let pod = &object["spec"]["template"]["spec"];
        for (path, value) in [
            ("/hostNetwork", Value::Bool(false)),
            ("/automountServiceAccountToken", Value::Bool(named)),
            (
                "/containers/0/securityContext/privileged",
                Value::Bool(false),
            ),
            (
                "/containers/0/securityContext/allowPrivilegeEscalation",
                Value::Bool(false),
            ),
            (
                "/containers/0/securityContext/readOnlyRootFilesystem",
                Value::Bool(true),
            ),
            (
                "/containers/0/securityContext/seccompProfile/type",
                "RuntimeDefault".into(),
            ),
            (
                "/containers/0/securityContext/capabilities/drop/0",
                "ALL".into(),
            ),
        ] {
            ensure!(
                pod.pointer(path) == Some(&value),
                "the DaemonSet's {path} is not {value}"
            );
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let mounts = &pod["containers"][0]["volumeMounts"];
            let read_only = mounts.as_array().into_iter().flatten().all(|mount| {
                mount["name"] != volume["name"] || mount["readOnly"] == Value::Bool(true)
            });
            ensure!(read_only, "the volume {} is writable", volume["name"]);
        }
    }
    Ok(())
}

/// Holds every object against Kubernetes's own schema. Kinds of other projects (the Prometheus
/// Operator's) have none there.
fn validate(tools: &Tools, rendered: &[String]) -> Result<()> {
    let folder = workspace::target_dir().join("tools/rendered");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let mut validate = Command::new(&tools.validate);
    validate.args(["--strict", "--no-warn"]);
    for (index, text) in rendered.iter().enumerate() {
        let path = folder.join(format!("{index}.yaml"));
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        validate.arg(path);
    }
    command::run_quietly(&mut validate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_difference() {
        let (a, b) = (json!({"x": [{"y": 1}]}), json!({"x": [{"y": 2}]}));
        assert_eq!(difference("", &a, &b).as_deref(), Some(".x[0].y: 1 and 2"));
        assert_eq!(
            difference("", &json!({}), &json!({"z": true})).as_deref(),
            Some(".z: null and true")
        );
        assert_eq!(difference("", &a, &a), None);
    }

    #[test]
    fn reads_streams_and_forgets_helms_labels() -> Result<()> {
        let text = "kind: B\nmetadata: {labels: {helm.sh/chart: x, a: b}}\n---\n---\nkind: A\n";
        let objects: Vec<Value> = objects(text)?.into_iter().map(plain).collect();
        assert_eq!(objects[0], json!({"kind": "A"}));
        assert_eq!(objects[1]["metadata"]["labels"], json!({"a": "b"}));
        Ok(())
    }
}
