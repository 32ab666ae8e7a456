//! Segments that are refused by their time stamp: what several hosts behind one address cause.

use super::{Rule, needs_the_kernel};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, finding::count},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "time-stamps",
    looks_at: "segments and SYNs refused by time stamp (PAWS), TIME_WAIT beyond its limit",
    sight: needs_the_kernel,
    judge,
};

/// An old duplicate now and then is what PAWS is for.
const FEW: u64 = 3;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for labels in evidence.after.listeners.keys() {
        let refused = evidence.accepts(labels).refused_in_time_wait;
        if refused < FEW {
            continue;
        }
        let (address, port) = (labels.address, labels.port);
        let summary = format!(
            "{} to {address} port {port} got no SYN-ACK: a TIME_WAIT socket was in the way",
            count(refused, "SYN")
        );
        findings.push(
            Finding::new("syn-time-wait", Severity::Warning, summary)
                .of(&labels.owner)
                .events(refused)
                .seen(format!("{refused} SYNs met a connection in TIME_WAIT and were refused"))
                .because("the client used the port of a connection that ended less than a minute ago, with an older time stamp or sequence number")
                .because("several hosts share an address (NAT, a load balancer), or the client has few ports")
                .mend("let the NAT keep ports apart longer than a minute, or give it more addresses")
                .mend("netobs audit explain NETOBS-TCP-001"),
        );
    }
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
