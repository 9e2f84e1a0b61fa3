//! Server side of Digest authentication (RFC 7616, RFC 8760), without a clock and without a user list.
//!
//! Input is the value of an Authorization header and the verifier of a user; the result tells whether the credentials
//! are valid for that user. [`nonces`] checks that a nonce was issued by this server, is recent and was not used
//! before.

pub mod nonces;

use std::borrow::Cow;

use md5::Md5;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::headers::{name_and_value, unquoted};
use super::scan::{cut_at_blank, split};

/// Hash functions that are offered, in order of preference (RFC 8760 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// MD5, the only one that most phones support.
    Md5,
}

impl Algorithm {
    /// All algorithms, in the order in which they are offered by default.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Md5 => "MD5",
        }
    }

    /// Hash of these parts, joined by colons, in hexadecimal.
    fn hash(self, parts: &[&str]) -> String {
        fn feed<D: sha2::Digest>(parts: &[&str]) -> Vec<u8> {
            let mut hasher = D::new();
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    hasher.update(b":");
                }
                hasher.update(part.as_bytes());
            }
            hasher.finalize().to_vec()
        }
        hex(&match self {
            Algorithm::Sha256 => feed::<Sha256>(parts),
            Algorithm::Md5 => feed::<Md5>(parts),
        })
    }
}

fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    octets.iter().flat_map(|o| [DIGITS[usize::from(o >> 4)], DIGITS[usize::from(o & 15)]]).map(char::from).collect()
}

/// Stored form of a password, one hash per algorithm (H(A1) of RFC 7616 section 3.4.2). Within its realm it is as
/// good as the password, so its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    sha256: String,
    md5: String,
}

impl Verifier {
    /// Computes the verifier of a user's password in a realm.
    pub fn new(username: &str, realm: &str, password: &str) -> Verifier {
        let of = |algorithm: Algorithm| algorithm.hash(&[username, realm, password]);
        Verifier { sha256: of(Algorithm::Sha256), md5: of(Algorithm::Md5) }
    }

    fn of(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Md5 => &self.md5,
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<verifier>")
    }
}

/// Limit on parameters of an Authorization header. RFC 7616 section 3.4 defines a dozen, and extensions are rare; a
/// header with more is rejected.
const MAX_PARAMETERS: usize = 32;
/// Parameters that are read. Each may occur only once.
const PARAMETERS: [&str; 9] = ["username", "realm", "nonce", "uri", "response", "algorithm", "qop", "nc", "cnonce"];

/// Content of an Authorization header, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// User name that the client claims.
    pub username: Cow<'a, str>,
    /// Realm of the user.
    pub realm: Cow<'a, str>,
    /// Nonce of the challenge that it responds to.
    pub nonce: Cow<'a, str>,
    /// URI of the request, before any proxy changed it.
    pub uri: Cow<'a, str>,
    /// Digest that proves knowledge of the password.
    response: Cow<'a, str>,
    /// Algorithm of the digest.
    pub algorithm: Algorithm,
    /// Client nonce and nonce count, with `qop=auth`; none for a digest of RFC 2069.
    qop: Option<Use<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Use<'a> {
    cnonce: Cow<'a, str>,
    /// Count as written, for hashing.
    written: Cow<'a, str>,
    count: u32,
}

impl<'a> Credentials<'a> {
    /// Parses the value of an Authorization header. None for another scheme, an algorithm or qop that was not
    /// offered, an incomplete value, a parameter that occurs twice, or too many parameters. Such a request counts as
    /// one without credentials (RFC 8760 section 2.6).
    pub fn read(value: &'a str) -> Option<Credentials<'a>> {
        let (scheme, rest) = cut_at_blank(value)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut values = [None; PARAMETERS.len()];
        for (count, (name, value)) in split(rest, b',').map(name_and_value).enumerate() {
            if count == MAX_PARAMETERS {
                return None;
            }
            let known = PARAMETERS.iter().position(|known| known.eq_ignore_ascii_case(name));
            if known.is_some_and(|known| values[known].replace(value).is_some()) {
                return None;
            }
        }
        let get = |name: &str| PARAMETERS.iter().position(|known| *known == name).and_then(|i| values[i]).map(unquoted);
        let algorithm = match get("algorithm") {
            None => Algorithm::Md5,
            Some(named) => Algorithm::ALL.into_iter().find(|known| named.eq_ignore_ascii_case(known.name()))?,
        };
        let qop = match get("qop") {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                let written = get("nc")?;
                let hexadecimal = written.len() == 8 && written.bytes().all(|b| b.is_ascii_hexdigit());
                let count = hexadecimal.then(|| u32::from_str_radix(&written, 16).ok())??;
                Some(Use { cnonce: get("cnonce")?, written, count })
            }
            Some(_) => return None,
        };
        Some(Credentials {
            username: get("username")?,
            realm: get("realm")?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            algorithm,
            qop,
        })
    }

    /// Nonce count that the client claims. Without `qop`, every use is the first.
    pub fn count(&self) -> u32 {
        self.qop.as_ref().map_or(1, |qop| qop.count)
    }

    /// Verifies the digest for this user and method. The comparison takes constant time, so it reveals nothing about
    /// the expected digest.
    pub fn prove(&self, verifier: &Verifier, method: &str) -> bool {
        let a1 = verifier.of(self.algorithm);
        let a2 = self.algorithm.hash(&[method, &self.uri]);
        let expected = match &self.qop {
            Some(qop) => self.algorithm.hash(&[a1, &self.nonce, &qop.written, &qop.cnonce, "auth", &a2]),
            None => self.algorithm.hash(&[a1, &self.nonce, &a2]),
        };
        let given = self.response.to_ascii_lowercase();
        given.as_bytes().ct_eq(expected.as_bytes()).into()
    }
}

/// Challenge: value of a WWW-Authenticate header, of which there is one per algorithm (RFC 8760 section 2.4).
pub fn challenge(algorithm: Algorithm, realm: &str, nonce: &str, stale: bool) -> String {
    let stale = if stale { ", stale=true" } else { "" };
    format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}", algorithm.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of RFC 7616 section 3.9.1, with its password.
    const MUFASA: &str = "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
         nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
         cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
         opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    const MD5_RESPONSE: &str = "8ca523f5e9506fed4657c9700eebdbec";
    const SHA256_RESPONSE: &str = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";

    fn mufasa() -> Verifier {
        Verifier::new("Mufasa", "http-auth@example.org", "Circle of Life")
    }

    #[test]
    fn the_examples_of_rfc_7616_hold() {
        for (algorithm, response) in [("MD5", MD5_RESPONSE), ("SHA-256", SHA256_RESPONSE)] {
            let value = format!("Digest {MUFASA}, algorithm={algorithm}, response=\"{response}\"");
            let credentials = Credentials::read(&value).unwrap();
            assert!(credentials.prove(&mufasa(), "GET"), "{algorithm}");
            assert!(!credentials.prove(&mufasa(), "POST"), "the method counts (L-004)");
            assert!(!credentials.prove(&Verifier::new("Mufasa", "http-auth@example.org", "x"), "GET"));
            let bent = value.replace("/dir/", "/dur/");
            assert!(!Credentials::read(&bent).unwrap().prove(&mufasa(), "GET"), "so does the URI");
        }
    }

    #[test]
    fn an_answer_without_qop_is_understood_as_in_rfc_2069() {
        let response = {
            let a1 = Algorithm::Md5.hash(&["u", "r", "p"]);
            let a2 = Algorithm::Md5.hash(&["SUBSCRIBE", "sip:a@b"]);
            Algorithm::Md5.hash(&[&a1, "n", &a2])
        };
        let value = format!("Digest username=u,realm=\"r\",nonce=\"n\",uri=\"sip:a@b\",response={response}");
        let credentials = Credentials::read(&value).unwrap();
        assert!(credentials.prove(&Verifier::new("u", "r", "p"), "SUBSCRIBE"));
        assert_eq!(credentials.count(), 1);
    }

    #[test]
    fn counts_are_hexadecimal_and_quotes_may_hold_anything() {
        let value = "digest  username=\"a \\\"b\\\", c\", realm=\"r\", nonce=\"n\", uri=\"sip:a@b\", response=\"x\", \
             qop=\"auth\", nc=0000000a, cnonce=\"c\"";
        let credentials = Credentials::read(value).unwrap();
        assert_eq!((&*credentials.username, credentials.count()), ("a \"b\", c", 10));
    }

    #[test]
    fn what_was_not_offered_or_is_not_whole_counts_as_no_answer() {
        let whole = format!("Digest {MUFASA}, algorithm=MD5, response=\"{MD5_RESPONSE}\"");
        assert!(Credentials::read(&whole).is_some());
        for (from, to) in [
            ("Digest ", "Basic "),
            ("algorithm=MD5", "algorithm=MD5-sess"),
            ("algorithm=MD5", "algorithm=FOO"),
            ("qop=auth", "qop=auth-int"),
            ("nc=00000001", "nc=1"),
            ("nc=00000001", "nc=+0000001"),
            ("nc=00000001, ", ""),
            ("cnonce=", "xnonce="),
            ("username=", "xusername="),
            ("realm=", "username=\"x\", realm="),
            ("realm=", "Realm=\"x\", realm="),
        ] {
            assert_eq!(Credentials::read(&whole.replacen(from, to, 1)), None, "{from} -> {to}");
        }
        let with = |more: usize| {
            let more: String = (0..more).map(|n| format!(", a{n}=\"\"")).collect();
            Credentials::read(&format!("{whole}{more}")).is_some()
        };
        let own = whole.split(',').count();
        assert_eq!((with(MAX_PARAMETERS - own), with(MAX_PARAMETERS - own + 1)), (true, false));
    }

    #[test]
    fn a_challenge_always_has_qop() {
        let fresh = "Digest realm=\"acme.test\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"";
        assert_eq!(challenge(Algorithm::Sha256, "acme.test", "n", false), fresh);
        assert_eq!(challenge(Algorithm::Sha256, "acme.test", "n", true), format!("{fresh}, stale=true"));
    }

    #[test]
    fn a_verifier_does_not_show_itself() {
        assert_eq!(format!("{:?}", mufasa()), "<verifier>");
    }
}
