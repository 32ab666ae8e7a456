//! A containerd of the test's own: its state, its socket, its containers.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
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
/// Where the daemon listens, in its directory.
const SOCKET_FOLDER: &str = "run";
/// And the name of its socket.
pub(crate) const SOCKET: &str = "containerd.sock";
/// A CNI plugin that makes no interface. The address belongs to nobody; the CRI plugin insists on
/// one.
const NETWORK_PLUGIN: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
nsenter --net="$CNI_NETNS" ip link set lo up || exit 1
echo '{"cniVersion": "0.4.0", "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],
  "ips": [{"version": "4", "interface": 0, "address": "192.0.2.1/32"}]}'
"#;
/// The pod's name for the kubelet, and in the cgroup's path.
const POD: &str = "0d1f6a52-94c3-4f0e-9b7d-2f7d7c1f0a11";

/// What a container is given besides what the manifest says.
#[derive(Default)]
pub(crate) struct More<'a> {
    pub(crate) arguments: &'a [&'a str],
    /// Folders of the machine and where they appear, read-only.
    pub(crate) folders: Vec<(PathBuf, &'a str)>,
}

/// The daemon; stopped, and its files removed, when dropped.
pub(crate) struct Containerd {
    child: Child,
    directory: TempDir,
}

impl Containerd {
    /// With nothing but what it takes to run a container.
    pub(crate) fn start() -> Self {
        // It would look for a CNI configuration of the machine.
        Self::with(
            "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            |_| String::new(),
        )
    }

    /// With its CRI plugin, as a kubelet has it: sandboxes of `pause`, each in a network namespace
    /// of its own in which nothing but `lo` is up.
    pub(crate) fn start_for_pods(pause: &str) -> Self {
        Self::with("", |directory| {
            let (plugins, networks) = (directory.join("cni"), directory.join("net.d"));
            fs::create_dir(&plugins).unwrap();
            fs::create_dir(&networks).unwrap();
            for name in ["loopback", "nothing"] {
                let plugin = plugins.join(name);
                fs::write(&plugin, NETWORK_PLUGIN).unwrap();
                fs::set_permissions(&plugin, Permissions::from_mode(0o755)).unwrap();
            }
            let network = r#"{"cniVersion": "0.4.0", "name": "none", "type": "nothing"}"#;
            fs::write(networks.join("10-none.conf"), network).unwrap();
            format!(
                "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {pause:?}\n\
                 netns_mounts_under_state_dir = true\nrestrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\n\
                 conf_dir = {networks:?}\n"
            )
        })
    }

    fn with(head: &str, plugins: impl FnOnce(&Path) -> String) -> Self {
        let directory = TempDir::with_prefix("netobs-containerd-").unwrap();
        let at = |name: &str| directory.path().join(name);
        // The socket has a folder of its own, which a container can be given: containerd makes the
        // socket anew when it starts.
        fs::create_dir(at(SOCKET_FOLDER)).unwrap();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{head}[grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n{}",
            at("root"),
            at("state"),
            at(SOCKET_FOLDER).join(SOCKET),
            at("opt"),
            plugins(directory.path()),
        );
        fs::write(at("config.toml"), config).unwrap();
        let containerd = Self {
            child: Self::spawn(directory.path()),
            directory,
        };
        containerd.await_answer();
        containerd
    }

    fn spawn(directory: &Path) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .unwrap();
        Command::new("containerd")
            .arg("--config")
            .arg(directory.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Kills the daemon, not its containers.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(self.directory.path());
        self.await_answer();
    }

    /// The folder that its socket is in.
    pub(crate) fn socket_folder(&self) -> PathBuf {
        self.directory.path().join(SOCKET_FOLDER)
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn await_answer(&self) {
        let answered = wait_until(PATIENCE, "containerd answers", || {
            let mut version = self.ctr(&["version"]);
            Ok(version.output()?.status.success())
        });
        if let Err(error) = answered {
            panic!("{error:#}; its log:\n{}", self.log());
        }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket_folder().join(SOCKET)
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        ctr(&self.socket(), arguments)
    }

    /// Imports an image for pods.
    pub(crate) fn import_for_pods(&self, make: impl FnOnce(&Path) -> PathBuf) {
        let directory = self.directory.path().join("image");
        let file = make(&directory);
        println!(
            "{}",
            finish(self.ctr(&["images", "import"]).arg(file)).trim_end()
        );
    }

    /// Imports an image as a kubelet's node would hold it; returns its name.
    pub(crate) fn import(&self, file: &Path) -> String {
        let mut import = self.ctr(&["images", "import"]);
        println!("{}", finish(import.arg(file)).trim_end());
        let list = finish(&mut self.ctr(&["images", "list", "--quiet"]));
        // The CRI plugin lists an image by its digests as well.
        let mut names = list.lines().filter(|name| name.contains("/netobs:"));
        names.next().unwrap_or_default().to_owned()
    }

    /// Runs the agent in `network`, with the rights of the manifest and in the cgroup of a pod.
    pub(crate) fn run(
        &self,
        image: &str,
        network: &Ns,
        manifest: &DaemonSet,
        more: &More,
    ) -> Container {
        let at = |name: &str| self.directory.path().join(name);
        let (output, pid_file, specification) = (at("output"), at("pid"), at("spec.json"));
        let root = at("rootfs");
        fs::create_dir(&root).unwrap();
        // A writable layer, as every container has: the runtime makes its mount points there.
        finish(self.ctr(&["images", "mount", "--rw", image]).arg(&root));
        let specify = self.specify(image, network, manifest, more, &root);
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
            socket: self.socket(),
            pid: pid.trim().parse().unwrap(),
            output,
        }
    }

    /// The container's specification as containerd itself makes it, its seccomp profile included,
    /// with the changes that `ctr` has no option for.
    fn specify(
        &self,
        image: &str,
        network: &Ns,
        manifest: &DaemonSet,
        more: &More,
        root: &Path,
    ) -> Value {
        const DRAFT: &str = "draft";
        let mut create = self.ctr(&["containers", "create"]);
        create
            .args(manifest.options())
            .arg("--with-ns")
            .arg(format!("network:{}", network.path().display()))
            // What the image's own command is for; the manifest says it, too.
            .args([image, DRAFT, "/netobs"])
            .args(manifest.arguments())
            .args(more.arguments);
        for (source, target) in &more.folders {
            let mounts = format!(
                "type=bind,src={},dst={target},options=rbind:ro",
                source.display()
            );
            create.arg("--mount").arg(mounts);
        }
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
        // Containers outlive the daemon: they go first, and it takes the daemon to end them.
        if !matches!(self.child.try_wait(), Ok(None)) {
            self.child = Self::spawn(self.directory.path());
            let _ = wait_until(PATIENCE, "containerd answers", || {
                Ok(self.ctr(&["version"]).output()?.status.success())
            });
        }
        let tasks = self.ctr(&["tasks", "list", "--quiet"]).output();
        let tasks = tasks.map_or_else(|_| Vec::new(), |list| list.stdout);
        for task in String::from_utf8_lossy(&tasks).lines() {
            for verb in [
                ["tasks", "kill", "--signal", "SIGKILL"].as_slice(),
                &["tasks", "delete", "--force"],
                &["containers", "delete"],
            ] {
                let _ = self.ctr(verb).arg(task).output();
            }
        }
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
pub(crate) struct Container {
    /// The daemon's.
    socket: PathBuf,
    pid: u32,
    output: PathBuf,
}

/// How a container ended.
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) output: String,
}

impl Container {
    /// The agent's process, in the numbers of the machine.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        let tasks = ctr(&self.socket, &["tasks", "list"]).output();
        tasks.is_ok_and(|list| {
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            list.lines()
                .any(|task| task.starts_with(CONTAINER) && task.contains("RUNNING"))
        })
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
        let deleted = ctr(&self.socket, &["tasks", "delete", CONTAINER]);
        let status = { deleted }.output().unwrap().status;
        Ended {
            status: status.code().unwrap().unsigned_abs(),
            output: self.output(),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for arguments in [
            ["tasks", "kill", "--signal", "SIGKILL", CONTAINER].as_slice(),
            &["tasks", "delete", "--force", CONTAINER],
            &["containers", "delete", CONTAINER],
        ] {
            let _ = ctr(&self.socket, arguments).output();
        }
    }
}

/// The tool, for the daemon with this socket.
fn ctr(socket: &Path, arguments: &[&str]) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address")
        .arg(socket)
        .args(["--namespace", NAMESPACE])
        .args(arguments)
        .stdin(Stdio::null());
    ctr
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// Runs a command that must succeed.
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
