//! What a kernel test needs from its machine, and what happens when it is not there.
//!
//! A test that cannot run says why and is skipped; with `NETOBS_REQUIRE=1` in the environment
//! (continuous integration) every skip is a failure.

use std::fmt;

/// Something the machine does not offer, in words for the person who runs the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Skips the rest of a test function when a requirement is not met.
///
/// ```no_run
/// testbed::require!(testbed::require::root(), testbed::require::command("nft"));
/// ```
#[macro_export]
macro_rules! require {
    ($($requirement:expr),+ $(,)?) => {
        $(if let Err(missing) = $requirement {
            $crate::require::skip(&missing);
            return;
        })+
    };
}

/// The test runs as root.
///
/// # Errors
/// When it does not.
pub fn root() -> Result<(), Missing> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Missing("needs root, to make network namespaces".into()))
    }
}

/// A command is on `PATH`.
///
/// # Errors
/// When it is not.
pub fn command(name: &str) -> Result<(), Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| directory.join(name).is_file()) {
        Ok(())
    } else {
        Err(Missing(format!("needs the command {name}")))
    }
}

/// The Prometheus server is on `PATH`.
///
/// # Errors
/// When it is not, with how to get it.
pub fn prometheus() -> Result<(), Missing> {
    command("prometheus").map_err(|_| {
        Missing(
            "needs the Prometheus server: `cargo xtask setup` unpacks it from Debian's package \
             into target/tools; or `apt-get install prometheus`"
                .into(),
        )
    })
}

/// A variable of the environment names what the test works on.
///
/// # Errors
/// When it is not set.
pub fn variable(name: &str) -> Result<(), Missing> {
    match std::env::var_os(name) {
        Some(_) => Ok(()),
        None => Err(Missing(format!("needs the variable {name}"))),
    }
}

/// TUN devices can be made.
///
/// # Errors
/// When `/dev/net/tun` is not there or its driver is not loaded.
pub fn tun() -> Result<(), Missing> {
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open(crate::raw::TUN_DEVICE)
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing(format!(
            "needs {}: {error}",
            crate::raw::TUN_DEVICE
        ))),
    }
}

/// Says that the running test is skipped, and why.
///
/// # Panics
/// When `NETOBS_REQUIRE=1` is set: then nothing may be skipped.
pub fn skip(missing: &Missing) {
    if std::env::var_os("NETOBS_REQUIRE").is_some_and(|value| value == "1") {
        panic!("NETOBS_REQUIRE=1, and the test {missing}");
    }
    let thread = std::thread::current();
    eprintln!("skipped {}: {missing}", thread.name().unwrap_or("test"));
}
