//! Sequence numbers: a circle of 2^32 values (RFC 9293 §3.4).
//!
//! Invariant: there is no `<`. A circle has no order, so `a < b` must not compile; say `a.before(b)`.
//! Two numbers are compared by the shorter way round, which is right while they are less than 2^31 apart.

use bytemuck::{Pod, Zeroable};

/// A position in one direction of a connection's byte stream.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Whether `self` lies to the left of `other`.
    pub fn before(self, other: SeqNum) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether `self` lies to the right of `other`.
    pub fn after(self, other: SeqNum) -> bool {
        other.before(self)
    }

    /// Whether `self` lies to the left of `other` or on it.
    pub fn at_or_before(self, other: SeqNum) -> bool {
        !other.before(self)
    }

    /// Whether `self` lies in the half-open range `start..start + bytes`.
    pub fn within(self, start: SeqNum, bytes: u32) -> bool {
        self.0.wrapping_sub(start.0) < bytes
    }

    /// The number `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(bytes))
    }

    /// The number `bytes` back.
    #[must_use]
    pub fn minus(self, bytes: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(bytes))
    }

    /// How many bytes lie from `earlier` up to `self`, going round to the right.
    pub fn since(self, earlier: SeqNum) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The one of the two that lies further to the left.
    #[must_use]
    pub(super) fn earlier_of(self, other: SeqNum) -> SeqNum {
        if self.after(other) { other } else { self }
    }

    /// The one of the two that lies further to the right.
    #[must_use]
    pub fn later_of(self, other: SeqNum) -> SeqNum {
        if self.before(other) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let edge = SeqNum(u32::MAX);
        assert!(edge.before(edge.plus(1)));
        assert!(edge.plus(1).after(edge));
        assert!(!edge.before(edge));
        assert!(edge.at_or_before(edge));
        assert_eq!(edge.plus(5).since(edge), 5);
        assert_eq!(edge.plus(5).minus(5), edge);
        assert_eq!((edge.later_of(SeqNum(3)), edge.earlier_of(SeqNum(3))), (SeqNum(3), edge));
    }

    #[test]
    fn a_range_is_half_open() {
        let start = SeqNum(u32::MAX - 1);
        assert!(start.within(start, 1));
        assert!(!start.plus(1).within(start, 1));
        assert!(SeqNum(0).within(start, 4));
        assert!(!start.within(start, 0));
        assert!(!start.minus(1).within(start, 4));
    }
}
