//! Echo both ways round, over paths that are cut or not.

use std::net::SocketAddr;

use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::{GoClient, Peers};
use turbotunnel_interop::runner::Outcome;
use turbotunnel_interop::transfer_bytes;

use crate::support::{Cuts, Cutter, OurServer, echo_by_our_client, several_seconds};

const NEEDS_OPTIONS: Outcome = Outcome::NotForThese("needs programs that take window sizes");

/// Through our client to a Go server and back, nothing disturbs.
pub(crate) async fn our_client_go_server(peers: Peers) {
    let server = peers.server(&[]).await;
    echo_by_our_client(server.addr, transfer_bytes(), f64::INFINITY).await;
}

/// The same through a Go client and our server.
pub(crate) async fn go_client_our_server(peers: Peers) {
    let server = OurServer::start().await;
    echo_by_go_client(&peers, server.addr, transfer_bytes(), f64::INFINITY).await;
}

/// Every connection dies after a second, in mid-transfer.
pub(crate) async fn our_client_go_server_cut_every_second(peers: Peers) -> String {
    let server = peers.server(&[]).await;
    let cutter = Cutter::start(server.addr, Cuts::EverySecond).await;
    echo_by_our_client(cutter.addr, transfer_bytes(), several_seconds(transfer_bytes())).await;
    cutter.enough()
}

/// The same the other way round.
pub(crate) async fn go_client_our_server_cut_every_second(peers: Peers) -> String {
    let server = OurServer::start().await;
    let cutter = Cutter::start(server.addr, Cuts::EverySecond).await;
    echo_by_go_client(&peers, cutter.addr, transfer_bytes(), several_seconds(transfer_bytes())).await;
    cutter.enough()
}

/// Every connection dies after 20 to 60 kB, both directions together, with packets cut through anywhere.
pub(crate) async fn our_client_go_server_cut_every_20_to_60_kb(peers: Peers) -> String {
    let server = peers.server(&[]).await;
    let cutter = Cutter::start(server.addr, Cuts::Every20To60Kilobytes).await;
    echo_by_our_client(cutter.addr, transfer_bytes(), f64::INFINITY).await;
    cutter.enough()
}

/// The same the other way round.
pub(crate) async fn go_client_our_server_cut_every_20_to_60_kb(peers: Peers) -> String {
    let server = OurServer::start().await;
    let cutter = Cutter::start(server.addr, Cuts::Every20To60Kilobytes).await;
    echo_by_go_client(&peers, cutter.addr, transfer_bytes(), f64::INFINITY).await;
    cutter.enough()
}

/// The Go programs between themselves survive the cutter too: if this fails, the test bench is broken.
pub(crate) async fn go_client_go_server_cut_every_second(peers: Peers) -> String {
    let server = peers.server(&[]).await;
    let cutter = Cutter::start(server.addr, Cuts::EverySecond).await;
    echo_by_go_client(&peers, cutter.addr, transfer_bytes(), several_seconds(transfer_bytes())).await;
    cutter.enough()
}

/// A Go server with tiny windows, and one with windows and queues so large that nothing holds back.
pub(crate) async fn our_client_go_servers_with_small_and_large_windows(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_OPTIONS;
    }
    for options in [
        &["--window", "32", "--stream-buffer", "4096"][..],
        &["--window", "1024", "--stream-buffer", "1048576"],
        &["--window", "65535", "--stream-buffer", "4194304", "--queue", "2048"],
    ] {
        let server = peers.server(options).await;
        echo_by_our_client(server.addr, 1 << 20, f64::INFINITY).await;
    }
    ().into()
}

/// Go clients of the same kinds.
pub(crate) async fn go_clients_with_small_and_large_windows_our_server(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_OPTIONS;
    }
    let server = OurServer::start().await;
    for options in [
        &["--window", "32", "--stream-buffer", "4096"][..],
        &["--window", "65535", "--stream-buffer", "4194304", "--queue", "2048"],
    ] {
        let mut client = peers.client(server.addr, options);
        run(&mut client, 1 << 20, f64::INFINITY).await;
        client.finish().await;
    }
    ().into()
}

async fn echo_by_go_client(peers: &Peers, addr: SocketAddr, bytes: u64, bytes_per_second: f64) {
    let mut client = peers.client(addr, &[]);
    run(&mut client, bytes, bytes_per_second).await;
    client.finish().await;
}

/// Pipes a pattern through a client, and leaves stdin open.
async fn run(client: &mut GoClient, bytes: u64, bytes_per_second: f64) {
    let pattern = Pattern(bytes);
    let mut stdin = client.stdin.take().expect("nobody took it");
    let both =
        tokio::try_join!(pattern.send(&mut stdin, bytes, bytes_per_second), pattern.receive(&mut client.stdout, bytes));
    assert!(both.is_ok(), "{both:?}\n{}", client.log());
    client.stdin = Some(stdin);
}
