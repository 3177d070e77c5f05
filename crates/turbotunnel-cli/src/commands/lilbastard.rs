//! `lilbastard`: the proxy of [`crate::lilbastard`] as a program.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::address;
use crate::args::LilbastardArgs;
use crate::failure::{Exit, Failure, reason};
use crate::lilbastard::{Event, How, Lilbastard, Plan};
use crate::log::Log;
use crate::signals::{Signal, Signals};
use crate::text;

/// How long an address is tried before it counts as silent, when looking for a likely mistake.
const TRY: Duration = Duration::from_millis(300);

pub(super) async fn run(args: &LilbastardArgs, log: &Log) -> Result<(), Failure> {
    let (upstream, listen) =
        (args.upstream.as_ref().or(args.first.as_ref()), args.listen.as_ref().or(args.second.as_ref()));
    let Some((upstream, listen)) = upstream.zip(listen) else {
        return Err(Failure::new(Exit::Usage, "two addresses are needed: UPSTREAM LISTEN"));
    };
    let to = address::server(upstream)?;
    let at = address::listen(listen)?;
    let plan = plan(args)?;
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate])?;
    let cutter = bind(&at, &to, &plan, log).await.map_err(|(addr, error)| {
        let failure = Failure::cannot_listen(&addr, &error);
        match swapped(args, &to, &addr, &error) {
            Some(tip) => failure.tip(tip),
            None => failure,
        }
    })?;
    log.info(format_args!("listening on {}, passing to {to}, {}", cutter.local_addr(), describe(&plan)));
    signals.end().await
}

async fn bind(at: &[String], to: &str, plan: &Plan, log: &Log) -> Result<Lilbastard, (String, io::Error)> {
    let mut last = (String::new(), io::ErrorKind::InvalidInput.into());
    for addr in at {
        let several = !plan.then.is_empty();
        let events = log.clone();
        let upstream = to.to_owned();
        let on_event = move |event| match event {
            Event::Cut(cut) if several => events.info(format_args!("{cut} ({})", cut.how)),
            Event::Cut(cut) => events.info(cut),
            Event::Unreachable { client, error } => {
                events.info(format_args!("cannot pass {client} on to {upstream}: {}", reason(&error)));
            }
            Event::NotListening(error) => events.info(format_args!("cannot accept: {}; trying on", reason(&error))),
        };
        match Lilbastard::bind_with_events(addr, to, plan.clone(), on_event).await {
            Ok(cutter) => return Ok(cutter),
            Err(error) => last = (addr.clone(), error),
        }
        if !super::try_next_address(&last.1) {
            break;
        }
    }
    Err(last)
}

fn plan(args: &LilbastardArgs) -> Result<Plan, Failure> {
    let mut kinds = args.how.iter().map(|&how| How::from(how));
    let seed = match args.seed {
        Some(seed) => seed,
        None if args.jitter > 0.0 => super::random_seed()?,
        None => 0,
    };
    Ok(Plan {
        after: args.after,
        bytes: args.bytes,
        how: kinds.next().unwrap_or_default(),
        then: kinds.collect(),
        outage: args.outage,
        jitter: args.jitter,
        seed,
        delay: args.delay,
        rate: args.rate,
        ..Plan::default()
    })
}

/// `cutting (fin) after 20 s`
fn describe(plan: &Plan) -> String {
    let mut text = if plan.cuts() {
        let kinds: Vec<String> = std::iter::once(&plan.how).chain(&plan.then).map(How::to_string).collect();
        let after = plan.after.map(text::setting);
        let bytes = plan.bytes.map(text::binary_size);
        let when: Vec<String> = after.into_iter().chain(bytes).collect();
        format!("cutting ({}) after {}", kinds.join(", "), when.join(" or "))
    } else {
        "never cutting (-w or --bytes would)".to_owned()
    };
    if plan.jitter > 0.0 {
        text += &format!(" +-{} % (--seed {})", (plan.jitter * 100.0).round(), plan.seed);
    }
    if !plan.outage.is_zero() {
        text += &format!(", refusing for {} after that", text::setting(plan.outage));
    }
    text
}

/// The two addresses the wrong way round: what to say about it, if it looks like that.
fn swapped(args: &LilbastardArgs, to: &str, at: &str, error: &io::Error) -> Option<String> {
    let (upstream, listen) = args.first.as_ref().zip(args.second.as_ref())?;
    if error.kind() != io::ErrorKind::AddrInUse || !answers(at) || answers(to) {
        return None;
    }
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let first = words.iter().rposition(|word| word == upstream)?;
    let second = words.iter().rposition(|word| word == listen)?;
    words.swap(first, second);
    Some(format!(
        "the order is UPSTREAM LISTEN, and something answers on {at} but nothing on {to}:\nturbotunnel {}",
        words.join(" ")
    ))
}

fn answers(addr: &str) -> bool {
    use std::net::ToSocketAddrs;
    addr.to_socket_addrs().is_ok_and(|mut addrs| addrs.any(|addr| TcpStream::connect_timeout(&addr, TRY).is_ok()))
}
