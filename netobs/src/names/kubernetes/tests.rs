//! Against an API server in this process, at the speed of a paused clock.
