//! The Internet checksum (RFC 1071): a one's complement sum of 16-bit words.
//!
//! Sums are kept in 64 bits and folded at the end; bytes are added in the machine's own order, which the final swap
//! puts right.

use std::net::IpAddr;

/// A sum that is not folded yet: of 32-bit words, of which a packet has so few that no carry is lost.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset of what is summed.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let (words, rest) = rest.as_chunks::<4>();
        let sum = words.iter().fold(self.add_blocks(blocks), |sum, bytes| sum.add(u32::from_ne_bytes(*bytes)));
        match *rest {
            [one, two, three] => sum.add(u32::from_ne_bytes([one, two, three, 0])),
            [one, two] => sum.add(u32::from_ne_bytes([one, two, 0, 0])),
            [one] => sum.add(u32::from_ne_bytes([one, 0, 0, 0])),
            _ => sum,
        }
    }

    /// Adds a header of a length that the compiler knows.
    #[must_use]
    #[inline]
    pub fn add_header<const N: usize>(self, header: &[u8; N]) -> Sum {
        const { assert!(N.is_multiple_of(4), "a header has whole words") };
        header.as_chunks::<4>().0.iter().fold(self, |sum, bytes| sum.add(u32::from_ne_bytes(*bytes)))
    }

    /// Four sums side by side, of halves of eight bytes.
    #[inline]
    fn add_blocks(self, blocks: &[[u8; 32]]) -> Sum {
        let mut sums = [0_u64; 4];
        for block in blocks {
            for (sum, bytes) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
                let word = u64::from_ne_bytes(*bytes);
                *sum = sum.wrapping_add(word & 0xffff_ffff).wrapping_add(word >> 32);
            }
        }
        sums.iter().fold(self, |sum, part| Sum(sum.0.wrapping_add(*part)))
    }

    /// Adds 32-bit words that are at hand as values. Reading bytes back that were written one by one just before would
    /// cost more than all of the sum.
    #[must_use]
    #[inline]
    pub fn add_words(self, words: &[u32]) -> Sum {
        words.iter().fold(self, |sum, word| sum.add(word.to_be()))
    }

    #[inline]
    fn add(self, word: u32) -> Sum {
        Sum(self.0.wrapping_add(u64::from(word)))
    }

    /// Adds the pseudo header of what lies over IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1). A packet is shorter than
    /// 64 KB.
    #[must_use]
    #[inline]
    pub fn add_pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, bytes: usize) -> Sum {
        self.add_words(&[u32::from(protocol) << 16 | bytes as u32]).add_address(source).add_address(destination)
    }

    #[inline]
    fn add_address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(address) => self.add_words(&[address.to_bits()]),
            IpAddr::V6(address) => self.add_header(&address.octets()),
        }
    }

    /// The checksum: 0 over bytes that hold their own right checksum. A number and its halves swapped add up to what
    /// has the sum of both halves, with the carry of it, on top.
    #[inline]
    pub fn finish(self) -> u16 {
        let words = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        let sum = (words.wrapping_add(words.rotate_left(16)) >> 16) as u16;
        u16::from_be(!sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 taken literally.
    fn literal(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn agrees_with_the_literal_sum_at_every_length() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 151 + 250) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(
                Sum::default().add_bytes(&bytes[..length]).finish(),
                literal(&bytes[..length]),
                "length {length}"
            );
        }
        let ones = vec![0xff; 65_535];
        assert_eq!(Sum::default().add_bytes(&ones).finish(), literal(&ones));
    }

    #[test]
    fn words_count_as_their_bytes() {
        let by_words = Sum::default().add_words(&[0x1234_ffff, 0x0000_0001]).add_bytes(&[7; 5]).finish();
        assert_eq!(by_words, literal(&[0x12, 0x34, 0xff, 0xff, 0, 0, 0, 1, 7, 7, 7, 7, 7]));
    }

    #[test]
    fn is_zero_over_bytes_with_their_checksum() {
        let mut bytes = [0x45, 0, 0, 60, 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = Sum::default().add_bytes(&bytes).finish();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Sum::default().add_bytes(&bytes).finish(), 0);
    }
}
