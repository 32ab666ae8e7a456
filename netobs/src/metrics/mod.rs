//! Metric families, by subsystem.
