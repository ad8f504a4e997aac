//! Time as the state counts it: microseconds since the state was made.
//!
//! The protocol is handed a `Time` with every call and reads no clock. What is kept in a connection is coarser:
//! seconds in a `Flow`, milliseconds in an `Active`.

/// Microseconds since the making of the state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// From whole milliseconds.
    pub const fn from_ms(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    /// Whole milliseconds.
    pub const fn ms(self) -> u64 {
        self.0 / 1_000
    }

    /// Microseconds as a clock of 32 bits shows them, which wraps.
    pub const fn wrapping_us(self) -> u32 {
        self.0 as u32
    }

    /// Milliseconds as such a clock shows them.
    pub const fn wrapping_ms(self) -> u32 {
        self.ms() as u32
    }

    /// Whole seconds; good for 136 years.
    pub const fn seconds(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// The time `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Time {
        Time(self.0 + ms * 1_000)
    }
}
