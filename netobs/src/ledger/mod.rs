//! Attribution: what the kernel counted against what netobs explains.
