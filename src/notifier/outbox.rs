//! What the notifier wants sent, in the order in which it has to leave.

use bytes::{Bytes, BytesMut};

use super::answer::Remembered;
use super::names::Question;
use super::persist::is_acknowledgement;
use super::rollback::Change;
use crate::journal::{self, Record};
use crate::presence::Tick;
use crate::presence::subscription::Place;
use crate::sip::transaction::Key;
use crate::transport::{Destination, Packet, Ticket};

/// Names one NOTIFY; as a ticket it travels with the packet and comes back if that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotifyRef {
    pub(super) place: Place,
    pub(super) cseq: u32,
}

impl From<NotifyRef> for Ticket {
    fn from(NotifyRef { place, cseq }: NotifyRef) -> Ticket {
        let [presentity, slot, cseq] = [place.presentity, place.slot, cseq].map(u128::from);
        // A CSeq number has 31 bits and the low half of the nonce tells a slot's old tenant from its new one.
        Ticket(presentity << 96 | slot << 64 | cseq << 32 | u128::from(place.nonce as u32))
    }
}

/// An answer that may not leave yet.
#[derive(Debug)]
pub struct Promise {
    pub(super) key: Key,
    pub(super) answer: Bytes,
    pub(super) remembered: Remembered,
    /// The number of the change that it acknowledges; none if it is of a request that has changed nothing.
    pub(super) change: Option<u64>,
    /// When it is too late for it: the client has given up then (Timer F), and a proxy would take it for another's.
    pub(super) until: Tick,
}

/// Memory in which messages are written, many to a block: so one costs no allocation of its own, and takes what it is long.
///
/// Once a datagram has left nobody keeps it, so mostly the same block is filled again and again, and does not leave the
/// processor's cache. One that holds what waits, for the journal or for a connection, lives as long as that.
#[derive(Debug, Default)]
pub struct Pool {
    blocks: Blocks,
    /// The user part of the Contact in an answer before it is written.
    pub(super) user: String,
    /// The message that is being written, and ...
    message: Vec<u8>,
    /// ... the part of its body that is its own.
    own: String,
}

/// How large a block becomes (octets).
const BLOCK: usize = 64 * 1024;

impl Pool {
    /// Writes an answer.
    pub(super) fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        self.message.clear();
        write(&mut self.message);
        self.blocks.keep(&self.message)
    }

    /// Writes a NOTIFY.
    pub(super) fn notify(&mut self, write: impl FnOnce(&mut Vec<u8>, &mut String)) -> Bytes {
        self.message.clear();
        self.own.clear();
        write(&mut self.message, &mut self.own);
        self.blocks.keep(&self.message)
    }

    /// What was written has been sent: what nobody has kept of it is written over.
    pub fn rewind(&mut self) {
        let whole = self.blocks.size;
        let _ = self.blocks.free.try_reclaim(whole);
    }
}

/// One block after another.
#[derive(Debug, Default)]
struct Blocks {
    /// What is left of the latest one.
    free: BytesMut,
    /// How large that was.
    size: usize,
}

impl Blocks {
    /// Copies a message to where the free part begins. The first block is as long as its message: many outboxes carry one
    /// only, and what it takes is kept for as long as it is.
    fn keep(&mut self, message: &[u8]) -> Bytes {
        if !self.free.try_reclaim(message.len()) {
            self.size = (8 * self.size).min(BLOCK).max(message.len());
            self.free = BytesMut::with_capacity(self.size);
        }
        self.free.extend_from_slice(message);
        self.free.split().freeze()
    }
}

/// Collects what is to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Where messages are written.
    pub pool: Pool,
    /// Messages, in order.
    pub messages: Vec<Packet>,
    /// What the journal has to keep before any of the messages may leave (law 5).
    pub records: Vec<Record>,
    /// The keys of the records that the journal has been given, should it refuse them.
    pub appended: Vec<journal::Key>,
    /// The changes that those records are of, and how to undo them should the journal refuse them: then the whole outbox
    /// goes into [`super::Notifier::roll_back`].
    pub changes: Vec<Change>,
    /// Of changes that were refused and are rolled back in this outbox: to be dropped once its remarks have been appended,
    /// for until then the journal accepts no other change.
    pub holds: Vec<journal::Hold>,
    /// What the journal should keep, but nobody waits for: who has acknowledged what.
    pub remarks: Vec<Record>,
    /// Answers among the messages that wait for the journal. Until [`super::Notifier::kept`] has heard that they may
    /// leave, a repetition of their request gets nothing, rather than the promise before it can be made.
    pub answers: Vec<Promise>,
    /// Presentities with watchers still to be told. Once the messages are on their way, each of these numbers goes
    /// back into [`super::Notifier::continue_fan_out`]: so a fan-out to thousands leaves in bounded slices.
    pub unfinished: Vec<u32>,
    /// Set by those who send it while too much waits already: nothing new is begun then, while what there is goes on (law 7).
    pub strained: bool,
    /// Names that NOTIFYs wait for. What the DNS says goes into [`super::Notifier::learned`]; without an answer they go
    /// without, in the end.
    pub questions: Vec<Question>,
}

impl Outbox {
    pub(super) fn send(&mut self, to: Destination, bytes: Bytes, notify: Option<NotifyRef>) {
        self.messages.push(Packet { to, bytes, ticket: notify.map(Ticket::from) });
    }

    /// The records, to be appended to the journal.
    pub fn take_records(&mut self) -> Vec<Record> {
        let records = std::mem::take(&mut self.records);
        self.appended.extend(records.iter().map(|record| record.key).filter(|key| !is_acknowledgement(*key)));
        records
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.records.is_empty()
            && self.remarks.is_empty()
            && self.unfinished.is_empty()
            && self.questions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_message_takes_what_it_is_long_and_many_share_blocks() {
        let mut blocks = Blocks::default();
        let first = blocks.keep(&[1; 500]);
        assert_eq!((first.len(), blocks.free.capacity()), (500, 0));
        let all: Vec<_> = (0..1_000).map(|n| blocks.keep(&[n as u8; 500])).collect();
        assert!(all.iter().enumerate().all(|(n, message)| **message == [n as u8; 500]));
        assert_eq!(blocks.size, BLOCK);
        assert_eq!(blocks.keep(&vec![2; 2 * BLOCK]).len(), 2 * BLOCK);
    }
}
