//! Families of the flight recorder.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::families;
use crate::recorder::Stats;

families! {
    EVENTS = Counter "netobs_recorder_events" []
        "Events that the flight recorder took in";
    MEMORY_BYTES = Gauge "netobs_recorder_memory_bytes" []
        "Compressed bytes of the flight recorder in memory";
    MEMORY_EVENTS = Gauge "netobs_recorder_memory_events" []
        "Events of the flight recorder in memory";
    WRITTEN = Counter "netobs_recorder_written_events" []
        "Events that the flight recorder wrote to files";
    DROPPED = Counter "netobs_recorder_dropped_events" ["reason"]
        "Events that are not in the flight recorder's files: queue_full when the disk was too slow, \
        disk when it was full or refused";
    BYTES = Gauge "netobs_recorder_file_bytes" []
        "Bytes of the flight recorder's files";
    SEGMENTS = Gauge "netobs_recorder_segments" []
        "Files of the flight recorder";
    ERRORS = Counter "netobs_recorder_errors" []
        "Failures to write, create or remove a file of the flight recorder";
    WRITING = Gauge "netobs_recorder_writing" []
        "Whether the flight recorder can write its files: 0 after a failure, until it has worked again";
}

pub(super) fn encode(
    view: Option<&Stats>,
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    let Some(view) = view else { return Ok(()) };
    EVENTS.encode(encoder, [([], view.events)])?;
    MEMORY_BYTES.encode(encoder, [([], view.memory_bytes)])?;
    MEMORY_EVENTS.encode(encoder, [([], view.memory_events)])?;
    let Some(files) = &view.files else {
        return Ok(());
    };
    WRITTEN.encode(encoder, [([], files.written)])?;
    DROPPED.encode(
        encoder,
        [
            (["queue_full".into()], files.lost_queue),
            (["disk".into()], files.lost_disk),
        ],
    )?;
    BYTES.encode(encoder, [([], files.bytes)])?;
    SEGMENTS.encode(encoder, [([], files.segments)])?;
    ERRORS.encode(encoder, [([], files.errors)])?;
    WRITING.encode(encoder, [([], files.writing)])
}
