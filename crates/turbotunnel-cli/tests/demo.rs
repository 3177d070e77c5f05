//! `demo`, run short as a user would run it.

mod common;

use std::process::Stdio;

use common::{run, text, turbotunnel};

#[test]
fn a_short_demo_survives_its_cuts_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("demo.svg");
    let args = "demo --size 1MiB --time 900ms -w 200ms --how fin,rst --seed 7 --svg";
    let output = turbotunnel(args).arg(&svg).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let first = "1 MiB of random bytes there and back (seed 7); the path is cut every 200 ms (fin, rst in turn)\n";
    assert!(said.starts_with(first), "{said}");
    assert!(said.contains("cut 1 (fin), ") && said.contains("cut 2 (rst), "), "{said}");
    assert!(said.contains("carrier 2 up, resumed after "), "{said}");
    assert!(said.contains("✓ turbotunnel  1 MiB, sha256 "), "{said}");
    assert!(said.contains("✗ plain TCP    ") && said.contains(", then: connection closed after "), "{said}");
    assert!(said.ends_with(&format!("picture: {}\n", svg.display())), "{said}");
    assert!(!said.contains('\x1b'), "no terminal, no escapes: {said}");
    assert_eq!(text(&output.stderr), "");
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("cut by rst") && picture.contains("seed 7"));
}

#[test]
fn a_demo_that_no_cut_hits_says_that_it_shows_nothing() {
    let output = run("demo --size 64KiB --time 50ms -w 10 --no-compare");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("no cut fell into it"), "{said}");
    assert!(!said.contains("plain TCP"), "{said}");
}

#[test]
fn a_closed_stdout_ends_the_demo_with_1() {
    let mut child = turbotunnel("demo --size 1MiB --time 20s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("error: cannot write standard output: "), "{said}");
}

#[cfg(unix)]
#[test]
fn a_picture_that_cannot_be_written_is_told() {
    let output = run("demo --size 1kB --time 10ms --svg /nonexistent/demo.svg");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(said, "error: cannot write /nonexistent/demo.svg: no such file or directory\n");
}
