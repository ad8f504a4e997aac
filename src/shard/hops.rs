//! Next hops: where frames for peers go.
//!
//! A peer on our own network that speaks first is answered at the Ethernet address that it spoke from; one that we
//! speak to first is asked for by ARP or neighbour discovery, or looked up, as the gateways are. An entry is by
//! Ethernet address (`asked` is none), or by the address that was asked for. The first entry is that of the gateway for
//! IPv4, the second that for IPv6, given or learnt from its advertisements, whether there is one or not.
//!
//! Invariant: only an entry that no committed connection uses is written, and the end of the table after the entry, so
//! that a killed process leaves no half of one that counts.

use std::net::IpAddr;

use super::addresses::is_in_network;
use super::lookup::LOOKS_MAX;
use super::tables::Tables;
use crate::flows::{Address, NEXT_HOPS_MAX, NextHop};

/// The entries of the gateways.
pub(super) const GATEWAY_IPV4: u16 = 0;
pub(super) const GATEWAY_IPV6: u16 = 1;
/// The first entry that is no gateway's.
pub(super) const NEIGHBORS_START: u16 = 2;

/// How often a next hop that we know is asked for when it is doubted.
const DOUBTED_ASKS_MAX: u8 = 3;

/// What is known of them beside the table, rebuilt at each start.
pub(super) struct Hops {
    /// The one that was last handed out for where a frame came from.
    last: u16,
    /// How many committed connections use each.
    users: Vec<u32>,
    /// Those that were handed out since the last commit.
    pub in_batch: Vec<u16>,
    /// Those that are to be asked for, and how often they were.
    pub asked: Vec<(u16, u8)>,
}

impl Default for Hops {
    fn default() -> Hops {
        Hops { last: 0, users: vec![0; NEXT_HOPS_MAX as usize], in_batch: Vec::new(), asked: Vec::new() }
    }
}

impl Tables {
    /// The entry of the gateway that a peer is reached through; `None` for a neighbour.
    fn gateway_to(&self, remote: IpAddr) -> Option<u16> {
        let gateway = if remote.is_ipv4() { GATEWAY_IPV4 } else { GATEWAY_IPV6 };
        if self.next_hop(gateway).asked == Address::NONE {
            return None;
        }
        let is_on_link = match remote {
            IpAddr::V4(_) => false,
            IpAddr::V6(remote) => remote.is_unicast_link_local() || self.routers.is_on_link(remote),
        };
        let mut networks = self.config.addresses.iter();
        let is_neighbour = is_on_link || networks.any(|&(address, prefix)| is_in_network(address, remote, prefix));
        (!is_neighbour).then_some(gateway)
    }

    /// The next hop for a peer whose frame came from `mac`; `None` where the table is full.
    pub fn next_hop_for(&mut self, remote: IpAddr, mac: [u8; 6]) -> Option<u16> {
        if let Some(gateway) = self.gateway_to(remote) {
            // It is where a frame from behind it shows; what is known already stays.
            if self.next_hop(gateway).is_known == 0 {
                self.set_hop(gateway, mac);
            }
            return Some(gateway);
        }
        let hops = self.next_hops();
        let is_it = |hop: &NextHop| hop.asked == Address::NONE && hop.is_known == 1 && hop.mac == mac;
        let last = self.hops.last;
        if last < NEIGHBORS_START || !hops.get(usize::from(last)).is_some_and(is_it) {
            let found = hops.iter().skip(usize::from(NEIGHBORS_START)).position(is_it);
            self.hops.last = match found {
                Some(position) => NEIGHBORS_START + position as u16,
                None => self.add_hop(NextHop { mac, is_known: 1, ..NextHop::default() })?,
            };
        }
        self.hand_out(self.hops.last);
        Some(self.hops.last)
    }

    /// The entry is about to be used, which only the commit counts.
    fn hand_out(&mut self, index: u16) {
        if self.hops.users[usize::from(index)] == 0 && !self.hops.in_batch.contains(&index) {
            self.hops.in_batch.push(index);
        }
    }

    /// The next hop for a peer that we speak to first; it may have to be asked for. `None` where the table is full.
    pub fn next_hop_to(&mut self, remote: IpAddr) -> Option<u16> {
        if let Some(gateway) = self.gateway_to(remote) {
            return Some(gateway);
        }
        // A gateway's entry may come to mean another machine.
        let known = self.hops_asked(remote).find(|&index| index >= NEIGHBORS_START);
        if let Some(index) = known {
            self.hand_out(index);
            if self.next_hop(index).is_known == 0 {
                self.ask_again(index);
            }
            return Some(index);
        }
        let index = self.add_hop(NextHop { asked: remote.into(), ..NextHop::default() })?;
        self.hops.asked.push((index, 0));
        Some(index)
    }

    fn add_hop(&mut self, hop: NextHop) -> Option<u16> {
        let end = self.storage.head().next_hops_end;
        let index = if end < NEXT_HOPS_MAX { end as u16 } else { self.unused_hop()? };
        self.storage.next_hops.records_mut()[usize::from(index)] = hop;
        self.storage.head_mut().next_hops_end = end.max(u32::from(index) + 1);
        self.hops.in_batch.push(index);
        Some(index)
    }

    /// An entry that no connection uses, neither a committed one nor one of the open batch.
    fn unused_hop(&mut self) -> Option<u16> {
        let is_unused = |&index: &u16| self.hops.users[usize::from(index)] == 0 && !self.hops.in_batch.contains(&index);
        let unused = (NEIGHBORS_START..NEXT_HOPS_MAX as u16).find(is_unused)?;
        self.hops.asked.retain(|&(index, _)| index != unused);
        Some(unused)
    }

    /// A connection is committed: where its frames went, and where they go now, if it was and is one.
    pub fn follow_hop(&mut self, before: Option<u16>, after: Option<u16>) {
        if before == after {
            return;
        }
        if let Some(index) = before {
            self.hops.users[usize::from(index)] = self.hops.users[usize::from(index)].saturating_sub(1);
        }
        if let Some(index) = after {
            self.hops.users[usize::from(index)] += 1;
        }
    }

    /// The next hops that were asked for by this address: a gateway may be a peer, too.
    pub fn hops_asked(&self, address: IpAddr) -> impl Iterator<Item = u16> {
        let asked = Address::from(address);
        let is_it = move |hop: &NextHop| hop.asked == asked && asked != Address::NONE;
        self.next_hops().iter().zip(0..).filter_map(move |(hop, index)| is_it(hop).then_some(index))
    }

    /// A next hop is at this Ethernet address.
    pub fn set_hop(&mut self, index: u16, mac: [u8; 6]) {
        let hop = &mut self.storage.next_hops.records_mut()[usize::from(index)];
        hop.mac = mac;
        hop.is_known = 1;
        self.hops.asked.retain(|&(asked, _)| asked != index);
    }

    /// All next hops.
    fn next_hops(&self) -> &[NextHop] {
        &self.storage.next_hops.records()[..self.storage.head().next_hops_end as usize]
    }

    /// A next hop.
    pub fn next_hop(&self, index: u16) -> &NextHop {
        &self.storage.next_hops.records()[usize::from(index)]
    }

    /// Nothing comes back from there: it is asked for again, if it was ever asked for.
    pub fn ask_again(&mut self, index: u16) {
        let is_new = self.hops.asked.iter().all(|&(asked, _)| asked != index);
        if is_new && self.next_hop(index).asked != Address::NONE {
            self.hops.asked.push((index, 0));
        }
    }

    /// Finds the next hops that are used, and those that are still to be asked for.
    pub fn rebuild_hops(&mut self) {
        let unknown =
            self.next_hops().iter().enumerate().filter(|(_, hop)| hop.asked != Address::NONE && hop.is_known == 0);
        self.hops.asked = unknown.map(|(index, _)| (index as u16, 0)).collect();
        for slot in 0..self.storage.head().flows_end {
            let flow = &self.storage.flows.records()[slot as usize];
            if flow.is_live() {
                self.hops.users[usize::from(flow.next_hop)] += 1;
            }
        }
    }

    /// Whether `hops_to_ask` has any.
    pub fn has_hops_to_ask(&self) -> bool {
        !self.hops.asked.is_empty() || self.has_doubts()
    }

    /// The addresses that are to be asked for now, as long as a connection goes there, and gateways in any case. One
    /// that is known, but doubted, is asked for a few times only.
    pub fn hops_to_ask(&mut self) -> Vec<IpAddr> {
        let mut asked = std::mem::take(&mut self.hops.asked);
        asked.retain(|&(index, times)| {
            let hop = self.next_hop(index);
            let is_looked_up = hop.asked.ip().is_some_and(|address| self.is_looked_up(address));
            let is_used = index < NEIGHBORS_START || self.hops.users[usize::from(index)] > 0;
            is_used && (hop.is_known == 0 || times < if is_looked_up { LOOKS_MAX } else { DOUBTED_ASKS_MAX })
        });
        self.hops.asked = asked;
        let records = self.storage.next_hops.records();
        let asks = self.hops.asked.iter_mut().filter_map(|(index, asked)| {
            *asked = asked.saturating_add(1);
            records[usize::from(*index)].asked.ip()
        });
        let mut asks: Vec<IpAddr> = asks.collect();
        asks.sort_unstable();
        asks.dedup();
        asks
    }
}
