//! nginx and wrk, on the two ends of a link.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testbed::{Link, NetNs};

use crate::bench::peers;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(10);

/// A web server in one namespace and its clients in another.
pub(crate) struct Http {
    nginx: Child,
    link: Link,
    _place: TempDir,
    _spaces: [NetNs; 2],
}

impl Http {
    /// # Errors
    /// When nginx is missing or does not start; its name is in the message then.
    pub(crate) fn new() -> Result<Self> {
        let program = peers::find("nginx").with_context(|| peers::absence("nginx"))?;
        ensure!(peers::find("wrk").is_some(), "{}", peers::absence("wrk"));
        let spaces = [NetNs::new("clients")?, NetNs::new("server")?];
        let [clients, server] = &spaces;
        let link = Link::veth(clients, server)?;
        // As on a machine that serves: no port runs out.
        for ns in &spaces {
            ns.sysctl("net.ipv4.tcp_max_tw_buckets", "1")?;
            ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        }
        let place = tempfile::tempdir().context("failed to make a temporary folder")?;
        let folder = place.path().display();
        let settings = place.path().join("nginx.conf");
        fs::write(
            &settings,
            format!(
                "daemon off; worker_processes 1; user root; pid {folder}/pid;\n\
                 error_log {folder}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; keepalive_requests 1000000;\n\
                 client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
                 fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n\
                 scgi_temp_path {folder}/scgi;\n\
                 server {{ listen {PORT}; location / {{ return 200 'ok'; }} }} }}\n"
            ),
        )
        .context("failed to write nginx.conf")?;
        let nginx = server
            .run(|| {
                Command::new(program)
                    .arg("-c")
                    .arg(&settings)
                    .args(["-e", "stderr"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
            })
            .context("failed to start nginx")?;
        let http = Self {
            nginx,
            link,
            _place: place,
            _spaces: spaces,
        };
        let begun = Instant::now();
        let address = std::net::SocketAddr::new(http.link.b.v4(), PORT);
        while http
            .link
            .a
            .ns()
            .run(|| std::net::TcpStream::connect(address))
            .is_err()
        {
            ensure!(begun.elapsed() < PATIENCE, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(http)
    }

    /// Requests a second over this many seconds; with `close`, each on a connection of its own.
    pub(crate) fn requests(&self, seconds: u64, close: bool) -> Result<f64> {
        let wrk = peers::find("wrk").with_context(|| peers::absence("wrk"))?;
        let url = format!("http://{}:{PORT}/", self.link.b.v4());
        let output = self
            .link
            .a
            .ns()
            .run(|| {
                let mut command = Command::new(wrk);
                command.args(["-t", "1", "-c", "16", "-d", &format!("{seconds}s")]);
                if close {
                    command.args(["-H", "Connection: close"]);
                }
                command.arg(&url).output()
            })
            .context("failed to run wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
            .and_then(|rate| rate.trim().parse().ok())
            .with_context(|| format!("wrk said no rate: {text}"))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // Its worker ends with it. There is nobody to report to.
        if let Ok(pid) = i32::try_from(self.nginx.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.nginx.wait();
    }
}
