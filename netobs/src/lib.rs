//! netobs: a kernel-level TCP observer for Linux.

pub mod agent;
pub mod app;
pub mod audit;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod diagnose;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod path;
pub mod probes;
pub mod recorder;
pub mod sys;
pub mod top;
pub mod trace;
pub mod web;
