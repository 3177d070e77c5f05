//! Go clients at the limits of our server.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use turbotunnel::{Config, Limits};
use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::Peers;
use turbotunnel_interop::runner::Outcome;

use crate::support::OurServer;

const BYTES: u64 = 50_000;

/// The server bears one session, and a Go client has it. The next one is held in silence, dials no more than once for that, and is served when the first has
/// been gone for as long as a session lives without contact.
pub(crate) async fn a_go_client_beyond_the_limit_waits_and_is_served(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return Outcome::NotForThese("needs a client that tells its dials");
    }
    let mut limits = Limits::default();
    limits.sessions = 1;
    let mut config = Config::default();
    config.time_to_live = Duration::from_secs(3);
    let server = OurServer::start_with(config, limits).await;
    let pattern = Pattern(5);

    let mut first = peers.client(server.addr, &["--retry"]);
    let mut stdin = first.stdin.take().expect("nobody took it");
    let both =
        tokio::try_join!(pattern.send(&mut stdin, BYTES, f64::INFINITY), pattern.receive(&mut first.stdout, BYTES));
    assert!(both.is_ok(), "{both:?}\n{}", first.log());
    first.stdin = Some(stdin);

    let mut second = peers.client(server.addr, &["--retry"]);
    let mut stdin = second.stdin.take().expect("nobody took it");
    let waiting = async {
        let sent = pattern.send(&mut stdin, BYTES, f64::INFINITY);
        let both = tokio::try_join!(sent, pattern.receive(&mut second.stdout, BYTES));
        (both.map(drop), Instant::now())
    };
    let leaving = async {
        sleep(Duration::from_secs(1)).await;
        let left = Instant::now();
        first.finish().await;
        left
    };
    let ((echoed, served), left) = tokio::join!(waiting, leaving);
    assert!(echoed.is_ok(), "{echoed:?}\n{}", second.log());
    assert!(served > left, "it was served beside the first");
    let dials = second.log().lines().filter(|line| line.contains(": connection ")).count();
    assert!(dials <= 2, "{dials} dials\n{}", second.log());
    format!("served {:.1} s after the first had left, {dials} dials", (served - left).as_secs_f64()).into()
}
