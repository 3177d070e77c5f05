//! What the tests share: certificates, proxies, listening and dialling on ports that the system chooses.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use turbotunnel_carriers::{Acceptor, Connection, DialOptions, Dialer, ListenOptions, Proxy, Roots};

/// A name that no resolver knows; the proxies of these tests do.
pub const NOWHERE: &str = "server.invalid";

/// Nothing here takes that long, on whatever machine.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("within a minute")
}

pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(seed) >> 23) as u8).collect()
}

/// A CA, and what a server needs that it has signed.
pub struct Pki {
    pub dir: TempDir,
    ca: Issuer<'static, KeyPair>,
    ca_file: PathBuf,
    servers: AtomicUsize,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' CA");
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { ca: Issuer::new(params, key), ca_file, dir, servers: AtomicUsize::new(0) }
    }

    /// A server that is `names`, with what `change` makes of its certificate.
    pub fn server(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> ListenOptions {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let number = self.servers.fetch_add(1, Ordering::Relaxed);
        let file = |what: &str| self.dir.path().join(format!("{number}-{what}.pem"));
        std::fs::write(file("certificate"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        ListenOptions { certificate: Some(file("certificate")), key: Some(file("key")), ..ListenOptions::default() }
    }

    pub fn honest_server(&self) -> ListenOptions {
        self.server(&["localhost", NOWHERE], |_| {})
    }

    /// A client that trusts the CA and nobody else.
    pub fn client(&self) -> DialOptions {
        DialOptions { roots: Roots::None, ca_file: Some(self.ca_file.clone()), ..DialOptions::default() }
    }

    pub fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.dir.path().join(name).display())
    }
}

pub async fn bind(address: &str, options: ListenOptions) -> Arc<Acceptor> {
    Arc::new(Acceptor::bind(address.parse().unwrap(), options).await.unwrap())
}

pub fn dialer(address: &str, options: DialOptions) -> Dialer {
    Dialer::new(address.parse().unwrap(), options).unwrap()
}

/// The address of an acceptor as clients have it, with its host called `host`.
pub fn reached_as(acceptor: &Acceptor, host: &str) -> String {
    acceptor.address().to_string().replace("127.0.0.1", host)
}

/// Both ends of one connection.
pub async fn pair(acceptor: &Acceptor, dialer: &Dialer) -> (Connection, Connection) {
    let (dialled, accepted) = soon(async { tokio::join!(dialer.dial(), acceptor.accept()) }).await;
    (dialled.unwrap(), accepted.unwrap())
}

/// How a dial fails.
pub async fn failure(dialer: &Dialer) -> String {
    soon(dialer.dial()).await.expect_err("fails").to_string()
}

#[derive(Clone, Copy, PartialEq)]
pub enum Speaks {
    Http,
    Socks5,
}

/// A proxy, `user:password@` before its address or "". It knows where [`NOWHERE`] is.
pub async fn proxy(speaks: Speaks, credentials: &'static str, wants: &'static str) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                match speaks {
                    Speaks::Http => http_proxy(stream, wants).await,
                    Speaks::Socks5 => socks5_proxy(stream, wants).await,
                }
            });
        }
    });
    let scheme = if speaks == Speaks::Http { "http" } else { "socks5" };
    format!("{scheme}://{credentials}{addr}").parse().unwrap()
}

async fn reach(host: &str, port: u16) -> Option<TcpStream> {
    TcpStream::connect((if host == NOWHERE { "127.0.0.1" } else { host }, port)).await.ok()
}

async fn http_proxy(mut client: TcpStream, wants: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if !wants.is_empty() && !head.contains(&format!("\r\nProxy-Authorization: Basic {wants}\r\n")) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        return;
    }
    let (host, port) = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().rsplit_once(':').unwrap();
    match reach(host, port.parse().unwrap()).await {
        None => client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap(),
        Some(mut server) => {
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    }
}

async fn socks5_proxy(mut client: TcpStream, wants: &str) {
    let mut offer = [0; 2];
    client.read_exact(&mut offer).await.unwrap();
    let mut methods = vec![0; offer[1].into()];
    client.read_exact(&mut methods).await.unwrap();
    let method = if wants.is_empty() { 0 } else { 2 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 0xff]).await.unwrap();
    }
    client.write_all(&[5, method]).await.unwrap();
    if method == 2 {
        assert_eq!(client.read_u8().await.unwrap(), 1);
        let (user, password) = (counted(&mut client).await, counted(&mut client).await);
        let right = format!("{user}:{password}") == wants;
        client.write_all(&[1, (!right).into()]).await.unwrap();
        if !right {
            return;
        }
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await.unwrap();
    let host = match request {
        [5, 1, 0, 3] => counted(&mut client).await,
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(client.read_u32().await.unwrap()).to_string(),
        other => panic!("{other:?}"),
    };
    let port = client.read_u16().await.unwrap();
    match reach(&host, port).await {
        None => client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap(),
        Some(mut server) => {
            client.write_all(&[5, 0, 0, 3, 2, b'h', b'i', 0, 0]).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    }
}

async fn counted(client: &mut TcpStream) -> String {
    let mut text = vec![0; client.read_u8().await.unwrap().into()];
    client.read_exact(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// A web server of one answer: says it to whoever has said a whole head.
pub async fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    addr
}

pub fn file(path: &Path, contents: &str) -> PathBuf {
    std::fs::write(path, contents).unwrap();
    path.to_owned()
}
