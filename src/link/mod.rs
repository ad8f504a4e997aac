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
pub mod pcap;
mod tap;

use std::io;
use std::os::fd::BorrowedFd;

pub use interface::InterfaceError;
pub use memory::{MemoryLink, memory_pair};
pub use tap::{Persistence, Tap, TapError};

/// A place where Ethernet frames come from and go to.
pub trait Link: Send {
    /// Our Ethernet address on this link.
    fn mac(&self) -> [u8; 6];

    /// Largest IP packet that fits into a frame, in bytes.
    fn mtu(&self) -> u16;

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

/// Up to 64 received frames, in one buffer that is used again.
pub struct Frames {
    buffer: Vec<u8>,
    frame_bytes_max: usize,
    lengths: Vec<usize>,
}

impl Frames {
    /// The most frames that are taken in at once.
    pub const MAX: usize = 64;

    /// Room for frames that carry IP packets of up to `mtu` bytes.
    pub fn new(mtu: u16) -> Frames {
        let frame_bytes_max = usize::from(mtu) + 32;
        Frames { buffer: vec![0; Self::MAX * frame_bytes_max], frame_bytes_max, lengths: Vec::with_capacity(Self::MAX) }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.lengths.clear();
    }

    /// Whether there is no room for a further frame.
    pub fn is_full(&self) -> bool {
        self.lengths.len() == Self::MAX
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Where the next frame is to be written. Panics when full.
    pub fn next_buffer(&mut self) -> &mut [u8] {
        assert!(!self.is_full(), "frames are taken in 64 at a time");
        let start = self.lengths.len() * self.frame_bytes_max;
        &mut self.buffer[start..start + self.frame_bytes_max]
    }

    /// Adds the frame whose `bytes` were written into `next_buffer`.
    pub fn push_written(&mut self, bytes: usize) {
        assert!(bytes <= self.frame_bytes_max, "a frame is no longer than its buffer");
        self.lengths.push(bytes);
    }

    /// The frames, in the order in which they arrived.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = (0..).step_by(self.frame_bytes_max);
        self.lengths.iter().zip(starts).map(|(bytes, start)| &self.buffer[start..start + bytes])
    }
}
