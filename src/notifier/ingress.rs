//! Entry point of incoming messages.
//!
//! Messages that arrive together are all parsed before the first one is handled. Then the memory that they lead to is
//! prefetched step by step, for all of them at the same time, instead of one cache miss after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::outbox::NotifyRef;
use super::rate_limit::{Admission, Kind};
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::presentity::Presentity;
use crate::presence::subscription::SubscriptionId;
use crate::sip::wire::{self, Message, Name, ParseError, ParseFailure, Reply};
use crate::transport::Source;

/// Maximum number of messages handled together. With 8, the memory that they lead to fits into the L1 cache.
const GROUP: usize = 8;

/// A received message.
struct ReceivedMessage<'m> {
    source: Source,
    bytes: &'m [u8],
    admission: Admission,
    heard: ParsedMessage<'m>,
    /// Subscription that the message belongs to, and its presentity. Looked up in advance only if several messages
    /// came together.
    about: Option<(SubscriptionId, Arc<Presentity>)>,
}

/// A parsed message.
#[allow(clippy::large_enum_variant)] // values of this type are never moved
enum ParsedMessage<'m> {
    Reply(Reply<'m>, NotifyRef),
    Request(Message<'m>),
    Unreadable(ParseFailure<'m>),
    /// Not a message for this server.
    Noise,
}

impl<'m> ParsedMessage<'m> {
    fn read(bytes: &'m [u8], verdict: Admission) -> ParsedMessage<'m> {
        let reply = |reply: Reply<'m>| {
            reply.notify().map_or(ParsedMessage::Noise, |notify| ParsedMessage::Reply(reply, notify))
        };
        if verdict == Admission::Accept
            && let Some(plain) = Reply::glance(bytes)
        {
            return reply(plain);
        }
        match wire::read(bytes) {
            Ok(Some(message)) if message.status().is_none() => ParsedMessage::Request(message),
            Ok(Some(message)) => Reply::of(&message).map_or(ParsedMessage::Noise, reply),
            Ok(None) => ParsedMessage::Noise,
            Err(refused) => ParsedMessage::Unreadable(refused),
        }
    }

    fn place(&self) -> Option<SubscriptionId> {
        match self {
            ParsedMessage::Reply(_, notify) => Some(notify.place),
            ParsedMessage::Request(request) => request.to.tag().and_then(SubscriptionId::read),
            _ => None,
        }
    }
}

impl Notifier {
    /// Handles one datagram, or one message from a stream.
    pub fn receive(&self, now: Tick, source: Source, bytes: &[u8], out: &mut Outbox) {
        self.receive_all(now, &mut std::iter::once((source, bytes)), out);
    }

    /// Handles datagrams that arrived together, in their order.
    pub fn receive_all<'m>(&self, now: Tick, messages: &mut dyn Iterator<Item = (Source, &'m [u8])>, out: &mut Outbox) {
        loop {
            let mut group: [Option<ReceivedMessage<'m>>; GROUP] = [const { None }; GROUP];
            let mut count = 0;
            for (room, (source, bytes)) in group.iter_mut().zip(&mut *messages) {
                count += 1;
                let verdict = self.check_rate(now, source, Kind::of(bytes));
                match verdict {
                    Admission::Drop => self.left_unread(now, source),
                    _ => {
                        *room = Some(ReceivedMessage {
                            source,
                            bytes,
                            admission: verdict,
                            heard: ParsedMessage::Noise,
                            about: None,
                        })
                    }
                }
            }
            if count == 0 {
                return;
            }
            let mut read = 0;
            while read < count {
                // If the parser panics on a message, only that message is lost; the others are still parsed.
                self.catch_panic(|| {
                    while let Some(room) = group.get_mut(read).filter(|_| read < count) {
                        read += 1;
                        if let Some(arrived) = room {
                            arrived.heard = ParsedMessage::read(arrived.bytes, arrived.admission);
                        }
                    }
                });
            }
            if count > 1 {
                self.prefetch_targets(&mut group);
            }
            group.iter().flatten().for_each(|arrived| self.take(now, arrived, out));
        }
    }

    /// Prefetches the memory of all subscriptions that a group of messages leads to.
    fn prefetch_targets(&self, group: &mut [Option<ReceivedMessage<'_>>; GROUP]) {
        for arrived in group.iter_mut().flatten() {
            let place = arrived.heard.place();
            arrived.about = place.and_then(|place| Some((place, self.table.by_number(place.presentity)?)));
        }
        let about = || group.iter().flatten().filter_map(|arrived| arrived.about.as_ref());
        about().for_each(|(place, presentity)| presentity.lock().watchers.fetch_slot(place.slot));
        about().for_each(|(place, presentity)| presentity.lock().watchers.fetch_subscription(place.slot));
    }

    /// Dispatches a message to its handler.
    fn take(&self, now: Tick, arrived: &ReceivedMessage<'_>, out: &mut Outbox) {
        let ReceivedMessage { source, bytes, admission, heard, about } = arrived;
        self.trace.received(now, *source, bytes);
        let known = about.as_ref().map(|(_, presentity)| presentity);
        let pass = *admission == Admission::Accept;
        self.guarded(now, out, |out| match heard {
            ParsedMessage::Reply(reply, notify) if pass => self.on_reply(now, reply, *notify, known, *source, out),
            ParsedMessage::Request(request) if pass && out.strained && begins_something(request) => {
                self.count_overload(1)
            }
            ParsedMessage::Request(request) if pass => self.take_request(now, request, *source, out),
            ParsedMessage::Request(request) => self.reject_rate_limited(now, request, *source, out),
            ParsedMessage::Unreadable(refused) if pass => self.refuse(now, refused, *source, out),
            _ => {}
        });
    }

    /// Decides by the rate limits whether a message from this source is read at all.
    fn check_rate(&self, now: Tick, source: Source, kind: Kind) -> Admission {
        if self.settings.routing.trusts(&source) {
            return Admission::Accept;
        }
        // An open connection proves no more about its peer than a datagram does, so streams are limited as well.
        self.rate_limiter.admit(now, &source, kind)
    }

    /// Time in ms until the rate limit of this source allows another message; 0 if it allows one now.
    ///
    /// Data on a stream waits that long in the socket (back-pressure). Datagrams above the limit are dropped.
    pub fn may_speak_in(&self, now: Tick, source: &Source) -> u64 {
        if self.settings.routing.trusts(source) { 0 } else { self.rate_limiter.wait_ms(now, source) }
    }

    /// Counts a keep-alive against the rate limit of its source.
    pub fn count_keep_alive(&self, now: Tick, source: Source) {
        // A keep-alive gets no response, so the source only has to wait.
        let _ = self.check_rate(now, source, Kind::Request);
    }

    /// Counts requests that were not read because too much output waits for the journal. Clients retransmit requests
    /// sent by datagram.
    pub fn count_overload(&self, requests: u64) {
        self.rate_limiter.count_overload(requests);
    }

    /// Counts requests that were not read because their source floods an overloaded socket.
    pub fn count_dropped_of_loudest(&self, requests: u64) {
        self.rate_limiter.count_dropped_of_loudest(requests);
    }

    /// Forgets the rate limit of a connection that has ended.
    pub fn connection_ended(&self, source: &Source) {
        source.flow.into_iter().for_each(|flow| self.rate_limiter.forget(flow));
    }

    /// Responds to data from a stream that could not be parsed as a message. Finding the start of the next message is
    /// the task of the caller.
    pub fn receive_malformed(&self, now: Tick, source: Source, fault: ParseError, bytes: &[u8], out: &mut Outbox) {
        if self.check_rate(now, source, Kind::of(bytes)) != Admission::Accept {
            return;
        }
        self.guarded(now, out, |out| {
            let head = std::str::from_utf8(bytes).ok().and_then(|text| wire::Head::find(text).ok());
            self.refuse(now, &ParseFailure { fault, head: head.map(|(head, _)| Box::new(head)) }, source, out);
        });
    }

    /// Runs `f`, which may add to the outbox. If `f` panics, the messages that it added are removed again.
    pub(super) fn guarded(&self, now: Tick, out: &mut Outbox, f: impl FnOnce(&mut Outbox)) {
        let before = out.messages.len();
        if !self.catch_panic(|| f(out)) {
            out.messages.truncate(before);
        }
        self.trace.sent(now, self, out.messages.get(before..).unwrap_or_default());
    }

    /// Runs `f` and returns false if it panicked. A panic is a bug; it costs only the message that caused it, as no
    /// lock is poisoned by it.
    fn catch_panic(&self, f: impl FnOnce()) -> bool {
        let survived = catch_unwind(AssertUnwindSafe(f)).is_ok();
        if !survived {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a message was dropped because handling it panicked; this is a bug, please report it");
        }
        survived
    }
}

/// Returns true if a request is outside a dialog and changes no existing publication.
fn begins_something(request: &Message<'_>) -> bool {
    request.to.tag().is_none() && request.first(Name::SipIfMatch).is_none()
}
