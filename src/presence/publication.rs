//! Publications: state that a publisher has reported and may change under an entity-tag until it expires (RFC 3903).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::state::{Basic, Mailbox, MessageClass, PersonState};
use super::{PackageId, Tick};
use crate::sip::Transport;

/// Number of a publication, unique within the server and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicationNo(pub u64);

/// Entity-tag of a publication: its number, a count of its changes, and a nonce that cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityTag {
    /// Number of the publication.
    pub number: PublicationNo,
    /// Number of successful requests on it.
    pub generation: u32,
    /// Random part, which cannot be guessed.
    pub nonce: u64,
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:016x}", self.number.0, self.generation, self.nonce)
    }
}

impl EntityTag {
    /// Parses the text form of an [`EntityTag`]. None for any other text, which is not a tag of this server.
    pub fn read(text: &str) -> Option<EntityTag> {
        let mut parts = text.split('.');
        let number = PublicationNo(u64::from_str_radix(parts.next()?, 16).ok()?);
        let generation = u32::from_str_radix(parts.next()?, 16).ok()?;
        let nonce = parts.next().filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok())?;
        let tag = EntityTag { number, generation, nonce };
        // Only the one spelling that we issued is accepted.
        (parts.next().is_none() && tag.to_string() == text).then_some(tag)
    }
}

/// Hash of the Call-ID, CSeq number, From tag and branch of a request. It is the same for each retransmission of the
/// request (RFC 3261 section 17.2.3) and, as it uses no secret, the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Requests on a publication as the journal records them. A request that is retransmitted across a restart gets the
/// response that it would have had (RFC 3261 section 17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLog {
    /// PUBLISH that created the publication.
    pub first: RequestId,
    /// Latest PUBLISH that was accepted.
    pub latest: RequestId,
    /// Entity-tag that the latest PUBLISH replaced; none if that was the first.
    pub replaced: Option<EntityTag>,
}

impl RequestLog {
    /// Log of a publication that this request created.
    pub fn begun_by(request: RequestId) -> RequestLog {
        RequestLog { first: request, latest: request, replaced: None }
    }
}

/// Publication that is gone, remembered for as long as one of its requests may be retransmitted. Either its publisher
/// removed it (Expires: 0), or it expired soon after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedPublication {
    /// Latest request on it.
    pub request: RequestId,
    /// Entity-tag that the response gave.
    pub answered: EntityTag,
    /// Lifetime that the response granted (seconds).
    pub granted: u32,
    /// Time at which it is forgotten.
    pub until: Tick,
}

/// Time for which a publication that is gone is remembered (ms). Twice as long as a client retransmits its request
/// (Timer F, RFC 3261 section 17.1.2.2), because the server may be down for a while in between.
pub const REMOVED_LASTS: u64 = 64_000;
/// Limit on removed publications that are remembered per presentity; beyond it the oldest is forgotten.
const MAX_REMOVED: usize = 128;

/// Removed publications of a presentity, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RemovedPublications(VecDeque<RemovedPublication>);

impl RemovedPublications {
    /// Remembers a removed publication.
    pub fn add(&mut self, removed: RemovedPublication) {
        if self.0.len() >= MAX_REMOVED {
            self.0.pop_front();
        }
        self.0.push_back(removed);
    }

    /// Removed publication that this request belongs to.
    pub fn find(&self, now: Tick, request: RequestId) -> Option<&RemovedPublication> {
        self.0.iter().find(|removed| removed.request == request && removed.until > now)
    }

    /// Time at which the last one can be forgotten.
    pub fn last_deadline(&self) -> Option<Tick> {
        self.0.iter().map(|removed| removed.until).max()
    }

    /// Time at which the oldest can be forgotten.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.0.front().map(|removed| removed.until)
    }

    /// Forgets those whose time is over.
    pub fn pass_time(&mut self, now: Tick) {
        self.0.retain(|removed| removed.until > now);
    }

    /// Restarts the time of each after a restart of the server, as if it had just been removed: the clock of the
    /// earlier run may have been wrong.
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
    /// Entity-tag that the next request on it must name.
    pub etag: EntityTag,
    /// Requests that its present state comes from.
    pub requests: RequestLog,
    /// True if it was read from the journal and no request has named its entity-tag since. The response with that tag
    /// may have been lost in the crash, so the tag before it is accepted as well, once.
    pub in_doubt: bool,
    /// Lifetime that the latest request was granted (seconds).
    pub granted: u32,
    /// Its event package.
    pub package: PackageId,
    /// Time at which it expires unless refreshed.
    pub expires_at: Tick,
    /// Time at which its expiry timer fires next.
    pub timer_at: Tick,
    /// Publisher of it; not known after a restart.
    pub origin: Option<Box<Origin>>,
    /// Published state.
    pub content: Content,
}

/// Sender of a publication, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// URI of the From header.
    pub from: Box<str>,
    /// User-Agent header, if there is one.
    pub user_agent: Option<Box<str>>,
    /// Source address.
    pub address: SocketAddr,
    /// Transport that the request came over.
    pub transport: Transport,
}

/// Published state, apart from calls, which are kept per call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Calls, or nothing since a reset.
    Calls,
    /// State of a person.
    PersonState(PersonState),
    /// State of a mailbox.
    Mailbox(Mailbox),
}

/// Activities that stand for calls. A reset removes them with the calls.
const OF_CALLS: [&str; 2] = ["on-the-phone", "busy"];

impl Content {
    /// Applies a reset: removes all that stands for calls. Notes, other activities and message counts stay.
    pub fn reset(&mut self) {
        if let Content::PersonState(person) = self {
            person.basic = person.basic.map(|_| Basic::Open);
            person.activities.retain(|activity| !OF_CALLS.contains(&&**activity));
        }
    }
}

/// Composes the state of a person from several publications, oldest first.
///
/// The result is open if any publication is open. Note and activities are those of the newest publication that has
/// any, because a person has one mood at a time.
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

/// Composes the state of a mailbox from several publications, oldest first. The newest count of each class holds, so
/// that a publisher that starts again is not counted twice.
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
    // With one publication its `Messages-Waiting` holds. With several, each knows its own messages only, so the
    // counts decide.
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
