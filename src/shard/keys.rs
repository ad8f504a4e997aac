//! Keys of flows: how they are found by them, and what is derived from addresses, ports and a secret.

use std::net::{IpAddr, Ipv4Addr};

use super::tables::Tables;
use crate::flows::{Address, Arena, FlowKey, Hashes, Index, KeyHasher};
use crate::tcp::{Cookie, Flow, SeqNum, Time};

impl Tables {
    /// The peer's address.
    #[inline]
    pub fn remote(&self, flow: &Flow) -> IpAddr {
        remote_of(flow, self.ipv6_locals, &self.storage.peers)
    }

    /// The key of the connection in a slot.
    #[inline]
    pub fn key_of(&self, flow: &Flow) -> FlowKey {
        key_of(flow, self.ipv6_locals, &self.storage.peers)
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// The slot of the connection with this key.
    #[inline]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let flows = self.storage.flows.records();
        self.index.find(hash, |slot| self.has_key(&flows[slot as usize], key))
    }

    /// Whether the record in a slot has this key.
    #[inline]
    pub fn is_at(&self, slot: u32, key: &FlowKey) -> bool {
        self.has_key(&self.storage.flows.records()[slot as usize], key)
    }

    /// Whether a flow has this key. Of IPv4 it takes fewer steps than to make the flow's own key.
    #[inline]
    fn has_key(&self, flow: &Flow, key: &FlowKey) -> bool {
        let has_ports = flow.remote_port == key.remote_port && flow.local_port == key.local_port;
        // One address of ours has peers of one family.
        has_ports
            && flow.local_index() == key.local_index
            && match key.remote {
                IpAddr::V4(remote) => flow.remote_address == remote.to_bits(),
                IpAddr::V6(_) => self.remote(flow) == key.remote,
            }
    }

    /// Enters a slot whose record has the key already.
    pub fn insert(&mut self, hash: u64, slot: u32) {
        let (index, hashes) = self.index_and_hashes();
        index.insert(hash, slot, hashes);
    }

    /// Takes out a slot whose record has the key still.
    pub fn remove(&mut self, hash: u64, slot: u32) {
        let (index, hashes) = self.index_and_hashes();
        index.remove(hash, slot, hashes);
    }

    fn index_and_hashes(&mut self) -> (&mut Index, FlowHashes<'_>) {
        let (flows, peers) = (&self.storage.flows, &self.storage.peers);
        (&mut self.index, FlowHashes { flows, peers, hasher: self.hasher, ipv6_locals: self.ipv6_locals })
    }

    /// The initial sequence number of a connection (RFC 6528): a clock of 4 us, offset by a keyed hash of the tuple.
    pub fn initial_sequence_number(&self, key: &FlowKey, now: Time) -> SeqNum {
        SeqNum((self.tuple_hash(key) as u32).wrapping_add((now.0 / 4) as u32))
    }

    /// By how much the timestamps of a connection differ from our clock: every tuple sees another (RFC 7323 §7.1).
    pub fn ts_offset(&self, key: &FlowKey) -> u32 {
        (self.tuple_hash(key) >> 32) as u32
    }

    /// The hash that a cookie carries: of the tuple, the peer's initial sequence number and what the cookie keeps.
    pub fn cookie_hash(&self, key: &FlowKey, irs: SeqNum, cookie: Cookie) -> u64 {
        key.with_bytes(|tuple| {
            let mut bytes = [0; 32];
            let (front, rest) = bytes.split_at_mut(tuple.len());
            front.copy_from_slice(tuple);
            rest[..4].copy_from_slice(&irs.0.to_le_bytes());
            rest[4..8].copy_from_slice(&cookie.epoch.to_le_bytes());
            rest[8] = cookie.kept;
            self.isn_hasher.hash(&bytes[..tuple.len() + 9])
        })
    }

    fn tuple_hash(&self, key: &FlowKey) -> u64 {
        key.with_bytes(|bytes| self.isn_hasher.hash(bytes))
    }
}

/// The hashes of the flows in the table, from their records alone.
struct FlowHashes<'a> {
    flows: &'a Arena<Flow>,
    peers: &'a Arena<Address>,
    hasher: KeyHasher,
    ipv6_locals: u64,
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
fn key_of(flow: &Flow, ipv6_locals: u64, peers: &Arena<Address>) -> FlowKey {
    FlowKey {
        remote: remote_of(flow, ipv6_locals, peers),
        remote_port: flow.remote_port,
        local_port: flow.local_port,
        local_index: flow.local_index(),
    }
}

#[inline]
fn remote_of(flow: &Flow, ipv6_locals: u64, peers: &Arena<Address>) -> IpAddr {
    if ipv6_locals >> (flow.local_index() % 64) & 1 == 0 {
        return IpAddr::V4(Ipv4Addr::from_bits(flow.remote_address));
    }
    IpAddr::V6(peers.records()[flow.remote_address as usize].bits())
}
