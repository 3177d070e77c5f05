//! The streams of a session: by id for what comes off the wire, by place for what waits in a queue.
//!
//! A [`Key`] names a place and who lived there, so a queue may keep it longer than the stream lives: it then leads
//! nowhere. Places are handed out in an order that depends on the calls alone, never on the map's hash keys.

use crate::stream::Stream;
use crate::wire::StreamId;
use std::collections::HashMap;

/// Where a stream lives. Outlives it harmlessly.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    place: u32,
    tenant: u32,
}

#[derive(Debug)]
struct Slot {
    tenant: u32,
    stream: Option<Stream>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// Foreign ids come in here: the map's keyed hash keeps their choice from mattering.
    places: HashMap<u32, u32>,
    tenants: u32,
    /// Found last: in bulk transfer nearly always the one looked for next.
    last: u32,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn contains(&self, id: StreamId) -> bool {
        self.places.contains_key(&id.value())
    }

    /// The stream's place, if it lives.
    #[inline]
    pub(crate) fn find(&mut self, id: StreamId) -> Option<Key> {
        self.find_mut(id).map(|(key, _)| key)
    }

    /// The stream and its place, if it lives.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: StreamId) -> Option<(Key, &mut Stream)> {
        let lives_there = |slot: &Slot| slot.stream.as_ref().is_some_and(|stream| stream.id == id);
        if !self.slots.get(self.last as usize).is_some_and(lives_there) {
            self.last = *self.places.get(&id.value())?;
        }
        let slot = self.slots.get_mut(self.last as usize)?;
        let key = Key { place: self.last, tenant: slot.tenant };
        slot.stream.as_mut().map(|stream| (key, stream))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(key.place as usize)?;
        if slot.tenant == key.tenant { slot.stream.as_mut() } else { None }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Stream> {
        let slot = self.slots.get(key.place as usize)?;
        if slot.tenant == key.tenant { slot.stream.as_ref() } else { None }
    }

    /// Takes in a stream whose id is not in the table.
    pub(crate) fn insert(&mut self, stream: Stream) -> Key {
        self.tenants = self.tenants.wrapping_add(1);
        let (id, tenant) = (stream.id.value(), self.tenants);
        let slot = Slot { tenant, stream: Some(stream) };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                let place = u32::try_from(self.slots.len()).expect("ids are 32 bits, so are their places");
                if place == 0 {
                    // Many sessions have one stream, and no use for places for four.
                    self.slots.reserve_exact(1);
                }
                self.slots.push(slot);
                place
            }
        };
        let before = self.places.insert(id, place);
        debug_assert!(before.is_none(), "two streams with id {id}");
        Key { place, tenant }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.place as usize).filter(|slot| slot.tenant == key.tenant) else {
            return;
        };
        if let Some(stream) = slot.stream.take() {
            self.places.remove(&stream.id.value());
            self.vacant.push(key.place);
        }
    }

    /// All streams, in the order of their places.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let alive = self.slots.iter().enumerate().filter(|(_, slot)| slot.stream.is_some());
        alive.map(|(place, slot)| Key { place: place as u32, tenant: slot.tenant }).collect()
    }

    /// Gives what an empty table holds back to the allocator. Keys from before lead nowhere afterwards, too.
    pub(crate) fn trim(&mut self) {
        if self.places.is_empty() {
            *self = Self { tenants: self.tenants, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ASSUMED_WINDOW, Config};

    /// A stream's place, its two entries in the map (an id and a place, with the map's own slack), and its turn.
    #[test]
    fn an_idle_stream_costs_at_most_256_bytes() {
        let map_entry = (8 + 1) * 2;
        assert!(size_of::<Slot>() + map_entry + size_of::<Key>() * 2 <= 256, "{}", size_of::<Slot>());
    }

    #[test]
    fn the_key_of_a_stream_that_left_leads_nowhere() {
        let stream = |id| Stream::new(StreamId::new(id), &Config::default(), ASSUMED_WINDOW);
        let mut table = Table::default();
        let old = table.insert(stream(3));
        table.remove(old);
        let new = table.insert(stream(3));
        assert!(table.get(old).is_none() && table.get(new).is_some());
        table.remove(old);
        assert_eq!(table.find(StreamId::new(3)), Some(new));
        table.remove(new);
        table.trim();
        assert_eq!((table.slots.capacity(), table.places.capacity()), (0, 0));
        let newest = table.insert(stream(3));
        assert!(table.get(old).is_none() && table.get(new).is_none() && table.get(newest).is_some());
        assert_eq!(table.find(StreamId::new(5)), None);
    }
}
