//! Whether this machine has received any packet since it was last asked.
//!
//! kernel: net/core/net-procfs.c `softnet_seq_show`: a line per CPU, whose first number net/core/dev.c
//! `__netif_receive_skb_core` raises for each packet, of any device (loopback too) in any network
//! namespace, before a protocol sees it. The same wherever it is read.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

/// A line has 135 bytes (since 5.10), and a machine at most 8,192 CPUs.
const BYTES_LIMIT: usize = 2 << 20;
/// Most questions in a row that are spared when packets arrive all the time.
const MOST_SPARED: u32 = 8;

/// Asks, and remembers the answer of before.
#[derive(Debug)]
pub struct Arrivals {
    file: File,
    before: Vec<u8>,
    now: Vec<u8>,
    /// For how many questions the answer is taken for known.
    spare: u32,
    /// How many are spared when packets have arrived the next time.
    next_spare: u32,
}

impl Arrivals {
    /// Opens `net/softnet_stat` below a `/proc`; it stays open.
    ///
    /// # Errors
    ///
    /// What opening it returned.
    pub fn open(proc_root: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(proc_root.join("net/softnet_stat"))?,
            before: Vec::new(),
            now: vec![0; 4096],
            spare: 0,
            next_spare: 1,
        })
    }

    /// Whether there may have been any: false only if there was none since the last question but one.
    ///
    /// A packet is counted before the protocols handle it, so what was counted at one question may
    /// not have been handled before the next. And where packets arrive all the time, the kernel is
    /// not asked each time.
    pub fn any(&mut self) -> bool {
        if self.spare > 0 {
            self.spare -= 1;
            return true;
        }
        let Some(length) = self.read() else {
            return true;
        };
        let now = self.now.get(..length).unwrap_or_default();
        if now == self.before {
            self.next_spare = 1;
            return false;
        }
        self.before.clear();
        self.before.extend_from_slice(now);
        self.spare = self.next_spare;
        self.next_spare = (self.next_spare * 2).min(MOST_SPARED);
        true
    }

    /// Reads the file from its beginning; returns how long it is, `None` when it cannot be read.
    fn read(&mut self) -> Option<usize> {
        let mut length = 0;
        loop {
            if length == self.now.len() {
                if length >= BYTES_LIMIT {
                    return None;
                }
                self.now.resize(length * 2, 0);
            }
            let at = u64::try_from(length).ok()?;
            match self.file.read_at(self.now.get_mut(length..)?, at) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        (length > 0).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fixture(text: &str) -> (tempfile::TempDir, Arrivals) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("net")).unwrap();
        fs::write(root.path().join("net/softnet_stat"), text).unwrap();
        let arrivals = Arrivals::open(root.path()).unwrap();
        (root, arrivals)
    }

    fn write(root: &tempfile::TempDir, text: &str) {
        fs::write(root.path().join("net/softnet_stat"), text).unwrap();
    }

    #[test]
    fn no_packet_is_said_once_the_last_one_must_have_been_handled() {
        let (root, mut arrivals) = fixture("00000001 00000000\n00000000 00000000\n");
        let mut answers = |number: usize| (0..number).map(|_| arrivals.any()).collect::<Vec<_>>();
        // The first answer has nothing before it, and the next one is the question after.
        assert_eq!(answers(4), [true, true, false, false]);
        write(&root, "00000001 00000000\n00000001 00000000\n");
        assert_eq!(answers(4), [true, true, false, false]);
    }

    #[test]
    fn questions_are_spared_while_packets_arrive() {
        let (root, mut arrivals) = fixture("0\n");
        let mut asked = 0;
        for packet in 0..100 {
            write(&root, &format!("{packet:08x}\n"));
            asked += u32::from(arrivals.spare == 0);
            assert!(arrivals.any());
        }
        assert!(asked < 20, "{asked}");
        let quiet = (0..20).position(|_| !arrivals.any()).unwrap();
        assert!(quiet <= 9, "{quiet}");
        // And then it is as quick to answer as ever.
        write(&root, "1\n");
        assert!(arrivals.any() && arrivals.any() && !arrivals.any());
    }

    #[test]
    fn a_machine_with_many_cpus_is_read_whole() {
        let line = format!("{}\n", "0".repeat(134));
        let (root, mut arrivals) = fixture(&line.repeat(512));
        assert!(arrivals.any() && arrivals.any() && !arrivals.any());
        write(&root, &format!("{}1{}", line.repeat(511), &line[1..]));
        assert!(arrivals.any());
    }

    #[test]
    fn what_cannot_be_read_tells_nothing() {
        let (_root, mut empty) = fixture("");
        assert!((0..5).all(|_| empty.any()));
        assert!(Arrivals::open(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_kernel_counts_what_loopback_carries() {
        let Ok(mut arrivals) = Arrivals::open(Path::new("/proc")) else {
            eprintln!("skipped: this kernel has no softnet_stat");
            return;
        };
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = arrivals
            .read()
            .map(|length| arrivals.now[..length].to_vec());
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let after = arrivals
            .read()
            .map(|length| arrivals.now[..length].to_vec());
        assert_ne!(before, after);
    }
}
