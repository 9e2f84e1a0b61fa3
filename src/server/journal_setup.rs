//! Use of the journal by the server: opens it at start, logs what was recovered, and appends after a rollback.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Data, OnDamage};
use crate::journal::{self, Durability, Journal, JournalError, Key, OpenReport};
use crate::notifier;
use crate::notifier::Outbox;

/// The journal (none with durability "memory") and the records of an earlier run.
pub(super) type Opened = (Option<Arc<Journal>>, Vec<(Key, Bytes)>);

/// Opens the journal. A damaged one is repaired first if `data.on_damage` is "repair".
pub(super) fn open(data: &Data, durability: Durability) -> Result<Opened, JournalError> {
    let (journal, recovered) = match Journal::open(&data.dir, durability) {
        Err(damage) if damage.is_damage() && data.on_damage == OnDamage::Repair => {
            let parts = repair(data, &damage)?;
            let opened = Journal::open(&data.dir, durability)?;
            opened.0.count_repaired(parts);
            opened
        }
        opened => opened?,
    };
    tell(&recovered.report);
    Ok((Some(Arc::new(journal)), recovered.records))
}

/// Appends the records that restore the state after a rollback, and releases the holds, so that the journal accepts
/// changes again.
pub(super) fn append_rollback(journal: Option<&Journal>, out: &mut Outbox) {
    if let Some(journal) = journal.filter(|_| !out.deferred_records.is_empty()) {
        // If there is no room, the journal keeps its earlier records. They are right unless the refused ones had
        // reached the disk.
        let _ = journal.append_rollback(std::mem::take(&mut out.deferred_records));
    }
    out.holds.clear();
}

/// Repairs the journal and logs what was lost. Returns the number of bad parts.
fn repair(data: &Data, damage: &JournalError) -> Result<u64, JournalError> {
    let Some(repaired) = journal::repair(&data.dir)? else { return Ok(0) };
    let aside: Vec<_> = repaired.aside.iter().map(|path| path.display().to_string()).collect();
    tracing::error!(
        %damage, lost = notifier::lost(&repaired.survey).join("; "), kept = repaired.kept, aside = aside.join(", "),
        "the journal was damaged and is repaired: acknowledged changes are lost"
    );
    Ok(repaired.parts())
}

fn tell(report: &OpenReport) {
    for file in &report.files {
        let (path, octets, records) = (file.path.display(), file.octets, file.records);
        tracing::info!(file = %path, octets, records, "the journal was read up to here");
    }
    if let Some(cut) = &report.cut {
        let aside = cut.aside.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        tracing::warn!(
            file = %cut.path.display(), offset = cut.offset, octets = cut.octets, what = cut.what, aside,
            "the end of the journal was cut off: the last write is incomplete, and nothing follows it, as a crash leaves it"
        );
    }
}
