//! A whole simulation as data: what a seed is turned into, what a failure is made smaller of, and what is printed as the code of a test.

use std::time::Duration;

use turbotunnel::secure::Suite;
use turbotunnel::{Counters, PeerKind, SessionError};

use crate::fault::{Counts, Dial, Fault, How};
use crate::go::{Fin, Go};
use crate::network::Side;
use crate::pipe::Link;
use crate::sealed::Wear;
use crate::sim::Sim;
use crate::traffic::Traffic;

/// Who is at the ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Two of ours.
    Ours,
    /// A client of ours, a Go server.
    GoServer(Fin),
    /// A Go client, a server of ours.
    GoClient(Fin),
}

/// What is done at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// [`Sim::redial`].
    Redial,
    /// [`Sim::strike`].
    Strike(How),
    /// [`Sim::sleep`].
    Sleep(Side, Duration),
    /// [`Sim::restart_server`]. The session cannot go on after that.
    RestartServer,
}

/// The settings that both ends have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`turbotunnel::Config`].
    pub window: u16,
    /// See [`turbotunnel::Config`].
    pub send_buffer: usize,
    /// See [`turbotunnel::Config`].
    pub max_buffered: usize,
    /// [`turbotunnel::Config::first_unsent`].
    pub first_unsent: usize,
    /// See [`turbotunnel::Config`].
    pub time_to_live: Duration,
    /// [`turbotunnel::Config::spare`].
    pub spare: bool,
    /// See [`turbotunnel::Config`].
    pub counters: Counters,
}

impl Default for Settings {
    fn default() -> Self {
        let config = turbotunnel::Config::default();
        let turbotunnel::Config {
            window, send_buffer, first_unsent, max_buffered, time_to_live, spare, counters, ..
        } = config;
        Self { window, send_buffer, first_unsent, max_buffered, time_to_live, spare, counters }
    }
}

/// A simulation: what is given, what is done, and by when everything has to be at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What received bytes are computed from, and which end of a cut loses what.
    pub seed: u64,
    /// Who is at the ends.
    pub peers: Peers,
    /// Both have keys, and carriers are sealed in this suite.
    pub sealed: Option<Suite>,
    /// What some sealed carriers bear, by their numbers. All others bear what real ones do.
    pub wear: Vec<(u32, Wear)>,
    /// Settings of both.
    pub settings: Settings,
    /// The way of every carrier that has none of its own.
    pub link: Link,
    /// The ways of some carriers, by their numbers.
    pub links: Vec<(u32, Link)>,
    /// What becomes of some dials, by their numbers. All others connect.
    pub dials: Vec<(u32, Dial)>,
    /// What happens to some carriers, by their numbers.
    pub faults: Vec<(u32, Fault)>,
    /// What is done, and when; in that order.
    pub deeds: Vec<(Duration, Deed)>,
    /// The streams.
    pub traffic: Vec<Traffic>,
    /// Everything has to be done by then.
    pub limit: Duration,
}

/// What a script came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went wrong on the way.
    pub counts: Counts,
    /// Virtual time from beginning to end.
    pub took: Duration,
    /// Bytes that were read, at both ends.
    pub bytes: u64,
    /// Carriers that were lost in mid-session, as an end of ours counts them.
    pub cuts: u64,
    /// Equal for equal runs only.
    pub digest: u64,
}

/// A restarted server is recognised within 10 s of the next carrier, and a dead one before that is replaced within 10 s.
const AMNESIA_LIMIT: Duration = Duration::from_secs(20);

/// Dead connections are found, and replaced ones read to their end, within so long.
const QUIET: Duration = Duration::from_secs(100);

impl Script {
    /// Nothing happens, on a path of 10 ms, between two ends of ours.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            peers: Peers::Ours,
            sealed: None,
            wear: Vec::new(),
            settings: Settings::default(),
            link: Link::new(Duration::from_millis(10)),
            links: Vec::new(),
            dials: Vec::new(),
            faults: Vec::new(),
            deeds: Vec::new(),
            traffic: Vec::new(),
            limit: Duration::from_secs(600),
        }
    }

    /// The simulation at its beginning. What is done in it is done by [`Script::run`].
    #[must_use]
    pub fn sim(&self, name: &str) -> Sim {
        let settings = self.settings;
        let (link, links, dials, mut faults) = (self.link, self.links.clone(), self.dials.clone(), self.faults.clone());
        let mut sim = Sim::with_seed(name, self.seed)
            .links(move |number| find(&links, number).unwrap_or(link))
            .dials(move |number, _| find(&dials, number).unwrap_or(Dial::Connect))
            .carriers(move |number| {
                let (now, later) = faults.drain(..).partition(|(carrier, _)| *carrier == number);
                faults = later;
                let now: Vec<(u32, Fault)> = now;
                now.into_iter().map(|(_, fault)| fault).collect()
            })
            .config(move |config| {
                config.window = settings.window;
                config.send_buffer = settings.send_buffer;
                config.first_unsent = settings.first_unsent;
                config.max_buffered = settings.max_buffered;
                config.time_to_live = settings.time_to_live;
                config.spare = settings.spare;
                config.counters = settings.counters;
            });
        sim = match self.peers {
            Peers::Ours => sim,
            Peers::GoServer(fin) => sim.go_server(Go::new(fin)),
            Peers::GoClient(fin) => sim.go_client(Go::new(fin)),
        };
        if let Some(suite) = self.sealed {
            let wear = self.wear.clone();
            sim = sim.sealed_with(suite, move |number| find(&wear, number).unwrap_or_default());
        }
        self.traffic.iter().fold(sim, |sim, traffic| sim.traffic(traffic.clone()))
    }

    /// Plays it to its end.
    ///
    /// # Panics
    ///
    /// If it is not done by its limit, if a stream fails, or if anything was not as it has to be.
    pub fn run(&self, name: &str) -> Outcome {
        let mut sim = self.sim(name);
        let mut restarted = false;
        for (at, deed) in &self.deeds {
            sim.run_to(*at, Sim::is_done);
            if sim.is_done() {
                break;
            }
            match *deed {
                Deed::Redial => sim.redial(),
                Deed::Strike(how) => sim.strike(how),
                Deed::Sleep(side, time) => sim.sleep(side, time),
                Deed::RestartServer => {
                    sim.restart_server();
                    restarted = true;
                    break;
                }
            }
        }
        if restarted {
            // One that has never answered has nothing to forget.
            if sim.client_stats().peer != PeerKind::Unknown {
                self.run_to_amnesia(&mut sim);
            }
        } else {
            sim.run_until_done(self.limit);
        }
        let mut counts = sim.counts().clone();
        if self.settings.spare {
            counts.note_times("spare used", sim.client_stats().spares_used);
        }
        let outcome = Outcome {
            counts,
            took: sim.elapsed(),
            bytes: sim.client_app().received() + sim.server_app().received(),
            cuts: sim.cuts(),
            digest: sim.digest(),
        };
        if !restarted && self.peers == Peers::Ours {
            self.assert_nothing_left(&mut sim);
        }
        if self.sealed.is_some() {
            Self::assert_nothing_forged(&sim);
        }
        outcome
    }

    /// When nothing more goes wrong, one connection remains: the session idles on it; and maybe a spare.
    fn assert_nothing_left(&self, sim: &mut Sim) {
        sim.calm();
        sim.run_for(QUIET);
        for side in [Side::Client, Side::Server] {
            let (held, most) = (sim.held_connections(side), if self.settings.spare { 2 } else { 1 });
            assert!(
                (1..=most).contains(&held),
                "{held} connections are held by the {side:?}, {QUIET:?} after the last fault"
            );
        }
        assert!(
            sim.client_app().all_delivered() && sim.server_app().all_delivered(),
            "an end was not told to be acknowledged"
        );
        let idle = (sim.client_stats(), sim.server_stats());
        assert_eq!((idle.0.streams, idle.1.streams), (0, 0), "streams that are open although they have ended");
    }

    /// Who is told that somebody touches his carriers has to be able to believe it.
    fn assert_nothing_forged(sim: &Sim) {
        let touched = ["bit flipped", "packet lost", "packet overtaken", "packet doubled"];
        if touched.iter().all(|how| sim.counts().of(how) == 0) {
            let of_server = sim.server_session().map_or(0, |server| server.stats().carriers_forged);
            assert_eq!((sim.client_stats().carriers_forged, of_server), (0, 0), "nobody touched a carrier");
        }
    }

    pub(crate) fn restarts(&self) -> bool {
        self.deeds.iter().any(|(_, deed)| *deed == Deed::RestartServer)
    }

    /// A server that was started again knows nothing. The client has to find that out, and nothing of the new server may reach its streams:
    /// any byte of it would be a wrong one.
    fn run_to_amnesia(&self, sim: &mut Sim) {
        sim.calm();
        let ended = sim.run_until_ended(sim.elapsed() + AMNESIA_LIMIT);
        assert_eq!(ended, SessionError::Unknown);
    }
}

fn find<T: Copy>(list: &[(u32, T)], number: u32) -> Option<T> {
    list.iter().find(|(of, _)| *of == number).map(|(_, what)| *what)
}
