//! A classic histogram with fixed buckets, kept by the ledger and encoded by the metrics.

/// Counts of observations by upper bound, the last bucket without one.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    counts: [u64; N],
    over: u64,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one; `bounds` ascend.
    #[must_use]
    pub const fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            counts: [0; N],
            over: 0,
            sum: 0.0,
        }
    }

    /// Takes in one value; NaN is not one.
    pub fn observe(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.sum += value;
        let slots = self.bounds.iter().zip(&mut self.counts);
        match slots.into_iter().find(|(bound, _)| value <= **bound) {
            Some((_, count)) => *count += 1,
            None => self.over += 1,
        }
    }

    /// Takes in zero so many times.
    pub fn observe_zeros(&mut self, times: u64) {
        let slots = self.bounds.iter().zip(&mut self.counts);
        match slots.into_iter().find(|(bound, _)| 0.0 <= **bound) {
            Some((_, count)) => *count += times,
            None => self.over += times,
        }
    }

    /// Adds observations that were counted elsewhere: by bucket, the one without a bound last, and
    /// their sum.
    pub fn add(&mut self, counts: impl IntoIterator<Item = u64>, sum: f64) {
        let all = self.counts.iter_mut().chain([&mut self.over]);
        for (count, more) in all.zip(counts) {
            *count += more;
        }
        self.sum += sum;
    }

    /// Adds another's observations.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.over += other.over;
        self.sum += other.sum;
    }

    /// Sum of all values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Number of all values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.over
    }

    /// Upper bounds with the number of values in each bucket, not cumulated; the last is
    /// infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let last = std::iter::once((f64::INFINITY, self.over));
        self.bounds.iter().copied().zip(self.counts).chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        for value in [0.0, 0.5, 0.75, 1.0, 1.1, f64::NAN] {
            histogram.observe(value);
        }
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 3.35).abs() < 1e-9);
    }
}
