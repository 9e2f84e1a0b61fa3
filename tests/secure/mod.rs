//! Test kit for TLS and WebSockets: certificates made on the spot, a server, and clients.

#![allow(dead_code)] // each of the two uses its share

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lamplighter::config::Config;
use lamplighter::server::Server;
use lamplighter::sip::wire::{Frame, Framer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// Longer than any of the server's own time limits for which a test waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Name in the certificates.
pub(crate) const NAME: &str = "acme.test";

/// Temporary folder of a test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lamplighter-secure-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A client that trusts this authority, and presents a certificate if it has one.
    pub(crate) fn client(
        &self,
        own: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_auth_cert(own.chain(), own.private()).unwrap(),
        })
    }
}

impl Identity {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()]
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// Writes both to the files that [`House::open`] configures.
    pub(crate) fn install(&self, folder: &Folder) {
        std::fs::write(folder.path("certificate.pem"), &self.certificate).unwrap();
        std::fs::write(folder.path("key.pem"), &self.key).unwrap();
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server of the test, with one listener for each of several transports.
pub(crate) struct House {
    addresses: Vec<(&'static str, SocketAddr)>,
    http: SocketAddr,
    server: Option<Server>,
}

impl House {
    /// Starts a server; `more` is appended to the sections that every test needs.
    pub(crate) fn open(schemes: &[&'static str], more: &str) -> House {
        // One at a time, or two servers of this process might get the same free port.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let ip = IpAddr::from([127, 0, 0, 1]);
        // Another process may take a port between here and the server's bind; then other ports are tried.
        for _ in 0..10 {
            let sockets: Vec<_> = (0..=schemes.len()).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
            let free: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
            drop(sockets);
            let (http, free) = free.split_first().unwrap();
            let addresses: Vec<_> = schemes.iter().copied().zip(free.iter().copied()).collect();
            let listen: Vec<_> =
                addresses.iter().map(|(scheme, address)| format!("\"{scheme}://{address}\"")).collect();
            let config = format!(
                "sip.listen = [{}]\nhttp.listen = \"{http}\"\ndata.durability = \"memory\"\n{more}\n\
                 [[token]]\nvalue = \"t\"\nsuperuser = true\n\
                 [[account]]\nid = \"a1\"\nname = \"Acme\"\nrealm = \"acme.test\"\n",
                listen.join(", ")
            );
            let config = Config::parse(&config, "house.toml").unwrap_or_else(|error| panic!("{error}"));
            if let Ok(server) = Server::start(&config) {
                return House { addresses, http: *http, server: Some(server) };
            }
        }
        panic!("no free ports");
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn address(&self, scheme: &str) -> SocketAddr {
        self.addresses.iter().find(|(known, _)| *known == scheme).unwrap().1
    }

    pub(crate) fn tcp(&self, scheme: &str) -> TcpStream {
        let stream = TcpStream::connect(self.address(scheme)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Opens a connection over TLS; the handshake takes place at the first write.
    pub(crate) fn tls(&self, scheme: &str, client: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(NAME).unwrap();
        StreamOwned::new(ClientConnection::new(client, name).unwrap(), self.tcp(scheme))
    }

    /// Sets the manual state of 1001, over HTTP as an operator would.
    pub(crate) fn set(&self, state: &str) {
        let body = format!("{{\"data\":{{\"action\":\"set\",\"state\":\"{state}\"}}}}");
        let mut http = TcpStream::connect(self.http).unwrap();
        write!(
            http,
            "POST /v2/accounts/a1/presence/1001 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// `[tls]` section with the files of this folder.
pub(crate) fn tls_section(folder: &Folder, more: &str) -> String {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|file| folder.path(file).display().to_string());
    format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n{more}")
}

/// A key of `[tls]` that names a file with this text.
pub(crate) fn file(folder: &Folder, key: &str, text: &str) -> String {
    let path = folder.path(&format!("{key}.pem"));
    std::fs::write(&path, text).unwrap();
    format!("{key} = \"{}\"\n", Path::display(&path))
}

/// A connection that carries SIP directly.
pub(crate) struct Line<S> {
    pub(crate) stream: S,
    framer: Framer,
}

impl<S: Read + Write> Line<S> {
    pub(crate) fn of(stream: S) -> Line<S> {
        Line { stream, framer: Framer::default() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next message; none when the peer has closed.
    pub(crate) fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(Frame::Message(bytes)) = self.framer.next_frame().unwrap() {
                return Some(String::from_utf8(bytes.to_vec()).unwrap());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).expect("something within the deadline") {
                0 => return None,
                length => self.framer.buffer().extend_from_slice(&chunk[..length]),
            }
        }
    }

    pub(crate) fn receive_start(&mut self, start: &str) -> String {
        let message = self.receive().expect("a message");
        assert!(message.starts_with(start), "expected {start}, got {message}");
        message
    }
}

/// A SUBSCRIBE of 1002 to the lamp of 1001. `via` follows `SIP/2.0/`, `contact` is a URI.
pub(crate) fn subscribe(via: &str, contact: &str, more: &str) -> String {
    format!(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bKs;rport\r\n\
         From: <sip:1002@acme.test>;tag=p\r\nTo: <sip:1001@acme.test>\r\nCall-ID: s-{contact}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <{contact}>\r\nEvent: dialog\r\nExpires: 600\r\n{more}Content-Length: 0\r\n\r\n"
    )
}
