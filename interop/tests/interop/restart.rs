//! A server that lost its memory under a running client.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use turbotunnel::{Session, SessionError};
use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::Peers;
use turbotunnel_interop::runner::Outcome;

use crate::support::OurServer;

/// A Go server is killed and started again while a transfer runs. It makes a session of the remains, whose bytes would fit
/// into our stream; our client knows better, says so within 10 s of the next carrier, and has delivered nothing foreign.
pub(crate) async fn our_client_recognises_a_restarted_go_server(peers: Peers) -> String {
    let server = peers.server(&[]).await;
    let addr = server.addr;
    let session = Session::builder().connect_tcp(addr).await.expect("there is a server");
    let stream = session.open().await.expect("the session is young");
    let (mut from, mut to) = tokio::io::split(stream);
    let pattern = Pattern(3);
    let sent_before = 100_000;
    pattern.send(&mut to, sent_before, f64::INFINITY).await.expect("the server is there");
    pattern.receive(&mut from, sent_before).await.expect("the server is there");
    let sending = tokio::spawn(async move {
        let mut at = sent_before;
        while to.write_u8(pattern.at(at)).await.is_ok() {
            at += 1;
            sleep(Duration::from_millis(5)).await;
        }
        at
    });
    let receiving = tokio::spawn(async move {
        let mut at = sent_before;
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer).await {
                Ok(n) => {
                    assert_ne!(n, 0, "the server never ended the stream");
                    pattern.check(at, &buffer[..n]).expect("only what was sent");
                    at += n as u64;
                }
                Err(error) => return (at, error),
            }
        }
    });
    sleep(Duration::from_millis(300)).await;
    server.kill().await;
    let server = peers.server_at(addr, &[]).await.expect("the port is free again");
    let back = Instant::now();
    let ended = timeout(Duration::from_secs(20), session.closed()).await;
    let took = back.elapsed();
    assert_eq!(ended, Ok(SessionError::Unknown), "{}", server.log());
    let (received, error) = receiving.await.expect("nothing foreign was delivered");
    assert!(matches!(inner(&error), Some(SessionError::Unknown)), "{error:?}");
    let sent = sending.await.expect("it does not panic");
    assert!(received <= sent, "{received} of {sent}");
    // Counted from the first moment at which a carrier could come up.
    assert!(took < Duration::from_secs(10), "{took:?}");
    format!("known {took:.1?} after the server was back")
}

/// The session's error in a stream's.
fn inner(error: &io::Error) -> Option<&SessionError> {
    error.get_ref()?.downcast_ref()
}

/// Our server is killed and started again under a Go client, which dials again the moment it is closed. It is kept
/// waiting instead of being closed: no more than a dial in ten seconds.
pub(crate) async fn a_go_client_that_our_server_forgot_does_not_dial_without_end(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return Outcome::NotForThese("needs a client that outlives a failed dial");
    }
    let server = OurServer::start().await;
    let addr = server.addr;
    let mut client = peers.client(addr, &["--retry"]);
    let mut stdin = client.stdin.take().expect("nobody took it");
    let pattern = Pattern(4);
    let both =
        tokio::try_join!(pattern.send(&mut stdin, 50_000, f64::INFINITY), pattern.receive(&mut client.stdout, 50_000));
    assert!(both.is_ok(), "{both:?}\n{}", client.log());
    server.kill();
    let server = OurServer::start_at(addr).await;
    let dials = || client.log().lines().filter(|line| line.contains(": connection ")).count();
    sleep(Duration::from_millis(500)).await;
    let before = dials();
    sleep(Duration::from_millis(10_500)).await;
    let more = dials() - before;
    assert!(more <= 1, "{more} dials in 10.5 s\n{}", client.log());
    drop(server);
    format!("{more} dials in 10.5 s").into()
}
