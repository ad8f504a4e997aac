//! Ends of the generator's connections, over either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PORTS_PER_ADDRESS: u32 = 50_000;
const FIRST_ADDRESS: u32 = 0x0a01_0000;
const FIRST_PORT: u16 = 1_024;

/// What the clients speak over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// The shard's address over IPv6; those of clients over IPv6 end with what they would be over IPv4.
pub const OURS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// Number of the address, and port, of a client.
pub fn ends_of(index: usize) -> (u32, u16) {
    let index = index as u32;
    (FIRST_ADDRESS + index / PORTS_PER_ADDRESS, FIRST_PORT + (index % PORTS_PER_ADDRESS) as u16)
}

/// The client with this address and port; `None` for somebody else.
pub fn index_of(address: IpAddr, port: u16) -> Option<usize> {
    let number = match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    };
    let number = number.checked_sub(FIRST_ADDRESS).filter(|&at| at < 1 << 16)?;
    Some((number * PORTS_PER_ADDRESS + u32::from(port) - u32::from(FIRST_PORT)) as usize)
}

/// The address of this number.
pub fn address(family: Family, number: u32) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(number).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(OURS_IPV6.to_bits() & !0xffff_ffff | u128::from(number)).into(),
    }
}
