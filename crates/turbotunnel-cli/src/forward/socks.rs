//! The server's half of SOCKS 5 (RFC 1928), as much of it as programs use: CONNECT, without a password.
//!
//! In: a connection that a program has just made. Out: the target that it wants; then [`reply`] tells it what became of that. Names go on as names, so that they are resolved
//! where the target is. Not here: UDP and BIND, which are refused with the code that says so.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::request::{Code, Target};

const VERSION: u8 = 5;
const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const SUCCEEDED: u8 = 0;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

/// Of somebody who is refused so much is read: the longest request that web servers take is 64 KiB.
const REST: u64 = 64 << 10;
/// And for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to say to a browser that was told that this is an HTTP proxy.
const NOT_HTTP: &[u8] = b"HTTP/1.0 501 Not an HTTP proxy\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This is a SOCKS 5 proxy, not an HTTP proxy. Set it as the SOCKS host, or write socks5h://HOST:PORT.\n";

/// Asks a program where it wants to go.
///
/// # Errors
/// The connection failed, or it does not speak SOCKS 5 or wants something that there is not; it has been told so then, as far as it can be. The text is for a log line.
pub(crate) async fn accept<C: AsyncRead + AsyncWrite + Unpin>(connection: &mut C) -> io::Result<Target> {
    let [version, methods] = read(connection).await?;
    match version {
        VERSION => {}
        4 => {
            // "Request rejected or failed" of SOCKS 4.
            connection.write_all(&[0, 0x5b, 0, 0, 0, 0, 0, 0]).await?;
            return Err(refused("it speaks SOCKS 4; this is SOCKS 5"));
        }
        b'A'..=b'Z' => {
            connection.write_all(NOT_HTTP).await?;
            return Err(refused("it speaks HTTP; this is a SOCKS 5 proxy (socks5h://)"));
        }
        _ => return Err(refused("it does not speak SOCKS 5")),
    }
    let mut offered = vec![0; methods.into()];
    connection.read_exact(&mut offered).await?;
    if !offered.contains(&NO_PASSWORD) {
        connection.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(refused("it wants to say a password; none is asked for here"));
    }
    connection.write_all(&[VERSION, NO_PASSWORD]).await?;

    let [version, command, _, kind] = read(connection).await?;
    if version != VERSION {
        return Err(refused("it does not speak SOCKS 5"));
    }
    let host = match kind {
        IPV4 => Ipv4Addr::from(read::<4, _>(connection).await?).to_string(),
        IPV6 => Ipv6Addr::from(read::<16, _>(connection).await?).to_string(),
        NAME => {
            let [length] = read(connection).await?;
            let mut name = vec![0; length.into()];
            connection.read_exact(&mut name).await?;
            let fits =
                |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
            match String::from_utf8(name).ok().filter(fits) {
                Some(name) => name,
                None => {
                    answer(connection, ADDRESS_NOT_SUPPORTED).await?;
                    return Err(refused("a name that is none"));
                }
            }
        }
        _ => {
            answer(connection, ADDRESS_NOT_SUPPORTED).await?;
            return Err(refused("an address of an unknown kind"));
        }
    };
    let port = u16::from_be_bytes(read(connection).await?);
    if command != CONNECT {
        answer(connection, COMMAND_NOT_SUPPORTED).await?;
        return Err(refused("it wants UDP or BIND; there is only CONNECT"));
    }
    Ok(Target { host, port })
}

/// Tells the program what became of its wish.
pub(crate) async fn reply<C: AsyncWrite + Unpin>(connection: &mut C, code: Code) -> io::Result<()> {
    let code = match code {
        Code::Done => SUCCEEDED,
        Code::NotAllowed => 2,
        Code::NetworkUnreachable => 3,
        Code::HostUnreachable | Code::NoSuchName => 4,
        Code::Refused => 5,
        // "TTL expired", which programs show as a timeout.
        Code::TimedOut => 6,
        Code::UnknownKind => COMMAND_NOT_SUPPORTED,
        Code::Failed | Code::PortInUse | Code::Ending => 1,
    };
    answer(connection, code).await
}

/// Ends a connection that was told why it is refused: with unread bytes there would be a reset, which overtakes what was told.
pub(crate) async fn hear_out<C: AsyncRead + AsyncWrite + Unpin>(connection: &mut C) {
    let heard = async {
        connection.shutdown().await?;
        let mut rest = connection.take(REST);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A program that goes on, or that has gone, is let go.
    let _ = tokio::time::timeout(PATIENCE, heard).await;
}

/// The address that the server connected from is nobody's business here, and no program looks at it.
async fn answer<C: AsyncWrite + Unpin>(connection: &mut C, code: u8) -> io::Result<()> {
    connection.write_all(&[VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]).await
}

async fn read<const N: usize, C: AsyncRead + Unpin>(connection: &mut C) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    connection.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    /// What a program says, and what it hears until a tunnel would begin.
    async fn says(bytes: &[u8]) -> (io::Result<Target>, Vec<u8>) {
        let (mut program, mut connection) = duplex(4096);
        program.write_all(bytes).await.unwrap();
        program.shutdown().await.unwrap();
        let wanted = accept(&mut connection).await;
        drop(connection);
        let mut heard = Vec::new();
        program.read_to_end(&mut heard).await.unwrap();
        (wanted, heard)
    }

    #[tokio::test]
    async fn names_and_addresses_are_taken_as_they_are() {
        let name = [&[5, 1, 0, 5, 1, 0, 3, 6][..], b"db.lan", &[0x15, 0x38]].concat();
        let v4 = [5, 2, 2, 0, 5, 1, 0, 1, 10, 0, 0, 5, 0, 22];
        let v6 = [&[5, 1, 0, 5, 1, 0, 4][..], &[0; 15], &[1, 0, 22]].concat();
        for (bytes, host, port) in [(&name[..], "db.lan", 5432), (&v4, "10.0.0.5", 22), (&v6, "::1", 22)] {
            let (wanted, heard) = says(bytes).await;
            assert_eq!(wanted.unwrap(), Target { host: host.into(), port });
            assert_eq!(heard, [5, 0]);
        }
    }

    #[tokio::test]
    async fn what_there_is_not_is_said_in_the_programs_own_language() {
        let udp = [5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0];
        for (bytes, told, heard) in [
            (&udp[..], "UDP or BIND", &[5, 0, 5, 7][..]),
            (&[5, 1, 2], "password", &[5, 0xff]),
            (&[4, 1, 0, 22, 1, 2, 3, 4, 0], "SOCKS 4", &[0, 0x5b]),
            (b"GET / HTTP/1.1\r\n\r\n", "HTTP", b"HTTP/1.0 501"),
            (&[5, 1, 0, 5, 1, 0, 9, 0, 0], "unknown kind", &[5, 0, 5, 8]),
            (&[5, 1, 0, 5, 1, 0, 3, 2, b'a', b'\n', 0, 22], "a name", &[5, 0, 5, 8]),
            (&[0, 0], "does not speak", &[]),
        ] {
            let (wanted, answer) = says(bytes).await;
            let error = wanted.unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert!(answer.starts_with(heard), "{told}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn whatever_is_cut_short_ends() {
        let whole = [&[5, 1, 0, 5, 1, 0, 3, 6][..], b"db.lan", &[0x15, 0x38]].concat();
        for cut in 0..whole.len() {
            let (wanted, _) = says(&whole[..cut]).await;
            assert_eq!(wanted.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }

    /// Who never stops talking, and who never goes, are heard for a while.
    #[tokio::test]
    async fn whoever_is_refused_is_not_heard_for_ever() {
        let (mut program, mut connection) = duplex(1024);
        let talking = tokio::spawn(async move {
            let mut said = 0;
            while program.write_all(&[b'x'; 1024]).await.is_ok() {
                said += 1024;
            }
            said
        });
        hear_out(&mut connection).await;
        drop(connection);
        let said = talking.await.unwrap();
        assert!((REST..=REST + 2048).contains(&said), "{said}");

        let (program, mut connection) = duplex(1024);
        tokio::time::timeout(PATIENCE * 20, hear_out(&mut connection)).await.unwrap();
        drop(program);
    }
}
