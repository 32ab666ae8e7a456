//! A family: what it is called, and how its rows are written.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::IpAddr,
};

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
        MetricEncoder, NoLabelSet,
    },
    metrics::MetricType,
};

use netobs_common::connection::{LATENCY_BOUNDS_NS, Latencies};

use crate::{
    ledger::{
        histogram::Histogram,
        owner::{Names, Owner, PodName},
    },
    sys::{
        cgroup::{ContainerId, PodUid},
        owner::Comm,
    },
};

/// A label's value; escaped by the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A number.
    Number(u64),
    /// An address.
    Address(IpAddr),
    /// The name of a process.
    Process(Comm),
    /// A container.
    Container(ContainerId),
    /// A pod.
    Pod(PodUid),
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

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Process(name) => write!(f, "{name}"),
            Self::Container(id) => write!(f, "{id}"),
            Self::Pod(uid) => write!(f, "{uid}"),
        }
    }
}

impl EncodeLabelValue for Value<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => encoder.write_str(text),
            other => write!(encoder, "{other}"),
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

/// The labels of a family: its own, behind those of an owner for `owner`.
macro_rules! labels {
    (; $($label:literal),*) => { [$($label),*] };
    (owner; $($label:literal),*) => {
        ["netns", "process", "container_id", "pod_uid", "namespace", "pod", "container", $($label),*]
    };
}
pub(super) use labels;

/// How many labels an owner has.
pub(super) const OWNER: usize = 7;

/// The values of an owner's labels; `None`: of those that were folded.
pub(super) fn owner<'a>(owner: Option<&Owner>, names: &dyn Names) -> [Value<'a>; OWNER] {
    let Some(owner) = owner else {
        return ["other"; OWNER].map(Value::from);
    };
    let name = names.of(owner.workload);
    let text = |part: fn(&PodName) -> &String| match &name {
        Some(name) => Value::Text(Cow::Owned(part(name).clone())),
        None => "".into(),
    };
    [
        // 0 stands for "the method cannot tell": better no namespace than a wrong one.
        match owner.netns {
            0 => "".into(),
            netns => netns.into(),
        },
        Value::Process(owner.process),
        owner
            .workload
            .container()
            .map_or("".into(), Value::Container),
        owner.workload.pod().map_or("".into(), Value::Pod),
        text(|name| &name.namespace),
        text(|name| &name.pod),
        text(|name| &name.container),
    ]
}

/// The labels of an owner and a family's own.
pub(super) fn with_owner<'a, const B: usize, const N: usize>(
    owner: [Value<'a>; OWNER],
    own: [Value<'a>; B],
) -> [Value<'a>; N] {
    const { assert!(N == OWNER + B) };
    let mut all = owner.into_iter().chain(own);
    std::array::from_fn(|_| all.next().unwrap_or(Value::Number(0)))
}

/// Labels as the text format writes them, made once for all samples that share them: most of what a
/// scrape costs would else be writing the same labels again.
pub(super) struct Rendered<const R: usize> {
    /// All but the value of the last one: `netns="1",process="a \"quoted\" name",local_port`.
    head: String,
    /// That value, as it is.
    last: String,
}

impl<const R: usize> Rendered<R> {
    /// The labels with these names, of which there may be more, and values.
    pub(super) fn new<const N: usize>(names: &[&'static str; N], values: &[Value<'_>; R]) -> Self {
        const { assert!(R <= N) };
        let mut rendered = Self {
            head: String::with_capacity(160),
            last: String::new(),
        };
        for (place, (name, value)) in names.iter().zip(values).enumerate() {
            if place > 0 {
                let Self { head, last } = &mut rendered;
                head.push_str("=\"");
                escape(head, last);
                head.push_str("\",");
                last.clear();
            }
            rendered.head.push_str(name);
            // A string refuses nothing.
            let _ = write!(rendered.last, "{value}");
        }
        rendered
    }
}

/// As the format has it: a backslash before backslashes and quotes, and no line ends.
fn escape(out: &mut String, value: &str) {
    for part in value.split_inclusive(['\\', '"', '\n']) {
        let plain = part.trim_end_matches(['\\', '"', '\n']);
        out.push_str(plain);
        match part.as_bytes().get(plain.len()) {
            Some(b'\n') => out.push_str("\\n"),
            Some(b'"') => out.push_str("\\\""),
            Some(_) => out.push_str("\\\\"),
            None => {}
        }
    }
}

/// Labels that several samples share, and those of a sample's own.
struct Labels<'a, const R: usize, const B: usize> {
    shared: &'a Rendered<R>,
    own: [(&'static str, Value<'a>); B],
}

impl<const R: usize, const B: usize> EncodeLabelSet for Labels<'_, R, B> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut label = encoder.encode_label();
        // Keys are written as they are: this one holds the labels before it as well.
        let mut key = label.encode_label_key()?;
        key.write_str(&self.shared.head)?;
        let mut value = key.encode_label_value()?;
        value.write_str(&self.shared.last)?;
        value.finish()?;
        self.own.as_slice().encode(encoder)
    }
}

/// Declares the families of a subsystem, each once, and `descriptions()` of all of them. The labels
/// of an owner stand before the family's own where the list is marked `owner`.
macro_rules! families {
    ($($name:ident = $kind:ident $text:literal $($owner:ident)? [$($label:literal),* $(,)?] $help:literal;)+) => {
        $(const $name: $crate::metrics::family::Family<$crate::metrics::family::$kind, { let labels: &[&str] = &$crate::metrics::family::labels!($($owner)?; $($label),*); labels.len() }> = $crate::metrics::family::Family {
            name: $text,
            kind: $crate::metrics::family::$kind,
            labels: $crate::metrics::family::labels!($($owner)?; $($label),*),
            help: $help,
        };)+

        pub(super) fn descriptions() -> impl Iterator<Item = $crate::metrics::Description> {
            [$({
                const FAMILY: &$crate::metrics::family::Family<$crate::metrics::family::$kind, { let labels: &[&str] = &$crate::metrics::family::labels!($($owner)?; $($label),*); labels.len() }> = &$name;
                FAMILY.describe()
            }),+].into_iter()
        }
    };
}
pub(super) use families;

impl<K: Kind, const N: usize> Family<K, N> {
    /// Writes the family; one without rows is left out. Rows come in an order that stays the same, so
    /// that two scrapes can be compared: sorting each family's by their text would cost more than
    /// writing them.
    pub(super) fn encode<'a, V>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = ([Value<'a>; N], V)>,
    ) -> fmt::Result
    where
        K: Writes<V>,
    {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(self.name, self.help, None, K::TYPE)?;
        for (values, value) in rows {
            if N == 0 {
                self.kind.write(value, &mut family)?; // without braces
                continue;
            }
            if matches!(K::TYPE, MetricType::Histogram) {
                // A row is many samples.
                let labels = Labels {
                    shared: &Rendered::new(&self.labels, &values),
                    own: [],
                };
                self.kind
                    .write(value, &mut family.encode_family(&labels)?)?;
                continue;
            }
            let mut names = self.labels.into_iter();
            let labels = values.map(|value| (names.next().unwrap_or_default(), value));
            self.kind
                .write(value, &mut family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The same where the first labels of rows are rendered already.
    pub(super) fn encode_rendered<'a, V, const R: usize, const B: usize>(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        rows: impl IntoIterator<Item = (&'a Rendered<R>, [Value<'a>; B], V)>,
    ) -> fmt::Result
    where
        K: Writes<V>,
    {
        const { assert!(N == R + B) };
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(self.name, self.help, None, K::TYPE)?;
        for (shared, own, value) in rows {
            let mut names = self.labels.into_iter().skip(R);
            let own = own.map(|value| (names.next().unwrap_or_default(), value));
            self.kind
                .write(value, &mut family.encode_family(&Labels { shared, own })?)?;
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
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> fmt::Result;
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
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> fmt::Result {
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
    fn write(&self, value: V, metric: &mut MetricEncoder<'_>) -> fmt::Result {
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
    fn write(&self, value: &Histogram<B>, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        let buckets: Vec<(f64, u64)> = value.buckets().collect();
        metric.encode_histogram::<NoLabelSet>(value.sum(), value.count(), &buckets, None)
    }
}

/// A kernel side histogram, in seconds.
impl Writes<&Latencies> for Buckets {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a sample is a float; ns up to 2^53 (104 days) are exact"
    )]
    fn write(&self, value: &Latencies, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = LATENCY_BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(value.buckets).collect();
        let sum = value.sum_ns as f64 / 1e9;
        metric.encode_histogram::<NoLabelSet>(sum, value.count(), &buckets, None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_are_escaped() {
        let values = || {
            [
                Value::from("a\"b\\c\nd"),
                "\\\\\"\"".into(),
                "\n".into(),
                "".into(),
                "last\"\n\\".into(),
            ]
        };
        let family = Family {
            name: "x",
            kind: Gauge,
            labels: ["a", "b", "c", "d", "e"],
            help: "Help",
        };
        let text = |rendered: bool| {
            let mut registry = prometheus_client::registry::Registry::default();
            registry.register_collector(Box::new(Rows(
                move |encoder: &mut DescriptorEncoder<'_>| {
                    if rendered {
                        let shared = Rendered::new(&family.labels, &{
                            let [a, b, c, d, _] = values();
                            [a, b, c, d]
                        });
                        let [.., e] = values();
                        family.encode_rendered(encoder, [(&shared, [e], 1_u64)])?;
                        let all = Rendered::new(&family.labels, &values());
                        family.encode_rendered(encoder, [(&all, [], 2_u64)])
                    } else {
                        family.encode(encoder, [(values(), 1_u64)])?;
                        family.encode(encoder, [(values(), 2_u64)])
                    }
                },
            )));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        assert!(
            text(true).contains(r#"a="a\"b\\c\nd",b="\\\\\"\"",c="\n",d="",e="last\"\n\\"} 1"#)
        );
        assert_eq!(text(true), text(false));
    }

    struct Rows<F>(F);

    impl<F> fmt::Debug for Rows<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Rows")
        }
    }

    impl<F> prometheus_client::collector::Collector for Rows<F>
    where
        F: Fn(&mut DescriptorEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
    {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            (self.0)(&mut encoder)
        }
    }
}
