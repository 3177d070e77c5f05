//! Which session an identifier belongs to.
//!
//! A session is in the map from its first packet to its end; its end comes by itself ([`Config::time_to_live`](crate::Config)). The identifiers of ended
//! sessions are remembered for a while, so that a late packet does not start a ghost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::SessionId;
use crate::embryo::Embryo;
#[cfg(feature = "secure")]
use crate::secure::PublicKey;
use crate::shared::Shared;

/// What a listener knows a session by. In plain mode that is its identifier. Where clients have keys identifiers are each client's own: the same one of another
/// client is another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub id: SessionId,
    #[cfg(feature = "secure")]
    pub owner: Option<PublicKey>,
}

/// A client's key.
pub(crate) type Client = [u8; 32];

impl Name {
    /// Whose it is; in plain mode nobody knows.
    pub(crate) fn client(&self) -> Option<Client> {
        #[cfg(feature = "secure")]
        return self.owner.map(|owner| *owner.as_bytes());
        #[cfg(not(feature = "secure"))]
        None
    }

    /// Whoever comes with it has proved that it is his.
    pub(crate) fn is_proved(&self) -> bool {
        #[cfg(feature = "secure")]
        return self.owner.is_some();
        #[cfg(not(feature = "secure"))]
        false
    }
}

impl From<SessionId> for Name {
    fn from(id: SessionId) -> Self {
        Self {
            id,
            #[cfg(feature = "secure")]
            owner: None,
        }
    }
}

pub(crate) const SHARDS: usize = 16;
/// Ended sessions remembered per shard.
pub(crate) const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Shard {
    live: HashMap<Name, Arc<Shared>>,
    ended: HashMap<Name, Ended>,
    /// In the order of their ends. One that was reborn and has ended again is in here twice.
    order: VecDeque<(Instant, End, Name)>,
    ends: End,
}

/// Ends are counted.
type End = u64;

struct Ended {
    end: End,
    embryo: Option<Embryo>,
}

impl Shard {
    fn forget_oldest(&mut self) {
        if let Some((_, end, name)) = self.order.pop_front()
            && self.ended.get(&name).is_some_and(|ended| ended.end == end)
        {
            self.ended.remove(&name);
        }
    }
}

pub(crate) struct SessionMap {
    shards: [Mutex<Shard>; SHARDS],
    remember_for: Duration,
}

/// What an identifier stands for.
pub(crate) enum Known {
    Live(Arc<Shared>),
    Ended,
    /// Nothing had come of it when its client left it; it may go on.
    Abandoned(Embryo),
    Unknown,
}

impl SessionMap {
    pub(crate) fn new(remember_for: Duration) -> Self {
        Self { shards: Default::default(), remember_for }
    }

    fn shard(&self, name: Name) -> MutexGuard<'_, Shard> {
        // Identifiers are random; where they are not, sixteen locks become one, no more.
        let shard = usize::from(name.id.0[7]) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, now: Instant, name: impl Into<Name>) -> Known {
        let name = name.into();
        let mut shard = self.shard(name);
        if let Some(shared) = shard.live.get(&name) {
            return Known::Live(shared.clone());
        }
        while shard.order.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= self.remember_for) {
            shard.forget_oldest();
        }
        match shard.ended.get(&name) {
            Some(Ended { embryo: Some(embryo), .. }) => Known::Abandoned(*embryo),
            Some(Ended { embryo: None, .. }) => Known::Ended,
            None => Known::Unknown,
        }
    }

    pub(crate) fn live(&self, name: Name) -> Option<Arc<Shared>> {
        self.shard(name).live.get(&name).cloned()
    }

    /// Enters a new session, or gives the one that somebody else has entered meanwhile.
    pub(crate) fn insert(&self, name: impl Into<Name>, new: impl FnOnce() -> Arc<Shared>) -> (Arc<Shared>, bool) {
        let name = name.into();
        let mut shard = self.shard(name);
        if let Some(shared) = shard.live.get(&name) {
            return (shared.clone(), false);
        }
        let shared = new();
        shard.live.insert(name, shared.clone());
        (shared, true)
    }

    /// The session is over. What still comes for it begins no ghost, and brings the one with an `embryo` back to life.
    pub(crate) fn remove(&self, now: Instant, name: impl Into<Name>, embryo: Option<Embryo>) {
        let name = name.into();
        let mut shard = self.shard(name);
        if shard.live.remove(&name).is_some() {
            if shard.order.len() >= REMEMBERED {
                shard.forget_oldest();
            }
            shard.ends += 1;
            let end = shard.ends;
            shard.ended.insert(name, Ended { end, embryo });
            shard.order.push_back((now, end, name));
        }
    }

    /// All that live.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        let lock = |shard: &Mutex<Shard>| -> Vec<_> {
            shard.lock().unwrap_or_else(PoisonError::into_inner).live.values().cloned().collect()
        };
        self.shards.iter().flat_map(lock).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).live.len()).sum()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]
mod tests {
    use super::*;
    use crate::Config;
    use crate::tunnel::Tunnel;

    fn session(now: Instant, id: SessionId) -> Arc<Shared> {
        Arc::new(Shared::new(id, Tunnel::server(now, Config::default(), 1, [7; 8])))
    }

    #[test]
    fn an_ended_session_is_remembered_for_a_while_and_then_unknown() {
        let start = Instant::now();
        let map = SessionMap::new(Duration::from_secs(60));
        let id = SessionId([3; 8]);
        assert!(matches!(map.get(start, id), Known::Unknown));
        assert!(map.insert(id, || session(start, id)).1);
        assert!(!map.insert(id, || unreachable!("it is there already")).1);
        assert!(matches!(map.get(start, id), Known::Live(_)));
        map.remove(start, id, None);
        assert_eq!(map.len(), 0);
        assert!(matches!(map.get(start + Duration::from_secs(59), id), Known::Ended));
        assert!(matches!(map.get(start + Duration::from_secs(60), id), Known::Unknown));
    }
}
