//! Who may: whether a sender is who he says, may watch whom he wants to, and may publish for whom he does (law 8).
//!
//! Every SUBSCRIBE and PUBLISH passes here before anything is looked up for it. A trusted source answers for those
//! behind it; anybody else proves himself by digest, where that is asked for, with the password of one of the devices
//! in the realm that he comes from.

use std::borrow::Cow;

use super::Notifier;
use super::answer::Answer;
use crate::config::Authenticate;
use crate::directory::{AccountNo, Principal};
use crate::presence::Tick;
use crate::presence::subscription::Place;
use crate::sip::digest::{Algorithm, Credentials, challenge};
use crate::sip::headers::{NameAddr, list};
use crate::sip::uri::{Host, Scheme, Uri};
use crate::sip::wire::{Message, Name};
use crate::sip::{Method, StatusCode};
use crate::transport::{Listener, Source};

/// How many answers to a challenge of one realm are looked at in a request: a phone gives one for each algorithm, and each
/// costs two hashes.
const MAX_CLAIMS: usize = 4;

/// What is known of the sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A trusted source vouches for him, or he has proven himself from where he is: he can be sent to there.
    Known,
    /// Nobody asked.
    Unknown,
}

impl Notifier {
    /// Finds out who has sent a SUBSCRIBE or PUBLISH, and whether he may. `uri` is the Request-URI.
    pub(super) fn admit_sender(
        &self,
        now: Tick,
        method: Method,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
    ) -> Result<Sender, Answer> {
        let access = &self.settings.access;
        let target = self.target_of(request, uri)?;
        if self.settings.routing.trusts(&source) {
            // Without a word of his, a trusted source speaks for itself: a PBX, or a proxy that has checked.
            return match self.asserted(request).is_none_or(|account| account == Some(target)) {
                true => Ok(Sender::Known),
                false => Err(not_your_realm()),
            };
        }
        if access.authenticate == Authenticate::Off {
            return Ok(Sender::Unknown);
        }
        let from = Uri::read(request.from.uri);
        let home = from.as_ref().and_then(|from| self.realm_of(from)).unwrap_or(target);
        let principal = self.prove(now, request, home, source)?;
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
        Ok(Sender::Known)
    }

    /// The account that a request is about: in a dialog, whose dialog it is. A tag of no dialog of ours, whatever it looks
    /// like, tells nothing: the request is about the realm of its Request-URI, or about no dialog.
    fn target_of(&self, request: &Message<'_>, uri: &Uri<'_>) -> Result<AccountNo, Answer> {
        let dialog = request.to.tag().filter(|_| request.cseq.method == "SUBSCRIBE");
        let Some(tag) = dialog else { return self.account_of(uri) };
        let account = Place::read(tag).and_then(|place| {
            self.table.with_number(place.presentity, |presentity, state| {
                let ours = state.watchers.get_mut(place.slot).is_some_and(|s| s.place == place);
                ours.then_some(presentity.aor.account)
            })?
        });
        account.map_or_else(|| self.account_of(uri).map_err(|_| Answer::no_subscription()), Ok)
    }

    /// The account whose realm the host of a URI is.
    pub(super) fn realm_of(&self, uri: &Uri<'_>) -> Option<AccountNo> {
        match uri.host {
            Host::Name(name) => self.settings.directory.account_by_realm(name.trim_end_matches('.')),
            Host::Ip(ip) => self.settings.directory.account_by_realm(&ip.to_string()),
        }
    }

    /// The account of the sender that a trusted source names (RFC 3325); none where it names none. The inner none is for
    /// an unknown sender: the header is there, and is not wholly made of `tel` URIs and of SIP URIs with a user of one
    /// account of ours, at least one of these.
    fn asserted(&self, request: &Message<'_>) -> Option<Option<AccountNo>> {
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

    /// The device whose password the sender knows, or the challenge to him. What a challenge says does not depend on
    /// whether there is such a device.
    fn prove(&self, now: Tick, request: &Message<'_>, home: AccountNo, source: Source) -> Result<&Principal, Answer> {
        let directory = &self.settings.directory;
        let realm = directory.realm(home);
        let of_realm = |claim: &Credentials<'_>| claim.realm.eq_ignore_ascii_case(realm);
        let claims = request.all(Name::Authorization).filter_map(Credentials::read).filter(of_realm).take(MAX_CLAIMS);
        let mut stale = false;
        let mut wrong: Option<(Algorithm, Cow<'_, str>)> = None;
        let offered = &self.settings.access.algorithms;
        let answers =
            |claim: &Credentials<'_>| offered.contains(&claim.algorithm) && self.asks_for_us(&claim.uri, request);
        for claim in claims.filter(answers) {
            if let Some(answer) = self.must_wait(now, source, home, &claim.username) {
                return Err(answer);
            }
            // A nonce that we did not make for this address proves that nobody there has asked us lately. Whether the password is
            // right is not even looked at: it would be told by `stale`, and could be guessed, from a forged address as well.
            if !self.nonces.is_made_for(&claim.nonce, source.peer.ip()) {
                stale = true;
                continue;
            }
            let principal = directory.principal(home, &claim.username);
            let verifier = principal.and_then(|principal| principal.verifier.as_ref());
            // Nobody's password takes as long to be wrong as somebody's.
            let proven = claim.prove(verifier.unwrap_or(&self.nobody), request.cseq.method);
            let (Some(principal), true, true) = (principal, proven, verifier.is_some()) else {
                // A phone may answer both challenges, which is one try.
                let same_try = |(algorithm, user): &(_, _)| *algorithm != claim.algorithm && *user == claim.username;
                if !wrong.as_ref().is_some_and(same_try) {
                    self.wrong_password(now, request, source, home, &claim.username);
                }
                wrong = Some((claim.algorithm, claim.username));
                continue;
            };
            if self.nonces.spend(now.0, &claim.nonce, source.peer.ip(), claim.count()) {
                self.gate.know(now, &source);
                return Ok(principal);
            }
            // He knows the password, only the nonce is no good: his phone answers another without asking him.
            stale = true;
        }
        let nonce = self.nonces.make(now.0, self.nonce(), source.peer.ip());
        let unauthorized = Answer::new(StatusCode::Unauthorized, "Unauthorized");
        let narrow =
            offered.contains(&Algorithm::Md5) && knows_md5_only(request.first(Name::UserAgent).unwrap_or_default());
        let offered = offered.iter().filter(|algorithm| !narrow || **algorithm == Algorithm::Md5);
        Err(offered.fold(unauthorized, |answer, algorithm| {
            answer.with("WWW-Authenticate", challenge(*algorithm, realm, &nonce, stale))
        }))
    }
}

impl Notifier {
    /// Whether a proof was made for a request to us. A proxy may have changed the Request-URI since, so another URI will
    /// do as long as it is one of ours (RFC 3261 section 22.4).
    fn asks_for_us(&self, proven: &str, request: &Message<'_>) -> bool {
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

/// Whether a phone gives up when it is offered anything but MD5, even where that is offered, too.
fn knows_md5_only(user_agent: &str) -> bool {
    // Seen of 1.0 and 2.x: libre reads every challenge and refuses all of them over one that it does not know.
    user_agent.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("baresip"))
}

fn not_your_realm() -> Answer {
    forbidden("Not Your Realm")
}

fn forbidden(reason: &'static str) -> Answer {
    Answer::new(StatusCode::Forbidden, reason)
}
