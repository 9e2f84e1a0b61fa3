//! Isolation of tenants (rule 8): no response to an unverified source depends on other tenants, and an identity that
//! cannot be parsed belongs to no tenant.

use crate::office::{Office, dialog, udp};

/// Two realms, each with a phone that has a subscription.
fn two_realms(more: &str) -> (Office, [String; 2]) {
    let mut office = Office::with(more);
    let tags = ["1001@acme.test", "2001@umbrella.test"].map(|target| {
        let mut phone = office.phone(target, "dialog");
        phone.source = udp("10.0.0.7:5060");
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
        phone.to_tag.unwrap()
    });
    (office, tags)
}

/// Guessed tags: of a dialog without knowing its secret, and of no dialog.
fn guesses(tags: &[String; 2]) -> Vec<String> {
    let mut guesses = vec!["x".into(), "1.0".into(), "ffffffff.0.0000000000000000".into()];
    for tag in tags {
        let place = &tag[..tag.rfind('.').unwrap()];
        guesses.push(format!("{place}.0000000000000000"));
        guesses.push(format!("{place}.{:016x}", u64::MAX));
    }
    guesses.extend((0..40).map(|number| format!("{number:x}.0.0000000000000000")));
    guesses
}

#[test]
fn a_tag_whose_secret_is_wrong_tells_nothing_of_the_dialog_that_it_points_at() {
    let (mut office, tags) = two_realms("[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n");
    for (target, expected) in [("x@nowhere.invalid", 481), ("x@acme.test", 401), ("x@umbrella.test", 401)] {
        for guess in guesses(&tags) {
            let mut phone = office.phone(target, "dialog");
            phone.to_tag = Some(guess.clone());
            let sent = phone.subscribe(&mut office, 600);
            assert_eq!(sent[0].status(), expected, "{target} {guess}: {}", sent[0].text);
            if expected == 401 {
                // The realm of its From, which is a phone of acme.test.
                let challenge = sent[0].header("WWW-Authenticate");
                assert!(challenge.contains("realm=\"acme.test\""), "{guess}: {challenge}");
            }
        }
    }
    // With a trusted source, or without authentication, every guess gets the same response as well.
    for (more, source) in
        [("", "203.0.113.5:5060"), ("[access]\ntrusted_proxies = [\"10.0.0.0/8\"]\n", "10.0.0.7:5060")]
    {
        let more = if more.is_empty() {
            "[access]\nauthenticate = \"off\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n"
        } else {
            more
        };
        let (mut office, tags) = two_realms(more);
        for target in ["x@nowhere.invalid", "x@acme.test"] {
            for guess in guesses(&tags) {
                let mut phone = office.phone(target, "dialog");
                (phone.source, phone.to_tag) = (udp(source), Some(guess.clone()));
                assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481, "{target} {guess}");
            }
        }
    }
}

#[test]
fn an_identity_that_names_no_sip_user_of_one_realm_is_an_unknown_sender() {
    let mut office = Office::with("[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n");
    let mut asserted = |lines: &str| {
        let mut phone = office.phone("1001", "dialog");
        (phone.source, phone.more) = (udp("10.0.0.7:5060"), lines.into());
        phone.subscribe(&mut office, 600)[0].status()
    };
    for unreadable in [
        "",
        " ",
        ",",
        "<>",
        "<tel:+4930123>",
        "<mailto:eve@umbrella.test>",
        "<urn:x:y>",
        "<sip:1001@umbrella.test:99999>",
        "<sip:1001@acme.test:99999>",
        "\"x\" <sip:1001@umbrella.test",
        "\"x\" <sip:1001@acme.test",
        "\"x <sip:1001@acme.test>",
        "<sip:acme.test>",
        "<sip:@acme.test>",
        "1001",
        "sip:",
        "<sip:1001@acme.test>, <>",
        "<sip:1001@acme.test>, <mailto:eve@umbrella.test>",
        "<sip:1001@acme.test>, <sip:1001@umbrella.test>",
        "<tel:+4930123>, <sip:1001@umbrella.test>",
    ] {
        let status = asserted(&format!("P-Asserted-Identity: {unreadable}\r\n"));
        assert!([400, 401, 403].contains(&status), "{unreadable}: {status}");
    }
    assert_eq!(asserted("P-Asserted-Identity: <sip:1001@acme.test>\r\nP-Asserted-Identity: <>\r\n"), 403, "any line");
    for readable in [
        "<sip:1001@acme.test>",
        "sip:1001@acme.test",
        "<sips:1001@ACME.test:5061;user=phone>",
        "<sip:1001@acme.test>, <tel:+4930123>",
        "<tel:+4930123>, <sip:1001@acme.test>",
        "\"Eve <sip:eve@umbrella.test>, x\" <sip:1001@acme.test>",
        "\"a \\\" <b>\" <sip:1001@acme.test>;x=y",
    ] {
        assert_eq!(asserted(&format!("P-Asserted-Identity: {readable}\r\n")), 200, "{readable}");
    }
    assert_eq!(asserted("P-Asserted-Identity: <sip:1001@acme.test>\r\nP-Asserted-Identity: <tel:+4930123>\r\n"), 200);
    assert_eq!(asserted(""), 200, "a proxy may speak for itself");
}

#[test]
fn a_user_is_measured_in_the_form_that_is_kept_and_survives_a_restart() {
    let mut office = Office::open();
    // Two octets that become 3 in lower case, and three that become 1.
    let (grows, shrinks) = ("%C4%B0", "%E2%84%AA");
    for (user, status) in
        [(grows.repeat(64), 404), (grows.repeat(43), 404), (grows.repeat(42), 200), (shrinks.repeat(128), 200)]
    {
        let mut phone = office.phone(&user, "dialog");
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), status, "{user}");
        assert_eq!(office.publish(&user, None, &dialog("c", "early"))[0].status(), status, "{user}");
    }
    let before = office.list().len();
    let restored = office.crash();
    assert_eq!((office.list().len(), restored.unusable()), (before, 0));
}

#[test]
fn what_is_given_out_does_not_count_what_others_do() {
    let numbers = |others: usize| {
        let (mut office, _) =
            two_realms("[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"10.0.0.0/8\", \"203.0.113.9\"]\n");
        let mut given = Vec::new();
        for round in 0..3 {
            for other in 0..others {
                let user = format!("{round}{other}");
                let mut phone = office.phone(&format!("{user}@umbrella.test"), "dialog");
                phone.source = udp("10.0.0.7:5060");
                assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
            }
            let mut stranger = office.phone("1001", "dialog");
            let challenge = stranger.subscribe(&mut office, 600)[0].header("WWW-Authenticate").to_string();
            let nonce = challenge.split("nonce=\"").nth(1).unwrap()[16..32].to_string();
            let etag =
                office.publish(&format!("{round}"), None, &dialog("c", "early"))[0].header("SIP-ETag").to_string();
            let mut phone = office.phone(&format!("{round}"), "dialog");
            phone.source = udp("10.0.0.7:5060");
            phone.subscribe(&mut office, 600);
            given.push(
                [nonce, etag, phone.to_tag.unwrap()]
                    .map(|text| u64::from_str_radix(text.split('.').next().unwrap(), 16).unwrap()),
            );
        }
        given
    };
    for (one, two) in [(0, 1), (1, 2)] {
        for others in [0, 50] {
            let given = numbers(others);
            for what in 0..2 {
                let step = given[two][what].wrapping_sub(given[one][what]);
                assert!(step.min(step.wrapping_neg()) > 1_000, "it counts: {given:x?}");
            }
            let step = given[two][2].wrapping_sub(given[one][2]);
            assert_eq!(step, 1, "of one's own account one may count: {given:x?}");
        }
    }
}
