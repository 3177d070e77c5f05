//! Files that may be open, connections among them: whether they may be enough, and what is said when they are not.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use turbotunnel::Listener;

use crate::failure::reason;
use crate::log::Log;
use crate::status::own::Doors;

/// A session may have a connection, the one that takes its place, and some streams to targets.
const EACH_SESSION: u64 = 4;
/// How often the listener is asked whether it had to pause.
const LOOK: Duration = Duration::from_secs(1);
/// Who is short of files for hours says so once in this time.
const REMIND: Duration = Duration::from_secs(60);

/// Whether that error is for want of descriptors, the program's own or the system's.
pub(crate) fn is_short(error: &io::Error) -> bool {
    #[cfg(unix)]
    return [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .into_iter()
        .any(|short| error.raw_os_error() == Some(short.raw_os_error()));
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// Says before anybody comes that so many sessions will not find enough.
pub(crate) fn warn_early(max_sessions: Option<u32>, log: &Log) {
    let Some((limit, sessions)) = limit().zip(max_sessions) else { return };
    let wanted = u64::from(sessions) * EACH_SESSION;
    if limit < wanted {
        log.info(format_args!(
            "{limit} files may be open, and {sessions} sessions may want {wanted} (ulimit -n, LimitNOFILE=)"
        ));
    }
}

/// Says that connections cannot be accepted, as long as the listener lives.
pub(crate) async fn watch(listener: Weak<Listener>, doors: Doors, log: Log) {
    let mut seen = 0;
    while let Some(stats) = listener.upgrade().map(|listener| listener.stats()) {
        let pauses = stats.accept_pauses + doors.accept_pauses();
        let short = pauses > seen;
        seen = pauses;
        if short {
            tell(&log);
        }
        tokio::time::sleep(if short { REMIND } else { LOOK }).await;
    }
}

fn tell(log: &Log) {
    match limit() {
        Some(limit) => log.warn(
            "cannot_accept",
            &[("files", limit.into())],
            format_args!("cannot accept: {limit} files open, that is the limit (ulimit -n, LimitNOFILE=); trying on"),
        ),
        None => log.warn("cannot_accept", &[], "cannot accept: too many files open; trying on"),
    }
}

/// The same for ports that are not the listener's, several of them together: when it was told.
#[derive(Clone, Default)]
pub(crate) struct Shortage(Arc<Mutex<Option<Instant>>>);

impl Shortage {
    /// A connection could not be accepted, and will not be for a while.
    pub(crate) fn on_error(&self, error: &io::Error, log: &Log) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        *told = Some(Instant::now());
        if is_limit(error) {
            tell(log);
        } else {
            log.warn("cannot_accept", &[], format_args!("cannot accept: {}; trying on", reason(error)));
        }
    }
}

/// It is this process that has as many as it may have.
#[cfg(unix)]
fn is_limit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

#[cfg(not(unix))]
fn is_limit(_: &io::Error) -> bool {
    false
}

/// `None`: no limit, or a system that has none of this kind.
fn limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}
