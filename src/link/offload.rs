//! Offloads: what the kernel leaves undone in a frame that has not crossed a wire yet (virtio 1.2 §5.1.6).
//!
//! Comes in: a frame with the `virtio_net_hdr` in front of it, which a packet socket puts there with PACKET_VNET_HDR.
//! Goes out: the same frame as a wire would have carried it, but for its size. The kernel leaves two things to a
//! network card:
//!
//! ```text
//!   checksum   needs_csum: the field at start + offset holds the sum of the pseudo header only
//!   cutting    gso_type:   a TCP segment of up to 64 KB, to be cut into segments of gso_size (TSO, GSO, GRO)
//! ```
//!
//! The checksum is completed here. Cutting is left out on purpose: the large segment is a whole and valid one, its
//! lengths, numbers and flags stand for all of its payload, and whoever takes it in one piece does so once instead of
//! 45 times. What we leave undone for the kernel is made in `join`.
//!
//! Invariant: a frame without needs_csum leaves as it came. Whether its checksum is right is for the stack to see.

use crate::wire::Sum;

/// Bytes of a `virtio_net_hdr` without the count of merged buffers: flags 1, gso_type 1, hdr_len 2, gso_size 2,
/// csum_start 2, csum_offset 2, in the machine's own byte order.
pub(super) const HEADER_BYTES: usize = 10;

/// The header asks for a checksum outside the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadHeader;

/// Does what the header asks for. The pseudo header's sum already stands where the checksum belongs.
pub(super) fn complete(header: &[u8; HEADER_BYTES], frame: &mut [u8]) -> Result<(), BadHeader> {
    if header[0] & NEEDS_CHECKSUM == 0 {
        return Ok(());
    }
    let start = usize::from(u16::from_ne_bytes([header[6], header[7]]));
    let offset = usize::from(u16::from_ne_bytes([header[8], header[9]]));
    let covered = frame.get_mut(start..).ok_or(BadHeader)?;
    let sum = Sum::default().add_bytes(covered).finish();
    let field = covered.get_mut(offset..offset + 2).ok_or(BadHeader)?;
    // UDP keeps 0 for "no checksum"; to everybody else both are zero.
    let sum = if sum == 0 { 0xffff } else { sum };
    field.copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The header of a frame whose checksum is complete and which needs no cutting.
pub(super) const NOTHING_LEFT_UNDONE: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// An IP packet of 65,535 bytes behind an Ethernet header, and what tells that it was cut.
pub(super) const FRAME_BYTES_MAX: usize = 65_535 + 32;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
pub(super) const NEEDS_CHECKSUM: u8 = 1;

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

    fn pseudo_header(tcp_bytes: usize) -> [u8; 12] {
        let [high, low] = u16::try_from(tcp_bytes).expect("a segment is no longer").to_be_bytes();
        [10, 77, 0, 1, 10, 77, 0, 2, 0, 6, high, low]
    }

    /// A frame of a TCP segment with this much payload whose checksum field is as the kernel leaves it.
    fn undone(payload_bytes: usize, seed: usize) -> Vec<u8> {
        let mut frame = vec![0; TCP];
        frame[12] = 8;
        frame[14] = 0x45;
        frame.extend((0..20 + payload_bytes).map(|at| ((at + seed) * 151 + at / 7) as u8));
        let partial = !literal(&pseudo_header(20 + payload_bytes));
        frame[TCP + 16..TCP + 18].copy_from_slice(&partial.to_be_bytes());
        frame
    }

    fn header(flags: u8, start: usize, offset: usize) -> [u8; HEADER_BYTES] {
        let [s0, s1] = (start as u16).to_ne_bytes();
        let [o0, o1] = (offset as u16).to_ne_bytes();
        [flags, 0, 0, 0, 0, 0, s0, s1, o0, o1]
    }

    /// Where TCP begins.
    const TCP: usize = 34;

    #[test]
    fn a_checksum_is_completed_at_every_size() {
        for payload_bytes in (0..600).chain([1_447, 1_448, 1_460, 8_948, 32_767, 65_494, 65_495]) {
            for seed in [0, 1, 97] {
                let mut frame = undone(payload_bytes, seed);
                let before = frame.clone();
                assert_eq!(complete(&header(NEEDS_CHECKSUM, TCP, 16), &mut frame), Ok(()));
                let covered = [&pseudo_header(20 + payload_bytes)[..], &frame[TCP..]].concat();
                assert_eq!(literal(&covered), 0, "{payload_bytes} bytes of payload, seed {seed}");
                frame[TCP + 16..TCP + 18].copy_from_slice(&before[TCP + 16..TCP + 18]);
                assert_eq!(frame, before, "nothing else has changed");
            }
        }
    }

    #[test]
    fn a_sum_of_zero_is_written_as_the_other_zero() {
        let mut frame = vec![0, 0, 0xff, 0xff];
        assert_eq!(complete(&header(NEEDS_CHECKSUM, 0, 0), &mut frame), Ok(()));
        assert_eq!(frame, [0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn what_needs_nothing_is_left_alone() {
        let mut frame = undone(100, 5);
        let before = frame.clone();
        for flags in [0, 2, 4, 6] {
            assert_eq!(complete(&header(flags, TCP, 16), &mut frame), Ok(()));
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_field_outside_the_frame_is_refused() {
        for length in 0..60 {
            for start in 0..64 {
                for offset in [0, 1, 6, 16, 0xffff] {
                    let mut frame = vec![7; length];
                    let fits = start + offset + 2 <= length;
                    assert_eq!(complete(&header(NEEDS_CHECKSUM, start, offset), &mut frame).is_ok(), fits);
                    assert!(fits || frame == vec![7; length]);
                }
            }
        }
    }
}
