//! The demo as a picture to keep: bytes back over time, the cuts, the gaps, the end of plain TCP. One SVG file that needs nothing else.

use std::fmt::Write;
use std::time::Duration;

use super::Load;
use super::story::{Story, Track};
use crate::lilbastard::{How, Plan};
use crate::text;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
/// The plot's edges.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 390.0;
/// Cuts that are drawn; more would be a wall.
const MOST_CUTS: usize = 300;

const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#333}.title{font-size:17px;font-weight:600}\
.axis{stroke:#999;stroke-width:1}.grid{stroke:#e4e4e4;stroke-width:1}.gap{fill:#f2c14e;opacity:.28}\
.tunnel{fill:none;stroke:#1769aa;stroke-width:2.5}.plain{fill:none;stroke:#999;stroke-width:7;opacity:.55}.end{stroke:#c62828;stroke-width:3}\
.fin{stroke:#d99a00}.rst{stroke:#c62828}.stall{stroke:#8e24aa}.half{stroke:#00838f}.cut{stroke-width:1.5;stroke-dasharray:4 3}\
.number{font-size:11px;fill:#1769aa}\
@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.grid{stroke:#2c3036}.tunnel{stroke:#64b5f6}.number{fill:#64b5f6}}";

struct Scale {
    seconds: f64,
    bytes: f64,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.seconds).min(1.0)
    }

    fn y(&self, bytes: u64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (bytes as f64 / self.bytes).min(1.0)
    }
}

/// The picture, as the text of an SVG file.
pub(super) fn draw(story: &Story, plan: &Plan, load: &Load) -> String {
    let end = |track: &Track| track.ended.as_ref().map_or(Duration::ZERO, |(at, _)| *at);
    let seconds = end(&story.tunnel).max(Duration::from_millis(100)).as_secs_f64() * 1.02;
    let scale = Scale { seconds, bytes: story.size.max(1) as f64 };
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut svg, story, plan, load, &scale);
    svg
}

fn write_all(svg: &mut String, story: &Story, plan: &Plan, load: &Load, scale: &Scale) -> std::fmt::Result {
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="bytes received over time">"#
    )?;
    writeln!(svg, "<style>{STYLE}</style>")?;
    let size = text::binary_size(story.size);
    let every = text::age(plan.after.unwrap_or_default());
    writeln!(
        svg,
        r#"<text class="title" x="{LEFT}" y="28">{size} there and back, every connection cut after {every}</text>"#
    )?;
    legend(svg, story, load)?;

    for (from, to) in &story.tunnel.gaps {
        let (x, end) = (scale.x(*from), scale.x(*to));
        let title = text::age(to.saturating_sub(*from));
        writeln!(
            svg,
            r#"<rect class="gap" x="{x:.1}" y="{TOP}" width="{:.1}" height="{:.1}"><title>no byte for {title}</title></rect>"#,
            end - x,
            BOTTOM - TOP
        )?;
    }
    axes(svg, scale)?;
    for cut in story.cuts.iter().take(MOST_CUTS) {
        let x = scale.x(cut.at);
        let (how, at) = (cut.how, cut.at.as_secs_f64());
        writeln!(
            svg,
            r#"<line class="cut {how}" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}"><title>cut ({how}) at {at:.2} s</title></line>"#
        )?;
    }
    writeln!(
        svg,
        r#"<text class="number" x="{:.1}" y="{:.1}" text-anchor="end">carrier</text>"#,
        LEFT - 8.0,
        TOP - 9.0
    )?;
    let mut free = 0.0;
    for carrier in &story.carriers {
        let x = scale.x(carrier.at);
        if x >= free {
            writeln!(svg, r#"<text class="number" x="{:.1}" y="{:.1}">{}</text>"#, x, TOP - 9.0, carrier.number)?;
            free = x + 20.0;
        }
    }
    if let Some(plain) = &story.plain {
        curve(svg, "plain", plain, scale)?;
        if let Some((at, Some(why))) = &plain.ended {
            let (x, y) = (scale.x(*at), scale.y(plain.received));
            for (dx, dy) in [(6.0, 6.0), (6.0, -6.0)] {
                let (x1, y1, x2, y2) = (x - dx, y - dy, x + dx, y + dy);
                writeln!(svg, r#"<line class="end" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)?;
            }
            let anchor = if x > (LEFT + RIGHT) / 2.0 { "end" } else { "start" };
            let dx = if anchor == "end" { -12.0 } else { 12.0 };
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}">plain TCP: {why}</text>"#,
                x + dx,
                (y + 16.0).min(BOTTOM - 6.0)
            )?;
        }
    }
    curve(svg, "tunnel", &story.tunnel, scale)?;
    writeln!(svg, "</svg>")
}

fn legend(svg: &mut String, story: &Story, load: &Load) -> std::fmt::Result {
    let mut x = LEFT;
    let mut entry = |svg: &mut String, class: &str, text: &str| {
        let line = x + 22.0;
        let result = writeln!(
            svg,
            r#"<line class="{class}" x1="{x:.0}" y1="50" x2="{line:.0}" y2="50"/><text x="{:.0}" y="54">{text}</text>"#,
            line + 5.0
        );
        x += 52.0 + text.len() as f64 * 7.0;
        result
    };
    entry(svg, "tunnel", "turbotunnel")?;
    if story.plain.is_some() {
        entry(svg, "plain", "plain TCP")?;
    }
    for how in [How::Fin, How::Rst, How::Stall, How::Half] {
        if story.cuts.iter().any(|cut| cut.how == how) {
            entry(svg, &format!("cut {how}"), &format!("cut by {how}"))?;
        }
    }
    let longest = text::age(story.tunnel.longest_gap);
    writeln!(
        svg,
        r#"<text x="{RIGHT}" y="28" text-anchor="end">longest gap {longest}, {}, seed {}</text>"#,
        text::count(story.cuts.len() as u64, "cut"),
        load.seed
    )
}

fn axes(svg: &mut String, scale: &Scale) -> std::fmt::Result {
    let step = round_step(scale.seconds / 8.0);
    for i in 0..=(scale.seconds / step) as u32 {
        let seconds = f64::from(i) * step;
        let x = scale.x(Duration::from_secs_f64(seconds));
        writeln!(svg, r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}"/>"#)?;
        let seconds = (seconds * 1000.0).round() / 1000.0;
        writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{seconds} s</text>"#, BOTTOM + 18.0)?;
    }
    for i in 0..=4 {
        let bytes = (scale.bytes * f64::from(i) / 4.0) as u64;
        let y = scale.y(bytes);
        writeln!(svg, r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{RIGHT}" y2="{y:.1}"/>"#)?;
        let (x, y, text) = (LEFT - 8.0, y + 4.0, text::binary_size(bytes));
        writeln!(svg, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{text}</text>"#)?;
    }
    writeln!(svg, r#"<path class="axis" fill="none" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#)?;
    let middle = (LEFT + RIGHT) / 2.0;
    writeln!(svg, r#"<text x="{middle}" y="{:.1}" text-anchor="middle">time since the start</text>"#, HEIGHT - 12.0)
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|&step| step >= least).unwrap_or(10.0 * power)
}

fn curve(svg: &mut String, class: &str, track: &Track, scale: &Scale) -> std::fmt::Result {
    write!(svg, r#"<polyline class="{class}" points="{LEFT},{BOTTOM}"#)?;
    let mut last = (LEFT, BOTTOM);
    for (i, (at, bytes)) in track.points.iter().enumerate() {
        let point = (scale.x(*at), scale.y(*bytes));
        // What lies within a pixel adds size, not sight.
        let far = (point.0 - last.0).abs() >= 0.8 || (point.1 - last.1).abs() >= 0.8;
        if far || i + 1 == track.points.len() {
            write!(svg, " {:.1},{:.1}", point.0, point.1)?;
            last = point;
        }
    }
    writeln!(svg, r#""/>"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::story::CutMark;

    fn story() -> Story {
        let mut tunnel = Track::default();
        (0..1000).for_each(|n| tunnel.receive(Duration::from_millis(10 * n), 1000));
        tunnel.end(Duration::from_secs(10), None);
        let mut plain = Track::default();
        plain.receive(Duration::from_millis(500), 70_000);
        plain.end(Duration::from_secs(1), Some("connection reset after 1.0 s".into()));
        let cuts = [How::Fin, How::Rst, How::Stall];
        let cuts = cuts.into_iter().zip(1..).map(|(how, n)| CutMark { at: Duration::from_secs(n), how, received: 1 });
        Story { size: 1_000_000, tunnel, plain: Some(plain), cuts: cuts.collect(), carriers: Vec::new() }
    }

    #[test]
    fn it_stands_alone_and_shows_what_happened() {
        let plan = Plan { after: Some(Duration::from_secs(1)), ..Plan::default() };
        let load = Load { seed: 7, size: 1_000_000, time: Duration::from_secs(9) };
        let svg = draw(&story(), &plan, &load);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for wanted in ["cut by fin", "cut by rst", "cut by stall", "plain TCP: connection reset after 1.0 s", "seed 7"]
        {
            assert!(svg.contains(wanted), "{wanted}");
        }
        for foreign in ["href", "url(", "<script", "NaN", "inf"] {
            assert!(!svg.contains(foreign), "{foreign}");
        }
        assert_eq!(svg.matches("class=\"cut ").count(), 3 + 3, "three lines, three entries of the legend");
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
    }

    #[test]
    fn steps_of_the_axis_are_round() {
        for (least, step) in [(0.011, 0.02), (0.1, 0.1), (1.2, 2.0), (3.0, 5.0), (7.0, 10.0), (60.0, 100.0)] {
            assert!((round_step(least) - step).abs() < 1e-9, "{least}: {}", round_step(least));
        }
    }
}
