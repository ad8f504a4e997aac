//! Ports of the kernel's addresses that are kept free for us.
//!
//! A socket that is bound and does nothing holds each: the kernel lets nobody else listen there, and takes the port for
//! no connection of its own, whose answers would come to us.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

use super::error::AfXdpError;

/// Reserves the ports at the addresses of an interface, as long as the answer lives.
pub(super) fn reserve(name: &str, index: u32, addresses: &[IpAddr], ports: &[u16]) -> Result<Vec<OwnedFd>, AfXdpError> {
    let places = addresses.iter().flat_map(|address| ports.iter().map(move |port| (*address, *port)));
    let reserved = places.map(|(address, port)| match reserve_one(index, address, port) {
        Ok(reserved) => Ok(Some(reserved)),
        // A port that only a privileged user may have, and nobody gets unasked.
        Err(Errno::EACCES) => Ok(None),
        Err(Errno::EADDRINUSE) => Err(AfXdpError::PortTaken { name: name.to_owned(), address, port }),
        Err(errno) => {
            let action = "reserve a port of the kernel's address";
            Err(AfXdpError::System { name: name.to_owned(), action, source: errno.into() })
        }
    });
    Ok(reserved.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn reserve_one(index: u32, address: IpAddr, port: u16) -> Result<OwnedFd, Errno> {
    let (family, place) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, SocketAddr::new(address.into(), port)),
        IpAddr::V6(address) => {
            let scope = if address.is_unicast_link_local() { index } else { 0 };
            (AddressFamily::Inet6, SocketAddrV6::new(address, port, 0, scope).into())
        }
    };
    let reserved = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connections that a server of the kernel's has left behind do not count while it is bound, and others do after.
    setsockopt(&reserved, sockopt::ReuseAddr, &true)?;
    bind(reserved.as_raw_fd(), &SockaddrStorage::from(place))?;
    setsockopt(&reserved, sockopt::ReuseAddr, &false)?;
    Ok(reserved)
}
