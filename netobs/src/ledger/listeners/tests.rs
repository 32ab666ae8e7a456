//! Readings in, counts out.

use netobs_common::ledger::ASKED_UNKNOWN;
use proptest::prelude::*;

use super::*;
use crate::sys::owner::Comm;

const ONE: Namespace = Namespace {
    number: 1,
    identity: 0,
};

struct Nobody;

impl Owners for Nobody {
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner> {
        listeners
            .iter()
            .map(|listener| Owner {
                netns: listener.owner.netns,
                identity: listener.owner.net,
                process: Comm::from_bytes(format!("p{}", listener.local_port).as_bytes()),
                ..Owner::default()
            })
            .collect()
    }
}

/// A listener on `port` of namespace 1 with these `sk_drops`, discards and dropped final ACKs.
fn reading(port: u16, drops: u32, discards: u64, ack_drops: u64) -> ListenerReading {
    ListenerReading {
        socket: SocketReading {
            sk: u64::from(port),
            ktime_ns: 0,
            drops,
            ack_backlog: 3,
            max_ack_backlog: 2,
            syn_queue: 1,
        },
        listener: Listener {
            opened_ns: 1,
            inode: 0,
            counts: ListenCounts::default(),
            cookies: [0; 3],
            fills: QueueFills::default(),
            enqueued: 0,
            accepted: 0,
            discards,
            ack_drops,
            cookie_discards: 0,
            base_drops: 0,
            peak: 0,
            owner: netobs_common::owner::Owner {
                netns: 1,
                pid: 1,
                ..Default::default()
            },
            local_port: port,
            family: 2,
            asked: ASKED_UNKNOWN,
            local_address: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            granted: 2,
            reserved: 0,
        },
    }
}

fn kernel(drops: u64, overflows: u64, syn_queue_full: u64) -> Option<KernelListenCounters> {
    Some(KernelListenCounters {
        drops,
        overflows,
        syn_queue_full,
    })
}

/// Two looks, so that what rose is confirmed.
fn look(book: &mut ListenerBook, readings: &[ListenerReading]) {
    book.observe(readings, 0, &mut Nobody);
    book.observe(readings, 0, &mut Nobody);
}

fn values(book: &ListenerBook, port: u16) -> &ListenerValues {
    book.series()
        .iter()
        .find(|(labels, _)| labels.is_some_and(|l| l.port == port))
        .unwrap()
        .1
}

fn total(values: &ListenerValues) -> u64 {
    values.counts.drops.iter().flatten().sum()
}

#[test]
fn final_acks_count_once_though_sk_drops_counts_them_twice() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 0, 0, 0)]);
    // Three final ACKs (two each in sk_drops) and four SYNs.
    look(&mut book, &[reading(80, 10, 3, 3)]);
    book.settle(ONE, kernel(7, 7, 0));
    let values = values(&book, 80);
    assert_eq!(values.counts.drops[Stage::Ack as usize], [3, 0, 0]);
    assert_eq!(values.counts.drops[Stage::Syn as usize], [4, 0, 0]);
    assert_eq!(values.counts.overflows, [4, 3, 0]);
    assert_eq!(book.sums(1).drops, 7);
}

#[test]
fn a_packet_between_its_two_counts_is_not_a_drop() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 0, 0, 0)]);
    // A stray RST: in sk_drops already, not yet in the discards.
    assert!(book.observe(&[reading(80, 1, 0, 0)], 0, &mut Nobody));
    assert!(!book.observe(&[reading(80, 1, 1, 0)], 0, &mut Nobody));
    assert!(book.unsettled().is_empty());
}

#[test]
fn one_listener_s_mixed_causes_are_told_apart() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 10, 0, 0)]);
    book.settle(ONE, kernel(10, 4, 5));
    let values = values(&book, 80);
    assert_eq!(values.counts.drops[Stage::Syn as usize], [4, 5, 1]);
    assert_eq!(values.counts.overflows, [4, 0, 0]);
}

#[test]
fn several_listeners_with_one_cause_are_exact() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 5, 0, 0), reading(81, 7, 0, 0)]);
    // The counters were read later: one more overflow has happened since the look.
    book.settle(ONE, kernel(13, 13, 0));
    assert_eq!(values(&book, 80).counts.overflows, [5, 0, 0]);
    assert_eq!(values(&book, 81).counts.overflows, [7, 0, 0]);
}

#[test]
fn several_listeners_with_mixed_causes_are_a_lower_bound_and_stay_one() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 5, 0, 0), reading(81, 7, 0, 0)]);
    book.settle(ONE, kernel(12, 9, 0));
    assert_eq!(values(&book, 80).counts.overflows, [2, 0, 0]);
    assert_eq!(values(&book, 81).counts.overflows, [4, 0, 0]);
    assert_eq!((total(values(&book, 80)), total(values(&book, 81))), (5, 7));
    // The three that were nobody's must not be given to whoever drops next.
    look(&mut book, &[reading(80, 8, 0, 0), reading(81, 7, 0, 0)]);
    book.settle(ONE, kernel(15, 9, 0));
    assert_eq!(values(&book, 80).counts.overflows, [2, 0, 0]);
    assert_eq!(book.sums(1).drops, 15);
}

#[test]
fn without_kfree_skb_no_more_is_attributed_than_the_kernel_counted() {
    let mut book = ListenerBook::new(10, Counting::Bounded);
    look(&mut book, &[reading(80, 10, 0, 0)]);
    book.settle(ONE, kernel(6, 6, 0));
    assert_eq!(total(values(&book, 80)), 6);
    // The four that were something else are not taken for drops later.
    look(&mut book, &[reading(80, 11, 0, 0)]);
    book.settle(ONE, kernel(7, 7, 0));
    assert_eq!(total(values(&book, 80)), 7);
}

#[test]
fn a_listener_s_last_drops_are_in_its_final_reading() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 1, 0, 0)]);
    book.settle(ONE, kernel(1, 1, 0));
    book.close(&[reading(80, 4, 0, 0)], &mut Nobody);
    book.settle(ONE, kernel(4, 4, 0));
    assert_eq!(total(values(&book, 80)), 4);
    assert_eq!(book.sockets(), 0);
}

#[test]
fn a_listener_that_lived_between_two_looks_is_not_lost() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    book.close(&[reading(80, 4, 0, 0)], &mut Nobody);
    book.settle(ONE, None);
    assert_eq!(total(values(&book, 80)), 4);
    assert_eq!(values(&book, 80).counts.overflows, [0, 0, 0]);
}

#[test]
fn a_port_opened_again_goes_on_in_the_same_series() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    book.close(&[reading(80, 4, 0, 0)], &mut Nobody);
    book.settle(ONE, kernel(4, 4, 0));
    let mut again = reading(80, 2, 0, 0);
    again.listener.opened_ns = 2;
    look(&mut book, &[again]);
    book.settle(ONE, kernel(6, 6, 0));
    assert_eq!(total(values(&book, 80)), 6);
}

#[test]
fn what_was_dropped_before_the_baseline_is_not_attributed() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    look(&mut book, &[reading(80, 9, 2, 2)]);
    book.baseline(&HashSet::from([1]));
    assert!(book.unsettled().is_empty());
    look(&mut book, &[reading(80, 11, 3, 3)]);
    book.settle(ONE, kernel(1, 1, 0));
    assert_eq!(
        values(&book, 80).counts.drops[Stage::Ack as usize],
        [1, 0, 0]
    );
    assert_eq!(book.sums(1).drops, 1);
}

#[test]
fn sk_drops_may_wrap() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    let near_the_end = |drops: u32| {
        let mut reading = reading(80, drops, 0, 0);
        reading.listener.base_drops = u32::MAX - 1;
        reading
    };
    look(&mut book, &[near_the_end(u32::MAX - 1)]);
    look(&mut book, &[near_the_end(3)]);
    book.settle(ONE, kernel(5, 5, 0));
    assert_eq!(total(values(&book, 80)), 5);
}

#[test]
fn the_peak_is_of_the_last_full_minute_and_knows_of_overflows_between_looks() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    let with_length = |length, drops| {
        let mut reading = reading(80, drops, 0, 0);
        reading.socket.ack_backlog = length;
        reading
    };
    book.observe(&[with_length(2, 0)], 7, &mut Nobody);
    book.observe(&[with_length(1, 0)], 8, &mut Nobody);
    assert_eq!(values(&book, 80).peak, 2);
    // Never seen above 1, but it overflowed: it held its limit of two and one more.
    look(&mut book, &[with_length(1, 5)]);
    book.observe(&[with_length(1, 5)], 8, &mut Nobody);
    book.settle(ONE, kernel(5, 5, 0));
    book.observe(&[with_length(0, 5)], 9, &mut Nobody);
    assert_eq!(values(&book, 80).peak, 3);
    book.observe(&[with_length(0, 5)], 11, &mut Nobody);
    assert_eq!(values(&book, 80).peak, 0);
}

#[test]
fn members_of_a_group_with_the_same_labels_add_up() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    let mut twin = reading(80, 2, 0, 0);
    twin.socket.sk = 999;
    look(&mut book, &[reading(80, 3, 0, 0), twin]);
    book.settle(ONE, kernel(5, 5, 0));
    let values = values(&book, 80);
    assert_eq!(total(values), 5);
    assert_eq!(
        (values.queue_length, values.queue_limit, values.sockets),
        (6, 4, 2)
    );
}

#[test]
fn a_number_that_is_used_again_is_another_s() {
    let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
    let of = |identity, drops| {
        let mut reading = reading(80, drops, 0, 0);
        (reading.listener.owner.net, reading.listener.opened_ns) = (identity, identity);
        reading
    };
    let life = |identity| Namespace {
        number: 1,
        identity,
    };
    look(&mut book, &[of(5, 4)]);
    book.settle(life(5), kernel(4, 4, 0));
    look(&mut book, &[of(6, 3)]);
    book.settle(life(6), kernel(3, 3, 0));
    assert_eq!((book.series().iter().count(), book.sums(1).drops), (2, 7));
    book.end(life(5));
    assert_eq!((total(values(&book, 80)), book.sums(1).drops), (3, 3));
    assert_eq!(book.series().iter().count(), 1);
}

#[test]
fn what_the_kernel_side_counts_is_taken_over_once() {
    let mut book = ListenerBook::new(10, Counting::InKernel);
    let with_counts = |syn: u64, ack: u64| {
        // `sk_drops` says something else, and is not listened to.
        let mut reading = reading(80, 1_000, 0, 0);
        reading.listener.counts.drops[Stage::Syn as usize][Reason::AcceptQueueFull as usize] = syn;
        reading.listener.counts.overflows[Stage::Syn as usize] = syn;
        reading.listener.counts.drops[Stage::Ack as usize][Reason::Other as usize] = ack;
        (reading.listener.enqueued, reading.listener.accepted) = (syn, ack);
        reading
    };
    assert!(!book.observe(&[with_counts(2, 1)], 0, &mut Nobody));
    book.baseline(&HashSet::from([1]));
    book.observe(&[with_counts(5, 1)], 0, &mut Nobody);
    book.close(&[with_counts(6, 3)], &mut Nobody);
    assert!(book.unsettled().is_empty());
    let values = values(&book, 80);
    // 2 and 1 of them were before the baseline; a series holds what was seen, the sums what counts.
    assert_eq!(values.counts.drops[Stage::Syn as usize], [6, 0, 0]);
    assert_eq!(values.counts.drops[Stage::Ack as usize], [0, 0, 3]);
    assert_eq!((values.enqueued, values.accepted), (6, 3));
    assert_eq!((book.sums(1).drops, book.sums(1).overflows), (6, 4));
    assert_eq!(book.sockets(), 0);
}

proptest! {
    /// Whatever the readings and the counters: drops are attributed once, overflows never exceed
    /// drops nor what the kernel counted, and nothing ever falls.
    #[test]
    fn sums_hold(steps in prop::collection::vec((0u32..50, 0u32..50, 0u64..120, 0u64..120), 1..20)) {
        let mut book = ListenerBook::new(10, Counting::ByIdentity { stages: true });
        let (mut a, mut b) = (0, 0);
        let mut k = KernelListenCounters::default();
        for (more_a, more_b, overflows, full) in steps {
            a += more_a;
            b += more_b;
            let before = book.sums(1);
            look(&mut book, &[reading(80, a, 0, 0), reading(81, b, 0, 0)]);
            k.drops = u64::from(a + b);
            k.overflows = (k.overflows + overflows).min(k.drops);
            k.syn_queue_full = (k.syn_queue_full + full).min(k.drops - k.overflows);
            book.settle(ONE, Some(k));
            let after = book.sums(1);
            prop_assert_eq!(after.drops, u64::from(a + b));
            prop_assert!(after.overflows <= k.overflows);
            prop_assert!(after.overflows >= before.overflows);
            let series: u64 = book.series().iter().map(|(_, v)| total(v)).sum();
            prop_assert_eq!(series, after.drops);
        }
    }
}

#[test]
fn the_binding_limit_is_told_where_listen_was_seen() {
    for (asked, granted, limit, binding, known) in [
        (1024, 16, 16, Binding::Somaxconn, Some(1024)),
        (16, 16, 16, Binding::ListenArgument, Some(16)),
        (0, 0, 0, Binding::ListenArgument, Some(0)),
        (ASKED_UNKNOWN, 16, 16, Binding::Unknown, None),
        // A further listen() shows in the limit only; its argument is not known.
        (1024, 16, 8, Binding::Unknown, None),
        (8, 8, 16, Binding::Unknown, None),
        // No argument makes a limit above itself.
        (8, 16, 16, Binding::Unknown, None),
    ] {
        let mut one = reading(80, 0, 0, 0);
        one.listener.inode = 7;
        (one.listener.asked, one.listener.granted) = (asked, granted);
        one.socket.max_ack_backlog = limit;
        let mut book = ListenerBook::new(10, Counting::InKernel);
        look(&mut book, &[one]);
        let mut want = [0; 3];
        want[binding as usize] = 1;
        let case = format!("{asked} {granted} {limit}");
        assert_eq!(values(&book, 80).bindings, want, "{case}");
        assert_eq!(book.asked().get(&7).copied(), known, "{case}");
    }
}
