//! Writing a NOTIFY, and what carries it when it is too large for a datagram (RFC 3261 section 18.1.1).
//!
//! A datagram of more than 1,300 octets may be cut into fragments on its way, of which each must arrive. So a NOTIFY that is
//! larger and would go over UDP is tried, in this order: with short header names; over a connection that the phone has; over
//! a new connection to where the datagram would go, if the configuration and the URI allow that; and as a datagram after
//! all, if one can hold it. What none can hold is not sent, and counts as a NOTIFY that failed. A phone that takes no connection is remembered, and gets the same news in a datagram at once.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::pace::is_as_safe;
use super::{Notifier, Pool};
use crate::package;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, StateTag};
use crate::presence::subscription::{Carried, InFlight, MaxRate, Subscription};
use crate::seldom::Seldom;
use crate::sip::Transport;
use crate::sip::headers::MAGIC_COOKIE;
use crate::sip::uri::user_of;
use crate::sip::wire::{Hex, Value};
use crate::transport::{Destination, ListenerNo, Remote};

/// The largest datagram (octets): 65,535 over IPv4, less the headers of IP and UDP.
pub(super) const MAX_DATAGRAM: usize = 65_507;
/// The largest request that goes into a datagram without second thoughts, the path MTU being unknown (octets).
const LARGE: usize = 1_300;
/// What is said of NOTIFYs that cannot be sent.
static TOO_LARGE: Seldom = Seldom::new();
/// The header names that get shorter (RFC 3261 section 7.3.3, RFC 6665 section 8.4).
const SHORT: [(&str, &str); 8] = [
    ("Via", "v"),
    ("From", "f"),
    ("To", "t"),
    ("Call-ID", "i"),
    ("Contact", "m"),
    ("Event", "o"),
    ("Content-Type", "c"),
    ("Content-Length", "l"),
];

/// What a NOTIFY tells.
pub(super) struct Document<'a> {
    /// The URI that it is about, as its watcher wrote it.
    pub(super) entity: &'a str,
    /// Names the state (RFC 5839).
    pub(super) tag: StateTag,
    /// Which document of this watcher it is.
    pub(super) version: u32,
    /// The part that all watchers share; none where the watcher has it already.
    pub(super) tail: Option<&'a str>,
}

/// A NOTIFY that is ready to leave.
pub(super) struct Letter {
    pub(super) to: Destination,
    pub(super) bytes: Bytes,
    /// What was done about its size.
    pub(super) carried: Carried,
}

/// How large NOTIFYs of subscriptions over UDP were carried, counted from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargeNotifies {
    /// In a datagram of no more than 1,300 octets, thanks to short header names.
    pub slimmed: u64,
    /// Over a connection that the phone had opened.
    pub on_flow: u64,
    /// Over a connection of ours.
    pub on_connection: u64,
    /// In a datagram that is likely to be fragmented.
    pub fragmented: u64,
    /// Not at all: no datagram holds them.
    pub not_sent: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    slimmed: AtomicU64,
    on_flow: AtomicU64,
    on_connection: AtomicU64,
    fragmented: AtomicU64,
    not_sent: AtomicU64,
}

impl Notifier {
    /// How large NOTIFYs were carried so far.
    pub fn large_notifies(&self) -> LargeNotifies {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Tally { slimmed, on_flow, on_connection, fragmented, not_sent } = &self.large;
        LargeNotifies {
            slimmed: read(slimmed),
            on_flow: read(on_flow),
            on_connection: read(on_connection),
            fragmented: read(fragmented),
            not_sent: read(not_sent),
        }
    }

    /// Writes the NOTIFY whose CSeq has been counted up, for the way that it will go.
    pub(super) fn write_notify(
        &self,
        now: Tick,
        subscription: &Subscription,
        to: Destination,
        document: &Document<'_>,
        pool: &mut Pool,
    ) -> Letter {
        let no = listener_of(&to, subscription.source().listener);
        let bytes = pool.notify(|out, own| self.write_for(now, subscription, document, (no, no), out, own));
        if to.is_reliable() || bytes.len() <= LARGE {
            return Letter { to, bytes, carried: Carried::Plainly };
        }
        let size = bytes.len();
        let slim = slim(&bytes);
        let (letter, how, count) = if slim.len() <= LARGE {
            let letter = Letter { to, bytes: slim.into(), carried: Carried::Slim };
            (letter, "with short header names", &self.large.slimmed)
        } else if let Some((to, via)) = self.connection_for(subscription, &to) {
            // The Contact is that of the dialog, which goes on over UDP.
            let bytes = pool.notify(|out, own| self.write_for(now, subscription, document, (via, no), out, own));
            let (how, count) = match to {
                Destination::Flow { .. } => ("over a connection of the phone", &self.large.on_flow),
                _ => ("over a connection of ours", &self.large.on_connection),
            };
            (Letter { to, bytes, carried: Carried::ByDetour }, how, count)
        } else if size > MAX_DATAGRAM {
            if let Some(more) = TOO_LARGE.may_say() {
                let (presentity, watcher) = (document.entity, subscription.dialog.remote());
                tracing::warn!(
                    presentity,
                    watcher,
                    size,
                    more,
                    "a NOTIFY is too large for any datagram and may not go over TCP; its watcher is not told"
                );
            }
            (Letter { to, bytes, carried: Carried::Not }, "not at all", &self.large.not_sent)
        } else {
            // Short names would save nothing now, and there are phones that have never seen them.
            (Letter { to, bytes, carried: Carried::Plainly }, "in fragments", &self.large.fragmented)
        };
        count.fetch_add(1, Ordering::Relaxed);
        let watcher = subscription.dialog.remote();
        tracing::debug!(watcher, size, carried = how, "a NOTIFY is too large for a datagram");
        letter
    }

    /// The NOTIFY under way once more, octet by octet as it was: nothing that it tells has changed, or another would go in its
    /// place.
    pub(super) fn write_again(
        &self,
        presentity: &Presentity,
        subscription: &Subscription,
        flight: &InFlight,
        pool: &mut Pool,
    ) -> Bytes {
        let InFlight { revision, fingerprint, version, sent_at, .. } = *flight;
        let tag = StateTag { revision, fingerprint };
        let (entity, tail) = (subscription.entity(&presentity.uri), flight.tail.as_deref());
        let document = Document { entity, tag, version, tail };
        let no = listener_of(&flight.to, subscription.source().listener);
        let bytes = pool.notify(|out, own| self.write_for(sent_at, subscription, &document, (no, no), out, own));
        let bytes = if flight.carried == Carried::Slim { slim(&bytes).into() } else { bytes };
        debug_assert_eq!(bytes.len(), flight.size as usize, "it is not what it was");
        bytes
    }

    /// A connection for a NOTIFY that would go over UDP, and the listener whose name it goes by. None to an address that has
    /// not shown to be the phone's own: whoever forges sources could have us open as many as we may have.
    fn connection_for(&self, subscription: &Subscription, to: &Destination) -> Option<(Destination, ListenerNo)> {
        let Destination::Datagram { peer, .. } = *to else { return None };
        if !self.settings.presence.large_over_tcp
            || subscription.phone.takes_datagrams_only()
            || !self.is_proven(subscription)
        {
            return None;
        }
        let (dialog, source) = (&subscription.dialog, &subscription.source());
        // Of the same host, for whoever else it is may be a proxy that knows nothing of this dialog.
        let way = subscription.phone.way().filter(|way| way.peer.ip() == source.peer.ip() && is_as_safe(way, source));
        if let Some((way, flow)) = way.and_then(|way| Some((way, way.flow?))).filter(|_| dialog.route_set().is_empty())
        {
            return Some((Destination::Flow { flow, otherwise: None }, way.listener));
        }
        let remote = self.settings.routing.next_hop_by_tcp(dialog, source, peer)?;
        let via = remote.listener;
        Some((Destination::Connection(remote), via))
    }

    /// As it is written to leave by the name of one listener, while requests of the phone come back to another; `own` is
    /// for the part of the body that is this watcher's.
    fn write_for(
        &self,
        now: Tick,
        subscription: &Subscription,
        document: &Document<'_>,
        (via, contact): (ListenerNo, ListenerNo),
        out: &mut Vec<u8>,
        own: &mut String,
    ) {
        let package = package::get(subscription.package);
        let &Document { entity, tag, version, tail } = document;
        let listener = self.settings.routing.listener(via);
        let branch = (MAGIC_COOKIE, subscription.place, ".", Hex(subscription.dialog.local_cseq.into(), 1));
        let via = ("SIP/2.0/", name_of(listener.transport), " ", &listener.sent_by, ";branch=", branch, ";rport");
        let mut writer = subscription.dialog.request(out, "NOTIFY", via, subscription.place);
        let user = user_of(entity).unwrap_or_default();
        let sips = is_sips(entity) || is_sips(subscription.dialog.target());
        writer.header("Contact", self.contact(user, contact, sips));
        match subscription.event_id() {
            Some(id) => writer.header("Event", (package.name(), ";id=", id)),
            None => writer.header("Event", package.name()),
        };
        match subscription.ended {
            // Before its time, it ends with the dialog that it named.
            true if subscription.expires_at > now => {
                writer.header("Subscription-State", "terminated;reason=noresource")
            }
            true => writer.header("Subscription-State", "terminated;reason=timeout"),
            false => {
                let expires = subscription.remaining(now);
                match subscription.max_rate() {
                    Some(MaxRate { written, .. }) => {
                        writer.header("Subscription-State", ("active;expires=", expires, ";max-rate=", written))
                    }
                    None => writer.header("Subscription-State", ("active;expires=", expires)),
                }
            }
        };
        writer.header("SIP-ETag", tag);
        match tail {
            Some(tail) => {
                package.write_head(version, entity, own);
                writer.body(package.content_type(), &[own.as_bytes(), tail.as_bytes()]);
            }
            None => writer.end(),
        }
    }

    /// Our Contact for a dialog: it leads back to this instance and says whom it is about. In a dialog that is all sips, it
    /// is sips as well where we speak that (RFC 3261 section 12.1.1).
    pub(super) fn contact<'a>(&'a self, user: &'a str, listener: ListenerNo, sips: bool) -> impl Value + 'a {
        let listener = self.settings.routing.listener(listener);
        let (scheme, transport) = match listener.transport {
            Transport::Tls if sips => ("<sips:", ">"),
            Transport::Wss if sips => ("<sips:", ";transport=ws>"),
            Transport::Tls => ("<sip:", ";transport=tls>"),
            // A URI does not tell secure WebSockets from others (RFC 7118 section 5.2).
            Transport::Ws | Transport::Wss => ("<sip:", ";transport=ws>"),
            Transport::Tcp => ("<sip:", ";transport=tcp>"),
            Transport::Udp | Transport::Sctp | Transport::TlsSctp => ("<sip:", ">"),
        };
        (scheme, user, "@", &listener.sent_by, transport)
    }
}

/// A transport as it stands in a Via (RFC 3261 section 20.42, RFC 7118 section 5.1).
fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
        Transport::Tls => "TLS",
        Transport::Ws => "WS",
        Transport::Wss => "WSS",
        Transport::Sctp => "SCTP",
        Transport::TlsSctp => "TLS-SCTP",
    }
}

/// Whether a URI is one that only TLS may be used for.
pub(super) fn is_sips(uri: &str) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}

/// The listener whose name a message goes by.
fn listener_of(to: &Destination, source: ListenerNo) -> ListenerNo {
    match to {
        Destination::Datagram { listener, .. } | Destination::Connection(Remote { listener, .. }) => *listener,
        Destination::Flow { .. } => source,
    }
}

/// The same message with short header names.
fn slim(message: &[u8]) -> Vec<u8> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let (head, rest) = message.split_at(end);
    let mut out = Vec::with_capacity(message.len());
    for line in head.split_inclusive(|c| *c == b'\n') {
        let short = SHORT.iter().find_map(|(long, short)| {
            let value = line.strip_prefix(long.as_bytes())?.strip_prefix(b": ")?;
            Some((short, value))
        });
        match short {
            Some((name, value)) => {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
            }
            None => out.extend_from_slice(line),
        }
    }
    out.extend_from_slice(rest);
    out
}
