//! Who it was, where that is easily mistaken: a process id that another takes, a process that passes on
//! its sockets and dies, connections that are made in other ways than `connect()` and `accept()`.
//!
//! Not for guests: they have no compiler and no Python.

mod host_only {
    use std::{
        fs,
        path::{Path, PathBuf},
        process::Command,
    };

    use testbed::{Counters, Family, Listener, NetNs, Ns, feature, only_where, require};

    use crate::support::{Agent, Ledger, Metrics, any, books::DROPS, metrics::Labels};

    const ACCEPTS: &str = "netobs_tcp_accepts_total";
    const CONNECTS: &str = "netobs_tcp_connects_total";
    const FAILURES: &str = "netobs_tcp_connect_failures_total";

    /// Runs a program in a namespace to its end; what it printed.
    fn run(ns: &Ns, program: &Path, arguments: &[&str]) -> String {
        let output = ns.run(|| Command::new(program).args(arguments).output().unwrap());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {} {text}{errors}",
            program.display(),
            output.status
        );
        text
    }

    /// A program from its C source.
    fn compiled(folder: &Path, name: &str, source: &str) -> PathBuf {
        let (file, program) = (folder.join(format!("{name}.c")), folder.join(name));
        fs::write(&file, source).unwrap();
        let output = Command::new("cc")
            .args(["-Wall", "-o"])
            .args([&program, &file])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        program
    }

    fn python(ns: &Ns, script: &str, arguments: &[&str]) {
        let all = [&["-c", script], arguments].concat();
        run(ns, Path::new("python3"), &all);
    }

    fn of(metrics: &Metrics, family: &str, ns: &Ns, process: &str) -> u64 {
        let labels: Labels<'_> = &[("netns", &ns.inode()), ("process", &process)];
        metrics.sum(family, labels)
    }

    /// Children with a process id of their parent's choice, one after the other: `clone3` with
    /// `set_tid`.
    const PIDS: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in to = {.sin_family = AF_INET};

/* A child with this process id; 0 in the child. */
static pid_t as(pid_t pid) {
    for (int i = 0; i < 100; i++) {
        struct clone_args all = {0};
        all.exit_signal = SIGCHLD;
        all.set_tid = (unsigned long)&pid;
        all.set_tid_size = 1;
        long child = syscall(SYS_clone3, &all, sizeof all);
        if (child >= 0) return child;
        if (errno != EEXIST) break;
        usleep(10000);
    }
    perror("clone3");
    exit(1);
}

static void connects(const char *name, int times) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
    for (int i = 0; i < times; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) _exit(1);
        close(fd);
    }
    _exit(0);
}

static void ends(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || status) exit(2);
}

int main(int n, char **arguments) {
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(atoi(arguments[1]));
    pid_t pid = fork();
    if (!pid) _exit(0);
    ends(pid);
    /* The number is free now. One connects under it, then another. */
    pid_t first = as(pid);
    if (!first) connects("first", 3);
    ends(first);
    pid_t second = as(pid);
    if (!second) connects("second", 5);
    ends(second);
    /* One that has the number listens on its parent's socket and dies; then another has it, who has
       nothing to do with the listener. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    own.sin_port = htons(92);
    if (bind(fd, (struct sockaddr *)&own, sizeof own)) return 3;
    pid_t opener = as(pid);
    if (!opener) {
        prctl(PR_SET_NAME, "opener", 0, 0, 0);
        _exit(listen(fd, 16) ? 1 : 0);
    }
    ends(opener);
    pid_t usurper = as(pid);
    if (!usurper) {
        prctl(PR_SET_NAME, "usurper", 0, 0, 0);
        close(fd);
        pause();
    }
    printf("%d\n", pid);
    to.sin_port = own.sin_port;
    for (int i = 0; i < 4; i++) {
        int out = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(out, (struct sockaddr *)&to, sizeof to)) return 4;
        close(accept(fd, NULL, NULL));
        close(out);
    }
    kill(usurper, SIGKILL);
    waitpid(usurper, NULL, 0);
    return 0;
}
"#;

    #[test]
    fn a_process_id_that_others_take_is_told_apart() {
        require!(require::root(), require::command("cc"));
        let agent = Agent::shared();
        let ns = NetNs::new("pids").unwrap();
        let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path(), "pids", PIDS);
        run(&ns, &program, &[&listener.port().to_string()]);
        let metrics = agent.scrape_until("the connects of all", |metrics| {
            metrics.sum(CONNECTS, &[("netns", &ns.inode())]) >= 12
        });
        assert_eq!(of(&metrics, CONNECTS, &ns, "first"), 3, "{}", metrics.text);
        assert_eq!(of(&metrics, CONNECTS, &ns, "second"), 5);
        let metrics = agent.scrape_until("four accepts", |metrics| {
            metrics.sum(ACCEPTS, &[("netns", &ns.inode()), ("local_port", &92)]) >= 4
        });
        assert_eq!(of(&metrics, ACCEPTS, &ns, "opener"), 4, "{}", metrics.text);
        assert_eq!(of(&metrics, ACCEPTS, &ns, "usurper"), 0);
    }

    /// A master that listens, forks workers and renames itself, as prefork servers do: the listener
    /// keeps the name that it was opened under, and so does what its workers accept.
    const PREFORK: &str = "
import os, socket, sys
def name(text):
    open('/proc/self/comm', 'w').write(text)
name('master')
listener = socket.create_server(('127.0.0.1', 93), backlog=64)
workers = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        name('worker %d' % n)
        for _ in range(4):
            listener.accept()[0].close()
        os._exit(0)
    workers.append(pid)
name('renamed')
for _ in range(12):
    socket.create_connection(('127.0.0.1', 93)).close()
for pid in workers:
    os.waitpid(pid, 0)
";

    #[test]
    fn workers_accept_for_the_listener_of_their_master() {
        require!(require::root(), require::command("python3"));
        let agent = Agent::shared();
        let ns = NetNs::new("prefork").unwrap();
        python(&ns, PREFORK, &[]);
        let netns = ns.inode();
        let metrics = agent.scrape_until("twelve accepts", |metrics| {
            metrics.sum(ACCEPTS, &[("netns", &netns)]) >= 12
        });
        assert_eq!(of(&metrics, ACCEPTS, &ns, "master"), 12, "{}", metrics.text);
        assert_eq!(of(&metrics, CONNECTS, &ns, "renamed"), 12);
    }

    /// Accepts by io_uring alone: no `accept()` is called.
    const URING: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    struct io_uring_params setup = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &setup);
    if (ring < 0) {
        printf("absent %s\n", strerror(errno));
        return 0;
    }
    size_t sq_bytes = setup.sq_off.array + setup.sq_entries * sizeof(unsigned);
    size_t cq_bytes = setup.cq_off.cqes + setup.cq_entries * sizeof(struct io_uring_cqe);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    char *sq = mmap(0, sq_bytes, prot, flags, ring, IORING_OFF_SQ_RING);
    char *cq = mmap(0, cq_bytes, prot, flags, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqes =
        mmap(0, setup.sq_entries * sizeof *sqes, prot, flags, ring, IORING_OFF_SQES);
    unsigned *tail = (unsigned *)(sq + setup.sq_off.tail), *array = (unsigned *)(sq + setup.sq_off.array);
    unsigned mask = *(unsigned *)(sq + setup.sq_off.ring_mask);
    unsigned *cq_head = (unsigned *)(cq + setup.cq_off.head);
    unsigned cq_mask = *(unsigned *)(cq + setup.cq_off.ring_mask);
    struct io_uring_cqe *cqes = (struct io_uring_cqe *)(cq + setup.cq_off.cqes);

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(94)};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) || listen(fd, 16)) return 3;
    for (int i = 0; i < 5; i++) {
        int out = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(out, (struct sockaddr *)&own, sizeof own)) return 4;
        unsigned at = *tail & mask;
        memset(&sqes[at], 0, sizeof sqes[at]);
        sqes[at].opcode = IORING_OP_ACCEPT;
        sqes[at].fd = fd;
        array[at] = at;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) return 5;
        struct io_uring_cqe *done = &cqes[*cq_head & cq_mask];
        if (done->res < 0) return 6;
        close(done->res);
        __atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
        close(out);
    }
    puts("done");
    return 0;
}
"#;

    #[test]
    fn accepts_by_io_uring_are_seen_or_said_to_be_missed() {
        require!(require::root(), require::command("cc"));
        let agent = Agent::shared();
        let ns = NetNs::new("uring").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path(), "uring", URING);
        let said = run(&ns, &program, &[]);
        if said.starts_with("absent") {
            eprintln!("io_uring is not for us here: {said}");
            return;
        }
        assert_eq!(
            Counters::read_in(&ns).unwrap().get("Tcp", "PassiveOpens"),
            5
        );
        let netns = ns.inode();
        let metrics = agent.scrape_until("the connects", |metrics| {
            metrics.sum(CONNECTS, &[("netns", &netns)]) >= 5
        });
        let signal: Labels<'_> = &[("signal", &"accept_latency")];
        let info = metrics.all("netobs_signal_info", signal).next().unwrap();
        let exactness = info.labels["exactness"].as_str();
        let accepted = metrics.sum(ACCEPTS, &[("netns", &netns)]);
        match exactness {
            "exact" => assert_eq!(accepted, 5, "{}", metrics.text),
            _ => assert_eq!(
                (exactness, accepted),
                ("lower_bound", 0),
                "{}",
                metrics.text
            ),
        }
        // And `check` says so.
        if exactness != "exact" {
            let [flag, probe] = crate::support::agent::SEES_ACCEPTS;
            let check = crate::support::agent::binary(&["check", "--json", flag, probe])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&check.stdout).into_owned();
            assert!(text.contains("accepts by io_uring"), "{text}");
        }
        Ledger::from_birth(&ns).balanced(agent);
    }

    /// A SYN with data, and one that is refused.
    const FAST_OPEN: &str = "
import socket, sys
def open_fast(port):
    s = socket.socket()
    s.sendto(b'early', socket.MSG_FASTOPEN, ('127.0.0.1', port))
    return s
for _ in range(4):
    s = open_fast(int(sys.argv[1]))
    s.shutdown(socket.SHUT_WR)
    s.close()
for _ in range(3):
    try:
        open_fast(9)
        sys.exit(1)
    except ConnectionRefusedError:
        pass
";

    #[test]
    fn connects_with_data_in_the_syn_are_connects() {
        require!(require::root(), require::command("python3"));
        let agent = Agent::shared();
        let ns = NetNs::new("tfoclient").unwrap();
        only_where!(feature::setting(&ns, "net.ipv4.tcp_fastopen"));
        // Client and server, both without cookies.
        ns.sysctl("net.ipv4.tcp_fastopen", "0x607").unwrap();
        let builder = Listener::builder(any(Family::V4)).backlog(16).fast_open(16);
        let listener = builder.open(&ns).unwrap();
        python(&ns, FAST_OPEN, &[&listener.port().to_string()]);
        assert_eq!(listener.accept_all().unwrap().len(), 4);
        let counted = Counters::read_in(&ns).unwrap();
        assert_eq!(counted.get("TcpExt", "TCPFastOpenActive"), 4, "{counted:?}");
        assert_eq!(counted.get("TcpExt", "TCPFastOpenPassive"), 4);
        assert_eq!(counted.get("Tcp", "ActiveOpens"), 7);
        let netns: Labels<'_> = &[("netns", &ns.inode())];
        let metrics = agent.scrape_until("all connects", |metrics| {
            metrics.sum(CONNECTS, netns) >= 4
                && metrics.sum(FAILURES, netns) >= 3
                && metrics.sum(ACCEPTS, netns) >= 4
        });
        assert_eq!(metrics.sum(CONNECTS, netns), 4, "{}", metrics.text);
        let refused: Labels<'_> = &[("netns", &ns.inode()), ("error_type", &"refused")];
        assert_eq!(metrics.sum(FAILURES, refused), 3);
        assert_eq!(metrics.sum(ACCEPTS, netns), 4);
        Ledger::from_birth(&ns).balanced(agent);
    }

    const MPTCP: &str = "
import socket, sys
for _ in range(4):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    s.connect(('127.0.0.1', int(sys.argv[1])))
    s.send(b'x')
    s.close()
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
try:
    s.connect(('127.0.0.1', 9))
    sys.exit(1)
except ConnectionRefusedError:
    pass
";

    #[test]
    fn mptcp_connects_count_once_and_for_their_process() {
        require!(require::root(), require::command("python3"));
        only_where!(feature::mptcp());
        let agent = Agent::shared();
        let ns = NetNs::new("mptcpclient").unwrap();
        let listener = Listener::builder(any(Family::V4)).backlog(16).mptcp();
        let listener = listener.open(&ns).unwrap();
        python(&ns, MPTCP, &[&listener.port().to_string()]);
        let netns: Labels<'_> = &[("netns", &ns.inode())];
        let metrics = agent.scrape_until("all connects", |metrics| {
            metrics.sum(CONNECTS, netns) >= 4 && metrics.sum(FAILURES, netns) >= 1
        });
        let opened = Counters::read_in(&ns).unwrap().get("Tcp", "ActiveOpens");
        assert_eq!(opened, 5);
        assert_eq!(metrics.sum(CONNECTS, netns), 4, "{}", metrics.text);
        assert_eq!(metrics.sum(FAILURES, netns), 1, "{}", metrics.text);
        let nobodys: Labels<'_> = &[("netns", &ns.inode()), ("process", &"")];
        assert_eq!(metrics.sum(CONNECTS, nobodys), 0, "{}", metrics.text);
    }

    /// A listener whose process has gone by the time that it drops, held by another that was given it.
    const ORPHAN: &str = "
import os, socket, sys
ready, wait = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    open('/proc/self/comm', 'w').write('brief')
    listener = socket.create_server(('127.0.0.1', 95), backlog=2)
    if os.fork() == 0:
        open('/proc/self/comm', 'w').write('heir')
        os.write(ready[1], b'x')
        os.close(ready[1])
        os.close(wait[1])
        os.read(wait[0], 1)
        os._exit(0)
    os._exit(0)
os.waitpid(pid, 0)
os.read(ready[0], 1)
clients = []
for _ in range(3):
    clients.append(socket.create_connection(('127.0.0.1', 95)))
for _ in range(6):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(('127.0.0.1', 95))
    s.close()
";

    #[test]
    fn drops_of_a_listener_whose_process_is_gone_are_its_own() {
        require!(require::root(), require::command("python3"));
        let agent = Agent::shared();
        let ns = NetNs::new("orphan").unwrap();
        python(&ns, ORPHAN, &[]);
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        let dropped = Counters::read_in(&ns).unwrap().get("TcpExt", "ListenDrops");
        assert!(dropped >= 6, "{dropped}");
        assert_eq!(
            of(&metrics, DROPS, &ns, "brief"),
            dropped,
            "{}",
            metrics.text
        );
    }

    /// Two listeners of one program, and one of another, on one port by SO_REUSEPORT: each process has
    /// its own.
    #[test]
    fn members_of_a_group_belong_to_their_processes() {
        require!(require::root(), require::command("python3"));
        let agent = Agent::shared();
        let ns = NetNs::new("groups").unwrap();
        let script = "
import os, socket
def member(name):
    open('/proc/self/comm', 'w').write(name)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(('127.0.0.1', 96))
    s.listen(64)
    return s
members = [member('one'), member('one'), member('two')]
clients = [socket.create_connection(('127.0.0.1', 96)) for _ in range(60)]
import select
got = {'one': 0, 'two': 0}
while sum(got.values()) < 60:
    for s in select.select(members, [], [], 10)[0]:
        s.accept()[0].close()
        got['two' if s is members[2] else 'one'] += 1
open(os.environ['GOT'], 'w').write('%d %d' % (got['one'], got['two']))
";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("got");
        let status = ns.run(|| {
            Command::new("python3")
                .args(["-c", script])
                .env("GOT", &file)
                .status()
                .unwrap()
        });
        assert!(status.success());
        let got = fs::read_to_string(&file).unwrap();
        let mut got = got.split(' ').map(|it| it.parse::<u64>().unwrap());
        let (one, two) = (got.next().unwrap(), got.next().unwrap());
        let metrics = agent.scrape_until("sixty accepts", |metrics| {
            metrics.sum(ACCEPTS, &[("netns", &ns.inode())]) >= 60
        });
        let each = ["one", "two", ""].map(|name| of(&metrics, ACCEPTS, &ns, name));
        // By what accept() returns, which of the sockets it was is not known: nobody's, not anybody's.
        let exact: Labels<'_> = &[("signal", &"accept_latency"), ("exactness", &"exact")];
        let want = match metrics.sum("netobs_signal_info", exact) {
            0 => [0, 0, 60],
            _ => [one, two, 0],
        };
        assert_eq!(each, want, "{}", metrics.text);
    }
}
