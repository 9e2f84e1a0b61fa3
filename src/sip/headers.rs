//! The values inside headers (RFC 3261 section 20), read in place when somebody asks.

use std::borrow::Cow;

use super::Transport;
use super::scan::{closes, cut, cut_at_blank, find_outside, is_blank, is_plain, split, trim, trim_start};
use super::simd::{find, is_printable};
use super::uri::{Host, host_port};
use super::wire::{Name, is_token};

/// The first item of a comma-separated value as written, and the rest with its comma.
pub fn split_first(value: &str) -> (&str, &str) {
    value.split_at(find_outside(value, b',').unwrap_or(value.len()))
}

/// The items of a comma-separated value, blanks removed; commas inside quotes and brackets do not separate.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    split(value, b',').map(trim)
}

/// Name and value of a parameter without blanks; a missing value is empty.
pub(super) fn name_and_value(param: &str) -> (&str, &str) {
    let (name, value) = cut(param, b'=').unwrap_or((param, ""));
    (trim(name), trim(value))
}

/// The parameters of a value, `;` between them.
fn params(text: &str) -> impl Iterator<Item = (&str, &str)> {
    pieces(text, is_plain(text)).map(name_and_value)
}

/// What stands between the `;` of a text that is [plain](is_plain), or not.
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

/// The first parameter of this name; names compare without case.
pub fn param<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    params(text).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A value without its quotes and escapes.
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

/// A From, To, Contact, Route or Record-Route item: `"name" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The item as written.
    pub text: &'a str,
    /// The URI, without brackets.
    pub uri: &'a str,
    /// The parameters of the header, not of the URI (RFC 3261 section 20.10); without the first `;`.
    pub params: &'a str,
    /// The `tag` among them, be it one or not.
    tag: Option<&'a str>,
}

impl<'a> NameAddr<'a> {
    /// Reads one item. Without brackets, all parameters are the header's, and a URI that needs brackets is refused.
    pub fn read(text: &'a str) -> Option<NameAddr<'a>> {
        NameAddr::read_plain(text).or_else(|| NameAddr::read_any(text))
    }

    /// `<uri>` or `<uri>;params` without blanks, quotes and commas, as nearly everybody writes it.
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
        // Separators at the end part nothing, and there we add parameters of our own.
        let text = trim_start(text);
        let end = text.bytes().rposition(|c| c != b';' && !is_blank(c)).map_or(0, |last| last + 1);
        let text = &text[..end];
        let (uri, params) = match find_outside(text, b'<') {
            // An unquoted comma would split the value wherever it is given back (RFC 4475 section 3.1.2.15).
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

    /// The dialog tag (RFC 3261 section 19.3), if it has one.
    pub fn tag(&self) -> Option<&'a str> {
        self.tag.filter(|tag| !tag.is_empty())
    }

    /// Whether there is a `tag`, be it one or not.
    pub(super) fn has_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// True unless there is a tag that is none. Beyond the letter of the grammar, a tag may hold what does no harm.
    pub(super) fn tag_is_sound(&self) -> bool {
        let harmful = |c: u8| c <= b' ' || matches!(c, b'"' | b'<' | b'>' | 0x7f);
        self.tag.is_none_or(|tag| !tag.is_empty() && !tag.bytes().any(harmful))
    }
}

/// The value of a parameter by which something is found, if it is there; none at all if it stands twice (RFC 3261 section
/// 7.3.1), for then we and a proxy might not mean the same dialog, transaction or subscription.
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

/// Whether parameters can be given back as they came. The writer puts blanks for control characters, and with a blank in
/// the place of another character a name may become one that means something: a tag, say.
fn is_writable(params: &str) -> bool {
    !params.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
}

/// Whether separators of an item stand together, as nobody means it (RFC 4475 section 3.1.2.1). One at its end parts
/// nothing and does no harm.
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

/// A CSeq value (RFC 3261 section 8.1.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2^31.
    pub number: u32,
    /// The method, as written.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    /// Reads `number method`.
    pub fn read(value: &'a str) -> Option<CSeq<'a>> {
        let (number, method) = cut_at_blank(value)?;
        let number = digits(number).filter(|n| *n < 1 << 31)?;
        let method = trim(method);
        let whole = is_printable(method.as_bytes(), b'!', []) || !method.bytes().any(is_blank);
        (!method.is_empty() && whole).then_some(CSeq { number: number as u32, method })
    }
}

/// A number made of digits only.
fn digits(text: &str) -> Option<u64> {
    // Not "+1", which would be a number as well.
    text.as_bytes().first()?.is_ascii_digit().then(|| text.parse().ok())?
}

/// The seconds of an Expires or Min-Expires value: none if it is no number below 2^32 (RFC 3261 section 20.19).
pub fn seconds(value: &str) -> Option<u32> {
    digits(trim(value)).and_then(|n| u32::try_from(n).ok())
}

/// The seconds of a Retry-After value, which may go on with a comment and parameters (RFC 3261 section 20.33).
pub fn retry_after(value: &str) -> Option<u32> {
    let end = value.bytes().position(|c| !c.is_ascii_digit()).unwrap_or(value.len());
    seconds(&value[..end])
}

/// A Via value (RFC 3261 section 20.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// The item as written, without what follows a comma.
    pub text: &'a str,
    /// The transport, if it is one that we know.
    pub transport: Option<Transport>,
    /// Host of sent-by.
    pub host: Host<'a>,
    /// Port of sent-by, where given.
    pub port: Option<u16>,
    /// Host and port as written.
    pub sent_by: &'a str,
    /// The parameters.
    pub params: &'a str,
    branch: Option<&'a str>,
    rport: bool,
    /// What stands before and behind its `rport`; none if more than that has to be looked for before it can be stamped.
    around_rport: Option<(&'a str, &'a str)>,
}

/// What an RFC 3261 branch starts with.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

impl<'a> Via<'a> {
    /// Reads the first item of a Via header.
    pub fn first_of(value: &'a str) -> Option<Via<'a>> {
        match is_plain(value) {
            true => Via::read(trim(value), true),
            false => Via::read(list(value).next()?, false),
        }
    }

    /// Reads one item, which is known to be [plain](is_plain) or not.
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
                    // Twice, it would not be certain which transaction is meant.
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

    /// True if no item of the value is empty and nothing is left open, for then nobody knows where one ends. Lower items
    /// may name transports and hosts that we cannot read.
    pub(super) fn list_is_sound(value: &str) -> bool {
        (is_plain(value) && !trim(value).is_empty()) || (closes(value) && list(value).all(|item| !item.is_empty()))
    }

    /// The branch, if there is one.
    pub fn branch(&self) -> Option<&'a str> {
        self.branch.filter(|branch| !branch.is_empty())
    }

    /// `rport`: absent, or asked for (RFC 3581).
    pub fn wants_rport(&self) -> bool {
        self.rport
    }

    /// Its text without `rport`, in two pieces: all that stands in the header, if that is plain and holds no `received`.
    pub(super) fn around_rport(&self) -> Option<(&'a str, &'a str)> {
        self.around_rport
    }
}

/// An Event value (RFC 6665 section 8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Name of the package; compared byte by byte.
    pub package: &'a str,
    /// The `id` parameter.
    pub id: Option<&'a str>,
    /// The `max-rate` parameter (RFC 6446 section 9.2), if it is a rate.
    pub max_rate: Option<&'a str>,
    /// All parameters, as written.
    params: &'a str,
}

impl<'a> Event<'a> {
    /// Reads the value; other parameters do not count.
    pub fn read(value: &'a str) -> Option<Event<'a>> {
        let (package, rest) = cut(value, b';').unwrap_or((value, ""));
        let package = trim(package);
        let id = only(rest, "id")?;
        let sound = is_token(package) && id.is_none_or(is_token);
        let max_rate = param(rest, "max-rate").filter(|rate| is_rate(rate));
        sound.then_some(Event { package, id, max_rate, params: rest })
    }

    /// A parameter of the package's own, without quotes and escapes; none where there is no value.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        param(self.params, name).map(unquoted).filter(|value| !value.is_empty())
    }
}

/// `1*2DIGIT [ "." 1*10DIGIT ]` (RFC 6446 section 9.2).
fn is_rate(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    digits(whole, 2) && digits(fraction, 10)
}

/// The media type of a Content-Type or Accept item in lower case, without parameters.
pub fn media_type(value: &str) -> String {
    let end = value.find([';', ',']).unwrap_or(value.len());
    let mut text: String = value[..end].chars().filter(|c| !c.is_ascii() || !is_blank(*c as u8)).collect();
    text.make_ascii_lowercase();
    text
}

/// Whether an Accept header with these lines admits a media type; without any line the default is admitted.
///
/// An item with `q=0` admits nothing, and an item that names the type outranks all ranges (RFC 3261 section 20.1,
/// RFC 9110 section 12.5.1).
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

/// All items of all lines of a list header, empty ones left out.
pub fn items<'a>(message: &super::wire::Message<'a>, name: Name) -> Vec<&'a str> {
    message.all(name).flat_map(list).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests;
