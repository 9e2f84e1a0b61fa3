//! Requests that are repeated over a restart (RFC 3261 section 17.2): the server may have crashed after the journal had kept
//! the change and before the answer arrived. Such a request gets the answer that it would have had, and has one effect.
//!
//! While the server runs, `sip/transaction` knows of repetitions for 37 seconds; what comes later, or after a start, is
//! recognised by what the subscription or publication remembers of its requests. Those that come from the journal are *in
//! doubt* until their peer shows that it has the answer.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::answer::{Answer, Grant};
use super::publish::condition_failed;
use crate::presence::presentity::State;
use crate::presence::publication::{EntityTag, Publication, RequestId};
use crate::presence::subscription::{Doubts, Subscription, Suppressed};
use crate::presence::{PackageId, Tick};
use crate::sip::wire::Message;

/// What a PUBLISH is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// A new publication: it names no entity-tag.
    New,
    /// The publication with this entity-tag, which is its present one.
    Met(EntityTag),
    /// Nothing: it repeats a request from before the restart, which was answered with this.
    Repeated {
        /// The entity-tag.
        etag: EntityTag,
        /// The lifetime that was granted (seconds).
        granted: u32,
    },
}

/// The fingerprint of a request.
pub(super) fn request_id(request: &Message<'_>) -> RequestId {
    let mut hasher = SipHasher13::new();
    let texts = [request.call_id, request.from.tag().unwrap_or_default(), request.via.branch().unwrap_or_default()];
    for text in texts {
        hasher.write(text.as_bytes());
        // No text has this octet in it.
        hasher.write_u8(0);
    }
    hasher.write_u32(request.cseq.number);
    RequestId(hasher.finish())
}

impl Publication {
    fn repeated(&self) -> Condition {
        Condition::Repeated { etag: self.etag, granted: self.granted }
    }
}

/// What a PUBLISH that names an entity-tag is about (RFC 3903 section 6, step 3).
pub(super) fn condition(
    state: &State,
    now: Tick,
    named: &EntityTag,
    package: PackageId,
    request: RequestId,
) -> Result<Condition, Answer> {
    let mut all = state.publications.iter().filter(|p| p.package == package);
    // One whose time is over may still be there for a moment: what has been answered about it stays so.
    let again = |p: &&Publication| p.requests.replaced == Some(*named) && p.requests.latest == request;
    if let Some(repeated) = all.clone().find(again) {
        return Ok(repeated.repeated());
    }
    // The answer with the present tag may have been lost in a crash: then its publisher names the one before, once.
    let named = |p: &&Publication| p.etag == *named || p.in_doubt && p.requests.replaced == Some(*named);
    match all.find(|p| p.expires_at > now && named(p)) {
        Some(p) => Ok(Condition::Met(p.etag)),
        None => gone(state, now, request).ok_or_else(condition_failed),
    }
}

/// What a PUBLISH that names no entity-tag repeats, if it does.
pub(super) fn first_again(state: &State, now: Tick, package: PackageId, request: RequestId) -> Option<Condition> {
    let mut all = state.publications.iter().filter(|p| p.package == package);
    let living = all.find(|p| [p.requests.first, p.requests.latest].contains(&request));
    living.map(Publication::repeated).or_else(|| gone(state, now, request))
}

/// What was answered to a request whose publication is gone by now.
fn gone(state: &State, now: Tick, request: RequestId) -> Option<Condition> {
    let removed = state.removed.as_ref()?.find(now, request)?;
    Some(Condition::Repeated { etag: removed.answered, granted: removed.granted })
}

/// What a SUBSCRIBE in a dialog was granted before, if it repeats the latest one from before the restart.
pub(super) fn refresh_again(s: &Subscription, request: &Message<'_>) -> Option<Grant> {
    let again = s.doubts.has(Doubts::ANSWER_LOST) && request.cseq.number == s.dialog.remote_cseq;
    let told = s.suppressed() != Suppressed::Everything;
    again.then_some(Grant::Again { seconds: s.granted, told })
}

/// Whether a SUBSCRIBE outside a dialog is the one that has made this subscription: it has come again over a restart, or
/// when its transaction was forgotten, or its phone begins anew with the same words.
pub(super) fn is_subscribe_again(s: &Subscription, request: &Message<'_>) -> bool {
    s.dialog.is_of(request) && request.cseq.number <= s.dialog.remote_cseq
}
