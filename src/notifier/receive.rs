//! Where messages come in. Those that came together are all read before the first of them is handled, and the memory that they
//! lead to is asked for step by step: so it comes for many at once, while one after the other would wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::gate::{Kind, Verdict};
use super::outbox::NotifyRef;
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::presentity::Presentity;
use crate::presence::subscription::Place;
use crate::sip::wire::{self, Fault, Message, Name, Refused, Reply};
use crate::transport::Source;

/// So many are taken in one go: what they lead to fits into the nearest cache.
const GROUP: usize = 8;

/// A message that has come.
struct Arrived<'m> {
    source: Source,
    bytes: &'m [u8],
    verdict: Verdict,
    heard: Heard<'m>,
    /// The subscription that it is about, and the presentity that has it; only looked for if others came with it.
    about: Option<(Place, Arc<Presentity>)>,
}

/// What it is.
#[allow(clippy::large_enum_variant)] // it is not moved
enum Heard<'m> {
    Reply(Reply<'m>, NotifyRef),
    Request(Message<'m>),
    Unreadable(Refused<'m>),
    /// Nothing that is for us.
    Noise,
}

impl<'m> Heard<'m> {
    fn read(bytes: &'m [u8], verdict: Verdict) -> Heard<'m> {
        let reply = |reply: Reply<'m>| reply.notify().map_or(Heard::Noise, |notify| Heard::Reply(reply, notify));
        if verdict == Verdict::Pass
            && let Some(plain) = Reply::glance(bytes)
        {
            return reply(plain);
        }
        match wire::read(bytes) {
            Ok(Some(message)) if message.status().is_none() => Heard::Request(message),
            Ok(Some(message)) => Reply::of(&message).map_or(Heard::Noise, reply),
            Ok(None) => Heard::Noise,
            Err(refused) => Heard::Unreadable(refused),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Heard::Reply(_, notify) => Some(notify.place),
            Heard::Request(request) => request.to.tag().and_then(Place::read),
            _ => None,
        }
    }
}

impl Notifier {
    /// Takes one datagram, or one message from a stream.
    pub fn receive(&self, now: Tick, source: Source, bytes: &[u8], out: &mut Outbox) {
        self.receive_all(now, &mut std::iter::once((source, bytes)), out);
    }

    /// Takes datagrams that came together, one after the other.
    pub fn receive_all<'m>(&self, now: Tick, messages: &mut dyn Iterator<Item = (Source, &'m [u8])>, out: &mut Outbox) {
        loop {
            let mut group: [Option<Arrived<'m>>; GROUP] = [const { None }; GROUP];
            let mut count = 0;
            for (room, (source, bytes)) in group.iter_mut().zip(&mut *messages) {
                count += 1;
                let verdict = self.judge(now, source, Kind::of(bytes));
                match verdict {
                    Verdict::Drop => self.left_unread(now, source),
                    _ => *room = Some(Arrived { source, bytes, verdict, heard: Heard::Noise, about: None }),
                }
            }
            if count == 0 {
                return;
            }
            let mut read = 0;
            while read < count {
                // Of a message that cannot be read without a panic, nothing is known; the others are read all the same.
                self.survive(|| {
                    while let Some(room) = group.get_mut(read).filter(|_| read < count) {
                        read += 1;
                        if let Some(arrived) = room {
                            arrived.heard = Heard::read(arrived.bytes, arrived.verdict);
                        }
                    }
                });
            }
            if count > 1 {
                self.look_ahead(&mut group);
            }
            group.iter().flatten().for_each(|arrived| self.take(now, arrived, out));
        }
    }

    /// Asks for the memory of all the subscriptions that a group leads to.
    fn look_ahead(&self, group: &mut [Option<Arrived<'_>>; GROUP]) {
        for arrived in group.iter_mut().flatten() {
            let place = arrived.heard.place();
            arrived.about = place.and_then(|place| Some((place, self.table.by_number(place.presentity)?)));
        }
        let about = || group.iter().flatten().filter_map(|arrived| arrived.about.as_ref());
        about().for_each(|(place, presentity)| presentity.lock().watchers.fetch_slot(place.slot));
        about().for_each(|(place, presentity)| presentity.lock().watchers.fetch_subscription(place.slot));
    }

    /// Does what a message asks for.
    fn take(&self, now: Tick, arrived: &Arrived<'_>, out: &mut Outbox) {
        let Arrived { source, bytes, verdict, heard, about } = arrived;
        self.trace.received(now, *source, bytes);
        let known = about.as_ref().map(|(_, presentity)| presentity);
        let pass = *verdict == Verdict::Pass;
        self.contained(now, out, |out| match heard {
            Heard::Reply(reply, notify) if pass => self.take_reply(now, reply, *notify, known, *source, out),
            Heard::Request(request) if pass && out.strained && begins_something(request) => self.count_overload(1),
            Heard::Request(request) if pass => self.take_request(now, request, *source, out),
            Heard::Request(request) => self.tell_off(now, request, *source, out),
            Heard::Unreadable(refused) if pass => self.refuse(now, refused, *source, out),
            _ => {}
        });
    }

    /// Whether what comes from this source is read at all.
    fn judge(&self, now: Tick, source: Source, kind: Kind) -> Verdict {
        if self.settings.routing.trusts(&source) {
            return Verdict::Pass;
        }
        // That a connection is there proves no more than a datagram does.
        self.gate.admit(now, &source, kind)
    }

    /// In how many milliseconds this source may say something more; 0 if it may now. What comes on a stream can wait for
    /// that where it is (back-pressure), while of datagrams those are dropped that come before.
    pub fn may_speak_in(&self, now: Tick, source: &Source) -> u64 {
        if self.settings.routing.trusts(source) { 0 } else { self.gate.opens_in(now, source) }
    }

    /// Counts what has come from a source and was no message: keep-alives.
    pub fn count_keep_alive(&self, now: Tick, source: Source) {
        // Those who send too many wait, and need not be told.
        let _ = self.judge(now, source, Kind::Request);
    }

    /// Counts requests that were not read because too much waits for the journal. Who sends datagrams repeats them.
    pub fn count_overload(&self, requests: u64) {
        self.gate.count_overload(requests);
    }

    /// Counts requests that were not read because their source floods an overloaded socket.
    pub fn count_crowded(&self, requests: u64) {
        self.gate.count_crowded(requests);
    }

    /// A connection has ended, and what is known of it with it.
    pub fn connection_ended(&self, source: &Source) {
        source.flow.into_iter().for_each(|flow| self.gate.forget(flow));
    }

    /// Answers what came on a stream and is no message that could be taken; where the next one begins is not known here.
    pub fn receive_broken(&self, now: Tick, source: Source, fault: Fault, bytes: &[u8], out: &mut Outbox) {
        if self.judge(now, source, Kind::of(bytes)) != Verdict::Pass {
            return;
        }
        self.contained(now, out, |out| {
            let head = std::str::from_utf8(bytes).ok().and_then(|text| wire::Head::find(text).ok());
            self.refuse(now, &Refused { fault, head: head.map(|(head, _)| Box::new(head)) }, source, out);
        });
    }

    /// Does what may add to the outbox. What was to be sent because of a message that panics is not.
    pub(super) fn contained(&self, now: Tick, out: &mut Outbox, f: impl FnOnce(&mut Outbox)) {
        let before = out.messages.len();
        if !self.survive(|| f(out)) {
            out.messages.truncate(before);
        }
        self.trace.sent(now, self, out.messages.get(before..).unwrap_or_default());
    }

    /// False if it panicked. That is a bug, and harms no more than the message that found it: no lock is poisoned by it.
    fn survive(&self, f: impl FnOnce()) -> bool {
        let survived = catch_unwind(AssertUnwindSafe(f)).is_ok();
        if !survived {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a message was dropped because handling it panicked; this is a bug, please report it");
        }
        survived
    }
}

/// Whether a request neither belongs to a dialog nor changes what its sender has published.
fn begins_something(request: &Message<'_>) -> bool {
    request.to.tag().is_none() && request.first(Name::SipIfMatch).is_none()
}
