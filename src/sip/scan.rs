//! Text search for the parsers of headers and URIs, octet by octet.
//!
//! All syntax characters of SIP are ASCII, so no function here needs to decode characters. A value may be folded, so
//! CR and LF count as blanks.

use memchr::{memchr2, memchr3};

use super::simd::is_printable;

/// Returns true for white space, including the characters of a fold.
pub(super) const fn is_blank(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

/// Text without blanks at its ends.
#[inline]
pub(super) fn trim(text: &str) -> &str {
    trim_end(trim_start(text))
}

/// Text without blanks at its start. Nearly always there is none, or the one after a colon.
#[inline]
pub(super) fn trim_start(text: &str) -> &str {
    match text.as_bytes() {
        [first, ..] if *first > b' ' => text,
        [b' ', second, ..] if *second > b' ' => &text[1..],
        _ => &text[text.bytes().position(|c| !is_blank(c)).unwrap_or(text.len())..],
    }
}

/// Text without blanks at its end.
#[inline]
pub(super) fn trim_end(text: &str) -> &str {
    match text.as_bytes() {
        [.., last] if *last > b' ' => text,
        _ => &text[..text.bytes().rposition(|c| !is_blank(c)).map_or(0, |last| last + 1)],
    }
}

/// Text before and after the first `separator`, an ASCII character.
pub(super) fn cut(text: &str, separator: u8) -> Option<(&str, &str)> {
    // These texts are short, for which a plain loop is faster than a SIMD search.
    let at = text.bytes().position(|c| c == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Text before and after the first blank.
pub(super) fn cut_at_blank(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(is_blank)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Position after the quoted string that contains `at`; none if the string does not end.
fn behind_quoted(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        // A backslash escapes any character.
        at += 2;
    }
}

/// Position after the angle brackets that contain `at`; none if they do not close. They may hold quoted strings.
fn behind_bracket(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'>', b'"', &text[at..])?;
        if text[at] == b'>' {
            return Some(at + 1);
        }
        at = behind_quoted(text, at + 1)?;
    }
}

/// Position of the first `wanted`, an ASCII character, outside quoted strings and angle brackets.
pub(super) fn find_outside(text: &str, wanted: u8) -> Option<usize> {
    let (text, mut at) = (text.as_bytes(), 0);
    loop {
        at += memchr3(wanted, b'"', b'<', &text[at..])?;
        at = match text[at] {
            c if c == wanted => return Some(at),
            b'"' => behind_quoted(text, at + 1)?,
            _ => behind_bracket(text, at + 1)?,
        };
    }
}

/// Returns true if every quote and bracket closes, so that text which is written after it is not read as part of it.
pub(super) fn closes(text: &str) -> bool {
    let (text, mut at) = (text.as_bytes(), 0);
    while let Some(opening) = memchr2(b'"', b'<', &text[at..]) {
        let inside = at + opening + 1;
        let behind = match text[at + opening] {
            b'"' => behind_quoted(text, inside),
            _ => behind_bracket(text, inside),
        };
        match behind {
            Some(behind) => at = behind,
            None => return false,
        }
    }
    true
}

/// Pieces between separators, as written. Separators inside quotes and brackets do not count.
pub(super) fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (item, after) = match find_outside(text, separator) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(item)
    })
}

/// Returns true if parameters are plain, as nearly all are: printable ASCII without quote, angle bracket or comma.
/// Then every `;` in them is a separator.
pub(super) fn is_plain(params: &str) -> bool {
    is_printable(params.as_bytes(), b' ', *b"\"<,")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference implementation, one octet after the other.
    fn find_slowly(text: &str, wanted: u8) -> (Option<usize>, bool) {
        let (mut quoted, mut escaped, mut bracket, mut found) = (false, false, false, None);
        for (at, c) in text.bytes().enumerate() {
            if !quoted && !bracket && c == wanted {
                found = found.or(Some(at));
            }
            match c {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'<' if !quoted => bracket = true,
                b'>' if !quoted => bracket = false,
                _ => {}
            }
        }
        (found, !quoted && !bracket)
    }

    #[test]
    fn what_quotes_and_brackets_hide_is_not_found_in_any_short_text() {
        const ALPHABET: [u8; 7] = *b"\"<>\\;a,";
        for number in 0..7_usize.pow(6) {
            let (mut text, mut rest) = (String::new(), number);
            while rest > 0 {
                text.push(ALPHABET[rest % 7] as char);
                rest /= 7;
            }
            for wanted in *b";,<" {
                assert_eq!(find_outside(&text, wanted), find_slowly(&text, wanted).0, "{text} {}", wanted as char);
            }
            assert_eq!(closes(&text), find_slowly(&text, b';').1, "{text}");
        }
    }

    #[test]
    fn blanks_at_the_ends_go() {
        assert_eq!((trim(" \r\n\ta b\t"), trim(" \t"), trim(""), trim("é ")), ("a b", "", "", "é"));
        assert_eq!((cut("a=b=c", b'='), cut("a", b'=')), (Some(("a", "b=c")), None));
        assert_eq!(cut_at_blank("9\r\n X"), Some(("9", "\n X")));
    }
}
