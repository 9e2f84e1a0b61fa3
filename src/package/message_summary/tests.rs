//! Message summaries (RFC 3842 section 5.2): a tolerant parser and a strict writer.

use super::*;

fn read(body: &str) -> Result<Mailbox, BodyError> {
    match MessageSummary.read(body.as_bytes())? {
        PublishedState::Mailbox(mailbox) => Ok(mailbox),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(body: &str) -> &'static str {
    match read(body) {
        Err(BodyError::Malformed { what: WHAT, why }) => why,
        other => panic!("{body:?} gave {other:?}"),
    }
}

fn written(mailbox: Mailbox) -> String {
    let mut tail = String::new();
    MessageSummary
        .write_tail(&ComposedState { uri: "sip:own@d.example", mailbox, ..ComposedState::default() }, &mut tail);
    MessageSummary.body(3, "sip:lamp@d.example", &tail)
}

fn counts(new: u32, old: u32, urgent: Option<(u32, u32)>) -> Option<MessageCounts> {
    Some(MessageCounts { new, old, urgent })
}

fn account(line: &str) -> Option<String> {
    let body = format!("Messages-Waiting: no\r\nMessage-Account: {line}\r\n");
    read(&body).unwrap().account.map(Into::into)
}

#[test]
fn the_example_of_rfc_3842_section_3_5_is_read() {
    let body = "Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 2/8 (0/2)\r\n";
    let mailbox = read(body).unwrap();
    assert_eq!(mailbox.waiting, Some(true));
    assert_eq!(mailbox.account.as_deref(), Some("sip:alice@vmail.example.com"));
    assert_eq!(mailbox.counts, [counts(2, 8, Some((0, 2))), None, None, None, None, None]);
}

#[test]
fn case_blanks_and_line_ends_do_not_matter() {
    let body = "messages-waiting \t:  NO  \nFAX-MESSAGE:1 / 2( 3/4 )\nnone: 0/0";
    let mailbox = read(body).unwrap();
    assert_eq!(mailbox.waiting, Some(false));
    assert_eq!(mailbox.counts[1], counts(1, 2, Some((3, 4))));
    assert_eq!(mailbox.counts[5], counts(0, 0, None));
    let folded = read("Messages-Waiting: yes\r\nVoice-Message: 1/2\r\n\t(0/1)\r\n").unwrap();
    assert_eq!(folded.counts[0], counts(1, 2, Some((0, 1))));
}

#[test]
fn unknown_lines_and_what_follows_an_empty_line_are_ignored() {
    let body =
        "Messages-Waiting: yes\r\nMWI-Thing: 7:x\r\nVoice-Message: 1/0\r\n\r\nTo: <sip:a@d>\r\nVoice-Message: junk\r\n";
    assert_eq!(read(body).unwrap().counts[0], counts(1, 0, None));
}

#[test]
fn counts_that_do_not_fit_are_the_greatest_that_do() {
    let body = "Messages-Waiting: yes\r\nVoice-Message: 5000000000/4294967295 (99999999999999999999999/4294967296)\r\n";
    assert_eq!(read(body).unwrap().counts[0], counts(u32::MAX, u32::MAX, Some((u32::MAX, u32::MAX))));
}

#[test]
fn garbage_is_refused_with_a_reason() {
    assert_eq!(refused(""), "it is empty");
    assert_eq!(refused("\r\n"), "it is empty");
    assert_eq!(refused("hello"), "a line has no colon");
    assert_eq!(refused("Voice-Message: 1/2\r\n"), "its first line is not Messages-Waiting");
    assert_eq!(refused("Messages-Waiting: maybe\r\n"), "Messages-Waiting is neither yes nor no");
    assert_eq!(refused("Messages-Waiting: yes\r\nx\r\n"), "a line has no colon");
    assert_eq!(refused("Messages-Waiting: yes\rVoice-Message: 1/0"), "a line holds a control character");
    assert_eq!(refused("Messages-Waiting: yes\r\nX: \0\r\n"), "a line holds a control character");
    for counts in
        ["", "1", "1/", "/1", "-1/0", "+1/0", "1/2 (", "1/2 (1)", "1/2 (1/2", "1/2 (1/2) x", "1/2 3", "a/b", "1/2/3"]
    {
        let body = format!("Messages-Waiting: yes\r\nVoice-Message: {counts}\r\n");
        assert_eq!(refused(&body), "a line of counts is not new/old", "{counts}");
    }
    let not_utf8 = MessageSummary.read(b"Messages-Waiting: yes\r\nX: \xff\r\n");
    assert_eq!(not_utf8.unwrap_err(), BodyError::Malformed { what: WHAT, why: "it is not UTF-8" });
    let long = "x".repeat(MAX_BODY + 1);
    assert_eq!(read(&long).unwrap_err(), BodyError::TooMuch { limit: MAX_BODY, unit: "octets" });
}

#[test]
fn an_account_that_is_no_uri_is_dropped() {
    assert_eq!(account("sip:a@d").as_deref(), Some("sip:a@d"));
    assert_eq!(account("<sip:a@d>").as_deref(), Some("sip:a@d"));
    for bad in ["", "<>", "\"A\" <sip:a@d>", "sip:a b@d", "sip:a@d>", "<sip:a@d", "sip:a\t@d"] {
        assert_eq!(account(bad), None, "{bad}");
    }
    let long = format!("Messages-Waiting: no\r\nMessage-Account: sip:{}\r\n", "a".repeat(MAX_ACCOUNT));
    assert!(matches!(read(&long), Err(BodyError::TooMuch { limit: MAX_ACCOUNT, .. })));
}

#[test]
fn an_unknown_mailbox_is_an_empty_one() {
    let expected = "Messages-Waiting: no\r\nMessage-Account: sip:own@d.example\r\nVoice-Message: 0/0 (0/0)\r\n";
    assert_eq!(written(Mailbox::default()), expected);
}

#[test]
fn no_counts_are_made_up_where_only_waiting_is_known() {
    let body = written(Mailbox { waiting: Some(true), ..Mailbox::default() });
    assert_eq!(body, "Messages-Waiting: yes\r\nMessage-Account: sip:own@d.example\r\n");
}

#[test]
fn what_is_known_is_written_in_the_order_of_the_classes() {
    let mailbox = Mailbox {
        waiting: Some(true),
        account: Some("sip:vm@d".into()),
        counts: [
            counts(2, 8, Some((0, 2))),
            counts(1, 0, None),
            counts(0, 0, None),
            counts(3, 4, None),
            counts(5, 6, None),
            counts(u32::MAX, 0, None),
        ],
    };
    let expected = "Messages-Waiting: yes\r\nMessage-Account: sip:vm@d\r\nVoice-Message: 2/8 (0/2)\r\nFax-Message: 1/0\r\n\
        Pager-Message: 0/0\r\nMultimedia-Message: 3/4\r\nText-Message: 5/6\r\nNone: 4294967295/0\r\n";
    assert_eq!(written(mailbox.clone()), expected);
    assert_eq!(read(expected).unwrap(), mailbox);
}

#[test]
fn where_it_is_not_said_messages_wait_if_there_are_new_ones() {
    let first_line = |waiting, new| {
        let mut mailbox = Mailbox { waiting, ..Mailbox::default() };
        mailbox.counts[1] = counts(new, 5, None);
        written(mailbox).lines().next().unwrap().to_owned()
    };
    assert_eq!(first_line(None, 1), "Messages-Waiting: yes");
    assert_eq!(first_line(None, 0), "Messages-Waiting: no");
    assert_eq!(first_line(Some(false), 1), "Messages-Waiting: no");
    assert_eq!(first_line(Some(true), 0), "Messages-Waiting: yes");
}

#[test]
fn an_account_cannot_smuggle_a_line() {
    let account = Some("sip:a@d\r\nVoice-Message: 9/9".into());
    let body = written(Mailbox { account, ..Mailbox::default() });
    assert_eq!(body, written(Mailbox::default()));
}
