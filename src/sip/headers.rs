//! Parsers for header values (RFC 3261 section 20). Values are parsed in place, and only on demand.

use std::borrow::Cow;

use super::Transport;
use super::scan::{closes, cut, cut_at_blank, find_outside, is_blank, is_plain, split, trim, trim_start};
use super::simd::{find, is_printable};
use super::uri::{Host, host_port};
use super::wire::{Name, is_token};

/// First item of a comma-separated value as written, and the rest with its comma.
pub fn split_first(value: &str) -> (&str, &str) {
    value.split_at(find_outside(value, b',').unwrap_or(value.len()))
}

/// Items of a comma-separated value, without blanks around them. Commas inside quotes and brackets do not separate.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    split(value, b',').map(trim)
}

/// Name and value of a parameter, without blanks around them. A missing value is empty.
pub(super) fn name_and_value(param: &str) -> (&str, &str) {
    let (name, value) = cut(param, b'=').unwrap_or((param, ""));
    (trim(name), trim(value))
}

/// Parameters of a value, separated by `;`.
fn params(text: &str) -> impl Iterator<Item = (&str, &str)> {
    pieces(text, is_plain(text)).map(name_and_value)
}

/// Pieces between the `;` of a text. `plain` tells whether the text is [plain](is_plain), which makes the search
/// faster.
#[inline]
fn pieces(text: &str, plain: bool) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = if plain { find(text.as_bytes(), b';') } else { find_outside(text, b';') };
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Value of the first parameter with this name. Names compare without case.
pub fn param<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    params(text).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Value without its quotes and escapes (quoted-string, RFC 3261 section 25.1).
pub(super) fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.into() };
    if !inner.contains('\\') {
        return inner.into();
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text.into()
}

/// Item of a From, To, Contact, Route or Record-Route header: `"name" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Item as written.
    pub text: &'a str,
    /// URI, without brackets.
    pub uri: &'a str,
    /// Parameters of the header, not of the URI (RFC 3261 section 20.10), without the first `;`.
    pub params: &'a str,
    /// `tag` parameter, which may be empty or invalid.
    tag: Option<&'a str>,
}

impl<'a> NameAddr<'a> {
    /// Parses one item. Without brackets, all parameters are the header's, and a URI that needs brackets is rejected.
    pub fn read(text: &'a str) -> Option<NameAddr<'a>> {
        NameAddr::read_plain(text).or_else(|| NameAddr::read_any(text))
    }

    /// Parses the usual form fast: `<uri>` or `<uri>;params` without blanks, quotes and commas.
    pub fn read_plain(text: &'a str) -> Option<NameAddr<'a>> {
        let inside = text.strip_prefix('<')?;
        if !is_printable(inside.as_bytes(), b'!', *b"\",<") || inside.ends_with(';') {
            return None;
        }
        let end = find(inside.as_bytes(), b'>')?;
        let (uri, after) = (&inside[..end], &inside[end + 1..]);
        let params = if after.is_empty() { "" } else { after.strip_prefix(';')? };
        if !uri.bytes().any(|c| c == b':') {
            return None;
        }
        let tag = match params.strip_prefix("tag=") {
            Some(tag) if find(tag.as_bytes(), b';').is_none() => Some(tag),
            _ => only(params, "tag")?,
        };
        Some(NameAddr { text, uri, params, tag })
    }

    fn read_any(text: &'a str) -> Option<NameAddr<'a>> {
        // Separators at the end are ignored, because we append parameters there.
        let text = trim_start(text);
        let end = text.bytes().rposition(|c| c != b';' && !is_blank(c)).map_or(0, |last| last + 1);
        let text = &text[..end];
        let (uri, params) = match find_outside(text, b'<') {
            // An unquoted comma would split the value when we send it back (RFC 4475 section 3.1.2.15).
            Some(open) if find_outside(&text[..open], b',').is_some() => return None,
            Some(open) => {
                let (uri, after) = cut(&text[open + 1..], b'>')?;
                let after = trim_start(after);
                (uri, if after.is_empty() { "" } else { after.strip_prefix(';')? })
            }
            None => {
                let (uri, params) = cut(text, b';').unwrap_or((text, ""));
                (Some(trim(uri)).filter(|uri| !uri.bytes().any(|c| c == b'?' || c == b','))?, params)
            }
        };
        let sound = |params| closes(params) && find_outside(params, b',').is_none() && is_writable(params);
        if !sound_uri(uri) || !(is_plain(params) || sound(params)) {
            return None;
        }
        let tag = only(params, "tag")?;
        Some(NameAddr { text, uri, params, tag })
    }

    /// Dialog tag (RFC 3261 section 19.3), if there is one.
    pub fn tag(&self) -> Option<&'a str> {
        self.tag.filter(|tag| !tag.is_empty())
    }

    /// Returns true if there is a `tag` parameter, valid or not.
    pub(super) fn has_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// Returns true unless there is an invalid tag. Tags may hold more characters than the grammar allows, if they
    /// are harmless.
    pub(super) fn tag_is_sound(&self) -> bool {
        let harmful = |c: u8| c <= b' ' || matches!(c, b'"' | b'<' | b'>' | 0x7f);
        self.tag.is_none_or(|tag| !tag.is_empty() && !tag.bytes().any(harmful))
    }
}

/// Value of a parameter that identifies something; `Some(None)` if it is absent.
///
/// None if it occurs twice (RFC 3261 section 7.3.1): a proxy and we might then see different dialogs, transactions or
/// subscriptions.
fn only<'a>(text: &'a str, wanted: &str) -> Option<Option<&'a str>> {
    if text.is_empty() {
        return Some(None);
    }
    let mut found = None;
    for (name, value) in params(text).filter(|(name, _)| name.eq_ignore_ascii_case(wanted)) {
        if found.replace((name, value)).is_some() {
            return None;
        }
    }
    Some(found.map(|(_, value)| value))
}

/// Returns true if parameters can be sent back unchanged. The writer replaces control characters by blanks, and a
/// blank in the place of another character may change a name into one that has a meaning, such as `tag`.
fn is_writable(params: &str) -> bool {
    !params.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
}

/// Returns true if two separators of an item follow each other, which is always a mistake (RFC 4475 section 3.1.2.1).
/// A separator at the end is harmless.
pub fn has_stray_separators(item: &str) -> bool {
    if item.bytes().filter(|c| *c == b';').count() < 2 {
        return false;
    }
    let params = || split(item, b';').skip(1);
    params().zip(params().skip(1)).any(|(param, _)| trim(param).is_empty())
}

fn sound_uri(uri: &str) -> bool {
    let mut scheme = false;
    let sound = |c: u8| {
        scheme |= c == b':';
        c > b' ' && !matches!(c, b'"' | b'<' | 0x7f)
    };
    uri.bytes().all(sound) && scheme
}

/// CSeq value (RFC 3261 section 8.1.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Sequence number, below 2^31.
    pub number: u32,
    /// Method, as written.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    /// Parses `number method`.
    pub fn read(value: &'a str) -> Option<CSeq<'a>> {
        let (number, method) = cut_at_blank(value)?;
        let number = digits(number).filter(|n| *n < 1 << 31)?;
        let method = trim(method);
        let whole = is_printable(method.as_bytes(), b'!', []) || !method.bytes().any(is_blank);
        (!method.is_empty() && whole).then_some(CSeq { number: number as u32, method })
    }
}

/// Parses a number that consists of digits only.
fn digits(text: &str) -> Option<u64> {
    // `parse` would accept "+1" as well.
    text.as_bytes().first()?.is_ascii_digit().then(|| text.parse().ok())?
}

/// Seconds of an Expires or Min-Expires value. None if it is no number below 2^32 (RFC 3261 section 20.19).
pub fn seconds(value: &str) -> Option<u32> {
    digits(trim(value)).and_then(|n| u32::try_from(n).ok())
}

/// Seconds of a Retry-After value, which may be followed by a comment and parameters (RFC 3261 section 20.33).
pub fn retry_after(value: &str) -> Option<u32> {
    let end = value.bytes().position(|c| !c.is_ascii_digit()).unwrap_or(value.len());
    seconds(&value[..end])
}

/// Via value (RFC 3261 section 20.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// Item as written, without anything from a comma on.
    pub text: &'a str,
    /// Transport; none if it is unknown.
    pub transport: Option<Transport>,
    /// Host of sent-by.
    pub host: Host<'a>,
    /// Port of sent-by, where given.
    pub port: Option<u16>,
    /// Host and port as written.
    pub sent_by: &'a str,
    /// Parameters as written.
    pub params: &'a str,
    branch: Option<&'a str>,
    rport: bool,
    /// Text before and after the `rport` parameter. None if the Via has to be searched before it can be stamped with
    /// the source address.
    around_rport: Option<(&'a str, &'a str)>,
}

/// Prefix of a branch of RFC 3261.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

impl<'a> Via<'a> {
    /// Parses the first item of a Via header.
    pub fn first_of(value: &'a str) -> Option<Via<'a>> {
        match is_plain(value) {
            true => Via::read(trim(value), true),
            false => Via::read(list(value).next()?, false),
        }
    }

    /// Parses one item. `plain` tells whether it is known to be [plain](is_plain).
    fn read(text: &'a str, plain: bool) -> Option<Via<'a>> {
        let rest = match text.strip_prefix("SIP/2.0/") {
            Some(rest) => rest,
            None => {
                let (name, rest) = cut(text, b'/')?;
                let (version, rest) = cut(rest, b'/')?;
                if !trim(name).eq_ignore_ascii_case("SIP") || trim(version) != "2.0" {
                    return None;
                }
                rest
            }
        };
        let (transport, rest) = cut_at_blank(trim_start(rest)).filter(|(transport, _)| is_token(transport))?;
        let (sent_by, params_text) = cut(rest, b';').map_or((rest, None), |(by, rest)| (by, Some(rest)));
        let (mut branch, mut rport, mut around_rport) = (None, false, plain.then_some((text, "")));
        if let Some(all) = params_text {
            // The parameters are the end of the text.
            let mut at = text.len() - all.len();
            for param in pieces(all, plain || is_plain(all)) {
                let (name, value) = name_and_value(param);
                let behind = at + param.len();
                match name.len() {
                    0 => return None,
                    // With two branches, it is unclear which transaction is meant.
                    6 if name.eq_ignore_ascii_case("branch") && branch.replace(value).is_some() => return None,
                    5 if name.eq_ignore_ascii_case("rport") => {
                        around_rport = around_rport.filter(|_| !rport).map(|_| (&text[..at - 1], &text[behind..]));
                        rport = true;
                    }
                    8 if name.eq_ignore_ascii_case("received") => around_rport = None,
                    _ => {}
                }
                at = behind + 1;
            }
        }
        let (sent_by, params) = (trim(sent_by), params_text.unwrap_or_default());
        let (host, port) = host_port(sent_by)?;
        if !plain && !is_plain(params) && !is_writable(params) {
            return None;
        }
        const TRANSPORTS: [(&str, Transport); 6] = [
            ("UDP", Transport::Udp),
            ("TCP", Transport::Tcp),
            ("TLS", Transport::Tls),
            ("SCTP", Transport::Sctp),
            ("WS", Transport::Ws),
            ("WSS", Transport::Wss),
        ];
        let transport = TRANSPORTS.iter().find(|(name, _)| transport.eq_ignore_ascii_case(name)).map(|(_, t)| *t);
        Some(Via { text, transport, host, port, sent_by, params, branch, rport, around_rport })
    }

    /// Returns true if no item of the value is empty and every quote and bracket closes, so that the end of each item
    /// is certain. Lower items may name transports and hosts that we cannot parse.
    pub(super) fn list_is_sound(value: &str) -> bool {
        (is_plain(value) && !trim(value).is_empty()) || (closes(value) && list(value).all(|item| !item.is_empty()))
    }

    /// Branch, if there is one.
    pub fn branch(&self) -> Option<&'a str> {
        self.branch.filter(|branch| !branch.is_empty())
    }

    /// Returns true if the sender asks for its source port (`rport`, RFC 3581).
    pub fn wants_rport(&self) -> bool {
        self.rport
    }

    /// Text without `rport`, in two pieces. They make up the whole header value, if that is plain and holds no
    /// `received`.
    pub(super) fn around_rport(&self) -> Option<(&'a str, &'a str)> {
        self.around_rport
    }
}

/// Event value (RFC 6665 section 8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Name of the package. Compared byte by byte.
    pub package: &'a str,
    /// The `id` parameter.
    pub id: Option<&'a str>,
    /// `max-rate` parameter (RFC 6446 section 9.2), if it is valid.
    pub max_rate: Option<&'a str>,
    /// Parameters as written.
    params: &'a str,
}

impl<'a> Event<'a> {
    /// Parses the value. Parameters other than these are not checked.
    pub fn read(value: &'a str) -> Option<Event<'a>> {
        let (package, rest) = cut(value, b';').unwrap_or((value, ""));
        let package = trim(package);
        let id = only(rest, "id")?;
        let sound = is_token(package) && id.is_none_or(is_token);
        let max_rate = param(rest, "max-rate").filter(|rate| is_rate(rate));
        sound.then_some(Event { package, id, max_rate, params: rest })
    }

    /// Parameter that the package defines, without quotes and escapes; none if it has no value.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        param(self.params, name).map(unquoted).filter(|value| !value.is_empty())
    }
}

/// Returns true if a text is a rate: `1*2DIGIT [ "." 1*10DIGIT ]` (RFC 6446 section 9.2).
fn is_rate(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    digits(whole, 2) && digits(fraction, 10)
}

/// Media type of a Content-Type or Accept item, in lower case and without parameters.
pub fn media_type(value: &str) -> String {
    let end = value.find([';', ',']).unwrap_or(value.len());
    let mut text: String = value[..end].chars().filter(|c| !c.is_ascii() || !is_blank(*c as u8)).collect();
    text.make_ascii_lowercase();
    text
}

/// Returns true if an Accept header with these lines admits a media type. Without any line, the default type is
/// admitted.
///
/// An item with `q=0` admits nothing, and an item that names the type outranks all ranges (RFC 3261 section 20.1, RFC
/// 9110 section 12.5.1).
pub fn accepts<'a>(lines: impl Iterator<Item = &'a str>, wanted: &str) -> bool {
    let (mut any, mut admitted) = (false, false);
    for item in lines.flat_map(list) {
        if item == wanted {
            return true;
        }
        any = true;
        let refused =
            item.split_once(';').is_some_and(|(_, params)| param(params, "q").is_some_and(|q| q.parse() == Ok(0.0)));
        match media_type(item) {
            range if range == wanted => return !refused,
            range => match range.strip_suffix('*') {
                Some(kind) if kind == "*/" || (kind.ends_with('/') && wanted.starts_with(kind)) => admitted |= !refused,
                _ => {}
            },
        }
    }
    admitted || !any
}

/// Items of all lines of a list header, without empty ones.
pub fn items<'a>(message: &super::wire::Message<'a>, name: Name) -> Vec<&'a str> {
    message.all(name).flat_map(list).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests;
