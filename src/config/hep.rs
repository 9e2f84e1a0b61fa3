//! `[hep]`: destination and filter of the copies of SIP traffic (HEP capture).

use std::net::SocketAddr;

use toml::Spanned;

use super::error::{ConfigError, Source};
use super::{Account, Hep, accounts, raw, validate};

/// Longest password in octets; every HEP packet carries it.
const LONGEST_PASSWORD: usize = 255;

/// Checks `[hep]`. Without the section nothing is captured.
pub(super) fn section(
    source: Source<'_>,
    raw: Option<Spanned<raw::Hep>>,
    accounts: &[Account],
) -> Result<Option<Hep>, ConfigError> {
    let Some(raw) = raw else { return Ok(None) };
    let whole = raw.span();
    let raw = raw.into_inner();
    let Some(written) = &raw.server else {
        return Err(source.fault(whole, "hep", "names no server, such as server = \"udp://192.0.2.9:9060\""));
    };
    let server =
        server_address(written.get_ref()).map_err(|problem| source.fault(written.span(), "hep.server", problem))?;
    let agent_id = validate::number(source, "hep.agent_id", &raw.agent_id, 1, 0..=i64::from(u32::MAX))?;
    let password = raw.password.map(|written| match written.get_ref().expose().len() {
        1..=LONGEST_PASSWORD if !accounts::is_blank(written.get_ref()) => Ok(written.into_inner()),
        _ => Err(source.fault(
            written.span(),
            "hep.password",
            "has to have 1 to 255 octets, and a visible character among them",
        )),
    });
    let traffic = match &raw.traffic {
        None => vec!["all".to_owned()],
        Some(list) => traffic(source, list, accounts)?,
    };
    Ok(Some(Hep { server, agent_id, password: password.transpose()?, traffic }))
}

fn server_address(written: &str) -> Result<SocketAddr, String> {
    const ALLOWED: &str = "allowed: \"udp://ADDRESS:PORT\" with an IP address, an IPv6 one in brackets";
    let address = match written.split_once("://") {
        Some(("udp", address)) => address,
        Some((scheme, _)) => return Err(format!("captures are not sent over \"{scheme}\"; {ALLOWED}")),
        None => return Err(format!("\"{written}\" has no transport before \"://\"; {ALLOWED}")),
    };
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 || address.ip().is_unspecified() => {
            Err(format!("{address} is no address that can be sent to; {ALLOWED}"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("\"{address}\" is not an IP address and a port; {ALLOWED}")),
    }
}

fn traffic(
    source: Source<'_>,
    list: &Spanned<Vec<Spanned<String>>>,
    accounts: &[Account],
) -> Result<Vec<String>, ConfigError> {
    if list.get_ref().is_empty() {
        let problem = "names nothing; leave the key out for all traffic, or the whole section for none";
        return Err(source.fault(list.span(), "hep.traffic", problem));
    }
    for (i, written) in list.get_ref().iter().enumerate() {
        let fault = |problem: String| source.fault(written.span(), format!("hep.traffic[{i}]"), problem);
        let text = written.get_ref();
        match text.split_once('@') {
            Some((user, host)) if user.is_empty() || host.is_empty() || host.contains('@') => {
                return Err(fault(format!("\"{text}\" is no address such as \"1002@acme.test\"")));
            }
            Some(_) => {}
            None if text == "all" || accounts.iter().any(|account| account.realm.eq_ignore_ascii_case(text)) => {}
            None => {
                let problem = format!(
                    "\"{text}\" is no account's realm; allowed: \"all\", realms, and addresses such as \"1002@acme.test\""
                );
                return Err(fault(problem));
            }
        }
    }
    Ok(list.get_ref().iter().map(|written| written.get_ref().clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn hep(text: &str) -> Result<Option<Hep>, String> {
        let account = "[[account]]\nid = \"a\"\nrealm = \"acme.test\"\n";
        Config::parse(&format!("{text}\n{account}"), "x.toml").map(|config| config.hep).map_err(|e| e.to_string())
    }

    #[test]
    fn without_the_section_nothing_is_copied_and_a_server_is_enough() {
        assert_eq!(hep(""), Ok(None));
        let least = hep("[hep]\nserver = \"udp://192.0.2.9:9060\"").unwrap().unwrap();
        assert_eq!(
            (least.server.to_string().as_str(), least.agent_id, &*least.traffic),
            ("192.0.2.9:9060", 1, &["all".to_owned()][..])
        );
        let all = "hep = { server = \"udp://[2001:db8::9]:9060\", agent_id = 2001, password = \"pass-123\", \
                   traffic = [\"Acme.test\", \"1002@elsewhere.test\"] }";
        let all = hep(all).unwrap().unwrap();
        assert_eq!((all.agent_id, all.traffic.len()), (2001, 2));
        assert!(all.password.as_ref().is_some_and(|password| password.expose() == "pass-123"));
        assert!(!format!("{all:?}").contains("pass-123"));
    }

    #[test]
    fn what_would_copy_nothing_or_go_nowhere_is_refused_with_its_place() {
        for (text, problem) in [
            ("agent_id = 1", "x.toml:1:1: hep: names no server"),
            ("server = \"tcp://192.0.2.9:9060\"", "not sent over \"tcp\""),
            ("server = \"192.0.2.9:9060\"", "no transport"),
            ("server = \"udp://homer.acme.test:9060\"", "not an IP address"),
            ("server = \"udp://0.0.0.0:9060\"", "can be sent to"),
            ("server = \"udp://192.0.2.9:9060\"\nagent_id = -1", "hep.agent_id: -1 is out of range"),
            ("server = \"udp://192.0.2.9:9060\"\npassword = \"\"", "hep.password"),
            ("server = \"udp://192.0.2.9:9060\"\ntraffic = []", "hep.traffic: names nothing"),
            (
                "server = \"udp://192.0.2.9:9060\"\ntraffic = [\"all\", \"acme.tset\"]",
                "hep.traffic[1]: \"acme.tset\" is no",
            ),
            ("server = \"udp://192.0.2.9:9060\"\ntraffic = [\"@acme.test\"]", "is no address"),
            ("sever = \"udp://192.0.2.9:9060\"", "x.toml:2:1: hep.sever"),
        ] {
            let refused = hep(&format!("[hep]\n{text}")).unwrap_err();
            assert!(refused.contains(problem), "{text}: {refused}");
        }
    }
}
