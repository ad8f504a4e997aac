//! A random order that is computed: each number below a bound once, none kept.

/// The numbers below a bound in an order that looks random.
#[derive(Clone, Copy)]
pub struct Order {
    bound: u32,
    half_bits: u32,
}

const ROUNDS: u64 = 4;

impl Order {
    /// Of the numbers below `bound`.
    pub fn below(bound: u32) -> Order {
        let bits = 32 - (bound.max(2) - 1).leading_zeros();
        Order { bound, half_bits: bits.div_ceil(2) }
    }

    /// The first so many of them.
    pub fn first(self, count: u32) -> impl Iterator<Item = u32> + Clone {
        (0..count).map(move |place| self.at(place))
    }

    /// The number at a place: a network of Feistel's over as many bits as the bound has, walked until it ends below.
    fn at(self, place: u32) -> u32 {
        let mask = (1u64 << self.half_bits) - 1;
        let mut at = u64::from(place);
        loop {
            for round in 0..ROUNDS {
                let (left, right) = (at >> self.half_bits, at & mask);
                let mixed = (right + round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                at = right << self.half_bits | (left ^ (mixed ^ mixed >> 29) >> 17) & mask;
            }
            if at < u64::from(self.bound) {
                return at as u32;
            }
        }
    }
}
