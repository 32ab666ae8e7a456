//! The text and the Markdown of one diagnosis, as files; `NETOBS_BLESS=1` writes them.

use netobs_common::dns::DnsCounts;
use serde_json::Value;

use self::schema_check::violations;
use super::*;
use crate::diagnose::{markdown, text};

#[path = "../../audit/tests/schema.rs"]
mod schema_check;

fn ill() -> Diagnosis {
    let mut evidence = quiet();
    // A name that would be markup.
    let labels = listener("<b>*x*</b>", 8080);
    overflow(&mut evidence, labels, 412, accepted(1_000, 2_000_000));
    connects(
        &mut evidence,
        5432,
        120,
        &[
            (ConnectFailure::TimedOut, 9),
            (ConnectFailure::Abandoned, 3),
        ],
    );
    retransmit(&mut evidence, &[([10, 0, 0, 9], 380), ([10, 0, 0, 8], 11)]);
    lookups(
        &mut evidence,
        Lookups {
            answered: 40,
            counts: DnsCounts {
                unanswered: 6,
                repeats: 6,
                late: 1,
                ..DnsCounts::default()
            },
            ..Lookups::default()
        },
    );
    (0..6).for_each(|_| silence(&mut evidence.observed, [10, 0, 0, 53]));
    diagnose(&evidence)
}

fn golden(name: &str, found: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diagnose/tests/golden/");
    let path = format!("{path}{name}");
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, wanted,
        "{name} differs; accept it with NETOBS_BLESS=1"
    );
}

#[test]
fn the_text_is_as_agreed() {
    golden("ill.txt", &text(&ill(), false));
    golden("well.txt", &text(&diagnose(&quiet()), false));
    let coloured = text(&ill(), true);
    assert!(coloured.contains("\x1b[31;1mCRITICAL\x1b[0m"), "{coloured}");
}

#[test]
fn the_markdown_is_as_agreed() {
    golden("ill.md", &markdown(&ill()));
    golden("well.md", &markdown(&diagnose(&quiet())));
}

#[test]
fn the_json_keeps_to_the_schema() {
    let schema = include_str!("../../../../docs/diagnosis.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let recorded = Evidence {
        source: Source::Recorded,
        events: Some(0),
        clock: None,
        until_ns: 0,
        ..quiet()
    };
    for diagnosis in [ill(), diagnose(&quiet()), diagnose(&recorded)] {
        let value = serde_json::to_value(&diagnosis).unwrap();
        assert_eq!(violations(&schema, &value), Vec::<String>::new());
    }
    let mut value = serde_json::to_value(ill()).unwrap();
    value["findings"][0]["severity"] = "grave".into();
    assert!(!violations(&schema, &value).is_empty());
}
