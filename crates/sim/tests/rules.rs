use turbotunnel_sim::*;
#[test]
fn an_upload_and_a_download_arrive() {
    let mut sim = Sim::new("an_upload_and_a_download_arrive").traffic(Traffic::both(MIB, MIB));
    let t = sim.run_until_done(secs(5));
    eprintln!("{t:?}");
}
#[test]
fn rst_every_second() {
    let mut sim = Sim::new("rst_every_second")
        .link(Link::new(ms(50)).rate(MIB))
        .every(secs(1), How::Rst)
        .traffic(Traffic::echo(4 * MIB));
    let t = sim.run_until_done(secs(20));
    eprintln!("{t:?}");
}
#[test]
fn go_server() {
    let mut sim = Sim::new("go_server")
        .go_server(Go::new(Fin::Old))
        .link(Link::new(ms(50)).rate(MIB))
        .every(secs(1), How::Rst)
        .traffic(Traffic::echo(4 * MIB));
    let t = sim.run_until_done(secs(100));
    eprintln!("{t:?}");
}
#[test]
fn go_client() {
    let mut sim = Sim::new("go_client")
        .go_client(Go::new(Fin::Old))
        .link(Link::new(ms(50)).rate(MIB))
        .every(secs(1), How::Rst)
        .traffic(Traffic::echo(4 * MIB));
    let t = sim.run_until_done(secs(100));
    eprintln!("{t:?}");
}
