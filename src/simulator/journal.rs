//! Journal of the server under test, and the output that waits for it: the part of `server/io_thread.rs`, in virtual
//! time.
//!
//! Records share commits. A commit takes a few milliseconds, and now and then as long as one on a busy disk. Messages
//! leave when everything is durable that was decided up to them.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::invariants::Leaving;
use super::ladder::Topic;
use super::scenario::Mutation;
use super::simulation::{Event, Simulation, Violation};
use crate::journal::{Acceptance, JournalError, Key, MemoryJournal, Record};
use crate::notifier::{Change, Outbox, PendingResponse};
use crate::transport::OutboundMessage;

/// Time for which deferred records wait for a commit to share (ms).
const LAZY: u64 = 1_000;

/// Output of one decision, which leaves together.
#[derive(Debug)]
pub(super) struct PendingOutput {
    /// Messages, each with the decision that has to be durable before it leaves.
    pub(super) packets: Vec<(u64, Leaving, OutboundMessage)>,
    pub(super) unfinished: Vec<u32>,
    /// The responses among them, which retransmitted requests get from then on.
    pub(super) answers: Vec<PendingResponse>,
    /// Rollback of the changes that the messages report, for the case that the journal refuses them, and the keys of
    /// the records.
    pub(super) changes: Vec<Change>,
    pub(super) appended: Vec<Key>,
}

/// Next step of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) enum JournalStep {
    /// The wait of the deferred records is over.
    Lazy,
    /// A commit is finished.
    Committed,
    /// A snapshot is to replace the log: first the next segment begins,
    Rotate,
    /// then the current state is read,
    Image,
    /// and at last the snapshot gets its final name.
    Finish,
    /// The disk works again.
    Recovered,
}

#[derive(Debug)]
pub(super) struct Entry {
    decision: u64,
    pub(super) records: Vec<Record>,
    /// None for deferred records.
    pub(super) parcel: Option<PendingOutput>,
    /// Offset in the batch at which the frame of this entry ends.
    end: usize,
}

/// The journal and the output that waits for it.
#[derive(Debug)]
pub(super) struct SimJournal {
    tape: Option<MemoryJournal>,
    waiting: VecDeque<Entry>,
    /// Number of waiting entries in the commit in progress.
    committing: usize,
    /// The last durable decision; all before it are durable too.
    kept: u64,
    /// The last decision whose deferred records are durable.
    noted: u64,
    rotate: bool,
    /// The server crashes during the next commit.
    pub(super) doomed: bool,
    /// The disk refuses the commit in progress.
    failing: bool,
    imaged: u64,
    /// First record of every key, for the mutation [`Mutation::OldRecord`].
    first_words: HashMap<Key, Bytes>,
}

/// Remains of a crash.
pub(super) struct CrashRemains {
    /// Records in the journal.
    pub(super) records: Vec<(Key, Bytes)>,
    kept: u64,
    noted: u64,
    /// Decisions after `kept` whose records are in the journal nevertheless.
    whole: Vec<u64>,
}

impl CrashRemains {
    /// Returns true if this decision is in the journal.
    pub(super) fn survived(&self, decision: u64) -> bool {
        decision <= self.kept || self.whole.contains(&decision)
    }

    /// Returns true if the deferred records of this decision are in the journal.
    pub(super) fn noted(&self, decision: u64) -> bool {
        decision <= self.noted
    }
}

impl SimJournal {
    pub(super) fn new() -> SimJournal {
        let (waiting, committing, kept, noted) = (VecDeque::new(), 0, 0, 0);
        let (rotate, doomed, failing, imaged, first_words) = (false, false, false, 0, HashMap::new());
        SimJournal {
            tape: MemoryJournal::new().ok(),
            waiting,
            committing,
            kept,
            noted,
            rotate,
            doomed,
            failing,
            imaged,
            first_words,
        }
    }

    /// Returns true if messages without a record have to wait for those before them.
    fn is_awaited(&self) -> bool {
        self.waiting.iter().any(|entry| entry.parcel.is_some())
    }

    /// Simulates a power failure. `share` (in 65536ths) is the part of the pending write that has reached the disk.
    /// The result tells which decisions up to `decision` survived.
    pub(super) fn crash(&mut self, share: u16, decision: u64) -> Result<CrashRemains, JournalError> {
        let Some(tape) = self.tape.take() else { return Err(nothing()) };
        let (tape, recovered, octets) = tape.crash(share)?;
        self.tape = Some(tape);
        let entries: Vec<_> = self.waiting.drain(..).take(std::mem::take(&mut self.committing)).collect();
        let whole = entries.iter().filter(|entry| !entry.records.is_empty() && entry.end <= octets);
        let noted = whole.clone().filter(|entry| entry.parcel.is_none()).map(|entry| entry.decision).max();
        let left = CrashRemains {
            records: recovered.records,
            kept: self.kept,
            noted: self.noted.max(noted.unwrap_or_default()),
            whole: whole.filter(|entry| entry.parcel.is_some()).map(|entry| entry.decision).collect(),
        };
        (self.kept, self.noted, self.rotate, self.failing) = (decision, decision, false, false);
        Ok(left)
    }

    /// Commits records before the server continues.
    pub(super) fn keep_at_once(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let tape = self.tape()?;
        if !records.is_empty() {
            tape.append(records);
        }
        tape.sync()
    }

    /// Refuses the commit in progress: returns everything that waited, and the last durable decision. Deferred records
    /// continue to wait.
    pub(super) fn refuse(&mut self) -> (Vec<Entry>, u64) {
        if let Some(tape) = &mut self.tape {
            tape.refuse();
        }
        (self.committing, self.failing) = (0, false);
        let (refused, promised) = self.waiting.drain(..).partition(|entry| entry.parcel.is_some());
        self.waiting = promised;
        (Vec::from(refused), self.kept)
    }

    /// First record of a key, if it was remembered.
    pub(super) fn first_word(&self, key: &Key) -> Option<Bytes> {
        self.first_words.get(key).cloned()
    }

    fn tape(&mut self) -> Result<&mut MemoryJournal, JournalError> {
        self.tape.as_mut().ok_or_else(nothing)
    }
}

/// The error for a missing journal: it was lost in a crash that itself failed, and that failure was reported then.
fn nothing() -> JournalError {
    JournalError::Missing { path: "tape".into() }
}

impl Simulation {
    /// Appends records, and sends the output of the decision when they are durable.
    pub(super) fn keep(
        &mut self,
        records: Vec<Record>,
        remarks: Vec<Record>,
        parcel: PendingOutput,
    ) -> Result<(), Violation> {
        let decision = self.decision;
        if !remarks.is_empty() {
            if self.keeper.waiting.is_empty() {
                self.schedule_in(LAZY, Event::Journal(self.life, JournalStep::Lazy));
            }
            self.keeper.waiting.push_back(Entry { decision, records: remarks, parcel: None, end: 0 });
        }
        let sabotage = self.options.sabotage;
        let late = match records.is_empty() {
            _ if sabotage == Some(Mutation::Haste) => false,
            true => self.keeper.is_awaited() && sabotage != Some(Mutation::Overtaking),
            false => true,
        };
        if !late {
            if !records.is_empty() {
                self.keeper.waiting.push_back(Entry { decision, records, parcel: None, end: 0 });
                self.commit()?;
            } else if !self.keeper.is_awaited() {
                self.keeper.kept = decision;
            }
            return self.send_off(parcel);
        }
        self.keeper.waiting.push_back(Entry { decision, records, parcel: Some(parcel), end: 0 });
        self.commit()
    }

    /// Begins a commit of all waiting entries, unless one is in progress.
    pub(super) fn commit(&mut self) -> Result<(), Violation> {
        if self.keeper.committing > 0 || self.keeper.waiting.is_empty() {
            return Ok(());
        }
        let Some(tape) = &mut self.keeper.tape else { return Ok(()) };
        for entry in &mut self.keeper.waiting {
            entry.end = tape.append(&entry.records);
            if self.options.sabotage == Some(Mutation::OldRecord) {
                for Record { key, value, .. } in &entry.records {
                    let Some(value) = value else { continue };
                    self.keeper.first_words.entry(*key).or_insert_with(|| value.clone());
                }
            }
        }
        self.keeper.committing = self.keeper.waiting.len();
        self.keeper.failing = self.options.trouble && !self.calm && self.random.chance(0.004);
        let busy = self.options.trouble && !self.calm && self.random.chance(0.005);
        let wait = if busy { self.random.between(50, 1_500) } else { self.random.between(0, 5) };
        if std::mem::take(&mut self.keeper.doomed) && !self.calm {
            let moment = self.random.between(0, wait);
            self.schedule_in(moment, Event::CrashAt(self.life));
        }
        self.schedule_in(wait, Event::Journal(self.life, JournalStep::Committed));
        Ok(())
    }

    /// Performs a step of the journal that is due.
    pub(super) fn go_on_keeping(&mut self, stage: JournalStep) -> Result<(), Violation> {
        match stage {
            JournalStep::Lazy => self.commit(),
            JournalStep::Committed if self.keeper.failing => self.refuse_commit(),
            JournalStep::Committed => self.committed(),
            JournalStep::Recovered => {
                self.server.set_journal_acceptance(Acceptance::Accepting);
                Ok(())
            }
            JournalStep::Rotate => {
                self.keeper.rotate = true;
                if self.keeper.committing == 0 { self.rotate() } else { Ok(()) }
            }
            JournalStep::Image => {
                let mut records = Vec::new();
                self.server.snapshot(|key, value| records.push((key, value)));
                self.keeper.imaged = self.decision;
                let written = self.keeper.tape().and_then(|tape| tape.write_image(records));
                let wait = self.random.between(0, 400);
                self.schedule_in(wait, Event::Journal(self.life, JournalStep::Finish));
                self.or_fault(written)
            }
            // A snapshot with changes that are not durable yet would make them survive a crash. The server may do
            // that, but the oracle could not tell then which changes survived.
            JournalStep::Finish if self.keeper.is_awaited() && self.keeper.kept < self.keeper.imaged => {
                self.schedule_in(5, Event::Journal(self.life, JournalStep::Finish));
                Ok(())
            }
            JournalStep::Finish => {
                let dies = self.options.crashes > 0.0 && !self.calm && self.random.chance(0.1);
                let life = dies.then(|| self.random.between(0, 8));
                let finished = self.keeper.tape().and_then(|tape| tape.finish_image(life));
                self.or_fault(finished)?;
                if dies {
                    return self.crash();
                }
                self.begin_journal();
                Ok(())
            }
        }
    }

    fn committed(&mut self) -> Result<(), Violation> {
        let synced = self.keeper.tape().and_then(MemoryJournal::sync);
        self.or_fault(synced)?;
        if self.options.crashes > 0.0 && !self.calm && self.random.chance(0.0005) {
            // The crash falls between the commit and the responses.
            let kept = self.keeper.waiting.iter().take(self.keeper.committing).map(|entry| entry.decision).max();
            self.keeper.kept = self.keeper.kept.max(kept.unwrap_or_default());
            self.keeper.waiting.drain(..std::mem::take(&mut self.keeper.committing));
            self.truth.kept(self.keeper.kept);
            return self.crash();
        }
        for _ in 0..std::mem::take(&mut self.keeper.committing) {
            let Some(entry) = self.keeper.waiting.pop_front() else { break };
            match entry.parcel {
                None => self.keeper.noted = self.keeper.noted.max(entry.decision),
                Some(parcel) => {
                    self.keeper.kept = entry.decision;
                    self.send_off(parcel)?;
                }
            }
        }
        self.truth.kept(self.keeper.kept);
        if self.keeper.rotate {
            self.rotate()?;
        }
        if self.keeper.is_awaited() {
            return self.commit();
        }
        if !self.keeper.waiting.is_empty() {
            self.schedule_in(LAZY, Event::Journal(self.life, JournalStep::Lazy));
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Violation> {
        self.keeper.rotate = false;
        let begun = self.keeper.tape().and_then(MemoryJournal::begin_image);
        let wait = self.random.between(0, 400);
        self.schedule_in(wait, Event::Journal(self.life, JournalStep::Image));
        self.or_fault(begun)
    }

    /// Schedules the next compaction of the journal.
    pub(super) fn begin_journal(&mut self) {
        let wait = self.random.between(10_000, 90_000);
        self.schedule_in(wait, Event::Journal(self.life, JournalStep::Rotate));
    }

    pub(super) fn send_off(&mut self, parcel: PendingOutput) -> Result<(), Violation> {
        let mut answers = Outbox { pending_responses: parcel.answers, ..Outbox::default() };
        self.server.on_committed(self.tick(), &mut answers);
        for (needs, leaving, packet) in parcel.packets {
            if needs > self.keeper.kept && self.options.sabotage != Some(Mutation::Haste) {
                let call_id = crate::sip::wire::read(&packet.bytes).ok().flatten().map(|m| m.call_id.to_string());
                let law = "a message leaves before the journal has kept what it tells";
                return Err(self.fault_in(&call_id.unwrap_or_default(), law));
            }
            self.laws.left(&leaving);
            self.deliver(packet);
        }
        for presentity in parcel.unfinished {
            self.schedule_in(0, Event::Continue(self.life, presentity));
        }
        Ok(())
    }

    pub(super) fn or_fault<T>(&self, result: Result<T, JournalError>) -> Result<T, Violation> {
        result.map_err(|error| self.fault(format!("the journal: {error}"), Topic::default()))
    }
}
