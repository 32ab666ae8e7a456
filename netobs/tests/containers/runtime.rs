//! A containerd of the test's own: its state, its socket, its containers.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use testbed::{Ns, wait_until};

use crate::manifest::DaemonSet;

/// The namespace (containerd's word) that kubelets use.
const NAMESPACE: &str = "k8s.io";
const PATIENCE: Duration = Duration::from_secs(30);
const CONTAINER: &str = "netobs";
/// The pod's name for the kubelet, and in the cgroup's path.
const POD: &str = "0d1f6a52-94c3-4f0e-9b7d-2f7d7c1f0a11";

/// The daemon; stopped, and its files removed, when dropped.
pub(crate) struct Containerd {
    child: Child,
    directory: TempDir,
}

impl Containerd {
    pub(crate) fn start() -> Self {
        let directory = TempDir::with_prefix("netobs-containerd-").unwrap();
        let at = |name: &str| directory.path().join(name);
        // No CRI plugin: it would look for a CNI configuration of the machine.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = \
             [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            at("root"),
            at("state"),
            at("socket"),
            at("opt"),
        );
        fs::write(at("config.toml"), config).unwrap();
        let log = File::create(at("log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { child, directory };
        let answered = wait_until(PATIENCE, "containerd answers", || {
            let mut version = containerd.ctr(&["version"]);
            Ok(version.output()?.status.success())
        });
        if let Err(error) = answered {
            let log = fs::read_to_string(containerd.directory.path().join("log"));
            panic!("{error:#}; its log:\n{}", log.unwrap_or_default());
        }
        containerd
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address")
            .arg(self.directory.path().join("socket"))
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .stdin(Stdio::null());
        ctr
    }

    /// Imports an image as a kubelet's node would hold it; returns its name.
    pub(crate) fn import(&self, file: &Path) -> String {
        let mut import = self.ctr(&["images", "import"]);
        println!("{}", finish(import.arg(file)).trim_end());
        let list = finish(&mut self.ctr(&["images", "list", "--quiet"]));
        list.lines().next().unwrap().to_owned()
    }

    /// Runs the agent in `network`, with the rights of the manifest and in the cgroup of a pod.
    pub(crate) fn run(&self, image: &str, network: &Ns, manifest: &DaemonSet) -> Container<'_> {
        let at = |name: &str| self.directory.path().join(name);
        let (output, pid_file, specification) = (at("output"), at("pid"), at("spec.json"));
        let root = at("rootfs");
        fs::create_dir(&root).unwrap();
        // A writable layer, as every container has: the runtime makes its mount points there.
        finish(self.ctr(&["images", "mount", "--rw", image]).arg(&root));
        let specify = self.specify(image, network, manifest, &root);
        fs::write(&specification, specify.to_string()).unwrap();
        let mut run = self.ctr(&["run", "--detach"]);
        run.arg("--config")
            .arg(&specification)
            .arg("--log-uri")
            .arg(format!("file://{}", output.display()))
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(CONTAINER);
        finish(&mut run);
        let pid = fs::read_to_string(&pid_file).unwrap();
        Container {
            containerd: self,
            pid: pid.trim().parse().unwrap(),
            output,
        }
    }

    /// The container's specification as containerd itself makes it, its seccomp profile included,
    /// with the changes that `ctr` has no option for.
    fn specify(&self, image: &str, network: &Ns, manifest: &DaemonSet, root: &Path) -> Value {
        const DRAFT: &str = "draft";
        let mut create = self.ctr(&["containers", "create"]);
        create
            .args(manifest.options())
            .arg("--with-ns")
            .arg(format!("network:{}", network.path().display()))
            // What the image's own command is for; the manifest says it, too.
            .args([image, DRAFT, "/netobs"])
            .args(manifest.arguments());
        println!("{create:?}");
        finish(&mut create);
        let info = finish(&mut self.ctr(&["containers", "info", DRAFT]));
        finish(&mut self.ctr(&["containers", "delete", DRAFT]));
        let info: Value = serde_json::from_str(&info).unwrap();
        let mut specification = info["Spec"].clone();
        if manifest.host_pid() {
            let namespaces = specification["linux"]["namespaces"].as_array_mut();
            namespaces
                .unwrap()
                .retain(|namespace| namespace["type"] != "pid");
        }
        specification["linux"]["cgroupsPath"] =
            format!("/kubepods/burstable/pod{POD}/{CONTAINER}").into();
        specification["root"]["path"] = root.to_str().unwrap().into();
        specification
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = kill(pid(self.child.id()), Signal::SIGTERM);
        let patience = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > patience {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
        // What a killed container left mounted would keep the folder.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(mount).starts_with(self.directory.path()) {
                let _ = umount2(mount, MntFlags::MNT_DETACH);
            }
        }
    }
}

/// The agent's container; killed and removed when dropped.
pub(crate) struct Container<'a> {
    containerd: &'a Containerd,
    pid: u32,
    output: PathBuf,
}

/// How a container ended.
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) output: String,
}

impl Container<'_> {
    /// The agent's process, in the numbers of the machine.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        let tasks = self.containerd.ctr(&["tasks", "list"]).output();
        tasks.is_ok_and(|list| String::from_utf8_lossy(&list.stdout).contains("RUNNING"))
    }

    /// What the agent wrote.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Stops the agent as a kubelet does.
    pub(crate) fn stop(self) -> Ended {
        kill(pid(self.pid), Signal::SIGTERM).unwrap();
        wait_until(PATIENCE, "the agent ends", || Ok(!self.is_running())).unwrap();
        // `ctr tasks delete` ends with the status of the task.
        let deleted = self.containerd.ctr(&["tasks", "delete", CONTAINER]);
        let status = { deleted }.output().unwrap().status;
        Ended {
            status: status.code().unwrap().unsigned_abs(),
            output: self.output(),
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        for arguments in [
            ["tasks", "kill", "--signal", "SIGKILL", CONTAINER].as_slice(),
            &["tasks", "delete", "--force", CONTAINER],
            &["containers", "delete", CONTAINER],
        ] {
            let _ = self.containerd.ctr(arguments).output();
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// Runs a command that must succeed.
fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
