//! How cost grows: pictures of rate against window, round trip and streams, of memory and latency against sessions.

use std::fmt::{self, Write as _};
use std::io;
use std::process::Command;
use std::time::Duration;

use turbotunnel_cli::bench::median;
use turbotunnel_cli::process::resident;

use crate::chart::STYLE;
use crate::engine::{self, Size};
use crate::path::Path;
use crate::report::Unit;
use crate::rows::{self, Setup};

/// One picture: how something of ours, and of plain TCP where it has that, depends on something.
struct Figure {
    title: &'static str,
    /// What the horizontal axis counts.
    over: &'static str,
    unit: Unit,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    /// Its colour, as the README's chart has it.
    class: &'static str,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn ours() -> Self {
        Self { name: "turbotunnel", class: "ours", points: Vec::new() }
    }

    fn plain() -> Self {
        Self { name: "plain TCP", class: "plain", points: Vec::new() }
    }
}

/// Measures all, says the figures as they come, and draws them.
pub(crate) fn growth(setup: &Setup) -> io::Result<String> {
    let measures = [window, round_trip, streams, sessions_memory, sessions_latency];
    let mut figures = Vec::new();
    for measure in measures {
        let figure = measure(setup)?;
        println!("\n{} ({})", figure.title, figure.over);
        for line in &figure.lines {
            for (x, y) in &line.points {
                println!("{:12} {x:>8} {}", line.name, figure.unit.show(*y));
            }
        }
        figures.push(figure);
    }
    Ok(draw(&figures))
}

fn window(setup: &Setup) -> io::Result<Figure> {
    let mut ours = Line::ours();
    for window in [32, 128, 512, 2_048, 8_192, 32_768] {
        let rates: Vec<f64> = (0..setup.rounds).map(|_| engine::rate(window, Size::Usual)).collect();
        ours.points.extend(median(&rates).map(|rate| (f64::from(window), rate)));
    }
    let title = "The engines alone, both ends on one core";
    Ok(Figure { title, over: "window, packets", unit: Unit::Rate, lines: vec![ours] })
}

fn round_trip(setup: &Setup) -> io::Result<Figure> {
    let (mut ours, mut plain) = (Line::ours(), Line::plain());
    for milliseconds in [1, 10, 50, 100, 200, 300] {
        let path = Path::new(Some(500_000_000), Duration::from_millis(milliseconds));
        let (report, _) = rows::over(setup, &path, setup.rounds, &["--rows", "down", "--size", "512MiB", "--fresh"])?;
        let rate = report.row("down", "rate", "", Unit::Rate)?;
        ours.points.extend(median(&rate.ours).map(|rate| (milliseconds as f64, rate)));
        plain.points.extend(median(&rate.plain).map(|rate| (milliseconds as f64, rate)));
    }
    let title = "512 MiB over 500 Mbit/s, beginning included";
    Ok(Figure { title, over: "round trip, ms", unit: Unit::Rate, lines: vec![plain, ours] })
}

fn streams(setup: &Setup) -> io::Result<Figure> {
    let (mut ours, mut plain) = (Line::ours(), Line::plain());
    for count in [1, 8, 64, 500, 1_000] {
        let report = rows::here(setup, &["--rows", "streams", "--size", "2GiB", "--streams", &count.to_string()])?;
        let rate = report.row("streams", "rate", "", Unit::Rate)?;
        ours.points.extend(median(&rate.ours).map(|rate| (f64::from(count), rate)));
        plain.points.extend(median(&rate.plain).map(|rate| (f64::from(count), rate)));
    }
    let title = "Streams together, or as many connections";
    Ok(Figure { title, over: "streams in one session", unit: Unit::Rate, lines: vec![plain, ours] })
}

/// A server of its own for each number: what one has given back stays with the process.
fn sessions_memory(setup: &Setup) -> io::Result<Figure> {
    let mut attached = Line { name: "attached", ..Line::ours() };
    let mut detached = Line { name: "without carrier", ..Line::plain() };
    for count in [100, 300, 1_000, 3_000, 9_000] {
        for (line, what) in [(&mut attached, "idle"), (&mut detached, "detached")] {
            let (server, at) = rows::echo_server(setup)?;
            let before = resident(server.id());
            let _holding = rows::hold(&[what, &at, &count.to_string()])?;
            line.points.push((f64::from(count), (resident(server.id()) - before) / f64::from(count)));
        }
    }
    let title = "The server's memory for each session";
    Ok(Figure { title, over: "sessions", unit: Unit::Memory, lines: vec![detached, attached] })
}

fn sessions_latency(setup: &Setup) -> io::Result<Figure> {
    let mut p50 = Line { name: "p50", ..Line::plain() };
    let mut p99 = Line { name: "p99", ..Line::ours() };
    for count in [10, 100, 500, 1_000, 2_000] {
        let (_server, at) = rows::echo_server(setup)?;
        let output =
            Command::new(std::env::current_exe()?).args(["hold", "talking", &at, &count.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let times: Vec<f64> = said.split_ascii_whitespace().filter_map(|time| time.parse().ok()).collect();
        let [middle, late] = times[..] else { return Err(io::Error::other("talking sessions failed")) };
        p50.points.push((f64::from(count), middle));
        p99.points.push((f64::from(count), late));
    }
    let title = "64 bytes there and back, 10 a second each";
    Ok(Figure { title, over: "sessions", unit: Unit::Time, lines: vec![p50, p99] })
}

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 230.0;
/// Where the lines are, inside a figure.
const LEFT: f64 = 20.0;
const RIGHT: f64 = 290.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 186.0;

fn draw(figures: &[Figure]) -> String {
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = draw_to(&mut svg, figures);
    svg
}

fn draw_to(svg: &mut String, figures: &[Figure]) -> fmt::Result {
    let (width, height) = (WIDTH * 2.0, HEIGHT * figures.len().div_ceil(2) as f64);
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="how cost grows">"#
    )?;
    writeln!(
        svg,
        "<style>{STYLE}.line{{fill:none;stroke-width:2}}.line.plain{{stroke:#9e9e9e}}.line.ours{{stroke:#1769aa}}</style>"
    )?;
    for (n, figure) in figures.iter().enumerate() {
        let (x, y) = ((n % 2) as f64 * WIDTH, (n / 2) as f64 * HEIGHT);
        writeln!(svg, r#"<g transform="translate({x} {y})">"#)?;
        draw_figure(svg, figure)?;
        writeln!(svg, "</g>")?;
    }
    writeln!(svg, "</svg>")
}

fn draw_figure(svg: &mut String, figure: &Figure) -> fmt::Result {
    let points = || figure.lines.iter().flat_map(|line| &line.points);
    let (least, most) = points().fold((f64::MAX, 1.0_f64), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
    let highest = points().fold(f64::MIN_POSITIVE, |highest, (_, y)| highest.max(*y)) * 1.1;
    // Each ten times the same length across; upward it begins with nothing, so that what is twice as high is twice as much.
    let across = |x: f64| LEFT + (RIGHT - LEFT) * (x / least).ln() / (most / least).ln().max(f64::MIN_POSITIVE);
    let up = |y: f64| BOTTOM - (BOTTOM - TOP) * y / highest;
    writeln!(svg, r#"<text class="group" x="{LEFT}" y="26">{}</text>"#, figure.title)?;
    writeln!(svg, r#"<line class="grid" x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{BOTTOM}"/>"#)?;
    for line in &figure.lines {
        let path: Vec<_> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y))).collect();
        writeln!(svg, r#"<polyline class="line {}" points="{}"/>"#, line.class, path.join(" "))?;
        for (x, y) in &line.points {
            let (x, y, tip) = (across(*x), up(*y), figure.unit.show(*y));
            writeln!(
                svg,
                r#"<circle class="{}" cx="{x:.1}" cy="{y:.1}" r="3"><title>{tip}</title></circle>"#,
                line.class
            )?;
        }
    }
    // What the lines end with, from above to below, so that no two stand on each other.
    let mut ends: Vec<_> = figure.lines.iter().filter_map(|line| Some((line, line.points.last()?.1))).collect();
    ends.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut free = TOP;
    for (line, value) in ends {
        let y = up(value).max(free);
        free = y + 28.0;
        let x = RIGHT + 8.0;
        writeln!(svg, r#"<text class="{}" x="{x}" y="{y:.1}">{}</text>"#, line.class, figure.unit.show(value))?;
        writeln!(svg, r#"<text class="small {}" x="{x}" y="{:.1}">{}</text>"#, line.class, y + 13.0, line.name)?;
    }
    let mut xs: Vec<f64> =
        figure.lines.first().map(|line| line.points.iter().map(|(x, _)| *x).collect()).unwrap_or_default();
    xs.dedup();
    for x in xs {
        writeln!(
            svg,
            r#"<text class="small" x="{:.1}" y="{:.1}" text-anchor="middle">{x}</text>"#,
            across(x),
            BOTTOM + 16.0
        )?;
    }
    writeln!(
        svg,
        r#"<text class="small" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 32.0,
        figure.over
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_each_line_and_what_it_ends_with() {
        let line = |name, last| Line { name, points: vec![(1.0, 5e8), (10.0, last)], ..Line::ours() };
        let lines = vec![line("one", 1e9), line("other", 0.99e9)];
        let svg = draw(&[Figure { title: "a title", over: "things", unit: Unit::Rate, lines }]);
        for told in ["a title", "things", "1.00 GB/s", "990.0 MB/s", ">one<", ">other<"] {
            assert!(svg.contains(told), "{told}: {svg}");
        }
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 4));
    }
}
