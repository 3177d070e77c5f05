//! A carrier that is a command: what it reads from its standard input and writes to its standard output. Its standard error is ours.
//!
//! On Unix it is run by `sh -c`, in a process group of its own: an interrupt at the terminal, which means the program that holds the session, does not cut its carrier, and
//! whatever the shell has started ends with it. It cannot ask at the terminal for a password. Elsewhere it is run by `cmd /C`.

use std::io;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Sleep;

use crate::words;

/// A command that has closed its output ends within this; how it ended is waited for so long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A running command.
///
/// Dropping it kills the command and, on Unix, what runs in its process group; tokio's runtime reaps it.
pub(crate) struct Exec {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Runs from the end of the output.
    last_word: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// Runs the command. That it runs is all that is known: a shell that finds no such command ends with status 127.
pub(crate) fn run(command: &str) -> io::Result<Exec> {
    let mut child = shell(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| words::during("the shell cannot be run", &error))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(words::other("the command has no pipes"));
    };
    Ok(Exec { child, stdin: Some(stdin), stdout, last_word: None, ended: false })
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).process_group(0);
    shell
}

#[cfg(windows)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    // As it is: cmd has rules of its own for quotes.
    shell.arg("/C").raw_arg(command);
    shell
}

impl Exec {
    /// The output has ended: in order if the command ends with status 0, or goes on for more than a second.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let last_word = self.last_word.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORD)));
        let outcome = match pin!(self.child.wait()).poll(cx) {
            Poll::Ready(status) => status.and_then(told),
            Poll::Pending => {
                ready!(last_word.as_mut().poll(cx));
                Ok(())
            }
        };
        self.ended = true;
        self.last_word = None;
        Poll::Ready(outcome)
    }
}

fn told(status: ExitStatus) -> io::Result<()> {
    let text = match status.code() {
        Some(0) => return Ok(()),
        Some(127) => "the command ended with status 127: there is no such command".to_owned(),
        Some(code) => format!("the command ended with status {code}"),
        None => format!("the command was ended: {status}"),
    };
    Err(io::Error::new(io::ErrorKind::BrokenPipe, text))
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Not reaped yet, so the number is still its own. One that has ended by itself has left behind only what it wanted to leave.
        #[cfg(unix)]
        if let Some(group) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            // It may have ended just now.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl AsyncRead for Exec {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.last_word.is_none() && !self.ended {
            ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_ended(cx)
    }
}

impl AsyncWrite for Exec {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        // A pipe is closed by letting go of it.
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
