//! Output of the notifier: messages, journal records and follow-up work, in the order in which they have to leave.

use bytes::{Bytes, BytesMut};

use super::dns_cache::DnsQuery;
use super::persist::is_acknowledgement;
use super::response::CachedResponse;
use super::rollback::Change;
use crate::journal::{self, Record};
use crate::presence::Tick;
use crate::presence::subscription::SubscriptionId;
use crate::sip::transaction::Key;
use crate::transport::{DeliveryToken, Destination, OutboundMessage};

/// Reference to one NOTIFY. As a ticket it travels with the message, and comes back if that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotifyRef {
    pub(super) place: SubscriptionId,
    pub(super) cseq: u32,
}

impl From<NotifyRef> for DeliveryToken {
    fn from(NotifyRef { place, cseq }: NotifyRef) -> DeliveryToken {
        let [presentity, slot, cseq] = [place.presentity, place.slot, cseq].map(u128::from);
        // A CSeq number has 31 bits. The low half of the nonce is enough to tell the present subscription in a slot
        // from an earlier one.
        DeliveryToken(presentity << 96 | slot << 64 | cseq << 32 | u128::from(place.nonce as u32))
    }
}

/// A response that waits for the journal.
#[derive(Debug)]
pub struct PendingResponse {
    pub(super) key: Key,
    pub(super) answer: Bytes,
    pub(super) remembered: CachedResponse,
    /// Number of the change that the response acknowledges; `None` if its request changed nothing.
    pub(super) change: Option<u64>,
    /// End of the client transaction (Timer F). After it the client has given up, and a proxy could take the response
    /// for one to another request.
    pub(super) until: Tick,
}

/// Memory for outgoing messages, with many messages in one block. A message needs no allocation of its own and takes
/// only as much room as it is long.
///
/// Datagrams are released after sending, so normally one block is reused and stays in the CPU cache. A block with
/// messages that wait for the journal or for a connection lives until the last of them is gone.
#[derive(Debug, Default)]
pub struct MessageBuffer {
    blocks: Blocks,
    /// User part of the Contact for the next response; a scratch buffer.
    pub(super) user: String,
    /// Scratch buffer: the message that is being written.
    message: Vec<u8>,
    /// Scratch buffer: the part of a NOTIFY body that belongs to one watcher only.
    own: String,
}

/// Largest size of a block (octets).
const BLOCK: usize = 64 * 1024;

impl MessageBuffer {
    /// Writes a response.
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

    /// Reuses the block from its start, if every message in it has been sent and released.
    pub fn recycle(&mut self) {
        let whole = self.blocks.size;
        let _ = self.blocks.free.try_reclaim(whole);
    }
}

/// Source of blocks, one after the other.
#[derive(Debug, Default)]
struct Blocks {
    /// Free rest of the latest block.
    free: BytesMut,
    /// Full size of the latest block (octets).
    size: usize,
}

impl Blocks {
    /// Copies a message to the start of the free part. The first block is only as long as its message: many outboxes
    /// carry a single message, and the block lives as long as that message.
    fn keep(&mut self, message: &[u8]) -> Bytes {
        if !self.free.try_reclaim(message.len()) {
            self.size = (8 * self.size).min(BLOCK).max(message.len());
            self.free = BytesMut::with_capacity(self.size);
        }
        self.free.extend_from_slice(message);
        self.free.split().freeze()
    }
}

/// Collects the output of one or more inputs.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Buffer in which messages are written.
    pub pool: MessageBuffer,
    /// Messages, in the order in which they are sent.
    pub messages: Vec<OutboundMessage>,
    /// Records that the journal must have written before any of the messages may leave (rule 5).
    pub records: Vec<Record>,
    /// Keys of the records that were given to the journal, needed if the journal refuses them.
    pub appended: Vec<journal::Key>,
    /// Changes that those records belong to, with the data to undo them. If the journal refuses the records, the
    /// whole outbox goes into [`super::Notifier::roll_back`].
    pub changes: Vec<Change>,
    /// Holds on the journal for refused changes that are rolled back in this outbox. They are dropped once the
    /// deferred records have been appended; until then the journal accepts no other change.
    pub holds: Vec<journal::Hold>,
    /// Deferred records, which no message waits for: the revisions that phones have acknowledged.
    pub deferred_records: Vec<Record>,
    /// Responses among the messages that wait for the journal. Until [`super::Notifier::on_committed`] says that they may
    /// leave, a retransmission of their request gets no response. Otherwise the phone would get a 200 for a change
    /// that is not durable yet.
    pub pending_responses: Vec<PendingResponse>,
    /// Presentities whose fan-out is not finished. Once the messages are on their way, each of these numbers goes
    /// back into [`super::Notifier::continue_fan_out`]; so a fan-out to thousands of watchers leaves in slices of
    /// bounded size.
    pub pending_fan_outs: Vec<u32>,
    /// Set by the sender while too much output waits already. Then no new work is accepted, and work that has begun
    /// goes on (rule 7).
    pub strained: bool,
    /// DNS queries that NOTIFYs wait for. The result goes into [`super::Notifier::on_dns_answer`]. If none comes, these
    /// NOTIFYs are sent in the end without it.
    pub dns_queries: Vec<DnsQuery>,
}

impl Outbox {
    pub(super) fn send(&mut self, to: Destination, bytes: Bytes, notify: Option<NotifyRef>) {
        self.messages.push(OutboundMessage { to, bytes, ticket: notify.map(DeliveryToken::from) });
    }

    /// Takes the records out, to be appended to the journal.
    pub fn take_records(&mut self) -> Vec<Record> {
        let records = std::mem::take(&mut self.records);
        self.appended.extend(records.iter().map(|record| record.key).filter(|key| !is_acknowledgement(*key)));
        records
    }

    /// Returns true if there is nothing to send, to append or to continue.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.records.is_empty()
            && self.deferred_records.is_empty()
            && self.pending_fan_outs.is_empty()
            && self.dns_queries.is_empty()
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
