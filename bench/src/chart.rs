//! The picture for the README: bytes there and back through a client's pipes, uncut and cut, for plain TCP, the Go example and ours.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turbotunnel_cli::text;

use crate::pipes::Pair;
use crate::rows::Setup;

const SERVER: u16 = 7310;
const RELAY: u16 = 7311;
/// Long enough for some cuts.
const TIME: Duration = Duration::from_secs(8);
/// Connections live for so many seconds where they are cut.
const CUT_AFTER: &str = "1";

/// Who carries the bytes.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Plain,
    Go,
    Ours,
}

impl Whose {
    const ALL: [Self; 3] = [Self::Plain, Self::Go, Self::Ours];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain TCP",
            Self::Go => "Go example",
            Self::Ours => "turbotunnel",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Go => "go",
            Self::Ours => "ours",
        }
    }

    /// A server, and a client that comes by the relay.
    fn programs(self, setup: &Setup) -> io::Result<Option<(Command, Command)>> {
        let (server, relay) = (format!("127.0.0.1:{SERVER}"), format!("127.0.0.1:{RELAY}"));
        let with = |mut command: Command, args: &[&str]| {
            command.args(args);
            command
        };
        Ok(match (self, &setup.go) {
            (Self::Plain, _) => {
                let client = with(Command::new(std::env::current_exe()?), &["plain-client", &relay]);
                Some((with(setup.program("examples/plain_server"), &[&server]), client))
            }
            (Self::Go, None) => None,
            (Self::Go, Some(go)) => Some((
                with(Command::new(go), &["echo-server", &server]),
                with(Command::new(go), &["echo-client", &relay]),
            )),
            (Self::Ours, _) => Some((
                with(setup.program("turbotunnel"), &["echo-server", &server]),
                with(setup.program("turbotunnel"), &["echo-client", &relay]),
            )),
        })
    }
}

/// A bar: bytes a second, in the order of size, and how long it lived if it did not to the end.
struct Bar {
    whose: Whose,
    rates: Vec<f64>,
    died: Option<Duration>,
}

impl Bar {
    fn rate(&self) -> f64 {
        self.rates.get(self.rates.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Measures all, in turn, and draws it.
pub(crate) fn chart(setup: &Setup) -> io::Result<String> {
    let mut groups: [Vec<Bar>; 2] = Default::default();
    for group in &mut groups {
        for whose in Whose::ALL {
            if whose.programs(setup)?.is_some() {
                group.push(Bar { whose, rates: Vec::new(), died: None });
            }
        }
    }
    for _ in 0..setup.rounds {
        for (group, cut) in groups.iter_mut().zip([false, true]) {
            for bar in group {
                let Some(programs) = bar.whose.programs(setup)? else { continue };
                let (rate, died) = measure(setup, programs, cut)?;
                bar.rates.push(rate);
                bar.died = died;
            }
        }
    }
    groups.iter_mut().flatten().for_each(|bar| bar.rates.sort_by(f64::total_cmp));
    for (group, how) in groups.iter().zip(["uncut", "cut each second"]) {
        for bar in group {
            let died = bar.died.map(|at| format!(", died after {at:.1?}")).unwrap_or_default();
            println!("{how:16} {:12} {}{died}", bar.whose.name(), rate_text(bar.rate()));
        }
    }
    Ok(draw(&groups))
}

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(setup: &Setup, programs: (Command, Command), cut: bool) -> io::Result<(f64, Option<Duration>)> {
    let mut relay = setup.program("turbotunnel");
    relay.args(["lilbastard", "--upstream", &format!("127.0.0.1:{SERVER}"), "--listen", &format!("127.0.0.1:{RELAY}")]);
    if cut {
        relay.args(["--after", CUT_AFTER]);
    }
    let _relay = Relay(relay.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut pair = Pair::start(programs.0, programs.1, SERVER)?;
    let (mut to, mut from) = pair.pipes()?;
    let back = Arc::new(AtomicU64::new(0));
    thread::spawn(move || while to.write_all(&[b'x'; 64 << 10]).is_ok() {});
    let reading = {
        let back = back.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                back.fetch_add(n as u64, Ordering::Relaxed);
            }
        })
    };
    let (began, mut seen, mut last) = (Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < TIME && !reading.is_finished() {
        thread::sleep(Duration::from_millis(10));
        let now = back.load(Ordering::Relaxed);
        if now != seen {
            (seen, last) = (now, began.elapsed());
        }
    }
    // A client may take a while to find out that it is over; for its user it was over with the last byte.
    let died = reading.is_finished().then_some(last);
    Ok((back.load(Ordering::Relaxed) as f64 / TIME.as_secs_f64(), died))
}

fn rate_text(rate: f64) -> String {
    format!("{}/s", text::size(rate as u64))
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 620.0;
const BAR: f64 = 24.0;
/// From 1 MB/s to 3 GB/s, each ten times the same length: on a straight scale nobody would see the Go example.
const SCALE: (f64, f64) = (1e6, 3e9);
pub(crate) const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#333}.title{font-size:17px;font-weight:600}.group{font-weight:600}\
.grid{stroke:#e4e4e4}.plain{fill:#9e9e9e}.go{fill:#d99a00}.ours{fill:#1769aa}.dead{fill:#c62828}.small{font-size:11px}\
@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.grid{stroke:#2c3036}.ours{fill:#64b5f6}.dead{fill:#ef5350}}";

fn x(rate: f64) -> f64 {
    let share = (rate.max(SCALE.0) / SCALE.0).ln() / (SCALE.1 / SCALE.0).ln();
    LEFT + (RIGHT - LEFT) * share.min(1.0)
}

fn draw(groups: &[Vec<Bar>; 2]) -> String {
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = draw_to(&mut svg, groups);
    svg
}

fn draw_to(svg: &mut String, groups: &[Vec<Bar>; 2]) -> fmt::Result {
    let height = 92.0 + groups.iter().map(|group| 34.0 + BAR * 1.35 * group.len() as f64).sum::<f64>();
    let bottom = height - 34.0;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="bytes a second there and back">"#
    )?;
    writeln!(svg, "<style>{STYLE}</style>")?;
    writeln!(svg, r#"<text class="title" x="20" y="30">Bytes there and back, through a client's pipes</text>"#)?;
    for (rate, label) in [(1e6, "1 MB/s"), (1e7, "10 MB/s"), (1e8, "100 MB/s"), (1e9, "1 GB/s")] {
        let x = x(rate);
        writeln!(svg, r#"<line class="grid" x1="{x:.1}" y1="46" x2="{x:.1}" y2="{bottom:.1}"/>"#)?;
        writeln!(
            svg,
            r#"<text class="small" x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            bottom + 18.0
        )?;
    }
    let mut y = 46.0;
    for (group, title) in groups.iter().zip(["nobody cuts", "every connection is cut after one second"]) {
        writeln!(svg, r#"<text class="group" x="20" y="{:.1}">{title}</text>"#, y + 20.0)?;
        y += 34.0;
        for bar in group {
            let (name, class, end) = (bar.whose.name(), bar.whose.class(), x(bar.rate()));
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{name}</text>"#, LEFT - 8.0, y + 17.0)?;
            let told = match bar.died {
                Some(at) => {
                    writeln!(svg, r#"<text class="dead" x="{LEFT}" y="{:.1}">&#x2717;</text>"#, y + 17.0)?;
                    format!(
                        r#"<text class="dead" x="{:.1}" y="{:.1}">dead after {at:.0?}</text>"#,
                        LEFT + 18.0,
                        y + 17.0
                    )
                }
                None => {
                    writeln!(
                        svg,
                        r#"<rect class="{class}" x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2"/>"#,
                        end - LEFT
                    )?;
                    format!(r#"<text x="{:.1}" y="{:.1}">{}</text>"#, end + 8.0, y + 17.0, rate_text(bar.rate()))
                }
            };
            writeln!(svg, "{told}")?;
            y += BAR * 1.35;
        }
    }
    writeln!(svg, "</svg>")
}
