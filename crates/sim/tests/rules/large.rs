//! Large segments: where they go, and that they do no harm where they cannot.

use turbotunnel_sim::{Fault, Fin, Go, How, Link, Sim, Traffic, When, ms, secs};

const MEGABYTE: u64 = 1_000_000;

/// 5 MB/s, 20 ms there and back.
fn path(name: &str) -> Sim {
    Sim::new(name).link(Link::new(ms(10)).rate(5 * MEGABYTE))
}

#[test]
fn peers_of_ours_fill_a_fast_path_with_large_packets() {
    let mut sim =
        path("peers_of_ours_fill_a_fast_path_with_large_packets").traffic(Traffic::both(MEGABYTE * 8, MEGABYTE * 8));
    sim.run_until_done(secs(10));
    let large = sim.counts().of("large packet");
    // Nine tenths of what comes after the first megabyte, either way.
    assert!(large >= 2 * 7 * MEGABYTE / 15_136 * 9 / 10, "{large} large packets");
}

#[test]
fn a_go_program_gets_none() {
    let name = "a_go_program_gets_none";
    let traffic = || Traffic::both(MEGABYTE * 4, MEGABYTE * 4);
    for sim in [path(name).go_server(Go::new(Fin::New)), path(name).go_client(Go::new(Fin::New))] {
        let mut sim = sim.traffic(traffic());
        sim.run_until_done(secs(120));
        assert_eq!(sim.counts().of("large packet"), 0);
    }
}

/// A connection that ends after some kilobytes, whatever they are: the next one begins with usual segments, and those that were numbered before go as
/// they are.
#[test]
fn a_session_gets_on_where_all_carriers_die_soon() {
    for bytes in [20_000, 50_000] {
        let mut sim = path("a_session_gets_on_where_all_carriers_die_soon")
            .traffic(Traffic::download(4 * MEGABYTE))
            .carriers(move |number| match number {
                1 => vec![Fault::new(When::Down(3 * MEGABYTE), How::Rst)],
                _ => vec![Fault::new(When::Down(bytes), How::Rst)],
            });
        let took = sim.run_until_done(secs(60));
        let carriers = MEGABYTE / bytes;
        assert!(sim.counts().of("large packet") > 100 && sim.cuts() > carriers, "{} cuts", sim.cuts());
        // A dial and a round trip to learn what is there, for each of them, and half of what it brings is wasted at most.
        assert!(took <= secs(1) + 2 * ms(60) * u32::try_from(carriers).expect("few"), "{bytes} bytes each: {took:?}");
    }
}
