//! Size limit of documents.
//!
//! A phone that accepts only datagrams gets no NOTIFY that is larger than a datagram. So a PUBLISH that would make
//! the document too large is refused, and changes nothing.

use super::response::Response;
use super::{MAX_DATAGRAM, Notifier};
use crate::package::dialog_info;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::PublicationNo;
use crate::presence::state::{CallReport, ComposedState, PublishedState};
use crate::sip::StatusCode;

/// Room for the header of a NOTIFY and the start of its document (octets): several times their usual size.
const HEADS: usize = 5_507;
/// Largest size of the part of a document that all watchers share (octets): a datagram without the room for the
/// headers.
pub(super) const MAX_DOCUMENT: usize = MAX_DATAGRAM - HEADS;
/// Upper bound for the markup of one dialog element, without its texts (octets).
const AROUND: usize = 400;
/// Upper bound for the length of an escaped octet (octets): `&quot;`.
const ESCAPED: usize = 6;

impl Notifier {
    /// Refuses a publication (413) that would make the dialog document larger than [`MAX_DOCUMENT`].
    ///
    /// If the document is too large already, a publication that makes it no larger is accepted; so is every end of a
    /// call. Changes nothing.
    pub(super) fn check_document_size(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &State,
        publication: PublicationNo,
        report: &PublishedState,
    ) -> Result<(), Response> {
        let PublishedState::Calls(report) = report else { return Ok(()) };
        let uri = &*presentity.uri;
        let most = |call: &CallReport| most_octets(call, uri);
        let bound =
            state.calls.ranked().into_iter().map(most).sum::<usize>() + report.calls.iter().map(most).sum::<usize>();
        // The cheap bound is enough nearly always. The exact check below costs as much as the change itself.
        if bound <= MAX_DOCUMENT {
            return Ok(());
        }
        let octets = |calls: Vec<&CallReport>| {
            dialog_info::tail(&ComposedState { uri, calls, manual: state.manual, ..ComposedState::default() }).len()
        };
        let mut changed = state.calls.clone();
        changed.apply(now, publication, report);
        let becomes = octets(changed.ranked());
        if becomes <= MAX_DOCUMENT || becomes <= octets(state.calls.ranked()) {
            return Ok(());
        }
        tracing::debug!(presentity = uri, octets = becomes, "a PUBLISH would make the document too large");
        let reason = format!("the document for watchers would exceed the limit of {MAX_DOCUMENT} octets");
        Err(Response::new(StatusCode::RequestEntityTooLarge, reason))
    }
}

/// Returns an upper bound for the size of one call in the document (octets).
fn most_octets(call: &CallReport, own_uri: &str) -> usize {
    let CallReport { id, call_id, local_tag, remote_tag, local, remote, .. } = call;
    let texts = [call_id, local_tag, remote_tag].into_iter().flatten().map(|text| text.len()).sum::<usize>();
    let parties = [local, remote].map(|party| {
        // The URI of a party, or our own URI in place of a missing one, may be written twice.
        let uris = [&party.identity, &party.target].map(|uri| uri.as_ref().map_or(own_uri.len(), |uri| uri.len()));
        2 * uris.into_iter().max().unwrap_or_default() + party.display.as_ref().map_or(0, |text| text.len())
    });
    AROUND + ESCAPED * (id.len() + texts + parties.iter().sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::state::{CallState, Direction, Party};

    #[test]
    fn the_bound_of_a_call_holds() {
        let text = |length: usize| Some("\"".repeat(length).into());
        for length in [0, 1, 100] {
            let party = Party { identity: text(length), display: text(length), target: text(2 * length) };
            let call = CallReport {
                id: "&".repeat(length).into(),
                call_id: text(length),
                local_tag: text(length),
                remote_tag: text(length),
                direction: Some(Direction::Initiator),
                state: CallState::Terminated,
                local: party.clone(),
                remote: Party { target: None, ..party },
                held: Some(true),
            };
            let picture = |calls| ComposedState { uri: "sip:1001@acme.test", calls, ..ComposedState::default() };
            let more =
                dialog_info::tail(&picture(vec![&call, &call])).len() - dialog_info::tail(&picture(vec![&call])).len();
            assert!(more <= most_octets(&call, "sip:1001@acme.test"), "{length}: {more}");
        }
    }
}
