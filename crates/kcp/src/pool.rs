//! Segment buffers, used again instead of freed and allocated per packet.
//!
//! A busy engine holds as many spare ones as it lately needed, an idle one next to none.

/// Spare buffers at most; more in a burst are freed and allocated again. Worst case 1,024 x 1,376 bytes.
const MAX_SPARE: usize = 1024;
/// What an engine without data keeps at most. Halves each time it runs empty without having needed so many.
const MAX_SPARE_IDLE: usize = 64;
/// Enough for a keepalive and its answer.
const MIN_SPARE_IDLE: usize = 2;

#[derive(Debug)]
pub(crate) struct Pool {
    spare: Vec<Vec<u8>>,
    /// Capacity of a buffer in bytes. Others are freed, not kept.
    capacity: usize,
    in_use: usize,
    /// Most buffers in use since the engine last ran empty.
    peak: usize,
    keep: usize,
    allocated: u64,
}

impl Pool {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { spare: Vec::new(), capacity, in_use: 0, peak: 0, keep: MIN_SPARE_IDLE, allocated: 0 }
    }

    /// An empty buffer for at least `len` bytes.
    pub(crate) fn get(&mut self, len: usize) -> Vec<u8> {
        self.in_use += 1;
        self.peak = self.peak.max(self.in_use);
        if len <= self.capacity
            && let Some(spare) = self.spare.pop()
        {
            return spare;
        }
        self.allocated += 1;
        Vec::with_capacity(len.max(self.capacity))
    }

    /// Buffers that could not be used again but had to be allocated, since the start.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.spare.iter().map(Vec::capacity).sum::<usize>() + self.spare.capacity() * size_of::<Vec<u8>>()
    }

    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        self.in_use -= 1;
        if buffer.capacity() == self.capacity && self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
        if self.in_use == 0 {
            self.on_empty();
        }
    }

    fn on_empty(&mut self) {
        self.keep = self.peak.max(self.keep / 2).clamp(MIN_SPARE_IDLE, MAX_SPARE_IDLE);
        self.peak = 0;
        self.spare.truncate(self.keep);
        if self.spare.capacity() > MAX_SPARE_IDLE {
            self.spare.shrink_to(MAX_SPARE_IDLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_engine_gives_its_buffers_back() {
        let mut pool = Pool::new(1376);
        let busy: Vec<_> = (0..500).map(|_| pool.get(1)).collect();
        for buffer in busy {
            pool.put(buffer);
        }
        assert_eq!(pool.spare.len(), MAX_SPARE_IDLE);
        for _ in 0..10 {
            let keepalive = pool.get(8);
            pool.put(keepalive);
        }
        assert_eq!(pool.spare.len(), MIN_SPARE_IDLE);
    }

    #[test]
    fn odd_sizes_are_not_kept() {
        let mut pool = Pool::new(1376);
        let large = pool.get(65_511);
        pool.put(large);
        assert!(pool.spare.is_empty());
    }
}
