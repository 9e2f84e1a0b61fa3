//! One dialog that a watcher has named (RFC 4235 section 3.2): of all calls, he wants to know of that alone.

use serde::{Deserialize, Serialize};

use super::state::CallReport;

/// What the Event of a SUBSCRIBE says of the dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogFilter {
    /// Its Call-ID.
    pub call_id: Box<str>,
    /// The tag of the watched side.
    pub to_tag: Option<Box<str>>,
    /// The tag of the other side; without it, every branch of the call is meant.
    pub from_tag: Option<Box<str>>,
    /// It has been there: when it is not any more, the subscription is over.
    pub seen: bool,
}

impl DialogFilter {
    /// Whether this call is meant. A tag that its publisher has left out speaks against nothing.
    pub fn is(&self, call: &CallReport) -> bool {
        let agrees =
            |named: &Option<Box<str>>, known: &Option<Box<str>>| named.is_none() || known.is_none() || named == known;
        call.call_id.as_ref() == Some(&self.call_id)
            && agrees(&self.to_tag, &call.local_tag)
            && agrees(&self.from_tag, &call.remote_tag)
    }
}
