//! Disks that hang, and changes that are refused and rolled back.

use std::sync::mpsc;

use super::{
    fault_tests::{QUICK, failed, limits, open, reopen, until},
    mem_disk::{CrashOutcome, MemDisk},
    tests::{gone, is, keep, live, pairs},
    *,
};

/// Limits for tests in which the disk never answers in time.
fn impatient() -> Limits {
    Limits { stall: QUICK, ..limits() }
}

/// Lets the watchdog find that the disk hangs, as soon as an operation blocks.
fn find_hanging(journal: &Journal, disk: &MemDisk) {
    until("an operation", || disk.world().waiting > 0);
    watchdog::look(&journal.shared, Duration::ZERO);
}

/// Appends the records; returns a channel for the result.
fn append(journal: &Journal, records: Vec<Record>) -> mpsc::Receiver<Result<(), RefusedAppend>> {
    let (tell, told) = mpsc::channel();
    journal.append(records, move |fate| drop(tell.send(fate)));
    told
}

fn why(journal: &Journal) -> String {
    match journal.health() {
        Health::Good => "good".into(),
        Health::Failed { why, .. } => why.to_string(),
    }
}

#[test]
fn a_disk_that_hangs_refuses_what_waits_and_goes_on_when_it_answers() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, limits());
    keep(&journal, vec![is(1, "before")]).unwrap();
    disk.hang(true);
    let under_way = append(&journal, vec![is(1, "hanging"), is(2, "hanging")]);
    journal.append_deferred(vec![is(3, "a remark")]).unwrap();
    find_hanging(&journal, &disk);
    let refused = under_way.recv().unwrap().unwrap_err();
    assert!(matches!(&refused.why, WriteError::Disk(why) if why.contains("has not answered")), "{refused}");
    // While the disk still hangs.
    assert!(failed(&journal) && !journal.stats().good && journal.stats().failures == 1);
    assert!(why(&journal).contains("has not answered"), "{}", why(&journal));
    assert_eq!(journal.accepts(), Acceptance::Failing);
    assert!(matches!(keep(&journal, vec![is(4, "later")]), Err(WriteError::Disk(_))));
    assert!(matches!(journal.begin_snapshot(), Err(JournalError::NotNow(_))));
    // A barrier needs nothing from the disk, so it is reported at once.
    assert!(append(&journal, vec![]).try_recv().unwrap().is_ok());
    // A deferred record waits, in order.
    journal.append_deferred(vec![is(3, "a newer remark")]).unwrap();

    disk.hang(false);
    until("all but the hold", || {
        reopen(&disk.after_crash(CrashOutcome::Nothing)).contains(&(3, "a newer remark".into()))
    });
    assert_eq!(journal.accepts(), Acceptance::Failing, "the change is not rolled back");
    journal.append_rollback(vec![is(1, "before"), gone(2)]).unwrap();
    drop(refused);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), pairs(&[(1, "before"), (3, "a newer remark")]));
    keep(&journal, vec![is(5, "after")]).unwrap();
    assert_eq!(journal.stats().failures, 1);
    assert_eq!(reopen(&disk), pairs(&[(1, "before"), (3, "a newer remark"), (5, "after")]));
}

#[test]
fn what_was_refused_and_written_is_not_there_after_a_crash_once_the_disk_answered() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, impatient());
    disk.hang(true);
    let refused = append(&journal, vec![is(1, "hanging")]).recv().unwrap().unwrap_err();
    disk.hang(false);
    until("the disk's answer", || disk.octets("log-1").len() == format::HEADER && journal.stats().queued == 0);
    // The hold is still alive, so the owner has rolled nothing back; the refused records are truncated nevertheless.
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Everything)), pairs(&[]));
    drop(refused);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
}

#[test]
fn a_relaxed_journal_notices_that_its_disk_hangs_and_loses_nothing_that_was_promised() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Relaxed, impatient());
    disk.hang(true);
    keep(&journal, vec![is(1, "promised")]).unwrap();
    until("the watchdog", || failed(&journal));
    let refused = append(&journal, vec![is(2, "late")]).try_recv().unwrap().unwrap_err();
    assert!(append(&journal, vec![]).try_recv().unwrap().is_ok());
    disk.hang(false);
    drop(refused);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), pairs(&[(1, "promised")]));
}

#[test]
fn refusals_of_a_hanging_disk_and_barriers_keep_their_order() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, impatient());
    let journal = Arc::new(journal);
    let (tell, told) = mpsc::channel();
    let send = |name: &'static str, records: Vec<Record>| {
        let tell = tell.clone();
        journal.append(records, move |fate| drop(tell.send((name, fate))));
    };
    disk.hang(true);
    send("under way", vec![is(1, "x")]);
    until("the writer", || journal.shared.queue.lock().under_way.is_some());
    send("behind it", vec![]);
    let (late, inner) = (tell.clone(), Arc::clone(&journal));
    journal.append(vec![is(2, "x")], move |fate| {
        drop(late.send(("queued", fate)));
        // Other callbacks are still to be called, so this one follows them.
        let late = late.clone();
        inner.append(vec![], move |fate| drop(late.send(("within", fate))));
    });
    send("at the end", vec![is(3, "x")]);
    let fates: Vec<_> = (0..5).map(|_| told.recv().unwrap()).collect();
    let seen: Vec<_> = fates.iter().map(|(name, fate)| (*name, fate.is_ok())).collect();
    let expected =
        [("under way", false), ("behind it", true), ("queued", false), ("at the end", false), ("within", true)];
    assert_eq!(seen, expected);
    disk.hang(false);
    drop(fates);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
}

#[test]
fn no_change_is_kept_on_top_of_one_that_is_still_to_be_rolled_back() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, limits());
    disk.world().bad_syncs = 1;
    let first = append(&journal, vec![is(1, "first")]).recv().unwrap().unwrap_err();
    let second = append(&journal, vec![is(2, "second")]).recv().unwrap().unwrap_err();
    // The disk is good, and all promised records are on it.
    journal.append_deferred(vec![is(9, "seen")]).unwrap();
    until("the disk", || reopen(&disk.after_crash(CrashOutcome::Nothing)) == pairs(&[(9, "seen")]));
    drop(first);
    let third = append(&journal, vec![is(1, "on top")]).recv().unwrap().unwrap_err();
    assert!(failed(&journal));
    journal.append_rollback(vec![is(2, "as before")]).unwrap();
    drop((second, third));
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), pairs(&[(2, "as before"), (9, "seen")]));
}

#[test]
fn a_disk_that_hangs_in_a_new_segment_is_noticed_and_the_snapshot_is_told() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, limits());
    keep(&journal, vec![is(1, "one")]).unwrap();
    disk.hang(true);
    std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| journal.begin_snapshot().map(|_| ()));
        find_hanging(&journal, &disk);
        assert!(matches!(snapshot.join().unwrap(), Err(JournalError::NotNow(_))));
    });
    assert!(failed(&journal));
    disk.hang(false);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    journal.begin_snapshot().unwrap();
    keep(&journal, vec![is(2, "two")]).unwrap();
    assert_eq!(reopen(&disk.after_crash(CrashOutcome::Nothing)), pairs(&[(1, "one"), (2, "two")]));
}

#[test]
fn closing_does_not_wait_for_a_disk_that_hangs() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, impatient());
    disk.hang(true);
    let refused = append(&journal, vec![is(1, "never")]).recv().unwrap();
    assert!(refused.is_err());
    journal.close();
    drop(journal);
    disk.hang(false);
}

#[test]
fn the_word_of_a_rollback_comes_after_the_one_it_takes_back_whatever_was_overtaken() {
    let disk = MemDisk::default();
    let (journal, _) = open(&disk, Durability::Strict, limits());
    let word = |value, order| vec![Record { order, ..is(1, value) }];
    keep(&journal, word("kept", 1)).unwrap();
    disk.world().bad_syncs = 1;
    let refused = append(&journal, word("refused", 3)).recv().unwrap().unwrap_err();
    journal.append_rollback(word("kept", 4)).unwrap();
    drop(refused);
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    keep(&journal, word("overtaken", 2)).unwrap();
    drop(journal);
    assert_eq!(live(&open(&disk, Durability::Strict, limits()).1), pairs(&[(1, "kept")]));
}
