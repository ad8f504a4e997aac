//! AF_XDP: frames of a network card's queue in memory that the kernel shares with us.
//!
//! Comes in: what the steering program (`xdp/`) sends to the socket of the queue, which are the frames of our addresses
//! and ports and no others; the rest of the interface stays the kernel's. Goes out: frames by the same queue, past the
//! kernel's stack. `Interface` is what the queues of one interface have in common, the program and the memory; `AfXdp`
//! is the link of one queue.
//!
//! ```text
//!   driver -> XDP program -+-> queue 0: socket, rings, frames -> AfXdp      one thread each
//!                          +-> queue 1: socket, rings, frames -> AfXdp
//!                          +-> the kernel's stack: everything that is not ours
//! ```
//!
//! Our Ethernet address is the interface's own, so that networks that let a port have one address only carry our
//! frames; what is ours of all that comes to it is a matter of IP addresses and ports.
//!
//! Invariant: a frame that is ours never reaches the kernel's stack, be there a socket for it or not.

mod error;
mod link;
mod pins;
mod program;
mod pump;
mod reserve;
mod ring;
mod socket;
mod umem;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

pub use error::AfXdpError;
pub use link::AfXdp;

use super::interface::{Ethernet, InterfaceError};
use super::packet_socket::{self, Advertisements};
use super::{Persistence, ethtool};
use link::Parts;
use program::{Attachment, Program};
use socket::{Copying, Memory, Socket};
use umem::{HEADROOM_BYTES, Share, Umem};

/// What is ours.
#[derive(Clone, Default, Debug)]
pub struct Steering {
    /// Addresses of our own, which the kernel does not have: everything that is sent to them is ours.
    pub addresses: Vec<IpAddr>,
    /// Addresses that the kernel keeps: TCP to our ports is ours there.
    pub shared_addresses: Vec<IpAddr>,
    /// Those ports.
    pub ports: Vec<u16>,
    /// Whether advertisements of routers are wanted. The kernel gets them, too.
    pub wants_routers: bool,
}

/// How an interface is opened.
#[derive(Clone, Copy, Debug)]
pub struct AfXdpOptions {
    /// How many of its queues share the memory.
    pub queues: u32,
    /// Whether the steering program outlives the process.
    pub persistence: Persistence,
    /// The program is run by the kernel and not by the driver, even where the driver can.
    pub is_generic: bool,
    /// Frames are copied, even where the driver can do without.
    pub is_copied: bool,
    /// The worker's thread runs the driver instead of interrupts.
    pub is_busy_polled: bool,
}

impl Default for AfXdpOptions {
    fn default() -> AfXdpOptions {
        AfXdpOptions {
            queues: 1,
            persistence: Persistence::Vanishes,
            is_generic: false,
            is_copied: false,
            is_busy_polled: false,
        }
    }
}

/// Who runs the steering program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The driver, before it makes anything of a frame.
    Native = 0,
    /// The kernel, after the driver has made a packet of it.
    Generic = 1,
}

/// An interface whose frames are steered. The program stays attached as long as this or one of its links is there.
pub struct Interface {
    name: String,
    index: u32,
    mac: [u8; 6],
    mtu: u16,
    options: AfXdpOptions,
    advertisements: Advertisements,
    groups: Vec<[u8; 6]>,
    umem: Arc<Umem>,
    program: Mutex<Program>,
    opened: Mutex<Opened>,
    _reserved: Vec<OwnedFd>,
}

/// The queues that were opened so far.
#[derive(Default)]
struct Opened {
    queues: Vec<u32>,
    /// A socket that has registered the memory.
    first: Option<OwnedFd>,
}

impl Interface {
    /// Attaches the steering program to the interface `name`, which may be down yet.
    pub fn open(name: &str, steering: &Steering, options: AfXdpOptions) -> Result<Arc<Interface>, AfXdpError> {
        let Ethernet { index, mac, mtu } = Ethernet::find(name)?;
        let frame_bytes = frame_bytes_for(mtu).ok_or_else(|| AfXdpError::MtuTooLarge {
            name: name.to_owned(),
            mtu,
            max: mtu_max(FRAME_BYTES[1]),
        })?;
        let reserved = reserve::reserve(name, index, &steering.shared_addresses, &steering.ports)?;
        let to =
            Attachment { name, index, mac, is_generic_wanted: options.is_generic, persistence: options.persistence };
        let program = Program::start(&to, steering)?;
        let no_memory = |source| AfXdpError::System { name: name.to_owned(), action: "map memory", source };
        let umem = Umem::new(options.queues.max(1), frame_bytes).map_err(no_memory)?;
        let advertisements = if steering.wants_routers { Advertisements::Wanted } else { Advertisements::Refused };
        Ok(Arc::new(Interface {
            name: name.to_owned(),
            index,
            mac,
            mtu,
            options,
            advertisements,
            groups: groups(steering),
            umem: Arc::new(umem),
            program: Mutex::new(program),
            opened: Mutex::default(),
            _reserved: reserved,
        }))
    }

    /// Opens the link of one queue. Each queue can be opened once, and as many as the options say.
    pub fn queue(self: &Arc<Interface>, queue: u32) -> Result<AfXdp, AfXdpError> {
        let count = ethtool::receive_queues(&self.name)?;
        if queue >= count {
            return Err(AfXdpError::NoQueue { name: self.name.clone(), queue, count });
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.queues.contains(&queue) {
            return Err(self.bind_error(queue, Errno::EBUSY));
        }
        let number = opened.queues.len() as u32;
        assert!(number < self.options.queues.max(1), "no more queues are opened than share the memory");
        let memory = match &opened.first {
            Some(first) => Memory::Shares(first.as_fd()),
            None => Memory::Registers(&self.umem),
        };
        let copying = if self.options.is_copied { Copying::Always } else { Copying::IfNeeded };
        let bound = Socket::bind(self.index, queue, &memory, copying);
        let (socket, rings) = bound.map_err(|errno| self.bind_error(queue, errno))?;
        let failed = |action| move |errno: Errno| self.failed(action, errno);
        if self.options.is_busy_polled {
            socket.poll_busily().map_err(failed("set busy polling"))?;
        }
        let beside = packet_socket::open_beside(
            self.index,
            &self.groups,
            match number {
                0 => self.advertisements,
                // One link hands them on.
                _ => Advertisements::Refused,
            },
        );
        let parts = Parts {
            share: Share::new(Arc::clone(&self.umem), number),
            rings,
            beside: beside.map_err(failed("open a packet socket"))?,
            is_zero_copy: socket.is_zero_copy().map_err(failed("ask the socket"))?,
            is_first: number == 0,
            socket,
        };
        if opened.first.is_none() {
            let first = parts.socket.as_fd().try_clone_to_owned();
            opened.first = Some(first.map_err(|source| self.failed("keep the socket", source))?);
        }
        opened.queues.push(queue);
        self.program().put_socket(&self.name, queue, parts.socket.as_fd())?;
        AfXdp::new(Arc::clone(self), queue, parts).map_err(failed("watch the sockets"))
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        // A panic of another thread leaves the program as it is: every change of it is one call.
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind_error(&self, queue: u32, errno: Errno) -> AfXdpError {
        let name = self.name.clone();
        match errno {
            Errno::EBUSY => AfXdpError::QueueTaken { name, queue },
            Errno::EPERM | Errno::EACCES => AfXdpError::NotPermitted(name),
            Errno::ENOBUFS => AfXdpError::MemoryLocked(name),
            Errno::ENODEV => InterfaceError::Missing(name).into(),
            errno => self.failed("bind a socket", errno),
        }
    }

    fn failed(&self, action: &'static str, source: impl Into<std::io::Error>) -> AfXdpError {
        AfXdpError::System { name: self.name.clone(), action, source: source.into() }
    }
}

/// The groups whose frames the interface has to receive for us: those by which neighbours ask for our addresses
/// (RFC 4291 §2.7.1), and that of all nodes, to which routers send.
fn groups(steering: &Steering) -> Vec<[u8; 6]> {
    let solicited = steering.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            Some([0x33, 0x33, 0xff, a, b, c])
        }
    });
    let mut groups: Vec<[u8; 6]> = solicited.collect();
    if steering.wants_routers {
        groups.push([0x33, 0x33, 0, 0, 0, 1]);
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The smallest frame of the memory that a frame with a packet of `mtu` bytes fits into.
fn frame_bytes_for(mtu: u16) -> Option<u32> {
    FRAME_BYTES.into_iter().find(|frame_bytes| mtu <= mtu_max(*frame_bytes))
}

/// A packet that fits into a frame of the memory, behind the kernel's headroom and the Ethernet header with a tag.
fn mtu_max(frame_bytes: u32) -> u16 {
    (frame_bytes - HEADROOM_BYTES - ETHERNET_BYTES) as u16
}

/// Sizes that frames of the memory may have, in bytes: the kernel takes nothing larger than a page.
const FRAME_BYTES: [u32; 2] = [2_048, 4_096];

const ETHERNET_BYTES: u32 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_small_as_the_mtu_allows() {
        assert_eq!([576, 1_500, 1_774].map(frame_bytes_for), [Some(2_048); 3]);
        assert_eq!([1_775, 3_822].map(frame_bytes_for), [Some(4_096); 2]);
        assert_eq!([3_823, 9_000].map(frame_bytes_for), [None; 2]);
    }

    #[test]
    fn the_groups_of_our_addresses_are_listened_to() {
        let addresses = ["10.0.0.2", "fd00::2", "fe80::aa:bbcc:2", "fd01::2"].map(|text| text.parse().expect("one"));
        let steering = Steering { addresses: addresses.to_vec(), wants_routers: true, ..Steering::default() };
        let [a, b, c] =
            [[0, 0, 0, 1], [0xff, 0, 0, 2], [0xff, 0xcc, 0, 2]].map(|[a, b, c, d]| [0x33, 0x33, a, b, c, d]);
        assert_eq!(groups(&steering), [a, b, c]);
    }
}
