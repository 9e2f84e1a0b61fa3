//! File format of the journal. All numbers are little-endian.
//!
//! ```text
//! file    = header *frame
//! header  = "LAMPJRN" kind version:u32 number:u64 crc:u32     kind: L log, S snapshot; the same in all versions
//! frame   = length:u32 crc:u32 1*record                       length of the records; crc over length and records
//! record  = octets:u32 key:u64 key:u32 value                  octets of the value, or one of:
//!           GONE                                              tombstone: the key was removed
//!           END                                               file is complete; first key: offset of this frame
//!           MARK                                              first key: octets that were on disk before this frame
//! ```
//!
//! A frame holds the records of one append. It is the unit that is complete or absent: its records share one checksum.
//! The checksum includes the length, so that a stretch of zeros, which a crash may leave, is not a frame. A complete
//! file ends with END; without it a file that lost its last frames would look complete.
//!
//! END and MARK are alone in their frames. Each commit of a log begins with a MARK; this is the only difference between
//! version 2 and version 1. A bad frame before the offset that a later MARK names is not a torn write, because it was
//! on disk. `damage.rs` decides by that.

use std::io::{self, Read};

use bytes::Bytes;

use super::{Key, Record};

/// Version that is written, and the newest one that is read. All older versions are read too.
pub(super) const VERSION: u32 = 2;
/// Size of the file header (octets).
pub(super) const HEADER: usize = 24;
/// Most octets of records in a frame. It limits the memory that a damaged length can make us allocate.
pub(super) const FRAME_MAX: usize = 8 << 20;

pub(super) const FRAME_HEAD: usize = 8;
pub(super) const RECORD_HEAD: usize = 16;
const MAGIC: &[u8; 7] = b"LAMPJRN";
const GONE: u32 = u32::MAX;
const END: u32 = u32::MAX - 1;
const MARK: u32 = u32::MAX - 2;

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Log,
    Snapshot,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Log => b'L',
            Self::Snapshot => b'S',
        }
    }

    /// Name of a file of this kind.
    pub(super) fn name(self, number: u64) -> String {
        match self {
            Self::Log => format!("log-{number}"),
            Self::Snapshot => format!("snapshot-{number}"),
        }
    }

    /// Kind and number of a file from its name; none if [`Kind::name`] does not make such a name.
    pub(super) fn parse(name: &str) -> Option<(Self, u64)> {
        let number = name.split_once('-')?.1.parse().ok()?;
        let kind = [Self::Log, Self::Snapshot].into_iter().find(|k| k.name(number) == name)?;
        Some((kind, number))
    }
}

/// Header of a file in the current version.
pub(super) fn header(kind: Kind, number: u64) -> [u8; HEADER] {
    header_of_version(kind, number, VERSION)
}

pub(super) fn header_of_version(kind: Kind, number: u64, version: u32) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    head[..7].copy_from_slice(MAGIC);
    head[7] = kind.letter();
    head[8..12].copy_from_slice(&version.to_le_bytes());
    head[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Result of checking a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Valid; the value is its version.
    Good(u32),
    /// Valid, but of a newer version.
    Newer(u32),
    /// Incomplete, corrupt, or of another file.
    Bad,
}

/// Checks the header of a file.
pub(super) fn judge(head: &[u8], kind: Kind, number: u64) -> Head {
    let version = word(head, 8);
    if head != header_of_version(kind, number, version) {
        Head::Bad
    } else if version > VERSION {
        Head::Newer(version)
    } else {
        Head::Good(version)
    }
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn long(octets: &[u8], at: usize) -> u64 {
    octets.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// Size of a record in a frame (octets).
pub(super) fn size(record: &Record) -> usize {
    RECORD_HEAD + record.value.as_ref().map_or(0, Bytes::len)
}

/// Appends `records` to `out` in as few frames as possible. Each record must fit into a frame.
pub(super) fn frames<'a>(out: &mut Vec<u8>, records: impl Iterator<Item = &'a Record>) {
    let mut records = records.peekable();
    while records.peek().is_some() {
        let mut room = FRAME_MAX;
        frame(out, |out| {
            while let Some(record) = records.next_if(|record| size(record) <= room) {
                room -= size(record);
                put(out, record.key, record.value.as_deref());
            }
        });
    }
}

/// Appends a frame of the octets that `fill` adds to `out`; no frame if it adds none.
pub(super) fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    fill(out);
    let length = out.len() - start - FRAME_HEAD;
    debug_assert!(length <= FRAME_MAX);
    if length == 0 {
        return out.truncate(start);
    }
    // Cannot truncate: FRAME_MAX is far below 2^32.
    let length = (length as u32).to_le_bytes();
    let crc = checksum(length, &out[start + FRAME_HEAD..]);
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(length: [u8; 4], records: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(records);
    crc.finalize()
}

/// Appends one record to a frame.
pub(super) fn put(out: &mut Vec<u8>, key: Key, value: Option<&[u8]>) {
    debug_assert!(value.is_none_or(|v| v.len() <= FRAME_MAX));
    put_head(out, value.map_or(GONE, |v| v.len() as u32), key);
    out.extend_from_slice(value.unwrap_or_default());
}

fn put_head(out: &mut Vec<u8>, octets: u32, key: Key) {
    out.extend_from_slice(&octets.to_le_bytes());
    out.extend_from_slice(&key.0.to_le_bytes());
    out.extend_from_slice(&key.1.to_le_bytes());
}

/// Appends the frame that begins a commit; it says that the first `offset` octets of the file are on disk.
pub(super) fn mark(out: &mut Vec<u8>, offset: u64) {
    frame(out, |out| put_head(out, MARK, Key(offset, 0)));
}

/// Appends the frame that completes a file; `offset` octets precede it.
pub(super) fn end(out: &mut Vec<u8>, offset: u64) {
    frame(out, |out| put_head(out, END, Key(offset, 0)));
}

/// Result of reading a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Version from its header.
    pub(super) version: u32,
    /// Offset of the end of the last good frame; an END is not counted.
    pub(super) good: u64,
    /// Number of records read.
    pub(super) records: u64,
    /// True if END was found.
    pub(super) complete: bool,
    /// Description of the fault after `good`; none if there is none.
    pub(super) fault: Option<&'static str>,
}

/// Reads the frames after the header up to the first bad one, and passes the records of each good frame to `take`.
pub(super) fn scan(file: &mut dyn Read, version: u32, mut take: impl FnMut(Key, Option<Bytes>)) -> io::Result<Scan> {
    let mut scan = Scan { version, good: HEADER as u64, records: 0, complete: false, fault: None };
    let mut body = Vec::new();
    let mut found = Vec::new();
    loop {
        let mut head = [0; FRAME_HEAD];
        let got = read_up_to(file, &mut head)?;
        if got == 0 {
            return Ok(scan);
        }
        let fault = if scan.complete {
            Some("goes on after its end")
        } else if got < FRAME_HEAD {
            Some("cut short")
        } else {
            read_frame(file, &head, &mut body, &mut found)?
        };
        if fault.is_some() {
            scan.fault = fault;
            return Ok(scan);
        }
        if let Some((Key(offset, _), Word::End)) = found.first() {
            if found.len() > 1 || *offset != scan.good {
                scan.fault = Some("an end in the wrong place");
                return Ok(scan);
            }
            scan.complete = true;
            continue;
        }
        scan.good += (FRAME_HEAD + body.len()) as u64;
        scan.records += found.iter().filter(|(_, word)| !matches!(word, Word::Mark)).count() as u64;
        for (key, word) in found.drain(..) {
            match word {
                Word::Is(at, len) => take(key, Some(Bytes::copy_from_slice(&body[at..at + len]))),
                Word::Gone => take(key, None),
                Word::Mark | Word::End => {}
            }
        }
    }
}

/// Content of a record: a value, a tombstone, or a statement about its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Value: offset in the records of the frame, and length.
    Is(usize, usize),
    Gone,
    End,
    Mark,
}

/// Reads the rest of a frame after its head. Returns the description of a fault; none if the frame is good.
fn read_frame(
    file: &mut dyn Read,
    head: &[u8; FRAME_HEAD],
    body: &mut Vec<u8>,
    found: &mut Vec<(Key, Word)>,
) -> io::Result<Option<&'static str>> {
    let length = length_of(head);
    if !(RECORD_HEAD..=FRAME_MAX).contains(&length) {
        return Ok(Some("a length that cannot be"));
    }
    body.resize(length, 0);
    if read_up_to(file, body)? < length {
        return Ok(Some("cut short"));
    }
    if !has_checksum(head, length, body) {
        return Ok(Some("a wrong checksum"));
    }
    found.clear();
    let whole = records(body, |key, word| found.push((key, word)));
    if !whole {
        return Ok(Some("a record that does not fit its frame"));
    }
    if found.len() > 1 && found.iter().any(|(_, word)| matches!(word, Word::End | Word::Mark)) {
        return Ok(Some("an end in the wrong place"));
    }
    Ok(None)
}

/// Length field of a frame's head.
pub(super) fn length_of(head: &[u8]) -> usize {
    word(head, 0) as usize
}

/// Returns true if the checksum in a frame's head is right for these `records` and this `length`.
pub(super) fn has_checksum(head: &[u8], length: usize, records: &[u8]) -> bool {
    checksum((length as u32).to_le_bytes(), records) == word(head, 4)
}

/// Passes each record of a frame to `each`. Returns false if the rest is not a complete record.
pub(super) fn records(body: &[u8], mut each: impl FnMut(Key, Word)) -> bool {
    let mut at = 0;
    while at < body.len() {
        if body.len() - at < RECORD_HEAD {
            return false;
        }
        let key = Key(long(body, at + 4), word(body, at + 12));
        let octets = word(body, at);
        at += RECORD_HEAD;
        match octets {
            GONE => each(key, Word::Gone),
            END => each(key, Word::End),
            MARK => each(key, Word::Mark),
            octets if octets as usize <= body.len() - at => {
                each(key, Word::Is(at, octets as usize));
                at += octets as usize;
            }
            _ => return false,
        }
    }
    true
}

/// Reads until `into` is full or the file ends; returns the number of octets read.
pub(super) fn read_up_to(file: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
