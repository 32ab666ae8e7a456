//! Containers and pods, as the name of a cgroup tells them.

use std::fmt;

/// Digits of a container's id in a path: the runtimes all take 256 bits in hexadecimal.
const CONTAINER_DIGITS: usize = 64;
/// Digits of a pod's uid, dashes not counted.
const POD_DIGITS: usize = 32;
/// Where a uid is parted: 8-4-4-4-12.
const POD_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// What a process or a socket belongs to, as far as its cgroup tells. Small, and cheap to compare:
/// it is the key by which counts are kept. Both empty: no container, or a shape nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    container: Option<ContainerId>,
    pod: Option<PodUid>,
}

impl Workload {
    /// Puts the two together.
    #[must_use]
    pub const fn new(container: Option<ContainerId>, pod: Option<PodUid>) -> Self {
        Self { container, pod }
    }

    /// The container; for what belongs to a pod as a whole, the pod's sandbox.
    #[must_use]
    pub const fn container(&self) -> Option<ContainerId> {
        self.container
    }

    /// The pod.
    #[must_use]
    pub const fn pod(&self) -> Option<PodUid> {
        self.pod
    }

    /// Whether neither is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.container.is_none() && self.pod.is_none()
    }
}

/// The first 12 digits of a container's id, which is how the runtimes' own tools shorten it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId([u8; 6]);

impl ContainerId {
    /// Takes a whole id: 64 digits in lower-case hexadecimal, as every runtime makes them.
    #[must_use]
    pub fn from_hex(id: &str) -> Option<Self> {
        let digits = id.as_bytes();
        if digits.len() != CONTAINER_DIGITS || !digits.iter().copied().all(is_digit) {
            return None;
        }
        bytes(digits.iter().copied()).map(Self)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({self})")
    }
}

/// The uid of a pod, as the kubelet names its cgroup and the container runtime reports it.
///
/// That is the uid of the pod's object in the API, a UUID, except for *static* pods, which the
/// kubelet reads from files: theirs is the hash of the file, 32 digits without dashes. The API
/// knows a static pod by a mirror object with a uid of its own, and has the hash in its annotation
/// `kubernetes.io/config.hash`. The two forms are kept apart and print as they were.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid {
    bytes: [u8; 16],
    is_static: bool,
}

impl PodUid {
    /// Takes `8-4-4-4-12` lower-case hexadecimal digits, or 32 without anything between them.
    #[must_use]
    pub fn parse(uid: &str) -> Option<Self> {
        Self::parted_by(uid, |byte| byte == b'-')
    }

    /// Like [`PodUid::parse`], where something else may stand for the dash.
    pub(super) fn parted_by(uid: &str, is_dash: fn(u8) -> bool) -> Option<Self> {
        let text = uid.as_bytes();
        let is_static = text.len() == POD_DIGITS;
        if !is_static && !is_uuid(text, is_dash) {
            return None;
        }
        let digits = text.iter().copied().filter(|&byte| !is_dash(byte));
        if digits.clone().count() != POD_DIGITS || !digits.clone().all(is_digit) {
            return None;
        }
        Some(Self {
            bytes: bytes(digits)?,
            is_static,
        })
    }

    /// The uid as a number.
    #[must_use]
    pub const fn as_u128(&self) -> u128 {
        u128::from_be_bytes(self.bytes)
    }

    /// Whether it is the hash of a static pod's file and not a uid of the API.
    #[must_use]
    pub const fn is_static(&self) -> bool {
        self.is_static
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.bytes.iter().enumerate() {
            if !self.is_static && matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodUid({self})")
    }
}

/// Whether the parts of a UUID have their lengths; their digits are looked at elsewhere.
fn is_uuid(text: &[u8], is_dash: fn(u8) -> bool) -> bool {
    text.split(|&byte| is_dash(byte))
        .map(<[u8]>::len)
        .eq(POD_PARTS)
}

const fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The first digits, two to a byte; nothing when one is no digit or there are too few.
fn bytes<const N: usize>(mut digits: impl Iterator<Item = u8>) -> Option<[u8; N]> {
    let mut digit = || char::from(digits.next()?).to_digit(16);
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6af3c1f0-35d9-4e0d-92c5-8d5fb5e2e7aa";

    #[test]
    fn a_container_prints_its_first_twelve_digits() {
        assert_eq!(
            ContainerId::from_hex(ID).unwrap().to_string(),
            "0123456789ab"
        );
        for odd in [
            &ID[1..],
            &ID.to_uppercase(),
            &format!("{ID}0"),
            "",
            "docker",
        ] {
            assert_eq!(ContainerId::from_hex(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_pod_prints_as_it_was_named() {
        let pod = PodUid::parse(UID).unwrap();
        assert_eq!(pod.to_string(), UID);
        assert!(!pod.is_static());
        let hash = UID.replace('-', "");
        let static_pod = PodUid::parse(&hash).unwrap();
        assert_eq!(static_pod.to_string(), hash);
        assert!(static_pod.is_static());
        assert_eq!(static_pod.as_u128(), pod.as_u128());
        assert_ne!(static_pod, pod);
    }

    #[test]
    fn what_is_nearly_a_uid_is_none() {
        for odd in [
            "",
            "6af3c1f0",
            "6AF3C1F0-35D9-4E0D-92C5-8D5FB5E2E7AA",
            "6af3c1f0-35d9-4e0d-92c58d5fb5e2e7aa",
            "6af3c1f0-35d9-4e0d-92c5-8d5fb5e2e7a-",
            "6af3c1f0_35d9_4e0d_92c5_8d5fb5e2e7aa",
            "6af3c1f035d94e0d92c58d5fb5e2e7ag",
            "6af3c1f0-35d9-4e0d-92c5-8d5fb5e2e7aa0",
            "-6af3c1f035d94e0d92c58d5fb5e2e7a",
        ] {
            assert_eq!(PodUid::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_key_of_counts_is_small() {
        assert_eq!(size_of::<Workload>(), 24);
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(uid in "[0-9a-f-]{30,38}") {
            if let Some(pod) = PodUid::parse(&uid) {
                prop_assert_eq!(pod.to_string(), uid);
            }
        }
    }
}
