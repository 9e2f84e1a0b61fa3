//! Listing of an account: `subscriptions.{EXT}.{EVENT}.{CALL_ID}`, and publications on request.
//!
//! An account may have 200,000 subscriptions, each with a long body. So records are fetched in parts, limited in number
//! and in octets. The next part is fetched when the client has read the one before (see [`super::streaming_body`]).

use std::sync::Arc;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::ApiState;
use super::envelope::{REVISION, SUCCESS};
use super::json::Objects;
use super::quota::{self, Limit, QuotaPool};
use super::request::RequestContext;
use super::streaming_body::{PIECE, Writer, Written};
use crate::directory::AccountNo;
use crate::notifier::control::{Control, ListingPage, PageStart, PublicationRecord, SubscriptionRecord};
use crate::notifier::settings::Limits;
use crate::package::{self, PackageId};

/// Seconds added to the granted expiry. Kazoo adds them as a grace period; its clients subtract them.
const EXPIRES_FUDGE: u64 = 20;
/// Seconds between the years 0 and 1970: Kazoo's timestamps begin at year 0.
const GREGORIAN_EPOCH: u64 = 62_167_219_200;
/// Number of parts fetched before the thread yields. A part may be empty; each takes a fraction of a millisecond.
const PARTS_AT_ONCE: usize = 4;

/// Pool of the listings that are being sent.
pub(super) fn places(limits: &Limits) -> Arc<QuotaPool> {
    QuotaPool::new(quota::Limits {
        all: Limit { key: "limits.listings", most: limits.listings },
        account: Limit { key: "limits.listings_per_account", most: limits.listings_per_account },
        address: Limit { key: "limits.listings_per_address", most: limits.listings_per_address },
    })
}

/// Filter by event package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackageFilter {
    All,
    Package(PackageId),
    /// Unknown package: it has no subscriptions.
    Nothing,
}

/// Content of a listing: which packages, and if publications are included.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListingQuery {
    pub(super) only: PackageFilter,
    pub(super) with_publications: bool,
}

/// A listing that is composed while it is sent.
pub(super) struct Listing {
    control: Arc<dyn Control>,
    /// Name of this server.
    node: String,
    account: AccountNo,
    what: ListingQuery,
}

impl Listing {
    pub(super) fn new(state: &ApiState, account: AccountNo, what: ListingQuery) -> Listing {
        Listing { control: Arc::clone(&state.control), node: state.node.clone(), account, what }
    }

    /// Returns a writer of the listing in the envelope of a success.
    pub(super) fn writer<F: Formatter + Clone + Send + Unpin + 'static>(
        self,
        ask: &RequestContext,
        form: F,
    ) -> impl Writer {
        let mut json = Objects::new(form);
        if let Some(callback) = &ask.jsonp {
            json.around(callback);
            json.around("(");
        }
        json.open();
        json.member("auth_token", &ask.token);
        json.open_member("data");
        let begin = (self.what.only != PackageFilter::Nothing).then(PageStart::default);
        let publications = Section::new("presentities", begin.clone(), format!("lamplighter@{}", self.node));
        ListingWriter {
            publications: self.what.with_publications.then_some(publications),
            subscriptions: Some(Section::new("subscriptions", begin, format!("BLF-{}", self.node))),
            listing: self,
            json,
            request_id: ask.id.clone(),
            is_script: ask.jsonp.is_some(),
        }
    }
}

struct ListingWriter<F> {
    listing: Listing,
    json: Objects<F>,
    /// Sections that are not finished. Publications, if requested, come first.
    publications: Option<Section<PublicationRecord>>,
    subscriptions: Option<Section<SubscriptionRecord>>,
    request_id: String,
    is_script: bool,
}

impl<F: Formatter + Clone + Send + Unpin + 'static> Writer for ListingWriter<F> {
    fn go_on(&mut self) -> Written {
        let mut parts = 0;
        while self.json.len() < PIECE {
            let Self { listing, json, publications, subscriptions, .. } = self;
            let step = if let Some(section) = publications {
                section.step(listing, json)
            } else if let Some(section) = subscriptions {
                section.step(listing, json)
            } else {
                return Written::Last(self.end());
            };
            match step {
                Step::Wrote => {}
                Step::Asked if parts == PARTS_AT_ONCE => break,
                Step::Asked => parts += 1,
                // The finished section is the first one that is still present.
                Step::Over if publications.take().is_none() => *subscriptions = None,
                Step::Over => {}
            }
        }
        match self.json.take() {
            piece if piece.is_empty() => Written::Nothing,
            piece => Written::Piece(piece),
        }
    }
}

impl<F: Formatter + Clone> ListingWriter<F> {
    fn end(&mut self) -> Vec<u8> {
        self.json.close();
        self.json.member("request_id", &self.request_id);
        self.json.member("revision", &REVISION);
        self.json.member("status", &SUCCESS);
        self.json.close();
        if self.is_script {
            self.json.around(");");
        }
        self.json.take()
    }
}

/// One of the objects under `data`, with its records grouped by user and event.
struct Section<T> {
    name: &'static str,
    /// Start of the next part; `None` after the last.
    position: Option<PageStart>,
    /// Records of the current part that are not yet written.
    records: std::vec::IntoIter<T>,
    /// User and event of the objects that are open.
    open: Option<(String, PackageId)>,
    begun: bool,
    /// Name of this server inside the object.
    server: String,
}

/// Result of one step.
enum Step {
    /// Wrote something.
    Wrote,
    /// Fetched a part.
    Asked,
    /// Wrote the end of the section.
    Over,
}

impl<T: Entry> Section<T> {
    fn new(name: &'static str, position: Option<PageStart>, server: String) -> Self {
        Self { name, position, records: Vec::new().into_iter(), open: None, begun: false, server }
    }

    fn step<F: Formatter + Clone>(&mut self, listing: &Listing, json: &mut Objects<F>) -> Step {
        if !std::mem::replace(&mut self.begun, true) {
            json.open_member(self.name);
        }
        if let Some(record) = self.records.next() {
            self.write(&record, json);
            return Step::Wrote;
        }
        let Some(position) = self.position.take() else {
            self.close(json);
            json.close();
            return Step::Over;
        };
        let package = match listing.what.only {
            PackageFilter::Package(id) => Some(id),
            PackageFilter::All | PackageFilter::Nothing => None,
        };
        let ListingPage { records, next } = T::part(listing, package, &position);
        (self.records, self.position) = (records.into_iter(), next);
        Step::Asked
    }

    fn write<F: Formatter + Clone>(&mut self, record: &T, json: &mut Objects<F>) {
        let (user, package) = record.group();
        let same_user = self.open.as_ref().is_some_and(|(open, _)| open == user);
        if !same_user {
            self.close(json);
            json.open_member(user);
            if T::BELOW_SERVER {
                json.open_member(&self.server);
            }
        }
        if !same_user || self.open.as_ref().is_some_and(|(_, open)| *open != package) {
            if same_user {
                json.close();
            }
            json.open_member(package::get(package).name());
            self.open = Some((user.to_owned(), package));
        }
        record.write(&self.server, json);
    }

    /// Closes the objects of the previous user and event.
    fn close<F: Formatter + Clone>(&mut self, json: &mut Objects<F>) {
        if self.open.take().is_some() {
            (0..2 + usize::from(T::BELOW_SERVER)).for_each(|_| json.close());
        }
    }
}

/// A record of a section.
trait Entry: Sized + Send + Unpin + 'static {
    /// True if an object named after the server stands between user and event.
    const BELOW_SERVER: bool;
    /// Fetches some records, ordered by user, event and key.
    fn part(listing: &Listing, package: Option<PackageId>, from: &PageStart) -> ListingPage<Self>;
    /// User and event of this record.
    fn group(&self) -> (&str, PackageId);
    /// Writes the key and the value of this record.
    fn write<F: Formatter + Clone>(&self, server: &str, json: &mut Objects<F>);
}

impl Entry for SubscriptionRecord {
    const BELOW_SERVER: bool = false;

    fn part(listing: &Listing, package: Option<PackageId>, from: &PageStart) -> ListingPage<Self> {
        listing.control.subscriptions(listing.account, package, from)
    }

    fn group(&self) -> (&str, PackageId) {
        (&self.user, self.package)
    }

    fn write<F: Formatter + Clone>(&self, server: &str, json: &mut Objects<F>) {
        json.member(&self.call_id, &Record::new(self, server));
    }
}

impl Entry for PublicationRecord {
    const BELOW_SERVER: bool = true;

    fn part(listing: &Listing, package: Option<PackageId>, from: &PageStart) -> ListingPage<Self> {
        listing.control.publications(listing.account, package, from)
    }

    fn group(&self) -> (&str, PackageId) {
        (&self.user, self.package)
    }

    fn write<F: Formatter + Clone>(&self, _: &str, json: &mut Objects<F>) {
        json.member(&self.etag, &Published { body: &self.body, etag: &self.etag });
    }
}

#[derive(Serialize)]
struct Published<'a> {
    body: &'a str,
    etag: &'a str,
}

/// A subscription as Kazoo 3.22 shows it; the keys are in alphabetical order, as everywhere in Kazoo.
#[derive(Serialize)]
struct Record<'a> {
    expires: u64,
    from: &'a str,
    notify: Notify<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_route: Option<&'a str>,
    stalker: &'a str,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    /// Always 1: the record comes from the server that handles the SIP subscription.
    version: u8,
}

#[derive(Serialize)]
struct Notify<'a> {
    body: &'a str,
    reply: u16,
    sequence: u32,
}

impl<'a> Record<'a> {
    fn new(record: &'a SubscriptionRecord, stalker: &'a str) -> Self {
        let expires = u64::from(record.expires);
        let notify = match &record.last {
            Some(last) => Notify { body: &last.body, reply: last.reply, sequence: last.cseq },
            None => Notify { body: "undefined", reply: 0, sequence: 0 },
        };
        Self {
            expires: if expires == 0 { 0 } else { expires + EXPIRES_FUDGE },
            from: &record.from,
            notify,
            proxy_route: record.proxy_route.as_deref(),
            stalker,
            timestamp: record.subscribed_at.saturating_add(GREGORIAN_EPOCH),
            user_agent: record.user_agent.as_deref(),
            version: 1,
        }
    }
}
