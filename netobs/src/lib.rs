//! netobs: a kernel-level TCP observer for Linux.

pub mod agent;
pub mod app;
pub mod audit;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod path;
pub mod probes;
pub mod sys;
pub mod web;
