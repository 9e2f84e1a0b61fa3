//! The listing of an account: `subscriptions.{EXT}.{EVENT}.{CALL_ID}`, and publications where they are asked for.
//!
//! An account may have two hundred thousand, and each may have a long body. So the records are asked for in parts, bounded in
//! number and in octets, when what was written before has been read, and are written one after the other (see
//! [`super::flow`]).

use std::sync::Arc;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::ApiState;
use super::envelope::{REVISION, SUCCESS};
use super::flow::{PIECE, Writer, Written};
use super::json::Objects;
use super::request::Ask;
use super::share::{self, Limit, Shares};
use crate::config::Limits;
use crate::directory::AccountNo;
use crate::notifier::control::{Control, Part, Position, PublicationRecord, SubscriptionRecord};
use crate::package::{self, PackageId};

/// Kazoo shows what was granted and this much more, the grace that it gives a subscription; clients subtract it.
const EXPIRES_FUDGE: u64 = 20;
/// Seconds between the years 0 and 1970, for Kazoo counts from the former.
const GREGORIAN_EPOCH: u64 = 62_167_219_200;
/// How many parts are asked for before others get their turn, as a part may be empty: each takes a fraction of a millisecond.
const PARTS_AT_ONCE: usize = 4;

/// The places for listings that are being sent.
pub(super) fn places(limits: &Limits) -> Arc<Shares> {
    Shares::new(share::Limits {
        all: Limit { key: "limits.listings", most: limits.listings },
        account: Limit { key: "limits.listings_per_account", most: limits.listings_per_account },
        address: Limit { key: "limits.listings_per_address", most: limits.listings_per_address },
    })
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    All,
    Package(PackageId),
    /// A package that does not exist has no subscriptions.
    Nothing,
}

/// What is listed, and whether publications are.
#[derive(Clone, Copy, Debug)]
pub(super) struct What {
    pub(super) only: Only,
    pub(super) with_publications: bool,
}

/// A listing that is put together while it is written.
pub(super) struct Listing {
    control: Arc<dyn Control>,
    /// The name of this server.
    node: String,
    account: AccountNo,
    what: What,
}

impl Listing {
    pub(super) fn new(state: &ApiState, account: AccountNo, what: What) -> Listing {
        Listing { control: Arc::clone(&state.control), node: state.node.clone(), account, what }
    }

    /// Writes it in the envelope of a success.
    pub(super) fn writer<F: Formatter + Clone + Send + Unpin + 'static>(self, ask: &Ask, form: F) -> impl Writer {
        let mut json = Objects::new(form);
        if let Some(callback) = &ask.jsonp {
            json.around(callback);
            json.around("(");
        }
        json.open();
        json.member("auth_token", &ask.token);
        json.open_member("data");
        let begin = (self.what.only != Only::Nothing).then(Position::default);
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
    /// What is not written yet; the first goes first.
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
                // The first of the two that was there is the one that is over.
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

/// One of the objects below `data`, by user, event and the key of a record.
struct Section<T> {
    name: &'static str,
    /// Where the next part begins; none after the last.
    position: Option<Position>,
    /// What is left of the part before.
    records: std::vec::IntoIter<T>,
    /// The user and the event whose objects are open.
    open: Option<(String, PackageId)>,
    begun: bool,
    /// How this server is named in it.
    server: String,
}

/// What a step has done.
enum Step {
    /// Written something.
    Wrote,
    /// Asked for a part.
    Asked,
    /// Written the end.
    Over,
}

impl<T: Entry> Section<T> {
    fn new(name: &'static str, position: Option<Position>, server: String) -> Self {
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
            Only::Package(id) => Some(id),
            Only::All | Only::Nothing => None,
        };
        let Part { records, next } = T::part(listing, package, &position);
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

    /// Ends what is open of the user before.
    fn close<F: Formatter + Clone>(&mut self, json: &mut Objects<F>) {
        if self.open.take().is_some() {
            (0..2 + usize::from(T::BELOW_SERVER)).for_each(|_| json.close());
        }
    }
}

/// A record of a section.
trait Entry: Sized + Send + Unpin + 'static {
    /// Whether there is an object for the server between user and event.
    const BELOW_SERVER: bool;
    /// Some of them, ordered by user, event and key.
    fn part(listing: &Listing, package: Option<PackageId>, from: &Position) -> Part<Self>;
    /// Its user and event.
    fn group(&self) -> (&str, PackageId);
    /// Its key and itself.
    fn write<F: Formatter + Clone>(&self, server: &str, json: &mut Objects<F>);
}

impl Entry for SubscriptionRecord {
    const BELOW_SERVER: bool = false;

    fn part(listing: &Listing, package: Option<PackageId>, from: &Position) -> Part<Self> {
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

    fn part(listing: &Listing, package: Option<PackageId>, from: &Position) -> Part<Self> {
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

/// A subscription as 3.22 shows it; the keys in the order of the alphabet, as all of Kazoo's are.
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
    /// 1: learnt from the server that speaks SIP.
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
