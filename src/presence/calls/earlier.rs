//! Layout of calls in the first journals. Frozen: it does not follow later changes of [`Calls`].

use std::collections::VecDeque;

use serde::Deserialize;

use super::{Call, Calls, Tombstone};
use crate::presence::Tick;
use crate::presence::publication::PublicationNo;
use crate::presence::state::{CallReport, CallState, Direction, Party};

/// Calls of a presentity in the earlier layout, to be read and converted.
#[derive(Debug, Deserialize)]
pub struct EarlierCalls {
    live: Vec<EarlierCall>,
    ended: VecDeque<EarlierTombstone>,
}

#[derive(Debug, Deserialize)]
struct EarlierCall {
    report: EarlierReport,
    published_id: Box<str>,
    holders: Vec<PublicationNo>,
    said: Tick,
}

#[derive(Debug, Deserialize)]
struct EarlierTombstone {
    report: EarlierReport,
    until: Tick,
}

#[derive(Debug, Deserialize)]
struct EarlierReport {
    id: Box<str>,
    call_id: Option<Box<str>>,
    local_tag: Option<Box<str>>,
    remote_tag: Option<Box<str>>,
    direction: Option<Direction>,
    state: CallState,
    local: Party,
    remote: Party,
    held: bool,
}

impl From<EarlierReport> for CallReport {
    fn from(earlier: EarlierReport) -> CallReport {
        let EarlierReport { id, call_id, local_tag, remote_tag, direction, state, local, remote, held } = earlier;
        CallReport { id, call_id, local_tag, remote_tag, direction, state, local, remote, held: Some(held) }
    }
}

impl From<EarlierCalls> for Calls {
    fn from(earlier: EarlierCalls) -> Calls {
        let call = |EarlierCall { report, published_id, holders, said }| Call {
            report: report.into(),
            published_id,
            holders,
            said,
        };
        let tombstone = |EarlierTombstone { report, until }| Tombstone { report: report.into(), until };
        Calls {
            live: earlier.live.into_iter().map(call).collect(),
            ended: earlier.ended.into_iter().map(tombstone).collect(),
            ..Calls::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One ringing call and one that has ended, as a server with that layout wrote them.
    const KEPT: &str = "010463312d3201066331407062780101610101620101020000000111\
        7369703a626f624061636d652e746573740103426f6200010263310207ac0280d8c1a28c3401046f76\
        657201086f766572407062780000000400000000000000e0ffd3a28c34";

    fn kept() -> Vec<u8> {
        let octet = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        KEPT.as_bytes().chunks(2).map(octet).collect()
    }

    #[test]
    fn calls_of_an_earlier_journal_are_read() {
        let earlier: EarlierCalls = postcard::from_bytes(&kept()).unwrap();
        let calls = Calls::from(earlier);
        let shown: Vec<_> = calls.ranked().iter().map(|call| (&*call.id, call.remote_tag.as_deref())).collect();
        assert_eq!(shown, [("c1-2", Some("b"))]);
        let story = calls.stories().next().unwrap();
        assert_eq!((story.holders, story.said), (&[PublicationNo(7), PublicationNo(300)][..], Tick(1_790_000_000_000)));
        assert_eq!(calls.ended().map(|call| call.call_id.as_deref()).collect::<Vec<_>>(), [Some("over@pbx")]);
    }
}
