//! The DaemonSet, read as a container's specification.

use std::{fs, path::Path};

use caps::Capability;
use serde_json::Value;

/// What the manifest says of the agent's pod.
pub(crate) struct DaemonSet {
    pod: Value,
}

impl DaemonSet {
    pub(crate) fn read() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base/daemonset.yaml");
        let text = fs::read_to_string(path).unwrap();
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        Self {
            pod: document["spec"]["template"]["spec"].clone(),
        }
    }

    /// With one capability more, as the chart grants it with `dns: true`.
    pub(crate) fn granting(mut self, capability: &str) -> Self {
        let added = &mut self.pod["containers"][0]["securityContext"]["capabilities"]["add"];
        added.as_array_mut().unwrap().push(capability.into());
        self
    }

    fn container(&self) -> &Value {
        &self.pod["containers"][0]
    }

    /// The agent's arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        strings(&self.container()["args"])
    }

    /// Where the agent serves.
    pub(crate) fn port(&self) -> u16 {
        let port = self.container()["ports"][0]["containerPort"].as_u64();
        u16::try_from(port.unwrap()).unwrap()
    }

    /// The capabilities that are left after all others are dropped.
    pub(crate) fn capabilities(&self) -> Vec<String> {
        let capabilities = &self.container()["securityContext"]["capabilities"];
        assert_eq!(strings(&capabilities["drop"]), ["ALL"]);
        let added = strings(&capabilities["add"]);
        added.iter().map(|name| format!("CAP_{name}")).collect()
    }

    /// The same as the kernel shows them.
    pub(crate) fn capability_mask(&self) -> u64 {
        self.capabilities().iter().fold(0, |mask, name| {
            mask | name.parse::<Capability>().unwrap().bitmask()
        })
    }

    /// Whether the agent sees the node's processes.
    pub(crate) fn host_pid(&self) -> bool {
        self.pod["hostPID"] == true
    }

    /// The options of `ctr` that grant exactly this.
    ///
    /// # Panics
    /// When the manifest asks for what has no option here: then this test would not test it.
    pub(crate) fn options(&self) -> Vec<String> {
        let context = &self.container()["securityContext"];
        assert_eq!(context["privileged"], false);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["runAsUser"], 0);
        assert_eq!(self.pod["hostNetwork"], false);
        assert_eq!(self.pod["volumes"], Value::Null, "mounts are tested, too");
        let mut options = Vec::new();
        if context["readOnlyRootFilesystem"] == true {
            options.push("--read-only".to_owned());
        }
        if context["seccompProfile"]["type"] == "RuntimeDefault" {
            // containerd's default profile is made from the capabilities, for pods as here.
            options.push("--seccomp".to_owned());
        }
        let granted = self.capabilities();
        for capability in DEFAULT {
            if !granted.iter().any(|name| name == capability) {
                options.extend(["--cap-drop".to_owned(), (*capability).to_owned()]);
            }
        }
        for capability in granted {
            options.extend(["--cap-add".to_owned(), capability]);
        }
        options
    }
}

/// What containerd gives a container of which nothing is said.
const DEFAULT: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| item.as_str().unwrap().to_owned()).collect()
}
