//! A family: what it is called, and how its rows are written.

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelValue, LabelValueEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::ledger::histogram::Histogram;

/// A label's value; escaped by the encoder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A number.
    Number(u64),
    /// An address.
    Address(IpAddr),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl EncodeLabelValue for Value<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => encoder.write_str(text),
            Self::Number(number) => write!(encoder, "{number}"),
            Self::Address(address) => write!(encoder, "{address}"),
        }
    }
}

/// A family: the one place where its name, type, labels and help stand. Help holds no backslash and
/// no newline: the encoder writes it as it is.
#[derive(Clone, Copy)]
pub(super) struct Family<K, const N: usize> {
    /// Without the suffix that the encoder adds to counters.
    pub(super) name: &'static str,
    /// [`Counter`], [`Gauge`] or [`Buckets`].
    pub(super) kind: K,
    /// Names of its labels, in the order of the values in a row.
    pub(super) labels: [&'static str; N],
    /// One sentence, without its full stop (the encoder adds one).
    pub(super) help: &'static str,
}

/// A family as documentation shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// As exposed: counters with their `_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence, without its full stop.
    pub help: &'static str,
}

/// Declares the families of a subsystem, each once, and `descriptions()` of all of them.
macro_rules! families {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),* $(,)?] $help:literal;)+) => {
        $(const $name: $crate::metrics::family::Family<$crate::metrics::family::$kind, { let labels: &[&str] = &[$($label),*]; labels.len() }> = $crate::metrics::family::Family {
            name: $text,
            kind: $crate::metrics::family::$kind,
            labels: [$($label),*],
            help: $help,
        };)+

        pub(super) fn descriptions() -> impl Iterator<Item = $crate::metrics::Description> {
            [$({
                const FAMILY: &$crate::metrics::family::Family<$crate::metrics::family::$kind, { let labels: &[&str] = &[$($label),*]; labels.len() }> = &$name;
                FAMILY.describe()
            }),+].into_iter()
        }
    };
}
pub(super) use families;

impl<K: Kind, const N: usize> Family<K, N> {
    /// Writes the family, its rows in the order of their labels, so that two scrapes can be
    /// compared; one without rows is left out.
    pub(super) fn encode<'a, V>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = ([Value<'a>; N], V)>,
    ) -> std::fmt::Result
    where
        K: Writes<V>,
    {
        let mut rows: Vec<_> = rows.into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut family = encoder.encode_descriptor(self.name, self.help, None, K::TYPE)?;
        for (values, value) in rows {
            if N == 0 {
                self.kind.write(value, &mut family)?; // without braces
                continue;
            }
            let mut names = self.labels.into_iter();
            let labels = values.map(|value| (names.next().unwrap_or_default(), value));
            self.kind
                .write(value, &mut family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// What documentation says of it.
    pub(super) fn describe(&'static self) -> Description {
        Description {
            name: format!("{}{}", self.name, K::SUFFIX),
            kind: K::NAME,
            labels: &self.labels,
            help: self.help,
        }
    }
}

/// The type of a family.
pub(super) trait Kind {
    /// For the encoder.
    const TYPE: MetricType;
    /// As the exposition names it.
    const NAME: &'static str;
    /// What the encoder adds to the family's name.
    const SUFFIX: &'static str = "";
}

/// A family whose rows hold values of type `V`.
pub(super) trait Writes<V>: Kind {
    /// Writes the value of one row.
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> std::fmt::Result;
}

/// Only ever grows.
#[derive(Clone, Copy)]
pub(super) struct Counter;

impl Kind for Counter {
    const TYPE: MetricType = MetricType::Counter;
    const NAME: &'static str = "counter";
    const SUFFIX: &'static str = "_total";
}

impl<V: Number> Writes<V> for Counter {
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> std::fmt::Result {
        match value.number() {
            Ok(whole) => metric.encode_counter::<NoLabelSet, u64, u64>(&whole, None),
            Err(real) => metric.encode_counter::<NoLabelSet, f64, u64>(&real, None),
        }
    }
}

/// A value of now.
#[derive(Clone, Copy)]
pub(super) struct Gauge;

impl Kind for Gauge {
    const TYPE: MetricType = MetricType::Gauge;
    const NAME: &'static str = "gauge";
}

impl<V: Number> Writes<V> for Gauge {
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> std::fmt::Result {
        match value.number() {
            Ok(whole) => metric.encode_gauge(&i64::try_from(whole).unwrap_or(i64::MAX)),
            Err(real) => metric.encode_gauge(&real),
        }
    }
}

/// Observations by upper bound.
#[derive(Clone, Copy)]
pub(super) struct Buckets;

impl Kind for Buckets {
    const TYPE: MetricType = MetricType::Histogram;
    const NAME: &'static str = "histogram";
}

impl<const B: usize> Writes<&Histogram<B>> for Buckets {
    fn write(&self, value: &Histogram<B>, metric: &mut MetricEncoder<'_>) -> std::fmt::Result {
        let buckets: Vec<(f64, u64)> = value.buckets().collect();
        metric.encode_histogram::<NoLabelSet>(value.sum(), value.count(), &buckets, None)
    }
}

/// A value of a counter or gauge: whole where it can be.
pub(super) trait Number {
    /// The whole number, or the real one.
    fn number(self) -> Result<u64, f64>;
}

impl Number for u64 {
    fn number(self) -> Result<u64, f64> {
        Ok(self)
    }
}

impl Number for i64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "differences are small; a gauge is a float"
    )]
    fn number(self) -> Result<u64, f64> {
        u64::try_from(self).map_err(|_| self as f64)
    }
}

impl Number for bool {
    fn number(self) -> Result<u64, f64> {
        Ok(u64::from(self))
    }
}

impl Number for f64 {
    fn number(self) -> Result<u64, f64> {
        Err(self)
    }
}
