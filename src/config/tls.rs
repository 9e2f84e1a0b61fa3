//! `[tls]`: certificates and keys. The files must exist, be readable and match each other before the server starts.

use std::path::PathBuf;

use toml::Spanned;

use super::error::{ConfigError, Source};
use super::{Listen, TlsSettings, raw};
use crate::transport::{TlsError, TlsFile, TlsIdentity};

/// Checks `[tls]` and its files, and that the section is present if a listener needs it.
pub(super) fn section(
    source: Source<'_>,
    raw: Option<Spanned<raw::Tls>>,
    written: Option<&Spanned<Vec<Spanned<String>>>>,
    listen: &[Listen],
) -> Result<Option<TlsSettings>, ConfigError> {
    let Some(raw) = raw else {
        let Some(i) = listen.iter().position(|listen| listen.transport.is_secure()) else { return Ok(None) };
        let span = written.and_then(|list| list.get_ref().get(i)).map(Spanned::span).unwrap_or_default();
        let problem = format!("{} needs a certificate: set tls.certificate and tls.key", listen[i]);
        return Err(source.fault(span, format!("sip.listen[{i}]"), problem));
    };
    let whole = raw.span();
    let raw = raw.into_inner();
    let (certificate, key) = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => (certificate.get_ref().clone(), key.get_ref().clone()),
        (Some(_), None) => return Err(source.fault(whole, "tls", "has a certificate but no key")),
        _ => return Err(source.fault(whole, "tls", "has no certificate")),
    };
    let require_client_certificate = raw.require_client_certificate.as_ref().is_some_and(|written| *written.get_ref());
    if let Some(written) = raw.require_client_certificate.as_ref().filter(|_| raw.client_ca.is_none()) {
        let problem = "says nothing without tls.client_ca, which names those whose certificates count";
        return Err(source.fault(written.span(), "tls.require_client_certificate", problem));
    }
    let path = |written: &Option<Spanned<PathBuf>>| written.as_ref().map(|path| path.get_ref().clone());
    let (client_ca, server_ca) = (path(&raw.client_ca), path(&raw.server_ca));
    let tls = TlsSettings { certificate, key, client_ca, require_client_certificate, server_ca };
    TlsIdentity::load(&tls).map_err(|TlsError { file, problem }| {
        let (key, written) = match file {
            TlsFile::Certificate => ("tls.certificate", &raw.certificate),
            TlsFile::Key => ("tls.key", &raw.key),
            TlsFile::ClientCa => ("tls.client_ca", &raw.client_ca),
            TlsFile::ServerCa => ("tls.server_ca", &raw.server_ca),
        };
        source.fault(written.as_ref().map_or(whole, Spanned::span), key, problem)
    })?;
    Ok(Some(tls))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::Config;

    /// A certificate and its key, in a folder of this test.
    fn files(test: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("lamplighter-config-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["acme.test".to_string()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("c.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("k.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("other.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        std::fs::write(folder.join("empty.pem"), "").unwrap();
        folder
    }

    fn parse(folder: &Path, text: &str) -> Result<Config, String> {
        Config::parse(&text.replace('@', &folder.display().to_string()), "l.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn the_section_is_read_into_what_it_says() {
        let folder = files("read");
        let text = "[sip]\nlisten = [\"tls://127.0.0.1:5061\", \"wss://[::1]:443\", \"ws://127.0.0.1:80\"]\n\
            ws_origins = [\"HTTPS://Phone.acme.test\"]\n[tls]\ncertificate = \"@/c.pem\"\nkey = \"@/k.pem\"\n\
            client_ca = \"@/c.pem\"\nrequire_client_certificate = true\n";
        let config = parse(&folder, text).unwrap();
        let listen: Vec<_> = config.sip.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["tls://127.0.0.1:5061", "wss://[::1]:443", "ws://127.0.0.1:80"]);
        assert_eq!(config.sip.ws_origins, ["https://phone.acme.test"]);
        let tls = config.tls.unwrap();
        assert_eq!(tls.certificate, folder.join("c.pem"));
        assert_eq!((tls.client_ca, tls.server_ca), (Some(folder.join("c.pem")), None));
        assert!(tls.require_client_certificate);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn whatever_is_wrong_is_named_with_its_place() {
        let folder = files("wrong");
        let whole = "[tls]\ncertificate = \"@/c.pem\"\nkey = \"@/k.pem\"\n";
        for (text, said) in [
            (
                "[sip]\nlisten = [\"tls://127.0.0.1:5061\"]\n",
                "l.toml:2:11: sip.listen[0]: tls://127.0.0.1:5061 needs a certificate",
            ),
            ("[presence]\noversize_notify = \"sctp\"\n", "l.toml:2:19: presence.oversize_notify: \"sctp\" is no way"),
            (
                "[sip]\nws_origins = [\"phone.acme.test\"]\n",
                "l.toml:2:15: sip.ws_origins[0]: \"phone.acme.test\" is no origin",
            ),
            ("[tls]\ncertificate = \"@/c.pem\"\n", "l.toml:1:1: tls: has a certificate but no key"),
            ("[tls]\n", "tls: has no certificate"),
            (
                &format!("{whole}require_client_certificate = true\n"),
                "l.toml:4:30: tls.require_client_certificate: says nothing",
            ),
            (
                &whole.replace("c.pem", "none.pem"),
                "l.toml:2:15: tls.certificate: @/none.pem cannot be read: No such file",
            ),
            (&whole.replace("c.pem", "empty.pem"), "tls.certificate: @/empty.pem holds no certificate in PEM"),
            (&whole.replace("k.pem", "c.pem"), "l.toml:3:7: tls.key: @/c.pem holds no private key in PEM"),
            (&whole.replace("k.pem", "other.pem"), "tls.key: @/other.pem is not the key of @/c.pem"),
            (&format!("{whole}client_ca = \"@/k.pem\"\n"), "l.toml:4:13: tls.client_ca: @/k.pem holds no certificate"),
            (&format!("{whole}server_ca = \"@/x\"\n"), "tls.server_ca: @/x cannot be read"),
            (&format!("{whole}cert = \"@/x\"\n"), "l.toml:4:1: tls.cert: unknown field"),
        ] {
            let error = parse(&folder, text).unwrap_err();
            let said = said.replace('@', &folder.display().to_string());
            assert!(error.contains(&said), "{error} does not say {said}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
