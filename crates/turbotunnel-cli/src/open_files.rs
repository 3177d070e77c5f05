//! Files that may be open, connections among them: whether they may be enough, and what is said when they are not.

use std::sync::Weak;
use std::time::Duration;

use turbotunnel::Listener;

use crate::log::Log;

/// A session may have a connection, the one that takes its place, and some streams to targets.
const EACH_SESSION: u64 = 4;
/// How often the listener is asked whether it had to pause.
const LOOK: Duration = Duration::from_secs(1);
/// A server that is short of files for hours says so once in this time.
const REMIND: Duration = Duration::from_secs(60);

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
pub(crate) async fn watch(listener: Weak<Listener>, log: Log) {
    let mut seen = 0;
    while let Some(stats) = listener.upgrade().map(|listener| listener.stats()) {
        let short = stats.accept_pauses > seen;
        seen = stats.accept_pauses;
        if short {
            match limit() {
                Some(limit) => log.info(format_args!(
                    "cannot accept: {limit} files open, that is the limit (ulimit -n, LimitNOFILE=); trying on"
                )),
                None => log.info(format_args!("cannot accept: too many files open; trying on")),
            }
        }
        tokio::time::sleep(if short { REMIND } else { LOOK }).await;
    }
}

/// `None`: no limit, or a system that has none of this kind.
fn limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}
