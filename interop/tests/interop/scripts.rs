//! Random scripts, both ways round: many streams at once, opened, written, read and ended in all ways, over paths that are cut or not.
//! `TURBOTUNNEL_INTEROP_SEED=7` plays one again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use turbotunnel::{Listener, Session};
use turbotunnel_interop::peers::Peers;
use turbotunnel_interop::runner::Outcome;
use turbotunnel_interop::script::{Path, Script, serve};
use turbotunnel_interop::seeds;

use crate::support::{Cuts, Cutter};

const NEEDS_SCRIPTS: Outcome = Outcome::NotForThese("needs programs that play scripts");
/// Scripts that are played at the same time: most of their time is waiting.
const AT_ONCE: usize = 8;
/// A script takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Our client plays, a Go server does what it is told.
pub(crate) async fn our_client_go_server(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_SCRIPTS;
    }
    play_all(peers, play_our_client).await.into()
}

/// A Go client plays, our server does what it is told.
pub(crate) async fn go_client_our_server(peers: Peers) -> Outcome {
    if !peers.take_options() {
        return NEEDS_SCRIPTS;
    }
    play_all(peers, play_go_client).await.into()
}

/// Plays the script of each seed, some at a time. The first that fails is printed with its seed.
async fn play_all<F>(peers: Peers, play: impl Fn(Peers, Script) -> F) -> String
where
    F: Future<Output = Result<u64, String>> + Send + 'static,
{
    let seeds = seeds();
    let (mut left, mut playing, mut cuts) = (seeds.iter(), JoinSet::new(), 0);
    loop {
        while playing.len() < AT_ONCE
            && let Some(&seed) = left.next()
        {
            let script = Script::new(seed);
            let played = timeout(PATIENCE, play(peers.clone(), script.clone()));
            playing.spawn(async move {
                let outcome = played.await.unwrap_or_else(|_| Err(format!("not done after {PATIENCE:?}")));
                outcome.map_err(|why| format!("TURBOTUNNEL_INTEROP_SEED={seed} fails: {why}\n{script}"))
            });
        }
        match playing.join_next().await {
            None => return format!("{} scripts, {cuts} cuts", seeds.len()),
            Some(outcome) => match outcome.expect("it does not panic") {
                Ok(more) => cuts += more,
                Err(why) => panic!("{why}"),
            },
        }
    }
}

async fn cutter(server: SocketAddr, script: &Script) -> Option<Cutter> {
    match script.path {
        Path::Calm => None,
        Path::CutByTime => Some(Cutter::start(server, Cuts::EverySecondOrSo(script.seed)).await),
        Path::CutByBytes => Some(Cutter::start(server, Cuts::Every20To60Kilobytes).await),
    }
}

async fn play_our_client(peers: Peers, script: Script) -> Result<u64, String> {
    let server = peers.script_server(script.fin, script.options).await;
    let cutter = cutter(server.addr, &script).await;
    let addr = cutter.as_ref().map_or(server.addr, |cutter| cutter.addr);
    let session = Session::builder().connect_tcp(addr).await.map_err(|e| e.to_string())?;
    let mut tasks = JoinSet::new();
    for task in script.tasks.clone() {
        let session = session.clone();
        tasks.spawn(async move {
            let played = task.play(async || Ok(session.open().await?)).await;
            played.map_err(|e| format!("{e}, on {}", task.line()))
        });
    }
    let mut result = Ok(());
    while let Some(played) = tasks.join_next().await {
        result = result.and(played.expect("it does not panic"));
    }
    let closed = match result {
        Ok(()) => session.close().await.map_err(|e| format!("close: {e}")),
        Err(_) => result,
    };
    closed.map_err(|e| format!("{e}\n{:?}\n{}", session.stats(), server.log()))?;
    let log = server.log();
    let counted = server.stop().await;
    let (done, failed) = (counted.get("tasks_done"), counted.get("tasks_failed"));
    if failed > 0 || done < script.kept() {
        return Err(format!("the server did {done} of {} streams, {failed} failed\n{log}", script.kept()));
    }
    Ok(cutter.map_or(0, |cutter| cutter.cuts()))
}

async fn play_go_client(peers: Peers, script: Script) -> Result<u64, String> {
    let listener = Listener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move { tell.send(serve(stream).await) });
        }
    });
    let cutter = cutter(addr, &script).await;
    let addr = cutter.as_ref().map_or(addr, |cutter| cutter.addr);
    let mut client = peers.script_client(addr, script.fin, script.options);
    let lines: String = script.tasks.iter().map(|task| task.line()).collect();
    let mut stdin = client.stdin.take().expect("nobody took it");
    stdin.write_all(lines.as_bytes()).await.map_err(|e| e.to_string())?;
    drop(stdin);
    let status = client.end().await;
    if !status.success() {
        return Err(format!("the Go client ended with {status}\n{}", client.log()));
    }
    let mut done = 0;
    while done < script.kept() {
        match timeout(Duration::from_secs(5), told.recv()).await {
            Ok(Some(Ok(whole))) => done += u64::from(whole),
            Ok(Some(Err(error))) => return Err(format!("our server: {error}\n{}", client.log())),
            Ok(None) | Err(_) => return Err(format!("our server did {done} of {}\n{}", script.kept(), client.log())),
        }
    }
    Ok(cutter.map_or(0, |cutter| cutter.cuts()))
}
