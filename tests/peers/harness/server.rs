//! Lamplighter itself, started as an operator starts it, with the account of the example configuration.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::folder::Folder;
use super::http::{self, Listed};
use super::process::Process;
use super::{ports, wait_for};

const ACCOUNT: &str = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5";
const TOKEN: &str = "acme-token";

/// Settings that may differ from the example.
pub(crate) struct Settings {
    pub(crate) min_expires: u32,
    /// Scheme of a third listener, beside UDP and TCP.
    pub(crate) also: Option<&'static str>,
    /// True if there is a self-signed certificate for 127.0.0.1: `certificate.pem` and `key.pem` in the folder.
    pub(crate) certificate: bool,
    /// True if no source is trusted and all phones must authenticate by digest.
    pub(crate) guarded: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_expires: 60, also: None, certificate: false, guarded: false }
    }
}

pub(crate) struct Server {
    // Ended before the folder is removed: fields are dropped in the order of their declaration.
    process: Process,
    sip: u16,
    also: u16,
    http: u16,
    folder: Folder,
}

impl Server {
    pub(crate) fn start(name: &str, settings: &Settings) -> Self {
        let folder = Folder::new(name);
        let (sip, also, http) = (ports::free(), ports::free(), ports::free());
        let file = folder.path().join("lamplighter.toml");
        let mut text = configuration(sip, also, http, settings);
        if settings.certificate {
            install_certificate(folder.path());
            text.push_str("[tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n");
        }
        std::fs::write(&file, text).expect("the configuration can be written");
        let mut command = Command::new(Self::binary());
        command.args(["serve", "--config"]).arg(&file);
        let mut process = Process::start("lamplighter", &mut command, folder.path());
        let ready = format!("http://127.0.0.1:{http}/readyz");
        wait_for("200 from /readyz", || {
            if let Some(status) = process.has_ended() {
                let said = std::fs::read_to_string(folder.path().join("lamplighter.out")).unwrap_or_default();
                panic!("lamplighter ended before it was ready ({status}):\n{said}");
            }
            http::request("GET", &ready, "", None).filter(|answer| answer.status == 200)
        });
        Self { process, sip, also, http, folder }
    }

    /// Program under test.
    pub(crate) fn binary() -> PathBuf {
        std::env::var_os("LAMPLIGHTER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_lamplighter").into(), PathBuf::from)
    }

    /// SIP port, for UDP and TCP.
    pub(crate) fn sip_port(&self) -> u16 {
        self.sip
    }

    /// Port of the third listener.
    pub(crate) fn also_port(&self) -> u16 {
        self.also
    }

    /// The self-signed certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Installs a new certificate, and sends SIGHUP.
    pub(crate) fn renew_certificate(&self) {
        install_certificate(self.folder.path());
        self.process.signal("HUP");
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `GET /v2/accounts/{A}/presence`: the subscriptions to one extension.
    pub(crate) fn listed(&self, extension: &str, event: &str) -> Vec<Listed> {
        let answer = http::request("GET", &self.url(""), TOKEN, None).expect("the API answers");
        assert_eq!(answer.status, 200, "the listing: {}", answer.body);
        http::subscriptions(&answer.json(), extension, event)
    }

    /// `POST /v2/accounts/{A}/presence/{extension}`; returns the `data` of the response.
    pub(crate) fn post(&self, extension: &str, json: &str) -> serde_json::Value {
        let answer = http::request("POST", &self.url(&format!("/{extension}")), TOKEN, Some(json));
        let answer = answer.expect("the API answers");
        assert_eq!(answer.status, 200, "POST {json} to {extension}: {}", answer.body);
        answer.json()["data"].clone()
    }

    /// Waits until exactly `count` watchers of `extension` have answered a NOTIFY that shows `state`.
    pub(crate) fn until_answered(&self, count: usize, extension: &str, event: &str, state: &str) -> Vec<Listed> {
        wait_for(&format!("{count} answered NOTIFYs of {extension} showing {state}"), || {
            let listed = self.listed(extension, event);
            let done = |one: &Listed| one.reply == 200 && one.body.contains(state);
            (listed.len() == count && listed.iter().all(done)).then_some(listed)
        })
    }

    fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}/v2/accounts/{ACCOUNT}/presence{rest}", self.http)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.process.terminate(Duration::from_secs(5));
        if !std::thread::panicking() {
            let status = ended.expect("lamplighter stops within 5 s of SIGTERM");
            assert!(status.success(), "lamplighter stops in good order: {status}");
        }
    }
}

fn install_certificate(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_string()]).expect("an address is a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    for (file, text) in [("certificate.pem", certificate), ("key.pem", key.serialize_pem())] {
        std::fs::write(folder.join(file), text).expect("a file for the certificate");
    }
}

fn configuration(sip: u16, also: u16, http: u16, settings: &Settings) -> String {
    let Settings { min_expires, guarded, .. } = settings;
    let access = if *guarded { "[access]\nauthenticate = \"digest\"\ntrusted_proxies = []\n" } else { "" };
    let third = settings.also.map(|scheme| format!(", \"{scheme}://127.0.0.1:{also}\"")).unwrap_or_default();
    format!(
        r#"[sip]
listen = ["udp://127.0.0.1:{sip}", "tcp://127.0.0.1:{sip}"{third}]

[http]
listen = "127.0.0.1:{http}"

[presence]
min_expires = {min_expires}
max_expires = 3600

[data]
durability = "memory"

{access}
[[token]]
value = "{TOKEN}"
account = "{ACCOUNT}"

[[account]]
id = "{ACCOUNT}"
name = "Acme"
realm = "acme.test"

  [[account.device]]
  id = "de01ce00000000000000000000000002"
  sip = {{ username = "1002", password = "s3cret-1002" }}
"#
    )
}
