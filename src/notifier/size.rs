//! How large a document may become. A phone that takes datagrams only is told nothing by a NOTIFY that no datagram holds,
//! so the PUBLISH that would make the document so large is refused, and has changed nothing.

use super::answer::Answer;
use super::{MAX_DATAGRAM, Notifier};
use crate::package::dialog_info;
use crate::presence::Tick;
use crate::presence::facts::{CallReport, Picture, Report};
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::PublicationNo;
use crate::sip::StatusCode;

/// What the head of a NOTIFY and the head of its document have room for (octets): several times what they need.
const HEADS: usize = 5_507;
/// The largest part of a document that its watchers share (octets): a datagram less the heads.
pub(super) const MAX_DOCUMENT: usize = MAX_DATAGRAM - HEADS;
/// No dialog is longer around its texts (octets).
const AROUND: usize = 400;
/// Escaping makes no octet longer than that (octets): `&quot;`.
const ESCAPED: usize = 6;

impl Notifier {
    /// Refuses (413) the report of a publication that would make the document of the calls larger than [`MAX_DOCUMENT`].
    /// What makes a document that is larger no longer than it is passes, and so does every end. Changes nothing.
    pub(super) fn check_document_size(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &State,
        publication: PublicationNo,
        report: &Report,
    ) -> Result<(), Answer> {
        let Report::Calls(report) = report else { return Ok(()) };
        let uri = &*presentity.uri;
        let most = |call: &CallReport| most_octets(call, uri);
        let bound =
            state.calls.ranked().into_iter().map(most).sum::<usize>() + report.calls.iter().map(most).sum::<usize>();
        // Nearly always. What follows costs as much as the change itself.
        if bound <= MAX_DOCUMENT {
            return Ok(());
        }
        let octets = |calls: Vec<&CallReport>| {
            dialog_info::tail(&Picture { uri, calls, manual: state.manual, ..Picture::default() }).len()
        };
        let mut changed = state.calls.clone();
        changed.apply(now, publication, report);
        let becomes = octets(changed.ranked());
        if becomes <= MAX_DOCUMENT || becomes <= octets(state.calls.ranked()) {
            return Ok(());
        }
        tracing::debug!(presentity = uri, octets = becomes, "a PUBLISH would make the document too large");
        let reason = format!("the document for watchers would exceed the limit of {MAX_DOCUMENT} octets");
        Err(Answer::new(StatusCode::RequestEntityTooLarge, reason))
    }
}

/// No call is written in more octets.
fn most_octets(call: &CallReport, own_uri: &str) -> usize {
    let CallReport { id, call_id, local_tag, remote_tag, local, remote, .. } = call;
    let texts = [call_id, local_tag, remote_tag].into_iter().flatten().map(|text| text.len()).sum::<usize>();
    let parties = [local, remote].map(|party| {
        // One of them, or our own, may be written twice.
        let uris = [&party.identity, &party.target].map(|uri| uri.as_ref().map_or(own_uri.len(), |uri| uri.len()));
        2 * uris.into_iter().max().unwrap_or_default() + party.display.as_ref().map_or(0, |text| text.len())
    });
    AROUND + ESCAPED * (id.len() + texts + parties.iter().sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::facts::{CallState, Direction, Party};

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
            let picture = |calls| Picture { uri: "sip:1001@acme.test", calls, ..Picture::default() };
            let more =
                dialog_info::tail(&picture(vec![&call, &call])).len() - dialog_info::tail(&picture(vec![&call])).len();
            assert!(more <= most_octets(&call, "sip:1001@acme.test"), "{length}: {more}");
        }
    }
}
