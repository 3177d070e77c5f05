//! The client's half of `-R`: asks for ports of the server, and brings what comes to them to targets here. The server's is [`super::reverse`].

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel::{Session, Stream};

use super::inlet::{self, Uplink};
use super::open::Open;
use super::outlet;
use super::pump::{Broken, Moved, pump};
use super::request::{Answer, Code, Request, Target};
use super::spec::Reverse;
use crate::failure::{Exit, Failure, reason};
use crate::log::Log;
use crate::open_files;
use crate::status::board::Traffic;

/// Before a port is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// `-R`: asks for ports in each session that comes up, and serves what comes to them. Returns when the server does not allow one.
pub(crate) async fn borrow_ports(
    reverse: &[Reverse],
    mut uplink: Uplink,
    open: &Open,
    traffic: &Traffic,
    log: &Log,
) -> Failure {
    if reverse.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let session = match uplink.wait_for(Option::is_some).await {
            Ok(session) => session.clone(),
            Err(_) => return std::future::pending().await,
        };
        let Some(session) = session else { continue };
        let borrowed = Arc::new(Borrowed::default());
        let asking = reverse.iter().map(|reverse| ask(&session, reverse, &borrowed, traffic, log));
        let asking = async {
            let mut asking: Vec<Pin<Box<_>>> = asking.map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                let refused = asking.iter_mut().find_map(|asking| match asking.as_mut().poll(cx) {
                    Poll::Ready(failure) => Some(failure),
                    Poll::Pending => None,
                });
                refused.map_or(Poll::Pending, Poll::Ready)
            })
            .await
        };
        tokio::select! {
            // The answer that lends a port first: the connections that waited there come right behind it.
            biased;
            failure = asking => return failure,
            () = serve_arrivals(&session, &borrowed, open, traffic, log) => {}
        }
        // The session is over.
        if uplink.wait_for(Option::is_none).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ports at the server, and where they lead.
#[derive(Default)]
struct Borrowed(Mutex<HashMap<u16, Target>>);

impl Borrowed {
    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for one port and holds it for as long as the session lives. Returns when it is not allowed.
async fn ask(session: &Session, reverse: &Reverse, borrowed: &Borrowed, traffic: &Traffic, log: &Log) -> Failure {
    let wanted = &reverse.listen;
    loop {
        let asked = async {
            let mut stream = inlet::opened(session, Some(&Request::Listen(wanted.clone()))).await?;
            let answer = Answer::read(&mut stream).await?;
            traffic.count(answer.code);
            io::Result::Ok((stream, answer))
        };
        match asked.await {
            Ok((mut stream, Answer { code: Code::Done, port: Some(port) })) => {
                let target = &reverse.target;
                log.info(format_args!("the server's port {port} leads to {target}"));
                borrowed.lock().insert(port, target.clone());
                // It ends when the port is lost.
                let _ = stream.read(&mut [0; 1]).await;
                borrowed.lock().remove(&port);
                log.info(format_args!("the server's port {port} is lost"));
            }
            Ok((_, Answer { code: Code::NotAllowed, port })) => return not_lent(reverse, port.is_some()),
            Ok((_, answer)) => {
                log.info(format_args!(
                    "the server cannot listen on port {}: {}; asking again",
                    wanted.port, answer.code
                ));
            }
            // The session is over; whoever keeps it says so.
            Err(_) => return std::future::pending().await,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The server does not lend what was asked for. `elsewhere`: it has said that it lends the port at another address.
fn not_lent(reverse: &Reverse, elsewhere: bool) -> Failure {
    let Target { host, port } = &reverse.listen;
    let what = if *port == 0 { "any port".to_owned() } else { format!("port {port}") };
    let ports = if *port == 0 { "8000-8100".to_owned() } else { port.to_string() };
    let ip = host.parse::<IpAddr>().ok();
    // As --reverse wants it: without an address it is 127.0.0.1.
    let start = match host.as_str() {
        "" | "localhost" | "127.0.0.1" => format!("its operator can start it with --reverse {ports}"),
        _ if host == "*" || ip.is_some_and(|ip| ip.is_unspecified()) => {
            format!("its operator can start it with --reverse '*:{ports}'")
        }
        _ => match ip {
            Some(IpAddr::V6(ip)) => format!("its operator can start it with --reverse '[{ip}]:{ports}'"),
            Some(ip) => format!("its operator can start it with --reverse {ip}:{ports}"),
            None => "BIND is an address of the server, * for all of them, or localhost".to_owned(),
        },
    };
    let (error, tip) = match host.as_str() {
        "" => (format!("the server does not lend {what}"), start),
        _ if elsewhere => (
            format!("the server does not lend {what} at {host}, but at another address"),
            format!("{start}; -R {port}:{} takes it where it is lent", reverse.target),
        ),
        _ => (format!("the server does not lend {what} at {host}"), start),
    };
    Failure::new(Exit::NotAllowed, error).tip(tip)
}

/// Brings what comes to the server's ports to where they lead, until the session ends.
async fn serve_arrivals(session: &Session, borrowed: &Arc<Borrowed>, open: &Open, traffic: &Traffic, log: &Log) {
    while let Ok(mut stream) = session.accept().await {
        let (borrowed, one, traffic, log) = (borrowed.clone(), open.one(), traffic.clone(), log.clone());
        tokio::spawn(async move {
            let work = async {
                if let Err(error) = serve_arrival(&mut stream, &borrowed, &traffic, &log).await {
                    stream.set_reset_on_drop(true);
                    log.detail(format_args!("a connection from the server ended: {}", reason(&error)));
                }
            };
            one.until_cut(work).await;
            drop((stream, one));
        });
    }
}

async fn serve_arrival(stream: &mut Stream, borrowed: &Borrowed, traffic: &Traffic, log: &Log) -> io::Result<()> {
    let say = async |stream: &mut Stream, code: Code| {
        traffic.count(code);
        stream.write_all(&Answer::new(code).encode()).await
    };
    let target = match Request::read(&mut *stream).await? {
        Request::Arrived(from) => borrowed.lock().get(&from.port).cloned(),
        _ => return say(stream, Code::UnknownKind).await,
    };
    let Some(target) = target else {
        return say(stream, Code::NotAllowed).await;
    };
    let mut connection = match outlet::connect(&target).await {
        Ok(connection) => connection,
        Err(error) => {
            if open_files::is_short(&error) {
                log.info(format_args!("a connection from the server to {target}: too many open files"));
                traffic.count_short_of_files();
                return stream.write_all(&Answer::new(Code::of(&error)).encode()).await;
            }
            log.info(format_args!("a connection from the server to {target}: {}", Code::of(&error)));
            return say(stream, Code::of(&error)).await;
        }
    };
    say(stream, Code::Done).await?;
    let pumped = pump(&mut connection, stream, &mut Moved::default(), traffic).await;
    pumped.map_err(|(Broken::Connection(error) | Broken::Stream(error))| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::spec;

    /// Whoever reads the tip can hand it on: `--reverse` takes what it says, and then the server lends what was wanted.
    #[test]
    fn what_is_not_lent_is_told_with_what_would_lend_it() {
        for (wanted, error, start) in [
            ("18083:a:1", "port 18083", "18083"),
            ("localhost:18083:a:1", "port 18083 at localhost", "18083"),
            ("127.0.0.1:18083:a:1", "port 18083 at 127.0.0.1", "18083"),
            ("*:18083:a:1", "port 18083 at *", "'*:18083'"),
            (":18083:a:1", "port 18083 at *", "'*:18083'"),
            ("0.0.0.0:18083:a:1", "port 18083 at 0.0.0.0", "'*:18083'"),
            ("[::]:18083:a:1", "port 18083 at ::", "'*:18083'"),
            ("[::1]:18083:a:1", "port 18083 at ::1", "'[::1]:18083'"),
            ("10.0.0.1:18083:a:1", "port 18083 at 10.0.0.1", "10.0.0.1:18083"),
            ("0:a:1", "any port", "8000-8100"),
        ] {
            let reverse = spec::reverse(wanted).unwrap();
            let failure = not_lent(&reverse, false);
            assert_eq!(failure.exit, Exit::NotAllowed);
            assert_eq!(failure.error, format!("the server does not lend {error}"), "{wanted}");
            assert_eq!(failure.tip, Some(format!("its operator can start it with --reverse {start}")), "{wanted}");
            assert!(start.trim_matches('\'').parse::<crate::forward::reverse::Lent>().is_ok(), "{start}");
        }
        let failure = not_lent(&spec::reverse("0.0.0.0:18083:a:1").unwrap(), true);
        assert_eq!(failure.error, "the server does not lend port 18083 at 0.0.0.0, but at another address");
        let tip = "its operator can start it with --reverse '*:18083'; -R 18083:a:1 takes it where it is lent";
        assert_eq!(failure.tip.as_deref(), Some(tip));
        let failure = not_lent(&spec::reverse("db.lan:18083:a:1").unwrap(), false);
        assert_eq!(failure.tip.as_deref(), Some("BIND is an address of the server, * for all of them, or localhost"));
    }
}
