//! Raw: a packet socket (AF_PACKET) on an interface of the kernel, be it a network card or one end of a veth pair.
//!
//! Comes in: frames that arrive at the interface for our Ethernet address, broadcast ARP, and ICMPv6 to groups. Goes
//! out: frames that leave by the interface. The kernel goes on using it, so holdline's IP address must be none of the
//! kernel's: the kernel would answer in its own way, and connections would meet its RST.
//!
//! Frames are often no frames of a wire. Between the ends of a veth pair, and from a card that joins segments (GRO), a
//! TCP segment of up to 64 KB comes whole and with half a checksum; `offload` completes the checksum, and the segment
//! is handed on whole. A frame whose VLAN tag the kernel has taken out is another network's and is not received here:
//! `raw:eth0.5` is the link for the VLAN 5 of eth0. A card that joins segments by itself (LRO) without making their
//! checksums good has to be told not to: `ethtool -K eth0 lro off`. What leaves is joined likewise, see `join`.
//!
//! pnet's datalink is not used: it asks for no `virtio_net_hdr`, without which half a checksum cannot be told from a
//! wrong one, cuts frames at 4 KB by default without saying so, and sets the interface promiscuous.
//!
//! Invariant: our Ethernet address is not the interface's, but made from it as for a TAP. The kernel's own stack passes
//! by what is sent to it, whether it forwards packets or not. A network that lets a port have one address only (many
//! clouds, wireless) does not carry it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::derived::mac_across_from;
use super::exchange::Exchange;
use super::interface::{Ethernet, InterfaceError, Presence};
use super::{Link, Received, packet_socket};

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Raw {
    exchange: Exchange,
    interface: Presence,
    mac: [u8; 6],
    mtu: u16,
    /// What the socket had no room for, as far as it was asked.
    frames_dropped: Cell<u64>,
}

/// Why there is no raw socket on an interface. Each says in one sentence what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// This user may not open a packet socket.
    #[error(
        "this user may not open a raw socket on {0}: run as root, or let root give the program that right with \
         `setcap cap_net_raw+ep PROGRAM`"
    )]
    NotPermitted(String),
    /// There is no such interface, or it is none for us.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Anything else that the system says.
    #[error("cannot open a raw socket on {name}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Raw {
    /// Opens a socket on the interface `name`, which may be down yet.
    pub fn open(name: &str) -> Result<Raw, RawError> {
        let Ethernet { index, mac, mtu } = Ethernet::find(name)?;
        let mac = mac_across_from(mac);
        let socket = packet_socket::open(index, mac).map_err(|errno| open_error(name, errno))?;
        Ok(Raw {
            exchange: Exchange::new(socket, mtu),
            interface: Presence::new(name, index),
            mac,
            mtu,
            frames_dropped: Cell::new(0),
        })
    }
}

/// A socket outlives an interface that is down; one that is deleted is the end of it.
fn judge(interface: &mut Presence, errno: Errno) -> io::Result<()> {
    match errno {
        Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV => interface.look(),
        _ => Ok(()),
    }
}

impl Link for Raw {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn receive(&mut self) -> io::Result<Received<'_>> {
        self.interface.look_if_down()?;
        self.exchange.receive(|errno| judge(&mut self.interface, errno))
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.exchange.send(frame, |errno| judge(&mut self.interface, errno))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.exchange.flush(|errno| judge(&mut self.interface, errno))
    }

    /// None while the interface is down, so that it is looked at now and then.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.interface.is_down()).then(|| self.exchange.as_fd())
    }

    fn frames_lost(&self) -> u64 {
        // The socket forgets what it has told. Asking fails for no packet socket.
        let dropped = packet_socket::frames_dropped(self.exchange.as_fd()).unwrap_or(0);
        self.frames_dropped.set(self.frames_dropped.get() + u64::from(dropped));
        self.exchange.frames_lost() + self.frames_dropped.get()
    }
}

fn open_error(name: &str, errno: Errno) -> RawError {
    let name = name.to_owned();
    match errno {
        Errno::ENODEV | Errno::ENXIO => InterfaceError::Missing(name).into(),
        Errno::EPERM | Errno::EACCES => RawError::NotPermitted(name),
        _ => RawError::System { name, source: errno.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let missing = Raw::open("no-such-if").unwrap_err().to_string();
        assert!(missing.contains("no-such-if") && missing.contains("ip link"), "{missing}");
        let refused = open_error("eth0", Errno::EPERM).to_string();
        assert!(refused.contains("cap_net_raw") && refused.contains("root"), "{refused}");
        let loopback = Raw::open("lo").unwrap_err().to_string();
        assert!(loopback.contains("lo does not carry Ethernet"), "{loopback}");
    }
}
