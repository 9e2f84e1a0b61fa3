//! Digest authentication, client side (RFC 7616, RFC 8760).

use md5::Md5;
use sha2::{Digest, Sha256};

use super::scan::Scan;
use crate::sip::digest::Algorithm;
use crate::sip::headers::list;

/// The parts of a challenge that a phone remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    nonce: Box<str>,
    realm: Box<str>,
    algorithm: Algorithm,
    qop: bool,
    /// Nonce count.
    pub(super) count: u32,
}

/// Password of a user of the bench. It can be computed from this source, so such accounts are for benchmarks only.
pub(super) fn password(user: &str, domain: &str) -> String {
    hash(Algorithm::Sha256, &["lamplighter-bench", user, domain])[..20].into()
}

fn hash(algorithm: Algorithm, parts: &[&str]) -> String {
    let text = parts.join(":");
    let octets = match algorithm {
        Algorithm::Md5 => Md5::digest(text).to_vec(),
        Algorithm::Sha256 => Sha256::digest(text).to_vec(),
    };
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Login {
    /// Takes the challenge with the algorithm that this phone prefers, or else any that it supports.
    pub(super) fn take(answer: &Scan<'_>, preferred: Algorithm) -> Option<Login> {
        let name = "WWW-Authenticate";
        let challenges: Vec<_> = answer.all(name, name).filter_map(Login::read).collect();
        let found = challenges.iter().find(|login| login.algorithm == preferred).or(challenges.first());
        found.cloned()
    }

    fn read(value: &str) -> Option<Login> {
        let rest = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("Digest ")).map(|_| &value[7..])?;
        let params: Vec<_> = list(rest).filter_map(|param| param.split_once('=')).collect();
        let get = |name: &str| {
            let found = params.iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().trim_matches('"'))
        };
        let algorithm = match get("algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::ALL.into_iter().find(|known| name.eq_ignore_ascii_case(known.name()))?,
        };
        let qop = get("qop").is_some_and(|offered| offered.split(',').any(|one| one.trim() == "auth"));
        Some(Login { nonce: get("nonce")?.into(), realm: get("realm")?.into(), algorithm, qop, count: 0 })
    }

    /// Authorization header line for a request, with the present nonce count.
    pub(super) fn proof(&self, user: &str, password: &str, method: &str, uri: &str) -> String {
        let Login { nonce, realm, algorithm, qop, count } = self;
        let a1 = hash(*algorithm, &[user, realm, password]);
        let a2 = hash(*algorithm, &[method, uri]);
        let head = format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm={}",
            algorithm.name()
        );
        if *qop {
            let (count, cnonce) = (format!("{count:08x}"), &a2[..8]);
            let response = hash(*algorithm, &[&a1, nonce, &count, cnonce, "auth", &a2]);
            format!("{head}, qop=auth, nc={count}, cnonce=\"{cnonce}\", response=\"{response}\"\r\n")
        } else {
            format!("{head}, response=\"{}\"\r\n", hash(*algorithm, &[&a1, nonce, &a2]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::digest::{Credentials, Verifier, challenge};

    #[test]
    fn what_the_phones_prove_the_server_believes() {
        let lines: String = Algorithm::ALL
            .map(|algorithm| format!("WWW-Authenticate: {}\r\n", challenge(algorithm, "acme.test", "abc", false)))
            .concat();
        let answer = format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 SUBSCRIBE\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        let answer = Scan::read(answer.as_bytes()).unwrap();
        let password = password("p1", "acme.test");
        for algorithm in Algorithm::ALL {
            let mut login = Login::take(&answer, algorithm).unwrap();
            login.count += 1;
            let proof = login.proof("p1", &password, "SUBSCRIBE", "sip:e1@acme.test");
            let value = proof.strip_prefix("Authorization: ").unwrap().trim_end();
            let credentials = Credentials::read(value).unwrap();
            assert_eq!((credentials.algorithm, credentials.count()), (algorithm, 1));
            assert!(credentials.prove(&Verifier::new("p1", "acme.test", &password), "SUBSCRIBE"));
        }
    }

    #[test]
    fn a_challenge_without_qop_is_answered_the_old_way() {
        let login = Login::read("Digest realm=\"r\", nonce=\"n\"").unwrap();
        assert!(!login.proof("u", "p", "SUBSCRIBE", "sip:a@b").contains("qop"));
        assert_eq!(Login::read("Digest realm=\"r\", nonce=\"n\", algorithm=SHA-512"), None);
        assert_eq!(Login::read("Basic realm=\"r\""), None);
    }
}
