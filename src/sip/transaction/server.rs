//! Server transactions: recognising retransmitted requests, and storing the responses to them (RFC 3261 section
//! 17.2.2).

use std::hash::Hasher;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use super::store::{Stage, TransactionStore};
use super::{REMEMBERED, T1};
use crate::sip::headers::MAGIC_COOKIE;
use crate::sip::wire::{Message, StartLine};
use crate::util::per_thread::CachePadded;

/// Time at which Timer E has reached T2 (ms): after 0.5, 1 and 2 seconds.
const SLOWED_DOWN: u64 = 7 * T1;

/// Result of looking up a received request.
#[derive(Debug, PartialEq, Eq)]
pub enum TransactionLookup<A> {
    /// A new request, remembered from now on. Its response has to be given to [`ServerTransactions::answered`].
    New(Key),
    /// A retransmission of a request that was answered with this response.
    Answered(A),
    /// A retransmission of a request that is still in progress.
    InProgress,
    /// A request that has been in progress for so long that its retransmissions are [`super::T2`] apart by now. It
    /// may be answered with 100 (RFC 4320 section 4.2).
    Stalled,
    /// A request that arrived before over another path (RFC 3261 section 8.2.2.2). This copy is to be rejected.
    Merged,
}

/// Key of a server transaction: two keyed hashes, so that an attacker cannot build two requests with the same key.
/// The probability that two of half a million requests have the same key by chance is one in a hundred million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Hash of the fields that merged requests share: From tag, Call-ID and CSeq, but not the branch.
    trace: u64,
    /// Hash of all fields that a retransmission shares.
    whole: u64,
}

/// Responses of the last 37 seconds (Timer J), to be sent again for retransmitted requests.
#[derive(Debug)]
pub struct ServerTransactions<A> {
    secret: [u8; 16],
    shards: Box<[CachePadded<Mutex<TransactionStore<A>>>]>,
    most_per_shard: usize,
}

const SHARDS: usize = 64;
/// Time that the sweep spends on each shard (ms).
const SWEEP_EVERY: u64 = 60;

impl<A: Clone> ServerTransactions<A> {
    /// Creates the store. `most` limits the requests that are remembered. Beyond it the oldest are forgotten early; a
    /// late retransmission of one then counts as a new request.
    pub fn new(secret: [u8; 16], most: usize) -> ServerTransactions<A> {
        let shards = (0..SHARDS).map(|_| CachePadded(Mutex::new(TransactionStore::default()))).collect();
        ServerTransactions { secret, shards, most_per_shard: most.div_ceil(SHARDS).max(1) }
    }

    /// Looks up a request and remembers it if it is new. `now` is in ms.
    pub fn look_up(&self, now: u64, request: &Message<'_>) -> TransactionLookup<A> {
        let key = self.key(request, request.cseq.method);
        let outside_dialog = request.to.tag().is_none();
        let mut memory = self.shard(key).lock();
        memory.fetch(key.whole, outside_dialog.then_some(key.trace));
        memory.make_room(now, self.most_per_shard);
        if let Some((ends, stage)) = memory.find(key.whole) {
            return match stage {
                Stage::Answered(answer) => TransactionLookup::Answered(answer.clone()),
                Stage::Working if now + REMEMBERED >= ends + SLOWED_DOWN => TransactionLookup::Stalled,
                Stage::Working => TransactionLookup::InProgress,
                Stage::Merged => TransactionLookup::Merged,
            };
        }
        if outside_dialog && memory.has_trace(key.trace) {
            // Remembered, so that its retransmissions are rejected as well if the rejection is lost.
            memory.push(now + REMEMBERED, key.whole, None, Stage::Merged);
            return TransactionLookup::Merged;
        }
        memory.push(now + REMEMBERED, key.whole, outside_dialog.then_some(key.trace), Stage::Working);
        TransactionLookup::New(key)
    }

    /// Forgets a request that was answered statelessly: its retransmission is processed again. A flood of requests
    /// that are challenged for credentials therefore takes no memory (RFC 3261 section 8.2.7).
    pub fn forget(&self, key: Key) {
        self.shard(key).lock().forget(key.whole);
    }

    /// Forgets transactions that have ended by `now` (ms), one shard at a time. Memory is returned even if no more
    /// requests come.
    pub fn pass_time(&self, now: u64) {
        let turn = (now / SWEEP_EVERY) as usize % SHARDS;
        self.shards[turn].lock().make_room(now, usize::MAX);
    }

    /// Stores the response to a request for its retransmissions.
    pub fn answered(&self, key: Key, answer: A) {
        self.shard(key).lock().set(key.whole, Stage::Answered(answer));
    }

    /// Response to the request of this method that a CANCEL refers to: the one with the same branch and sent-by (RFC
    /// 3261 section 9.2).
    pub fn answer_to(&self, cancel: &Message<'_>, method: &str) -> Option<A> {
        let key = self.key(cancel, method);
        match self.shard(key).lock().find(key.whole) {
            Some((_, Stage::Answered(answer))) => Some(answer.clone()),
            _ => None,
        }
    }

    /// Number of requests that are remembered.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// True if no request is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shard of a key. Requests that may be merged or retransmissions of each other are in the same shard.
    fn shard(&self, key: Key) -> &Mutex<TransactionStore<A>> {
        // The index within the shard uses other bits.
        &self.shards[(key.trace >> 32) as usize % SHARDS]
    }

    fn hash(&self, feed: impl FnOnce(&mut SipHasher13)) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        feed(&mut hasher);
        hasher.finish()
    }

    fn key(&self, request: &Message<'_>, method: &str) -> Key {
        // More fields than RFC 3261 section 17.2.3 demands: some phones repeat their branches after a reboot, and
        // those requests are new. A retransmission differs in none of these fields.
        let common = [request.from.tag().unwrap_or_default(), request.call_id, method];
        let trace = self.hash(|h| feed(h, common, request.cseq.number.into()));
        let whole = self.hash(|h| match request.via.branch() {
            Some(branch) if branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE) => {
                feed(h, [branch, request.via.sent_by], trace);
            }
            // A peer of RFC 2543 sends no usable branch (RFC 3261 section 17.2.3).
            _ => {
                let uri = match request.head.start {
                    StartLine::Request { uri, .. } => uri,
                    StartLine::Response { .. } => "",
                };
                feed(h, [uri, request.to.text, request.from.text, request.via.text], trace);
            }
        });
        Key { trace, whole }
    }
}

/// Hashes texts, their lengths and a number, so that a difference in any of these changes the hash.
#[inline]
fn feed<const N: usize>(h: &mut SipHasher13, texts: [&str; N], number: u64) {
    let mut room = [0; 256];
    let mut length = 0;
    for text in texts {
        // One contiguous buffer halves the time of the hasher.
        match room.get_mut(length..length + text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                length += text.len();
            }
            None => {
                h.write(&room[..length]);
                h.write(text.as_bytes());
                length = 0;
            }
        }
    }
    h.write(&room[..length]);
    // No text is longer than a datagram, so its length fits into 16 bits.
    texts.chunks(4).for_each(|four| h.write_u64(four.iter().fold(0, |all, text| all << 16 | text.len() as u64)));
    h.write_u64(N as u64);
    h.write_u64(number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire;

    fn request(branch: &str, sent_by: &str, cseq: u32) -> String {
        format!(
            "PUBLISH sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch={branch}\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: {cseq} PUBLISH\r\n\r\n"
        )
    }

    fn look(t: &ServerTransactions<&'static str>, now: u64, text: &str) -> TransactionLookup<&'static str> {
        t.look_up(now, &wire::read(text.as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_for_32_seconds() {
        let t = ServerTransactions::new([1; 16], 100);
        let first = request("z9hG4bK1", "h:1", 1);
        let TransactionLookup::New(key) = look(&t, 0, &first) else { panic!("new") };
        assert_eq!(
            (look(&t, 1, &first), look(&t, 3_499, &first)),
            (TransactionLookup::InProgress, TransactionLookup::InProgress)
        );
        assert_eq!(look(&t, 3_500, &first), TransactionLookup::Stalled);
        t.answered(key, "ok");
        assert_eq!(look(&t, 31_999, &first), TransactionLookup::Answered("ok"));
        assert!(matches!(look(&t, 40_000, &first), TransactionLookup::New(_)));
    }

    #[test]
    fn sent_by_and_branch_tell_requests_apart_and_a_merged_one_is_noticed() {
        let t = ServerTransactions::new([1; 16], 100);
        assert!(matches!(look(&t, 0, &request("z9hG4bK1", "h:1", 1)), TransactionLookup::New(_)));
        for repeated in 0..3 {
            assert_eq!(look(&t, repeated, &request("z9hG4bK2", "h:1", 1)), TransactionLookup::Merged);
        }
        assert!(matches!(look(&t, 0, &request("z9hG4bK1", "h:2", 2)), TransactionLookup::New(_)));
    }

    #[test]
    fn a_phone_that_draws_the_same_branch_after_a_reboot_makes_a_new_request() {
        let t = ServerTransactions::new([1; 16], 100);
        let first = request("z9hG4bK1", "h:1", 1);
        assert!(matches!(look(&t, 0, &first), TransactionLookup::New(_)));
        for reboot in [("Call-ID: c", "Call-ID: d"), ("tag=1", "tag=2"), ("CSeq: 1", "CSeq: 2")] {
            assert!(matches!(look(&t, 0, &first.replace(reboot.0, reboot.1)), TransactionLookup::New(_)), "{reboot:?}");
        }
    }

    #[test]
    fn without_the_cookie_the_whole_request_counts() {
        let t = ServerTransactions::new([1; 16], 100);
        assert!(matches!(look(&t, 0, &request("1", "h:1", 1)), TransactionLookup::New(_)));
        assert_eq!(look(&t, 0, &request("1", "h:1", 1)), TransactionLookup::InProgress);
        assert!(matches!(look(&t, 0, &request("1", "h:1", 2)), TransactionLookup::New(_)));
        assert!(matches!(look(&t, 0, &request("z9hG4bK", "h:1", 3)), TransactionLookup::New(_)));
    }

    #[test]
    fn what_has_ended_is_forgotten_though_nothing_more_comes_in() {
        let t = ServerTransactions::new([1; 16], 100_000);
        for i in 0..1_000 {
            look(&t, 0, &request(&format!("z9hG4bK{i}"), "h", i));
        }
        (0..2 * REMEMBERED).step_by(50).for_each(|now| t.pass_time(now));
        assert!(t.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let t = ServerTransactions::new([1; 16], 64);
        for i in 0..10_000 {
            look(&t, 0, &request(&format!("z9hG4bK{i}"), "h", i));
        }
        assert!(t.len() <= 64, "{}", t.len());
    }
}
