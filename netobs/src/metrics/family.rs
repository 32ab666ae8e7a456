//! Writing one family.

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelValue, LabelValueEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::ledger::histogram::Histogram;

/// A label: name and value.
pub type Label<'a> = (&'static str, Value<'a>);

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

/// Name, without `_total`, and help of a family. Help holds no backslash and no newline: the
/// encoder writes it as it is.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Without the suffix that the encoder adds to counters.
    pub(super) name: &'static str,
    /// One sentence, without its full stop (the encoder adds one).
    pub(super) help: &'static str,
}

impl Family {
    /// Writes a counter; a family without rows is left out.
    pub(super) fn counter<'a, const N: usize, V: Number>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) -> std::fmt::Result {
        let mut rows = sorted(rows);
        let Some(first) = rows.next() else {
            return Ok(());
        };
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        for (labels, value) in std::iter::once(first).chain(rows) {
            each(&mut family, &labels, |metric| match value.number() {
                Ok(whole) => metric.encode_counter::<NoLabelSet, u64, u64>(&whole, None),
                Err(real) => metric.encode_counter::<NoLabelSet, f64, u64>(&real, None),
            })?;
        }
        Ok(())
    }

    /// Writes a gauge; a family without rows is left out.
    pub(super) fn gauge<'a, const N: usize, V: Number>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) -> std::fmt::Result {
        let mut rows = sorted(rows);
        let Some(first) = rows.next() else {
            return Ok(());
        };
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (labels, value) in std::iter::once(first).chain(rows) {
            each(&mut family, &labels, |metric| match value.number() {
                Ok(whole) => metric.encode_gauge(&i64::try_from(whole).unwrap_or(i64::MAX)),
                Err(real) => metric.encode_gauge(&real),
            })?;
        }
        Ok(())
    }

    /// Writes a histogram; a family without rows is left out.
    pub(super) fn histogram<'a, const N: usize, const B: usize>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = ([Label<'a>; N], &'a Histogram<B>)>,
    ) -> std::fmt::Result {
        let mut rows = sorted(rows);
        let Some(first) = rows.next() else {
            return Ok(());
        };
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        for (labels, histogram) in std::iter::once(first).chain(rows) {
            let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(
                    histogram.sum(),
                    histogram.count(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }
}

/// Writes one row; one without labels has no braces.
fn each<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[Label<'_>; N],
    write: impl FnOnce(&mut MetricEncoder<'_>) -> std::fmt::Result,
) -> std::fmt::Result {
    if N == 0 {
        write(family)
    } else {
        write(&mut family.encode_family(labels)?)
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

/// Rows in the order of their labels, so that two scrapes can be compared.
fn sorted<'a, const N: usize, V>(
    rows: impl IntoIterator<Item = ([Label<'a>; N], V)>,
) -> std::vec::IntoIter<([Label<'a>; N], V)> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    rows.into_iter()
}
