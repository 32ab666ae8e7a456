//! Readings in, rows out.

use super::*;
use crate::top::{Listening, Retransmitted, Who};

fn listener(process: &str, port: u16) -> Listener {
    Listener {
        who: Who {
            netns: Some(7),
            process: process.to_owned(),
            ..Who::default()
        },
        address: "127.0.0.1".parse().unwrap(),
        port,
    }
}

fn dropped(drops: u64) -> Listening {
    Listening {
        drops,
        queue: 3,
        peak: 2,
        ..Listening::default()
    }
}

fn at(second: u64, listeners: &[(Listener, u64)]) -> Reading {
    Reading {
        at: Duration::from_secs(1000 + second),
        listeners: listeners
            .iter()
            .map(|(listener, drops)| (listener.clone(), dropped(*drops)))
            .collect(),
        ..Reading::default()
    }
}

#[test]
fn what_was_there_at_first_is_no_growth_and_what_comes_later_is() {
    let (old, new) = (listener("old", 1), listener("new", 2));
    let mut model = Model::default();
    let tables = model.take(&at(0, &[(old.clone(), 50)]));
    assert_eq!(tables.drops.count, 50);
    assert_eq!(tables.listeners[0].trend, [0]);
    let tables = model.take(&at(1, &[(old, 54), (new.clone(), 6)]));
    let [first, second] = &tables.listeners[..] else {
        panic!("{tables:?}")
    };
    assert_eq!(
        (&*first.listener.who.process, &*first.trend),
        ("new", &[6][..])
    );
    assert_eq!(second.trend, [0, 4]);
    assert_eq!(tables.drops.count, 60);
    assert_eq!(tables.drops.trend, [0, 10]);
    assert!((tables.drops.per_second - 5.0).abs() < 1e-9);
    // A peak of the minute before is never shown below what waits now.
    assert_eq!((first.queue_length, first.queue_peak), (3, 3));
    // What has gone stays in the total, and is no row.
    let tables = model.take(&at(2, &[(new, 7)]));
    assert_eq!(tables.listeners.len(), 1);
    assert_eq!(tables.drops.count, 61);
    assert_eq!(tables.watched_seconds, 2);
    assert_eq!(model.listeners.len(), 1);
}

#[test]
fn rows_beyond_the_bound_are_left_out_and_counted() {
    let sockets = |port: u16| Sockets {
        who: Who::default(),
        role: if port & 1 == 0 { "client" } else { "server" }.to_owned(),
        port,
    };
    let most = u16::try_from(MOST_ROWS).unwrap();
    let reading = Reading {
        retransmits: (0..most + 10)
            .map(|port| (sockets(port), Retransmitted::default()))
            .collect(),
        ..Reading::default()
    };
    let mut model = Model::default();
    let tables = model.take(&reading);
    assert_eq!(tables.retransmits.len(), MOST_ROWS);
    assert_eq!(tables.rows_left_out, 10);
    assert_eq!(model.retransmits.len(), MOST_ROWS);
}

#[test]
fn json_has_a_version_and_says_what_is_not_known() {
    let mut model = Model::default();
    let mut reading = at(0, &[(listener("x", 80), 0)]);
    for listening in reading.listeners.values_mut() {
        listening.drops_by = vec![("syn accept_queue_full".to_owned(), 2)];
    }
    let json = serde_json::to_value(model.take(&reading)).unwrap();
    assert_eq!(json["schema_version"], 1);
    let row = &json["listeners"][0];
    assert_eq!(row["process"], "x");
    assert_eq!(row["local_port"], 80);
    assert_eq!(row["drops_by"]["syn accept_queue_full"], 2);
    assert!(row["accept_latency_p99"].is_null());
    assert!(row["cut_by_somaxconn"].is_null());
    assert!(json["diagnosis"].is_null());
}
