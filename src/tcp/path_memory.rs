//! Path memory: what an idle flow remembers of its path, in the four bytes that a busy one names its active block by.
//!
//! ```text
//!  31  | 30     | 29       | 28 ......... 20 | 19 ......... 10 | 9 ......... 0
//!  CWR | peer   | a full   | threshold       | variation       | smoothed round trip
//!  owed| loses  | one came | 64 bytes, 4+5   | ms, 4+6         | ms, 4+6
//! ```
//!
//! The numbers are floats of so many bits of exponent and fraction, rounded up: a time-out is never shorter than it
//! was, and a window of whole segments stays one. Milliseconds are exact up to 128 and within 1/64 above; the threshold
//! of slow start, what congestion has taught (RFC 5681 §4.1), is within 64 bytes up to 4 KB and within 1/32 and 64
//! bytes above. What is larger than can be said, over half an hour or 66 MB, is the largest.
//!
//! Invariant: zero is what nothing is known of; what is known never becomes zero.

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathMemory {
    /// Smoothed round-trip time in ms, 0 for unknown.
    pub srtt_ms: u32,
    /// Its variation in ms.
    pub rttvar_ms: u32,
    /// Slow start threshold in bytes, 0 where congestion was never met, or [`PathMemory::ONE_SEGMENT`].
    pub ssthresh: u32,
    /// Whether a segment as large as they are now has arrived.
    pub has_taken_full: bool,
    /// Whether something that the peer has sent was lost not long ago.
    pub is_peer_losing: bool,
    /// The congestion window was reduced and the peer is to be told so (RFC 3168 §6.1.2).
    pub is_cwr_owed: bool,
}

const EXPONENT_BITS: u32 = 4;
const TIME_FRACTION_BITS: u32 = 6;
const SSTHRESH_FRACTION_BITS: u32 = 5;
const SSTHRESH_UNIT_BYTES: u32 = 64;

const RTTVAR_SHIFT: u32 = EXPONENT_BITS + TIME_FRACTION_BITS;
const SSTHRESH_SHIFT: u32 = 2 * RTTVAR_SHIFT;
const FULL_SHIFT: u32 = SSTHRESH_SHIFT + EXPONENT_BITS + SSTHRESH_FRACTION_BITS;
const PEER_LOSING_SHIFT: u32 = FULL_SHIFT + 1;
const CWR_SHIFT: u32 = PEER_LOSING_SHIFT + 1;
const _: () = assert!(CWR_SHIFT == 31, "all of the four bytes is used");

impl PathMemory {
    /// In place of a threshold, which is never so low: all that is known is that the handshake was lost in part, so
    /// that one segment is the beginning (RFC 5681 §3.1).
    pub const ONE_SEGMENT: u32 = SSTHRESH_UNIT_BYTES;

    /// As four bytes.
    #[inline]
    pub(super) fn pack(self) -> u32 {
        let ssthresh = self.ssthresh.div_ceil(SSTHRESH_UNIT_BYTES);
        to_float(self.srtt_ms, TIME_FRACTION_BITS)
            | to_float(self.rttvar_ms, TIME_FRACTION_BITS) << RTTVAR_SHIFT
            | to_float(ssthresh, SSTHRESH_FRACTION_BITS) << SSTHRESH_SHIFT
            | u32::from(self.has_taken_full) << FULL_SHIFT
            | u32::from(self.is_peer_losing) << PEER_LOSING_SHIFT
            | u32::from(self.is_cwr_owed) << CWR_SHIFT
    }

    /// Of four bytes.
    #[inline]
    pub(super) fn unpack(packed: u32) -> PathMemory {
        PathMemory {
            srtt_ms: from_float(packed, TIME_FRACTION_BITS),
            rttvar_ms: from_float(packed >> RTTVAR_SHIFT, TIME_FRACTION_BITS),
            ssthresh: from_float(packed >> SSTHRESH_SHIFT, SSTHRESH_FRACTION_BITS) * SSTHRESH_UNIT_BYTES,
            has_taken_full: packed >> FULL_SHIFT & 1 == 1,
            is_peer_losing: packed >> PEER_LOSING_SHIFT & 1 == 1,
            is_cwr_owed: packed >> CWR_SHIFT == 1,
        }
    }
}

/// The nearest float that is not less. Without an exponent it is the number itself, with one its fraction has a 1 in
/// front.
#[inline]
fn to_float(value: u32, fraction_bits: u32) -> u32 {
    let largest = (1 << (EXPONENT_BITS + fraction_bits)) - 1;
    let value = value.min(from_float(largest, fraction_bits));
    let shift = (value.checked_ilog2().unwrap_or(0)).saturating_sub(fraction_bits);
    let float = (shift << fraction_bits) + (value >> shift);
    let is_inexact = value & ((1 << shift) - 1) != 0;
    // One more of the last place carries into the exponent where it must.
    float + u32::from(is_inexact)
}

/// The number that the low bits say.
#[inline]
fn from_float(bits: u32, fraction_bits: u32) -> u32 {
    let fraction = bits & ((1 << fraction_bits) - 1);
    match bits >> fraction_bits & ((1 << EXPONENT_BITS) - 1) {
        0 => fraction,
        exponent => (fraction | 1 << fraction_bits) << (exponent - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_is_the_number_that_it_says() {
        for fraction_bits in [SSTHRESH_FRACTION_BITS, TIME_FRACTION_BITS] {
            let mut last = None;
            for bits in 0..1 << (EXPONENT_BITS + fraction_bits) {
                let value = from_float(bits, fraction_bits);
                assert!(last < Some(value), "in order");
                last = Some(value);
                assert_eq!(to_float(value, fraction_bits), bits);
            }
        }
    }

    /// Numbers of every size: all small ones, and others ever further apart.
    fn numbers() -> impl Iterator<Item = u32> {
        let spread = std::iter::successors(Some(4_096_u32), |number| number.checked_add(number / 777));
        (0..4_096).chain(spread).chain([u32::MAX - 1, u32::MAX])
    }

    #[test]
    fn what_is_packed_comes_back_within_its_precision() {
        let is_up = |said: u32, back: u32, part: u32, largest: u32| {
            back >= said.min(largest) && back - said.min(largest) <= said / part
        };
        for (index, number) in numbers().enumerate() {
            let (other, third) = (u32::MAX - number, number.rotate_left(7));
            for [srtt_ms, rttvar_ms, ssthresh] in
                [[number, other, third], [other, third, number], [third, number, other]]
            {
                let (is_cwr_owed, has_taken_full, is_peer_losing) = (index % 2 == 1, index % 3 == 1, index % 5 == 1);
                let said = PathMemory { srtt_ms, rttvar_ms, ssthresh, has_taken_full, is_peer_losing, is_cwr_owed };
                let back = PathMemory::unpack(said.pack());
                assert!(is_up(srtt_ms, back.srtt_ms, 64, 127 << 14), "{said:?} {back:?}");
                assert!(is_up(rttvar_ms, back.rttvar_ms, 64, 127 << 14), "{said:?} {back:?}");
                let most = ssthresh.min(64 * (63 << 14));
                assert!(back.ssthresh >= most && back.ssthresh - most < 64 + most / 32, "{said:?} {back:?}");
                assert_eq!((back.ssthresh == 0, back.is_cwr_owed), (ssthresh == 0, said.is_cwr_owed));
                assert_eq!((back.has_taken_full, back.is_peer_losing), (said.has_taken_full, said.is_peer_losing));
                assert_eq!(PathMemory::unpack(back.pack()), back, "what was packed once loses nothing more");
            }
        }
    }
}
