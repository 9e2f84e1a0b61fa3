//! Description of journal records by their keys, for an operator whose journal is damaged. Reading the records back
//! needs nothing of this.

use std::collections::BTreeMap;

use crate::journal::{BadPart, Key, Survey};

use super::persist::{STATE_SLOT, is_acknowledgement, is_count_of_starts};

/// Description of one journal record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordDescription {
    /// Kind of the record, in the singular.
    pub kind: &'static str,
    /// Account at the start of the value; `None` if the record is a removal or contains no account.
    pub account: Option<String>,
}

/// Describes a record. The value may be damaged: an account that is no plain text is left out.
pub fn describe(key: Key, value: Option<&[u8]>) -> RecordDescription {
    let kind = match key {
        key if is_acknowledgement(key) => "acknowledgement",
        key if is_count_of_starts(key) => "count of starts",
        Key(number, _) if number >> 32 != 0 => "record of a kind that this version does not know",
        Key(_, STATE_SLOT) => "state",
        Key(..) => "subscription",
    };
    let account = value.filter(|_| ["state", "subscription"].contains(&kind)).and_then(account_of);
    RecordDescription { kind, account }
}

/// Reads the account. A value begins with the account's identifier: its length in one octet, then its text. In a
/// value with a versioned layout, a zero octet and the version of the layout come first.
fn account_of(value: &[u8]) -> Option<String> {
    let value = match value {
        [0, _version, rest @ ..] => rest,
        rest => rest,
    };
    let (length, rest) = value.split_first()?;
    let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    let plain = !text.is_empty() && *length < 128 && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned())
}

/// Lost records by kind and account as far as they can be read, the octets that cannot be read, and missing files.
pub fn lost(survey: &Survey) -> Vec<String> {
    let bad: Vec<&BadPart> = survey.files.iter().flat_map(|file| &file.bad).collect();
    let mut counts = BTreeMap::new();
    for (key, value) in bad.iter().flat_map(|bad| &bad.lost) {
        let about = describe(*key, value.as_deref());
        *counts.entry((about.account, about.kind, value.is_none())).or_insert(0_u64) += 1;
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|((account, kind, removal), count)| {
            let what = if removal { "removals of a " } else { "" };
            let whose = account.map_or_else(String::new, |account| format!(", account {account}"));
            format!("{what}{kind}{whose}: {count}")
        })
        .collect();
    let unreadable: u64 = bad.iter().filter(|bad| bad.lost.is_empty()).map(|bad| bad.octets).sum();
    if unreadable > 0 {
        lines.push(format!("{unreadable} octets in which nothing can be told apart"));
    }
    lines.extend(survey.missing.iter().map(|path| format!("all of {}, which is missing", path.display())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_account_are_told_of_both_layouts_and_of_nothing_else() {
        let about = |kind, account: Option<&str>| RecordDescription { kind, account: account.map(Into::into) };
        let [subscription, state] = [Key(7, 3), Key(7, STATE_SLOT)];
        assert_eq!(describe(subscription, Some(b"\x04acme\x041001")), about("subscription", Some("acme")));
        assert_eq!(describe(state, Some(b"\x00\x02\x04acme\x041001")), about("state", Some("acme")));
        assert_eq!(describe(state, None), about("state", None));
        assert_eq!(describe(Key(7 | (1 << 32), 3), Some(b"\x04acme")), about("acknowledgement", None));
        for damaged in [&b""[..], b"\x00", b"\x09acme", b"\x04ac\x01e", b"\x02\xff\xff"] {
            assert_eq!(describe(state, Some(damaged)), about("state", None), "{damaged:?}");
        }
    }
}
