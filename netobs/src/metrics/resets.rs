//! Families of resets.

use std::collections::HashMap;

use netobs_common::{kernel::state_name, ledger::ResetClass};
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{Value, families, owner, with_owner},
};
use crate::ledger::resets::ResetLabels;

families! {
    RESETS = Counter "netobs_tcp_resets" owner ["role", "port", "direction", "state", "reason"]
        "TCP resets sent and received, by the state of the connection before (empty: there was \
        none) and why: the kernel's own reason where it gives one";
}

/// Names of this kernel's `enum sk_rst_reason`, by number; none before 6.10.
#[derive(Clone, Debug, Default)]
pub struct ResetReasons(HashMap<u32, String>);

impl ResetReasons {
    /// From the enumerators of `enum sk_rst_reason`: `SK_RST_REASON_TCP_STATE` becomes
    /// `tcp_state`.
    pub fn new(enumerators: impl IntoIterator<Item = (String, i64)>) -> Self {
        let named = enumerators.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("SK_RST_REASON_")?.to_ascii_lowercase();
            Some((u32::try_from(value).ok()?, name))
        });
        Self(named.collect())
    }

    /// Why, in a word: by the kernel where it says more than what the socket and the packet show.
    #[must_use]
    pub fn name(&self, reason: u32, class: ResetClass) -> &str {
        let by_kernel = self.0.get(&reason).map(String::as_str);
        match (by_kernel, class) {
            // A port on which nothing listens is one case of the kernel's "no socket"; SO_LINGER 0
            // is one of "state".
            (_, ResetClass::Refused | ResetClass::Overflow)
            | (Some("tcp_state"), ResetClass::Abort)
            | (None | Some("not_specified"), _) => class.name(),
            (Some(name), _) => name,
        }
    }
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let rows = view.resets.series().sorted().map(|(labels, count)| {
        let own = labels.map_or(["other"; 5].map(Value::from), |labels| {
            own(labels, view.reset_reasons)
        });
        let owner = owner(labels.map(|labels| &labels.owner), view.names);
        (with_owner(owner, own), *count)
    });
    RESETS.encode(encoder, rows)
}

fn own<'a>(labels: &ResetLabels, reasons: &'a ResetReasons) -> [Value<'a>; 5] {
    [
        labels.role.name().into(),
        labels.port.into(),
        labels.direction.name().into(),
        state_name(labels.state).into(),
        reasons.name(labels.reason, labels.class).into(),
    ]
}
