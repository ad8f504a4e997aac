//! TAP: a virtual Ethernet interface whose other end is the kernel (`/dev/net/tun`).
//!
//! Comes in: the frames that the kernel sends out of the interface. Goes out: frames that the kernel receives there.
//! One frame is one read or one write, be it a segment of up to 64 KB that the kernel has not cut, or is to cut (see
//! `offload` and `join`); nothing here ever waits. A TAP of several queues is as many links; the answers
//! to what a flow sends over one of them come back over the same. A persistent TAP keeps its address and routes while
//! no process is attached to it, which is what lets connections outlive the process.
//!
//! Invariant: our Ethernet address is not the interface's. The interface's is the kernel's side of the cable, ours is
//! the other end's, made from the interface's so that it stays the same for as long as the interface exists.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::errno::Errno;
use nix::libc;

use super::derived::mac_across_from;
use super::exchange::Exchange;
use super::interface::{InterfaceError, InterfaceRequest, ethernet_address, mtu, raise_queue_frames};
use super::{Link, Persistence, Received};

/// A TAP interface that this process is attached to.
#[derive(Debug)]
pub struct Tap {
    exchange: Exchange,
    name: String,
    mac: [u8; 6],
    mtu: u16,
    /// The first of several queues keeps other processes away.
    _lock: Option<UnixListener>,
}

/// Which queue of a TAP one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    Only,
    OneOfMany,
}

/// Why a TAP could not be attached to. Each says in one sentence what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN/TAP driver, or this container does not show it.
    #[error("{DEVICE} does not exist: load the driver with `modprobe tun`, or give the container that device")]
    NoDevice,
    /// This user may not open the device.
    #[error("{DEVICE} is closed to this user: run as root, or let root open it with `chmod 0666 {DEVICE}`")]
    DeviceClosed,
    /// This user may not make or attach to the interface.
    #[error(
        "this user may not attach to the TAP {0}: run with CAP_NET_ADMIN, or let root make it with \
         `ip tuntap add dev {0} mode tap user NAME`"
    )]
    NotPermitted(String),
    /// Another process is attached.
    #[error("another process is attached to the TAP {0}: stop it, or take another name")]
    Busy(String),
    /// There is such an interface, but it is not a TAP that can be used so.
    #[error("the interface {0} is no TAP: delete it with `ip link delete {0}`, or take another name")]
    NotTap(String),
    /// It has one queue only, or cannot have so many.
    #[error(
        "the TAP {name} cannot have {queues} queues: delete it with `ip link delete {name}` and make it anew with \
         `ip tuntap add dev {name} mode tap multi_queue`, or take fewer --workers"
    )]
    Queues {
        /// The interface.
        name: String,
        /// How many were asked for.
        queues: usize,
    },
    /// It has as many queues as it can.
    #[error("the TAP {0} has as many queues as it can: take fewer --workers")]
    TooMany(String),
    /// The interface's name or size is out of range.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Anything else that the system says.
    #[error("cannot attach to the TAP {name}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Tap {
    /// Attaches to the TAP `name`, made beforehand or made now; what is made now vanishes with the process unless
    /// [`Tap::set_persistent`] is called. The interface still has to be brought up.
    pub fn open(name: &str) -> Result<Tap, TapError> {
        match Tap::attach(name, Queue::Only, None) {
            // One that was made for several queues can be used with one, too.
            Err(TapError::NotTap(_)) => Tap::attach(name, Queue::OneOfMany, Some(lock(name)?)),
            outcome => outcome,
        }
    }

    /// Attaches to so many queues of a TAP that may have several: a link for each.
    pub fn open_queues(name: &str, queues: usize) -> Result<Vec<Tap>, TapError> {
        if queues == 1 {
            return Tap::open(name).map(|tap| vec![tap]);
        }
        let mut lock = Some(lock(name)?);
        let taps = (0..queues).map(|_| Tap::attach(name, Queue::OneOfMany, lock.take()));
        taps.collect::<Result<Vec<Tap>, TapError>>().map_err(|error| match error {
            TapError::NotTap(name) | TapError::TooMany(name) => TapError::Queues { name, queues },
            other => other,
        })
    }

    fn attach(name: &str, queue: Queue, lock: Option<UnixListener>) -> Result<Tap, TapError> {
        let mut request = InterfaceRequest::new(name)?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(|error| device_error(name, error))?;
        let several = if queue == Queue::OneOfMany { libc::IFF_MULTI_QUEUE } else { 0 };
        request.set_flags((libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several) as libc::c_short);
        // SAFETY: the kernel reads and writes one `ifreq`, which the request is and which lives across the call.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
        Errno::result(answer).map_err(|errno| attach_error(name, errno))?;
        // What the kernel may leave undone in frames for us. Where it knows no such thing it leaves nothing undone.
        let undone = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
        // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
        let _ = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, undone) };
        // The interface's queue is all the room that a burst has. Whoever may not raise it has more frames sent again.
        let _ = raise_queue_frames(name, QUEUE_FRAMES);
        let mac = mac_across_from(ethernet_address(name)?);
        let mtu = mtu(name)?;
        Ok(Tap { exchange: Exchange::new(device.into(), mtu), name: name.to_owned(), mac, mtu, _lock: lock })
    }

    /// Whether the interface stays when this process ends.
    pub fn set_persistent(&self, persistence: Persistence) -> io::Result<()> {
        let value = libc::c_ulong::from(persistence == Persistence::Kept);
        // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
        let answer = unsafe { libc::ioctl(self.exchange.as_fd().as_raw_fd(), libc::TUNSETPERSIST, value) };
        Errno::result(answer)?;
        Ok(())
    }
}

/// Whoever is attached to a TAP that was deleted has a descriptor in a bad state.
fn judge(name: &str, errno: Errno) -> io::Result<()> {
    match errno {
        Errno::EBADFD => {
            Err(io::Error::new(ErrorKind::NotFound, format!("the TAP {name} was deleted while it was in use")))
        }
        _ => Ok(()),
    }
}

impl Link for Tap {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn receive(&mut self) -> io::Result<Received<'_>> {
        self.exchange.receive(|errno| judge(&self.name, errno))
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.exchange.send(frame, |errno| judge(&self.name, errno))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.exchange.flush(|errno| judge(&self.name, errno))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.exchange.as_fd())
    }

    fn frames_lost(&self) -> u64 {
        self.exchange.frames_lost()
    }
}

/// Whoever attaches to one queue of several gets a part of the frames, and the kernel lets everybody: so a name is
/// taken that belongs to the network namespace, as the interface does, and is free again when its process has ended.
fn lock(name: &str) -> Result<UnixListener, TapError> {
    let system = |source| TapError::System { name: name.to_owned(), source };
    let address = SocketAddr::from_abstract_name(format!("holdline-tap-{name}")).map_err(system)?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => TapError::Busy(name.to_owned()),
        _ => system(error),
    })
}

fn device_error(name: &str, error: io::Error) -> TapError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => TapError::NoDevice,
        Some(Errno::EACCES | Errno::EPERM) => TapError::DeviceClosed,
        _ => TapError::System { name: name.to_owned(), source: error },
    }
}

fn attach_error(name: &str, errno: Errno) -> TapError {
    let name = name.to_owned();
    match errno {
        Errno::EPERM | Errno::EACCES => TapError::NotPermitted(name),
        Errno::EBUSY => TapError::Busy(name),
        Errno::EINVAL | Errno::EEXIST => TapError::NotTap(name),
        Errno::E2BIG => TapError::TooMany(name),
        _ => TapError::System { name, source: errno.into() },
    }
}

/// Frames that may wait for us: a window of each of a hundred busy peers.
const QUEUE_FRAMES: u16 = 16_384;

/// Where the kernel hands out TUN and TAP interfaces.
const DEVICE: &str = "/dev/net/tun";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let closed = device_error("tap0", io::Error::from_raw_os_error(libc::EACCES)).to_string();
        assert!(closed.contains("run as root") && closed.contains("chmod"), "{closed}");
        let missing = device_error("tap0", io::Error::from_raw_os_error(libc::ENOENT)).to_string();
        assert!(missing.contains("modprobe tun"), "{missing}");
        assert!(attach_error("tap0", Errno::EPERM).to_string().contains("CAP_NET_ADMIN"));
        assert!(attach_error("tap0", Errno::EBUSY).to_string().contains("another process"));
        assert!(attach_error("lo", Errno::EINVAL).to_string().contains("ip link delete lo"));
    }

    #[test]
    fn a_name_that_cannot_be_is_refused() {
        for name in ["", "a-name-of-sixteen", "has/slash", "has space"] {
            assert!(matches!(Tap::open(name), Err(TapError::Interface(_))), "{name:?}");
        }
    }
}
