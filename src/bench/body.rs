//! Documents: the body that the PBX publishes, and the check of the body of a NOTIFY.
//!
//! An extension's calls are numbered; each rings first and is then answered. So the state of an extension is a *step*:
//! 0 if nothing is published, 1 if the first call rings, 2 if it is answered, 3 if the second call rings, and so on.
//! The call's id carries its number, so that every document tells which step it shows. The steps in the NOTIFYs of one
//! dialog may never fall.

use super::text::{Names, Text};
use crate::package::{self, dialog_info};

/// Version and step of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) version: u32,
    /// The newest step among the live calls.
    pub(super) step: u32,
}

/// Writes the document that publishes a step.
pub(super) fn write(out: &mut Vec<u8>, names: &Names, extension: u32, step: u32) {
    let (call, state) = (step.div_ceil(2), if step % 2 == 1 { "early" } else { "confirmed" });
    let uri = |out: &mut Vec<u8>| {
        out.text("sip:e").number(extension.into()).text("@").text(&names.domain);
    };
    out.text("<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"");
    out.number(step.into()).text("\" state=\"full\" entity=\"");
    uri(out);
    out.text("\">\n<dialog id=\"").text(&names.run).text("-").number(call.into());
    out.text("\" call-id=\"").text(&names.run).text("-").number(call.into());
    out.text("@pbx\" local-tag=\"l\" remote-tag=\"r\" direction=\"recipient\"><state>").text(state);
    out.text("</state><remote><identity>sip:caller@").text(&names.domain).text("</identity><target uri=\"sip:caller@");
    out.text(&names.domain).text("\"/></remote><local><identity>");
    uri(out);
    out.text("</identity><target uri=\"");
    uri(out);
    out.text("\"/></local></dialog>\n</dialog-info>\n");
}

/// Reads the body of a NOTIFY about an extension. It is quick and not strict; [`is_sound`] is strict.
pub(super) fn read(body: &[u8], names: &Names, extension: u32, scratch: &mut Vec<u8>) -> Result<Shown, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "a document is not UTF-8")?;
    // Element names may have a namespace prefix.
    let is_root = |name: &str| name.split([' ', '>', '\n']).next().is_some_and(|name| name.ends_with("dialog-info"));
    let root = find(text, b'<', is_root).ok_or("a document has no dialog-info")?;
    let (root, rest) = root.split_once('>').ok_or("a document is cut off")?;
    let version = attribute(root, "version").and_then(|v| v.parse().ok()).ok_or("a document has no version")?;
    scratch.clear();
    scratch.text("sip:e").number(extension.into()).text("@").text(&names.domain);
    if !attribute(root, "entity").is_some_and(|entity| entity.as_bytes().eq_ignore_ascii_case(scratch)) {
        return Err("a document is about somebody else");
    }
    if !rest.trim_end().ends_with("dialog-info>") && !root.ends_with('/') {
        return Err("a document is cut off");
    }
    Ok(Shown { version, step: newest_step(rest, names)? })
}

/// Returns the text after the first occurrence of an octet that satisfies `wanted`. Documents are short and searches
/// many, so no searcher is built in advance.
fn find(text: &str, octet: u8, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    memchr::memchr_iter(octet, text.as_bytes()).map(|at| &text[at + 1..]).find(|rest| wanted(rest))
}

/// Value of an attribute; it ends at the quote character that began it.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = element;
    loop {
        let (before, after) = rest.split_once('"')?;
        let (value, after) = after.split_once('"')?;
        let known = before.strip_suffix('=').and_then(|before| before.strip_suffix(name));
        if known.is_some_and(|before| before.ends_with([' ', '\n', '\t', '\r'])) {
            return Some(value);
        }
        rest = after;
    }
}

/// The newest step among the live calls of this run.
fn newest_step(text: &str, names: &Names) -> Result<u32, &'static str> {
    let (mut rest, mut newest) = (text, None);
    let is_dialog = |rest: &str| rest.split([' ', '>', '\n']).next().is_some_and(|name| name.ends_with("dialog"));
    while let Some(element) = find(rest, b'<', |rest| !rest.starts_with('/') && is_dialog(rest)) {
        let (open, inside) = element.split_once('>').ok_or("a document is cut off")?;
        rest = inside;
        let ours = attribute(open, "id").and_then(|id| id.strip_prefix(&*names.run)?.strip_prefix('-'));
        let Some(call) = ours else { continue };
        let call = call.parse().ok().filter(|n| (1..1 << 30).contains(n));
        let call: u32 = call.ok_or("a document shows a call that was not published")?;
        let state =
            find(inside, b'<', |rest| rest.split(['>', ' ']).next().is_some_and(|name| name.ends_with("state")));
        let state = state.and_then(|rest| rest.split_once('>')?.1.split_once('<')).map(|(state, _)| state.trim());
        let step = match state {
            Some("early") => call * 2 - 1,
            Some("confirmed") => call * 2,
            Some("terminated") => continue,
            _ => return Err("a document shows a state that was not published"),
        };
        if newest.replace(step).is_some() {
            return Err("a document shows a call that is over");
        }
    }
    Ok(newest.unwrap_or(0))
}

/// Returns true if the whole document is valid by the rules of its package.
pub(super) fn is_sound(body: &[u8]) -> bool {
    package::by_name(dialog_info::NAME).is_some_and(|id| package::get(id).read(body).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { domain: "acme.test".into(), run: "b00c".into() }
    }

    fn document(step: u32) -> String {
        let mut out = Vec::new();
        write(&mut out, &names(), 7, step);
        assert!(is_sound(&out));
        String::from_utf8(out).unwrap()
    }

    fn shown(text: &str) -> Result<(u32, u32), &'static str> {
        read(text.as_bytes(), &names(), 7, &mut Vec::new()).map(|shown| (shown.version, shown.step))
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        for step in [1, 2, 3, 8_000_000] {
            assert_eq!(shown(&document(step)), Ok((step, step)));
        }
    }

    #[test]
    fn calls_that_are_over_and_those_of_others_do_not_count() {
        let ended = document(4).replace("confirmed", "terminated");
        assert_eq!(shown(&ended), Ok((4, 0)));
        assert_eq!(shown(&document(4).replace("id=\"b00c-2\"", "id=\"idle\"")), Ok((4, 0)));
        assert!(shown(&document(4).replace("</state>", "x</state>")).is_err());
        let twice = document(4);
        let dialog = &twice[twice.find("<dialog ").unwrap()..twice.find("\n</dialog-info").unwrap()];
        assert!(shown(&twice.replace("\n</dialog-info", &format!("{dialog}\n</dialog-info"))).is_err());
    }

    #[test]
    fn a_document_must_be_whole_and_about_the_right_one() {
        let whole = document(1);
        assert!(read(whole.as_bytes(), &names(), 8, &mut Vec::new()).is_err());
        for end in 0..whole.len() - 2 {
            assert!(shown(&whole[..end]).is_err(), "{end}");
        }
    }
}
