//! What goes wrong is told in words, and leaves nothing behind.

#![cfg(all(unix, feature = "tls", feature = "ws"))]

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{NOWHERE, Pki, Speaks, answering, bind, dialer, failure, file, pair, pattern, proxy, reached_as, soon};
use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
#[cfg(target_os = "linux")]
use tokio::net::TcpSocket;
use tokio::net::{TcpListener, TcpStream};
use turbotunnel_carriers::{Acceptor, BindError, DialOptions, Dialer, ListenOptions, OptionsError, Roots};

/// What a client asks for, with the key of RFC 6455, section 1.3.
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An acceptor that takes whatever comes, and has its handshakes done.
fn accepting(acceptor: &std::sync::Arc<Acceptor>) {
    let acceptor = acceptor.clone();
    tokio::spawn(async move { while acceptor.accept().await.is_ok() {} });
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let old = pki.server(&["localhost"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let young = pki.server(&["localhost"], |params| params.not_before = date_time_ymd(2999, 1, 1));
    let of_ca = pki.server(&["localhost"], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    for (options, client, told) in [
        (
            pki.server(&["a.example", "b.example"], |_| {}),
            pki.client(),
            "not valid for the name \"localhost\": it is for a.example, b.example",
        ),
        (
            pki.honest_server(),
            stranger.client(),
            "bears the name of a CA that is trusted here, and is not signed by it",
        ),
        (
            pki.honest_server(),
            DialOptions { roots: Roots::Mozilla, ..DialOptions::default() },
            "signed by nobody who is trusted here",
        ),
        (old, pki.client(), "has expired, or the clock here is wrong"),
        (young, pki.client(), "is not valid yet, or the clock here is wrong"),
        (of_ca, pki.client(), "the certificate of a CA"),
    ] {
        for scheme in ["tls://127.0.0.1:0", "wss://127.0.0.1:0/"] {
            let acceptor = bind(scheme, options.clone()).await;
            accepting(&acceptor);
            let error = failure(&dialer(&reached_as(&acceptor, "localhost"), client.clone())).await;
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}

#[tokio::test]
async fn another_name_may_be_asked_for() {
    let pki = Pki::new();
    let acceptor = bind("wss://127.0.0.1:0/", pki.server(&["front.example"], |_| {})).await;
    let mut options = pki.client();
    options.server_name = Some("front.example".into());
    pair(&acceptor, &dialer(&acceptor.address().to_string(), options)).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_then_on() {
    let pki = Pki::new();
    let acceptor = bind("tls://127.0.0.1:0", pki.server(&["old.example"], |_| {})).await;
    let dialer = dialer(&reached_as(&acceptor, "localhost"), pki.client());
    let taking = tokio::spawn({
        let acceptor = acceptor.clone();
        async move { acceptor.accept().await }
    });
    assert!(failure(&dialer).await.contains("old.example"));
    let missing = ListenOptions { key: Some("/nowhere.pem".into()), ..pki.honest_server() };
    assert!(acceptor.reload(&missing).is_err(), "and it stays as it was");
    assert!(failure(&dialer).await.contains("old.example"));
    acceptor.reload(&pki.honest_server()).unwrap();
    soon(dialer.dial()).await.unwrap();
    soon(taking).await.unwrap().unwrap();
    assert_eq!(acceptor.stats().handshakes_failed, 2);
}

#[tokio::test]
async fn what_is_wrong_with_files_is_told() {
    let pki = Pki::new();
    let honest = pki.honest_server();
    let other = pki.server(&["other"], |_| {});
    let empty = file(&pki.dir.path().join("empty.pem"), "no PEM\n");
    for (options, told) in [
        (ListenOptions::default(), "carriers of kind tls need a certificate and its private key"),
        (ListenOptions { key: other.key, ..honest.clone() }, "is not the private key of the certificate in"),
        (ListenOptions { key: honest.certificate.clone(), ..honest.clone() }, "no private key in PEM format in it"),
        (ListenOptions { certificate: Some(empty.clone()), ..honest.clone() }, "no certificate in PEM format in it"),
        (ListenOptions { certificate: Some("/nowhere".into()), ..honest.clone() }, "/nowhere: No such file"),
    ] {
        let error = Acceptor::bind("tls://127.0.0.1:0".parse().unwrap(), options).await.unwrap_err();
        assert!(matches!(error, BindError::Options(_)), "{error}");
        assert!(error.to_string().contains(told), "{told}: {error}");
    }
    let client = DialOptions { ca_file: Some(empty), ..pki.client() };
    let error = Dialer::new("tls://h:1".parse().unwrap(), client).unwrap_err();
    assert!(error.to_string().contains("empty.pem: no certificate in PEM format"), "{error}");
    let client = DialOptions { roots: Roots::None, ..DialOptions::default() };
    assert_eq!(Dialer::new("tls://h:1".parse().unwrap(), client.clone()).unwrap_err(), OptionsError::NoRoots);
    assert!(Dialer::new("h:1".parse().unwrap(), client).is_ok(), "TCP asks nobody");
}

#[tokio::test]
async fn what_answers_in_the_place_of_a_websocket_is_told() {
    for (answer, told) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "answered HTTP/1.1 400 Bad Request, not a WebSocket"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "answered HTTP/1.1 200 OK, not a WebSocket"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "answered HTTP/1.1 101 Switching Protocols, not a WebSocket",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", "what answers is no web server"),
        ("", "closed by peer in the place of an answer"),
    ] {
        let error = failure(&dialer(&format!("ws://{}/", answering(answer).await), DialOptions::default())).await;
        assert!(error.contains(told), "{told}: {error}");
    }
}

/// A server that does not speak first, and hangs up on what it does not understand.
#[tokio::test]
async fn what_answers_in_the_place_of_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tls://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let (mut client, _) = listener.accept().await.unwrap();
            assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
            client.write_all(answer).await.unwrap();
        }
    });
    let dialer = dialer(&address, DialOptions { roots: Roots::Mozilla, ..DialOptions::default() });
    assert_eq!(failure(&dialer).await, "what answers does not speak TLS");
    assert_eq!(failure(&dialer).await, "closed by peer during the TLS handshake");
}

/// To the curious the port is a web server that does not have the page.
#[tokio::test]
async fn whoever_asks_for_something_else_gets_a_web_servers_404() {
    let acceptor = bind("ws://127.0.0.1:0/secret", ListenOptions::default()).await;
    accepting(&acceptor);
    let addr = acceptor.local_addr().unwrap();
    let upgrade = |path: &str, version: &str, key: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n"
        )
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for (request, status) in [
        (upgrade("/secret", "13", key), "101 Switching Protocols"),
        (upgrade("/secret?a=b", "13", key), "101 Switching Protocols"),
        (upgrade("/", "13", key), "404 Not Found"),
        (upgrade("/secret/", "13", key), "404 Not Found"),
        (upgrade("/secret", "8", key), "404 Not Found"),
        (upgrade("/secret", "13", "short"), "404 Not Found"),
        ("GET /secret HTTP/1.1\r\nHost: x\r\n\r\n".into(), "404 Not Found"),
        ("POST /secret HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".into(), "404 Not Found"),
        (upgrade("/secret", "13", key).replace("HTTP/1.1", "HTTP/1.0"), "404 Not Found"),
        ("what is this\r\n\r\n".into(), "400 Bad Request"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)), "400 Bad Request"),
    ] {
        let mut curious = TcpStream::connect(addr).await.unwrap();
        curious.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = soon(curious.read(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        if status.starts_with("101") {
            assert!(
                answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
                "RFC 6455, section 1.3"
            );
        } else {
            assert!(answer.ends_with(&format!("<h1>{status}</h1></center>\r\n</body>\r\n</html>\r\n")), "{answer}");
            assert_eq!(soon(curious.read(&mut [0])).await.unwrap(), 0, "and closes");
        }
    }
    let error = failure(&dialer(&format!("ws://{addr}/"), DialOptions::default())).await;
    assert_eq!(error, "answered HTTP/1.1 404 Not Found, not a WebSocket");
}

#[tokio::test]
async fn what_a_proxy_has_against_it_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let honest = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = honest.local_addr().unwrap();
    let not_there = format!("{NOWHERE}:{}", closed.port());
    for (proxy, to, told) in [
        (
            proxy(Speaks::Http, "", "YTpi").await,
            server.to_string(),
            "the proxy answered 407: it wants a user and a password",
        ),
        (
            proxy(Speaks::Http, "a:c@", "YTpi").await,
            server.to_string(),
            "the proxy answered 407: it does not accept the user and password",
        ),
        (proxy(Speaks::Http, "", "").await, not_there.clone(), "the proxy answered \"HTTP/1.1 502 Bad Gateway\""),
        (proxy(Speaks::Socks5, "", "a:b").await, server.to_string(), "the proxy wants a user and a password"),
        (
            proxy(Speaks::Socks5, "a:c@", "a:b").await,
            server.to_string(),
            "the proxy does not accept the user and password",
        ),
        (
            proxy(Speaks::Socks5, "", "").await,
            not_there.clone(),
            "the proxy answered: the server refused the connection",
        ),
        (format!("http://{closed}").parse().unwrap(), server.to_string(), "cannot be reached: Connection refused"),
        (
            format!("http://{}", answering("SSH-2.0-x\r\n").await).parse().unwrap(),
            server.to_string(),
            "what answers at the proxy's address is no HTTP proxy",
        ),
        (
            format!("http://{}", answering("").await).parse().unwrap(),
            server.to_string(),
            "hung up instead of answering",
        ),
    ] {
        let error = failure(&dialer(&to, DialOptions { proxy: Some(proxy), ..DialOptions::default() })).await;
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[tokio::test]
async fn a_text_message_and_a_cut_are_errors() {
    let acceptor = bind("ws://127.0.0.1:0/", ListenOptions::default()).await;
    for (frame, kind) in [
        // Masked with zeros, as a client's: text, then a reserved opcode, then 2 MiB.
        (&b"\x81\x82\0\0\0\0hi"[..], ErrorKind::InvalidData),
        (b"\x83\x80\0\0\0\0", ErrorKind::InvalidData),
        (b"\x82\xff\0\0\0\0\0\x20\0\0\0\0\0\0", ErrorKind::InvalidData),
        (b"\x82\x02hi", ErrorKind::InvalidData),
        (b"\x82\x85\0\0\0\0cut", ErrorKind::UnexpectedEof),
    ] {
        let mut client = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
        // What comes behind the request at once is not lost, and a ping in between is none of the bytes.
        client
            .write_all(&[UPGRADE.as_bytes(), b"\x89\x81\0\0\0\0?\x82\x83\0\0\0\0yes\x82\x80\0\0\0\0", frame].concat())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut connection = soon(acceptor.accept()).await.unwrap();
        let mut read = Vec::new();
        let error = soon(connection.read_to_end(&mut read)).await.unwrap_err();
        assert_eq!((error.kind(), &read[..]), (kind, &b"yes"[..]), "{error}");
        let mut answer = Vec::new();
        drop(connection);
        let _ = soon(client.read_to_end(&mut answer)).await;
        assert!(answer.windows(3).any(|bytes| bytes == b"\x8a\x01?"), "the ping was answered");
    }
}

/// Somebody who asks for signs of life without end and reads none: the answers are limited, and what is written meanwhile goes out whole once he reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_that_nobody_reads_the_answers_of_do_no_harm() {
    let acceptor = bind("ws://127.0.0.1:0/", ListenOptions::default()).await;
    let client = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
    let (mut from, mut to) = client.into_split();
    to.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (mut ours, mut out) = tokio::io::split(soon(acceptor.accept()).await.unwrap());
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.map(|_| read)
    });
    // 20 MB of them: more than the kernel keeps of the answers.
    let pings = [b"\x89\xfd\0\0\0\0".to_vec(), vec![b'?'; 125]].concat().repeat(1000);
    for _ in 0..160 {
        soon(to.write_all(&pings)).await.unwrap();
    }
    let writing = tokio::spawn(async move {
        out.write_all(&pattern(1 << 20, 5)).await?;
        out.shutdown().await
    });
    let (mut data, mut pongs) = (Vec::new(), 0);
    soon(async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(from.read_u8().await.unwrap());
        }
        loop {
            let kind = from.read_u8().await.unwrap();
            let len = match from.read_u8().await.unwrap() {
                126 => from.read_u16().await.unwrap().into(),
                127 => from.read_u64().await.unwrap() as usize,
                len => len.into(),
            };
            let mut payload = vec![0; len];
            from.read_exact(&mut payload).await.unwrap();
            match kind {
                0x82 => data.extend(payload),
                0x8a => pongs += 1,
                0x88 => break,
                other => panic!("frame {other:x}"),
            }
        }
    })
    .await;
    soon(writing).await.unwrap().unwrap();
    assert!(data == pattern(1 << 20, 5), "{} bytes", data.len());
    assert!((1000..160_000).contains(&pongs), "{pongs} answers");
    // Close, masked with zeros.
    to.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    assert_eq!(soon(reading).await.unwrap().unwrap(), b"");
}

#[tokio::test]
async fn how_a_command_ends_is_told() {
    for (command, told) in [
        ("exec:printf hello", None),
        ("exec:printf hello; exit 3", Some("the command ended with status 3")),
        ("exec:printf hello; kill -9 $$", Some("the command was ended: signal: 9")),
        ("exec:printf hello; no-such-command 2>&-", Some("there is no such command")),
        // It has said all it has to say, and goes on.
        ("exec:printf hello; exec >&-; exec sleep 1000", None),
    ] {
        let mut connection = soon(dialer(command, DialOptions::default()).dial()).await.unwrap();
        let mut read = Vec::new();
        let outcome = soon(connection.read_to_end(&mut read)).await;
        assert_eq!(read, b"hello", "{command}");
        match (outcome, told) {
            (Ok(5), None) => {}
            (Err(error), Some(told)) => assert!(error.to_string().contains(told), "{told}: {error}"),
            (outcome, _) => panic!("{command}: {outcome:?}"),
        }
    }
}

/// The shell, what it has started, and their entry in the table of processes.
#[tokio::test]
async fn a_dropped_command_is_gone_with_all_it_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Whoever lives holds the one end of the pipe: at the other is an end when they are all gone.
    let mut alive = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    let command =
        format!("exec:exec 9>'{}'; (trap '' HUP PIPE; sleep 1000 <&-) & echo $$; sleep 1000 | cat", fifo.display());
    let mut connection = soon(dialer(&command, DialOptions::default()).dial()).await.unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push(char::from(soon(connection.read_u8()).await.unwrap()));
    }
    let process = std::path::Path::new("/proc").join(pid.trim());
    assert!(process.exists() || cfg!(not(target_os = "linux")));
    drop(connection);
    assert_eq!(soon(alive.read(&mut [0])).await.unwrap(), 0);
    soon(async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_is_taken_from_the_dead_and_not_from_the_living() {
    let pki = Pki::new();
    let address = pki.socket("s");
    let path = pki.dir.path().join("s");
    let again = || Acceptor::bind(address.parse().unwrap(), ListenOptions::default());
    // A server that was killed leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = bind(&address, ListenOptions::default()).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let error = again().await.unwrap_err();
    assert_eq!(error.to_string(), "somebody listens there already");
    let dialer = dialer(&address, DialOptions::default());
    pair(&first, &dialer).await;
    // Somebody else's by now, under the same name.
    std::fs::remove_file(&path).unwrap();
    let second = again().await.unwrap();
    drop(first);
    pair(&second, &dialer).await;
    drop(second);
    assert!(!path.exists());
    assert!(failure(&dialer).await.ends_with("s: No such file or directory"));
    file(&path, "a letter");
    assert_eq!(again().await.unwrap_err().to_string(), "there is a file of that name, and it is no socket");
    assert!(path.exists());
}

/// More of the silent than there may be handshakes at once, and somebody honest behind them.
#[tokio::test]
async fn the_silent_keep_nobody_out() {
    let pki = Pki::new();
    for address in ["wss://127.0.0.1:0/", "ws://127.0.0.1:0/"] {
        let acceptor = bind(address, pki.honest_server()).await;
        let mut silent = Vec::new();
        let taking = tokio::spawn({
            let acceptor = acceptor.clone();
            async move { acceptor.accept().await }
        });
        for _ in 0..300 {
            silent.push(TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap());
        }
        let dialer = dialer(&reached_as(&acceptor, "localhost"), pki.client());
        let started = std::time::Instant::now();
        soon(dialer.dial()).await.unwrap();
        soon(taking).await.unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(9), "before the first of them is out of time");
        assert!(acceptor.stats().handshakes_failed >= 230, "{:?}", acceptor.stats());
        // They were told, by being closed.
        assert_eq!(soon(silent[0].read(&mut [0])).await.unwrap_or(0), 0);
    }
}

/// Somebody who needs time for his handshake, and another who connects all the time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flood_from_one_address_makes_room_for_itself_only() {
    let acceptor = bind("ws://127.0.0.1:0/", ListenOptions::default()).await;
    let addr = acceptor.local_addr().unwrap();
    let from = |source: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(addr)
    };
    let taking = tokio::spawn({
        let acceptor = acceptor.clone();
        async move { acceptor.accept().await }
    });
    let mut slow = from("127.0.0.2").await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..600 {
        flood.push(from("127.0.0.3").await.unwrap());
    }
    // By then they are all taken.
    assert_eq!(soon(flood[500].read(&mut [0])).await.unwrap_or(0), 0);
    slow.write_all(UPGRADE.as_bytes()).await.unwrap();
    let accepted = soon(taking).await.unwrap().unwrap();
    assert_eq!(accepted.peer(), slow.local_addr().ok());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_ten_seconds() {
    let acceptor = bind("ws://127.0.0.1:0/", ListenOptions::default()).await;
    let mut silent = TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    let mut nothing = [0];
    tokio::select! {
        _ = acceptor.accept() => panic!("nobody came"),
        read = silent.read(&mut nothing) => assert_eq!(read.unwrap_or(0), 0),
    }
}
