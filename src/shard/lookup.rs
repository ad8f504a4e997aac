//! Where neighbours are, as the kernel knows it: for addresses that it shares with us.
//!
//! Questions from such an address are the kernel's, and so are their answers. In: gateways that would be asked for, and
//! connections whose peers do not answer any more where their frames came from. Out: addresses, once a second each,
//! that whoever drives the shard looks up in the kernel's tables; and what that finds.
//!
//! Invariant: bounded. Connections beyond those that are looked after go on where they are, and follow their peers as
//! soon as these speak.

use std::net::IpAddr;

use super::Shard;
use super::batch::Batch;
use super::tables::Tables;
use crate::flows::{Address, FlowId};
use crate::tcp::{Flow, Time};

/// How often an address is looked up: in so many seconds the kernel gives up a neighbour that is gone, and asks anew.
pub(super) const LOOKS_MAX: u8 = 8;
/// How many connections are looked after at a time.
const DOUBTED_MAX: usize = 64;
/// What is looked up at a time: that, and a gateway of each family.
const WANTED_MAX: usize = DOUBTED_MAX + 2;

/// What is to be looked up.
#[derive(Default)]
pub(super) struct Lookups {
    wanted: Vec<IpAddr>,
    /// Connections whose peers do not answer, and how often these were looked up.
    doubted: Vec<(FlowId, u8)>,
}

impl<S> Shard<S> {
    /// Has `look` find what is to be looked up: the Ethernet address of the neighbour that the kernel would send to for
    /// this address, if the kernel is sure of it. Call it as often as frames are taken out.
    pub fn look_up(&mut self, now: Time, mut look: impl FnMut(IpAddr) -> Option<[u8; 6]>) {
        if self.batch.tables.lookups.wanted.is_empty() {
            return;
        }
        self.in_batch(now, |shard| {
            for address in std::mem::take(&mut shard.batch.tables.lookups.wanted) {
                if let Some(mac) = look(address) {
                    shard.batch.learn_looked_up(address, mac);
                }
            }
        });
    }
}

impl Tables {
    /// Whether questions for a neighbour are the kernel's.
    pub fn is_looked_up(&self, target: IpAddr) -> bool {
        self.asker(target).is_some_and(|asker| self.is_shared(asker))
    }

    /// Whether peers of any connection are to be looked up.
    pub fn has_doubts(&self) -> bool {
        !self.lookups.doubted.is_empty()
    }

    pub fn look_up_later(&mut self, address: IpAddr) {
        let wanted = &mut self.lookups.wanted;
        if wanted.len() < WANTED_MAX && !wanted.contains(&address) {
            wanted.push(address);
        }
    }

    /// The peers of connections that still wait for an answer are to be looked up.
    pub fn look_up_doubted(&mut self) {
        for (id, looks) in std::mem::take(&mut self.lookups.doubted) {
            let waiting = self.flow_of(id).filter(|flow| flow.active().is_some()).map(|flow| self.remote(flow));
            if let Some(remote) = waiting
                && looks < LOOKS_MAX
            {
                self.lookups.doubted.push((id, looks + 1));
                self.look_up_later(remote);
            }
        }
    }
}

impl Batch {
    /// Nothing comes back from a connection's peer: perhaps it is not where it was.
    pub fn doubt_next_hop(&mut self, id: FlowId, flow: &Flow) {
        if self.tables.next_hop(flow.next_hop).asked != Address::NONE {
            return self.tables.ask_again(flow.next_hop);
        }
        let is_shared = self.tables.is_shared(self.tables.local(flow.local_index()));
        let doubted = &mut self.tables.lookups.doubted;
        if is_shared && doubted.len() < DOUBTED_MAX && doubted.iter().all(|&(known, _)| known != id) {
            doubted.push((id, 0));
        }
    }

    /// The kernel sends to this Ethernet address what is for that address.
    fn learn_looked_up(&mut self, address: IpAddr, mac: [u8; 6]) {
        for hop in self.tables.hops_asked(address).collect::<Vec<_>>() {
            let known = self.tables.next_hop(hop);
            // What is doubted is not settled by hearing the same again: the kernel may not have noticed yet.
            if known.is_known == 0 || known.mac != mac {
                self.learn_hop(hop, mac);
            }
        }
        for (id, _) in self.tables.lookups.doubted.clone() {
            let Ok(position) = self.position_of(id) else { continue };
            let flow = &self.touched[position].flow;
            let is_elsewhere = self.tables.next_hop(flow.next_hop).mac != mac;
            if is_elsewhere
                && self.tables.remote(flow) == address
                && let Some(next_hop) = self.tables.next_hop_for(address, mac)
            {
                self.touched[position].flow.next_hop = next_hop;
            }
        }
    }
}
