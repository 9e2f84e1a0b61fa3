//! Subscribers of the live streams, and a replay buffer for clients that reconnect.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::directory::AccountNo;

/// Most pieces queued for one slow reader.
const QUEUE: usize = 64;
/// Size (octets) at which a piece is full and the next event begins a new one.
const PIECE: usize = 16 * 1024;
/// Events of one account kept for clients that reconnect.
const KEPT: usize = 4_096;
/// Events kept for all accounts together; beyond that, the account with the most events drops its oldest.
const KEPT_OF_ALL: usize = 4 * KEPT;
/// Time for which events of an account are still kept after its last subscriber has gone: long enough to reload a page
/// or to pass through a tunnel.
const GRACE: Duration = Duration::from_secs(60);
/// Reconnection time sent to browsers, in milliseconds.
const RETRY: u32 = 2_000;

/// One event, for all subscribers of its account.
pub(super) struct StreamEvent {
    pub(super) account: AccountNo,
    pub(super) event: &'static str,
    pub(super) data: String,
}

#[derive(Debug)]
pub(in crate::api) struct Hub {
    /// Identifies this run of the server in event ids.
    run: u64,
    /// True if the task that forwards changes also serves webhooks, so that it runs without subscribers too.
    always: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Listener>,
    /// Accounts whose events are being kept.
    accounts: HashMap<AccountNo, ActiveAccount>,
    pumping: bool,
    dropped: u64,
}

/// Live stream counters for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct Stats {
    /// Connected subscribers.
    pub(in crate::api) listeners: usize,
    /// Longest queue of one subscriber (pieces).
    pub(in crate::api) deepest: usize,
    /// Subscribers disconnected because they read too slowly.
    pub(in crate::api) dropped: u64,
}

#[derive(Debug)]
struct Listener {
    account: AccountNo,
    pieces: mpsc::Sender<Bytes>,
    slow: Arc<AtomicBool>,
}

#[derive(Debug)]
struct ActiveAccount {
    /// Number of the latest event. Each account has its own numbers, because common ones would show how busy the other
    /// accounts are.
    number: u64,
    /// Latest events in order; the last one has that number. The texts are shared with the subscribers that have not
    /// yet read them.
    kept: VecDeque<Bytes>,
    /// Last time that the account had a subscriber.
    seen: Instant,
}

impl ActiveAccount {
    /// A new account starts at a random number: events before this moment were not kept, so no older id may match.
    fn new() -> ActiveAccount {
        let mut random = [0; 8];
        // If the random source fails, an old id might be taken for a current one; such a client reloads after the next
        // change.
        let _ = getrandom::fill(&mut random);
        ActiveAccount { number: u64::from_le_bytes(random) >> 16, kept: VecDeque::new(), seen: Instant::now() }
    }

    /// Events after the one with this number; `None` if some of them are no longer kept.
    fn behind(&self, number: u64) -> Option<impl Iterator<Item = &Bytes>> {
        let missed = usize::try_from(self.number.checked_sub(number)?).ok()?;
        Some(self.kept.iter().skip(self.kept.len().checked_sub(missed)?))
    }
}

/// Receiving end of one subscriber.
pub(super) struct Subscriber {
    first: VecDeque<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    slow: Arc<AtomicBool>,
    over: bool,
}

impl Subscriber {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.pop_front() {
            return Poll::Ready(Some(first));
        }
        if self.over {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(cx).map(|piece| {
            piece.or_else(|| {
                self.over = true;
                let notice =
                    event("dropped", None, r#"{"why":"this reader was too slow; come back with the last id"}"#);
                self.slow.load(Ordering::Relaxed).then(|| notice.into())
            })
        })
    }
}

fn event(name: &str, id: Option<&str>, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

fn reset(id: &str, why: &str) -> String {
    event("reset", Some(id), &serde_json::json!({ "why": why }).to_string())
}

impl Hub {
    /// `always` is true if changes are forwarded even without subscribers.
    pub(in crate::api) fn new(always: bool) -> Hub {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Hub { run, always, state: Mutex::new(State { pumping: always, ..State::default() }) }
    }

    fn id(&self, number: u64) -> String {
        format!("{:x}-{number:x}", self.run)
    }

    /// Number in an event id; `None` if the id is from another run.
    fn number(&self, id: &str) -> Option<u64> {
        let (run, number) = id.split_once('-')?;
        (u64::from_str_radix(run, 16).ok()? == self.run).then_some(())?;
        u64::from_str_radix(number, 16).ok()
    }

    /// Subscribes to an account, starting after the event with the id `last`. Returns true if the caller has to start
    /// the forwarding task. The caller has already checked the limit of streams.
    pub(super) fn subscribe(&self, account: AccountNo, last: Option<&str>) -> (Subscriber, bool) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.listeners.retain(|listener| !listener.pieces.is_closed());
        let followed = state.accounts.entry(account).or_insert_with(ActiveAccount::new);
        followed.seen = Instant::now();
        let now = self.id(followed.number);
        let missed = last.map(|id| self.number(id).and_then(|number| followed.behind(number)));
        let begin = match &missed {
            None => event("hello", Some(&now), "{}"),
            Some(Some(_)) => event("resumed", None, "{}"),
            Some(None) => reset(&now, "what has happened since is not known any more"),
        };
        let mut first = VecDeque::from([Bytes::from(format!("retry: {RETRY}\n\n{begin}"))]);
        first.extend(missed.flatten().into_iter().flatten().cloned());
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let slow = Arc::new(AtomicBool::new(false));
        state.listeners.push(Listener { account, pieces, slow: Arc::clone(&slow) });
        let start = !std::mem::replace(&mut state.pumping, true);
        (Subscriber { first, pieces: receiver, slow, over: false }, start)
    }

    /// Counters for metrics.
    pub(in crate::api) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let open = state.listeners.iter().filter(|listener| !listener.pieces.is_closed());
        let (listeners, deepest) = open.fold((0, 0), |(count, deepest), listener| {
            let waiting = listener.pieces.max_capacity() - listener.pieces.capacity();
            (count + 1, waiting.max(deepest))
        });
        Stats { listeners, deepest, dropped: state.dropped }
    }

    /// Returns true if the account has a subscriber, or had one within the grace period.
    pub(super) fn has_listeners(&self, account: AccountNo) -> bool {
        self.state.lock().accounts.contains_key(&account)
    }

    /// Removes subscribers that have gone and accounts without any. Returns false, which ends the forwarding task, if
    /// none is left.
    pub(super) fn has_consumers(&self) -> bool {
        let mut state = self.state.lock();
        let State { listeners, accounts, pumping, .. } = &mut *state;
        listeners.retain(|listener| !listener.pieces.is_closed());
        for listener in listeners.iter() {
            if let Some(followed) = accounts.get_mut(&listener.account) {
                followed.seen = Instant::now();
            }
        }
        accounts.retain(|_, followed| followed.seen.elapsed() < GRACE);
        *pumping = self.always || !accounts.is_empty();
        *pumping
    }

    /// Returns true if no forwarding task is needed, nor has been since [`Hub::has_consumers`] returned false.
    pub(super) fn is_idle(&self) -> bool {
        !self.state.lock().pumping
    }

    /// Sends each event to the subscribers of its account.
    pub(super) fn say(&self, said: Vec<StreamEvent>) {
        let mut state = self.state.lock();
        let mut texts: HashMap<AccountNo, Vec<String>> = HashMap::new();
        for StreamEvent { account, event: name, data } in said {
            // The account may have lost its last subscriber and its grace period meanwhile.
            let Some(followed) = state.accounts.get_mut(&account) else { continue };
            followed.number += 1;
            let text = event(name, Some(&self.id(followed.number)), &data);
            let pieces = texts.entry(account).or_default();
            match pieces.last_mut() {
                Some(piece) if piece.len() < PIECE => piece.push_str(&text),
                _ => pieces.push(text.clone()),
            }
            if followed.kept.len() == KEPT {
                followed.kept.pop_front();
            }
            followed.kept.push_back(text.into());
        }
        state.give_up_oldest();
        for (account, pieces) in texts {
            for piece in pieces {
                state.send(Some(account), &piece.into());
            }
        }
    }

    /// Asks all subscribers, or those of one account, to reload everything.
    pub(super) fn reset(&self, account: Option<AccountNo>, why: &str) {
        let mut state = self.state.lock();
        let concerned = state.accounts.iter_mut().filter(|(of, _)| account.is_none_or(|account| account == **of));
        let ids: Vec<_> = concerned
            .map(|(of, followed)| {
                followed.number += 1;
                followed.kept.clear();
                (*of, followed.number)
            })
            .collect();
        for (account, number) in ids {
            state.send(Some(account), &reset(&self.id(number), why).into());
        }
    }

    /// Sends a heartbeat comment to all subscribers.
    pub(super) fn beat(&self) {
        self.state.lock().send(None, &Bytes::from_static(b": still here\n\n"));
    }

    /// Tells all subscribers that the stream ends; they may reconnect to the next server.
    pub(super) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        state.send(None, &event("bye", None, &serde_json::json!({ "why": why }).to_string()).into());
        state.listeners.clear();
        state.accounts.clear();
    }
}

impl State {
    /// Drops the oldest events of the accounts that have the most, until the common limit is met.
    fn give_up_oldest(&mut self) {
        let kept: usize = self.accounts.values().map(|followed| followed.kept.len()).sum();
        for _ in KEPT_OF_ALL..kept {
            if let Some(fullest) = self.accounts.values_mut().max_by_key(|followed| followed.kept.len()) {
                fullest.kept.pop_front();
            }
        }
    }

    /// Sends to the subscribers of one account or to all. A subscriber whose queue is full has read too slowly and is
    /// disconnected.
    fn send(&mut self, account: Option<AccountNo>, piece: &Bytes) {
        let dropped = &mut self.dropped;
        self.listeners.retain(|listener| {
            if account.is_some_and(|account| account != listener.account) {
                return true;
            }
            let full = matches!(listener.pieces.try_send(piece.clone()), Err(mpsc::error::TrySendError::Full(_)));
            if full {
                listener.slow.store(true, Ordering::Relaxed);
                *dropped += 1;
                tracing::debug!("a reader of lamp events was too slow and is dropped");
            }
            !full
        });
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const A: AccountNo = AccountNo(0);
    const B: AccountNo = AccountNo(1);

    fn lamp(account: AccountNo, n: usize) -> StreamEvent {
        StreamEvent { account, event: "lamp", data: format!("{{\"n\":{n}}}") }
    }

    /// All text that can be read now, and whether the stream has ended.
    fn read(listening: &mut Subscriber) -> (String, bool) {
        let mut text = String::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match listening.poll_next(&mut cx) {
                Poll::Ready(Some(piece)) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Poll::Ready(None) => return (text, true),
                Poll::Pending => return (text, false),
            }
        }
    }

    fn last_id(text: &str) -> String {
        text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned()
    }

    #[test]
    fn everybody_hears_of_his_own_account_only() {
        let hub = Hub::new(false);
        let (mut a, start) = hub.subscribe(A, None);
        let (mut b, again) = hub.subscribe(B, None);
        assert_eq!((start, again), (true, false), "one pump");
        hub.say(vec![lamp(A, 1), lamp(B, 2), lamp(A, 3)]);
        let (text, over) = read(&mut a);
        assert!(text.contains("event: hello\n") && text.contains("{\"n\":1}") && text.contains("{\"n\":3}"), "{text}");
        assert!(!text.contains("{\"n\":2}") && !over);
        assert!(read(&mut b).0.contains("{\"n\":2}"));
    }

    #[test]
    fn who_comes_back_in_time_misses_nothing() {
        let hub = Hub::new(false);
        let (mut one, _) = hub.subscribe(A, None);
        hub.say(vec![lamp(A, 1)]);
        let id = last_id(&read(&mut one).0);
        drop(one);
        hub.say(vec![lamp(A, 2), lamp(B, 3)]);
        let (mut two, _) = hub.subscribe(A, Some(&id));
        let text = read(&mut two).0;
        assert!(text.contains("event: resumed") && text.contains("{\"n\":2}"), "{text}");
        assert!(!text.contains("{\"n\":1}") && !text.contains("{\"n\":3}"), "{text}");
        let stale = [format!("{:x}-1", hub.run + 1), "nonsense".into(), format!("{:x}-ffff", hub.run), String::new()];
        for id in stale {
            drop(std::mem::replace(&mut two, hub.subscribe(A, Some(&id)).0));
            assert!(read(&mut two).0.contains("event: reset"), "{id}");
        }
    }

    #[test]
    fn what_was_displaced_or_not_followed_is_told_by_a_reset() {
        let hub = Hub::new(false);
        let (mut one, _) = hub.subscribe(A, None);
        let id = last_id(&read(&mut one).0);
        for n in 0..=KEPT {
            hub.say(vec![lamp(A, n)]);
            read(&mut one);
        }
        assert!(read(&mut hub.subscribe(A, Some(&id)).0).0.contains("event: reset"));
        let (mut b, _) = hub.subscribe(B, Some(&id));
        assert!(read(&mut b).0.contains("event: reset"), "an id of another account's stream");
    }

    #[test]
    fn an_account_counts_for_itself_and_keeps_its_events_whatever_happens_in_others() {
        let hub = Hub::new(false);
        let (mut b, _) = hub.subscribe(B, None);
        let id = last_id(&read(&mut b).0);
        hub.say(vec![lamp(B, 1)]);
        let others: Vec<_> = (2..8).map(|n| hub.subscribe(AccountNo(n), None).0).collect();
        for n in 0..2 * KEPT {
            hub.say((2..8).map(|account| lamp(AccountNo(account), n)).collect());
        }
        let text = read(&mut hub.subscribe(B, Some(&id)).0).0;
        assert!(text.contains("event: resumed") && text.contains("{\"n\":1}"), "{text}");
        let number = |id: &str| hub.number(id).unwrap();
        assert_eq!(number(&last_id(&text)) - number(&id), 1, "the events of others are not counted");
        let kept: usize = hub.state.lock().accounts.values().map(|followed| followed.kept.len()).sum();
        assert_eq!(kept, KEPT_OF_ALL);
        hub.reset(Some(AccountNo(2)), "test");
        assert!(!read(&mut b).0.contains("event: reset"), "only those of that account load anew");
        drop(others);
    }

    #[test]
    fn who_reads_too_slowly_is_dropped_and_told_so() {
        let hub = Hub::new(false);
        let (mut slow, _) = hub.subscribe(A, None);
        let (mut quick, _) = hub.subscribe(A, None);
        for n in 0..=QUEUE {
            hub.say(vec![lamp(A, n)]);
            assert!(!read(&mut quick).1);
        }
        let (text, over) = read(&mut slow);
        assert!(over && text.ends_with("id\"}\n\n") && text.contains("event: dropped"), "{text}");
        assert!(text.contains(&format!("{{\"n\":{}}}", QUEUE - 1)) && !text.contains(&format!("{{\"n\":{QUEUE}}}")));
        hub.close("test");
        let (text, over) = read(&mut quick);
        assert!(over && text.contains("event: bye"), "{text}");
        assert!(!hub.has_consumers() && hub.is_idle());
    }
}
