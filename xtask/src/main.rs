//! netobs's build, test and set-up tasks.
fn main() {}
