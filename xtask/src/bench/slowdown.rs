//! How much slower work goes while somebody watches.

use anyhow::Result;

use super::watcher::{NETOBS, Watcher};
use super::{Bench, Unit};

/// Who nobody's work is held against.
pub(super) const NOTHING: &str = "nothing";

/// Measures a rate with nothing attached and with each watcher, in turns, and notes the rates and
/// their ratios to nothing. `work` returns a rate: more is better.
pub(super) fn slowdown(
    bench: &mut Bench,
    measure: &str,
    unit: Unit,
    others: &[Watcher],
    mut work: impl FnMut() -> Result<f64>,
) -> Result<()> {
    // The first time, caches and pages are cold.
    work()?;
    let mut watchers = vec![NETOBS];
    watchers.extend(others);
    let mut columns: Vec<(&str, Vec<f64>)> = vec![(NOTHING, Vec::new())];
    columns.extend(watchers.iter().map(|watcher| (watcher.name, Vec::new())));
    for _ in 0..bench.rounds() {
        let Some(((_, alone), watched)) = columns.split_first_mut() else {
            break;
        };
        alone.push(work()?);
        for (watcher, (_, rates)) in watchers.iter().zip(watched) {
            // A gap would set its ratios against other rounds.
            rates.push(match bench.start(watcher) {
                None => f64::NAN,
                Some(running) => {
                    let rate = work()?;
                    running.stop()?;
                    rate
                }
            });
        }
    }
    bench.paired(measure, unit, &columns);
    Ok(())
}
