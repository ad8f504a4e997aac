//! Connections that we open: for an application that also calls out, or a load generator.
//!
//! In: whom to. Out: a connection in SYN-SENT, of which the service and the notices tell when it is open.

use std::net::{IpAddr, SocketAddr};

use super::Shard;
use super::addresses::is_host;
use super::batch::Batch;
use super::service::Service;
use crate::flows::{FlowId, FlowKey};
use crate::tcp::{self, Rule, State, Time};

/// Why a connection cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer's address is a broadcast, multicast or loopback address or our own, or its port is 0 (MUST-46).
    #[error("nobody can be at this address")]
    Remote,
    /// The local address is not one of ours alone, or of another family than the peer's.
    #[error("the local address is not one of the shard's own of that family")]
    Local,
    /// Answers to this port would come to another of the state's shards.
    #[error("a connection from this port belongs to another shard")]
    OtherShard,
    /// There is such a connection already.
    #[error("a connection with these addresses and ports exists")]
    InUse,
    /// No port is free for a connection to this peer.
    #[error("all ports for connections to this peer are taken")]
    NoPort,
    /// No flow, active block or next hop is free.
    #[error("the shard has no room for another connection")]
    NoRoom,
}

/// The ports that are taken where none is named (RFC 6335 §6).
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

impl<S: Service> Shard<S> {
    /// Opens a connection: `Notice::Opened` or `Notice::Closed` tells how it ended. `local` is one of our addresses, or
    /// `None` for the one that is nearest (MUST-43, MUST-44); `local_port` may be 0 for any.
    pub fn connect(
        &mut self,
        now: Time,
        local: Option<IpAddr>,
        local_port: u16,
        remote: impl Into<SocketAddr>,
    ) -> Result<FlowId, ConnectError> {
        self.in_batch(now, |shard| shard.batch.connect(local, local_port, remote.into()))
    }
}

impl<S> Shard<S> {
    /// The initial sequence number that a connection between this end of ours and this peer would get at this time:
    /// for worlds that want it near the wrap.
    pub(crate) fn initial_sequence_number(&self, local: SocketAddr, remote: SocketAddr, now: Time) -> u32 {
        let tables = &self.batch.tables;
        let local_index = tables.local_index(local.ip()).expect("it is one of our addresses");
        let (remote_port, local_port) = (remote.port(), local.port());
        tables.initial_sequence_number(&FlowKey { remote: remote.ip(), remote_port, local_port, local_index }, now).0
    }
}

impl Batch {
    fn connect(&mut self, local: Option<IpAddr>, local_port: u16, remote: SocketAddr) -> Result<FlowId, ConnectError> {
        let address = remote.ip();
        if !is_host(address) || remote.port() == 0 || self.tables.is_no_peer(address) {
            return Err(ConnectError::Remote);
        }
        let local = local.or_else(|| self.tables.nearest_local(address)).ok_or(ConnectError::Local)?;
        let local_index = self.tables.local_index(local).ok_or(ConnectError::Local)?;
        // Of a shared address only the ports that we listen on come to us.
        if local.is_ipv6() != address.is_ipv6() || self.tables.is_shared(local) {
            return Err(ConnectError::Local);
        }
        let key = FlowKey { remote: address, remote_port: remote.port(), local_port, local_index };
        let key = self.with_port(key)?;
        let next_hop = self.tables.next_hop_to(key.remote).ok_or(ConnectError::NoRoom)?;
        if self.tables.active_slots.free() == 0 {
            return Err(ConnectError::NoRoom);
        }
        let iss = self.tables.initial_sequence_number(&key, self.now);
        let position = self.add_flow(&key, self.tables.hash(&key), next_hop).ok_or(ConnectError::NoRoom)?;
        let (offer, now) = (self.offer(position), self.now);
        let touched = &mut self.touched[position];
        touched.active = tcp::on_connect(touched.slot, &mut touched.flow, iss, offer, now);
        touched.offset_timestamps(&self.tables);
        let (slot, hop) = (touched.slot, *self.tables.next_hop(touched.flow.next_hop));
        if hop.is_known == 0 {
            self.tables.connecting.push(slot);
            if let Some(asked) = hop.asked.ip() {
                self.ask_for_hop(asked);
            }
        }
        self.tables.count(Rule::ConnectBegun);
        assert!(self.borrow_active(position), "a block was free, and nobody else has taken it since");
        Ok(self.id(position))
    }

    /// The key with a port that is free for it; the search begins where nobody outside can tell (RFC 6056 §3.3.3).
    fn with_port(&self, key: FlowKey) -> Result<FlowKey, ConnectError> {
        let is_free = |key: &FlowKey| self.tables.find(self.tables.hash(key), key).is_none();
        if key.local_port != 0 && !self.tables.is_own(&key) {
            return Err(ConnectError::OtherShard);
        }
        if key.local_port != 0 {
            return if is_free(&key) { Ok(key) } else { Err(ConnectError::InUse) };
        }
        let count = u32::from(EPHEMERAL_PORTS.end() - EPHEMERAL_PORTS.start()) + 1;
        let start = self.tables.ts_offset(&key).wrapping_add(self.number as u32);
        let port = |step: u32| EPHEMERAL_PORTS.start() + (start.wrapping_add(step) % count) as u16;
        let mut keys = (0..count).map(|step| FlowKey { local_port: port(step), ..key });
        let is_usable = |key: &FlowKey| !self.tables.config.ports.contains(&key.local_port) && self.tables.is_own(key);
        keys.find(|key| is_usable(key) && is_free(key)).ok_or(ConnectError::NoPort)
    }

    /// A next hop is known now: the SYNs that waited for it leave.
    pub fn send_waiting_syns(&mut self, hop: u16) {
        let mut still_waiting = Vec::new();
        for slot in std::mem::take(&mut self.tables.connecting) {
            let flow = &self.tables.storage.flows.records()[slot as usize];
            let is_waiting = flow.is_live() && flow.state() == State::SynSent;
            if is_waiting && (flow.next_hop != hop || !self.has_room()) {
                still_waiting.push(slot);
            } else if is_waiting {
                let position = self.touch(slot);
                let active = &mut self.touched[position].active;
                active.resend_nxt = active.snd_una;
            }
        }
        self.tables.connecting = still_waiting;
    }
}
