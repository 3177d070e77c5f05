//! Signals: caught from the moment [`Signals`] is made, so that none is missed between "listening" and the wait for it.

use std::io;

use crate::failure::{Exit, Failure, reason};

/// What somebody wants of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGHUP: dial anew, read lists again.
    Hangup,
    /// SIGUSR1: a line of numbers.
    Statistics,
}

/// The signals that are caught. Those that are not keep their usual effect. On systems without a signal it never comes.
pub(crate) struct Signals {
    #[cfg(unix)]
    caught: Vec<(Signal, tokio::signal::unix::Signal)>,
    #[cfg(windows)]
    ctrl_c: tokio::signal::windows::CtrlC,
}

impl Signals {
    pub(crate) fn catch(wanted: &[Signal]) -> Result<Self, Failure> {
        Self::new(wanted)
            .map_err(|e| Failure::new(Exit::Unexpected, format!("cannot wait for signals: {}", reason(&e))))
    }

    #[cfg(unix)]
    fn new(wanted: &[Signal]) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |&wanted: &Signal| {
            let kind = match wanted {
                Signal::Interrupt => SignalKind::interrupt(),
                Signal::Terminate => SignalKind::terminate(),
                Signal::Hangup => SignalKind::hangup(),
                Signal::Statistics => SignalKind::user_defined1(),
            };
            Ok((wanted, signal(kind)?))
        };
        Ok(Self { caught: wanted.iter().map(catch).collect::<io::Result<_>>()? })
    }

    #[cfg(windows)]
    fn new(_: &[Signal]) -> io::Result<Self> {
        Ok(Self { ctrl_c: tokio::signal::windows::ctrl_c()? })
    }

    #[cfg(not(any(unix, windows)))]
    fn new(_: &[Signal]) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next one. Cancel-safe.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, caught) in &mut self.caught {
                if caught.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next one. Cancel-safe.
    #[cfg(windows)]
    pub(crate) async fn next(&mut self) -> Signal {
        self.ctrl_c.recv().await;
        Signal::Interrupt
    }

    /// The next one. Cancel-safe.
    #[cfg(not(any(unix, windows)))]
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::pending().await
    }

    /// Waits for the end of a program that has nothing to finish.
    pub(crate) async fn at_once(&mut self) -> Failure {
        loop {
            match self.next().await {
                Signal::Interrupt => return Failure::interrupted(),
                Signal::Terminate => return Failure::terminated(),
                Signal::Hangup | Signal::Statistics => {}
            }
        }
    }

    /// Waits for the end of a program that runs until told otherwise: well at SIGTERM, with 130 at Ctrl-C.
    pub(crate) async fn end(&mut self) -> Result<(), Failure> {
        loop {
            match self.next().await {
                Signal::Interrupt => return Err(Failure::interrupted()),
                Signal::Terminate => return Ok(()),
                Signal::Hangup | Signal::Statistics => {}
            }
        }
    }
}
