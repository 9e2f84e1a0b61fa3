//! Display of the sender of a refusal: its address without port, and its texts without control characters.

use std::net::IpAddr;

/// Formats a network made by [`limited_as`](crate::transport::limited_as): `192.0.2.1`, or `2001:db8::/64`.
pub(super) fn shown(network: IpAddr) -> String {
    match network {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{ip}/64"),
    }
}

/// Returns the text of a peer, cut to `most` characters. Characters that would control a terminal, or change the
/// order in which other characters are shown, are replaced.
pub(crate) fn harmless(text: &str, most: usize) -> String {
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(most).map(|c| if acts(c) { '\u{fffd}' } else { c }).collect();
    if chars.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// Returns true for control characters, and for Unicode characters that are invisible or change the writing
/// direction.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_stands_for_its_64() {
        let of = |text: &str| shown(crate::transport::limited_as(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("::1"), "::/64");
    }

    #[test]
    fn text_of_peers_is_shortened_and_cannot_act() {
        assert_eq!(harmless("Yealink SIP-T46U", 64), "Yealink SIP-T46U");
        assert_eq!(harmless("a\r\n\u{1b}[31mb\u{202e}c", 64), "a\u{fffd}\u{fffd}\u{fffd}[31mb\u{fffd}c");
        assert_eq!(harmless("äöüäöü", 6), "äöüäöü");
        assert_eq!(harmless("äöüäöüß", 6), "äöüäö…");
    }
}
