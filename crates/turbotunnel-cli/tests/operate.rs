//! What those see who look after a server or a client: numbers, the log, limits, balancers, service managers, settings.

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::programs::{client, connect, dead_port, echo, target, there_and_back};
use common::{Keyed, PATIENCE, Running, fetch, pattern, run, text, through_pipes, turbotunnel};

/// While the last streams end nothing new is taken, and a balancer that asks is told so.
#[cfg(unix)]
#[test]
fn who_drains_is_not_ready_any_more() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target} --status 127.0.0.1:0"));
    let status = |of: &Running| of.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let at_server = status(&server.server);
    let client = Running::start(&format!("client {} -L 0 --status 127.0.0.1:0", server.link));
    let at_client = status(&client);
    let line = client.line("forwarding ");
    let mut open = connect(line.split("forwarding ").nth(1).unwrap().split(' ').next().unwrap());
    for (end, at) in [(&client, &at_client), (&server.server, &at_server)] {
        open.write_all(b"hello").unwrap();
        open.read_exact(&mut [0; 5]).unwrap();
        assert!(fetch(at, "readyz").ends_with("\r\n\r\nready\n"));
        end.signal("TERM");
        end.line("ending; waiting up to 30 s for 1 stream");
        let unready = fetch(at, "readyz");
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("\r\n\r\nending\n"), "{unready}");
        assert!(fetch(at, "healthz").starts_with("HTTP/1.1 200"));
    }
}

/// A file with settings, and the environment above it.
#[test]
fn settings_come_from_a_file_and_from_the_environment() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target}"));
    let file = server.path("settings.toml");
    std::fs::write(&file, format!("[client]\nserver = {:?}\ngive-up = \"1h\"\n", server.link)).unwrap();
    let sent = pattern(1000);
    let output = through_pipes(turbotunnel(&format!("-c {file} client")), sent.clone());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout == sent);
    let mut command = turbotunnel(&format!("-c {file} client"));
    command.env("TURBOTUNNEL_SERVER", "nowhere");
    let output = through_pipes(command, Vec::new());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("error: \"nowhere\" has no port"), "{}", text(&output.stderr));
    std::fs::write(&file, "[client]\nserver = \"a:1\"\nstalls = \"8s\"\n").unwrap();
    let output = run(&format!("client -c {file}"));
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("error: {file}:3:1: there is no setting \"stalls\"; turbotunnel client --help names them\n");
    assert_eq!(text(&output.stderr), expected);
    let output = run("-c /no/such/file demo");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: cannot read /no/such/file: "), "{}", text(&output.stderr));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let output = run("completions bash");
    assert!(text(&output.stdout).contains("--session-timeout"), "{}", text(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&format!("man {}", folder.path().display())).status.success());
    let page = std::fs::read_to_string(folder.path().join("turbotunnel-client.1")).unwrap();
    assert!(page.contains("SOCKS 5"), "{page}");
    assert!(page.contains("TURBOTUNNEL_SERVER") && page.contains("EXIT STATUS") && page.contains("\n.nf\n"), "{page}");
}

/// What is shown over HTTP and by `status` is what happens.
#[test]
fn numbers_are_shown() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target} --status 127.0.0.1:0"));
    let status = server.server.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let sent = pattern(5000);
    let output = through_pipes(turbotunnel(&format!("client {}", server.link)), sent.clone());
    assert!(output.stdout == sent);
    let shown = run(&format!("status {status}"));
    let shown = text(&shown.stdout);
    assert!(shown.starts_with("server 0.1.0, up ") && shown.contains("1 so far"), "{shown}");
    assert!(shown.contains("5 kB in, 5 kB out"), "{shown}");
    let json = run(&format!("status --json {status}"));
    assert!(text(&json.stdout).contains("\"bytes_received\":5000"), "{}", text(&json.stdout));
    drop(server);
    let gone = run(&format!("status {status}"));
    assert_eq!(gone.status.code(), Some(4));
    assert!(text(&gone.stderr).contains("error: no status from http://"), "{}", text(&gone.stderr));
}

/// A database is down: the operator hears of it once and not for each program that asks, and the numbers of both ends have each of them.
#[test]
fn a_target_that_is_down_is_told_and_counted() {
    let (_held, nobody) = dead_port();
    let (up, down) = (target(echo), format!("127.0.0.1:{nobody}"));
    let server = Keyed::start(&format!("--to {up} --allow {down} --status 127.0.0.1:0"));
    let status = |of: &Running| of.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let at_server = status(&server.server);
    let client = Running::start(&format!("client {} -L 0 -L 0:{down} --status 127.0.0.1:0", server.link));
    let at_client = status(&client);
    let forwarded = || client.line("forwarding ").split(' ').nth(2).unwrap().to_owned();
    let (to_up, to_down) = (forwarded(), forwarded());
    let requests = |at: &str, outcome: &str| {
        let name = format!("turbotunnel_stream_requests_total{{outcome=\"{outcome}\"}} ");
        let numbers = fetch(at, "metrics");
        let value = numbers.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{name}\n{numbers}"))
    };
    assert_eq!(
        (requests(&at_server, "refused"), requests(&at_client, "timed_out")),
        (0, 0),
        "there before they happen"
    );
    assert_eq!(there_and_back(connect(&to_up), b"up"), b"up");
    for _ in 0..3 {
        let error = connect(&to_down).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    for at in [&at_server, &at_client] {
        assert_eq!((requests(at, "ok"), requests(at, "refused"), requests(at, "failed")), (1, 3, 0), "{at}");
    }
    server.server.line(&format!("1 stream to {down} failed: connection refused"));
    assert_eq!(server.server.lines.try_iter().filter(|line| line.contains("failed")).count(), 0, "and that once");
}

/// The server may open no more files: that is what its operator hears, and not that a target has failed.
#[cfg(target_os = "linux")]
#[test]
fn a_server_without_files_for_targets_says_what_it_is_short_of() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    let target = target(echo);
    let server = Keyed::start(&format!("--to {target} --status 127.0.0.1:0"));
    let at_server = server.server.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let (_client, at) = client(&format!("{} -L 0", server.link), 1);
    assert_eq!(there_and_back(connect(&at[0]), b"there is room"), b"there is room");
    // What is open stays open.
    let (process, before) = (Some(Pid::from_child(&server.server.child)), getrlimit(Resource::Nofile));
    prlimit(process, Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
    connect(&at[0]).read(&mut [0; 1]).unwrap_err();
    server.server.line(&format!("1 stream to {target} failed: the server has too many files open"));
    prlimit(process, Resource::Nofile, before).unwrap();
    assert!(fetch(&at_server, "metrics").contains("turbotunnel_stream_requests_total{outcome=\"too_many_files\"} 1\n"));
    assert_eq!(there_and_back(connect(&at[0]), b"again"), b"again");
}

/// A balancer tells whose connection it is; whoever tells nothing is not let in.
#[test]
fn behind_a_balancer_clients_have_their_own_addresses() {
    let target = target(echo);
    let server = Keyed::start(&format!("-v --to {target} --proxy-protocol"));
    let behind = server.address().to_owned();
    let balancer = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = server.link_at(&balancer.local_addr().unwrap().to_string());
    thread::spawn(move || {
        for mut client in balancer.incoming().flatten() {
            let mut server = connect(&behind);
            server.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 8000\r\n").unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from, &mut to).map(|_| to.shutdown(Shutdown::Write)));
            thread::spawn(move || io::copy(&mut server, &mut client).map(|_| client.shutdown(Shutdown::Write)));
        }
    });
    let sent = pattern(50_000);
    let output = through_pipes(turbotunnel(&format!("client {link}")), sent.clone());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout == sent);
    server.server.line("new, carrier 1 from 203.0.113.7:40000");
    let directly = run(&format!("-q client {} --fail-fast", server.link));
    // Nothing is said to him, so he cannot tell it from a server that is away.
    assert_eq!(directly.status.code(), Some(4), "{}", text(&directly.stderr));
}

/// A balancer without `send-proxy`: nobody gets in, and the operator hears why, once and not for each connection.
#[test]
fn a_balancer_that_says_nothing_is_told_of() {
    let server = Keyed::start("--echo --proxy-protocol --status 127.0.0.1:0");
    let status = server.server.line("status on http://").split_once("http://").unwrap().1.to_owned();
    for _ in 0..3 {
        let mut without = connect(server.address());
        without.write_all(b"a session's first bytes").unwrap();
        // A reset, where some of it was not read.
        let _ = without.read_to_end(&mut Vec::new());
    }
    server.server.line("no PROXY header from 127.0.0.1: is send-proxy set at the balancer? (1 so far)");
    // Whether it is there is looked at like that by balancers, which is nothing to tell.
    drop(connect(server.address()));
    let numbers = fetch(&status, "metrics");
    assert!(numbers.contains("turbotunnel_proxy_headers_missing_total 3\n"), "{numbers}");
    assert_eq!(server.server.lines.try_iter().filter(|line| line.contains("PROXY")).count(), 0, "and that once");
}

/// More connections than the process may have files: it says so, before and then, and serves when there are some again.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_runs_out_of_files_says_so_and_recovers() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_turbotunnel");
    let options = format!("server 127.0.0.1:0 --echo --max-sessions 20 --key {}/key", folder.path().display());
    let mut few = Command::new("sh");
    few.args(["-c", &format!("ulimit -n 16; exec {program} {options}")]);
    let server = Running::of(&mut few);
    let link = server.line("clients: turbotunnel client").split('\'').nth(1).unwrap().to_owned();
    server.line("16 files may be open, and 20 sessions may want 80 (ulimit -n, LimitNOFILE=)");
    let address = link.split_once('@').unwrap().1;
    // Two more than it has: fewer than the four strangers that it bears with sixteen, so that it is files that are short and not patience.
    let process = Pid::from_child(&server.child);
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).unwrap().count();
    let limit = u64::try_from(open).unwrap() + 2;
    let new = Rlimit { current: Some(limit), maximum: Some(16) };
    prlimit(Some(process), Resource::Nofile, new).unwrap();
    let crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.line(&format!("cannot accept: {limit} files open, that is the limit (ulimit -n, LimitNOFILE=); trying on"));
    drop(crowd);
    let output = through_pipes(turbotunnel(&format!("client {link}")), b"again".to_vec());
    assert_eq!(text(&output.stdout), "again", "{}", text(&output.stderr));
}

/// The same at a client, which tried ten times a second and said so each time.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_runs_out_of_files_says_so_once_and_recovers() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target}"));
    let program = env!("CARGO_BIN_EXE_turbotunnel");
    let mut few = Command::new("sh");
    few.args(["-c", &format!("ulimit -n 40; exec {program} client {} -L 0 -D 0", server.link)]);
    let client = Running::of(&mut few);
    let at = client.line("forwarding 127.0.0.1:").split(' ').nth(2).unwrap().to_owned();
    client.line(" up over ");
    let crowd: Vec<_> = (0..60).map(|_| connect(&at)).collect();
    client.line("cannot accept: 40 files open, that is the limit (ulimit -n, LimitNOFILE=); trying on");
    // It has tried on ten times by then.
    thread::sleep(Duration::from_secs(1));
    drop(crowd);
    assert_eq!(there_and_back(connect(&at), b"again"), b"again");
    let more: Vec<_> = client.lines.try_iter().filter(|line| line.contains("cannot accept")).collect();
    assert!(more.is_empty(), "{more:?}");
}

/// The same for those who come over WebSockets, and to a balancer's port: they are taken elsewhere in the program.
#[cfg(target_os = "linux")]
#[test]
fn a_server_without_files_says_so_whatever_it_listens_on() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    for at in ["ws://127.0.0.1:0/tunnel", "127.0.0.1:0 --proxy-protocol"] {
        let server = Running::start(&format!("echo-server {at} --status 127.0.0.1:0"));
        let address = server.address();
        let address = address.trim_start_matches("ws://").trim_end_matches("/tunnel");
        let status = server.line("status on http://").split_once("http://").unwrap().1.to_owned();
        let (process, before) = (Some(Pid::from_child(&server.child)), getrlimit(Resource::Nofile));
        prlimit(process, Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
        let waits = connect(address);
        server.line("cannot accept: 3 files open, that is the limit (ulimit -n, LimitNOFILE=); trying on");
        prlimit(process, Resource::Nofile, before).unwrap();
        let numbers = fetch(&status, "metrics");
        assert!(!numbers.contains("turbotunnel_accept_pauses_total 0\n"), "{at}: {numbers}");
        drop(waits);
    }
}

/// Scanners, or clients with another path: what comes to nothing before the listener sees it is counted all the same.
#[test]
fn handshakes_of_carriers_that_fail_are_counted() {
    let server = Running::start("echo-server ws://127.0.0.1:0/tunnel --status 127.0.0.1:0");
    let address = server.address();
    let status = server.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let failed = |expected: u64| {
        let line = format!("turbotunnel_carrier_handshakes_failed_total {expected}\n");
        let end = Instant::now() + PATIENCE;
        while !fetch(&status, "metrics").contains(&line) {
            assert!(Instant::now() < end, "{line}{}", fetch(&status, "metrics"));
        }
    };
    failed(0);
    let answer = fetch(address.trim_start_matches("ws://").trim_end_matches("/tunnel"), "other");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    failed(1);
}

/// A server that has no room says so to whoever has the key; one that waits is served as soon as there is some.
#[test]
fn a_full_server_says_what_it_is_full_of() {
    let target = target(echo);
    let server = Keyed::start(&format!("--to {target} --max-sessions 1"));
    let (mut first, at) = client(&format!("{} -L 0", server.link), 1);
    assert_eq!(there_and_back(connect(&at[0]), b"there is room"), b"there is room");
    let hasty = run(&format!("client {} -L 0 --fail-fast", server.link));
    let said = text(&hasty.stderr);
    assert_eq!(hasty.status.code(), Some(4), "{said}");
    let full = "has no room for this session: it has as many sessions as it bears\n";
    assert!(said.contains(full) && said.contains("tip: wait and start again"), "{said}");

    let (second, at) = client(&format!("{} -L 0", server.link), 1);
    second.line("has no room yet: it has as many sessions as it bears; waiting");
    let patient = thread::spawn(move || there_and_back(connect(&at[0]), b"patience"));
    first.signal("TERM");
    first.wait();
    assert_eq!(patient.join().unwrap(), b"patience");
}

/// As systemd does with `Type=notify`: what waits for the service is started when its ports are there, at both ends.
#[cfg(unix)]
#[test]
fn a_service_manager_hears_when_the_ports_are_there_and_when_the_end_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut message = [0; 1000];
        let len = manager.recv(&mut message).unwrap();
        text(&message[..len])
    };
    let managed = |args: &str| {
        let mut command = turbotunnel(args);
        Running::of(command.env("NOTIFY_SOCKET", &path))
    };
    let key = folder.path().join("key");
    let mut server = managed(&format!("server 127.0.0.1:0 --echo --key {}", key.display()));
    let ready = heard();
    let link = server.line("clients: turbotunnel client").split('\'').nth(1).unwrap().to_owned();
    let address = link.split_once('@').unwrap().1;
    assert!(ready.starts_with("READY=1\n") && ready.contains(address), "{ready:?}");
    TcpStream::connect(address).unwrap();
    let mut client = managed(&format!("client {link} -L 0"));
    assert!(heard().starts_with("READY=1\n"));
    client.line(" up over ");
    for end in [&mut client, &mut server] {
        end.signal("TERM");
        assert!(heard().starts_with("STOPPING=1\n"));
        assert_eq!(end.wait().code(), Some(0));
    }
}

/// Each line an object, with what happened by name and in numbers: at both ends, for a session from its beginning to its loss.
#[cfg(unix)]
#[test]
fn machines_read_the_log() {
    let server = Keyed::start("--echo --log-format json");
    let client = Running::start(&format!("client {} -L 0 --log-format json", server.link));
    let event = |of: &Running, name: &str| -> serde_json::Value {
        serde_json::from_str(&of.line(&format!("\"event\":\"{name}\""))).unwrap()
    };
    let up = event(&client, "session_up");
    assert!(up["took_s"].as_f64().is_some_and(|took| took > 0.0), "{up}");
    assert_eq!(event(&server.server, "session_new")["session"], up["session"]);
    client.signal("HUP");
    let resumed = event(&client, "carrier_up");
    assert_eq!((&resumed["session"], &resumed["carrier"]), (&up["session"], &2.into()), "{resumed}");
    assert_eq!(event(&server.server, "carrier_up")["carrier"], 2);
    let _again = server.restart("--echo");
    let lost = event(&client, "session_lost");
    assert_eq!(lost["session"], up["session"], "{lost}");
    assert!(lost["reason"].as_str().is_some_and(|reason| reason.contains("does not know")), "{lost}");
}
