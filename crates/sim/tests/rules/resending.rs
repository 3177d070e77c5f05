//! What is sent more than once, and when.

use turbotunnel_sim::{Fin, Go, How, KIB, Link, MIB, Side, Sim, Traffic, Way, ms, secs};

/// TCP loses nothing while it lives, and feeding a slow link twice makes it slower. Between peers of ours nothing goes again by timeout.
#[test]
fn no_packet_is_resent_while_the_carrier_lives() {
    for (delay, rate) in [(ms(1), None), (ms(150), None), (ms(20), Some(40 * KIB)), (ms(150), Some(40 * KIB))] {
        let mut link = Link::new(delay).capacity(64 << 10);
        link.rate = rate;
        let mut sim = Sim::new("no_packet_is_resent_while_the_carrier_lives")
            .link(link)
            .traffic(Traffic::both(400_000, 400_000))
            .traffic(Traffic::turns(20, 100, 1_000));
        sim.run_until_done(secs(60));
        for tunnel in [sim.client(), sim.server()] {
            let (kcp, _) = tunnel.engine_stats();
            // The first flight fills the buffers of a slow link before the round trip is known to have grown.
            assert!(kcp.resent_probe <= u64::from(rate.is_some()), "{delay:?}, {rate:?}: {kcp:?}");
            assert_eq!(kcp.resent(), kcp.resent_probe, "{delay:?}, {rate:?}: {kcp:?}");
        }
        assert_eq!(sim.client_stats().carriers, 1, "{delay:?}, {rate:?}");
    }
}

/// A receiver may drop what it has no memory for. If that is the last segment, nothing after it tells; the tail probe repeats it.
#[test]
fn the_tail_probe_repeats_what_a_receiver_had_to_drop() {
    let mut sim = Sim::new("the_tail_probe_repeats_what_a_receiver_had_to_drop")
        .link(Link::new(ms(50)))
        .traffic(Traffic::upload(100).starts_at(secs(1)).stays_open());
    sim.run_for(ms(999));
    sim.lose(Way::Up, 1);
    sim.run_until_done(secs(10));
    let (kcp, _) = sim.client().engine_stats();
    assert_eq!((kcp.resent_probe, kcp.resent_timeout), (1, 0));
    // 4 srtt + 1 s after it was sent.
    assert!((ms(2_300)..=ms(2_600)).contains(&sim.elapsed()), "{:?}", sim.elapsed());
}

/// What is missing in the middle goes again as soon as something later is acknowledged.
#[test]
fn a_gap_is_filled_as_soon_as_it_is_known() {
    let mut sim = Sim::new("a_gap_is_filled_as_soon_as_it_is_known")
        .link(Link::new(ms(50)))
        .traffic(Traffic::upload(20_000).starts_at(secs(1)).stays_open());
    sim.run_for(ms(999));
    sim.lose(Way::Up, 1);
    sim.run_until_done(secs(10));
    assert!(sim.elapsed() <= ms(1_160), "one and a half round trips, took until {:?}", sim.elapsed());
}

/// A Go peer drops what overruns its queue of 32 packets. Until it has answered, no more than that is on its way: on each carrier.
#[test]
fn go_peers_start_with_32_segments() {
    let mut sim = Sim::new("go_peers_start_with_32_segments")
        .link(Link::new(ms(50)))
        .go_server(Go::new(Fin::Old))
        .tapped()
        .every(secs(1), How::Rst)
        .traffic(Traffic::upload(2 * MIB).finishes_last());
    sim.run_until_done(secs(60));
    for carrier in 1..=sim.dialled() as u32 {
        let on = |way| sim.seen().iter().filter(move |seen| seen.carrier == carrier && seen.way == way);
        let Some(answer) = on(Way::Down).map(|seen| seen.at + ms(50)).min() else { continue };
        let before: usize = on(Way::Up).filter(|seen| seen.at < answer).map(|seen| seen.pushes().count()).sum();
        assert!(before <= 32, "{before} segments on carrier {carrier} before it was heard on");
    }
}

/// Then it learns: what the Go server drops costs little, and everything arrives.
#[test]
fn a_go_server_that_drops_loses_nothing() {
    for capacity in [8 << 10, 1 << 20] {
        let mut sim = Sim::new("a_go_server_that_drops_loses_nothing")
            .link(Link::new(ms(20)).rate(4 * MIB).capacity(capacity))
            .go_server(Go::new(Fin::Old))
            .traffic(Traffic::echo(4 * MIB).finishes_last());
        sim.run_until_done(secs(60));
        let (kcp, _) = sim.client().engine_stats();
        assert!(kcp.resent() < kcp.segments_sent / 4, "{} of {} went again", kcp.resent(), kcp.segments_sent);
    }
}

/// Carriers are cut all the time: only what was on its way at the cuts is sent twice.
#[test]
fn a_cut_costs_no_more_than_what_was_on_its_way() {
    let mut sim = Sim::new("a_cut_costs_no_more_than_what_was_on_its_way")
        .link(Link::new(ms(50)).rate(MIB).capacity(64 << 10))
        .every(secs(1), How::Rst)
        .traffic(Traffic::upload(8 * MIB));
    sim.run_until_done(secs(20));
    let (kcp, _) = sim.client().engine_stats();
    let cuts = sim.client_stats().cuts;
    // The pipe's buffers and what lies beyond in the window when it is full.
    let most = cuts * (MIB / 10 + (64 << 10)) / 1_376;
    assert!(kcp.resent() <= most, "{} segments went again in {cuts} cuts", kcp.resent());
    assert!(crate::ups(&sim, Side::Client).len() as u64 == cuts + 1);
}
