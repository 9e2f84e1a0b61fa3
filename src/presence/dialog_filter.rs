//! Dialog filter of a subscription (RFC 4235 section 3.2): the watcher wants the state of one dialog, not of all
//! calls.

use serde::{Deserialize, Serialize};

use super::state::CallReport;

/// Dialog that the Event header of a SUBSCRIBE names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogFilter {
    /// Call-ID of the dialog.
    pub call_id: Box<str>,
    /// Tag of the watched side.
    pub to_tag: Option<Box<str>>,
    /// Tag of the other side; without it, every branch of the call is meant.
    pub from_tag: Option<Box<str>>,
    /// True once the dialog has been live. From then on, the end of the dialog ends the subscription.
    pub seen: bool,
}

impl DialogFilter {
    /// Returns true if this call is the named dialog. A tag that the publisher has left out matches any tag.
    pub fn is(&self, call: &CallReport) -> bool {
        let agrees =
            |named: &Option<Box<str>>, known: &Option<Box<str>>| named.is_none() || known.is_none() || named == known;
        call.call_id.as_ref() == Some(&self.call_id)
            && agrees(&self.to_tag, &call.local_tag)
            && agrees(&self.from_tag, &call.remote_tag)
    }
}
