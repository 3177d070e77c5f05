//! The room below KCP's header, where our control packets live.

use turbotunnel_interop::noise::Noise;
use turbotunnel_interop::pattern::Pattern;
use turbotunnel_interop::peers::Peers;

/// 4,100 packets of 0 to 23 random bytes each way, in an 8 MiB echo between two Go programs: every byte comes back.
/// Our control packets stand on this.
pub(crate) async fn short_random_packets_do_no_harm_between_go_programs(peers: Peers) -> String {
    const BYTES: u64 = 8 << 20;
    const PACKETS: u64 = 4100;
    let server = peers.server(&[]).await;
    let noise = Noise::start(server.addr, PACKETS, 0x5eed).await.expect("loopback has a free port");
    let mut client = peers.client(noise.addr, &[]);
    let mut stdin = client.stdin.take().expect("nobody took it");
    let pattern = Pattern(1);
    let sending = tokio::spawn(async move { pattern.send(&mut stdin, BYTES, f64::INFINITY).await.map(|()| stdin) });
    let received = pattern.receive(&mut client.stdout, BYTES).await;
    assert!(received.is_ok(), "{received:?}\n{}", client.log());
    client.stdin = Some(sending.await.expect("it does not panic").expect("all came back, so all was sent"));
    let counted = client.finish().await;
    assert_eq!(noise.slipped_in(), (PACKETS, PACKETS), "the transfer was too short for them");
    // A byte longer than they may be, and kcp-go would count each of them as an error.
    if peers.take_options() {
        assert_eq!(counted.get("input_errors"), 0, "at the client");
        assert_eq!(server.stop().await.get("input_errors"), 0, "at the server");
    }
    format!("{PACKETS} slipped in each way")
}
