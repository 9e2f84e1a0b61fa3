//! Tests of the journal on a real directory, and helpers for all tests of the journal.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    sync::mpsc,
};

use super::{format::Kind, *};

pub(super) fn is(key: u64, value: &str) -> Record {
    Record { key: Key(key, 7), value: Some(Bytes::copy_from_slice(value.as_bytes())), order: 0 }
}

pub(super) fn gone(key: u64) -> Record {
    Record { key: Key(key, 7), value: None, order: 0 }
}

/// Appends the records and waits for the result.
pub(super) fn keep(journal: &Journal, records: Vec<Record>) -> Result<(), WriteError> {
    let (tell, told) = mpsc::channel();
    journal.append(records, move |fate| tell.send(fate.map_err(|refused| refused.why)).unwrap());
    told.recv().unwrap()
}

pub(super) fn live(recovered: &Recovered) -> Vec<(u64, String)> {
    recovered.records.iter().map(|(k, v)| (k.0, String::from_utf8(v.to_vec()).unwrap())).collect()
}

pub(super) fn pairs(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(k, v)| (*k, (*v).to_string())).collect()
}

/// Temporary directory that is removed at the end of the test.
pub(super) struct Temp(pub(super) PathBuf);

impl Temp {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lamplighter-journal-{}-{count}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn open(&self) -> (Journal, Recovered) {
        Journal::open(&self.0, Durability::Strict).unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_kept_comes_back_and_the_last_word_holds() {
    let temp = Temp::new();
    let dir = temp.0.join("a/b");
    let (journal, recovered) = Journal::open(&dir, Durability::Strict).unwrap();
    assert!(recovered.records.is_empty() && recovered.report.new);
    keep(&journal, vec![is(1, "one"), is(2, "two"), is(3, "")]).unwrap();
    keep(&journal, vec![is(1, "uno"), gone(2), gone(9)]).unwrap();
    keep(&journal, vec![is(4, "x"), gone(4), is(4, "y")]).unwrap();
    drop(journal);
    for _ in 0..2 {
        let (_journal, recovered) = Journal::open(&dir, Durability::Strict).unwrap();
        assert_eq!(live(&recovered), pairs(&[(1, "uno"), (3, ""), (4, "y")]));
        let OpenReport { new, records, octets, files, cut } = recovered.report;
        let read = ReadFile { path: dir.join("log-1"), octets, records };
        assert_eq!((new, records, cut, files), (false, 9, None, vec![read]));
        assert_eq!(octets, fs::metadata(dir.join("log-1")).unwrap().len());
    }
}

#[test]
fn both_halves_of_a_key_count() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let records = vec![
        Record { key: Key(1, 1), value: Some("a".into()), order: 0 },
        Record { key: Key(1, 2), value: Some("b".into()), order: 0 },
        Record { key: Key(u64::MAX, u32::MAX), value: Some("c".into()), order: 0 },
    ];
    keep(&journal, records.clone()).unwrap();
    drop(journal);
    let found = temp.open().1.records.into_iter().map(|(key, v)| Record { key, value: Some(v), order: 0 });
    assert_eq!(found.collect::<Vec<_>>(), records);
}

#[test]
fn appends_are_answered_in_their_order_and_share_commits() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let (tell, told) = mpsc::channel();
    // The first callback blocks the writer until all others are queued; they must then share one commit.
    let (go, gone) = mpsc::channel::<()>();
    journal.append(vec![is(0, "first")], move |_| gone.recv().unwrap());
    for n in 1..=1000 {
        let tell = tell.clone();
        journal.append(vec![is(n, "x")], move |fate| tell.send((n, fate.is_ok())).unwrap());
    }
    assert!(told.try_recv().is_err());
    go.send(()).unwrap();
    for n in 1..=1000 {
        assert_eq!(told.recv().unwrap(), (n, true));
    }
    let stats = journal.stats();
    assert!(stats.commits <= 3, "{stats:?}");
    assert_eq!(stats.records, 1001);
    let on_disk = fs::metadata(temp.0.join("log-1")).unwrap().len();
    assert_eq!(stats.on_disk, on_disk);
}

#[test]
fn relaxed_is_answered_before_it_is_written_and_kept_by_close() {
    let temp = Temp::new();
    let (journal, _) = Journal::open(&temp.0, Durability::Relaxed).unwrap();
    let caller = std::thread::current().id();
    let (tell, told) = mpsc::channel();
    journal.append(vec![is(1, "a")], move |fate| tell.send((std::thread::current().id(), fate.is_ok())).unwrap());
    assert_eq!(told.try_recv().unwrap(), (caller, true));
    journal.close();
    assert_eq!(keep(&journal, vec![is(2, "b")]), Err(WriteError::Closed));
    assert_eq!(journal.append_deferred(vec![is(2, "b")]), Err(WriteError::Closed));
    drop(journal);
    assert_eq!(live(&temp.open().1), pairs(&[(1, "a")]));
}

#[test]
fn lazy_records_go_with_the_next_commit_in_their_place() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    journal.append_deferred(vec![is(1, "lazy"), is(2, "lazy")]).unwrap();
    keep(&journal, vec![is(1, "later")]).unwrap();
    assert_eq!(journal.stats().records, 3);
    journal.append_deferred(vec![is(3, "closing")]).unwrap();
    drop(journal);
    assert_eq!(live(&temp.open().1), pairs(&[(1, "later"), (2, "lazy"), (3, "closing")]));
}

#[test]
fn a_directory_in_use_is_refused_and_free_again_after() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let error = Journal::open(&temp.0, Durability::Strict).unwrap_err();
    assert!(matches!(&error, JournalError::Locked { path } if *path == temp.0), "{error}");
    let snapshot = journal.begin_snapshot().unwrap();
    drop(journal);
    // A snapshot that is still being written may remove files.
    assert!(matches!(Journal::open(&temp.0, Durability::Strict), Err(JournalError::Locked { .. })));
    drop(snapshot);
    temp.open();
}

#[test]
fn a_foreign_directory_is_refused_and_left_as_it_is() {
    for (name, words) in [("notes.txt", "mine"), ("lock", "not empty"), ("format", "A4"), ("log-1", &"x".repeat(99))] {
        let temp = Temp::new();
        fs::write(temp.0.join(name), words).unwrap();
        let error = Journal::open(&temp.0, Durability::Strict).unwrap_err();
        assert!(matches!(&error, JournalError::Foreign { found, .. } if found == name), "{error}");
        assert!(error.to_string().contains(temp.0.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(temp.0.join(name)).unwrap(), words);
        assert!(!temp.0.join("log-2").exists());
    }
    let temp = Temp::new();
    let file = temp.0.join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Journal::open(&file, Durability::Strict), Err(JournalError::Io { path, .. }) if path == file));
}

#[test]
fn a_newer_format_is_refused() {
    let temp = Temp::new();
    keep(&temp.open().0, vec![is(1, "a")]).unwrap();
    let log = fs::read(temp.0.join("log-1")).unwrap();
    let newer = [&format::header_of_version(Kind::Log, 1, 9)[..], &log[format::HEADER..]].concat();
    fs::write(temp.0.join("log-1"), newer).unwrap();
    let error = Journal::open(&temp.0, Durability::Strict).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 9, known: 2, .. }), "{error}");
    fs::write(temp.0.join("log-1"), log).unwrap();
    temp.open();
    fs::write(temp.0.join("format"), "lamplighter journal 3\n").unwrap();
    fs::remove_file(temp.0.join("log-1")).unwrap();
    let error = Journal::open(&temp.0, Durability::Strict).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 3, .. }), "{error}");
}

#[test]
fn an_image_of_version_1_is_read_with_the_log_behind_it() {
    let temp = Temp::new();
    let mut image = format::header_of_version(Kind::Snapshot, 2, 1).to_vec();
    format::frames(&mut image, [is(1, "one"), is(2, "two")].iter());
    let length = image.len() as u64;
    format::end(&mut image, length);
    let mut log = format::header_of_version(Kind::Log, 2, 1).to_vec();
    format::frames(&mut log, [is(2, "due"), gone(3)].iter());
    for (name, octets) in [("format", &b"lamplighter journal 1\n"[..]), ("snapshot-2", &image), ("log-2", &log)] {
        fs::write(temp.0.join(name), octets).unwrap();
    }
    let (journal, recovered) = temp.open();
    assert_eq!(live(&recovered), pairs(&[(1, "one"), (2, "due")]));
    keep(&journal, vec![is(4, "four")]).unwrap();
    drop(journal);
    assert!(!check(&temp.0).unwrap().is_damaged());
    assert_eq!(live(&temp.open().1), pairs(&[(1, "one"), (2, "due"), (4, "four")]));
}

#[test]
fn a_snapshot_replaces_what_came_before() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    keep(&journal, vec![is(1, "old"), is(2, "old"), is(3, "never imaged")]).unwrap();
    let mut snapshot = journal.begin_snapshot().unwrap();
    assert!(matches!(journal.begin_snapshot(), Err(JournalError::SnapshotRunning)));
    keep(&journal, vec![is(2, "newer than the image"), is(4, "new")]).unwrap();
    snapshot.write([(Key(1, 7), "old".into()), (Key(2, 7), "old".into())]).unwrap();
    snapshot.write([(Key(5, 7), "imaged".into())]).unwrap();
    snapshot.finish().unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&temp.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["format", "lock", "log-2", "snapshot-2"]);
    keep(&journal, vec![gone(1)]).unwrap();
    let on_disk: u64 = ["log-2", "snapshot-2"].map(|n| fs::metadata(temp.0.join(n)).unwrap().len()).iter().sum();
    assert_eq!(journal.stats().on_disk, on_disk);
    drop(journal);
    let expected = pairs(&[(2, "newer than the image"), (4, "new"), (5, "imaged")]);
    assert_eq!(live(&temp.open().1), expected);
}

#[test]
fn an_append_too_large_to_ever_fit_says_so() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let large = "x".repeat(9 << 20);
    assert!(matches!(keep(&journal, vec![is(1, &large)]), Err(WriteError::TooLarge { .. })));
    // The largest allowed record is read again.
    let fits = "x".repeat(format::FRAME_MAX - 16);
    keep(&journal, vec![is(1, &fits)]).unwrap();
    drop(journal);
    assert_eq!(live(&temp.open().1), [(1, fits)]);
}

#[test]
fn an_append_larger_than_a_frame_is_kept_in_several() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let large = "x".repeat(3 << 20);
    keep(&journal, (0..7).map(|n| is(n, &large)).collect()).unwrap();
    drop(journal);
    let (_journal, recovered) = temp.open();
    assert_eq!(
        recovered.records.iter().map(|(key, value)| (key.0, value.len())).collect::<Vec<_>>(),
        (0..7).map(|n| (n, 3 << 20)).collect::<Vec<_>>()
    );
}

#[test]
fn a_callback_may_panic_or_drop_the_journal() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let journal = Arc::new(journal);
    journal.append(vec![is(1, "a")], |_| panic!("on purpose"));
    keep(&journal, vec![is(2, "b")]).unwrap();
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let last = journal.clone();
    journal.append(vec![is(3, "c")], move |_| {
        gone.recv().unwrap();
        drop(last);
        tell.send(()).unwrap();
    });
    drop(journal);
    go.send(()).unwrap();
    told.recv().unwrap();
}

#[test]
fn no_records_at_all_wait_for_those_before_and_for_nobody_else() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let (tell, told) = mpsc::channel();
    let append = |records: Vec<Record>, name: &'static str| {
        let tell = tell.clone();
        journal.append(records, move |fate| tell.send((name, fate.is_ok())).unwrap());
    };
    append(vec![], "at once");
    assert_eq!(told.try_recv(), Ok(("at once", true)));
    journal.append_deferred(vec![is(1, "nobody waits for this")]).unwrap();
    append(vec![], "still at once");
    assert_eq!(told.try_recv(), Ok(("still at once", true)));
    append(vec![is(2, "two")], "kept");
    append(vec![], "after it");
    assert_eq!([told.recv().unwrap(), told.recv().unwrap()], [("kept", true), ("after it", true)]);
}

#[test]
fn a_word_that_was_overtaken_on_its_way_does_not_hold() {
    let temp = Temp::new();
    let (journal, _) = temp.open();
    let word = |record: Record, order| vec![Record { order, ..record }];
    keep(&journal, word(is(1, "first"), 1)).unwrap();
    keep(&journal, word(is(1, "third"), 3)).unwrap();
    keep(&journal, word(is(1, "second, by another thread"), 2)).unwrap();
    keep(&journal, word(gone(2), 5)).unwrap();
    keep(&journal, word(is(2, "before it was gone"), 4)).unwrap();
    journal.begin_snapshot().unwrap().write([]).unwrap();
    keep(&journal, word(is(1, "second, by a slower one"), 2)).unwrap();
    drop(journal);
    assert_eq!(live(&temp.open().1), pairs(&[(1, "third")]));
}
