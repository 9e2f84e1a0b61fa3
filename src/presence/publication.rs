//! Publications: what a publisher has said and may still change, under an entity-tag, until it expires (RFC 3903).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::state::{Basic, Mailbox, MessageClass, PersonState};
use super::{PackageId, Tick};
use crate::sip::Transport;

/// Names a publication within the server; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicationNo(pub u64);

/// The entity-tag of a publication: its number, how often it was changed, and a nonce that cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityTag {
    /// The publication.
    pub number: PublicationNo,
    /// Counts the successful requests on it.
    pub generation: u32,
    /// Unguessable.
    pub nonce: u64,
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:016x}", self.number.0, self.generation, self.nonce)
    }
}

impl EntityTag {
    /// Reads what [`EntityTag`] prints; none for anything else, which is the tag of nothing here.
    pub fn read(text: &str) -> Option<EntityTag> {
        let mut parts = text.split('.');
        let number = PublicationNo(u64::from_str_radix(parts.next()?, 16).ok()?);
        let generation = u32::from_str_radix(parts.next()?, 16).ok()?;
        let nonce = parts.next().filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok())?;
        let tag = EntityTag { number, generation, nonce };
        // Only the one spelling that we gave out is ours.
        (parts.next().is_none() && tag.to_string() == text).then_some(tag)
    }
}

/// Fingerprint of a request: of its Call-ID, CSeq number, From tag and branch, so the same for each repetition of it
/// (RFC 3261 section 17.2.3) and, as it uses no secret, the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What the journal knows of the requests on a publication, so that one of them which is repeated over a restart gets
/// the answer that it would have had (RFC 3261 section 17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLog {
    /// The PUBLISH that made the publication.
    pub first: RequestId,
    /// The latest PUBLISH that was accepted.
    pub latest: RequestId,
    /// The entity-tag that the latest one replaced; none if it is the first.
    pub replaced: Option<EntityTag>,
}

impl RequestLog {
    /// Of a publication that was made by this request.
    pub fn begun_by(request: RequestId) -> RequestLog {
        RequestLog { first: request, latest: request, replaced: None }
    }
}

/// A publication that is gone, remembered for as long as one of its requests may be repeated: its publisher has removed it
/// (Expires: 0), or it has expired soon after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedPublication {
    /// The request.
    pub request: RequestId,
    /// The entity-tag that the answer gave.
    pub answered: EntityTag,
    /// The lifetime that it granted (seconds).
    pub granted: u32,
    /// When it is forgotten.
    pub until: Tick,
}

/// How long a publication that is gone is remembered (ms): twice what a client goes on repeating its request (Timer F, RFC
/// 3261 section 17.1.2.2), because the server may be down for a while in between.
pub const REMOVED_LASTS: u64 = 64_000;
/// The most removed publications that are remembered of one presentity; the oldest goes.
const MAX_REMOVED: usize = 128;

/// The removed publications of a presentity, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RemovedPublications(VecDeque<RemovedPublication>);

impl RemovedPublications {
    /// Remembers one more.
    pub fn add(&mut self, removed: RemovedPublication) {
        if self.0.len() >= MAX_REMOVED {
            self.0.pop_front();
        }
        self.0.push_back(removed);
    }

    /// The publication that this request was about, if it is one of them.
    pub fn find(&self, now: Tick, request: RequestId) -> Option<&RemovedPublication> {
        self.0.iter().find(|removed| removed.request == request && removed.until > now)
    }

    /// When the last can be forgotten.
    pub fn last_deadline(&self) -> Option<Tick> {
        self.0.iter().map(|removed| removed.until).max()
    }

    /// When the oldest can be forgotten.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.0.front().map(|removed| removed.until)
    }

    /// Forgets those whose time is over.
    pub fn pass_time(&mut self, now: Tick) {
        self.0.retain(|removed| removed.until > now);
    }

    /// After a restart: each is remembered as if it had just been removed, whatever the clock of before said.
    pub fn begin_again(&mut self, now: Tick) {
        self.0.iter_mut().for_each(|removed| removed.until = now.after(REMOVED_LASTS));
    }

    /// True if none is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One publication.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The tag that the next request on it has to name.
    pub etag: EntityTag,
    /// The requests that its present state comes from.
    pub requests: RequestLog,
    /// It was read from the journal and no request has named its entity-tag since. The answer with that tag may have been
    /// lost in the crash, so the tag before is accepted as well, once.
    pub in_doubt: bool,
    /// The lifetime that was granted by the latest request (seconds).
    pub granted: u32,
    /// Its event package.
    pub package: PackageId,
    /// When it ends unless refreshed.
    pub expires_at: Tick,
    /// When the timer that watches over it will look next.
    pub timer_at: Tick,
    /// Who made it; not known any more after a restart.
    pub origin: Option<Box<Origin>>,
    /// What it says.
    pub content: Content,
}

/// Who has made a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The URI of his From.
    pub from: Box<str>,
    /// His User-Agent, if he names one.
    pub user_agent: Option<Box<str>>,
    /// Where it came from.
    pub address: SocketAddr,
    /// And how.
    pub transport: Transport,
}

/// What a publication says, apart from calls, which are kept by call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// It holds calls, or nothing since a reset.
    Calls,
    /// Of a person.
    PersonState(PersonState),
    /// Of a mailbox.
    Mailbox(Mailbox),
}

/// Activities that speak of calls, which a reset takes away with the calls.
const OF_CALLS: [&str; 2] = ["on-the-phone", "busy"];

impl Content {
    /// Takes away what a reset takes away: all that speaks of calls. Notes, other activities and counts stay.
    pub fn reset(&mut self) {
        if let Content::PersonState(person) = self {
            person.basic = person.basic.map(|_| Basic::Open);
            person.activities.retain(|activity| !OF_CALLS.contains(&&**activity));
        }
    }
}

/// Puts together what several publications say of a person, oldest first: open if any is open; note and activities
/// are those of the newest that has any, since a person is in one mood at a time.
pub fn compose_person<'a>(all: impl Iterator<Item = &'a PersonState>) -> PersonState {
    let mut whole = PersonState::default();
    for person in all {
        whole.basic = match (whole.basic, person.basic) {
            (Some(Basic::Open), _) | (_, Some(Basic::Open)) => Some(Basic::Open),
            (old, new) => new.or(old),
        };
        if person.note.is_some() {
            whole.note.clone_from(&person.note);
        }
        if !person.activities.is_empty() {
            whole.activities.clone_from(&person.activities);
        }
    }
    whole
}

/// Puts together what several publications say of a mailbox, oldest first: of each class the newest count holds, so
/// that a publisher that starts anew is not counted twice.
pub fn compose_mailbox<'a>(all: impl Iterator<Item = &'a Mailbox>) -> Mailbox {
    let mut whole = Mailbox::default();
    let mut sources = 0;
    for mailbox in all {
        sources += 1;
        whole.waiting = mailbox.waiting.or(whole.waiting);
        if mailbox.account.is_some() {
            whole.account.clone_from(&mailbox.account);
        }
        for (i, _) in MessageClass::ALL.iter().enumerate() {
            whole.counts[i] = mailbox.counts[i].or(whole.counts[i]);
        }
    }
    // One source is taken at its word; of several, each knows of its own messages only.
    if sources > 1 && whole.counts.iter().any(Option::is_some) {
        whole.waiting = Some(whole.counts.iter().flatten().any(|c| c.new > 0));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::state::MessageCounts;

    #[test]
    fn an_entity_tag_is_a_token_and_has_one_spelling() {
        let tag = EntityTag { number: PublicationNo(31), generation: 2, nonce: 5 };
        assert_eq!(tag.to_string(), "1f.2.0000000000000005");
        assert_eq!(EntityTag::read("1f.2.0000000000000005"), Some(tag));
        for other in ["1F.2.0000000000000005", "01f.2.0000000000000005", "1f.2.5", "*", "", "1f.2.0000000000000005.1"] {
            assert_eq!(EntityTag::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_person_is_open_if_any_publication_is_and_has_the_newest_note() {
        let one = PersonState { basic: Some(Basic::Open), note: Some("old".into()), activities: vec!["away".into()] };
        let two = PersonState { basic: Some(Basic::Closed), note: Some("new".into()), activities: vec![] };
        let whole = compose_person([&one, &two].into_iter());
        assert_eq!((whole.basic, whole.note.as_deref()), (Some(Basic::Open), Some("new")));
        assert_eq!(whole.activities, [Box::from("away")]);
        assert_eq!(compose_person([&two].into_iter()).basic, Some(Basic::Closed));
    }

    #[test]
    fn of_each_class_the_newest_count_holds() {
        let count = |new| Some(MessageCounts { new, old: 0, urgent: None });
        let mut old = Mailbox { waiting: Some(true), ..Mailbox::default() };
        (old.counts[0], old.counts[1]) = (count(3), count(1));
        let mut new = Mailbox { waiting: Some(false), ..Mailbox::default() };
        new.counts[0] = count(0);
        let whole = compose_mailbox([&old, &new].into_iter());
        assert_eq!((whole.waiting, whole.counts[0], whole.counts[1]), (Some(true), count(0), count(1)));
    }

    #[test]
    fn a_reset_takes_what_speaks_of_calls_and_leaves_notes() {
        let mut content = Content::PersonState(PersonState {
            basic: Some(Basic::Closed),
            note: Some("in the lab".into()),
            activities: vec!["on-the-phone".into(), "meeting".into()],
        });
        content.reset();
        let left = PersonState {
            basic: Some(Basic::Open),
            note: Some("in the lab".into()),
            activities: vec!["meeting".into()],
        };
        assert_eq!(content, Content::PersonState(left));
    }
}
