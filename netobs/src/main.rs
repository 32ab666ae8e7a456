//! The `netobs` command.
fn main() {}
