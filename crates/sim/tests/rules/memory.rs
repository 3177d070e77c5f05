//! What a session may hold, and how it comes to more.

use turbotunnel_sim::{Link, MIB, Reading, Side, Sim, Traffic, ms, secs};

/// Both sides write 30 MB on each of eight streams, and nobody reads. What that costs is what a stranger can cost.
#[test]
fn a_session_of_which_nothing_is_read_holds_little() {
    let never = Reading::Stops { after: 0, pause: secs(3_000) };
    let traffic = || Traffic::both(30 * MIB, 30 * MIB).client_reads(never).server_reads(never);
    let sim = Sim::new("a_session_of_which_nothing_is_read_holds_little").link(Link::new(ms(5)));
    let mut sim = (0..8).fold(sim, |sim, _| sim.traffic(traffic()));
    sim.run_for(secs(100));
    for tunnel in [sim.client(), sim.server()] {
        assert!(tunnel.memory() <= 5 << 20, "{} bytes", tunnel.memory());
    }
    assert!(sim.server_app().written() >= MIB, "as much as it may");
}

/// A path that holds 19 MB. What is read earns the place for what comes next soon enough: it is full as early as without limits.
#[test]
fn what_is_read_makes_room_for_a_long_and_fast_path() {
    let took = |limits: bool| {
        let mut sim = Sim::new("what_is_read_makes_room_for_a_long_and_fast_path")
            .link(Link::new(ms(150)).rate(62_500_000).capacity(32 << 20))
            .traffic(Traffic::download(300 * MIB));
        if !limits {
            sim = sim.config(|config| (config.first_buffered, config.first_unsent) = (64 << 20, 48 << 20));
        }
        sim.run_until_done(secs(60))
    };
    let (limited, unlimited) = (took(true), took(false));
    assert!(limited <= unlimited * 21 / 20, "{limited:?}, without limits {unlimited:?}");
}

/// Other sessions have used up the server's memory. This one goes on, with no more than it had at first, and gets it all when there is memory again.
#[test]
fn where_memory_is_scarce_a_session_goes_on_with_little() {
    let mut sim = Sim::new("where_memory_is_scarce_a_session_goes_on_with_little")
        .link(Link::new(ms(50)).rate(25 * MIB).capacity(4 << 20))
        .traffic(Traffic::upload(60 * MIB).server_reads(Reading::Stops { after: 20 * MIB, pause: secs(8) }))
        .traffic(Traffic::upload(60 * MIB).server_reads(Reading::Stops { after: 20 * MIB, pause: secs(8) }));
    sim.run_for(secs(6));
    let before = sim.server().memory();
    println!("{before} bytes are held");
    assert!(before > 6 << 20, "{before} bytes: it has earned more than it had at first");
    sim.with(Side::Server, |tunnel, now| tunnel.set_scarce(now, true));
    sim.run_for(secs(5));
    let scarce = sim.server().memory();
    assert!(scarce <= 6 << 20, "{scarce} bytes, {before} before");
    sim.with(Side::Server, |tunnel, now| tunnel.set_scarce(now, false));
    sim.run_until_done(secs(60));
}

/// What has arrived and found no room because memory was scarce is there as soon as it is so no longer: its sender has nothing more to say that would bring it.
#[test]
fn what_found_no_room_comes_when_memory_is_no_longer_scarce() {
    let never = Reading::Stops { after: 0, pause: secs(20) };
    let sim = Sim::new("what_found_no_room_comes_when_memory_is_no_longer_scarce").link(Link::new(ms(5)));
    // Reading the first earns the next three a place, and they fill more than a session may hold at first.
    let sim = sim.traffic(Traffic::upload(4 * MIB));
    let sim = (0..3).fold(sim, |sim, _| sim.traffic(Traffic::upload(MIB).server_reads(never).starts_at(secs(2))));
    let mut sim = sim.traffic(Traffic::upload(1_000).starts_at(secs(4)));
    sim.run_for(secs(3));
    assert!(sim.server().memory() >= 3 << 20, "{} bytes", sim.server().memory());
    sim.with(Side::Server, |tunnel, now| tunnel.set_scarce(now, true));
    sim.run_for(secs(2));
    assert_eq!(sim.server_app().received(), 4 * MIB, "there is no room for it");
    sim.with(Side::Server, |tunnel, now| tunnel.set_scarce(now, false));
    assert_eq!(sim.server_app().received(), 4 * MIB + 1_000, "at once");
    sim.run_until_done(secs(60));
}
