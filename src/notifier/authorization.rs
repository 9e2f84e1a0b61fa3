//! Authorization of SUBSCRIBE and PUBLISH (rule 8): who the sender is, which presentities it may watch, and for which
//! it may publish.
//!
//! Every SUBSCRIBE and PUBLISH is checked here before any state is looked up for it. A trusted source vouches for the
//! senders behind it. If authentication is required, any other sender authenticates by digest, with the password of a
//! device in the realm of its From.

use std::borrow::Cow;

use super::Notifier;
use super::response::Response;
use super::settings::Authenticate;
use crate::directory::{AccountNo, Principal};
use crate::presence::Tick;
use crate::presence::subscription::SubscriptionId;
use crate::sip::digest::{Algorithm, Credentials, challenge};
use crate::sip::headers::{NameAddr, list};
use crate::sip::uri::{Host, Scheme, Uri};
use crate::sip::wire::{Message, Name};
use crate::sip::{Method, StatusCode};
use crate::transport::{Listener, Source};

/// Maximum number of digest responses of one realm that are checked in a request. A phone sends one for each algorithm,
/// and each costs two hashes.
const MAX_CLAIMS: usize = 4;

/// Trust in the sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SenderTrust {
    /// A trusted source vouches for the sender, or the sender has authenticated from its current address: messages may
    /// be sent to that address.
    Known,
    /// Authentication is off: the sender was not checked.
    Unknown,
}

impl Notifier {
    /// Authenticates the sender of a SUBSCRIBE or PUBLISH, and checks that the request is allowed. `uri` is the
    /// Request-URI.
    ///
    /// The error is the response to send: a challenge (401), a refusal (403), 480 after too many wrong passwords, or
    /// the response for an unknown account or dialog.
    pub(super) fn authorize_sender(
        &self,
        now: Tick,
        method: Method,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
    ) -> Result<SenderTrust, Response> {
        let access = &self.settings.access;
        let target = self.request_account(request, uri)?;
        if self.settings.routing.trusts(&source) {
            // A trusted source that asserts no identity speaks for itself: it is a PBX, or a proxy that has checked the
            // sender.
            return match self.asserted_identity(request).is_none_or(|account| account == Some(target)) {
                true => Ok(SenderTrust::Known),
                false => Err(not_your_realm()),
            };
        }
        if access.authenticate == Authenticate::Off {
            return Ok(SenderTrust::Unknown);
        }
        let from = Uri::read(request.from.uri);
        let home = from.as_ref().and_then(|from| self.realm_of(from)).unwrap_or(target);
        let principal = self.authenticate(now, request, home, source)?;
        if home != target {
            return Err(not_your_realm());
        }
        let user = from.and_then(|from| from.decoded_user()).unwrap_or_default();
        let publishes = method == Method::Publish;
        let speaks_for = |user: &str| if publishes { principal.may_publish_for(user) } else { principal.is(user) };
        if !speaks_for(&user) {
            return Err(forbidden("From Is Somebody Else"));
        }
        if publishes && !speaks_for(&uri.decoded_user().unwrap_or_default()) {
            return Err(forbidden("Not Yours To Publish For"));
        }
        Ok(SenderTrust::Known)
    }

    /// Account that a request is about: in a dialog, the account of the dialog's presentity. A To tag that belongs to
    /// no dialog of ours proves nothing, whatever it looks like: the account is then that of the Request-URI, and if
    /// there is none, the response is 481.
    fn request_account(&self, request: &Message<'_>, uri: &Uri<'_>) -> Result<AccountNo, Response> {
        let dialog = request.to.tag().filter(|_| request.cseq.method == "SUBSCRIBE");
        let Some(tag) = dialog else { return self.account_of(uri) };
        let account = SubscriptionId::read(tag).and_then(|place| {
            self.table.with_id(place.presentity, |presentity, state| {
                let ours = state.watchers.get_mut(place.slot).is_some_and(|s| s.place == place);
                ours.then_some(presentity.aor.account)
            })?
        });
        account.map_or_else(|| self.account_of(uri).map_err(|_| Response::no_subscription()), Ok)
    }

    /// Account whose realm is the host of a URI.
    pub(super) fn realm_of(&self, uri: &Uri<'_>) -> Option<AccountNo> {
        match uri.host {
            Host::Name(name) => self.settings.directory.account_by_realm(name.trim_end_matches('.')),
            Host::Ip(ip) => self.settings.directory.account_by_realm(&ip.to_string()),
        }
    }

    /// Account of the identity that a trusted source asserts (RFC 3325); none if the header is absent. The inner none
    /// is an unknown sender: the header is present, but does not consist of `tel` URIs and of SIP URIs with a user of
    /// one account of ours. At least one SIP URI is required.
    fn asserted_identity(&self, request: &Message<'_>) -> Option<Option<AccountNo>> {
        let name = &self.settings.access.identity_header;
        let lines = request.head.headers.iter().filter(|header| header.written.eq_ignore_ascii_case(name));
        let mut identities = lines.flat_map(|header| list(header.value)).peekable();
        identities.peek()?;
        let mut account = None;
        for identity in identities {
            let Some(uri) = NameAddr::read(identity).and_then(|identity| Uri::read(identity.uri)) else {
                return Some(None);
            };
            let named = match uri.scheme {
                Scheme::Other(scheme) if scheme.eq_ignore_ascii_case("tel") => continue,
                Scheme::Other(_) => None,
                Scheme::Sip | Scheme::Sips => uri.user.and_then(|_| self.realm_of(&uri)),
            };
            if named.is_none() || account.is_some_and(|other| Some(other) != named) {
                return Some(None);
            }
            account = named;
        }
        Some(account)
    }

    /// Authenticates the sender by digest (RFC 3261 section 22), and returns the device whose password it knows. The
    /// error is the response to send: usually the challenge (401), which is the same whether or not the device exists.
    fn authenticate(
        &self,
        now: Tick,
        request: &Message<'_>,
        home: AccountNo,
        source: Source,
    ) -> Result<&Principal, Response> {
        let directory = &self.settings.directory;
        let realm = directory.realm(home);
        let of_realm = |claim: &Credentials<'_>| claim.realm.eq_ignore_ascii_case(realm);
        let claims = request.all(Name::Authorization).filter_map(Credentials::read).filter(of_realm).take(MAX_CLAIMS);
        let mut stale = false;
        let mut wrong: Option<(Algorithm, Cow<'_, str>)> = None;
        let offered = &self.settings.access.algorithms;
        let answers =
            |claim: &Credentials<'_>| offered.contains(&claim.algorithm) && self.is_our_uri(&claim.uri, request);
        for claim in claims.filter(answers) {
            if let Some(answer) = self.must_wait(now, source, home, &claim.username) {
                return Err(answer);
            }
            // This nonce was not issued to this address, so no sender there has requested a challenge lately. The
            // password is not checked: `stale` would reveal whether it is right, so that it could be guessed from
            // forged addresses, too.
            if !self.nonces.is_made_for(&claim.nonce, source.peer.ip()) {
                stale = true;
                continue;
            }
            let principal = directory.principal(home, &claim.username);
            let verifier = principal.and_then(|principal| principal.verifier.as_ref());
            // Unknown users are verified against a dummy password, so that the time does not reveal which users exist.
            let proven = claim.prove(verifier.unwrap_or(&self.dummy_verifier), request.cseq.method);
            let (Some(principal), true, true) = (principal, proven, verifier.is_some()) else {
                // A phone may respond to the challenges of two algorithms at once, which is one try.
                let same_try = |(algorithm, user): &(_, _)| *algorithm != claim.algorithm && *user == claim.username;
                if !wrong.as_ref().is_some_and(same_try) {
                    self.wrong_password(now, request, source, home, &claim.username);
                }
                wrong = Some((claim.algorithm, claim.username));
                continue;
            };
            if self.nonces.spend(now.0, &claim.nonce, source.peer.ip(), claim.count()) {
                self.rate_limiter.mark_verified(now, &source);
                return Ok(principal);
            }
            // The password is right, only the nonce is not accepted any more: `stale` has the phone retry with a new
            // one without asking its user.
            stale = true;
        }
        let nonce = self.nonces.make(now.0, self.nonce(), source.peer.ip());
        let unauthorized = Response::new(StatusCode::Unauthorized, "Unauthorized");
        let narrow =
            offered.contains(&Algorithm::Md5) && supports_md5_only(request.first(Name::UserAgent).unwrap_or_default());
        let offered = offered.iter().filter(|algorithm| !narrow || **algorithm == Algorithm::Md5);
        Err(offered.fold(unauthorized, |answer, algorithm| {
            answer.with("WWW-Authenticate", challenge(*algorithm, realm, &nonce, stale))
        }))
    }
}

impl Notifier {
    /// Returns true if a digest was made for a request to this server. A proxy may have changed the Request-URI since,
    /// so any URI of ours is accepted (RFC 3261 section 22.4).
    fn is_our_uri(&self, proven: &str, request: &Message<'_>) -> bool {
        if request.request().is_some_and(|(_, uri)| uri.text == proven) {
            return true;
        }
        let Some(uri) = Uri::read(proven) else { return false };
        let is_host = |listener: &Listener| match uri.host {
            Host::Ip(ip) => listener.address.ip() == ip,
            Host::Name(name) => listener.sent_by.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name)),
        };
        self.realm_of(&uri).is_some() || self.settings.routing.listeners.iter().any(is_host)
    }
}

/// Returns true if a phone gives up when any algorithm other than MD5 is offered, even if MD5 is offered, too.
fn supports_md5_only(user_agent: &str) -> bool {
    // Seen with baresip 1.0 and 2.x: its library libre reads every challenge, and rejects all of them if it does not
    // know the algorithm of one.
    user_agent.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("baresip"))
}

fn not_your_realm() -> Response {
    forbidden("Not Your Realm")
}

fn forbidden(reason: &'static str) -> Response {
    Response::new(StatusCode::Forbidden, reason)
}
