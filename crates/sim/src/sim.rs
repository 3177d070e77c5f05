//! A session under test: two ends, the way between them, and the time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use turbotunnel::secure::Suite;
use turbotunnel::tunnel::{Stats, Tunnel};
use turbotunnel::{Config, SessionError};

use crate::app::App;
use crate::fault::{Counts, Dial, Fault, How};
use crate::go::{Go, GoClient, GoServer};
use crate::intruder::Intruder;
use crate::listener::Listener;
use crate::network::{Network, Seen, Side};
use crate::node::{Client, Node};
use crate::ours::{Ours, Told};
use crate::pattern::Way;
use crate::pipe::Link;
use crate::random::{Random, seed_of};
use crate::sealed::{Keys, Wear};
use crate::traffic::Traffic;

/// First bytes of every carrier.
pub const SESSION_ID: [u8; 8] = *b"simulate";

/// Turns at one point in time after which nothing new can be expected to come of more.
const MOST_ROUNDS: u32 = 100_000;

/// A session under test: two ends, the way between them, and the time. Built like a sentence, then run:
///
/// ```
/// use turbotunnel_sim::{How, Link, MIB, Sim, Traffic, ms, secs};
///
/// let mut sim = Sim::new("an_upload_survives")
///     .link(Link::new(ms(50)).rate(MIB))
///     .every(secs(2), How::Rst)
///     .traffic(Traffic::upload(4 * MIB));
/// sim.run_until_done(secs(20));
/// ```
pub struct Sim {
    name: String,
    seed: u64,
    start: Instant,
    now: Instant,
    random: Random,
    net: Network,
    traffic: Vec<Traffic>,
    client_config: Config,
    server_config: Config,
    client_closes: bool,
    go_client: Option<Go>,
    go_server: Option<Go>,
    keys: Option<Rc<Keys>>,
    ends: Option<Ends>,
    intruders: Vec<Intruder>,
    rounds: u32,
    /// Something has happened to an end since its promises were last checked and its next turn was asked for.
    touched: [bool; 2],
    wake: [Option<Instant>; 2],
    /// Up and down: bytes received by when, and the longest time in which nothing was.
    pauses: [(u64, Duration, Duration); 2],
}

struct Ends {
    client: Box<dyn Node>,
    server: Box<dyn Node>,
}

impl Sim {
    /// A simulation for the test `name`, from which its seed is made unless `SIM_SEED` is set.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_seed(name, seed_of(name))
    }

    /// A simulation with a seed of its own, for tests that run many.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // a point to count from; the time that passes is virtual
    pub fn with_seed(name: &str, seed: u64) -> Self {
        let start = Instant::now();
        let mut random = Random::new(seed);
        let net = Network::new(start, random.fork(), Link::new(Duration::from_millis(10)));
        Self {
            name: name.to_owned(),
            seed,
            start,
            now: start,
            random,
            net,
            traffic: Vec::new(),
            client_config: Config::default(),
            server_config: Config::default(),
            client_closes: false,
            go_client: None,
            go_server: None,
            keys: None,
            ends: None,
            intruders: Vec::new(),
            rounds: 0,
            touched: [true; 2],
            wake: [None; 2],
            pauses: [(0, Duration::ZERO, Duration::ZERO); 2],
        }
    }

    // What is given.

    /// All carriers go this way. Default: 10 ms, no limit of rate.
    #[must_use]
    pub fn link(self, link: Link) -> Self {
        self.links(move |_| link)
    }

    /// Each carrier goes its own way; they are counted from 1.
    #[must_use]
    pub fn links(mut self, plan: impl FnMut(u32) -> Link + 'static) -> Self {
        self.net.link_plan = Box::new(plan);
        self
    }

    /// What becomes of each dial, by its number (from 1) and the time since the start. Default: all connect.
    #[must_use]
    pub fn dials(mut self, mut plan: impl FnMut(u32, Duration) -> Dial + 'static) -> Self {
        self.net.dial_plan = Box::new(move |number, at, _| plan(number, at));
        self
    }

    /// As [`Sim::dials`], with random numbers.
    #[must_use]
    pub fn random_dials(mut self, plan: impl FnMut(u32, Duration, &mut Random) -> Dial + 'static) -> Self {
        self.net.dial_plan = Box::new(plan);
        self
    }

    /// What happens to each carrier, by its number (from 1). Default: nothing.
    #[must_use]
    pub fn carriers(mut self, mut plan: impl FnMut(u32) -> Vec<Fault> + 'static) -> Self {
        self.net.fault_plan = Box::new(move |number, _| plan(number));
        self
    }

    /// As [`Sim::carriers`], with random numbers.
    #[must_use]
    pub fn random_carriers(mut self, plan: impl FnMut(u32, &mut Random) -> Vec<Fault> + 'static) -> Self {
        self.net.fault_plan = Box::new(plan);
        self
    }

    /// The first carrier suffers this; all others live.
    #[must_use]
    pub fn first_carrier(self, fault: Fault) -> Self {
        self.carriers(move |number| if number == 1 { vec![fault] } else { Vec::new() })
    }

    /// Every so often `how` happens to all carriers that live then.
    #[must_use]
    pub fn every(mut self, every: Duration, how: How) -> Self {
        self.net.agenda.push((self.start + every, Some(every), how));
        self
    }

    /// At that time `how` happens to all carriers that live then.
    #[must_use]
    pub fn at(mut self, at: Duration, how: How) -> Self {
        self.net.agenda.push((self.start + at, None, how));
        self
    }

    /// One more stream.
    #[must_use]
    pub fn traffic(mut self, traffic: Traffic) -> Self {
        self.traffic.push(traffic);
        self
    }

    /// Changes the settings of both ends.
    #[must_use]
    pub fn config(self, change: impl Fn(&mut Config)) -> Self {
        self.client_config(&change).server_config(&change)
    }

    /// Changes the client's settings.
    #[must_use]
    pub fn client_config(mut self, change: impl Fn(&mut Config)) -> Self {
        change(&mut self.client_config);
        self
    }

    /// Changes the server's settings.
    #[must_use]
    pub fn server_config(mut self, change: impl Fn(&mut Config)) -> Self {
        change(&mut self.server_config);
        self
    }

    /// The client closes the session as soon as it has read and written everything.
    #[must_use]
    pub fn client_closes(mut self) -> Self {
        self.client_closes = true;
        self
    }

    /// The client is a Go program.
    #[must_use]
    pub fn go_client(mut self, go: Go) -> Self {
        self.go_client = Some(go);
        self
    }

    /// The server is a Go program.
    #[must_use]
    pub fn go_server(mut self, go: Go) -> Self {
        self.go_server = Some(go);
        self
    }

    /// Both ends have keys, and carriers are sealed in this suite.
    #[must_use]
    pub fn sealed(self, suite: Suite) -> Self {
        self.sealed_with(suite, |_| Wear::default())
    }

    /// As [`Sim::sealed`]; each carrier, counted from 1, bears only so much.
    #[must_use]
    pub fn sealed_with(mut self, suite: Suite, wear: impl Fn(u32) -> Wear + 'static) -> Self {
        self.keys = Some(Rc::new(Keys::new(self.seed, suite, Box::new(wear))));
        self
    }

    /// Keeps a copy of every packet that is handed to a carrier, and of every byte: [`Sim::seen`], [`Sim::written`].
    #[must_use]
    pub fn tapped(mut self) -> Self {
        self.net.tap = Some(Vec::new());
        self
    }

    // What is done.

    fn ends(&mut self) -> &mut Ends {
        if self.ends.is_none() {
            let ends = self.make_ends();
            self.ends = Some(ends);
        }
        self.ends.as_mut().expect("just made")
    }

    fn make_ends(&mut self) -> Ends {
        let used = self.client_config.counters.streams;
        let (start, session, mut traffic) = (self.start, self.seed, self.traffic.clone());
        // Streams are numbered as they are opened.
        traffic.sort_by_key(|traffic| traffic.starts_at);
        let app = move |side| {
            let mut app = App::new(start, side, session, used);
            traffic.iter().for_each(|traffic| app.add(traffic));
            app
        };
        let conv = self.random.number() as u32;
        let keys = self.keys.clone();
        assert!(keys.is_none() || (self.go_client.or(self.go_server)).is_none(), "Go programs have no keys");
        let client: Box<dyn Node> = if let Some(go) = self.go_client {
            Box::new(GoClient::new(start, go, conv, app(Side::Client)))
        } else {
            let config = self.client_config.clone();
            let tunnel = Tunnel::client(start, config.clone(), conv, self.random.number());
            let mut ours = Ours::new(start, start, Side::Client, config, tunnel, keys.clone());
            ours.closes_when_done = self.client_closes;
            Box::new(Client::new(ours, app(Side::Client)))
        };
        let new_app = Box::new(move || app(Side::Server));
        let server: Box<dyn Node> = match self.go_server {
            Some(go) => Box::new(GoServer::new(go, new_app)),
            None => Box::new(Listener::new(start, self.server_config.clone(), self.random.fork(), new_app, keys)),
        };
        Ends { client, server }
    }

    /// Lets the time pass until `done`.
    ///
    /// # Panics
    ///
    /// If that has not happened `limit` after the start, or if something was not as it has to be.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        self.settle();
        while !done(self) {
            assert!(self.step(self.start + limit), "not done after {limit:?}");
        }
        self.elapsed()
    }

    /// Lets the time pass until everything was written, read and ended at both ends. Returns when that was.
    ///
    /// # Panics
    ///
    /// As [`Sim::run_until`]; also if the session or a stream fails.
    pub fn run_until_done(&mut self, limit: Duration) -> Duration {
        self.run_until(limit, |sim| {
            if let Some(failure) = sim.client_app().failure().or(sim.server_app().failure()) {
                panic!("a stream failed: {failure}");
            }
            sim.is_done()
        })
    }

    /// Lets the time pass until the client's session is over. Returns why.
    ///
    /// # Panics
    ///
    /// As [`Sim::run_until`].
    pub fn run_until_ended(&mut self, limit: Duration) -> SessionError {
        self.run_until(limit, |sim| sim.client().ended().is_some());
        self.client().ended().cloned().expect("it has just ended")
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_to(self.elapsed() + time, |_| false);
    }

    /// Lets the time pass until `done`, or until `at` after the start.
    pub fn run_to(&mut self, at: Duration, mut done: impl FnMut(&Self) -> bool) {
        let until = self.start + at;
        self.settle();
        while !done(self) {
            if !self.step(until) {
                self.now = self.now.max(until);
                self.settle();
                return;
            }
        }
    }

    /// Goes to the next point in time at which something happens. False: not before or at `until`.
    fn step(&mut self, until: Instant) -> bool {
        let awake = [Side::Client, Side::Server].into_iter().filter(|side| !self.net.is_asleep(*side));
        let wake = awake.filter_map(|side| self.wake[side as usize]);
        let Some(next) = wake.chain(self.net.next()).min() else { return false };
        if next > until {
            return false;
        }
        assert!(next > self.now, "the time does not advance");
        self.now = next;
        self.settle_touched();
        true
    }

    /// Does everything that can be done now, then checks all promises of both ends.
    fn settle(&mut self) {
        self.ends();
        self.touched = [true; 2];
        self.settle_touched();
    }

    /// As [`Sim::settle`], for when only the time has passed: an end that nothing happens to then has promised what it did before.
    fn settle_touched(&mut self) {
        let now = self.now;
        self.rounds = 0;
        loop {
            let ends = self.ends.as_mut().expect("made");
            let news = self.net.take_news(now);
            let mut busy = !news.is_empty();
            for (wire, side, news) in news {
                self.touched[side as usize] = true;
                match side {
                    Side::Server => ends.server.hear(now, wire, news, &mut self.net),
                    Side::Client => match self.intruders.iter_mut().find(|intruder| intruder.wire == wire) {
                        Some(intruder) => intruder.hear(now, news, &mut self.net),
                        None => ends.client.hear(now, wire, news, &mut self.net),
                    },
                }
            }
            for (side, node) in [(Side::Client, &mut ends.client), (Side::Server, &mut ends.server)] {
                let did = !self.net.is_asleep(side) && node.turn(now, &mut self.net);
                self.touched[side as usize] |= did;
                busy |= did;
            }
            if !busy {
                break;
            }
            self.rounds += 1;
            assert!(self.rounds < MOST_ROUNDS, "busy for ever, without time advancing");
        }
        let ends = self.ends.as_mut().expect("made");
        for (side, node) in [(Side::Client, &mut ends.client), (Side::Server, &mut ends.server)] {
            let (touched, wake) = (&mut self.touched[side as usize], &mut self.wake[side as usize]);
            if *touched && !self.net.is_asleep(side) {
                node.check(now, &mut self.net);
            }
            if *touched || wake.is_some_and(|at| at <= now) {
                *wake = node.wake_at(now);
            }
            *touched &= self.net.is_asleep(side);
        }
        self.check_memory();
        self.note_pauses();
    }

    fn note_pauses(&mut self) {
        let received = [self.server_app().received(), self.client_app().received()];
        let at = self.elapsed();
        for ((bytes, since, longest), received) in self.pauses.iter_mut().zip(received) {
            if received != *bytes {
                *longest = (*longest).max(at - *since);
                *bytes = received;
                *since = at;
            }
        }
    }

    /// What was written and not read is somewhere. Nobody may hold more than its limits allow.
    fn check_memory(&self) {
        let Some(ends) = &self.ends else { return };
        let Some(bound) = ends.client.ours().or(ends.server.ours()).map(Ours::memory_bound) else { return };
        let (client, server) = (ends.client.app(), ends.server.app());
        for (written, read) in [(client.written(), server.received()), (server.written(), client.received())] {
            // A server that was restarted has read nothing.
            let held = written.saturating_sub(read);
            assert!(held <= bound || read == 0, "{held} bytes are held, at most {bound} may be");
        }
    }

    /// Something happens now to all carriers.
    pub fn strike(&mut self, how: How) {
        self.net.strike_all(self.now, how);
        self.settle();
    }

    /// From now on nothing goes wrong that has not begun yet: all dials connect, nothing more happens to carriers, and who sleeps wakes up.
    pub fn calm(&mut self) {
        self.net.calm();
        // A connection that loses packets goes on to be taken for dead now and then.
        self.net.lose_no_packets();
        if let Some(keys) = &self.keys {
            keys.calm();
            self.net.touch_no_packets();
        }
        self.settle();
    }

    /// The client dials, beside the carrier in use if there is one.
    pub fn redial(&mut self) {
        let now = self.now;
        if let Some(ours) = self.ends().client.ours_mut() {
            let twin = ours.tunnel.current().is_some();
            ours.tunnel.redial(now);
            if twin {
                self.net.counts.note("twin");
            }
        }
        self.settle();
    }

    /// An end is stopped for so long, as a process is by SIGSTOP or a lid that is closed. Its connections live on.
    pub fn sleep(&mut self, side: Side, time: Duration) {
        self.net.sleep(self.now, side, time);
        self.settle();
    }

    /// The server's process is killed and started again: it knows nothing.
    pub fn restart_server(&mut self) {
        let now = self.now;
        self.net.counts.note("server restart");
        self.net.trace.tell(now, format_args!("the server is restarted"));
        self.ends();
        let ends = self.ends.as_mut().expect("made");
        ends.server.restart(now, &mut self.net);
        self.settle();
    }

    /// Changes something at an end of ours as its program would: [`Tunnel::close`], [`Tunnel::abort`] ...
    ///
    /// # Panics
    ///
    /// If that end is not ours or has no session.
    pub fn with<T>(&mut self, side: Side, change: impl FnOnce(&mut Tunnel, Instant) -> T) -> T {
        let now = self.now;
        let ends = self.ends();
        let node = if side == Side::Client { &mut ends.client } else { &mut ends.server };
        let outcome = change(&mut node.ours_mut().expect("an end of ours with a session").tunnel, now);
        self.settle();
        outcome
    }

    /// The next packets that go that way are dropped, as a receiver does that is short of memory. Carriers lose nothing.
    pub fn lose(&mut self, way: Way, packets: u32) {
        self.net.to_lose[usize::from(way == Way::Down)] = packets;
    }

    /// Writes a packet into a living carrier (counted from 1) as if the sender there had.
    pub fn inject(&mut self, carrier: u32, way: Way, packet: &[u8]) {
        let side = if way == Way::Up { Side::Client } else { Side::Server };
        self.net.send(self.now, carrier as usize - 1, side, packet);
        self.settle();
    }

    /// Somebody else dials, says the session's id and these packets. Returns his carrier's number.
    pub fn intrude(&mut self, packets: &[Vec<u8>]) -> u32 {
        let wire = self.net.dial(self.now);
        self.intruders.push(Intruder::new(wire, packets.to_vec()));
        self.settle();
        wire as u32 + 1
    }

    /// Somebody else dials and says these bytes, whatever they are. Returns his carrier's number.
    pub fn replay(&mut self, heard: &[u8]) -> u32 {
        let wire = self.net.dial(self.now);
        self.intruders.push(Intruder::replaying(wire, heard.to_vec()));
        self.settle();
        wire as u32 + 1
    }

    // What is seen.

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Everything was written, read and ended at both ends.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.client_app().is_done() && self.server_app().is_done()
    }

    /// Some time has passed: there are ends to look at.
    #[must_use]
    pub fn started(&self) -> bool {
        self.ends.is_some()
    }

    fn made(&self) -> &Ends {
        self.ends.as_ref().expect("the simulation runs")
    }

    /// The client's application.
    #[must_use]
    pub fn client_app(&self) -> &App {
        self.made().client.app()
    }

    /// The server's application.
    #[must_use]
    pub fn server_app(&self) -> &App {
        self.made().server.app()
    }

    /// The client's end of the session.
    ///
    /// # Panics
    ///
    /// If it is not one of ours.
    #[must_use]
    pub fn client(&self) -> &Tunnel {
        self.made().client.tunnel().expect("the client is one of ours")
    }

    /// The server's end of the session.
    ///
    /// # Panics
    ///
    /// If it is not one of ours, or has no session.
    #[must_use]
    pub fn server(&self) -> &Tunnel {
        self.server_session().expect("the server is one of ours and has a session")
    }

    /// The server's end of the session, if there is one of ours.
    #[must_use]
    pub fn server_session(&self) -> Option<&Tunnel> {
        self.made().server.tunnel()
    }

    /// The client's counters.
    #[must_use]
    pub fn client_stats(&self) -> Stats {
        self.client().stats()
    }

    /// The server's counters.
    #[must_use]
    pub fn server_stats(&self) -> Stats {
        self.server().stats()
    }

    /// What the application at that end was told, but for data that comes and goes.
    #[must_use]
    pub fn told(&self, side: Side) -> &[Told] {
        let ends = self.made();
        if side == Side::Client { ends.client.told() } else { ends.server.told() }
    }

    /// Packets that were handed to carriers, if the simulation is [`Sim::tapped`].
    #[must_use]
    pub fn seen(&self) -> &[Seen] {
        self.net.tap.as_deref().expect("the simulation is tapped")
    }

    /// Everything that was written into a carrier that way, if the simulation is [`Sim::tapped`].
    #[must_use]
    pub fn written(&self, carrier: u32, way: Way) -> &[u8] {
        self.net.written(carrier as usize - 1, way)
    }

    /// The longest time between two bytes that arrived at the application which data that goes `way` is for.
    #[must_use]
    pub fn longest_pause(&self, way: Way) -> Duration {
        self.pauses[usize::from(way == Way::Down)].2
    }

    /// Dials so far.
    #[must_use]
    pub fn dialled(&self) -> usize {
        self.net.dials()
    }

    /// Connections that exist, at either end.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.net.live()
    }

    /// Connections that the end at `side`, if it is one of ours, holds or tries to make.
    #[must_use]
    pub fn held_connections(&self, side: Side) -> usize {
        let ends = self.made();
        if side == Side::Client { ends.client.links() } else { ends.server.links() }
    }

    /// What the intruder on this carrier was sent.
    #[must_use]
    pub fn intruder_got(&self, carrier: u32) -> Vec<Vec<u8>> {
        self.intruder(carrier).map(Intruder::received).unwrap_or_default()
    }

    /// The same, to the byte.
    #[must_use]
    pub fn intruder_heard(&self, carrier: u32) -> &[u8] {
        self.intruder(carrier).map(Intruder::heard).unwrap_or_default()
    }

    fn intruder(&self, carrier: u32) -> Option<&Intruder> {
        self.intruders.iter().find(|intruder| intruder.wire + 1 == carrier as usize)
    }

    /// Carriers that were lost in mid-session, as an end of ours counts them.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        let ends = self.made();
        ends.client.tunnel().or(ends.server.tunnel()).map_or(0, |tunnel| tunnel.stats().cuts)
    }

    /// Faults that happened.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.net.counts
    }

    /// A number that is equal for equal runs only.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.net.trace.digest()
    }

    /// Random numbers of this simulation, for a test that builds itself from them.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if !std::thread::panicking() || crate::runs::is_quiet() {
            return;
        }
        eprintln!("\nthe last that happened:");
        self.net.trace.lines().for_each(|line| eprintln!("{line}"));
        eprintln!("now {:?}", self.elapsed());
        if let Some(ends) = &self.ends {
            for (name, node) in [("client", &ends.client), ("server", &ends.server)] {
                eprintln!("{name}: {}", node.app().describe());
                node.tunnel().iter().for_each(|tunnel| eprintln!("{name}: {:?}", tunnel.stats()));
            }
        }
        eprintln!("\nreplay: SIM_SEED={} cargo test -p turbotunnel-sim {}\n", self.seed, self.name);
    }
}
