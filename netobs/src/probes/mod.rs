//! The table of probes, and how each decodes its events.
