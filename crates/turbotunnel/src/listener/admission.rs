//! Who is let in: counts connections and new sessions, in all, by source and by client.
//!
//! In: connections as they come, change and go, each with the number that it got, and the time. Out: whose place a newcomer takes, and what is refused.
//! A connection is a stranger at first and a carrier from [`Admission::attach`] or [`Admission::begin`] on.
//!
//! Beyond the number of strangers the **oldest** goes, and not a newcomer at random as with sshd's `MaxStartups`: a flood of the silent keeps such
//! a server full, and most newcomers are dropped whoever they are, while here whoever says his id within a round trip is gone from the line
//! before it has moved on. With 1,024 places and a round trip of 100 ms that takes a flood of 10,000 connections a second.
//!
//! A source is forgotten when it has no connection and its allowance is whole again, so there are never more of them than connections and the new
//! sessions of some seconds. A client is forgotten with his last carrier and session. Not here: who is closed, and how.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::control::Limit;
use crate::limits::{Limits, ListenerStats, Rate};
use crate::session_map::Client;

/// Where connections come from that share limits: an IPv4 address, or the network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    pub(crate) fn of(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.into()),
            IpAddr::V6(ip) => Self::V6((u128::from(ip) >> 64) as u64),
        }
    }
}

/// A token bucket in one number: when it is full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// The state after one more at `now`. `None`: one too many.
    fn take(self, now: Instant, rate: Rate) -> Option<Self> {
        let step = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.max(now) + step;
        (full_at.saturating_duration_since(now) <= step.saturating_mul(rate.burst.max(1))).then_some(Self { full_at })
    }
}

#[derive(Debug)]
struct Neighbours {
    strangers: usize,
    carriers: usize,
    new_sessions: Bucket,
    handshakes: Bucket,
}

/// What a client has.
struct Holding {
    carriers: usize,
    sessions: usize,
    budget: Arc<Budget>,
}

/// Whose a carrier is.
struct Belongs {
    source: Option<Source>,
    client: Option<Client>,
}

struct Stranger<T> {
    source: Option<Source>,
    /// Known from the end of the handshake on.
    client: Option<Client>,
    /// Known a moment after its arrival.
    task: Option<T>,
    /// Once, and counted then.
    refused: bool,
}

/// One connection, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number(u64);

/// Not let in, because of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub Limit);

/// Whoever was closed for others asks for nothing any more.
const GONE: Refused = Refused(Limit::Carriers);

/// See the [module](self). `T` is what is known of a stranger beside its source: the task that looks after it.
pub(crate) struct Admission<T> {
    limits: Limits,
    last: u64,
    /// By their numbers, so the oldest is the first.
    strangers: BTreeMap<Number, Stranger<T>>,
    carriers: HashMap<Number, Belongs>,
    sources: HashMap<Source, Neighbours>,
    clients: HashMap<Client, Holding>,
    /// Sources beyond which the forgettable ones are thrown out.
    tidy_at: usize,
    new_sessions: Option<Bucket>,
    handshakes: Option<Bucket>,
    pub(crate) stats: ListenerStats,
}

impl<T> Admission<T> {
    const TIDY_AT_LEAST: usize = 64;

    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: 0,
            strangers: BTreeMap::new(),
            carriers: HashMap::new(),
            sources: HashMap::new(),
            clients: HashMap::new(),
            tidy_at: Self::TIDY_AT_LEAST,
            new_sessions: None,
            handshakes: None,
            stats: ListenerStats::default(),
        }
    }

    /// A connection comes. Returns its number, and who has to go for it.
    pub(crate) fn arrive(&mut self, now: Instant, source: Option<Source>) -> (Number, Option<T>) {
        self.stats.connections += 1;
        self.last += 1;
        let number = Number(self.last);
        let of_source = source.map_or(0, |source| self.enter(now, source).strangers);
        let goes = if of_source >= self.limits.strangers_per_source.max(1) {
            self.stats.strangers_dropped_of_source += 1;
            self.strangers.iter().find(|(_, stranger)| stranger.source == source).map(|(number, _)| *number)
        } else if self.strangers.len() >= self.limits.strangers.max(1) {
            self.stats.strangers_dropped += 1;
            self.strangers.keys().next().copied()
        } else {
            None
        };
        let goes = goes.and_then(|oldest| self.remove_stranger(oldest));
        if let Some(neighbours) = source.and_then(|source| self.sources.get_mut(&source)) {
            neighbours.strangers += 1;
        }
        self.strangers.insert(number, Stranger { source, client: None, task: None, refused: false });
        (number, goes.and_then(|stranger| stranger.task))
    }

    /// No connection can be accepted, for want of descriptors mostly: returns the oldest stranger, who has to go.
    pub(crate) fn make_room(&mut self) -> Option<T> {
        self.stats.accept_pauses += 1;
        let oldest = self.strangers.keys().next().copied()?;
        self.stats.strangers_dropped += 1;
        self.remove_stranger(oldest)?.task
    }

    /// Who looks after the stranger. It comes back if the stranger had to go meanwhile, or is none any more.
    pub(crate) fn look_after(&mut self, number: Number, task: T) -> Option<T> {
        match self.strangers.get_mut(&number) {
            Some(stranger) => stranger.task.replace(task),
            None => Some(task),
        }
    }

    /// A stranger has shown that he has this client's key.
    #[cfg_attr(not(feature = "secure"), allow(dead_code, reason = "for listeners with keys"))]
    pub(crate) fn identify(&mut self, number: Number, client: Client) {
        if let Some(stranger) = self.strangers.get_mut(&number) {
            stranger.client = Some(client);
        }
    }

    /// A stranger has said the id of a session that lives. `replaces`: the session has a carrier, which the new one will take the place of soon, so there
    /// may be more of its source for a while: behind one address many connections may be dead at once without anybody knowing it yet. Whoever is
    /// refused stays a stranger.
    pub(crate) fn attach(&mut self, number: Number, replaces: bool) -> Result<(), Refused> {
        self.may_be_carrier(number, replaces)?;
        self.make_carrier(number);
        Ok(())
    }

    /// A stranger opens a session. `scarce`: there is little memory left. Whoever is refused stays a stranger, and may ask again; he is counted once.
    pub(crate) fn begin(&mut self, now: Instant, number: Number, scarce: bool) -> Result<(), Refused> {
        let Belongs { source, client } = self.may_be_carrier(number, false)?;
        if scarce {
            return self.refuse(number, Limit::Memory, |stats| &mut stats.sessions_refused_by_memory);
        }
        if self.sessions() >= self.limits.sessions {
            return self.refuse(number, Limit::Sessions, |stats| &mut stats.sessions_refused);
        }
        if self.holding(client).is_some_and(|holding| holding.sessions >= self.limits.sessions_per_client) {
            return self.refuse(number, Limit::SessionsOfClient, |stats| &mut stats.sessions_refused_of_client);
        }
        // A source that has used up its own allowance takes nothing of the others'.
        let of_source = source.and_then(|source| self.sources.get(&source));
        let of_source =
            of_source.map(|neighbours| neighbours.new_sessions.take(now, self.limits.new_sessions_per_source));
        if of_source == Some(None) {
            return self.refuse(number, Limit::Rate, |stats| &mut stats.sessions_refused_by_rate_of_source);
        }
        let all = self.new_sessions.unwrap_or(Bucket { full_at: now });
        let Some(left) = all.take(now, self.limits.new_sessions) else {
            return self.refuse(number, Limit::Rate, |stats| &mut stats.sessions_refused_by_rate);
        };
        self.new_sessions = Some(left);
        if let Some((neighbours, left)) =
            source.and_then(|source| self.sources.get_mut(&source)).zip(of_source.flatten())
        {
            neighbours.new_sessions = left;
        }
        self.make_carrier(number);
        Ok(())
    }

    /// A stranger has said what looks like the beginning of a handshake. To go on with it costs half a millisecond of a core. Whoever is refused may ask again; he is counted
    /// once.
    #[cfg_attr(not(feature = "secure"), allow(dead_code, reason = "for listeners with keys"))]
    pub(crate) fn handshake(&mut self, now: Instant, number: Number) -> Result<(), Refused> {
        let source = self.strangers.get(&number).ok_or(GONE)?.source;
        let neighbours = source.and_then(|source| self.sources.get(&source));
        let of_source = neighbours.map(|neighbours| neighbours.handshakes.take(now, self.limits.handshakes_per_source));
        if matches!(of_source, Some(None)) {
            return self.refuse(number, Limit::Rate, |stats| &mut stats.handshakes_refused_by_rate_of_source);
        }
        let all = self.handshakes.unwrap_or(Bucket { full_at: now });
        let Some(left) = all.take(now, self.limits.handshakes) else {
            return self.refuse(number, Limit::Rate, |stats| &mut stats.handshakes_refused_by_rate);
        };
        self.handshakes = Some(left);
        let neighbours = source.and_then(|source| self.sources.get_mut(&source));
        if let Some((neighbours, left)) = neighbours.zip(of_source.flatten()) {
            neighbours.handshakes = left;
        }
        Ok(())
    }

    /// A session has begun. Returns what its client's sessions may have together; in plain mode they are nobody's.
    pub(crate) fn session_began(&mut self, client: Option<Client>) -> Option<Arc<Budget>> {
        self.stats.sessions_begun += 1;
        let holding = self.hold(client?);
        holding.sessions += 1;
        Some(holding.budget.clone())
    }

    /// It is over.
    pub(crate) fn session_ended(&mut self, client: Option<Client>) {
        self.stats.sessions_ended += 1;
        self.release(client, |holding| &mut holding.sessions);
    }

    fn holding(&self, client: Option<Client>) -> Option<&Holding> {
        self.clients.get(&client?)
    }

    fn hold(&mut self, client: Client) -> &mut Holding {
        let memory = self.limits.memory_per_client.unwrap_or(usize::MAX);
        self.clients.entry(client).or_insert_with(|| Holding { carriers: 0, sessions: 0, budget: Budget::new(memory) })
    }

    fn release(&mut self, client: Option<Client>, what: impl FnOnce(&mut Holding) -> &mut usize) {
        let Some(client) = client else { return };
        let Some(holding) = self.clients.get_mut(&client) else { return };
        let left = what(holding);
        *left = left.saturating_sub(1);
        if holding.carriers + holding.sessions == 0 {
            self.clients.remove(&client);
        }
    }

    /// The connection is gone. It may have been forgotten before.
    pub(crate) fn leave(&mut self, number: Number) {
        if let Some(Belongs { source, client }) = self.carriers.remove(&number) {
            self.release(client, |holding| &mut holding.carriers);
            if let Some(neighbours) = source.and_then(|source| self.sources.get_mut(&source)) {
                neighbours.carriers -= 1;
            }
        } else {
            self.remove_stranger(number);
        }
    }

    /// All strangers, who have to go.
    pub(crate) fn dismiss(&mut self) -> Vec<T> {
        let numbers: Vec<_> = self.strangers.keys().copied().collect();
        numbers.into_iter().filter_map(|number| self.remove_stranger(number)?.task).collect()
    }

    fn sessions(&self) -> usize {
        usize::try_from(self.stats.sessions_begun - self.stats.sessions_ended).unwrap_or(usize::MAX)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats {
            strangers_now: self.strangers.len(),
            carriers_now: self.carriers.len(),
            sessions_now: self.sessions(),
            sources_now: self.sources.len(),
            clients_now: self.clients.len(),
            ..self.stats
        }
    }

    fn refuse<R>(
        &mut self,
        number: Number,
        limit: Limit,
        counter: impl FnOnce(&mut ListenerStats) -> &mut u64,
    ) -> Result<R, Refused> {
        let again =
            self.strangers.get_mut(&number).is_none_or(|stranger| std::mem::replace(&mut stranger.refused, true));
        *counter(&mut self.stats) += u64::from(!again);
        Err(Refused(limit))
    }

    fn may_be_carrier(&mut self, number: Number, replaces: bool) -> Result<Belongs, Refused> {
        let &Stranger { source, client, .. } = self.strangers.get(&number).ok_or(GONE)?;
        let of_source = source.and_then(|source| self.sources.get(&source)).map_or(0, |neighbours| neighbours.carriers);
        if of_source >= self.limits.carriers_per_source && !replaces {
            return self.refuse(number, Limit::CarriersOfSource, |stats| &mut stats.carriers_refused_of_source);
        }
        let of_client = self.holding(client).map_or(0, |holding| holding.carriers);
        if of_client >= self.limits.carriers_per_client && !replaces {
            return self.refuse(number, Limit::CarriersOfClient, |stats| &mut stats.carriers_refused_of_client);
        }
        if self.carriers.len() >= self.limits.carriers {
            return self.refuse(number, Limit::Carriers, |stats| &mut stats.carriers_refused);
        }
        Ok(Belongs { source, client })
    }

    fn make_carrier(&mut self, number: Number) {
        let Some(Stranger { source, client, .. }) = self.remove_stranger(number) else { return };
        if let Some(client) = client {
            self.hold(client).carriers += 1;
        }
        if let Some(neighbours) = source.and_then(|source| self.sources.get_mut(&source)) {
            neighbours.carriers += 1;
        }
        self.carriers.insert(number, Belongs { source, client });
    }

    fn remove_stranger(&mut self, number: Number) -> Option<Stranger<T>> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(neighbours) = stranger.source.and_then(|source| self.sources.get_mut(&source)) {
            neighbours.strangers -= 1;
        }
        Some(stranger)
    }

    /// Remembers the source, and throws out the forgettable ones seldom enough to cost nothing per connection.
    fn enter(&mut self, now: Instant, source: Source) -> &mut Neighbours {
        if self.sources.len() >= self.tidy_at {
            self.sources.retain(|_, n| {
                n.strangers + n.carriers > 0 || n.new_sessions.full_at > now || n.handshakes.full_at > now
            });
            self.tidy_at = Self::TIDY_AT_LEAST.max(2 * self.sources.len());
            self.sources.shrink_to(self.tidy_at);
        }
        let whole = Bucket { full_at: now };
        let fresh = || Neighbours { strangers: 0, carriers: 0, new_sessions: whole, handshakes: whole };
        self.sources.entry(source).or_insert_with(fresh)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]
mod tests {
    use super::*;

    fn source(addr: &str) -> Option<Source> {
        Some(Source::of(SocketAddr::new(addr.parse().unwrap(), 1)))
    }

    /// One that arrives; its number is its task, too.
    fn arrive(admission: &mut Admission<Number>, now: Instant, from: &str) -> (Number, Option<Number>) {
        let (number, goes) = admission.arrive(now, source(from));
        assert_eq!(admission.look_after(number, number), None);
        (number, goes)
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Admission<Number> {
        let mut limits = Limits::default();
        change(&mut limits);
        Admission::new(limits)
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    /// 10,000 silent connections from many sources, then somebody who speaks.
    #[test]
    fn the_oldest_stranger_makes_room_for_the_newest() {
        let now = Instant::now();
        let mut admission = limited(|limits| limits.strangers = 100);
        for n in 0..10_000_u32 {
            let from = std::net::Ipv4Addr::from(n).to_string();
            let (number, goes) = arrive(&mut admission, now, &from);
            assert_eq!(goes, number.0.checked_sub(100).filter(|old| *old > 0).map(Number));
        }
        let (honest, _) = arrive(&mut admission, now, "2001:db8::1");
        assert_eq!(admission.begin(now, honest, false), Ok(()));
        let stats = admission.stats();
        assert_eq!((stats.strangers_now, stats.strangers_dropped, stats.connections), (99, 9_901, 10_001));
    }

    /// One source floods; whoever else is silent for a while keeps his place.
    #[test]
    fn a_source_that_floods_drops_its_own_strangers_only() {
        let now = Instant::now();
        let mut admission = limited(|_| {});
        let (other, _) = arrive(&mut admission, now, "192.0.2.1");
        for n in 0..1_000 {
            let (number, goes) = arrive(&mut admission, now, "192.0.2.9");
            assert_eq!(goes, (n >= 64).then(|| Number(number.0 - 64)));
        }
        assert_eq!(admission.stats().strangers_dropped_of_source, 1_000 - 64);
        assert_eq!(admission.begin(now, other, false), Ok(()));
        assert_eq!(admission.stats().strangers_dropped, 0);
    }

    #[test]
    fn connections_without_an_address_have_no_limits_of_a_source() {
        let now = Instant::now();
        let mut admission: Admission<Number> = limited(|_| {});
        let numbers: Vec<_> = (0..1_000).map(|_| admission.arrive(now, None).0).collect();
        for number in numbers {
            assert_eq!(admission.begin(now, number, false), Ok(()));
        }
        assert_eq!(admission.stats().sources_now, 0);
    }

    /// A carrier beyond the limits stays a stranger; one that ends makes room.
    #[test]
    fn carriers_have_a_number_in_all_and_by_source() {
        let now = Instant::now();
        let mut admission = limited(|limits| (limits.carriers, limits.carriers_per_source) = (3, 2));
        let numbers: Vec<_> = (0..3).map(|_| arrive(&mut admission, now, "192.0.2.1").0).collect();
        assert_eq!(admission.begin(now, numbers[0], false), Ok(()));
        assert_eq!(admission.attach(numbers[1], false), Ok(()));
        assert_eq!(admission.attach(numbers[2], false), Err(Refused(Limit::CarriersOfSource)));
        assert!(admission.attach(numbers[2], false).is_err(), "and counted once");
        let others: Vec<_> = (0..2).map(|_| arrive(&mut admission, now, "192.0.2.2").0).collect();
        assert_eq!(admission.attach(others[0], true), Ok(()));
        assert_eq!(admission.begin(now, others[1], false), Err(Refused(Limit::Carriers)));
        let stats = admission.stats();
        assert_eq!((stats.carriers_now, stats.strangers_now), (3, 2));
        assert_eq!((stats.carriers_refused, stats.carriers_refused_of_source), (1, 1));
        admission.leave(numbers[0]);
        let (replacement, _) = arrive(&mut admission, now, "192.0.2.2");
        admission.leave(others[1]);
        assert_eq!(admission.attach(replacement, true), Ok(()), "there is room in all");
        admission.leave(replacement);
        assert_eq!(admission.attach(numbers[2], false), Ok(()));
        for number in numbers.into_iter().chain(others) {
            admission.leave(number);
            admission.leave(number);
        }
        assert_eq!((admission.stats().carriers_now, admission.stats().strangers_now), (0, 0));
        assert!(admission.sources.values().all(|n| n.strangers + n.carriers == 0));
    }

    /// A source begins sessions as fast as it can for ten seconds. Another one has its share all the time.
    #[test]
    fn new_sessions_have_a_rate_and_a_source_does_not_eat_the_others_share() {
        let start = Instant::now();
        let mut admission = limited(|limits| limits.carriers_per_source = usize::MAX);
        let mut begun = [0; 2];
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            for (of, from) in begun.iter_mut().zip(["192.0.2.1", "192.0.2.2"]) {
                let many = if from == "192.0.2.1" { 2 } else { u64::from(ms % 25 == 0) };
                for _ in 0..many {
                    let (number, _) = arrive(&mut admission, now, from);
                    *of += i32::from(admission.begin(now, number, false).is_ok());
                    admission.leave(number);
                }
            }
        }
        assert_eq!(begun, [500 + 499, 400]);
        let stats = admission.stats();
        assert_eq!((stats.sessions_refused_by_rate_of_source, stats.sessions_refused_by_rate), (20_000 - 999, 0));
    }

    #[test]
    fn new_sessions_have_a_rate_in_all() {
        let start = Instant::now();
        let mut admission = limited(|_| {});
        let mut begun = 0;
        for n in 0..20_000 {
            let now = start + Duration::from_micros(500 * n);
            let from = std::net::Ipv4Addr::from(n as u32).to_string();
            let (number, _) = arrive(&mut admission, now, &from);
            begun += i32::from(admission.begin(now, number, false).is_ok());
            admission.leave(number);
        }
        assert_eq!(begun, 2_000 + 4_999, "2,000 a second for ten seconds");
        assert!(admission.stats().sources_now <= 2 * 7_000, "{} sources", admission.stats().sources_now);
    }

    #[test]
    fn nobody_new_is_let_in_while_memory_is_scarce() {
        let now = Instant::now();
        let mut admission = limited(|_| {});
        let (number, _) = arrive(&mut admission, now, "192.0.2.1");
        assert_eq!(admission.begin(now, number, true), Err(Refused(Limit::Memory)));
        assert_eq!(admission.begin(now, number, true), Err(Refused(Limit::Memory)));
        assert_eq!(admission.begin(now, number, false), Ok(()));
        assert_eq!(admission.stats().sessions_refused_by_memory, 1, "he asked twice and is counted once");
    }

    #[test]
    fn sessions_have_a_number() {
        let now = Instant::now();
        let mut admission = limited(|limits| limits.sessions = 1);
        let (one, two) = (arrive(&mut admission, now, "192.0.2.1").0, arrive(&mut admission, now, "192.0.2.1").0);
        assert_eq!(admission.begin(now, one, false), Ok(()));
        admission.session_began(None);
        assert_eq!(admission.begin(now, two, false), Err(Refused(Limit::Sessions)));
        admission.session_ended(None);
        assert_eq!(admission.begin(now, two, false), Ok(()), "it asks again, and now there is room");
        assert_eq!(admission.stats().sessions_refused, 1);
    }

    /// One client begins as many sessions as it can, from an address that it shares with another.
    #[test]
    fn sessions_and_carriers_of_a_client_have_a_number_and_others_have_theirs() {
        let now = Instant::now();
        let mut admission = limited(|limits| (limits.sessions_per_client, limits.carriers_per_client) = (2, 3));
        let arrive = |admission: &mut Admission<Number>, client: u8| {
            let (number, _) = arrive(admission, now, "192.0.2.1");
            admission.identify(number, [client; 32]);
            number
        };
        let begin = |admission: &mut Admission<Number>, number, client: u8| {
            admission.begin(now, number, false).inspect(|()| drop(admission.session_began(Some([client; 32]))))
        };
        let numbers = [1, 1, 1, 2].map(|client| arrive(&mut admission, client));
        let outcomes = [0, 1, 2, 3].map(|n| begin(&mut admission, numbers[n], if n < 3 { 1 } else { 2 }));
        let full = Err(Refused(Limit::SessionsOfClient));
        assert_eq!(outcomes, [Ok(()), Ok(()), full, Ok(())]);
        assert_eq!(admission.begin(now, numbers[2], false), full, "counted once");
        let more = [(); 3].map(|()| arrive(&mut admission, 1));
        let too_many = Err(Refused(Limit::CarriersOfClient));
        assert_eq!(more.map(|number| admission.attach(number, false)), [Ok(()), too_many, too_many]);
        assert_eq!(admission.attach(more[1], true), Ok(()), "it will take the place of another");
        let stats = admission.stats();
        assert_eq!((stats.sessions_refused_of_client, stats.carriers_refused_of_client, stats.clients_now), (1, 2, 2));
        admission.leave(numbers[0]);
        admission.leave(more[0]);
        assert_eq!(begin(&mut admission, numbers[2], 1), full, "sessions outlive their carriers");
        admission.session_ended(Some([1; 32]));
        assert_eq!(begin(&mut admission, numbers[2], 1), Ok(()), "it asks again, and now there is room");
        for number in numbers.into_iter().chain(more) {
            admission.leave(number);
        }
        for client in [1, 1, 2] {
            admission.session_ended(Some([client; 32]));
        }
        assert_eq!(admission.stats().clients_now, 0, "nothing is remembered of who has nothing");
    }

    /// A million addresses come once each (an attacker with a /40 of IPv6).
    #[test]
    fn sources_are_forgotten() {
        let start = Instant::now();
        let mut admission = limited(|_| {});
        let mut most = 0;
        for n in 0..1_000_000 {
            let now = start + Duration::from_micros(100 * n);
            let (number, _) = admission.arrive(now, Some(Source::V6(n)));
            if n % 10 == 0 {
                let _ = admission.begin(now, number, false);
            }
            admission.leave(number);
            most = most.max(admission.sources.len());
        }
        assert!(most <= Admission::<Number>::TIDY_AT_LEAST, "{most} sources are remembered at once");
        assert_eq!(admission.stats().strangers_now, 0);
    }

    /// The rest of the program has taken the descriptors, and those that are left are held by the silent.
    #[test]
    fn without_descriptors_the_oldest_stranger_goes_but_no_carrier() {
        let now = Instant::now();
        let mut admission = limited(|_| {});
        let numbers: Vec<_> = (0..3).map(|_| arrive(&mut admission, now, "192.0.2.1").0).collect();
        assert_eq!(admission.begin(now, numbers[0], false), Ok(()));
        assert_eq!([(); 3].map(|()| admission.make_room()), [Some(numbers[1]), Some(numbers[2]), None]);
        let stats = admission.stats();
        assert_eq!((stats.accept_pauses, stats.strangers_dropped, stats.carriers_now), (3, 2, 1));
    }

    #[test]
    fn all_strangers_are_dismissed() {
        let now = Instant::now();
        let mut admission = limited(|_| {});
        let (one, two) = (arrive(&mut admission, now, "192.0.2.1").0, arrive(&mut admission, now, "192.0.2.2").0);
        assert_eq!(admission.dismiss(), [one, two]);
        assert!(admission.attach(one, false).is_err(), "it is not here any more");
        assert_eq!(admission.look_after(one, one), Some(one));
        admission.leave(one);
        assert_eq!(admission.stats().strangers_now, 0);
    }
}
