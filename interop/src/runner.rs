//! A `main` for tests that may be impossible here. As libtest's, but a few at a time on whatever machine (they mostly wait, and they
//! measure time), and a test that could not run is named with the reason, on a stream that nobody captures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::peers::Peers;

/// Longest time of one test, scaled up for transfers beyond 4 MiB.
const LIMIT: Duration = Duration::from_secs(120);

/// Tests at a time, without `--test-threads`: one after the other they keep a processor busy for a seventh of the time.
const AT_A_TIME: usize = 4;

/// How a test went that did not panic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It ran, and all was as promised. The text is a remark for the reader, e.g. what was counted.
    Passed(String),
    /// It asks for something that the programs given with `TURBOTUNNEL_GO_PEERS` are not made for.
    NotForThese(&'static str),
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Passed(String::new())
    }
}

impl From<String> for Outcome {
    fn from(remark: String) -> Self {
        Self::Passed(remark)
    }
}

/// A named test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Path of the function.
    pub name: &'static str,
    /// Runs it to its end on the runtime given; panics if it fails.
    pub run: fn(&tokio::runtime::Runtime, Peers, Duration) -> Outcome,
}

/// Makes [`Test`]s of `async fn(Peers) -> impl Into<Outcome>`.
#[macro_export]
macro_rules! tests {
    ($($path:path),* $(,)?) => {
        &[$($crate::runner::Test {
            name: stringify!($path),
            run: |runtime, peers, limit| {
                runtime.block_on(async { tokio::time::timeout(limit, $path(peers)).await })
                    .unwrap_or_else(|_| panic!("not done after {limit:?}"))
                    .into()
            },
        }),*]
    };
}

/// Runs the tests whose name contains one of the arguments that are no options, or all. Options of libtest are taken and
/// ignored, but `--list`, `--exact`, `--skip` and `--test-threads`.
pub fn main(tests: &'static [Test]) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let chosen: Vec<&'static Test> = tests.iter().filter(|test| arguments.choose(test.name)).collect();
    if arguments.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let peers = Peers::find();
    let required = std::env::var_os("TURBOTUNNEL_REQUIRE_INTEROP").is_some_and(|v| !v.is_empty() && v != "0");
    let limit = LIMIT.mul_f64((crate::transfer_bytes() as f64 / f64::from(4 << 20)).max(1.0));
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut failed) = (0, Vec::new());
    match &peers {
        Err(_) => {
            for test in &chosen {
                println!("test {} ... ignored, no Go programs", test.name);
            }
            if required {
                failed.extend(chosen.iter().map(|test| test.name));
            }
        }
        Ok(peers) => {
            for (name, took, outcome) in run_all(chosen.clone(), peers, limit, arguments.at_a_time.unwrap_or(AT_A_TIME))
            {
                match outcome {
                    Some(Outcome::Passed(remark)) => {
                        passed += 1;
                        let separator = if remark.is_empty() { "" } else { ": " };
                        println!("test {name} ... ok ({took:.1?}){separator}{remark}");
                    }
                    Some(Outcome::NotForThese(reason)) => println!("test {name} ... ignored, {reason}"),
                    None => {
                        println!("test {name} ... FAILED ({took:.1?})");
                        failed.push(name);
                    }
                }
            }
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {} ignored; 0 measured; {} filtered out",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        chosen.len() - passed - failed.len(),
        tests.len() - chosen.len(),
    );
    if let Err(missing) = &peers
        && !chosen.is_empty()
    {
        eprintln!("\ninterop: {} tests against Go programs did NOT run: {missing}", chosen.len());
        if required {
            eprintln!("interop: TURBOTUNNEL_REQUIRE_INTEROP is set, so that is a failure");
        }
    }
    for name in &failed {
        eprintln!("interop: failed: {name}");
    }
    ExitCode::from(u8::from(!failed.is_empty()) * 101)
}

/// Each with the time that it took, in the order in which they end.
fn run_all(
    tests: Vec<&'static Test>,
    peers: &Peers,
    limit: Duration,
    at_a_time: usize,
) -> impl Iterator<Item = (&'static str, Duration, Option<Outcome>)> {
    let next = Arc::new(Mutex::new(tests.into_iter()));
    let (tell, told) = mpsc::channel();
    for _ in 0..at_a_time {
        let (next, tell, peers) = (next.clone(), tell.clone(), peers.clone());
        std::thread::spawn(move || {
            loop {
                // Its guard is gone before the test begins.
                let test = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(test) = test else { break };
                let began = Instant::now();
                let outcome = run(test, peers.clone(), limit);
                if tell.send((test.name, began.elapsed(), outcome)).is_err() {
                    break;
                }
            }
        });
    }
    told.into_iter()
}

/// `None`: it panicked, and the panic's message is on stderr.
fn run(test: &Test, peers: Peers, limit: Duration) -> Option<Outcome> {
    catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime needs two descriptors and a thread");
        let outcome = (test.run)(&runtime, peers, limit);
        runtime.shutdown_timeout(Duration::from_secs(2));
        outcome
    }))
    .ok()
}

#[derive(Debug, Default)]
struct Arguments {
    list: bool,
    exact: bool,
    ignored_only: bool,
    names: Vec<String>,
    skip: Vec<String>,
    at_a_time: Option<usize>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--list" => arguments.list = true,
                "--exact" => arguments.exact = true,
                "--ignored" => arguments.ignored_only = true,
                "--skip" => arguments.skip.extend(given.next()),
                "--test-threads" => {
                    arguments.at_a_time = given.next().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
                }
                "--format" | "--color" | "--logfile" | "--report-time" | "-Z" => drop(given.next()),
                option if option.starts_with('-') => {}
                _ => arguments.names.push(argument),
            }
        }
        arguments
    }

    fn choose(&self, name: &str) -> bool {
        let fits = |wanted: &String| if self.exact { name == wanted } else { name.contains(wanted.as_str()) };
        !self.ignored_only && (self.names.is_empty() || self.names.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_for_libtest_do_no_harm() {
        let given = ["--test-threads", "1", "--nocapture", "cut", "--skip", "bytes"];
        let arguments = Arguments::parse(given.into_iter().map(String::from));
        assert!(arguments.choose("echo::cut_every_second"));
        assert!(!arguments.choose("echo::cut_every_20_to_60_kilobytes_of_bytes"));
        assert!(!arguments.choose("echo::one"));
        assert_eq!(arguments.at_a_time, Some(1));
    }
}
