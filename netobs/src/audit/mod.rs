//! The sysctl auditor.
