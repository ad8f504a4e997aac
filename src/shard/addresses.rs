//! Addresses: which are ours, which of them a peer is near to, and which no peer can have.

use std::net::IpAddr;

use super::config::Config;
use super::tables::Tables;

impl Tables {
    /// The index of one of our addresses.
    #[inline]
    pub fn local_index(&self, address: IpAddr) -> Option<u8> {
        self.locals.iter().position(|&local| local == address).map(|index| index as u8)
    }

    /// Whether an address is ours, be it only to be found by neighbours.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.link_local.is_some_and(|ours| address == ours) || self.local_index(address).is_some()
    }

    /// Whether an address of ours is kept by the kernel, which answers for it.
    pub fn is_shared(&self, address: IpAddr) -> bool {
        self.config.shared.contains(&address)
    }

    /// Whether an address is ours alone: we answer for it.
    pub fn is_ours_alone(&self, address: IpAddr) -> bool {
        self.is_ours(address) && !self.is_shared(address)
    }

    /// Whether an address cannot be a peer's: one of our own, or the broadcast address of one of our networks.
    #[inline]
    pub fn is_no_peer(&self, remote: IpAddr) -> bool {
        match remote {
            IpAddr::V4(remote) => self.no_peers.contains(&remote.to_bits()),
            IpAddr::V6(_) => self.is_ours(remote),
        }
    }

    /// One of our addresses.
    #[inline]
    pub fn local(&self, index: u8) -> IpAddr {
        self.locals[usize::from(index)]
    }

    /// The one of our addresses whose network a peer is in, or the first of its family.
    pub fn nearest_local(&self, remote: IpAddr) -> Option<IpAddr> {
        let is_near = |&&(address, prefix): &&(IpAddr, u8)| is_in_network(address, remote, prefix);
        let near = self.config.addresses.iter().find(is_near).map(|&(address, _)| address);
        near.or_else(|| self.locals.iter().find(|local| local.is_ipv4() == remote.is_ipv4()).copied())
    }

    /// The one of our addresses by which we would ask for a neighbour.
    pub fn asker(&self, target: IpAddr) -> Option<IpAddr> {
        let link_local = match target {
            IpAddr::V6(target) if target.is_unicast_link_local() => self.link_local.map(IpAddr::V6),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        link_local.or_else(|| self.nearest_local(target))
    }

    /// Whether the connections on one of our addresses are over IPv6.
    #[inline]
    pub fn is_ipv6(&self, local_index: u8) -> bool {
        self.ipv6_locals >> (local_index % 64) & 1 == 1
    }
}

/// See [`Tables::is_no_peer`].
pub(super) fn no_peers(config: &Config, locals: &[IpAddr]) -> Vec<u32> {
    let bits = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    };
    let networks = config.addresses.iter().filter(|(_, prefix)| *prefix < 31);
    let broadcasts = networks.filter_map(|(address, prefix)| {
        let (address, host_bits) = (bits(address)?, u32::MAX.checked_shr(u32::from(*prefix)).unwrap_or(0));
        Some([address | host_bits, address & !host_bits])
    });
    locals.iter().filter_map(bits).chain(broadcasts.flatten()).collect()
}

/// Whether an address can be that of one machine on a network: it is neither multicast, broadcast, loopback nor
/// unspecified, nor does it stand for another one (RFC 4291 §2.5.5).
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !(it.is_multicast() || it.is_broadcast() || it.is_unspecified() || it.is_loopback()),
        IpAddr::V6(it) => {
            !(it.is_multicast() || it.is_unspecified() || it.is_loopback() || it.to_ipv4_mapped().is_some())
        }
    }
}

/// Whether two addresses have the same family and the same first `prefix` bits.
pub(super) fn is_in_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (one.to_bits() ^ other.to_bits()) & mask == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            (one.to_bits() ^ other.to_bits()) & mask == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
