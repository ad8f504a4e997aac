//! Paths: claims that a segment was too large for its way, and what is remembered of the way to a peer.
//!
//! What a claim is worth is decided in `tcp::path`; here it finds its connection, and what a connection finds is kept
//! for those that are opened next.

use std::net::IpAddr;

use super::batch::Batch;
use super::tables::Tables;
use crate::flows::FlowKey;
use crate::tcp::{self, Claim, Offer, SeqNum, Time};

impl Tables {
    /// What we offer to a peer that is spoken to for the first time, from this address of ours.
    pub fn offer_to(&self, local_index: u8, remote: IpAddr, now: Time) -> Offer {
        let offer = self.offer(local_index);
        let mtu = self.destinations.mtu(remote, now.seconds(), || self.hash_of_destination(remote));
        let path_mss = mtu.map_or(offer.path_mss, |mtu| mtu.saturating_sub(offer.headers_bytes));
        Offer { path_mss: path_mss.min(offer.path_mss), ..offer }
    }

    fn hash_of_destination(&self, remote: IpAddr) -> u64 {
        self.hash(&FlowKey { remote, remote_port: 0, local_port: 0, local_index: 0 })
    }
}

impl Batch {
    /// Somebody claims that a segment of a touched flow, which is in flight, was too large.
    pub fn receive_too_big(&mut self, position: usize, seq: SeqNum, claim: Claim) {
        let offer = self.offer(position);
        let (flow, active, repair) = self.parts(position);
        let effects = tcp::on_too_big(flow, active, repair, seq, claim, offer);
        self.tables.count(effects.rule);
        self.note_path(position, effects.path_mtu);
    }

    /// A touched flow has found how much gets through to its peer, if it has.
    pub fn note_path(&mut self, position: usize, mtu: Option<u16>) {
        if let Some(mtu) = mtu {
            let remote = self.tables.remote(&self.touched[position].flow);
            let hash = self.tables.hash_of_destination(remote);
            self.tables.destinations.note(remote, mtu, self.now.seconds(), hash);
        }
    }
}
