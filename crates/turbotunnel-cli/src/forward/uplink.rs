//! The client's session: how it is made, what is told of it, and how a new one takes the place of one that is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use turbotunnel::control::ByeReason;
use turbotunnel::secure::StaticKey;
use turbotunnel::{Config, Event, Session, SessionError};

use super::open::Open;
use crate::commands::session_failure;
use crate::failure::{Failure, plain};
use crate::keys::Way;
use crate::log::{Level, Log};
use crate::text;

/// A server that stays out of reach is told once in this time.
const REMIND: Duration = Duration::from_secs(60);
/// So often something may answer that is not the server that the key belongs to, before a session that has never been up is given up. Once may be a server that is just being
/// restarted, or the page of a hotel that wants to be paid.
const STRANGERS: u32 = 3;
/// Pause before a session takes the place of a lost one, so that two servers that know nothing of each other do not make one after the other.
const PAUSE: Duration = Duration::from_millis(500);

/// How to reach a server.
pub(crate) struct Line {
    pub way: Way,
    pub own: Option<StaticKey>,
    pub config: Config,
    /// What serves it, for tips: "server", "echo-server".
    pub serving: &'static str,
    pub log: Log,
}

impl Line {
    /// A session, once the server has answered.
    ///
    /// # Errors
    /// As `Session::connect`, and [`SessionError::NoValidAnswer`] as soon as that is likely.
    pub(crate) async fn connect(&self) -> Result<Session, SessionError> {
        let began = Instant::now();
        let strangers = Arc::new(Notify::new());
        let mut builder = Session::builder().config(self.config.clone()).on_event(self.teller(strangers.clone()));
        if let Some(own) = &self.own {
            builder = builder.client_key(own.clone());
        }
        let connecting = async {
            match &self.way {
                Way::Plain(at) => builder.plain().connect_tcp(at).await,
                Way::Secure(link) => builder.connect_link(link).await,
            }
        };
        let session = tokio::select! {
            session = connecting => session?,
            () = strangers.notified() => return Err(SessionError::NoValidAnswer),
        };
        let (id, server) = (session.id(), self.way.address());
        self.log.info(format_args!("session {} up over tcp://{server} in {}", id.short(), text::age(began.elapsed())));
        Ok(session)
    }

    /// What the end of a session means for the program.
    pub(crate) fn failure(&self, error: &SessionError, consequence: Option<&str>) -> Failure {
        session_failure(error, self.way.address(), self.serving, consequence)
    }

    /// Keeps a session up until that makes no sense any more, and says why. `up` tells of the one that there is.
    pub(crate) async fn keep(&self, up: &watch::Sender<Option<Session>>, open: &Open) -> Failure {
        loop {
            match self.connect().await {
                Ok(session) => {
                    up.send_replace(Some(session.clone()));
                    let why = session.closed().await;
                    up.send_replace(None);
                    if matches!(why, SessionError::NotAdmitted | SessionError::ClosedByPeer(ByeReason::NotAdmitted)) {
                        return self.failure(&why, None);
                    }
                    let lost = match open.now() as u64 {
                        0 => "nothing was open".to_owned(),
                        cut => format!("{} cut", text::count(cut, "stream")),
                    };
                    self.log
                        .info(format_args!("session {} lost: {why}; {lost}; starting a new one", session.id().short()));
                }
                // The user has said how long to try.
                Err(error) => return self.failure(&error, None),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells of carriers. A server that stays out of reach is told at first and then once a minute.
    fn teller(&self, strangers: Arc<Notify>) -> impl Fn(Event) + Send + Sync + 'static {
        let (log, server, fail_fast) = (self.log.clone(), self.way.address().to_owned(), self.config.fail_fast);
        let told = Mutex::new((None::<Instant>, 0));
        move |event| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (told_at, in_a_row) = &mut *told;
            match event {
                Event::CarrierUp { number, gap, resent, .. } => {
                    (*told_at, *in_a_row) = (None, 0);
                    // The first one is told where it is waited for.
                    if let Some(gap) = gap {
                        let resent = text::count(resent as u64, "packet");
                        log.info(format_args!(
                            "carrier {number} up, resumed after {}, {resent} resent",
                            text::age(gap)
                        ));
                    }
                }
                Event::CarrierLost { number, reason, age, .. } => {
                    log.info(format_args!("carrier {number} lost after {} ({reason}), redialing", text::age(age)));
                }
                Event::DialFailed { number, error, next_in, unanswered } => {
                    *in_a_row = if unanswered { *in_a_row + 1 } else { 0 };
                    if *in_a_row >= STRANGERS {
                        strangers.notify_one();
                    }
                    // With `fail_fast` the error that follows says it all.
                    let due = told_at.is_none_or(|at| at.elapsed() >= REMIND) && !(fail_fast && told_at.is_none());
                    if due || log.level() == Level::Verbose {
                        *told_at = Some(Instant::now());
                        let (error, next_in) = (plain(&error), text::age(next_in));
                        log.info(format_args!(
                            "cannot reach tcp://{server}: {error}; trying on (dial {number}, next in {next_in})"
                        ));
                    }
                }
                // The end of the session is told where it is waited for.
                _ => {}
            }
        }
    }
}
