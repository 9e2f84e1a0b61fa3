//! Report of a lamp.

use std::collections::HashMap;

use super::report::{
    CallRow, ChangeRow, Lamp, LampReport, LampState, PersonRow, PublicationRow, RemoteParty, RevisionRow, SourceRow,
};
use super::watcher::ExchangeBuilder;
use super::{MOST_EXCHANGES, MOST_WATCHERS, standing_of_all};
use crate::directory::AccountNo;
use crate::notifier::Notifier;
use crate::notifier::history::{Cause, Entry, HistoryEvent, news_since};
use crate::notifier::notify::TOO_LARGE;
use crate::package::{self, PackageId, REGISTRY};
use crate::presence::Tick;
use crate::presence::calls::MAX_SHOWN;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{Origin, Publication};
use crate::presence::state::{Basic, CallReport, CallState, ComposedState, Direction, Party};
use crate::presence::subscription::{Delivery, Subscription, SubscriptionId};
use crate::sip::uri::percent_decode;

impl Notifier {
    /// Lamp of one extension; none if the server knows nothing of the extension.
    pub fn lamp(&self, account: AccountNo, extension: &str) -> Option<Lamp> {
        self.read(account, extension, |presentity, state| self.lamp_of(presentity, state))
    }

    /// Lamps of an account, ordered by extension, starting at `from`; at most `most`.
    pub fn lamps(&self, account: AccountNo, from: &str, most: usize) -> Vec<Lamp> {
        let some = self.table.of_account_from(account, from, most);
        some.iter().map(|presentity| self.lamp_of(presentity, &presentity.lock())).collect()
    }

    /// Full report of one extension; none if the server knows nothing of it.
    pub fn lamp_story(&self, now: Tick, account: AccountNo, extension: &str) -> Option<LampReport> {
        let (mut story, number) = self
            .read(account, extension, |presentity, state| (self.story_of(now, presentity, state), presentity.number))?;
        // The history may be long, so it is read after the lock of the presentity is released.
        self.add_history(number, &mut story);
        Some(story)
    }

    fn add_history(&self, number: u32, story: &mut LampReport) {
        let changes = self.history.of_presentity(number);
        for row in story.watching.iter_mut().filter(|row| row.behind > 0) {
            let package = package::by_name(row.event).unwrap_or(PackageId(0));
            if let Some((at, longer)) = news_since(&changes, package, row.acknowledged) {
                (row.stale_since, row.stale_since_is_lower_bound) = (Some(at.0), longer);
            }
        }
        let reasons = self.reasons(number, &changes);
        let change = |entry: &Entry| match entry.note {
            HistoryEvent::Changed { cause, revisions } => {
                let request = reasons.of_change(entry.at);
                Some(ChangeRow { at: entry.at.0, cause: word(cause), revision: revisions[0], request })
            }
            _ => None,
        };
        story.changes = changes.iter().filter_map(change).collect();
        let places = story.watching.iter().filter_map(|row| SubscriptionId::read(&row.id));
        let mut told: HashMap<_, _> =
            places.map(|place| ((place.slot, place.nonce as u32), ExchangeBuilder::new(place))).collect();
        let exchanges = self.history.of_watchers(number).into_iter();
        story.exchanges =
            exchanges.filter_map(|(slot, nonce, entry)| told.get_mut(&(slot, nonce))?.tell(&entry, &reasons)).collect();
        story.exchanges.drain(..story.exchanges.len().saturating_sub(MOST_EXCHANGES));
    }

    fn lamp_of(&self, presentity: &Presentity, state: &State) -> Lamp {
        let picture = state.composed(&presentity.uri);
        let (watchers, behind, failing) = standing_of_all(state);
        let account = presentity.aor.account;
        let extension = presentity.aor.user.to_string();
        Lamp {
            name: self.settings.directory.name_of(account, &extension).map(String::from),
            extension,
            state: shown(&picture),
            changed_at: (state.changed_at != Tick(0)).then_some(state.changed_at.0),
            with: deciding(&picture).map(|call| other(&call.remote)).filter(|o| o.name.is_some() || o.number.is_some()),
            calls: state.calls.live().max(picture.calls.len()),
            messages_waiting: picture.mailbox.waiting,
            watchers,
            behind,
            failing,
        }
    }

    fn story_of(&self, now: Tick, presentity: &Presentity, state: &State) -> LampReport {
        let picture = state.composed(&presentity.uri);
        let lamp = self.lamp_of(presentity, state);
        let mut watching: Vec<_> =
            state.watchers.iter().filter(|s| !s.ended).map(|s| self.watcher_of(presentity, state, s)).collect();
        watching
            .sort_by(|a, b| (b.behind, b.failures, &a.watcher, &a.id).cmp(&(a.behind, a.failures, &b.watcher, &b.id)));
        watching.truncate(MOST_WATCHERS);
        let revision = |id: u8| RevisionRow {
            event: package::get(PackageId(id)).name(),
            revision: state.views[id as usize].revision.0,
        };
        LampReport {
            uri: presentity.uri.to_string(),
            why: why(now, state, &picture, lamp.state),
            manual: state.manual.map(state_word),
            live_calls: calls(state),
            calls_not_shown: state.calls.not_shown(),
            publications: state.publications.iter().map(publication).collect(),
            person: person(&picture),
            revisions: (0..REGISTRY.len() as u8).map(revision).collect(),
            watching,
            changes: Vec::new(),
            exchanges: Vec::new(),
            lamp,
        }
    }
}

/// Call that determines the lamp; none if there is no call. A manual state may override it: see [`shown`].
fn deciding<'a>(picture: &ComposedState<'a>) -> Option<&'a CallReport> {
    let ringing = |call: &&&CallReport| is_ringing(call);
    let calls = &picture.calls;
    let by_state = |state, held| calls.iter().find(|call| call.state == state && call.is_held() == held);
    calls
        .iter()
        .find(ringing)
        .or_else(|| by_state(CallState::Confirmed, false))
        .or_else(|| by_state(CallState::Confirmed, true))
        .or_else(|| calls.first())
        .copied()
}

fn is_ringing(call: &CallReport) -> bool {
    call.state == CallState::Early && call.direction != Some(Direction::Initiator)
}

/// State that a lamp shows.
pub(super) fn shown(picture: &ComposedState<'_>) -> LampState {
    let call = deciding(picture);
    let of_call = match call {
        Some(call) if is_ringing(call) => LampState::Ringing,
        Some(call) if call.state == CallState::Confirmed && call.is_held() => LampState::Held,
        Some(call) if call.state == CallState::Confirmed => LampState::Talking,
        Some(_) => LampState::Calling,
        None => LampState::Idle,
    };
    match picture.manual {
        Some(CallState::Early) => LampState::Ringing,
        Some(CallState::Confirmed) if of_call != LampState::Ringing => LampState::Talking,
        _ => of_call,
    }
}

fn calls(state: &State) -> Vec<CallRow> {
    let etag = |number| state.publications.iter().find(|p| p.etag.number == number).map(|p| p.etag.to_string());
    let mut rows: Vec<_> = state.calls.stories().collect();
    let rank: Vec<_> = state.calls.ranked().iter().map(|call| &*call.id).collect();
    rows.sort_by_key(|story| rank.iter().position(|id| *id == &*story.report.id));
    rows.iter()
        .map(|story| CallRow {
            id: story.report.id.to_string(),
            call_id: story.report.call_id.as_deref().map(String::from),
            state: state_word(story.report.state),
            direction: story.report.direction.map(|direction| match direction {
                Direction::Initiator => "initiator",
                Direction::Recipient => "recipient",
            }),
            held: story.report.is_held(),
            with: other(&story.report.remote),
            said_at: story.said.0,
            lapses_at: story.lapses.map(|at| at.0),
            held_by: story.holders.iter().filter_map(|number| etag(*number)).collect(),
        })
        .collect()
}

fn publication(p: &Publication) -> PublicationRow {
    let source = |origin: &Origin| SourceRow {
        from: origin.from.to_string(),
        address: origin.address.to_string(),
        transport: origin.transport.to_string(),
        user_agent: origin.user_agent.as_deref().map(String::from),
    };
    PublicationRow {
        etag: p.etag.to_string(),
        event: package::get(p.package).name(),
        expires_at: p.expires_at.0,
        changes: p.etag.generation,
        source: p.origin.as_deref().map(source),
    }
}

fn person(picture: &ComposedState<'_>) -> PersonRow {
    PersonRow {
        open: picture.person.basic.map(|basic| basic == Basic::Open),
        note: picture.person.note.as_deref().map(String::from),
        activities: picture.person.activities.iter().map(|a| a.to_string()).collect(),
        new_messages: picture.mailbox.counts[0].map(|counts| counts.new),
    }
}

/// Remote party of a call, in a form for people.
fn other(party: &Party) -> RemoteParty {
    let number = party.identity.as_deref().or(party.target.as_deref()).map(|uri| {
        let bare = uri.split_once(':').map_or(uri, |(_, rest)| rest);
        percent_decode(bare.split([';', '?']).next().unwrap_or(bare)).into_owned()
    });
    RemoteParty { name: party.display.as_deref().map(String::from), number }
}

fn why(now: Tick, state: &State, picture: &ComposedState<'_>, shown: LampState) -> Vec<String> {
    let mut why = Vec::new();
    if let Some(manual) = state.manual {
        why.push(format!("It was set to {} by hand, which holds until it is set or reset again.", state_word(manual)));
    }
    for story in state.calls.stories() {
        let call = story.report;
        let ago = now.0.saturating_sub(story.said.0) / 1_000;
        let id = call.call_id.as_deref().map_or_else(|| format!("Dialog {}", call.id), |id| format!("Call {id}"));
        let held = if call.is_held() { " and on hold" } else { "" };
        let mut line = format!("{id} is {}{held}, as published {ago} s ago", state_word(call.state));
        match story.holders.len() {
            1 => line.push_str(" by one publication"),
            n => line.push_str(&format!(" by {n} publications")),
        }
        if let Some(at) = story.lapses {
            let left = at.0.saturating_sub(now.0) / 1_000;
            line.push_str(&format!("; unless something is heard of it, it is forgotten in {left} s"));
        }
        why.push(line + ".");
    }
    if state.calls.not_shown() > 0 {
        let more = state.calls.not_shown();
        why.push(format!(
            "{more} more call(s) are live and keep it lit; no more than {MAX_SHOWN} are shown at a time."
        ));
    }
    for number in state.calls.with_more() {
        let etag = state.publications.iter().find(|p| p.etag.number == number).map(|p| p.etag.to_string());
        why.push(format!(
            "Publication {} has more live calls than can be told apart, which keeps it lit until that publication lists \
             fewer, or ends.",
            etag.unwrap_or_default()
        ));
    }
    if shown == LampState::Idle {
        why.push(match (state.publications.is_empty(), picture.calls.is_empty()) {
            (true, _) => "Nothing is published for it, so its lamp is idle.".into(),
            (false, _) => "What is published for it holds no live call, so its lamp is idle.".into(),
        });
    }
    let too_large = |s: &&Subscription| {
        matches!(s.delivery, Delivery::Suspended { .. }) && s.last().is_some_and(|last| last.reply == TOO_LARGE)
    };
    let untold = state.watchers.iter().filter(too_large).count();
    if untold > 0 {
        let octets = state.views.iter().filter_map(|view| view.settled.as_deref()).map(str::len).max().unwrap_or(0);
        why.push(format!(
            "{untold} watcher(s) cannot be told: a NOTIFY of this state, {octets} octets and its head, is too large for a \
             datagram (513), and they take no TCP connection from us."
        ));
    }
    let ended = state.calls.ended().count();
    if ended > 0 {
        why.push(format!("{ended} call(s) ended within the last five minutes; late news of them changes nothing."));
    }
    why
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Published => "published",
        Cause::PublicationExpired => "publication expired",
        Cause::CallLapsed => "call lapsed",
        Cause::Set => "set by hand",
        Cause::Reset => "reset by hand",
        Cause::RolledBack => "rolled back: the journal has refused a change",
    }
}

fn state_word(state: CallState) -> &'static str {
    match state {
        CallState::Trying => "trying",
        CallState::Proceeding => "proceeding",
        CallState::Early => "early",
        CallState::Confirmed => "confirmed",
        CallState::Terminated => "terminated",
    }
}
