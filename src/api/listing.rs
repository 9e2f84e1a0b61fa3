//! The listing of an account: `subscriptions.{EXT}.{EVENT}.{CALL_ID}`, and publications where they are asked for.
//!
//! Written straight from the sorted records: an account may have two hundred thousand.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::notifier::control::{PublicationRecord, SubscriptionRecord};
use crate::package;

/// Kazoo shows what was granted and this much more, the grace that it gives a subscription; clients subtract it.
const EXPIRES_FUDGE: u64 = 20;
/// Seconds between the years 0 and 1970, for Kazoo counts from the former.
const GREGORIAN_EPOCH: u64 = 62_167_219_200;

/// A listing, ready to be written.
pub(super) struct Listing {
    stalker: String,
    node: String,
    subscriptions: Vec<SubscriptionRecord>,
    publications: Option<Vec<PublicationRecord>>,
}

impl Listing {
    pub(super) fn new(
        node: &str,
        mut subscriptions: Vec<SubscriptionRecord>,
        mut publications: Option<Vec<PublicationRecord>>,
    ) -> Self {
        // Dialogs may share a Call-ID, but a key can be there only once: the youngest stands for all.
        subscriptions.sort_by(|a, b| {
            let key = (&a.user, a.package.0, &a.call_id).cmp(&(&b.user, b.package.0, &b.call_id));
            key.then(b.subscribed_at.cmp(&a.subscribed_at))
        });
        subscriptions.dedup_by(|b, a| a.user == b.user && a.package == b.package && a.call_id == b.call_id);
        if let Some(publications) = &mut publications {
            publications.sort_by(|a, b| (&a.user, a.package.0, &a.etag).cmp(&(&b.user, b.package.0, &b.etag)));
            publications.dedup_by(|b, a| a.user == b.user && a.package == b.package && a.etag == b.etag);
        }
        Self { stalker: format!("BLF-{node}"), node: format!("lamplighter@{node}"), subscriptions, publications }
    }
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(publications) = &self.publications {
            let by_user = publications.chunk_by(|a, b| a.user == b.user).map(|of_user| {
                let by_event = of_user.chunk_by(|a, b| a.package == b.package).map(|of_event| {
                    let by_etag = of_event.iter().map(|p| (&p.etag, Published { body: &p.body, etag: &p.etag }));
                    (name(of_event[0].package), Map(by_etag))
                });
                (&of_user[0].user, Map(std::iter::once((&self.node, Map(by_event)))))
            });
            map.serialize_entry("presentities", &Map(by_user))?;
        }
        let by_user = self.subscriptions.chunk_by(|a, b| a.user == b.user).map(|of_user| {
            let by_event = of_user.chunk_by(|a, b| a.package == b.package).map(|of_event| {
                let by_call = of_event.iter().map(|s| (&s.call_id, Record::new(s, &self.stalker)));
                (name(of_event[0].package), Map(by_call))
            });
            (&of_user[0].user, Map(by_event))
        });
        map.serialize_entry("subscriptions", &Map(by_user))?;
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
