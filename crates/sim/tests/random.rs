//! Sessions with everything random: the path, the traffic, the settings, the peers, and what goes wrong.
//!
//! A failure prints the seed of its run; with `SIM_SEED` set a test runs that one only, with `SIM_TIMES=100` a hundred times as many.

use std::time::Duration;

use turbotunnel_sim::{
    Counts, Dial, Fault, Fin, Go, How, KIB, Link, MIB, Random, Reading, Sim, Traffic, When, ms, secs,
};

/// Bad luck ends after so many carriers (with Go programs, which have less patience, after half of that) ...
const UNLUCKY_CARRIERS: u32 = 12;
/// ... and so much time, so that every session comes to its end.
const UNLUCKY_TIME: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    Ours,
    GoServer,
    GoClient,
}

fn random_link(random: &mut Random) -> Link {
    let delay = Duration::from_micros(random.pick(&[100, 1_000, 10_000, 50_000, 150_000]));
    let link = Link::new(delay).capacity(random.pick(&[8 * KIB, 64 * KIB, MIB]) as usize);
    match random.within(0..4) {
        0 => link,
        1 => link.rate(40 * KIB),
        2 => link.rate(300 * KIB),
        _ => link.rate(4 * MIB),
    }
}

fn random_faults(peers: Peers) -> impl FnMut(u32, &mut Random) -> Vec<Fault> {
    let mut stalls = 0;
    move |carrier, random| {
        let unlucky = if peers == Peers::Ours { UNLUCKY_CARRIERS } else { UNLUCKY_CARRIERS / 2 };
        if carrier > unlucky || random.chance(15) {
            return Vec::new();
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
            stalls += 1;
            // A Go client waits on such a carrier until its session is over, and a Go server goes on giving it its share of all packets.
            let most = match peers {
                Peers::Ours => u32::MAX,
                Peers::GoServer => 1,
                Peers::GoClient => 0,
            };
            if stalls > most {
                how = How::DeadLate(pause);
            }
        }
        vec![Fault::new(when, how)]
    }
}

fn random_dials(peers: Peers) -> impl FnMut(u32, Duration, &mut Random) -> Dial {
    let mut strays = 0;
    move |_, at, random| {
        if at > UNLUCKY_TIME || random.chance(65) {
            return Dial::Connect;
        }
        // A dial that fails ends a Go client.
        if peers == Peers::GoClient {
            return random.pick(&[Dial::Connect, Dial::AcceptAndClose]);
        }
        let mut dials = vec![Dial::Refused, Dial::BlackHole, Dial::AcceptAndClose, Dial::RelayRefused];
        // Who is sent to the wrong server three times believes that his own has forgotten him.
        if strays < 2 {
            dials.push(Dial::Astray);
        }
        let dial = random.pick(&dials);
        strays += u32::from(dial == Dial::Astray);
        dial
    }
}

fn random_reading(random: &mut Random) -> Reading {
    match random.within(0..4) {
        0 => Reading::Slow { bytes: random.within(500..20_000), every: random.pause(ms(1)..ms(100)) },
        1 => Reading::Stops { after: random.within(0..5_000), pause: random.pause(ms(10)..secs(20)) },
        _ => Reading::Prompt,
    }
}

fn random_traffic(random: &mut Random) -> Traffic {
    let most = random.pick(&[1, 100, 5_000, 200_000, 600_000]);
    let bytes = random.within(0..most) + 1;
    let traffic = match random.within(0..5) {
        0 => Traffic::upload(bytes),
        1 => Traffic::download(bytes),
        2 => Traffic::echo(bytes),
        3 => Traffic::both(bytes, random.within(0..most)),
        _ => Traffic::turns(random.within(1..30), random.within(1..300), random.within(1..3_000)),
    };
    let traffic = traffic.client_reads(random_reading(random)).server_reads(random_reading(random));
    let traffic = traffic.starts_at(random.pick(&[Duration::ZERO, ms(300), secs(5)]));
    if random.chance(30) { traffic.paced(random.within(1_000..10_000), random.pause(ms(1)..ms(50))) } else { traffic }
}

fn random_sim(name: &str, seed: u64, peers: Peers) -> Sim {
    let mut sim = Sim::with_seed(name, seed);
    let mut random = sim.random().fork();
    let link = random_link(&mut random);
    let own_links = random.chance(30);
    let mut links = random.fork();
    sim = sim
        .links(move |_| if own_links { random_link(&mut links) } else { link })
        .random_carriers(random_faults(peers))
        .random_dials(random_dials(peers));
    let streams = random.within(1..5);
    for _ in 0..streams {
        let traffic = random_traffic(&mut random);
        let server_opens = random.chance(20) && peers == Peers::Ours;
        // Towards a Go program a FIN is safe only when nothing is left to be read, or its answer is short and prompt.
        let traffic = match peers {
            Peers::Ours => traffic,
            Peers::GoServer if streams == 1 && traffic.bytes()[1] < 10_000 => {
                traffic.client_reads(Reading::Prompt).server_reads(Reading::Prompt)
            }
            _ => traffic.finishes_last(),
        };
        sim = sim.traffic(if server_opens { traffic.opened_by_server() } else { traffic });
    }
    match peers {
        Peers::Ours => {
            let near_wrap = 0_u32.wrapping_sub(random.within(0..200) as u32);
            let sn = random.pick(&[0, near_wrap]);
            let window = random.pick(&[4, 32, 1024, 8192]);
            let send_buffer = random.pick(&[1_000, 20_000, 256 << 10]);
            sim.config(|config| {
                config.initial_sn = sn;
                config.window = window;
                config.send_buffer = send_buffer;
            })
        }
        Peers::GoServer => sim.go_server(Go::new(random.pick(&[Fin::Old, Fin::Mid, Fin::New]))),
        Peers::GoClient => sim.go_client(Go::new(random.pick(&[Fin::Old, Fin::Mid, Fin::New]))),
    }
}

/// Runs a session to its end; returns what went wrong with its carriers, and how long it took.
fn run(name: &str, seed: u64, peers: Peers) -> (Counts, Duration) {
    let mut sim = random_sim(name, seed, peers);
    let twins = sim.random().chance(30) && peers != Peers::GoClient;
    while !sim.started() || !sim.is_done() {
        let pause = sim.random().pause(ms(1)..secs(2));
        sim.run_for(pause);
        if twins && sim.elapsed() < UNLUCKY_TIME && sim.random().chance(30) {
            sim.redial();
        }
        assert!(sim.elapsed() < secs(600), "not done after ten minutes");
        assert_eq!(sim.client_app().failure().or(sim.server_app().failure()), None);
    }
    (sim.counts().clone(), sim.elapsed())
}

/// `SIM_SEED`, or `count` of them, times `SIM_TIMES`.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    number("SIM_SEED").map_or_else(|| (0..count * number("SIM_TIMES").unwrap_or(1)).collect(), |seed| vec![seed])
}

fn run_all(name: &str, count: u64, peers: Peers) -> Counts {
    let mut counts = Counts::default();
    let seeds = seeds(count);
    let mut slowest = (Duration::ZERO, 0);
    for seed in &seeds {
        let (run, took) = run(name, *seed, peers);
        counts.add(&run);
        slowest = slowest.max((took, *seed));
    }
    eprintln!("slowest: {slowest:?}, {counts:?}");
    counts
}

/// Nothing that can happen to a carrier or a dial costs a session between peers of ours a byte.
#[test]
fn random_faults_between_peers_of_ours() {
    let counts = run_all("random_faults_between_peers_of_ours", 3_000, Peers::Ours);
    if std::env::var_os("SIM_SEED").is_none() {
        let missing: Vec<_> = counts.missing().collect();
        assert!(missing.is_empty(), "these never happened: {missing:?}");
    }
}

/// A client of ours against the Go server, which drops packets, says no HELLO, and may stop writing at a FIN.
#[test]
fn random_faults_with_a_go_server() {
    run_all("random_faults_with_a_go_server", 800, Peers::GoServer);
}

/// The Go client, which redials at once and dies of a failed dial, against a server of ours.
#[test]
fn random_faults_with_a_go_client() {
    run_all("random_faults_with_a_go_client", 800, Peers::GoClient);
}

/// A seed is all there is to a run.
#[test]
fn two_runs_of_a_seed_are_equal() {
    for (seed, peers) in [(1, Peers::Ours), (2, Peers::GoServer), (3, Peers::GoClient), (4, Peers::Ours)] {
        let digest = |seed| {
            let mut sim = random_sim("two_runs_of_a_seed_are_equal", seed, peers);
            sim.run_for(secs(20));
            sim.digest()
        };
        assert_eq!(digest(seed), digest(seed));
        assert_ne!(digest(seed), digest(seed + 100));
    }
}
