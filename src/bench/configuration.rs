//! Configuration of a server for these scenarios, so that every reader can repeat them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::login::password;

/// Parameters of the configuration.
pub(super) struct Wanted<'a> {
    pub(super) domain: &'a str,
    /// Number of phones with a password; none: no authentication.
    pub(super) phones: Option<u32>,
    pub(super) listen: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) durability: &'a str,
    pub(super) data: &'a Path,
}

/// Writes the configuration.
pub(super) fn write(wanted: &Wanted<'_>) -> String {
    let Wanted { domain, listen, http, durability, data, .. } = wanted;
    let mut out = format!(
        r#"# Written by `lamplighter bench config`, for benchmarks only: its passwords can be computed by anybody.

[sip]
listen = ["udp://{listen}"]

[http]
listen = "{http}"

[data]
durability = "{durability}"
dir = {data:?}

[log]
level = "warn"

# The phones are one account. A phone of the benches may have more keys than one has in an office.
[limits]
subscriptions = 20000000
subscriptions_per_account = 20000000
subscriptions_per_device = 20000000
watchers_per_presentity = 1000000
presentities_per_account = 20000000
"#
    );
    // Writing into a string cannot fail.
    let _ = match wanted.phones {
        None => {
            writeln!(out, "\n# Phones of the benches come from 127.0.0.0/8, which is trusted unless said otherwise.")
        }
        Some(_) => writeln!(
            out,
            "\n# Nobody is trusted, so all the limits on who may say how much are in force as they are by default.\n\
             [access]\nauthenticate = \"digest\"\ntrusted_proxies = []"
        ),
    };
    let _ = writeln!(out, "\n[[token]]\nvalue = \"bench\"\nsuperuser = true");
    let _ = writeln!(
        out,
        "\n[[account]]\nid = \"be9c0000000000000000000000000001\"\nname = \"Bench\"\nrealm = \"{domain}\""
    );
    let mut device = |id: u32, user: &str, more: &str| {
        let password = password(user, domain);
        let _ = writeln!(
            out,
            "\n  [[account.device]]\n  id = \"be9cde{id:026x}\"\n  \
             sip = {{ username = \"{user}\", password = \"{password}\"{more} }}"
        );
    };
    if let Some(phones) = wanted.phones {
        device(u32::MAX, "pbx", ", publishes = \"account\"");
        (0..phones).for_each(|n| device(n, &format!("p{n}"), ""));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_server_takes_what_is_written() {
        for (phones, devices) in [(None, 0), (Some(50), 51)] {
            let wanted = Wanted {
                domain: "acme.test",
                phones,
                listen: "127.0.0.1:5060".parse().unwrap(),
                http: "127.0.0.1:8000".parse().unwrap(),
                durability: "strict",
                data: Path::new("/tmp/a \"quoted\" folder"),
            };
            let folder = std::env::temp_dir().join(format!("lamplighter-bench-{}-{devices}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join("lamplighter.toml");
            std::fs::write(&file, write(&wanted)).unwrap();
            let config = Config::load(&file).unwrap();
            std::fs::remove_dir_all(&folder).unwrap();
            assert_eq!(config.accounts[0].devices.len(), devices);
        }
    }
}
