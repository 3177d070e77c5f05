//! The client's session: how it is made, what is told of it, and how a new one takes the place of one that is lost.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Notify, watch};
use turbotunnel::control::ByeReason;
use turbotunnel::secure::StaticKey;
use turbotunnel::{Attempt, Config, Event, Session, SessionError, SessionId};
use turbotunnel_carriers::Dialer;

use crate::commands::session_failure;
use crate::failure::{Exit, Failure, plain};
use crate::keys::Way;
use crate::log::{Level, Log};
use crate::status::board::Board;
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
    pub dialers: Arc<[Dialer]>,
    /// Number of the carrier that was dialled last: which address an error is about.
    pub dialled: Arc<AtomicU32>,
    pub own: Option<StaticKey>,
    pub config: Config,
    /// What serves it, for tips: "server", "echo-server".
    pub serving: &'static str,
    pub board: Board,
    pub log: Log,
}

impl Line {
    /// A session, once the server has answered.
    ///
    /// # Errors
    /// As `Session::connect`, and [`SessionError::NoValidAnswer`] as soon as that is likely.
    pub(crate) async fn connect(&self) -> Result<Session, SessionError> {
        self.connect_to(false).await
    }

    /// `known`: the server has answered before, so the key is right, and who answers nothing valid now is something before it.
    async fn connect_to(&self, known: bool) -> Result<Session, SessionError> {
        let began = Instant::now();
        // Known before the first event.
        let id = SessionId::random().map_err(|error| SessionError::NeverConnected(error.to_string()))?;
        let strangers = Arc::new(Notify::new());
        let first = Arc::new(AtomicU32::new(0));
        let teller = self.teller(id, strangers.clone(), first.clone());
        let mut builder = Session::builder().config(self.config.clone()).session_id(id).on_event(teller);
        if let Some(own) = &self.own {
            builder = builder.client_key(own.clone());
        }
        let builder = match self.way.key {
            Some(key) => builder.server_key(key),
            None => builder.plain(),
        };
        let (way, dialers, dialled) = (self.way.clone(), self.dialers.clone(), self.dialled.clone());
        let dial = move |attempt: Attempt| {
            dialled.store(attempt.number, Ordering::Relaxed);
            let dialer = dialers[way.turn(attempt.number)].clone();
            async move { dialer.dial().await }
        };
        let session = tokio::select! {
            session = builder.connect(dial) => session?,
            () = strangers.notified(), if !known => return Err(SessionError::NoValidAnswer),
        };
        // Not yet told: it is the one that was dialled last.
        let carrier = Some(first.load(Ordering::Relaxed)).filter(|carrier| *carrier > 0);
        let carrier = carrier.unwrap_or_else(|| self.dialled.load(Ordering::Relaxed));
        let (took, server) = (began.elapsed(), self.way.address_of(carrier));
        let fields = [session_field(id), ("server", server.as_str().into()), ("took_s", took.as_secs_f64().into())];
        let text = format_args!("session {} up over {server} in {}", id.short(), text::age(took));
        self.log.event("session_up", &fields, text);
        Ok(session)
    }

    /// What the end of a session means for the program.
    pub(crate) fn failure(&self, error: &SessionError, consequence: Option<&str>) -> Failure {
        if matches!(error, SessionError::NotAdmitted | SessionError::ClosedByPeer(ByeReason::NotAdmitted)) {
            return match &self.own {
                Some(own) => {
                    let text = format!("the server does not accept this client's key ({})", own.public());
                    Failure::new(Exit::WrongKey, text).tip("its operator adds it to the file given with --clients")
                }
                None => Failure::new(Exit::WrongKey, "the server does not accept this client's key: it admits only some clients").tip(
                    "turbotunnel keygen FILE makes a key, --key FILE shows it, and the operator adds its public half to the file given with --clients",
                ),
            };
        }
        let server = self.way.address_of(self.dialled.load(Ordering::Relaxed));
        session_failure(error, &server, self.serving, consequence)
    }

    /// Keeps a session up until that makes no sense any more, and says why. `up` tells of the one that there is.
    pub(crate) async fn keep(&self, up: &watch::Sender<Option<Session>>) -> Failure {
        let mut known = false;
        loop {
            match self.connect_to(known).await {
                Ok(session) => {
                    known = true;
                    up.send_replace(Some(session.clone()));
                    let why = session.closed().await;
                    up.send_replace(None);
                    if matches!(why, SessionError::NotAdmitted | SessionError::ClosedByPeer(ByeReason::NotAdmitted)) {
                        return self.failure(&why, None);
                    }
                    // The user's own limit, and not the time that the server remembers a session for.
                    if matches!(why, SessionError::GaveUp(after) if after >= self.config.time_to_live) {
                        return self.failure(&why, None);
                    }
                    let id = session.id();
                    let fields = [session_field(id), ("reason", why.to_string().into())];
                    let id = id.short();
                    let text = format_args!("session {id} lost: {why}; what was open is cut; starting a new one");
                    self.log.event("session_lost", &fields, text);
                }
                // The user has said how long to try.
                Err(error) => return self.failure(&error, None),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells of carriers, and leaves the number of the first one that is up in `first`. A server that stays out of reach is told at first and then once a minute.
    fn teller(
        &self,
        id: SessionId,
        strangers: Arc<Notify>,
        first: Arc<AtomicU32>,
    ) -> impl Fn(Event) + Send + Sync + 'static {
        let (log, board) = (self.log.clone(), self.board.clone());
        let (way, fail_fast) = (self.way.clone(), self.config.fail_fast);
        // When a failure was told, how many strangers answered in a row, and whether a spare is there.
        let told = Mutex::new((None::<Instant>, 0, false));
        move |event| {
            board.handle_event(id, &event);
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (told_at, in_a_row, spare) = &mut *told;
            match event {
                Event::CarrierUp { number, gap, resent, .. } => {
                    (*told_at, *in_a_row) = (None, 0);
                    // The first one is told where it is waited for.
                    let Some(gap) = gap else {
                        first.store(number, Ordering::Relaxed);
                        return;
                    };
                    let fields = [
                        session_field(id),
                        ("carrier", number.into()),
                        ("gap_s", gap.as_secs_f64().into()),
                        ("resent", resent.into()),
                    ];
                    let (gap, resent) = (text::age(gap), text::count(resent as u64, "packet"));
                    let text = format_args!("carrier {number} up, resumed after {gap}, {resent} resent");
                    log.event("carrier_up", &fields, text);
                }
                Event::CarrierLost { number, reason, age, unacknowledged } => {
                    let fields = [
                        session_field(id),
                        ("carrier", number.into()),
                        ("age_s", age.as_secs_f64().into()),
                        ("reason", reason.to_string().into()),
                        ("unacknowledged", unacknowledged.into()),
                    ];
                    let then = if std::mem::take(spare) { "" } else { ", redialing" };
                    let text = format_args!("carrier {number} lost after {} ({reason}){then}", text::age(age));
                    log.event("carrier_lost", &fields, text);
                }
                Event::SpareReady { number, .. } => {
                    *spare = true;
                    if log.level() == Level::Verbose {
                        let fields = [session_field(id), ("carrier", number.into())];
                        log.event("spare_ready", &fields, format_args!("carrier {number} is ready, a spare"));
                    }
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
                        let error = plain(&error);
                        let fields = [
                            session_field(id),
                            ("dial", number.into()),
                            ("error", error.as_str().into()),
                            ("next_in_s", next_in.as_secs_f64().into()),
                        ];
                        let (server, next_in) = (way.address_of(number), text::age(next_in));
                        let text = format_args!(
                            "cannot reach {server}: {error}; trying on (dial {number}, next in {next_in})"
                        );
                        log.event("dial_failed", &fields, text);
                    }
                }
                // With `fail_fast` the error that follows says it.
                Event::Held { number, limit } if !fail_fast && told_at.is_none_or(|at| at.elapsed() >= REMIND) => {
                    *told_at = Some(Instant::now());
                    let fields = [session_field(id), ("carrier", number.into()), ("reason", limit.to_string().into())];
                    let server = way.address_of(number);
                    log.event("held", &fields, format_args!("{server} has no room yet: {limit}; waiting"));
                }
                // The end of the session is told where it is waited for.
                _ => {}
            }
        }
    }
}

fn session_field(id: SessionId) -> (&'static str, Value) {
    ("session", id.short().into())
}
