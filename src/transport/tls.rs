//! TLS: loading and reloading of certificates, and the handshakes (RFC 3261 section 26.2.1, RFC 5922).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::certificate_name::ExactNameVerifier;
use super::settings::TlsSettings;

/// Certificate, key and trusted roots, in the form that handshakes use.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    server: Arc<ServerConfig>,
    /// Configuration for connections that the server opens; none without `server_ca`.
    client: Option<Arc<ClientConfig>>,
    /// SHA-256 of all files, to notice changes.
    digest: [u8; 32],
}

/// Error in a file of `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TlsError {
    /// File with the error.
    pub file: TlsFile,
    /// Description with the path. It contains nothing of a key.
    pub problem: String,
}

/// Files of `[tls]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `tls.certificate`
    Certificate,
    /// `tls.key`
    Key,
    /// `tls.client_ca`
    ClientCa,
    /// `tls.server_ca`
    ServerCa,
}

/// Content of a file, with its path for errors.
struct Read<'a> {
    file: TlsFile,
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> Read<'a> {
    fn open(file: TlsFile, path: &'a Path) -> Result<Read<'a>, TlsError> {
        let bytes = std::fs::read(path)
            .map_err(|error| TlsError { file, problem: format!("{} cannot be read: {error}", path.display()) })?;
        Ok(Read { file, path, bytes })
    }

    fn optional(file: TlsFile, path: &'a Option<PathBuf>) -> Result<Option<Read<'a>>, TlsError> {
        path.as_ref().map(|path| Read::open(file, path)).transpose()
    }

    fn fault(&self, what: impl std::fmt::Display) -> TlsError {
        TlsError { file: self.file, problem: format!("{} {what}", self.path.display()) }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.fault(format_args!("is no PEM file: {error}")))?;
        match all.is_empty() {
            true => Err(self.fault("holds no certificate in PEM")),
            false => Ok(all),
        }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.fault(format_args!("holds an unusable root: {error}")))?;
        }
        Ok(Arc::new(roots))
    }
}

impl TlsIdentity {
    /// Reads the files and checks that key and certificate belong together.
    ///
    /// # Errors
    /// If a file cannot be read or parsed, or does not belong to the others; the error names the file.
    pub fn load(files: &TlsSettings) -> Result<TlsIdentity, TlsError> {
        let certificate = Read::open(TlsFile::Certificate, &files.certificate)?;
        let key = Read::open(TlsFile::Key, &files.key)?;
        let client_ca = Read::optional(TlsFile::ClientCa, &files.client_ca)?;
        let server_ca = Read::optional(TlsFile::ServerCa, &files.server_ca)?;
        let mut digest = Sha256::new();
        for read in [Some(&certificate), Some(&key), client_ca.as_ref(), server_ca.as_ref()].into_iter().flatten() {
            digest.update((read.bytes.len() as u64).to_le_bytes());
            digest.update(&read.bytes);
        }
        // Passed explicitly: the process-wide default provider may be another one.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificate.certificates()?;
        let private = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|error| key.fault(format_args!("holds no private key in PEM: {error}")))?;
        let signing = provider
            .key_provider
            .load_private_key(private.clone_key())
            .map_err(|error| key.fault(format_args!("is unusable: {error}")))?;
        CertifiedKey::new(chain.clone(), signing).keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                key.fault(format_args!("is not the key of {}", certificate.path.display()))
            }
            error => certificate.fault(format_args!("is unusable: {error}")),
        })?;
        let unusable = |error: rustls::Error| certificate.fault(format_args!("is unusable: {error}"));

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut verifier = WebPkiClientVerifier::builder_with_provider(ca.roots()?, Arc::clone(&provider));
                if !files.require_client_certificate {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build().map_err(|error| ca.fault(format_args!("is unusable: {error}")))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let server = builder.with_single_cert(chain.clone(), private.clone_key()).map_err(unusable)?;
        let client = match &server_ca {
            None => None,
            Some(ca) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(ca.roots()?, Arc::clone(&provider)).build();
                let verifier = verifier.map_err(|error| ca.fault(format_args!("is unusable: {error}")))?;
                let builder = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(unusable)?
                    // "Dangerous" in rustls means any own verifier; this one checks more than the default, not less.
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(ExactNameVerifier(verifier)));
                Some(Arc::new(builder.with_client_auth_cert(chain, private).map_err(unusable)?))
            }
        };
        Ok(TlsIdentity { server: Arc::new(server), client, digest: digest.finalize().into() })
    }
}

/// Current certificate and key. They are replaced when the files change; open connections keep the one of their
/// handshake.
#[derive(Debug)]
pub struct Tls {
    files: TlsSettings,
    current: Mutex<TlsIdentity>,
    /// Error of the last reload, so that the same error is logged once.
    complaint: Mutex<Option<TlsError>>,
}

impl Tls {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// As [`TlsIdentity::load`].
    pub fn load(files: &TlsSettings) -> Result<Tls, TlsError> {
        let current = Mutex::new(TlsIdentity::load(files)?);
        Ok(Tls { files: files.clone(), current, complaint: Mutex::default() })
    }

    /// Reads the files again. Returns true if they have changed and new handshakes use them. Files that do not belong
    /// together, because only one has been replaced so far, change nothing. This blocks on file reads, so it must not
    /// run on an I/O thread.
    pub fn reload(&self) -> bool {
        let fresh = match TlsIdentity::load(&self.files) {
            Ok(fresh) => fresh,
            Err(error) => {
                let mut complaint = self.complaint.lock();
                if complaint.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the files of [tls] are unusable; the certificate loaded before stays in use");
                }
                *complaint = Some(error);
                return false;
            }
        };
        *self.complaint.lock() = None;
        let mut current = self.current.lock();
        let changed = current.digest != fresh.digest;
        if changed {
            tracing::info!(certificate = %self.files.certificate.display(), "new connections get the new certificate");
            *current = fresh;
        }
        changed
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.lock().server);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Connector for connections that the server opens; none without `server_ca`.
    pub(super) fn connector(&self) -> Option<TlsConnector> {
        self.current.lock().client.clone().map(TlsConnector::from)
    }
}
