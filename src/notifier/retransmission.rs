//! Requests that are retransmitted across a restart (RFC 3261 section 17.2).
//!
//! The server may have crashed after the journal had the change and before the response reached the client. Such a
//! request gets the response that it would have had, and takes effect only once.
//!
//! While the server runs, `sip/transaction` recognises retransmissions for 37 seconds. Later ones, and those after a
//! start, are recognised by the requests that the subscription or publication has stored. A subscription or
//! publication that comes from the journal is *in doubt* until its peer shows that it has the response.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::publish::condition_failed;
use super::response::{Grant, Response};
use crate::presence::presentity::State;
use crate::presence::publication::{EntityTag, Publication, RequestId};
use crate::presence::subscription::{Doubts, Subscription, Suppressed};
use crate::presence::{PackageId, Tick};
use crate::sip::wire::Message;

/// Result of matching a PUBLISH with the stored publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishTarget {
    /// A new publication: the PUBLISH names no entity-tag.
    New,
    /// An existing publication, with its current entity-tag.
    Met(EntityTag),
    /// A retransmission of an earlier request, with the values of the response that it got.
    Repeated {
        /// Entity-tag in that response.
        etag: EntityTag,
        /// Lifetime granted in that response (seconds).
        granted: u32,
    },
}

/// Returns the fingerprint of a request, a hash of its Call-ID, From tag, Via branch and CSeq number.
pub(super) fn request_id(request: &Message<'_>) -> RequestId {
    let mut hasher = SipHasher13::new();
    let texts = [request.call_id, request.from.tag().unwrap_or_default(), request.via.branch().unwrap_or_default()];
    for text in texts {
        hasher.write(text.as_bytes());
        // Separator: none of these texts contains a zero octet.
        hasher.write_u8(0);
    }
    hasher.write_u32(request.cseq.number);
    RequestId(hasher.finish())
}

impl Publication {
    fn repeated(&self) -> PublishTarget {
        PublishTarget::Repeated { etag: self.etag, granted: self.granted }
    }
}

/// Finds the publication for a PUBLISH with SIP-If-Match (RFC 3903 section 6, step 3).
pub(super) fn condition(
    state: &State,
    now: Tick,
    named: &EntityTag,
    package: PackageId,
    request: RequestId,
) -> Result<PublishTarget, Response> {
    let mut all = state.publications.iter().filter(|p| p.package == package);
    // A publication that has expired may still be stored for a moment. A retransmission still gets the earlier
    // response.
    let again = |p: &&Publication| p.requests.replaced == Some(*named) && p.requests.latest == request;
    if let Some(repeated) = all.clone().find(again) {
        return Ok(repeated.repeated());
    }
    // The response with the current entity-tag may have been lost in a crash. Then the publisher names the previous
    // one, once.
    let named = |p: &&Publication| p.etag == *named || p.in_doubt && p.requests.replaced == Some(*named);
    match all.find(|p| p.expires_at > now && named(p)) {
        Some(p) => Ok(PublishTarget::Met(p.etag)),
        None => gone(state, now, request).ok_or_else(condition_failed),
    }
}

/// Returns the earlier response if a PUBLISH without an entity-tag is a retransmission.
pub(super) fn first_again(state: &State, now: Tick, package: PackageId, request: RequestId) -> Option<PublishTarget> {
    let mut all = state.publications.iter().filter(|p| p.package == package);
    let living = all.find(|p| [p.requests.first, p.requests.latest].contains(&request));
    living.map(Publication::repeated).or_else(|| gone(state, now, request))
}

/// Returns the response to a request whose publication is gone by now.
fn gone(state: &State, now: Tick, request: RequestId) -> Option<PublishTarget> {
    let removed = state.removed.as_ref()?.find(now, request)?;
    Some(PublishTarget::Repeated { etag: removed.answered, granted: removed.granted })
}

/// Returns what a SUBSCRIBE in a dialog was granted before, if it is a retransmission of the latest one from before
/// the restart.
pub(super) fn refresh_again(s: &Subscription, request: &Message<'_>) -> Option<Grant> {
    let again = s.doubts.has(Doubts::ANSWER_LOST) && request.cseq.number == s.dialog.remote_cseq;
    let told = s.suppressed() != Suppressed::Everything;
    again.then_some(Grant::Again { seconds: s.granted, told })
}

/// Returns true if a SUBSCRIBE outside a dialog is the one that created this subscription. It may be a retransmission
/// across a restart, or one after its transaction was forgotten; or the phone has started again with the same Call-ID
/// and tag.
pub(super) fn is_subscribe_again(s: &Subscription, request: &Message<'_>) -> bool {
    s.dialog.is_of(request) && request.cseq.number <= s.dialog.remote_cseq
}
