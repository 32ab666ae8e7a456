//! The hashes of a running agent, as the kernel has them.

use std::{
    collections::BTreeMap,
    fs,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// `enum bpf_map_type`.
const HASH: u64 = 1;
const PERCPU_HASH: u64 = 5;

/// A hash.
#[derive(Debug)]
pub(crate) struct HashOf {
    fd: OwnedFd,
    key: usize,
    value: usize,
    per_cpu: bool,
}

/// Members of `union bpf_attr` for the commands on elements.
#[repr(C)]
struct Element {
    fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Members of `union bpf_attr` for `BPF_MAP_GET_FD_BY_ID` and `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Get {
    id_or_fd: u32,
    length: u32,
    info: u64,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
    let attributes: *const T = attributes;
    // SAFETY: pointer and size are those of a live value; what its members point to lives and is as long
    // as the kernel expects, as the callers see to.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) }
}

/// The hashes of a process, by name.
pub(crate) fn of_process(pid: u32) -> BTreeMap<String, HashOf> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let number = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        };
        let (Some(kind), Some(id)) = (number("map_type:"), number("map_id:")) else {
            continue;
        };
        if kind != HASH && kind != PERCPU_HASH {
            continue;
        }
        let get = Get {
            id_or_fd: u32::try_from(id).unwrap(),
            length: 0,
            info: 0,
        };
        let fd = bpf(MAP_GET_FD_BY_ID, &get);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) };
        let size = |key: &str| usize::try_from(number(key).unwrap()).unwrap();
        let map = HashOf {
            key: size("key_size:"),
            value: size("value_size:"),
            per_cpu: kind == PERCPU_HASH,
            fd,
        };
        found.insert(map.name(), map);
    }
    found
}

impl HashOf {
    fn raw(&self) -> u32 {
        u32::try_from(self.fd.as_raw_fd()).unwrap()
    }

    fn name(&self) -> String {
        // `struct bpf_map_info`: the name is behind six words.
        let mut info = [0_u8; 80];
        let get = Get {
            id_or_fd: self.raw(),
            length: 80,
            info: info.as_mut_ptr() as u64,
        };
        assert_eq!(bpf(OBJ_GET_INFO_BY_FD, &get), 0);
        let name = info[24..40].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(name.to_vec()).unwrap()
    }

    /// Every key.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key];
            let element = Element {
                fd: self.raw(),
                padding: 0,
                key: keys.last().map_or(0, |key| key.as_ptr() as u64),
                value: next.as_mut_ptr() as u64,
                flags: 0,
            };
            // One that was deleted meanwhile leads to the first: the same are met again.
            if bpf(MAP_GET_NEXT_KEY, &element) != 0 || keys.len() > 1_000_000 {
                keys.sort();
                keys.dedup();
                return keys;
            }
            keys.push(next);
        }
    }

    /// The value of a key: of a map by CPU, all of them.
    pub(crate) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let cpus = if self.per_cpu { 1024 } else { 1 };
        let mut value = vec![0; self.value.next_multiple_of(8) * cpus];
        let element = Element {
            fd: self.raw(),
            padding: 0,
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        (bpf(MAP_LOOKUP_ELEM, &element) == 0).then_some(value)
    }

    /// Puts zeros at a key; whether there was room.
    pub(crate) fn put_zeros(&self, key: &[u8]) -> bool {
        let value = vec![0_u8; self.value.next_multiple_of(8)];
        let element = Element {
            fd: self.raw(),
            padding: 0,
            key: key.as_ptr() as u64,
            value: value.as_ptr() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &element) == 0
    }

    /// How many entries have to do with one of these namespaces: its number is in the key, or where the
    /// key is an address, in the value.
    pub(crate) fn of_namespaces(&self, numbers: &[u32]) -> usize {
        let names = |bytes: &[u8]| {
            let mut words = bytes.chunks_exact(4);
            words.any(|word| numbers.contains(&u32::from_ne_bytes(word.try_into().unwrap())))
        };
        let keys = self.keys();
        let those = keys.iter().filter(|key| {
            names(key) || (self.key == 8 && self.value(key).is_some_and(|value| names(&value)))
        });
        those.count()
    }
}
