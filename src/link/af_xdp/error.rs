//! Why there is no AF_XDP link. Each error says in one sentence what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::link::InterfaceError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// There is no such interface, or it is none for us.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// This user may not.
    #[error(
        "this user may not use AF_XDP on {0}: run as root, or let root give the program that right with \
         `setcap cap_bpf,cap_net_admin,cap_net_raw+ep PROGRAM`; in a user namespace it cannot be had at all"
    )]
    NotPermitted(String),
    /// The interface has fewer queues.
    #[error(
        "the interface {name} has no receive queue {queue}, only 0 to {last}: take one of these, or make more with \
         `ethtool -L {name} combined {more}`",
        last = count - 1, more = queue + 1
    )]
    NoQueue {
        /// The interface.
        name: String,
        /// The queue that was asked for.
        queue: u32,
        /// How many there are.
        count: u32,
    },
    /// Another socket has the queue.
    #[error(
        "queue {queue} of {name} is taken by another AF_XDP socket: stop its process (`ss --xdp -p` names it), or take \
         another queue"
    )]
    QueueTaken {
        /// The interface.
        name: String,
        /// The queue.
        queue: u32,
    },
    /// Frames do not fit.
    #[error(
        "the MTU of {name} is {mtu}, and AF_XDP takes frames of one page, an MTU of up to {max}: set it with \
         `ip link set {name} mtu {max}`"
    )]
    MtuTooLarge {
        /// The interface.
        name: String,
        /// What it has.
        mtu: u16,
        /// What it may have.
        max: u16,
    },
    /// The driver refuses the program because of the size of frames.
    #[error(
        "the driver of {name} takes no XDP program while its MTU, or that of a veth's other end, is so large: set both \
         with `ip link set {name} mtu 1500`"
    )]
    DriverMtu {
        /// The interface.
        name: String,
    },
    /// The kernel uses a port.
    #[error(
        "the kernel uses port {port} of {address}, which it keeps on {name}: see by whom with \
         `ss -tanp sport = :{port}`, and end that or take another port"
    )]
    PortTaken {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Another program is attached.
    #[error(
        "another XDP program is attached to {0}: see which with `ip link show {0}` and `bpftool link`, end its owner, \
         or take it away with `ip link set {0} xdp off`"
    )]
    ForeignProgram(String),
    /// Another process steers the interface.
    #[error("another process has the pins in {path} and steers {name}: stop it first")]
    Busy {
        /// The interface.
        name: String,
        /// Where the pins are.
        path: PathBuf,
    },
    /// The pins are of an interface of that name in another network namespace.
    #[error(
        "the pins in {path} are those of another network namespace's {name}: mount a BPF file system of its own in \
         this one, `mount -t bpf bpf /sys/fs/bpf`, or remove them"
    )]
    OtherNamespace {
        /// The interface.
        name: String,
        /// Where the pins are.
        path: PathBuf,
    },
    /// Nowhere to pin.
    #[error(
        "there is no BPF file system at {0}, where the steering program outlives this process: mount one with \
         `mount -t bpf bpf {0}`"
    )]
    NoBpfFileSystem(PathBuf),
    /// Too little memory may be locked.
    #[error(
        "the system lets this user lock too little memory for the frames of {0}: run as root or with CAP_IPC_LOCK, or \
         raise `ulimit -l`"
    )]
    MemoryLocked(String),
    /// Anything else that the system says.
    #[error("cannot {action} for AF_XDP on {name}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
