//! The demo on the screen: a picture that is drawn again and again on a terminal, lines elsewhere, and the verdict.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::story::{Story, Track};
use super::{Load, Outcome};
use crate::lilbastard::{How, Plan};
use crate::stdio::Stdout;
use crate::text;

/// Columns of a bar. Everything fits into 80.
const BAR: usize = 34;
/// Between two lines of progress, where there is no picture.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Hides the cursor, and cuts lines off at the edge instead of wrapping them, so that the picture keeps its height.
const ENTER: &str = "\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h";

pub(super) struct Screen {
    out: Stdout,
    live: bool,
    colour: bool,
    entered: bool,
    /// Lines of the picture on the screen.
    drawn: usize,
    /// What was told in lines.
    cuts_told: usize,
    carriers_told: usize,
    plain_told: bool,
    next_line: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Colour {
    Green,
    Red,
    Yellow,
    Magenta,
    Cyan,
    Dim,
}

impl Screen {
    pub(super) fn new(out: Stdout, live: bool) -> Self {
        // https://no-color.org: set and not empty.
        let colour = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            out,
            live,
            colour,
            entered: false,
            drawn: 0,
            cuts_told: 0,
            carriers_told: 0,
            plain_told: false,
            next_line: LINE_EVERY,
        }
    }

    pub(super) async fn begin(&mut self, load: &Load, plan: &Plan) -> io::Result<()> {
        let kinds: Vec<String> = std::iter::once(&plan.how).chain(&plan.then).map(How::to_string).collect();
        let turns = if kinds.len() > 1 { " in turn" } else { "" };
        let every = text::age(plan.after.unwrap_or_default());
        let text = format!(
            "{} of random bytes there and back (seed {}); the path is cut every {every} ({}{turns})\n\n",
            text::binary_size(load.size),
            load.seed,
            kinds.join(", "),
        );
        self.say(&text).await
    }

    pub(super) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes()).await?;
        self.out.flush().await
    }

    pub(super) async fn frame(&mut self, story: &Story, now: Duration) -> io::Result<()> {
        let text = if self.live { self.picture(story, now) } else { self.lines(story, now, false) };
        if text.is_empty() { Ok(()) } else { self.say(&text).await }
    }

    /// The terminal as it was.
    pub(super) async fn leave(&mut self) {
        if std::mem::take(&mut self.entered) {
            // Nobody is there to be told if this fails.
            let _ = self.say(LEAVE).await;
        }
    }

    pub(super) async fn verdict(&mut self, story: &Story, outcome: &Outcome, now: Duration) -> io::Result<()> {
        let mut text = if self.live { self.picture(story, now) } else { self.lines(story, now, true) };
        text.push('\n');
        let good = outcome.digests_equal;
        let mark = |good: bool| if good { self.paint(Colour::Green, "✓") } else { self.paint(Colour::Red, "✗") };
        let received = text::binary_size(story.tunnel.received);
        text += &match (&outcome.error, good) {
            (Some(error), _) => format!("{} turbotunnel  {received}, then: {error}\n", mark(false)),
            (None, false) => {
                format!("{} turbotunnel  {received}, but not the bytes that were sent\n", mark(false))
            }
            (None, true) => {
                let (start, end) = (&outcome.digest[..4], &outcome.digest[60..]);
                let stats = outcome.stats.as_ref().map(|stats| &stats.tunnel);
                let (carriers, cuts, resent) = stats.map_or((0, 0, 0), |s| (s.carriers, s.cuts, s.segments_resent));
                format!(
                    "{} turbotunnel  {received}, sha256 {start}...{end} equal, {}, {} survived, {} resent\n",
                    mark(true),
                    text::count(carriers, "carrier"),
                    text::count(cuts, "cut"),
                    text::count(resent, "packet"),
                )
            }
        };
        if let Some(plain) = &story.plain {
            let received = text::binary_size(plain.received);
            text += &match &plain.ended {
                Some((_, Some(why))) => format!("{} plain TCP    {received}, then: {why}\n", mark(false)),
                _ => format!("{} plain TCP    {received}, all of it: no cut hit it\n", mark(true)),
            };
        }
        if good && story.cuts.is_empty() {
            text += "no cut fell into it; --time makes it longer, -w cuts earlier\n";
        }
        self.say(&text).await?;
        self.leave().await;
        Ok(())
    }

    fn picture(&mut self, story: &Story, now: Duration) -> String {
        let mut lines = Vec::new();
        let tunnel = &story.tunnel;
        let state = match &tunnel.ended {
            Some((_, Some(_))) => self.paint(Colour::Red, "lost"),
            Some((at, None)) => format!("done in {}", text::age(*at)),
            None if tunnel.visible_gap(now).is_zero() => format!("{}/s", text::binary_size(tunnel.rate(now) as u64)),
            None => self.paint(Colour::Yellow, &format!("cut for {}", text::age(tunnel.visible_gap(now)))),
        };
        lines.push(format!(
            "turbotunnel  {} {:>3} %  {:>8}  {state}",
            self.bar(story),
            percent(tunnel.received, story.size),
            text::binary_size(tunnel.received),
        ));
        lines.push(format!(
            "carriers     {}  gap now {}, longest {}",
            self.paint(Colour::Dim, &carriers(story)),
            text::age(tunnel.visible_gap(now)),
            text::age(tunnel.longest_gap.max(tunnel.gap(now))),
        ));
        if let Some(plain) = &story.plain {
            lines.push(format!("plain TCP    {}", self.plain_bar(plain, story.size, now)));
        }

        let mut text = String::new();
        if !std::mem::replace(&mut self.entered, true) {
            text += ENTER;
        }
        if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        self.drawn = lines.len();
        for line in lines {
            text += &line;
            text += "\x1b[K\n";
        }
        text
    }

    fn bar(&self, story: &Story) -> String {
        let filled = column(story.tunnel.received, story.size);
        let mut cells = vec![(Colour::Green, '━'); filled];
        cells.resize(BAR, (Colour::Green, ' '));
        for cut in &story.cuts {
            cells[column(cut.received, story.size).min(BAR - 1)] = (colour_of(cut.how), '╳');
        }
        cells
            .chunk_by(|a, b| a.0 == b.0)
            .map(|run| self.paint(run[0].0, &run.iter().map(|(_, cell)| cell).collect::<String>()))
            .collect()
    }

    /// The end and its reason stand where the bar stops, the figures only while it goes on.
    fn plain_bar(&self, plain: &Track, size: u64, now: Duration) -> String {
        let filled = column(plain.received, size);
        let received = text::binary_size(plain.received);
        if let Some((_, Some(why))) = &plain.ended {
            let done = self.paint(Colour::Cyan, &"━".repeat(filled.min(BAR - 1)));
            return format!("{done}{} {}", self.paint(Colour::Red, "✗"), self.paint(Colour::Red, why));
        }
        let state = match &plain.ended {
            Some((at, _)) => format!("done in {}", text::age(*at)),
            None if plain.visible_gap(now).is_zero() => String::new(),
            None => format!("nothing for {}", text::age(plain.visible_gap(now))),
        };
        let (done, rest) = (self.paint(Colour::Cyan, &"━".repeat(filled)), " ".repeat(BAR - filled));
        format!("{done}{rest} {:>3} %  {received:>8}  {state}", percent(plain.received, size))
    }

    /// What has happened since the last call, line by line.
    fn lines(&mut self, story: &Story, now: Duration, last: bool) -> String {
        let mut told: Vec<(Duration, String)> = Vec::new();
        for (i, cut) in story.cuts.iter().enumerate().skip(self.cuts_told) {
            let received = text::binary_size(cut.received);
            told.push((cut.at, format!("cut {} ({}), {received} back so far", i + 1, cut.how)));
        }
        for carrier in &story.carriers[self.carriers_told..] {
            let number = carrier.number;
            told.push((
                carrier.at,
                match carrier.gap {
                    None => format!("carrier {number} up"),
                    Some(gap) => format!(
                        "carrier {number} up, resumed after {}, {} resent",
                        text::age(gap),
                        text::count(carrier.resent, "packet")
                    ),
                },
            ));
        }
        (self.cuts_told, self.carriers_told) = (story.cuts.len(), story.carriers.len());
        let plain_end = story.plain.as_ref().and_then(|plain| plain.ended.clone());
        if let Some((at, why)) = plain_end.filter(|_| !self.plain_told) {
            self.plain_told = true;
            told.push((at, format!("plain TCP: {}", why.unwrap_or_else(|| "all back".into()))));
        }
        if now >= self.next_line || last {
            while self.next_line <= now {
                self.next_line += LINE_EVERY;
            }
            let tunnel = &story.tunnel;
            let (percent, received) = (percent(tunnel.received, story.size), text::binary_size(tunnel.received));
            let longest = text::age(tunnel.longest_gap.max(tunnel.gap(now)));
            told.push((now, format!("{percent} %, {received} back, longest gap {longest}")));
        }
        told.sort_by_key(|(at, _)| *at);
        told.into_iter().map(|(at, text)| format!("{:>5.1} s  {text}\n", at.as_secs_f64())).collect()
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
            Colour::Magenta => 35,
            Colour::Cyan => 36,
            Colour::Dim => 2,
        };
        if self.colour && !text.trim().is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn colour_of(how: How) -> Colour {
    match how {
        How::Fin => Colour::Yellow,
        How::Rst => Colour::Red,
        How::Stall => Colour::Magenta,
        How::Half => Colour::Cyan,
    }
}

fn column(bytes: u64, size: u64) -> usize {
    (bytes as u128 * BAR as u128 / u128::from(size.max(1))) as usize
}

fn percent(bytes: u64, size: u64) -> u64 {
    (u128::from(bytes) * 100 / u128::from(size.max(1))) as u64
}

/// The carriers' numbers, each where its bytes begin; those for which there is no room are left out.
fn carriers(story: &Story) -> String {
    let mut row = String::new();
    for carrier in &story.carriers {
        let at = column(carrier.received, story.size).min(BAR - 1);
        let number = carrier.number.to_string();
        if (row.is_empty() || at > row.len()) && at + number.len() <= BAR {
            row += &" ".repeat(at - row.len());
            row += &number;
        }
    }
    format!("{row:<BAR$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::story::CarrierMark;

    fn with_carriers(at: &[u64]) -> Story {
        let mark = |(i, &received): (usize, &u64)| CarrierMark {
            at: Duration::ZERO,
            number: i as u32 + 1,
            received,
            gap: None,
            resent: 0,
        };
        // Ten bytes a column.
        Story { size: 10 * BAR as u64, carriers: at.iter().enumerate().map(mark).collect(), ..Story::default() }
    }

    #[test]
    fn carriers_stand_where_they_began() {
        assert_eq!(carriers(&with_carriers(&[0, 50, 100])).trim_end(), "1    2    3");
        assert_eq!(carriers(&with_carriers(&[0, 0, 10, 20])).trim_end(), "1 4", "no room for 2 and 3");
        assert_eq!(carriers(&with_carriers(&[10 * BAR as u64])).len(), BAR);
    }

    #[test]
    fn columns_and_percents_reach_their_ends_and_not_beyond() {
        assert_eq!((column(0, 400), column(400, 400)), (0, BAR));
        assert_eq!((percent(399, 400), percent(400, 400)), (99, 100));
        assert_eq!(column(u64::MAX, u64::MAX), BAR);
    }
}
