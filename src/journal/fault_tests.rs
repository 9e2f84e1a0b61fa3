//! Disks that fill up and fail, queues that fill, logs that grow.

use std::sync::mpsc;

use super::{
    disk::Disk as _,
    mem_disk::{CrashOutcome, MemDisk},
    tests::{is, keep, live, pairs},
    *,
};

pub(super) const QUICK: Duration = Duration::from_millis(5);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn limits() -> Limits {
    Limits { probe_every: QUICK, within: QUICK, probe: 1000, ..Limits::default() }
}

pub(super) fn open(disk: &MemDisk, durability: Durability, limits: Limits) -> (Journal, Recovered) {
    Journal::open_on(Arc::new(disk.clone()), durability, limits).unwrap()
}

pub(super) fn reopen(disk: &MemDisk) -> Vec<(u64, String)> {
    live(&open(disk, Durability::Strict, Limits::default()).1)
}

/// Polls for a condition that another thread brings about without a signal.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

pub(super) fn failed(journal: &Journal) -> bool {
    matches!(journal.health(), Health::Failed { .. })
}

#[test]
fn a_full_disk_refuses_keeps_what_it_had_and_recovers_by_itself() {
    for room in (0..200).step_by(7) {
        let disk = MemDisk::default();
        let (journal, _) = open(&disk, Durability::Strict, limits());
        keep(&journal, vec![is(0, "before")]).unwrap();
        disk.world().room = Some(room);
        let mut kept = pairs(&[(0, "before")]);
        let refused = loop {
            let n = kept.len() as u64;
            match keep(&journal, vec![is(n, "little")]) {
                Ok(()) => kept.push((n, "little".into())),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, WriteError::Disk(_)), "{refused}");
        assert!(failed(&journal));
        assert!(matches!(keep(&journal, vec![is(99, "at once")]), Err(WriteError::Disk(_))));
        assert!(!journal.wants_compaction() && journal.begin_snapshot().is_err());
        journal.append_deferred(vec![is(500, "waits for room")]).unwrap();
        // Everything acknowledged is there at any time, and nothing refused is.
        assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), kept);
        disk.world().room = None;
        until("recovery", || !failed(&journal));
        keep(&journal, vec![is(600, "after")]).unwrap();
        kept.extend(pairs(&[(500, "waits for room"), (600, "after")]));
        assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), kept);
    }
}

#[test]
fn a_failed_sync_is_not_believed_the_next_time() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let disk = MemDisk::default();
        let (journal, _) = open(&disk, durability, limits());
        keep(&journal, vec![is(1, "before")]).unwrap();
        until("the first sync", || journal.shared.held.load(Relaxed) == 0);
        disk.world().bad_syncs = 3;
        let fate = keep(&journal, vec![is(2, "unlucky")]);
        assert_eq!(fate.is_ok(), durability == Durability::Relaxed);
        // All bad syncs are used up, and one good trial has followed.
        until("recovery", || {
            disk.world().bad_syncs == 0 && !failed(&journal) && journal.shared.held.load(Relaxed) == 0
        });
        let expected: &[(u64, &str)] = if fate.is_ok() { &[(1, "before"), (2, "unlucky")] } else { &[(1, "before")] };
        assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), pairs(expected), "{durability:?}");
    }
}

#[test]
fn refusals_come_in_order_and_spare_what_was_promised() {
    let disk = MemDisk::default();
    let slow = Limits { probe_every: PATIENCE, ..limits() };
    let (journal, _) = open(&disk, Durability::Strict, slow);
    let (go, gone) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    journal.append(vec![is(0, "first")], move |_| {
        begun.send(()).unwrap();
        gone.recv().unwrap();
    });
    has_begun.recv().unwrap();
    for n in 1..=10 {
        let tell = tell.clone();
        journal.append(vec![is(n, "refused")], move |fate| tell.send((n, fate.is_err())).unwrap());
        journal.append_deferred(vec![is(100 + n, "promised")]).unwrap();
    }
    disk.world().room = Some(130);
    go.send(()).unwrap();
    assert_eq!(
        (1..=10).map(|_| told.recv().unwrap()).collect::<Vec<_>>(),
        (1..=10).map(|n| (n, true)).collect::<Vec<_>>()
    );
    // Refused records do not come back, although some of them had been written.
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Everything)), pairs(&[(0, "first")]));
    disk.world().room = None;
    // Closing makes a trial at once instead of waiting for the next one.
    journal.close();
    let mut expected = pairs(&[(0, "first")]);
    expected.extend((101..=110).map(|n| (n, "promised".into())));
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), expected);
}

#[test]
fn relaxed_and_lazy_records_are_synced_within_the_time() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Relaxed, limits());
    keep(&journal, vec![is(1, "relaxed")]).unwrap();
    until("its sync", || reopen(&disk.after_crash(CrashOutcome::Nothing)) == pairs(&[(1, "relaxed")]));
    journal.append_deferred(vec![is(2, "lazy")]).unwrap();
    until("its sync", || reopen(&disk.after_crash(CrashOutcome::Nothing)) == pairs(&[(1, "relaxed"), (2, "lazy")]));
}

/// Blocks the writer in a callback until the returned sender is dropped.
fn busy(journal: &Journal) -> mpsc::Sender<()> {
    let (go, gone) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    journal.append(vec![is(0, "first")], move |_| {
        begun.send(()).unwrap();
        let _ = gone.recv();
    });
    has_begun.recv().unwrap();
    go
}

#[test]
fn a_full_queue_accepts_no_change_and_keeps_those_that_were_made() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, Limits { queue: 1000, ..limits() });
    assert_eq!(journal.accepts(), Acceptance::Accepting);
    let busy = busy(&journal);
    let (tell, told) = mpsc::channel();
    let append = |key| {
        let tell = tell.clone();
        journal.append(vec![is(key, "x")], move |fate| tell.send(fate).unwrap());
    };
    let mut queued = 0;
    while journal.accepts() == Acceptance::Accepting {
        queued += 1;
        append(queued);
    }
    assert!((20..100).contains(&queued), "{queued}");
    assert_eq!(journal.accepts(), Acceptance::Overloaded);
    assert_eq!(journal.append_deferred(vec![is(1, "harmless")]), Err(WriteError::Overloaded));
    // Other threads may have asked just before.
    let queued = 2 * queued;
    (queued / 2 + 1..=queued).for_each(append);
    assert!(told.try_recv().is_err());
    drop(busy);
    assert!((0..queued).all(|_| told.recv().unwrap().is_ok()));
    keep(&journal, vec![is(5000, "room again")]).unwrap();
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)).len() as u64, queued + 2);
}

#[test]
fn beyond_the_hard_bound_there_is_room_for_what_is_rolled_back_only() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, Limits { queue: 1000, ..limits() });
    let busy = busy(&journal);
    let (tell, told) = mpsc::channel();
    let refused = loop {
        let tell = tell.clone();
        journal.append(vec![is(1, "x")], move |fate| tell.send(fate).unwrap());
        if let Ok(fate) = told.try_recv() {
            break fate.unwrap_err();
        }
    };
    assert_eq!(refused.why, WriteError::Overloaded);
    assert_eq!(journal.accepts(), Acceptance::Failing);
    journal.append_rollback(vec![is(1, "as before")]).unwrap();
    assert_eq!(keep(&journal, vec![is(1, "on top of it")]), Err(WriteError::RollingBack));
    drop(refused);
    drop(busy);
    until("room", || journal.accepts() == Acceptance::Accepting);
    drop(journal);
    assert_eq!(reopen(&disk), pairs(&[(0, "first"), (1, "as before")]));
}

#[test]
fn compaction_bounds_the_disk_by_the_live_state() {
    let disk = MemDisk::default();
    let limits = Limits { compact_from: 2000, ..limits() };
    let (journal, _) = open(&disk, Durability::Strict, limits);
    let (mut most, mut snapshots) = (0, 0);
    for round in 0..2000u64 {
        keep(&journal, vec![is(round % 10, &format!("{round:050}"))]).unwrap();
        most = most.max(journal.stats().on_disk);
        if journal.wants_compaction() {
            let mut snapshot = journal.begin_snapshot().unwrap();
            assert!(!journal.wants_compaction());
            let from = round.saturating_sub(9);
            snapshot.write((from..=round).map(|r| (Key(r % 10, 7), Bytes::from(format!("{r:050}"))))).unwrap();
            snapshot.finish().unwrap();
            snapshots += 1;
            let files: u64 = disk.list().unwrap().iter().filter(|f| f.0 != "format").map(|f| f.1).sum();
            assert_eq!(journal.stats().on_disk, files);
        }
    }
    // Ten records of 66 octets take 700. The limit is four times that and one snapshot; without compaction the log
    // would have 148,000.
    assert!(most < 6000 && snapshots > 20, "{most} octets, {snapshots} snapshots");
    assert_eq!(reopen(&disk).len(), 10);
}

#[test]
fn a_snapshot_that_fails_leaves_the_journal_well_and_is_not_tried_at_once() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, Limits { compact_from: 1, ..limits() });
    keep(&journal, vec![is(1, "a")]).unwrap();
    assert!(journal.wants_compaction());
    let mut snapshot = journal.begin_snapshot().unwrap();
    disk.world().room = Some(0);
    snapshot.write([(Key(1, 7), "a".into())]).unwrap();
    assert!(matches!(snapshot.finish(), Err(JournalError::Io { .. })));
    disk.world().room = None;
    assert!(!journal.wants_compaction());
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")), "{:?}", disk.names());
    keep(&journal, vec![is(2, "b")]).unwrap();
    // An empty segment is not followed by another one.
    let segments = |n: &MemDisk| n.names().iter().filter(|n| n.starts_with("log-")).count();
    journal.begin_snapshot().unwrap();
    let before = segments(&disk);
    journal.begin_snapshot().unwrap();
    assert_eq!(segments(&disk), before);
    drop(journal);
    assert_eq!(reopen(&disk), pairs(&[(1, "a"), (2, "b")]));
}

#[test]
fn a_segment_that_cannot_be_begun_is_a_failure_that_passes() {
    for room in 0..60 {
        let disk = MemDisk::default();
        let (journal, _) = open(&disk, Durability::Strict, limits());
        keep(&journal, vec![is(1, "a")]).unwrap();
        disk.world().room = Some(room);
        let begun = journal.begin_snapshot();
        if begun.is_ok() {
            // There is room for an END and a header.
            assert!(room >= 48, "{room}");
            continue;
        }
        assert!(failed(&journal));
        for leaves in mem_disk::ALL_LEAVES {
            assert_eq!(reopen(&disk.after_crash(leaves)), pairs(&[(1, "a")]), "{room}, {leaves:?}");
        }
        disk.world().room = None;
        until("recovery", || !failed(&journal));
        keep(&journal, vec![is(2, "b")]).unwrap();
        for leaves in mem_disk::ALL_LEAVES {
            assert_eq!(reopen(&disk.after_crash(leaves)), pairs(&[(1, "a"), (2, "b")]), "{room}, {leaves:?}");
        }
        journal.begin_snapshot().unwrap();
    }
}

#[test]
fn a_segment_begun_in_vain_that_stays_behind_does_no_harm() {
    // Room for an END, and for a part or all of a header.
    for room in [30, 100] {
        let disk = MemDisk::default();
        let (journal, _) = open(&disk, Durability::Strict, limits());
        keep(&journal, vec![is(1, "a")]).unwrap();
        disk.world().room = Some(room);
        disk.world().no_removes = true;
        disk.world().bad_name_syncs = u32::from(room == 100);
        assert!(journal.begin_snapshot().is_err());
        disk.world().room = None;
        until("recovery", || !failed(&journal));
        keep(&journal, vec![is(2, "b")]).unwrap();
        assert!(disk.names().contains(&"log-2".into()), "{room}");
        let after = disk.after_crash(CrashOutcome::Everything);
        let (journal, recovered) = open(&after, Durability::Strict, limits());
        assert_eq!(live(&recovered), pairs(&[(1, "a"), (2, "b")]));
        keep(&journal, vec![is(3, "c")]).unwrap();
        drop(journal);
        assert_eq!(reopen(&after), pairs(&[(1, "a"), (2, "b"), (3, "c")]), "{room}");
    }
}

#[test]
fn an_error_of_the_medium_and_a_read_only_disk_are_as_a_full_one_at_every_call() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    const EROFS: i32 = 30;
    use mem_disk::Operation::*;
    for operation in [Write, Sync, SetLen, Create, SyncNames, Rename, Remove] {
        for errno in [EIO, ENOSPC, EROFS] {
            let disk = MemDisk::default();
            let (journal, _) = open(&disk, Durability::Strict, limits());
            let mut kept = pairs(&[(1, "before")]);
            keep(&journal, vec![is(1, "before")]).unwrap();
            disk.world().fails = Some((operation, errno));
            // A change, and a snapshot of everything that belongs to it.
            match keep(&journal, vec![is(2, "meanwhile")]) {
                Ok(()) => kept.push((2, "meanwhile".into())),
                Err(why) => assert!(matches!(why, WriteError::Disk(_)), "{operation:?}: {why}"),
            }
            let image = journal.begin_snapshot().and_then(|mut snapshot| {
                snapshot.write(kept.iter().map(|(key, value)| (Key(*key, 7), Bytes::from(value.clone()))))?;
                snapshot.finish()
            });
            assert!(image.is_err() || operation == SetLen, "{operation:?}");
            if matches!(operation, Write | Sync) {
                assert!(failed(&journal), "{operation:?}");
                assert!(matches!(keep(&journal, vec![is(3, "refused")]), Err(WriteError::Disk(_))));
            }
            assert_eq!(reopen(&disk.after_crash(CrashOutcome::Everything)), kept, "{operation:?} {errno}");
            disk.world().fails = None;
            until("recovery", || journal.accepts() == Acceptance::Accepting);
            keep(&journal, vec![is(4, "after")]).unwrap();
            kept.push((4, "after".into()));
            assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), kept, "{operation:?} {errno}");
        }
    }
}
