//! `echo-client` and `echo-server`: every byte comes back, and if one does not, the exit code says so.

mod common;

#[cfg(unix)]
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

use common::{PATIENCE, Running, echo_server, lines, pattern, text, through_pipes, turbotunnel, wait};
use turbotunnel_cli::lilbastard::{How, Lilbastard, Plan};

fn client(address: &str) -> Command {
    turbotunnel(&format!("echo-client {address}"))
}

fn check(address: &str, len: usize, how: &str) {
    let sent = pattern(len);
    let output = match how {
        "pipes" => through_pipes(client(address), sent.clone()),
        "files" => {
            let mut input = tempfile::tempfile().unwrap();
            input.write_all(&sent).unwrap();
            input.rewind().unwrap();
            let mut back = tempfile::tempfile().unwrap();
            let into = back.try_clone().unwrap();
            let mut output = client(address).stdin(input).stdout(into).stderr(Stdio::piped()).output().unwrap();
            back.rewind().unwrap();
            back.read_to_end(&mut output.stdout).unwrap();
            output
        }
        _ => unreachable!(),
    };
    assert_eq!(output.status.code(), Some(0), "{len} bytes through {how}: {}", text(&output.stderr));
    assert!(output.stdout == sent, "{len} bytes through {how}: {} came back", output.stdout.len());
}

const SIZES: [usize; 6] = [0, 1, 1000, 65_535, 65_536, 1 << 20];

#[test]
fn bytes_come_back_through_pipes_and_files() {
    let (_server, address) = echo_server();
    for how in ["pipes", "files"] {
        for len in SIZES {
            check(&address, len, how);
        }
    }
}

/// The shortest of all transfers, where an end overtakes the data most easily.
#[test]
fn hi_comes_back_a_hundred_times() {
    let (_server, address) = echo_server();
    for _ in 0..100 {
        check(&address, 2, "pipes");
    }
}

#[test]
fn bytes_come_back_while_every_connection_is_cut_after_40_kb() {
    let (_server, address) = echo_server();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for how in [How::Fin, How::Rst] {
        let plan = Plan { bytes: Some(40_000), jitter: 0.5, seed: 1, how, ..Plan::default() };
        let cutter = runtime.block_on(Lilbastard::bind("127.0.0.1:0", &address, plan)).unwrap();
        check(&cutter.local_addr().to_string(), 400_000, "pipes");
        assert!(cutter.counters().cuts >= 20, "{:?}", cutter.counters());
    }
}

/// The user types, and sees each line come back before typing the next one.
#[test]
fn a_conversation_needs_no_end_of_file() {
    let (_server, address) = echo_server();
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    for n in 0..20 {
        writeln!(stdin, "line {n}").unwrap();
        assert_eq!(back.recv_timeout(PATIENCE).unwrap(), format!("line {n}"));
    }
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn the_log_tells_the_story_of_the_worked_example() {
    let (server, address) = echo_server();
    let cutter = Running::start(&format!("lilbastard -w 200ms {address} 127.0.0.1:0"));
    let line = cutter.line("listening on");
    assert!(line.ends_with(&format!(", passing to {address}, cutting (fin) after 200 ms")), "{line}");
    let cut_address = line.split("listening on ").nth(1).unwrap().split(',').next().unwrap();

    let mut child =
        client(cut_address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    let log = lines(child.stderr.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");

    let up = log.recv_timeout(PATIENCE).unwrap();
    let id = up.split(' ').nth(2).unwrap();
    assert!(id.len() == 8 && up[8..].starts_with(&format!(" session {id} up over tcp://{cut_address} in ")), "{up}");
    let lost = log.recv_timeout(PATIENCE).unwrap();
    assert!(lost.contains(" carrier 1 lost after ") && lost.ends_with("(closed by peer), redialing"), "{lost}");
    let resumed = log.recv_timeout(PATIENCE).unwrap();
    assert!(resumed.contains(" carrier 2 up, resumed after ") && resumed.ends_with(" resent"), "{resumed}");

    stdin.write_all(b"still here\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "still here");
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));

    assert!(cutter.line("cut #1 127.0.0.1:").contains(" up, "));
    assert!(server.line("new, carrier 1 from 127.0.0.1:").contains(&format!("session {id}")));
    assert!(server.line("carrier 2, gap ").contains(&format!("session {id}")));
}

/// `echo-client | head -c 1`: the rest has nowhere to go.
#[test]
fn a_closed_stdout_is_1_not_0_and_no_panic() {
    let (_server, address) = echo_server();
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(&pattern(100_000));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: cannot write standard output: nobody reads it any more (broken pipe)\n"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_1() {
    let (_server, address) = echo_server();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = client(&address).stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hi").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: cannot write standard output: no space left on device\n"), "{said}");
}

/// Whoever starts us without a stdout gets no data, and hears of it.
#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_was_never_open_is_1() {
    let (_server, address) = echo_server();
    let program = env!("CARGO_BIN_EXE_turbotunnel");
    for command in [format!("printf hi | {program} echo-client {address} >&-"), format!("{program} demo >&-")] {
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: cannot write standard output: it is closed\n"), "{said}");
    }
    // Thrown away on purpose, that is another thing.
    let command = format!("printf hi | {program} -q echo-client {address} >/dev/null");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_stdin_that_cannot_be_read_is_1() {
    let (_server, address) = echo_server();
    // Reading a directory fails.
    let output = client(&address).stdin(File::open("/").unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: cannot read standard input: "), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn sockets_serve_as_stdin_and_stdout() {
    let (_server, address) = echo_server();
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = std::os::fd::OwnedFd::from(theirs);
    let into = fd.try_clone().unwrap();
    let mut child = client(&address).stdin(fd).stdout(into).stderr(Stdio::null()).spawn().unwrap();
    let sent = pattern(300_000);
    let mut writer = ours.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = vec![0; sent.len()];
    ours.read_exact(&mut got).unwrap();
    assert!(got == sent);
    writing.join().unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}

/// It reads what it is sent, sends back a part of it, and says goodbye. Whoever waited for an echo has lost something.
#[test]
fn a_server_that_sends_too_little_back_is_1_not_0() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(turbotunnel::Listener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes[..9_990]).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&pattern(10_000)).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 9_990), "{said}");
    assert!(said.contains("error: the server ended the stream\n"), "{said}");
    assert!(said.contains("10 B of them did not come back\n"), "{said}");
    assert!(said.contains("tip: is it an echo server?\n"), "{said}");
}

/// A server that is killed and started again does not know the session any more. That is told, and not with 0.
#[test]
fn a_restarted_server_is_8() {
    let (mut server, address) = echo_server();
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    server.child.kill().unwrap();
    server.wait();
    let _again = Running::start(&format!("echo-server {address}"));
    // Something is owed, so the end of the session matters.
    let _ = stdin.write_all(b"lost\n");
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("error: the server does not know this session any more\n"), "{said}");
    assert!(said.contains("11 B were sent so far, 5 B of them did not come back\n"), "{said}");
    assert!(back.recv().is_err(), "something foreign came out");
}

#[test]
fn a_server_that_never_comes_back_is_9() {
    let (mut server, address) = echo_server();
    let mut child = turbotunnel(&format!("echo-client --session-timeout 1s {address}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    server.child.kill().unwrap();
    server.wait();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains("error: gave up: no contact for 1 s\n"), "{said}");
}

#[cfg(unix)]
#[test]
fn control_c_is_130() {
    let (server, address) = echo_server();
    let mut child = client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    assert_eq!(wait(&mut child).code(), Some(130));
    // The server was told, and does not wait two minutes for a client that has left.
    server.line("ended: session ended by the peer (done)");
}

/// SIGTERM: streams may end in their own time, then the server ends well.
#[cfg(unix)]
#[test]
fn a_server_that_is_asked_to_end_lets_streams_end_first() {
    let (mut server, address) = echo_server();
    let mut child = client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    server.signal("TERM");
    server.line("ending; waiting up to 30 s for 1 stream");
    stdin.write_all(b"still served\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "still served");
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(server.wait().code(), Some(0));
}

/// Streams that do not end in time are cut. Their clients are told, so that they do not try on for two minutes, and nobody says that all is well.
#[cfg(unix)]
#[test]
fn a_server_that_ends_before_its_streams_tells_everybody() {
    let mut server = Running::start("echo-server --drain 0s 127.0.0.1:0");
    let address = server.address();
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    server.signal("TERM");
    server.line("error: 1 stream cut before the end");
    assert_eq!(server.wait().code(), Some(1));
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("error: the server has shut down\n"), "{said}");
}

/// SIGTERM: what is on its way comes back, then the client ends well.
#[cfg(unix)]
#[test]
fn a_client_that_is_asked_to_end_waits_for_what_was_sent() {
    let (server, address) = echo_server();
    let mut child = client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // More than pipes and windows hold: nobody reads yet.
    let sent = pattern(2_000_000);
    let copy = sent.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&copy).map(|()| stdin));
    let mut first = [0; 1000];
    stdout.read_exact(&mut first).unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    let back = [&first[..], &rest].concat();
    assert!(back == sent[..back.len()], "what came back is not what was sent");
    let _ = writing.join().unwrap();
    server.line("ended: session ended by the peer (done)");
}

/// SIGHUP: a new carrier now, nothing is lost.
#[cfg(unix)]
#[test]
fn a_hangup_signal_redials() {
    let (server, address) = echo_server();
    let mut child =
        client(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let back = lines(child.stdout.take().unwrap());
    let log = lines(child.stderr.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "hello");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "HUP", &id]).status().unwrap().success());
    assert!(log.iter().any(|line| line.contains(" carrier 2 up, resumed after ")));
    stdin.write_all(b"still here\n").unwrap();
    assert_eq!(back.recv_timeout(PATIENCE).unwrap(), "still here");
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));
    server.line("carrier 2, gap ");
}
