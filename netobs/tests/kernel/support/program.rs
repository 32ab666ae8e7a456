//! Real programs in a namespace: started, signalled, ended with the test.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{Ns, wait_until, witness::sockets};

use super::PATIENCE;

/// A program in a namespace, ended with the test.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(ns: &Ns, name: &str, arguments: &[&str]) -> Self {
        let child = ns.run(|| {
            Command::new(name)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        Self(child.unwrap())
    }

    /// Sends a signal to every child that it has now.
    pub(crate) fn signal_children(&self, signal: Signal) {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        for child in children.split_whitespace() {
            kill(Pid::from_raw(child.parse().unwrap()), signal).unwrap();
        }
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn ends(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Runs a program in a namespace to its end; what it printed.
pub(crate) fn run(ns: &Ns, name: &str, arguments: &[&str]) -> String {
    let output = ns.run(|| Command::new(name).args(arguments).output().unwrap());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{errors}");
    text
}

pub(crate) fn wait_listening(ns: &Ns, port: u16) {
    wait_until(PATIENCE, "a listening port", || sockets::listens(ns, port)).unwrap();
}

/// nginx that answers "hello" on port 88 of the loopback address, with this backlog.
pub(crate) fn nginx(ns: &Ns, folder: &std::path::Path, backlog: u32) -> Program {
    let folder = folder.display();
    let configuration = format!(
        "daemon off; master_process on; worker_processes 2; pid {folder}/pid;\n\
         error_log {folder}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n\
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         keepalive_requests 1;\n\
         server {{ listen 127.0.0.1:88 backlog={backlog}; return 200 'hello'; }} }}\n"
    );
    let file = format!("{folder}/nginx.conf");
    fs::write(&file, configuration).unwrap();
    let program = Program::start(ns, "nginx", &["-c", &file]);
    wait_listening(ns, 88);
    program
}

/// haproxy on port 90, which checks whether port 89 answers, every so many milliseconds.
pub(crate) fn haproxy(ns: &Ns, folder: &std::path::Path, every: u32) -> Program {
    let configuration = format!(
        "defaults\n mode tcp\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
         listen checked\n bind 127.0.0.1:90\n server one 127.0.0.1:89 check inter {every}ms\n"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, configuration).unwrap();
    Program::start(ns, "haproxy", &["-db", "-f", file.to_str().unwrap()])
}
