//! The outside: where frames come from and go to.
//!
//! A link moves whole Ethernet frames and knows nothing of TCP. It never blocks; `descriptor` is what a thread may
//! poll to sleep until frames wait. A link loses frames like any network does and counts them; it answers an error only
//! when it is gone for good.
//!
//! Invariant: whatever happens to one frame is no error of the link.

// System calls that no crate wraps are made here; each block says who upholds what.
#![allow(unsafe_code)]

pub mod interface;
mod memory;
mod netlink;
mod offload;
mod packet_socket;
pub mod pcap;
mod raw;
mod tap;
pub mod veth;

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

pub use interface::InterfaceError;
pub use memory::{MemoryLink, memory_pair};
pub use raw::{Raw, RawError};
pub use tap::{Persistence, Tap, TapError};

/// A place where Ethernet frames come from and go to.
pub trait Link: Send {
    /// Our Ethernet address on this link.
    fn mac(&self) -> [u8; 6];

    /// Largest IP packet that fits into a frame, in bytes.
    fn mtu(&self) -> u16;

    /// Room that one received frame may need, in bytes. More than the MTU asks for where a link hands on what the
    /// kernel has joined, or not cut yet: such a frame is one TCP segment of up to 64 KB.
    fn frame_bytes_max(&self) -> usize {
        frame_bytes(self.mtu())
    }

    /// Fills `frames` with what has arrived, until nothing waits or `frames` is full. An error: the link is gone.
    fn receive(&mut self, frames: &mut Frames) -> io::Result<()>;

    /// Sends one frame. `Ok(false)`: the link is full, try the same frame again later. An error: the link is
    /// gone.
    fn send(&mut self, frame: &[u8]) -> io::Result<bool>;

    /// What becomes readable when frames wait, if the link has such a thing.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// How many frames the link itself has lost so far: cut, or refused by what lies below it.
    fn frames_lost(&self) -> u64 {
        0
    }
}

/// Up to 64 received frames, one behind the other in one buffer that is used again.
pub struct Frames {
    buffer: Vec<u8>,
    frame_bytes_max: usize,
    places: Vec<Range<usize>>,
}

impl Frames {
    /// The most frames that are taken in at once.
    pub const MAX: usize = 64;

    /// Room for 64 frames that carry IP packets of up to `mtu` bytes.
    pub fn new(mtu: u16) -> Frames {
        Frames::with_room(mtu, frame_bytes(mtu))
    }

    /// The same room, where single frames may have up to `frame_bytes_max` bytes; the more such there are, the fewer
    /// fit.
    pub fn with_room(mtu: u16, frame_bytes_max: usize) -> Frames {
        let frame_bytes_max = frame_bytes_max.max(frame_bytes(mtu));
        let bytes = Self::MAX * frame_bytes(mtu).next_multiple_of(ALIGNMENT) + frame_bytes_max;
        // Written and not only reserved, so that the process does not seem to grow when frames come.
        Frames { buffer: vec![0xa5; bytes], frame_bytes_max, places: Vec::with_capacity(Self::MAX) }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// Whether there is no room for a further frame.
    pub fn is_full(&self) -> bool {
        self.places.len() == Self::MAX || self.start() + self.frame_bytes_max > self.buffer.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
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
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.buffer[place.clone()])
    }

    fn start(&self) -> usize {
        self.places.last().map_or(0, |last| last.end.next_multiple_of(ALIGNMENT))
    }
}

/// A frame around an IP packet of `mtu` bytes, and what tells that it was cut.
fn frame_bytes(mtu: u16) -> usize {
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
        assert!(frames.iter().enumerate().all(|(index, frame)| frame == vec![index as u8; bytes]));
        count
    }

    #[test]
    fn sixty_four_frames_of_the_mtu_always_fit() {
        for mtu in [576, 1_500, 1_501, 9_216] {
            let mut frames = Frames::new(mtu);
            for bytes in [0, 1, 60, usize::from(mtu), usize::from(mtu) + 14, usize::from(mtu) + 32] {
                assert_eq!(fill(&mut frames, bytes), Frames::MAX, "MTU {mtu}, {bytes} bytes");
            }
        }
    }

    #[test]
    fn large_frames_fit_among_small_ones() {
        let mut frames = Frames::with_room(1_500, 65_568);
        assert_eq!(fill(&mut frames, 1_514), Frames::MAX);
        let large = fill(&mut frames, 65_549);
        assert!(large >= 2, "{large}");
        assert!(frames.is_full() && !frames.is_empty());
    }
}
