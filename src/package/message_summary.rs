//! Message-summary package (RFC 3842): the mailbox of a message lamp, as simple-message-summary.
//!
//! The format is a few lines like headers: whether messages wait, the account of the mailbox, and the counts per
//! class.

use std::borrow::Cow;
use std::fmt::Write;

use super::{BodyError, EventPackage, MAX_BODY};
use crate::presence::state::{ComposedState, Mailbox, MessageClass, MessageCounts, PublishedState};

/// Limit on an account (octets). No URI of a mailbox is nearly as long.
const MAX_ACCOUNT: usize = 1024;

const WHAT: &str = "simple-message-summary";

/// The message-summary package.
#[derive(Debug)]
pub struct MessageSummary;

impl EventPackage for MessageSummary {
    fn name(&self) -> &'static str {
        "message-summary"
    }

    fn content_type(&self) -> &'static str {
        "application/simple-message-summary"
    }

    fn read(&self, body: &[u8]) -> Result<PublishedState, BodyError> {
        read_mailbox(body).map(PublishedState::Mailbox)
    }

    fn write_tail(&self, picture: &ComposedState<'_>, tail: &mut String) {
        let mailbox = &picture.mailbox;
        let new = mailbox.counts.iter().flatten().any(|counts| counts.new > 0);
        let waiting = mailbox.waiting.unwrap_or(new);
        let account = mailbox.account.as_deref().filter(|account| is_account(account)).unwrap_or(picture.uri);
        tail.push_str(if waiting { "Messages-Waiting: yes\r\n" } else { "Messages-Waiting: no\r\n" });
        // Writing to a String cannot fail.
        let _ = write!(tail, "Message-Account: {account}\r\n");
        for (class, counts) in MessageClass::ALL.into_iter().zip(mailbox.counts) {
            if let Some(MessageCounts { new, old, urgent }) = counts {
                let _ = write!(tail, "{}: {new}/{old}", name_of(class));
                if let Some((new, old)) = urgent {
                    let _ = write!(tail, " ({new}/{old})");
                }
                tail.push_str("\r\n");
            }
        }
        if mailbox.waiting.is_none() && mailbox.counts.iter().all(Option::is_none) {
            // Nothing is known yet. Some phones look for the line of their class and turn off a stale lamp only if it
            // is there.
            tail.push_str("Voice-Message: 0/0 (0/0)\r\n");
        }
    }

    fn write_head(&self, _: u32, _: &str, _: &mut String) {}
}

fn malformed(why: &'static str) -> BodyError {
    BodyError::Malformed { what: WHAT, why }
}

fn name_of(class: MessageClass) -> &'static str {
    match class {
        MessageClass::Voice => "Voice-Message",
        MessageClass::Fax => "Fax-Message",
        MessageClass::Pager => "Pager-Message",
        MessageClass::Multimedia => "Multimedia-Message",
        MessageClass::Text => "Text-Message",
        MessageClass::None => "None",
    }
}

fn read_mailbox(body: &[u8]) -> Result<Mailbox, BodyError> {
    if body.len() > MAX_BODY {
        return Err(BodyError::TooMuch { limit: MAX_BODY, unit: "octets" });
    }
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    // An empty line ends the summary. Headers of single messages may follow, which a lamp does not need.
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut lines = lines.take_while(|line| !line.is_empty()).peekable();
    let mut mailbox = Mailbox::default();
    while let Some(line) = lines.next() {
        let mut line = Cow::Borrowed(line);
        while let Some(folded) = lines.next_if(|next| next.starts_with([' ', '\t'])) {
            line.to_mut().push_str(folded);
        }
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(malformed("a line holds a control character"));
        }
        let (name, value) = line.split_once(':').ok_or(malformed("a line has no colon"))?;
        let (name, value) = (name.trim(), value.trim());
        if mailbox.waiting.is_none() {
            mailbox.waiting = Some(read_waiting(name, value)?);
        } else if name.eq_ignore_ascii_case("Message-Account") {
            mailbox.account = read_account(value)?;
        } else if let Some(at) = MessageClass::ALL.iter().position(|&c| name.eq_ignore_ascii_case(name_of(c))) {
            mailbox.counts[at] = Some(read_counts(value).ok_or(malformed("a line of counts is not new/old"))?);
        }
    }
    if mailbox.waiting.is_none() {
        return Err(malformed("it is empty"));
    }
    Ok(mailbox)
}

fn read_waiting(name: &str, value: &str) -> Result<bool, BodyError> {
    if !name.eq_ignore_ascii_case("Messages-Waiting") {
        return Err(malformed("its first line is not Messages-Waiting"));
    }
    if value.eq_ignore_ascii_case("yes") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("no") {
        Ok(false)
    } else {
        Err(malformed("Messages-Waiting is neither yes nor no"))
    }
}

/// Parses the account, without the angle brackets that some publishers put around it. An invalid one is dropped,
/// because the counts are useful without it.
fn read_account(value: &str) -> Result<Option<Box<str>>, BodyError> {
    if value.len() > MAX_ACCOUNT {
        return Err(BodyError::TooMuch { limit: MAX_ACCOUNT, unit: "octets in Message-Account" });
    }
    let bare = value.strip_prefix('<').and_then(|value| value.strip_suffix('>')).unwrap_or(value);
    Ok(is_account(bare).then(|| bare.into()))
}

/// Returns true if the account can stand as a URI in a line of its own.
fn is_account(account: &str) -> bool {
    !account.is_empty() && !account.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\"".contains(c))
}

/// Parses `new/old`, and `(new/old)` of the urgent messages if it follows (RFC 3842 section 5.2).
fn read_counts(value: &str) -> Option<MessageCounts> {
    let (all, urgent) = match value.split_once('(') {
        Some((all, urgent)) => (all, Some(urgent.strip_suffix(')')?)),
        None => (value, None),
    };
    let (new, old) = read_pair(all)?;
    let urgent = match urgent {
        Some(urgent) => Some(read_pair(urgent)?),
        None => None,
    };
    Some(MessageCounts { new, old, urgent })
}

fn read_pair(pair: &str) -> Option<(u32, u32)> {
    let (new, old) = pair.split_once('/')?;
    Some((read_count(new.trim())?, read_count(old.trim())?))
}

/// Parses a count. One that is too large saturates (RFC 3842 section 3.5).
fn read_count(digits: &str) -> Option<u32> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
