//! Settings of TLS.

use std::path::PathBuf;

/// Our certificate for TLS peers, and the CA certificates that we trust. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Our certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CA certificates for peers that connect to us: a peer with a certificate of one of these is trusted.
    pub client_ca: Option<PathBuf>,
    /// Rejects peers without such a certificate.
    pub require_client_certificate: bool,
    /// CA certificates for peers that we connect to; without them no TLS connection is opened.
    pub server_ca: Option<PathBuf>,
}
