//! PUBLISH (RFC 3903 section 6): create, modify, refresh and remove publications.

use std::sync::Arc;

use super::history::Cause;
use super::response::Response;
use super::retransmission::{PublishTarget, condition, first_again, request_id};
use super::wheel::TimerKind;
use super::{Notifier, Outbox};
use crate::package::{self, BodyError, PackageId};
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{
    Content, EntityTag, Origin, Publication, PublicationNo, REMOVED_LASTS, RemovedPublication, RequestId, RequestLog,
};
use crate::presence::state::PublishedState;
use crate::presence::{Aor, Tick};
use crate::sip::StatusCode;
use crate::sip::headers::media_type;
use crate::sip::uri::Uri;
use crate::sip::wire::{Message, Name};
use crate::transport::Source;

/// Shortest lifetime of a publication in seconds; that of a subscription is longer.
///
/// Kamailio's pua_dialoginfo ends a call with an Expires of 11 and refreshes with the time that is left of it. It
/// gives up for good on a 423, and then the lamp would stay lit. A publication with a lifetime below this value could
/// not be refreshed in time.
const MIN_EXPIRES: u32 = 5;
/// Longest text that is kept about the origin of a publication (characters).
const MAX_ORIGIN: usize = 128;

/// The fields of a valid PUBLISH.
struct PublishRequest {
    package: PackageId,
    /// Entity-tag of the publication to change; `None` for a new publication.
    etag: Option<EntityTag>,
    request: RequestId,
    /// Granted lifetime in seconds; 0 removes the publication.
    granted: u32,
    /// State in the body; `None` for a refresh or a removal without a body.
    report: Option<PublishedState>,
    /// Origin of a new publication; `None` for a change of an existing one.
    origin: Option<Box<Origin>>,
}

impl Notifier {
    /// Processes a PUBLISH: checks it in the order of RFC 3903 section 6, reads the body, applies the publication in
    /// one step and sends NOTIFYs to the watchers whose state has changed. The NOTIFYs leave after the response.
    pub(super) fn publish(
        &self,
        now: Tick,
        request: &Message<'_>,
        uri: &Uri<'_>,
        source: Source,
        out: &mut Outbox,
    ) -> Result<Response, Response> {
        let account = self.account_of(uri)?;
        let (package, _) = self.event_of(request)?;
        let aor = self.presentity_of(account, uri)?;
        let id = request_id(request);
        let etag = match self.check_if_match(now, request, &aor, package, id)? {
            PublishTarget::New => None,
            PublishTarget::Met(etag) => Some(etag),
            PublishTarget::Repeated { etag, granted } => return Ok(published(etag, granted)),
        };
        let granted = self.negotiate_expires(request, self.settings.presence.min_expires.min(MIN_EXPIRES))?;
        let report = self.parse_body(request, package, etag.is_some())?;
        let origin = etag.is_none().then(|| Box::new(origin_of(request, source)));
        let wish = PublishRequest { package, etag, request: id, granted, report, origin };
        let realm = self.settings.directory.realm(account);
        let full = || Response::account_limit_480("limits.presentities_per_account", self.jittered(30));
        self.table
            .get_or_create(&aor, realm, None, |presentity, state| {
                let again = first_again(state, now, package, id).filter(|_| wish.etag.is_none());
                if let Some(PublishTarget::Repeated { etag, granted }) = again {
                    return Ok(published(etag, granted));
                }
                let etag = self.apply_publication(now, presentity, state, wish, out)?;
                self.commit_change(now, presentity, state, Cause::Published, out);
                Ok(published(etag, granted))
            })
            .map_err(|_| full())?
    }

    /// Returns the publication that SIP-If-Match names, which must exist (step 3).
    fn check_if_match(
        &self,
        now: Tick,
        request: &Message<'_>,
        aor: &Aor,
        package: PackageId,
        id: RequestId,
    ) -> Result<PublishTarget, Response> {
        let Some(value) = request.first(Name::SipIfMatch) else { return Ok(PublishTarget::New) };
        if value.is_empty() || value.contains([',', ' ', '\t', '\r']) {
            return Err(Response::bad_request("SIP-If-Match Takes One Entity-Tag"));
        }
        let etag = EntityTag::read(value).ok_or_else(condition_failed)?;
        self.table
            .with(aor, |_, state| condition(state, now, &etag, package, id))
            .unwrap_or_else(|| Err(condition_failed()))
    }

    /// Reads the state in the body (steps 5 and 6).
    fn parse_body(
        &self,
        request: &Message<'_>,
        package: PackageId,
        has_tag: bool,
    ) -> Result<Option<PublishedState>, Response> {
        let package = package::get(package);
        if request.body.is_empty() {
            // A PUBLISH without a body is a refresh or a removal, so it needs an entity-tag.
            return if has_tag { Ok(None) } else { Err(Response::bad_request("Missing Body")) };
        }
        self.check_encoding(request)?;
        if request.first(Name::ContentType).map(media_type).as_deref() != Some(package.content_type()) {
            return Err(Response::new(StatusCode::UnsupportedMediaType, "Unsupported Media Type")
                .with("Accept", package.content_type()));
        }
        package.read(request.body).map(Some).map_err(|error| match error {
            BodyError::TooMuch { .. } => Response::new(StatusCode::RequestEntityTooLarge, error.to_string()),
            BodyError::Malformed { .. } => Response::bad_request(error.to_string()),
        })
    }

    /// Creates, modifies, refreshes or removes a publication. A refused request has changed nothing.
    fn apply_publication(
        &self,
        now: Tick,
        presentity: &Arc<Presentity>,
        state: &mut State,
        wish: PublishRequest,
        out: &mut Outbox,
    ) -> Result<EntityTag, Response> {
        let etag = match wish.etag {
            Some(old) if is_current(state, now, &old, wish.package) => {
                EntityTag { number: old.number, generation: old.generation.wrapping_add(1), nonce: self.nonce() }
            }
            // Another request changed or removed the publication first.
            Some(_) => return Err(condition_failed()),
            None if state.publications.len() >= self.settings.limits.publications_per_presentity => {
                return Err(Response::account_limit_480("limits.publications_per_presentity", self.jittered(30)));
            }
            None => EntityTag { number: self.next_publication(), generation: 0, nonce: self.nonce() },
        };
        if wish.granted == 0 {
            // Without an entity-tag there is nothing to remove; a new publication with Expires 0 is not stored at
            // all.
            if wish.etag.is_some() {
                self.begin_state_change(presentity, state, out);
                self.drop_publication(presentity, state, etag.number);
                if self.settings.journal {
                    let until = now.after(REMOVED_LASTS);
                    state.remember_removed(RemovedPublication {
                        request: wish.request,
                        answered: etag,
                        granted: 0,
                        until,
                    });
                }
            }
            return Ok(etag);
        }
        if let Some(report) = &wish.report {
            self.check_document_size(now, presentity, state, etag.number, report)?;
        }
        self.begin_state_change(presentity, state, out);
        let content = wish.report.map(|report| state.take_report(now, etag.number, report));
        let expires_at = now.after(u64::from(wish.granted) * 1_000);
        let watch = |timer_at: &mut Tick| {
            if expires_at < *timer_at {
                self.wheel.cancel(*timer_at, presentity.number, TimerKind::Publication(etag.number));
                *timer_at =
                    self.wheel.schedule(now, expires_at, presentity.number, TimerKind::Publication(etag.number));
            }
        };
        match state.publication_mut(etag.number) {
            Some(publication) => {
                publication.requests.latest = wish.request;
                publication.requests.replaced = Some(std::mem::replace(&mut publication.etag, etag));
                publication.in_doubt = false;
                publication.granted = wish.granted;
                publication.expires_at = expires_at;
                watch(&mut publication.timer_at);
                if let Some(content) = content {
                    publication.content = content;
                }
            }
            None => {
                let mut timer_at = Tick(u64::MAX);
                watch(&mut timer_at);
                let content = content.unwrap_or(Content::Calls);
                let package = wish.package;
                let origin = wish.origin;
                state.publications.push(Publication {
                    etag,
                    requests: RequestLog::begun_by(wish.request),
                    in_doubt: false,
                    granted: wish.granted,
                    package,
                    expires_at,
                    timer_at,
                    origin,
                    content,
                });
            }
        }
        Ok(etag)
    }

    /// Removes a publication, with the state that only this publication reported.
    pub(super) fn drop_publication(&self, presentity: &Presentity, state: &mut State, number: PublicationNo) {
        if let Some(publication) = state.publication_mut(number) {
            self.wheel.cancel(publication.timer_at, presentity.number, TimerKind::Publication(number));
        }
        state.remove_publication(number);
    }
}

/// Returns the origin of a PUBLISH as shown to the operator. It is shortened, because its sender may be unverified.
fn origin_of(request: &Message<'_>, source: Source) -> Origin {
    let brief = |text: &str| text.chars().take(MAX_ORIGIN).collect::<String>().into();
    Origin {
        from: brief(request.from.uri),
        user_agent: request.first(Name::UserAgent).map(brief),
        address: source.peer,
        transport: source.transport,
    }
}

fn is_current(state: &State, now: Tick, etag: &EntityTag, package: PackageId) -> bool {
    state.publications.iter().any(|p| p.etag == *etag && p.package == package && p.expires_at > now)
}

/// Builds the 200 to a PUBLISH.
fn published(etag: EntityTag, granted: u32) -> Response {
    Response::ok().with("SIP-ETag", etag.to_string()).with("Expires", granted.to_string())
}

/// Builds a 412 (RFC 3903 section 11.2.1).
pub(super) fn condition_failed() -> Response {
    Response::new(StatusCode::ConditionalRequestFailed, "Conditional Request Failed")
}
