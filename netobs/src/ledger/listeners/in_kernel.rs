//! Where the kernel side counts each drop itself: its counts are taken over.

use super::{Counting, ListenSums, ListenerValues, Reason, Stage, Tracked};

impl Tracked {
    /// Moves what the kernel side has counted since the last time into the series.
    pub(super) fn publish_counted(
        &mut self,
        counting: Counting,
        values: &mut ListenerValues,
        sums: &mut ListenSums,
    ) {
        let listener = &self.latest.listener;
        values.enqueued += listener.enqueued.saturating_sub(self.enqueued);
        values.accepted += listener.accepted.saturating_sub(self.accepted);
        (self.enqueued, self.accepted) = (listener.enqueued, listener.accepted);
        let entered = listener.fills.buckets.iter().zip(self.fills.buckets);
        let millionths = (listener.fills.sum_millionths).saturating_sub(self.fills.sum_millionths);
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        values.fill.add(
            entered.map(|(now, before)| now.saturating_sub(before)),
            millionths as f64 / 1e6,
        );
        self.fills = listener.fills;
        for ((sum, now), before) in values
            .cookies
            .iter_mut()
            .zip(listener.cookies)
            .zip(self.cookies)
        {
            *sum += now.saturating_sub(before);
        }
        self.cookies = listener.cookies;
        if counting != Counting::InKernel {
            return;
        }
        let now = listener.counts;
        for stage in 0..Stage::ALL.len() {
            for reason in 0..Reason::ALL.len() {
                let more =
                    now.drops[stage][reason].saturating_sub(self.counted.drops[stage][reason]);
                values.counts.drops[stage][reason] += more;
                sums.drops += more;
            }
            let more = now.overflows[stage].saturating_sub(self.counted.overflows[stage]);
            values.counts.overflows[stage] += more;
            sums.overflows += more;
        }
        self.counted = now;
        self.confirmed = self.published; // what `sk_drops` says is of no interest
    }
}
