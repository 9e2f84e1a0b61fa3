//! UAS core: the steps that every request goes through, whatever its method (RFC 3261 section 8.2), and its response.

use std::net::SocketAddr;

use bytes::Bytes;

use super::authorization::SenderTrust;
use super::outbox::PendingResponse;
use super::response::{CachedResponse, Grant, GrantedResponse, Response, ToTag};
use super::rollback::Change;
use super::routing::return_path;
use super::{MessageBuffer, Notifier, Outbox};
use crate::directory::AccountNo;
use crate::package::{self, PackageId};
use crate::presence::subscription::{Subscription, SubscriptionId};
use crate::presence::{Aor, Tick};
use crate::sip::headers::{self, Event, Via, items};
use crate::sip::transaction::{TIMEOUT, TransactionLookup};
use crate::sip::uri::{Scheme, Uri};
use crate::sip::wire::{self, Message, Name, ParseFailure, RequestMethod, RequestView, StartLine, Value};
use crate::sip::{Method, StatusCode};
use crate::transport::{Destination, OutboundMessage, Source};

/// Methods that this server supports.
const ALLOW: &str = "OPTIONS, SUBSCRIBE, PUBLISH";

impl Notifier {
    /// Processes a request. A retransmission gets the earlier response; a new request is checked and handled, and its
    /// messages (NOTIFYs) leave after the response.
    pub(super) fn take_request(&self, now: Tick, request: &Message<'_>, source: Source, out: &mut Outbox) {
        let Some((verb, uri)) = request.request() else { return };
        match verb {
            // This ACK belongs to a response that was forgotten already. An ACK never gets a response (section
            // 17.1.1.3).
            RequestMethod::Known(Method::Ack) => return,
            RequestMethod::Known(Method::Cancel) => {
                let answer = self.cancel(request);
                return self.send_answer(&answer, request, source, out);
            }
            _ => {}
        }
        let key = match self.transactions.look_up(now.0, request) {
            TransactionLookup::New(key) => key,
            TransactionLookup::Answered(answer) => {
                self.refusals.repeated();
                return self.resend_response(&answer, request, &uri, source, out);
            }
            TransactionLookup::InProgress => return self.refusals.repeated(),
            // A client does not retransmit on a stream, so this request is no sign that the client waits. No 100 is
            // needed.
            TransactionLookup::Stalled if source.is_stream() => return,
            TransactionLookup::Stalled => {
                self.refusals.repeated();
                let answer = Response { to_tag: ToTag::None, ..Response::new(StatusCode::Trying, "Trying") };
                return self.send_answer(&answer, request, source, out);
            }
            TransactionLookup::Merged => {
                let answer = Response::new(StatusCode::LoopDetected, "Merged Request");
                self.decided(now, request, source, &answer);
                return self.send_answer(&answer, request, source, out);
            }
        };
        // The response is inserted in front of the messages that the handler adds.
        let (place, kept, changed) = (out.messages.len(), out.records.len(), out.changes.len());
        let answer = self
            .check_request(verb, uri, request, source)
            .and_then(|inspected| self.check_journal(inspected))
            .and_then(|(method, uri)| match method {
                Method::Subscribe | Method::Publish => {
                    let sender = self.authorize_sender(now, method, request, &uri, source)?;
                    Ok((method, uri, sender))
                }
                _ => Ok((method, uri, SenderTrust::Unknown)),
            })
            .and_then(|(method, uri, sender)| match method {
                Method::Subscribe => self.subscribe(now, request, &uri, source, sender, out),
                Method::Publish => self.publish(now, request, &uri, source, out),
                _ => self.options(now, request, out),
            })
            .unwrap_or_else(|refusal| refusal);
        self.decided(now, request, source, &answer);
        tracing::debug!(
            peer = %source.peer, method = request.cseq.method, uri = uri.text, call_id = request.call_id,
            status = answer.status.code(), reason = &*answer.reason, "request answered"
        );
        let bytes = self.write_answer(&answer, request.into(), source, request.call_id, &mut out.pool);
        let changes_nothing = verb == RequestMethod::Known(Method::Options) || answer.status.code() >= 300;
        match out.records.len() == kept {
            true if answer.status == StatusCode::Unauthorized => self.transactions.forget(key),
            true if changes_nothing && !self.rate_limiter.remembers(now) => self.transactions.forget(key),
            true => self.transactions.answered(key, CachedResponse::of(&answer, &bytes)),
            false => {
                let remembered = CachedResponse::of(&answer, &bytes);
                let change = out.changes.get(changed..).and_then(|new| new.last()).map(Change::number);
                let until = now.after(TIMEOUT);
                out.pending_responses.push(PendingResponse { key, answer: bytes.clone(), remembered, change, until });
            }
        }
        out.messages.insert(place, OutboundMessage { to: reply_address(&request.via, source), bytes, ticket: None });
        if let Some(granted) = answer.granted {
            out.pool.user = granted.user;
        }
    }

    /// Sends the earlier response again, for a retransmission of its request.
    fn resend_response(
        &self,
        answer: &CachedResponse,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
        out: &mut Outbox,
    ) {
        match answer {
            CachedResponse::Grant(grant) => {
                let answer = self.rebuild_response(request, uri, *grant, &mut out.pool);
                self.send_answer(&answer, request, source, out);
            }
            CachedResponse::Whole(bytes) => {
                out.send(reply_address(&request.via, source), Bytes::copy_from_slice(bytes), None);
            }
        }
    }

    /// Called when the journal has written the records of these messages: they leave now, and retransmissions of the
    /// requests get the same responses.
    pub fn on_committed(&self, now: Tick, out: &mut Outbox) {
        for PendingResponse { key, remembered, .. } in take_live_responses(now, out) {
            self.transactions.answered(key, remembered);
        }
    }

    /// Refuses a change that the journal could not keep (rule 5).
    fn check_journal<'a>(&self, inspected: (Method, Uri<'a>)) -> Result<(Method, Uri<'a>), Response> {
        let changes = matches!(inspected.0, Method::Subscribe | Method::Publish);
        if changes && !self.accepts_changes() {
            return Err(self.journal_unavailable());
        }
        Ok(inspected)
    }

    pub(super) fn journal_unavailable(&self) -> Response {
        Response::new(StatusCode::ServiceUnavailable, "Journal Unavailable")
            .with("Retry-After", self.jittered(30))
            .with("Warning", "399 lamplighter \"The journal cannot be written\"")
    }

    /// Checks a request in the order of RFC 3261 section 8.2.
    fn check_request<'a>(
        &self,
        verb: RequestMethod<'_>,
        uri: Uri<'a>,
        request: &Message<'_>,
        source: Source,
    ) -> Result<(Method, Uri<'a>), Response> {
        let method = match verb {
            RequestMethod::Known(method @ (Method::Subscribe | Method::Publish | Method::Options)) => method,
            RequestMethod::Known(_) => {
                return Err(Response::new(StatusCode::MethodNotAllowed, "Method Not Allowed").with("Allow", ALLOW));
            }
            RequestMethod::Unknown(_) => {
                return Err(Response::new(StatusCode::NotImplemented, "Not Implemented").with("Allow", ALLOW));
            }
        };
        let unsupported = |reason| Response::new(StatusCode::UnsupportedUriScheme, reason);
        match uri.scheme {
            Scheme::Sip => {}
            // A sips request must come over TLS, or from a proxy that stays in the path and uses TLS towards the
            // phone.
            Scheme::Sips if source.is_secure() || request.first(Name::RecordRoute).is_some() => {}
            Scheme::Sips => return Err(unsupported("sips Is Not Available Here")),
            Scheme::Other(_) => return Err(unsupported("Unsupported URI Scheme")),
        }
        let required = items(request, Name::Require);
        if !required.is_empty() {
            return Err(
                Response::new(StatusCode::BadExtension, "Bad Extension").with("Unsupported", required.join(", "))
            );
        }
        Ok((method, uri))
    }

    /// Handles OPTIONS: reports the capabilities of this server (RFC 3261 section 11). Inside a dialog, a 200 also
    /// says that the subscription exists, and the request is a sign of life from the phone.
    fn options(&self, now: Tick, request: &Message<'_>, out: &mut Outbox) -> Result<Response, Response> {
        if let Some(tag) = request.to.tag() {
            let alive = SubscriptionId::read(tag).is_some_and(|place| {
                self.table.with_id(place.presentity, |presentity, state| {
                    let ours = |s: &&mut Subscription| s.place == place && !s.ended && s.dialog.is_of(request);
                    let Some(subscription) = state.watchers.get_mut(place.slot).filter(ours) else { return false };
                    let asleep = subscription.phone.on_activity();
                    self.schedule_resumes(now, &subscription.phone, asleep);
                    self.resume(now, presentity, state, place.slot, out);
                    true
                }) == Some(true)
            });
            if !alive {
                return Err(Response::no_subscription());
            }
        }
        let accept: Vec<_> =
            self.settings.presence.packages.iter().map(|id| package::get(*id).content_type()).collect();
        Ok(Response::ok()
            .with("Allow", ALLOW)
            .with("Allow-Events", &self.allow_events)
            .with("Accept", accept.join(", "))
            .with("Accept-Encoding", "identity")
            .with("Accept-Language", "en")
            .with("Supported", ""))
    }

    /// Handles CANCEL. It has no effect on requests that get a final response at once (RFC 6665 section 4.6). The
    /// response is 200 if there was such a request, else 481; it has the To tag of the response to that request.
    fn cancel(&self, request: &Message<'_>) -> Response {
        const METHODS: [&str; 4] = ["SUBSCRIBE", "PUBLISH", "OPTIONS", "INVITE"];
        let Some(earlier) = METHODS.iter().find_map(|method| self.transactions.answer_to(request, method)) else {
            return Response::new(StatusCode::CallTransactionDoesNotExist, "Transaction Does Not Exist");
        };
        let to_tag = match earlier {
            CachedResponse::Grant(Grant::New { place, .. }) => ToTag::Dialog(place),
            CachedResponse::Grant(Grant::Again { .. }) => ToTag::None,
            CachedResponse::Whole(bytes) => match wire::read(&bytes) {
                Ok(Some(earlier)) => earlier.to.tag().map_or(ToTag::None, |tag| ToTag::Same(tag.to_string())),
                _ => ToTag::Stateless,
            },
        };
        Response { to_tag, ..Response::ok() }
    }

    /// Refuses a message that could not be parsed, as far as its parts allow a response. Noise and malformed
    /// responses get none.
    pub(super) fn refuse(&self, now: Tick, refused: &ParseFailure<'_>, source: Source, out: &mut Outbox) {
        let Some(head) = &refused.head else { return };
        let answerable = matches!(head.start, StartLine::Request { method, .. } if method != "ACK");
        if !answerable || head.first(Name::Via).is_none() {
            return;
        }
        let answer = Response::new(refused.fault.status(), refused.fault.to_string());
        self.decided_unreadable(now, head, source, &answer);
        tracing::debug!(peer = %source.peer, fault = %refused.fault, "malformed request refused");
        let bytes = self.write_answer(
            &answer,
            (&**head).into(),
            source,
            head.first(Name::CallId).unwrap_or_default(),
            &mut out.pool,
        );
        let to = match head.first(Name::Via).and_then(Via::first_of) {
            Some(via) => reply_address(&via, source),
            None => return_path(source),
        };
        out.send(to, bytes, None);
    }

    /// Refuses a request above the rate limit with a 480. The rate of these responses is limited, too.
    pub(super) fn reject_rate_limited(&self, now: Tick, request: &Message<'_>, source: Source, out: &mut Outbox) {
        if request.request().is_some_and(|(verb, _)| verb != RequestMethod::Known(Method::Ack)) {
            let answer = Response::account_limit_480("rate_limits", self.jittered(10));
            self.told_off(now, request, source, &answer);
            self.send_answer(&answer, request, source, out);
        }
    }

    fn send_answer(&self, answer: &Response, request: &Message<'_>, source: Source, out: &mut Outbox) {
        let bytes = self.write_answer(answer, request.into(), source, request.call_id, &mut out.pool);
        out.send(reply_address(&request.via, source), bytes, None);
    }

    fn write_answer(
        &self,
        answer: &Response,
        request: RequestView<'_, '_>,
        source: Source,
        call_id: &str,
        pool: &mut MessageBuffer,
    ) -> Bytes {
        let stateless;
        let tag: Option<&dyn Value> = match &answer.to_tag {
            ToTag::Stateless => {
                stateless = self.stateless_tag(call_id, request.head().first(Name::CSeq).unwrap_or_default());
                Some(&stateless)
            }
            ToTag::Dialog(place) => Some(place),
            ToTag::Same(tag) => Some(tag),
            ToTag::None => None,
        };
        pool.answer(|out| {
            let mut writer = wire::reply(out, &answer.status, &answer.reason, request, source.peer, tag);
            if answer.record_route {
                for value in request.head().all(Name::RecordRoute) {
                    writer.header("Record-Route", value);
                }
            }
            if let Some(GrantedResponse { grant, user, sips }) = &answer.granted {
                writer
                    .header("Contact", self.contact(user, source.listener, *sips))
                    .header("Expires", grant.seconds())
                    .header("Allow-Events", &self.allow_events);
            }
            writer.lines(&answer.headers);
            writer.end();
        })
    }

    /// Returns the account whose realm contains this URI (RFC 3261 section 8.2.2.1).
    pub(super) fn account_of(&self, uri: &Uri<'_>) -> Result<AccountNo, Response> {
        self.realm_of(uri).ok_or_else(|| Response::new(StatusCode::NotFound, "No Account Has This Realm"))
    }

    /// Returns the presentity that a Request-URI names.
    pub(super) fn presentity_of(&self, account: AccountNo, uri: &Uri<'_>) -> Result<Aor, Response> {
        let user = uri.user.ok_or_else(|| Response::bad_request("Missing User In Request-URI"))?;
        Aor::of_escaped(account, user).ok_or_else(|| Response::new(StatusCode::NotFound, "No Such User"))
    }

    /// Returns the event package of a SUBSCRIBE or PUBLISH.
    pub(super) fn event_of<'a>(&self, request: &Message<'a>) -> Result<(PackageId, Event<'a>), Response> {
        let refuse = |reason| Response::new(StatusCode::BadEvent, reason).with("Allow-Events", &self.allow_events);
        let value = request.first(Name::Event).ok_or_else(|| refuse("Missing Event Header"))?;
        let event = Event::read(value).ok_or_else(|| Response::bad_request("Malformed Event header"))?;
        package::by_name(event.package)
            .filter(|id| self.settings.presence.packages.contains(id))
            .map(|id| (id, event))
            .ok_or_else(|| refuse("Bad Event"))
    }

    /// Returns the lifetime to grant (seconds): the requested one, at most our maximum; our default if none was
    /// requested.
    ///
    /// A lifetime below `least` is refused with 423, unless it is an hour or more (RFC 6665 section 4.2.1.1).
    pub(super) fn negotiate_expires(&self, request: &Message<'_>, least: u32) -> Result<u32, Response> {
        let asked = match request.first(Name::Expires) {
            Some(value) => headers::seconds(value).ok_or_else(|| Response::bad_request("Malformed Expires header"))?,
            None => DEFAULT_EXPIRES,
        };
        if asked > 0 && asked < least.min(DEFAULT_EXPIRES) {
            return Err(Response::new(StatusCode::IntervalTooBrief, "Interval Too Brief").with("Min-Expires", least));
        }
        Ok(asked.min(self.settings.presence.max_expires))
    }

    /// Refuses a body with a Content-Encoding other than `identity` (RFC 3261 section 8.2.3).
    pub(super) fn check_encoding(&self, request: &Message<'_>) -> Result<(), Response> {
        let plain = |coding: &&str| coding.eq_ignore_ascii_case("identity");
        match items(request, Name::ContentEncoding).iter().all(plain) {
            true => Ok(()),
            false => Err(Response::new(StatusCode::UnsupportedMediaType, "Unsupported Content-Encoding")
                .with("Accept-Encoding", "identity")),
        }
    }
}

/// Takes out the responses that waited for the journal, and returns those whose client still waits. Late ones are
/// removed from the messages as well (RFC 4320 section 4.3). The client learns the result from the NOTIFY, or from
/// the response to its next request.
pub(super) fn take_live_responses(now: Tick, out: &mut Outbox) -> Vec<PendingResponse> {
    let promises = std::mem::take(&mut out.pending_responses);
    let (late, rest): (Vec<_>, _) = promises.into_iter().partition(|promise| promise.until <= now);
    out.messages.retain(|packet| late.iter().all(|promise| promise.answer != packet.bytes));
    rest
}

/// Default lifetime of all our packages in seconds (RFC 4235 section 3.4, RFC 3856 section 6.4, RFC 3842 section
/// 3.4).
const DEFAULT_EXPIRES: u32 = 3600;

/// Returns the destination of a response (RFC 3261 section 18.2.2, RFC 3581 section 4). On a stream it is the same
/// connection. Otherwise it is the source address, with the source port if `rport` asks for that, else with the port
/// of sent-by.
///
/// `maddr` is ignored: with it, any sender could direct our responses to another host.
fn reply_address(via: &Via<'_>, source: Source) -> Destination {
    if source.flow.is_some() || via.wants_rport() {
        return return_path(source);
    }
    match SocketAddr::new(source.peer.ip(), via.port.unwrap_or(5060)) {
        peer if peer.port() == 0 => return_path(source),
        peer => Destination::Datagram { listener: source.listener, peer },
    }
}
