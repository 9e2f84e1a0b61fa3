//! The listing of an account: `subscriptions.{EXT}.{EVENT}.{CALL_ID}`, and publications where they are asked for.
//!
//! An account may have two hundred thousand, so the records are asked for in parts while the listing is being written, and
//! what is written is on its way before the end is known (see [`super::flow`]).

use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeStruct as _};
use serde::{Serialize, Serializer};

use crate::directory::AccountNo;
use crate::notifier::control::{Control, Part, SubscriptionRecord};
use crate::package;

/// Kazoo shows what was granted and this much more, the grace that it gives a subscription; clients subtract it.
const EXPIRES_FUDGE: u64 = 20;
/// Seconds between the years 0 and 1970, for Kazoo counts from the former.
const GREGORIAN_EPOCH: u64 = 62_167_219_200;

/// What is listed.
#[derive(Clone, Copy)]
pub(super) enum Only {
    All,
    Package(package::PackageId),
    /// A package that does not exist has no subscriptions.
    Nothing,
}

/// A listing that is put together while it is written.
pub(super) struct Listing {
    pub(super) control: Arc<dyn Control>,
    pub(super) node: String,
    pub(super) account: AccountNo,
    pub(super) only: Only,
    pub(super) with_publications: bool,
}

impl Listing {
    /// Calls `tell` with one part after the other, each of whole users.
    fn each<T, E>(
        &self,
        part: impl Fn(&dyn Control, Option<package::PackageId>, &str) -> Part<T>,
        mut tell: impl FnMut(Vec<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let package = match self.only {
            Only::All => None,
            Only::Package(id) => Some(id),
            Only::Nothing => return Ok(()),
        };
        let mut from = Some(String::new());
        while let Some(begin) = from {
            let Part { records, next } = part(&*self.control, package, &begin);
            tell(records)?;
            from = next;
        }
        Ok(())
    }
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut listing = serializer.serialize_struct("Listing", 1 + usize::from(self.with_publications))?;
        if self.with_publications {
            listing.serialize_field("presentities", &Publications(self))?;
        }
        listing.serialize_field("subscriptions", &Subscriptions(self))?;
        listing.end()
    }
}

struct Subscriptions<'a>(&'a Listing);

impl Serialize for Subscriptions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let listing = self.0;
        let stalker = format!("BLF-{}", listing.node);
        let mut map = serializer.serialize_map(None)?;
        listing.each(
            |control, package, from| control.subscriptions(listing.account, package, from),
            |mut records| {
                // Dialogs may share a Call-ID, but a key can be there only once: the youngest stands for all.
                records.sort_by(|a, b| {
                    let key = (&a.user, a.package.0, &a.call_id).cmp(&(&b.user, b.package.0, &b.call_id));
                    key.then(b.subscribed_at.cmp(&a.subscribed_at))
                });
                records.dedup_by(|b, a| a.user == b.user && a.package == b.package && a.call_id == b.call_id);
                records.chunk_by(|a, b| a.user == b.user).try_for_each(|of_user| {
                    let by_event = of_user.chunk_by(|a, b| a.package == b.package).map(|of_event| {
                        let by_call = of_event.iter().map(|s| (&s.call_id, Record::new(s, &stalker)));
                        (name(of_event[0].package), Map(by_call))
                    });
                    map.serialize_entry(&of_user[0].user, &Map(by_event))
                })
            },
        )?;
        map.end()
    }
}

struct Publications<'a>(&'a Listing);

impl Serialize for Publications<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let listing = self.0;
        let node = format!("lamplighter@{}", listing.node);
        let mut map = serializer.serialize_map(None)?;
        listing.each(
            |control, package, from| control.publications(listing.account, package, from),
            |mut records| {
                records.sort_by(|a, b| (&a.user, a.package.0, &a.etag).cmp(&(&b.user, b.package.0, &b.etag)));
                records.dedup_by(|b, a| a.user == b.user && a.package == b.package && a.etag == b.etag);
                records.chunk_by(|a, b| a.user == b.user).try_for_each(|of_user| {
                    let by_event = of_user.chunk_by(|a, b| a.package == b.package).map(|of_event| {
                        let by_etag = of_event.iter().map(|p| (&p.etag, Published { body: &p.body, etag: &p.etag }));
                        (name(of_event[0].package), Map(by_etag))
                    });
                    map.serialize_entry(&of_user[0].user, &Map(std::iter::once((&node, Map(by_event)))))
                })
            },
        )?;
        map.end()
    }
}

fn name(id: package::PackageId) -> &'static str {
    package::get(id).name()
}

/// Pairs, written as an object.
#[derive(Clone)]
struct Map<I>(I);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)> + Clone> Serialize for Map<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
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
