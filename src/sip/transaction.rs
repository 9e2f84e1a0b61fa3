//! Non-INVITE transactions (RFC 3261 sections 17.1.2 and 17.2.2), without sockets and without a clock.
//!
//! A client transaction is three numbers in whatever owns the request; a server transaction is a remembered answer, in
//! whatever form its owner can give it again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hasher;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use super::headers::MAGIC_COOKIE;
use super::wire::{Message, StartLine};

/// Round-trip time estimate: the first retransmission interval (ms).
pub const T1: u64 = 500;
/// The longest retransmission interval (ms).
pub const T2: u64 = 4_000;
/// Timers F and J: how long a transaction can last (ms).
pub const TIMEOUT: u64 = 64 * T1;
/// When Timer E has come to T2 (ms): after 0.5, 1 and 2 seconds.
const SLOWED_DOWN: u64 = 7 * T1;

/// A non-INVITE client transaction, as far as time is concerned.
#[derive(Clone, Copy, Debug)]
pub struct ClientTransaction {
    next: u64,
    interval: u64,
    ends: u64,
    reliable: bool,
}

/// What a client transaction wants at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Timer E: the request is to be repeated, or replaced by a newer one.
    Retransmission,
    /// Timer F: no answer came.
    Timeout,
}

impl ClientTransaction {
    /// A request is sent at `now` (ms). On reliable transports nothing is repeated.
    pub fn start(now: u64, reliable: bool) -> ClientTransaction {
        let ends = now + TIMEOUT;
        ClientTransaction { next: if reliable { ends } else { now + T1 }, interval: T1, ends, reliable }
    }

    /// The request is replaced by a newer one at `now` (ms), the peer having been silent so far: the wait for a sign of
    /// life goes on as it was. On reliable transports that is until the end: the newer one is not repeated either.
    pub fn replace(&mut self, now: u64) {
        if !self.reliable {
            self.next = (now + self.interval).min(self.ends);
        }
    }

    /// When [`ClientTransaction::due`] wants to be asked next (ms).
    pub fn deadline(&self) -> u64 {
        self.next.min(self.ends)
    }

    /// What is due at `now` (ms); a retransmission that is due is taken to be made.
    pub fn due(&mut self, now: u64) -> Due {
        if now >= self.ends {
            return Due::Timeout;
        }
        if self.reliable || now < self.next {
            return Due::Nothing;
        }
        self.interval = (self.interval * 2).min(T2);
        self.next = now + self.interval;
        Due::Retransmission
    }

    /// A provisional answer came: from now on repetitions are T2 apart (RFC 3261 section 17.1.2.2).
    pub fn proceed(&mut self, now: u64) {
        if !self.reliable && self.interval < T2 {
            self.interval = T2;
            self.next = now + T2;
        }
    }
}

/// What is known of a request that has just come in.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<A> {
    /// It is new, and is remembered from now on; its answer is to be given to [`ServerTransactions::answered`].
    New(Key),
    /// It was answered before; this is the answer.
    Answered(A),
    /// It is being worked on.
    InProgress,
    /// It has been worked on for so long that its sender's repetitions are [`T2`] apart by now: he may be told that it is
    /// not lost (RFC 4320 section 4.2).
    Stalled,
    /// The same request came by another way (RFC 3261 section 8.2.2.2) and was taken; this one is to be refused.
    Merged,
}

/// Names a server transaction: a keyed hash, so that strangers cannot make two requests look alike. That two of half a
/// million do by chance happens once in a hundred million times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// The answers given in the last 32 seconds (Timer J), to be repeated when a request is.
#[derive(Debug)]
pub struct ServerTransactions<A> {
    secret: [u8; 16],
    shards: Box<[Mutex<Shard<A>>]>,
    /// By what merged requests have in common, those outside dialogs.
    traces: Box<[Mutex<Traces>]>,
    most_per_shard: usize,
}

#[derive(Debug)]
struct Shard<A> {
    answers: HashMap<Key, Stage<A>, RandomState>,
    /// In the order in which they end.
    ends: VecDeque<(u64, Key)>,
}

impl<A> Default for Shard<A> {
    fn default() -> Shard<A> {
        Shard { answers: HashMap::default(), ends: VecDeque::new() }
    }
}

/// Requests of which it only matters that they came.
#[derive(Debug, Default)]
struct Traces {
    known: HashSet<Key, RandomState>,
    /// In the order in which they end.
    ends: VecDeque<(u64, Key)>,
}

impl Traces {
    /// Remembers one; false if it is known.
    fn forget(&mut self, now: u64, most: usize) {
        while let Some((ends, old)) = self.ends.front().copied() {
            if ends > now && self.ends.len() < most {
                break;
            }
            self.ends.pop_front();
            self.known.remove(&old);
        }
        if is_wide(&self.ends) {
            self.ends.shrink_to(2 * self.ends.len());
            self.known.shrink_to(2 * self.known.len());
        }
    }

    fn remember(&mut self, now: u64, key: Key, most: usize) -> bool {
        self.forget(now, most);
        let new = self.known.insert(key);
        if new {
            self.ends.push_back((now + TIMEOUT, key));
        }
        new
    }
}

impl<A> Shard<A> {
    /// Forgets what has ended, and more if there is no room for another one.
    fn forget(&mut self, now: u64, most: usize) {
        while let Some((ends, old)) = self.ends.front().copied() {
            if ends > now && self.answers.len() < most && self.ends.len() / 2 < most {
                break;
            }
            self.ends.pop_front();
            self.answers.remove(&old);
        }
        if is_wide(&self.ends) {
            self.ends.shrink_to(2 * self.ends.len());
            self.answers.shrink_to(2 * self.answers.len());
        }
    }
}

/// How far a remembered request has come.
#[derive(Clone, Debug)]
enum Stage<A> {
    /// Since when (ms).
    Working(u64),
    Answered(A),
    Merged,
}

const SHARDS: usize = 64;
/// How long the sweep stays with one of them (ms).
const SWEEP_EVERY: u64 = 60;

/// Whether a storm is over, and what it took can be given back.
fn is_wide<T>(queue: &VecDeque<T>) -> bool {
    queue.capacity() > 1_024 && queue.len() < queue.capacity() / 8
}

fn place(key: Key) -> usize {
    key.0 as usize % SHARDS
}

impl<A: Clone> ServerTransactions<A> {
    /// Remembers at most `most` requests; beyond that the oldest are forgotten early, which costs no more than that a
    /// late repetition of them is taken for new.
    pub fn new(secret: [u8; 16], most: usize) -> ServerTransactions<A> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let traces = (0..SHARDS).map(|_| Mutex::default()).collect();
        ServerTransactions { secret, shards, traces, most_per_shard: most.div_ceil(SHARDS).max(1) }
    }

    /// Looks a request up and remembers it if it is new. `now` in ms.
    pub fn look_up(&self, now: u64, request: &Message<'_>) -> Seen<A> {
        let key = self.key(request);
        let outside_dialog = request.to.tag().is_none();
        match self.remember(now, key) {
            Ok(()) => {}
            Err(Stage::Answered(answer)) => return Seen::Answered(answer),
            Err(Stage::Working(since)) if now >= since + SLOWED_DOWN => return Seen::Stalled,
            Err(Stage::Working(_)) => return Seen::InProgress,
            Err(Stage::Merged) => return Seen::Merged,
        }
        if outside_dialog && !self.trace(now, self.fingerprint(request)) {
            // Its repetitions are refused again, should the refusal be lost.
            self.advance(key, Stage::Merged);
            return Seen::Merged;
        }
        Seen::New(key)
    }

    /// What merged requests have in common: From tag, Call-ID and CSeq, but not the branch.
    fn fingerprint(&self, request: &Message<'_>) -> Key {
        self.hash(|h| {
            h.write_u8(b'M');
            feed(
                h,
                [request.from.tag().unwrap_or_default(), request.call_id, request.cseq.method],
                request.cseq.number,
            );
        })
    }

    /// Forgets a request that was answered without keeping anything of it: its repetition is answered anew. So a flood
    /// of strangers who are asked who they are takes no memory (RFC 3261 section 8.2.7).
    pub fn forget(&self, request: &Message<'_>) {
        let key = self.key(request);
        self.shard(key).lock().answers.remove(&key);
        let trace = self.fingerprint(request);
        self.traces[place(trace)].lock().known.remove(&trace);
    }

    /// Forgets what has ended by `now` (ms), in one part of the memory after another, as time goes on: so it is given back
    /// even if nothing more comes in.
    pub fn pass_time(&self, now: u64) {
        let turn = (now / SWEEP_EVERY) as usize % SHARDS;
        self.shards[turn].lock().forget(now, usize::MAX);
        self.traces[turn].lock().forget(now, usize::MAX);
    }

    fn trace(&self, now: u64, key: Key) -> bool {
        self.traces[place(key)].lock().remember(now, key, self.most_per_shard)
    }

    /// Keeps the answer to a request for its repetitions.
    pub fn answered(&self, key: Key, answer: A) {
        self.advance(key, Stage::Answered(answer));
    }

    fn advance(&self, key: Key, stage: Stage<A>) {
        if let Some(slot) = self.shard(key).lock().answers.get_mut(&key) {
            *slot = stage;
        }
    }

    /// The answer given to a request of this method with the branch and sent-by of the given one: what a CANCEL is
    /// about (RFC 3261 section 9.2).
    pub fn answer_to(&self, cancel: &Message<'_>, method: &str) -> Option<A> {
        let key = self.key_for(cancel, method);
        match self.shard(key).lock().answers.get(&key) {
            Some(Stage::Answered(answer)) => Some(answer.clone()),
            _ => None,
        }
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().answers.len()).sum()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: Key) -> &Mutex<Shard<A>> {
        &self.shards[place(key)]
    }

    fn remember(&self, now: u64, key: Key) -> Result<(), Stage<A>> {
        let mut shard = self.shard(key).lock();
        shard.forget(now, self.most_per_shard);
        if let Some(stage) = shard.answers.get(&key) {
            return Err(stage.clone());
        }
        shard.answers.insert(key, Stage::Working(now));
        shard.ends.push_back((now + TIMEOUT, key));
        Ok(())
    }

    fn hash(&self, feed: impl FnOnce(&mut SipHasher13)) -> Key {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        feed(&mut hasher);
        Key(hasher.finish())
    }

    fn key(&self, request: &Message<'_>) -> Key {
        self.key_for(request, request.cseq.method)
    }

    fn key_for(&self, request: &Message<'_>, method: &str) -> Key {
        self.hash(|h| {
            // Beyond section 17.2.3: a phone that draws the same branches after every reboot makes new requests all the
            // same, and a repetition differs in none of these.
            let [call_id, from_tag] = [request.call_id, request.from.tag().unwrap_or_default()];
            match request.via.branch() {
                Some(branch) if branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE) => {
                    feed(h, [method, call_id, from_tag, branch, request.via.sent_by], request.cseq.number);
                }
                // A peer of RFC 2543 gives no branch to go by (RFC 3261 section 17.2.3).
                _ => {
                    let uri = match request.head.start {
                        StartLine::Request { uri, .. } => uri,
                        StartLine::Response { .. } => "",
                    };
                    let [to, from, via] = [request.to.text, request.from.text, request.via.text];
                    feed(h, [method, call_id, from_tag, uri, to, from, via], request.cseq.number);
                }
            }
        })
    }
}

/// Texts one behind the other, how long each of them is, and a number: what differs in any of these is different.
#[inline]
fn feed<const N: usize>(h: &mut SipHasher13, texts: [&str; N], number: u32) {
    let mut room = [0; 256];
    let mut length = 0;
    for text in texts {
        // In one piece, which takes the hasher half the time.
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
    // None is longer than a datagram.
    texts.chunks(4).for_each(|four| h.write_u64(four.iter().fold(0, |all, text| all << 16 | text.len() as u64)));
    h.write_u64(u64::from(number) << 8 | N as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire;

    #[test]
    fn timer_e_doubles_up_to_t2_and_timer_f_ends_it() {
        let mut t = ClientTransaction::start(0, false);
        let mut sent = Vec::new();
        loop {
            let now = t.deadline();
            match t.due(now) {
                Due::Retransmission => sent.push(now),
                Due::Timeout => break assert_eq!(now, 32_000),
                Due::Nothing => panic!("asked at its own deadline"),
            }
        }
        assert_eq!(sent, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    }

    #[test]
    fn nothing_is_repeated_on_streams_and_a_provisional_answer_slows_down() {
        let mut t = ClientTransaction::start(7, true);
        assert_eq!((t.deadline(), t.due(8_000), t.due(32_007)), (32_007, Due::Nothing, Due::Timeout));
        let mut t = ClientTransaction::start(0, false);
        t.proceed(100);
        assert_eq!((t.due(500), t.deadline()), (Due::Nothing, 4_100));
    }

    fn request(branch: &str, sent_by: &str, cseq: u32) -> String {
        format!(
            "PUBLISH sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch={branch}\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: {cseq} PUBLISH\r\n\r\n"
        )
    }

    fn look(t: &ServerTransactions<&'static str>, now: u64, text: &str) -> Seen<&'static str> {
        t.look_up(now, &wire::read(text.as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_for_32_seconds() {
        let t = ServerTransactions::new([1; 16], 100);
        let first = request("z9hG4bK1", "h:1", 1);
        let Seen::New(key) = look(&t, 0, &first) else { panic!("new") };
        assert_eq!((look(&t, 1, &first), look(&t, 3_499, &first)), (Seen::InProgress, Seen::InProgress));
        assert_eq!(look(&t, 3_500, &first), Seen::Stalled);
        t.answered(key, "ok");
        assert_eq!(look(&t, 31_999, &first), Seen::Answered("ok"));
        assert!(matches!(look(&t, 40_000, &first), Seen::New(_)));
    }

    #[test]
    fn sent_by_and_branch_tell_requests_apart_and_a_merged_one_is_noticed() {
        let t = ServerTransactions::new([1; 16], 100);
        assert!(matches!(look(&t, 0, &request("z9hG4bK1", "h:1", 1)), Seen::New(_)));
        for repeated in 0..3 {
            assert_eq!(look(&t, repeated, &request("z9hG4bK2", "h:1", 1)), Seen::Merged);
        }
        assert!(matches!(look(&t, 0, &request("z9hG4bK1", "h:2", 2)), Seen::New(_)));
    }

    #[test]
    fn a_phone_that_draws_the_same_branch_after_a_reboot_makes_a_new_request() {
        let t = ServerTransactions::new([1; 16], 100);
        let first = request("z9hG4bK1", "h:1", 1);
        assert!(matches!(look(&t, 0, &first), Seen::New(_)));
        for reboot in [("Call-ID: c", "Call-ID: d"), ("tag=1", "tag=2"), ("CSeq: 1", "CSeq: 2")] {
            assert!(matches!(look(&t, 0, &first.replace(reboot.0, reboot.1)), Seen::New(_)), "{reboot:?}");
        }
    }

    #[test]
    fn without_the_cookie_the_whole_request_counts() {
        let t = ServerTransactions::new([1; 16], 100);
        assert!(matches!(look(&t, 0, &request("1", "h:1", 1)), Seen::New(_)));
        assert_eq!(look(&t, 0, &request("1", "h:1", 1)), Seen::InProgress);
        assert!(matches!(look(&t, 0, &request("1", "h:1", 2)), Seen::New(_)));
        assert!(matches!(look(&t, 0, &request("z9hG4bK", "h:1", 3)), Seen::New(_)));
    }

    #[test]
    fn what_has_ended_is_forgotten_though_nothing_more_comes_in() {
        let t = ServerTransactions::new([1; 16], 100_000);
        for i in 0..1_000 {
            look(&t, 0, &request(&format!("z9hG4bK{i}"), "h", i));
        }
        (0..2 * TIMEOUT).step_by(50).for_each(|now| t.pass_time(now));
        assert!(t.is_empty() && t.traces.iter().all(|traces| traces.lock().known.is_empty()));
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
