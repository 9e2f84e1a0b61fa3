//! Speed of the journal: `cargo bench --bench journal [DIRECTORY]`, on the disk of the directory.
//!
//! It writes a million records of 230 octets for 250,000 keys, as many as 250,000 subscriptions make that are
//! refreshed a few times. Strict durability is measured at several windows (appends that wait at the same time),
//! because a single one pays for a whole fdatasync. Each window runs for a few seconds at most. Reopening reads the
//! result of the relaxed run, first as log, then as snapshot.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lamplighter::journal::{Acceptance, Durability, Journal, Key, Record};

const RECORDS: u64 = 1_000_000;
const KEYS: u64 = 250_000;
const AT_MOST: Duration = Duration::from_secs(4);

fn record(n: u64, value: &Bytes) -> Vec<Record> {
    vec![Record { key: Key(n % KEYS, 0), value: Some(value.clone()), order: n }]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cargo bench passes --bench.
    let base = std::env::args().skip(1).find(|a| !a.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("lamplighter-journal-bench-{}", std::process::id()));
    let done = run(&dir);
    std::fs::remove_dir_all(&dir)?;
    done
}

fn run(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let value = Bytes::from(vec![0x5a; 230]);
    for window in [1, 256, 16_384] {
        let (journal, _) = Journal::open(&dir.join(format!("strict-{window}")), Durability::Strict)?;
        let began = Instant::now();
        let (tell, told) = mpsc::channel();
        let (mut sent, mut kept) = (0, 0);
        while kept < RECORDS && began.elapsed() < AT_MOST {
            while sent < RECORDS && sent - kept < window {
                let tell = tell.clone();
                journal.append(record(sent, &value), move |fate| drop(tell.send(fate)));
                sent += 1;
            }
            told.recv()??;
            kept += 1;
        }
        let took = began.elapsed();
        let stats = journal.stats();
        println!(
            "strict, window {window:>6}: {:>9.0} records/s, {:>6.0} commits/s, last commit {:?}",
            kept as f64 / took.as_secs_f64(),
            stats.commits as f64 / took.as_secs_f64(),
            stats.last_commit
        );
    }

    let dir = dir.join("relaxed");
    let (journal, _) = Journal::open(&dir, Durability::Relaxed)?;
    let began = Instant::now();
    let mut waits = 0u64;
    for n in 0..RECORDS {
        while journal.accepts() == Acceptance::Overloaded {
            waits += 1;
            std::thread::yield_now();
        }
        let (tell, told) = mpsc::channel();
        journal.append(record(n, &value), move |fate| tell.send(fate).expect("the bench listens"));
        told.recv()??;
    }
    journal.close();
    let took = began.elapsed();
    println!(
        "relaxed, to the end of close: {:>9.0} records/s, {waits} waits for a full queue",
        RECORDS as f64 / took.as_secs_f64()
    );
    drop(journal);

    let began = Instant::now();
    let (journal, recovered) = Journal::open(&dir, Durability::Relaxed)?;
    println!(
        "reopen, {} records of log, {} live: {:?}",
        recovered.report.records,
        recovered.records.len(),
        began.elapsed()
    );
    let began = Instant::now();
    let mut snapshot = journal.begin_snapshot()?;
    snapshot.write(recovered.records)?;
    snapshot.finish()?;
    println!("snapshot: {:?}, {} octets on disk", began.elapsed(), journal.stats().on_disk);
    drop(journal);
    let began = Instant::now();
    let (_journal, recovered) = Journal::open(&dir, Durability::Relaxed)?;
    println!("reopen, snapshot of {}: {:?}", recovered.records.len(), began.elapsed());
    Ok(())
}
