//! What the program says, and ends with, when the user makes a mistake.

mod common;

use std::net::TcpListener;
use std::process::Stdio;

#[cfg(unix)]
use common::Running;
use common::{echo_server, run, text, turbotunnel};

/// Exit code and what was said.
fn says(args: &str) -> (i32, String) {
    let output = run(args);
    assert_eq!(text(&output.stdout), "", "stdout is for data only");
    (output.status.code().unwrap(), text(&output.stderr))
}

fn expect(args: &str, code: i32, stderr: &str) {
    assert_eq!(says(args), (code, stderr.to_owned()), "turbotunnel {args}");
}

/// A port that nobody listens on, and that nobody else gets meanwhile.
fn dead_port() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn bad_addresses() {
    expect("echo-client 127.0.0.1", 2, "error: \"127.0.0.1\" has no port\n  tip: 127.0.0.1:8000\n");
    expect("echo-client ::1:8000", 2, "error: \"::1:8000\" is ambiguous\n  tip: [::1]:8000\n");
    expect("echo-server ::1:8000", 2, "error: \"::1:8000\" is ambiguous\n  tip: [::1]:8000\n");
    expect(
        "lilbastard 127.0.0.1:7000 localhost",
        2,
        "error: \"localhost\" has no port\n  tip: HOST:PORT, e.g. localhost:8000\n",
    );
}

#[test]
fn wrong_usage_is_2() {
    for args in ["", "no-such-thing", "echo-server", "echo-client", "lilbastard 1", "lilbastard -w x 1 2", "-v -q demo"]
    {
        let (code, said) = says(args);
        assert_eq!(code, 2, "turbotunnel {args}");
        assert!(!said.is_empty(), "turbotunnel {args}");
    }
    let (_, said) = says("lilbastard -w soon 127.0.0.1:1 127.0.0.1:2");
    assert!(said.contains("not a time: 500ms, 10s, 5m, 1h, or a number of seconds"), "{said}");
    let (_, said) = says("lilbastard --jitter 2 127.0.0.1:1 127.0.0.1:2");
    assert!(said.contains("a number from 0 to 1"), "{said}");
}

/// The option is for TCP: where nothing listens there it would do nothing, and each client would have the balancer's address.
#[test]
fn a_balancer_before_what_is_not_tcp_is_2() {
    for at in ["ws://127.0.0.1:0/x", "tls://127.0.0.1:0", "wss://127.0.0.1:0/x", "unix:/nowhere/x"] {
        expect(
            &format!("echo-server --proxy-protocol {at}"),
            2,
            &format!(
                "error: --proxy-protocol is for listeners over TCP, and {at} is none\n  tip: listen on HOST:PORT behind the balancer, or leave the option out\n"
            ),
        );
    }
    // Beside one over TCP that is meant it is told.
    let mixed = Running::start("echo-server --proxy-protocol 127.0.0.1:0 ws://127.0.0.1:0/x");
    mixed.line("--proxy-protocol does not count at ws://127.0.0.1:");
}

#[test]
fn workers_have_to_be_a_number() {
    for value in ["", "0", "two", "256"] {
        let output = turbotunnel("echo-server 127.0.0.1:0").env("TOKIO_WORKER_THREADS", value).output().unwrap();
        let said = format!("error: TOKIO_WORKER_THREADS={value} is no number of threads\n  tip: 1 to 255\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), said));
    }
}

/// `export TURBOTUNNEL_SERVER=` is how one takes a variable back, and `Environment=TURBOTUNNEL_TO=` in a unit.
#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let with = |name: &str, args: &str| {
        let output = turbotunnel(args).env(name, "").stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = with("TURBOTUNNEL_SERVER", "client -L 0");
    assert!(code == 2 && said.contains("required arguments were not provided") && said.contains("<SERVER>"), "{said}");
    let (code, said) = with("TURBOTUNNEL_TO", "server 127.0.0.1:0");
    assert!(code == 2 && said.starts_with("error: this server would do nothing"), "{said}");
    // Without these a server would admit everybody, and a client would go past its proxy.
    for (name, args, told) in [
        ("TURBOTUNNEL_CLIENTS", "echo-server 127.0.0.1:0 --key k", "error: a value is required for '--clients"),
        ("TURBOTUNNEL_PROXY", "client 127.0.0.1:1 --plain -L 0", "error: invalid value '' for '--proxy"),
    ] {
        let (code, said) = with(name, args);
        assert!(code == 2 && said.starts_with(told), "{name}: {said}");
    }
    let (code, said) = with("TURBOTUNNEL_CONFIG", "client :1 --plain -L 0");
    assert!(code == 2 && said.starts_with("error: \":1\" has no host"), "{said}");
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in ["--help", "--version", "lilbastard --help"] {
        let output = run(args);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("turbotunnel"));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_port_in_use_names_its_holder() {
    let (server, address) = echo_server();
    let (code, said) = says(&format!("echo-server {address}"));
    assert_eq!(code, 3);
    let error = format!("error: cannot listen on {address}: address already in use\n");
    assert!(said.starts_with(&error), "{said}");
    if cfg!(target_os = "linux") {
        assert!(said.contains(&format!("tip: pid {} (turbotunnel) has it", server.child.id())), "{said}");
    }
}

/// As a user who is not root, or as a root without that right. Systems on which everybody may have every port have no such mistake.
#[cfg(target_os = "linux")]
#[test]
fn a_port_below_1024_is_not_for_everybody() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim().parse::<u16>().is_ok_and(|first| first <= 443) {
        return;
    }
    let without_right = std::process::Command::new("setpriv")
        .args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"])
        .args([env!("CARGO_BIN_EXE_turbotunnel"), "echo-server", "127.0.0.1:443"])
        .output();
    // Only root can take rights away, and only root has this one.
    let output = match without_right {
        Ok(output) if !text(&output.stderr).starts_with("setpriv: ") => output,
        _ => run("echo-server 127.0.0.1:443"),
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let tip = "setcap cap_net_bind_service=+ep $(command -v turbotunnel), or a port above 1023";
    assert_eq!(said, format!("error: cannot listen on 127.0.0.1:443: permission denied\n  tip: {tip}\n"));
}

#[test]
fn swapped_addresses_are_recognised() {
    let (_server, address) = echo_server();
    let (_held, nobody) = dead_port();
    let (code, said) = says(&format!("lilbastard -w 20 127.0.0.1:{nobody} {address}"));
    assert_eq!(code, 3);
    let expected = format!(
        "error: cannot listen on {address}: address already in use\n  \
           tip: the order is UPSTREAM LISTEN, and something answers on {address} but nothing on 127.0.0.1:{nobody}:\n       \
                turbotunnel lilbastard -w 20 {address} 127.0.0.1:{nobody}\n"
    );
    assert_eq!(said, expected);
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_of_another_machine_cannot_be_listened_on() {
    // TEST-NET-1 (RFC 5737): nobody has it.
    let (code, said) = says("echo-server 192.0.2.1:8000");
    assert_eq!(code, 3);
    assert!(
        said.starts_with("error: cannot listen on 192.0.2.1:8000: no such address on this machine\n  tip: "),
        "{said}"
    );
}

#[test]
fn a_server_that_is_not_there_with_fail_fast_is_4() {
    let (_held, port) = dead_port();
    let (code, said) = says(&format!("-q echo-client --fail-fast 127.0.0.1:{port}"));
    assert_eq!(code, 4);
    let expected = format!(
        "error: cannot reach tcp://127.0.0.1:{port}: connection refused\n  \
           tip: is the server running? turbotunnel echo-server 127.0.0.1:{port}\n"
    );
    assert_eq!(said, expected);
}

/// It accepts and says nothing, as a server with a key does to those who have none.
#[test]
fn a_server_that_takes_connections_and_is_silent_is_4() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let server = silent.local_addr().expect("it is bound");
    let (code, said) = says(&format!("-q echo-client --session-timeout 500ms {server}"));
    assert_eq!(code, 4);
    let expected = format!(
        "error: tcp://{server} takes connections, but there was no answer within the time to live\n  \
           tip: a server that has a key is silent without it: use its link. Or something else listens there\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn a_name_that_does_not_resolve_is_4() {
    // RFC 6761: never resolves.
    let (code, said) = says("-q echo-client --fail-fast srever.invalid:8000");
    assert_eq!(code, 4);
    assert!(said.starts_with("error: cannot resolve \"srever.invalid\": "), "{said}");
    assert!(said.contains("  tip: it may be a typing error"), "{said}");
}

#[test]
fn a_server_that_stays_away_is_given_up_after_the_session_timeout() {
    let (_held, port) = dead_port();
    let (code, said) = says(&format!("echo-client --session-timeout 500ms 127.0.0.1:{port}"));
    assert_eq!(code, 4, "{said}");
    // Told once, not once a dial.
    assert!(said.contains("connection refused; trying on (dial 1, next in "), "{said}");
    assert_eq!(said.matches("; trying on").count(), 1, "{said}");
    assert!(said.contains(&format!("error: cannot reach tcp://127.0.0.1:{port}: ")), "{said}");
}

#[test]
fn something_that_is_no_server_at_all_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // After the session's time; with --fail-fast at once.
    for options in ["--session-timeout 1s", "--fail-fast"] {
        let client = turbotunnel(&format!("-q echo-client {options} {address}"));
        let output = common::through_pipes(client, b"hi".to_vec());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{options}: {said}");
        assert!(
            said.starts_with(&format!("error: what answers at tcp://{address} is not a turbotunnel server\n")),
            "{said}"
        );
    }
}

#[cfg(unix)]
#[test]
fn control_c_is_130_and_says_nothing() {
    for args in ["echo-server 127.0.0.1:0", "lilbastard 127.0.0.1:1 127.0.0.1:0"] {
        let mut program = Running::start(args);
        program.address();
        program.signal("INT");
        assert_eq!(program.wait().code(), Some(130), "{args}");
        assert!(program.lines.recv().is_err(), "{args}");
    }
}

#[cfg(unix)]
#[test]
fn sigterm_is_a_good_end() {
    for args in ["echo-server 127.0.0.1:0", "lilbastard 127.0.0.1:1 127.0.0.1:0"] {
        let mut program = Running::start(args);
        program.address();
        program.signal("TERM");
        assert_eq!(program.wait().code(), Some(0), "{args}");
    }
}

/// A client that waits for its server has nothing to finish.
#[cfg(unix)]
#[test]
fn sigterm_ends_a_client_that_waits_for_its_server_with_143() {
    let (_held, port) = dead_port();
    let mut client = Running::start(&format!("echo-client 127.0.0.1:{port}"));
    client.line("trying on");
    client.signal("TERM");
    assert_eq!(client.wait().code(), Some(143));
}

/// Somebody runs it with everything closed.
#[cfg(unix)]
#[test]
fn closed_descriptors_are_no_reason_to_panic() {
    let exe = env!("CARGO_BIN_EXE_turbotunnel");
    for line in
        ["--help >&-", "--help 2>&-", "nonsense 2>&-", "echo-client nowhere 2>&-", "echo-client nowhere <&- >&- 2>&-"]
    {
        let status = std::process::Command::new("sh").args(["-c", &format!("{exe} {line}")]).status().unwrap();
        assert!(matches!(status.code(), Some(0..=2)), "{line}: {status}");
    }
}

/// `turbotunnel ... 2>&1 | head`: stderr goes away while the program runs.
#[test]
fn a_closed_stderr_silences_and_stops_nothing() {
    let mut server =
        turbotunnel("echo-server 127.0.0.1:0").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut first).unwrap();
    drop(stderr);
    let address = first.split("tcp://").nth(1).unwrap().split(',').next().unwrap();
    for _ in 0..3 {
        let output = common::through_pipes(turbotunnel(&format!("-q echo-client {address}")), b"hi".to_vec());
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hi".to_owned()));
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
