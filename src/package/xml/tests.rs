//! Untrusted XML that is accepted or rejected, and its safe use in our documents.

use super::grammar::{BAD_CHARACTER, OUTSIDE};
use super::*;
use crate::test_util::thread_cpu_time;

fn read(body: &str) -> Result<Document<'_>, BodyError> {
    Document::read(body.as_bytes(), "test")
}

#[track_caller]
fn refused(body: &str) -> &'static str {
    match read(body) {
        Err(BodyError::Malformed { what: "test", why }) => why,
        other => panic!("{body:?} gave {other:?}"),
    }
}

fn root_text(body: &str) -> String {
    read(body).unwrap().root().text().unwrap().unwrap_or_default().into()
}

#[test]
fn a_document_has_one_root_and_nothing_but_blanks_around_it() {
    assert!(read("<?xml version='1.0'?>\n<!-- c --> <a/> <?pi x?>\n\n").is_ok());
    assert_eq!(refused(""), "it has no root element");
    assert_eq!(refused(" \n"), "it has no root element");
    assert_eq!(refused("<a/><b/>"), "it has a second root element");
    assert_eq!(refused("<a/>junk"), OUTSIDE);
    assert_eq!(refused("junk<a/>"), OUTSIDE);
    assert_eq!(refused("<a/>&#32;"), OUTSIDE);
    assert_eq!(refused("<a/><![CDATA[ ]]>"), OUTSIDE);
    assert_eq!(refused("<a/>\u{a0}"), OUTSIDE);
}

#[test]
fn elements_end_where_they_should() {
    assert_eq!(refused("<a>"), "it ends before its elements do");
    assert_eq!(refused("<a><b></a></b>"), "an end tag does not match its start tag");
    assert_eq!(refused("</a>"), "an end tag does not match its start tag");
    assert_eq!(refused("<a/></a>"), "an end tag does not match its start tag");
    assert_eq!(refused("<a"), "it ends inside its markup");
    assert_eq!(refused("<a><!-- </a>"), "it ends inside its markup");
}

#[test]
fn names_are_proper_names() {
    for body in ["<1a/>", "<-/>", "<a:/>", "<:a/>", "<a$/>", "< a/>", "<>x</>", "<a:b:c xmlns:a='x'/>", "<a<b/>"] {
        assert_eq!(refused(body), "an element has no proper name", "{body}");
    }
    assert_eq!(refused("<a 1='x'/>"), "an attribute has no proper name");
    assert_eq!(refused("<a><? x?></a>"), "a processing instruction has no proper name");
    assert!(read("<_é.1-x ü='1'/>").is_ok());
}

#[test]
fn attributes_are_well_formed() {
    for body in ["<a b/>", "<a b=c/>", "<a b='1' b='2'/>", "<a ='1'/>"] {
        refused(body);
    }
    assert_eq!(refused("<a b='<'/>"), "an attribute holds a bare <");
    for body in ["<a b='1'c='2'/>", "<a b=\"'1\"c='2'/>", "<a b='1'xmlns='2'></a>"] {
        assert_eq!(refused(body), "there is no blank between two attributes", "{body}");
    }
    assert!(read("<a\tb = '\"1\"'\r\nc=\"'\" ></a>").is_ok());
}

#[test]
fn text_is_well_formed() {
    assert_eq!(refused("<a>x]]>y</a>"), "its text holds a bare ]]>");
    assert_eq!(refused("<a>x & y</a>"), "a reference does not end with a semicolon");
    assert_eq!(refused("<a><!-- x -- y --></a>"), "a comment holds two hyphens");
}

#[test]
fn prefixes_are_declared_and_resolved() {
    let unknown = "it uses a namespace prefix that it does not declare";
    assert_eq!(refused("<p:a/>"), unknown);
    assert_eq!(refused("<a p:b='1'/>"), unknown);
    assert_eq!(refused("<a><b xmlns:p='x'/><p:c/></a>"), unknown);
    assert_eq!(refused("<a xmlns:xml='x'/>"), "a reserved namespace prefix is declared anew");
    let body = format!("<x:a xmlns:x='{PIDF_NS}' xmlns='{RPID_NS}'><b xmlns=''/><c/><x:d/></x:a>");
    let document = read(&body).unwrap();
    let found: Vec<_> = document.root().children().map(|e| (e.vocabulary(), e.name().to_owned())).collect();
    assert_eq!(document.root().vocabulary(), Vocabulary::Pidf);
    let expected = [(Vocabulary::Foreign, "b"), (Vocabulary::Rpid, "c"), (Vocabulary::Pidf, "d")];
    assert_eq!(found, expected.map(|(v, n)| (v, n.to_owned())));
}

#[test]
fn attributes_with_a_prefix_are_not_mistaken_for_those_without() {
    let body = format!("<a xmlns:q='urn:q' xmlns:p='{PIDF_NS}' q:id='theirs' p:id='pidf'/>");
    let document = read(&body).unwrap();
    assert_eq!(document.root().attribute("id").unwrap(), None);
    assert_eq!(document.root().attribute_of(Vocabulary::Pidf, "id").unwrap().as_deref(), Some("pidf"));
}

#[test]
fn only_the_five_entities_and_character_numbers_are_known() {
    assert_eq!(root_text("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;</a>"), "<>&\"'AB");
    let document = read("<a b='&lt;&gt;&amp;&quot;&apos;&#65;&#x42;'/>").unwrap();
    assert_eq!(document.root().attribute("b").unwrap().as_deref(), Some("<>&\"'AB"));
    assert_eq!(refused("<a>&nbsp;</a>"), "it refers to an entity that XML does not define");
    assert_eq!(refused("<a b='&nbsp;'/>"), "it refers to an entity that XML does not define");
}

#[test]
fn a_document_type_is_refused_and_with_it_every_bomb_made_of_entities() {
    let laughs = "<!DOCTYPE a [<!ENTITY x 'ha'><!ENTITY y '&x;&x;&x;&x;'><!ENTITY z '&y;&y;&y;&y;'>]><a>&z;</a>";
    let file = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>";
    let outside = "<?xml version='1.0'?><!DOCTYPE a SYSTEM 'http://127.0.0.1/evil.dtd'><a/>";
    let parameter = "<!DOCTYPE a [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]><a/>";
    for body in [laughs, file, outside, parameter, "<!DOCTYPE a><a/>", "<!doctype a><a/>", "<!DOCTYPE><a/>"] {
        assert_eq!(refused(body), "it has a document type declaration", "{body}");
    }
    refused("<!DOCTYPE a [<!ENTITY x 'ha'>");
}

#[test]
fn characters_that_xml_forbids_are_refused_plain_or_by_number() {
    for c in ['\0', '\u{1}', '\u{b}', '\u{1f}', '\u{fffe}', '\u{ffff}'] {
        assert_eq!(refused(&format!("<a>{c}</a>")), "it holds a character that XML forbids");
        assert_eq!(refused(&format!("<a>&#{};</a>", c as u32)), BAD_CHARACTER, "{c:?}");
        assert_eq!(refused(&format!("<a b='&#x{:x};'/>", c as u32)), BAD_CHARACTER, "{c:?}");
    }
    for number in ["#xD800", "#x110000", "#99999999999999999999", "#", "#x", "#-1", "#+65"] {
        assert_eq!(refused(&format!("<a>&{number};</a>")), BAD_CHARACTER, "{number}");
        assert_eq!(refused(&format!("<a b='&{number};'/>")), BAD_CHARACTER, "{number}");
    }
}

#[test]
fn only_utf_8_is_read_whatever_ascii_relative_is_declared() {
    for encoding in ["UTF-8", "utf-8", "ISO-8859-1", "iso-8859-1", "US-ASCII"] {
        assert_eq!(root_text(&format!("<?xml version=\"1.0\" encoding=\"{encoding}\" ?><a>x</a>")), "x");
    }
    assert_eq!(root_text("\u{feff}<?xml version='1.0'?><a>ü</a>"), "ü");
    assert_eq!(root_text("\u{feff}<a>ü</a>"), "ü");
    assert_eq!(refused("\u{feff}\u{feff}<a/>"), OUTSIDE);
    let other = "it declares an encoding other than UTF-8, US-ASCII and ISO-8859-1";
    assert_eq!(refused("<?xml version='1.0' encoding='UTF-16'?><a/>"), other);
    let not_utf8 = BodyError::Malformed { what: "test", why: "it is not UTF-8" };
    assert_eq!(Document::read(b"<a>\xfc</a>", "test").unwrap_err(), not_utf8);
    assert_eq!(Document::read(b"\xff\xfe<\0a\0/\0>\0", "test").unwrap_err(), not_utf8);
}

#[test]
fn the_xml_declaration_stands_at_the_very_start_and_names_its_version() {
    assert_eq!(refused(" <?xml version='1.0'?><a/>"), "its XML declaration is not at the very start");
    assert_eq!(refused("<a><?xml version='1.0'?></a>"), "its XML declaration is not at the very start");
    assert_eq!(refused("<?xml version='2.0'?><a/>"), "its XML declaration has no known version");
    assert!(read("<?xml version='1.1' encoding='utf-8' standalone='yes' ?><a/>").is_ok());
    for parts in ["version='1.0' standalone='x'", "version='1.0' x='y'", "version='1.0'encoding='UTF-8'"] {
        assert_eq!(refused(&format!("<?xml {parts}?><a/>")), "its XML declaration is not well-formed", "{parts}");
    }
    let backwards = "<?xml version='1.0' standalone='no' encoding='UTF-8'?><a/>";
    assert_eq!(refused(backwards), "its XML declaration is not well-formed");
    for version in ["1.", "1.x", "1.0="] {
        let body = format!("<?xml version='{version}'?><a/>");
        assert_eq!(refused(&body), "its XML declaration has no known version", "{version}");
    }
    assert_eq!(refused("<?xml encoding='UTF-8'?><a/>"), "its XML declaration has no known version");
}

#[test]
fn what_is_too_much_is_refused_with_the_limit_that_it_passed() {
    let too_much = |body: &str| match read(body) {
        Err(BodyError::TooMuch { limit, unit }) => (limit, unit),
        other => panic!("{other:?}"),
    };
    let deep = |levels: usize| "<a>".repeat(levels) + &"</a>".repeat(levels);
    assert!(read(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(too_much(&deep(MAX_DEPTH + 1)), (MAX_DEPTH, "levels of elements"));
    assert_eq!(too_much(&deep(100_000)), (MAX_BODY, "octets"));
    assert_eq!(too_much(&"<a>".repeat(MAX_BODY / 3)), (MAX_DEPTH, "levels of elements"));
    let wide = |elements: usize| format!("<a>{}</a>", "<b/>".repeat(elements - 1));
    assert!(read(&wide(MAX_ELEMENTS)).is_ok());
    assert_eq!(too_much(&wide(MAX_ELEMENTS + 1)), (MAX_ELEMENTS, "elements"));
    let names: String = (0..=MAX_NAMESPACES).map(|n| format!(" xmlns:n{n}='u'")).collect();
    assert_eq!(too_much(&format!("<a{names}/>")), (MAX_NAMESPACES, "namespace declarations"));
    assert_eq!(too_much(&format!("<a>{}</a>", " ".repeat(MAX_BODY))), (MAX_BODY, "octets"));
}

#[test]
fn only_what_is_kept_has_to_be_short() {
    let long = "x".repeat(MAX_TEXT + 1);
    let body = format!("<a b='{long}' c='{}'>{long}</a>", &long[1..]);
    let document = read(&body).unwrap();
    let too_long = BodyError::TooMuch { limit: MAX_TEXT, unit: "octets in one text or attribute" };
    assert_eq!(document.root().text().unwrap_err(), too_long);
    assert_eq!(document.root().attribute("b").unwrap_err(), too_long);
    assert_eq!(document.root().attribute("c").unwrap().unwrap().len(), MAX_TEXT);
}

#[test]
fn text_comes_in_one_line_whole_and_without_blanks_around_it() {
    assert_eq!(
        root_text("<a>\r\n one<!-- c -->&amp;<b>not this</b><![CDATA[<two>]]>\r\n\tthree </a>"),
        "one&<two>  three"
    );
    assert_eq!(root_text("<a>x&#13;&#10;y</a>"), "x y");
    assert_eq!(read("<a b='  '> \n </a>").unwrap().root().text().unwrap(), None);
    assert_eq!(read("<a b='  '/>").unwrap().root().attribute("b").unwrap(), None);
    assert_eq!(read("<a/>").unwrap().root().attribute("b").unwrap(), None);
}

#[test]
fn children_are_the_direct_ones_in_document_order() {
    let document = read("<a><b><x/><y><z/></y></b>t<c/><d><x/></d></a>").unwrap();
    let names: Vec<_> = document.root().children().map(Element::name).collect();
    assert_eq!(names, ["b", "c", "d"]);
    let inner: Vec<_> =
        document.root().child(Vocabulary::Foreign, "b").unwrap().children().map(Element::name).collect();
    assert_eq!(inner, ["x", "y"]);
}

#[test]
fn what_is_written_reads_back_as_it_was_meant() {
    let mut out = String::from("<a");
    attribute("b", "<\"&'>]]>\0\u{1}\u{fffe}x\r\ny\u{7f}ü", &mut out);
    out.push('>');
    escape("</a>&\"']]>\0\tz\u{ffff}", &mut out);
    out.push_str("</a>");
    assert_eq!(out, "<a b=\"&lt;&quot;&amp;'&gt;]]&gt;x  y\u{7f}ü\">&lt;/a&gt;&amp;&quot;']]&gt; z</a>");
    let document = read(&out).unwrap();
    assert_eq!(document.root().attribute("b").unwrap().as_deref(), Some("<\"&'>]]>x  y\u{7f}ü"));
    assert_eq!(document.root().text().unwrap().as_deref(), Some("</a>&\"']]> z"));
}

#[test]
fn junk_of_60_kb_is_refused_at_once() {
    for junk in ["\u{0}", "<", "<a ", "&", "<!--", "<![CDATA[", "]]>", "<?", "x", "<a b='", "<a/>", "&#x41;", "</a>"] {
        assert!(read(&junk.repeat(60_000 / junk.len())).is_err(), "{junk}");
    }
}

#[test]
fn no_body_within_the_limits_takes_long_to_read() {
    let fill = |piece: &str| piece.repeat((MAX_BODY - 1000) / piece.len());
    let names: String = (0..MAX_NAMESPACES).map(|n| format!(" xmlns:n{n}='u'")).collect();
    let bodies = [
        format!("<a>x{}{}</a>", " ".repeat(MAX_BODY / 2), "&#32;".repeat(MAX_BODY / 2 / 5 - 10)),
        format!("<a>{}</a>", fill("&amp;")),
        format!("<a>{}</a>", fill(" <!-- -->")),
        format!("<a {}/>", (0..6000).map(|n| format!(" a{n}=''")).collect::<String>()),
        format!("<a{names}>{}</a>", "<n0:b n0:c='' n1:d=''/>".repeat(2_700)),
        format!("<a b='{}'/>", fill("&#x41;")),
    ];
    for body in bodies {
        let began = thread_cpu_time();
        let read = read(&body);
        // It takes milliseconds. The bound allows for a very slow machine; only quadratic work comes near it.
        let took = thread_cpu_time() - began;
        assert!(took.as_millis() < 500, "{took:?} for {}", &body[..60]);
        assert!(read.is_ok(), "{read:?}");
    }
}
