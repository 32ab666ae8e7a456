//! Pods as a kubelet makes them: sandboxes with network namespaces of their own, in cgroups of
//! pods' names, under containerd's CRI plugin; and the agent, in a container itself, which tells
//! whose each drop is.

use std::{
    env, fs,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{Counters, NetNs, Ns, connect_nonblocking, dns::NameServer, require, wait_until};

use crate::{
    IMAGE, PATIENCE,
    cri::{Cri, Metadata, Sandbox},
    http,
    images::{self, BUSYBOX},
    manifest::DaemonSet,
    runtime::{Container, Containerd, More, SOCKET},
};

/// Where the agent finds the runtime's folder.
const FOLDER: &str = "/cri";
/// More than the queue of busybox' server takes, by far.
const CONNECTIONS: usize = 40;
const DROPS: &str = "netobs_tcp_listen_drops_total{";
const LIMIT: &str = "netobs_tcp_accept_queue_limit{";
/// How long series of what is gone stay, and as much again as a look and a discovery take.
const GONE: Duration = Duration::from_secs(120 + 20);

/// A pod with servers in it.
struct Pod {
    sandbox: Sandbox,
    name: &'static str,
    uid: &'static str,
}

/// A server in a pod.
struct Server {
    id: String,
    ns: Ns,
    process: Pid,
    port: u16,
}

impl Pod {
    fn run(cri: &Cri<'_>, name: &'static str, uid: &'static str, parent: &str) -> Self {
        let metadata = Metadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            attempt: 0,
        };
        Self {
            sandbox: cri.run_pod(metadata, &parent.replace("{uid}", uid)),
            name,
            uid,
        }
    }

    fn serve(&self, cri: &Cri<'_>, container: &str, attempt: u32, port: u16) -> Server {
        let address = format!("127.0.0.1:{port}");
        let command = ["/bin/busybox", "httpd", "-f", "-p", &address];
        let id = cri.run_container(&self.sandbox, container, attempt, BUSYBOX, &command);
        let process = cri.process(&id);
        let ns = Ns::open(Path::new(&format!("/proc/{process}/ns/net"))).unwrap();
        Server {
            id,
            ns,
            process: Pid::from_raw(i32::try_from(process).unwrap()),
            port,
        }
    }

    /// The labels of a server in it.
    fn labels(&self, container: &str, server: &Server) -> Vec<String> {
        vec![
            format!("netns=\"{}\"", server.ns.inode()),
            "process=\"busybox\"".to_owned(),
            format!("container_id=\"{}\"", &server.id[..12]),
            format!("pod_uid=\"{}\"", self.uid),
            "namespace=\"shop\"".to_owned(),
            format!("pod=\"{}\"", self.name),
            format!("container=\"{container}\""),
            format!("local_port=\"{}\"", server.port),
        ]
    }
}

impl Server {
    /// Stops the server and connects more often than its queue takes; returns how many drops the
    /// kernel counted in the namespace, and what keeps them from being more.
    fn overflow(&self) -> (u64, Vec<OwnedFd>) {
        let before = Counters::read_in(&self.ns).unwrap();
        kill(self.process, Signal::SIGSTOP).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let connect = || -> Result<Vec<OwnedFd>> {
            (0..CONNECTIONS)
                .map(|_| connect_nonblocking(address))
                .collect()
        };
        let sockets = self.ns.run(connect).unwrap();
        let drops = || -> Result<u64> {
            let now = Counters::read_in(&self.ns)?.since(&before);
            Ok(now.get("TcpExt", "ListenDrops"))
        };
        wait_until(PATIENCE, "the kernel counts drops", || Ok(drops()? >= 20)).unwrap();
        // Without these nobody tries again.
        drop(sockets);
        (drops().unwrap(), Vec::new())
    }
}

/// The agent's answers.
struct Agent<'a> {
    ns: &'a NetNs,
    port: u16,
    container: Container,
}

impl Agent<'_> {
    fn body(&self) -> Result<String> {
        // Containers outlive their runtime.
        let process = format!("/proc/{}/exe", self.container.pid());
        ensure!(
            fs::read_link(process).is_ok(),
            "the agent ended; it said:\n{}",
            self.container.output()
        );
        Ok(http::get(self.ns, self.port, "/metrics")?.body)
    }

    /// The lines of a family that have all these labels.
    fn lines(&self, family: &str, labels: &[String]) -> Result<Vec<String>> {
        let body = self.body()?;
        let has_all = |line: &&str| labels.iter().all(|label| line.contains(label));
        let lines = body.lines().filter(|line| line.starts_with(family));
        Ok(lines.filter(has_all).map(str::to_owned).collect())
    }

    fn sum(&self, family: &str, labels: &[String]) -> Result<u64> {
        let lines = self.lines(family, labels)?;
        let values = lines.iter().map(|line| {
            let value = line.rsplit(' ').next().context("a line without a value")?;
            Ok(value.parse::<u64>()?)
        });
        values.sum()
    }

    /// Waits until a family has a series with these labels.
    fn shows(&self, what: &str, family: &str, labels: &[String]) {
        let shown = wait_until(PATIENCE, what, || {
            Ok(!self.lines(family, labels)?.is_empty())
        });
        if let Err(error) = shown {
            let like = self.lines(family, &labels[..1]);
            panic!(
                "{error:#}: no {labels:?}, but {like:#?}; the agent said:\n{}",
                self.container.output()
            );
        }
    }

    /// Causes drops and waits until they are, exactly, this server's.
    fn attributes(&self, pod: &Pod, container: &str, server: &Server) {
        let labels = pod.labels(container, server);
        let before = self.sum(DROPS, &labels).unwrap();
        let (drops, _) = server.overflow();
        let attributed = wait_until(PATIENCE, "every drop is attributed", || {
            Ok(self.sum(DROPS, &labels)? == before + drops)
        });
        let lines = self.lines(DROPS, &labels[..1]).unwrap();
        println!("{drops} drops in {}/{container}:", pod.name);
        for line in lines.iter().filter(|line| !line.ends_with(" 0")) {
            println!("  {line}");
        }
        if let Err(error) = attributed {
            panic!("{error:#}; the agent said:\n{}", self.container.output());
        }
    }
}

/// The machine's control groups. An agent that shares the machine's process ids finds them through
/// process 1, unless that may not be looked at, as in some virtual machines.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Looks up a name that is answered and one that is not, for ever.
const LOOKUPS: &str = "while :; do /bin/busybox nslookup ok.example 127.0.0.1; \
                       /bin/busybox nslookup never.example 127.0.0.1; done";

/// A container of the pod looks up names: the lookups are told by container and pod, those without
/// an answer too.
fn looks_up_names(cri: &Cri<'_>, agent: &Agent<'_>, pod: &Pod, neighbour: &Server) {
    let _names = NameServer::open(&neighbour.ns, [127, 0, 0, 1].into()).unwrap();
    let command = ["/bin/busybox", "sh", "-c", LOOKUPS];
    let id = cri.run_container(&pod.sandbox, "client", 0, BUSYBOX, &command);
    let labels = vec![
        format!("netns=\"{}\"", neighbour.ns.inode()),
        format!("container_id=\"{}\"", &id[..12]),
        format!("pod_uid=\"{}\"", pod.uid),
        "namespace=\"shop\"".to_owned(),
        format!("pod=\"{}\"", pod.name),
        "container=\"client\"".to_owned(),
    ];
    for family in [
        "netobs_dns_lookup_duration_seconds_count{",
        "netobs_dns_unanswered_total{",
    ] {
        let counted = wait_until(PATIENCE, "lookups of a pod", || {
            Ok(agent.sum(family, &labels)? > 0)
        });
        for line in agent.lines(family, &labels[..1]).unwrap() {
            println!("  {line}");
        }
        if let Err(error) = counted {
            panic!(
                "{error:#}: {family} of {labels:?}; the agent said:\n{}",
                agent.container.output()
            );
        }
    }
    cri.remove_container(&id);
}

#[test]
fn drops_in_pods_are_told_by_container_and_pod() {
    require!(
        require::root(),
        require::command("containerd"),
        require::command("ctr"),
        require::command("runc"),
        require::command("busybox"),
        require::variable(IMAGE),
    );
    // The chart's `dns: true`.
    let daemonset = DaemonSet::read().granting("NET_ADMIN");
    let mut containerd = Containerd::start_for_pods(BUSYBOX);
    containerd.import_for_pods(images::busybox);
    let image = containerd.import(Path::new(&env::var_os(IMAGE).unwrap()));
    let own = NetNs::new("agent").unwrap();
    let socket = format!("{FOLDER}/{SOCKET}");
    let container = containerd.run(
        &image,
        &own,
        &daemonset,
        &More {
            arguments: &["--kubernetes.cri-socket", &socket, "--probe", "dns"],
            folders: vec![
                (containerd.socket_folder(), FOLDER),
                (PathBuf::from(CGROUPS), "/cgroups"),
            ],
        },
    );
    let agent = Agent {
        ns: &own,
        port: daemonset.port(),
        container,
    };
    wait_until(PATIENCE, "the agent is ready", || {
        agent.body().map(|_| true).or(Ok(false))
    })
    .unwrap();

    // The shapes of the kubelet's two drivers, and its three classes.
    let path = containerd.socket();
    let cri = Cri::new(&path);
    cri.await_ready();
    let web = Pod::run(
        &cri,
        "web-1",
        "11111111-2222-4333-8444-555555555501",
        "/kubepods/burstable/pod{uid}",
    );
    let api = Pod::run(
        &cri,
        "api-1",
        "11111111-2222-4333-8444-555555555502",
        "/kubepods/pod{uid}",
    );
    let sliced = "11111111-2222-4333-8444-555555555503";
    let slice = format!(
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
        sliced.replace('-', "_")
    );
    let batch = Pod::run(&cri, "batch-1", sliced, &slice);

    let nginx = web.serve(&cri, "nginx", 0, 8080);
    let side = web.serve(&cri, "side", 0, 8081);
    let main = api.serve(&cri, "main", 0, 8080);
    let job = batch.serve(&cri, "job", 0, 8080);
    assert_eq!(nginx.ns.inode(), side.ns.inode(), "one pod, one namespace");
    assert_ne!(nginx.ns.inode(), main.ns.inode());
    for (pod, container, server) in [
        (&web, "nginx", &nginx),
        (&web, "side", &side),
        (&api, "main", &main),
        (&batch, "job", &job),
    ] {
        agent.shows(
            "its listener is known by name",
            LIMIT,
            &pod.labels(container, server),
        );
        agent.attributes(pod, container, server);
    }

    looks_up_names(&cri, &agent, &api, &main);

    // A container that is started anew is another one, under the same name.
    cri.remove_container(&main.id);
    let again = api.serve(&cri, "main", 1, 8080);
    assert_ne!(main.id, again.id);
    agent.shows(
        "the new container is known",
        LIMIT,
        &api.labels("main", &again),
    );
    agent.attributes(&api, "main", &again);

    // The runtime goes away and comes back; what is known stays, and what is new is learned.
    containerd.crash();
    let known = agent.lines(DROPS, &web.labels("nginx", &nginx)).unwrap();
    assert!(!known.is_empty());
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(
        agent.lines(DROPS, &web.labels("nginx", &nginx)).unwrap(),
        known
    );
    containerd.restart();
    cri.await_ready();
    let late = Pod::run(
        &cri,
        "late-1",
        "11111111-2222-4333-8444-555555555504",
        "/kubepods/besteffort/pod{uid}",
    );
    let server = late.serve(&cri, "late", 0, 8080);
    agent.shows(
        "a pod after the restart",
        LIMIT,
        &late.labels("late", &server),
    );

    // A pod that is removed takes its series along, after a while; the others stay.
    let gone = ["pod=\"web-1\"".to_owned()];
    cri.remove_pod(&web.sandbox);
    let removed = Instant::now();
    assert!(!agent.lines("netobs_", &gone).unwrap().is_empty());
    wait_until(GONE, "the pod's series are gone", || {
        Ok(agent.lines("netobs_", &gone)?.is_empty())
    })
    .unwrap();
    println!(
        "the series of web-1 were gone after {:?}",
        removed.elapsed()
    );
    // Not only its name: nothing is left of its containers.
    let left = ["pod_uid=\"11111111-2222-4333-8444-555555555501\"".to_owned()];
    assert!(agent.lines("netobs_", &left).unwrap().is_empty());
    assert!(
        !agent
            .lines(DROPS, &batch.labels("job", &job))
            .unwrap()
            .is_empty()
    );

    for pod in [&api, &batch, &late] {
        cri.remove_pod(&pod.sandbox);
    }
    let said = agent.container.stop();
    assert_eq!(said.status, 0, "{}", said.output);
}
