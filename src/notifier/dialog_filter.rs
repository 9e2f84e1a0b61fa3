//! Watchers of a single dialog, which their Event header names (RFC 4235 section 3.2). Each has a document of its own,
//! while all other watchers share one. The subscription ends with the dialog.

use super::{Notifier, Outbox};
use crate::package::{self, PackageId, dialog_info};
use crate::presence::dialog_filter::DialogFilter;
use crate::presence::intern::InternedStr;
use crate::presence::presentity::{Presentity, State};
use crate::presence::state::CallState;
use crate::sip::headers::Event;

/// Dialog that an Event header names, if it names one.
pub(super) fn dialog_filter_of(package: PackageId, event: &Event<'_>) -> Option<DialogFilter> {
    if package::get(package).name() != dialog_info::NAME {
        return None;
    }
    let word = |name| event.param(name).map(Box::from);
    let call_id = word("call-id")?;
    Some(DialogFilter { call_id, to_tag: word("to-tag"), from_tag: word("from-tag"), seen: false })
}

impl Notifier {
    /// Shared part of the document for a watcher of a single dialog; none for all other watchers. If the dialog has
    /// ended, this ends the subscription, and the NOTIFY that is made now is the last.
    pub(super) fn filtered_body(
        &self,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) -> Option<InternedStr> {
        let subscription = state.watchers.get_mut(slot)?;
        let (named, package) = (subscription.named()?.clone(), subscription.package);
        let picture = state.composed_for(&presentity.uri, &named);
        let live = picture.calls.iter().any(|call| call.state != CallState::Terminated);
        let over = !live && (named.seen || !picture.calls.is_empty());
        let mut tail = String::with_capacity(512);
        package::get(package).write_tail(&picture, &mut tail);
        let subscription = state.watchers.get_mut(slot)?;
        if over && !subscription.ended {
            subscription.ended = true;
            self.journal_subscription_removed(presentity, slot, out);
        }
        if let Some(named) = subscription.options.as_mut().and_then(|particulars| particulars.named.as_mut()) {
            named.seen |= live;
        }
        Some(tail.into())
    }
}
