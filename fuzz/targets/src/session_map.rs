//! The listener's map of sessions, beside a model: a `BTreeMap` of those that live, and a list of all that ever ended.
//!
//! Held to: who is known, and since when not any more; a session that was entered is the one that is found; connections and the addresses that they
//! came from wait at their session in order, until it is over or nobody drives it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use turbotunnel::SessionId;
use turbotunnel::fuzzing::{Entry, Known, NEWCOMERS, REMEMBERED, SHARDS, Sessions};

use crate::{ms, start, tell};

#[derive(Debug)]
enum Op {
    Get(SessionId),
    Insert(SessionId),
    Remove(SessionId),
    /// A connection comes from there.
    Attach(SessionId, Option<SocketAddr>),
    TakeNewcomers(SessionId),
    /// The session ends; it is still in the map.
    End(SessionId),
    /// Nobody drives it any more.
    LeaveAlone(SessionId),
    /// So many sessions begin and end, beside this one.
    Crowd(SessionId, u16),
    Wait(u16),
    WaitLong(u8),
}

/// Few of them, so that they meet.
fn id(u: &mut Unstructured<'_>) -> Result<SessionId> {
    let [which, shard] = u.arbitrary()?;
    Ok(SessionId([which & 3, 0, 0, 0, 0, 0, 0, shard]))
}

fn addr(u: &mut Unstructured<'_>) -> Result<Option<SocketAddr>> {
    let port = u.arbitrary::<u8>()?.into();
    Ok(match u.int_in_range(0..=2_u8)? {
        0 => None,
        1 => Some((Ipv4Addr::LOCALHOST, port).into()),
        _ => Some((Ipv6Addr::LOCALHOST, port).into()),
    })
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=12_u8)? {
            0..=2 => Self::Get(id(u)?),
            3 | 4 => Self::Insert(id(u)?),
            5 | 6 => Self::Remove(id(u)?),
            7 => Self::Attach(id(u)?, addr(u)?),
            8 => Self::TakeNewcomers(id(u)?),
            9 => Self::End(id(u)?),
            10 => Self::LeaveAlone(id(u)?),
            11 => match u.arbitrary::<u8>()? {
                0..=9 => Self::Crowd(id(u)?, u.int_in_range(0..=5_000)?),
                long => Self::WaitLong(long),
            },
            _ => Self::Wait(u.arbitrary()?),
        })
    }
}

struct Live {
    entry: Entry,
    waiting: Vec<Option<SocketAddr>>,
    over: bool,
}

struct Model {
    now: Instant,
    map: Sessions,
    remember_for: Duration,
    live: BTreeMap<SessionId, Live>,
    ended: Vec<(Instant, SessionId)>,
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let remember_for = ms(u.arbitrary::<u16>()?.into());
    let map = Sessions::new(remember_for);
    let mut model = Model { now: start(), map, remember_for, live: BTreeMap::new(), ended: Vec::new() };
    while !u.is_empty() {
        let op = u.arbitrary::<Op>()?;
        tell(&op);
        model.apply(&op);
        assert_eq!(model.map.len(), model.live.len());
    }
    let ids: Vec<SessionId> = model.live.keys().copied().chain(model.ended.iter().map(|(_, id)| *id)).collect();
    ids.into_iter().take(100).for_each(|id| model.get(id));
    Ok(())
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Get(id) => self.get(id),
            Op::Insert(id) => self.insert(id),
            Op::Remove(id) => self.remove(id),
            Op::Attach(id, addr) => {
                if let Some(live) = self.live.get_mut(&id) {
                    let taken = live.entry.attach(addr);
                    assert_eq!(taken, !live.over, "a session takes connections as long as it lives");
                    live.waiting.extend(taken.then_some(addr));
                    let too_many = live.waiting.len().saturating_sub(NEWCOMERS);
                    live.waiting.drain(..too_many);
                }
            }
            Op::TakeNewcomers(id) => {
                if let Some(live) = self.live.get_mut(&id) {
                    assert_eq!(live.entry.take_newcomers(), std::mem::take(&mut live.waiting));
                }
            }
            Op::End(id) => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.entry.end();
                    live.over = true;
                }
            }
            Op::LeaveAlone(id) => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.entry.leave_alone();
                    live.over = true;
                }
            }
            Op::Crowd(id, count) => {
                for member in 0..count {
                    let [high, low] = member.to_be_bytes();
                    let id = SessionId([0xff, high, low, 0, 0, 0, 0, id.0[7]]);
                    self.insert(id);
                    self.remove(id);
                }
            }
            Op::Wait(millis) => self.now += ms(millis.into()),
            Op::WaitLong(hours) => self.now += Duration::from_secs(u64::from(hours) * 3600),
        }
    }

    fn get(&mut self, id: SessionId) {
        match (self.map.get(self.now, id), self.live.get(&id)) {
            (Known::Live(entry), Some(live)) => assert!(entry == live.entry, "another session is found"),
            (Known::Ended, None) => assert!(self.remembers(id), "it is remembered for too long"),
            (Known::Unknown, None) => assert!(!self.remembers(id), "it is forgotten too soon"),
            (known, live) => panic!("found {known:?}, and it lives: {}", live.is_some()),
        }
    }

    fn remembers(&self, id: SessionId) -> bool {
        let shard = |id: SessionId| usize::from(id.0[7]) % SHARDS;
        let mut last = self.ended.iter().rev().filter(|(_, other)| shard(*other) == shard(id)).take(REMEMBERED);
        last.any(|(at, other)| *other == id && self.now - *at < self.remember_for)
    }

    fn insert(&mut self, id: SessionId) {
        let (entry, is_new) = self.map.insert(self.now, id);
        match self.live.get(&id) {
            Some(live) => assert!(!is_new && entry == live.entry, "there is one already"),
            None => {
                assert!(is_new, "there was none");
                self.live.insert(id, Live { entry, waiting: Vec::new(), over: false });
            }
        }
    }

    fn remove(&mut self, id: SessionId) {
        self.map.remove(self.now, id);
        if self.live.remove(&id).is_some() {
            self.ended.push((self.now, id));
        }
    }
}
