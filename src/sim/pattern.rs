//! The bytes of a stream as a function of where they stand, so that nobody has to remember what was sent.
//!
//! A byte is drawn from the world's seed, the stream it belongs to and its offset there. A byte that is missing,
//! doubled or moved is therefore wrong where it arrives, except by a chance of 1 in 256 for each.

/// Which stream a byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    /// What the client of this connection sends.
    FromClient(usize),
    /// The bytes of the push that has this ticket.
    Push(u64),
}

/// Writes the bytes from `offset` on into `bytes`.
pub(super) fn fill(seed: u64, stream: Stream, offset: u64, bytes: &mut [u8]) {
    let mut position = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(seed, stream, position / 8);
        let within = (position % 8) as usize;
        let count = rest.len().min(8 - within);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&word[within..within + count]);
        rest = later;
        position += count as u64;
    }
}

/// The first place in `bytes` that differs from the stream from `offset` on, if any.
pub(super) fn first_difference(seed: u64, stream: Stream, offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut position = offset;
    let mut done = 0;
    while done < bytes.len() {
        let word = word(seed, stream, position / 8);
        let within = (position % 8) as usize;
        let count = (bytes.len() - done).min(8 - within);
        if bytes[done..done + count] != word[within..within + count] {
            return (done..done + count).find(|&at| bytes[at] != word[within + at - done]);
        }
        done += count;
        position += count as u64;
    }
    None
}

/// Eight bytes of a stream: the finalizer of SplitMix64 over all that names them.
fn word(seed: u64, stream: Stream, index: u64) -> [u8; 8] {
    let name = match stream {
        Stream::FromClient(connection) => connection as u64 * 2 + 1,
        Stream::Push(ticket) => ticket.wrapping_mul(2),
    };
    mixed(mixed(seed ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ index).to_le_bytes()
}

fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_same_as_the_whole() {
        let mut whole = [0; 100];
        fill(7, Stream::FromClient(3), 5, &mut whole);
        for cut in 0..100 {
            let mut pieces = [0; 100];
            fill(7, Stream::FromClient(3), 5, &mut pieces[..cut]);
            fill(7, Stream::FromClient(3), 5 + cut as u64, &mut pieces[cut..]);
            assert_eq!(pieces, whole);
        }
        assert_eq!(first_difference(7, Stream::FromClient(3), 5, &whole), None);
    }

    #[test]
    fn a_changed_byte_is_found_where_it_stands() {
        let mut bytes = [0; 50];
        fill(1, Stream::Push(9), 0, &mut bytes);
        bytes[33] ^= 1;
        assert_eq!(first_difference(1, Stream::Push(9), 0, &bytes), Some(33));
        assert!(first_difference(1, Stream::Push(10), 0, &bytes).is_some());
        assert!(first_difference(2, Stream::Push(9), 0, &bytes).is_some());
    }
}
