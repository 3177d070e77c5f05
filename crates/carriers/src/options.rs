//! What dialers and acceptors can be told besides the address.

use std::path::PathBuf;

use crate::address::Kind;
use crate::proxy::Proxy;

/// Whose certificates a client trusts, besides those of [`DialOptions::ca_file`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Whom the system trusts; on a system that has no list of them (a bare container, a router) [`Roots::Mozilla`]. `SSL_CERT_FILE` and `SSL_CERT_DIR` are other lists.
    #[default]
    System,
    /// Whom Mozilla trusted when this crate's dependencies were last updated.
    Mozilla,
    /// Nobody: only those of [`DialOptions::ca_file`].
    None,
}

/// How a [`Dialer`](crate::Dialer) dials. What is of no use for a kind of carrier is passed over, so that one set does for all carriers of a session.
#[derive(Clone, Debug, Default)]
pub struct DialOptions {
    /// For `tls` and `wss`. Default: the system's.
    pub roots: Roots,
    /// For `tls` and `wss`: a PEM file with certificates of CAs that are trusted as well, read once. Default: none.
    pub ca_file: Option<PathBuf>,
    /// For `tls` and `wss`: the name that is asked for (SNI), and that the certificate has to be for, in the place of the address's host. What HTTP calls the host stays the
    /// address's. Default: none.
    pub server_name: Option<String>,
    /// For all but `unix` and `exec`: connections go through it, and it resolves the name. Default: none.
    pub proxy: Option<Proxy>,
}

/// How an [`Acceptor`](crate::Acceptor) listens. What is of no use for a kind of carrier is passed over.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// For `tls` and `wss`, which cannot do without: a PEM file with the certificate, and behind it those that lead to the CA's.
    pub certificate: Option<PathBuf>,
    /// For `tls` and `wss`, which cannot do without: a PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
    /// For `unix`: the file's permissions. Who may write may connect. Default: 0o600, this user.
    pub mode: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { certificate: None, key: None, mode: 0o600 }
    }
}

/// What cannot be done with the options that were given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Built without the cargo feature of that kind, or a system without.
    #[error("this version has no carriers of kind {0}")]
    NotHere(Kind),
    /// A file with certificates or a key.
    #[error("{}: {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the private key of the certificate in {}", .key.display(), .certificate.display())]
    KeyOfAnother {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A server for `tls` or `wss` has to be given both.
    #[error("carriers of kind {0} need a certificate and its private key")]
    NoCertificate(Kind),
    /// [`Roots::None`] without a file: no server could be believed.
    #[error("no certificate of a CA is trusted, so no server could be")]
    NoRoots,
    /// Neither a name nor an IP address.
    #[error("{0:?} is no name that a certificate could be for")]
    ServerName(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
