//! Keys of flows, and their hashes, from their records alone.

use std::net::{IpAddr, Ipv4Addr};

use crate::flows::{Address, Arena, FlowKey, Hashes, KeyHasher};
use crate::tcp::Flow;

/// The hashes of the flows in the table.
pub(super) struct FlowHashes<'a> {
    pub flows: &'a Arena<Flow>,
    pub peers: &'a Arena<Address>,
    pub hasher: KeyHasher,
    pub ipv6_locals: u64,
}

impl Hashes for FlowHashes<'_> {
    #[inline]
    fn hash_of(&self, slot: u32) -> u64 {
        self.hasher.hash(&key_of(&self.flows.records()[slot as usize], self.ipv6_locals, self.peers))
    }

    #[inline]
    fn prefetch(&self, slot: u32) {
        self.flows.prefetch(slot);
    }
}

/// The key of a flow whose address of ours is one of IPv6 where `ipv6_locals` has its bit.
#[inline]
pub(super) fn key_of(flow: &Flow, ipv6_locals: u64, peers: &Arena<Address>) -> FlowKey {
    FlowKey {
        remote: remote_of(flow, ipv6_locals, peers),
        remote_port: flow.remote_port,
        local_port: flow.local_port,
        local_index: flow.local_index(),
    }
}

#[inline]
pub(super) fn remote_of(flow: &Flow, ipv6_locals: u64, peers: &Arena<Address>) -> IpAddr {
    if ipv6_locals >> (flow.local_index() % 64) & 1 == 0 {
        return IpAddr::V4(Ipv4Addr::from_bits(flow.remote_address));
    }
    IpAddr::V6(peers.records()[flow.remote_address as usize].bits())
}
