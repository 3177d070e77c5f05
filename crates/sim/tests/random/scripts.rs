//! What a seed is turned into.

use std::time::Duration;

use turbotunnel::Counters;
use turbotunnel::secure::Records;
use turbotunnel_sim::{
    Deed, Dial, Fault, Fin, How, KIB, Link, MIB, Peers, Random, Reading, Script, Settings, Side, Suite, Traffic, Wear,
    When, ms, secs, us,
};

/// Bad luck ends after so many carriers (with Go programs, which have less patience, after half of that) ...
const UNLUCKY_CARRIERS: u32 = 12;
/// ... and so many dials, so that every session comes to its end.
const UNLUCKY_DIALS: u32 = 24;

pub(crate) fn any_fin(random: &mut Random) -> Fin {
    random.pick(&[Fin::Old, Fin::Mid, Fin::New])
}

fn link(random: &mut Random, peers: Peers) -> Link {
    let delay = us(random.pick(&[100, 1_000, 10_000, 50_000, 150_000]));
    let mut link = Link::new(delay).capacity(random.pick(&[8 * KIB, 64 * KIB, MIB]) as usize);
    link = match random.within(0..4) {
        0 => link,
        1 => link.rate(40 * KIB),
        2 => link.rate(300 * KIB),
        _ => link.rate(4 * MIB),
    };
    if random.chance(20) {
        link = link.jitter(delay);
    }
    if random.chance(10) && peers == Peers::Ours {
        let mut share = || random.within(0..40) as u32;
        link = link.loses(share()).reorders(share()).doubles(share());
    }
    link
}

fn faults(random: &mut Random, peers: Peers) -> Vec<(u32, Fault)> {
    // A Go client waits on a stalled carrier until its session is over, and a Go server goes on giving it its share of all packets.
    let (carriers, mut stalls) = match peers {
        Peers::Ours => (UNLUCKY_CARRIERS, u32::MAX),
        Peers::GoServer(_) => (UNLUCKY_CARRIERS / 2, 1),
        Peers::GoClient(_) => (UNLUCKY_CARRIERS / 2, 0),
    };
    let mut faults = Vec::new();
    for carrier in 1..=carriers {
        if random.chance(15) {
            continue;
        }
        let bytes = random.pick(&[30, 300, 3_000, 60_000]);
        let when = match random.within(0..3) {
            0 => When::Up(random.within(0..bytes)),
            1 => When::Down(random.within(0..bytes)),
            _ => When::After(random.pause(ms(0)..secs(4))),
        };
        let pause = random.pause(ms(100)..secs(6));
        let mut how = random.pick(&How::all(pause));
        if matches!(how, How::Stall | How::StallUp | How::StallDown) {
            if stalls == 0 {
                how = How::Rst;
            }
            stalls = stalls.saturating_sub(1);
        }
        faults.push((carrier, Fault::new(when, how)));
    }
    faults
}

fn dials(random: &mut Random, peers: Peers) -> Vec<(u32, Dial)> {
    let mut strays = 0;
    let mut dials = Vec::new();
    for dial in 1..=UNLUCKY_DIALS {
        if random.chance(65) {
            continue;
        }
        // A dial that fails ends a Go client.
        let mut choice = vec![Dial::Relay, Dial::AcceptAndClose];
        if !matches!(peers, Peers::GoClient(_)) {
            choice.extend([Dial::Refused, Dial::BlackHole, Dial::RelayRefused]);
            // Who is sent to the wrong server three times believes that his own has forgotten him.
            if strays < 2 {
                choice.push(Dial::Astray);
            }
        }
        let outcome = random.pick(&choice);
        strays += u32::from(outcome == Dial::Astray);
        dials.push((dial, outcome));
    }
    dials
}

fn deeds(random: &mut Random, peers: Peers) -> Vec<(Duration, Deed)> {
    let mut deeds = Vec::new();
    let ours = peers == Peers::Ours;
    if random.chance(30) && !matches!(peers, Peers::GoClient(_)) {
        for _ in 0..random.within(1..8) {
            deeds.push((random.pause(ms(0)..secs(40)), Deed::Redial));
        }
    }
    if random.chance(if ours { 15 } else { 5 }) {
        // A Go program that hears nothing for a minute gives up.
        let longest = if ours { secs(150) } else { secs(15) };
        let side = random.pick(&[Side::Client, Side::Server]);
        deeds.push((random.pause(ms(0)..secs(20)), Deed::Sleep(side, random.pause(ms(10)..longest))));
    }
    if random.chance(10) {
        deeds.push((random.pause(ms(0)..secs(20)), Deed::Strike(random.pick(&[How::Fin, How::Rst]))));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

fn reading(random: &mut Random) -> Reading {
    match random.within(0..4) {
        0 => Reading::Slow { bytes: random.within(500..20_000), every: random.pause(ms(1)..ms(100)) },
        1 => Reading::Stops { after: random.within(0..5_000), pause: random.pause(ms(10)..secs(20)) },
        _ => Reading::Prompt,
    }
}

fn traffic(random: &mut Random) -> Traffic {
    let most = random.pick(&[1, 100, 5_000, 200_000, 600_000]);
    let bytes = random.within(0..most) + 1;
    let traffic = match random.within(0..5) {
        0 => Traffic::upload(bytes),
        1 => Traffic::download(bytes),
        2 => Traffic::echo(bytes),
        3 => Traffic::both(bytes, random.within(0..most)),
        _ => Traffic::turns(random.within(1..30), random.within(1..300), random.within(1..3_000)),
    };
    let traffic = traffic.client_reads(reading(random)).server_reads(reading(random));
    let traffic = traffic.starts_at(random.pick(&[Duration::ZERO, ms(300), secs(5)]));
    if random.chance(30) { traffic.paced(random.within(1_000..10_000), random.pause(ms(1)..ms(50))) } else { traffic }
}

fn settings(random: &mut Random) -> Settings {
    let near = |random: &mut Random, before: u64| {
        if random.chance(50) { 0 } else { 0_u32.wrapping_sub(random.within(0..before) as u32) }
    };
    Settings {
        window: random.pick(&[4, 32, 1024, 8192]),
        send_buffer: random.pick(&[1_000, 20_000, 256 << 10]),
        first_unsent: random.pick(&[100, 30_000, 1 << 20]),
        max_buffered: random.pick(&[100, 30_000, 16 << 20]),
        time_to_live: secs(600),
        spare: false,
        counters: Counters {
            sn: near(random, 200),
            ts_ms: near(random, 60_000),
            stream_bytes: near(random, 300_000),
            streams: if random.chance(90) { 0 } else { (u32::MAX - 3) / 2 - random.within(11..20) as u32 },
        },
    }
}

/// A short session in which everything happens at once.
pub(crate) fn hectic(seed: u64, peers: impl FnOnce(&mut Random) -> Peers) -> Script {
    let mut random = Random::new(seed);
    let peers = peers(&mut random);
    let ours = peers == Peers::Ours;
    let streams = random.within(1..5);
    let mut all = Vec::new();
    for _ in 0..streams {
        let traffic = traffic(&mut random);
        // Towards a Go program a FIN is safe only when nothing is left to be read, or its answer is short and prompt.
        let traffic = match peers {
            Peers::Ours => traffic,
            Peers::GoServer(_) if streams == 1 && traffic.bytes()[1] < 10_000 => {
                traffic.client_reads(Reading::Prompt).server_reads(Reading::Prompt)
            }
            _ => traffic.finishes_last(),
        };
        all.push(if ours && random.chance(20) { traffic.opened_by_server() } else { traffic });
    }
    let own_links = random.chance(30);
    Script {
        peers,
        settings: if ours { settings(&mut random) } else { Settings::default() },
        link: link(&mut random, peers),
        links: if own_links { (1..=UNLUCKY_CARRIERS).map(|n| (n, link(&mut random, peers))).collect() } else { vec![] },
        dials: dials(&mut random, peers),
        faults: faults(&mut random, peers),
        deeds: deeds(&mut random, peers),
        traffic: all,
        ..Script::new(seed)
    }
}

/// As [`hectic`], and in the middle of it the server is killed and started again.
pub(crate) fn with_restart(seed: u64) -> Script {
    let peers = |random: &mut Random| if random.chance(50) { Peers::Ours } else { Peers::GoServer(any_fin(random)) };
    let mut script = hectic(seed, peers);
    let mut random = Random::new(!seed);
    let at = random.pause(ms(500)..secs(20));
    // It has to live until then, and the path must not be too bad for the client to find out.
    script.traffic.push(Traffic::both(10_000_000, 0).paced(100, ms(10)));
    script.deeds.retain(|(when, deed)| *when < at && !matches!(deed, Deed::Sleep(..)));
    script.deeds.push((at, Deed::RestartServer));
    script.link = Link { rate: None, loss: 0, ..script.link };
    script.links.clear();
    script
}

/// The same script with keys, as far as that makes sense, and what only carriers with keys can suffer: changed bits, and that they are old or worn.
pub(crate) fn with_keys(script: Script) -> Script {
    let mut random = Random::new(!script.seed.rotate_left(32));
    let (mut faults, mut wear) = (script.faults, Vec::new());
    for carrier in 1..=UNLUCKY_CARRIERS {
        if random.chance(15) {
            // In the handshake, or behind it.
            let most = random.pick(&[1_500, 5_000, 60_000]);
            let bytes = random.within(0..most);
            let when = if random.chance(50) { When::Up(bytes) } else { When::Down(bytes) };
            faults.push((carrier, Fault::new(when, How::Flip)));
        }
        if random.chance(30) {
            let used = random.pick(&[0, Records::MAX_RECORDS / 2, Records::MAX_RECORDS]);
            let used = used.saturating_sub(random.within(0..300));
            let lifetime = if random.chance(50) { random.pause(ms(0)..secs(60)) } else { Wear::default().lifetime };
            wear.push((carrier, Wear { lifetime, used }));
        }
    }
    // Sealed carriers cannot lose packets: where that happens to each of them, nothing gets through. It ends with the bad luck.
    let link = Link { loss: 0, reorder: 0, double: 0, ..script.link };
    Script { sealed: Some(random.pick(&Suite::ALL)), wear, faults, link, ..script }
}

/// The same script with a client that keeps a spare.
pub(crate) fn with_spare(script: Script) -> Script {
    Script { settings: Settings { spare: true, ..script.settings }, ..script }
}

/// How long a [`lasting`] session lasts.
pub(crate) const LASTING: Duration = Duration::from_secs(5 * 3600);

/// Hours in the life of a session: it works, it idles, and every half minute or so it loses a connection.
pub(crate) fn lasting(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    for carrier in 1..=1_000 {
        let when = match random.within(0..10) {
            0 => When::Up(random.within(0..2_000)),
            1 => When::Down(random.within(0..2_000)),
            _ => When::After(random.pause(ms(0)..secs(35))),
        };
        let pause = random.pause(ms(100)..secs(10));
        faults.push((carrier, Fault::new(when, random.pick(&How::all(pause)))));
        // What has survived that does not live much longer.
        faults.push((carrier, Fault::new(When::After(secs(40)), random.pick(&[How::Fin, How::Rst]))));
    }
    let mut dials = Vec::new();
    for dial in 1..=1_000 {
        if random.chance(10) {
            let outcomes = [Dial::Refused, Dial::BlackHole, Dial::AcceptAndClose, Dial::RelayRefused, Dial::Relay];
            dials.push((dial, random.pick(&outcomes)));
        }
    }
    let mut traffic = vec![
        // It is in use from the first minute to the last.
        Traffic::turns(LASTING.as_secs() / 20, 50, 50).paced(50, secs(20)),
        Traffic::both(1_000_000, 1_000_000).starts_at(LASTING - secs(120)),
    ];
    for _ in 0..8 {
        let bytes = random.within(200_000..2_200_000);
        let more = match random.within(0..4) {
            0 => Traffic::upload(bytes),
            1 => Traffic::download(bytes),
            2 => Traffic::echo(bytes / 2),
            _ => Traffic::both(bytes / 2, bytes / 2).paced(random.within(500..5_000), random.pause(ms(10)..ms(500))),
        };
        let start = random.pause(ms(0)..LASTING - secs(600));
        traffic.push(more.client_reads(reading(&mut random)).server_reads(reading(&mut random)).starts_at(start));
    }
    Script {
        settings: Settings {
            max_buffered: 16 << 20,
            send_buffer: 256 << 10,
            first_unsent: 1 << 20,
            window: 8192,
            ..settings(&mut random)
        },
        link: Link { rate: Some(4 * MIB), ..link(&mut random, Peers::Ours) },
        faults,
        dials,
        traffic,
        limit: LASTING + secs(3_600),
        ..Script::new(seed)
    }
}
