//! Damage of every kind, at seeded places, in every kind of file. Either it is refused with file and offset, or nothing
//! acknowledged is lost beyond a torn tail; and the repair keeps every good record.

use std::collections::BTreeMap;

use super::{
    disk::Disk as _,
    fault_tests::{open, reopen},
    mem_disk::{CrashOutcome, MemDisk},
    tests::{gone, is, keep, live, pairs},
    *,
};

/// Linear congruential generator (Knuth's MMIX), so that every run tests the same places.
struct Places(u64);

impl Places {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Acknowledged state after each append.
type History = Vec<BTreeMap<u64, String>>;

/// Creates a directory with a history: a snapshot, a complete segment, and one that is being written. Each append has
/// one to three records of up to 300 octets; some commits hold several appends.
fn lived() -> (MemDisk, History) {
    let disk = MemDisk::default();
    let mut places = Places(7);
    let mut memory = BTreeMap::new();
    let mut history = Vec::new();
    for life in 0..3 {
        let (journal, _) = open(&disk, Durability::Strict, Limits::default());
        for round in 0..40 {
            let records: Vec<Record> = (0..=places.below(3))
                .map(|_| {
                    let key = places.below(60) as u64;
                    match places.below(5) {
                        0 => gone(key),
                        _ => is(key, &format!("{life}-{round}").repeat(1 + places.below(60))),
                    }
                })
                .collect();
            for record in &records {
                match &record.value {
                    Some(value) => memory.insert(record.key.0, String::from_utf8(value.to_vec()).unwrap()),
                    None => memory.remove(&record.key.0),
                };
            }
            if places.below(4) == 0 {
                journal.append_deferred(records).unwrap();
            } else {
                keep(&journal, records).unwrap();
            }
            history.push(memory.clone());
        }
        if life == 0 {
            let mut snapshot = journal.begin_snapshot().unwrap();
            snapshot.write(memory.iter().map(|(key, value)| (Key(*key, 7), Bytes::from(value.clone())))).unwrap();
            snapshot.finish().unwrap();
        } else if life == 1 {
            // The snapshot is dropped, but its new segment stays.
            drop(journal.begin_snapshot().unwrap());
        }
    }
    assert_eq!(disk.names(), ["format", "log-2", "log-3", "snapshot-2"]);
    assert_eq!(reopen(&disk).into_iter().collect::<BTreeMap<_, _>>(), memory);
    (disk, history)
}

const FILES: [&str; 4] = ["format", "log-2", "log-3", "snapshot-2"];

/// Opens a directory with a changed file. It must either contain everything acknowledged (`None`), or be refused with
/// the file and an offset that is not after the change.
fn all_or_refused(disk: &MemDisk, name: &str, changed: &[u8], at: usize, whole: &BTreeMap<u64, String>) -> Option<u64> {
    let found = disk.after_crash(CrashOutcome::Everything);
    found.set(name, changed);
    match Journal::open_on(Arc::new(found.clone()), Durability::Strict, Limits::default()) {
        Ok((_, recovered)) => {
            let is: BTreeMap<_, _> = live(&recovered).into_iter().collect();
            assert!(is == *whole, "{name} changed at {at}: something is lost");
            None
        }
        Err(JournalError::Damaged { path, offset, .. }) => {
            assert!(
                path.ends_with(name) && offset <= at as u64,
                "{name} changed at {at}: {} at {offset}",
                path.display()
            );
            assert_eq!(found.octets(name), changed, "a refused file is left as it is");
            Some(offset)
        }
        Err(error) => panic!("{name} changed at {at}: {error}"),
    }
}

#[test]
fn two_hundred_flipped_bits_in_each_file_are_refused_with_file_and_offset() {
    let (disk, history) = lived();
    let whole = history.last().unwrap();
    for name in FILES {
        let octets = disk.octets(name);
        let mut places = Places(13);
        let mut refused = 0;
        for _ in 0..200 {
            let at = places.below(octets.len());
            let mut changed = octets.clone();
            changed[at] ^= 1 << places.below(8);
            refused += u32::from(all_or_refused(&disk, name, &changed, at, whole).is_some());
        }
        // Only the line end of the marker does not matter.
        assert!(refused == 200 || (name == "format" && refused > 180), "{name}: {refused}");
    }
}

#[test]
fn two_flipped_bits_are_no_better_than_one() {
    let (disk, history) = lived();
    let whole = history.last().unwrap();
    for name in FILES {
        let octets = disk.octets(name);
        let mut places = Places(17);
        for _ in 0..200 {
            let (first, second) = (places.below(octets.len()), places.below(octets.len()));
            let mut changed = octets.clone();
            changed[first] ^= 1 << places.below(8);
            changed[second] ^= 1 << places.below(8);
            all_or_refused(&disk, name, &changed, first.min(second), whole);
        }
    }
}

#[test]
fn a_flip_of_each_bit_of_a_length_a_mark_and_an_end_is_refused() {
    let (disk, history) = lived();
    let whole = history.last().unwrap();
    for name in ["log-2", "log-3", "snapshot-2"] {
        let octets = disk.octets(name);
        // The header, the first MARK or frame, and the last frame, which is the END in all but the last log.
        let mut last = format::HEADER;
        let mut at = format::HEADER;
        while let Some(found) = damage::frame_at(&octets, at) {
            (last, at) = (found.start, found.end);
        }
        assert_eq!(at, octets.len());
        for bit in (0..8 * (format::HEADER + 64)).chain(8 * last..8 * octets.len()) {
            let mut changed = octets.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refused = all_or_refused(&disk, name, &changed, bit / 8, whole);
            assert!(refused.is_some(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_hundred_truncations_of_each_file_lose_no_more_than_the_tail() {
    let (disk, history) = lived();
    for name in FILES {
        let octets = disk.octets(name);
        let mut places = Places(19);
        for _ in 0..100 {
            let len = places.below(octets.len());
            let found = disk.after_crash(CrashOutcome::Everything);
            found.set(name, &octets[..len]);
            match Journal::open_on(Arc::new(found.clone()), Durability::Strict, Limits::default()) {
                Ok((_, recovered)) => {
                    let is: BTreeMap<_, _> = live(&recovered).into_iter().collect();
                    // The state after some append, without a gap in the middle.
                    assert!(history.contains(&is), "{name} cut at {len}");
                    assert!(name == "log-3" || name == "format", "{name} cut at {len}");
                }
                Err(JournalError::Damaged { path, offset, .. }) => {
                    assert!(path.ends_with(name) && offset <= len as u64 && name != "log-3", "{name} cut at {len}");
                }
                Err(error) => panic!("{name} cut at {len}: {error}"),
            }
        }
    }
}

#[test]
fn holes_in_the_last_commit_are_torn_and_holes_before_it_are_damage() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, Limits::default());
    let long = "x".repeat(3000);
    keep(&journal, vec![is(1, &long)]).unwrap();
    let before = disk.octets("log-1").len();
    // One commit of several frames.
    for key in 2..5 {
        journal.append_deferred(vec![is(key, &long)]).unwrap();
    }
    keep(&journal, vec![is(5, &long)]).unwrap();
    let one = pairs(&[(1, &long)]);
    let log = disk.octets("log-1");
    for sector in 0..log.len() / 512 {
        let mut holed = log.clone();
        holed[(sector * 512).max(format::HEADER)..(sector + 1) * 512].fill(0);
        let found = disk.after_crash(CrashOutcome::Everything);
        found.set("log-1", &holed);
        let opened = Journal::open_on(Arc::new(found.clone()), Durability::Strict, Limits::default());
        if sector * 512 < before {
            assert!(matches!(&opened, Err(JournalError::Damaged { .. })), "{sector}: {opened:?}");
        } else {
            let (_, recovered) = opened.unwrap();
            assert!(live(&recovered).starts_with(&one));
            let cut = recovered.report.cut.clone().unwrap();
            // The torn tail is kept in a file beside it, octet by octet, and is not read again.
            assert_eq!(
                found.octets(cut.aside.unwrap().file_name().unwrap().to_str().unwrap()),
                holed[cut.offset as usize..]
            );
            assert_eq!(reopen(&found), live(&recovered));
        }
    }
}

#[test]
fn a_few_torn_tails_are_kept_aside_and_no_more() {
    let disk = MemDisk::default();
    for n in 0..20 {
        let (journal, _) = open(&disk, Durability::Strict, Limits::default());
        keep(&journal, vec![is(n, "kept")]).unwrap();
        drop(journal);
        let log = disk.octets("log-1");
        disk.set("log-1", &[&log[..], b"torn"].concat());
    }
    assert_eq!(reopen(&disk).len(), 20);
    let torn: Vec<_> = disk.names().into_iter().filter(|name| name.starts_with("torn-log-1-")).collect();
    assert_eq!(torn.len(), 8);
    assert!(torn.iter().all(|name| disk.octets(name) == b"torn"));
}

#[test]
fn a_journal_of_version_1_is_read_whole_and_goes_on_in_version_2() {
    let (disk, ends) = version_1();
    let found = disk.after_crash(CrashOutcome::Everything);
    let (journal, recovered) = open(&found, Durability::Strict, Limits::default());
    assert_eq!(live(&recovered), pairs(&[(1, "uno"), (2, "two"), (3, "three")]));
    assert_eq!(found.octets("format"), b"lamplighter journal 2\n");
    keep(&journal, vec![is(4, "four")]).unwrap();
    drop(journal);
    assert_eq!(found.names(), ["format", "log-1", "log-2"]);
    let all = pairs(&[(1, "uno"), (2, "two"), (3, "three"), (4, "four")]);
    assert_eq!(reopen(&found.after_crash(CrashOutcome::Nothing)), all);

    let log = disk.octets("log-1");
    for at in format::HEADER..log.len() {
        let mut changed = log.clone();
        changed[at] ^= 4;
        found.set("log-1", &changed);
        let after = disk.after_crash(CrashOutcome::Everything);
        after.set("log-1", &changed);
        assert!(matches!(
            Journal::open_on(Arc::new(after), Durability::Strict, Limits::default()),
            Err(JournalError::Damaged { .. })
        ));
        let after = disk.after_crash(CrashOutcome::Everything);
        after.set("log-1", &log[..at]);
        let kept = ends.iter().filter(|end| **end <= at).count();
        assert_eq!(open(&after, Durability::Strict, Limits::default()).1.report.records, [0, 2, 4][kept]);
    }
}

/// Creates a directory in format version 1; returns the offsets at which its two frames end.
fn version_1() -> (MemDisk, [usize; 2]) {
    let disk = MemDisk::default();
    let mut log = format::header_of_version(format::Kind::Log, 1, 1).to_vec();
    format::frames(&mut log, [is(1, "one"), is(2, "two")].iter());
    let first = log.len();
    format::frames(&mut log, [is(1, "uno"), is(3, "three")].iter());
    disk.set("format", b"lamplighter journal 1\n");
    disk.set("log-1", &log);
    (disk, [first, log.len()])
}

#[test]
fn a_marker_that_disagrees_with_the_files_beside_it_is_damage() {
    let (disk, _) = version_1();
    for (marker, offset) in [
        (&b""[..], 0),
        (b"lamplighter journal", 19),
        (b"lamplighter journal 0\n", 20),
        (b"lamplighter journal 9\n", 20),
        (b"lamplighter kournal 1\n", 12),
    ] {
        disk.set("format", marker);
        let error = Journal::open_on(Arc::new(disk.clone()), Durability::Strict, Limits::default()).unwrap_err();
        assert!(
            matches!(&error, JournalError::Damaged { path, offset: is, .. } if path.ends_with("format") && *is == offset),
            "{error}"
        );
    }
    assert!(disk.list().unwrap().len() == 2, "nothing was changed");
}

/// State from all frames but the one that contains the octet `at` of the file `name`.
fn all_but_the_frame_at(disk: &MemDisk, name: &str, at: usize) -> BTreeMap<u64, String> {
    let mut live = BTreeMap::new();
    for file in ["snapshot-2", "log-2", "log-3"] {
        let octets = disk.octets(file);
        let mut from = format::HEADER;
        while let Some(frame) = damage::frame_at(&octets, from) {
            from = frame.end;
            if file == name && (frame.start..frame.end).contains(&at) {
                continue;
            }
            let body = &octets[frame.start + format::FRAME_HEAD..frame.end];
            format::records(body, |key, word| match word {
                format::Word::Is(at, len) => {
                    live.insert(key.0, String::from_utf8(body[at..at + len].to_vec()).unwrap());
                }
                format::Word::Gone => drop(live.remove(&key.0)),
                format::Word::End | format::Word::Mark => {}
            });
        }
    }
    live
}

#[test]
fn a_repair_keeps_every_record_of_good_frames_and_puts_the_bad_one_aside() {
    let (disk, _) = lived();
    for name in FILES {
        let octets = disk.octets(name);
        let mut places = Places(23);
        for _ in 0..50 {
            let at = places.below(octets.len());
            let mut changed = octets.clone();
            changed[at] ^= 1 << places.below(8);
            let found = disk.after_crash(CrashOutcome::Everything);
            found.set(name, &changed);
            let Some(repaired) = repair::repair_on(Arc::new(found.clone())).unwrap() else {
                assert!(name == "format", "{name} at {at}");
                continue;
            };
            let bad: Vec<_> = repaired.survey.files.iter().flat_map(|file| &file.bad).collect();
            assert!(bad.len() == 1 && bad[0].offset <= at as u64, "{name} at {at}: {bad:?}");
            let is: BTreeMap<_, _> = reopen(&found).into_iter().collect();
            assert_eq!(is, all_but_the_frame_at(&disk, name, at), "{name} at {at}");
            assert_eq!(repaired.kept, is.len());
            // The bad part is kept octet by octet, and no other old file is left beside the new snapshot.
            let aside: Vec<_> = found.names().into_iter().filter(|name| name.starts_with("bad-")).collect();
            if bad[0].octets > 0 {
                let part = bad[0].offset as usize..(bad[0].offset + bad[0].octets) as usize;
                assert_eq!(found.octets(&aside[0]), changed[part]);
            }
            let rest: Vec<_> = found.names().into_iter().filter(|name| !name.starts_with("bad-")).collect();
            assert_eq!(rest, ["format", "log-4", "snapshot-4"], "{name} at {at}");
            assert_eq!(repair::repair_on(Arc::new(found)).unwrap(), None, "there is nothing left to repair");
        }
    }
}

#[test]
fn a_repair_says_which_records_were_lost() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, Limits::default());
    keep(&journal, vec![is(1, "one"), is(2, "two")]).unwrap();
    let at = disk.octets("log-1").len();
    keep(&journal, vec![is(1, "uno"), gone(2), is(3, "three")]).unwrap();
    keep(&journal, vec![is(4, "four")]).unwrap();
    drop(journal);
    let mut log = disk.octets("log-1");
    // In a value of the second append: behind the MARK and two heads.
    log[at + 24 + 8 + 16] ^= 1;
    disk.set("log-1", &log);
    let repaired = repair::repair_on(Arc::new(disk.clone())).unwrap().unwrap();
    let lost: Vec<_> =
        repaired.survey.files[0].bad[0].lost.iter().map(|(key, value)| (key.0, value.is_some())).collect();
    assert_eq!(lost, [(1, true), (2, false), (3, true)]);
    assert_eq!((repaired.kept, repaired.older), (3, 2));
    assert_eq!(reopen(&disk), pairs(&[(1, "one"), (2, "two"), (4, "four")]));
}

#[test]
fn a_missing_segment_is_repaired_and_said() {
    let (disk, _) = lived();
    disk.remove("log-2").unwrap();
    let opened = Journal::open_on(Arc::new(disk.clone()), Durability::Strict, Limits::default());
    assert!(matches!(opened, Err(JournalError::Missing { .. })));
    let repaired = repair::repair_on(Arc::new(disk.clone())).unwrap().unwrap();
    assert!(repaired.survey.missing.len() == 1 && repaired.survey.missing[0].ends_with("log-2"), "{repaired:?}");
    assert_eq!(reopen(&disk).len(), repaired.kept);
}

#[test]
fn a_crash_in_a_repair_leaves_what_can_be_repaired_again_or_is() {
    let (disk, _) = lived();
    let mut octets = disk.octets("log-2");
    let at = octets.len() / 2;
    octets[at] ^= 1;
    disk.set("log-2", &octets);
    let expected = {
        let whole = disk.after_crash(CrashOutcome::Everything);
        repair::repair_on(Arc::new(whole.clone())).unwrap();
        reopen(&whole)
    };
    for life in 0..40 {
        for leaves in mem_disk::ALL_LEAVES {
            let dying = disk.after_crash(CrashOutcome::Everything);
            dying.world().life = Some(life);
            let _ = repair::repair_on(Arc::new(dying.clone()));
            let left = dying.after_crash(leaves);
            repair::repair_on(Arc::new(left.clone())).unwrap();
            assert_eq!(reopen(&left), expected, "operation {life}, {leaves:?}");
        }
    }
}
