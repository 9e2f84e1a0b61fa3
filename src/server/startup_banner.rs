//! Startup banner: the text that the server prints to standard output when it is ready.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Config, ListenTransport};
use crate::server::Server;

/// Prints the addresses that the server listens on and, for the demo account, commands to paste into another terminal.
pub fn print(config: &Config, server: &Server, demo_token: Option<&str>) {
    // Errors are ignored: the server works without a standard output.
    let _ = write(&mut io::stdout().lock(), config, server.addresses(), demo_token);
}

fn write(out: &mut impl io::Write, config: &Config, addresses: &[String], token: Option<&str>) -> io::Result<()> {
    writeln!(out, "Lamplighter {} is ready: {}", env!("CARGO_PKG_VERSION"), addresses.join(", "))?;
    if let (Some(token), Some(account)) = (token, config.accounts.first()) {
        let (realm, http) = (&account.realm, reachable(config.http.listen));
        let sip = config.sip.listen.iter().find(|l| l.transport == ListenTransport::Udp);
        let sip = sip.map(|l| reachable(l.address)).filter(|a| a.port() != 5060);
        let server = sip.map(|a| format!(" --server udp:{a}")).unwrap_or_default();
        let path = format!("http://{http}/v2/accounts/{}/presence", account.id);
        let command = std::env::args().next().unwrap_or_else(|| "lamplighter".into());
        writeln!(
            out,
            "\nNo configuration file was given, so this is a demo that forgets everything when it stops.\n  \
             realm  {realm}\n  token  {token}\n\n\
             Paste these into another terminal.\n\n\
             Watch the lamp of extension 1001:\n  {command} watch 1001@{realm}{server}\n\n\
             Let it ring (early), talk (confirmed) or be idle (terminated):\n  \
             curl -H 'X-Auth-Token: {token}' -H 'Content-Type: application/json' \
             -d '{{\"data\":{{\"action\":\"set\",\"state\":\"early\"}}}}' {path}/1001\n\n\
             List who watches whom:\n  curl -H 'X-Auth-Token: {token}' {path}\n\n\
             See all of it in a browser:\n  http://{http}/#token={token}&account={}\n\n\
             Ctrl-C stops it. With a file of your own: {command} serve --config FILE",
            account.id
        )?;
    }
    out.flush()
}

/// Returns an address that a client on this machine can connect to: loopback in place of an unspecified address.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_greeting_has_three_commands_to_paste() {
        let mut out = Vec::new();
        write(&mut out, &Config::demo("t0ken"), &["x".into()], Some("t0ken")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(" watch 1001@demo.lamplighter.test\n"), "{text}");
        assert!(
            text.contains("-d '{\"data\":{\"action\":\"set\",\"state\":\"early\"}}' http://127.0.0.1:8000/v2/"),
            "{text}"
        );
        assert_eq!(text.matches("X-Auth-Token: t0ken").count(), 2);
        assert!(text.contains("http://127.0.0.1:8000/#token=t0ken&account=de3"), "{text}");
    }

    #[test]
    fn with_a_configuration_file_no_token_is_printed() {
        let mut out = Vec::new();
        write(&mut out, &Config::demo("t0ken"), &["x".into()], None).unwrap();
        assert!(!String::from_utf8(out).unwrap().contains("t0ken"));
    }
}
