//! Work for the kernel's TCP, made in namespaces of the benchmark's own.

pub(super) mod bulk;
pub(super) mod flood;
pub(super) mod hold;
pub(super) mod http;
pub(super) mod storm;
