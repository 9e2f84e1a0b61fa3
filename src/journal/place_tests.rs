//! Directories that are moved, removed or replaced while the journal is open.

use std::fs;

use super::{
    fault_tests::{QUICK, limits, until},
    tests::{Temp, is, keep, live, pairs},
    *,
};

fn open(dir: &Path) -> (Journal, Recovered) {
    store::prepare(dir).unwrap();
    let limits = Limits { look_every: QUICK, ..limits() };
    Journal::open_on(Arc::new(store::lock(dir).unwrap()), Durability::Strict, limits).unwrap()
}

fn until_failed(journal: &Journal, word: &str) {
    until("that it is noticed", || matches!(journal.health(), Health::Failed { why, .. } if why.contains(word)));
    assert!(!journal.stats().good && journal.accepts() == Acceptance::Failing);
    assert!(matches!(keep(journal, vec![is(9, "into nothing")]), Err(WriteError::Disk(_))));
}

/// All files of a directory with their contents.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_directory_that_is_moved_away_is_noticed_and_goes_on_when_it_is_back() {
    let temp = Temp::new();
    let (dir, away) = (temp.0.join("journal"), temp.0.join("away"));
    let (journal, _) = open(&dir);
    keep(&journal, vec![is(1, "before")]).unwrap();
    fs::rename(&dir, &away).unwrap();
    until_failed(&journal, "gone");
    fs::rename(&away, &dir).unwrap();
    until("recovery", || journal.accepts() == Acceptance::Accepting);
    keep(&journal, vec![is(2, "after")]).unwrap();
    drop(journal);
    assert_eq!(live(&open(&dir).1), pairs(&[(1, "before"), (2, "after")]));
}

#[test]
fn a_directory_that_is_removed_is_noticed_whether_or_not_an_empty_one_comes_after() {
    for again in [false, true] {
        let temp = Temp::new();
        let dir = temp.0.join("journal");
        let (journal, _) = open(&dir);
        keep(&journal, vec![is(1, "before")]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        if again {
            fs::create_dir(&dir).unwrap();
        }
        until_failed(&journal, "gone");
        drop(journal);
        assert_eq!(dir.exists(), again, "nothing is made anew");
        assert!(!again || files(&dir).is_empty());
    }
}

#[test]
fn a_lock_file_that_is_replaced_is_noticed() {
    let temp = Temp::new();
    let (journal, _) = open(&temp.0);
    fs::write(temp.0.join("new"), "").unwrap();
    fs::rename(temp.0.join("new"), temp.0.join("lock")).unwrap();
    until_failed(&journal, "another");
}

#[test]
fn no_file_of_another_server_in_the_same_place_is_touched() {
    let temp = Temp::new();
    let (dir, away) = (temp.0.join("journal"), temp.0.join("away"));
    let (first, _) = open(&dir);
    keep(&first, vec![is(1, "of the first")]).unwrap();
    let mut image = first.begin_snapshot().unwrap();
    image.write([(Key(1, 7), "of the first".into())]).unwrap();
    fs::rename(&dir, &away).unwrap();
    let (second, recovered) = open(&dir);
    assert!(recovered.records.is_empty());
    keep(&second, vec![is(2, "of the second")]).unwrap();
    until_failed(&first, "another");
    let before = files(&dir);
    assert!(matches!(image.finish(), Err(JournalError::Io { .. })));
    assert!(matches!(first.begin_snapshot(), Err(JournalError::NotNow(_))));
    drop(first);
    assert_eq!(files(&dir), before);
    keep(&second, vec![is(3, "more")]).unwrap();
    drop(second);
    assert_eq!(live(&open(&dir).1), pairs(&[(2, "of the second"), (3, "more")]));
    assert_eq!(live(&open(&away).1), pairs(&[(1, "of the first")]));
}
