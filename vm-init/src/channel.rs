//! The numbered lines to the host, over a serial port in raw mode.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use vm_init::{Frame, RESULT_PORT};

/// The result port and the number of the next line.
pub(crate) struct Channel {
    state: Mutex<(File, u64)>,
}

impl Channel {
    /// Opens the port, and turns the line discipline's translations off.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(RESULT_PORT)?;
        let mut settings = tcgetattr(&port).context("failed to read the port's settings")?;
        cfmakeraw(&mut settings);
        tcsetattr(&port, SetArg::TCSANOW, &settings).context("failed to set the port to raw")?;
        Ok(Self {
            state: Mutex::new((port, 0)),
        })
    }

    /// Sends one frame. The host sees a gap in the numbers when this fails.
    pub(crate) fn send(&self, frame: &Frame) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = frame.encode(state.1);
        state.1 += 1;
        if let Err(error) = state.0.write_all(line.as_bytes()) {
            eprintln!("vm-init: failed to write to the result port: {error}");
        }
    }

    /// Waits until the host has everything.
    pub(crate) fn drain(&self) -> anyhow::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        tcdrain(&state.0).context("failed to drain the result port")
    }
}
