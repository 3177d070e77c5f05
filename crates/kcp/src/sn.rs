//! Numbers that go round in a circle: segments ([`Sn`]) and milliseconds ([`Ts`]).

/// Number of a KCP segment (`sn`, `una`), counted modulo 2^32.
///
/// Compared by the shorter way round the circle, so `a < b < c < a` can hold: no `Ord`, on purpose.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Sn(u32);

impl Sn {
    /// The number as it is on the wire.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// As on the wire.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The number after this one; 0 follows `u32::MAX`.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// `count` numbers further on.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// Segments from `base` up to `self`, negative if `self` comes first.
    #[must_use]
    pub const fn distance_from(self, base: Self) -> i32 {
        self.0.wrapping_sub(base.0).cast_signed()
    }

    /// Steps forward from `base` to `self`; `None` if `self` comes first.
    pub(crate) fn offset_from(self, base: Self) -> Option<usize> {
        usize::try_from(self.distance_from(base)).ok()
    }
}

/// A sender's clock on the wire (`ts`): milliseconds modulo 2^32, from a start of the sender's choosing.
///
/// A stranger's `ts` is opaque and copied bit for bit into the ACK.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ts(u32);

impl Ts {
    /// The clock reading as it is on the wire.
    #[must_use]
    pub const fn new(milliseconds: u32) -> Self {
        Self(milliseconds)
    }

    /// As on the wire.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_way_round_decides() {
        assert_eq!(Sn::new(3).distance_from(Sn::new(u32::MAX)), 4);
        assert_eq!(Sn::new(u32::MAX).distance_from(Sn::new(3)), -4);
        assert_eq!(Sn::new(u32::MAX).next(), Sn::new(0));
        assert_eq!(Sn::new(0x8000_0000).distance_from(Sn::new(0)), i32::MIN);
        assert_eq!(Sn::new(5).offset_from(Sn::new(6)), None);
    }
}
