//! Visits to real namespaces. They need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Netns, NetnsError, NetnsId, NetnsWorker, Place, discover, read_counters};
use crate::sys::netstat::Counter;

const PROC: &str = "/proc";

/// True when the test must not run; says why.
fn skipped() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var("NETOBS_REQUIRE").as_deref() != Ok("1"),
        "needs root"
    );
    if !root {
        eprintln!("skipped: needs root");
    }
    !root
}

/// A namespace with a sleeping process in it, and, if asked for, a mount. Gone when dropped.
struct Sandbox {
    id: NetnsId,
    process: Child,
    mount: Option<(tempfile::TempDir, PathBuf)>,
}

impl Sandbox {
    fn new(mounted: bool) -> Self {
        // A thread of its own enters the new namespace; the process inherits it.
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let id = NetnsId::of_this_thread(Path::new(PROC)).unwrap();
            let mount_point = mounted.then(|| {
                let dir = tempfile::tempdir().unwrap();
                let point = dir.path().join("blue");
                fs::write(&point, "").unwrap();
                let from = Some("/proc/thread-self/ns/net");
                mount(from, &point, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
                (dir, point)
            });
            let process = Command::new("sleep")
                .arg("60")
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            Self {
                id,
                process,
                mount: mount_point,
            }
        };
        thread::spawn(make).join().unwrap()
    }

    fn netns(&self) -> Netns {
        Netns {
            id: self.id,
            place: Place::Process(self.process.id()),
            name: None,
        }
    }

    fn end_process(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end_process();
        if let Some((_, point)) = &self.mount {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

fn here() -> NetnsId {
    NetnsId::of_this_thread(Path::new(PROC)).unwrap()
}

#[test]
fn work_runs_inside_and_the_thread_comes_back() {
    if skipped() {
        return;
    }
    let mut sandbox = Sandbox::new(true);
    let worker = NetnsWorker::new(Path::new(PROC));
    let netns = sandbox.netns();
    assert_ne!(sandbox.id, here());
    assert_eq!(worker.run(&netns, here).unwrap(), sandbox.id);
    let home = Netns {
        id: here(),
        place: Place::Process(std::process::id()),
        name: None,
    };
    assert_eq!(worker.run(&home, here).unwrap(), here());

    let found = discover(Path::new(PROC)).unwrap();
    let of = |found: &[Netns], id| found.iter().find(|netns| netns.id == id).cloned();
    let seen = of(&found, sandbox.id).unwrap();
    assert_eq!(
        (&seen.place, seen.name.as_deref()),
        (&netns.place, Some("blue"))
    );
    assert!(of(&found, here()).is_some());
    let reading = read_counters(&worker, &seen).unwrap();
    assert_eq!(reading.counters.get(Counter::RetransSegs), Some(0));

    sandbox.end_process();
    for error in [
        worker.run(&netns, here).err(),
        read_counters(&worker, &netns).err(),
    ] {
        assert!(matches!(error, Some(NetnsError::Gone { .. })), "{error:?}");
    }
    let seen = of(&discover(Path::new(PROC)).unwrap(), sandbox.id).unwrap();
    assert!(
        matches!(&seen.place, Place::Mount(path) if path.ends_with("blue")),
        "{seen:?}"
    );
    assert_eq!(worker.run(&seen, here).unwrap(), sandbox.id);
    assert_eq!(
        read_counters(&worker, &seen)
            .unwrap()
            .counters
            .get(Counter::ListenDrops),
        Some(0)
    );
}

#[test]
fn another_namespace_in_that_place_is_gone() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new(false);
    let worker = NetnsWorker::new(Path::new(PROC));
    let id = NetnsId(sandbox.id.0 ^ 1 << 31);
    let other = Netns {
        id,
        ..sandbox.netns()
    };
    assert!(matches!(worker.run(&other, here), Err(NetnsError::Gone { id: gone }) if gone == id));
    assert!(matches!(
        read_counters(&worker, &other),
        Err(NetnsError::Gone { .. })
    ));
    let file = tempfile::NamedTempFile::new().unwrap();
    let ino = std::os::unix::fs::MetadataExt::ino(&file.as_file().metadata().unwrap());
    let plain = Netns {
        id: NetnsId(u32::try_from(ino).unwrap()),
        place: Place::Mount(file.path().to_owned()),
        name: None,
    };
    assert!(matches!(
        worker.run(&plain, here),
        Err(NetnsError::Gone { .. })
    ));
}

#[test]
fn a_panic_and_a_thread_that_cannot_return_are_survived() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new(false);
    let netns = sandbox.netns();
    let worker = NetnsWorker::new(Path::new(PROC));
    let panicked = worker.run(&netns, || panic!("on purpose"));
    assert!(matches!(panicked, Err(NetnsError::Panicked { .. })));
    let first = worker.run(&netns, nix::unistd::gettid).unwrap();
    assert_eq!(worker.run(&netns, nix::unistd::gettid).unwrap(), first);

    // Without the capability the thread stays where it is: it must not serve again.
    let stuck = worker.run(&netns, || {
        caps::drop(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_SYS_ADMIN,
        )
        .unwrap();
        here()
    });
    assert_eq!(stuck.unwrap(), sandbox.id);
    assert_ne!(worker.run(&netns, nix::unistd::gettid).unwrap(), first);
    assert_eq!(worker.run(&netns, here).unwrap(), sandbox.id);

    let denied = thread::spawn(move || {
        caps::drop(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_SYS_ADMIN,
        )
        .unwrap();
        NetnsWorker::new(Path::new(PROC)).run(&netns, here)
    });
    let error = denied.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
}
