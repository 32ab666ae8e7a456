//! How much room the maps get.

use std::time::Duration;

use netobs_common::names;
use nix::unistd::{SysconfVar, sysconf};

use crate::bpf::DnsMaps;

/// For tests of what happens when a map is full: `MAP=ENTRIES`, separated by commas.
const OF_TESTS: &str = "NETOBS_TEST_MAP_SIZES";
/// For tests that wait for its end: how long what is gone lingers, in seconds.
const LINGER_OF_TESTS: &str = "NETOBS_TEST_LINGER";
/// The least and the most listeners that are followed.
const LISTENERS: (u32, u32) = (2_048, 65_536);
/// Big hosts have more of them: servers open one for each CPU, and more servers run there.
const LISTENERS_PER_CPU: u32 = 128;

/// Maps that get another number of entries (the ring: bytes) than they are declared with; a later one
/// counts. `lookups`: whether name lookups are watched.
pub(super) fn sizes(lookups: bool) -> Vec<(String, u32)> {
    let mut sizes = vec![(names::LISTENERS.to_owned(), listeners(cpus()))];
    if !lookups {
        sizes.extend(DnsMaps::GROWING.map(|map| (map.to_owned(), 1)));
    }
    if let Ok(asked) = std::env::var(OF_TESTS) {
        sizes.extend(
            asked
                .split(',')
                .filter_map(|size| size.split_once('='))
                .filter_map(|(map, entries)| Some((map.to_owned(), entries.parse().ok()?))),
        );
    }
    sizes
}

/// How long the last numbers of what is gone stay, unless a test asks for less.
pub(super) fn linger(usually: Duration) -> Duration {
    let asked = std::env::var(LINGER_OF_TESTS).ok();
    let seconds = asked.and_then(|text| text.parse().ok());
    seconds.map_or(usually, |seconds| Duration::from_secs(seconds).min(usually))
}

/// Each of the agent's ten looks a second walks over as many buckets as there is room for, so that
/// room on a small host is what idling there costs.
fn listeners(cpus: u32) -> u32 {
    let (least, most) = LISTENERS;
    cpus.saturating_mul(LISTENERS_PER_CPU)
        .checked_next_power_of_two()
        .unwrap_or(most)
        .clamp(least, most)
}

/// CPUs of the host, whichever of them this process may use.
fn cpus() -> u32 {
    let configured = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten();
    configured
        .and_then(|cpus| u32::try_from(cpus).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_the_host_and_is_bounded() {
        assert_eq!(listeners(0), 2_048);
        assert_eq!(listeners(2), 2_048);
        assert_eq!(listeners(17), 4_096);
        assert_eq!(listeners(128), 16_384);
        assert_eq!(listeners(1 << 20), 65_536);
        assert_eq!(listeners(u32::MAX), 65_536);
    }
}
