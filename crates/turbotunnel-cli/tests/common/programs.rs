//! Programs and targets, on either side of what is forwarded.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::{PATIENCE, Running};

/// A target: each connection is served by `serve` on a thread of its own.
pub fn target(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(connection));
        }
    });
    address
}

/// Sends everything back, and ends when the other side has.
pub fn echo(mut connection: TcpStream) {
    let mut from = connection.try_clone().unwrap();
    let _ = io::copy(&mut from, &mut connection);
    let _ = connection.shutdown(Shutdown::Write);
}

/// Says nothing until the question has ended; then how long it was, and its end.
pub fn count(mut connection: TcpStream) {
    let read = io::copy(&mut connection, &mut io::sink()).unwrap_or(0);
    let _ = write!(connection, "{read}");
}

/// A port that nobody listens on, and that nobody else gets meanwhile.
pub fn dead_port() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A client with these options, and the addresses that it listens on, in their order.
pub fn client(args: &str, ports: usize) -> (Running, Vec<String>) {
    let client = Running::start(&format!("client {args}"));
    let mut at = Vec::new();
    while at.len() < ports {
        let line = client.lines.recv_timeout(PATIENCE).unwrap();
        let words: Vec<_> = line.split(' ').collect();
        match words[1..] {
            ["forwarding", address, ..] => at.push(address.to_owned()),
            ["SOCKS", "5", "on", address] => at.push(address.to_owned()),
            _ => {}
        }
    }
    (client, at)
}

pub fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}

/// What comes back of `sent`.
pub fn there_and_back(mut connection: TcpStream, sent: &[u8]) -> Vec<u8> {
    let mut writing = connection.try_clone().unwrap();
    let copy = sent.to_vec();
    let writer = thread::spawn(move || {
        writing.write_all(&copy).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    connection.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    back
}

/// The greeting and the wish of a SOCKS 5 program; the code of the answer.
pub fn socks(address: &str, host: &str, port: u16) -> (TcpStream, u8) {
    let mut connection = connect(address);
    let name = [&[5, 1, 0, 5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()].concat();
    connection.write_all(&name).unwrap();
    let mut heard = [0; 12];
    connection.read_exact(&mut heard).unwrap();
    assert_eq!(heard[..3], [5, 0, 5]);
    (connection, heard[3])
}

pub fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}
