//! Namespaces whose numbers no later test meets again.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

use testbed::{NetNs, Ns};

/// Every namespace made here: as long as a descriptor holds it, its number is not used again.
static KEPT: Mutex<Vec<Ns>> = Mutex::new(Vec::new());
/// Numbers of namespaces that came to a real end.
static SPENT: LazyLock<Mutex<HashSet<u32>>> = LazyLock::new(Mutex::default);

/// A namespace for one test.
///
/// The agent shows the series of a namespace for two minutes after its end, and goes on with them if
/// another one has the number by then. Tests that share an agent must not see each other's: so
/// what the test lets go of cannot be entered any more, as if it were gone, but keeps its number.
pub(crate) fn space(name: &str) -> NetNs {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let ns = NetNs::new(name).unwrap();
        kept.push(Ns::clone(&ns));
        if !spent.contains(&ns.inode()) {
            return ns;
        }
    }
}

/// A namespace for a test about its real end: [`space`] will not give its number to another.
pub(crate) fn mortal_space(name: &str) -> NetNs {
    let ns = NetNs::new(name).unwrap();
    let mut spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
    spent.insert(ns.inode());
    ns
}
