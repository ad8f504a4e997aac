//! The outside: where frames come from and go to.
//!
//! A link moves whole Ethernet frames and knows nothing of TCP. It never blocks; `descriptor` is what a thread may
//! poll to sleep until frames wait. Frames come and go in batches: `receive` lends a batch, `flush` ends one. A link
//! loses frames like any network does and counts them; it answers an error only when it is gone for good.
//!
//! Invariant: whatever happens to one frame is no error of the link.

// System calls that no crate wraps are made here; each block says who upholds what.
#![allow(unsafe_code)]

pub mod af_xdp;
mod derived;
mod ethtool;
mod exchange;
mod frames;
pub mod interface;
mod join;
mod memory;
mod neighbors;
mod netlink;
mod offload;
mod options;
mod packet_socket;
pub mod pcap;
mod raw;
mod tap;
pub mod veth;

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

pub use af_xdp::{AfXdp, AfXdpError};
pub use derived::link_local_for;
pub use ethtool::complete_checksums;
pub use frames::Received;
pub use interface::InterfaceError;
pub use memory::{MemoryLink, memory_pair};
pub use raw::{Raw, RawError};
pub use tap::{Tap, TapError};

/// A place where Ethernet frames come from and go to.
pub trait Link: Send {
    /// Our Ethernet address on this link.
    fn mac(&self) -> [u8; 6];

    /// Largest IP packet that fits into a frame, in bytes.
    fn mtu(&self) -> u16;

    /// Lends what has arrived, up to 64 frames; none: nothing waits. What is lent lies where the link has it, in its
    /// own buffer or in memory that it shares with the kernel, and stays as it is until the link is asked again, when
    /// its room is used for other frames. A frame may be larger than the MTU where a link hands on what the kernel has
    /// joined, or not cut yet: it is one TCP segment of up to 64 KB. An error: the link is gone.
    fn receive(&mut self) -> io::Result<Received<'_>>;

    /// Takes a frame to be sent. `Ok(false)`: the link is full, try the same frame again later. An error: the link is
    /// gone. The link may keep frames back until `flush`, but lets them leave in the order in which it took them.
    fn send(&mut self, frame: &[u8]) -> io::Result<bool>;

    /// Lets go what `send` has taken. Whoever has sent calls it once for all frames of a batch, before it waits for
    /// anything, and also where the link was full. What cannot leave now goes with a later call, or is lost and
    /// counted. An error: the link is gone.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What becomes readable when frames wait, if the link has such a thing.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// How soon `flush` wants to be called again though nothing is sent meanwhile, as not all could leave yet.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// The Ethernet address of the neighbour that the kernel sends to, over this link, for an address, if it is sure of
    /// it; from now on it finds out. `None` as well where the link shares no addresses with the kernel.
    fn neighbor(&self, _address: IpAddr) -> Option<[u8; 6]> {
        None
    }

    /// How many frames the link itself has lost so far: cut, or refused by what lies below it.
    fn frames_lost(&self) -> u64 {
        0
    }

    /// What else the link has counted, for those who watch it.
    fn counts(&self) -> Vec<Count> {
        Vec::new()
    }
}

/// Whether what a link has set up outside of the process, a TAP or a steering program, stays when the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// It stays, and is there for the next process.
    Kept,
    /// It vanishes with the process, however that ends.
    Vanishes,
}

/// Sleeps until one of the descriptors is readable, or for so long; a signal may end it earlier. Returns which are.
pub fn wait_readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
        Ok(_) => Ok(polled.map(|polled| polled.any().unwrap_or(true))),
        Err(Errno::EINTR) => Ok([false; N]),
        Err(errno) => Err(errno.into()),
    }
}

/// Something that a link counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// A name for programs: small letters and underscores.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// How many, since the link was opened.
    pub value: u64,
}
