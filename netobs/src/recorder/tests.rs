//! What is recorded is read back: from memory, from files, from what is left of them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    thread,
    time::Duration,
};

use netobs_common::event::{Endpoints, EventHeader, LISTENER_FOUND, ListenerChange, Retransmit};
use tempfile::TempDir;
use zerocopy::FromZeros as _;

use super::*;

const MIB: u64 = 1 << 20;

fn plan(path: Option<&Path>, size_bytes: u64) -> Plan {
    Plan {
        path: path.map(Path::to_owned),
        size_bytes,
        age: Duration::from_secs(3600),
    }
}

/// The `number`-th event: as different from the one before as events are.
fn event(number: u32) -> Event {
    let mut event = Retransmit::new_zeroed();
    event.header = EventHeader {
        ktime_ns: crate::sys::clock::monotonic_ns(),
        kind: EventKind::Retransmit as u32,
        netns: 4_026_531_840 + number % 7,
    };
    event.owner.pid = 1_000 + number % 40;
    event.owner.comm = *b"nginx\0\0\0\0\0\0\0\0\0\0\0";
    event.owner.cgroup = 7_000 + u64::from(number % 40);
    event.sk = 0xffff_8880_0000_0000 + u64::from(number % 500) * 2_304;
    event.ends = Endpoints {
        local_port: 443,
        remote_port: 32_768 + u16::try_from(number % 20_000).unwrap(),
        family: 2,
        ..Endpoints::new_zeroed()
    };
    event.segments = 1 + number % 3;
    event.total_retrans = number;
    event.srtt_us = 1_000 + number % 911;
    event.snd_cwnd = 10;
    Event::Retransmit(event)
}

fn numbers(reading: Reading) -> Vec<u32> {
    let events = reading.filter(|recorded| !recorded.context);
    events
        .filter_map(|recorded| match recorded.event {
            Event::Retransmit(event) => Some(event.total_retrans),
            _ => None,
        })
        .collect()
}

fn all(path: &Path) -> Reading {
    read(path, Range::default()).unwrap()
}

/// Records `numbers`, in blocks of a hundred, and ends in good order.
fn record(path: &Path, size_bytes: u64, numbers: std::ops::Range<u32>) {
    let mut recorder = Recorder::open(&plan(Some(path), size_bytes)).unwrap();
    recorder.begin().unwrap();
    let first = numbers.start;
    for number in numbers {
        recorder.record(&event(number));
        if number % 100 == 99 {
            recorder.close_block();
            // The disk of a test machine may be slower than this loop.
            let begun = std::time::Instant::now();
            while recorder.stats().files.unwrap().written + 2_000 < u64::from(number - first) {
                thread::sleep(Duration::from_millis(1));
                assert!(
                    begun.elapsed() < Duration::from_secs(30),
                    "{:?}",
                    recorder.stats()
                );
            }
        }
    }
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let listed = segment::list(path).unwrap();
    listed.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn memory_holds_the_latest() {
    let mut recorder = Recorder::open(&plan(None, MIB)).unwrap();
    for number in 0..100_000 {
        recorder.record(&event(number));
    }
    recorder.close_block();
    let stats = recorder.stats();
    assert_eq!(stats.events, 100_000);
    assert!(stats.memory_bytes <= MIB / 8, "{stats:?}");
    let kept = numbers(recorder.recent().read(Range::default()));
    assert_eq!(kept.len() as u64, stats.memory_events);
    assert!(kept.len() > 1_000, "{stats:?}");
    assert!(kept.is_sorted() && kept.last() == Some(&99_999));
    eprintln!(
        "{:.1} bytes per event of {}",
        stats.memory_bytes as f64 / stats.memory_events as f64,
        EventKind::Retransmit.size()
    );
}

#[test]
fn files_give_back_what_was_recorded() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events");
    record(&path, 64 * MIB, 0..10_050);
    assert_eq!(numbers(all(&path)), (0..10_050).collect::<Vec<_>>());
    assert!(all(&path).damage().is_none());
    // A second run goes on in another file.
    record(&path, 64 * MIB, 10_050..10_100);
    assert_eq!(numbers(all(&path)), (0..10_100).collect::<Vec<_>>());
    let files = segments(&path);
    assert_eq!(files.len(), 2);
    assert_eq!(
        numbers(all(&files[1])),
        (10_050..10_100).collect::<Vec<_>>()
    );

    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for file in files {
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[test]
fn the_oldest_segments_go_first() {
    let folder = TempDir::new().unwrap();
    record(folder.path(), 2 * MIB, 0..200_000);
    let files = segments(folder.path());
    let bytes: u64 = files
        .iter()
        .map(|file| fs::metadata(file).unwrap().size())
        .sum();
    assert!(files.len() > 4, "{files:?}");
    assert!(bytes <= 2 * MIB * 7 / 8, "{bytes}");
    let kept = numbers(all(folder.path()));
    assert!(kept.is_sorted() && kept.last() == Some(&199_999));
    assert!(kept[0] > 0 && kept.len() > 10_000, "{} kept", kept.len());
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn what_is_too_old_goes() {
    let folder = TempDir::new().unwrap();
    record(folder.path(), 64 * MIB, 0..100);
    let first = segments(folder.path()).remove(0);
    let old = fs::File::options().write(true).open(&first).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(4_000);
    old.set_modified(past).unwrap();
    record(folder.path(), 64 * MIB, 100..200);
    assert!(!first.exists());
    assert_eq!(numbers(all(folder.path())), (100..200).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_found_at_every_length() {
    let folder = TempDir::new().unwrap();
    record(folder.path(), 64 * MIB, 0..300);
    let file = segments(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut most = 0;
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        let mut reading = all(folder.path());
        let kept = (&mut reading).count();
        assert!(
            kept >= most && kept.is_multiple_of(100) && kept < 300,
            "{kept} at {length}"
        );
        most = kept;
        let damage = reading.damage();
        assert!(damage.files.is_empty(), "{damage:?}");
        // Cut between two blocks, nothing is torn.
        assert!(
            damage.torn == 1 || damage.is_none(),
            "{damage:?} at {length}"
        );
    }
    assert_eq!(most, 200);
    // And a new run is not disturbed by it.
    record(folder.path(), 64 * MIB, 300..400);
    let kept: Vec<u32> = (0..200).chain(300..400).collect();
    assert_eq!(numbers(all(folder.path())), kept);
}

#[test]
fn damage_costs_the_block_that_it_is_in() {
    let folder = TempDir::new().unwrap();
    record(folder.path(), 64 * MIB, 0..300);
    let file = segments(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let blocks: Vec<usize> = whole
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == block::MAGIC)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(blocks.len(), 3);
    for at in [
        blocks[1],
        blocks[1] + 5,
        blocks[1] + 9,
        blocks[1] + 40,
        blocks[2] - 1,
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&file, &bytes).unwrap();
        let mut reading = all(&file);
        let kept: Vec<u32> = (0..100).chain(200..300).collect();
        let read: Vec<u32> = (&mut reading)
            .filter_map(|recorded| match recorded.event {
                Event::Retransmit(event) => Some(event.total_retrans),
                _ => None,
            })
            .collect();
        assert_eq!(read, kept, "{at}");
        assert!(reading.damage().bytes > 0 && reading.damage().torn == 0);
    }
}

#[test]
fn other_files_are_named_as_such() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(
        read(folder.path(), Range::default()),
        Err(ReadError::Empty { .. })
    ));
    let file = folder.path().join("events-0000000001.netobs");
    fs::write(&file, "something else").unwrap();
    assert!(matches!(
        read(&file, Range::default()),
        Err(ReadError::Foreign { .. })
    ));
    // In a folder, what can be read is read.
    record(folder.path(), 64 * MIB, 0..10);
    let mut reading = all(folder.path());
    assert_eq!((&mut reading).count(), 10);
    assert_eq!(reading.damage().files.len(), 1);
    assert!(matches!(
        read(&folder.path().join("none"), Range::default()),
        Err(ReadError::Io { .. })
    ));
}

#[test]
fn kinds_are_told_apart_by_name() {
    let mut about = segment::About::now(0, String::new());
    let kinds: Vec<_> = about.kinds.clone();
    assert_eq!(about.kind(0), Some(EventKind::Retransmit));
    about.kinds = kinds.into_iter().rev().collect();
    let text = serde_json::to_string(&about).unwrap();
    // As a version would write that counted its kinds the other way round.
    let renumbered = text
        .replace("\"number\":0", "\"number\":9")
        .replace("\"number\":2", "\"number\":0");
    let about: segment::About = serde_json::from_str(&renumbered).unwrap();
    assert_eq!(about.kind(9), Some(EventKind::Retransmit));
    assert_eq!(about.kind(0), Some(EventKind::Listener));
    assert_eq!(about.kind(77), None);
    let other_size = renumbered.replace("\"size\":", "\"size\":1");
    let about: segment::About = serde_json::from_str(&other_size).unwrap();
    assert_eq!(about.kind(0), None);
}

#[test]
fn a_folder_is_recorded_into_by_one() {
    let folder = TempDir::new().unwrap();
    let plan = plan(Some(folder.path()), 64 * MIB);
    let first = Recorder::open(&plan).unwrap();
    assert!(matches!(
        Recorder::open(&plan),
        Err(OpenError::Taken { .. })
    ));
    drop(first);
    assert!(Recorder::open(&plan).is_ok());
    let nowhere = self::plan(Some(&folder.path().join("a/b")), 64 * MIB);
    assert!(matches!(
        Recorder::open(&nowhere),
        Err(OpenError::Folder { .. })
    ));
}

#[test]
fn ranges_and_context() {
    let folder = TempDir::new().unwrap();
    let mut recorder = Recorder::open(&plan(Some(folder.path()), 64 * MIB)).unwrap();
    recorder.begin().unwrap();
    let mut found = ListenerChange::new_zeroed();
    found.header = EventHeader {
        kind: EventKind::Listener as u32,
        ..*event(0).header()
    };
    found.change = LISTENER_FOUND;
    recorder.record(&Event::Listener(found));
    recorder.record(&event(0));
    let clock = ClockPair::sample().unwrap();
    thread::sleep(Duration::from_millis(5));
    recorder.record(&event(1));
    recorder.close_block();
    let later = ClockPair::sample().unwrap();
    recorder.record(&event(2));
    recorder.close_block();
    let since = Range {
        since_ns: Some(clock.wall_ns),
        until_ns: None,
    };
    let between = Range {
        since_ns: Some(clock.wall_ns),
        until_ns: Some(later.wall_ns),
    };
    let recent = recorder.recent();
    drop(recorder);
    for (range, want) in [
        (since, vec![1, 2]),
        (between, vec![1]),
        (Range::default(), vec![0, 1, 2]),
    ] {
        assert_eq!(numbers(read(folder.path(), range).unwrap()), want);
        // The files of this run up to where memory begins, then memory: nothing twice.
        assert_eq!(numbers(recent.read(range)), want);
    }
    let mut reading = read(folder.path(), since).unwrap();
    let first = reading.next().unwrap();
    assert!(first.context && matches!(first.event, Event::Listener(_)));
}

#[test]
fn memory_goes_on_where_the_files_end() {
    let folder = TempDir::new().unwrap();
    let mut recorder = Recorder::open(&plan(Some(folder.path()), 4 * MIB)).unwrap();
    recorder.begin().unwrap();
    for number in 0..60_000 {
        recorder.record(&event(number));
        if number % 2_000 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    recorder.close_block();
    let begun = std::time::Instant::now();
    while recorder.stats().files.unwrap().written < 60_000 {
        thread::sleep(Duration::from_millis(1));
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}",
            recorder.stats()
        );
    }
    let stats = recorder.stats();
    assert!(stats.memory_events < 50_000, "{stats:?}");
    let read = numbers(recorder.recent().read(Range::default()));
    assert_eq!(read, (0..60_000).collect::<Vec<_>>());
}

/// On a file system of 256 KiB, in a mount namespace of this thread.
#[test]
fn a_full_disk_stops_the_recording_and_nothing_else() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    testbed::require!(testbed::require::root());
    let folder = TempDir::new().unwrap();
    let work = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        let size = Some("size=256k");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .unwrap();
        record(folder.path(), 64 * MIB, 0..1_000);
        let mut recorder = Recorder::open(&plan(Some(folder.path()), 64 * MIB)).unwrap();
        recorder.begin().unwrap();
        let mut number = 1_000;
        while recorder.stats().files.unwrap().errors == 0 {
            for _ in 0..500 {
                recorder.record(&event(number));
                number += 1;
            }
            recorder.close_block();
            thread::sleep(Duration::from_millis(1));
            assert!(number < 1_000_000);
        }
        let stats = recorder.stats().files.unwrap();
        assert!(!stats.writing && stats.lost_disk >= 500, "{stats:?}");
        // Memory has what the disk has not.
        assert_eq!(recorder.stats().events, u64::from(number - 1_000));
        let kept = recorder.recent().read(Range::default()).last().unwrap();
        assert!(
            matches!(kept.event, Event::Retransmit(event) if event.total_retrans == number - 1)
        );
        drop(recorder);
        let mut reading = all(folder.path());
        let read = (&mut reading).count() as u64;
        assert_eq!(read, 1_000 + stats.written, "{:?}", reading.damage());
    });
    work.join().unwrap();
}

#[test]
fn whose_a_cgroup_was_is_known_when_it_is_gone() {
    use crate::sys::cgroup::{ContainerId, PodUid};
    let folder = TempDir::new().unwrap();
    let mut recorder = Recorder::open(&plan(Some(folder.path()), 64 * MIB)).unwrap();
    recorder.begin().unwrap();
    let workload = Workload::new(
        ContainerId::from_hex(&"0123456789abcdef".repeat(4)),
        PodUid::parse("01234567-89ab-cdef-0123-456789abcdef"),
    );
    assert!(!workload.is_empty());
    let first = event(0);
    let cgroup = first.owner().unwrap().cgroup;
    for _ in 0..2 {
        assert!(!recorder.names(cgroup));
        recorder.name(cgroup, workload);
        assert!(recorder.names(cgroup));
        recorder.record(&first);
        recorder.record(&event(1));
        recorder.close_block();
    }
    let recent = recorder.recent();
    drop(recorder);
    for reading in [all(folder.path()), recent.read(Range::default())] {
        let found: Vec<_> = reading.map(|recorded| recorded.workload).collect();
        let none = Workload::default();
        assert_eq!(found, [workload, none, workload, none]);
    }
}
