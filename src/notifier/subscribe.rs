//! SUBSCRIBE (RFC 6665 section 4.2.1): create, refresh, end and fetch.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::authorization::SenderTrust;
use super::dialog_filter::dialog_filter_of;
use super::notify_message::is_sips;
use super::persist::CSEQ_RESERVE;
use super::response::{Grant, GrantedResponse, Response, ToTag};
use super::retransmission::{is_subscribe_again, refresh_again};
use super::rollback::{RemovedSubscription, Subscribed, SubscriptionBefore, Undo};
use super::wheel::TimerKind;
use super::{MessageBuffer, Notifier, Outbox};
use crate::package;
use crate::presence::device::{Device, DeviceId, DeviceTable};
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{
    Delivery, Doubts, MaxRate, NewSubscription, SubscribeOptions, Subscription, SubscriptionId, Suppressed,
};
use crate::presence::vendor::Vendor;
use crate::presence::{AccountNo, PackageId, Tick};
use crate::sip::StatusCode;
use crate::sip::dialog::{self, Dialog, TooLong};
use crate::sip::headers::{Event, NameAddr, Via, accepts, has_stray_separators, list, param};
use crate::sip::uri::{Scheme, Uri, user_of};
use crate::sip::wire::{Message, Name, text_of};
use crate::transport::Source;

/// The fields of a valid SUBSCRIBE.
struct SubscribeRequest<'a> {
    package: PackageId,
    event: Event<'a>,
    /// Granted lifetime in seconds; 0 ends a subscription, or fetches the state once.
    granted: u32,
    /// Contact; a refresh may omit it.
    contact: Option<NameAddr<'a>>,
    user_agent: Option<&'a str>,
    /// Suppress-If-Match: the entity-tag of the state that the watcher has, or `*` (RFC 5839 section 5.2).
    unless: Option<&'a str>,
    source: Source,
    sender: SenderTrust,
}

impl Notifier {
    /// Processes a SUBSCRIBE: checks it, creates the subscription or finds and changes it, and sends a NOTIFY with
    /// the full current state right after the response.
    pub(super) fn subscribe(
        &self,
        now: Tick,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
        sender: SenderTrust,
        out: &mut Outbox,
    ) -> Result<Response, Response> {
        match request.to.tag() {
            None => self.subscribe_new(now, request, uri, source, sender, out),
            Some(tag) => self.subscribe_in_dialog(now, request, tag, source, sender, out),
        }
    }

    /// Handles a SUBSCRIBE outside a dialog: a new subscription, or with Expires 0 a fetch of the state (section
    /// 4.4.3).
    ///
    /// A phone that has lost its dialogs, for example by a reboot, subscribes again. If its identity is certain
    /// (instance id), the new subscription replaces the old one. Otherwise the old one is only marked as possibly
    /// replaced: two phones may look alike to the server, and neither may lose its lamp because of the other.
    fn subscribe_new(
        &self,
        now: Tick,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
        sender: SenderTrust,
        out: &mut Outbox,
    ) -> Result<Response, Response> {
        let account = self.account_of(uri)?;
        let aor = self.presentity_of(account, uri)?;
        // Prefetch: the memory of the presentity arrives while the request is checked.
        let found = self.table.find(&aor);
        let from = Uri::read(request.from.uri);
        check_watcher(from.as_ref())?;
        let wish = self.parse_subscribe(request, request.first(Name::RecordRoute).is_some(), None, source, sender)?;
        let target = wish.contact.ok_or_else(|| Response::bad_request("Missing Contact header"))?;
        let dialog = Dialog::of(request, target.uri).map_err(too_long)?;
        check_header_size(dialog.text() + uri.address().len() + wish.event.id.map_or(0, str::len))?;
        let user = from.map_or(request.from.uri, |from| from.address());
        let (phone, certain) = identify_device(user, &target, request, source);
        let realm = self.settings.directory.realm(account);
        let full = || Response::account_limit_480("limits.presentities_per_account", self.jittered(30));
        self.table
            .get_or_create(&aor, realm, found, |presentity, state| {
                let lasting = wish.granted > 0;
                let view = &state.views[wish.package.0 as usize];
                view.fetch();
                state.watchers.fetch_slots();
                let known = self.phones.find(phone);
                let earlier = state.watchers.latest_of(phone, wish.package, wish.event.id).filter(|_| lasting);
                view.fetch_text();
                let made_it =
                    |slot: &u32| state.watchers.get_mut(*slot).is_some_and(|s| is_subscribe_again(s, request));
                let again = earlier.filter(made_it).or_else(|| self.doubted_subscription(now, state, request));
                if let Some(slot) = again.filter(|_| lasting) {
                    known.into_iter().for_each(|phone| self.phones.release_unused(phone));
                    return self.subscribe_repeated(now, presentity, state, slot, uri, &wish, out);
                }
                let mut replaced = None;
                match earlier {
                    // The new subscription replaces an old one of the same phone, so no limit applies.
                    Some(slot) if certain => {
                        self.check_not_draining()?;
                        replaced = self.removed_subscription(state, slot);
                        self.remove(presentity, state, slot, "its phone has subscribed anew", out);
                    }
                    _ => {
                        if let Err(refusal) = self.check_limits(account, known.as_ref(), state.watchers.len()) {
                            known.into_iter().for_each(|phone| self.phones.release_unused(phone));
                            return Err(refusal);
                        }
                    }
                }
                let slot = state.watchers.vacant();
                let place = SubscriptionId { presentity: presentity.number, slot, nonce: self.nonce() };
                let doubted = earlier.filter(|_| replaced.is_none());
                if let Some(earlier) = doubted.and_then(|slot| state.watchers.get_mut(slot)) {
                    earlier.doubts.add(Doubts::REPLACED);
                }
                if lasting {
                    let new = Subscribed { place, replaced, doubted };
                    self.begin_change(presentity, state, out, |_| Undo::Subscribed(Box::new(new)));
                }
                self.table.count_subscription(account);
                let written = Some(uri.address()).filter(|address| **address != *presentity.uri).map(Into::into);
                let phone = known.unwrap_or_else(|| self.phones.get_or_create(phone));
                let beginning =
                    NewSubscription { place, package: wish.package, phone, dialog, requested_uri: written, source };
                // Only the event id is needed here: it tells subscriptions of the same phone apart. The other options
                // are set when the lifetime is granted.
                let event_id =
                    SubscribeOptions { event_id: wish.event.id.map(Into::into), ..SubscribeOptions::default() };
                let mut subscription = Subscription::new(now, beginning);
                subscription.options = event_id.boxed();
                state.watchers.insert(subscription, wish.granted > 0);
                self.apply_grant(now, presentity, state, slot, &wish, out);
                self.notify(now, presentity, state, slot, out);
                let grant = Grant::New { place, seconds: wish.granted };
                Ok(self.success_response(uri.text, wish.contact, grant, &mut out.pool))
            })
            .map_err(|_| full())?
    }

    /// Finds the subscription that a SUBSCRIBE created before a recent restart, when its phone is not recognised
    /// because its address has changed.
    fn doubted_subscription(&self, now: Tick, state: &State, request: &Message<'_>) -> Option<u32> {
        if now.0 >= self.restart_grace_until.load(Ordering::Relaxed) {
            return None;
        }
        let made_it =
            |s: &&Subscription| s.doubts.has(Doubts::ANSWER_LOST) && !s.ended && is_subscribe_again(s, request);
        state.watchers.iter().take(MOST_DOUBTED).find(made_it).map(|s| s.place.slot)
    }

    /// Handles a SUBSCRIBE outside a dialog that created a subscription earlier, so that it does not create a second
    /// one.
    ///
    /// After a restart it counts as a retransmission and gets the earlier response. Otherwise it counts as a refresh,
    /// because the phone may have started again with the same Call-ID and tag.
    #[allow(clippy::too_many_arguments)]
    fn subscribe_repeated(
        &self,
        now: Tick,
        presentity: &Arc<Presentity>,
        state: &mut State,
        slot: u32,
        uri: &Uri<'_>,
        wish: &SubscribeRequest<'_>,
        out: &mut Outbox,
    ) -> Result<Response, Response> {
        let Some(s) = state.watchers.get_mut(slot) else { return Err(Response::no_subscription()) };
        let (place, in_doubt, granted) = (s.place, s.doubts.has(Doubts::ANSWER_LOST), s.granted);
        if in_doubt {
            let grant = Grant::New { place, seconds: granted };
            return Ok(self.success_response(uri.text, wish.contact, grant, &mut out.pool));
        }
        let before = SubscriptionBefore::of(s, None);
        self.begin_change(presentity, state, out, |_| Undo::Granted(Box::new(before)));
        self.apply_grant(now, presentity, state, slot, wish, out);
        self.notify(now, presentity, state, slot, out);
        let grant = Grant::New { place, seconds: wish.granted };
        Ok(self.success_response(uri.text, wish.contact, grant, &mut out.pool))
    }

    /// Handles a SUBSCRIBE inside a dialog: a refresh, or with Expires 0 the end (section 4.2.1.4). The dialog is
    /// found by our own tag alone; neither the Request-URI nor the source of the request matters.
    fn subscribe_in_dialog(
        &self,
        now: Tick,
        request: &Message<'_>,
        tag: &str,
        source: Source,
        sender: SenderTrust,
        out: &mut Outbox,
    ) -> Result<Response, Response> {
        let place = SubscriptionId::read(tag).ok_or_else(Response::no_subscription)?;
        let changed = self
            .table
            .with_id(place.presentity, |presentity, state| {
                let subscription = state
                    .watchers
                    .fetch(place.slot)
                    .filter(|s| s.place == place && !s.ended && s.dialog.is_of(request))
                    .ok_or_else(Response::no_subscription)?;
                if let Some(grant) = refresh_again(subscription, request) {
                    let contact = request.first(Name::Contact).and_then(NameAddr::read);
                    return Ok(self.success_response(
                        subscription.entity(&presentity.uri),
                        contact,
                        grant,
                        &mut out.pool,
                    ));
                }
                if request.cseq.number <= subscription.dialog.remote_cseq {
                    // RFC 3261 section 12.2.2: a CSeq out of order gets a 500 and changes nothing.
                    return Err(Response::new(StatusCode::ServerInternalError, "CSeq Is Not Higher Than The Last"));
                }
                // A refused request counts for the order of CSeq as well (section 12.2.2).
                subscription.dialog.remote_cseq = request.cseq.number;
                let view = &state.views[subscription.package.0 as usize];
                view.fetch();
                let routed = !subscription.dialog.route_set().is_empty();
                let known = Some(subscription.dialog.target());
                let wish = self.parse_subscribe(request, routed, known, source, sender)?;
                view.fetch_text();
                if (wish.package, wish.event.id) != (subscription.package, subscription.event_id()) {
                    return Err(Response::new(StatusCode::Forbidden, "One Subscription Per Dialog"));
                }
                let before = self.settings.journal.then(|| {
                    let before = SubscriptionBefore::of(subscription, wish.contact.map(|contact| contact.uri));
                    let removed_at_once = wish.granted == 0 && wish.unless.is_some();
                    before.with_all(removed_at_once.then(|| RemovedSubscription::from(&*subscription)))
                });
                if let Some(contact) = wish.contact {
                    subscription.set_remote_target(contact.uri).map_err(too_long)?;
                }
                let written = subscription.requested_uri.clone();
                if let Some(before) = before {
                    self.begin_change(presentity, state, out, |_| Undo::Granted(Box::new(before)));
                }
                self.apply_grant(now, presentity, state, place.slot, &wish, out);
                let told = !self.suppress_notify(presentity, state, place.slot, out);
                if told {
                    self.notify(now, presentity, state, place.slot, out);
                }
                let entity = written.as_deref().unwrap_or(&presentity.uri);
                let grant = Grant::Again { seconds: wish.granted, told };
                Ok(self.success_response(entity, wish.contact, grant, &mut out.pool))
            })
            .unwrap_or_else(|| Err(Response::no_subscription()));
        changed.or_else(|refusal| {
            if !self.ended.by(now, place, request) {
                return Err(refusal);
            }
            let uri = request.request().map_or("", |(_, uri)| uri.text);
            Ok(self.success_response(uri, None, Grant::Again { seconds: 0, told: true }, &mut out.pool))
        })
    }

    /// Returns a copy of the subscription in a slot, for a rollback; `None` without a journal.
    fn removed_subscription(&self, state: &mut State, slot: u32) -> Option<RemovedSubscription> {
        let subscription = state.watchers.get_mut(slot).filter(|s| self.settings.journal && !s.ended)?;
        Some(RemovedSubscription::from(&*subscription))
    }

    /// Parses and checks the fields that new SUBSCRIBEs and refreshes have in common. `routed` is true if there is a
    /// proxy between the server and the phone. `known` is the Contact URI that the dialog has already.
    fn parse_subscribe<'a>(
        &self,
        request: &Message<'a>,
        routed: bool,
        known: Option<&str>,
        source: Source,
        sender: SenderTrust,
    ) -> Result<SubscribeRequest<'a>, Response> {
        let (package, event) = self.event_of(request)?;
        let content_type = package::get(package).content_type();
        if !accepts(request.all(Name::Accept), content_type) {
            return Err(Response::new(StatusCode::NotAcceptable, "Not Acceptable").with("Accept", content_type));
        }
        let granted = self.negotiate_expires(request, self.settings.presence.min_expires)?;
        self.check_encoding(request)?;
        if !request.body.is_empty() {
            // The body is a filter or a list of recipients; neither is supported (RFC 6665 section 4.2.2, RFC 4660).
            return Err(Response::new(StatusCode::UnsupportedMediaType, "No Body Is Understood In SUBSCRIBE")
                .with("Accept", content_type));
        }
        let contact = contact_of(request, known, routed || source.is_secure())?;
        let user_agent = request.first(Name::UserAgent);
        let unless = request.first(Name::SuppressIfMatch);
        Ok(SubscribeRequest { package, event, granted, contact, user_agent, unless, source, sender })
    }

    /// Refuses new subscriptions while the server drains.
    fn check_not_draining(&self) -> Result<(), Response> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Response::new(StatusCode::ServiceUnavailable, "Server Is Stopping")
                .with("Retry-After", self.jittered(DRAIN_RETRY_AFTER)));
        }
        Ok(())
    }

    /// Checks the limits for another subscription to a presentity that has this many watchers already (rule 7).
    fn check_limits(&self, account: AccountNo, phone: Option<&Arc<Device>>, watchers: usize) -> Result<(), Response> {
        self.check_not_draining()?;
        let limits = &self.settings.limits;
        if self.table.subscriptions() >= limits.subscriptions {
            return Err(Response::server_limit_503("limits.subscriptions", self.jittered(30)));
        }
        if self.table.subscriptions_of(account) >= limits.subscriptions_per_account {
            return Err(Response::account_limit_480("limits.subscriptions_per_account", self.jittered(30)));
        }
        if phone.map_or(0, DeviceTable::subscriptions) >= limits.subscriptions_per_device {
            return Err(Response::account_limit_480("limits.subscriptions_per_device", self.jittered(30)));
        }
        if watchers >= limits.watchers_per_presentity {
            return Err(Response::account_limit_480("limits.watchers_per_presentity", self.jittered(30)));
        }
        Ok(())
    }

    /// Sets the lifetime and the options of a subscription, or ends it. A SUBSCRIBE is a sign of life, so a suspended
    /// subscription resumes here.
    fn apply_grant(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        wish: &SubscribeRequest<'_>,
        out: &mut Outbox,
    ) {
        let current = self.ensure_composed(presentity, state, wish.package, out).tag();
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let particulars = SubscribeOptions {
            event_id: wish.event.id.map(Into::into),
            named: dialog_filter_of(wish.package, &wish.event),
            max_rate: wish.event.max_rate.and_then(MaxRate::of),
            suppressed: match wish.unless {
                Some("*") => Suppressed::Everything,
                Some(tag) if tag == current.to_string() => Suppressed::State(current.revision),
                _ => Suppressed::Nothing,
            },
        };
        subscription.options = particulars.boxed();
        subscription.set_source(wish.source);
        subscription.granted = wish.granted;
        subscription.expires_at = now.after(u64::from(wish.granted) * 1_000);
        if let Some(user_agent) = wish.user_agent {
            let end = user_agent.char_indices().nth(MAX_USER_AGENT).map_or(user_agent.len(), |(at, _)| at);
            let user_agent = &user_agent[..end];
            if subscription.user_agent.as_deref() != Some(user_agent) {
                let (user_agent, family) = self.user_agents.share(user_agent, Vendor::of);
                (subscription.user_agent, subscription.family) = (Some(user_agent), family);
            }
        }
        self.record_subscribed(now, presentity, subscription);
        subscription.delivery = Delivery::Idle;
        subscription.confirmed_cseq = subscription.dialog.local_cseq;
        subscription.doubts = Doubts::default();
        let asleep = subscription.phone.on_subscribe(now, wish.source, wish.sender == SenderTrust::Known);
        self.schedule_resumes(now, &subscription.phone, asleep);
        subscription.ended = wish.granted == 0;
        if !subscription.ended && subscription.expires_at < subscription.expiry_timer {
            self.wheel.cancel(subscription.expiry_timer, presentity.number, TimerKind::Expiry(slot));
            let at = self.wheel.schedule(now, subscription.expires_at, presentity.number, TimerKind::Expiry(slot));
            subscription.expiry_timer = at;
        }
        let (ended, kept) = (subscription.ended, subscription.reserved > 0);
        if !ended {
            // Reserve CSeq numbers for this NOTIFY and many more, so that these need no journal record of their own.
            subscription.reserved = subscription.dialog.local_cseq + CSEQ_RESERVE;
            self.journal_subscription(presentity, subscription, out);
        } else if kept {
            self.journal_subscription_ended(now, presentity, subscription, out);
        }
    }

    /// Returns true if Suppress-If-Match matches, so that this SUBSCRIBE in a dialog gets a 204 and no NOTIFY. The
    /// state named in the header counts as acknowledged (RFC 5839 section 5.2).
    fn suppress_notify(&self, presentity: &Presentity, state: &mut State, slot: u32, out: &mut Outbox) -> bool {
        let Some(subscription) = state.watchers.get_mut(slot) else { return false };
        let tag = state.views[subscription.package.0 as usize].tag();
        if !subscription.suppresses(tag.revision) {
            return false;
        }
        if subscription.ended {
            self.remove(presentity, state, slot, "ended without a last NOTIFY, as it asked for", out);
        } else if subscription.suppressed() == Suppressed::State(tag.revision) {
            subscription.acknowledged = tag.revision;
            self.journal_acknowledged(presentity, slot, tag.into(), out);
        }
        true
    }

    /// Builds the 200 to a SUBSCRIBE, or the 204 if no NOTIFY follows because the watcher asked for that (RFC 5839
    /// section 7.1).
    fn success_response(
        &self,
        entity: &str,
        contact: Option<NameAddr<'_>>,
        grant: Grant,
        pool: &mut MessageBuffer,
    ) -> Response {
        let sips = is_sips(entity) || contact.is_some_and(|contact| is_sips(contact.uri));
        let answer = match grant {
            Grant::New { place, .. } => Response { to_tag: ToTag::Dialog(place), record_route: true, ..Response::ok() },
            Grant::Again { told: true, .. } => Response { to_tag: ToTag::None, ..Response::ok() },
            Grant::Again { told: false, .. } => {
                let answer = Response::new(StatusCode::NoNotification, "No Notification");
                Response { to_tag: ToTag::None, ..answer }
            }
        };
        let mut user = std::mem::take(&mut pool.user);
        user.clear();
        user.push_str(user_of(entity).unwrap_or_default());
        Response { granted: Some(GrantedResponse { grant, user, sips }), ..answer }
    }

    /// Rebuilds the earlier response to a SUBSCRIBE, for its retransmission.
    pub(super) fn rebuild_response(
        &self,
        request: &Message<'_>,
        uri: &Uri<'_>,
        grant: Grant,
        pool: &mut MessageBuffer,
    ) -> Response {
        let contact = request.first(Name::Contact).and_then(NameAddr::read);
        let place = request.to.tag().and_then(SubscriptionId::read);
        let entity = place.and_then(|place| {
            self.table.with_id(place.presentity, |presentity, state| {
                state.watchers.get_mut(place.slot).map(|s| s.entity(&presentity.uri).to_string())
            })?
        });
        // If the subscription is gone by now, the Request-URI takes its place: this is the Contact that the server
        // gave.
        self.success_response(entity.as_deref().unwrap_or(uri.text), contact, grant, pool)
    }
}

/// Maximum number of subscriptions of a presentity that are searched for the one that a SUBSCRIBE created before a
/// restart, when its phone is not recognised. If the presentity has more watchers, the SUBSCRIBE may create a second
/// subscription, and the first one expires.
const MOST_DOUBTED: usize = 256;
/// Retry-After for phones that are refused because the server stops (seconds); the value sent is between this and
/// twice this.
const DRAIN_RETRY_AFTER: u32 = 10;
/// Longest User-Agent that is kept (characters).
const MAX_USER_AGENT: usize = 128;

/// Identifies the phone that sends a SUBSCRIBE outside a dialog. Returns true with it if the identity is certain.
///
/// It is certain if the Contact has an instance id (RFC 5626 section 4.1). Otherwise the phone is identified by its
/// Contact and its address in front of any proxy, which two phones of one user may have in common.
fn identify_device(user: &str, contact: &NameAddr<'_>, request: &Message<'_>, source: Source) -> (DeviceId, bool) {
    let instance = param(contact.params, "+sip.instance");
    if let Some(instance) = instance.filter(|instance| !instance.is_empty()) {
        return (DeviceId::of(&[user, "instance", instance]), true);
    }
    // Bottom-most Via added by a proxy (that is, not the top one): it holds the address that the first proxy saw.
    let by_proxy = request.all(Name::Via).flat_map(list).skip(1).last().and_then(Via::first_of);
    let address = match by_proxy {
        Some(via) => Cow::Borrowed(param(via.params, "received").unwrap_or(via.sent_by)),
        None => Cow::Owned(text_of(source.peer.ip())),
    };
    (DeviceId::of(&[user, "contact", contact.uri, &address]), false)
}

/// Refuses a watcher whose From has no user part, because the listings could not name it.
fn check_watcher(from: Option<&Uri<'_>>) -> Result<(), Response> {
    let anonymous = from.is_none_or(|from| matches!(from.scheme, Scheme::Sip | Scheme::Sips) && from.user.is_none());
    match anonymous {
        true => Err(Response::bad_request("Missing User In From")),
        false => Ok(()),
    }
}

/// Limits the size of the header values that a subscription keeps from its requests (rule 7).
fn check_header_size(octets: usize) -> Result<(), Response> {
    if octets > dialog::MAX_TEXT { Err(too_long(TooLong)) } else { Ok(()) }
}

fn too_long(_: TooLong) -> Response {
    Response::new(StatusCode::MessageTooLarge, "Dialog Headers Too Long")
}

/// Returns the Contact of a SUBSCRIBE: at most one, with a URI that a NOTIFY can be sent to (RFC 3261 section
/// 8.1.1.8).
///
/// A sips Contact may only be reached over TLS: on the connection of the request, or by a proxy in the path. A
/// Contact equal to `known` is not checked again.
fn contact_of<'a>(request: &Message<'a>, known: Option<&str>, secure: bool) -> Result<Option<NameAddr<'a>>, Response> {
    let mut lines = request.all(Name::Contact);
    let Some(first) = lines.next() else { return Ok(None) };
    let several = || Response::bad_request("More Than One Contact");
    if lines.next().is_some() {
        return Err(several());
    }
    let malformed = || Response::bad_request("Malformed Contact header");
    let contact = match NameAddr::read_plain(first).filter(|contact| contact.params.is_empty()) {
        // The form that most phones send: a single plain Contact, so nothing else has to be parsed.
        Some(contact) => contact,
        None => {
            let mut all = list(first);
            let first = all.next().ok_or_else(malformed)?;
            if all.next().is_some() {
                return Err(several());
            }
            NameAddr::read(first).filter(|_| !has_stray_separators(first)).ok_or_else(malformed)?
        }
    };
    if known == Some(contact.uri) && !is_sips(contact.uri) {
        return Ok(Some(contact));
    }
    let uri = Uri::read(contact.uri).ok_or_else(malformed)?;
    match uri.scheme {
        // Headers in a Contact URI would have to be copied into the NOTIFY (RFC 4475 section 3.3.14).
        Scheme::Sip | Scheme::Sips if !uri.headers.is_empty() => Err(Response::bad_request("Headers In Contact URI")),
        Scheme::Sip => Ok(Some(contact)),
        Scheme::Sips if secure => Ok(Some(contact)),
        Scheme::Sips => Err(Response::new(StatusCode::UnsupportedUriScheme, "sips Is Not Available Here")),
        Scheme::Other(_) => Err(Response::bad_request("Contact Is No SIP URI")),
    }
}
