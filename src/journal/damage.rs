//! Distinction between a torn tail, which any crash may leave at the end of a log, and damage, which no crash causes.
//!
//! The writer starts a commit only when the one before is on disk. So after a crash at most the last commit is
//! incomplete. Any part of it may be there: the file may end within it (the rest was never written), or have holes of
//! zeros (the file was extended, and not all of its sectors were written). The octets that are there are right. Hence a
//! bad frame is
//! - damage, if a later MARK says that it was on disk, or a later END that the file was completed;
//! - torn, if it reaches beyond the end of the file, or has a hole;
//! - damage otherwise: all of its octets are there, and they are wrong. Logs of version 1 have no MARKs; in them a bad
//!   frame before a good one is damage.
//!
//! Two cases cannot be recognised. A log that was cut, between two frames or within one, looks like a shorter log or a
//! torn one. And two faults in the very last frame that make its length and its records disagree look like a torn
//! frame.

use super::{
    Key,
    format::{self, FRAME_HEAD, FRAME_MAX, RECORD_HEAD, Word},
};

/// Unit in which a disk writes (octets).
const SECTOR: usize = 512;
/// Zeros at the edge of a sector that count as a hole. Fewer may be the end of a record or the beginning of the next.
const HOLE: usize = 32;

/// Good frame in a piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Its only record, if that is a MARK or an END.
    pub(super) alone: Option<(Key, Word)>,
}

/// Frame that begins at `start`; none if it is not good.
pub(super) fn frame_at(octets: &[u8], start: usize) -> Option<Found> {
    let head = octets.get(start..start + FRAME_HEAD)?;
    let length = format::length_of(head);
    if !(RECORD_HEAD..=FRAME_MAX).contains(&length) {
        return None;
    }
    let end = start + FRAME_HEAD + length;
    let body = octets.get(start + FRAME_HEAD..end)?;
    let (mut count, mut alone) = (0, None);
    let mut note = |key, word| {
        count += 1;
        if matches!(word, Word::End | Word::Mark) {
            alone = Some((key, word));
        }
    };
    // The structure is checked before the checksum: it is quicker, and excludes nearly everything but frames.
    let good = format::records(body, &mut note) && format::has_checksum(head, length, body);
    (good && (count == 1 || alone.is_none())).then_some(Found { start, end, alone })
}

/// First good frame that begins at `from` or later.
pub(super) fn next_frame(octets: &[u8], from: usize) -> Option<Found> {
    (from..octets.len()).find_map(|start| frame_at(octets, start))
}

/// Judges a bad frame. `rest` is the end of a log from the octet `at` on, and begins with the bad frame. Returns the
/// description of the damage; none if it is a torn tail.
pub(super) fn judge(rest: &[u8], at: u64, version: u32) -> Option<&'static str> {
    let first = next_frame(rest, 1);
    let mut behind = first;
    while let Some(found) = behind {
        match found.alone {
            Some((Key(synced, _), Word::Mark)) if synced > at => {
                return Some("what follows was written after this was on disk");
            }
            Some((_, Word::End)) => return Some("what follows completes the file"),
            _ => behind = next_frame(rest, found.end),
        }
    }
    if version < 2 && first.is_some() {
        return Some("good records follow");
    }
    let bad = &rest[..first.map_or(rest.len(), |found| found.start)];
    if has_hole(bad, at) || (first.is_none() && is_short(rest)) {
        return None;
    }
    Some("it is whole and wrong")
}

fn has_hole(bad: &[u8], at: u64) -> bool {
    let zeros = |octets: &[u8]| octets.iter().all(|octet| *octet == 0);
    let first = SECTOR - (at % SECTOR as u64) as usize;
    let (head, sectors) = bad.split_at(first.min(bad.len()));
    zeros(bad) || std::iter::once(head).chain(sectors.chunks(SECTOR)).any(|part| part.len() >= HOLE && zeros(part))
}

/// Returns true if the last frame of a file reaches beyond its end. A frame whose checksum fits the octets that are
/// there is complete; only its length field is wrong then.
fn is_short(rest: &[u8]) -> bool {
    let Some((head, body)) = rest.split_at_checked(FRAME_HEAD) else { return true };
    let said = format::length_of(head);
    if !(RECORD_HEAD..=FRAME_MAX).contains(&said) || said <= body.len() {
        return false;
    }
    !format::has_checksum(head, body.len(), body)
}
