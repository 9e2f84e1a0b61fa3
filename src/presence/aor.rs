//! Addresses of record: the addresses of presentities.

use smol_str::SmolStr;

use crate::sip::uri::percent_decode;

/// Account, as an index into the directory. Its realm is a hard partition that nothing here crosses (rule 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountNo(pub u32);

/// Longest user part in canonical form (octets).
pub const MAX_USER: usize = 128;

/// Canonical form of a user, which is kept and compared: in lower case. None if that form is empty, longer than
/// [`MAX_USER`] or holds control characters.
///
/// This is the only rule for users, for SIP, HTTP and the journal alike.
pub fn canonical_user(user: &str) -> Option<SmolStr> {
    // The limit applies to the lower-case form, which may be longer or shorter than the original.
    let user = SmolStr::from(user.to_lowercase());
    let sound = !user.is_empty() && user.len() <= MAX_USER && !user.contains(char::is_control);
    sound.then_some(user)
}

/// Address of record of a presentity: an account and a user in it.
///
/// Users compare without case and with escapes resolved, as in Kazoo and Kamailio. RFC 3261 section 19.1.4 compares
/// users with case, but then a subscription to `sip:Bob@` would show nothing of `sip:bob@` and the lamp would stay
/// dark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor {
    /// The account.
    pub account: AccountNo,
    /// The user part, decoded and in lower case.
    pub user: SmolStr,
}

impl Aor {
    /// Address of a user as an operator writes it, escapes already resolved. None if the user has no [canonical
    /// form](canonical_user).
    pub fn of(account: AccountNo, user: &str) -> Option<Aor> {
        Some(Aor { account, user: canonical_user(user)? })
    }

    /// Address of a user part with escapes, as it stands in a SIP URI.
    pub fn of_escaped(account: AccountNo, user: &str) -> Option<Aor> {
        Aor::of(account, &percent_decode(user))
    }

    /// Formats `sip:user@realm`, with the user escaped where a URI needs it.
    pub fn uri(&self, realm: &str) -> String {
        use std::fmt::Write as _;
        let mut uri = String::with_capacity(self.user.len() + realm.len() + 8);
        uri.push_str("sip:");
        for c in self.user.bytes() {
            if c.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&c) {
                uri.push(c as char);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(uri, "%{c:02X}");
            }
        }
        uri.push('@');
        uri.push_str(realm);
        uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountNo = AccountNo(0);

    #[test]
    fn case_and_escapes_make_no_difference() {
        assert_eq!(Aor::of_escaped(A, "%2A3101"), Aor::of(A, "*3101"));
        assert_eq!(Aor::of(A, "ABC"), Aor::of_escaped(A, "%61bc"));
        assert_ne!(Aor::of(A, "1001"), Aor::of(AccountNo(1), "1001"));
    }

    #[test]
    fn unsound_users_have_no_address() {
        assert_eq!((Aor::of(A, ""), Aor::of_escaped(A, "x%00"), Aor::of(A, &"x".repeat(129))), (None, None, None));
    }

    #[test]
    fn the_length_of_the_kept_form_counts() {
        let users = |c: char, count: usize| Aor::of(A, &c.to_string().repeat(count));
        // 2 octets that become 3, and 3 that become 1.
        assert_eq!((users('\u{130}', 43), users('\u{130}', 64)), (None, None));
        assert_eq!(users('\u{212a}', 128), Aor::of(A, &"k".repeat(128)));
        let longest = users('\u{130}', 42).unwrap();
        assert_eq!(Aor::of(A, &longest.user), Some(longest), "what is kept is read back");
    }

    #[test]
    fn the_uri_escapes_what_it_must() {
        assert_eq!(Aor::of(A, "*3101").map(|a| a.uri("acme.test")), Some("sip:*3101@acme.test".into()));
        assert_eq!(Aor::of(A, "a b@c").map(|a| a.uri("x")), Some("sip:a%20b%40c@x".into()));
    }
}
