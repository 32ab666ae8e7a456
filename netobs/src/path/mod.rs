//! Active path probes: what a request costs from this machine, phase by phase, and why.
//!
//! A [`Plan`] says what is asked for, [`Environment::measure`] asks once and tells what happened in
//! a [`Measurement`]. Each phase is timed where it happens (the datagrams of DNS, the SYN, the
//! handshake, the first byte of the answer), never by subtraction, and each has a limit. Only what
//! was asked for is measured: one family, one address after the other, no race between them, no
//! connection used twice.
//!
//! ```text
//! target, plan -> measure -> resolver -> connect -> tls -> http -> outcome -> story -> waterfall
//!                                 kernel (events of the same sockets, by the agent) -^
//! ```
//!
//! Everything that comes back is hostile: names and addresses are checked, sizes and times are
//! bounded, and text from the network is escaped before it is shown.

mod cause;
mod connect;
mod course;
mod dial;
mod http;
mod kernel;
mod measure;
mod outcome;
mod plan;
mod resolver;
mod story;
mod stream;
mod summary;
mod target;
mod tls;
mod waterfall;

pub use self::{
    cause::ErrorType,
    dial::connect_to,
    kernel::{Ends, KernelFact, KernelStory, NoKernel, STORY, Window},
    measure::Environment,
    outcome::{
        Certificate, Connection, Failure, Http, Lookup, LookupSource, Measurement, Phase,
        PhaseSums, Query, QueryOutcome, SCHEMA_VERSION, Span, Spans, Step, Tls, Transport, seconds,
    },
    plan::{
        DnsOptions, HttpOptions, IpVersion, MAX_REDIRECTS, MAX_TIMEOUT, Plan, PlanError, Slow,
        StatusRange, StatusRangeError, Timeouts, dns_server, given_address, header, header_field,
        method,
    },
    resolver::{Files, response_code},
    story::duration_text,
    summary::{PhaseSummary, Summary},
    target::{Host, Target, TargetError},
    tls::Roots,
    waterfall::{Style, line, table, waterfall},
};
