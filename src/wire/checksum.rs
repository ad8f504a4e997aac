//! The Internet checksum (RFC 1071): a one's complement sum of 16-bit words.
//!
//! Sums are kept in 64 bits and folded at the end; eight bytes are added at a time, in the machine's own byte order,
//! which the final swap puts right.

/// A sum that is not folded yet.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset of what is summed.
    #[must_use]
    pub fn add(self, bytes: &[u8]) -> Sum {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let (next, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
            sum = next + u64::from(carry);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let (next, carry) = sum.overflowing_add(u64::from_ne_bytes(last));
        Sum(next + u64::from(carry))
    }

    /// Adds the pseudo header of TCP over IPv4 (RFC 9293 §3.1).
    #[must_use]
    pub fn add_pseudo_header(self, source: u32, destination: u32, tcp_bytes: usize) -> Sum {
        let mut header = [0; 12];
        header[0..4].copy_from_slice(&source.to_be_bytes());
        header[4..8].copy_from_slice(&destination.to_be_bytes());
        header[9] = 6;
        header[10..12].copy_from_slice(&(tcp_bytes as u16).to_be_bytes());
        self.add(&header)
    }

    /// The checksum: 0 over bytes that hold their own right checksum.
    pub fn finish(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(!(sum as u16))
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
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 151 + 250) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(Sum::default().add(&bytes[..length]).finish(), literal(&bytes[..length]), "length {length}");
        }
        assert_eq!(Sum::default().add(&[0xff; 64]).finish(), literal(&[0xff; 64]));
    }

    #[test]
    fn is_zero_over_bytes_with_their_checksum() {
        let mut bytes = [0x45, 0, 0, 60, 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = Sum::default().add(&bytes).finish();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Sum::default().add(&bytes).finish(), 0);
    }
}
