//! The words of a command line: subcommands, flags, times, sizes, addresses.
//!
//! Held to: nothing that a user can type does anything but be understood or refused, with a message and exit code 2; an address that was understood means
//! the same when it is read again; a time or a size that was understood can be worked with; the limits that `lilbastard` makes of it stay within their
//! share.

use clap::Parser;
use turbotunnel_cli::address;
use turbotunnel_cli::args::{Cli, Command, LilbastardArgs};
use turbotunnel_cli::failure::{Exit, Failure};
use turbotunnel_cli::lilbastard::{How, Plan};
use turbotunnel_cli::text;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Words are separated by line ends, as they may hold anything else.
    let Ok(line) = std::str::from_utf8(data) else { return };
    let words = line.split('\n');
    for word in words.clone() {
        check_address(word);
    }
    match Cli::try_parse_from(std::iter::once("turbotunnel").chain(words)) {
        Ok(cli) => check_command(&cli),
        Err(refused) => assert!(!refused.to_string().is_empty(), "refused without a word"),
    }
}

fn check_address(word: &str) {
    match address::server(word) {
        Ok(server) => {
            assert_eq!(address::server(&server).as_ref(), Ok(&server), "read again");
            assert_eq!(address::server(&format!("tcp://{server}")).as_ref(), Ok(&server), "with its scheme");
            assert_eq!(address::listen(&server), Ok(vec![server.clone()]), "what can be dialled can be listened on");
            let (host, port) = server.rsplit_once(':').expect("HOST:PORT");
            assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0), "{server:?}");
        }
        Err(failure) => check_refusal(&failure),
    }
    match address::listen(word) {
        Ok(addresses) => {
            assert!(!addresses.is_empty(), "{word:?} is understood and is nowhere");
            for address in addresses {
                assert_eq!(address::listen(&address), Ok(vec![address.clone()]), "read again");
            }
        }
        Err(failure) => check_refusal(&failure),
    }
}

fn check_refusal(failure: &Failure) {
    assert_eq!(failure.exit, Exit::Usage);
    assert!(!failure.error.is_empty() && failure.tip.is_some(), "{failure:?} says nothing");
    assert!(failure.to_string().starts_with("error: "));
}

fn check_command(cli: &Cli) {
    let _ = cli.level();
    match &cli.command {
        Command::EchoServer(args) => {
            assert!(!args.listen.is_empty() && args.serving.session_timeout.is_none_or(|limit| !limit.is_zero()));
            let _ = (args.serving.session_timeout.map(text::setting), text::age(args.serving.drain));
        }
        Command::EchoClient(args) => {
            assert!(!args.session_timeout.is_zero() && args.keepalive.0.is_none_or(|time| !time.is_zero()));
        }
        Command::Lilbastard(args) => check_lilbastard(args),
        Command::Demo(args) => {
            assert!(args.size > 0 && !args.time.is_zero() && !args.after.is_zero() && !args.how.is_empty());
            let _ = (text::size(args.size), text::binary_size(args.size));
        }
        _ => {}
    }
}

fn check_lilbastard(args: &LilbastardArgs) {
    assert!((0.0..=1.0).contains(&args.jitter) && args.rate != Some(0));
    assert!(
        (args.first.is_some() && args.second.is_some()) || (args.upstream.is_some() && args.listen.is_some()),
        "two addresses"
    );
    let mut hows = args.how.iter().map(|how| How::from(*how));
    let plan = Plan {
        after: args.after,
        bytes: args.bytes,
        how: hows.next().expect("there is a default"),
        then: hows.collect(),
        jitter: args.jitter,
        seed: args.seed.unwrap_or(0),
        ..Plan::default()
    };
    for connection in [1, 2, u64::MAX] {
        let limits = plan.limits(connection);
        let _ = plan.how(connection);
        if let (Some(after), Some(drawn)) = (args.after, limits.after) {
            assert!(drawn <= after * 2 + after / 1000, "{drawn:?} for {after:?}");
        }
        assert_eq!(limits.bytes.is_some(), args.bytes.is_some());
    }
}
