//! Filter of captured messages: all messages, or those from or to a realm or an address.

use std::collections::HashSet;

use crate::sip::headers::NameAddr;
use crate::sip::uri::{Host, Uri};
use crate::sip::wire::{Head, Name, StartLine};

/// Filter by realm and address.
#[derive(Debug, Default)]
pub(super) struct Filter {
    all: bool,
    /// Realms, in lower case.
    realms: HashSet<String>,
    /// Addresses as `user@host`, in lower case.
    addresses: HashSet<String>,
}

/// Parses the head of a message; none if it is malformed.
pub(super) fn head_of(bytes: &[u8]) -> Option<Head<'_>> {
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    Head::find(std::str::from_utf8(&bytes[..end]).ok()?).ok().map(|(head, _)| head)
}

impl Filter {
    /// Creates a filter from `hep.traffic`: `"all"`, realms and addresses.
    pub(super) fn of(traffic: &[String]) -> Filter {
        let mut choice = Filter::default();
        for wanted in traffic {
            let wanted = wanted.to_ascii_lowercase();
            match wanted.contains('@') {
                true => drop(choice.addresses.insert(wanted)),
                false if wanted == "all" => choice.all = true,
                false => drop(choice.realms.insert(wanted)),
            }
        }
        choice
    }

    /// Returns true if a message is to be captured: its Request-URI, From or To matches. A malformed message matches
    /// only "all".
    pub(super) fn wants(&self, head: Option<&Head<'_>>) -> bool {
        if self.all {
            return true;
        }
        let Some(head) = head else { return false };
        let target = match head.start {
            StartLine::Request { uri, .. } => Uri::read(uri),
            StartLine::Response { .. } => None,
        };
        let party = |name| NameAddr::read(head.first(name)?).and_then(|party| Uri::read(party.uri));
        [target, party(Name::From), party(Name::To)].into_iter().flatten().any(|uri| self.names(&uri))
    }

    fn names(&self, uri: &Uri<'_>) -> bool {
        let host = match uri.host {
            Host::Name(name) => name.trim_end_matches('.').to_ascii_lowercase(),
            Host::Ip(ip) => ip.to_string(),
        };
        if self.realms.contains(&host) {
            return true;
        }
        let user = uri.decoded_user().filter(|_| !self.addresses.is_empty());
        user.is_some_and(|user| self.addresses.contains(&format!("{}@{host}", user.to_ascii_lowercase())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(traffic: &[&str], message: &str) -> bool {
        let traffic: Vec<_> = traffic.iter().map(|wanted| (*wanted).to_owned()).collect();
        Filter::of(&traffic).wants(head_of(message.as_bytes()).as_ref())
    }

    const SUBSCRIBE: &str = "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nFrom: \"x\" <sip:1002@Acme.test>;tag=1\r\n\
                             To: <sip:1001@acme.test>\r\n\r\n";
    const NOTIFY: &str = "NOTIFY sip:1002@192.0.2.9 SIP/2.0\r\nFrom: <sip:1001@acme.test>;tag=2\r\n\
                          t: <sip:1002@acme.test>;tag=1\r\n\r\n\u{ff}";
    const REPLY: &str = "SIP/2.0 200 OK\r\nf: <sip:1001@acme.test>;tag=2\r\nTo: <sip:1002@acme.test>;tag=1\r\n\r\n";

    #[test]
    fn all_is_all_even_what_cannot_be_read() {
        assert!(wants(&["all"], SUBSCRIBE) && wants(&["all"], "noise"));
        assert!(!wants(&["acme.test"], "noise"));
    }

    #[test]
    fn a_realm_or_an_address_is_wanted_in_both_directions() {
        for message in [SUBSCRIBE, NOTIFY, REPLY] {
            assert!(wants(&["acme.test"], message) && wants(&["other.test", "1002@ACME.test"], message));
            assert!(!wants(&["umbrella.test"], message) && !wants(&["1003@acme.test"], message));
        }
    }
}
