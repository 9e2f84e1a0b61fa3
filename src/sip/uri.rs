//! SIP and SIPS URIs (RFC 3261 section 19.1), parsed in place.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use super::scan::{cut, trim, trim_end};
use super::simd::{find, is_printable};

/// Scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// `sip`
    Sip,
    /// `sips`
    Sips,
    /// Any other, as written.
    Other(&'a str),
}

impl<'a> Scheme<'a> {
    /// Parses the text before the colon.
    fn of(text: &'a str) -> Option<Scheme<'a>> {
        let token = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
        match text {
            s if s.eq_ignore_ascii_case("sip") => Some(Scheme::Sip),
            s if s.eq_ignore_ascii_case("sips") => Some(Scheme::Sips),
            s if s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.bytes().all(token) => Some(Scheme::Other(s)),
            _ => None,
        }
    }
}

/// Host of a SIP URI or of a Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A domain name, as written.
    Name(&'a str),
    /// IP address. An IPv6 address stands in brackets in the text.
    Ip(IpAddr),
}

impl<'a> Host<'a> {
    /// Parses `host` or `[v6]`.
    pub fn read(text: &'a str) -> Option<Host<'a>> {
        if let Some(inside) = text.strip_prefix('[') {
            return inside.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|a| Host::Ip(IpAddr::V6(a)));
        }
        if text.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && let Ok(v4) = text.parse()
        {
            return Some(Host::Ip(IpAddr::V4(v4)));
        }
        let sound = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        (!text.is_empty() && text.len() <= 255 && text.bytes().all(sound)).then_some(Host::Name(text))
    }

    /// IP address, if the host is one. An IPv4-mapped IPv6 address counts as IPv4 (RFC 5118 section 4.9).
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(ip.to_canonical()),
            Host::Name(_) => None,
        }
    }
}

/// Parses `host[:port]`, with blanks allowed around the colon.
pub(super) fn host_port(text: &str) -> Option<(Host<'_>, Option<u16>)> {
    let text = trim(text);
    // An IPv6 address contains colons, and stands in brackets.
    let colon = match text.starts_with('[') {
        true => text.bytes().rposition(|c| c == b':' || c == b']').filter(|at| text.as_bytes()[*at] == b':'),
        false => find(text.as_bytes(), b':'),
    };
    let (host, port) = match colon {
        Some(at) => (trim_end(&text[..at]), Some(trim(&text[at + 1..]))),
        None => (text, None),
    };
    let port = match port.map(str::as_bytes) {
        None => None,
        // `parse` would accept "+5060" as well.
        Some([b'0'..=b'9', ..]) => Some(port?.parse().ok()?),
        Some(_) => return None,
    };
    Some((Host::read(host)?, port))
}

/// URI, with its parts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Complete URI.
    pub text: &'a str,
    /// Its scheme.
    pub scheme: Scheme<'a>,
    /// User part with its escapes, without password. It may hold `;` and `=`.
    pub user: Option<&'a str>,
    /// Host. For schemes other than sip and sips, everything after the scheme, unchecked.
    pub host: Host<'a>,
    /// Port, where given.
    pub port: Option<u16>,
    /// Everything from the first `;` after the host up to the `?`.
    pub params: &'a str,
    /// Everything after the `?`.
    pub headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Parses a URI. For schemes other than sip and sips, only the scheme is checked.
    pub fn read(text: &'a str) -> Option<Uri<'a>> {
        let (scheme, rest) = match text.strip_prefix("sip:") {
            Some(rest) => (Scheme::Sip, rest),
            None => {
                let (scheme, rest) = cut(text, b':')?;
                (Scheme::of(scheme)?, rest)
            }
        };
        let harmful = |c: u8| (c <= b' ') | (c == b'<') | (c == b'>') | (c == b'"') | (c == 0x7f);
        if rest.is_empty() || !is_printable(rest.as_bytes(), b'!', *b"<>\"") && rest.bytes().any(harmful) {
            return None;
        }
        if let Scheme::Other(_) = scheme {
            return Some(Uri { text, scheme, user: None, host: Host::Name(rest), port: None, params: "", headers: "" });
        }
        // The user part may hold ';', '?' and '/', so the '@' is searched first (RFC 4475 section 3.1.1.9).
        let (user, rest) = match cut(rest, b'@') {
            Some((userinfo, rest)) => (Some(cut(userinfo, b':').map_or(userinfo, |(user, _)| user)), rest),
            None => (None, rest),
        };
        if user == Some("") {
            return None;
        }
        let (host, params, headers) = match rest.bytes().position(|c| matches!(c, b'@' | b'?' | b';')) {
            None => (rest, "", ""),
            Some(_) if rest.bytes().any(|c| c == b'@') => return None,
            Some(_) => {
                let (rest, headers) = cut(rest, b'?').unwrap_or((rest, ""));
                let (host, params) = cut(rest, b';').unwrap_or((rest, ""));
                (host, params, headers)
            }
        };
        let (host, port) = host_port(host)?;
        Some(Uri { text, scheme, user, host, port, params, headers })
    }

    /// URI parameter: none if absent, `Some("")` if it has no value. Names compare without case.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        if self.params.is_empty() {
            return None;
        }
        self.params.split(';').find_map(|p| {
            let (key, value) = p.split_once('=').unwrap_or((p, ""));
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// User with its escapes resolved (RFC 3261 section 19.1.4). An invalid escape stays as it is.
    pub fn decoded_user(&self) -> Option<Cow<'a, str>> {
        self.user.map(percent_decode)
    }

    /// URI in a form that may stand in a Request-URI: without `method` and headers (RFC 3261 section 19.1.1, table
    /// 1).
    pub fn without_method_and_headers(&self) -> Cow<'a, str> {
        if self.headers.is_empty() && self.param("method").is_none() {
            return Cow::Borrowed(self.text.trim_end_matches('?'));
        }
        let name = |param: &str| param.split('=').next().unwrap_or_default().to_ascii_lowercase();
        let kept = self.params.split(';').filter(|param| !param.is_empty() && name(param) != "method");
        Cow::Owned(kept.fold(self.address().to_string(), |uri, param| uri + ";" + param))
    }

    /// Part before parameters and headers: `scheme:user@host:port` as written.
    pub fn address(&self) -> &'a str {
        let tail = self.params.len() + self.headers.len();
        if tail == 0 {
            return self.text.trim_end_matches([';', '?']);
        }
        // Both parts are slices of `text` at its end, with one separator before each that is there.
        let separators = usize::from(!self.params.is_empty()) + usize::from(!self.headers.is_empty());
        let end = self.text.len().saturating_sub(tail + separators);
        self.text.get(..end).unwrap_or(self.text).trim_end_matches([';', '?'])
    }
}

/// User part of a SIP URI that was parsed before, equal to [`Uri::user`]. Faster than parsing again, for URIs that
/// are written often.
pub fn user_of(uri: &str) -> Option<&str> {
    let (userinfo, _) = cut(cut(uri, b':')?.1, b'@')?;
    Some(cut(userinfo, b':').map_or(userinfo, |(user, _)| user))
}

/// Resolves `%HH`. A `%` without two hexadecimal digits stays as written. If the result is not UTF-8, the whole text
/// does.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let digit = |i: usize| bytes.get(i).and_then(|c| (*c as char).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (c, ..) => {
                out.push(c);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::read(text).unwrap_or_else(|| panic!("{text} should be a URI"))
    }

    #[test]
    fn the_parts_of_a_uri_are_found_where_the_grammar_puts_them() {
        let u = uri("sip:john.doe:secret@[2001:db8::7]:5070;transport=tcp;lr?Subject=x");
        assert_eq!((u.scheme, u.user, u.port), (Scheme::Sip, Some("john.doe"), Some(5070)));
        assert_eq!(u.host.ip(), Some("2001:db8::7".parse().unwrap()));
        assert_eq!((u.param("TRANSPORT"), u.param("lr"), u.param("ob")), (Some("tcp"), Some(""), None));
        assert_eq!(u.headers, "Subject=x");
        assert_eq!(u.address(), "sip:john.doe:secret@[2001:db8::7]:5070");
    }

    #[test]
    fn a_user_may_hold_semicolons_and_question_marks() {
        let u = uri("sip:user;par=u%40example.net@example.com");
        assert_eq!(u.decoded_user().as_deref(), Some("user;par=u@example.net"));
        assert_eq!((u.params, u.address()), ("", u.text));
        assert_eq!(uri("sip:a?b@example.com;x").user, Some("a?b"));
    }

    #[test]
    fn an_address_without_port_is_not_taken_for_one_with() {
        assert_eq!(uri("sip:[2001:db8::10:5070]").port, None);
        assert_eq!(uri("sip:[2001:db8::10]:5070").port, Some(5070));
        assert_eq!(uri("sip:w@[::ffff:192.0.2.10]").host.ip(), Some("192.0.2.10".parse().unwrap()));
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for bad in [
            "",
            "sip",
            ":x",
            "sip:",
            "sip:@host",
            "sip:a@",
            "sip:a@b@c",
            "sip:a b@c",
            "sip:2001:db8::10",
            "sip:a@b:99999",
            "sip:a@b:",
            "sip:a@b:5x",
            "sip:[2001:db8:::192.0.2.1]",
            "sip:[fe80::1%25eth0]",
            "<sip:a@b>",
            "1sip:a",
            "sip:a@b;\"",
        ] {
            assert!(Uri::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_user_of_a_uri_that_was_read_is_found_again() {
        for text in [
            "sip:john.doe:secret@[2001:db8::7]:5070;x=1",
            "sips:a@b",
            "sip:b",
            "SIP:a;b?c@d?e=f@",
            "sip:[2001:db8::7]:1",
        ] {
            if let Some(read) = Uri::read(text) {
                assert_eq!(user_of(text), read.user, "{text}");
            }
        }
    }

    #[test]
    fn other_schemes_are_named_and_not_looked_into() {
        assert_eq!(uri("tel:+1555").scheme, Scheme::Other("tel"));
        assert_eq!(uri("SIPS:a@b").scheme, Scheme::Sips);
    }

    #[test]
    fn an_address_is_what_stands_before_parameters() {
        for (text, address) in [
            ("sip:a@b", "sip:a@b"),
            ("sip:a@b;x=1", "sip:a@b"),
            ("sip:a@b?h=1", "sip:a@b"),
            ("sip:a@b;x?h=1", "sip:a@b"),
            ("sip:a@b;", "sip:a@b"),
        ] {
            assert_eq!(uri(text).address(), address);
        }
    }

    #[test]
    fn escapes_are_resolved_and_lone_percents_kept() {
        assert_eq!(percent_decode("%2A3101"), "*3101");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%Z%45"), "%ZE");
        assert_eq!(percent_decode("null-%00-null"), "null-\0-null");
        assert_eq!(percent_decode("%ff"), "%ff");
    }
}
