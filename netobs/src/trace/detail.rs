//! What only one kind of event tells: names and values, in the order of the kind's table.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

/// Names and values. A map in JSON; kept as a list, since it is made for every event and looked up
/// in seldom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail(Vec<(Cow<'static, str>, Value)>);

impl Detail {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut all = self.0.iter();
        all.find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

impl FromIterator<(Cow<'static, str>, Value)> for Detail {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, Value)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Detail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Detail;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Detail, M::Error> {
                let mut all = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    all.push((Cow::Owned(name), value));
                }
                Ok(Detail(all))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
