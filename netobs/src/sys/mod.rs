//! Facts about this machine: BTF, kallsyms, /proc, network namespaces, privileges.
