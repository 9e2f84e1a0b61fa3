//! `[dns]`: DNS servers for resolving the names in Contact and Route.

use std::net::{IpAddr, SocketAddr};

use super::error::{ConfigError, Source};
use super::raw;

/// Default port of a DNS server.
const PORT: u16 = 53;

/// DNS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Servers to query; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
}

/// Checks `[dns]`.
pub(super) fn section(source: Source<'_>, raw: &raw::Dns) -> Result<Dns, ConfigError> {
    let Some(list) = &raw.servers else { return Ok(Dns::default()) };
    if list.get_ref().is_empty() {
        let problem = "names no server; leave the key out to ask those of /etc/resolv.conf";
        return Err(source.fault(list.span(), "dns.servers", problem));
    }
    let mut servers = Vec::new();
    for (i, written) in list.get_ref().iter().enumerate() {
        let fault = |problem: String| source.fault(written.span(), format!("dns.servers[{i}]"), problem);
        let text = written.get_ref();
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let server = match text.parse() {
            Ok(server) => server,
            Err(_) => bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)).map_err(|_| {
                fault(format!("\"{text}\" is not an IP address with or without a port, such as \"127.0.0.1:5353\""))
            })?,
        };
        if server.port() == 0 || server.ip().is_unspecified() {
            return Err(fault(format!("{server} is no address that can be sent to")));
        }
        if servers.contains(&server) {
            return Err(fault(format!("{server} is listed twice")));
        }
        servers.push(server);
    }
    Ok(Dns { servers })
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn servers(text: &str) -> Result<Vec<String>, String> {
        let config = Config::parse(&format!("[dns]\n{text}\n"), "x.toml").map_err(|error| error.to_string())?;
        Ok(config.dns.servers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn servers_are_addresses_with_or_without_port() {
        assert_eq!(servers(""), Ok(vec![]));
        let written = "servers = [\"127.0.0.1:5353\", \"192.0.2.53\", \"2001:db8::53\", \"[2001:db8::54]:5353\"]";
        let read = ["127.0.0.1:5353", "192.0.2.53:53", "[2001:db8::53]:53", "[2001:db8::54]:5353"];
        assert_eq!(servers(written), Ok(read.map(String::from).to_vec()));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_place() {
        for (written, problem) in [
            ("servers = []", "dns.servers"),
            ("servers = [\"ns.acme.test\"]", "dns.servers[0]"),
            ("servers = [\"192.0.2.53\", \"0.0.0.0\"]", "dns.servers[1]"),
            ("servers = [\"192.0.2.53:0\"]", "no address that can be sent to"),
            ("servers = [\"192.0.2.53\", \"192.0.2.53:53\"]", "listed twice"),
            ("server = [\"192.0.2.53\"]", "server"),
        ] {
            let refused = servers(written).unwrap_err();
            assert!(refused.contains(problem) && refused.contains("x.toml:2"), "{written}: {refused}");
        }
    }
}
