//! A client machine: another TCP or our own, and an application for each of its connections.
//!
//! Frames come in by `arrive`; `step` lets the TCP and the applications do what the time allows and collects what
//! they send ([`Client::sent`]) and what the applications saw ([`Sight`]). `wake_us` says when to step next.
//!
//! Invariant: whichever TCP it is, the world learns the same of it, and judges it in the same way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use strum::EnumCount;

use crate::shard::Rule;

use super::own::OwnClient;
use super::profile::{ClientParameters, Stack};
use super::reference::ReferenceClient;
use super::report::Breach;

/// What an application saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Sight {
    /// The handshake is complete.
    Established,
    /// The next bytes of the stream.
    Bytes(Vec<u8>),
    /// The stream has ended.
    End,
    /// The node's TCP has acknowledged so many bytes, says the client's.
    Delivered(u64),
    /// The connection was reset.
    Reset,
    /// The connection has ended by a FIN from either side.
    Finished,
}

/// What an application has done so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The connection's number in the world, which its first byte tells the node.
    pub(super) number: usize,
    /// Where it connects from.
    pub(super) local: SocketAddr,
    /// How much it has written, which is final once `is_closed`.
    pub(super) written_bytes: u64,
    /// Whether it has asked its TCP for the connection.
    pub(super) is_begun: bool,
    /// Whether its TCP knows the other side.
    pub(super) is_established: bool,
    /// Whether it has closed its direction.
    pub(super) is_closed: bool,
    /// Whether it has aborted.
    pub(super) is_aborted: bool,
    /// Whether there is nothing left to happen on its side.
    pub(super) is_over: bool,
}

impl Progress {
    /// Of an application that has not begun.
    pub(super) fn new(number: usize, local: SocketAddr) -> Progress {
        Progress {
            number,
            local,
            written_bytes: 0,
            is_begun: false,
            is_established: false,
            is_closed: false,
            is_aborted: false,
            is_over: false,
        }
    }
}

/// The first address of the clients of each family; the client of index i has the i-th after it.
const CLIENT_IPV4: Ipv4Addr = Ipv4Addr::new(10, 7, 1, 1);
const CLIENT_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 1, 1);
/// The node's addresses, and the port on which it listens.
pub(super) const NODE_IPV4: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
pub(super) const NODE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 1);
pub(super) const NODE_PORT: u16 = 7007;

/// A client machine.
pub(super) enum Client {
    Reference(Box<ReferenceClient>),
    Own(Box<OwnClient>),
}

/// The address of the client of this index.
pub(super) fn address(index: usize, parameters: &ClientParameters) -> IpAddr {
    match parameters.is_ipv6 {
        true => Ipv6Addr::from(u128::from(CLIENT_IPV6) + index as u128).into(),
        false => Ipv4Addr::from(u32::from(CLIENT_IPV4) + index as u32).into(),
    }
}

/// The length of the prefix of the network in which all machines of this address's family are.
pub(super) fn prefix(address: IpAddr) -> u8 {
    if address.is_ipv6() { 64 } else { 16 }
}

/// Where the node listens, for a client with this end.
pub(super) fn server(client: SocketAddr) -> SocketAddr {
    let address: IpAddr = if client.is_ipv6() { NODE_IPV6.into() } else { NODE_IPV4.into() };
    SocketAddr::new(address, NODE_PORT)
}

/// Where each connection of a client comes from, and whether it takes the port of the one before.
pub(super) fn ends(index: usize, parameters: &ClientParameters, first_number: usize) -> Vec<(SocketAddr, bool)> {
    let mut ends: Vec<(SocketAddr, bool)> = Vec::new();
    for (number, connection) in (first_number..).zip(&parameters.connections) {
        let own = SocketAddr::new(address(index, parameters), 40_000 + number as u16);
        let local = ends.last().filter(|_| connection.is_successor).map_or(own, |&(before, _)| before);
        ends.push((local, local != own));
    }
    ends
}

impl Client {
    /// The client of this index; its connections are numbered from `first_number` on.
    pub(super) fn new(
        index: usize,
        parameters: &ClientParameters,
        seed: u64,
        first_number: usize,
    ) -> Result<Client, Breach> {
        Ok(match parameters.stack {
            Stack::Smoltcp => Client::Reference(Box::new(ReferenceClient::new(index, parameters, seed, first_number))),
            Stack::Own => Client::Own(Box::new(OwnClient::new(index, parameters, seed, first_number)?)),
        })
    }

    /// A frame has arrived.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        match self {
            Client::Reference(client) => client.arrive(frame),
            Client::Own(client) => client.arrive(frame),
        }
    }

    /// The frames sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        match self {
            Client::Reference(client) => client.sent(),
            Client::Own(client) => client.sent(),
        }
    }

    /// From now on nobody reads or writes slowly.
    pub(super) fn heal(&mut self) {
        match self {
            Client::Reference(client) => client.heal(),
            Client::Own(client) => client.heal(),
        }
    }

    /// What the applications have done, in the order of their numbers.
    pub(super) fn progress(&self) -> Vec<Progress> {
        match self {
            Client::Reference(client) => client.progress(),
            Client::Own(client) => client.progress(),
        }
    }

    /// How often its TCP was helped out of a stall of its own.
    pub(super) fn rescues(&self) -> u64 {
        match self {
            Client::Reference(client) => client.rescues,
            Client::Own(_) => 0,
        }
    }

    /// How often each rule decided in its TCP, where that is ours.
    pub(super) fn rules(&self) -> [u64; Rule::COUNT] {
        match self {
            Client::Reference(_) => [0; Rule::COUNT],
            Client::Own(client) => client.rules(),
        }
    }

    /// When to call `step` next, if nothing arrives.
    pub(super) fn wake_us(&self, now_us: u64) -> Option<u64> {
        match self {
            Client::Reference(client) => client.wake_us(now_us),
            Client::Own(client) => client.wake_us(now_us),
        }
    }

    /// Lets TCP and applications run.
    pub(super) fn step(&mut self, now_us: u64, sights: &mut Vec<(usize, Sight)>) -> Result<(), Breach> {
        match self {
            Client::Reference(client) => {
                client.step(now_us, sights);
                Ok(())
            }
            Client::Own(client) => client.step(now_us, sights),
        }
    }
}
