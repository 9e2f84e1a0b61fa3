//! OpenSSL as TLS client: versions, the certificate, and its renewal while the server runs.

use std::process::{Command, Stdio};

use crate::harness::{Server, Settings, skip_without, wait_for};

/// Output of `openssl s_client` for the server; `more` are further arguments.
fn judge(server: &Server, more: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{}", server.also_port())]);
    openssl.args(["-verify_ip", "127.0.0.1", "-CAfile"]).arg(server.certificate()).args(more);
    let done = openssl.stdin(Stdio::null()).output().expect("openssl runs");
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

/// The certificate that the server presents, in PEM.
fn shown(server: &Server) -> Option<String> {
    let said = judge(server, &[]);
    let begin = said.find("-----BEGIN CERTIFICATE-----")?;
    let end = said.find("-----END CERTIFICATE-----")?;
    Some(said[begin..end].split_whitespace().collect())
}

#[test]
fn openssl_gets_versions_1_2_and_1_3_with_a_certificate_that_names_us_and_nothing_older() {
    if skip_without("openssl") || skip_without("curl") {
        return;
    }
    let settings = Settings { also: Some("tls"), certificate: true, ..Settings::default() };
    let server = Server::start("openssl", &settings);
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = judge(&server, &[version]);
        assert!(said.contains(name) && said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    // Security level 0, or OpenSSL itself would not try.
    for version in ["-tls1", "-tls1_1"] {
        let said = judge(&server, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(said.contains("Cipher is (NONE)") && said.contains("alert"), "{said}");
    }
}

#[test]
fn a_hang_up_has_the_server_show_its_new_certificate() {
    if skip_without("openssl") || skip_without("curl") {
        return;
    }
    let settings = Settings { also: Some("tls"), certificate: true, ..Settings::default() };
    let server = Server::start("hang-up", &settings);
    let first = shown(&server).expect("a certificate");
    server.renew_certificate();
    wait_for("the new certificate", || shown(&server).filter(|now| *now != first));
}
