//! The program `turbotunnel` with Go servers: what comes out, and the exit code.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::{Fin, GoServer, Peers};
use turbotunnel_interop::{runs, transfer_bytes};

fn echo_client(addr: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_turbotunnel-under-test"))
        .args(["echo-client", &addr.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it was built with this test")
}

/// `printf hi | turbotunnel echo-client`, and more bytes: whatever a FIN means to the server, all of them come back, and
/// the exit code is 0. Three times each, or as often as wanted.
pub(crate) async fn files_come_back_whole_from_go_servers(peers: Peers) -> String {
    let mut servers = Vec::new();
    if peers.take_options() {
        for fin in Fin::ALL {
            servers.push(peers.server_with_fin(fin).await);
        }
    } else {
        servers.push(peers.server(&[]).await);
    }
    for bytes in [0, 1, 2, 1000, 64 << 10, 1 << 20] {
        for server in &servers {
            for _ in 0..runs() {
                pipe(server, bytes).await;
            }
        }
    }
    pipe(&servers[0], transfer_bytes()).await;
    format!("{} times, {} kinds of servers", runs(), servers.len())
}

async fn pipe(server: &GoServer, bytes: u64) {
    let pattern = Pattern(bytes);
    let mut child = echo_client(server.addr);
    let mut stdin = child.stdin.take().expect("it was asked for");
    let sending = tokio::spawn(async move { pattern.send(&mut stdin, bytes, f64::INFINITY).await });
    let mut stdout = child.stdout.take().expect("it was asked for");
    let received = match pattern.receive(&mut stdout, bytes).await {
        Ok(()) => stdout.read(&mut [0; 16]).await.map(|n| assert_eq!(n, 0, "bytes too many")),
        error => error,
    };
    let output = child.wait_with_output().await.expect("it is our child");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(received.is_ok(), "{bytes} bytes: {received:?}, {}\n{log}\n{}", output.status, server.log());
    assert_eq!(output.status.code(), Some(0), "{bytes} bytes\n{log}\n{}", server.log());
    sending.await.expect("it does not panic").expect("all came back, so all was taken");
}

/// The server is started again in mid-transfer: exit code 8, and only bytes that were sent came out.
pub(crate) async fn it_exits_with_8_when_the_go_server_has_forgotten_the_session(peers: Peers) {
    let server = peers.server(&[]).await;
    let addr = server.addr;
    let mut child = echo_client(addr);
    let pattern = Pattern(8);
    let mut stdin = child.stdin.take().expect("it was asked for");
    let mut stdout = child.stdout.take().expect("it was asked for");
    let sending = tokio::spawn(async move { pattern.send(&mut stdin, 1 << 20, 50e3).await });
    pattern.receive(&mut stdout, 20_000).await.expect("the server is there");
    server.kill().await;
    let server = peers.server_at(addr, &[]).await.expect("the port is free again");
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(12), stdout.read_to_end(&mut rest)).await;
    assert!(matches!(read, Ok(Ok(_))), "{read:?}\n{}", server.log());
    pattern.check(20_000, &rest).expect("only what was sent");
    let output = timeout(Duration::from_secs(5), child.wait_with_output()).await.expect("it has closed its output");
    let output = output.expect("it is our child");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{log}");
    assert!(log.contains("error: the server does not know this session"), "{log}");
    sending.abort();
}
