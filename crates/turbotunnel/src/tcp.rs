//! TCP connections as carriers have them: dialling, and what is set on each.
//!
//! For dialers and acceptors of one's own, beside [`Builder::connect_tcp`](crate::Builder::connect_tcp) and [`Listener::bind`](crate::Listener::bind), which do the same.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

/// Pause before the next address is tried beside the ones that have not answered yet (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Unsent bytes that the kernel keeps for us. The rest stays in the session, where a small message overtakes bulk.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_SENT_LOW_WATER: u32 = 128 << 10;

/// Sets what every carrier over TCP should have: small packets leave at once, and the kernel keeps at most 128 KiB that it cannot send yet (Linux and Android).
///
/// What the kernel refuses is left as it is. [`connect`] has done it already.
pub fn configure(stream: &TcpStream) {
    // Neither is needed for anything but speed: a kernel that refuses is as good.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT_LOW_WATER);
}

/// Dials `host:port`: the name is resolved anew, all its addresses are tried, each 250 ms after the one before, and the first that
/// answers wins. It is [`configure`]d.
///
/// It has no time limit of its own. Dropping the call closes what it has opened; a look-up of a name goes on in the background to its end.
///
/// # Errors
///
/// The name has no address, or the error of the last address tried.
pub async fn connect(addr: &str) -> io::Result<TcpStream> {
    let addrs = interleave(tokio::net::lookup_host(addr).await?.collect());
    let mut waiting = addrs.into_iter();
    let mut dials: Vec<Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>> = Vec::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut next = Box::pin(tokio::time::sleep(Duration::ZERO));
    let stream = poll_fn(|cx| {
        loop {
            let mut failed = false;
            for i in (0..dials.len()).rev() {
                match dials[i].as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        drop(dials.swap_remove(i));
                        last_error = error;
                        failed = true;
                    }
                    Poll::Pending => {}
                }
            }
            let due = failed || dials.is_empty() || next.as_mut().poll(cx).is_ready();
            match waiting.next_if_due(due) {
                Some(addr) => {
                    dials.push(Box::pin(TcpStream::connect(addr)));
                    next.as_mut().reset(tokio::time::Instant::now() + HEAD_START);
                }
                None if dials.is_empty() => {
                    return Poll::Ready(Err(std::mem::replace(&mut last_error, io::ErrorKind::Other.into())));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await?;
    configure(&stream);
    Ok(stream)
}

trait NextIfDue: Iterator {
    fn next_if_due(&mut self, due: bool) -> Option<Self::Item>;
}

impl<I: Iterator> NextIfDue for I {
    fn next_if_due(&mut self, due: bool) -> Option<I::Item> {
        due.then(|| self.next()).flatten()
    }
}

/// Alternates between address families, in the resolver's order otherwise (RFC 8305, section 4).
fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a6, b6, a4) = (addr("[::1]:1"), addr("[::2]:1"), addr("127.0.0.1:1"));
        assert_eq!(interleave(vec![a6, b6, a4]), [a6, a4, b6]);
        assert_eq!(interleave(vec![]), []);
    }

    #[tokio::test]
    async fn a_refused_address_gives_its_error_and_a_name_without_port_too() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let refused = connect(&addr.to_string()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect("localhost").await.is_err());
    }
}
