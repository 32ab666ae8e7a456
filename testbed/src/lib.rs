//! Network namespaces, packets and witnesses for kernel tests and benchmarks.
