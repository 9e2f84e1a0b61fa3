//! Tests of passwords and tokens that are refused or accepted with a warning.

use super::*;
use crate::directory::{AccountNo, TokenScope};

#[test]
fn short_and_repeated_tokens_are_warned_about_and_never_shown() {
    let long =
        contract_with("\"root-token\"", "\"0123456789abcdef\"").replace("\"acme-token\"", "\"fedcba9876543210\"");
    assert_eq!(Config::parse(&long, "l.toml").unwrap().warnings, []);
    let warned = |text: &str| {
        let config = Config::parse(text, "l.toml").unwrap();
        config.warnings.iter().map(|warning| (warning.place.unwrap().0, warning.to_string())).collect::<Vec<_>>()
    };
    let short = warned(&long.replace("0123456789abcdef", "123456789abcdef"));
    assert_eq!(short.len(), 1, "{short:?}");
    assert!(short[0].1.contains("token[1].value: has fewer than 16 characters"), "{short:?}");
    let line = long.lines().position(|line| line.contains("0123456789abcdef")).unwrap() + 1;
    assert_eq!(short[0].0, line);
    let twice = warned(&long.replace("0123456789abcdef", "fedcba9876543210"));
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(twice[0].1.contains("token[1].value: is the value of token[0] as well"), "{twice:?}");
    for (_, text) in short.iter().chain(&twice) {
        assert!(!text.contains("123456789abcdef") && !text.contains("fedcba"), "{text}");
    }
    assert_eq!(warned(CONTRACT).len(), 2, "accepted as it is");
    // If a token is listed twice, the first entry applies.
    let config = Config::parse(&contract_with("\"root-token\"", "\"acme-token\""), "l").unwrap();
    assert_eq!(config.directory().bearer("acme-token"), Some(TokenScope::Account(AccountNo(0))));
}

#[test]
fn a_secret_without_a_visible_character_is_refused() {
    for blank in ["", " ", "\\t \\u00a0", "\\u200b", "\\u0000", "\\ufeff\\u2003"] {
        let error = refused(&contract_with("\"s3cret-1001\"", &format!("\"{blank}\"")));
        assert_eq!(error.key, "account[0].device[0].sip.password", "{blank:?}");
        assert!(error.place.is_some() && error.problem.contains("allowed: "), "{error}");
        let hook =
            "  [[account.webhook]]\n  url = \"https://a.test\"\n  secret = \"BLANK\"\n[[account]]\nid = \"5a5a\"";
        let hook = hook.replace("BLANK", &blank.repeat(30));
        assert_eq!(refused(&contract_with("[[account]]\nid = \"5a5a\"", &hook)).key, "account[0].webhook[0].secret");
        let hep = format!("hep = {{ server = \"udp://192.0.2.9:9060\", password = \"{blank}\" }}\n{CONTRACT}");
        assert_eq!(refused(&hep).key, "hep.password");
    }
    let odd = contract_with("\"s3cret-1001\"", "\" . \"");
    let config = Config::parse(&odd, "l").unwrap();
    assert_eq!(
        config.accounts[0].devices[0].sip.as_ref().unwrap().password,
        Some(Secret::new(" . ")),
        "as it is written"
    );
}
