//! Places of connections in the tables: taken by those that begin, given up by those that end.
//!
//! A slot for the flow, and over IPv6 a record for the peer's address.

use std::net::IpAddr;

use super::batch::Batch;
use super::copies::TOUCHED_MAX;
use crate::flows::FlowKey;
use crate::tcp::{self, Flow};

impl Batch {
    /// Takes a free slot for a new connection with this key, its hash and its next hop. `None` where there is none. The
    /// caller has still to write its active block.
    pub fn add_flow(&mut self, key: &FlowKey, hash: u64, next_hop: u16) -> Option<usize> {
        if self.touched.len() == TOUCHED_MAX {
            return None;
        }
        let slot = self.tables.flow_slots.take_lowest()?;
        let mut flow = Flow::free(0);
        flow.next_hop = next_hop;
        flow.set_nagle(self.tables.config.nagle);
        flow.set_dscp(self.tables.config.dscp);
        flow.remote_address = self.add_peer(key.remote);
        flow.remote_port = key.remote_port;
        flow.local_port = key.local_port;
        flow.set_local_index(key.local_index);
        let storage = &mut self.tables.storage;
        storage.flows.touch(slot);
        let end = storage.head().flows_end.max(slot + 1);
        storage.head_mut().flows_end = end;
        // The free record gets the key at once, so that the index finds it; it stays free until the batch is applied.
        let record = &mut storage.flows.records_mut()[slot as usize];
        flow.set_generation(record.generation());
        *record = flow;
        self.tables.insert(hash, slot);
        let position = self.touched.add(slot);
        self.tables.trace_flow(position);
        self.touched[position].flow = flow;
        Some(position)
    }

    /// What stands in a flow for the address of its peer. That of IPv6 is written where it belongs: no committed flow
    /// names it yet.
    fn add_peer(&mut self, remote: IpAddr) -> u32 {
        let IpAddr::V4(remote) = remote else {
            let index = self.tables.peer_slots.take_lowest().expect("there is a record for each flow");
            let peers = &mut self.tables.storage.peers;
            peers.touch(index);
            peers.records_mut()[index as usize] = remote.into();
            return index;
        };
        remote.to_bits()
    }

    /// Ends the connection: its slot is free, its queues are released, whoever asks by its id is told it is gone.
    pub fn end_flow(&mut self, position: usize) {
        let touched = &mut self.touched[position];
        let hash = self.tables.hash(&self.tables.key_of(&touched.flow));
        if self.tables.is_ipv6(touched.flow.local_index()) {
            self.freed_peers.push(touched.flow.remote_address);
        }
        self.tables.remove(hash, touched.slot);
        tcp::release_all(&mut touched.active, &mut self.tables.storage.payload);
        if let Some(borrowed) = touched.repair {
            self.repairs[borrowed.position].release_held(&mut self.tables.storage.payload);
        }
        self.return_repair(position);
        let touched = &mut self.touched[position];
        touched.flow = Flow::free(touched.flow.generation().wrapping_add(1) & 0xff_ffff);
        self.freed_flows.push(touched.slot);
        self.freed_actives.extend(touched.active_index.take());
        touched.is_active_new = false;
    }
}
