//! People and phones of the demo office.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Account id of the office.
pub const ACCOUNT: &str = "de300000000000000000000000000002";
/// Realm of the office.
pub(super) const REALM: &str = "office.lamplighter.test";

/// A person and their phone.
pub(super) struct Person {
    pub(super) extension: &'static str,
    pub(super) name: &'static str,
    pub(super) user_agent: &'static str,
    /// Delay of the phone's responses (ms).
    pub(super) slowness: u64,
    /// Number of lamps on the phone.
    pub(super) lamps: usize,
    /// True if the phone gets calls from outside more often than others.
    pub(super) front_desk: bool,
}

const fn person(
    extension: &'static str,
    name: &'static str,
    user_agent: &'static str,
    slowness: u64,
    lamps: usize,
) -> Person {
    Person { extension, name, user_agent, slowness, lamps, front_desk: false }
}

const YEALINK: &str = "Yealink SIP-T46U 108.86.0.45";
const POLY: &str = "PolyVVX-VVX_450-UA/6.4.3.5014";
const SNOM: &str = "snomD785/10.1.169.16";
const GRANDSTREAM: &str = "Grandstream GXP2170 1.0.11.64";
const CISCO: &str = "Cisco-CP-8851-3PCC/12.0.3";
const FANVIL: &str = "Fanvil X6U 2.12.1";

pub(super) const PEOPLE: [Person; 18] = [
    Person { front_desk: true, ..person("100", "Front desk", YEALINK, 6, 17) },
    Person { front_desk: true, ..person("101", "Amara Osei", YEALINK, 8, 17) },
    person("102", "Ben Lindqvist", POLY, 14, 12),
    person("103", "Chiara Conti", SNOM, 11, 12),
    person("104", "Dariusz Nowak", YEALINK, 9, 10),
    person("105", "Elif Demir", GRANDSTREAM, 22, 8),
    person("106", "Farid Haddad", CISCO, 17, 10),
    person("107", "Grace Mbeki", POLY, 12, 8),
    person("108", "Hugo Almeida", SNOM, 10, 8),
    person("109", "Ines Castillo", YEALINK, 7, 12),
    person("110", "Jonas Weber", FANVIL, 28, 6),
    person("111", "Keiko Tanaka", POLY, 13, 10),
    person("112", "Leo Marchetti", GRANDSTREAM, 24, 6),
    person("113", "Mina Park", YEALINK, 8, 8),
    person("114", "Noor de Vries", SNOM, 12, 6),
    person("115", "Oskar Lund", CISCO, 18, 6),
    person("200", "Meeting room", POLY, 15, 4),
    person("201", "Workshop", FANVIL, 35, 4),
];

/// Index in [`PEOPLE`] of the phone that is unplugged now and then.
pub(super) const WORKSHOP: usize = 17;

/// Callers from outside: name and number.
pub(super) const CALLERS: [(&str, &str); 10] = [
    ("Harbour Bakery", "+15550100142"),
    ("Dr. Ravi Menon", "+15550100177"),
    ("Northgate School", "+15550100120"),
    ("Paula Reyes", "+15550100163"),
    ("Customs Office", "+15550100109"),
    ("Silverline Taxi", "+15550100184"),
    ("Theo Brandt", "+15550100131"),
    ("Linen & Loom", "+15550100158"),
    ("City Archive", "+15550100115"),
    ("Yara Haugen", "+15550100191"),
];

/// Configuration of the demo server.
pub(super) fn configuration(sip: SocketAddr, open: Option<SocketAddr>, http: SocketAddr, token: &str) -> String {
    let all = [Some(sip), open.filter(|open| *open != sip)];
    let listen: Vec<_> = all.into_iter().flatten().map(|at| format!("\"udp://{at}\", \"tcp://{at}\"")).collect();
    let listen = listen.join(", ");
    let mut text = format!(
        "sip = {{ listen = [{listen}] }}\naccess = {{ allow_unauthenticated = {} }}\nhttp = {{ listen = \"{http}\" }}\ndata = {{ durability = \"memory\" }}\n\
         log = {{ level = \"warn\" }}\n[[token]]\nvalue = \"{token}\"\naccount = \"{ACCOUNT}\"\n\
         [[account]]\nid = \"{ACCOUNT}\"\nname = \"Office\"\nrealm = \"{REALM}\"\n",
        open.is_some()
    );
    for Person { extension, name, .. } in &PEOPLE {
        let _ = write!(
            text,
            "[[account.user]]\nid = \"u{extension}\"\nusername = \"{name}\"\n\
             [[account.device]]\nid = \"d{extension}\"\nowner_id = \"u{extension}\"\nsip = {{ username = \"{extension}\" }}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_is_right() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = Config::parse(&configuration(here, None, here, "t"), "demo").unwrap();
        assert_eq!(config.sip.listen.len(), 2);
        let there = SocketAddr::from(([192, 0, 2, 10], 5060));
        let open = Config::parse(&configuration(here, Some(there), here, "t"), "demo").unwrap();
        assert_eq!((open.sip.listen.len(), open.access.allow_unauthenticated), (4, true));
        assert_eq!(config.accounts[0].devices.len(), PEOPLE.len());
        assert_eq!(PEOPLE[WORKSHOP].name, "Workshop");
    }
}
