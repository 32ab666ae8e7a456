//! What to do when the kernel refuses.

use super::{Capability, Lockdown, Privileges};

/// What to do about a `bpf()` or `perf_event_open()` call that failed with `errno`.
#[must_use]
pub fn bpf_syscall_error_hint(errno: i32, privileges: &Privileges) -> String {
    match errno {
        libc::EPERM | libc::EACCES => permission_hint(privileges),
        libc::ENOENT => "the kernel has no such tracepoint, function or type: check that it has \
                         /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF=y)"
            .to_owned(),
        libc::ENOMEM => "the kernel has no memory for the maps: raise the container's memory \
                         limit, or the locked-memory limit (LimitMEMLOCK=infinity) on kernels \
                         before 5.11"
            .to_owned(),
        libc::E2BIG => "the program is too complex for this kernel's verifier, or asks for a \
                        feature it does not know: use a newer kernel, or switch this probe off"
            .to_owned(),
        libc::ENOSYS => "the kernel is built without bpf() (CONFIG_BPF_SYSCALL)".to_owned(),
        // 524 is the kernel's ENOTSUPP, which libc does not name.
        libc::EINVAL | libc::EOPNOTSUPP | 524 => "this kernel does not support this kind of \
                                                  program or place to attach"
            .to_owned(),
        _ => format!("the kernel refused with error {errno}"),
    }
}

fn permission_hint(privileges: &Privileges) -> String {
    let mut reasons = Vec::new();
    let fatal: Vec<_> = privileges
        .missing()
        .iter()
        .filter(|missing| missing.fatal)
        .map(|it| it.name)
        .collect();
    if !fatal.is_empty() {
        reasons.push(format!(
            "run as root, or grant {} (systemd: AmbientCapabilities=, Kubernetes: \
             securityContext.capabilities.add)",
            fatal.join(" and ")
        ));
    }
    if privileges.in_user_namespace == Some(true) {
        reasons.push(
            "capabilities do not count for BPF in a user namespace (rootless or unprivileged \
             container): run on the host, or without user namespace"
                .to_owned(),
        );
    }
    if privileges.lockdown == Lockdown::Confidentiality {
        reasons.push(
            "kernel lockdown is in confidentiality mode and forbids reading kernel memory: boot \
             with lockdown=integrity, or without it"
                .to_owned(),
        );
    }
    if reasons.is_empty() {
        reasons.push(
            "the capabilities are there, so something else forbids it: a security module \
             (SELinux, AppArmor), a seccomp filter of the container, or how the kernel was built"
                .to_owned(),
        );
        if !privileges.has(Capability::CAP_NET_ADMIN) {
            reasons.push("or, of the probe dns, that CAP_NET_ADMIN is missing".to_owned());
        }
        if !privileges.has(Capability::CAP_SYS_RESOURCE) {
            reasons.push(
                "or, on kernels before 5.11, the locked-memory limit (systemd: \
                 LimitMEMLOCK=infinity; else CAP_SYS_RESOURCE)"
                    .to_owned(),
            );
        }
        if privileges.lockdown == Lockdown::Unknown {
            reasons.push(
                "or kernel lockdown in confidentiality mode, which cannot be told here (mount \
                 securityfs on /sys/kernel/security)"
                    .to_owned(),
            );
        }
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_cause_that_applies() {
        let all = Privileges {
            effective: u64::MAX,
            lockdown: Lockdown::Unknown,
            unprivileged_bpf_disabled: None,
            kernel_release: None,
            in_user_namespace: Some(false),
        };
        let none = Privileges {
            effective: 0,
            ..all.clone()
        };
        let hint = |privileges: &Privileges| bpf_syscall_error_hint(libc::EPERM, privileges);
        assert!(hint(&none).contains("CAP_BPF and CAP_PERFMON"));
        assert!(hint(&all).contains("seccomp") && hint(&all).contains("securityfs"));
        let poor = Privileges {
            effective: !Capability::CAP_NET_ADMIN.bitmask(),
            ..all.clone()
        };
        assert!(hint(&poor).contains("CAP_NET_ADMIN") && !hint(&all).contains("CAP_NET_ADMIN"));
        let locked = Privileges {
            lockdown: Lockdown::Confidentiality,
            ..all.clone()
        };
        assert!(hint(&locked).contains("lockdown=integrity") && !hint(&locked).contains("seccomp"));
        let rootless = Privileges {
            in_user_namespace: Some(true),
            ..all.clone()
        };
        assert!(hint(&rootless).contains("user namespace"));
        assert!(bpf_syscall_error_hint(libc::ENOENT, &all).contains("/sys/kernel/btf/vmlinux"));
        for errno in [libc::ENOMEM, libc::E2BIG, libc::ENOSYS, 524, 9_999] {
            assert!(!bpf_syscall_error_hint(errno, &all).is_empty());
        }
    }
}
