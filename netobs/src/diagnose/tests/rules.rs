//! What each rule says, and where it is silent.

use netobs_common::{dns::DnsCounts, event::Connect};

use super::*;
use crate::probes::{Exactness, Signal, SignalInfo};

#[test]
fn nothing_is_found_where_all_is_well() {
    let diagnosis = diagnose(&quiet());
    assert!(diagnosis.findings.is_empty(), "{:?}", ids(&diagnosis));
    let well: Vec<_> = diagnosis.healthy.iter().map(|it| it.rule).collect();
    assert!(
        well.contains(&"dns") && well.contains(&"conntrack"),
        "{well:?}"
    );
}

#[test]
fn slow_accepts_and_low_limits_are_told_apart() {
    let says = |accepts, text: &str| {
        let mut evidence = quiet();
        overflow(&mut evidence, listener("nginx", 80), 30, accepts);
        let (id, found) = only(&evidence);
        assert_eq!(id, "accept-queue-overflow");
        assert!(found.contains(text), "{text:?} is not in {found}");
    };
    says(accepted(1_000, 2_000_000), "the listen() argument binds");
    says(accepted(1_000, 900_000_000), "accepts too slowly");
    says(AcceptValues::default(), "does not accept at all");
}

#[test]
fn without_accepts_nothing_is_said_of_how_the_process_accepts() {
    let mut evidence = quiet();
    overflow(
        &mut evidence,
        listener("nginx", 80),
        30,
        AcceptValues::default(),
    );
    evidence.after.signals = vec![SignalInfo {
        signal: Signal::AcceptLatency,
        method: "none",
        exactness: Exactness::Unavailable,
        because: "its probe is off",
    }];
    let (id, found) = only(&evidence);
    assert_eq!(id, "accept-queue-overflow");
    assert!(found.contains("accepts are not seen here"), "{found}");
    assert!(!found.contains("does not accept"), "{found}");
}

#[test]
fn a_listener_that_is_gone_is_judged_by_what_it_was() {
    let says = |before: bool, texts: [&str; 2]| {
        let mut evidence = quiet();
        let labels = listener("nginx", 80);
        overflow(&mut evidence, labels, 30, AcceptValues::default());
        let now = evidence.after.listeners.get_mut(&labels).unwrap();
        (now.sockets, now.length, now.limit, now.cut) = (0, 0, 0, None);
        if !before {
            evidence.observed = Observed::default();
        }
        let (_, found) = only(&evidence);
        for text in texts.iter().chain(&["accepted nothing before it closed"]) {
            assert!(found.contains(text), "{text:?} is not in {found}");
        }
        assert!(!found.contains("above 0"), "{found}");
    };
    let known = [
        "closed by the end; its limit was 128",
        "more than 128 connections",
    ];
    says(true, known);
    says(false, ["its limit is not known", "as many connections as"]);
}

#[test]
fn who_gives_up_at_once_has_not_been_left_without_an_answer() {
    let mut evidence = quiet();
    connects(&mut evidence, 443, 20, &[(ConnectFailure::Abandoned, 8)]);
    let given_up = |latency_ns| {
        Event::Connect(Connect {
            header: header(EventKind::Connect, 1_000),
            sk: 1,
            ends: ends(50_000, [10, 0, 0, 2], 443),
            owner: kernel_owner("app"),
            latency_ns,
            syn_retransmits: 0,
            err: 0,
            failure: ConnectFailure::Abandoned as u8,
            reserved: [0; 7],
        })
    };
    (0..8).for_each(|_| evidence.observed.take(&given_up(250_000_000)));
    assert!(diagnose(&evidence).findings.is_empty());
    // Those that waited are told.
    evidence.observed = Observed::default();
    (0..4).for_each(|_| evidence.observed.take(&given_up(250_000_000)));
    (0..4).for_each(|_| evidence.observed.take(&given_up(2_500_000_000)));
    let (id, found) = only(&evidence);
    assert_eq!(id, "connect-timeout");
    assert!(
        found.contains("4 connects to port 443 got no answer"),
        "{found}"
    );
}

#[test]
fn a_failure_in_a_thousand_is_none() {
    let mut evidence = quiet();
    connects(&mut evidence, 443, 5_000, &[(ConnectFailure::Refused, 5)]);
    assert!(diagnose(&evidence).findings.is_empty());
    // Recorded, it is not known that there were as many others.
    evidence.source = Source::Recorded;
    assert_eq!(only(&evidence).0, "connect-refused");
}

#[test]
fn ports_that_are_used_up_are_told_with_the_range() {
    let mut evidence = quiet();
    connects(
        &mut evidence,
        5432,
        30_000,
        &[(ConnectFailure::NotSent, 40)],
    );
    let (id, found) = only(&evidence);
    assert_eq!(id, "local-ports-exhausted");
    for text in [
        "32768 to 60999, 28232 ports",
        "12 connections hold theirs",
        "tcp_tw_reuse=1 (now 2",
    ] {
        assert!(found.contains(text), "{text:?} is not in {found}");
    }
}

#[test]
fn one_ill_peer_is_told_from_a_path() {
    let says = |to: &[([u8; 4], u32)], text: &str| {
        let mut evidence = quiet();
        retransmit(&mut evidence, to);
        let (id, found) = only(&evidence);
        assert_eq!(id, "retransmissions");
        assert!(found.contains(text), "{text:?} is not in {found}");
    };
    says(&[([10, 0, 0, 9], 400)], "all go to one peer, 10.0.0.9");
    says(
        &[([10, 0, 0, 9], 400), ([10, 0, 0, 8], 20)],
        "of 2 peers one, 10.0.0.9, has most of them",
    );
    says(
        &[
            ([10, 0, 0, 9], 100),
            ([10, 0, 0, 8], 90),
            ([10, 0, 0, 7], 80),
        ],
        "3 peers are concerned",
    );
}

#[test]
fn few_retransmissions_are_what_every_network_has() {
    let mut evidence = quiet();
    retransmit(&mut evidence, &[([10, 0, 0, 9], 49)]);
    assert!(diagnose(&evidence).findings.is_empty());
}

#[test]
fn lookups_without_an_answer_and_slow_ones_are_found() {
    let mut evidence = quiet();
    let counts = DnsCounts {
        unanswered: 7,
        repeats: 14,
        ..DnsCounts::default()
    };
    let found = Lookups {
        answered: 100,
        counts,
        ..Lookups::default()
    };
    lookups(&mut evidence, found);
    (0..7).for_each(|_| silence(&mut evidence.observed, [10, 0, 0, 53]));
    let (id, found) = only(&evidence);
    assert_eq!(id, "dns-unanswered");
    for text in [
        "7 of 107 lookups remained unanswered",
        "server 10.0.0.53: 7 unanswered",
        "api.example A (7 times)",
        "one name server does not answer",
    ] {
        assert!(found.contains(text), "{text:?} is not in {found}");
    }

    let mut evidence = quiet();
    let slow = |slow| Lookups {
        answered: 200,
        slow,
        no_name: 150,
        seconds: 30.0,
        ..Lookups::default()
    };
    lookups(&mut evidence, slow(10));
    assert!(diagnose(&evidence).findings.is_empty());
    lookups(&mut evidence, slow(11));
    let (id, found) = only(&evidence);
    assert_eq!(id, "dns-slow");
    assert!(
        found.contains("150 of 200 answers say that there is no such name"),
        "{found}"
    );
}

#[test]
fn a_table_that_is_nearly_full_is_found_in_its_namespace() {
    for (entries, severity) in [
        (899, None),
        (900, Some("warning")),
        (1_000, Some("critical")),
    ] {
        let mut evidence = quiet();
        let place = evidence.places.get_mut(&NETNS).unwrap();
        place.conntrack = Some(Conntrack {
            entries,
            most: 1_000,
        });
        let diagnosis = diagnose(&evidence);
        let found = diagnosis.findings.first();
        assert_eq!(found.map(|it| it.severity.as_str()), severity);
        assert_eq!(found.and_then(|it| it.netns), severity.map(|_| NETNS));
    }
    // 0 is no limit.
    let mut evidence = quiet();
    let place = evidence.places.get_mut(&NETNS).unwrap();
    place.conntrack = Some(Conntrack {
        entries: 5,
        most: 0,
    });
    assert!(diagnose(&evidence).findings.is_empty());
}

#[test]
fn what_could_not_be_looked_at_is_not_called_well() {
    let blind = Evidence {
        source: Source::Recorded,
        ..quiet()
    };
    let diagnosis = diagnose(&blind);
    for rule in ["conntrack", "settings", "time-stamps", "syn-queue", "dns"] {
        assert!(diagnosis.healthy.iter().all(|it| it.rule != rule), "{rule}");
        assert!(
            diagnosis.not_seen.iter().any(|it| it.what == rule),
            "{rule}"
        );
    }
}

#[test]
fn every_finding_is_in_the_documentation() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/diagnose.md")).unwrap();
    let mut found = 0;
    for file in std::fs::read_dir(root.join("src/diagnose/rules")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for after in text.split("Finding::new(").skip(1) {
            let Some(quoted) = after.trim_start().strip_prefix('"') else {
                continue;
            };
            let (id, _) = quoted.split_once('"').unwrap();
            assert!(
                page.contains(&format!("`{id}`")),
                "{id} is not in docs/diagnose.md"
            );
            found += 1;
        }
    }
    assert!(found >= 18, "{found}");
}
