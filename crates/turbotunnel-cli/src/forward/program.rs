//! The program that started us, as a connection: what it reads is our standard output, what it writes our standard input.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::pump::Side;
use crate::stdio::{Stdin, Stdout};

/// Standard input and output as one connection.
pub(crate) struct Program {
    stdin: Stdin,
    stdout: Option<Stdout>,
    stopped: Option<oneshot::Receiver<()>>,
    failed: Option<&'static str>,
}

impl Program {
    /// Its input ends at the word of `stopped`, too.
    pub(crate) fn new(stdin: Stdin, stdout: Stdout, stopped: oneshot::Receiver<()>) -> Self {
        Self { stdin, stdout: Some(stdout), stopped: Some(stopped), failed: None }
    }

    /// What it was that failed last, in words.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        self.failed
    }
}

impl Side for Program {
    /// Who reads standard output may be gone while somebody else goes on writing to standard input.
    const IS_READ_TO_ITS_END: bool = false;

    /// Who has gone with us has nothing to be told.
    fn set_break_on_drop(&mut self, _on: bool) {}
}

impl AsyncRead for Program {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Told once; a sender that is gone has nothing to tell.
        match self.stopped.as_mut().map(|stopped| Pin::new(stopped).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            Some(Poll::Ready(Err(_))) => self.stopped = None,
            _ => {}
        }
        let outcome = ready!(Pin::new(&mut self.stdin).poll_read(cx, buf));
        if outcome.is_err() {
            self.failed = Some("cannot read standard input");
        }
        Poll::Ready(outcome)
    }
}

impl Program {
    fn told(&mut self, outcome: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if matches!(outcome, Poll::Ready(Err(_))) {
            self.failed = Some("cannot write standard output");
        }
        outcome
    }
}

impl AsyncWrite for Program {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stdout) = &mut self.stdout else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let outcome = ready!(Pin::new(stdout).poll_write(cx, bytes));
        if outcome.is_err() {
            self.failed = Some("cannot write standard output");
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stdout) = &mut self.stdout else { return Poll::Ready(Ok(())) };
        let outcome = Pin::new(stdout).poll_flush(cx);
        self.told(outcome)
    }

    /// Whoever reads our output sees its end, also while we still read his input.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let closed = self.stdout.take().map_or(Ok(()), Stdout::close);
        self.told(Poll::Ready(closed))
    }
}
