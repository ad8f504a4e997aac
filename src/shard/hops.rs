//! Next hops: where frames for peers go.
//!
//! A peer on our own network that speaks first is answered at the Ethernet address that it spoke from; one that we
//! speak to first is asked for by ARP, as the gateway is. An entry is by Ethernet address (`gateway` is 0), or by the
//! IPv4 address that was asked for. The first entry is the gateway's, whether there is one or not.
//!
//! Invariant: only an entry that no committed connection uses is written, and the end of the table after the entry, so
//! that a killed process leaves no half of one that counts.

use super::tables::Tables;
use crate::flows::{NEXT_HOPS_MAX, NextHop};

/// How often a next hop that we know is asked for when it is doubted.
const DOUBTED_ASKS_MAX: u8 = 3;

impl Tables {
    /// Whether a peer is reached through the gateway.
    fn is_behind_gateway(&self, remote: u32) -> bool {
        let is_neighbour = self.config.addresses.iter().any(|&(address, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (address.to_bits() ^ remote) & mask == 0
        });
        self.config.gateway.is_some() && !is_neighbour
    }

    /// The one of our addresses whose network a peer is in, or the first.
    pub fn nearest_local(&self, remote: u32) -> u32 {
        let is_near = |&&(address, prefix): &&(std::net::Ipv4Addr, u8)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (address.to_bits() ^ remote) & mask == 0
        };
        let near = self.config.addresses.iter().find(is_near);
        near.map_or(self.local(0), |(address, _)| address.to_bits())
    }

    /// The next hop for a peer whose frame came from `mac`; `None` where the table is full.
    pub fn next_hop_for(&mut self, remote: u32, mac: [u8; 6]) -> Option<u16> {
        if self.is_behind_gateway(remote) {
            self.learn_gateway(mac);
            return Some(0);
        }
        let end = self.storage.head().next_hops_end;
        let hops = &self.storage.next_hops.records()[..end as usize];
        let is_it = |hop: &NextHop| hop.gateway == 0 && hop.is_known == 1 && hop.mac == mac;
        if !hops.get(usize::from(self.last_next_hop)).is_some_and(is_it) {
            let found = hops.iter().position(is_it).map(|position| position as u16);
            self.last_next_hop = match found {
                Some(index) => index,
                None => self.add_hop(NextHop { mac, is_known: 1, ..NextHop::default() })?,
            };
        }
        self.hand_out(self.last_next_hop);
        Some(self.last_next_hop)
    }

    /// The entry is about to be used, which only the commit counts.
    fn hand_out(&mut self, index: u16) {
        if self.hop_users[usize::from(index)] == 0 && !self.hops_in_batch.contains(&index) {
            self.hops_in_batch.push(index);
        }
    }

    /// The next hop for a peer that we speak to first; it may have to be asked for. `None` where the table is full.
    pub fn next_hop_to(&mut self, remote: u32) -> Option<u16> {
        if self.is_behind_gateway(remote) {
            return Some(0);
        }
        let end = self.storage.head().next_hops_end;
        let hops = &self.storage.next_hops.records()[..end as usize];
        if let Some(found) = hops.iter().skip(1).position(|hop| hop.gateway == remote) {
            self.hand_out(found as u16 + 1);
            return Some(found as u16 + 1);
        }
        let index = self.add_hop(NextHop { gateway: remote, ..NextHop::default() })?;
        self.asked_hops.push((index, 0));
        Some(index)
    }

    fn add_hop(&mut self, hop: NextHop) -> Option<u16> {
        let end = self.storage.head().next_hops_end;
        let index = if end < NEXT_HOPS_MAX { end as u16 } else { self.unused_hop()? };
        self.storage.next_hops.records_mut()[usize::from(index)] = hop;
        self.storage.head_mut().next_hops_end = end.max(u32::from(index) + 1);
        self.hops_in_batch.push(index);
        Some(index)
    }

    /// An entry that no connection uses, neither a committed one nor one of the open batch.
    fn unused_hop(&mut self) -> Option<u16> {
        let is_unused = |&index: &u16| self.hop_users[usize::from(index)] == 0 && !self.hops_in_batch.contains(&index);
        let unused = (1..NEXT_HOPS_MAX as u16).find(is_unused)?;
        self.asked_hops.retain(|&(index, _)| index != unused);
        Some(unused)
    }

    /// A connection is committed: where its frames went, and where they go now, if it was and is one.
    pub fn follow_hop(&mut self, before: Option<u16>, after: Option<u16>) {
        if before == after {
            return;
        }
        if let Some(index) = before {
            self.hop_users[usize::from(index)] = self.hop_users[usize::from(index)].saturating_sub(1);
        }
        if let Some(index) = after {
            self.hop_users[usize::from(index)] += 1;
        }
    }

    /// Where the gateway is, as a frame from behind it shows; what is known already stays.
    fn learn_gateway(&mut self, mac: [u8; 6]) {
        let hop = &mut self.storage.next_hops.records_mut()[0];
        if hop.is_known == 0 {
            hop.mac = mac;
            hop.is_known = 1;
            self.asked_hops.retain(|&(index, _)| index != 0);
        }
    }

    /// Somebody says by ARP where it is. Returns the next hop that this is about, if any.
    pub fn learn_hop(&mut self, address: u32, mac: [u8; 6]) -> Option<u16> {
        let end = self.storage.head().next_hops_end as usize;
        let hops = &mut self.storage.next_hops.records_mut()[..end];
        let index = hops.iter().position(|hop| hop.gateway == address && address != 0)?;
        hops[index].mac = mac;
        hops[index].is_known = 1;
        self.asked_hops.retain(|&(asked, _)| usize::from(asked) != index);
        Some(index as u16)
    }

    /// A next hop.
    pub fn next_hop(&self, index: u16) -> &NextHop {
        &self.storage.next_hops.records()[usize::from(index)]
    }

    /// Nothing comes back from there: it is asked for again, if it was ever asked for.
    pub fn doubt_next_hop(&mut self, index: u16) {
        let is_new = self.asked_hops.iter().all(|&(asked, _)| asked != index);
        if is_new && self.next_hop(index).gateway != 0 {
            self.asked_hops.push((index, 0));
        }
    }

    /// Finds the next hops that are used, and those that are still to be asked for.
    pub fn rebuild_hops(&mut self) {
        let end = self.storage.head().next_hops_end as usize;
        let hops = self.storage.next_hops.records()[..end].iter().enumerate();
        let unknown = hops.filter(|(_, hop)| hop.gateway != 0 && hop.is_known == 0);
        self.asked_hops = unknown.map(|(index, _)| (index as u16, 0)).collect();
        for slot in 0..self.storage.head().flows_end {
            let flow = &self.storage.flows.records()[slot as usize];
            if flow.is_live() {
                self.hop_users[usize::from(flow.next_hop)] += 1;
            }
        }
    }

    /// Whether `hops_to_ask` has any.
    pub fn has_hops_to_ask(&self) -> bool {
        !self.asked_hops.is_empty()
    }

    /// The addresses that are to be asked for now. One that is known, but doubted, is asked for a few times only.
    pub fn hops_to_ask(&mut self) -> Vec<u32> {
        let records = self.storage.next_hops.records();
        let is_known = |index: u16| records[usize::from(index)].is_known == 1;
        self.asked_hops.retain(|&(index, asked)| !is_known(index) || asked < DOUBTED_ASKS_MAX);
        let asks = self.asked_hops.iter_mut().map(|(index, asked)| {
            *asked = asked.saturating_add(1);
            records[usize::from(*index)].gateway
        });
        asks.collect()
    }
}
