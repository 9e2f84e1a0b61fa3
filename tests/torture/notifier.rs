//! A real notifier without sockets.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use lamplighter::config::Config;
use lamplighter::directory::Directory;
use lamplighter::notifier::{Notifier, Settings};
use lamplighter::sip::Transport;
use lamplighter::transport::{FlowId, Listener, ListenerId, Source};

const CONFIG: &str = r#"
[sip]
listen = ["udp://127.0.0.1:5060"]
[access]
trusted_proxies = ["192.0.2.0/24"]
[[account]]
id = "acc00000000000000000000000000001"
name = "Acme"
realm = "acme.test"
"#;

/// Settings of a notifier, parsed once, because the targets make a new notifier for every input.
pub(crate) struct House {
    config: Config,
    pub(crate) directory: Arc<Directory>,
}

impl House {
    pub(crate) fn new(config: &str) -> House {
        let config = Config::parse(config, "torture.toml").expect("a sound configuration");
        let directory = Arc::new(config.directory());
        House { config, directory }
    }

    pub(crate) fn notifier(&self) -> Notifier {
        let listener = |transport, address: &str| Listener {
            transport,
            address: address.parse().expect("an address"),
            sent_by: address.into(),
        };
        let listeners = vec![
            listener(Transport::Udp, "192.0.2.1:5060"),
            listener(Transport::Tcp, "192.0.2.1:5060"),
            listener(Transport::Udp, "[2001:db8::1]:5060"),
        ];
        let settings = self.config.notifier(Arc::clone(&self.directory), listeners, [7; 16]);
        Notifier::new(Settings { journal: false, ..settings })
    }
}

/// A notifier with one account and without a user list, so that every extension of acme.test exists.
pub(crate) fn notifier() -> Notifier {
    static HOUSE: LazyLock<House> = LazyLock::new(|| House::new(CONFIG));
    HOUSE.notifier()
}

pub(crate) fn udp_source(peer: &str) -> Source {
    let peer: SocketAddr = peer.parse().expect("an address");
    let listener = ListenerId(if peer.is_ipv6() { 2 } else { 0 });
    Source { transport: Transport::Udp, listener, peer, flow: None, certified: false }
}

pub(crate) fn tcp_source(peer: &str) -> Source {
    let peer = peer.parse().expect("an address");
    Source { transport: Transport::Tcp, listener: ListenerId(1), peer, flow: Some(FlowId(1)), certified: false }
}
