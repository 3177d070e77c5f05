//! TLS: whom a client trusts, what a server shows, and what went wrong in plain words. rustls with ring.
//!
//! ALPN says `http/1.1` for WebSockets and nothing otherwise. It does not look like a browser's TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::connection::Io;
use crate::options::{OptionsError, Roots};
use crate::words;

const HTTP_1_1: &[u8] = b"http/1.1";

/// The client's end.
#[derive(Clone)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the files.
    pub(crate) fn new(host: &str, roots: Roots, ca_file: Option<&Path>, http: bool) -> Result<Self, OptionsError> {
        // A zone is for this machine only.
        let host = host.split('%').next().unwrap_or_default();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| OptionsError::ServerName(host.chars().take(253).collect()))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| OptionsError::Tls(error.to_string()))?
            .with_root_certificates(root_store(roots, ca_file)?)
            .with_no_client_auth();
        config.alpn_protocols = alpn(http);
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) async fn connect<IO: Io>(&self, io: IO) -> io::Result<client::TlsStream<IO>> {
        let connecting = TlsConnector::from(self.config.clone()).connect(self.name.clone(), io);
        connecting.await.map_err(|error| told(&error, &self.name.to_str()))
    }
}

/// The server's end.
#[derive(Clone)]
pub(crate) struct Server(Arc<ServerConfig>);

impl Server {
    /// Reads the files.
    pub(crate) fn new(certificate: &Path, key: &Path, http: bool) -> Result<Self, OptionsError> {
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "private key", &error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| OptionsError::Tls(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    OptionsError::KeyOfAnother { certificate: certificate.to_owned(), key: key.to_owned() }
                }
                error => OptionsError::File { path: key.to_owned(), why: error.to_string() },
            })?;
        config.alpn_protocols = alpn(http);
        Ok(Self(Arc::new(config)))
    }

    pub(crate) async fn accept<IO: Io>(&self, io: IO) -> io::Result<server::TlsStream<IO>> {
        TlsAcceptor::from(self.0.clone()).accept(io).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    // Not the process's default, which may be somebody else's, or missing.
    Arc::new(rustls::crypto::ring::default_provider())
}

fn alpn(http: bool) -> Vec<Vec<u8>> {
    if http { vec![HTTP_1_1.to_vec()] } else { Vec::new() }
}

fn root_store(roots: Roots, ca_file: Option<&Path>) -> Result<RootCertStore, OptionsError> {
    let mut store = RootCertStore::empty();
    if roots == Roots::System {
        // Some stores have certificates that nobody can read; the others are as good.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots == Roots::Mozilla || (roots == Roots::System && store.is_empty()) {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            store
                .add(certificate)
                .map_err(|error| OptionsError::File { path: path.to_owned(), why: error.to_string() })?;
        }
    }
    if store.is_empty() { Err(OptionsError::NoRoots) } else { Ok(store) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let unreadable = |error: pem::Error| unreadable(path, "certificate", &error);
    let all =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if all.is_empty() { Err(unreadable(pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn unreadable(path: &Path, what: &str, error: &pem::Error) -> OptionsError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("no {what} in PEM format in it"),
        error => format!("not in PEM format: {error:?}"),
    };
    OptionsError::File { path: PathBuf::from(path), why }
}

/// What a client's handshake failed of.
fn told(error: &io::Error, name: &str) -> io::Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => words::other("closed by peer during the TLS handshake"),
            kind => io::Error::new(kind, error.to_string()),
        };
    };
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, NoApplicationProtocol};
    words::invalid(match tls {
        InvalidCertificate(why) => certificate_told(why, name),
        AlertReceived(AlertDescription::UnrecognisedName) => format!("the server knows nothing of the name {name:?}"),
        AlertReceived(alert) => format!("the server broke off the TLS handshake: {alert:?}"),
        InvalidMessage(_) => "what answers does not speak TLS".to_owned(),
        NoApplicationProtocol => "the server does not speak HTTP/1.1".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    })
}

fn certificate_told(why: &CertificateError, name: &str) -> String {
    match why {
        CertificateError::NotValidForName => format!("the server's certificate is not valid for the name {name:?}"),
        CertificateError::NotValidForNameContext { presented, .. } => {
            // As the certificate has it: DnsName("example.org").
            let names = presented.iter().take(5).map(|name| name.split('"').nth(1).unwrap_or(name));
            let names: Vec<_> = names.map(|name| name.chars().take(253).collect::<String>()).collect();
            let valid_for = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!("the server's certificate is not valid for the name {name:?}: it is for {valid_for}")
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by nobody who is trusted here; the certificate of a CA of one's own has to be given".to_owned()
        }
        CertificateError::BadSignature => {
            "the server's certificate bears the name of a CA that is trusted here, and is not signed by it".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, or the clock here is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or the clock here is wrong".to_owned()
        }
        CertificateError::Revoked => "the server's certificate has been revoked".to_owned(),
        CertificateError::Other(error) if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            "the server shows the certificate of a CA: make it one of a server (basicConstraints=critical,CA:FALSE)"
                .to_owned()
        }
        other => format!("the server's certificate is not valid: {other}"),
    }
}
