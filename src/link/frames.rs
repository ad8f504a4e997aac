//! Frames that a link copies out of the kernel, and the slices that it lends of them.
//!
//! Invariant: a frame begins at a cache line, and there is always room for 64 of the MTU's size.

use std::ops::{Deref, Range};

/// Up to 64 received frames, lent by a link until it is asked again.
pub struct Received<'a> {
    frames: [&'a [u8]; Received::MAX],
    count: usize,
}

impl<'a> Received<'a> {
    /// The most frames that are taken in at once.
    pub const MAX: usize = 64;

    /// No frame.
    pub fn none() -> Received<'a> {
        Received { frames: [&[]; Received::MAX], count: 0 }
    }

    /// Adds one. Panics when full.
    pub fn push(&mut self, frame: &'a [u8]) {
        assert!(!self.is_full(), "frames are taken in 64 at a time");
        self.frames[self.count] = frame;
        self.count += 1;
    }

    /// Whether there is no room for a further frame.
    pub fn is_full(&self) -> bool {
        self.count == Received::MAX
    }
}

/// The frames, in the order in which they arrived.
impl<'a> Deref for Received<'a> {
    type Target = [&'a [u8]];

    fn deref(&self) -> &[&'a [u8]] {
        &self.frames[..self.count]
    }
}

/// Up to 64 received frames, one behind the other in one buffer that is used again.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    frame_bytes_max: usize,
    places: Vec<Range<usize>>,
}

impl Frames {
    /// Room for 64 frames that carry IP packets of up to `mtu` bytes.
    pub fn new(mtu: u16) -> Frames {
        Frames::with_room(mtu, frame_bytes(mtu))
    }

    /// The same room, where single frames may have up to `frame_bytes_max` bytes; the more such there are, the fewer
    /// fit.
    pub fn with_room(mtu: u16, frame_bytes_max: usize) -> Frames {
        let frame_bytes_max = frame_bytes_max.max(frame_bytes(mtu));
        let bytes = Received::MAX * frame_bytes(mtu).next_multiple_of(ALIGNMENT) + frame_bytes_max;
        // Written and not only reserved, so that the process does not seem to grow when frames come.
        Frames { buffer: vec![0xa5; bytes], frame_bytes_max, places: Vec::with_capacity(Received::MAX) }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// Whether there is no room for a further frame.
    pub fn is_full(&self) -> bool {
        self.places.len() == Received::MAX || self.start() + self.frame_bytes_max > self.buffer.len()
    }

    /// Where the next frame is to be written. Panics when full.
    pub fn next_buffer(&mut self) -> &mut [u8] {
        assert!(!self.is_full(), "frames are taken in 64 at a time, or fewer if they are large");
        let start = self.start();
        &mut self.buffer[start..start + self.frame_bytes_max]
    }

    /// Adds the frame whose `bytes` were written into `next_buffer`.
    pub fn push_written(&mut self, bytes: usize) {
        assert!(bytes <= self.frame_bytes_max, "a frame is no longer than its buffer");
        let start = self.start();
        self.places.push(start..start + bytes);
    }

    /// The frames, in the order in which they arrived.
    pub fn lend(&self) -> Received<'_> {
        let mut received = Received::none();
        self.places.iter().for_each(|place| received.push(&self.buffer[place.clone()]));
        received
    }

    fn start(&self) -> usize {
        self.places.last().map_or(0, |last| last.end.next_multiple_of(ALIGNMENT))
    }
}

/// A frame around an IP packet of `mtu` bytes, and what tells that it was cut.
pub(super) fn frame_bytes(mtu: u16) -> usize {
    usize::from(mtu) + 32
}

/// Frames begin at cache lines.
const ALIGNMENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes frames of `bytes` until there is no room; returns how many.
    fn fill(frames: &mut Frames, bytes: usize) -> usize {
        frames.clear();
        let mut count = 0;
        while !frames.is_full() {
            frames.next_buffer()[..bytes].fill(count as u8);
            frames.push_written(bytes);
            count += 1;
        }
        assert!(frames.lend().iter().enumerate().all(|(index, frame)| *frame == vec![index as u8; bytes]));
        count
    }

    #[test]
    fn sixty_four_frames_of_the_mtu_always_fit() {
        for mtu in [576, 1_500, 1_501, 9_216] {
            let mut frames = Frames::new(mtu);
            for bytes in [0, 1, 60, usize::from(mtu), usize::from(mtu) + 14, usize::from(mtu) + 32] {
                assert_eq!(fill(&mut frames, bytes), Received::MAX, "MTU {mtu}, {bytes} bytes");
            }
        }
    }

    #[test]
    fn large_frames_fit_among_small_ones() {
        let mut frames = Frames::with_room(1_500, 65_568);
        assert_eq!(fill(&mut frames, 1_514), Received::MAX);
        let large = fill(&mut frames, 65_549);
        assert!(large >= 2, "{large}");
        assert!(frames.is_full() && !frames.lend().is_empty());
    }
}
