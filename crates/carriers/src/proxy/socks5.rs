//! SOCKS5: CONNECT by name or address, with or without user and password.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Credentials;
use crate::connection::Prefixed;
use crate::words;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NOTHING_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks the proxy for a connection with the server. Reads not a byte more than the answer.
pub(super) async fn pass<IO: AsyncRead + AsyncWrite + Unpin>(
    mut io: IO,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> io::Result<Prefixed<IO>> {
    let offer: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    io.write_all(offer).await?;
    match (read(&mut io).await?, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, USER_AND_PASSWORD], Some(credentials)) => authenticate(&mut io, credentials).await?,
        ([VERSION, NOTHING_ACCEPTABLE], None) => return Err(words::other("the proxy wants a user and a password")),
        ([VERSION, _], _) => return Err(words::other("the proxy wants to know who we are in a way we do not have")),
        _ => return Err(no_socks5()),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        request.push(IPV4);
        request.extend(ip.octets());
    } else if let Ok(ip) = host.parse::<Ipv6Addr>() {
        request.push(IPV6);
        request.extend(ip.octets());
    } else {
        request.push(NAME);
        push_counted(&mut request, host)?;
    }
    request.extend(port.to_be_bytes());
    io.write_all(&request).await?;
    let [version, reply, _, kind] = read(&mut io).await?;
    if version != VERSION {
        return Err(no_socks5());
    }
    if reply != 0 {
        return Err(words::other(refused(reply)));
    }
    // Where the proxy's own connection comes from: of no use here.
    let len = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(io.read_u8().await?),
        _ => return Err(no_socks5()),
    };
    let mut bound = [0; 255 + 2];
    io.read_exact(&mut bound[..len + 2]).await?;
    Ok(Prefixed::new(Vec::new(), io))
}

async fn authenticate(io: &mut (impl AsyncRead + AsyncWrite + Unpin), credentials: &Credentials) -> io::Result<()> {
    let mut request = vec![1];
    push_counted(&mut request, &credentials.user)?;
    push_counted(&mut request, &credentials.password)?;
    io.write_all(&request).await?;
    match read(io).await? {
        [_, 0] => Ok(()),
        _ => Err(words::other("the proxy does not accept the user and password")),
    }
}

async fn read<const N: usize>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn push_counted(bytes: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let len = u8::try_from(text.len()).map_err(|_| words::other("a name too long for SOCKS5"))?;
    bytes.push(len);
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

fn no_socks5() -> io::Error {
    words::other("what answers at the proxy's address is no SOCKS5 proxy")
}

fn refused(reply: u8) -> String {
    let why = match reply {
        1 => "it failed",
        2 => "not allowed",
        3 => "the network is unreachable",
        4 => "the host is unreachable, or its name is unknown",
        5 => "the server refused the connection",
        6 => "it took too long",
        7 | 8 => "it does not know how",
        _ => return format!("the proxy answered code {reply}"),
    };
    format!("the proxy answered: {why}")
}
