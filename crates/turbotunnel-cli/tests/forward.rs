//! `server` and `client`: connections of programs go through a path that cuts, and neither end of them notices.

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::programs::{client, connect, count, dead_port, echo, port_of, socks, target, there_and_back};
use common::{Keyed, PATIENCE, Running, lines, pattern, run, text, through_pipes, turbotunnel, wait};
use turbotunnel_cli::lilbastard::{Lilbastard, Plan};

#[test]
fn every_kind_of_forward_brings_all_bytes_over_a_path_that_cuts() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target} --allow {target} --reverse 1024-65535"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let plan = Plan { bytes: Some(60_000), jitter: 0.5, seed: 7, ..Plan::default() };
    let cutter = runtime.block_on(Lilbastard::bind("127.0.0.1:0", server.address(), plan)).unwrap();
    let link = server.link_at(&cutter.local_addr().to_string());
    let (held, free) = dead_port();
    drop(held);
    let (client, at) = client(&format!("{link} -L 0 -L 0:{target} -D 0 -R {free}:{target}"), 3);
    client.line(&format!("the server's port {free} leads to {target}"));
    let sent = pattern(300_000);
    let (by_socks, code) = socks(&at[2], "127.0.0.1", port_of(&target));
    assert_eq!(code, 0);
    for (how, connection) in [
        ("-L", connect(&at[0])),
        ("-L with a target", connect(&at[1])),
        ("-D", by_socks),
        ("-R", connect(&format!("127.0.0.1:{free}"))),
    ] {
        let back = there_and_back(connection, &sent);
        assert!(back == sent, "{how}: {} of {} bytes", back.len(), sent.len());
    }
    for option in [String::new(), format!("-W {target}")] {
        let output = through_pipes(turbotunnel(&format!("client {link} {option}")), sent.clone());
        assert_eq!(output.status.code(), Some(0), "{option}: {}", text(&output.stderr));
        assert!(output.stdout == sent, "{option}: {} bytes", output.stdout.len());
    }
    assert!(cutter.counters().cuts >= 30, "{:?}", cutter.counters());
}

/// The end of each direction is carried on its own, both ways round.
#[test]
fn half_close_is_carried_end_to_end() {
    let asks = target(count);
    // It says all it has to say at once, ends its direction, and then wants to hear everything.
    let (heard, all_heard) = std::sync::mpsc::channel();
    let talks = target(move |mut connection| {
        connection.write_all(b"go ahead").unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        heard.send(bytes.len()).unwrap();
    });
    let server = Keyed::start(&format!("--allow {asks} --allow {talks}"));
    let (_client, at) = client(&format!("{} -L 0:{asks} -L 0:{talks}", server.link), 2);
    assert_eq!(there_and_back(connect(&at[0]), &pattern(100_000)), b"100000");
    let mut connection = connect(&at[1]);
    let mut said = String::new();
    connection.read_to_string(&mut said).unwrap();
    assert_eq!(said, "go ahead");
    connection.write_all(&pattern(50_000)).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all_heard.recv_timeout(PATIENCE).unwrap(), 50_000);

    // The same for standard input and output: whoever reads our output sees its end while we still read his input.
    let mut program = turbotunnel(&format!("-q client {} -W {talks}", server.link))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "go ahead");
    program.stdin.take().unwrap().write_all(&pattern(70_000)).unwrap();
    assert_eq!(wait(&mut program).code(), Some(0));
    assert_eq!(all_heard.recv_timeout(PATIENCE).unwrap(), 70_000);
}

#[test]
fn what_the_server_was_not_told_to_reach_is_not_reached() {
    let target = target(echo);
    let (_held, nobody) = dead_port();
    let other = Keyed::start("--echo");
    let server = Keyed::start(&format!("--socks --allow {target} --allow 127.0.0.1:{nobody} --allow nobody.invalid:1"));
    let (client, at) = client(&format!("{} -L 0:127.0.0.1:{nobody} -D 0", server.link), 2);
    for (host, port, code) in [
        ("127.0.0.1", port_of(&target), 0),
        ("127.0.0.1", port_of(other.address()), 2),
        ("localhost", port_of(other.address()), 2),
        ("::ffff:127.0.0.1", port_of(other.address()), 2),
        ("0.0.0.0", port_of(other.address()), 2),
        ("169.254.169.254", 80, 2),
        ("127.0.0.1", nobody, 5),
        ("nobody.invalid", 1, 4),
    ] {
        assert_eq!(socks(&at[1], host, port).1, code, "{host}:{port}");
    }
    // A forwarded connection has no language of its own for that; it is no orderly end.
    let mut connection = connect(&at[0]);
    let error = connection.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    client.line(&format!("to 127.0.0.1:{nobody}: connection refused"));

    let says = |args: &str| {
        let output = run(&format!("-q client {} {args}", server.link));
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = says("-W 127.0.0.1:9");
    assert_eq!(code, 7);
    assert_eq!(
        said,
        "error: the server does not allow 127.0.0.1:9\n  tip: its operator can start it with --allow 127.0.0.1:9\n"
    );
    let (code, said) = says(&format!("-W 127.0.0.1:{nobody}"));
    assert_eq!((code, said), (11, format!("error: the server cannot reach 127.0.0.1:{nobody}: connection refused\n")));
    let (code, said) = says("");
    assert_eq!(code, 7);
    assert!(said.starts_with("error: the server has no target of its own\n  tip: -W HOST:PORT"), "{said}");
    let (code, said) = says("-R 8080:127.0.0.1:80");
    assert_eq!(code, 7);
    assert_eq!(
        said,
        "error: the server does not lend port 8080\n  tip: its operator can start it with --reverse 8080\n"
    );
}

#[test]
fn a_server_that_would_do_nothing_and_clients_without_a_key_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("server.key");
    for (args, told) in [
        (format!("server 127.0.0.1:0 --key {}", key.display()), "error: this server would do nothing\n  tip: --to "),
        ("server 127.0.0.1:0 --plain --socks".into(), "error: in the plain format streams have one target"),
        ("server 127.0.0.1:0 --plain --echo --allow *:80".into(), "error: in the plain format streams have one target"),
        (format!("server 127.0.0.1:0 --plain --key {}", key.display()), "cannot be used with"),
        ("server 127.0.0.1:0 --echo --to 127.0.0.1:1".into(), "cannot be used with"),
        ("server 127.0.0.1:0 --to nowhere".into(), "error: --to \"nowhere\" is not a target\n  tip: --to HOST:PORT"),
        ("server 127.0.0.1:0 --allow nowhere".into(), "not a target: HOST:PORT"),
        (
            "client 127.0.0.1:1 -L 2222".into(),
            "error: no key for tcp://127.0.0.1:1\n  tip: use the turbotunnel:// link",
        ),
        ("client 127.0.0.1:1 --plain -D 1080".into(), "error: in the plain format streams go where the server sends"),
        (
            "client 127.0.0.1:1 --plain -L 22:a:22".into(),
            "error: in the plain format streams go where the server sends",
        ),
        ("client 127.0.0.1:1 --plain -L x".into(), "error: -L \"x\" is not a forward\n  tip: -L [BIND:]PORT"),
        ("client 127.0.0.1:1 -W a:1 -L 1".into(), "cannot be used with"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args}");
        assert!(text(&output.stderr).contains(told), "{args}: {}", text(&output.stderr));
    }
    assert!(!key.exists(), "a key was made for nothing");
}

/// The plain format with a target: the worked example's client reaches it, too.
#[test]
fn plain_streams_go_to_the_one_target() {
    let target = target(echo);
    let server = Running::start(&format!("server 127.0.0.1:0 --plain --to {target}"));
    let address = server.address();
    let (_client, at) = client(&format!("{address} --plain -L 0"), 1);
    let sent = pattern(100_000);
    assert!(there_and_back(connect(&at[0]), &sent) == sent);
    for command in ["client --plain", "echo-client"] {
        let output = through_pipes(turbotunnel(&format!("{command} {address}")), sent.clone());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stdout == sent);
    }
}

/// No --key and no --plain: a key is made where the user's programs keep what they remember.
#[cfg(unix)]
#[test]
fn a_server_makes_its_key_at_the_first_start_and_keeps_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let link = || {
        let mut command = turbotunnel("server 127.0.0.1:0 --echo");
        command.env_remove("STATE_DIRECTORY").env("XDG_STATE_HOME", folder.path());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = lines(child.stderr.take().unwrap());
        let link =
            said.iter().find_map(|line| Some(line.split_once("turbotunnel://")?.1.split_once('@')?.0.to_owned()));
        child.kill().unwrap();
        child.wait().unwrap();
        link.unwrap()
    };
    assert_eq!(link(), link());
    let key = folder.path().join("turbotunnel/server.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The server is restarted: what was open is cut, and not in a way that looks like an end; what comes after that works.
#[test]
fn a_client_of_a_restarted_server_starts_anew() {
    let target = target(echo);
    let options = format!("--to {target}");
    let server = Keyed::start(&options);
    let (client, at) = client(&format!("{} -L 0", server.link), 1);
    let mut open = connect(&at[0]);
    open.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    open.read_exact(&mut back).unwrap();
    let _again = server.restart(&options);
    assert_eq!(open.read(&mut back).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let lost = client.line(" lost: ");
    assert!(
        lost.contains("the server does not know this session any more; what was open is cut; starting a new one"),
        "{lost}"
    );
    assert_eq!(there_and_back(connect(&at[0]), b"again"), b"again");
}

/// The server is not there yet: programs wait, and then are served.
#[test]
fn programs_wait_for_a_server_that_comes_later() {
    let target = target(echo);
    let options = format!("--to {target}");
    let mut server = Keyed::start(&options);
    server.server.child.kill().unwrap();
    server.server.wait();
    let (client, at) = client(&format!("{} -L 0", server.link), 1);
    let connection = connect(&at[0]);
    client.line("connection refused; trying on (dial 1, next in ");
    let asking = thread::spawn(move || there_and_back(connection, b"patience"));
    let _server = server.restart(&options);
    assert_eq!(asking.join().unwrap(), b"patience");
}

/// A key that is not the server's: three answers that are none are enough, "never" or not.
#[test]
fn a_wrong_key_is_5_although_the_client_never_gives_up() {
    let server = Keyed::start("--echo");
    let key = run(&format!("keygen {}", server.path("other.key")));
    let link = format!("turbotunnel://{}@{}", text(&key.stdout).trim(), server.address());
    let output = run(&format!("client {link} -L 0"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(&format!("error: no valid answer from tcp://{}\n", server.address())), "{said}");
}

/// A balancer whose server is away takes connections and closes them: that is no wrong key, and the server comes back.
#[test]
fn a_balancer_without_a_server_is_no_wrong_key() {
    let server = Keyed::start("--echo");
    let behind = server.address().to_owned();
    let taken = std::sync::atomic::AtomicU32::new(0);
    let balancer = target(move |connection| {
        if taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 5 {
            return;
        }
        let there = TcpStream::connect(&behind).unwrap();
        let (mut from, mut to) = (connection.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from, &mut to));
        let _ = io::copy(&mut &there, &mut &connection);
    });
    let (client, at) = client(&format!("{} -L 0", server.link_at(&balancer)), 1);
    client.line("trying on");
    assert_eq!(there_and_back(connect(&at[0]), b"patience"), b"patience");
}

/// A port at the server belongs to the client, not to the connection or the process: the same key gets it at once, another does not.
#[cfg(unix)]
#[test]
fn a_lent_port_goes_over_to_the_same_clients_next_session() {
    let target = target(echo);
    let server = Keyed::start("--reverse 1024-65535");
    for name in ["ann.key", "bob.key"] {
        assert!(run(&format!("keygen {}", server.path(name))).status.success());
    }
    let (held, port) = dead_port();
    drop(held);
    let borrow =
        |key: &str| Running::start(&format!("client {} --key {} -R {port}:{target}", server.link, server.path(key)));
    let leads = format!("the server's port {port} leads to {target}");
    let mut first = borrow("ann.key");
    first.line(&leads);
    let stranger = borrow("bob.key");
    stranger.line(&format!("the server cannot listen on port {port}: port already in use; asking again"));
    // Nobody hears of its end.
    first.child.kill().unwrap();
    first.wait();
    let second = borrow("ann.key");
    second.line(&leads);
    let address = format!("127.0.0.1:{port}");
    assert_eq!(there_and_back(connect(&address), b"hello"), b"hello");
    // An end in good order gives it back.
    second.signal("TERM");
    server.server.line(&format!("listens on 127.0.0.1:{port} no more"));
    stranger.line(&leads);
}

/// The port is lent, and another address than the one that was asked for: that is said, and what to do at either end.
#[test]
fn a_port_that_is_lent_at_another_address_is_not_told_to_be_refused() {
    let target = target(echo);
    let (held, port) = dead_port();
    drop(held);
    let server = Keyed::start(&format!("--reverse {port}"));
    let refused = run(&format!("-q client {} -R 0.0.0.0:{port}:{target}", server.link));
    let said = format!(
        "error: the server does not lend port {port} at 0.0.0.0, but at another address\n  \
           tip: its operator can start it with --reverse '*:{port}'; -R {port}:{target} takes it where it is lent\n"
    );
    assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(7), said));
    // This machine by its name is this machine.
    let client = Running::start(&format!("client {} -R localhost:{port}:{target}", server.link));
    client.line(&format!("the server's port {port} leads to {target}"));
    assert_eq!(there_and_back(connect(&format!("127.0.0.1:{port}")), b"hello"), b"hello");
    drop((client, server));
    let server = Keyed::start(&format!("--reverse *:{port}"));
    let client = Running::start(&format!("client {} -R 0.0.0.0:{port}:{target}", server.link));
    client.line(&format!("the server's port {port} leads to {target}"));
    assert_eq!(there_and_back(connect(&format!("127.0.0.1:{port}")), b"hello"), b"hello");
}

/// A browser that takes it for an HTTP proxy shows the page that says so, and no reset.
#[test]
fn an_http_request_at_a_socks_port_is_answered_with_a_page_that_arrives() {
    let server = Keyed::start("--socks");
    let (client, at) = client(&format!("{} -D 0", server.link), 1);
    let mut browser = connect(&at[0]);
    let cookie = "x".repeat(10_000);
    write!(browser, "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\nCookie: {cookie}\r\n\r\n").unwrap();
    // What it would meet if it were slow.
    thread::sleep(Duration::from_millis(300));
    let mut page = String::new();
    browser.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.0 501") && page.contains("socks5h://HOST:PORT"), "{page}");
    drop(browser);
    client.line("it speaks HTTP; this is a SOCKS 5 proxy (socks5h://)");
}

/// SIGTERM: no new connections, the old ones end in their own time.
#[cfg(unix)]
#[test]
fn both_ends_drain() {
    let target = target(echo);
    let mut server = Keyed::start(&format!("--to {target} --reverse 1024-65535"));
    let (mut client, at) = client(&format!("{} -L 0", server.link), 1);
    let mut open = connect(&at[0]);
    let mut back = [0; 5];
    for end in ["client", "server"] {
        open.write_all(b"hello").unwrap();
        open.read_exact(&mut back).unwrap();
        let ending = if end == "client" { &client } else { &server.server };
        ending.signal("TERM");
        ending.line("ending; waiting up to 30 s for 1 stream");
    }
    assert!(TcpStream::connect(&at[0]).is_err(), "a client that ends takes no more");
    assert_eq!(there_and_back(open, b"bye"), b"bye");
    assert_eq!((client.wait().code(), server.server.wait().code()), (Some(0), Some(0)));
}

/// What does not end in time is cut, and nobody says that all is well.
#[cfg(unix)]
#[test]
fn a_drain_that_is_cut_short_is_1() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target}"));
    let (mut client, at) = client(&format!("{} -L 0 --drain 100ms", server.link), 1);
    let mut open = connect(&at[0]);
    open.write_all(b"hello").unwrap();
    open.read_exact(&mut [0; 5]).unwrap();
    client.signal("TERM");
    client.line("error: 1 stream cut before the end");
    assert_eq!(client.wait().code(), Some(1));
}

/// Whoever asks twice does not want to wait for streams, and has not asked to hear of them.
#[cfg(unix)]
#[test]
fn a_second_sigterm_ends_either_end_at_once_with_143() {
    let target = target(echo);
    for end in ["server", "client"] {
        let mut server = Keyed::start(&format!("--to {target}"));
        let (mut client, at) = client(&format!("{} -L 0", server.link), 1);
        let mut open = connect(&at[0]);
        open.write_all(b"hello").unwrap();
        open.read_exact(&mut [0; 5]).unwrap();
        let ending = if end == "server" { &mut server.server } else { &mut client };
        ending.signal("TERM");
        ending.line("ending; waiting up to 30 s for 1 stream");
        ending.signal("TERM");
        assert_eq!(ending.wait().code(), Some(143), "{end}");
        let errors: Vec<_> = ending.lines.iter().filter(|line| line.contains("error")).collect();
        assert!(errors.is_empty(), "{end}: {errors:?}");
    }
}

/// 300 connections, one after the other (a second on two cores) and beside one that never reads.
#[test]
fn connections_come_and_go_by_the_hundred_and_one_that_never_reads_slows_nobody() {
    let echoing = target(echo);
    let endless = target(|mut connection| while connection.write_all(&[7; 1 << 16]).is_ok() {});
    let server = Keyed::start(&format!("--to {echoing} --allow {endless}"));
    let (_client, at) = client(&format!("{} -L 0 -L 0:{endless}", server.link), 2);
    let _never_read = connect(&at[1]);
    let began = Instant::now();
    for n in 0..300_u32 {
        assert_eq!(there_and_back(connect(&at[0]), &n.to_be_bytes()), n.to_be_bytes());
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "300 connections took {took:?}");
}

/// None is answered before all are there.
#[test]
fn two_thousand_connections_at_once_are_all_served() {
    const MANY: usize = 2000;
    let all_there = Barrier::new(MANY);
    let target = target(move |mut connection| {
        let mut byte = [0; 1];
        connection.read_exact(&mut byte).unwrap();
        all_there.wait();
        connection.write_all(&byte).unwrap();
    });
    let server = Keyed::start(&format!("--to {target}"));
    let (_client, at) = client(&format!("{} -L 0", server.link), 1);
    let open: Vec<_> = (0..MANY)
        .map(|n| {
            let mut connection = connect(&at[0]);
            connection.write_all(&[n as u8]).unwrap();
            connection
        })
        .collect();
    for (n, mut connection) in open.into_iter().enumerate() {
        let mut back = [0; 1];
        connection.read_exact(&mut back).unwrap();
        assert_eq!(back[0], n as u8);
    }
}

/// Whatever is killed leaves nothing behind: no process, and the ports are free.
#[cfg(unix)]
#[test]
fn a_killed_client_frees_its_ports() {
    let server = Keyed::start("--echo");
    let (mut killed, at) = client(&format!("{} -L 0", server.link), 1);
    killed.child.kill().unwrap();
    killed.wait();
    let again = Running::start(&format!("client {} -L {}", server.link, at[0]));
    again.line(&format!("forwarding {}", at[0]));
    let taken =
        Command::new(env!("CARGO_BIN_EXE_turbotunnel")).args(["client", &server.link, "-L", &at[0]]).output().unwrap();
    assert_eq!(taken.status.code(), Some(3));
    assert!(text(&taken.stderr).contains(&format!("error: cannot listen on {}: address already in use", at[0])));
}

/// TCP, a WebSocket and a Unix socket lead to one server; a session goes from one to the next.
#[cfg(unix)]
#[test]
fn a_session_goes_from_one_kind_of_carrier_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (target, key) = (target(echo), folder.path().join("key"));
    let server = Running::start(&format!(
        "server 127.0.0.1:0 ws://127.0.0.1:0/tunnel unix:{} --to {target} --key {}",
        socket.display(),
        key.display()
    ));
    let line = server.line("clients: turbotunnel client '");
    let mut words = line.split_once("client '").unwrap().1.split("' -k ");
    let (addresses, key) = (words.next().unwrap(), words.next().unwrap());
    let (tcp, others) = addresses.split_once(',').unwrap();
    assert!(others.starts_with("ws://127.0.0.1:") && others.contains(",unix:"), "{others}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let plan = Plan { bytes: Some(20_000), ..Plan::default() };
    let cutter = runtime.block_on(Lilbastard::bind("127.0.0.1:0", tcp, plan)).unwrap();
    let ways = format!("{},{others}", cutter.local_addr());
    let (client, at) = client(&format!("{ways} -k {key} -L 0"), 1);
    let sent = pattern(200_000);
    // Each carrier is of the next kind; those over TCP are cut, and so is each one by the signal.
    for _ in 0..9 {
        assert!(there_and_back(connect(&at[0]), &sent) == sent);
        client.signal("HUP");
        client.line(" up, resumed after ");
    }
    assert!(cutter.counters().connections >= 2, "{:?}", cutter.counters());
    for way in others.split(',') {
        let output = through_pipes(turbotunnel(&format!("client {way} -k {key}")), sent.clone());
        assert_eq!(output.status.code(), Some(0), "{way}: {}", text(&output.stderr));
        assert!(output.stdout == sent, "{way}");
    }
}

/// One string is enough for other kinds of carriers, too.
#[test]
fn a_link_says_of_which_kinds_its_addresses_are() {
    let target = target(echo);
    let server = Keyed::start(&format!("ws://127.0.0.1:0/tunnel --to {target}"));
    assert!(server.link.ends_with("/?via=tcp,ws&path=/tunnel"), "{}", server.link);
    let (client, at) = client(&format!("{} -L 0", server.link), 1);
    for _ in 0..2 {
        assert_eq!(there_and_back(connect(&at[0]), b"over each of them"), b"over each of them");
        client.signal("HUP");
        client.line(" up, resumed after ");
    }
    let of_ws = run(&format!("share ws://HOST:8001/t wss://www.example.net/t --key {}", server.path("server.key")));
    assert!(text(&of_ws.stdout).ends_with("@HOST:8001,www.example.net:443/?via=ws,wss&path=/t\n"), "{of_ws:?}");
    let of_none = run(&format!("share tls://h:1/t --key {}", server.path("server.key")));
    assert_eq!(of_none.status.code(), Some(2));
}

/// A target breaks off in the middle of what it says, or a program does: the other side gets what came, and no orderly end.
#[test]
fn what_is_broken_off_does_not_look_finished() {
    let reset = |connection: &TcpStream| socket2::SockRef::from(connection).set_linger(Some(Duration::ZERO)).unwrap();
    let breaks_off = target(move |mut connection| {
        let mut byte = [0; 1];
        connection.write_all(b"half").unwrap();
        connection.read_exact(&mut byte).unwrap();
        reset(&connection);
    });
    let (has_heard, heard) = std::sync::mpsc::channel();
    let (has_ended, ended) = std::sync::mpsc::channel();
    let listens = target(move |mut connection| {
        let mut said = vec![0; 7];
        connection.read_exact(&mut said).unwrap();
        has_heard.send(()).unwrap();
        let end = connection.read_to_end(&mut said).map(|_| ()).map_err(|error| error.kind());
        has_ended.send((said, end)).unwrap();
    });
    let server = Keyed::start(&format!("--to {breaks_off} --allow {listens} --reverse 1024-65535"));
    let (held, port) = dead_port();
    drop(held);
    let (client, at) = client(&format!("{} -L 0 -L 0:{listens} -R {port}:{breaks_off}", server.link), 2);
    client.line(&format!("the server's port {port} leads to"));
    for at in [at[0].clone(), format!("127.0.0.1:{port}")] {
        let mut connection = connect(&at);
        let mut half = [0; 4];
        connection.read_exact(&mut half).unwrap();
        connection.write_all(b"x").unwrap();
        assert_eq!(connection.read(&mut half).unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{at}");
    }
    let output = through_pipes(turbotunnel(&format!("-q client {}", server.link)), b"x".to_vec());
    // The system drops what came before a reset if nobody has read it yet.
    assert!(matches!(&output.stdout[..], b"" | b"half"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: the stream was lost: "), "{}", text(&output.stderr));

    let mut program = connect(&at[1]);
    program.write_all(b"not all").unwrap();
    heard.recv_timeout(PATIENCE).unwrap();
    reset(&program);
    drop(program);
    let (said, end) = ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!((said, end), (b"not all".to_vec(), Err(io::ErrorKind::ConnectionReset)));
}

/// A server that does not want the rest of an upload says so and closes at once. What it said is there, before the break.
#[test]
fn what_a_target_says_before_it_breaks_off_arrives() {
    let refuses = target(|mut connection| {
        connection.read_exact(&mut [0; 100]).unwrap();
        // Closed with most of it unread, which the system makes a reset.
        connection.write_all(&pattern(20_000)).unwrap();
    });
    let server = Keyed::start(&format!("--to {refuses}"));
    let (_client, at) = client(&format!("{} -L 0", server.link), 1);
    for _ in 0..30 {
        let mut program = connect(&at[0]);
        let mut writing = program.try_clone().unwrap();
        let writer = thread::spawn(move || drop(writing.write_all(&pattern(100_000))));
        let mut said = Vec::new();
        let end = program.read_to_end(&mut said).map_err(|error| error.kind());
        assert_eq!((said.len(), end), (20_000, Err(io::ErrorKind::ConnectionReset)));
        assert!(said == pattern(20_000));
        writer.join().unwrap();
    }
}

/// There is no server yet: who waits for one is not told that it has said everything.
#[cfg(unix)]
#[test]
fn a_program_that_waits_for_a_server_is_broken_off_too() {
    let server = Keyed::start("--echo");
    let (_held, nobody) = dead_port();
    for (signal, option) in [("INT", "-L"), ("KILL", "-L"), ("INT", "-D")] {
        let (client, at) = client(&format!("{} {option} 0", server.link_at(&format!("127.0.0.1:{nobody}"))), 1);
        let mut program = connect(&at[0]);
        if option == "-D" {
            program.write_all(&[5, 1, 0]).unwrap();
            program.read_exact(&mut [0; 2]).unwrap();
            program.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 9]).unwrap();
        } else {
            // Until it is taken.
            loop {
                client.signal("USR1");
                if client.line("no session, ").contains("no session, 1 stream waiting") {
                    break;
                }
            }
        }
        client.signal(signal);
        let end = program.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "{signal} {option}");
    }
}

/// One of us ends while others are in the middle of what they say, whatever the way: nobody takes that for their end.
#[cfg(unix)]
#[test]
fn who_ends_in_the_middle_breaks_off_at_both_sides() {
    let (has_heard, heard) = std::sync::mpsc::channel();
    let (has_ended, ended) = std::sync::mpsc::channel();
    let listens = target(move |mut connection| {
        let mut said = [0; 7];
        connection.read_exact(&mut said).unwrap();
        has_heard.send(()).unwrap();
        has_ended.send(connection.read(&mut said).map_err(|error| error.kind())).unwrap();
    });
    let broken = Err(io::ErrorKind::ConnectionReset);
    for (who, signals) in [
        ("client", &["INT"][..]),
        ("client", &["TERM"]),
        ("client", &["TERM", "TERM"]),
        ("server", &["INT"]),
        ("server", &["TERM"]),
        ("server", &["TERM", "TERM"]),
        ("server", &["KILL"]),
    ] {
        let drain = if signals.len() == 1 { "1s" } else { "60s" };
        let server = Keyed::start(&format!("--to {listens} --drain {drain}"));
        let (client, at) = client(&format!("{} -L 0 --drain {drain}", server.link), 1);
        let mut program = connect(&at[0]);
        program.write_all(b"not all").unwrap();
        heard.recv_timeout(PATIENCE).unwrap();
        let running = if who == "client" { &client } else { &server.server };
        running.signal(signals[0]);
        if let Some(second) = signals.get(1) {
            // One that comes before the first is seen is the same one.
            running.line("ending; waiting up to");
            running.signal(second);
        }
        assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), broken, "the target, {who} {signals:?}");
        if signals != ["KILL"] {
            assert_eq!(
                program.read(&mut [0; 1]).map_err(|error| error.kind()),
                broken,
                "the program, {who} {signals:?}"
            );
        }
    }

    let server = Keyed::start(&format!("--to {listens}"));
    let mut client = turbotunnel(&format!("-q client {}", server.link)).stdin(Stdio::piped()).spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(b"not all").unwrap();
    heard.recv_timeout(PATIENCE).unwrap();
    assert!(Command::new("kill").args(["-s", "INT", &client.id().to_string()]).status().unwrap().success());
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), broken, "of standard input");
    wait(&mut client);
}

/// The answer that says why comes together with the end of the stream, while there is still something to write.
#[test]
fn a_refusal_is_told_also_to_who_is_still_writing() {
    let server = Keyed::start("--allow 127.0.0.1:9");
    for _ in 0..20 {
        let output =
            through_pipes(turbotunnel(&format!("-q client {} -W 127.0.0.1:10", server.link)), pattern(100_000));
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    }
}

#[test]
fn check_walks_the_way_and_cuts_on_purpose() {
    let greets = target(|mut connection| {
        connection.write_all(b"220 ready\r\nmore").unwrap();
        echo(connection);
    });
    let (_held, nobody) = dead_port();
    let server = Keyed::start(&format!("--to {greets} --allow 127.0.0.1:{nobody}"));
    let output = run(&format!("check {}", server.link));
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let steps: Vec<_> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["name", "carrier", "key", "target", "cut", "All"], "{said}");
    assert!(said.contains("the server's target says \"220 ready\"") && said.contains("the stream goes on"), "{said}");

    let fails = |args: &str, told: &str| {
        let output = run(&format!("check {args}"));
        assert_eq!(output.status.code(), Some(10), "{args}: {}", text(&output.stdout));
        assert!(text(&output.stderr).starts_with(told), "{args}: {}", text(&output.stderr));
    };
    fails(
        &format!("{} --target 127.0.0.1:{nobody}", server.link),
        &format!("error: target: 127.0.0.1:{nobody}: connection refused"),
    );
    fails(&format!("{} --target 127.0.0.1:9", server.link), "error: target: 127.0.0.1:9: not allowed by the server");
    fails(
        &server.link_at(&format!("127.0.0.1:{nobody}")),
        &format!("error: carrier: 127.0.0.1:{nobody}: connection refused"),
    );
    fails(&server.link_at("srever.invalid:1"), "error: name: srever.invalid: ");
    let output = run(&format!("check {}", server.link_at(&format!("127.0.0.1:{nobody},{}", server.address()))));
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{nobody}: connection refused  FAILED\n")), "{said}");
    assert!(
        said.contains("the stream goes on") && told.starts_with("error: carrier: 1 of 2 addresses"),
        "{said}{told}"
    );
    server.server.line("ended: session ended by the peer (done)");
    let key = run(&format!("keygen {}", server.path("other.key")));
    let wrong = format!("turbotunnel://{}@{}", text(&key.stdout).trim(), server.address());
    fails(&wrong, &format!("error: key: no valid answer from tcp://{}", server.address()));
}

/// "Never" is the default; whoever says a time is taken at his word.
#[test]
fn a_client_gives_up_when_it_was_told_to() {
    let mut server = Keyed::start("--echo");
    let (mut client, _) = client(&format!("{} -L 0 --give-up 1s", server.link), 1);
    client.line(" up over ");
    server.server.child.kill().unwrap();
    server.server.wait();
    client.line("error: gave up: no contact for 1 s");
    client.line("tip: --give-up is how long it goes on trying");
    assert_eq!(client.wait().code(), Some(9));
}

/// Three ways to one server, two of them dead: the log names the one that is meant, to people and to machines.
#[test]
fn of_several_addresses_the_one_in_use_is_told() {
    let server = Keyed::start("--echo");
    let ((_first, one), (_second, two), alive) = (dead_port(), dead_port(), server.address());
    let key = server.link["turbotunnel://".len()..].split('@').next().unwrap();
    let ways = format!("127.0.0.1:{one},127.0.0.1:{two},{alive}");
    let client = Running::start(&format!("-v client {ways} -k {key} -L 0"));
    client.line(&format!("cannot reach tcp://127.0.0.1:{one}: connection refused; trying on (dial 1, "));
    client.line(&format!("cannot reach tcp://127.0.0.1:{two}: connection refused; trying on (dial 2, "));
    let up = client.line(" up over ");
    assert!(up.contains(&format!(" up over tcp://{alive} in ")), "{up}");

    let client = Running::start(&format!("client {ways} -k {key} -L 0 --log-format json"));
    let up: serde_json::Value = serde_json::from_str(&client.line("session_up")).unwrap();
    assert_eq!(up["server"], format!("tcp://{alive}"));
}

/// Connections are cut after 60 kB; the spare has carried next to nothing by then, and goes on.
#[test]
fn a_spare_takes_over_from_a_connection_that_is_cut() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let plan = Plan { bytes: Some(60_000), ..Plan::default() };
    let cutter = runtime.block_on(Lilbastard::bind("127.0.0.1:0", server.address(), plan)).unwrap();
    let link = server.link_at(&cutter.local_addr().to_string());
    let client = Running::start(&format!("-v client {link} --spare -L 0"));
    let until = |wanted: &str| loop {
        let line = client.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line {wanted:?}"));
        assert!(!line.contains("cannot reach"), "{line}");
        if line.contains(wanted) {
            return line;
        }
    };
    let forwarding = until("forwarding 127.0.0.1:");
    until("carrier 2 is ready, a spare");
    let at = forwarding.split(' ').nth(2).unwrap().to_owned();
    let back = thread::spawn(move || there_and_back(connect(&at), &pattern(40_000)));
    let line = until("carrier 1 lost");
    assert!(!line.contains("redialing"), "{line}");
    until("carrier 2 up, resumed after");
    assert!(back.join().unwrap() == pattern(40_000));
    until("is ready, a spare");
}
