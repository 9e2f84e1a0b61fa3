//! Crashes at every operation and at every octet, with and without the unsynced data.

use std::collections::BTreeMap;

use super::{
    disk::Disk as _,
    format::Kind,
    mem_disk::{ALL_LEAVES, CrashOutcome, MemDisk},
    tests::{gone, is, keep, live, pairs},
    *,
};

fn open(disk: &MemDisk, durability: Durability) -> Result<(Journal, Recovered), JournalError> {
    Journal::open_on(Arc::new(disk.clone()), durability, Limits::default())
}

fn reopen(disk: &MemDisk) -> Recovered {
    open(disk, Durability::Strict).unwrap().1
}

type State = BTreeMap<u64, String>;

fn state(recovered: &Recovered) -> State {
    live(recovered).into_iter().collect()
}

/// Makes changes, with snapshots between them, until the disk dies. Returns the states that a start may find: the last
/// acknowledged one, and those after the appends that were interrupted, each of which is there completely or not at
/// all.
fn live_until_it_dies(disk: &MemDisk) -> Vec<State> {
    let mut memory = State::new();
    let Ok((journal, recovered)) = open(disk, Durability::Strict) else { return vec![memory] };
    memory.extend(state(&recovered));
    let mut allowed = vec![memory.clone()];
    for round in 0..12u64 {
        let records = vec![is(round, "new"), is(100, &format!("round {round}")), gone(round.wrapping_sub(2))];
        for record in &records {
            match &record.value {
                Some(v) => memory.insert(record.key.0, String::from_utf8(v.to_vec()).unwrap()),
                None => memory.remove(&record.key.0),
            };
        }
        match keep(&journal, records) {
            Ok(()) => allowed = vec![memory.clone()],
            Err(_) => {
                allowed.push(memory.clone());
                return allowed;
            }
        }
        if round % 3 == 2 {
            let Ok(mut snapshot) = journal.begin_snapshot() else { return allowed };
            let image: Vec<_> = memory.iter().map(|(k, v)| (Key(*k, 7), Bytes::from(v.clone()))).collect();
            if round == 5 {
                // A snapshot that is dropped unfinished.
                let _ = snapshot.write(image);
                drop(snapshot);
                continue;
            }
            let during = memory.clone();
            let record = is(200 + round, "during the snapshot");
            memory.insert(record.key.0, "during the snapshot".into());
            if keep(&journal, vec![record]).is_err() {
                return vec![during, memory];
            }
            allowed = vec![memory.clone()];
            if snapshot.write(image).and_then(|()| snapshot.finish()).is_err() {
                return allowed;
            }
        }
    }
    allowed
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged_and_invents_nothing() {
    let whole = MemDisk::default();
    assert_eq!(live_until_it_dies(&whole).len(), 1);
    let operations = whole.world().operations;
    assert!(operations > 60, "{operations}");
    for life in 0..=operations {
        let disk = MemDisk::default();
        disk.world().life = Some(life);
        let allowed = live_until_it_dies(&disk);
        for leaves in ALL_LEAVES {
            let found = disk.after_crash(leaves);
            let names = found.names();
            let recovered = open(&found, Durability::Strict)
                .unwrap_or_else(|e| panic!("operation {life}, {leaves:?}, {names:?}: {e}"))
                .1;
            let is = state(&recovered);
            assert!(allowed.contains(&is), "operation {life}, {leaves:?}, {names:?}: {is:?}, not one of {allowed:?}");
            // The journal continues from there, through another crash of the machine.
            let (journal, _) = open(&found, Durability::Strict).unwrap();
            keep(&journal, vec![super::tests::is(999, "after")]).unwrap();
            let mut expected = is;
            expected.insert(999, "after".into());
            assert_eq!(
                state(&reopen(&found.after_crash(CrashOutcome::Nothing))),
                expected,
                "operation {life}, {leaves:?}"
            );
        }
    }
}

#[test]
fn a_crash_during_the_mending_is_mended() {
    let whole = MemDisk::default();
    let operations = {
        live_until_it_dies(&whole);
        whole.world().operations
    };
    for life in (0..=operations).step_by(3) {
        let disk = MemDisk::default();
        disk.world().life = Some(life);
        let allowed = live_until_it_dies(&disk);
        for second in 0..12 {
            let again = disk.after_crash(CrashOutcome::Half);
            again.world().life = Some(second);
            let _ = open(&again, Durability::Strict);
            for leaves in ALL_LEAVES {
                let is = state(&reopen(&again.after_crash(leaves)));
                assert!(allowed.contains(&is), "operations {life} and {second}, {leaves:?}: {is:?}");
            }
        }
    }
}

/// Octets of the MARK that begins each commit.
const MARK: usize = 24;

/// Offset at which a MARK or an append ends, and the state at that offset.
type Step = (usize, Vec<(u64, String)>);

/// Creates a segment with a few appends.
fn segment() -> (MemDisk, Vec<Step>) {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict).unwrap();
    let mut ends = vec![(format::HEADER, pairs(&[]))];
    let appends = [
        (vec![is(1, "one")], pairs(&[(1, "one")])),
        (vec![is(2, "two"), is(1, "uno")], pairs(&[(1, "uno"), (2, "two")])),
        (vec![gone(1)], pairs(&[(2, "two")])),
        (
            vec![is(3, "a longer one than the others"), is(2, "")],
            pairs(&[(2, ""), (3, "a longer one than the others")]),
        ),
    ];
    for (records, then) in appends {
        let (start, before) = ends.last().unwrap().clone();
        ends.push((start + MARK, before));
        keep(&journal, records).unwrap();
        ends.push((disk.octets("log-1").len(), then));
    }
    (disk, ends)
}

fn with_log(log: &[u8]) -> MemDisk {
    let disk = MemDisk::default();
    disk.set("format", b"lamplighter journal 1\n");
    disk.set("log-1", log);
    disk
}

#[test]
fn a_tail_torn_at_any_octet_is_cut_after_the_last_whole_append() {
    let (disk, ends) = segment();
    let log = disk.octets("log-1");
    for len in 0..=log.len() {
        let torn = with_log(&log[..len]);
        let recovered = reopen(&torn);
        let (end, then) = ends.iter().rev().find(|(end, _)| *end <= len).unwrap_or(&ends[0]);
        assert_eq!(live(&recovered), *then, "at {len}");
        let rest = len.saturating_sub(*end) as u64;
        let cut = recovered.report.cut.map(|cut| (cut.offset, cut.octets, cut.aside.is_some()));
        assert_eq!(cut, (rest > 0).then_some((*end as u64, rest, true)), "at {len}");
        let (journal, again) = open(&torn, Durability::Strict).unwrap();
        assert_eq!(again.report.cut, None);
        keep(&journal, vec![is(50, "after the cut")]).unwrap();
        drop(journal);
        assert_eq!(live(&reopen(&torn)), [then.clone(), pairs(&[(50, "after the cut")])].concat(), "at {len}");
    }
}

#[test]
fn a_changed_octet_in_the_last_segment_is_damage_there() {
    let (disk, ends) = segment();
    let log = disk.octets("log-1");
    for at in format::HEADER..log.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = log.clone();
            changed[at] ^= flip;
            let damaged = with_log(&changed);
            let error = open(&damaged, Durability::Strict).unwrap_err();
            let end = ends.iter().rev().find(|(end, _)| *end <= at).unwrap().0 as u64;
            assert!(matches!(&error, JournalError::Damaged { offset, .. } if *offset == end), "at {at}: {error}");
            assert_eq!(damaged.octets("log-1"), changed, "a refused file is left as it is");
        }
    }
}

#[test]
fn octets_that_no_crash_leaves_at_the_end_are_damage() {
    let (disk, _) = segment();
    let log = disk.octets("log-1");
    for more in [&[0xff; 40][..], &[1; 40]] {
        assert!(matches!(
            open(&with_log(&[&log, more].concat()), Durability::Strict),
            Err(JournalError::Damaged { .. })
        ));
    }
    // A torn tail consists of zeros, or of the beginning of a frame.
    for more in [&[0; 40][..], &[0; 5000], &[90, 0, 0, 0, 1, 2, 3, 4, 5]] {
        let cut = reopen(&with_log(&[&log, more].concat())).report.cut.unwrap();
        assert_eq!((cut.offset, cut.octets), (log.len() as u64, more.len() as u64));
    }
}

#[test]
fn damage_to_what_was_finished_is_an_error_never_a_loss() {
    // An unfinished snapshot leaves two segments, a finished one a snapshot and a segment.
    for finish in [false, true] {
        let (disk, ends) = segment();
        let (journal, recovered) = open(&disk, Durability::Strict).unwrap();
        let mut snapshot = journal.begin_snapshot().unwrap();
        keep(&journal, vec![is(9, "nine")]).unwrap();
        snapshot.write(recovered.records).unwrap();
        if finish {
            snapshot.finish().unwrap();
        } else {
            drop(snapshot);
        }
        drop(journal);
        let expected = pairs(&[(2, ""), (3, "a longer one than the others"), (9, "nine")]);
        assert_eq!(live(&reopen(&disk)), expected);
        let name = if finish { "snapshot-2" } else { "log-1" };
        let whole = disk.octets(name);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            for bad in [&changed[..], &whole[..at]] {
                disk.set(name, bad);
                let error = open(&disk, Durability::Strict).unwrap_err();
                assert!(matches!(&error, JournalError::Damaged { path, .. } if path.ends_with(name)), "{at}: {error}");
            }
        }
        if !finish {
            // Every frame is good, but one is missing.
            disk.set(name, &[&whole[..ends[1].0], &whole[ends[2].0..]].concat());
            assert!(matches!(open(&disk, Durability::Strict), Err(JournalError::Damaged { .. })));
        }
        disk.set(name, &[&whole[..], b"more"].concat());
        assert!(matches!(open(&disk, Durability::Strict), Err(JournalError::Damaged { .. })));
        disk.set(name, &whole);
        assert_eq!(live(&reopen(&disk)), expected);
        disk.remove("log-2").unwrap();
        let error = open(&disk, Durability::Strict);
        if finish {
            assert!(matches!(error, Err(JournalError::Missing { .. })));
        } else {
            disk.remove("log-1").unwrap();
            assert!(matches!(open(&disk, Durability::Strict), Err(JournalError::Missing { .. })));
        }
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_an_error() {
    let disk = MemDisk::default();
    disk.set("format", b"lamplighter journal 1\n");
    for number in [1, 3] {
        disk.set(&Kind::Log.name(number), &format::header(Kind::Log, number));
    }
    let error = open(&disk, Durability::Strict).unwrap_err();
    assert!(matches!(&error, JournalError::Missing { path } if path.ends_with("log-2")), "{error}");
}
