//! Carriers with keys: whoever touches one has ended it and nothing else, and none is used until it breaks.

use turbotunnel::CarrierEnd;
use turbotunnel::lifetime::{AGAIN, GRACE, LIFETIME};
use turbotunnel::secure::{HEADER_LEN, MESSAGE_3_LEN, Records};
use turbotunnel_sim::{Dial, Fault, How, Link, Reading, Side, Sim, Suite, Traffic, Way, Wear, When, ms, secs};

use crate::{losses, ups};

/// Bytes on a carrier before its first record, up and down.
fn handshake(suite: Suite) -> [u64; 2] {
    [HEADER_LEN + suite.message_1_len() + MESSAGE_3_LEN, suite.message_2_len()].map(|len| len as u64)
}

/// What a carrier costs that was touched: a round trip for the dial, one for the handshake, one for the HELLOs, and half of one each for the end and the data.
const ROUND_TRIPS: u32 = 4;

fn forged(sim: &Sim) -> [u64; 2] {
    [sim.client_stats().carriers_forged, sim.server_stats().carriers_forged]
}

/// The dial, then a round trip for the handshake; message 3 and what the client has to say go together.
#[test]
fn a_handshake_costs_one_round_trip() {
    let up = |sealed: bool| {
        let mut sim = Sim::new("a_handshake_costs_one_round_trip")
            .link(Link::new(ms(50)))
            .traffic(Traffic::echo(100).finishes_last());
        if sealed {
            sim = sim.sealed(Suite::AesGcmMlKem);
        }
        (sim.run_until_done(secs(2)), ups(&sim, Side::Client)[0])
    };
    let (plain, sealed) = (up(false), up(true));
    assert_eq!(sealed.0, plain.0 + ms(100));
    assert_eq!(sealed.1, plain.1 + ms(100));
}

/// Whatever bit it is of a record, in whichever direction: the end that reads it closes the carrier, counts it, and the session goes on over the next one.
#[test]
fn a_changed_bit_ends_its_carrier_is_counted_and_costs_no_byte() {
    for suite in Suite::ALL {
        for (way, first) in [Way::Up, Way::Down].into_iter().zip(handshake(suite)) {
            // What is sealed, tags, and lengths of all records but the first: that one could wait for what never comes.
            for at in (first + 2..first + 3_000).step_by(13) {
                let when = if way == Way::Up { When::Up(at) } else { When::Down(at) };
                let mut sim = Sim::new("a_changed_bit_ends_its_carrier_is_counted_and_costs_no_byte")
                    .link(Link::new(ms(20)))
                    .sealed(suite)
                    .first_carrier(Fault::new(when, How::Flip))
                    .traffic(Traffic::both(20_000, 20_000).paced(500, ms(20)));
                sim.run_until_done(secs(20));
                let reader = usize::from(way == Way::Up);
                assert_eq!(sim.counts().of("bit flipped"), 1);
                // The first record of all comes to a server that has no session yet to count it.
                let at_gate = sim.counts().of("stranger's record refused");
                assert_eq!(forged(&sim)[reader] + at_gate, 1, "{suite:?} {way:?} {at}");
                assert_eq!(forged(&sim)[1 - reader], 0, "the other end sees it closed");
                let side = if way == Way::Up { Side::Server } else { Side::Client };
                assert!(at_gate == 1 || losses(&sim, side)[0].1 == CarrierEnd::NotAuthentic);
                assert_eq!(sim.dialled(), 2, "{suite:?} {way:?} {at}");
                let pause = sim.longest_pause(way);
                assert!(pause <= ms(40) * ROUND_TRIPS + ms(1_000), "{suite:?} {way:?} {at}: {pause:?}");
            }
        }
    }
}

/// A changed bit of the handshake is never a session with somebody else: the dial fails, at once if something was said, else when the server's time to answer is over.
#[test]
fn a_changed_bit_of_the_handshake_costs_a_dial() {
    for suite in Suite::ALL {
        for (way, length) in [Way::Up, Way::Down].into_iter().zip(handshake(suite)) {
            for at in (0..length).step_by(if length > 200 { 7 } else { 1 }) {
                let when = if way == Way::Up { When::Up(at) } else { When::Down(at) };
                let mut sim = Sim::new("a_changed_bit_of_the_handshake_costs_a_dial")
                    .link(Link::new(ms(20)))
                    .sealed(suite)
                    .first_carrier(Fault::new(when, How::Flip))
                    .traffic(Traffic::echo(3_000));
                let took = sim.run_until_done(secs(20));
                assert_eq!(forged(&sim), [0, 0]);
                let third = way == Way::Up && at >= length - MESSAGE_3_LEN as u64;
                let (failed, refused) = (sim.counts().of("handshake failed"), sim.counts().of("third message refused"));
                assert_eq!(refused, u64::from(third), "{suite:?} {way:?} {at}");
                // The one that waits for an answer is given up for the one beside it.
                assert_eq!(failed, u64::from(way == Way::Down), "{suite:?} {way:?} {at}");
                let quick = way == Way::Down || third;
                assert!(took < if quick { ms(500) } else { ms(4_500) }, "{suite:?} {way:?} {at}: {took:?}");
                assert_eq!(sim.server_stats().peer, turbotunnel::PeerKind::Ours);
            }
        }
    }
}

/// All that a client has said on a carrier, said again by somebody who has heard it: he gets one answer, which has nothing in common with the recorded one, and that is all.
#[test]
fn a_recorded_carrier_that_is_played_again_changes_nothing() {
    for suite in Suite::ALL {
        let mut sim = Sim::new("a_recorded_carrier_that_is_played_again_changes_nothing")
            .link(Link::new(ms(20)))
            .sealed(suite)
            .tapped()
            .traffic(Traffic::echo(1_500_000).paced(1_000, ms(20)).finishes_last());
        sim.run_for(secs(1));
        // While it lives, and after it was cut: all of it, and to each end of a message.
        for cut in [false, true] {
            if cut {
                sim.strike(How::Rst);
                sim.run_for(secs(1));
            }
            let recorded = sim.written(1, Way::Up).to_vec();
            let answer = sim.written(1, Way::Down)[..suite.message_2_len()].to_vec();
            let first = HEADER_LEN + suite.message_1_len();
            for len in
                [1, HEADER_LEN, first - 1, first, first + MESSAGE_3_LEN - 1, first + MESSAGE_3_LEN, recorded.len()]
            {
                let (told, losses) = (sim.told(Side::Server).to_vec(), losses(&sim, Side::Client).len());
                let held = sim.held_connections(Side::Server);
                let current = sim.server().current();
                let stranger = sim.replay(&recorded[..len]);
                sim.run_for(ms(200));
                let heard = sim.intruder_heard(stranger);
                assert_eq!(heard.len(), if len < first { 0 } else { answer.len() }, "{suite:?}, {len} bytes");
                let alike = heard.iter().zip(&answer).filter(|(a, b)| a == b).count();
                assert!(alike < 30, "{suite:?}: {alike} bytes of the answer are those of the recorded one");
                let whole = len >= first + MESSAGE_3_LEN;
                let held_now = sim.held_connections(Side::Server);
                assert_eq!(held_now, held + usize::from(!whole), "{suite:?}: held, or closed when it was wrong");
                assert_eq!(sim.server().current(), current);
                assert_eq!((sim.told(Side::Server), crate::losses(&sim, Side::Client).len()), (&told[..], losses));
            }
            // Ten seconds after they came the held ones are gone.
            sim.run_for(secs(10));
            assert_eq!(sim.held_connections(Side::Server), 1);
        }
        sim.run_until_done(secs(60));
        assert_eq!(forged(&sim), [0, 0]);
        assert_eq!(sim.counts().of("third message refused"), 4);
    }
}

/// Whoever writes into a carrier from outside has ended it.
#[test]
fn what_somebody_writes_into_a_carrier_ends_it() {
    for way in [Way::Up, Way::Down] {
        let mut sim = Sim::new("what_somebody_writes_into_a_carrier_ends_it")
            .link(Link::new(ms(20)))
            .sealed(Suite::ChaChaPolyMlKem)
            .tapped()
            .traffic(Traffic::echo(100_000).paced(1_000, ms(20)).finishes_last());
        sim.run_for(secs(1));
        let packet = sim.seen().iter().rfind(|seen| seen.way == way).expect("data").packet.clone();
        sim.inject(1, way, &packet);
        sim.run_until_done(secs(20));
        assert_eq!(forged(&sim)[usize::from(way == Way::Up)], 1);
        assert_eq!(sim.dialled(), 2);
    }
}

/// A carrier of an hour is replaced by one that is up before it goes: nobody waits, nothing is sent twice, and the server has nothing to close.
#[test]
fn an_old_carrier_is_replaced_before_it_breaks() {
    let traffic = Traffic::turns(3 * 3600 + 60, 50, 50).paced(50, secs(1));
    let mut sim = Sim::new("an_old_carrier_is_replaced_before_it_breaks")
        .link(Link::new(ms(50)))
        .sealed(Suite::AesGcmMlKem)
        .traffic(traffic);
    sim.run_until_done(secs(4 * 3600));
    let ups = ups(&sim, Side::Client);
    assert_eq!(ups.len(), 4, "one an hour: {ups:?}");
    for pair in ups.windows(2) {
        let lived = pair[1] - pair[0];
        assert!((LIFETIME..LIFETIME + ms(500)).contains(&lived), "{lived:?}");
    }
    assert!(losses(&sim, Side::Client).iter().all(|(_, why)| *why == CarrierEnd::Replaced));
    assert!(sim.longest_pause(Way::Down) < ms(1_250), "{:?}", sim.longest_pause(Way::Down));
    assert_eq!(sim.client_stats().segments_resent + sim.server_stats().segments_resent, 0);
    assert_eq!((sim.counts().of("old"), sim.counts().of("too old")), (3, 0));
}

/// While no other comes the old one is used, and another is asked for again and again; ten minutes later the server forgets its keys, whatever that costs.
#[test]
fn an_old_carrier_that_nothing_replaces_is_closed_by_the_server() {
    let back = LIFETIME + GRACE + secs(20);
    let mut sim = Sim::new("an_old_carrier_that_nothing_replaces_is_closed_by_the_server")
        .link(Link::new(ms(50)))
        .sealed(Suite::ChaChaPoly)
        .dials(move |number, at| if number > 1 && at < back { Dial::Refused } else { Dial::Connect })
        .traffic(Traffic::turns(5_000, 50, 50).paced(50, secs(1)));
    sim.run_for(LIFETIME + GRACE - secs(1));
    assert_eq!(losses(&sim, Side::Client), []);
    let asked = GRACE.as_secs() / AGAIN.as_secs();
    assert_eq!(sim.counts().of("old"), asked, "once a minute");
    sim.run_until_done(secs(2 * 3600));
    let (at, why) = losses(&sim, Side::Server)[0];
    assert_eq!(why, CarrierEnd::UsedUp);
    assert!((LIFETIME + GRACE..LIFETIME + GRACE + ms(500)).contains(&at), "{at:?}");
    assert!(sim.longest_pause(Way::Down) < secs(26));
    assert_eq!(forged(&sim), [0, 0]);
}

/// A carrier that has sealed half of what one key may seal makes way for another, at whichever end that is noticed.
#[test]
fn a_worn_carrier_is_replaced_before_it_is_used_up() {
    let wear = |number| Wear { used: if number <= 3 { Records::MAX_RECORDS / 2 - 50 } else { 0 }, ..Wear::default() };
    for traffic in [Traffic::upload(200_000), Traffic::download(200_000)] {
        let mut sim = Sim::new("a_worn_carrier_is_replaced_before_it_is_used_up")
            .link(Link::new(ms(20)))
            .sealed_with(Suite::AesGcm, wear)
            .traffic(traffic.paced(1_000, ms(20)));
        let took = sim.run_until_done(secs(10));
        assert_eq!(sim.counts().of("worn"), 3);
        assert_eq!(sim.dialled(), 4);
        assert!(losses(&sim, Side::Client).iter().all(|(_, why)| *why == CarrierEnd::Replaced));
        assert!(took < secs(5), "{took:?}");
    }
}

/// Nothing replaces a worn one, and it carries all that it may: it ends there, told as that and not as forged, and the session goes on as soon as there is another.
#[test]
fn a_carrier_that_is_used_up_ends_and_the_session_goes_on() {
    let wear = |number| Wear { used: if number == 1 { Records::MAX_RECORDS - 50 } else { 0 }, ..Wear::default() };
    for traffic in [Traffic::upload(200_000), Traffic::download(200_000)] {
        let mut sim = Sim::new("a_carrier_that_is_used_up_ends_and_the_session_goes_on")
            .link(Link::new(ms(20)))
            .sealed_with(Suite::AesGcm, wear)
            .dials(|number, at| if number > 1 && at < secs(5) { Dial::Refused } else { Dial::Connect })
            .traffic(traffic.paced(1_000, ms(20)).server_reads(Reading::Prompt));
        sim.run_until_done(secs(20));
        let ends: Vec<CarrierEnd> =
            [Side::Client, Side::Server].iter().flat_map(|side| losses(&sim, *side)).map(|(_, why)| why).collect();
        assert!(ends.contains(&CarrierEnd::UsedUp), "{ends:?}");
        assert_eq!(forged(&sim), [0, 0]);
    }
}

/// A server that was started again has its keys and not its sessions: it says so under seal.
#[test]
fn a_restarted_server_is_recognised_with_keys_too() {
    let mut sim = Sim::new("a_restarted_server_is_recognised_with_keys_too")
        .link(Link::new(ms(20)))
        .sealed(Suite::AesGcmMlKem)
        .traffic(Traffic::echo(1_000_000).paced(1_000, ms(20)));
    sim.run_for(secs(5));
    sim.restart_server();
    assert_eq!(sim.run_until_ended(secs(15)), turbotunnel::SessionError::Unknown);
    assert!(sim.elapsed() >= secs(7), "not before two seconds have passed");
}

/// Neither the id nor any packet is on the wire as it is.
#[test]
fn nothing_that_is_said_is_seen_on_the_way() {
    let mut sim = Sim::new("nothing_that_is_said_is_seen_on_the_way")
        .link(Link::new(ms(20)))
        .sealed(Suite::ChaChaPolyMlKem)
        .tapped()
        .traffic(Traffic::both(20_000, 20_000));
    sim.run_until_done(secs(5));
    for way in [Way::Up, Way::Down] {
        let written = sim.written(1, way);
        let shows = |part: &[u8]| written.windows(part.len()).any(|window| window == part);
        assert!(!shows(&turbotunnel_sim::SESSION_ID));
        for seen in sim.seen().iter().filter(|seen| seen.way == way && seen.packet.len() >= 12) {
            assert!(!shows(&seen.packet[..12]), "a packet in clear");
        }
    }
}
