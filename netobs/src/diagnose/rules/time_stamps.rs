//! Segments that are refused by their time stamp: what several hosts behind one address cause.

use super::Rule;
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, finding::count},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "time-stamps",
    looks_at: "segments and SYNs refused by time stamp (PAWS), TIME_WAIT beyond its limit",
    judge,
};

/// An old duplicate now and then is what PAWS is for.
const FEW: u64 = 3;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for netns in evidence.namespaces() {
        let refused = evidence.moved(netns, Counter::PawsEstab);
        if refused >= FEW {
            let summary = format!("{} refused by time stamp", count(refused, "segment"));
            findings.push(
                Finding::new("paws-refused", Severity::Warning, summary)
                    .in_namespace(netns)
                    .events(refused)
                    .seen(format!("TcpExt PAWSEstab +{refused}"))
                    .because("a time stamp was older than the last one of that address and port")
                    .because("several hosts share an address (NAT, a load balancer) and a port is used again while its TIME_WAIT lasts: the SYN gets no SYN-ACK")
                    .mend("let the NAT keep ports apart longer than a minute, or give it more addresses")
                    .mend("netobs audit explain NETOBS-TCP-001"),
            );
        }
        let overflowed = evidence.moved(netns, Counter::TcpTimeWaitOverflow);
        if overflowed >= FEW {
            let summary = format!(
                "{} closed without TIME_WAIT",
                count(overflowed, "connection")
            );
            findings.push(
                Finding::new("time-wait-overflow", Severity::Warning, summary)
                    .in_namespace(netns)
                    .events(overflowed)
                    .seen(format!("TcpExt TCPTimeWaitOverflow +{overflowed}"))
                    .because("net.ipv4.tcp_max_tw_buckets is reached: late segments may meet a new connection")
                    .mend("close less often (keep-alive), or raise net.ipv4.tcp_max_tw_buckets"),
            );
        }
    }
    findings
}
