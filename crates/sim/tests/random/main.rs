//! Sessions with everything random: the path, the traffic, the settings, the peers, and what goes wrong.
//!
//! A failure is made smaller and printed as the code of a test, with the seed of its run. `SIM_SEED=7` plays one seed only and shows all of it,
//! `SIM_TIMES=100` plays a hundred times as many.

mod scripts;

use turbotunnel_sim::{Counts, Peers, Random, Script, Totals, play_all, secs, seeds};

use crate::scripts::{LASTING, any_fin, hectic, lasting, with_keys, with_restart, with_spare};

fn play(name: &str, count: u64, script: impl Fn(u64) -> Script + Sync) -> Totals {
    let totals = play_all(name, &seeds(count), script);
    let hours = totals.time.as_secs_f64() / 3600.0;
    let Totals { runs, bytes, cuts, counts, slowest, .. } = &totals;
    eprintln!("{name}: {runs} sessions, {hours:.0} hours, {cuts} cuts, {bytes} bytes, slowest {slowest:?}, {counts:?}");
    totals
}

/// A run in which a kind of fault never happened says nothing about it.
fn assert_all_happened(counts: &Counts, but: &[&str]) {
    if std::env::var_os("SIM_SEED").is_none() {
        let missing: Vec<_> = counts.missing().filter(|kind| !but.contains(kind)).collect();
        assert!(missing.is_empty(), "these never happened: {missing:?}");
    }
}

/// Nothing that can happen to a carrier or a dial costs a session between peers of ours a byte.
#[test]
fn random_faults_between_peers_of_ours() {
    let totals = play("random_faults_between_peers_of_ours", 4_000, |seed| hectic(seed, |_| Peers::Ours));
    assert_all_happened(&totals.counts, &["server restart"]);
    if totals.runs >= 4_000 {
        assert!(totals.counts.of("large packet") > 100, "{} large packets", totals.counts.of("large packet"));
    }
}

/// A client of ours against the Go server, which drops packets, says no HELLO, and may stop writing at a FIN.
#[test]
fn random_faults_with_a_go_server() {
    let script = |seed| hectic(seed, |random: &mut Random| Peers::GoServer(any_fin(random)));
    let totals = play("random_faults_with_a_go_server", 1_000, script);
    assert_eq!(totals.counts.of("large packet"), 0, "a Go program cuts them off");
}

/// The Go client, which redials at once and dies of a failed dial, against a server of ours.
#[test]
fn random_faults_with_a_go_client() {
    let script = |seed| hectic(seed, |random: &mut Random| Peers::GoClient(any_fin(random)));
    let totals = play("random_faults_with_a_go_client", 1_000, script);
    assert_eq!(totals.counts.of("large packet"), 0, "a Go program cuts them off");
}

/// In the middle of all that the server is started again. The client finds out, and nothing of the new server gets into its streams.
#[test]
fn random_faults_and_a_server_restart() {
    play("random_faults_and_a_server_restart", 500, with_restart);
}

/// Weeks of sessions that live for hours and lose a connection every half minute. With `SIM_TIMES=10`, as in CI, a year of them.
#[test]
fn sessions_that_last() {
    let totals = play("sessions_that_last", 200, lasting);
    if totals.runs >= 2_000 {
        let hours = totals.time.as_secs() / 3600;
        assert!(hours >= 10_000, "only {hours} session-hours");
        assert!(totals.cuts >= 1_000_000, "only {} cuts", totals.cuts);
        assert!(totals.bytes >= 20_000_000_000, "only {} bytes", totals.bytes);
    }
}

/// With keys: the scripts of the same seeds, on sealed carriers whose bits are changed, and that become old and worn.
#[test]
fn sealed_random_faults() {
    let totals = play("sealed_random_faults", 2_000, |seed| with_keys(hectic(seed, |_| Peers::Ours)));
    assert_all_happened(&totals.counts, &["server restart"]);
    if totals.runs >= 2_000 {
        let only_sealed = ["bit flipped", "handshake failed", "third message refused", "worn", "old"];
        let missing: Vec<_> = only_sealed.into_iter().filter(|kind| totals.counts.of(kind) == 0).collect();
        assert!(missing.is_empty(), "these never happened: {missing:?}");
    }
}

/// A server that was started again knows its keys and no session.
#[test]
fn sealed_random_faults_and_a_server_restart() {
    let script = |seed| with_keys(Script { peers: Peers::Ours, ..with_restart(seed) });
    play("sealed_random_faults_and_a_server_restart", 250, script);
}

/// As [`sessions_that_last`].
#[test]
fn sealed_sessions_that_last() {
    play("sealed_sessions_that_last", 20, |seed| with_keys(lasting(seed)));
}

/// A client that keeps a spare: the scripts of the same seeds, every other one with keys.
#[test]
fn random_faults_with_a_spare() {
    let script = |seed: u64| with_spare(hectic(seed, |_| Peers::Ours));
    let either = |seed: u64| if seed.is_multiple_of(2) { script(seed) } else { with_keys(script(seed)) };
    let totals = play("random_faults_with_a_spare", 2_000, either);
    assert_all_happened(&totals.counts, &["server restart"]);
    if totals.runs >= 2_000 {
        assert!(totals.counts.of("spare used") > 500, "{} spares were used", totals.counts.of("spare used"));
    }
}

/// A spare finds out that the server was started again, or makes no difference to that.
#[test]
fn random_faults_with_a_spare_and_a_server_restart() {
    play("random_faults_with_a_spare_and_a_server_restart", 250, |seed| with_spare(with_restart(seed)));
}

/// As [`sessions_that_last`].
#[test]
fn sessions_that_last_with_a_spare() {
    play("sessions_that_last_with_a_spare", 40, |seed| with_spare(lasting(seed)));
}

/// A seed is all there is to a run.
#[test]
fn two_runs_of_a_seed_are_equal() {
    let peers = [Peers::Ours, Peers::GoServer(turbotunnel_sim::Fin::Mid), Peers::GoClient(turbotunnel_sim::Fin::Old)];
    for seed in 0..300 {
        let digest = |seed: u64| {
            let mut sim = hectic(seed, |_| peers[seed as usize % 3]).sim("two_runs_of_a_seed_are_equal");
            sim.run_for(secs(20));
            sim.digest()
        };
        assert_eq!(digest(seed), digest(seed));
        assert_ne!(digest(seed), digest(seed + 300));
    }
    for seed in 0..100 {
        let digest = || {
            let mut sim = with_keys(hectic(seed, |_| Peers::Ours)).sim("two_runs_of_a_seed_are_equal");
            sim.run_for(secs(20));
            sim.digest()
        };
        assert_eq!(digest(), digest(), "sealed: to the last byte of each handshake");
    }
    let mut longer = lasting(1);
    longer.faults.truncate(20);
    assert_eq!(longer.run("a").digest, longer.run("b").digest);
    assert!(longer.run("c").took >= LASTING - secs(120));
}
