//! Random scripts: streams that are opened, written, read and ended in all ways, and the path under them, made from a seed.
//!
//! The client of a script says in the first line of each stream what the server has to do, so that either end can be
//! ours or a Go program: `interop/go/peer/script.go` is the other implementation.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::sleep;

use crate::pattern::Pattern;
use crate::peers::Fin;
use crate::random::Random;

/// What happens on a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// All that comes goes back, until it ends.
    Echo,
    /// Different bytes each way at the same time; the server ends the stream first.
    Swap,
    /// The same, but the client ends it first.
    Wait,
}

/// How the client ends its direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// When all has come that will come.
    Last,
    /// After its last byte, with the answer still on its way.
    Half,
    /// It goes in the middle, and the rest is nobody's.
    Leave,
}

/// One stream.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    start: Duration,
    what: What,
    end: End,
    up: u64,
    down: u64,
    seed: u64,
}

/// How the path treats connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// It leaves them alone.
    Calm,
    /// Each is cut after 0.7 to 1.3 s.
    CutByTime,
    /// Each is cut after 20 to 60 kB.
    CutByBytes,
}

/// Everything about one session.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it was made from.
    pub seed: u64,
    /// The path.
    pub path: Path,
    /// How the Go program's streams take a FIN.
    pub fin: Fin,
    /// Its other options.
    pub options: &'static [&'static str],
    /// What happens.
    pub tasks: Vec<Task>,
}

impl Script {
    /// The script of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let path = random.pick(&[Path::Calm, Path::CutByTime, Path::CutByBytes]);
        let fin = random.pick(&Fin::ALL);
        let options: &[&[&str]] = &[
            &[],
            &[],
            &["--window", "32", "--stream-buffer", "4096"],
            &["--window", "256", "--stream-buffer", "1048576", "--queue", "100"],
        ];
        let options = random.pick(options);
        let streams = 1 + random.below(8);
        let tasks = (0..streams).map(|_| Task::new(&mut random)).collect();
        Self { seed, path, fin, options, tasks }
    }

    /// Streams that are played to their end.
    pub fn kept(&self) -> u64 {
        self.tasks.iter().filter(|task| task.end != End::Leave).count() as u64
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, path, fin, options, tasks } = self;
        writeln!(f, "script {seed}: {path:?}, FIN {fin:?}, {options:?}, streams:")?;
        tasks.iter().try_for_each(|task| write!(f, "    {}", task.line()))
    }
}

impl Task {
    fn new(random: &mut Random) -> Self {
        let what = random.pick(&[What::Echo, What::Swap, What::Wait]);
        let end = match what {
            What::Echo => random.pick(&[End::Last, End::Half, End::Leave]),
            What::Swap => End::Last,
            What::Wait => random.pick(&[End::Last, End::Half]),
        };
        let mut bytes = || {
            let most = random.pick(&[1, 100, 5_000, 200_000, 600_000]);
            random.below(most + 1)
        };
        let (up, down) = (bytes(), bytes());
        let start = Duration::from_millis(random.below(4) * random.below(1_000));
        Self { start, what, end, up, down, seed: random.number() }
    }

    /// The first line of the stream.
    fn header(&self) -> String {
        let what = match self.what {
            What::Echo => "echo",
            What::Swap => "swap",
            What::Wait => "wait",
        };
        format!("{what} {} {} {}\n", self.up, self.down, self.seed)
    }

    fn parse(header: &str) -> Option<Self> {
        let mut words = header.split_whitespace();
        let what = match words.next()? {
            "echo" => What::Echo,
            "swap" => What::Swap,
            "wait" => What::Wait,
            _ => return None,
        };
        let mut number = || words.next()?.parse().ok();
        let (up, down, seed) = (number()?, number()?, number()?);
        Some(Self { start: Duration::ZERO, what, end: End::Last, up, down, seed })
    }

    /// The line from which a Go client knows what to do.
    pub fn line(&self) -> String {
        let end = match self.end {
            End::Last => "last",
            End::Half => "half",
            End::Leave => "leave",
        };
        format!("{} {} {end}\n", self.start.as_millis(), self.header().trim_end())
    }

    fn comes_down(&self) -> (Pattern, u64) {
        match self.what {
            What::Echo => (Pattern(self.seed), self.up),
            What::Swap | What::Wait => (Pattern(!self.seed), self.down),
        }
    }

    /// Plays the client of it, once the time has come, on the stream that `open` gives.
    ///
    /// # Errors
    ///
    /// Whatever went otherwise than the task says.
    pub async fn play<S>(&self, open: impl AsyncFnOnce() -> io::Result<S>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite,
    {
        sleep(self.start).await;
        let (mut from, mut to) = tokio::io::split(open().await?);
        let (pattern, mut total) = self.comes_down();
        if self.end == End::Leave {
            total /= 2;
        }
        to.write_all(self.header().as_bytes()).await?;
        let sending = async {
            send(Pattern(self.seed), &mut to, self.up, !self.seed).await?;
            if self.end == End::Half { to.shutdown().await } else { Ok(()) }
        };
        let receiving = pattern.receive(&mut from, total);
        if self.end == End::Leave {
            // All may be sent by then, or not.
            let sending = async {
                sending.await?;
                std::future::pending().await
            };
            return tokio::select! { received = receiving => received, failed = sending => failed };
        }
        tokio::try_join!(sending, receiving)?;
        match (self.end, self.what) {
            (End::Last, What::Echo | What::Wait) => {
                tokio::try_join!(to.shutdown(), receive_end(&mut from))?;
            }
            _ => receive_end(&mut from).await?,
        }
        Ok(())
    }
}

/// Plays the server on a stream: what its first line says. `false`: the client left in the middle, as it may.
///
/// # Errors
///
/// Whatever went otherwise than the line says.
pub async fn serve(stream: impl AsyncRead + AsyncWrite) -> io::Result<bool> {
    let (from, mut to) = tokio::io::split(stream);
    let mut from = BufReader::new(from);
    let mut header = String::new();
    from.read_line(&mut header).await?;
    let Some(task) = Task::parse(&header) else {
        return Err(io::Error::other(format!("header {header:?}")));
    };
    if task.what == What::Echo {
        let echoed = tokio::io::copy(&mut from, &mut to).await;
        let whole = echoed.is_ok_and(|bytes| bytes == task.up);
        return Ok(to.shutdown().await.is_ok() && whole);
    }
    tokio::try_join!(
        Pattern(task.seed).receive(&mut from, task.up),
        send(Pattern(!task.seed), &mut to, task.down, task.seed)
    )?;
    if task.what == What::Wait {
        receive_end(&mut from).await?;
    }
    to.shutdown().await?;
    Ok(true)
}

/// Writes a pattern in pieces of random size, now and then after a pause.
async fn send(pattern: Pattern, to: &mut (impl AsyncWrite + Unpin), total: u64, seed: u64) -> io::Result<()> {
    let mut random = Random(seed);
    let most = total / 40 + 100;
    let mut sent = 0;
    while sent < total {
        let mut piece = vec![0; (1 + random.below(most)).min(total - sent) as usize];
        pattern.fill(sent, &mut piece);
        if random.below(8) == 0 {
            sleep(Duration::from_millis(random.below(40))).await;
        }
        let context = |e: io::Error| io::Error::new(e.kind(), format!("after {sent} of {total} bytes sent: {e}"));
        to.write_all(&piece).await.map_err(context)?;
        sent += piece.len() as u64;
    }
    to.flush().await
}

async fn receive_end(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    match from.read(&mut [0; 16]).await? {
        0 => Ok(()),
        n => Err(io::Error::other(format!("{n} bytes too many"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends by this program, over a pipe: the scripts themselves can be played.
    #[tokio::test(start_paused = true)]
    async fn a_script_agrees_with_itself() {
        for seed in 0..50 {
            for task in &Script::new(seed).tasks {
                let (client, server) = tokio::io::duplex(10_000);
                let serving = tokio::spawn(serve(server));
                let played = task.play(async || Ok(client)).await;
                assert!(played.is_ok(), "seed {seed}: {played:?}, {task:?}");
                let served = serving.await.expect("it does not panic");
                let left = task.end == End::Leave;
                assert!(left || matches!(served, Ok(true)), "seed {seed}: {served:?}, {task:?}");
            }
        }
    }

    #[test]
    fn a_seed_is_all_there_is_to_a_script() {
        let lines = |seed| Script::new(seed).tasks.iter().map(Task::line).collect::<String>();
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
    }
}
