//! The end of a stream. smux changed twice what a received FIN means; whichever version the other side has, no byte that
//! was echoed may be lost.

use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::{Fin, Peers};
use turbotunnel_interop::runner::Outcome;

use crate::support::{OurServer, echo_by_our_client};

const NEEDS_OPTIONS: Outcome = Outcome::NotForThese("needs programs whose FIN behaviour can be chosen");

/// `printf hi | echo-client`: the input ends before the answer is there.
pub(crate) async fn hi_comes_back_whatever_a_fin_means_to_the_go_server(peers: Peers) -> Outcome {
    short_and_long_input(&peers, 2).await
}

/// A mebibyte, so that the server still has much to say when our input ends.
pub(crate) async fn a_mebibyte_comes_back_whatever_a_fin_means_to_the_go_server(peers: Peers) -> Outcome {
    short_and_long_input(&peers, 1 << 20).await
}

async fn short_and_long_input(peers: &Peers, bytes: u64) -> Outcome {
    if !peers.take_options() {
        echo_by_our_client(peers.server(&[]).await.addr, bytes, f64::INFINITY).await;
        return "with the one behaviour that these programs have".to_owned().into();
    }
    for fin in Fin::ALL {
        let server = peers.server_with_fin(fin).await;
        echo_by_our_client(server.addr, bytes, f64::INFINITY).await;
        let told = server.logs(&format!("echoed {bytes} bytes")).await;
        assert!(told, "{fin:?}: {}", server.log());
    }
    ().into()
}

/// A Go client that half-closes at the end of its input gets all of it back from our server.
pub(crate) async fn a_half_closing_go_client_gets_everything_back(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_OPTIONS;
    }
    let server = OurServer::start().await;
    for (fin, bytes) in [("old", 2), ("mid", 1 << 20), ("new", 1 << 20), ("old", 1 << 20)] {
        let mut client = peers.client(server.addr, &["--end", "half", "--fin", fin]);
        let mut stdin = client.stdin.take().expect("nobody took it");
        let pattern = Pattern(bytes);
        let sending = async move { pattern.send(&mut stdin, bytes, f64::INFINITY).await };
        let both = tokio::try_join!(sending, pattern.receive(&mut client.stdout, bytes));
        assert!(both.is_ok(), "{fin}, {bytes} bytes: {both:?}\n{}", client.log());
        client.finish().await;
    }
    ().into()
}

/// A Go client that closes with answers still under way harms nobody else.
pub(crate) async fn a_go_client_that_just_leaves_harms_nobody(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_OPTIONS;
    }
    let server = OurServer::start().await;
    for _ in 0..3 {
        let mut client = peers.client(server.addr, &["--end", "close"]);
        let mut stdin = client.stdin.take().expect("nobody took it");
        let sending = async move { Pattern(0).send(&mut stdin, 300_000, f64::INFINITY).await };
        let mut nowhere = tokio::io::sink();
        let receiving = tokio::io::copy(&mut client.stdout, &mut nowhere);
        let both = tokio::try_join!(sending, receiving);
        assert!(both.is_ok(), "{both:?}\n{}", client.log());
        client.finish().await;
    }
    echo_by_our_client(server.addr, 100_000, f64::INFINITY).await;
    ().into()
}
