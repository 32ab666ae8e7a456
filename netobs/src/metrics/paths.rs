//! Families of the path probes.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::families;
use crate::ledger::paths::PathBook;

families! {
    DURATION = Buckets "netobs_probe_duration_seconds" ["target", "phase"]
        "Time of each phase of a path probe; one that failed counts with the time until it did";
    SUCCESS = Gauge "netobs_probe_success" ["target"]
        "Whether the last measurement of a target was as expected";
    FAILURES = Counter "netobs_probe_failures" ["target", "phase", "error_type"]
        "Measurements that failed, by the phase and the kind of cause";
    SKIPPED = Counter "netobs_probe_skipped" ["target"]
        "Intervals in which a target was not measured: it failed before and is asked less often, or too many others were being measured";
    EXPIRY = Gauge "netobs_probe_tls_certificate_expiry_timestamp_seconds" ["target"]
        "When the first certificate of the chain ends, in seconds since 1970";
}

/// Writes the families.
///
/// # Errors
///
/// When the encoder's buffer refuses.
pub fn encode(book: &PathBook, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    DURATION.encode(
        encoder,
        book.all().flat_map(|(name, target)| {
            let times = target.times();
            times.map(move |(phase, times)| ([name.into(), phase.into()], times))
        }),
    )?;
    let last = book.all().filter_map(|(name, target)| {
        let (measurement, _) = target.last.as_ref()?;
        Some(([name.into()], measurement.success))
    });
    SUCCESS.encode(encoder, last)?;
    FAILURES.encode(
        encoder,
        book.all().flat_map(|(name, target)| {
            target.failures().map(move |(phase, error_type, count)| {
                let labels = [name.into(), phase.name().into(), error_type.name().into()];
                (labels, count)
            })
        }),
    )?;
    SKIPPED.encode(
        encoder,
        book.all()
            .map(|(name, target)| ([name.into()], target.skipped)),
    )?;
    EXPIRY.encode(
        encoder,
        book.all()
            .filter_map(|(name, target)| Some(([name.into()], target.certificate_expiry?))),
    )
}
