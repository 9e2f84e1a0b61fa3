//! Encoding of NOTIFYs, and the choice of transport for one that is too large for a datagram (RFC 3261 section
//! 18.1.1).
//!
//! A datagram of more than 1,300 octets may be fragmented on its way, and it is lost if any fragment is lost. So a
//! larger NOTIFY for UDP is tried in this order: with short header names; over a connection that the phone has
//! opened; over a new connection to the address that the datagram would go to, if the configuration and the URI allow
//! that; and as a datagram after all, if it fits into one. If it does not fit, it is not sent, and counts as failed.
//!
//! A phone that accepts no connection is remembered, and gets the same state in a datagram at once.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::pacing::is_at_least_as_secure;
use super::{MessageBuffer, Notifier};
use crate::package;
use crate::presence::Tick;
use crate::presence::presentity::{NotifyEtag, Presentity};
use crate::presence::subscription::{InFlight, MaxRate, NotifyTransport, Subscription};
use crate::sip::Transport;
use crate::sip::headers::MAGIC_COOKIE;
use crate::sip::uri::user_of;
use crate::sip::wire::{Hex, Value};
use crate::transport::{Destination, ListenerId, Remote};
use crate::util::log_limit::LogLimiter;

/// Largest UDP payload (octets): 65,535 over IPv4, without the headers of IP and UDP.
pub(super) const MAX_DATAGRAM: usize = 65_507;
/// Largest request that is sent in a datagram while the path MTU is unknown (octets; RFC 3261 section 18.1.1).
const MAX_OVER_UDP: usize = 1_300;
/// Limits the log lines about NOTIFYs that cannot be sent.
static TOO_LARGE: LogLimiter = LogLimiter::new();
/// Header names with their short forms (RFC 3261 section 7.3.3, RFC 6665 section 8.4).
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

/// Content of a NOTIFY.
pub(super) struct NotifyContent<'a> {
    /// URI of the presentity, as the watcher wrote it.
    pub(super) entity: &'a str,
    /// Entity-tag of the state (RFC 5839).
    pub(super) tag: NotifyEtag,
    /// Version of the document; each watcher has its own count.
    pub(super) version: u32,
    /// Part of the body that all watchers share; `None` if the watcher has this state already.
    pub(super) tail: Option<&'a str>,
}

/// An encoded NOTIFY with its destination.
pub(super) struct EncodedNotify {
    pub(super) to: Destination,
    pub(super) bytes: Bytes,
    /// Transport form that was chosen because of its size.
    pub(super) carried: NotifyTransport,
}

/// Counters of NOTIFYs that were too large for a UDP datagram, since the start of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OversizeNotifies {
    /// Sent in a datagram of at most 1,300 octets, with short header names.
    pub compacted: u64,
    /// Sent over a connection that the phone had opened.
    pub on_flow: u64,
    /// Sent over a connection that this server opened.
    pub on_connection: u64,
    /// Sent in a datagram that is probably fragmented.
    pub fragmented: u64,
    /// Not sent, because they fit into no datagram.
    pub not_sent: u64,
}

/// The counters behind [`OversizeNotifies`].
#[derive(Debug, Default)]
pub(super) struct OversizeCounters {
    compacted: AtomicU64,
    on_flow: AtomicU64,
    on_connection: AtomicU64,
    fragmented: AtomicU64,
    not_sent: AtomicU64,
}

impl Notifier {
    /// Returns the counters of oversize NOTIFYs.
    pub fn large_notifies(&self) -> OversizeNotifies {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let OversizeCounters { compacted, on_flow, on_connection, fragmented, not_sent } = &self.oversize;
        OversizeNotifies {
            compacted: read(compacted),
            on_flow: read(on_flow),
            on_connection: read(on_connection),
            fragmented: read(fragmented),
            not_sent: read(not_sent),
        }
    }

    /// Encodes a NOTIFY for the transport that it will take. The caller has increased its CSeq already.
    pub(super) fn write_notify(
        &self,
        now: Tick,
        subscription: &Subscription,
        to: Destination,
        document: &NotifyContent<'_>,
        pool: &mut MessageBuffer,
    ) -> EncodedNotify {
        let no = listener_of(&to, subscription.source().listener);
        let bytes = pool.notify(|out, own| self.encode_notify(now, subscription, document, (no, no), out, own));
        if to.is_reliable() || bytes.len() <= MAX_OVER_UDP {
            return EncodedNotify { to, bytes, carried: NotifyTransport::Normal };
        }
        let size = bytes.len();
        let slim = with_compact_headers(&bytes);
        let (letter, how, count) = if slim.len() <= MAX_OVER_UDP {
            let letter = EncodedNotify { to, bytes: slim.into(), carried: NotifyTransport::CompactHeaders };
            (letter, "with short header names", &self.oversize.compacted)
        } else if let Some((to, via)) = self.tcp_route_for(subscription, &to) {
            // The Contact stays that of the dialog, which continues over UDP.
            let bytes = pool.notify(|out, own| self.encode_notify(now, subscription, document, (via, no), out, own));
            let (how, count) = match to {
                Destination::Flow { .. } => ("over a connection of the phone", &self.oversize.on_flow),
                _ => ("over a connection of ours", &self.oversize.on_connection),
            };
            (EncodedNotify { to, bytes, carried: NotifyTransport::Tcp }, how, count)
        } else if size > MAX_DATAGRAM {
            if let Some(more) = TOO_LARGE.check() {
                let (presentity, watcher) = (document.entity, subscription.dialog.remote());
                tracing::warn!(
                    presentity,
                    watcher,
                    size,
                    more,
                    "a NOTIFY is too large for a datagram and may not use TCP; it is not sent"
                );
            }
            (EncodedNotify { to, bytes, carried: NotifyTransport::Not }, "not at all", &self.oversize.not_sent)
        } else {
            // Short names would not avoid fragments here, and some phones do not know them.
            (EncodedNotify { to, bytes, carried: NotifyTransport::Normal }, "in fragments", &self.oversize.fragmented)
        };
        count.fetch_add(1, Ordering::Relaxed);
        let watcher = subscription.dialog.remote();
        tracing::debug!(watcher, size, carried = how, "a NOTIFY is too large for a datagram");
        letter
    }

    /// Encodes the NOTIFY in flight again for a retransmission, with exactly the same octets. This works because its
    /// content has not changed; otherwise a new NOTIFY would go out.
    pub(super) fn encode_again(
        &self,
        presentity: &Presentity,
        subscription: &Subscription,
        flight: &InFlight,
        pool: &mut MessageBuffer,
    ) -> Bytes {
        let InFlight { revision, fingerprint, version, sent_at, .. } = *flight;
        let tag = NotifyEtag { revision, fingerprint };
        let (entity, tail) = (subscription.entity(&presentity.uri), flight.tail.as_deref());
        let document = NotifyContent { entity, tag, version, tail };
        let no = listener_of(&flight.to, subscription.source().listener);
        let bytes = pool.notify(|out, own| self.encode_notify(sent_at, subscription, &document, (no, no), out, own));
        let bytes =
            if flight.sent_as == NotifyTransport::CompactHeaders { with_compact_headers(&bytes).into() } else { bytes };
        debug_assert_eq!(bytes.len(), flight.size as usize, "it is not what it was");
        bytes
    }

    /// Returns a connection for a NOTIFY that would go over UDP, and the listener for its Via.
    ///
    /// Returns `None` for an unverified address: with forged sources an attacker could make this server open all
    /// connections that it may have.
    fn tcp_route_for(&self, subscription: &Subscription, to: &Destination) -> Option<(Destination, ListenerId)> {
        let Destination::Datagram { peer, .. } = *to else { return None };
        if !self.settings.presence.large_over_tcp
            || subscription.phone.is_udp_only()
            || !self.is_address_verified(subscription)
        {
            return None;
        }
        let (dialog, source) = (&subscription.dialog, &subscription.source());
        // The connection must be to the same host. Another host may be a proxy that does not know this dialog.
        let way = subscription
            .phone
            .way()
            .filter(|way| way.peer.ip() == source.peer.ip() && is_at_least_as_secure(way, source));
        if let Some((way, flow)) = way.and_then(|way| Some((way, way.flow?))).filter(|_| dialog.route_set().is_empty())
        {
            return Some((Destination::Flow { flow, otherwise: None }, way.listener));
        }
        let remote = self.settings.routing.next_hop_by_tcp(dialog, source, peer)?;
        let via = remote.listener;
        Some((Destination::Connection(remote), via))
    }

    /// Encodes a NOTIFY with one listener in the Via and another in the Contact, to which the phone sends its
    /// requests. `own` is a buffer for the part of the body that belongs to this watcher only.
    fn encode_notify(
        &self,
        now: Tick,
        subscription: &Subscription,
        document: &NotifyContent<'_>,
        (via, contact): (ListenerId, ListenerId),
        out: &mut Vec<u8>,
        own: &mut String,
    ) {
        let package = package::get(subscription.package);
        let &NotifyContent { entity, tag, version, tail } = document;
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
            // It ends before its expiry, because the dialog that it watches has ended.
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

    /// Returns our Contact for a dialog: it leads back to this instance and names the presentity. In a dialog with
    /// only sips URIs it is sips as well, on listeners with TLS (RFC 3261 section 12.1.1).
    pub(super) fn contact<'a>(&'a self, user: &'a str, listener: ListenerId, sips: bool) -> impl Value + 'a {
        let listener = self.settings.routing.listener(listener);
        let (scheme, transport) = match listener.transport {
            Transport::Tls if sips => ("<sips:", ">"),
            Transport::Wss if sips => ("<sips:", ";transport=ws>"),
            Transport::Tls => ("<sip:", ";transport=tls>"),
            // A sip URI has no separate transport name for secure WebSockets (RFC 7118 section 5.2).
            Transport::Ws | Transport::Wss => ("<sip:", ";transport=ws>"),
            Transport::Tcp => ("<sip:", ";transport=tcp>"),
            Transport::Udp | Transport::Sctp | Transport::TlsSctp => ("<sip:", ">"),
        };
        (scheme, user, "@", &listener.sent_by, transport)
    }
}

/// Returns the name of a transport in a Via (RFC 3261 section 20.42, RFC 7118 section 5.1).
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

/// Returns true for a sips URI.
pub(super) fn is_sips(uri: &str) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}

/// Returns the listener for the Via of a message.
fn listener_of(to: &Destination, source: ListenerId) -> ListenerId {
    match to {
        Destination::Datagram { listener, .. } | Destination::Connection(Remote { listener, .. }) => *listener,
        Destination::Flow { .. } => source,
    }
}

/// Returns the same message with short header names.
fn with_compact_headers(message: &[u8]) -> Vec<u8> {
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
