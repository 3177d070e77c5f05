//! The network interface itself goes away, and comes back.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::{Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::player::PLAY;
use crate::stage::{Stage, source, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long there is no interface.
const AWAY: Duration = Duration::from_secs(6);
const BYTES: u64 = 16 << 20;
/// Set for the player that runs in the network of its own.
const INSIDE: &str = "TURBOTUNNEL_HOSTILE_OWN_NETWORK";

/// The longest pause between two dials, and a little.
const BACK: Ceiling = at_most("bytes again after", 5.0, "s");
const LEFT: Ceiling = at_most("descriptors more than before", 0.0, "");

pub(crate) const GONE: Attack = Attack {
    name: "network-gone",
    what: "the interface goes down for 6 s in the middle of a transfer, and then comes up",
    go: "not tried",
    ceilings: &[INTACT, BACK, LEFT],
    when: When::Quick,
    play: gone,
};

fn gone(stage: &Stage) -> io::Result<Figures> {
    if std::env::var_os(INSIDE).is_none() {
        // This process goes on as the same one, in a network namespace whose only interface is its own.
        let mut again = Command::new("unshare");
        again.args(["--map-root-user", "--net"]).arg(std::env::current_exe()?);
        return Err(again.args([PLAY, GONE.name, "ours"]).env(INSIDE, "1").exec());
    }
    interface("up")?;
    let server = stage.server()?;
    let mut honest = Honest::connect(server.addr, source(20), PATIENCE)?;
    honest.goodput(Duration::from_millis(200))?;
    let descriptors = server.descriptors();
    let switching = thread::spawn(|| {
        thread::sleep(Duration::from_millis(100));
        interface("down")?;
        thread::sleep(AWAY);
        interface("up")?;
        io::Result::Ok(Instant::now())
    });
    honest.goodput(Duration::from_secs(1))?;
    honest.echo(1, AWAY + PATIENCE)?;
    let again = Instant::now();
    let up = switching.join().map_err(|_| io::Error::other("the interface was not switched"))??;
    let mut figures = Figures::default();
    figures.measured(BACK, again.saturating_duration_since(up).as_secs_f64());
    figures.measured(INTACT, honest.intact(BYTES, PATIENCE));
    // The end of the old connection is repeated at ever longer intervals, by the kernel.
    wait_until(Duration::from_secs(10), || server.descriptors() <= descriptors);
    figures.measured(LEFT, server.descriptors().saturating_sub(descriptors) as f64);
    Ok(figures)
}

fn interface(state: &str) -> io::Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", state]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("ip link set lo {state}: {status}"))) }
}
