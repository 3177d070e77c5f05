//! Byte queues of all streams, in chunks from one arena.
//!
//! In: slices of any length. Out: bytes in the same order. A [`Queue`] is four words in its stream; the chunks lie in the
//! session's [`Arena`], linked by index, so that an empty queue owns nothing and a chunk that runs empty serves the
//! next stream without a call to the allocator.
//!
//! ```text
//! allocated <= 1.25 x bytes + 2 x CHUNK     per queue, however small the pieces were
//! retained  <= OWN x CHUNK + POOL x SMALL + 16 MiB of empty slabs     per session; after `trim` nothing of that
//!              and the rest of slabs in which something is left
//! ```
//!
//! The first whole chunks are the allocator's, the others lie in [slabs](crate::slab).
//!
//! Not here: limits. The arena says what it allocates and frees, the session keeps the account.

use std::time::Instant;

use crate::slab::{Place, Slabs};

/// Bytes of a whole chunk: six full frames of a KCP segment each; small enough that two half-empty ones do not matter.
pub(crate) const CHUNK: usize = 8 << 10;

/// Bytes of a small chunk, in which a queue begins that little is put in: a keystroke, a query, a prompt. What a session keeps after it is then small too.
const SMALL: usize = 512;

/// Whole chunks that are the allocator's. All of them are kept for reuse.
const OWN: usize = 4;

/// Small chunks kept for reuse.
const POOL: usize = 32;

/// Bytes of the smallest chunk.
const SMALLEST: usize = 64;

const NIL: u32 = u32::MAX;

/// Bytes in order. Belongs to the [`Arena`] that filled it.
#[derive(Debug)]
pub(crate) struct Queue {
    first: u32,
    last: u32,
    /// Bytes of the first chunk that were taken already.
    taken: u32,
    len: usize,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self { first: NIL, last: NIL, taken: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Debug)]
struct Chunk {
    data: Data,
    next: u32,
}

#[derive(Debug)]
enum Data {
    Own(Vec<u8>),
    /// A whole chunk of a slab, and how many bytes of it are filled.
    Lent(Place, u32),
}

impl Data {
    const NONE: Self = Self::Own(Vec::new());

    fn capacity(&self) -> usize {
        match self {
            Self::Own(data) => data.capacity(),
            Self::Lent(..) => CHUNK,
        }
    }

    /// What it holds from there on.
    #[inline]
    fn bytes<'a>(&'a self, slabs: &'a Slabs, from: u32) -> &'a [u8] {
        match self {
            Self::Own(data) => &data[from as usize..],
            Self::Lent(place, len) => slabs.bytes(*place, from, *len),
        }
    }

    /// Appends what there is room for. Returns how much that is.
    #[inline(always)]
    fn append(&mut self, slabs: &mut Slabs, bytes: &[u8]) -> usize {
        match self {
            Self::Own(data) => {
                let part = bytes.len().min(data.capacity() - data.len());
                data.extend_from_slice(&bytes[..part]);
                part
            }
            Self::Lent(place, len) => {
                let part = bytes.len().min(CHUNK - *len as usize);
                let end = *len + part as u32;
                slabs.bytes_mut(*place, *len, end).copy_from_slice(&bytes[..part]);
                *len = end;
                part
            }
        }
    }
}

/// How large new chunks are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sizing {
    /// Whole chunks, or a small one for the beginning of little: memory is plenty.
    Whole,
    /// No larger than a quarter of what the queue holds, or than the piece at hand.
    Tight,
}

/// Empty chunks of one size, linked by `next`.
#[derive(Debug)]
struct Pool {
    size: usize,
    most: usize,
    first: u32,
    len: usize,
}

/// The chunks of one session.
#[derive(Debug)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
    /// Places in `chunks` without data, linked by `next`.
    vacant: u32,
    pools: [Pool; 2],
    slabs: Slabs,
    now: Option<Instant>,
    /// Whole chunks of the allocator's, in a queue or in the pool.
    own: usize,
    /// Places in `chunks` that belong to a queue.
    used: usize,
}

impl Arena {
    pub(crate) const fn new() -> Self {
        let pools =
            [Pool { size: CHUNK, most: OWN, first: NIL, len: 0 }, Pool { size: SMALL, most: POOL, first: NIL, len: 0 }];
        Self { chunks: Vec::new(), vacant: NIL, pools, slabs: Slabs::new(), now: None, own: 0, used: 0 }
    }

    /// Appends `bytes`. Returns how many bytes had to be allocated for it (chunks used again count as well).
    #[inline]
    pub(crate) fn push(&mut self, queue: &mut Queue, mut bytes: &[u8], sizing: Sizing) -> usize {
        let mut allocated = 0;
        if queue.last != NIL {
            let part = self.chunks[queue.last as usize].data.append(&mut self.slabs, bytes);
            queue.len += part;
            bytes = &bytes[part..];
        }
        while !bytes.is_empty() {
            let wanted = match sizing {
                // No more than half of it, so that there is room for the next.
                Sizing::Whole if queue.len == 0 && bytes.len() <= SMALL / 2 => SMALL,
                Sizing::Whole => CHUNK,
                Sizing::Tight => bytes.len().max(queue.len / 4).clamp(SMALLEST, CHUNK),
            };
            let index = self.take(wanted);
            let data = &mut self.chunks[index as usize].data;
            allocated += data.capacity();
            let part = data.append(&mut self.slabs, bytes);
            queue.len += part;
            bytes = &bytes[part..];
            match queue.last {
                NIL => queue.first = index,
                last => self.chunks[last as usize].next = index,
            }
            queue.last = index;
        }
        allocated
    }

    /// Takes up to `limit` bytes from the front and hands them to `sink` piece by piece.
    /// Returns how many bytes of allocation that set free.
    #[inline]
    pub(crate) fn pop(&mut self, queue: &mut Queue, limit: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut left = limit.min(queue.len);
        queue.len -= left;
        let mut freed = 0;
        while left > 0 {
            let chunk = &self.chunks[queue.first as usize];
            let rest = chunk.data.bytes(&self.slabs, queue.taken);
            let part = left.min(rest.len());
            sink(&rest[..part]);
            left -= part;
            if part < rest.len() {
                queue.taken += part as u32;
            } else {
                freed += self.drop_first(queue);
            }
        }
        freed
    }

    /// Empties the queue. Returns how many bytes of allocation that set free.
    pub(crate) fn clear(&mut self, queue: &mut Queue) -> usize {
        let mut freed = 0;
        while queue.first != NIL {
            freed += self.drop_first(queue);
        }
        queue.len = 0;
        freed
    }

    /// Bytes allocated for chunks that no queue uses now.
    pub(crate) fn spare(&self) -> usize {
        self.pools.iter().map(|pool| pool.len * pool.size).sum::<usize>() + self.slabs.spare()
    }

    /// Time has passed.
    #[inline]
    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// Gives what no queue uses back: to the allocator, and whole empty slabs to the system.
    pub(crate) fn trim(&mut self) {
        for pool in &mut self.pools {
            while pool.first != NIL {
                let index = pool.first;
                let chunk = &mut self.chunks[index as usize];
                pool.first = chunk.next;
                chunk.data = Data::NONE;
                chunk.next = self.vacant;
                self.vacant = index;
            }
            self.own -= if pool.size == CHUNK { pool.len } else { 0 };
            pool.len = 0;
        }
        self.slabs.trim();
        if self.used == 0 {
            *self = Self { now: self.now, ..Self::new() };
        }
    }

    fn drop_first(&mut self, queue: &mut Queue) -> usize {
        let index = queue.first;
        let chunk = &mut self.chunks[index as usize];
        let freed = chunk.data.capacity();
        queue.first = chunk.next;
        queue.taken = 0;
        if queue.first == NIL {
            queue.last = NIL;
        }
        self.used -= 1;
        match &mut chunk.data {
            Data::Lent(place, _) => self.slabs.put(*place),
            Data::Own(data) => {
                if let Some(pool) = self.pools.iter_mut().find(|pool| pool.size == freed && pool.len < pool.most) {
                    data.clear();
                    chunk.next = pool.first;
                    pool.first = index;
                    pool.len += 1;
                    return freed;
                }
                self.own -= usize::from(freed == CHUNK);
            }
        }
        chunk.data = Data::NONE;
        chunk.next = self.vacant;
        self.vacant = index;
        freed
    }

    /// A place with an empty chunk of `size` bytes, linked to nothing.
    fn take(&mut self, size: usize) -> u32 {
        self.used += 1;
        if let Some(now) = self.now {
            self.slabs.advance(now);
        }
        let pool = self.pools.iter_mut().find(|pool| pool.size == size && pool.len > 0);
        let list = match pool {
            Some(pool) => {
                pool.len -= 1;
                &mut pool.first
            }
            None => {
                if self.vacant == NIL {
                    self.vacant =
                        u32::try_from(self.chunks.len()).expect("chunks of 64 bytes and more: memory ends first");
                    self.chunks.push(Chunk { data: Data::NONE, next: NIL });
                }
                let data = self.new_data(size);
                self.chunks[self.vacant as usize].data = data;
                &mut self.vacant
            }
        };
        let index = *list;
        let chunk = &mut self.chunks[index as usize];
        *list = std::mem::replace(&mut chunk.next, NIL);
        index
    }

    /// Where the system gives no mappings, all is the allocator's.
    fn new_data(&mut self, size: usize) -> Data {
        if size == CHUNK {
            if self.own >= OWN
                && let Some(place) = self.slabs.take()
            {
                return Data::Lent(place, 0);
            }
            self.own += 1;
        }
        Data::Own(Vec::with_capacity(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(arena: &mut Arena, queue: &mut Queue, piece: usize) -> (Vec<u8>, usize) {
        let (mut out, mut freed) = (Vec::new(), 0);
        while !queue.is_empty() {
            freed += arena.pop(queue, piece, |bytes| out.extend_from_slice(bytes));
        }
        (out, freed)
    }

    #[test]
    fn bytes_come_back_in_order_whatever_the_pieces() {
        let input: Vec<u8> = (0..100_000u32).map(|n| (n ^ (n >> 7)) as u8).collect();
        for sizing in [Sizing::Whole, Sizing::Tight] {
            for (push, pop) in [(1, 1), (1, 65_536), (1_368, 65_536), (7_777, 13), (100_000, 8_192)] {
                let mut arena = Arena::new();
                let mut queue = Queue::new();
                let mut allocated = 0;
                for piece in input.chunks(push) {
                    allocated += arena.push(&mut queue, piece, sizing);
                    assert!(allocated <= queue.len() + queue.len() / 4 + 2 * CHUNK, "{allocated} for {}", queue.len());
                }
                let (output, freed) = take_all(&mut arena, &mut queue, pop);
                assert_eq!(output, input);
                assert_eq!(freed, allocated, "the account comes out even");
                assert_eq!(arena.used, 0);
            }
        }
    }

    #[test]
    fn chunks_are_used_again_and_given_back() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        for _ in 0..1_000 {
            arena.push(&mut queue, &[7; 5 * CHUNK], Sizing::Whole);
            arena.pop(&mut queue, usize::MAX, |_| ());
        }
        assert_eq!((arena.chunks.len(), arena.spare()), (5, 5 * CHUNK));
        arena.push(&mut queue, &[7; 100 * CHUNK], Sizing::Whole);
        arena.clear(&mut queue);
        assert_eq!((arena.chunks.len(), arena.spare()), (100, 100 * CHUNK), "the same may come again");
        arena.push(&mut queue, &[1], Sizing::Tight);
        arena.trim();
        assert_eq!((arena.spare(), arena.used), (0, 1));
        assert_eq!(arena.chunks.iter().map(|chunk| chunk.data.capacity()).sum::<usize>(), SMALLEST);
        assert_eq!(arena.own, 0);
        arena.clear(&mut queue);
        arena.trim();
        assert_eq!(arena.chunks.capacity(), 0, "an idle session holds nothing");
    }

    #[test]
    fn a_queue_that_is_read_while_it_is_written_keeps_its_order() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        let (mut written, mut read) = (0_u32, 0_u32);
        for round in 0..200 {
            for _ in 0..round * 7 % 1_500 {
                arena.push(&mut queue, &written.to_le_bytes(), Sizing::Tight);
                written += 1;
            }
            let mut bytes = Vec::new();
            arena.pop(&mut queue, round * 5 % 1_300 * 4, |part| bytes.extend_from_slice(part));
            for number in bytes.chunks_exact(4) {
                assert_eq!(number, read.to_le_bytes());
                read += 1;
            }
        }
        assert_eq!(queue.len(), (written - read) as usize * 4);
        assert!(read > 50_000);
    }

    #[test]
    fn places_of_small_chunks_are_used_again() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        for _ in 0..10 {
            arena.push(&mut queue, &[1], Sizing::Tight);
            arena.pop(&mut queue, 1, |_| ());
        }
        assert_eq!((arena.chunks.len(), arena.spare()), (1, 0));
    }

    #[test]
    fn keystrokes_share_a_small_chunk_that_stays_for_the_next() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        for _ in 0..10 {
            assert_eq!(arena.push(&mut queue, &[1; SMALL / 2], Sizing::Whole), SMALL);
            assert_eq!(arena.push(&mut queue, &[1; SMALL / 2], Sizing::Whole), 0);
            assert_eq!(arena.push(&mut queue, &[1], Sizing::Whole), CHUNK, "so much has come that more will");
            assert_eq!(arena.pop(&mut queue, usize::MAX, |_| ()), SMALL + CHUNK);
            assert_eq!((arena.chunks.len(), arena.spare()), (2, SMALL + CHUNK));
        }
        assert_eq!(arena.push(&mut queue, &[1; SMALL / 2 + 1], Sizing::Whole), CHUNK);
        arena.clear(&mut queue);
        arena.trim();
        assert_eq!((arena.spare(), arena.chunks.capacity()), (0, 0));
    }

    #[test]
    fn one_byte_costs_little_when_memory_is_short() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        assert_eq!(arena.push(&mut queue, &[1], Sizing::Tight), SMALLEST);
        // Then as much as the piece at hand, or a quarter of what is there.
        assert_eq!(arena.push(&mut queue, &[1; 4_095], Sizing::Tight), 4_096 - SMALLEST);
        assert_eq!(queue.len(), 4_096);
        assert_eq!(arena.push(&mut queue, &[1], Sizing::Tight), 1_024);
        assert_eq!(arena.spare(), 0);
        assert_eq!(arena.push(&mut queue, &[1; 2 * CHUNK], Sizing::Whole), 2 * CHUNK);
        assert_eq!(arena.clear(&mut queue), 4_096 + 1_024 + 2 * CHUNK, "all that was allocated");
        assert_eq!((arena.spare(), queue.len()), (2 * CHUNK, 0));
    }
}
