//! Tells a torn write, which any crash may leave at the end of a log, from damage, which none can.
//!
//! The writer begins a commit only when the one before is on disk. So at a crash at most the last one is incomplete, and of
//! that any part may be there: the file may end within it (the rest was never written), or have holes of zeros (it was
//! made longer, and not all of its sectors were written). What is there is right. Hence a bad frame is
//! - damage, if a MARK behind it says that the disk has had it, or an END that the file was completed;
//! - torn, if it reaches beyond the end of the file, or there is a hole in it;
//! - damage otherwise: all of its octets are there, and they are wrong. Logs of version 1 have no MARKs; there, good frames
//!   behind a bad one are damage.
//!
//! What cannot be told: a log that ends between two frames, or within one, from a shorter one; and two faults in the very
//! last frame that make its length and its records disagree, from a torn one.

use super::{
    Key,
    format::{self, FRAME_HEAD, FRAME_MAX, RECORD_HEAD, Word},
};

/// A disk writes whole sectors.
const SECTOR: usize = 512;
/// So many zeros at the edge of a sector are a hole; fewer may be the end of a record or the beginning of the next.
const HOLE: usize = 32;

/// A good frame in a stretch of octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    /// What is alone in it, if it is a MARK or an END.
    pub(super) alone: Option<(Key, Word)>,
}

/// The frame that begins at `start`, if it is a good one.
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
    // The shape is looked at first: that is quick, and nearly nothing but frames has it.
    let good = format::records(body, &mut note) && format::has_checksum(head, length, body);
    (good && (count == 1 || alone.is_none())).then_some(Found { start, end, alone })
}

/// The first good frame that begins at `from` or later.
pub(super) fn next_frame(octets: &[u8], from: usize) -> Option<Found> {
    (from..octets.len()).find_map(|start| frame_at(octets, start))
}

/// Why the bad frame at the beginning of `rest`, which is the end of a log from the octet `at` on, is damage; none if it is
/// a torn write.
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

/// Whether the last frame of a file reaches beyond its end. It does not if it is whole but for its length.
fn is_short(rest: &[u8]) -> bool {
    let Some((head, body)) = rest.split_at_checked(FRAME_HEAD) else { return true };
    let said = format::length_of(head);
    if !(RECORD_HEAD..=FRAME_MAX).contains(&said) || said <= body.len() {
        return false;
    }
    !format::has_checksum(head, body.len(), body)
}
